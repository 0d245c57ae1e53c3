//! What all clones of the broker, and its consumers, share.

use std::time::Duration;

use super::connection::Link;
use super::management::Api;
use super::publisher::Publisher;
use super::topology::Names;

/// The connections to one RabbitMQ.
pub(super) struct Shared {
    pub names: Names,
    pub publisher: Publisher,
    /// For everything but publishing.
    pub link: Link,
    pub management: Option<Api>,
    /// Time limit for the answer to a check.
    pub patience: Duration,
}
