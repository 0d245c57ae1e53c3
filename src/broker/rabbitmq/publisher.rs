//! Publishes and waits for RabbitMQ's confirm.

use std::sync::Arc;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Semaphore;

use super::connection::{Link, Live};
use super::error::map_error;
use super::settings::Settings;
use super::topology::{CONTENT_TYPE, Names, TRACEPARENT};
use crate::broker::BrokerError;
use crate::domain::ContentHash;

/// Publishes many messages at a time, each on a channel of its own while it waits for its confirm.
///
/// RabbitMQ says of a message it cannot route that it returns it, and then confirms it like any other; the two can only
/// be brought together for sure where nothing else is in flight on the channel.
pub(super) struct Publisher {
    link: Link,
    names: Names,
    settings: Arc<Settings>,
    idle: std::sync::Mutex<Vec<Channel>>,
    room: Semaphore,
}

/// A message as RabbitMQ is to keep it.
pub(super) struct Parcel<'a> {
    /// Name of the queue that it is for.
    pub queue: &'a str,
    pub id: &'a str,
    /// [`super::topology::LETTER_TYPE`], for dead letters.
    pub kind: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub body: &'a [u8],
}

impl Publisher {
    /// Messages on their way at a time; more wait their turn. Each costs RabbitMQ a process.
    const CHANNELS: usize = 64;

    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            link: Link::new(settings.clone(), "publishing"),
            names: Names::new(settings.prefix()),
            settings,
            idle: std::sync::Mutex::default(),
            room: Semaphore::new(Self::CHANNELS),
        }
    }

    pub async fn live(&self) -> Result<Arc<Live>, BrokerError> {
        self.link.live().await
    }

    /// Returns when RabbitMQ has the message on disk. After an error it may have it all the same.
    pub async fn publish(&self, parcel: &Parcel<'_>) -> Result<(), BrokerError> {
        let _room = self.room.acquire().await.expect("this semaphore is never closed");
        let live = self.link.live().await?;
        let attempt = tokio::time::timeout(self.settings.patience, self.attempt(&live, parcel));
        attempt.await.unwrap_or_else(|_| {
            let detail = match live.alarm() {
                Some(reason) => format!(
                    "RabbitMQ has raised an alarm ({reason}) and takes no messages until it has memory and disk again"
                ),
                None => format!("no confirm within {:?}", self.settings.patience),
            };
            Err(BrokerError::Unavailable { what: publish_to(parcel), detail })
        })
    }

    async fn attempt(&self, live: &Live, parcel: &Parcel<'_>) -> Result<(), BrokerError> {
        live.no_alarm().await;
        let failed = |error: lapin::Error| map_error(publish_to(parcel), &error);
        let channel = self.channel(live).await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let exchange = ShortString::from(self.names.exchange());
        let key = ShortString::from(parcel.queue);
        let confirm = channel.basic_publish(exchange, key, options, parcel.body, properties(parcel)).await;
        match confirm.map_err(failed)?.await.map_err(failed)? {
            Confirmation::Ack(None) => {
                self.idle.lock().unwrap_or_else(|error| error.into_inner()).push(channel);
                Ok(())
            }
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => Err(BrokerError::Unavailable {
                what: publish_to(parcel),
                detail: format!(
                    "RabbitMQ returned the message: {} {}; the queue is missing, and so is {}: restart a worker, which \
                     declares them",
                    returned.reply_code,
                    returned.reply_text,
                    self.names.unroutable()
                ),
            }),
            Confirmation::Nack(None) | Confirmation::NotRequested => Err(BrokerError::Unavailable {
                what: publish_to(parcel),
                detail: "RabbitMQ could not store the message (it answered with a nack)".into(),
            }),
        }
    }

    /// A channel on which nothing is in flight.
    async fn channel(&self, live: &Live) -> Result<Channel, BrokerError> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(|error| error.into_inner()).pop();
            match idle {
                Some(channel) if channel.status().connected() => return Ok(channel),
                // It belonged to a connection that is gone.
                Some(_) => {}
                None => break,
            }
        }
        let channel = live.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirms.map_err(|error| map_error("ask for confirms".into(), &error))?;
        Ok(channel)
    }
}

fn publish_to(parcel: &Parcel<'_>) -> String {
    format!("publish to {}", parcel.queue)
}

fn properties(parcel: &Parcel<'_>) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let id = ShortString::try_new(parcel.id)
        .unwrap_or_else(|_| ContentHash::of(parcel.id.as_bytes()).to_string().as_str().into());
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(CONTENT_TYPE.into())
        .with_message_id(id);
    if let Some(kind) = parcel.kind {
        properties = properties.with_type(kind.into());
    }
    if let Some(traceparent) = parcel.traceparent {
        let mut headers = FieldTable::default();
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(LongString::from(traceparent)));
        properties = properties.with_headers(headers);
    }
    properties
}

/// The trace context that a message came with.
pub(super) fn traceparent(properties: &BasicProperties) -> Option<&str> {
    match properties.headers().as_ref()?.inner().get(TRACEPARENT)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}
