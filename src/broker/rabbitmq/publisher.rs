//! Publishes messages and waits for RabbitMQ's confirms.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Semaphore;

use super::connection::{CLOSING, Connector, OpenConnection, SUCCESS};
use super::error::map_error;
use super::settings::RabbitMqSettings;
use super::topology::{CONTENT_TYPE, TRACEPARENT, Topology};
use crate::broker::BrokerError;
use crate::domain::ContentHash;

/// Publishes many messages at the same time, each on a channel of its own until its confirm arrives.
///
/// RabbitMQ first returns a message that it cannot route, and then confirms it like any other. Return and confirm can
/// only be matched reliably if the channel has one message in flight.
pub(super) struct Publisher {
    connector: Connector,
    topology: Arc<Topology>,
    settings: Arc<RabbitMqSettings>,
    idle: Mutex<Vec<Channel>>,
    permits: Semaphore,
}

/// A message to publish.
pub(super) struct OutgoingMessage<'a> {
    /// The name of its queue.
    pub queue: &'a str,
    pub id: &'a str,
    /// [`super::topology::DEAD_LETTER_TYPE`] for a dead letter.
    pub kind: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub body: &'a [u8],
}

impl Publisher {
    /// Messages in flight at the same time. Each channel costs RabbitMQ a process.
    const CHANNELS: usize = 64;

    pub fn new(settings: Arc<RabbitMqSettings>, topology: Arc<Topology>) -> Self {
        Self {
            connector: Connector::new(settings.clone(), topology.clone(), "publishing"),
            topology,
            settings,
            idle: Mutex::default(),
            permits: Semaphore::new(Self::CHANNELS),
        }
    }

    pub async fn open(&self) -> Result<Arc<OpenConnection>, BrokerError> {
        self.connector.open().await
    }

    /// Closes the channels, then the connection. Waits a limited time for RabbitMQ's answers.
    pub async fn close(&self) {
        let channels = std::mem::take(&mut *self.idle());
        let closing = channels.iter().map(|channel| channel.close(SUCCESS, "the process ends".into()));
        // What is left open then, the end of the connection closes.
        let _ = tokio::time::timeout(CLOSING, futures::future::join_all(closing)).await;
        self.connector.close().await;
    }

    /// Returns when RabbitMQ has the message on disk. After an error, RabbitMQ may have it nevertheless.
    pub async fn publish(&self, message: &OutgoingMessage<'_>) -> Result<(), BrokerError> {
        let _permit = self.permits.acquire().await.expect("this semaphore is never closed");
        let open = self.connector.open().await?;
        let attempt = tokio::time::timeout(self.settings.patience, self.attempt(&open, message));
        attempt.await.unwrap_or_else(|_| {
            let detail = match open.alarm() {
                Some(reason) => format!(
                    "RabbitMQ has raised an alarm ({reason}) and accepts no messages until it has enough memory and disk"
                ),
                None => format!("no confirm within {:?}", self.settings.patience),
            };
            Err(BrokerError::Unavailable { what: publish_to(message), detail })
        })
    }

    async fn attempt(&self, open: &OpenConnection, message: &OutgoingMessage<'_>) -> Result<(), BrokerError> {
        open.no_alarm().await;
        let failed = |error: lapin::Error| map_error(publish_to(message), &error);
        let unavailable = |detail| Err(BrokerError::Unavailable { what: publish_to(message), detail });
        let generation = self.topology.generation();
        let channel = self.channel(open).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let exchange = ShortString::from(self.topology.names.exchange());
        let key = ShortString::from(message.queue);
        let confirm = channel.basic_publish(exchange, key, options, message.body, properties(message)).await;
        match confirm.map_err(failed)?.await.map_err(failed)? {
            Confirmation::Ack(None) => {
                self.idle().push(channel);
                Ok(())
            }
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                self.topology.invalidate(generation);
                unavailable(format!(
                    "RabbitMQ returned the message: {} {}; the queue and {} are missing, and are declared again before \
                     the next message",
                    returned.reply_code,
                    returned.reply_text,
                    self.topology.names.unroutable()
                ))
            }
            Confirmation::Nack(None) | Confirmation::NotRequested => {
                unavailable("RabbitMQ could not store the message (it answered with a nack)".into())
            }
        }
    }

    /// A channel without a message in flight.
    async fn channel(&self, open: &OpenConnection) -> Result<Channel, BrokerError> {
        loop {
            let idle = self.idle().pop();
            match idle {
                Some(channel) if channel.status().connected() => return Ok(channel),
                // A channel of a lost connection.
                Some(_) => {}
                None => break,
            }
        }
        let channel = open.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirms.map_err(|error| map_error("request confirms".into(), &error))?;
        Ok(channel)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn publish_to(message: &OutgoingMessage) -> String {
    format!("publish to {}", message.queue)
}

fn properties(message: &OutgoingMessage) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let id = ShortString::try_new(message.id)
        .unwrap_or_else(|_| ContentHash::of(message.id.as_bytes()).to_string().as_str().into());
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(CONTENT_TYPE.into())
        .with_message_id(id);
    if let Some(kind) = message.kind {
        properties = properties.with_type(kind.into());
    }
    if let Some(traceparent) = message.traceparent {
        let mut headers = FieldTable::default();
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(LongString::from(traceparent)));
        properties = properties.with_headers(headers);
    }
    properties
}

/// The trace context in the headers of a message.
pub(super) fn traceparent(properties: &BasicProperties) -> Option<&str> {
    match properties.headers().as_ref()?.inner().get(TRACEPARENT)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}
