//! Runs the whole pipeline in one process, in one folder.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::event::{Observer, PhotoEvent};
use super::producer::enqueue_waiting;
use super::worker::{Worker, WorkerError};
use crate::broker::Broker;
use crate::broker::embedded::Embedded;
use crate::domain::RunName;
use crate::ledger::sqlite::Sqlite;
use crate::ledger::{EventKind, Ledger};
use crate::objects::folder::Folder;
use crate::server_error::ServerError;
use crate::sqlite::{Access, Database, DatabaseError};

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("cannot use the folder {}: {error}", path.display())]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("another facemill process uses {}: wait for it, or choose another --out", .0.display())]
    Occupied(PathBuf),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("{0}; nothing is lost: run the same command again afterwards")]
    Worker(#[from] WorkerError),
    #[error("the folder takes no more files: {0}; nothing is lost: free some space, then run the same command again")]
    NoRoom(ServerError),
}

/// The folder of a run: `originals/`, `faces/`, the records, the SQLite file with ledger and queues, and the index.
#[derive(Debug, Clone)]
pub struct RunDir {
    folder: PathBuf,
}

impl RunDir {
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn ledger_file(&self) -> PathBuf {
        self.folder.join("ledger.sqlite")
    }

    /// The index of faces.
    pub fn index_file(&self) -> PathBuf {
        self.folder.join("index.sqlite")
    }

    pub fn objects(&self) -> Folder {
        Folder::at(&self.folder)
    }

    /// Opens the ledger for reading, also while another process uses the folder. The ledger must exist.
    pub async fn read_ledger(&self) -> Result<Sqlite, LocalError> {
        Ok(Sqlite::open(Database::open(&self.ledger_file(), Access::Read)?).await?)
    }

    /// Whether a process uses the folder.
    pub fn is_locked(&self) -> bool {
        File::open(self.lock_file()).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.join(".lock")
    }

    /// Locks the folder for this process, and creates what is missing.
    pub async fn lock(&self) -> Result<LockedRunDir, LocalError> {
        let failed = |error| LocalError::Folder { path: self.folder.clone(), error };
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.lock_file())
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LocalError::Occupied(self.folder.clone())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let database = Database::open(&self.ledger_file(), Access::Write)?;
        let ledger = Sqlite::open(database.clone()).await?;
        let broker = Embedded::open(database, Embedded::CAPACITY).await?;
        Ok(LockedRunDir { ledger, broker, objects: self.objects(), _lock: lock })
    }
}

/// A folder that this process has locked, until this is dropped or the process ends.
pub struct LockedRunDir {
    pub ledger: Sqlite,
    pub broker: Embedded,
    pub objects: Folder,
    _lock: File,
}

/// How a run in one process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Every photo has ended.
    Complete,
    /// A shutdown ended the run; `waiting` photos have not ended.
    Interrupted { waiting: u64 },
}

/// Counts the photos that have not ended, and notifies [`drive`] when there may be none.
#[derive(Debug, Default)]
pub struct Countdown {
    left: AtomicI64,
    zero: Notify,
}

impl Observer for Countdown {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        use EventKind::{Advanced, Enqueued, Retried};
        if !matches!(event.event.what, Enqueued | Advanced | Retried) {
            self.left.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn on_ack(&self) {
        if self.left.load(Ordering::Acquire) <= 0 {
            self.zero.notify_one();
        }
    }
}

/// Runs the workers until every photo has ended and the queues are empty, or until `shutdown`. `countdown` must be
/// among the observers of the workers.
pub async fn drive(
    run: &RunName,
    ledger: &dyn Ledger,
    broker: &dyn Broker,
    workers: Vec<Worker>,
    countdown: Arc<Countdown>,
    shutdown: CancellationToken,
) -> Result<Finish, LocalError> {
    let mut left = Remaining::count(run, ledger, broker).await?;
    if left.messages < left.photos {
        enqueue_waiting(run, ledger, broker).await?;
    }
    countdown.left.store(left.photos as i64, Ordering::Release);
    let done = shutdown.child_token();
    let mut running = JoinSet::new();
    if !left.is_zero() {
        for worker in workers {
            let done = done.clone();
            running.spawn(async move { worker.run(done).await });
        }
    }
    let mut failure = None;
    while !running.is_empty() {
        tokio::select! {
            Some(ended) = running.join_next() => {
                let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                failure = failure.or(ended.err());
                done.cancel();
            }
            () = countdown.zero.notified(), if !done.is_cancelled() => {
                // The counter is a hint: ledger and queues decide.
                left = Remaining::count(run, ledger, broker).await?;
                countdown.left.store(left.photos as i64, Ordering::Release);
                if left.is_zero() {
                    done.cancel();
                }
            }
        }
    }
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    left = Remaining::count(run, ledger, broker).await?;
    Ok(if left.photos == 0 { Finish::Complete } else { Finish::Interrupted { waiting: left.photos } })
}

/// The photos that have not ended, and the messages in the queues of the stages.
struct Remaining {
    photos: u64,
    messages: u64,
}

impl Remaining {
    async fn count(run: &RunName, ledger: &dyn Ledger, broker: &dyn Broker) -> Result<Self, LocalError> {
        let photos = ledger.counts(run).await?.waiting.values().sum();
        let depths = broker.depths().await?;
        let stages = depths.iter().filter(|depth| depth.stage.is_some());
        Ok(Self { photos, messages: stages.map(|depth| depth.ready + depth.in_flight + depth.delayed).sum() })
    }

    fn is_zero(&self) -> bool {
        self.photos == 0 && self.messages == 0
    }
}
