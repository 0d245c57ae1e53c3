//! Progress bars, on terminals only.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::domain::{Ending, StageName};
use crate::ledger::{Counts, EventKind};
use crate::pipeline::event::{Observer, PhotoEvent};
use crate::source::Progress;
use crate::telemetry::Sink;

/// All progress bars of a command. Log lines do not disturb them.
#[derive(Debug, Clone)]
pub struct Bars(MultiProgress);

impl Bars {
    /// Bars on standard error if that is a terminal and `wanted`.
    pub fn new(wanted: bool) -> Self {
        let target = match wanted && io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self(MultiProgress::with_draw_target(target))
    }

    /// The sink for log lines while bars are drawn.
    pub fn sink(&self) -> Sink {
        let bars = self.0.clone();
        std::sync::Arc::new(move |line| bars.suspend(|| io::stderr().write_all(line)))
    }

    /// A bar of `total` things, with rate and time left.
    pub fn count(&self, what: &'static str, total: u64) -> ProgressBar {
        let bar = self.0.add(ProgressBar::new(total));
        bar.set_style(style("{prefix:9} {wide_bar} {human_pos} of {human_len}, {rate}, {eta} left {msg}"));
        bar.set_prefix(what);
        bar
    }

    /// A bar for reading a dump.
    pub fn reading(&self) -> Reading {
        Reading { bar: self.0.add(ProgressBar::no_length()) }
    }

    pub fn clear(&self) {
        // A hidden bar needs no redraw.
        let _ = self.0.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are valid")
        .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
            let _ = write!(text, "{:.1}/s", state.per_sec());
        })
        .progress_chars("━╸─")
}

/// The progress of reading a dump.
pub struct Reading {
    bar: ProgressBar,
}

impl Reading {
    pub fn show(&self, progress: Progress) {
        if self.bar.is_hidden() {
            return;
        }
        if self.bar.position() == 0 {
            self.bar.set_style(style(match progress.total {
                Some(_) => "dump      {wide_bar} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left, {msg}",
                None => "dump      {spinner} {bytes}, {binary_bytes_per_sec}, {msg}",
            }));
        }
        if let Some(total) = progress.total {
            self.bar.set_length(total);
        }
        self.bar.set_position(progress.bytes);
        self.bar.set_message(format!("{} rows", progress.rows));
    }

    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// One bar for each stage, and one for the photos that have ended.
pub struct Board {
    stages: BTreeMap<StageName, StageRow>,
    ended: ProgressBar,
}

struct StageRow {
    bar: ProgressBar,
    tally: Mutex<BTreeMap<&'static str, u64>>,
    arrived: AtomicU64,
}

impl StageRow {
    fn arrive(&self, photos: u64) {
        self.bar.set_length(self.arrived.fetch_add(photos, Ordering::Relaxed) + photos);
    }

    fn note(&self, what: &'static str, photos: u64) {
        let mut tally = self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *tally.entry(what).or_default() += photos;
        let words: Vec<String> = tally.iter().map(|(what, count)| format!("{count} {what}")).collect();
        self.bar.set_message(words.join(", "));
    }
}

impl Board {
    /// Starts from the counts of the ledger.
    pub fn new(bars: &Bars, counts: &Counts) -> Self {
        let row = |stage: StageName| {
            let bar = bars.count(stage.as_str(), 0);
            (stage, StageRow { bar, tally: Mutex::default(), arrived: AtomicU64::new(0) })
        };
        let stages: BTreeMap<_, _> = StageName::ALL.into_iter().map(row).collect();
        let ended = bars.count("photos", counts.candidates);
        ended.inc(counts.ended.values().sum());
        let mut arrived = counts.candidates;
        for (stage, row) in &stages {
            row.arrive(arrived);
            let waiting = counts.waiting.get(stage).copied().unwrap_or(0);
            row.bar.inc(arrived - waiting);
            let mut left = 0;
            for cause in counts.causes.iter().filter(|cause| cause.stage == *stage) {
                left += cause.count;
                row.note(cause.ending.as_str(), cause.count);
            }
            arrived -= waiting + left;
        }
        if let (Some(classify), Some(&predicted)) =
            (stages.get(&StageName::Classify), counts.ended.get(&Ending::Predicted))
        {
            classify.note(Ending::Predicted.as_str(), predicted);
        }
        // Photos that ended earlier do not count in the rate.
        stages.values().map(|row| &row.bar).chain([&ended]).for_each(ProgressBar::reset_eta);
        Self { stages, ended }
    }
}

impl Observer for Board {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        let event = event.event;
        let Some(row) = self.stages.get(&event.stage) else { return };
        match event.what {
            EventKind::Enqueued => {}
            EventKind::Advanced => {
                row.bar.inc(1);
                if let Some(next) = event.stage.next().and_then(|next| self.stages.get(&next)) {
                    next.arrive(1);
                }
            }
            EventKind::Retried => row.note("tried again", 1),
            ended => {
                row.bar.inc(1);
                row.note(ended.as_str(), 1);
                self.ended.inc(1);
            }
        }
    }
}
