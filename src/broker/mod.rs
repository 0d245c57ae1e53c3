//! What carries a photo from stage to stage: RabbitMQ, or queues in this process.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Cause, ContentHash, Message, StageName};
use crate::server_error::ServerError;

pub mod embedded;
pub mod rabbitmq;

/// The error of a broker operation.
pub type BrokerError = ServerError;

/// Takes durable responsibility for messages and hands them out, each at least once.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Enqueues for the message's stage. Returns when the broker has confirmed it. In-process queues are bounded:
    /// there this waits for room.
    async fn publish(&self, message: &Message) -> Result<(), BrokerError>;

    /// Enqueues for the message's stage once `delay` has passed (rounded up to the next tier where there are tiers).
    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError>;

    /// Lays a letter among the dead.
    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError>;

    /// Begins to take from a stage's queue, at most `prefetch` unacknowledged at a time. An adapter re-opens a
    /// stream that ended by itself; the receiver never has to.
    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError>;

    /// How much lies where.
    async fn depths(&self) -> Result<Vec<Depth>, BrokerError>;

    /// Looks at up to `limit` dead letters, oldest first, and leaves them where they are.
    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Takes out the dead letters that `chosen` says yes to. What it returned is gone from the queue.
    async fn take_dead_letters(&self, chosen: &Choice<'_>) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Whether the broker can be reached and the topology is right, for `doctor` and readiness.
    async fn check(&self) -> Result<(), BrokerError>;

    /// Its kind, as traces name it.
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
    /// The next delivery; none when the consumer was stopped and everything it had taken was handed out.
    async fn next(&mut self) -> Option<Delivery>;

    /// Takes no more from the queue. What was prefetched and not yet handed out goes back.
    async fn stop(&mut self);
}

/// A message in the hands of a worker, with its acknowledgement. Dropped unanswered, it goes back to its queue.
pub struct Delivery {
    pub stage: StageName,
    pub body: Bytes,
    /// It was handed out before, and whoever had it did not answer. Such a message runs alone.
    pub redelivered: bool,
    receipt: Box<dyn Receipt>,
}

impl Delivery {
    pub fn new(stage: StageName, body: Bytes, redelivered: bool, receipt: Box<dyn Receipt>) -> Self {
        Self { stage, body, redelivered, receipt }
    }

    /// The work is done and stored, and the next message confirmed. A lost acknowledgement is no error: the message
    /// comes again and is recognised.
    pub async fn ack(self) {
        self.receipt.ack().await;
    }

    /// Not now: back to the head of its queue.
    pub async fn hand_back(self) {
        self.receipt.hand_back().await;
    }
}

/// An adapter's side of a [`Delivery`].
#[async_trait]
pub trait Receipt: Send + Sync {
    async fn ack(self: Box<Self>);
    async fn hand_back(self: Box<Self>);
}

/// A message nobody will try again by itself, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub stage: Option<StageName>,
    pub cause: Cause,
    pub attempt: u32,
    /// Seconds since 1970, UTC: when the photo was first enqueued, and when it was given up.
    pub first_at: u64,
    pub last_at: u64,
    pub trace_id: Option<String>,
    /// The message as it was; base64 where it is not UTF-8.
    pub body: String,
}

impl DeadLetter {
    /// The same for every burial of the same message, so that one that was dead_lettered twice counts once.
    pub fn id(&self) -> String {
        match Message::decode(self.body.as_bytes()) {
            Ok(message) => message.id(),
            Err(_) => ContentHash::of(self.body.as_bytes()).to_string(),
        }
    }
}

/// Says of a dead letter whether it is meant.
pub type Choice<'a> = dyn Fn(&DeadLetter) -> bool + Sync + 'a;

/// What lies in a stage's queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// None: the dead letters.
    pub stage: Option<StageName>,
    pub ready: u64,
    pub in_flight: u64,
    pub delayed: u64,
    /// Seconds the oldest waiting message has waited, where the broker can tell.
    pub oldest_age: Option<u64>,
}
