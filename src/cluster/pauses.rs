//! What a person has told all workers to leave alone: stages and hosts.
//!
//! One hash in Redis holds it, and a bell rings when it changes. Who hears the bell reads the hash; who may have missed
//! one, because it has just come or its connection was lost, reads it too. So the bell carries nothing and may get lost.

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
use crate::ledger::LedgerError;
use crate::redis::RedisClient;
use crate::telemetry::instruments;

/// A host as URLs name it: lower-case, international names in ASCII, no port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HostName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a host: take it as it stands in the photos' URLs, without port and path")]
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
    /// Its field in the hash.
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

/// What is paused, each with the second since 1970 from which on it is.
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
                // A later version can pause more than this one knows of.
                None => {}
            }
        }
        pauses
    }
}

impl Pauses {
    pub async fn read(redis: &RedisClient) -> Result<Self, LedgerError> {
        const WHAT: &str = "read what is paused";
        let fields = redis.command(WHAT, redis::cmd("HGETALL").arg(keys::pauses(redis.prefix()))).await?;
        Ok(Self::of(fields))
    }

    /// Pauses all of them; one that is paused already keeps its time.
    pub async fn add(redis: &RedisClient, subjects: &[Subject]) -> Result<(), LedgerError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self::change(redis, "pause", subjects, |pipe, key, field| {
            pipe.cmd("HSETNX").arg(key).arg(field).arg(now);
        })
        .await
    }

    /// Lets all of them go on.
    pub async fn remove(redis: &RedisClient, subjects: &[Subject]) -> Result<(), LedgerError> {
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
    ) -> Result<(), LedgerError> {
        let key = keys::pauses(redis.prefix());
        let mut pipe = redis::pipe();
        pipe.atomic();
        subjects.iter().for_each(|subject| each(&mut pipe, &key, subject.field()));
        pipe.cmd("PUBLISH").arg(&key).arg("");
        redis.pipeline::<redis::Value>(what, &pipe).await.map(drop)
    }
}

/// The pauses as a worker's parts look at them: always there, kept up to date by [`Watch::keep`].
pub struct Watch {
    redis: Arc<RedisClient>,
    stages: BTreeMap<StageName, watch::Sender<bool>>,
    hosts: watch::Sender<BTreeMap<String, u64>>,
}

type Bell = Pin<Box<dyn Stream<Item = redis::Msg> + Send>>;

impl Watch {
    /// Reading again with nobody having rung.
    const NOW_AND_THEN: Duration = Duration::from_secs(15);
    /// The same where nobody can ring.
    const WITHOUT_BELL: Duration = Duration::from_secs(2);

    /// Reads what is paused now.
    pub async fn begin(redis: Arc<RedisClient>) -> Result<Self, LedgerError> {
        let watch = Self {
            stages: StageName::ALL.into_iter().map(|stage| (stage, watch::Sender::new(false))).collect(),
            hosts: watch::Sender::default(),
            redis,
        };
        let pauses = Pauses::read(&watch.redis).await?;
        watch.tell(pauses);
        Ok(watch)
    }

    /// Whether the stage is paused.
    pub fn stage(&self, stage: StageName) -> watch::Receiver<bool> {
        self.stages[&stage].subscribe()
    }

    /// The paused hosts, with the second since 1970 from which on they are.
    pub fn hosts(&self) -> watch::Receiver<BTreeMap<String, u64>> {
        self.hosts.subscribe()
    }

    /// Answers whether it was news.
    fn tell(&self, pauses: Pauses) -> bool {
        let mut news = false;
        for (stage, sender) in &self.stages {
            let paused = pauses.stages.contains_key(stage);
            if let Some(instruments) = instruments::get() {
                instruments.paused(*stage, paused);
            }
            news |= sender.send_if_modified(|was| std::mem::replace(was, paused) != paused);
        }
        news | self.hosts.send_if_modified(|was| {
            let differ = *was != pauses.hosts;
            *was = pauses.hosts;
            differ
        })
    }

    /// Keeps it up to date, for ever. While Redis is away, what was last known holds.
    pub async fn keep(self) {
        let mut bell: Option<Bell> = None;
        let mut rung = true;
        loop {
            if bell.is_none() {
                // Before the hash is read: what changes from here on rings.
                bell = self.subscribe().await;
            }
            match Pauses::read(&self.redis).await {
                // News that nobody rang for: the connection may be one that is dead and does not know.
                Ok(pauses) => {
                    if self.tell(pauses) && !rung {
                        bell = None;
                        rung = true;
                        continue;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "what is paused is not known for sure");
                    bell = None;
                }
            }
            rung = match &mut bell {
                Some(stream) => match timeout(Self::NOW_AND_THEN, stream.next()).await {
                    Ok(Some(_)) => true,
                    Ok(None) => {
                        bell = None;
                        sleep(Self::WITHOUT_BELL / 4).await;
                        true
                    }
                    Err(_) => false,
                },
                None => {
                    sleep(Self::WITHOUT_BELL).await;
                    true
                }
            };
        }
    }

    /// None: nobody can ring now.
    async fn subscribe(&self) -> Option<Bell> {
        match self.redis.subscribe(&keys::pauses(self.redis.prefix())).await {
            Ok(stream) => Some(Box::pin(stream)),
            Err(error) => {
                tracing::debug!(%error, "nobody can say when something is paused: looking every so often");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_as_urls_name_them() {
        for (told, meant) in [
            ("Photos.Example", "photos.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("127.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(told.parse::<HostName>().unwrap().to_string(), meant);
        }
        for bad in ["", "a b", "http://a.example", "a.example/x", "a.example:8080", "me@a.example", "a?b", "a#b", "::1"]
        {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        assert!("x".repeat(300).parse::<HostName>().is_err());
    }

    #[test]
    fn fields_are_read_back() {
        for subject in [Subject::Stage(StageName::Crop), Subject::Host("a.example".parse().unwrap())] {
            assert_eq!(Subject::parse(&subject.field()), Some(subject));
        }
        let fields = [("stage/fetch", 1), ("stage/none", 2), ("host/a", 3), ("moon/b", 4)];
        let pauses = Pauses::of(fields.map(|(field, since)| (field.to_owned(), since)).into());
        assert_eq!(pauses.stages, [(StageName::Fetch, 1)].into());
        assert_eq!(pauses.hosts, [("a".to_owned(), 3)].into());
    }
}
