//! The status of a run in numbers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use super::run_target::RunTarget;
use crate::archive::rescores::{Rescore, Rescores};
use crate::broker::rabbitmq::{RabbitMq, ScoreDepth};
use crate::cluster::workers::ActiveWorker;
use crate::cluster::{Pauses, Workers};
use crate::dataset::placeholder::Placeholders;
use crate::domain::clock::now;
use crate::domain::{Ending, RunName, StageName};
use crate::ledger::{CauseCount, Counts};
use crate::redis::RedisClient;
use crate::server_error::ServerError;

/// The status of a run.
#[derive(Debug, Serialize)]
pub struct RunStatus {
    pub run: RunName,
    /// Whether a process works on the run; none if unknown.
    #[serde(rename = "at_work")]
    pub is_active: Option<bool>,
    /// The settings that shape the crops of the run, by name. Empty: the run has none yet.
    pub settings: serde_json::Map<String, serde_json::Value>,
    pub candidates: u64,
    pub ended: BTreeMap<Ending, u64>,
    /// Since the previous status, for a caller that repeats.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    pub stages: BTreeMap<StageName, StageStatus>,
    /// Whose messages `ready`, `in_flight`, `delayed` and `dead_letters` count. All other numbers are of the run.
    pub queues_of: QueuesOf,
    pub dead_letters: u64,
    /// The most frequent first.
    pub causes: Vec<CauseCount>,
    /// Of the run with further models, as their commands saw them, the latest first.
    pub rescores: Vec<Rescore>,
    /// As of the run's index, which only `faces` and `report` bring up to date; none without an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placeholders: Option<Placeholders>,
    /// Of the installation, for all runs.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterStatus>,
    /// What could not be read, and why; its numbers are zero here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<&'static str, String>,
}

/// Whose messages are in the queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueuesOf {
    Run,
    /// The runs of an installation share its queues.
    AllRuns,
}

/// The workers and pauses of an installation.
#[derive(Debug, Serialize)]
pub struct ClusterStatus {
    pub workers: Vec<ActiveWorker>,
    pub paused: Pauses,
    /// Crops that wait to be scored again, of all runs.
    pub rescore_queue: ScoreDepth,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    pub ready: u64,
    pub in_flight: u64,
    /// Waiting for the time of their next attempt.
    pub delayed: u64,
    /// Advanced to the next stage, or predicted.
    pub passed: u64,
    /// Ended at this stage otherwise.
    pub ended: u64,
    /// Age of the oldest photo that is due at this stage, in seconds; none if no photo is due.
    pub oldest: Option<u64>,
}

/// How fast photos end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pace {
    /// Photos a second.
    pub rate: f64,
    /// None: no photo ends.
    pub seconds_left: Option<u64>,
}

impl Pace {
    /// `ended` photos had ended `elapsed` ago. Photos that were requeued since do not count.
    pub fn between(ended: u64, now: &RunStatus, elapsed: Duration) -> Self {
        let rate = now.ended_photos().saturating_sub(ended) as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = now.candidates.saturating_sub(now.ended_photos());
        let seconds_left = match left {
            0 => Some(0),
            _ => (rate > 0.0).then(|| (left as f64 / rate).ceil() as u64),
        };
        Self { rate, seconds_left }
    }
}

impl RunStatus {
    /// What the servers say. A server that does not answer is listed in `missing`; a folder must be readable.
    pub async fn read(target: &RunTarget) -> Result<Self, ServerError> {
        let mut missing = Missing::default();
        let is_folder = target.folder().is_some();
        let counts = target.ledger.counts(&target.run).await;
        let counts = if is_folder { counts? } else { missing.or_default("photos", counts) };
        let mut stages = stages(&counts);
        let mut dead_letters = 0;
        let now = now().as_secs();
        for (stage, since) in missing.or_default("photos", target.ledger.due_since(&target.run).await) {
            stages.entry(stage).or_default().oldest = now.checked_sub(since);
        }
        for depth in missing.or_default("queues", target.depths().await) {
            match depth.stage.and_then(|stage| stages.get_mut(&stage)) {
                Some(stage) => {
                    (stage.ready, stage.in_flight, stage.delayed) = (depth.ready, depth.in_flight, depth.delayed);
                    stage.oldest = stage.oldest.or(depth.oldest_age);
                }
                None => dead_letters = depth.ready,
            }
        }
        let Counts { candidates, ended, mut causes, .. } = counts;
        causes.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.code, &a.host).cmp(&(&b.code, &b.host))));
        let (run, is_active) = (target.run.clone(), target.is_active());
        let cluster = match (target.redis(), target.rabbitmq()) {
            (Some(redis), Some(broker)) => ClusterStatus::read(redis, broker, &mut missing).await,
            _ => None,
        };
        let rescores = missing.or_default("rescores", Rescores::new(target.objects.clone()).all(&run).await);
        let settings = missing.or_default("settings", target.settings().await);
        let queues_of = if is_folder { QueuesOf::Run } else { QueuesOf::AllRuns };
        let (pace, placeholders) = (None, None);
        Ok(Self {
            run,
            is_active,
            settings,
            candidates,
            ended,
            pace,
            stages,
            queues_of,
            dead_letters,
            causes,
            rescores,
            placeholders,
            cluster,
            missing: missing.0,
        })
    }

    /// The number of photos that have ended.
    pub fn ended_photos(&self) -> u64 {
        self.ended.values().sum()
    }
}

impl ClusterStatus {
    /// None: Redis does not answer.
    async fn read(redis: &RedisClient, broker: &RabbitMq, missing: &mut Missing) -> Option<Self> {
        let workers = missing.or_none("workers", Workers::new(redis).active().await)?;
        let paused = missing.or_none("pauses", Pauses::read(redis).await)?;
        Some(Self { workers, paused, rescore_queue: missing.or_default("queues", broker.score_depth().await) })
    }
}

/// What could not be read, and why, by its name.
#[derive(Debug, Default)]
struct Missing(BTreeMap<&'static str, String>);

impl Missing {
    fn or_none<T, E: Display>(&mut self, what: &'static str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.0.entry(what).or_insert_with(|| error.to_string())).ok()
    }

    fn or_default<T: Default, E: Display>(&mut self, what: &'static str, read: Result<T, E>) -> T {
        self.or_none(what, read).unwrap_or_default()
    }
}

/// How many photos passed each stage or ended there.
fn stages(counts: &Counts) -> BTreeMap<StageName, StageStatus> {
    let mut arrived = counts.candidates;
    let status = |stage: StageName| {
        let waiting = counts.waiting.get(&stage).copied().unwrap_or(0);
        let ended = counts.causes.iter().filter(|cause| cause.stage == stage).map(|cause| cause.count).sum();
        let passed = arrived.saturating_sub(waiting + ended);
        arrived = passed;
        (stage, StageStatus { passed, ended, ..StageStatus::default() })
    };
    StageName::ALL.into_iter().map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;
    use crate::domain::CauseCode;
    use crate::ledger::Ledger;
    use crate::services::fixture::Fixture;

    #[tokio::test]
    async fn the_status_counts_stages_queues_and_causes() {
        let fixture = Fixture::new().await;
        fixture.end(1, Ending::Failed, CauseCode::Http(500)).await;
        fixture.end(2, Ending::Gone, CauseCode::Http(404)).await;
        fixture.end(3, Ending::Gone, CauseCode::Http(404)).await;
        fixture.ledger.register(&fixture.run, &[fixture.message(4).photo.candidate], 5).await.unwrap();
        fixture.broker.publish(&fixture.message(4)).await.unwrap();
        let status = RunStatus::read(&*fixture.close().await).await.unwrap();
        assert_eq!((status.candidates, status.ended_photos(), status.dead_letters), (4, 3, 1));
        assert_eq!(status.is_active, Some(false));
        let fetch = &status.stages[&StageName::Fetch];
        assert_eq!((fetch.ready, fetch.passed, fetch.ended), (1, 0, 3));
        assert!(fetch.oldest.is_some());
        assert_eq!(status.stages[&StageName::Detect], StageStatus::default());
        let causes: Vec<(&CauseCode, u64)> = status.causes.iter().map(|cause| (&cause.code, cause.count)).collect();
        assert_eq!(causes, [(&CauseCode::Http(404), 2), (&CauseCode::Http(500), 1)]);
        assert!(status.cluster.is_none());
        assert_eq!(status.queues_of, QueuesOf::Run);
    }

    #[test]
    fn the_pace_gives_rate_and_time_left() {
        let status = RunStatus {
            run: RunName::default(),
            is_active: None,
            settings: serde_json::Map::new(),
            candidates: 100,
            ended: BTreeMap::from([(Ending::Gone, 10), (Ending::Predicted, 30)]),
            pace: None,
            stages: BTreeMap::new(),
            queues_of: QueuesOf::Run,
            dead_letters: 0,
            causes: Vec::new(),
            rescores: Vec::new(),
            placeholders: None,
            cluster: None,
            missing: BTreeMap::new(),
        };
        let elapsed = Duration::from_secs(4);
        assert_eq!(Pace::between(20, &status, elapsed), Pace { rate: 5.0, seconds_left: Some(12) });
        assert_eq!(Pace::between(40, &status, elapsed), Pace { rate: 0.0, seconds_left: None });
        assert_eq!(Pace::between(50, &status, elapsed).rate, 0.0, "a retry does not make the rate negative");
        let done = RunStatus { candidates: 40, ..status };
        assert_eq!(Pace::between(40, &done, elapsed).seconds_left, Some(0));
    }
}
