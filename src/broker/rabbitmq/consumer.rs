//! Takes from a stage's queue, over and over, whatever happens to the connection.

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

use super::backoff::Backoff;
use super::error::map_error;
use super::publisher::{Parcel, traceparent};
use super::shared::Shared;
use super::topology::DELIVERY_COUNT;
use crate::broker::{BrokerError, Consumer, Delivery, Receipt};
use crate::domain::StageName;

/// The receiver's end. A task of its own keeps the stream open and fills the buffer.
pub(super) struct RabbitMqConsumer {
    shared: Arc<Shared>,
    stage: StageName,
    buffer: Arc<Buffer>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// What was prefetched and not yet handed out; the prefetch bounds it.
#[derive(Default)]
struct Buffer {
    taken: Mutex<VecDeque<Unacked>>,
    arrived: Notify,
}

/// An open stream of deliveries.
struct Stream {
    channel: Channel,
    consumer: lapin::Consumer,
}

/// A message that RabbitMQ waits for an answer on. Dropped, it goes back.
struct Unacked {
    delivery: lapin::message::Delivery,
    /// RabbitMQ takes back what is unanswered when the channel closes, and it closes with its last owner.
    _channel: Channel,
}

impl RabbitMqConsumer {
    /// Opens the stream. RabbitMQ's refusal is an error; if it is merely away, the stream opens as soon as it is back.
    pub async fn open(shared: Arc<Shared>, stage: StageName, prefetch: u16) -> Result<Self, BrokerError> {
        let buffer = Arc::<Buffer>::default();
        let stop = CancellationToken::new();
        let keeper = ConsumerTask {
            shared: shared.clone(),
            stage,
            prefetch: prefetch.max(1),
            buffer: buffer.clone(),
            stop: stop.clone(),
        };
        let first = keeper.subscribe().await;
        if let Err(error @ BrokerError::Refused { .. }) = first {
            return Err(error);
        }
        let task = tokio::spawn(keeper.keep(first));
        Ok(Self { shared, stage, buffer, stop, task: Some(task) })
    }
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            while let Some(taken) = self.buffer.pop() {
                if taken.delivery.acker.usable() {
                    let (body, redelivered) = (taken.delivery.data.clone(), taken.is_redelivered());
                    return Some(Delivery::new(self.stage, Bytes::from(body), redelivered, Box::new(taken)));
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
            // It ends by itself soon; if it panicked there is nothing more to come either.
            let _ = task.await;
        }
        let taken = std::mem::take(&mut *self.buffer.lock());
        futures::future::join_all(taken.into_iter().map(|taken| self.put_back(taken))).await;
    }
}

impl RabbitMqConsumer {
    /// Sends a message that nobody has begun with to the end of its queue, as good as new: handed back it would count as
    /// redelivered, and bouncing between workers that are being stopped would use up its delivery limit.
    async fn put_back(&self, taken: Unacked) {
        if taken.is_redelivered() {
            // It may have killed its worker: that must not be forgotten.
            return Box::new(taken).hand_back().await;
        }
        let properties = &taken.delivery.properties;
        let parcel = Parcel {
            queue: &self.shared.names.stage(self.stage),
            id: properties.message_id().as_ref().map_or("", |id| id.as_str()),
            kind: None,
            traceparent: traceparent(properties),
            body: &taken.delivery.data,
        };
        match self.shared.publisher.publish(&parcel).await {
            Ok(()) => Box::new(taken).ack().await,
            Err(error) => {
                tracing::debug!(%error, "a prefetched message goes back as redelivered");
                Box::new(taken).hand_back().await;
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
        self.taken.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn pop(&self) -> Option<Unacked> {
        self.lock().pop_front()
    }

    fn push(&self, taken: Unacked) {
        self.lock().push_back(taken);
        self.arrived.notify_one();
    }
}

/// Keeps the stream open.
struct ConsumerTask {
    shared: Arc<Shared>,
    stage: StageName,
    prefetch: u16,
    buffer: Arc<Buffer>,
    stop: CancellationToken,
}

impl ConsumerTask {
    async fn keep(self, first: Result<Stream, BrokerError>) {
        let mut backoff = Backoff::new();
        let mut opened = first;
        loop {
            let lost = match opened {
                Ok(stream) => {
                    backoff.reset();
                    self.pump(stream).await
                }
                Err(error) => error.to_string(),
            };
            if self.stop.is_cancelled() {
                self.buffer.arrived.notify_one();
                return;
            }
            // RabbitMQ hands these out again.
            self.buffer.lock().clear();
            let wait = backoff.next();
            tracing::warn!(stage = %self.stage, again_in = ?wait, "no messages from RabbitMQ: {lost}");
            opened = tokio::select! {
                () = self.stop.cancelled() => return,
                opened = async { tokio::time::sleep(wait).await; self.subscribe().await } => opened,
            };
        }
    }

    async fn subscribe(&self) -> Result<Stream, BrokerError> {
        let queue = self.shared.names.stage(self.stage);
        let live = self.shared.link.live().await?;
        let channel = live.channel().await?;
        // The connection may be an old one and the queue gone since.
        self.shared.names.declare(&channel).await?;
        if let Err(error) = self.shared.rescue(&live.channel().await?).await {
            tracing::warn!(%error, "unroutable messages stay where they are until the next consumer starts");
        }
        let failed = |error: lapin::Error| map_error(format!("take from {queue}"), &error);
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await.map_err(failed)?;
        let consumer = channel
            .basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(failed)?;
        Ok(Stream { channel, consumer })
    }

    /// Fills the buffer until the stream ends, and tells why it did.
    async fn pump(&self, mut stream: Stream) -> String {
        loop {
            let item = tokio::select! {
                () = self.stop.cancelled() => break,
                item = stream.consumer.next() => item,
            };
            match item {
                Some(Ok(delivery)) => self.buffer.push(Unacked { delivery, _channel: stream.channel.clone() }),
                Some(Err(error)) => return error.to_string(),
                None => return "the consumer was cancelled (is the queue gone?)".into(),
            }
        }
        self.cancel(stream).await;
        String::new()
    }

    /// Ends the subscription in an orderly way: what was under way meanwhile still reaches the buffer.
    async fn cancel(&self, mut stream: Stream) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let orderly = async {
            stream.channel.basic_cancel(stream.consumer.tag(), BasicCancelOptions::default()).await?;
            while let Some(delivery) = stream.consumer.next().await {
                self.buffer.push(Unacked { delivery: delivery?, _channel: stream.channel.clone() });
            }
            Ok::<_, lapin::Error>(())
        };
        match tokio::time::timeout(PATIENCE, orderly).await {
            Ok(Ok(())) => {}
            // The channel closes when the last delivery has its answer, and the subscription with it.
            Ok(Err(error)) => tracing::debug!(%error, "could not cancel a subscription"),
            Err(_) => tracing::warn!(stage = %self.stage, "RabbitMQ did not confirm the end of a subscription"),
        }
    }
}

impl Unacked {
    /// RabbitMQ's flag, and the count of quorum queues, which RabbitMQ 4 leaves out where it is 0.
    fn is_redelivered(&self) -> bool {
        let headers = self.delivery.properties.headers().as_ref();
        let count =
            headers.and_then(|headers| headers.inner().get(DELIVERY_COUNT)).and_then(AMQPValue::as_long_long_int);
        self.delivery.redelivered || count.is_some_and(|count| count > 0)
    }

    async fn requeue(&self) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        // A lost channel has handed it back already.
        let _ = self.delivery.acker.nack(options).await;
    }
}

#[async_trait]
impl Receipt for Unacked {
    async fn ack(self: Box<Self>) {
        match self.delivery.acker.ack(BasicAckOptions::default()).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!("an acknowledgement was lost with its channel; the message will come again"),
            Err(error) => tracing::warn!(%error, "an acknowledgement was lost; the message will come again"),
        }
    }

    async fn hand_back(self: Box<Self>) {
        self.requeue().await;
    }
}

impl Drop for Unacked {
    fn drop(&mut self) {
        if self.delivery.acker.usable() {
            // The first poll passes it on to the connection; only whether it was sent would come later.
            let _ = self.requeue().now_or_never();
        }
    }
}
