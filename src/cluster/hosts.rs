//! Whose turn it is at a host, kept in Redis for all fetch workers of an installation.
//!
//! A turn is a lease in a sorted set, scored with the moment at which it must be over: who dies holding one gives it back
//! by that. All times are those of the server's clock. A key lives no longer than it means anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use redis::Script;
use tokio::sync::watch;

use super::keys;
use crate::net::Rules;
use crate::net::host_limiter::{FIRST_WAIT, Feedback, HostLimiter, LONGEST_WAIT, Lease, LeaseDecision, Unavailable};
use crate::redis::RedisClient;

static ENTER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/enter.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/leave.lua")));

/// What holds for every host.
#[derive(Debug, Clone)]
pub struct Limits {
    pub per_host: usize,
    pub spacing: Duration,
    /// No turn takes longer; one that is not given back by then was held by a process that died.
    pub longest_turn: Duration,
    /// A process that has not asked for a host for so long does not share it.
    pub sharing: Duration,
    /// How long after a host's wait it is remembered that it was not the first.
    pub memory: Duration,
}

impl Limits {
    /// For an answer of Redis that is late, and the start that it puts off.
    const SLACK: Duration = Duration::from_secs(15);

    pub fn new(rules: &Rules) -> Self {
        Self {
            per_host: rules.per_host.max(1),
            spacing: rules.spacing,
            longest_turn: rules.total + Self::SLACK,
            sharing: Duration::from_secs(60),
            memory: Duration::from_secs(3600),
        }
    }
}

/// One process's way to the turns of all.
#[derive(Debug)]
pub struct Hosts {
    redis: Arc<RedisClient>,
    /// Unique among all processes.
    process: String,
    limits: Limits,
    tickets: AtomicU64,
    paused: watch::Receiver<BTreeMap<String, u64>>,
}

impl Hosts {
    /// `paused`: hosts that a person has paused, and since when.
    pub fn new(
        redis: Arc<RedisClient>,
        process: String,
        limits: Limits,
        paused: watch::Receiver<BTreeMap<String, u64>>,
    ) -> Self {
        Self { redis, process, limits, tickets: AtomicU64::new(0), paused }
    }
}

fn ms(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into()
}

#[async_trait]
impl HostLimiter for Hosts {
    fn paused_for(&self, host: &str) -> Option<Duration> {
        let since = Duration::from_secs(*self.paused.borrow().get(host)?);
        Some(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(since))
    }

    async fn acquire(&self, host: &str) -> Result<LeaseDecision, Unavailable> {
        const WHAT: &str = "ask for a turn";
        let prefix = self.redis.prefix();
        let names = [keys::host(prefix, host), keys::turns(prefix, host), keys::sharers(prefix, host)];
        let lease = format!("{}/{}", self.process, self.tickets.fetch_add(1, Ordering::Relaxed));
        let arguments = [
            self.process.as_bytes().to_vec(),
            lease.as_bytes().to_vec(),
            self.limits.per_host.to_string().into(),
            ms(self.limits.spacing),
            ms(self.limits.longest_turn),
            ms(self.limits.sharing),
        ];
        let value = self.redis.script(WHAT, &ENTER, &names, &arguments).await.map_err(Unavailable::new)?;
        let (answer, wait_ms, processes): (String, u64, u32) =
            redis::from_redis_value(value).map_err(|error| Unavailable::new(self.redis.refused(WHAT, error)))?;
        let wait = Duration::from_millis(wait_ms);
        Ok(match answer.as_str() {
            "go" => LeaseDecision::Granted { lease: Lease(lease), starts_in: wait, processes },
            "quiet" => LeaseDecision::Quiet { left: wait, processes },
            _ => LeaseDecision::Busy { processes },
        })
    }

    async fn release(&self, host: &str, lease: &Lease, feedback: Feedback) -> Result<Duration, Unavailable> {
        const WHAT: &str = "give a turn back";
        let prefix = self.redis.prefix();
        let (word, wait) = match feedback {
            Feedback::Success => ("welcome", None),
            Feedback::RetryAfter(wait) => ("wait", wait),
            Feedback::Neither => ("neither", None),
        };
        let arguments = [
            lease.0.as_bytes().to_vec(),
            word.into(),
            wait.map_or_else(|| b"-1".to_vec(), ms),
            ms(FIRST_WAIT),
            ms(LONGEST_WAIT),
            ms(self.limits.memory),
        ];
        let names = [keys::host(prefix, host), keys::turns(prefix, host)];
        let value = self.redis.script(WHAT, &LEAVE, &names, &arguments).await.map_err(Unavailable::new)?;
        let left: u64 =
            redis::from_redis_value(value).map_err(|error| Unavailable::new(self.redis.refused(WHAT, error)))?;
        Ok(Duration::from_millis(left))
    }
}
