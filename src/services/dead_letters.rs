//! The dead letters of a run: list, replay, drop.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::requeue::{Replayed, Requeue, RequeueError};
use crate::broker::DeadLetter;
use crate::domain::{Cause, Id, Message, RunName, StageName};
use crate::ledger::Filter;
use crate::server_error::ServerError;

/// A limit that takes all dead letters.
pub const ALL: usize = usize::MAX >> 1;

/// The dead letters of one run, and those without a photo, which belong to no run.
#[derive(Clone, Copy)]
pub struct DeadLetters<'a> {
    pub run: &'a RunName,
    pub requeue: Requeue<'a>,
}

/// A dead letter with what its message says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Letter {
    pub id: String,
    /// None: facemill did not write the message.
    pub photo_id: Option<Id>,
    pub stage: Option<StageName>,
    pub cause: Cause,
    pub attempt: u32,
    /// Seconds since 1970, UTC.
    pub first_at: u64,
    pub last_at: u64,
    pub host: Option<String>,
    pub trace_id: Option<String>,
    /// Only where one letter is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What [`DeadLetters::replay`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReplaySummary {
    pub requeued: u64,
    /// Letters that are removed: their photos are in progress or have ended since.
    pub out_of_date: u64,
    /// Letters that stay: facemill did not write their messages.
    pub foreign: u64,
    /// Letters that stay: the ledger does not know their photos.
    pub unknown: u64,
}

impl DeadLetters<'_> {
    /// How many letters the filter matches.
    pub async fn count(&self, filter: &Filter) -> Result<u64, ServerError> {
        Ok(self.matching(filter).await?.len() as u64)
    }

    /// Requeues the photos of the matching letters, then removes these letters. After an error no letter is removed,
    /// and the call can be repeated.
    pub async fn replay(&self, filter: &Filter) -> Result<ReplaySummary, RequeueError> {
        let letters = self.matching(filter).await?;
        let replayed: Vec<(&DeadLetter, Option<Replayed>)> = stream::iter(&letters)
            .map(async |letter| match Message::decode(letter.body.as_bytes()) {
                Ok(message) => Ok::<_, RequeueError>((letter, Some(self.requeue.replay(&message).await?))),
                Err(_) => Ok((letter, None)),
            })
            .buffered(Requeue::CONCURRENCY)
            .try_collect()
            .await?;
        let (mut summary, mut done) = (ReplaySummary::default(), HashMap::new());
        for (letter, outcome) in replayed {
            match outcome {
                None => summary.foreign += 1,
                Some(Replayed::Unknown) => summary.unknown += 1,
                Some(Replayed::Requeued) => summary.requeued += 1,
                Some(Replayed::OutOfDate) => summary.out_of_date += 1,
            }
            if matches!(outcome, Some(Replayed::Requeued | Replayed::OutOfDate)) {
                done.insert(letter.id(), letter.last_at);
            }
        }
        if !done.is_empty() {
            // A photo may have failed once more: its new letter has the same id and another time.
            let is_done = |letter: &DeadLetter| done.get(&letter.id()) == Some(&letter.last_at);
            self.requeue.broker.take_dead_letters(&is_done).await.map_err(RequeueError::DeadLetters)?;
        }
        Ok(summary)
    }

    /// Removes the matching letters and returns how many. Their photos stay failed.
    pub async fn remove(&self, filter: &Filter) -> Result<u64, ServerError> {
        let taken = self.requeue.broker.take_dead_letters(&|letter| belongs(letter, self.run, filter)).await?;
        Ok(taken.len() as u64)
    }

    async fn matching(&self, filter: &Filter) -> Result<Vec<DeadLetter>, ServerError> {
        let mut letters = self.requeue.broker.dead_letters(ALL).await?;
        letters.retain(|letter| belongs(letter, self.run, filter));
        Ok(letters)
    }
}

/// Whether the letter belongs to the run, or to none, and the filter matches it.
fn belongs(letter: &DeadLetter, run: &RunName, filter: &Filter) -> bool {
    let message = Message::decode(letter.body.as_bytes()).ok();
    message.as_ref().is_none_or(|message| message.photo.run == *run) && matches(filter, letter, message.as_ref())
}

/// Whether the filter matches the letter. `message`: the letter's, if facemill wrote it.
fn matches(filter: &Filter, letter: &DeadLetter, message: Option<&Message>) -> bool {
    let Filter { stage, cause, host, .. } = filter;
    let is_from = |host: &String| message.is_some_and(|message| message.photo.candidate.host() == *host);
    stage.is_none_or(|stage| letter.stage == Some(stage))
        && cause.as_ref().is_none_or(|cause| letter.cause.code == *cause)
        && host.as_ref().is_none_or(is_from)
}

impl Letter {
    /// Digits of the hash that name a letter without a photo.
    pub const SHORT: usize = 12;

    /// The letters of the run that the filter matches, oldest first.
    pub fn list(letters: &[DeadLetter], run: &RunName, filter: &Filter) -> Vec<Self> {
        letters.iter().filter(|letter| belongs(letter, run, filter)).map(Self::of).collect()
    }

    /// The letters of a photo, or the one without a photo whose id starts with `id`; with their messages.
    pub fn find(letters: &[DeadLetter], run: &RunName, id: &str) -> Vec<Self> {
        let of_run = letters.iter().filter(|letter| belongs(letter, run, &Filter::default()));
        let shown = of_run.map(|letter| Self { body: Some(letter.body.clone()), ..Self::of(letter) });
        shown.filter(|letter| letter.is_called(id)).collect()
    }

    fn of(letter: &DeadLetter) -> Self {
        let message = Message::decode(letter.body.as_bytes()).ok();
        Self {
            id: letter.id(),
            photo_id: message.as_ref().map(|message| message.photo.candidate.photo_id.clone()),
            stage: letter.stage,
            cause: letter.cause.clone(),
            attempt: letter.attempt,
            first_at: letter.first_at,
            last_at: letter.last_at,
            host: message.map(|message| message.photo.candidate.host()),
            trace_id: letter.trace_id.clone(),
            body: None,
        }
    }

    fn is_called(&self, id: &str) -> bool {
        match &self.photo_id {
            Some(photo_id) => photo_id.as_str() == id || self.id == id,
            None => id.len() >= Self::SHORT && self.id.starts_with(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;
    use crate::domain::{CauseCode, Ending, State};
    use crate::ledger::Ledger;
    use crate::services::fixture::Fixture;

    fn foreign() -> DeadLetter {
        let (stage, cause) = (None, Cause::new(CauseCode::ForeignMessage, "not JSON"));
        let body = "who are you?".to_owned();
        DeadLetter { stage, cause, attempt: 0, first_at: 1, last_at: 1, trace_id: None, body }
    }

    #[tokio::test]
    async fn replay_requeues_failed_photos_and_keeps_foreign_letters() {
        let fixture = Fixture::new().await;
        fixture.end(1, Ending::Failed, CauseCode::Http(500)).await;
        fixture.end(2, Ending::Failed, CauseCode::Timeout).await;
        fixture.broker.dead_letter(&foreign()).await.unwrap();
        let letters = DeadLetters { run: &fixture.run, requeue: fixture.requeue() };
        let filter = Filter { cause: Some(CauseCode::Timeout), ..Filter::default() };
        let list = async |filter: &Filter| {
            let letters = fixture.broker.dead_letters(ALL).await.unwrap();
            (Letter::list(&letters, &fixture.run, filter), letters)
        };
        let [letter] = &list(&filter).await.0[..] else { panic!("one photo timed out") };
        assert_eq!(letter.photo_id, Some(2.into()));

        let summary = letters.replay(&Filter::default()).await.unwrap();
        assert_eq!(summary, ReplaySummary { requeued: 2, foreign: 1, ..ReplaySummary::default() });
        assert_eq!(fixture.ready().await, 2);
        let (listed, all) = list(&Filter::default()).await;
        let [left] = &listed[..] else { panic!("the foreign letter stays") };
        assert_eq!((left.photo_id.as_ref(), &left.cause.code), (None, &CauseCode::ForeignMessage));
        let find = |digits: usize| Letter::find(&all, &fixture.run, &left.id[..digits]);
        assert!(find(Letter::SHORT - 1).is_empty(), "too short to name it");
        let [found] = &find(Letter::SHORT)[..] else { panic!("it is found") };
        assert_eq!(found.body.as_deref(), Some("who are you?"));
        assert_eq!(letters.remove(&Filter::default()).await.unwrap(), 1);
        assert!(fixture.letters().await.is_empty());
    }

    #[tokio::test]
    async fn replay_publishes_once_after_a_crash_between_ledger_and_queue() {
        let fixture = Fixture::new().await;
        fixture.end(1, Ending::Failed, CauseCode::Http(500)).await;
        fixture.ledger.reopen(&fixture.key(1), None, 1).await.unwrap().unwrap();
        let letters = DeadLetters { run: &fixture.run, requeue: fixture.requeue() };
        let summary = letters.replay(&Filter::default()).await.unwrap();
        assert_eq!((summary.requeued, fixture.ready().await, fixture.letters().await.len()), (1, 1, 0));
    }

    #[tokio::test]
    async fn letters_of_other_runs_and_of_unknown_photos_stay() {
        let fixture = Fixture::new().await;
        fixture.end(1, Ending::Failed, CauseCode::Http(500)).await;
        let other = "other".parse().unwrap();
        let letters = DeadLetters { run: &other, requeue: fixture.requeue() };
        assert_eq!(letters.replay(&Filter::default()).await.unwrap(), ReplaySummary::default());
        assert_eq!(letters.remove(&Filter::default()).await.unwrap(), 0);
        fixture.broker.dead_letter(&fixture.letter(9, CauseCode::Http(500))).await.unwrap();
        let letters = DeadLetters { run: &fixture.run, requeue: fixture.requeue() };
        let summary = letters.replay(&Filter::default()).await.unwrap();
        assert_eq!((summary.requeued, summary.unknown), (1, 1));
        assert_eq!(fixture.letters().await.len(), 1);
        assert!(matches!(fixture.state(1).await, State::Waiting(_)));
    }
}
