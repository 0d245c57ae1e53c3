//! Whose turn it is at a host, when several processes fetch: what a limiter for all of them must be able to do.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

pub use super::error::LONGEST_WAIT;

/// A wait when the host wants one and names no time. It doubles each time in a row, up to [`LONGEST_WAIT`].
pub const FIRST_WAIT: Duration = Duration::from_secs(5);

/// What all processes of a cluster keep together towards every host.
#[async_trait]
pub trait HostLimiter: fmt::Debug + Send + Sync {
    /// For how long a person has had the host paused. Asked for every photo: it must not take time.
    fn paused_for(&self, host: &str) -> Option<Duration>;

    /// Asks for a turn: one request of all processes together.
    async fn ask(&self, host: &str) -> Result<Answer, Away>;

    /// Gives a turn back; answers how long the host wants quiet.
    async fn over(&self, host: &str, lease: &Lease, feedback: Feedback) -> Result<Duration, Away>;
}

/// Proof of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease(pub String);

/// `sharers`: how many processes have lately asked for the host, this one included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request may start after `starts_in`.
    Go { lease: Lease, starts_in: Duration, sharers: u32 },
    /// The host has as many requests as it gets.
    Busy { sharers: u32 },
    /// It wants none for a while.
    Quiet { left: Duration, sharers: u32 },
}

/// How a host received a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Feedback {
    /// Like one that has time.
    Success,
    /// It wants quiet: for a time it named, or one that grows while it keeps saying so.
    RetryAfter(Option<Duration>),
    #[default]
    Neither,
}

/// NullObserver can be asked. Then nobody goes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Away(String);

impl Away {
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}
