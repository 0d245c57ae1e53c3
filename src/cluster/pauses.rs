//! The stages and hosts that an operator has paused.
//!
//! One hash in Redis holds them. An empty message on a channel announces a change. A worker reads the hash when it
//! starts, after each message, after a lost connection, and periodically. So a lost message only delays the change.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::keys;
use crate::domain::StageName;
use crate::redis::RedisClient;
use crate::server_error::ServerError;
use crate::telemetry::instruments;

/// The name of a host as in URLs: lower-case, international names in ASCII, no port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HostName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a host: copy it from the photos' URLs, without port and path")]
pub struct BadHostName(String);

impl FromStr for HostName {
    type Err = BadHostName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LONGEST: usize = 255;
        let bad = || BadHostName(text.chars().take(80).collect());
        let url = url::Url::parse(&format!("http://{text}/")).map_err(|_| bad())?;
        let bare = url.path() == "/"
            && url.port().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none();
        match url.host_str() {
            Some(host) if bare && url.fragment().is_none() && host.len() <= LONGEST => Ok(Self(host.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stage or a host that can be paused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseTarget {
    Stage(StageName),
    Host(HostName),
}

impl PauseTarget {
    /// The field of the target in the hash.
    fn field(&self) -> String {
        match self {
            Self::Stage(stage) => format!("stage/{stage}"),
            Self::Host(host) => format!("host/{host}"),
        }
    }

    fn parse(field: &str) -> Option<Self> {
        match field.split_once('/')? {
            ("stage", stage) => stage.parse().ok().map(Self::Stage),
            ("host", host) => Some(Self::Host(HostName(host.to_owned()))),
            _ => None,
        }
    }
}

impl fmt::Display for PauseTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage) => stage.fmt(f),
            Self::Host(host) => write!(f, "host {host}"),
        }
    }
}

/// The paused stages and hosts, each with the start of its pause in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pauses {
    pub stages: BTreeMap<StageName, u64>,
    pub hosts: BTreeMap<String, u64>,
}

impl Pauses {
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty() && self.hosts.is_empty()
    }

    fn of(fields: HashMap<String, u64>) -> Self {
        let mut pauses = Self::default();
        for (field, since) in fields {
            match PauseTarget::parse(&field) {
                Some(PauseTarget::Stage(stage)) => drop(pauses.stages.insert(stage, since)),
                Some(PauseTarget::Host(HostName(host))) => drop(pauses.hosts.insert(host, since)),
                // A later version may have further kinds of targets.
                None => {}
            }
        }
        pauses
    }
}

impl Pauses {
    pub async fn read(redis: &RedisClient) -> Result<Self, ServerError> {
        const WHAT: &str = "read the pauses";
        let fields = redis.command(WHAT, redis::cmd("HGETALL").arg(keys::pauses(redis.prefix()))).await?;
        Ok(Self::of(fields))
    }

    /// Pauses all targets. A target that is already paused keeps its start.
    pub async fn add(redis: &RedisClient, targets: &[PauseTarget]) -> Result<(), ServerError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self::change(redis, "pause", targets, |pipe, key, field| {
            pipe.cmd("HSETNX").arg(key).arg(field).arg(now);
        })
        .await
    }

    /// Resumes all targets.
    pub async fn remove(redis: &RedisClient, targets: &[PauseTarget]) -> Result<(), ServerError> {
        Self::change(redis, "resume", targets, |pipe, key, field| {
            pipe.cmd("HDEL").arg(key).arg(field);
        })
        .await
    }

    async fn change(
        redis: &RedisClient,
        what: &str,
        targets: &[PauseTarget],
        each: impl Fn(&mut redis::Pipeline, &str, String),
    ) -> Result<(), ServerError> {
        let key = keys::pauses(redis.prefix());
        let mut pipe = redis::pipe();
        pipe.atomic();
        targets.iter().for_each(|target| each(&mut pipe, &key, target.field()));
        pipe.cmd("PUBLISH").arg(&key).arg("");
        redis.pipeline::<redis::Value>(what, &pipe).await.map(drop)
    }
}

/// The pauses as a worker sees them. [`PauseWatch::run`] keeps them up to date.
pub struct PauseWatch {
    redis: Arc<RedisClient>,
    stages: BTreeMap<StageName, watch::Sender<bool>>,
    hosts: watch::Sender<BTreeMap<String, u64>>,
}

type Announcements = Pin<Box<dyn Stream<Item = redis::Msg> + Send>>;

impl PauseWatch {
    /// Time between two reads while no change is announced.
    const READ_PERIOD: Duration = Duration::from_secs(15);
    /// Time between two reads while the subscription is down.
    const UNSUBSCRIBED_PERIOD: Duration = Duration::from_secs(2);

    /// Reads the current pauses.
    pub async fn start(redis: Arc<RedisClient>) -> Result<Self, ServerError> {
        let watch = Self {
            stages: StageName::ALL.into_iter().map(|stage| (stage, watch::Sender::new(false))).collect(),
            hosts: watch::Sender::default(),
            redis,
        };
        let pauses = Pauses::read(&watch.redis).await?;
        watch.update(pauses);
        Ok(watch)
    }

    /// Whether the stage is paused.
    pub fn stage(&self, stage: StageName) -> watch::Receiver<bool> {
        self.stages[&stage].subscribe()
    }

    /// The paused hosts, with the start of each pause in seconds since 1970.
    pub fn hosts(&self) -> watch::Receiver<BTreeMap<String, u64>> {
        self.hosts.subscribe()
    }

    /// Returns whether anything has changed.
    fn update(&self, pauses: Pauses) -> bool {
        let mut changed = false;
        for (stage, sender) in &self.stages {
            let paused = pauses.stages.contains_key(stage);
            if let Some(instruments) = instruments::get() {
                instruments.paused(*stage, paused);
            }
            changed |= sender.send_if_modified(|was| std::mem::replace(was, paused) != paused);
        }
        changed
            | self.hosts.send_if_modified(|was| {
                let differ = *was != pauses.hosts;
                *was = pauses.hosts;
                differ
            })
    }

    /// Updates the pauses until it is dropped. While Redis is unavailable, the last known pauses apply.
    pub async fn run(self) {
        let mut announcements: Option<Announcements> = None;
        let mut announced = true;
        loop {
            if announcements.is_none() {
                // Subscribe before reading the hash, so that any later change is announced.
                announcements = self.subscribe().await;
            }
            match Pauses::read(&self.redis).await {
                // A change that was not announced: the connection of the subscription may be broken.
                Ok(pauses) => {
                    if self.update(pauses) && !announced {
                        announcements = None;
                        announced = true;
                        continue;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read the pauses: the last known ones apply");
                    announcements = None;
                }
            }
            announced = match &mut announcements {
                Some(stream) => match timeout(Self::READ_PERIOD, stream.next()).await {
                    Ok(Some(_)) => true,
                    Ok(None) => {
                        announcements = None;
                        sleep(Self::UNSUBSCRIBED_PERIOD / 4).await;
                        true
                    }
                    Err(_) => false,
                },
                None => {
                    sleep(Self::UNSUBSCRIBED_PERIOD).await;
                    true
                }
            };
        }
    }

    /// Returns `None` if the server is unavailable.
    async fn subscribe(&self) -> Option<Announcements> {
        match self.redis.subscribe(&keys::pauses(self.redis.prefix())).await {
            Ok(stream) => Some(Box::pin(stream)),
            Err(error) => {
                tracing::debug!(%error, "cannot subscribe to changes of the pauses: reading them periodically");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_normalized_like_urls() {
        for (text, name) in [
            ("Photos.Example", "photos.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("127.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), name);
        }
        for bad in ["", "a b", "http://a.example", "a.example/x", "a.example:8080", "me@a.example", "a?b", "a#b", "::1"]
        {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        assert!("x".repeat(300).parse::<HostName>().is_err());
    }

    #[test]
    fn fields_of_the_hash_are_read_back() {
        for target in [PauseTarget::Stage(StageName::Crop), PauseTarget::Host("a.example".parse().unwrap())] {
            assert_eq!(PauseTarget::parse(&target.field()), Some(target));
        }
        let fields = [("stage/fetch", 1), ("stage/none", 2), ("host/a", 3), ("moon/b", 4)];
        let pauses = Pauses::of(fields.map(|(field, since)| (field.to_owned(), since)).into());
        assert_eq!(pauses.stages, [(StageName::Fetch, 1)].into());
        assert_eq!(pauses.hosts, [("a".to_owned(), 3)].into());
    }
}
