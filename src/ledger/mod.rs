//! The status of every photo, and the feed of endings: in Redis or SQLite.
//!
//! The ledger decides what happened. A photo moves forward only; each move is one atomic step that also stores the
//! message for the next stage. A process may die between the move and the publishing: the worker that gets the old
//! message again finds the photo ahead of it and publishes the stored message.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Candidate, Cause, CauseCode, Ending, Id, Message, Photo, PhotoKey, Position, RunName, StageName, State,
};
use crate::server_error::ServerError;

mod feed;
pub mod redis;
pub mod sqlite;

pub use feed::{Cursor, Endings, Epoch, FeedChange, FeedEntry};

/// The error of a ledger operation.
pub type LedgerError = ServerError;

/// The state of a photo in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct PhotoStatus {
    pub state: State,
    /// The stage it waits for, or at which it ended.
    pub stage: StageName,
    /// Attempts begun at this stage.
    pub attempt: u32,
    /// Seconds since 1970, UTC: the photo's message is not due before.
    pub due_at: u64,
    /// Why the last move was not an advance.
    pub cause: Option<Cause>,
    /// The message for the stage; after the ending the last message, unless the adapter has deleted it.
    pub message: Option<Message>,
}

/// The state of a photo when the producer registers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    New,
    /// Known, and still at the stage at which it is registered: a producer that died may not have enqueued it.
    Pending,
    /// Known, and further, or ended.
    InProgress,
    /// The id is known with another URL: it is another photo.
    Conflict,
}

/// Whether the worker may process the photo.
#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    /// The photo is at the message's position. `crashes`: how many workers began this delivery number and crashed.
    Granted { crashes: u32 },
    /// The photo is at another position: the message is a copy of one that was already processed.
    Stale(Box<PhotoStatus>),
}

/// A move to the next position, or to an ending.
#[derive(Debug, Clone, PartialEq)]
pub struct Move<'a> {
    pub key: &'a PhotoKey,
    /// The photo must be here, or nothing changes.
    pub from: Position,
    pub to: State,
    pub attempt: u32,
    pub due_at: u64,
    pub event: Event,
    /// The message for the next stage; for an ending, the photo with all results.
    pub message: &'a Message,
}

impl PhotoStatus {
    /// Whether a person has had the photo taken down.
    pub fn is_taken_down(&self) -> bool {
        matches!(self.state, State::Ended(_))
            && self.cause.as_ref().is_some_and(|cause| cause.code == CauseCode::TakenDown)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Moved {
    Done,
    /// The photo was not at `from`: another delivery of the same message was processed first.
    Stale(Box<PhotoStatus>),
}

/// An event in the history of a photo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970, UTC.
    pub at_ms: u64,
    pub stage: StageName,
    pub attempt: u32,
    pub what: EventKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Milliseconds the stage took.
    pub took_ms: u32,
}

impl Event {
    fn taken_down(at: Position, cause: Cause, now: u64) -> Self {
        let what = EventKind::Rejected;
        Self { at_ms: now * 1000, stage: at.stage, attempt: 1, what, cause: Some(cause), took_ms: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Enqueued,
    Advanced,
    Retried,
    Gone,
    Rejected,
    Failed,
    Predicted,
}

impl EventKind {
    pub const ALL: [EventKind; 7] =
        [Self::Enqueued, Self::Advanced, Self::Retried, Self::Gone, Self::Rejected, Self::Failed, Self::Predicted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued",
            Self::Advanced => "advanced",
            Self::Retried => "retried",
            Self::Gone => "gone",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Predicted => "predicted",
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a kind of event")]
pub struct UnknownEventKind(String);

impl FromStr for EventKind {
    type Err = UnknownEventKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|what| what.as_str() == text).ok_or_else(|| UnknownEventKind(text.to_owned()))
    }
}

impl From<Ending> for EventKind {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Gone => Self::Gone,
            Ending::Rejected => Self::Rejected,
            Ending::Failed => Self::Failed,
            Ending::Predicted => Self::Predicted,
        }
    }
}

/// The numbers of photos of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub candidates: u64,
    /// Photos that wait for a stage or are processed by it.
    pub waiting: BTreeMap<StageName, u64>,
    /// Those of `waiting` that wait for another attempt.
    pub retrying: BTreeMap<StageName, u64>,
    pub ended: BTreeMap<Ending, u64>,
    /// By stage, ending, code of the cause and host.
    pub causes: Vec<CauseCount>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseCount {
    pub stage: StageName,
    pub ending: Ending,
    pub code: CauseCode,
    pub host: String,
    pub count: u64,
}

/// A photo of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub photo_id: Id,
    pub status: PhotoStatus,
}

/// Which photos a listing shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub stage: Option<StageName>,
    pub ending: Option<Ending>,
    pub cause: Option<CauseCode>,
    pub host: Option<String>,
    /// Only photos that have not ended.
    pub waiting: bool,
}

#[async_trait]
pub trait Ledger: Send + Sync {
    /// Adds candidates at the first stage. Returns, in their order, the state of each; a known photo is not changed.
    async fn register(
        &self,
        run: &RunName,
        candidates: &[Candidate],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError> {
        let photos: Vec<Photo> =
            candidates.iter().map(|candidate| Photo::new(run.clone(), candidate.clone())).collect();
        self.register_at(run, StageName::Fetch, &photos, now).await
    }

    /// As [`Ledger::register`], at any stage: for photos that have the results of the stages before it.
    async fn register_at(
        &self,
        run: &RunName,
        stage: StageName,
        photos: &[Photo],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError>;

    /// Asks for the permission to process the photo of `message`, and stores `worker` as its processor, in one round
    /// trip. `redelivered`: the broker delivered the message before; another worker that is stored for this delivery
    /// number has then crashed. A photo that the ledger does not know is added at the position of `message`.
    async fn begin(&self, message: &Message, worker: &str, redelivered: bool) -> Result<Permission, LedgerError>;

    /// Undoes [`Ledger::begin`]: the worker gives the photo up without a crash.
    async fn release(&self, key: &PhotoKey, at: Position, worker: &str) -> Result<(), LedgerError>;

    /// Moves the photo if it is at `step.from`. An ending goes into the feed in the same transaction.
    async fn advance(&self, step: &Move<'_>) -> Result<Moved, LedgerError>;

    async fn status(&self, key: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError>;

    /// The events of the photo, oldest first.
    async fn history(&self, key: &PhotoKey) -> Result<Vec<Event>, LedgerError>;

    async fn counts(&self, run: &RunName) -> Result<Counts, LedgerError>;

    /// Photos after `after` in id order, at most `limit` of them.
    async fn page(
        &self,
        run: &RunName,
        filter: &Filter,
        after: Option<&Id>,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerError>;

    /// The feed of endings after `after`, at most `limit` entries; `None` starts with the first. The photos that end,
    /// that are restored and that are reopened appear in the order of these changes. A reader that always passes the
    /// cursor of the last answer sees each entry once, also over restarts of the reader, the workers and the server.
    async fn endings(&self, run: &RunName, after: Option<&Cursor>, limit: usize) -> Result<Endings, LedgerError>;

    /// As [`Ledger::endings`], but waits if there is nothing new: at most for `patience`, then the answer is empty. A
    /// wait blocks no other call. An ending is noticed within half a second, the loss of the ledger at the end of the
    /// wait.
    async fn wait_for_endings(
        &self,
        run: &RunName,
        after: Option<&Cursor>,
        limit: usize,
        patience: Duration,
    ) -> Result<Endings, LedgerError>;

    /// Deletes the message of a photo that ended at `at`, once its record is in the object store. A ledger that has
    /// room keeps it.
    async fn recorded(&self, key: &PhotoKey, at: Position, ending: Ending) -> Result<(), LedgerError> {
        let _ = (key, at, ending);
        Ok(())
    }

    /// Restores the ending of a photo from its record, in a ledger that was lost. `message`: as it was when the photo
    /// ended. Only a photo that is unknown, or still at the first stage, is restored, without a history. `false`: the
    /// photo is further, and is not changed.
    async fn restore(&self, message: &Message, ending: Ending, cause: Option<&Cause>) -> Result<bool, LedgerError>;

    /// Replaces the message of a photo that ended at the message's position, and adds the ending to the feed again, so that
    /// readers read the photo again. `false`: the photo is elsewhere, and is not changed. A ledger that deletes the messages
    /// of ended photos does not keep this one: its record must be written before.
    async fn amend(&self, message: &Message, ending: Ending) -> Result<bool, LedgerError>;

    /// Moves a photo that has ended back to the stage that ended it, with attempt 1. Returns the message to publish;
    /// `None`: the photo has not ended. `record`: the message of the photo's record, for a ledger that deleted its own.
    async fn reopen(&self, key: &PhotoKey, record: Option<&Message>, now: u64) -> Result<Option<Message>, LedgerError>;

    /// Ends a photo for good as [`Ending::Rejected`], wherever it is, and forgets all that is known of it: history, host
    /// and message, of which `message` is left at the photo's position. Adds the ending to the feed. A photo that is not
    /// known is added; one that was taken down stays as it is. A ledger that deletes the messages of ended photos does
    /// not keep this one: its record must be written before.
    async fn take_down(&self, message: &Message, cause: &Cause, now: u64) -> Result<(), LedgerError>;

    /// For each stage, the second since 1970 at which its oldest photo became due, processed or not. A time in the
    /// future: all photos of the stage wait for another attempt. No entry: no photo waits, or the ledger does not
    /// know.
    async fn due_since(&self, run: &RunName) -> Result<BTreeMap<StageName, u64>, LedgerError> {
        let _ = run;
        Ok(BTreeMap::new())
    }

    async fn runs(&self) -> Result<Vec<RunName>, LedgerError>;

    /// Whether the ledger is reachable and writable, for `doctor` and the readiness probe.
    async fn check(&self) -> Result<(), LedgerError>;

    /// The value of OpenTelemetry's `db.system.name` in traces.
    fn system(&self) -> &'static str {
        "sqlite"
    }
}
