//! Predicts how long a collection takes with given workers, and how many workers a given time needs.
//!
//! A fluid model: photos flow between queues at rates that are constant until a queue runs empty, so a billion photos
//! cost no more to predict than a thousand. It omits the variance of single photos, and photos in a delay queue; both
//! matter only when few photos are left. `docs/scaling.md` compares its predictions with real runs.

use crate::domain::StageName;

mod metrics;

pub use metrics::{Measured, MetricsError, measured};

/// The workers of one stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StagePool {
    pub measured: Measured,
    pub workers: u64,
    /// Photos that one worker processes at the same time.
    pub slots: u64,
}

impl StagePool {
    /// Seconds that a photo occupies a slot.
    pub fn slot_seconds(&self) -> f64 {
        self.measured.seconds + self.measured.overhead
    }
}

/// The workers of an installation, and the photos to process.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub photos: f64,
    /// In the order of [`StageName::ALL`].
    pub stages: [StagePool; 4],
    /// Limit of photos a second that fetch may start, however many workers it has: the limit of the hosts.
    pub host_rate: f64,
    /// Cores shared by all workers; infinite unless they run on one machine.
    pub cores: f64,
}

/// The prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Seconds until the last photo has ended.
    pub seconds: f64,
    /// Photos that reach each stage.
    pub photos: [f64; 4],
    /// Share of the time in which a stage's slots are occupied.
    pub busy: [f64; 4],
    /// Seconds of CPU of all workers together.
    pub cpu_seconds: f64,
    pub bottleneck: Bottleneck,
}

/// What limits the throughput.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bottleneck {
    Stage(StageName),
    /// The request rate of the hosts; more fetch workers do not help.
    Hosts,
    /// The cores of the machine; more workers do not help.
    Cores,
}

impl Plan {
    /// Predicts the run.
    ///
    /// # Panics
    /// A stage has no workers, or a time is not positive. Callers must check their input.
    pub fn predict(&self) -> Forecast {
        let mut waiting = [self.photos, 0.0, 0.0, 0.0];
        let (mut taken, mut cpu_seconds) = ([0.0; 4], 0.0);
        let mut elapsed = 0.0;
        let mut longest = (0.0, Bottleneck::Stage(StageName::Fetch));
        // Each phase ends when a queue runs empty, and an empty queue refills at most as often as one before it
        // changes. The bound only guards against rounding.
        for _ in 0..64 {
            let Flow { rates, bottleneck } = self.flow(&waiting);
            let change = std::array::from_fn(|k| inflow(self, &rates, k) - rates[k]);
            let Some(phase) = until_empty(&waiting, &change) else { break };
            elapsed += phase;
            for k in 0..4 {
                let left: f64 = waiting[k] + change[k] * phase;
                waiting[k] = if left < self.photos * 1e-9 { 0.0 } else { left };
                taken[k] += rates[k] * self.stages[k].slot_seconds() * phase;
            }
            cpu_seconds += self.cores_used(&rates) * phase;
            if phase > longest.0 {
                longest = (phase, bottleneck);
            }
        }
        // The last photo still passes all stages.
        elapsed += self.stages.iter().map(StagePool::slot_seconds).sum::<f64>();
        let busy = std::array::from_fn(|k| taken[k] / (self.capacity(k) * elapsed));
        Forecast { seconds: elapsed, photos: self.reach(), busy, cpu_seconds, bottleneck: longest.1 }
    }

    /// Returns the smallest pools that finish within `seconds`. None: the hosts or the cores alone take longer.
    pub fn pools_for(&self, seconds: f64) -> Option<Self> {
        let mut plan = self.clone();
        for (k, photos) in self.reach().into_iter().enumerate() {
            let stage = &mut plan.stages[k];
            stage.workers = (photos * stage.slot_seconds() / (stage.slots as f64 * seconds)).ceil().max(1.0) as u64;
        }
        loop {
            let predicted = plan.predict();
            if predicted.seconds <= seconds {
                return Some(plan);
            }
            let Bottleneck::Stage(name) = predicted.bottleneck else { return None };
            let stage = &mut plan.stages[name as usize];
            if stage.workers > MAX_WORKERS {
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

    /// Returns the rates while these queues have photos. The cores are shared in proportion to the busy slots.
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
            // On a share of a core, computing takes longer, waiting does not.
            let longer = self.stages[k].measured.cpu * (1.0 / share - 1.0);
            let most = self.capacity(k) / (self.stages[k].slot_seconds() + longer);
            let most = if k == 0 { most.min(self.host_rate) } else { most };
            rates[k] = if waiting[k] > 0.0 { most } else { most.min(inflow(self, &rates, k)) };
        }
        rates
    }

    fn cores_used(&self, rates: &[f64; 4]) -> f64 {
        (0..4).map(|k| rates[k] * self.stages[k].measured.cpu).sum()
    }

    /// Returns the last stage with waiting photos: all stages after it keep up.
    fn narrowest(&self, waiting: &[f64; 4], rates: &[f64; 4]) -> Bottleneck {
        // A growing queue limits more than an earlier one.
        let grows = |k: &usize| waiting[*k] > 0.0 || inflow(self, rates, *k) > rates[*k] * (1.0 + 1e-9);
        match (0..4).rev().find(grows) {
            Some(0) if rates[0] >= self.host_rate => Bottleneck::Hosts,
            found => Bottleneck::Stage(StageName::ALL[found.unwrap_or(0)]),
        }
    }
}

const MAX_WORKERS: u64 = 1_000_000;

struct Flow {
    rates: [f64; 4],
    bottleneck: Bottleneck,
}

fn inflow(plan: &Plan, rates: &[f64; 4], k: usize) -> f64 {
    if k == 0 { 0.0 } else { rates[k - 1] * plan.stages[k - 1].measured.passed }
}

/// Returns the seconds until the next queue runs empty. None: no queue shrinks.
fn until_empty(waiting: &[f64; 4], change: &[f64; 4]) -> Option<f64> {
    let empty = |(level, change): (&f64, &f64)| (*level > 0.0 && *change < 0.0).then(|| level / -change);
    waiting.iter().zip(change).filter_map(empty).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(photos: f64, seconds: [f64; 4], workers: [u64; 4]) -> Plan {
        let stage = |k: usize| StagePool {
            measured: Measured {
                seconds: seconds[k],
                overhead: 0.0,
                cpu: if k == 0 { 0.0 } else { seconds[k] },
                passed: 1.0,
            },
            workers: workers[k],
            slots: 1,
        };
        Plan { photos, stages: std::array::from_fn(stage), host_rate: f64::INFINITY, cores: f64::INFINITY }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn slowest_stage_is_the_bottleneck() {
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
    fn rejected_photos_cost_later_stages_nothing() {
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
    fn waiting_needs_no_core() {
        let mut plan = plan(1000.0, [0.5, 0.1, 0.001, 0.001], [64, 8, 8, 8]);
        (plan.stages[0].measured.cpu, plan.stages[1].measured.cpu) = (0.01, 0.04);
        plan.cores = 1.0;
        let predicted = plan.predict();
        assert_eq!(predicted.bottleneck, Bottleneck::Cores);
        close(predicted.seconds, 1000.0 * 0.052 + 0.602);
        plan.cores = 8.0;
        close(plan.predict().seconds, 1000.0 * 0.1 / 8.0 + 0.602);
    }

    #[test]
    fn ledger_and_broker_take_time_and_no_cpu() {
        let mut slow = plan(1000.0, [0.001, 0.1, 0.02, 0.03], [1; 4]);
        slow.stages.iter_mut().for_each(|stage| stage.measured.overhead = 0.01);
        let predicted = slow.predict();
        close(predicted.seconds, 1000.0 * 0.11 + 0.191);
        close(predicted.cpu_seconds, 1000.0 * 0.15);
    }

    #[test]
    fn host_rate_limits_fetch() {
        let mut host_rate = plan(1000.0, [0.1, 0.001, 0.001, 0.001], [100, 1, 1, 1]);
        host_rate.host_rate = 20.0;
        let predicted = host_rate.predict();
        close(predicted.seconds, 50.0 + 0.103);
        assert_eq!(predicted.bottleneck, Bottleneck::Hosts);
        assert_eq!(host_rate.pools_for(40.0), None);
        assert_eq!(host_rate.pools_for(60.0).unwrap().stages[0].workers, 2);
    }

    #[test]
    fn pools_for_a_billion_photos_in_a_week() {
        let week = 7.0 * 86_400.0;
        let pools = plan(1e9, [0.3, 0.016, 0.012, 0.01], [1; 4]).pools_for(week).unwrap();
        let predicted = pools.predict();
        assert!(predicted.seconds <= week && predicted.seconds > 0.9 * week, "{predicted:?}");
        let mut fewer = pools.clone();
        fewer.stages[1].workers -= 1;
        assert!(fewer.predict().seconds > 0.99 * week, "the pools are not much too large");
    }
}
