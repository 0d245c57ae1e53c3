//! Registers candidates and enqueues them.

use std::fmt;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tracing::Instrument;

use super::sending::send;
use super::spans;
use crate::archive::records::Records;
use crate::broker::Broker;
use crate::domain::clock::now;
use crate::domain::{Candidate, Id, Photo, PhotoKey, RunName, StageName};
use crate::domain::{Message, Printable};
use crate::ledger::{Filter, Ledger, PhotoStatus, Registration};
use crate::objects::ObjectError;
use crate::server_error::ServerError;

/// What the producer did with the candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Enqueued {
    pub new: u64,
    pub known: u64,
    /// Candidates that were not enqueued because the run has another photo with their id.
    pub in_conflict: u64,
    /// The first of these.
    pub conflicts: Vec<Conflict>,
    pub refused: Vec<Refusal>,
    /// Candidates at addresses that a takedown refuses. They have ended, and were not enqueued.
    pub taken_down: u64,
}

/// A candidate with the id of another photo.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Conflict {
    pub photo_id: Id,
    /// The URL of the photo in the run. None: its record is missing.
    pub known_url: Option<String>,
    /// The URL of the candidate.
    pub url: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, url) = (self.photo_id.as_str().printable(), self.url.printable());
        let known = self.known_url.as_deref().unwrap_or("a URL that is not known any more").printable();
        write!(f, "photo {id}: the run has {known}, the source has {url}")
    }
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
    #[error("cannot enqueue the candidates: {0}")]
    Objects(#[from] ObjectError),
}

/// In bytes. A longer id is refused.
const LONGEST_ID: usize = 200;
/// Conflicts whose URLs are looked up.
const LISTED_CONFLICTS: u64 = 100;
/// Candidates that share a round trip to the ledger.
const BATCH: usize = 500;
/// Messages that wait for the confirm of the broker at a time.
const UNCONFIRMED: usize = 128;

/// Registers the candidates and enqueues those that have not advanced yet. `progress` receives how many are done.
/// `records`: where a ledger that deletes the messages of ended photos leaves them.
///
/// It may be repeated after any failure: a known photo stays as it is, and a second copy of a message is recognised.
pub async fn enqueue(
    run: &RunName,
    candidates: &[Candidate],
    ledger: &dyn Ledger,
    broker: &dyn Broker,
    records: Option<&Records>,
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
            match registration {
                Registration::New => enqueued.new += 1,
                Registration::Pending => enqueued.known += 1,
                Registration::InProgress => {
                    enqueued.known += 1;
                    continue;
                }
                Registration::Conflict => {
                    enqueued.in_conflict += 1;
                    if enqueued.in_conflict <= LISTED_CONFLICTS {
                        enqueued.conflicts.push(conflict(run, candidate, ledger, records).await?);
                    }
                    continue;
                }
            }
            messages.push(Message::first(Photo::new(run.clone(), candidate), now));
        }
        publish(messages, broker).await?;
        progress(batch.len() as u64);
    }
    Ok(enqueued)
}

async fn publish(messages: Vec<Message>, broker: &dyn Broker) -> Result<(), ServerError> {
    stream::iter(messages)
        .map(|message| async move {
            let root = spans::root(&message.photo);
            send(broker, &message, None).instrument(root).await
        })
        .buffered(UNCONFIRMED)
        .try_collect()
        .await
}

/// Registers photos that have the results of the stages before `stage`, and enqueues those that have not advanced yet.
/// Returns, in their order, what the ledger knew of each. It may be repeated as [`enqueue`] may.
pub async fn enqueue_at(
    run: &RunName,
    stage: StageName,
    photos: Vec<Photo>,
    ledger: &dyn Ledger,
    broker: &dyn Broker,
) -> Result<Vec<Registration>, ProducerError> {
    let now = now().as_secs();
    let registrations = ledger.register_at(run, stage, &photos, now).await?;
    let waits = |registration: &Registration| matches!(registration, Registration::New | Registration::Pending);
    let waiting = photos.into_iter().zip(&registrations).filter(|(_, registration)| waits(registration));
    publish(waiting.map(|(photo, _)| Message::entering(stage, photo, now)).collect(), broker).await?;
    Ok(registrations)
}

async fn conflict(
    run: &RunName,
    candidate: Candidate,
    ledger: &dyn Ledger,
    records: Option<&Records>,
) -> Result<Conflict, ProducerError> {
    let key = PhotoKey { run: run.clone(), photo_id: candidate.photo_id };
    let mut message = ledger.status(&key).await?.and_then(|status| status.message);
    if let (None, Some(records)) = (&message, records) {
        message = records.read(&key).await?.map(|record| record.message);
    }
    let known_url = message.map(|message| message.photo.candidate.photo_url);
    Ok(Conflict { photo_id: key.photo_id, known_url, url: candidate.photo_url })
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

/// Why a candidate cannot be registered.
pub fn refusal(candidate: &Candidate) -> Option<Refusal> {
    let reason = match candidate.photo_id.as_str().len() {
        0 => "the photo has no id",
        1..=LONGEST_ID => return None,
        _ => "the photo's id is longer than 200 bytes",
    };
    Some(Refusal { photo_id: candidate.photo_id.clone(), reason })
}
