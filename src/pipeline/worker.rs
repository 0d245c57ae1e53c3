//! Takes deliveries of one stage, runs the stage, and leaves nothing half done.
//!
//! For every delivery, in this order: leave to begin from the ledger, the stage, the move in the ledger (which keeps
//! the next message), the next message confirmed by the broker, the acknowledgement. A process may die between any two
//! of them: the delivery comes again, and whoever takes it finds in the ledger how far the photo got. See `design.md`.

use crate::domain::CauseCode;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::event::{Observer, PhotoEvent};
use super::pause::Pause;
use super::retry::Waits;
use super::sending::send;
use super::spans;
use super::stage::{Outcome, Stage, panic_text};
use crate::archive::records::Records;
use crate::broker::{Broker, BrokerError, Consumer, DeadLetter, Delivery};
use crate::domain::Message;
use crate::domain::Record;
use crate::domain::clock::now;
use crate::domain::{Cause, Ending, Position, StageName, State};
use crate::ledger::{Event, EventKind, Ledger, LedgerError, Move, Moved, Permission, PhotoStatus};
use crate::objects::ObjectError;
use crate::telemetry::instruments;

/// How a worker goes about its work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many photos are worked on at a time.
    pub concurrency: usize,
    /// Attempts a photo has at one stage.
    pub attempts: u32,
    pub waits: Waits,
    /// How long after it was enqueued a photo may be told to wait for nothing; from then on waits cost attempts, but for
    /// those that we wish for ourselves.
    pub patience: Duration,
    /// A stage that takes longer has failed.
    pub time_limit: Duration,
    /// So many workers dying over one photo are enough, where there is a gate: one beside others, and two alone, as the
    /// one of them may have been killed from outside.
    pub crash_limit: u32,
    /// What a shutdown grants to the photos in flight.
    pub grace: Duration,
    /// While it is on, nothing is taken from the queue.
    pub pause: Pause,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 1,
            attempts: 5,
            waits: Waits::default(),
            patience: Duration::from_secs(24 * 3600),
            time_limit: Duration::from_secs(120),
            crash_limit: 3,
            grace: Duration::from_secs(45),
            pause: Pause::default(),
        }
    }
}

/// Lets photos run side by side, and a suspect alone. Shared by all workers of a process that run native code: a crash
/// then has one suspect, and one photo that kills its process takes no neighbour along twice.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<RwLock<()>>);

/// Held while a stage runs.
enum Pass<'a> {
    Beside { _pass: RwLockReadGuard<'a, ()> },
    Alone { _pass: RwLockWriteGuard<'a, ()> },
}

impl Gate {
    async fn enter(&self, alone: bool) -> Pass<'_> {
        if alone { Pass::Alone { _pass: self.0.write().await } } else { Pass::Beside { _pass: self.0.read().await } }
    }
}

/// Why a worker ended before it was told to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorkerError {
    #[error("the {stage} worker cannot go on: {error}")]
    Broker { stage: StageName, error: BrokerError },
    #[error("the {stage} worker cannot go on: {error}")]
    Ledger { stage: StageName, error: LedgerError },
    #[error("the {stage} worker cannot go on: {error}")]
    Objects { stage: StageName, error: ObjectError },
}

/// A delivery that has to go back to its queue.
enum Unsettled {
    ShuttingDown,
    Fatal(WorkerError),
}

/// Everything a worker needs; clones share it.
#[derive(Clone)]
pub struct Worker {
    pub stage: Arc<dyn Stage>,
    pub broker: Arc<dyn Broker>,
    pub ledger: Arc<dyn Ledger>,
    /// None: the ledger keeps all that is known of photos that have ended.
    pub records: Option<Records>,
    pub observer: Arc<dyn Observer>,
    /// None: the stage runs no native code that could take the process down. Should it die all the same, the broker's
    /// delivery limit is the last resort.
    pub gate: Option<Gate>,
    /// Unique among all processes, also over restarts.
    pub name: String,
    pub settings: Settings,
}

impl Worker {
    /// Works until `shutdown`, then finishes what is in flight within the grace period and hands the rest back.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let stage = self.stage.name();
        let broken = |error| WorkerError::Broker { stage, error };
        // One more than can be worked on, so that the next photo is at hand when one is done.
        let prefetch = u16::try_from(self.settings.concurrency + 1).unwrap_or(u16::MAX);
        let mut pause = self.settings.pause.clone();
        let mut consumer = None;
        let aborted = CancellationToken::new();
        let mut in_flight = JoinSet::new();
        let mut fault = None;
        while fault.is_none() {
            if pause.is_on() {
                rest(stage, &mut consumer).await;
            } else if consumer.is_none() {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    taker = self.broker.consume(stage, prefetch) => match taker {
                        Ok(taker) => consumer = Some(taker),
                        Err(error) => fault = Some(broken(error)),
                    }
                }
                continue;
            }
            let room = in_flight.len() < self.settings.concurrency;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(settled) = in_flight.join_next() => fault = worst(settled),
                () = pause.changed() => {}
                delivery = next(&mut consumer), if room => {
                    let Some(delivery) = delivery else { break };
                    in_flight.spawn(self.clone().handle(delivery, aborted.clone()));
                }
            }
        }
        rest(stage, &mut consumer).await;
        let finish = async {
            while let Some(settled) = in_flight.join_next().await {
                fault = fault.take().or(worst(settled));
            }
        };
        if tokio::time::timeout(self.settings.grace, finish).await.is_err() {
            aborted.cancel();
            while in_flight.join_next().await.is_some() {}
        }
        fault.map_or(Ok(()), Err)
    }

    async fn handle(self, delivery: Delivery, aborted: CancellationToken) -> Option<WorkerError> {
        let _in_hand = InHand::new(&*self.observer, self.stage.name());
        match self.process(&delivery.body, delivery.redelivered, &aborted).await {
            Ok(()) => {
                delivery.ack().await;
                self.observer.on_ack();
                None
            }
            Err(unsettled) => {
                delivery.hand_back().await;
                match unsettled {
                    Unsettled::ShuttingDown => None,
                    Unsettled::Fatal(error) => Some(error),
                }
            }
        }
    }

    /// Ok: all there is to do about the delivery is done, stored and confirmed.
    async fn process(&self, body: &Bytes, redelivered: bool, aborted: &CancellationToken) -> Result<(), Unsettled> {
        let message = match Message::decode(body) {
            Ok(message) if message.position.stage == self.stage.name() => message,
            Ok(message) => {
                let cause =
                    format!("a message for {} lay in the queue of {}", message.position.stage, self.stage.name());
                return self.dead_letter_foreign(body, Cause::new(CauseCode::ForeignMessage, cause), aborted).await;
            }
            Err(bad) => {
                return self
                    .dead_letter_foreign(body, Cause::new(CauseCode::ForeignMessage, bad.to_string()), aborted)
                    .await;
            }
        };
        let span = spans::process(&message, body.len(), redelivered, &*self.broker, &self.name);
        self.run_stage(message, redelivered, aborted).instrument(span).await
    }

    /// Has the stage work on the photo, if it is the photo's turn.
    async fn run_stage(
        &self,
        message: Message,
        redelivered: bool,
        aborted: &CancellationToken,
    ) -> Result<(), Unsettled> {
        let pass = match &self.gate {
            Some(gate) => Some(gate.enter(redelivered).await),
            None => None,
        };
        let begin = || self.ledger.begin(&message, &self.name, redelivered).instrument(self.ledger_span("begin"));
        let crashes = match self.retry_until_shutdown("begin with a photo", begin, aborted).await? {
            Permission::Granted { crashes } => crashes,
            Permission::Stale(status) => {
                drop(pass);
                return self.catch_up(&message, *status, redelivered, aborted).await;
            }
        };
        let started = Instant::now();
        // Only who ran alone can be blamed: without a gate, neighbours died with the culprit.
        let outcome = if self.gate.is_some() && crashes >= self.settings.crash_limit {
            let detail = format!("{crashes} workers died over it; it runs only when it is replayed by hand");
            Outcome::Poison(Cause::new(CauseCode::KillsWorkers, detail))
        } else {
            tokio::select! {
                outcome = self.attempt(&message) => outcome,
                () = aborted.cancelled() => {
                    let _ = self.ledger.release(&message.photo.key(), message.position, &self.name).await;
                    return Err(Unsettled::ShuttingDown);
                }
            }
        };
        drop(pass);
        self.commit(message, outcome, started.elapsed(), aborted).await
    }

    /// Runs the stage; a panic and too long a run are failed attempts.
    async fn attempt(&self, message: &Message) -> Outcome {
        let run = AssertUnwindSafe(self.stage.run(&message.photo)).catch_unwind();
        match tokio::time::timeout(self.settings.time_limit, run).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => super::stage::Retry::failed(Cause::new(CauseCode::Panic, panic_text(panic.as_ref()))),
            Err(_) => {
                let detail = format!("{} took longer than {:?}", self.stage.name(), self.settings.time_limit);
                super::stage::Retry::failed(Cause::new(CauseCode::TimeLimit, detail))
            }
        }
    }

    /// Writes the outcome down, then hands the photo on.
    async fn commit(
        &self,
        message: Message,
        outcome: Outcome,
        took: Duration,
        aborted: &CancellationToken,
    ) -> Result<(), Unsettled> {
        let step = self.step(&message, outcome);
        let event = Event {
            at_ms: now().as_millis() as u64,
            stage: self.stage.name(),
            attempt: message.attempt,
            what: step.what,
            cause: step.cause,
            took_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
        };
        let key = message.photo.key();
        let due_at = step.wait.map_or(0, |wait| (now() + wait).as_secs());
        let advance = Move {
            key: &key,
            from: message.position,
            to: step.to,
            attempt: step.next.attempt,
            due_at,
            event: event.clone(),
            message: &step.next,
        };
        let tries = AtomicU32::new(0);
        let try_to_move = || {
            tries.fetch_add(1, Ordering::Relaxed);
            self.ledger.advance(&advance).instrument(self.ledger_span("advance"))
        };
        match self.retry_until_shutdown("move a photo", try_to_move, aborted).await? {
            // This very move was made before, and the answer lost.
            Moved::Stale(status) if tries.into_inner() > 1 && status.state == step.to => {}
            // Another delivery of the same message was faster and does what is left to do.
            Moved::Stale(_) => return Ok(()),
            Moved::Done => {}
        }
        let waits = event.what == EventKind::Retried && step.next.attempt == event.attempt;
        let photo_event = PhotoEvent { photo: &step.next.photo, event: &event, waits };
        photo_event.emit(&Span::current());
        self.observer.on_event(&photo_event);
        self.publish_next(step.to, &step.next, step.wait, event.cause.as_ref(), aborted).await
    }

    /// What the outcome means for the photo.
    fn step(&self, message: &Message, outcome: Outcome) -> Step {
        let end = |ending: Ending, cause: Option<Cause>, next: Message| Step {
            to: State::Ended(ending),
            what: ending.into(),
            cause,
            next,
            wait: None,
        };
        match outcome {
            Outcome::Advance(photo) => match self.stage.name().next() {
                Some(stage) => {
                    let position = Position::entering(stage);
                    Step {
                        to: State::Waiting(position),
                        what: EventKind::Advanced,
                        cause: None,
                        next: Message { position, attempt: 1, photo: *photo, ..message.clone() },
                        wait: None,
                    }
                }
                None => end(Ending::Predicted, None, Message { photo: *photo, ..message.clone() }),
            },
            Outcome::Gone(cause) => end(Ending::Gone, Some(cause), message.clone()),
            Outcome::Reject(cause) => end(Ending::Rejected, Some(cause), message.clone()),
            Outcome::Poison(cause) => end(Ending::Failed, Some(cause), message.clone()),
            Outcome::Retry(retry) => {
                let waited = now().as_secs().saturating_sub(message.enqueued_at);
                let endless = waited > self.settings.patience.as_secs() && !retry.cause.code.is_local_wait();
                let costs_attempt = retry.costs_attempt || endless;
                if costs_attempt && message.attempt >= self.settings.attempts {
                    return end(self.stage.exhausted(&retry.cause), Some(retry.cause), message.clone());
                }
                let position = message.position.next_delivery();
                let own = self.settings.waits.after(message.attempt, &message.id());
                let wait = retry.after.map_or(own, |asked| asked.min(Waits::LONGEST));
                let attempt = message.attempt + u32::from(costs_attempt);
                Step {
                    to: State::Waiting(position),
                    what: EventKind::Retried,
                    cause: Some(retry.cause),
                    next: Message { position, attempt, ..message.clone() },
                    wait: Some(wait),
                }
            }
        }
    }

    /// Publishes what the move has promised.
    async fn publish_next(
        &self,
        state: State,
        next: &Message,
        wait: Option<Duration>,
        cause: Option<&Cause>,
        aborted: &CancellationToken,
    ) -> Result<(), Unsettled> {
        match (state, wait) {
            (State::Waiting(_), wait) => {
                self.retry_until_shutdown("publish", || send(&*self.broker, next, wait), aborted).await
            }
            (State::Ended(ending), _) => {
                // The record comes last: with it the ledger lets go of the message that a letter is written from.
                if ending == Ending::Failed {
                    self.dead_letter(next, cause, aborted).await?;
                }
                self.record(ending, next, cause, aborted).await
            }
        }
    }

    async fn dead_letter(
        &self,
        message: &Message,
        cause: Option<&Cause>,
        aborted: &CancellationToken,
    ) -> Result<(), Unsettled> {
        let cause = cause.cloned().unwrap_or_else(|| Cause::new(CauseCode::Unknown, ""));
        let letter = DeadLetter {
            stage: Some(message.position.stage),
            cause,
            attempt: message.attempt,
            first_at: message.enqueued_at,
            last_at: now().as_secs(),
            trace_id: Some(message.photo.key().trace().trace_id_hex()),
            body: String::from_utf8_lossy(&message.encode()).into_owned(),
        };
        self.publish_dead_letter(&letter, aborted).await
    }

    async fn publish_dead_letter(&self, letter: &DeadLetter, aborted: &CancellationToken) -> Result<(), Unsettled> {
        let dead_letter = || self.broker.dead_letter(letter).instrument(tracing::trace_span!("dead_letter"));
        self.retry_until_shutdown("dead_letter", dead_letter, aborted).await?;
        if let Some(instruments) = instruments::get() {
            instruments.dead_letter(letter.stage, &letter.cause.code.as_str());
        }
        Ok(())
    }

    fn ledger_span(&self, operation: &'static str) -> Span {
        spans::ledger(self.ledger.system(), operation)
    }

    /// Writes down among the objects how the photo ended, then lets the ledger forget its message. In that order, and
    /// after the ledger has decided: a record never tells of an ending that did not count.
    async fn record(
        &self,
        ending: Ending,
        message: &Message,
        cause: Option<&Cause>,
        aborted: &CancellationToken,
    ) -> Result<(), Unsettled> {
        let Some(records) = &self.records else { return Ok(()) };
        // Whoever sends the photo back one day goes on from the root of its trace.
        let traceparent = Some(message.photo.key().trace().traceparent());
        let record = Record { ending, cause: cause.cloned(), message: Message { traceparent, ..message.clone() } };
        self.retry_until_shutdown("write a record", || records.write(&record), aborted).await?;
        let (key, at) = (message.photo.key(), message.position);
        let recorded = || self.ledger.recorded(&key, at, ending).instrument(self.ledger_span("recorded"));
        self.retry_until_shutdown("let go of a message", recorded, aborted).await
    }

    /// The message is a copy of one that was dealt with. If it was handed out before, the worker that moved the photo may
    /// have died before it published: what the ledger kept is published again, and at worst recognised as a copy.
    async fn catch_up(
        &self,
        message: &Message,
        status: PhotoStatus,
        redelivered: bool,
        aborted: &CancellationToken,
    ) -> Result<(), Unsettled> {
        tracing::debug!(photo = %message.photo.key(), stage = %self.stage.name(), redelivered, "a copy, already dealt with");
        let Some(kept) = status.message.filter(|_| redelivered) else { return Ok(()) };
        let wait = status.due_at.checked_sub(now().as_secs()).filter(|&left| left > 0).map(Duration::from_secs);
        // It takes the place that this delivery leaves: to wait for room in the own queue could be to wait for oneself.
        let wait = wait.or((kept.position.stage == self.stage.name()).then_some(Duration::ZERO));
        self.publish_next(status.state, &kept, wait, status.cause.as_ref(), aborted).await
    }

    async fn dead_letter_foreign(
        &self,
        body: &Bytes,
        cause: Cause,
        aborted: &CancellationToken,
    ) -> Result<(), Unsettled> {
        use base64::Engine;
        tracing::warn!(stage = %self.stage.name(), %cause, "a message that is not ours goes to the dead letters");
        let body =
            String::from_utf8(body.to_vec()).unwrap_or_else(|_| base64::engine::general_purpose::STANDARD.encode(body));
        let at = now().as_secs();
        let stage = Some(self.stage.name());
        let letter = DeadLetter { stage, cause, attempt: 0, first_at: at, last_at: at, trace_id: None, body };
        self.publish_dead_letter(&letter, aborted).await
    }

    /// Tries until it works, as long as there is hope and time.
    async fn retry_until_shutdown<T, E, F>(
        &self,
        what: &str,
        action: impl Fn() -> F,
        aborted: &CancellationToken,
    ) -> Result<T, Unsettled>
    where
        E: Transient,
        F: Future<Output = Result<T, E>>,
    {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(10);
        let mut wait = FIRST;
        loop {
            let error = tokio::select! {
                result = action() => match result {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                },
                () = aborted.cancelled() => return Err(Unsettled::ShuttingDown),
            };
            if !error.is_transient() {
                return Err(Unsettled::Fatal(error.fatal(self.stage.name())));
            }
            tracing::warn!(stage = %self.stage.name(), %error, again_in = ?wait, "could not {what}");
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST),
                () = aborted.cancelled() => return Err(Unsettled::ShuttingDown),
            }
        }
    }
}

/// A delivery that is worked on, counted also when its task panics.
struct InHand<'a> {
    observer: &'a dyn Observer,
    stage: StageName,
    since: Instant,
}

impl<'a> InHand<'a> {
    fn new(observer: &'a dyn Observer, stage: StageName) -> Self {
        observer.on_delivery();
        if let Some(instruments) = instruments::get() {
            instruments.taken(stage);
        }
        Self { observer, stage, since: Instant::now() }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.observer.on_done();
        if let Some(instruments) = instruments::get() {
            instruments.put_down(self.stage, self.since.elapsed());
        }
    }
}

/// One step of a photo, ready to be written down.
struct Step {
    to: State,
    what: EventKind,
    cause: Option<Cause>,
    next: Message,
    wait: Option<Duration>,
}

/// An error that knows whether to try again.
trait Transient: std::fmt::Display {
    fn is_transient(&self) -> bool;
    fn fatal(self, stage: StageName) -> WorkerError;
}

impl Transient for BrokerError {
    fn is_transient(&self) -> bool {
        self.is_retryable()
    }

    fn fatal(self, stage: StageName) -> WorkerError {
        WorkerError::Broker { stage, error: self }
    }
}

impl Transient for ObjectError {
    fn is_transient(&self) -> bool {
        self.is_retryable()
    }

    fn fatal(self, stage: StageName) -> WorkerError {
        WorkerError::Objects { stage, error: self }
    }
}

impl Transient for LedgerError {
    fn is_transient(&self) -> bool {
        self.is_retryable()
    }

    fn fatal(self, stage: StageName) -> WorkerError {
        WorkerError::Ledger { stage, error: self }
    }
}

/// Takes nothing more; what was prefetched goes back.
async fn rest(stage: StageName, consumer: &mut Option<Box<dyn Consumer>>) {
    if let Some(mut consumer) = consumer.take() {
        consumer.stop().await;
        tracing::info!(%stage, "takes no more photos");
    }
}

/// The next delivery; while nothing is taken there is none to wait for.
async fn next(consumer: &mut Option<Box<dyn Consumer>>) -> Option<Delivery> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

fn worst(settled: Result<Option<WorkerError>, tokio::task::JoinError>) -> Option<WorkerError> {
    // A panic in the worker itself dropped the delivery, which went back to its queue.
    settled.unwrap_or_else(|error| {
        tracing::error!(%error, "a delivery was dropped");
        None
    })
}
