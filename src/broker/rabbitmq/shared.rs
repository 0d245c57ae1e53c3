//! What the clones of the broker and its consumers share.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::answer::answered;
use super::connection::{Connector, OpenConnection};
use super::error::{is_not_found, map_error};
use super::management::ManagementClient;
use super::publisher::{OutgoingMessage, Publisher, traceparent};
use super::topology::Topology;
use crate::broker::BrokerError;

/// The connections to one RabbitMQ.
pub(super) struct Shared {
    pub topology: Arc<Topology>,
    pub publisher: Publisher,
    /// For everything but publishing.
    pub connector: Connector,
    pub management: Option<ManagementClient>,
    /// Time limit for the answer to a check.
    pub patience: Duration,
}

impl Shared {
    /// Publishes unroutable messages again, after the missing queues are declared. A message that is still unroutable
    /// returns to the queue of unroutable messages.
    pub async fn republish_unroutable(&self) -> Result<(), BrokerError> {
        let unroutable = self.topology.names.unroutable();
        let mut channel = self.connector.open().await?.channel().await?;
        let generation = self.topology.generation();
        let waiting = self.count(&channel, &unroutable).await?;
        if waiting == 0 {
            return Ok(());
        }
        self.topology.invalidate(generation);
        channel = self.connector.open().await?.channel().await?;
        let failed = |error: lapin::Error| map_error(format!("empty {unroutable}"), &error);
        for _ in 0..waiting {
            let got = answered(channel.basic_get(unroutable.as_str().into(), BasicGetOptions::default())).await;
            let Some(got) = got.map_err(failed)? else { break };
            let id = got.properties.message_id().as_ref().map_or("", |id| id.as_str());
            tracing::warn!(id, queue = %got.routing_key, "a message could not be routed; publishing it again");
            let (queue, traceparent) = (got.routing_key.as_str(), traceparent(&got.properties));
            let kind = got.properties.kind().as_ref().map(|kind| kind.as_str());
            let message = OutgoingMessage { queue, id, kind, traceparent, body: &got.data };
            self.publisher.publish(&message).await?;
            answered(channel.basic_ack(got.delivery_tag, BasicAckOptions::default())).await.map_err(failed)?;
        }
        Ok(())
    }

    /// The number of messages in a queue that are ready for delivery.
    pub async fn count(&self, channel: &Channel, queue: &str) -> Result<u64, BrokerError> {
        self.try_count(channel, queue)
            .await
            .map_err(|error| map_error(format!("count the messages of {queue}"), &error))
    }

    async fn try_count(&self, channel: &Channel, queue: &str) -> lapin::Result<u64> {
        let generation = self.topology.generation();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let declared = answered(channel.queue_declare(queue.into(), passive, FieldTable::default())).await;
        if declared.as_ref().is_err_and(is_not_found) {
            self.topology.invalidate(generation);
        }
        Ok(declared?.message_count().into())
    }
}

/// Counts the messages of several queues. It declares nothing, and needs no permission but access to the virtual host.
pub(super) struct QueueCounter<'s> {
    shared: &'s Shared,
    open: Arc<OpenConnection>,
    channel: Channel,
}

impl<'s> QueueCounter<'s> {
    pub async fn open(shared: &'s Shared) -> Result<Self, BrokerError> {
        let open = shared.connector.open_for_reading().await?;
        Ok(Self { shared, channel: open.channel().await?, open })
    }

    /// As [`Shared::count`]; 0 for a queue that does not exist.
    pub async fn count(&mut self, queue: &str) -> Result<u64, BrokerError> {
        match self.shared.try_count(&self.channel, queue).await {
            // The error has closed the channel.
            Err(error) if is_not_found(&error) => {
                self.channel = self.open.channel().await?;
                Ok(0)
            }
            counted => counted.map_err(|error| map_error(format!("count the messages of {queue}"), &error)),
        }
    }
}
