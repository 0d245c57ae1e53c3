//! The stages and hosts that an operator has paused.
//!
//! They are in one hash in Redis. A message on a channel announces a change; it carries nothing, and a worker that
//! receives it reads the hash. A worker that may have missed a message, after its start or a lost connection, reads the
//! hash, too. So a message may get lost.

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

/// What can be paused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Stage(StageName),
    Host(HostName),
}

impl Subject {
    /// The subject's field in the hash.
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

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage) => stage.fmt(f),
            Self::Host(host) => write!(f, "host {host}"),
        }
    }
}

/// The paused stages and hosts, each with the second since 1970 since when it is paused.
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
            match Subject::parse(&field) {
                Some(Subject::Stage(stage)) => drop(pauses.stages.insert(stage, since)),
                Some(Subject::Host(HostName(host))) => drop(pauses.hosts.insert(host, since)),
                // A later version may have other subjects.
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

    /// Pauses all of them. A subject that is paused already keeps its time.
    pub async fn add(redis: &RedisClient, subjects: &[Subject]) -> Result<(), ServerError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self::change(redis, "pause", subjects, |pipe, key, field| {
            pipe.cmd("HSETNX").arg(key).arg(field).arg(now);
        })
        .await
    }

    /// Resumes all of them.
    pub async fn remove(redis: &RedisClient, subjects: &[Subject]) -> Result<(), ServerError> {
        Self::change(redis, "resume", subjects, |pipe, key, field| {
            pipe.cmd("HDEL").arg(key).arg(field);
        })
        .await
    }

    async fn change(
        redis: &RedisClient,
        what: &str,
        subjects: &[Subject],
        each: impl Fn(&mut redis::Pipeline, &str, String),
    ) -> Result<(), ServerError> {
        let key = keys::pauses(redis.prefix());
        let mut pipe = redis::pipe();
        pipe.atomic();
        subjects.iter().for_each(|subject| each(&mut pipe, &key, subject.field()));
        pipe.cmd("PUBLISH").arg(&key).arg("");
        redis.pipeline::<redis::Value>(what, &pipe).await.map(drop)
    }
}

/// The pauses as a worker observes them. [`PauseWatch::run`] keeps them up to date.
pub struct PauseWatch {
    redis: Arc<RedisClient>,
    stages: BTreeMap<StageName, watch::Sender<bool>>,
    hosts: watch::Sender<BTreeMap<String, u64>>,
}

type Announcements = Pin<Box<dyn Stream<Item = redis::Msg> + Send>>;

impl PauseWatch {
    /// Time between two reads without an announcement.
    const READ_PERIOD: Duration = Duration::from_secs(15);
    /// The same while the subscription is down.
    const UNSUBSCRIBED_PERIOD: Duration = Duration::from_secs(2);

    /// Reads the present pauses.
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

    /// The paused hosts, with the second since 1970 since when each is paused.
    pub fn hosts(&self) -> watch::Receiver<BTreeMap<String, u64>> {
        self.hosts.subscribe()
    }

    /// Answers whether anything has changed.
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

    /// Updates the pauses, for ever. While Redis is unavailable, the last known pauses hold.
    pub async fn run(self) {
        let mut announcements: Option<Announcements> = None;
        let mut announced = true;
        loop {
            if announcements.is_none() {
                // Before the hash is read: any later change is announced.
                announcements = self.subscribe().await;
            }
            match Pauses::read(&self.redis).await {
                // A change without an announcement: the subscription's connection may be broken without notice.
                Ok(pauses) => {
                    if self.update(pauses) && !announced {
                        announcements = None;
                        announced = true;
                        continue;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read the pauses: the last known ones hold");
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

    /// `None`: the server is unavailable.
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
        for subject in [Subject::Stage(StageName::Crop), Subject::Host("a.example".parse().unwrap())] {
            assert_eq!(Subject::parse(&subject.field()), Some(subject));
        }
        let fields = [("stage/fetch", 1), ("stage/none", 2), ("host/a", 3), ("moon/b", 4)];
        let pauses = Pauses::of(fields.map(|(field, since)| (field.to_owned(), since)).into());
        assert_eq!(pauses.stages, [(StageName::Fetch, 1)].into());
        assert_eq!(pauses.hosts, [("a".to_owned(), 3)].into());
    }
}
