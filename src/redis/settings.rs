//! The address of a Redis server, the key prefix and the timeouts.

use std::fmt;
use std::time::Duration;

use redis::IntoConnectionInfo;

/// Settings of a [`super::RedisClient`]. `Debug` and `Display` show no password.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS.
    pub url: String,
    /// The prefix of all keys.
    pub prefix: String,
    /// Timeout for connecting.
    pub connect_timeout: Duration,
    /// Timeout for one answer.
    pub answer_timeout: Duration,
}

impl RedisSettings {
    pub const PREFIX: &'static str = "facemill";

    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: Self::PREFIX.into(),
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(10),
        }
    }

    pub(super) fn has_tls(&self) -> bool {
        self.url.starts_with("rediss:")
    }
}

impl fmt::Display for RedisSettings {
    /// Host, port and database.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url.as_str().into_connection_info() {
            Ok(info) => write!(f, "redis at {}/{}", info.addr(), info.redis_settings().db()),
            Err(_) => f.write_str("redis at an unreadable URL"),
        }
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}, keys {}:*", self.prefix)
    }
}
