//! The broker of an installation: RabbitMQ, 3.10 or newer. `design.md` describes its guarantees and their reasons.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use lapin::options::{BasicGetOptions, BasicNackOptions, BasicPublishOptions};
use lapin::{BasicProperties, Channel};

use super::{BodyFilter, Broker, BrokerError, Consumer, DeadLetter, DeadLetterFilter, Depth, Message};
use crate::domain::{ScoreMessage, StageName};
use crate::retry::TIERS;

mod answer;
mod connection;
mod consumer;
mod dead_letters;
mod error;
mod management;
mod publisher;
mod removal;
mod settings;
mod shared;
pub mod topology;
mod transport;

use connection::Connector;
use consumer::RabbitMqConsumer;
use dead_letters::DeadLetterQueue;
use error::map_error;
use management::ManagementClient;
use publisher::{OutgoingMessage, Publisher};
pub use settings::{BadSettings, RabbitMqSettings};
use shared::{QueueCounter, Shared};
use topology::{DEAD_LETTER_TYPE, Names, Topology};

/// RabbitMQ. Clones share its connections.
#[derive(Clone)]
pub struct RabbitMq {
    shared: Arc<Shared>,
}

impl RabbitMq {
    /// Does not connect yet: the first call does. [`Broker::check`] reports whether that succeeds.
    pub fn new(settings: RabbitMqSettings) -> Result<Self, BrokerError> {
        let topology = Arc::new(Topology::new(settings.prefix()));
        let management = ManagementClient::new(&settings)?;
        let settings = Arc::new(settings);
        let patience = settings.patience;
        let publisher = Publisher::new(settings.clone(), topology.clone());
        let connector = Connector::new(settings, topology.clone(), "consuming");
        Ok(Self { shared: Arc::new(Shared { topology, publisher, connector, management, patience }) })
    }

    /// Closes the connections in order. Without it, RabbitMQ logs each of them as lost.
    pub async fn close(&self) {
        tokio::join!(self.shared.publisher.close(), self.shared.connector.close());
    }

    fn names(&self) -> &Names {
        &self.shared.topology.names
    }

    async fn check_permissions(&self) -> Result<(), BrokerError> {
        let channel = self.shared.publisher.open().await?.channel().await?;
        may_write(&channel, self.names().exchange()).await.map_err(|error| map_error("publish".into(), &error))?;
        let channel = self.channel().await?;
        may_read(&channel, self.names()).await.map_err(|error| map_error("read messages".into(), &error))?;
        match &self.shared.management {
            Some(management) => management.in_flight().await.map(drop),
            None => Ok(()),
        }
    }

    async fn send(&self, message: &Message, queue: &str) -> Result<(), BrokerError> {
        let (id, body) = (message.id(), message.encode());
        let traceparent = message.traceparent.as_deref();
        self.shared.publisher.publish(&OutgoingMessage { queue, id: &id, kind: None, traceparent, body: &body }).await
    }

    async fn channel(&self) -> Result<Channel, BrokerError> {
        self.shared.connector.open().await?.channel().await
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.send(message, &self.names().stage(message.position.stage)).await
    }

    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError> {
        if delay.is_zero() {
            return self.publish(message).await;
        }
        self.send(message, &self.names().retry_for(message.position.stage, delay)).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError> {
        let (id, queue) = (letter.id(), self.names().dead_letters());
        let body = serde_json::to_vec(letter).expect("a dead letter has only string keys");
        let kind = Some(DEAD_LETTER_TYPE);
        let message = OutgoingMessage { queue: &queue, id: &id, kind, traceparent: None, body: &body };
        self.shared.publisher.publish(&message).await
    }

    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let queue = self.names().stage(stage);
        Ok(Box::new(RabbitMqConsumer::open(self.shared.clone(), stage, queue, prefetch).await?))
    }

    /// `in_flight` comes from the management API, some seconds late; it is 0 if the settings name none. `delayed`
    /// counts the messages in the delay queues. Declares nothing: it is for those, too, who may only read.
    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        let names = self.names();
        let mut counter = QueueCounter::open(&self.shared).await?;
        let in_flight = match &self.shared.management {
            Some(management) => management.in_flight().await?,
            None => Default::default(),
        };
        let mut depths = Vec::new();
        for stage in StageName::ALL.into_iter().map(Some).chain([None]) {
            let queue = stage.map_or_else(|| names.dead_letters(), |stage| names.stage(stage));
            let mut delayed = 0;
            for retry in stage.iter().flat_map(|stage| TIERS.map(|tier| names.retry(*stage, tier))) {
                delayed += counter.count(&retry).await?;
            }
            depths.push(Depth {
                stage,
                ready: counter.count(&queue).await?,
                in_flight: in_flight.get(&queue).copied().unwrap_or(0),
                delayed,
                oldest_age: None,
            });
        }
        Ok(depths)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        DeadLetterQueue::open(self.names(), self.channel().await?).await?.list(limit).await
    }

    async fn take_dead_letters(&self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        DeadLetterQueue::open(self.names(), self.channel().await?).await?.take(filter).await
    }

    /// Searches only queues that have messages.
    async fn remove_messages(&self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        removal::remove(&self.shared, matches).await
    }

    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn queue(&self, stage: StageName) -> String {
        self.names().stage(stage)
    }

    /// Connects, declares the topology, and checks the permissions. Publishes nothing.
    async fn check(&self) -> Result<(), BrokerError> {
        // Connecting and declaring have time limits of their own.
        self.shared.publisher.open().await?;
        self.shared.connector.open().await?;
        let patience = self.shared.patience;
        match tokio::time::timeout(patience, self.check_permissions()).await {
            Ok(checked) => checked,
            Err(_) => Err(BrokerError::Unavailable {
                what: "check RabbitMQ".into(),
                detail: format!("no answer within {patience:?}: {}", self.likely_cause()),
            }),
        }
    }
}

/// Crops that are scored again have a queue of their own, which the workers of classify consume.
impl RabbitMq {
    /// Enqueues a crop. Returns when RabbitMQ has it on disk.
    pub async fn publish_score(&self, message: &ScoreMessage) -> Result<(), BrokerError> {
        let (id, body, queue) = (message.id(), message.encode(), self.names().rescore());
        let message = OutgoingMessage { queue: &queue, id: &id, kind: None, traceparent: None, body: &body };
        self.shared.publisher.publish(&message).await
    }

    /// Consumes the crops, with at most `prefetch` unacknowledged ones.
    pub async fn consume_scores(&self, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let (stage, queue) = (StageName::Classify, self.names().rescore());
        Ok(Box::new(RabbitMqConsumer::open(self.shared.clone(), stage, queue, prefetch).await?))
    }

    /// The crops that wait. `in_flight` is as in [`Broker::depths`].
    pub async fn score_depth(&self) -> Result<ScoreDepth, BrokerError> {
        let queue = self.names().rescore();
        let in_flight = match &self.shared.management {
            Some(management) => management.in_flight().await?.get(&queue).copied().unwrap_or(0),
            None => 0,
        };
        Ok(ScoreDepth { ready: QueueCounter::open(&self.shared).await?.count(&queue).await?, in_flight })
    }
}

/// The number of crops that wait to be scored again, of all runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ScoreDepth {
    pub ready: u64,
    pub in_flight: u64,
}

impl RabbitMq {
    /// The likely reason why RabbitMQ accepts connections and does not answer.
    fn likely_cause(&self) -> String {
        let open = self.shared.publisher.open().now_or_never().and_then(Result::ok);
        match open.and_then(|open| open.alarm()) {
            Some(reason) => format!("RabbitMQ has raised an alarm ({reason}) and accepts no messages"),
            None => format!(
                "the queue {0} may have lost its leader in a crash: run `rabbitmqctl delete_queue {0}` and restart a \
                 worker, which declares it again",
                self.names().unroutable()
            ),
        }
    }
}

/// RabbitMQ checks the permission to publish when a message arrives. The transaction of this message is rolled back.
async fn may_write(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    channel.tx_select().await?;
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), "".into(), options, b"", BasicProperties::default()).await?.await?;
    channel.tx_rollback().await
}

/// Reads from the queue of unroutable messages, since it is nearly always empty.
async fn may_read(channel: &Channel, names: &Names) -> lapin::Result<()> {
    if let Some(got) = channel.basic_get(names.unroutable().into(), BasicGetOptions::default()).await? {
        got.acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
    }
    Ok(())
}
