//! What a worker has done, in numbers for Prometheus: its text format, version 0.0.4.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Mutex;

use super::event::{Happened, Observer};
use crate::photo::StageName;

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the histogram's buckets, in seconds: from a decision without pixels to a stage's time limit.
const BOUNDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Counts since the process began, for its stages.
#[derive(Debug)]
pub struct Metrics {
    stages: Mutex<BTreeMap<StageName, Numbers>>,
}

#[derive(Debug, Default)]
struct Numbers {
    in_flight: i64,
    /// By outcome and slug of the cause.
    photos: BTreeMap<(&'static str, String), u64>,
    /// How many took as long as a bound and longer than the bound before; the last for those beyond all.
    took: [u64; BOUNDS.len() + 1],
    took_ms: u64,
}

impl Numbers {
    /// Series of one stage. Causes are a few dozen; should a stranger's text become one, it does not cost memory.
    const MAX_SERIES: usize = 200;

    fn count(&mut self, outcome: &'static str, cause: &str) {
        let known = self.photos.len() < Self::MAX_SERIES || self.photos.contains_key(&(outcome, cause.to_owned()));
        let cause = if known { cause } else { "other" };
        *self.photos.entry((outcome, cause.to_owned())).or_default() += 1;
    }

    fn time(&mut self, took_ms: u32) {
        let seconds = f64::from(took_ms) / 1000.0;
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.took[bucket] += 1;
        self.took_ms += u64::from(took_ms);
    }
}

impl Metrics {
    /// Every stage is there from the start, so that a rate is known from its first photo on.
    pub fn new(stages: &[StageName]) -> Self {
        Self { stages: Mutex::new(stages.iter().map(|stage| (*stage, Numbers::default())).collect()) }
    }

    fn change(&self, stage: StageName, change: impl FnOnce(&mut Numbers)) {
        let mut stages = self.stages.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        change(stages.entry(stage).or_default());
    }

    /// All numbers, as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let stages = self.stages.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        head(text, "facemill_build_info", "gauge", "The version that runs.")?;
        writeln!(text, "facemill_build_info{{version=\"{}\"}} 1", escape(env!("CARGO_PKG_VERSION")))?;
        head(text, "facemill_in_flight", "gauge", "Photos that are worked on now.")?;
        for (stage, numbers) in stages.iter() {
            writeln!(text, "facemill_in_flight{{stage=\"{stage}\"}} {}", numbers.in_flight)?;
        }
        head(text, "facemill_photos_total", "counter", "Photos that a stage was done with, or will try again.")?;
        for (stage, numbers) in stages.iter() {
            for ((outcome, cause), count) in &numbers.photos {
                let cause = escape(cause);
                writeln!(
                    text,
                    "facemill_photos_total{{stage=\"{stage}\",outcome=\"{outcome}\",cause=\"{cause}\"}} {count}"
                )?;
            }
        }
        head(text, "facemill_stage_seconds", "histogram", "How long a stage took over a photo.")?;
        for (stage, numbers) in stages.iter() {
            let mut count = 0;
            for (bucket, photos) in numbers.took.iter().enumerate() {
                count += photos;
                let bound = BOUNDS.get(bucket).map_or("+Inf".to_owned(), f64::to_string);
                writeln!(text, "facemill_stage_seconds_bucket{{stage=\"{stage}\",le=\"{bound}\"}} {count}")?;
            }
            let sum = numbers.took_ms as f64 / 1000.0;
            writeln!(text, "facemill_stage_seconds_sum{{stage=\"{stage}\"}} {sum}")?;
            writeln!(text, "facemill_stage_seconds_count{{stage=\"{stage}\"}} {count}")?;
        }
        Ok(())
    }
}

impl Observer for Metrics {
    fn happened(&self, happened: &Happened<'_>) {
        let event = happened.event;
        self.change(event.stage, |numbers| {
            numbers.count(event.what.as_str(), event.cause.as_ref().map_or("", |cause| &cause.slug));
            numbers.time(event.took_ms);
        });
    }

    fn taken(&self, stage: StageName) {
        self.change(stage, |numbers| numbers.in_flight += 1);
    }

    fn put_down(&self, stage: StageName) {
        self.change(stage, |numbers| numbers.in_flight -= 1);
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// The value of a label.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Event, Happening};
    use crate::photo::{Candidate, Cause, Photo, RunName};

    fn happen(metrics: &Metrics, what: Happening, slug: Option<&str>, took_ms: u32) {
        let candidate = Candidate {
            photo_id: 1.into(),
            face_id: 1.into(),
            label_id: 1.into(),
            label_name: None,
            photo_url: "http://photos.test/1.jpg".into(),
            source_url: None,
            posted_at: None,
        };
        let photo = Photo::new(RunName::default(), candidate);
        let cause = slug.map(|slug| Cause::new(slug, "a detail"));
        let event = Event { at_ms: 1, stage: StageName::Fetch, attempt: 1, what, cause, took_ms };
        metrics.happened(&Happened { photo: &photo, event: &event });
    }

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let metrics = Metrics::new(&[StageName::Fetch]);
        happen(&metrics, Happening::Advanced, None, 5);
        happen(&metrics, Happening::Advanced, None, 6);
        happen(&metrics, Happening::Gone, Some("http-404"), 200_000);
        happen(&metrics, Happening::Failed, Some("a \"b\"\\\n"), 0);
        metrics.taken(StageName::Fetch);
        metrics.taken(StageName::Fetch);
        metrics.put_down(StageName::Fetch);
        let expected = format!(
            r#"# HELP facemill_build_info The version that runs.
# TYPE facemill_build_info gauge
facemill_build_info{{version="{}"}} 1
# HELP facemill_in_flight Photos that are worked on now.
# TYPE facemill_in_flight gauge
facemill_in_flight{{stage="fetch"}} 1
# HELP facemill_photos_total Photos that a stage was done with, or will try again.
# TYPE facemill_photos_total counter
facemill_photos_total{{stage="fetch",outcome="advanced",cause=""}} 2
facemill_photos_total{{stage="fetch",outcome="failed",cause="a \"b\"\\\n"}} 1
facemill_photos_total{{stage="fetch",outcome="gone",cause="http-404"}} 1
# HELP facemill_stage_seconds How long a stage took over a photo.
# TYPE facemill_stage_seconds histogram
facemill_stage_seconds_bucket{{stage="fetch",le="0.005"}} 2
facemill_stage_seconds_bucket{{stage="fetch",le="0.01"}} 3
"#,
            env!("CARGO_PKG_VERSION")
        );
        let text = metrics.text();
        assert!(text.starts_with(&expected), "{text}");
        let end = r#"facemill_stage_seconds_bucket{stage="fetch",le="120"} 3
facemill_stage_seconds_bucket{stage="fetch",le="+Inf"} 4
facemill_stage_seconds_sum{stage="fetch"} 200.011
facemill_stage_seconds_count{stage="fetch"} 4
"#;
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn causes_without_end_take_no_memory_without_end() {
        let metrics = Metrics::new(&[StageName::Fetch]);
        for number in 0..1000 {
            happen(&metrics, Happening::Failed, Some(&format!("cause-{number}")), 1);
        }
        happen(&metrics, Happening::Failed, Some("cause-3"), 1);
        let text = metrics.text();
        assert!(text.contains("cause=\"other\"} 800\n") && text.contains("cause=\"cause-3\"} 2\n"), "{text}");
        assert_eq!(text.matches("facemill_photos_total{").count(), Numbers::MAX_SERIES + 1);
    }
}
