//! The workers of an installation. Each reports every few seconds. A worker without a recent report is removed.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};
use serde::{Deserialize, Serialize};

use super::keys;
use crate::domain::StageName;
use crate::redis::RedisClient;
use crate::server_error::ServerError;

static REPORT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/report.lua")));
static LIST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/list.lua")));

/// A worker's report on itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Unique among all processes.
    pub name: String,
    pub version: String,
    pub stages: Vec<StageName>,
    /// Start of the worker in seconds since 1970, by its own clock.
    pub since: u64,
    /// Photos that the worker is processing.
    pub in_flight: u64,
    /// Deliveries that the worker has processed since its start.
    pub done: u64,
}

/// A worker with a recent report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveWorker {
    #[serde(flatten)]
    pub report: WorkerReport,
    /// Seconds since its last report.
    pub last_seen: u64,
}

/// The list of an installation's workers.
pub struct Workers<'a> {
    redis: &'a RedisClient,
    /// A worker is removed this long after its last report.
    memory: Duration,
}

impl<'a> Workers<'a> {
    /// Time between two reports of a worker.
    pub const PERIOD: Duration = Duration::from_secs(3);
    pub const MEMORY: Duration = Duration::from_secs(15);

    pub fn new(redis: &'a RedisClient) -> Self {
        Self::with_memory(redis, Self::MEMORY)
    }

    pub fn with_memory(redis: &'a RedisClient, memory: Duration) -> Self {
        Self { redis, memory }
    }

    fn keys(&self) -> [String; 2] {
        let prefix = self.redis.prefix();
        [keys::worker_report_times(prefix), keys::worker_reports(prefix)]
    }

    fn memory(&self) -> Vec<u8> {
        self.memory.as_millis().to_string().into()
    }

    pub async fn report(&self, report: &WorkerReport) -> Result<(), ServerError> {
        const WHAT: &str = "report a worker";
        let json = serde_json::to_vec(report).map_err(|error| self.redis.refused(WHAT, error))?;
        let arguments = [report.name.as_bytes().to_vec(), json, self.memory()];
        self.redis.script(WHAT, &REPORT, &self.keys(), &arguments).await.map(drop)
    }

    /// Removes a worker that has ended.
    pub async fn remove(&self, name: &str) -> Result<(), ServerError> {
        let arguments = [name.as_bytes().to_vec(), Vec::new(), self.memory()];
        self.redis.script("remove a worker", &REPORT, &self.keys(), &arguments).await.map(drop)
    }

    /// The workers with a recent report, by name.
    pub async fn active(&self) -> Result<Vec<ActiveWorker>, ServerError> {
        const WHAT: &str = "list the workers";
        let value: Value = self.redis.script(WHAT, &LIST, &self.keys(), &[self.memory()]).await?;
        let rows: Vec<(u64, String)> =
            redis::from_redis_value(value).map_err(|error| self.redis.refused(WHAT, error))?;
        let read = |(ago_ms, json): (u64, String)| {
            // A report in the format of a later version is left out.
            let report = serde_json::from_str(&json).ok()?;
            Some(ActiveWorker { report, last_seen: ago_ms / 1000 })
        };
        let mut workers: Vec<ActiveWorker> = rows.into_iter().filter_map(read).collect();
        workers.sort_by(|a, b| a.report.name.cmp(&b.report.name));
        Ok(workers)
    }
}
