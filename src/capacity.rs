//! How long a collection takes with so many workers, and how many workers it takes for a time.
//!
//! A fluid model: queues are water levels and workers are pumps. Between two moments at which a queue runs dry all
//! rates are constant, so that a billion photos cost no more to predict than a thousand. What it leaves out: the
//! variance of single photos, and photos that wait in a delay queue; both matter only when few photos are left.
//! `docs/scaling.md` compares its predictions with real runs.

use std::collections::BTreeMap;

use crate::ledger::Happening;
use crate::photo::StageName;

/// What a stage costs and what becomes of its photos, as measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Seconds that the stage takes over one photo, all attempts together.
    pub seconds: f64,
    /// Share of the photos that go on to the next stage, 0 to 1.
    pub passed: f64,
}

/// A stage as it is manned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manned {
    pub measured: Measured,
    pub workers: u64,
    /// Photos that one worker has in hand at the same time.
    pub slots: u64,
    /// Seconds that a photo keeps its slot before and after the stage: ledger, broker, acknowledgement. Waiting, not CPU.
    pub overhead: f64,
}

impl Manned {
    /// Seconds that a photo keeps a slot.
    pub fn taken(&self) -> f64 {
        self.measured.seconds + self.overhead
    }
}

/// An installation and its work.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub photos: f64,
    /// In the order of [`StageName::ALL`].
    pub stages: [Manned; 4],
    /// Photos a second that fetch may begin at most, however many workers it has: what the hosts are spared.
    pub polite: f64,
    /// Cores that detect, crop and classify share, where they are on one machine.
    pub cores: f64,
}

/// What will happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Seconds until the last photo has ended.
    pub seconds: f64,
    /// Photos that reach each stage.
    pub photos: [f64; 4],
    /// Share of that time in which a stage's slots are taken.
    pub busy: [f64; 4],
    /// Seconds of detect, crop and classify together: CPU time, where every slot has its core.
    pub cpu_seconds: f64,
    pub bottleneck: Bottleneck,
}

/// What to change first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bottleneck {
    Stage(StageName),
    /// More fetch workers would not help: the hosts are asked as often as is polite.
    Hosts,
    /// More workers would not help: the machine's cores are taken.
    Cores,
}

impl Plan {
    /// # Panics
    /// When nobody works on a stage, or a time is not positive: callers check what people write.
    pub fn predict(&self) -> Prediction {
        let mut waiting = [self.photos, 0.0, 0.0, 0.0];
        let (mut taken, mut cpu_seconds) = ([0.0; 4], 0.0);
        let mut elapsed = 0.0;
        let mut longest = (0.0, Bottleneck::Stage(StageName::Fetch));
        // Each phase ends with a queue that has run dry, and a dry queue fills again at most as often as one before it
        // changes; the bound only guards against rounding.
        for _ in 0..64 {
            let Flow { rates, bottleneck } = self.flow(&waiting);
            let change = std::array::from_fn(|k| inflow(self, &rates, k) - rates[k]);
            let Some(phase) = until_dry(&waiting, &change) else { break };
            elapsed += phase;
            for k in 0..4 {
                let left: f64 = waiting[k] + change[k] * phase;
                waiting[k] = if left < self.photos * 1e-9 { 0.0 } else { left };
                taken[k] += rates[k] * self.stages[k].taken() * phase;
            }
            cpu_seconds += self.cores_used(&rates) * phase;
            if phase > longest.0 {
                longest = (phase, bottleneck);
            }
        }
        // The last photo still has to pass what is before it.
        elapsed += self.stages.iter().map(Manned::taken).sum::<f64>();
        let busy = std::array::from_fn(|k| taken[k] / (self.capacity(k) * elapsed));
        Prediction { seconds: elapsed, photos: self.reach(), busy, cpu_seconds, bottleneck: longest.1 }
    }

    /// The fewest workers that are done within `seconds`; none when politeness or cores alone take longer.
    pub fn manned_for(&self, seconds: f64) -> Option<Self> {
        let mut plan = self.clone();
        for (k, photos) in self.reach().into_iter().enumerate() {
            let stage = &mut plan.stages[k];
            stage.workers = (photos * stage.taken() / (stage.slots as f64 * seconds)).ceil().max(1.0) as u64;
        }
        loop {
            let predicted = plan.predict();
            if predicted.seconds <= seconds {
                return Some(plan);
            }
            let Bottleneck::Stage(name) = predicted.bottleneck else { return None };
            let stage = &mut plan.stages[name as usize];
            if stage.workers > MOST_WORKERS {
                return None;
            }
            stage.workers += stage.workers.div_ceil(50);
        }
    }

    fn capacity(&self, k: usize) -> f64 {
        (self.stages[k].workers * self.stages[k].slots) as f64
    }

    fn reach(&self) -> [f64; 4] {
        let mut photos = self.photos;
        self.stages.map(|stage| {
            let reached = photos;
            photos *= stage.measured.passed;
            reached
        })
    }

    /// Rates while these queues have photos: the cores are shared in proportion to the slots that want them.
    fn flow(&self, waiting: &[f64; 4]) -> Flow {
        let full = self.rates(waiting, 1.0);
        if self.cores_used(&full) <= self.cores {
            return Flow { rates: full, bottleneck: self.narrowest(waiting, &full) };
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match self.cores_used(&self.rates(waiting, middle)) <= self.cores {
                true => low = middle,
                false => high = middle,
            }
        }
        Flow { rates: self.rates(waiting, low), bottleneck: Bottleneck::Cores }
    }

    fn rates(&self, waiting: &[f64; 4], share: f64) -> [f64; 4] {
        let mut rates = [0.0; 4];
        for k in 0..4 {
            let share = if k == 0 { 1.0 } else { share };
            let Manned { measured, overhead, .. } = self.stages[k];
            let most = self.capacity(k) / (measured.seconds / share + overhead);
            let most = if k == 0 { most.min(self.polite) } else { most };
            rates[k] = if waiting[k] > 0.0 { most } else { most.min(inflow(self, &rates, k)) };
        }
        rates
    }

    fn cores_used(&self, rates: &[f64; 4]) -> f64 {
        (1..4).map(|k| rates[k] * self.stages[k].measured.seconds).sum()
    }

    /// The last stage that has photos waiting: everything behind it keeps up.
    fn narrowest(&self, waiting: &[f64; 4], rates: &[f64; 4]) -> Bottleneck {
        // A queue that grows holds up more than one before it.
        let grows = |k: &usize| waiting[*k] > 0.0 || inflow(self, rates, *k) > rates[*k] * (1.0 + 1e-9);
        match (0..4).rev().find(grows) {
            Some(0) if rates[0] >= self.polite => Bottleneck::Hosts,
            found => Bottleneck::Stage(StageName::ALL[found.unwrap_or(0)]),
        }
    }
}

const MOST_WORKERS: u64 = 1_000_000;

struct Flow {
    rates: [f64; 4],
    bottleneck: Bottleneck,
}

fn inflow(plan: &Plan, rates: &[f64; 4], k: usize) -> f64 {
    if k == 0 { 0.0 } else { rates[k - 1] * plan.stages[k - 1].measured.passed }
}

/// Seconds until the next queue runs dry; none when none does.
fn until_dry(waiting: &[f64; 4], change: &[f64; 4]) -> Option<f64> {
    let dry = |(level, change): (&f64, &f64)| (*level > 0.0 && *change < 0.0).then(|| level / -change);
    waiting.iter().zip(change).filter_map(dry).min_by(f64::total_cmp)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("line {0} is not a line of Prometheus's text format: {1}")]
    Line(usize, String),
    #[error("there is nothing about the stage {0}: give the metrics of a worker that has worked on it")]
    Nothing(StageName),
}

/// What the workers of a run measured, from what their `/metrics` answered: one text a worker.
pub fn measured(texts: &[String]) -> Result<[Measured; 4], ReadError> {
    #[derive(Default)]
    struct Sums {
        seconds: f64,
        advanced: f64,
        ended: f64,
    }
    const SECONDS: &str = "facemill_stage_duration_seconds_sum";
    let mut sums: BTreeMap<StageName, Sums> = BTreeMap::new();
    for text in texts {
        for (number, line) in text.lines().enumerate() {
            let wrong = || ReadError::Line(number + 1, line.chars().take(80).collect());
            if let Some(waited) = line.strip_prefix("facemill_host_wait_seconds_sum ") {
                // Who waits for his host takes no place from anybody.
                let waited: f64 = waited.trim().parse().ok().filter(|waited: &f64| *waited >= 0.0).ok_or_else(wrong)?;
                sums.entry(StageName::Fetch).or_default().seconds -= waited;
                continue;
            }
            let Some((name, rest)) = line.split_once('{') else { continue };
            if name != SECONDS && name != "facemill_photos_total" {
                continue;
            }
            let (labels, value) = rest.rsplit_once("} ").ok_or_else(wrong)?;
            let label = |key: &str| {
                let from = labels.find(&format!("{key}=\""))? + key.len() + 2;
                labels[from..].split('"').next()
            };
            let stage: StageName = label("facemill_stage").and_then(|name| name.parse().ok()).ok_or_else(wrong)?;
            let value: f64 = value.trim().parse().ok().filter(|value: &f64| *value >= 0.0).ok_or_else(wrong)?;
            let sums = sums.entry(stage).or_default();
            if name == SECONDS {
                sums.seconds += value;
                continue;
            }
            let what: Happening = label("facemill_outcome").and_then(|what| what.parse().ok()).ok_or_else(wrong)?;
            match what {
                Happening::Retried | Happening::Enqueued => (),
                Happening::Advanced => (sums.advanced, sums.ended) = (sums.advanced + value, sums.ended + value),
                _ => sums.ended += value,
            }
        }
    }
    let mut all = [Measured { seconds: 0.0, passed: 0.0 }; 4];
    for stage in StageName::ALL {
        let found = sums.get(&stage).filter(|sums| sums.ended > 0.0).ok_or(ReadError::Nothing(stage))?;
        all[stage as usize] = Measured {
            // A stage whose photos all took less than the clock's step still takes some time.
            seconds: (found.seconds / found.ended).max(1e-6),
            passed: found.advanced / found.ended,
        };
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(photos: f64, seconds: [f64; 4], workers: [u64; 4]) -> Plan {
        let stage = |k: usize| Manned {
            measured: Measured { seconds: seconds[k], passed: 1.0 },
            workers: workers[k],
            slots: 1,
            overhead: 0.0,
        };
        Plan { photos, stages: std::array::from_fn(stage), polite: f64::INFINITY, cores: f64::INFINITY }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn the_slowest_stage_sets_the_pace() {
        let predicted = plan(1000.0, [0.01, 0.10, 0.02, 0.03], [1, 1, 1, 1]).predict();
        close(predicted.seconds, 1000.0 * 0.10 + 0.16);
        assert_eq!(predicted.bottleneck, Bottleneck::Stage(StageName::Detect));
        close(predicted.cpu_seconds, 1000.0 * 0.15);
        assert!(predicted.busy[1] > 0.99 && predicted.busy[0] < 0.11, "{predicted:?}");
        let more = plan(1000.0, [0.01, 0.10, 0.02, 0.03], [1, 4, 1, 1]).predict();
        close(more.seconds, 1000.0 * 0.03 + 0.16);
        assert_eq!(more.bottleneck, Bottleneck::Stage(StageName::Classify));
    }

    #[test]
    fn who_does_not_get_on_costs_the_later_stages_nothing() {
        let mut half = plan(1000.0, [0.01, 0.02, 0.1, 0.1], [1; 4]);
        half.stages[1].measured.passed = 0.5;
        let predicted = half.predict();
        assert_eq!(predicted.photos, [1000.0, 1000.0, 500.0, 500.0]);
        close(predicted.seconds, 500.0 * 0.1 + 0.23);
    }

    #[test]
    fn cores_are_shared() {
        // 0.3 s of CPU a photo on two cores.
        let mut one_machine = plan(1000.0, [0.001, 0.1, 0.1, 0.1], [1, 8, 8, 8]);
        one_machine.cores = 2.0;
        let predicted = one_machine.predict();
        close(predicted.seconds, 1000.0 * 0.3 / 2.0 + 0.301);
        assert_eq!(predicted.bottleneck, Bottleneck::Cores);
    }

    #[test]
    fn ledger_and_broker_take_time_and_no_cpu() {
        let mut slow = plan(1000.0, [0.001, 0.1, 0.02, 0.03], [1; 4]);
        slow.stages.iter_mut().for_each(|stage| stage.overhead = 0.01);
        let predicted = slow.predict();
        close(predicted.seconds, 1000.0 * 0.11 + 0.191);
        close(predicted.cpu_seconds, 1000.0 * 0.15);
    }

    #[test]
    fn politeness_cannot_be_bought() {
        let mut polite = plan(1000.0, [0.1, 0.001, 0.001, 0.001], [100, 1, 1, 1]);
        polite.polite = 20.0;
        let predicted = polite.predict();
        close(predicted.seconds, 50.0 + 0.103);
        assert_eq!(predicted.bottleneck, Bottleneck::Hosts);
        assert_eq!(polite.manned_for(40.0), None);
        assert_eq!(polite.manned_for(60.0).unwrap().stages[0].workers, 2);
    }

    #[test]
    fn a_billion_photos_are_manned_for_a_week() {
        let week = 7.0 * 86_400.0;
        let manned = plan(1e9, [0.3, 0.016, 0.012, 0.01], [1; 4]).manned_for(week).unwrap();
        let predicted = manned.predict();
        assert!(predicted.seconds <= week && predicted.seconds > 0.9 * week, "{predicted:?}");
        let mut fewer = manned.clone();
        fewer.stages[1].workers -= 1;
        assert!(fewer.predict().seconds > 0.99 * week, "not many workers too many");
    }

    #[test]
    fn what_workers_measured_is_summed_up() {
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
        let mut texts = vec![
            text("fetch", 10, gone),
            text("fetch", 15, "facemill_host_wait_seconds_sum 1.5\n"),
            text("detect", 10, ""),
            text("crop", 10, ""),
            text("classify", 0, predicted),
        ];
        let all = measured(&texts).unwrap();
        assert_eq!(all[0], Measured { seconds: 0.15, passed: 25.0 / 30.0 });
        assert_eq!(all[3], Measured { seconds: 0.5, passed: 0.0 });
        texts.remove(2);
        assert_eq!(measured(&texts), Err(ReadError::Nothing(StageName::Detect)));
        let bad = "facemill_stage_duration_seconds_sum{facemill_stage=\"detect\"} much".to_owned();
        assert!(matches!(measured(&[bad]), Err(ReadError::Line(1, _))));
    }
}
