//! Who is signed in: `curation/sessions.json`. All runs of a store share it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::users::Users;
use super::{change, decode, optional};
use crate::domain::{ContentHash, UserName};
use crate::objects::{ObjectError, ObjectKey, Objects};

/// Sessions of one user. A further one ends the oldest.
pub const MOST_SESSIONS: usize = 20;

/// A person who is signed in with a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// SHA-256 of the token in the cookie. The token itself is stored nowhere.
    pub token_sha256: ContentHash,
    pub user: UserName,
    /// The user's stamp when the session began. With another stamp the session has ended.
    pub stamp: String,
    /// Seconds since 1970, UTC.
    pub begun_at: u64,
    /// From this second on, the session has ended.
    pub ends_at: u64,
}

impl Session {
    /// Whether the session holds at `now`, in seconds since 1970.
    pub fn is_valid(&self, users: &Users, now: u64) -> bool {
        now < self.ends_at && users.users.get(&self.user).is_some_and(|user| user.stamp == self.stamp)
    }
}

/// All sessions, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    pub sessions: Vec<Session>,
}

/// The sessions in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredSessions {
    objects: Arc<dyn Objects>,
}

impl StoredSessions {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    fn key() -> ObjectKey {
        ObjectKey::of_curation("sessions")
    }

    pub async fn read(&self) -> Result<Sessions, ObjectError> {
        match optional(self.objects.get(&Self::key()).await)? {
            Some(body) => decode(&Self::key(), &body),
            None => Ok(Sessions::default()),
        }
    }

    /// Adds a session, and forgets those that have ended. Returns all sessions.
    pub async fn begin(&self, session: &Session, users: &Users) -> Result<Sessions, ObjectError> {
        change(&*self.objects, &Self::key(), |document: &mut Sessions| {
            let sessions = &mut document.sessions;
            // An earlier attempt may have succeeded although its answer was lost.
            sessions.retain(|one| one.is_valid(users, session.begun_at) && one.token_sha256 != session.token_sha256);
            let mut own = sessions.iter().filter(|one| one.user == session.user).count();
            sessions.retain(|one| {
                let is_oldest = one.user == session.user && own >= MOST_SESSIONS;
                own -= usize::from(is_oldest);
                !is_oldest
            });
            sessions.push(session.clone());
            Ok(document.clone())
        })
        .await
    }

    /// Ends a session. Returns the other ones.
    pub async fn end(&self, token_sha256: ContentHash) -> Result<Sessions, ObjectError> {
        change(&*self.objects, &Self::key(), |document: &mut Sessions| {
            document.sessions.retain(|one| one.token_sha256 != token_sha256);
            Ok(document.clone())
        })
        .await
    }
}
