//! A connection that is made anew when it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::{Mutex, watch};

use super::error::{map_connect_error, map_error};
use super::settings::Settings;
use super::topology::Names;
use crate::broker::BrokerError;

/// One connection to RabbitMQ, opened when it is first asked for and again when it was lost.
///
/// An alarm stops RabbitMQ from reading what a publishing connection sends, acknowledgements included: so there is one
/// connection for publishing and one for everything else.
pub(super) struct Link {
    settings: Arc<Settings>,
    names: Names,
    purpose: &'static str,
    state: Mutex<State>,
}

enum State {
    Idle,
    Live(Arc<Live>),
    Failed { at: Instant, error: BrokerError },
}

pub(super) struct Live {
    connection: Connection,
    /// Why RabbitMQ takes no messages now.
    alarm: watch::Receiver<Option<String>>,
}

impl Link {
    /// Many callers that wait for the same connection share the answer of an attempt that failed so recently.
    const SAME_FAILURE: Duration = Duration::from_millis(100);
    /// For some thirty queues, each of which all nodes have to agree on.
    const DECLARING: Duration = Duration::from_secs(30);

    pub fn new(settings: Arc<Settings>, purpose: &'static str) -> Self {
        let names = Names::new(settings.prefix());
        Self { settings, names, purpose, state: Mutex::new(State::Idle) }
    }

    /// The connection, with the topology declared since it was made.
    pub async fn live(&self) -> Result<Arc<Live>, BrokerError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Live(live) if live.connection.status().connected() => return Ok(live.clone()),
            State::Failed { at, error } if at.elapsed() < Self::SAME_FAILURE => return Err(error.clone()),
            _ => {}
        }
        match self.connect().await {
            Ok(live) => {
                let live = Arc::new(live);
                *state = State::Live(live.clone());
                Ok(live)
            }
            Err(error) => {
                *state = State::Failed { at: Instant::now(), error: error.clone() };
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Live, BrokerError> {
        let endpoint = self.settings.endpoint();
        let name = format!("facemill {} {}", env!("CARGO_PKG_VERSION"), self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let what = || format!("connect to RabbitMQ at {endpoint}");
        let connecting = async {
            let connection = Connection::connect_uri(endpoint.uri(), properties).await;
            connection.map_err(|error| map_connect_error(what(), endpoint.user(), &error))
        };
        let connection = within(self.settings.connect_timeout, what(), connecting).await?;
        let alarm = watch_alarms(&connection);
        let live = Live { connection, alarm };
        let declaring = async { self.names.declare(&live.channel().await?).await };
        within(Self::DECLARING, format!("declare our queues at {endpoint}"), declaring).await?;
        tracing::debug!(%endpoint, purpose = self.purpose, "connected to RabbitMQ");
        Ok(live)
    }
}

/// A server that takes connections and then says nothing must not hold up whoever waits for it.
async fn within<T>(
    limit: Duration,
    what: String,
    attempt: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    tokio::time::timeout(limit, attempt)
        .await
        .unwrap_or_else(|_| Err(BrokerError::Unavailable { what, detail: format!("no answer within {limit:?}") }))
}

/// Follows RabbitMQ's word on whether it takes messages.
fn watch_alarms(connection: &Connection) -> watch::Receiver<Option<String>> {
    let (tell, alarm) = watch::channel(None);
    let mut events = connection.events_listener();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    tracing::warn!(reason, "RabbitMQ has raised an alarm and takes no messages");
                    tell.send_replace(Some(reason));
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("RabbitMQ takes messages again");
                    tell.send_replace(None);
                }
                Event::Error(_) => return,
                _ => {}
            }
        }
    });
    alarm
}

impl Live {
    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        self.connection.create_channel().await.map_err(|error| map_error("open a channel".into(), &error))
    }

    /// Why RabbitMQ takes no messages now, if so.
    pub fn alarm(&self) -> Option<String> {
        self.alarm.borrow().clone()
    }

    /// Waits while there is an alarm, or until the connection is gone.
    pub async fn no_alarm(&self) {
        let _ = self.alarm.clone().wait_for(Option::is_none).await;
    }
}
