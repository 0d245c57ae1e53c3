//! Registers candidates and enqueues them.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tracing::Instrument;

use super::sending::send;
use super::spans;
use crate::broker::Broker;
use crate::domain::Message;
use crate::domain::clock::now;
use crate::domain::{Candidate, Id, Photo, RunName};
use crate::ledger::{Filter, Ledger, PhotoStatus, Registration};
use crate::server_error::ServerError;

/// What the producer did with the candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Enqueued {
    pub new: u64,
    pub known: u64,
    pub refused: Vec<Refusal>,
}

/// A candidate that cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    pub photo_id: Id,
    pub reason: &'static str,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ProducerError {
    #[error("cannot enqueue the candidates: {0}")]
    Server(#[from] ServerError),
}

/// In bytes. A longer id is refused.
const LONGEST_ID: usize = 200;
/// Candidates that share a round trip to the ledger.
const BATCH: usize = 500;
/// Messages that wait for the confirm of the broker at a time.
const UNCONFIRMED: usize = 128;

/// Registers the candidates and enqueues those that have not advanced yet. `progress` receives how many are done.
///
/// It may be repeated after any failure: a known photo stays as it is, and a second copy of a message is recognised.
pub async fn enqueue(
    run: &RunName,
    candidates: &[Candidate],
    ledger: &dyn Ledger,
    broker: &dyn Broker,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Enqueued, ProducerError> {
    let mut enqueued = Enqueued::default();
    for batch in candidates.chunks(BATCH) {
        let (fit, unfit): (Vec<_>, Vec<_>) = batch.iter().cloned().partition(|candidate| refusal(candidate).is_none());
        enqueued.refused.extend(unfit.iter().filter_map(refusal));
        let now = now().as_secs();
        let registrations = ledger.register(run, &fit, now).await?;
        let mut messages = Vec::with_capacity(fit.len());
        for (candidate, registration) in fit.into_iter().zip(&registrations) {
            if *registration != Registration::InProgress {
                messages.push(Message::first(Photo::new(run.clone(), candidate), now));
            }
        }
        stream::iter(messages)
            .map(|message| async move {
                let root = spans::root(&message.photo);
                send(broker, &message, None).instrument(root).await
            })
            .buffered(UNCONFIRMED)
            .try_collect::<()>()
            .await?;
        let new = registrations.iter().filter(|&&registration| registration == Registration::New).count() as u64;
        enqueued.new += new;
        enqueued.known += registrations.len() as u64 - new;
        progress(batch.len() as u64);
    }
    Ok(enqueued)
}

/// Publishes the messages that the ledger keeps of the waiting photos, for queues that were lost, and returns how many.
/// If a queue still has such a message, the copy is recognised.
pub async fn enqueue_waiting(run: &RunName, ledger: &dyn Ledger, broker: &dyn Broker) -> Result<u64, ServerError> {
    let waiting = Filter { waiting: true, ..Filter::default() };
    let (mut enqueued, mut after) = (0, None);
    loop {
        let page = ledger.page(run, &waiting, after.as_ref(), BATCH).await?;
        let Some(last) = page.last() else { return Ok(enqueued) };
        after = Some(last.photo_id.clone());
        let now = now().as_secs();
        for PhotoStatus { due_at, message, .. } in page.iter().map(|entry| &entry.status) {
            if let Some(message) = message {
                send(broker, message, Some(Duration::from_secs(due_at.saturating_sub(now)))).await?;
                enqueued += 1;
            }
        }
    }
}

fn refusal(candidate: &Candidate) -> Option<Refusal> {
    let reason = match candidate.photo_id.as_str().len() {
        0 => "the photo has no id",
        1..=LONGEST_ID => return None,
        _ => "the photo's id is longer than 200 bytes",
    };
    Some(Refusal { photo_id: candidate.photo_id.clone(), reason })
}
