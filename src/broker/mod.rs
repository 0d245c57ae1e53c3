//! The queues between the stages: RabbitMQ, or queues in this process.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::clock::now;
use crate::domain::{Cause, CauseCode, ContentHash, Message, StageName};
use crate::server_error::ServerError;

pub mod embedded;
pub mod rabbitmq;

/// The error of a broker operation.
pub type BrokerError = ServerError;

/// Stores messages durably and delivers each at least once.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Enqueues a message for its stage. Returns when the broker has confirmed it. Queues in this process are bounded:
    /// the call waits for room.
    async fn publish(&self, message: &Message) -> Result<(), BrokerError>;

    /// Enqueues a message for its stage after `delay`. A broker with tiers of delay rounds it up to the next one.
    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError>;

    /// Adds a dead letter.
    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError>;

    /// Starts to consume a stage's queue, with at most `prefetch` unacknowledged messages. The adapter subscribes again
    /// if the subscription ends for another reason than [`Consumer::stop`].
    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// The number of messages in each queue.
    async fn depths(&self) -> Result<Vec<Depth>, BrokerError>;

    /// Up to `limit` dead letters, oldest first. They stay in their queue.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Removes the dead letters that match, and returns them.
    async fn take_dead_letters(&self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Removes the messages whose bodies match from all queues but that of the dead letters, and returns how many. A message
    /// that a consumer has at this moment is not seen. Others may change their order; some may be doubled if the call is
    /// interrupted.
    async fn remove_messages(&self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError>;

    /// Checks that the broker can be reached and has the right topology, for `doctor` and readiness.
    async fn check(&self) -> Result<(), BrokerError>;

    /// The messaging system, as traces name it.
    fn system(&self) -> &'static str {
        "facemill"
    }

    /// The name of a stage's queue.
    fn queue(&self, stage: StageName) -> String {
        stage.to_string()
    }
}

/// A stream of deliveries.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery. None: the consumer was stopped.
    async fn next(&mut self) -> Option<Delivery>;

    /// Consumes no more messages. Prefetched messages that [`next`](Self::next) has not returned go back to the queue.
    async fn stop(&mut self);
}

/// A message that a worker processes, with its acknowledgement. Dropping it returns the message to its queue.
pub struct Delivery {
    pub stage: StageName,
    pub body: Bytes,
    /// The message was delivered before and not acknowledged. It is processed alone.
    pub redelivered: bool,
    /// Earlier deliveries without an acknowledgement, as the broker counts them; 0 if it does not.
    pub unacknowledged: u32,
    receipt: Box<dyn Receipt>,
}

impl Delivery {
    pub fn new(stage: StageName, body: Bytes, redelivered: bool, receipt: Box<dyn Receipt>) -> Self {
        Self { stage, body, redelivered, unacknowledged: 0, receipt }
    }

    /// With the broker's count of earlier deliveries.
    #[must_use]
    pub fn with_unacknowledged(self, unacknowledged: u32) -> Self {
        Self { unacknowledged, ..self }
    }

    /// Acknowledges the message: its results are stored, and the next message is confirmed. A lost acknowledgement is
    /// no error: the message is delivered again, and the ledger recognises it.
    pub async fn ack(self) {
        self.receipt.ack().await;
    }

    /// Returns the message to the head of its queue.
    pub async fn nack(self) {
        self.receipt.nack().await;
    }
}

/// An adapter's part of a [`Delivery`].
#[async_trait]
pub trait Receipt: Send + Sync {
    async fn ack(self: Box<Self>);
    async fn nack(self: Box<Self>);
}

/// A message that no worker tries again by itself, with its cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub stage: Option<StageName>,
    pub cause: Cause,
    pub attempt: u32,
    /// When the photo was first enqueued, in seconds since 1970, UTC.
    pub first_at: u64,
    /// When the photo failed for good, in seconds since 1970, UTC.
    pub last_at: u64,
    pub trace_id: Option<String>,
    /// The unchanged message; base64 if it is not UTF-8.
    pub body: String,
}

impl DeadLetter {
    /// The dead letter of a message that this program has not written.
    pub fn foreign(stage: StageName, body: &[u8], detail: String) -> Self {
        let body = match std::str::from_utf8(body) {
            Ok(text) => text.to_owned(),
            Err(_) => base64::engine::general_purpose::STANDARD.encode(body),
        };
        let cause = Cause::new(CauseCode::ForeignMessage, detail);
        let at = now().as_secs();
        Self { stage: Some(stage), cause, attempt: 0, first_at: at, last_at: at, trace_id: None, body }
    }

    /// The same for every dead letter of one message, so that copies count once.
    pub fn id(&self) -> String {
        match Message::decode(self.body.as_bytes()) {
            Ok(message) => message.id(),
            Err(_) => ContentHash::of(self.body.as_bytes()).to_string(),
        }
    }
}

/// Whether a dead letter matches.
pub type DeadLetterFilter<'a> = dyn Fn(&DeadLetter) -> bool + Sync + 'a;

/// Whether the body of a message matches.
pub type BodyFilter<'a> = dyn Fn(&[u8]) -> bool + Sync + 'a;

/// The number of messages in a stage's queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// None: the dead letters.
    pub stage: Option<StageName>,
    pub ready: u64,
    pub in_flight: u64,
    pub delayed: u64,
    /// How long the oldest ready message has waited, in seconds. None: the broker does not report it.
    pub oldest_age: Option<u64>,
}
