//! The worker of one stage: takes deliveries, runs the stage, and stores and publishes the results.
//!
//! The steps for each delivery: begin in the ledger, run the stage, move the photo in the ledger (which keeps the next
//! message), publish the next message, acknowledge the delivery. The process may die between any two steps. The broker
//! then delivers the message again, and the ledger says how far the photo has got. See `design.md`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::event::{Observer, PhotoEvent};
use super::gate::{Gate, GateGuard};
use super::pause::Pause;
use super::sending::send;
use super::spans;
use super::stage::{Outcome, Retry, Stage, panic_text};
use crate::archive::records::Records;
use crate::broker::{Broker, Consumer, DeadLetter, Delivery};
use crate::domain::clock::now;
use crate::domain::{Cause, CauseCode, Ending, Message, Position, Record, StageName, State};
use crate::ledger::{Event, EventKind, Ledger, Move, Moved, Permission, PhotoStatus};
use crate::retry::{self, Backoff, Waits};
use crate::server_error::ServerError;
use crate::telemetry::instruments;

/// The settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How many photos are processed at the same time.
    pub concurrency: usize,
    /// Attempts of a photo at one stage.
    pub attempts: u32,
    pub waits: Waits,
    /// Waits are free for this long after enqueueing; then each costs an attempt. Waits that this installation causes
    /// itself (a paused or busy host) stay free.
    pub free_wait_period: Duration,
    /// The time limit of a stage for one photo.
    pub time_limit: Duration,
    /// With a gate, a photo is dead-lettered after this many crashes. With 3, one of them happened beside other photos
    /// and two alone, of which one may have had another reason.
    pub crash_limit: u32,
    /// How long a shutdown waits for the photos in flight.
    pub grace: Duration,
    /// While the stage is paused, the worker takes nothing from the queue.
    pub pause: Pause,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            concurrency: 1,
            attempts: retry::ATTEMPTS,
            waits: Waits::default(),
            free_wait_period: Duration::from_secs(24 * 3600),
            time_limit: Duration::from_secs(120),
            crash_limit: 3,
            grace: Duration::from_secs(45),
            pause: Pause::default(),
        }
    }
}

/// Why a worker stopped without a shutdown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the {stage} worker cannot continue: {error}")]
pub struct WorkerError {
    pub stage: StageName,
    pub error: ServerError,
}

/// Why a delivery goes back to its queue.
enum Interruption {
    ShuttingDown,
    Fatal(WorkerError),
}

/// A worker of one stage. Clones share its parts.
#[derive(Clone)]
pub struct Worker {
    pub stage: Arc<dyn Stage>,
    pub broker: Arc<dyn Broker>,
    pub ledger: Arc<dyn Ledger>,
    /// None: the ledger itself keeps everything about ended photos.
    pub records: Option<Records>,
    pub observer: Arc<dyn Observer>,
    /// None: the stage runs no native code that can crash the process. Only the broker's delivery limit then stops a
    /// message that crashes it nevertheless.
    pub gate: Option<Gate>,
    /// Unique among all processes, including restarts.
    pub name: String,
    pub settings: WorkerSettings,
}

impl Worker {
    /// Processes photos until `shutdown`. Then finishes those in flight within the grace period, and returns the rest.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let stage = self.stage.name();
        let broken = |error| WorkerError { stage, error };
        // One more than is processed at the same time, so that the next photo is there at once.
        let prefetch = u16::try_from(self.settings.concurrency + 1).unwrap_or(u16::MAX);
        let mut pause = self.settings.pause.clone();
        let mut consumer = None;
        let aborted = CancellationToken::new();
        let mut in_flight = JoinSet::new();
        let mut fault = None;
        while fault.is_none() {
            if pause.is_on() {
                stop_consuming(stage, &mut consumer).await;
            } else if consumer.is_none() {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    started = self.broker.consume(stage, prefetch) => match started {
                        Ok(started) => consumer = Some(started),
                        Err(error) => fault = Some(broken(error)),
                    }
                }
                continue;
            }
            let room = in_flight.len() < self.settings.concurrency;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(result) = in_flight.join_next() => fault = fatal_error(result),
                () = pause.changed() => {}
                delivery = next(&mut consumer), if room => {
                    let Some(delivery) = delivery else { break };
                    in_flight.spawn(self.clone().handle(delivery, aborted.clone()));
                }
            }
        }
        stop_consuming(stage, &mut consumer).await;
        let finish = async {
            while let Some(result) = in_flight.join_next().await {
                fault = fault.take().or(fatal_error(result));
            }
        };
        if tokio::time::timeout(self.settings.grace, finish).await.is_err() {
            aborted.cancel();
            while in_flight.join_next().await.is_some() {}
        }
        fault.map_or(Ok(()), Err)
    }

    /// Processes a delivery, then acknowledges or returns it. Returns the error that must stop the worker.
    async fn handle(self, delivery: Delivery, aborted: CancellationToken) -> Option<WorkerError> {
        let _in_progress = InProgress::new(&*self.observer, self.stage.name());
        match self.process(&delivery.body, delivery.redelivered, &aborted).await {
            Ok(()) => {
                delivery.ack().await;
                self.observer.on_ack();
                None
            }
            Err(interruption) => {
                delivery.nack().await;
                match interruption {
                    Interruption::ShuttingDown => None,
                    Interruption::Fatal(error) => Some(error),
                }
            }
        }
    }

    /// Ok: everything that follows from the delivery is stored and confirmed.
    async fn process(&self, body: &Bytes, redelivered: bool, aborted: &CancellationToken) -> Result<(), Interruption> {
        let message = match Message::decode(body) {
            Ok(message) if message.position.stage == self.stage.name() => message,
            Ok(message) => {
                let detail =
                    format!("a message for {} was in the queue of {}", message.position.stage, self.stage.name());
                return self.dead_letter_foreign(body, detail, aborted).await;
            }
            Err(error) => return self.dead_letter_foreign(body, error.to_string(), aborted).await,
        };
        let span = spans::process(&message, body.len(), redelivered, &*self.broker, &self.name);
        self.run_stage(message, redelivered, aborted).instrument(span).await
    }

    /// Runs the stage, unless the ledger says that the message is stale.
    async fn run_stage(
        &self,
        message: Message,
        redelivered: bool,
        aborted: &CancellationToken,
    ) -> Result<(), Interruption> {
        let guard = self.enter_gate(redelivered, aborted).await?;
        let begin = || self.ledger.begin(&message, &self.name, redelivered).instrument(self.ledger_span("begin"));
        let crashes = match self.retry_until_shutdown("begin a photo", begin, aborted).await? {
            Permission::Granted { crashes } => crashes,
            Permission::Stale(status) => {
                drop(guard);
                return self.republish(&message, *status, redelivered, aborted).await;
            }
        };
        let started = Instant::now();
        // Without a gate other photos ran beside it, and the cause of the crashes is not known.
        let outcome = if self.gate.is_some() && crashes >= self.settings.crash_limit {
            let detail = format!("{crashes} workers crashed while processing it: retry it by hand");
            Outcome::Poison(Cause::new(CauseCode::KillsWorkers, detail))
        } else {
            tokio::select! {
                outcome = self.attempt(&message, guard.clone()) => outcome,
                () = aborted.cancelled() => {
                    let _ = self.ledger.release(&message.photo.key(), message.position, &self.name).await;
                    return Err(Interruption::ShuttingDown);
                }
            }
        };
        drop(guard);
        self.commit(message, outcome, started.elapsed(), aborted).await
    }

    /// None: the worker has no gate.
    async fn enter_gate(
        &self,
        alone: bool,
        aborted: &CancellationToken,
    ) -> Result<Option<Arc<GateGuard>>, Interruption> {
        let Some(gate) = &self.gate else { return Ok(None) };
        tokio::select! {
            entered = gate.enter(alone, self.settings.time_limit) => entered.map(Some).map_err(|stuck| {
                let what = "run a photo alone".into();
                let error = ServerError::Refused { what, detail: stuck.to_string() };
                Interruption::Fatal(WorkerError { stage: self.stage.name(), error })
            }),
            () = aborted.cancelled() => Err(Interruption::ShuttingDown),
        }
    }

    /// Runs the stage. A panic or a timeout is a failed attempt. After a timeout the stage's native code may still run:
    /// it keeps the guard until it ends.
    async fn attempt(&self, message: &Message, guard: Option<Arc<GateGuard>>) -> Outcome {
        let overdue = guard.clone();
        let run = async {
            match guard {
                Some(guard) => guard.hold(self.stage.run(&message.photo)).await,
                None => self.stage.run(&message.photo).await,
            }
        };
        match tokio::time::timeout(self.settings.time_limit, AssertUnwindSafe(run).catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Retry::failed(Cause::new(CauseCode::Panic, panic_text(panic.as_ref()))),
            Err(_) => {
                if let Some(guard) = overdue {
                    guard.set_overdue();
                }
                let detail = format!("{} took longer than {:?}", self.stage.name(), self.settings.time_limit);
                Retry::failed(Cause::new(CauseCode::TimeLimit, detail))
            }
        }
    }

    /// Stores the outcome in the ledger, then publishes the next message.
    async fn commit(
        &self,
        message: Message,
        outcome: Outcome,
        took: Duration,
        aborted: &CancellationToken,
    ) -> Result<(), Interruption> {
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
            // Nothing of the photo may be stored again.
            Moved::Stale(status) if status.is_taken_down() => return Ok(()),
            // An earlier try of this move succeeded, but its answer was lost.
            Moved::Stale(status) if tries.into_inner() > 1 && status.state == step.to => {}
            // Another delivery of the same message has moved the photo and does the rest.
            Moved::Stale(_) => return Ok(()),
            Moved::Done => {}
        }
        let waits = event.what == EventKind::Retried && step.next.attempt == event.attempt;
        let photo_event = PhotoEvent { photo: &step.next.photo, event: &event, waits };
        photo_event.emit(&Span::current());
        self.observer.on_event(&photo_event);
        self.publish_next(step.to, &step.next, step.wait, event.cause.as_ref(), aborted).await
    }

    /// The move and the next message that follow from an outcome.
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
                let too_long = waited > self.settings.free_wait_period.as_secs() && !retry.cause.code.is_local_wait();
                let costs_attempt = retry.costs_attempt || too_long;
                if costs_attempt && message.attempt >= self.settings.attempts {
                    return end(self.stage.exhausted(&retry.cause), Some(retry.cause), message.clone());
                }
                let position = message.position.next_delivery();
                let default = self.settings.waits.after(message.attempt, &message.id());
                let wait = retry.after.map_or(default, |after| after.min(retry::LONGEST_WAIT));
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

    /// Publishes the next message, or the dead letter and the record of an ended photo.
    async fn publish_next(
        &self,
        state: State,
        next: &Message,
        wait: Option<Duration>,
        cause: Option<&Cause>,
        aborted: &CancellationToken,
    ) -> Result<(), Interruption> {
        match (state, wait) {
            (State::Waiting(_), wait) => {
                self.retry_until_shutdown("publish a message", || send(&*self.broker, next, wait), aborted).await
            }
            (State::Ended(ending), _) => {
                // The record comes last: then the ledger drops the message, from which the dead letter is made.
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
    ) -> Result<(), Interruption> {
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

    async fn publish_dead_letter(&self, letter: &DeadLetter, aborted: &CancellationToken) -> Result<(), Interruption> {
        let dead_letter = || self.broker.dead_letter(letter).instrument(tracing::trace_span!("dead_letter"));
        self.retry_until_shutdown("publish a dead letter", dead_letter, aborted).await?;
        if let Some(instruments) = instruments::get() {
            instruments.dead_letter(letter.stage, &letter.cause.code.as_str());
        }
        Ok(())
    }

    fn ledger_span(&self, operation: &'static str) -> Span {
        spans::ledger(self.ledger.system(), operation)
    }

    /// Stores the record of an ended photo, then lets the ledger drop its message. This follows the move in the ledger,
    /// so that a record never contains an ending that did not count.
    async fn record(
        &self,
        ending: Ending,
        message: &Message,
        cause: Option<&Cause>,
        aborted: &CancellationToken,
    ) -> Result<(), Interruption> {
        let Some(records) = &self.records else { return Ok(()) };
        // A later requeue continues from the root of the photo's trace.
        let traceparent = Some(message.photo.key().trace().traceparent());
        let record = Record { ending, cause: cause.cloned(), message: Message { traceparent, ..message.clone() } };
        self.retry_until_shutdown("write a record", || records.write(&record), aborted).await?;
        let (key, at) = (message.photo.key(), message.position);
        let recorded = || self.ledger.recorded(&key, at, ending).instrument(self.ledger_span("recorded"));
        self.retry_until_shutdown("drop the message of an ended photo", recorded, aborted).await
    }

    /// Handles a message whose photo has moved on. If it was redelivered, the worker that moved the photo may have died
    /// before publishing: the message that the ledger keeps is published again. At worst it is recognised as a copy.
    async fn republish(
        &self,
        message: &Message,
        status: PhotoStatus,
        redelivered: bool,
        aborted: &CancellationToken,
    ) -> Result<(), Interruption> {
        tracing::debug!(photo = %message.photo.key(), stage = %self.stage.name(), redelivered, "stale message");
        let Some(kept) = status.message.filter(|_| redelivered) else { return Ok(()) };
        let wait = status.due_at.checked_sub(now().as_secs()).filter(|&left| left > 0).map(Duration::from_secs);
        // A message for this stage takes the room of this delivery: waiting for room in the same queue could deadlock.
        let wait = wait.or((kept.position.stage == self.stage.name()).then_some(Duration::ZERO));
        self.publish_next(status.state, &kept, wait, status.cause.as_ref(), aborted).await
    }

    /// Dead-letters a message that facemill did not publish to this queue.
    async fn dead_letter_foreign(
        &self,
        body: &Bytes,
        detail: String,
        aborted: &CancellationToken,
    ) -> Result<(), Interruption> {
        let letter = DeadLetter::foreign(self.stage.name(), body, detail);
        tracing::warn!(stage = %self.stage.name(), cause = %letter.cause, "a foreign message is dead-lettered");
        self.publish_dead_letter(&letter, aborted).await
    }

    /// Repeats an action until it succeeds, fails for good, or the shutdown's grace period is over. `what` completes
    /// "cannot ...".
    async fn retry_until_shutdown<T, E, F>(
        &self,
        what: &str,
        action: impl Fn() -> F,
        aborted: &CancellationToken,
    ) -> Result<T, Interruption>
    where
        E: Into<ServerError>,
        F: Future<Output = Result<T, E>>,
    {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(10);
        let mut backoff = Backoff::new(FIRST, LONGEST);
        loop {
            let error: ServerError = tokio::select! {
                result = action() => match result {
                    Ok(value) => return Ok(value),
                    Err(error) => error.into(),
                },
                () = aborted.cancelled() => return Err(Interruption::ShuttingDown),
            };
            if !error.is_retryable() {
                return Err(Interruption::Fatal(WorkerError { stage: self.stage.name(), error }));
            }
            let wait = backoff.next_wait();
            tracing::warn!(stage = %self.stage.name(), %error, retry_in = ?wait, "cannot {what}");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = aborted.cancelled() => return Err(Interruption::ShuttingDown),
            }
        }
    }
}

/// Counts a delivery in progress, also if its task panics.
struct InProgress<'a> {
    observer: &'a dyn Observer,
    stage: StageName,
    since: Instant,
}

impl<'a> InProgress<'a> {
    fn new(observer: &'a dyn Observer, stage: StageName) -> Self {
        observer.on_delivery();
        if let Some(instruments) = instruments::get() {
            instruments.delivery_started(stage);
        }
        Self { observer, stage, since: Instant::now() }
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.observer.on_done();
        if let Some(instruments) = instruments::get() {
            instruments.delivery_finished(self.stage, self.since.elapsed());
        }
    }
}

/// A move of a photo in the ledger, and what is published after it.
struct Step {
    to: State,
    what: EventKind,
    cause: Option<Cause>,
    next: Message,
    wait: Option<Duration>,
}

/// Stops the consumer. Prefetched messages go back to the queue.
async fn stop_consuming(stage: StageName, consumer: &mut Option<Box<dyn Consumer>>) {
    if let Some(mut consumer) = consumer.take() {
        consumer.stop().await;
        tracing::info!(%stage, "takes no more photos");
    }
}

/// The next delivery. Waits forever without a consumer.
async fn next(consumer: &mut Option<Box<dyn Consumer>>) -> Option<Delivery> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

fn fatal_error(result: Result<Option<WorkerError>, tokio::task::JoinError>) -> Option<WorkerError> {
    // The worker itself panicked: the broker takes the delivery back.
    result.unwrap_or_else(|error| {
        tracing::error!(%error, "the worker panicked; its delivery goes back to the queue");
        None
    })
}
