//! Sends photos that have ended back to the stage that ended them.
//!
//! The order is fixed: first the ledger, which keeps the new message; then the broker, which confirms the message; then
//! the removal of the dead letter. A crash in between leaves a dead letter, or a photo that waits without a message.
//! Both can be repeated: a second copy of a message is recognised.

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::archive::records::Records;
use crate::broker::{Broker, DeadLetter};
use crate::domain::clock::now;
use crate::domain::{Ending, Id, Message, PhotoKey, Position, RunName, State};
use crate::ledger::{Entry, Filter, Ledger, PhotoStatus};
use crate::objects::ObjectError;
use crate::pipeline::sending::send;
use crate::server_error::ServerError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum RequeueError {
    #[error("cannot requeue photos: {0}")]
    Server(#[from] ServerError),
    #[error("cannot requeue photos: {0}")]
    Objects(#[from] ObjectError),
    /// The photos are requeued; only their dead letters are left.
    #[error("cannot remove the dead letters of the requeued photos: {0}")]
    DeadLetters(ServerError),
}

/// What the replay of a dead letter did with its photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    Requeued,
    /// The photo is in progress, or has ended differently since: the letter is out of date.
    OutOfDate,
    /// The ledger does not know the photo.
    Unknown,
}

/// What [`Requeue::retry`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Retried {
    pub requeued: u64,
    /// Messages of photos that an interrupted retry had requeued, published once more.
    pub published_again: u64,
    pub letters_removed: u64,
}

/// Where photos are requeued.
#[derive(Clone, Copy)]
pub struct Requeue<'a> {
    pub ledger: &'a dyn Ledger,
    pub broker: &'a dyn Broker,
    /// The messages of ended photos, where the ledger does not keep them.
    pub records: Option<&'a Records>,
}

impl Requeue<'_> {
    /// Photos that are requeued at a time.
    pub const CONCURRENCY: usize = 16;
    /// Photos of one page of the ledger.
    const PAGE: usize = 500;

    /// Requeues one photo and returns the published message; none if the photo has not ended, or was taken down.
    pub async fn requeue(&self, key: &PhotoKey) -> Result<Option<Message>, RequeueError> {
        if self.ledger.status(key).await?.is_some_and(|status| status.is_taken_down()) {
            return Ok(None);
        }
        let record = match self.records {
            Some(records) => records.read(key).await?.map(|record| record.message),
            None => None,
        };
        let message = self.ledger.reopen(key, record.as_ref(), now().as_secs()).await?;
        if let Some(message) = &message {
            self.publish(message).await?;
        }
        Ok(message)
    }

    /// Requeues the photo of a dead letter's message. The letter may be removed only afterwards.
    pub async fn replay(&self, message: &Message) -> Result<Replayed, RequeueError> {
        let key = message.photo.key();
        let Some(status) = self.ledger.status(&key).await? else { return Ok(Replayed::Unknown) };
        match status.state {
            State::Ended(Ending::Failed) => Ok(match self.requeue(&key).await? {
                Some(_) => Replayed::Requeued,
                None => Replayed::OutOfDate,
            }),
            State::Ended(_) => Ok(Replayed::OutOfDate),
            // Either the broker dead-lettered the message itself and the letter is its only copy, or an earlier replay
            // crashed before it published.
            State::Waiting(at) if at <= message.position.next_delivery() => {
                self.publish(status.message.as_ref().unwrap_or(message)).await?;
                Ok(Replayed::Requeued)
            }
            State::Waiting(_) => Ok(Replayed::OutOfDate),
        }
    }

    /// Requeues every photo that `filter` matches and that ended as gone, rejected or failed, and removes the dead
    /// letters of these photos. `again`: first publishes the messages of photos that an interrupted retry requeued.
    ///
    /// It may be repeated after any error.
    pub async fn retry(&self, run: &RunName, filter: &Filter, again: bool) -> Result<Retried, RequeueError> {
        let mut retried = Retried::default();
        if again {
            retried.published_again = self.republish_all(run, filter).await?;
        }
        let mut failed = HashMap::new();
        for ending in [Ending::Gone, Ending::Rejected, Ending::Failed] {
            if filter.ending.is_none_or(|wanted| wanted == ending) {
                let filter = Filter { ending: Some(ending), ..filter.clone() };
                retried.requeued += self.requeue_all(run, &filter, &mut failed).await?;
            }
        }
        retried.letters_removed = self.remove_letters(&failed).await?;
        Ok(retried)
    }

    /// Requeues what the filter matches. Adds the new positions of photos that had failed, and so have a dead letter,
    /// to `failed`.
    async fn requeue_all(
        &self,
        run: &RunName,
        filter: &Filter,
        failed: &mut HashMap<PhotoKey, Position>,
    ) -> Result<u64, RequeueError> {
        let (mut requeued, mut after) = (0, None);
        while let Some(page) = self.page(run, filter, &mut after).await? {
            let messages: Vec<Option<Message>> = stream::iter(page)
                .map(async |entry: Entry| self.requeue(&PhotoKey { run: run.clone(), photo_id: entry.photo_id }).await)
                .buffered(Self::CONCURRENCY)
                .try_collect()
                .await?;
            for message in messages.into_iter().flatten() {
                requeued += 1;
                if filter.ending == Some(Ending::Failed) {
                    failed.insert(message.photo.key(), message.position);
                }
            }
        }
        Ok(requeued)
    }

    async fn republish_all(&self, run: &RunName, filter: &Filter) -> Result<u64, RequeueError> {
        // A requeued photo no longer has the cause of its ending.
        let waiting = Filter { waiting: true, ending: None, cause: None, ..filter.clone() };
        let (mut published, mut after) = (0, None);
        while let Some(page) = self.page(run, &waiting, &mut after).await? {
            let republished: Vec<bool> = stream::iter(page)
                .map(async |entry: Entry| self.republish(&entry.status).await)
                .buffered(Self::CONCURRENCY)
                .try_collect()
                .await?;
            published += republished.into_iter().filter(|&published| published).count() as u64;
        }
        Ok(published)
    }

    /// The next page; none after the last.
    async fn page(
        &self,
        run: &RunName,
        filter: &Filter,
        after: &mut Option<Id>,
    ) -> Result<Option<Vec<Entry>>, RequeueError> {
        let page = self.ledger.page(run, filter, after.as_ref(), Self::PAGE).await?;
        *after = page.last().map(|last| last.photo_id.clone());
        Ok((!page.is_empty()).then_some(page))
    }

    /// Removes the dead letters from before the requeue; a letter that was added since stays.
    async fn remove_letters(&self, failed: &HashMap<PhotoKey, Position>) -> Result<u64, RequeueError> {
        if failed.is_empty() {
            return Ok(0);
        }
        let is_past = |letter: &DeadLetter| {
            let message = Message::decode(letter.body.as_bytes());
            message.is_ok_and(|message| failed.get(&message.photo.key()).is_some_and(|now| message.position < *now))
        };
        let removed = self.broker.take_dead_letters(&is_past).await.map_err(RequeueError::DeadLetters)?;
        Ok(removed.len() as u64)
    }

    /// Publishes the message of a photo once more if the photo was requeued and no stage has processed it since.
    /// Returns whether it did.
    async fn republish(&self, status: &PhotoStatus) -> Result<bool, RequeueError> {
        match status {
            PhotoStatus {
                state: State::Waiting(at),
                attempt: 1,
                due_at: 0,
                cause: None,
                message: Some(message),
                ..
            } if at.delivery > 1 => {
                self.publish(message).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A delay of zero bypasses the bound of an in-process queue, which may be full while no worker runs.
    async fn publish(&self, message: &Message) -> Result<(), ServerError> {
        send(self.broker, message, Some(Duration::ZERO)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CauseCode;
    use crate::services::fixture::Fixture;

    #[tokio::test]
    async fn retry_requeues_matching_photos_and_removes_their_letters() {
        let fixture = Fixture::new().await;
        fixture.end(1, Ending::Gone, CauseCode::Http(404)).await;
        fixture.end(2, Ending::Failed, CauseCode::Http(500)).await;
        fixture.end(3, Ending::Failed, CauseCode::Timeout).await;
        let filter = Filter { cause: Some(CauseCode::Http(500)), ..Filter::default() };
        let retried = fixture.requeue().retry(&fixture.run, &filter, false).await.unwrap();
        assert_eq!(retried, Retried { requeued: 1, published_again: 0, letters_removed: 1 });
        assert_eq!((fixture.ready().await, fixture.letters().await.len()), (1, 1));
        assert!(matches!(fixture.state(2).await, State::Waiting(at) if at.delivery == 2));

        let everything = Filter::default();
        let retried = fixture.requeue().retry(&fixture.run, &everything, false).await.unwrap();
        assert_eq!(retried, Retried { requeued: 2, published_again: 0, letters_removed: 1 });
        assert_eq!((fixture.ready().await, fixture.letters().await), (3, vec![]));
    }

    #[tokio::test]
    async fn retry_again_publishes_what_an_interrupted_retry_left_unpublished() {
        let fixture = Fixture::new().await;
        fixture.end(1, Ending::Gone, CauseCode::Http(404)).await;
        fixture.ledger.reopen(&fixture.key(1), None, 1).await.unwrap().unwrap();
        assert_eq!(fixture.ready().await, 0, "the ledger was changed and nothing published");
        let filter = Filter { cause: Some(CauseCode::Http(404)), ..Filter::default() };
        let retried = fixture.requeue().retry(&fixture.run, &filter, false).await.unwrap();
        assert_eq!(retried, Retried::default(), "the photo has not ended");
        let retried = fixture.requeue().retry(&fixture.run, &filter, true).await.unwrap();
        assert_eq!(retried, Retried { published_again: 1, ..Retried::default() });
        assert_eq!(fixture.ready().await, 1);
    }
}
