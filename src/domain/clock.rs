//! The current time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970, UTC.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
