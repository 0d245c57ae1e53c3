//! Adapters with faults: a process that crashes at a chosen write, and a broker that delivers every message twice.
use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use facemill::broker::{
    BodyFilter, Broker, BrokerError, Consumer, DeadLetter, DeadLetterFilter, Delivery, Depth, Receipt,
};
use facemill::domain::Message;
use facemill::domain::{Cause, Ending, Id, Photo, PhotoKey, Position, RunName, StageName};
use facemill::ledger::{
    Counts, Cursor, Endings, Entry, Event, Filter, Ledger, LedgerError, Move, Moved, Permission, PhotoStatus,
    Registration,
};
use facemill::objects::{ObjectError, ObjectKey, Objects, Page, PutIfAbsent, Swap, Version};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// A write that cannot be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    Register,
    Begin,
    Release,
    PutObject,
    Advance,
    Publish,
    PublishLater,
    DeadLetter,
    PutRecord,
    Recorded,
    Acknowledge,
    Nack,
    TakeDeadLetters,
    Restore,
    Reopen,
}

/// Counts writes and stops the process at the chosen one.
#[derive(Clone)]
pub struct Failpoint {
    /// The type of the writes that count; `None` for all.
    step: Option<Step>,
    left: Arc<AtomicI64>,
    after: bool,
    death: Death,
}

#[derive(Clone)]
enum Death {
    /// Blocks all further writes and notifies waiters, for several simulated processes in one.
    Stop(CancellationToken),
    /// Kills this process with SIGKILL.
    Kill,
}

impl Failpoint {
    pub fn endless() -> Self {
        Self::of(i64::MAX, false)
    }

    /// Triggers at write number `step`, before or after it.
    pub fn of(step: i64, after: bool) -> Self {
        let death = Death::Stop(CancellationToken::new());
        Self { step: None, left: Arc::new(AtomicI64::new(step)), after, death }
    }

    /// Kills this process at the `count`th write of the type `step`.
    pub fn deadly(step: Step, count: i64, after: bool) -> Self {
        Self { step: Some(step), left: Arc::new(AtomicI64::new(count)), after, death: Death::Kill }
    }

    pub async fn reached(&self) {
        match &self.death {
            Death::Stop(reached) => reached.cancelled().await,
            Death::Kill => std::future::pending().await,
        }
    }

    async fn around<T>(&self, step: Step, write: impl Future<Output = T>) -> T {
        let counts = self.step.is_none_or(|chosen| chosen == step);
        let last = counts && self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if self.has_triggered() || (last && !self.after) {
            self.die().await;
        }
        let written = write.await;
        if last {
            self.die().await;
        }
        written
    }

    fn has_triggered(&self) -> bool {
        matches!(&self.death, Death::Stop(reached) if reached.is_cancelled())
    }

    async fn die(&self) {
        match &self.death {
            Death::Stop(reached) => reached.cancel(),
            // SAFETY: no memory is involved.
            Death::Kill => drop(unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }),
        }
        std::future::pending().await
    }
}

/// Ledger and broker of a process that crashes when its failpoint triggers.
pub struct Failing {
    pub ledger: Arc<dyn Ledger>,
    pub broker: Arc<dyn Broker>,
    pub failpoint: Failpoint,
    /// The moves whose first response was lost; `None` if no response is lost.
    pub lost_answers: Option<Mutex<HashSet<String>>>,
}

impl Failing {
    /// Whether to lose the response to this call: true for the first call of a move.
    fn loses_answer(&self, step: &Move<'_>) -> bool {
        let name = format!("{} {:?}", step.key, step.from);
        self.lost_answers.as_ref().is_some_and(|lost| lost.lock().unwrap().insert(name))
    }
}

#[async_trait]
impl Ledger for Failing {
    async fn register_at(
        &self,
        run: &RunName,
        stage: StageName,
        photos: &[Photo],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError> {
        self.failpoint.around(Step::Register, self.ledger.register_at(run, stage, photos, now)).await
    }

    async fn begin(&self, message: &Message, worker: &str, redelivered: bool) -> Result<Permission, LedgerError> {
        self.failpoint.around(Step::Begin, self.ledger.begin(message, worker, redelivered)).await
    }

    async fn release(&self, key: &PhotoKey, at: Position, worker: &str) -> Result<(), LedgerError> {
        self.failpoint.around(Step::Release, self.ledger.release(key, at, worker)).await
    }

    async fn advance(&self, step: &Move<'_>) -> Result<Moved, LedgerError> {
        let moved = self.failpoint.around(Step::Advance, self.ledger.advance(step)).await;
        match self.loses_answer(step) {
            true => Err(LedgerError::Unavailable { what: "cannot move a photo".into(), detail: "no answer".into() }),
            false => moved,
        }
    }

    async fn status(&self, key: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError> {
        self.ledger.status(key).await
    }

    async fn history(&self, key: &PhotoKey) -> Result<Vec<Event>, LedgerError> {
        self.ledger.history(key).await
    }

    async fn counts(&self, run: &RunName) -> Result<Counts, LedgerError> {
        self.ledger.counts(run).await
    }

    async fn page(
        &self,
        run: &RunName,
        filter: &Filter,
        after: Option<&Id>,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerError> {
        self.ledger.page(run, filter, after, limit).await
    }

    async fn endings(&self, run: &RunName, after: Option<&Cursor>, limit: usize) -> Result<Endings, LedgerError> {
        self.ledger.endings(run, after, limit).await
    }

    async fn wait_for_endings(
        &self,
        run: &RunName,
        after: Option<&Cursor>,
        limit: usize,
        patience: Duration,
    ) -> Result<Endings, LedgerError> {
        self.ledger.wait_for_endings(run, after, limit, patience).await
    }

    async fn recorded(&self, key: &PhotoKey, at: Position, ending: Ending) -> Result<(), LedgerError> {
        self.failpoint.around(Step::Recorded, self.ledger.recorded(key, at, ending)).await
    }

    async fn restore(&self, message: &Message, ending: Ending, cause: Option<&Cause>) -> Result<bool, LedgerError> {
        self.failpoint.around(Step::Restore, self.ledger.restore(message, ending, cause)).await
    }

    async fn amend(&self, message: &Message, ending: Ending) -> Result<bool, LedgerError> {
        self.ledger.amend(message, ending).await
    }

    async fn take_down(&self, message: &Message, cause: &Cause, now: u64) -> Result<(), LedgerError> {
        self.ledger.take_down(message, cause, now).await
    }

    async fn reopen(&self, key: &PhotoKey, record: Option<&Message>, now: u64) -> Result<Option<Message>, LedgerError> {
        self.failpoint.around(Step::Reopen, self.ledger.reopen(key, record, now)).await
    }

    async fn runs(&self) -> Result<Vec<RunName>, LedgerError> {
        self.ledger.runs().await
    }

    async fn check(&self) -> Result<(), LedgerError> {
        self.ledger.check().await
    }
}

#[async_trait]
impl Broker for Failing {
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.failpoint.around(Step::Publish, self.broker.publish(message)).await
    }

    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError> {
        self.failpoint.around(Step::PublishLater, self.broker.publish_after(message, delay)).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError> {
        self.failpoint.around(Step::DeadLetter, self.broker.dead_letter(letter)).await
    }

    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let inner = self.broker.consume(stage, prefetch).await?;
        Ok(Box::new(FailpointConsumer { inner, failpoint: self.failpoint.clone() }))
    }

    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        self.broker.depths().await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.broker.dead_letters(limit).await
    }

    async fn take_dead_letters(&self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        self.failpoint.around(Step::TakeDeadLetters, self.broker.take_dead_letters(filter)).await
    }

    async fn remove_messages(&self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        self.broker.remove_messages(matches).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.broker.check().await
    }
}

struct FailpointConsumer {
    inner: Box<dyn Consumer>,
    failpoint: Failpoint,
}

#[async_trait]
impl Consumer for FailpointConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        let delivery = self.inner.next().await?;
        let (stage, body, redelivered) = (delivery.stage, delivery.body.clone(), delivery.redelivered);
        Some(Delivery::new(
            stage,
            body,
            redelivered,
            Box::new(FailpointReceipt { delivery, failpoint: self.failpoint.clone() }),
        ))
    }

    async fn stop(&mut self) {
        self.inner.stop().await;
    }
}

struct FailpointReceipt {
    delivery: Delivery,
    failpoint: Failpoint,
}

#[async_trait]
impl Receipt for FailpointReceipt {
    async fn ack(self: Box<Self>) {
        self.failpoint.around(Step::Acknowledge, self.delivery.ack()).await;
    }

    async fn nack(self: Box<Self>) {
        self.failpoint.around(Step::Nack, self.delivery.nack()).await;
    }
}

/// The object store of a process that crashes when its failpoint triggers.
pub struct FailpointObjects {
    pub objects: Arc<dyn Objects>,
    pub failpoint: Failpoint,
}

#[async_trait]
impl Objects for FailpointObjects {
    async fn put(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<bool, ObjectError> {
        let step = if key.is_content_addressed() { Step::PutObject } else { Step::PutRecord };
        self.failpoint.around(step, self.objects.put(key, body, media_type)).await
    }

    async fn put_if_absent(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<PutIfAbsent, ObjectError> {
        self.failpoint.around(Step::PutObject, self.objects.put_if_absent(key, body, media_type)).await
    }

    async fn compare_and_swap(
        &self,
        key: &ObjectKey,
        expected: &Version,
        body: Bytes,
        media_type: &str,
    ) -> Result<Swap, ObjectError> {
        self.failpoint.around(Step::PutObject, self.objects.compare_and_swap(key, expected, body, media_type)).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
        self.objects.get(key).await
    }

    async fn get_versioned(&self, key: &ObjectKey) -> Result<(Bytes, Version), ObjectError> {
        self.objects.get_versioned(key).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        self.failpoint.around(Step::PutObject, self.objects.delete(key)).await
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        self.objects.exists(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError> {
        self.objects.list(prefix, after, limit).await
    }

    async fn check(&self) -> Result<(), ObjectError> {
        self.objects.check().await
    }
}

/// Delivers every message twice, the copy first, like a broker that has lost an acknowledgement.
pub struct Twice(pub Arc<dyn Broker>);

#[async_trait]
impl Broker for Twice {
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.0.publish(message).await
    }

    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError> {
        self.0.publish_after(message, delay).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError> {
        self.0.dead_letter(letter).await
    }

    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(TwiceConsumer { inner: self.0.consume(stage, prefetch).await?, second: None }))
    }

    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        self.0.depths().await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.0.dead_letters(limit).await
    }

    async fn take_dead_letters(&self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        self.0.take_dead_letters(filter).await
    }

    async fn remove_messages(&self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        self.0.remove_messages(matches).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        Broker::check(&*self.0).await
    }
}

struct TwiceConsumer {
    inner: Box<dyn Consumer>,
    second: Option<Delivery>,
}

#[async_trait]
impl Consumer for TwiceConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        if let Some(second) = self.second.take() {
            return Some(second);
        }
        let delivery = self.inner.next().await?;
        let copy = Delivery::new(delivery.stage, delivery.body.clone(), delivery.redelivered, Box::new(Copy));
        self.second = Some(delivery);
        Some(copy)
    }

    async fn stop(&mut self) {
        self.second = None;
        self.inner.stop().await;
    }
}

/// The receipt of a copy, without an effect.
struct Copy;

#[async_trait]
impl Receipt for Copy {
    async fn ack(self: Box<Self>) {}

    async fn nack(self: Box<Self>) {}
}
