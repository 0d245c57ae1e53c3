//! Reads the measurements of workers from their `/metrics`.

use std::collections::BTreeMap;

use crate::domain::StageName;
use crate::ledger::EventKind;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    #[error("line {0} is not in Prometheus's text format: {1}")]
    Line(usize, String),
    #[error("no measurements of the stage {0}: give the metrics of a worker that has run it")]
    MissingStage(StageName),
}

/// The measured cost of a stage, and the share of photos that pass it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Seconds in the stage per photo, all attempts together.
    pub seconds: f64,
    /// Seconds per photo before and after the stage: ledger, broker, acknowledgement.
    pub overhead: f64,
    /// Seconds of CPU per photo, overhead included.
    pub cpu: f64,
    /// Share of the photos that advance to the next stage, 0 to 1.
    pub passed: f64,
}

/// Sums up the measurements of workers: one text of `/metrics` each.
pub fn measured(texts: &[String]) -> Result<[Measured; 4], MetricsError> {
    let mut sums = [StageSums::default(); 4];
    for text in texts {
        for (stage, of_worker) in read(text)? {
            sums[stage as usize].add(of_worker);
        }
    }
    let mut all = [Measured { seconds: 0.0, overhead: 0.0, cpu: 0.0, passed: 0.0 }; 4];
    for stage in StageName::ALL {
        let found =
            Some(sums[stage as usize]).filter(|sums| sums.ended > 0.0).ok_or(MetricsError::MissingStage(stage))?;
        all[stage as usize] = found.per_photo(stage);
    }
    Ok(all)
}

/// The sums over workers for one stage. Times in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct StageSums {
    seconds: f64,
    /// Part of `seconds` spent waiting for the host limiter.
    waited: f64,
    /// From receiving the message to its acknowledgement, the stage included.
    delivery: f64,
    advanced: f64,
    ended: f64,
    cpu: f64,
    /// Photos processed by workers whose CPU time is known.
    with_cpu: f64,
}

impl StageSums {
    fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.waited += other.waited;
        self.delivery += other.delivery;
        self.advanced += other.advanced;
        self.ended += other.ended;
        self.cpu += other.cpu;
        self.with_cpu += other.with_cpu;
    }

    fn per_photo(self, stage: StageName) -> Measured {
        // Waiting for a host occupies no slot. The minimum covers photos that take less than the clock's resolution.
        let seconds = ((self.seconds - self.waited) / self.ended).max(1e-6);
        let overhead = ((self.delivery - self.seconds) / self.ended).max(0.0);
        let cpu = match self.with_cpu {
            0.0 if stage == StageName::Fetch => 0.0,
            0.0 => seconds,
            photos => self.cpu / photos,
        };
        Measured { seconds, overhead, cpu, passed: self.advanced / self.ended }
    }
}

/// Reads the stages of one worker. The CPU time is the process's, so it is assigned only if there is one stage.
fn read(text: &str) -> Result<BTreeMap<StageName, StageSums>, MetricsError> {
    let mut stages: BTreeMap<StageName, StageSums> = BTreeMap::new();
    let mut cpu = 0.0;
    for (number, line) in text.lines().enumerate() {
        let wrong = || MetricsError::Line(number + 1, line.chars().take(80).collect());
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        if !READ.contains(&name) {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or_else(wrong)?;
        let value: f64 = value.parse().ok().filter(|value: &f64| *value >= 0.0).ok_or_else(wrong)?;
        let label = |key: &str| {
            let from = series.find(&format!("{key}=\""))? + key.len() + 2;
            series[from..].split('"').next()
        };
        let stage = || label("facemill_stage").and_then(|name| name.parse().ok()).ok_or_else(wrong);
        match name {
            CPU => cpu += value,
            HOST_WAIT => stages.entry(StageName::Fetch).or_default().waited += value,
            DELIVERY => stages.entry(stage()?).or_default().delivery += value,
            DURATION => stages.entry(stage()?).or_default().seconds += value,
            _ => {
                let sums = stages.entry(stage()?).or_default();
                let what: EventKind = label("facemill_outcome").and_then(|what| what.parse().ok()).ok_or_else(wrong)?;
                match what {
                    EventKind::Retried | EventKind::Enqueued => (),
                    EventKind::Advanced => (sums.advanced, sums.ended) = (sums.advanced + value, sums.ended + value),
                    _ => sums.ended += value,
                }
            }
        }
    }
    if let (1, Some(only)) = (stages.len(), stages.values_mut().next())
        && cpu > 0.0
    {
        (only.cpu, only.with_cpu) = (cpu, only.ended);
    }
    Ok(stages)
}

const CPU: &str = "process_cpu_time_seconds_total";
const DURATION: &str = "facemill_stage_duration_seconds_sum";
const HOST_WAIT: &str = "facemill_host_wait_seconds_sum";
const DELIVERY: &str = "messaging_process_duration_seconds_sum";
const PHOTOS: &str = "facemill_photos_total";
const READ: [&str; 5] = [CPU, DURATION, HOST_WAIT, DELIVERY, PHOTOS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_of_workers_are_summed() {
        let text = |stage: &str, advanced: u32, rest: &str| {
            format!(
                "# TYPE facemill_photos_total counter\nfacemill_in_flight{{facemill_stage=\"{stage}\"}} 0\n\
                 facemill_photos_total{{facemill_stage=\"{stage}\",facemill_outcome=\"advanced\",facemill_cause=\"\"}} {advanced}\n{rest}\
                 facemill_stage_duration_seconds_sum{{facemill_stage=\"{stage}\"}} 3\n"
            )
        };
        let gone = "facemill_photos_total{facemill_stage=\"fetch\",facemill_outcome=\"gone\",facemill_cause=\"http-404\"} 5\n\
                    facemill_photos_total{facemill_stage=\"fetch\",facemill_outcome=\"retried\",facemill_cause=\"http-503\"} 9\n";
        let predicted =
            "facemill_photos_total{facemill_stage=\"classify\",facemill_outcome=\"predicted\",facemill_cause=\"\"} 6\n";
        let of_process = "process_cpu_time_seconds_total{cpu_mode=\"user\"} 1.5\n\
                          process_cpu_time_seconds_total{cpu_mode=\"system\"} 0.5\n\
                          messaging_process_duration_seconds_sum{facemill_stage=\"detect\"} 4\n";
        let mut texts = vec![
            text("fetch", 10, gone),
            text("fetch", 15, "facemill_host_wait_seconds_sum 1.5\n"),
            text("detect", 10, of_process),
            text("crop", 10, ""),
            text("classify", 0, predicted),
        ];
        let all = measured(&texts).unwrap();
        assert_eq!(all[0], Measured { seconds: 0.15, overhead: 0.0, cpu: 0.0, passed: 25.0 / 30.0 });
        assert_eq!(all[1], Measured { seconds: 0.3, overhead: 0.1, cpu: 0.2, passed: 1.0 });
        assert_eq!(all[3], Measured { seconds: 0.5, overhead: 0.0, cpu: 0.5, passed: 0.0 });
        let together = texts.concat() + "process_cpu_time_seconds_total{cpu_mode=\"user\"} 9\n";
        assert_eq!(measured(&[together]).unwrap()[1].cpu, 0.3, "the CPU time of two stages cannot be split");
        texts.remove(2);
        assert_eq!(measured(&texts), Err(MetricsError::MissingStage(StageName::Detect)));
        let bad = "facemill_stage_duration_seconds_sum{facemill_stage=\"detect\"} much".to_owned();
        assert!(matches!(measured(&[bad]), Err(MetricsError::Line(1, _))));
    }
}
