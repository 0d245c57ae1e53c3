//! The interface of a host limiter that several processes share.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

pub use crate::retry::LONGEST_WAIT;
use crate::retry::TIERS;

/// The quiet period of a host that asks for one without a duration. It doubles each time in a row, up to
/// [`LONGEST_WAIT`].
pub const FIRST_WAIT: Duration = TIERS[0];

/// Limits the requests that all processes of an installation together send to each host.
#[async_trait]
pub trait HostLimiter: fmt::Debug + Send + Sync {
    /// How long ago an operator paused the host; nothing if it is not paused. Called for every photo: it must not
    /// block.
    fn paused_for(&self, host: &str) -> Option<Duration>;

    /// Requests a lease, which permits one request.
    async fn acquire(&self, host: &str) -> Result<LeaseDecision, Unavailable>;

    /// Releases a lease. Returns how much of the host's quiet period is left.
    async fn release(&self, host: &str, lease: &Lease, feedback: Feedback) -> Result<Duration, Unavailable>;
}

/// Identifies a lease at the limiter that granted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease(pub String);

/// `processes`: how many processes have recently requested leases for the host, this one included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseDecision {
    /// The request may start after `starts_in`.
    Granted { lease: Lease, starts_in: Duration, processes: u32 },
    /// All leases of the host are in use.
    Busy { processes: u32 },
    /// The host is in a quiet period, of which `left` is left.
    Quiet { left: Duration, processes: u32 },
}

/// How a host responded to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Feedback {
    /// The host served the request.
    Success,
    /// The host asked for a quiet period: of the given duration, or of one that grows each time in a row.
    RetryAfter(Option<Duration>),
    #[default]
    Neither,
}

/// The limiter cannot be reached. No request may start.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

impl Unavailable {
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}
