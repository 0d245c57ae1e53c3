//! The people who may sign in: `curation/users.json`. All runs of a store share them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{change, decode, optional};
use crate::domain::{Role, UserName};
use crate::objects::{ObjectError, ObjectKey, Objects};

/// Users of one store.
pub const MOST_USERS: usize = 1000;

/// A person who may sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub role: Role,
    /// The hash of the password, in PHC format. None: the user signs in through a reverse proxy only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// A random text that is new with every password, and with every user. A session holds for one stamp only.
    pub stamp: String,
    /// Seconds since 1970, UTC.
    pub added_at: u64,
    /// When the password was set, in seconds since 1970, UTC.
    pub password_at: u64,
}

/// All users, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    pub users: BTreeMap<UserName, User>,
}

/// Why the users were not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UsersError {
    #[error("there is a user {0}: `facemill users passwd {0}` sets another password")]
    Taken(UserName),
    #[error("there is no user {0}: `facemill users list` prints the names")]
    Unknown(UserName),
    #[error("there are {MOST_USERS} users, and no room for more: remove some with `facemill users remove NAME`")]
    Full,
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

/// The users in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredUsers {
    objects: Arc<dyn Objects>,
}

impl StoredUsers {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    fn key() -> ObjectKey {
        ObjectKey::of_curation("users")
    }

    /// Nobody, before the first user is added.
    pub async fn read(&self) -> Result<Users, ObjectError> {
        match optional(self.objects.get(&Self::key()).await)? {
            Some(body) => decode(&Self::key(), &body),
            None => Ok(Users::default()),
        }
    }

    pub async fn add(&self, name: &UserName, user: User) -> Result<(), UsersError> {
        self.change(|users| {
            if users.contains_key(name) {
                return Err(UsersError::Taken(name.clone()));
            }
            if users.len() >= MOST_USERS {
                return Err(UsersError::Full);
            }
            users.insert(name.clone(), user.clone());
            Ok(())
        })
        .await
    }

    /// Sets the password hash and the stamp, which ends all sessions of the user.
    pub async fn set_password(&self, name: &UserName, hash: &str, stamp: &str, at: u64) -> Result<(), UsersError> {
        self.change(|users| {
            let user = users.get_mut(name).ok_or_else(|| UsersError::Unknown(name.clone()))?;
            user.password = Some(hash.to_owned());
            user.stamp = stamp.to_owned();
            user.password_at = at;
            Ok(())
        })
        .await
    }

    /// Removes the user, which ends all sessions of the user.
    pub async fn remove(&self, name: &UserName) -> Result<(), UsersError> {
        self.change(|users| users.remove(name).map(drop).ok_or_else(|| UsersError::Unknown(name.clone()))).await
    }

    async fn change(
        &self,
        mut edit: impl FnMut(&mut BTreeMap<UserName, User>) -> Result<(), UsersError>,
    ) -> Result<(), UsersError> {
        change(&*self.objects, &Self::key(), |document: &mut Users| edit(&mut document.users)).await
    }
}
