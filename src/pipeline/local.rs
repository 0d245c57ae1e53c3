//! The whole pipeline in one process, on one folder.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::event::{Observer, PhotoEvent};
use super::requeue::{Requeue, RequeueError};
use super::worker::{Worker, WorkerError};
use crate::broker::embedded::Embedded;
use crate::broker::{Broker, BrokerError};
use crate::domain::RunName;
use crate::ledger::sqlite::Sqlite;
use crate::ledger::{EventKind, Ledger, LedgerError};
use crate::objects::folder::Folder;
use crate::sqlite::{Access, Database, DatabaseError};

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("cannot use the folder {}: {error}", path.display())]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("another facemill is at work in {}: wait for it, or choose another --out", .0.display())]
    Occupied(PathBuf),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Requeue(#[from] RequeueError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// The folder of a run: `originals/`, `faces/`, the records, and the file with ledger and queues.
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

    pub fn objects(&self) -> Folder {
        Folder::at(&self.folder)
    }

    /// The ledger for someone who looks while another process may be at work. The folder must hold one.
    pub async fn look(&self) -> Result<Sqlite, LocalError> {
        Ok(Sqlite::open(Database::open(&self.ledger_file(), Access::Read)?).await?)
    }

    /// Whether a process is at work here.
    pub fn is_occupied(&self) -> bool {
        File::open(self.lock_file()).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.join(".lock")
    }

    /// Takes possession of the folder, which is made when it is not there.
    pub async fn enter(&self) -> Result<LockedRunDir, LocalError> {
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

/// A folder that this process alone works in, until it drops this or dies.
pub struct LockedRunDir {
    pub ledger: Sqlite,
    pub broker: Embedded,
    pub objects: Folder,
    _lock: File,
}

/// How a run in one process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Every photo has its final answer.
    Complete,
    /// It was told to stop.
    Interrupted { waiting: u64 },
}

/// Counts the photos of a run that have not ended, and rings when there may be none.
#[derive(Debug, Default)]
pub struct Countdown {
    left: AtomicI64,
    over: Notify,
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
            self.over.notify_one();
        }
    }
}

/// Drives the workers until every photo of the run has its final answer and the queues are empty, or until
/// `shutdown`. `countdown` must be among the observers of the workers.
pub async fn drive(
    run: &RunName,
    ledger: &dyn Ledger,
    broker: &dyn Broker,
    workers: Vec<Worker>,
    countdown: Arc<Countdown>,
    shutdown: CancellationToken,
) -> Result<Finish, LocalError> {
    let mut left = Left::count(run, ledger, broker).await?;
    if left.messages < left.photos {
        Requeue { ledger, broker, records: None }.enqueue_waiting(run).await?;
    }
    countdown.left.store(left.photos as i64, Ordering::Release);
    let done = shutdown.child_token();
    let mut running = JoinSet::new();
    if !left.is_nothing() {
        for worker in workers {
            let done = done.clone();
            running.spawn(async move { worker.run(done).await });
        }
    }
    let mut fault = None;
    while !running.is_empty() {
        tokio::select! {
            Some(ended) = running.join_next() => {
                let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                fault = fault.or(ended.err());
                done.cancel();
            }
            () = countdown.over.notified(), if !done.is_cancelled() => {
                // Ledger and queues have the last word.
                left = Left::count(run, ledger, broker).await?;
                countdown.left.store(left.photos as i64, Ordering::Release);
                if left.is_nothing() {
                    done.cancel();
                }
            }
        }
    }
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    left = Left::count(run, ledger, broker).await?;
    Ok(if left.photos == 0 { Finish::Complete } else { Finish::Interrupted { waiting: left.photos } })
}

/// What is still to do.
struct Left {
    photos: u64,
    messages: u64,
}

impl Left {
    async fn count(run: &RunName, ledger: &dyn Ledger, broker: &dyn Broker) -> Result<Self, LocalError> {
        let photos = ledger.counts(run).await?.waiting.values().sum();
        let depths = broker.depths().await?;
        let stages = depths.iter().filter(|depth| depth.stage.is_some());
        Ok(Self { photos, messages: stages.map(|depth| depth.ready + depth.in_flight + depth.delayed).sum() })
    }

    fn is_nothing(&self) -> bool {
        self.photos == 0 && self.messages == 0
    }
}
