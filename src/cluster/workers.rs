//! The workers of an installation: each reports every few seconds; one without a recent report is removed.

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
pub struct Report {
    /// Unique among all processes.
    pub name: String,
    pub version: String,
    pub stages: Vec<StageName>,
    /// Seconds since 1970, UTC, by the worker's clock.
    pub since: u64,
    /// Photos that it processes now.
    pub in_flight: u64,
    /// Deliveries that it has processed since it started.
    pub done: u64,
}

/// A worker with a recent report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    #[serde(flatten)]
    pub report: Report,
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
        [keys::workers_seen(prefix), keys::workers(prefix)]
    }

    fn memory(&self) -> Vec<u8> {
        self.memory.as_millis().to_string().into()
    }

    pub async fn report(&self, report: &Report) -> Result<(), ServerError> {
        const WHAT: &str = "report a worker";
        let json = serde_json::to_vec(report).map_err(|error| self.redis.refused(WHAT, error))?;
        let arguments = [report.name.as_bytes().to_vec(), json, self.memory()];
        self.redis.script(WHAT, &REPORT, &self.keys(), &arguments).await.map(drop)
    }

    /// Removes a worker that has ended.
    pub async fn leave(&self, name: &str) -> Result<(), ServerError> {
        let arguments = [name.as_bytes().to_vec(), Vec::new(), self.memory()];
        self.redis.script("remove a worker", &REPORT, &self.keys(), &arguments).await.map(drop)
    }

    /// The workers with a recent report, by name.
    pub async fn seen(&self) -> Result<Vec<Seen>, ServerError> {
        const WHAT: &str = "list the workers";
        let value: Value = self.redis.script(WHAT, &LIST, &self.keys(), &[self.memory()]).await?;
        let answers: Vec<(u64, String)> =
            redis::from_redis_value(value).map_err(|error| self.redis.refused(WHAT, error))?;
        let read = |(ago_ms, json): (u64, String)| {
            // A report in the format of a later version is left out.
            let report = serde_json::from_str(&json).ok()?;
            Some(Seen { report, last_seen: ago_ms / 1000 })
        };
        let mut seen: Vec<Seen> = answers.into_iter().filter_map(read).collect();
        seen.sort_by(|a, b| a.report.name.cmp(&b.report.name));
        Ok(seen)
    }
}
