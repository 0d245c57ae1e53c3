//! The SQLite client: one file, one thread that owns it, and transactions that many callers share.
//!
//! The embedded ledger and the embedded broker share a file on purpose. SQLite makes commits durable in their order, so
//! the file after a power cut is an earlier state of it. No photo has then moved in the ledger without its next message
//! in the queue.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    #[error("there is no {}: no run has started there yet", .0.display())]
    Missing(PathBuf),
    #[error("{} is not a facemill ledger (application id {found:#x})", path.display())]
    Foreign { path: PathBuf, found: i32 },
    #[error("{} has schema {found}, this program knows {known}: use a newer facemill", path.display())]
    FromTheFuture { path: PathBuf, found: i32, known: i32 },
    #[error("{}: the disk is full: free some space", .0.display())]
    DiskFull(PathBuf),
    #[error("{}: {detail}", path.display())]
    Failed { path: PathBuf, detail: String },
}

/// Why a job failed, without the name of the file.
#[derive(Debug, Clone)]
enum Reason {
    DiskFull,
    Other(String),
}

impl From<rusqlite::Error> for Reason {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// How a [`Database`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The file is created if it is missing.
    Write,
    /// The file must exist; another process may be writing to it.
    Read,
}

type Reply = Box<dyn FnOnce(Result<(), Reason>) + Send>;
/// Receives the reason if no transaction could begin.
type Job = Box<dyn FnOnce(Result<&Connection, Reason>) -> Reply + Send>;

/// A handle to the thread that owns the file; clones share it. The thread ends after the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Database {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
}

impl Database {
    /// "face" in the header of the file.
    const APPLICATION_ID: i32 = 0x6661_6365;
    const SCHEMA: i32 = 1;
    /// The most waiting jobs that share a transaction.
    const SHARED: usize = 256;
    const BUSY: Duration = Duration::from_secs(10);

    pub fn open(path: &Path, access: Access) -> Result<Self, DatabaseError> {
        let failed = |error: rusqlite::Error| DatabaseError::of(path, error.into());
        if access == Access::Read && !path.is_file() {
            return Err(DatabaseError::Missing(path.into()));
        }
        let flags = match access {
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            // Not read-only: after its writer was killed, the next reader replays the log.
            Access::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
        connection.busy_timeout(Self::BUSY).map_err(failed)?;
        Self::prepare(&connection, path, access)?;
        let (jobs, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || serve(&connection, &inbox))
            .map_err(|error| DatabaseError::Failed { path: path.into(), detail: error.to_string() })?;
        Ok(Self { path: path.into(), jobs })
    }

    fn prepare(connection: &Connection, path: &Path, access: Access) -> Result<(), DatabaseError> {
        let failed = |error: rusqlite::Error| DatabaseError::of(path, error.into());
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(failed);
        let (application, schema) = (pragma("application_id")?, pragma("user_version")?);
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
        let blank = application == 0 && tables == 0;
        match () {
            () if blank && access == Access::Read => return Err(DatabaseError::Missing(path.into())),
            () if !blank && application != Self::APPLICATION_ID => {
                return Err(DatabaseError::Foreign { path: path.into(), found: application });
            }
            () if schema > Self::SCHEMA => {
                return Err(DatabaseError::FromTheFuture { path: path.into(), found: schema, known: Self::SCHEMA });
            }
            () => {}
        }
        if access == Access::Write {
            // The write-ahead log makes commits cheap and survives kill -9. A power cut can lose the last commits, but
            // none before them.
            connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
            connection.pragma_update(None, "synchronous", "normal").map_err(failed)?;
            connection.pragma_update(None, "application_id", Self::APPLICATION_ID).map_err(failed)?;
            connection.pragma_update(None, "user_version", Self::SCHEMA).map_err(failed)?;
        }
        connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    }

    /// Starts to report commits to the file.
    pub fn watch(&self) -> Result<Watch, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(Self::BUSY)?;
            let version = data_version(&connection)?;
            Ok(Watch { connection, version })
        };
        open().map_err(|error: rusqlite::Error| DatabaseError::of(&self.path, error.into()))
    }

    /// Whether something was committed since the last call, or since the watch began.
    pub fn has_changed(&self, watch: &mut Watch) -> Result<bool, DatabaseError> {
        let version = data_version(&watch.connection).map_err(|error| DatabaseError::of(&self.path, error.into()))?;
        Ok(std::mem::replace(&mut watch.version, version) != version)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction and returns after the commit. An error of `work` rolls back its own changes only.
    pub async fn call<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(move |connection| {
            let outcome = connection.and_then(|c| in_savepoint(c, work).map_err(Reason::from));
            Box::new(move |committed: Result<(), Reason>| {
                let _ = reply.send(committed.and(outcome));
            })
        })?;
        answer.await.unwrap_or_else(|_| Err(ended())).map_err(|reason| DatabaseError::of(&self.path, reason))
    }

    /// As [`Database::call`], without an answer: for destructors.
    pub fn cast<F>(&self, work: F)
    where
        F: FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    {
        let _ = self.send(move |connection| {
            if let Err(reason) = connection.and_then(|c| in_savepoint(c, work).map_err(Reason::from)) {
                tracing::warn!(?reason, "a write to the database failed");
            }
            Box::new(|_| {})
        });
    }

    fn send(
        &self,
        job: impl FnOnce(Result<&Connection, Reason>) -> Reply + Send + 'static,
    ) -> Result<(), DatabaseError> {
        self.jobs.send(Box::new(job)).map_err(|_| DatabaseError::of(&self.path, ended()))
    }
}

fn ended() -> Reason {
    Reason::Other("the database thread has ended".into())
}

impl DatabaseError {
    fn of(path: &Path, reason: Reason) -> Self {
        match reason {
            Reason::DiskFull => Self::DiskFull(path.into()),
            Reason::Other(detail) => Self::Failed { path: path.into(), detail },
        }
    }
}

/// Writes a file anew, without what was deleted from it. The file must exist; processes that use it wait meanwhile.
///
/// # Errors
/// Another process uses the file for too long, or the disk has no room for a second copy.
pub fn compact(path: &Path) -> Result<(), DatabaseError> {
    let compact = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Database::BUSY)?;
        connection.execute_batch("VACUUM")?;
        // The log has the earlier pages.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
    };
    let busy = "another process reads it all the time: end that process, then try again";
    match compact() {
        Ok(false) => Ok(()),
        Ok(true) => Err(DatabaseError::of(path, Reason::Other(busy.into()))),
        Err(error) => Err(DatabaseError::of(path, error.into())),
    }
}

/// A connection that notices the commits of all others, of this process and of other processes. It takes no lock that a
/// writer waits for.
pub struct Watch {
    connection: Connection,
    version: i64,
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("SAVEPOINT job")?;
    let outcome = work(connection);
    if outcome.is_err() {
        connection.execute_batch("ROLLBACK TO job")?;
    }
    connection.execute_batch("RELEASE job")?;
    outcome
}

/// Runs the waiting jobs in one transaction, and replies after the commit.
fn serve(connection: &Connection, inbox: &mpsc::Receiver<Job>) {
    while let Ok(first) = inbox.recv() {
        let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(Reason::from);
        let mut replies = Vec::new();
        for job in std::iter::once(first).chain(inbox.try_iter().take(Database::SHARED - 1)) {
            replies.push(job(begun.as_ref().map(|()| connection).map_err(Reason::clone)));
        }
        let committed = begun.and_then(|()| {
            connection.execute_batch("COMMIT").map_err(|error| {
                let _ = connection.execute_batch("ROLLBACK");
                Reason::from(error)
            })
        });
        for reply in replies {
            reply(committed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        (folder, path)
    }

    #[tokio::test]
    async fn a_failed_job_rolls_back_only_its_own_changes() {
        let (_folder, path) = scratch();
        let database = Database::open(&path, Access::Write).unwrap();
        database.call(|c| c.execute_batch("CREATE TABLE t(x)")).await.unwrap();
        let good = database.call(|c| c.execute("INSERT INTO t VALUES (1)", []));
        let bad = database.call(|c| {
            c.execute("INSERT INTO t VALUES (2)", [])?;
            c.execute("INSERT INTO nowhere VALUES (3)", [])
        });
        let (good, bad) = tokio::join!(good, bad);
        assert!(good.is_ok());
        assert!(bad.unwrap_err().to_string().contains("nowhere"));
        let sum: i64 = database.call(|c| c.query_row("SELECT sum(x) FROM t", [], |r| r.get(0))).await.unwrap();
        assert_eq!(sum, 1);
    }

    #[tokio::test]
    async fn jobs_without_a_transaction_do_not_run() {
        let (_folder, path) = scratch();
        let database = Database::open(&path, Access::Write).unwrap();
        database.call(|c| c.execute_batch("CREATE TABLE t(x); PRAGMA busy_timeout = 0")).await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let insert = || database.call(|c| c.execute("INSERT INTO t VALUES (1)", []));
        assert!(insert().await.unwrap_err().to_string().contains("locked"));
        other.execute_batch("ROLLBACK").unwrap();
        insert().await.unwrap();
        let count: i64 = database.call(|c| c.query_row("SELECT count(*) FROM t", [], |r| r.get(0))).await.unwrap();
        assert_eq!(count, 1);
    }

    #[tokio::test]
    async fn a_watch_notices_the_commits_of_all_others() {
        let (_folder, path) = scratch();
        let database = Database::open(&path, Access::Write).unwrap();
        database.call(|c| c.execute_batch("CREATE TABLE t(x)")).await.unwrap();
        let mut watch = database.watch().unwrap();
        assert!(!database.has_changed(&mut watch).unwrap());
        database.call(|c| c.execute("INSERT INTO t VALUES (1)", [])).await.unwrap();
        assert!(database.has_changed(&mut watch).unwrap() && !database.has_changed(&mut watch).unwrap());
        Connection::open(&path).unwrap().execute("INSERT INTO t VALUES (2)", []).unwrap();
        assert!(database.has_changed(&mut watch).unwrap());
    }

    #[tokio::test]
    async fn a_compacted_file_has_nothing_that_was_deleted() {
        let (folder, path) = scratch();
        let database = Database::open(&path, Access::Write).unwrap();
        let word = "nobody-reads-this";
        let write = "CREATE TABLE t(x); INSERT INTO t VALUES ('nobody-reads-this'), ('this stays')";
        database.call(move |c| c.execute_batch(write)).await.unwrap();
        database.call(|c| c.execute("DELETE FROM t WHERE x LIKE 'nobody%'", []).map(drop)).await.unwrap();
        let files = || -> Vec<u8> {
            let files = std::fs::read_dir(folder.path()).unwrap();
            files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
        };
        let has = |word: &str| files().windows(word.len()).any(|window| window == word.as_bytes());
        assert!(has(word), "otherwise this proves nothing");
        compact(&path).unwrap();
        assert!(!has(word) && has("this stays"));
        let left: String = database.call(|c| c.query_row("SELECT x FROM t", [], |row| row.get(0))).await.unwrap();
        assert_eq!(left, "this stays");
    }

    #[tokio::test]
    async fn foreign_missing_and_newer_files_have_their_own_errors() {
        let (folder, path) = scratch();
        assert!(matches!(Database::open(&path, Access::Read), Err(DatabaseError::Missing(_))));
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE foreign_table(x)").unwrap();
        assert!(matches!(Database::open(&path, Access::Write), Err(DatabaseError::Foreign { .. })));
        let ours = folder.path().join("b.sqlite");
        drop(Database::open(&ours, Access::Write).unwrap());
        Connection::open(&ours).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Database::open(&ours, Access::Read), Err(DatabaseError::FromTheFuture { found: 99, .. })));
        std::fs::write(&path, b"this is not a database, but it is long enough to have the header of a database")
            .unwrap();
        assert!(matches!(Database::open(&path, Access::Write), Err(DatabaseError::Failed { .. })));
    }
}
