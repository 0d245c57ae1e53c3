//! Removes chosen messages from all queues but that of the dead letters.

use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::{Channel, Error};

use super::answer::{answered, settled};
use super::error::map_error;
use super::publisher::{OutgoingMessage, traceparent};
use super::shared::Shared;
use crate::broker::{BodyFilter, BrokerError};
use crate::domain::StageName;
use crate::retry::TIERS;

/// Removes the matching messages and returns how many.
pub(super) async fn remove(shared: &Shared, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
    shared.republish_unroutable().await?;
    let names = &shared.topology.names;
    let mut removed = 0;
    // The delay queues first: meanwhile their messages may go to those of the stages.
    for queue in StageName::ALL.into_iter().flat_map(|stage| TIERS.map(|tier| names.retry(stage, tier))) {
        removed += Removal::new(shared, &queue).await?.search_delay_queue(matches).await?;
    }
    for queue in StageName::ALL.into_iter().map(|stage| names.stage(stage)).chain([names.rescore()]) {
        removed += Removal::new(shared, &queue).await?.search_consumed_queue(matches).await?;
    }
    Ok(removed)
}

/// One queue on a channel of its own. When the channel closes, also because this process ends, RabbitMQ returns to the
/// queue what is unacknowledged.
struct Removal<'a> {
    shared: &'a Shared,
    queue: &'a str,
    channel: Channel,
    waiting: u64,
}

impl<'a> Removal<'a> {
    async fn new(shared: &'a Shared, queue: &'a str) -> Result<Self, BrokerError> {
        let channel = shared.connector.open().await?.channel().await?;
        let waiting = shared.count(&channel, queue).await?;
        Ok(Self { shared, queue, channel, waiting })
    }

    /// The other messages return to the queue with the time that they have waited.
    async fn search_delay_queue(self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        let (mut removed, mut others) = (0, Vec::new());
        for _ in 0..self.waiting {
            let Some(got) = self.next().await? else { break };
            match matches(&got.data) {
                true => removed += self.acknowledge(&got).await?,
                false => others.push(got.delivery_tag),
            }
        }
        for tag in others {
            let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            answered(self.channel.basic_nack(tag, options)).await.map_err(|error| self.failed(&error))?;
        }
        self.close().await?;
        Ok(removed)
    }

    /// The other messages are published again, behind the last one: a message that returns to such a queue counts as one
    /// that a worker has failed at.
    async fn search_consumed_queue(self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        let mut removed = 0;
        for _ in 0..self.waiting {
            let Some(got) = self.next().await? else { break };
            match matches(&got.data) {
                true => removed += self.acknowledge(&got).await?,
                false => {
                    let id = got.properties.message_id().as_ref().map_or("", |id| id.as_str());
                    let kind = got.properties.kind().as_ref().map(|kind| kind.as_str());
                    let traceparent = traceparent(&got.properties);
                    let message = OutgoingMessage { queue: self.queue, id, kind, traceparent, body: &got.data };
                    self.shared.publisher.publish(&message).await?;
                    self.acknowledge(&got).await?;
                }
            }
        }
        self.close().await?;
        Ok(removed)
    }

    async fn next(&self) -> Result<Option<BasicGetMessage>, BrokerError> {
        let got = answered(self.channel.basic_get(self.queue.into(), BasicGetOptions::default())).await;
        got.map_err(|error| self.failed(&error))
    }

    /// 1: the message is removed.
    async fn acknowledge(&self, got: &BasicGetMessage) -> Result<u64, BrokerError> {
        let removed = answered(self.channel.basic_ack(got.delivery_tag, BasicAckOptions::default())).await;
        removed.map(|()| 1).map_err(|error| self.failed(&error))
    }

    /// Waits until RabbitMQ has processed everything sent before.
    async fn close(&self) -> Result<(), BrokerError> {
        const SUCCESS: u16 = 200;
        settled(self.channel.close(SUCCESS, "OK".into())).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &Error) -> BrokerError {
        map_error(format!("remove messages from {}", self.queue), error)
    }
}
