//! The status of every photo: Redis, or SQLite.
//!
//! The ledger is the judge of what happened: a photo moves forward only, and each move is one atomic step that
//! also keeps the message the next stage must get. Should a process die between the move and the publishing, whoever
//! meets the old message finds the photo ahead of it and publishes the kept one again.

use crate::domain::CauseCode;
use std::collections::BTreeMap;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::Message;
use crate::domain::{Candidate, Cause, Ending, Id, PhotoKey, Position, RunName, StageName, State};

pub mod redis;
pub mod sqlite;

#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// May pass: the server is away, or busy.
    #[error("{what}: {detail}")]
    Unavailable { what: String, detail: String },
    /// Will not pass by itself: credentials, a foreign file, a full disk.
    #[error("{what}: {detail}")]
    Refused { what: String, detail: String },
}

impl LedgerError {
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// What the ledger knows of a photo.
#[derive(Debug, Clone, PartialEq)]
pub struct PhotoStatus {
    pub state: State,
    /// Where it waits, or where it ended.
    pub stage: StageName,
    /// Attempts made or begun at the present stage, or at the one that ended it.
    pub attempt: u32,
    /// Seconds since 1970, UTC: before that the photo's message is not due.
    pub due_at: u64,
    /// Why it last did not simply advance.
    pub cause: Option<Cause>,
    /// The message that the photo waits for; after the end what the adapter still has of it.
    pub message: Option<Message>,
}

/// Where a photo stood when the producer came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    New,
    /// Known, and still where it started: a producer that died may not have enqueued it.
    Pending,
    /// Known, and on its way or at its end.
    InProgress,
}

/// Leave to work on a photo, or not.
#[derive(Debug, Clone, PartialEq)]
pub enum Begin {
    /// The photo stands where the message says. `crashes`: how many workers have begun this very turn and died.
    Go { crashes: u32 },
    /// It stands somewhere else: the message is a copy of one that was already dealt with.
    Stale(Box<PhotoStatus>),
}

/// One step forward.
#[derive(Debug, Clone, PartialEq)]
pub struct Move<'a> {
    pub key: &'a PhotoKey,
    /// Where the photo must stand for the move to count.
    pub from: Position,
    pub to: State,
    pub attempt: u32,
    pub due_at: u64,
    pub event: Event,
    /// The message the photo waits for from now on; at the end, the photo with all that is known.
    pub message: &'a Message,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Moved {
    Done,
    /// The photo was not at `from`: another delivery of the same message was faster.
    Stale(Box<PhotoStatus>),
}

/// One thing that happened to a photo.
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
#[error("`{0}` is nothing that happens to a photo")]
pub struct UnknownHappening(String);

impl FromStr for EventKind {
    type Err = UnknownHappening;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|what| what.as_str() == text).ok_or_else(|| UnknownHappening(text.to_owned()))
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

/// A whole run in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub candidates: u64,
    /// Photos that wait for or are worked on by a stage.
    pub waiting: BTreeMap<StageName, u64>,
    /// Of those, the ones waiting for another attempt.
    pub retrying: BTreeMap<StageName, u64>,
    pub ended: BTreeMap<Ending, u64>,
    /// Stage, ending and code of the cause: how many.
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

/// A photo and its status, as listings give them.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub photo_id: Id,
    pub status: PhotoStatus,
}

/// Which photos a listing is about.
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
    /// Takes photos in at the start and answers, in order, where each stands now. A photo that is known stays as it is.
    async fn register(
        &self,
        run: &RunName,
        candidates: &[Candidate],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError>;

    /// Asks for leave to work on the photo of `message`, and notes `worker` on it, in one round trip. `redelivered`:
    /// the broker handed the message out before; a note that another worker left on this very turn is then a crash.
    /// A photo the ledger has never heard of is taken in as the message has it.
    async fn begin(&self, message: &Message, worker: &str, redelivered: bool) -> Result<Begin, LedgerError>;

    /// Takes back the note of [`Ledger::begin`]: the worker gives the photo up without having crashed.
    async fn release(&self, key: &PhotoKey, at: Position, worker: &str) -> Result<(), LedgerError>;

    /// Moves the photo if it stands at `from`.
    async fn advance(&self, step: &Move<'_>) -> Result<Moved, LedgerError>;

    async fn status(&self, key: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError>;

    /// What happened to the photo, oldest first.
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

    /// Lets go of the message of a photo that has ended at `at`: the objects have it as the photo's record. A ledger
    /// that has room keeps it.
    async fn recorded(&self, key: &PhotoKey, at: Position, ending: Ending) -> Result<(), LedgerError> {
        let _ = (key, at, ending);
        Ok(())
    }

    /// Gives a photo its end back from its record, in a ledger that was lost: `message` as it was when the photo ended.
    /// A photo that is not known, or still where every photo starts, ends so, with no history of how. False: it stands
    /// further, and stays there.
    async fn restore(&self, message: &Message, ending: Ending, cause: Option<&Cause>) -> Result<bool, LedgerError>;

    /// Sends a photo that has ended back to the stage that ended it, attempt 1, and answers the message to publish.
    /// `record`: the message as the photo's record has it, for a ledger that let go of its own.
    async fn reopen(&self, key: &PhotoKey, record: Option<&Message>, now: u64) -> Result<Option<Message>, LedgerError>;

    /// The second since 1970 from which on the photo is due that has waited longest for each stage, worked on or not. A
    /// moment to come: all of them wait for another attempt. Nothing for a stage: nobody waits, or the ledger cannot tell.
    async fn due_since(&self, run: &RunName) -> Result<BTreeMap<StageName, u64>, LedgerError> {
        let _ = run;
        Ok(BTreeMap::new())
    }

    async fn runs(&self) -> Result<Vec<RunName>, LedgerError>;

    /// Whether the ledger can be reached and written to, for `doctor` and readiness.
    async fn check(&self) -> Result<(), LedgerError>;

    /// Its kind, as traces name it: one of OpenTelemetry's values of `db.system.name`.
    fn system(&self) -> &'static str {
        "sqlite"
    }
}
