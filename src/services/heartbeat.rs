//! Reports a worker to its installation, every few seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cluster::Workers;
use crate::cluster::workers::WorkerReport;
use crate::domain::StageName;
use crate::domain::clock::now;
use crate::pipeline::event::{Observer, PhotoEvent};
use crate::redis::RedisClient;

/// Counts the photos that a worker processes and has processed.
#[derive(Debug, Default)]
pub struct DeliveryTally {
    in_flight: AtomicU64,
    done: AtomicU64,
}

impl Observer for DeliveryTally {
    fn on_event(&self, _: &PhotoEvent<'_>) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn on_delivery(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn on_done(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reports of one worker process.
pub struct Heartbeat {
    redis: Arc<RedisClient>,
    tally: Arc<DeliveryTally>,
    name: String,
    stages: Vec<StageName>,
    since: u64,
}

impl Heartbeat {
    pub fn new(redis: Arc<RedisClient>, tally: Arc<DeliveryTally>, name: &str, stages: &[StageName]) -> Self {
        let mut stages = stages.to_vec();
        stages.sort_unstable();
        stages.dedup();
        Self { redis, tally, name: name.to_owned(), stages, since: now().as_secs() }
    }

    /// Reports until it is dropped. A report that fails is skipped: the next one says as much.
    pub async fn run(self: Arc<Self>) {
        let workers = Workers::new(&self.redis);
        let mut ticks = tokio::time::interval(Workers::PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = workers.report(&self.report()).await {
                tracing::debug!(%error, "cannot report this worker");
            }
        }
    }

    fn report(&self) -> WorkerReport {
        WorkerReport {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            stages: self.stages.clone(),
            since: self.since,
            in_flight: self.tally.in_flight.load(Ordering::Relaxed),
            done: self.tally.done.load(Ordering::Relaxed),
        }
    }

    /// Removes the worker from the list. If this fails, the list drops it a few seconds later.
    pub async fn leave(&self) {
        let _ = tokio::time::timeout(Workers::PERIOD, Workers::new(&self.redis).remove(&self.name)).await;
    }
}
