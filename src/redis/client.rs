//! One shared connection to a Redis server. It is replaced when it breaks or stops answering.

use std::fmt;
use std::time::Duration;

use futures::Stream;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Msg, Pipeline, RedisError, Script, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::RedisSettings;
use super::error::{cannot, is_connection_broken, map_connect_error, map_error};
use crate::retry::Backoff;
use crate::server_error::{ESCAPES, ServerError};

/// A client of one Redis server. A call that fails on the way drops the connection. The next call connects again, with
/// a back-off after a failure.
pub struct RedisClient {
    client: Client,
    settings: RedisSettings,
    /// For messages: the `Display` of [`RedisSettings`].
    name: String,
    connection: Mutex<ConnectionState>,
}

struct ConnectionState {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure of an old connection does not drop its successor.
    number: u64,
    backoff: Backoff,
    not_before: Option<Instant>,
    last_error: Option<ServerError>,
}

impl ConnectionState {
    fn new(connection: Option<MultiplexedConnection>, number: u64) -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        Self { connection, number, backoff, not_before: None, last_error: None }
    }
}

/// Text: written by [`RedisClient::check`]; expires after a few seconds.
pub fn check_key(prefix: &str) -> String {
    format!("{prefix}:check")
}

impl RedisClient {
    /// Does not connect yet: the first call does.
    pub fn new(settings: RedisSettings) -> Result<Self, ServerError> {
        let name = settings.to_string();
        // The reason is left out: it may quote the URL with its password.
        let client = Client::open(settings.url.as_str()).map_err(|_| ServerError::Refused {
            what: "cannot use the Redis URL".into(),
            detail: format!(
                "expected redis://[user[:password]@]host[:port][/database], or rediss:// for TLS ({ESCAPES})"
            ),
        })?;
        Ok(Self { client, settings, name, connection: Mutex::new(ConnectionState::new(None, 0)) })
    }

    /// The server's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The prefix of all keys.
    pub fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    pub async fn command<T: FromRedisValue>(&self, what: &str, command: &Cmd) -> Result<T, ServerError> {
        self.call(what, |mut connection| async move { command.query_async(&mut connection).await }).await
    }

    pub async fn pipeline<T: FromRedisValue>(&self, what: &str, pipeline: &Pipeline) -> Result<T, ServerError> {
        self.call(what, |mut connection| async move { pipeline.query_async(&mut connection).await }).await
    }

    /// Runs a script by its hash; a server that does not have it gets its text.
    pub async fn script(
        &self,
        what: &str,
        script: &Script,
        keys: &[String],
        arguments: &[Vec<u8>],
    ) -> Result<Value, ServerError> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument.as_slice());
        }
        let invocation = &invocation;
        self.call(what, |mut connection| async move { invocation.invoke_async(&mut connection).await }).await
    }

    /// A command that the server answers after up to `patience`. It has a connection of its own for that time: on the
    /// shared one, all other commands would wait behind it.
    pub async fn wait<T: FromRedisValue>(
        &self,
        what: &str,
        command: &Cmd,
        patience: Duration,
    ) -> Result<T, ServerError> {
        let answer_timeout = patience + self.settings.answer_timeout;
        let mut connection = self.connect(answer_timeout).await?;
        match timeout(answer_timeout, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|error| map_error(&self.name, what, &error)),
            Err(_) => Err(self.no_answer(what, answer_timeout)),
        }
    }

    /// Messages of a channel, over a separate connection. The stream ends when that connection ends.
    pub async fn subscribe(&self, channel: &str) -> Result<impl Stream<Item = Msg> + use<>, ServerError> {
        const WHAT: &str = "subscribe";
        let subscribe = async {
            let mut subscription = self.client.get_async_pubsub().await?;
            subscription.subscribe(channel).await?;
            Ok(subscription.into_on_message())
        };
        match timeout(self.settings.connect_timeout, subscribe).await {
            Ok(subscribed) => subscribed.map_err(|error| map_error(&self.name, WHAT, &error)),
            Err(_) => Err(self.no_answer(WHAT, self.settings.connect_timeout)),
        }
    }

    /// Whether the server accepts writes and never evicts keys.
    pub async fn check(&self, what: &str) -> Result<(), ServerError> {
        let _: () = self.command(what, redis::cmd("SET").arg(check_key(self.prefix())).arg(1).arg("EX").arg(5)).await?;
        let info: String = self.command(what, redis::cmd("INFO").arg("memory")).await?;
        let evicts = info.lines().any(|line| line.starts_with("maxmemory_policy:allkeys-"));
        let is_bounded = info.lines().any(|line| line.starts_with("maxmemory:") && line != "maxmemory:0");
        match evicts && is_bounded {
            true => {
                Err(self
                    .refused(what, "the server evicts keys when its memory is full: set maxmemory-policy noeviction"))
            }
            false => Ok(()),
        }
    }

    /// Whether the server writes every change to its disk before it answers, and evicts no keys.
    ///
    /// # Errors
    /// It does not, or it cannot be asked.
    pub async fn check_durability(&self) -> Result<&'static str, ServerError> {
        const WHAT: &str = "rely on the ledger";
        let info: String = self.command(WHAT, &redis::cmd("INFO")).await?;
        let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if let Some(policy) = value("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            let fault = format!("the server may evict keys ({policy}): set maxmemory-policy noeviction");
            return Err(self.refused(WHAT, fault));
        }
        if value("aof_enabled") == Some("0") {
            let fault = "the server forgets photos when it stops: set appendonly yes and appendfsync always";
            return Err(self.refused(WHAT, fault));
        }
        // A user without dangerous commands may not read the settings.
        match self.command::<(String, String)>(WHAT, redis::cmd("CONFIG").arg("GET").arg("appendfsync")).await {
            Ok((_, policy)) if policy == "always" => Ok("writes every change to disk"),
            Ok((_, policy)) => Err(self.refused(
                WHAT,
                format!(
                    "the server may lose its last changes in a crash (appendfsync {policy}): set appendfsync always"
                ),
            )),
            Err(ServerError::Refused { .. }) => Ok("this user may not read whether appendfsync is always"),
            Err(error) => Err(error),
        }
    }

    /// An error that no retry can help: the server's data or answer is wrong.
    pub fn refused(&self, what: &str, reason: impl fmt::Display) -> ServerError {
        ServerError::Refused { what: cannot(what), detail: format!("{}: {reason}", self.name) }
    }

    /// The error for an answer of an unexpected type.
    pub fn unexpected_answer(&self, what: &str) -> ServerError {
        self.refused(what, "the server gave an unexpected answer")
    }

    async fn call<T, F>(&self, what: &str, work: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, ServerError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (connection, number) = self.connection().await?;
        let (is_broken, error) = match timeout(self.settings.answer_timeout, work(connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (is_connection_broken(&error), map_error(&self.name, what, &error)),
            Err(_) => (true, self.no_answer(what, self.settings.answer_timeout)),
        };
        if is_broken {
            let mut state = self.connection.lock().await;
            if state.number == number {
                state.connection = None;
            }
        }
        Err(error)
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), ServerError> {
        let mut state = self.connection.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.number));
        }
        if state.not_before.is_some_and(|moment| Instant::now() < moment)
            && let Some(error) = &state.last_error
        {
            return Err(error.clone());
        }
        let error = match self.connect(self.settings.answer_timeout).await {
            Ok(connection) => {
                if state.backoff.failures() > 0 {
                    tracing::info!(server = self.name, "reconnected");
                }
                let number = state.number + 1;
                *state = ConnectionState::new(Some(connection.clone()), number);
                return Ok((connection, number));
            }
            Err(error) => error,
        };
        state.not_before = Some(Instant::now() + state.backoff.next_wait());
        state.last_error = Some(error.clone());
        Err(error)
    }

    async fn connect(&self, answer_timeout: Duration) -> Result<MultiplexedConnection, ServerError> {
        // The client's own timeout applies to each address of a name; the outer one to all of them.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout))
            .set_response_timeout(Some(answer_timeout));
        let connect = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            // Only the answer to a command says that a password is required.
            match redis::cmd("PING").query_async::<()>(&mut connection).await {
                Err(error) if error.code() == Some("NOAUTH") => Err(error),
                _ => Ok(connection),
            }
        };
        match timeout(self.settings.connect_timeout, connect).await {
            Ok(Err(error)) if !error.is_timeout() => Err(map_connect_error(&self.name, &error)),
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(_)) | Err(_) => {
                // A Redis without TLS waits for the end of what it takes for a command.
                let hint = if self.settings.has_tls() { ": is this the port for TLS?" } else { "" };
                Err(ServerError::Unavailable {
                    what: format!("cannot reach {}", self.name),
                    detail: format!("no answer for {:?}{hint}", self.settings.connect_timeout),
                })
            }
        }
    }

    fn no_answer(&self, what: &str, waited: Duration) -> ServerError {
        ServerError::Unavailable { what: cannot(what), detail: format!("no answer from {} for {waited:?}", self.name) }
    }
}

impl fmt::Debug for RedisClient {
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
            let settings = RedisSettings::new(url);
            let shown = match RedisClient::new(settings.clone()) {
                Ok(client) => format!("{client:?} {settings} {settings:?}"),
                Err(error) => format!("{error} {error:?} {settings} {settings:?}"),
            };
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(RedisSettings::new("redis://me:x@localhost:7/2").to_string(), "redis at localhost:7/2");
    }
}
