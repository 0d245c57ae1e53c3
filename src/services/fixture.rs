//! A run in a folder, for tests.

use crate::broker::embedded::Embedded;
use crate::broker::{Broker, DeadLetter};
use crate::domain::{Candidate, Cause, CauseCode, Ending, Message, Photo, PhotoKey, RunName, StageName, State};
use crate::ledger::sqlite::Sqlite;
use crate::ledger::{Event, Ledger, Move, Moved};
use crate::pipeline::local::{LockedRunDir, RunDir};
use crate::services::requeue::Requeue;
use crate::services::run_target::RunTarget;

pub struct Fixture {
    pub run: RunName,
    pub ledger: Sqlite,
    pub broker: Embedded,
    dir: LockedRunDir,
    folder: tempfile::TempDir,
}

/// A run in a folder that no process uses, opened for reading.
pub struct ClosedFixture {
    target: RunTarget,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for ClosedFixture {
    type Target = RunTarget;

    fn deref(&self) -> &RunTarget {
        &self.target
    }
}

impl Fixture {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = RunDir::at(folder.path()).lock().await.unwrap();
        Self { run: RunName::default(), ledger: dir.ledger.clone(), broker: dir.broker.clone(), dir, folder }
    }

    /// Unlocks the folder and opens the run for reading.
    pub async fn close(self) -> ClosedFixture {
        let Self { ledger, broker, dir, folder, .. } = self;
        drop((ledger, broker, dir));
        ClosedFixture { target: RunTarget::of_folder(RunDir::at(folder.path())).await.unwrap(), _folder: folder }
    }

    pub fn requeue(&self) -> Requeue<'_> {
        Requeue { ledger: &self.ledger, broker: &self.broker, records: None }
    }

    pub fn key(&self, id: i64) -> PhotoKey {
        PhotoKey { run: self.run.clone(), photo_id: id.into() }
    }

    /// The first message of a photo.
    pub fn message(&self, id: i64) -> Message {
        Message::first(Photo::new(self.run.clone(), Candidate::example(id)), 5)
    }

    /// Registers a photo and ends it at the first stage; a failed one gets its dead letter.
    pub async fn end(&self, id: i64, ending: Ending, code: CauseCode) {
        let message = self.message(id);
        self.ledger.register(&self.run, std::slice::from_ref(&message.photo.candidate), 5).await.unwrap();
        self.ledger.begin(&message, "w", false).await.unwrap();
        let step = Move {
            key: &self.key(id),
            from: message.position,
            to: State::Ended(ending),
            attempt: 1,
            due_at: 0,
            event: Event {
                at_ms: 5_000,
                stage: StageName::Fetch,
                attempt: 1,
                what: ending.into(),
                cause: Some(Cause::new(code.clone(), "")),
                took_ms: 1,
            },
            message: &message,
        };
        assert_eq!(self.ledger.advance(&step).await.unwrap(), Moved::Done);
        if ending == Ending::Failed {
            self.broker.dead_letter(&self.letter(id, code)).await.unwrap();
        }
    }

    /// The dead letter of a photo's first message.
    pub fn letter(&self, id: i64, code: CauseCode) -> DeadLetter {
        DeadLetter {
            stage: Some(StageName::Fetch),
            cause: Cause::new(code, ""),
            attempt: 1,
            first_at: 5,
            last_at: 5,
            trace_id: None,
            body: String::from_utf8(self.message(id).encode().to_vec()).unwrap(),
        }
    }

    pub async fn letters(&self) -> Vec<DeadLetter> {
        self.broker.dead_letters(100).await.unwrap()
    }

    /// The messages that the queues of all stages hold.
    pub async fn ready(&self) -> u64 {
        let depths = self.broker.depths().await.unwrap();
        depths.iter().filter(|depth| depth.stage.is_some()).map(|depth| depth.ready + depth.delayed).sum()
    }

    pub async fn state(&self, id: i64) -> State {
        self.ledger.status(&self.key(id)).await.unwrap().unwrap().state
    }
}
