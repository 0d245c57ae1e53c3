//! What the command line does with users.

use std::sync::Arc;

use super::passwords::{HashError, Password};
use super::tokens::{self, RandomError};
use crate::archive::users::{StoredUsers, User, Users, UsersError};
use crate::domain::clock::now;
use crate::domain::{Role, UserName};
use crate::objects::{ObjectError, Objects};

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Users(#[from] UsersError),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("cannot hash the password: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// The accounts of a store.
pub struct Accounts {
    users: StoredUsers,
}

impl Accounts {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { users: StoredUsers::new(objects) }
    }

    pub async fn all(&self) -> Result<Users, ObjectError> {
        self.users.read().await
    }

    /// Adds a user. Without a password, the user signs in through a reverse proxy only.
    pub async fn add(&self, name: &UserName, role: Role, password: Option<Password>) -> Result<(), AccountError> {
        let at = now().as_secs();
        let password = match password {
            Some(password) => Some(hash(password).await?),
            None => None,
        };
        let user = User { role, password, stamp: tokens::random()?, added_at: at, password_at: at };
        Ok(self.users.add(name, user).await?)
    }

    /// Sets another password. All sessions of the user end.
    pub async fn set_password(&self, name: &UserName, password: Password) -> Result<(), AccountError> {
        let hash = hash(password).await?;
        Ok(self.users.set_password(name, &hash, &tokens::random()?, now().as_secs()).await?)
    }

    /// Removes a user. All sessions of the user end; the verdicts stay.
    pub async fn remove(&self, name: &UserName) -> Result<(), AccountError> {
        Ok(self.users.remove(name).await?)
    }
}

async fn hash(password: Password) -> Result<String, AccountError> {
    Ok(tokio::task::spawn_blocking(move || password.hash()).await??)
}
