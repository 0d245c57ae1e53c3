//! A connection that is replaced when it is lost.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::{Mutex, watch};

use super::answer::{answered, is_late};
use super::error::{map_connect_error, map_error};
use super::settings::RabbitMqSettings;
use super::topology::Topology;
use super::transport::{self, Transports};
use crate::broker::BrokerError;

/// Time limit for the end of a connection.
pub(super) const CLOSING: Duration = Duration::from_secs(5);
/// The reply code of an end in order.
pub(super) const SUCCESS: u16 = 200;

/// One connection to RabbitMQ. It is opened at the first use, and again at the first use after it was lost.
///
/// During an alarm RabbitMQ reads nothing from a connection that publishes, not even acknowledgements. So there is one
/// connection for publishing and one for everything else.
pub(super) struct Connector {
    settings: Arc<RabbitMqSettings>,
    topology: Arc<Topology>,
    purpose: &'static str,
    state: Mutex<ConnectionState>,
}

enum ConnectionState {
    Idle,
    Open(Arc<OpenConnection>),
    Failed { at: Instant, error: BrokerError },
}

pub(super) struct OpenConnection {
    connection: Connection,
    /// The [`Generation`](super::topology::Generation) of the topology at the last use.
    generation: AtomicU64,
    /// RabbitMQ has not answered on it in time, so that another connection replaces it.
    is_silent: AtomicBool,
    /// Why RabbitMQ accepts no messages. None: it accepts them.
    alarm: watch::Receiver<Option<String>>,
}

impl Connector {
    /// Callers that wait for the same connection share the error of an attempt that failed this recently.
    const SAME_FAILURE: Duration = Duration::from_millis(100);
    /// Time limit for about 30 queues. All nodes have to agree on each.
    const DECLARING: Duration = Duration::from_secs(30);

    pub fn new(settings: Arc<RabbitMqSettings>, topology: Arc<Topology>, purpose: &'static str) -> Self {
        Self { settings, topology, purpose, state: Mutex::new(ConnectionState::Idle) }
    }

    /// The connection, with the topology declared.
    pub async fn open(&self) -> Result<Arc<OpenConnection>, BrokerError> {
        self.open_with(true).await
    }

    /// The connection, whatever is declared: for whoever only reads, and may not declare.
    pub async fn open_for_reading(&self) -> Result<Arc<OpenConnection>, BrokerError> {
        self.open_with(false).await
    }

    async fn open_with(&self, declares: bool) -> Result<Arc<OpenConnection>, BrokerError> {
        let mut state = self.state.lock().await;
        match &*state {
            ConnectionState::Open(open) if open.is_usable() => {
                let open = open.clone();
                if declares {
                    self.declare(&open).await?;
                }
                return Ok(open);
            }
            ConnectionState::Failed { at, error } if at.elapsed() < Self::SAME_FAILURE => return Err(error.clone()),
            // The server may have restarted without its queues.
            ConnectionState::Open(lost) => self.topology.invalidate(lost.generation.load(Ordering::Relaxed)),
            ConnectionState::Idle | ConnectionState::Failed { .. } => {}
        }
        match self.connect(declares).await {
            Ok(open) => {
                let open = Arc::new(open);
                *state = ConnectionState::Open(open.clone());
                Ok(open)
            }
            Err(error) => {
                *state = ConnectionState::Failed { at: Instant::now(), error: error.clone() };
                Err(error)
            }
        }
    }

    /// Closes the connection with its channels, and waits a limited time for RabbitMQ's answer. The next use opens
    /// another one.
    pub async fn close(&self) {
        let state = std::mem::replace(&mut *self.state.lock().await, ConnectionState::Idle);
        let ConnectionState::Open(open) = state else { return };
        if !open.connection.status().connected() {
            return;
        }
        let closing = async {
            // lapin closes a dropped channel in a task of its own. If the connection is closing by then, the task fails,
            // and lapin drops the connection without a word. Another channel comes and goes after that task.
            if let Ok(last) = open.create_channel().await {
                let _ = last.close(SUCCESS, "the process ends".into()).await;
            }
            open.connection.close(SUCCESS, "the process ends".into()).await
        };
        match tokio::time::timeout(CLOSING, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, purpose = self.purpose, "cannot close the connection to RabbitMQ")
            }
            Err(_) => tracing::warn!(purpose = self.purpose, "RabbitMQ did not confirm the end of the connection"),
        }
    }

    async fn connect(&self, declares: bool) -> Result<OpenConnection, BrokerError> {
        let endpoint = self.settings.endpoint();
        let name = format!("facemill {} {}", env!("CARGO_PKG_VERSION"), self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let what = || format!("cannot reach RabbitMQ at {endpoint}");
        let connecting = async {
            let connect = async |uri: AMQPUri, _| transport::connect(&uri).await;
            let connection = Connection::connector(endpoint.uri(), Transports::runtime(), connect, properties).await;
            connection.map_err(|error| map_connect_error(what(), endpoint.user(), &error))
        };
        let connection = within(self.settings.connect_timeout, what(), connecting).await?;
        let alarm = watch_alarms(&connection);
        let open =
            OpenConnection { connection, generation: AtomicU64::default(), is_silent: AtomicBool::default(), alarm };
        if declares {
            self.declare(&open).await?;
        }
        tracing::debug!(%endpoint, purpose = self.purpose, "connected to RabbitMQ");
        Ok(open)
    }

    /// Declares the topology if this process has not done so since it was lost.
    async fn declare(&self, open: &OpenConnection) -> Result<(), BrokerError> {
        let what = format!("declare the queues at {}", self.settings.endpoint());
        let declaring = async { self.topology.ensure(|| open.channel()).await };
        let generation = within(Self::DECLARING, what, declaring).await?;
        open.generation.store(generation, Ordering::Relaxed);
        Ok(())
    }
}

/// A server that accepts a connection and then does not respond must not block its callers.
async fn within<T>(
    limit: Duration,
    what: String,
    attempt: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    tokio::time::timeout(limit, attempt)
        .await
        .unwrap_or_else(|_| Err(BrokerError::Unavailable { what, detail: format!("no answer within {limit:?}") }))
}

/// Follows RabbitMQ's notices of whether it accepts messages.
fn watch_alarms(connection: &Connection) -> watch::Receiver<Option<String>> {
    let (sender, alarm) = watch::channel(None);
    let mut events = connection.events_listener();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    tracing::warn!(reason, "RabbitMQ has raised an alarm and accepts no messages");
                    sender.send_replace(Some(reason));
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("RabbitMQ accepts messages again");
                    sender.send_replace(None);
                }
                Event::Error(_) => return,
                _ => {}
            }
        }
    });
    alarm
}

impl OpenConnection {
    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        let created = answered(self.create_channel()).await;
        if created.as_ref().is_err_and(is_late) {
            self.is_silent.store(true, Ordering::Relaxed);
        }
        created.map_err(|error| map_error("open a channel".into(), &error))
    }

    /// If the connection is lost meanwhile, lapin may never answer.
    async fn create_channel(&self) -> lapin::Result<Channel> {
        const LOOK: Duration = Duration::from_secs(1);
        let mut creating = pin!(self.connection.create_channel());
        loop {
            match tokio::time::timeout(LOOK, &mut creating).await {
                Ok(created) => return created,
                Err(_) if self.connection.status().connected() => {}
                Err(_) => return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            }
        }
    }

    fn is_usable(&self) -> bool {
        self.connection.status().connected() && !self.is_silent.load(Ordering::Relaxed)
    }

    /// Why RabbitMQ accepts no messages. None: it accepts them.
    pub fn alarm(&self) -> Option<String> {
        self.alarm.borrow().clone()
    }

    /// Waits until there is no alarm, or until the connection is lost.
    pub async fn no_alarm(&self) {
        let _ = self.alarm.clone().wait_for(Option::is_none).await;
    }
}
