//! The connection to a Redis server: one for all calls, made anew when it breaks or falls silent.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use futures::Stream;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, Msg, RedisError};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::ledger::LedgerError;

/// Where the server is and how patient to be with it. Its `Debug` and `Display` show no password.
#[derive(Clone)]
pub struct Settings {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS.
    pub url: String,
    /// All keys begin with it.
    pub prefix: String,
    /// For connecting.
    pub connect_timeout: Duration,
    /// For one answer.
    pub answer_timeout: Duration,
}

impl Settings {
    pub const PREFIX: &'static str = "facemill";

    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: Self::PREFIX.into(),
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Display for Settings {
    /// Host, port and database.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url.as_str().into_connection_info() {
            Ok(info) => write!(f, "redis at {}/{}", info.addr(), info.redis_settings().db()),
            Err(_) => f.write_str("redis at an unreadable URL"),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}, keys {}:*", self.prefix)
    }
}

/// Hands out the connection. A call that failed on the way drops it, and the next one makes another, not more often
/// than [`Link::wait`] allows.
pub struct Link {
    client: Client,
    settings: Settings,
    /// For messages: what [`Settings`] displays.
    name: String,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure of an old one does not end its successor.
    number: u64,
    failures: u32,
    not_before: Option<Instant>,
    last_error: Option<LedgerError>,
}

impl Link {
    const FIRST_WAIT: Duration = Duration::from_millis(50);
    const LONGEST_WAIT: Duration = Duration::from_secs(5);

    pub fn new(settings: Settings) -> Result<Self, LedgerError> {
        let name = settings.to_string();
        // The reason is left out: it may quote the URL with its password.
        let client = Client::open(settings.url.as_str()).map_err(|_| LedgerError::Refused {
            what: "cannot use the Redis URL".into(),
            detail: "take redis://[user[:password]@]host[:port][/database], or rediss:// for TLS".into(),
        })?;
        Ok(Self { client, settings, name, line: Mutex::default() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    /// Runs `work` on the connection.
    pub async fn call<T, F>(&self, what: &str, work: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (connection, number) = self.connection().await?;
        let (broken, error) = match timeout(self.settings.answer_timeout, work(connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (is_broken(&error), self.failure(what, &error)),
            Err(_) => {
                let detail = format!("no answer from {} for {:?}", self.name, self.settings.answer_timeout);
                (true, LedgerError::Unavailable { what: cannot(what), detail })
            }
        };
        if broken {
            let mut line = self.line.lock().await;
            if line.number == number {
                line.connection = None;
            }
        }
        Err(error)
    }

    /// Messages of a channel, over a connection of their own; the stream ends with that.
    pub async fn subscribe(&self, channel: &str) -> Result<impl Stream<Item = Msg> + use<>, LedgerError> {
        const WHAT: &str = "listen";
        let subscribe = async {
            let mut listener = self.client.get_async_pubsub().await?;
            listener.subscribe(channel).await?;
            Ok(listener.into_on_message())
        };
        match timeout(self.settings.connect_timeout, subscribe).await {
            Ok(subscribed) => subscribed.map_err(|error| self.failure(WHAT, &error)),
            Err(_) => {
                let detail = format!("no answer from {} for {:?}", self.name, self.settings.connect_timeout);
                Err(LedgerError::Unavailable { what: cannot(WHAT), detail })
            }
        }
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), LedgerError> {
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            return Ok((connection.clone(), line.number));
        }
        if line.not_before.is_some_and(|moment| Instant::now() < moment)
            && let Some(error) = &line.last_error
        {
            return Err(error.clone());
        }
        // The outer time limit is ours; the inner one is for whatever the client does about a name's many addresses.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout))
            .set_response_timeout(Some(self.settings.answer_timeout));
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let error = match timeout(self.settings.connect_timeout, connect).await {
            Ok(Ok(connection)) => {
                if line.failures > 0 {
                    tracing::info!(server = self.name, "connected again");
                }
                *line = Line { connection: Some(connection.clone()), number: line.number + 1, ..Line::default() };
                return Ok((connection, line.number));
            }
            Ok(Err(error)) => self.failure("connect", &error),
            Err(_) => {
                let detail = format!("no answer from {} for {:?}", self.name, self.settings.connect_timeout);
                LedgerError::Unavailable { what: cannot("connect"), detail }
            }
        };
        line.not_before = Some(Instant::now() + Self::wait(line.failures));
        line.failures = line.failures.saturating_add(1);
        line.last_error = Some(error.clone());
        Err(error)
    }

    /// Twice as long after each failure, half of it by chance, so that the workers of a cluster do not knock at once.
    fn wait(failures: u32) -> Duration {
        let wait = (Self::FIRST_WAIT * 2_u32.pow(failures.min(10))).min(Self::LONGEST_WAIT);
        let chance = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
        wait.mul_f64(0.5 + 0.5 * chance)
    }

    fn failure(&self, what: &str, error: &RedisError) -> LedgerError {
        let code = error.code().unwrap_or_default();
        let said = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        let (refused, said) = match code {
            "WRONGPASS" => (true, "it does not know this user and password".to_owned()),
            "NOAUTH" => (true, "it wants a password: redis://user:password@host".to_owned()),
            "NOPERM" => (true, format!("this user may not do that: {said}")),
            "WRONGTYPE" => (true, "a key of ours holds something else: choose another prefix or database".to_owned()),
            "MOVED" | "CROSSSLOT" | "ASK" => {
                (true, "it is one node of a cluster: give the address of a proxy that speaks for all".to_owned())
            }
            "LOADING" => (false, "it is still reading its data from disk".to_owned()),
            "READONLY" => (false, "it is a replica and takes no writes".to_owned()),
            "OOM" => (false, "its memory is full: raise maxmemory".to_owned()),
            "MISCONF" => (false, format!("it cannot write to its disk: {said}")),
            "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "NOREPLICAS" | "NOGOODSLAVE" => (false, said),
            _ => match error.kind() {
                ErrorKind::AuthenticationFailed => (true, "it does not know this user and password".to_owned()),
                ErrorKind::Io | ErrorKind::Client | ErrorKind::Parse => (false, error.to_string()),
                _ => (true, error.to_string()),
            },
        };
        let (what, detail) = (cannot(what), format!("{}: {said}", self.name));
        if refused { LedgerError::Refused { what, detail } } else { LedgerError::Unavailable { what, detail } }
    }
}

/// Whether nothing more is to be expected of the connection. After a failover the old master answers READONLY.
fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() || error.code() == Some("READONLY")
}

fn cannot(what: &str) -> String {
    format!("cannot {what}")
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for url in ["redis://me:hunter2@127.0.0.1:1/2", "redis://:hunter2@[broken", "hunter2"] {
            let settings = Settings::new(url);
            let told = match Link::new(settings.clone()) {
                Ok(link) => format!("{link:?} {settings} {settings:?}"),
                Err(error) => format!("{error} {error:?} {settings} {settings:?}"),
            };
            assert!(!told.contains("hunter2"), "{told}");
        }
        assert_eq!(Settings::new("redis://me:x@localhost:7/2").to_string(), "redis at localhost:7/2");
    }

    #[test]
    fn waits_grow_to_a_bound() {
        assert!(Link::wait(0) <= Link::FIRST_WAIT);
        assert!(Link::wait(3) >= 4 * Link::FIRST_WAIT);
        assert!((0..100).all(|failures| Link::wait(failures) <= Link::LONGEST_WAIT));
    }
}
