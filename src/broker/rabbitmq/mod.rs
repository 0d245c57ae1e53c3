//! The broker of a cluster: RabbitMQ, 3.10 or newer.
//!
//! `design.md` beside this file says what it guarantees and why.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::try_join_all;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};

use super::{Broker, BrokerError, Choice, Consumer, DeadLetter, Depth, Message};
use crate::domain::StageName;

mod backoff;
mod connection;
mod consumer;
mod dead_letters;
mod error;
mod management;
mod publisher;
mod settings;
mod shared;
pub mod topology;

use connection::Link;
use consumer::RabbitMqConsumer;
use dead_letters::DeadLetterQueue;
use error::map_error;
use management::Api;
use publisher::{Parcel, Publisher};
pub use settings::{BadSettings, Settings};
use shared::Shared;
use topology::{LETTER_TYPE, Names, TIERS};

/// RabbitMQ. Clones share its connections.
#[derive(Clone)]
pub struct RabbitMq {
    shared: Arc<Shared>,
}

impl RabbitMq {
    /// Connects when it is first used; [`Broker::check`] tells whether that works.
    pub fn new(settings: Settings) -> Result<Self, BrokerError> {
        let names = Names::new(settings.prefix());
        let management = Api::of(&settings)?;
        let settings = Arc::new(settings);
        let patience = settings.patience;
        let publisher = Publisher::new(settings.clone());
        let link = Link::new(settings, "consuming");
        Ok(Self { shared: Arc::new(Shared { names, publisher, link, management, patience }) })
    }

    async fn try_out(&self) -> Result<(), BrokerError> {
        let names = &self.shared.names;
        let channel = self.shared.publisher.live().await?.channel().await?;
        may_write(&channel, names.exchange()).await.map_err(|error| map_error("publish".into(), &error))?;
        let channel = self.channel().await?;
        may_read(&channel, names).await.map_err(|error| map_error("take messages".into(), &error))?;
        match &self.shared.management {
            Some(api) => api.in_flight().await.map(drop),
            None => Ok(()),
        }
    }

    async fn send(&self, message: &Message, queue: &str) -> Result<(), BrokerError> {
        let (id, body) = (message.id(), message.encode());
        let traceparent = message.traceparent.as_deref();
        let parcel = Parcel { queue, id: &id, kind: None, traceparent, body: &body };
        self.shared.publisher.publish(&parcel).await
    }

    async fn channel(&self) -> Result<Channel, BrokerError> {
        self.shared.link.live().await?.channel().await
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.send(message, &self.shared.names.stage(message.position.stage)).await
    }

    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError> {
        if delay.is_zero() {
            return self.publish(message).await;
        }
        self.send(message, &self.shared.names.retry_for(message.position.stage, delay)).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError> {
        let (id, queue) = (letter.id(), self.shared.names.dead());
        let body = serde_json::to_vec(letter).expect("a letter has only string keys");
        let parcel = Parcel { queue: &queue, id: &id, kind: Some(LETTER_TYPE), traceparent: None, body: &body };
        self.shared.publisher.publish(&parcel).await
    }

    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(RabbitMqConsumer::open(self.shared.clone(), stage, prefetch).await?))
    }

    /// What is in flight is known where the management API is set, a few seconds late; otherwise it is reported as 0.
    /// `delayed` is what lies in the delay queues.
    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        let names = &self.shared.names;
        let channel = self.channel().await?;
        let in_flight = match &self.shared.management {
            Some(api) => api.in_flight().await?,
            None => Default::default(),
        };
        let mut depths = Vec::new();
        for stage in StageName::ALL.into_iter().map(Some).chain([None]) {
            let queue = stage.map_or_else(|| names.dead(), |stage| names.stage(stage));
            let retries = stage.map(|stage| TIERS.map(|tier| names.retry(stage, tier)));
            let counts = retries.iter().flatten().map(|retry| count(&channel, retry));
            let delayed: Vec<u64> = try_join_all(counts).await?;
            depths.push(Depth {
                stage,
                ready: count(&channel, &queue).await?,
                in_flight: in_flight.get(&queue).copied().unwrap_or(0),
                delayed: delayed.iter().sum(),
                oldest_age: None,
            });
        }
        Ok(depths)
    }

    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let dead_letters = DeadLetterQueue::open(&self.shared.names, self.channel().await?).await?;
        dead_letters.look(limit).await
    }

    async fn take_dead_letters(&self, chosen: &Choice<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        let dead_letters = DeadLetterQueue::open(&self.shared.names, self.channel().await?).await?;
        dead_letters.take_dead_letters(chosen).await
    }

    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn queue(&self, stage: StageName) -> String {
        self.shared.names.stage(stage)
    }

    /// Connects, declares the topology, and checks the permissions. Leaves nothing behind.
    async fn check(&self) -> Result<(), BrokerError> {
        let patience = self.shared.patience;
        match tokio::time::timeout(patience, self.try_out()).await {
            Ok(tried) => tried,
            Err(_) => Err(BrokerError::Unavailable {
                what: "try RabbitMQ out".into(),
                detail: format!("no answer within {patience:?}: {}", self.shared.why_silent()),
            }),
        }
    }
}

impl Shared {
    /// A guess at why RabbitMQ takes connections and does not answer.
    fn why_silent(&self) -> String {
        let live = self.publisher.live().now_or_never().and_then(Result::ok);
        match live.and_then(|live| live.alarm()) {
            Some(reason) => format!("RabbitMQ has raised an alarm ({reason}) and takes no messages"),
            None => format!(
                "if it is well otherwise, {0} has lost its leader in a crash: `rabbitmqctl delete_queue {0}`, and the \
                 next worker declares it anew",
                self.names.unroutable()
            ),
        }
    }

    /// Publishes again what could not be routed while a queue was missing. What still cannot be comes back here.
    async fn rescue(&self, channel: &Channel) -> Result<(), BrokerError> {
        let unroutable = self.names.unroutable();
        let failed = |error: lapin::Error| map_error(format!("empty {unroutable}"), &error);
        for _ in 0..count(channel, &unroutable).await? {
            let got = channel.basic_get(unroutable.as_str().into(), BasicGetOptions::default()).await;
            let Some(got) = got.map_err(failed)? else { break };
            let id = got.properties.message_id().as_ref().map_or("", |id| id.as_str());
            tracing::warn!(id, queue = %got.routing_key, "a message could not be routed; trying again");
            let (queue, traceparent) = (got.routing_key.as_str(), publisher::traceparent(&got.properties));
            let kind = got.properties.kind().as_ref().map(|kind| kind.as_str());
            let parcel = Parcel { queue, id, kind, traceparent, body: &got.data };
            self.publisher.publish(&parcel).await?;
            channel.basic_ack(got.delivery_tag, BasicAckOptions::default()).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// Messages of a queue that wait to be handed out.
async fn count(channel: &Channel, queue: &str) -> Result<u64, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    Ok(declared.map_err(|error| map_error(format!("count the messages of {queue}"), &error))?.message_count().into())
}

/// RabbitMQ checks the right to publish when it meets a message; the transaction that holds it is rolled back.
async fn may_write(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    channel.tx_select().await?;
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), "".into(), options, b"", BasicProperties::default()).await?.await?;
    channel.tx_rollback().await
}

/// The queue of the unroutable is nearly always empty, so that nobody's message is touched.
async fn may_read(channel: &Channel, names: &Names) -> lapin::Result<()> {
    if let Some(got) = channel.basic_get(names.unroutable().into(), BasicGetOptions::default()).await? {
        got.acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
    }
    Ok(())
}
