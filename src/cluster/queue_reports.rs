//! The depths of all queues, measured by one worker for all workers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys;
use crate::broker::Depth;
use crate::domain::StageName;
use crate::redis::RedisClient;
use crate::server_error::ServerError;

/// The contents of the queues of an installation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    pub depths: Vec<Depth>,
    /// When the oldest waiting photo of each stage became due, over all runs, in seconds since 1970.
    pub due_since: BTreeMap<StageName, u64>,
}

/// The report that the workers of an installation share in Redis.
pub struct QueueReports<'a> {
    redis: &'a RedisClient,
}

impl<'a> QueueReports<'a> {
    /// A report is valid for this long. So the queues are measured at most this often, for any number of workers.
    pub const VALIDITY: Duration = Duration::from_secs(10);
    /// A claim expires after this time, in case its worker has crashed.
    pub const CLAIM: Duration = Duration::from_secs(10);

    pub fn new(redis: &'a RedisClient) -> Self {
        Self { redis }
    }

    /// The valid report, if there is one.
    pub async fn read(&self) -> Result<Option<QueueReport>, ServerError> {
        let key = keys::queue_report(self.redis.prefix());
        let json: Option<String> = self.redis.command("read the queue report", redis::cmd("GET").arg(key)).await?;
        // A report in the format of another version counts as missing.
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Claims the measurement. Returns whether this worker must measure the queues now.
    pub async fn claim(&self) -> Result<bool, ServerError> {
        let key = keys::queue_claim(self.redis.prefix());
        let mut command = redis::cmd("SET");
        command.arg(key).arg(1).arg("NX").arg("PX").arg(Self::CLAIM.as_millis() as u64);
        let set: Option<String> = self.redis.command("claim the queue report", &command).await?;
        Ok(set.is_some())
    }

    /// Stores a report. The claim stays until it expires: a worker that looked for a report just before this would
    /// claim the measurement again.
    pub async fn write(&self, report: &QueueReport) -> Result<(), ServerError> {
        const WHAT: &str = "write the queue report";
        let json = serde_json::to_string(report).map_err(|error| self.redis.refused(WHAT, error))?;
        let prefix = self.redis.prefix();
        let mut command = redis::cmd("SET");
        command.arg(keys::queue_report(prefix)).arg(json).arg("PX").arg(Self::VALIDITY.as_millis() as u64);
        self.redis.command(WHAT, &command).await
    }
}
