//! The host limiter that all fetch workers of an installation share, in Redis.
//!
//! A lease is a member of a sorted set, with the time of its expiry as the score, so the lease of a crashed process
//! expires. All times are those of the server's clock. A key expires when its content no longer matters.

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
use crate::net::host_rules::{Pace, Paces};
use crate::redis::RedisClient;

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/acquire.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/release.lua")));

/// The limits of each host, for all processes together.
#[derive(Debug, Clone)]
pub struct LeaseLimits {
    /// The most leases of a host at a time, and the time between the starts of two requests.
    pub paces: Paces,
    /// A lease that is not released expires after this time.
    pub lease_time: Duration,
    /// A process shares a host for this long after its last request for a lease.
    pub sharing: Duration,
    /// The number of quiet periods in a row is forgotten this long after the last one.
    pub memory: Duration,
}

impl LeaseLimits {
    /// Added to the time limit of a request: a slow reply of Redis delays its start.
    const SLACK: Duration = Duration::from_secs(15);

    pub fn new(rules: &Rules) -> Self {
        Self {
            paces: rules.paces(),
            lease_time: rules.total + Self::SLACK,
            sharing: Duration::from_secs(60),
            memory: Duration::from_secs(3600),
        }
    }
}

/// The limiter of one process.
#[derive(Debug)]
pub struct RedisHostLimiter {
    redis: Arc<RedisClient>,
    /// Unique among all processes.
    process: String,
    limits: LeaseLimits,
    next_lease: AtomicU64,
    paused: watch::Receiver<BTreeMap<String, u64>>,
}

impl RedisHostLimiter {
    /// `paused`: the paused hosts, with the second since 1970 since when each is paused.
    pub fn new(
        redis: Arc<RedisClient>,
        process: String,
        limits: LeaseLimits,
        paused: watch::Receiver<BTreeMap<String, u64>>,
    ) -> Self {
        Self { redis, process, limits, next_lease: AtomicU64::new(0), paused }
    }
}

fn ms(time: Duration) -> Vec<u8> {
    time.as_millis().to_string().into()
}

#[async_trait]
impl HostLimiter for RedisHostLimiter {
    fn paused_for(&self, host: &str) -> Option<Duration> {
        let since = Duration::from_secs(*self.paused.borrow().get(host)?);
        Some(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(since))
    }

    async fn acquire(&self, host: &str) -> Result<LeaseDecision, Unavailable> {
        const WHAT: &str = "acquire a lease";
        let prefix = self.redis.prefix();
        let names = [keys::host(prefix, host), keys::leases(prefix, host), keys::processes(prefix, host)];
        let lease = format!("{}/{}", self.process, self.next_lease.fetch_add(1, Ordering::Relaxed));
        let Pace { per_host, spacing } = self.limits.paces.of(host);
        let arguments = [
            self.process.as_bytes().to_vec(),
            lease.as_bytes().to_vec(),
            per_host.max(1).to_string().into(),
            ms(spacing),
            ms(self.limits.lease_time),
            ms(self.limits.sharing),
        ];
        let value = self.redis.script(WHAT, &ACQUIRE, &names, &arguments).await.map_err(Unavailable::new)?;
        let (decision, wait_ms, processes): (String, u64, u32) =
            redis::from_redis_value(value).map_err(|error| Unavailable::new(self.redis.refused(WHAT, error)))?;
        let wait = Duration::from_millis(wait_ms);
        Ok(match decision.as_str() {
            "granted" => LeaseDecision::Granted { lease: Lease(lease), starts_in: wait, processes },
            "quiet" => LeaseDecision::Quiet { left: wait, processes },
            _ => LeaseDecision::Busy { processes },
        })
    }

    async fn release(&self, host: &str, lease: &Lease, feedback: Feedback) -> Result<Duration, Unavailable> {
        const WHAT: &str = "release a lease";
        let prefix = self.redis.prefix();
        let (word, wait) = match feedback {
            Feedback::Success => ("success", None),
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
        let names = [keys::host(prefix, host), keys::leases(prefix, host)];
        let value = self.redis.script(WHAT, &RELEASE, &names, &arguments).await.map_err(Unavailable::new)?;
        let left: u64 =
            redis::from_redis_value(value).map_err(|error| Unavailable::new(self.redis.refused(WHAT, error)))?;
        Ok(Duration::from_millis(left))
    }
}
