//! Sends photos that have ended back to the stage that ended them.
//!
//! Always in this order: the ledger, which keeps the new message; the message confirmed by the broker; and only then is
//! a dead letter removed. Whoever dies in between leaves a letter, or a photo that stands in the ledger as one sent
//! back; both can be repeated, at the price of a copy that is recognised.

use std::time::Duration;

use super::sending::send;
use crate::archive::records::Records;
use crate::broker::Broker;
use crate::domain::Message;
use crate::domain::clock::now;
use crate::domain::{Ending, PhotoKey, RunName, State};
use crate::ledger::{Filter, Ledger, PhotoStatus};
use crate::objects::ObjectError;
use crate::server_error::ServerError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum RequeueError {
    #[error("cannot send photos back: {0}")]
    Server(#[from] ServerError),
    #[error("cannot send photos back: {0}")]
    Objects(#[from] ObjectError),
}

/// What became of a photo whose dead letter is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    Requeued,
    /// It is on its way without us, or came to another end since: the letter is out of date.
    OutOfDate,
    /// The ledger has never heard of it.
    Unknown,
}

/// What it takes to send photos back.
#[derive(Clone, Copy)]
pub struct Requeue<'a> {
    pub ledger: &'a dyn Ledger,
    pub broker: &'a dyn Broker,
    /// Where the ledger lets go of what is known of ended photos.
    pub records: Option<&'a Records>,
}

impl Requeue<'_> {
    /// Answers the message that was published; none if the photo is at no end.
    pub async fn requeue(&self, key: &PhotoKey) -> Result<Option<Message>, RequeueError> {
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

    /// Deals with the photo of a dead letter's message. Only then may the letter be removed.
    pub async fn replay(&self, message: &Message) -> Result<Replayed, RequeueError> {
        let key = message.photo.key();
        let Some(status) = self.ledger.status(&key).await? else { return Ok(Replayed::Unknown) };
        match status.state {
            State::Ended(Ending::Failed) => Ok(match self.requeue(&key).await? {
                Some(_) => Replayed::Requeued,
                None => Replayed::OutOfDate,
            }),
            State::Ended(_) => Ok(Replayed::OutOfDate),
            // Either the broker gave the photo up and its letter is the only copy of the message, or an earlier replay
            // died before it published.
            State::Waiting(at) if at <= message.position.next_delivery() => {
                self.publish(status.message.as_ref().unwrap_or(message)).await?;
                Ok(Replayed::Requeued)
            }
            State::Waiting(_) => Ok(Replayed::OutOfDate),
        }
    }

    /// Publishes once more what the ledger has kept of a photo that was sent back and that no stage has dealt with
    /// since. False: the photo is none of these.
    pub async fn republish(&self, status: &PhotoStatus) -> Result<bool, RequeueError> {
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

    /// Publishes what the ledger has kept of the photos that wait, for queues that were lost; answers how many. What
    /// still lies in a queue becomes a copy there, which is recognised.
    pub async fn enqueue_waiting(&self, run: &RunName) -> Result<u64, RequeueError> {
        const PAGE: usize = 500;
        let waiting = Filter { waiting: true, ..Filter::default() };
        let (mut enqueued, mut after) = (0, None);
        loop {
            let page = self.ledger.page(run, &waiting, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(enqueued) };
            after = Some(last.photo_id.clone());
            let now = now().as_secs();
            for PhotoStatus { due_at, message, .. } in page.iter().map(|entry| &entry.status) {
                if let Some(message) = message {
                    send(self.broker, message, Some(Duration::from_secs(due_at.saturating_sub(now)))).await?;
                    enqueued += 1;
                }
            }
        }
    }

    /// Not to be held up by the bounds of queues that nobody takes from just now.
    async fn publish(&self, message: &Message) -> Result<(), ServerError> {
        send(self.broker, message, Some(Duration::ZERO)).await
    }
}
