//! Who is at work in an installation: every worker says so every few seconds, and who falls silent is forgotten.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};
use serde::{Deserialize, Serialize};

use super::keys;
use crate::domain::StageName;
use crate::ledger::LedgerError;
use crate::redis::RedisClient;

static BEAT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/beat.lua")));
static SEEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/seen.lua")));

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Unique among all processes.
    pub name: String,
    pub version: String,
    pub stages: Vec<StageName>,
    /// Seconds since 1970, UTC, by the worker's clock.
    pub since: u64,
    /// Photos it works on now.
    pub in_flight: u64,
    /// Steps of photos that it has finished since it began.
    pub done: u64,
}

/// A worker that was heard of lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    #[serde(flatten)]
    pub report: Report,
    /// Seconds since it was last heard of.
    pub last_seen: u64,
}

/// The list of an installation's workers.
pub struct Workers<'a> {
    redis: &'a RedisClient,
    /// Who was silent for that long is not at work.
    memory: Duration,
}

impl<'a> Workers<'a> {
    /// Between two reports of a worker.
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

    pub async fn report(&self, report: &Report) -> Result<(), LedgerError> {
        const WHAT: &str = "report a worker";
        let json = serde_json::to_vec(report).map_err(|error| self.redis.refused(WHAT, error))?;
        let arguments = [report.name.as_bytes().to_vec(), json, self.memory()];
        self.redis.script(WHAT, &BEAT, &self.keys(), &arguments).await.map(drop)
    }

    /// The worker has ended.
    pub async fn leave(&self, name: &str) -> Result<(), LedgerError> {
        let arguments = [name.as_bytes().to_vec(), Vec::new(), self.memory()];
        self.redis.script("strike off a worker", &BEAT, &self.keys(), &arguments).await.map(drop)
    }

    /// Those that were heard of lately, by name.
    pub async fn seen(&self) -> Result<Vec<Seen>, LedgerError> {
        const WHAT: &str = "list the workers";
        let value: Value = self.redis.script(WHAT, &SEEN, &self.keys(), &[self.memory()]).await?;
        let answers: Vec<(u64, String)> =
            redis::from_redis_value(value).map_err(|error| self.redis.refused(WHAT, error))?;
        let read = |(ago_ms, json): (u64, String)| {
            // One that a later version reports in other words is left out.
            let report = serde_json::from_str(&json).ok()?;
            Some(Seen { report, last_seen: ago_ms / 1000 })
        };
        let mut seen: Vec<Seen> = answers.into_iter().filter_map(read).collect();
        seen.sort_by(|a, b| a.report.name.cmp(&b.report.name));
        Ok(seen)
    }
}
