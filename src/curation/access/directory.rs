//! The users and the sessions, as they were a moment ago.
//!
//! The documents are read again while requests arrive: what `facemill users` changes holds after ten seconds at most.
//! If the store does not answer, nobody is let in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::archive::sessions::{Session, Sessions, StoredSessions};
use crate::archive::users::{StoredUsers, Users};
use crate::domain::ContentHash;
use crate::objects::{ObjectError, Objects};
use crate::server_error::ServerError;

/// From this age on, a request has the documents read again, and does not wait for it.
const FRESH: Duration = Duration::from_secs(2);
/// From this age on, requests wait until they are read.
const STALE: Duration = Duration::from_secs(10);
/// The time for reading.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Users and sessions at one moment.
pub struct Snapshot {
    pub users: Users,
    sessions: HashMap<ContentHash, Session>,
    read_at: Instant,
}

impl Snapshot {
    fn new(users: Users, sessions: Sessions) -> Self {
        let sessions = sessions.sessions.into_iter().map(|session| (session.token_sha256, session)).collect();
        Self { users, sessions, read_at: Instant::now() }
    }

    /// The session with this hash of its token, if it holds at `now`, in seconds since 1970.
    pub fn session(&self, token_sha256: ContentHash, now: u64) -> Option<&Session> {
        self.sessions.get(&token_sha256).filter(|session| session.is_valid(&self.users, now))
    }
}

pub struct Directory {
    users: StoredUsers,
    sessions: StoredSessions,
    snapshot: Mutex<Arc<Snapshot>>,
    /// Whoever reads or writes the documents holds this, so that an older snapshot never replaces a newer one. It has
    /// the last failure.
    reading: tokio::sync::Mutex<Option<(Instant, ObjectError)>>,
}

impl Directory {
    pub async fn open(objects: Arc<dyn Objects>) -> Result<Self, ObjectError> {
        let (users, sessions) = (StoredUsers::new(objects.clone()), StoredSessions::new(objects));
        let first = Snapshot::new(users.read().await?, sessions.read().await?);
        Ok(Self { users, sessions, snapshot: Mutex::new(Arc::new(first)), reading: tokio::sync::Mutex::default() })
    }

    pub fn has_users(&self) -> bool {
        !self.last().users.users.is_empty()
    }

    fn last(&self) -> Arc<Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot.clone();
        snapshot
    }

    /// The users and sessions, at most ten seconds old.
    pub async fn current(self: &Arc<Self>) -> Result<Arc<Snapshot>, ObjectError> {
        let last = self.last();
        let age = last.read_at.elapsed();
        if age >= STALE {
            return self.newer_than(last.read_at).await;
        }
        if age >= FRESH && self.reading.try_lock().is_ok() {
            let (directory, known) = (self.clone(), last.read_at);
            tokio::spawn(async move { directory.newer_than(known).await.map(drop) });
        }
        Ok(last)
    }

    /// The users and sessions as they are now.
    pub async fn read(&self) -> Result<Arc<Snapshot>, ObjectError> {
        self.newer_than(Instant::now()).await
    }

    /// A snapshot that was read after `time`. Callers at the same time share one read and its failure.
    async fn newer_than(&self, time: Instant) -> Result<Arc<Snapshot>, ObjectError> {
        let mut failure = self.reading.lock().await;
        let last = self.last();
        if last.read_at > time {
            return Ok(last);
        }
        if let Some((at, error)) = &*failure
            && at.elapsed() < FRESH
        {
            return Err(error.clone());
        }
        let read = async { Ok::<_, ObjectError>((self.users.read().await?, self.sessions.read().await?)) };
        let read = tokio::time::timeout(READ_LIMIT, read).await.unwrap_or_else(|_| {
            let what = "cannot read the users".to_owned();
            let detail = format!("the object store does not answer for {} s", READ_LIMIT.as_secs());
            Err(ServerError::Unavailable { what, detail }.into())
        });
        match read {
            Ok((users, sessions)) => {
                *failure = None;
                Ok(self.publish(Snapshot::new(users, sessions)))
            }
            Err(error) => {
                tracing::warn!(%error, "nobody is let in until the users can be read");
                *failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Stores a session. Requests with its token are let in when this returns.
    pub async fn begin(&self, session: &Session) -> Result<(), ObjectError> {
        let _reading = self.reading.lock().await;
        let users = self.users.read().await?;
        let sessions = self.sessions.begin(session, &users).await?;
        self.publish(Snapshot::new(users, sessions));
        Ok(())
    }

    /// Ends a session. Requests with its token are refused when this returns.
    pub async fn end(&self, token_sha256: ContentHash) -> Result<(), ObjectError> {
        let _reading = self.reading.lock().await;
        let sessions = self.sessions.end(token_sha256).await?;
        let last = self.last();
        let mut snapshot = Snapshot::new(last.users.clone(), sessions);
        // The users were not read.
        snapshot.read_at = last.read_at;
        self.publish(snapshot);
        Ok(())
    }
}
