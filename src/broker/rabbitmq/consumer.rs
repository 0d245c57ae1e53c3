//! Consumes a queue, and subscribes again after any loss of connection, channel or queue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::answer::answered;
use super::error::{is_not_found, map_error};
use super::publisher::{OutgoingMessage, traceparent};
use super::shared::Shared;
use super::topology::{DELIVERY_COUNT, Generation};
use crate::broker::{BrokerError, Consumer, Delivery, Receipt};
use crate::domain::StageName;
use crate::retry::Backoff;

/// Time limit for the return of all prefetched messages at the end. Those left return when the connection closes.
const RETURNING: Duration = Duration::from_secs(10);

/// The receiver's side. A task keeps the subscription open and fills the buffer.
pub(super) struct RabbitMqConsumer {
    shared: Arc<Shared>,
    /// Whose workers consume the queue.
    stage: StageName,
    queue: String,
    buffer: Arc<Buffer>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// Prefetched messages that [`Consumer::next`] has not returned yet. The prefetch count limits them.
#[derive(Default)]
struct Buffer {
    messages: Mutex<VecDeque<Unacked>>,
    arrived: Notify,
}

/// A subscription.
struct Subscription {
    /// The generation of the topology at its start.
    generation: Generation,
    channel: Channel,
    deliveries: lapin::Consumer,
}

/// A message that is neither acknowledged nor rejected. Dropping it returns it to its queue.
struct Unacked {
    delivery: lapin::message::Delivery,
    /// The channel closes with its last owner, and RabbitMQ then takes back what is unacknowledged.
    _channel: Channel,
}

impl RabbitMqConsumer {
    /// Subscribes. Fails if RabbitMQ refuses. If RabbitMQ is unavailable, the task subscribes as soon as it is
    /// available.
    pub async fn open(
        shared: Arc<Shared>,
        stage: StageName,
        queue: String,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let buffer = Arc::<Buffer>::default();
        let stop = CancellationToken::new();
        let task = ConsumerTask {
            shared: shared.clone(),
            queue: queue.clone(),
            prefetch: prefetch.max(1),
            buffer: buffer.clone(),
            stop: stop.clone(),
        };
        let first = task.subscribe().await;
        if let Err(error @ BrokerError::Refused { .. }) = first {
            return Err(error);
        }
        let task = tokio::spawn(task.run(first));
        Ok(Self { shared, stage, queue, buffer, stop, task: Some(task) })
    }
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            while let Some(message) = self.buffer.pop() {
                if message.delivery.acker.usable() {
                    let (body, redelivered) = (message.delivery.data.clone(), message.is_redelivered());
                    let count = message.unacknowledged();
                    let delivery = Delivery::new(self.stage, Bytes::from(body), redelivered, Box::new(message));
                    return Some(delivery.with_unacknowledged(count));
                }
            }
            if self.stop.is_cancelled() {
                return None;
            }
            self.buffer.arrived.notified().await;
        }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // After a panic of the task, no more messages arrive either.
            let _ = task.await;
        }
        let messages = std::mem::take(&mut *self.buffer.lock());
        let returning = futures::future::join_all(messages.into_iter().map(|message| self.return_unused(message)));
        if tokio::time::timeout(RETURNING, returning).await.is_err() {
            tracing::warn!(queue = self.queue, "prefetched messages return to their queue as redelivered");
        }
    }
}

impl RabbitMqConsumer {
    /// Publishes a message that no worker has begun with to the end of its queue. A rejected message would count as
    /// redelivered, and workers that stop one after the other would use up its delivery limit.
    async fn return_unused(&self, message: Unacked) {
        if message.is_redelivered() {
            // It may have crashed its worker: the count must be kept.
            return Box::new(message).nack().await;
        }
        let properties = &message.delivery.properties;
        let copy = OutgoingMessage {
            queue: &self.queue,
            id: properties.message_id().as_ref().map_or("", |id| id.as_str()),
            kind: None,
            traceparent: traceparent(properties),
            body: &message.delivery.data,
        };
        match self.shared.publisher.publish(&copy).await {
            Ok(()) => Box::new(message).ack().await,
            Err(error) => {
                tracing::debug!(%error, "a prefetched message returns to its queue as redelivered");
                Box::new(message).nack().await;
            }
        }
    }
}

impl Drop for RabbitMqConsumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Unacked>> {
        self.messages.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn pop(&self) -> Option<Unacked> {
        self.lock().pop_front()
    }

    fn push(&self, message: Unacked) {
        self.lock().push_back(message);
        self.arrived.notify_one();
    }
}

/// Keeps the subscription open.
struct ConsumerTask {
    shared: Arc<Shared>,
    queue: String,
    prefetch: u16,
    buffer: Arc<Buffer>,
    stop: CancellationToken,
}

impl ConsumerTask {
    const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

    async fn run(self, first: Result<Subscription, BrokerError>) {
        let mut backoff = Backoff::new(Self::BACKOFF.0, Self::BACKOFF.1);
        let mut subscribed = first;
        loop {
            let reason = match subscribed {
                Ok(subscription) => {
                    backoff.reset();
                    self.receive(subscription).await
                }
                Err(error) => error.to_string(),
            };
            if self.stop.is_cancelled() {
                self.buffer.arrived.notify_one();
                return;
            }
            // RabbitMQ delivers these again.
            self.buffer.lock().clear();
            let wait = backoff.next_wait();
            tracing::warn!(queue = self.queue, retry_in = ?wait, "no messages from RabbitMQ: {reason}");
            subscribed = tokio::select! {
                () = self.stop.cancelled() => return,
                subscribed = async { tokio::time::sleep(wait).await; self.subscribe().await } => subscribed,
            };
        }
    }

    /// Subscribes, also if the queue is missing.
    async fn subscribe(&self) -> Result<Subscription, BrokerError> {
        if let Err(error) = self.shared.republish_unroutable().await {
            tracing::warn!(%error, "unroutable messages stay in their queue until the next consumer starts");
        }
        match self.consume().await? {
            Ok(subscription) => Ok(subscription),
            // The queue was deleted after this process had declared it. The second attempt declares it again.
            Err(_) => self.consume().await?.map_err(|error| self.subscription_error(&error)),
        }
    }

    /// The inner error: the queue is missing.
    async fn consume(&self) -> Result<Result<Subscription, lapin::Error>, BrokerError> {
        let channel = self.shared.connector.open().await?.channel().await?;
        let generation = self.shared.topology.generation();
        let qos = answered(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await;
        qos.map_err(|error| self.subscription_error(&error))?;
        let (queue, options) = (self.queue.as_str().into(), BasicConsumeOptions::default());
        match answered(channel.basic_consume(queue, "".into(), options, FieldTable::default())).await {
            Ok(deliveries) => Ok(Ok(Subscription { generation, channel, deliveries })),
            Err(error) if is_not_found(&error) => {
                self.shared.topology.invalidate(generation);
                Ok(Err(error))
            }
            Err(error) => Err(self.subscription_error(&error)),
        }
    }

    fn subscription_error(&self, error: &lapin::Error) -> BrokerError {
        map_error(format!("consume {}", self.queue), error)
    }

    /// Fills the buffer until the subscription ends. Returns the reason of its end.
    async fn receive(&self, mut subscription: Subscription) -> String {
        loop {
            let item = tokio::select! {
                () = self.stop.cancelled() => break,
                item = subscription.deliveries.next() => item,
            };
            match item {
                Some(Ok(delivery)) => self.buffer.push(Unacked { delivery, _channel: subscription.channel.clone() }),
                Some(Err(error)) => return error.to_string(),
                None => {
                    // RabbitMQ cancels the consumers of a queue that is deleted.
                    self.shared.topology.invalidate(subscription.generation);
                    return "RabbitMQ cancelled the consumer: was the queue deleted?".into();
                }
            }
        }
        self.cancel(subscription).await;
        String::new()
    }

    /// Cancels the subscription. Messages that arrive meanwhile still enter the buffer.
    async fn cancel(&self, mut subscription: Subscription) {
        const LIMIT: Duration = Duration::from_secs(5);
        let cancelling = async {
            let tag = subscription.deliveries.tag();
            subscription.channel.basic_cancel(tag, BasicCancelOptions::default()).await?;
            while let Some(delivery) = subscription.deliveries.next().await {
                self.buffer.push(Unacked { delivery: delivery?, _channel: subscription.channel.clone() });
            }
            Ok::<_, lapin::Error>(())
        };
        match tokio::time::timeout(LIMIT, cancelling).await {
            Ok(Ok(())) => {}
            // The channel closes after the last acknowledgement, and the subscription with it.
            Ok(Err(error)) => tracing::debug!(%error, "cannot cancel a subscription"),
            Err(_) => tracing::warn!(queue = self.queue, "RabbitMQ did not confirm the end of a subscription"),
        }
    }
}

impl Unacked {
    /// RabbitMQ's flag, or the delivery count of a quorum queue.
    fn is_redelivered(&self) -> bool {
        self.delivery.redelivered || self.unacknowledged() > 0
    }

    /// The delivery count of a quorum queue. RabbitMQ 4 omits a count of 0.
    fn unacknowledged(&self) -> u32 {
        let headers = self.delivery.properties.headers().as_ref();
        let count =
            headers.and_then(|headers| headers.inner().get(DELIVERY_COUNT)).and_then(AMQPValue::as_long_long_int);
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }

    async fn reject(&self) -> lapin::Result<bool> {
        self.delivery.acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await
    }
}

#[async_trait]
impl Receipt for Unacked {
    async fn ack(self: Box<Self>) {
        match answered(self.delivery.acker.ack(BasicAckOptions::default())).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("an acknowledgement was lost with its channel; the message is delivered again");
            }
            Err(error) => tracing::warn!(%error, "an acknowledgement was lost; the message is delivered again"),
        }
    }

    async fn nack(self: Box<Self>) {
        // If the channel is lost, RabbitMQ has returned the message already.
        let _ = answered(self.reject()).await;
    }
}

impl Drop for Unacked {
    fn drop(&mut self) {
        if self.delivery.acker.usable() {
            // The first poll passes the frame to the connection. The result would only say whether it was sent.
            let _ = self.reject().now_or_never();
        }
    }
}
