//! The settings of access, and what all requests share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderName;
use tokio::sync::Semaphore;

use super::directory::Directory;
use super::person::Person;
use super::rates::Rates;
use crate::domain::Role;
use crate::objects::{ObjectError, Objects};
use crate::services::passwords;
use crate::web::Proxies;

/// The header in which reverse proxies name the person who has signed in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    pub name: HeaderName,
    /// The role of people who are not among the users.
    pub role: Role,
}

/// Settings of access.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// Who everybody is while there are no users. None: the server can be reached from other machines.
    pub local: Option<Person>,
    /// Only these may say who a client is.
    pub proxies: Proxies,
    pub header: Option<ProxyHeader>,
}

impl AccessSettings {
    /// For the person at this machine. `name`: 1 to 100 characters, none of them a control character; else `curator` is
    /// taken.
    pub fn local_person(name: Option<String>) -> Person {
        let is_valid = |name: &String| (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        Person { name: name.filter(is_valid).unwrap_or_else(|| "curator".into()), role: Role::Curator }
    }
}

/// Why a server must not start.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(
        "there are no users, and other machines could reach the page: add a user with `facemill users add NAME`, or \
         listen on a loopback address such as 127.0.0.1:8080"
    )]
    NoUsers,
    #[error("cannot read the users: {0}")]
    Objects(#[from] ObjectError),
}

/// Decides who a request comes from, and whether it is let in. Clones share everything.
#[derive(Clone)]
pub struct Access {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub settings: AccessSettings,
    pub directory: Arc<Directory>,
    /// Requests of a client.
    pub requests: Rates<IpAddr>,
    /// Attempts to sign in, by client and by name.
    pub by_client: Rates<IpAddr>,
    pub by_name: Rates<String>,
    /// Attempts that wait or are hashed now.
    pub attempts: Semaphore,
    /// Passwords that are hashed at a time. Each takes 19 MiB and a core for tens of milliseconds.
    pub hashing: Semaphore,
}

/// Clients and names whose rates are known. Each takes about 100 bytes.
const KNOWN: usize = 10_000;

impl Access {
    /// # Errors
    /// Other machines could reach the server, and there are no users.
    pub async fn open(objects: Arc<dyn Objects>, settings: AccessSettings) -> Result<Self, AccessError> {
        let directory = Directory::open(objects).await?;
        let nobody_signs_in = settings.header.is_none() && !directory.has_users();
        if nobody_signs_in && settings.local.is_none() {
            return Err(AccessError::NoUsers);
        }
        // The first unknown name must not take longer than the next one.
        let _ = tokio::task::spawn_blocking(passwords::warm_up).await;
        let minute = Duration::from_secs(60);
        let shared = Shared {
            settings,
            directory: Arc::new(directory),
            requests: Rates::new(2000, Duration::from_millis(5), KNOWN),
            by_client: Rates::new(30, minute / 6, KNOWN),
            by_name: Rates::new(10, minute / 6, KNOWN),
            attempts: Semaphore::new(32),
            hashing: Semaphore::new(2),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether people sign in.
    pub fn signs_in(&self) -> bool {
        self.shared.settings.header.is_some() || self.shared.directory.has_users()
    }
}
