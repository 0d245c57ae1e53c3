//! Whether a worker process can process photos.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::servers::Servers;
use crate::broker::Broker;
use crate::ledger::Ledger;
use crate::objects::s3::S3;
use crate::objects::{ObjectError, Objects};

/// The state of a worker process. It is checked in the background, so that probes cause no requests to the servers.
pub struct Health {
    shutdown: CancellationToken,
    broken: CancellationToken,
    /// The fault of each server at its last check. A server without a fault is absent.
    faults: Mutex<BTreeMap<&'static str, String>>,
}

impl Health {
    /// Time between two checks of a server.
    const PERIOD: Duration = Duration::from_secs(3);
    /// A server that takes longer to answer counts as unavailable.
    const TIMEOUT: Duration = Duration::from_secs(3);

    /// Begins without faults: a worker checks the servers before it starts. After `shutdown` the process takes no
    /// photo.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, broken: CancellationToken::new(), faults: Mutex::default() }
    }

    /// Begins with a fault that the start of the process ends. It is no warning: it is normal.
    #[must_use]
    pub fn starting(self, part: &'static str, state: &str) -> Self {
        self.lock().insert(part, state.to_owned());
        self
    }

    /// Checks the servers until it is dropped.
    pub async fn watch(self: Arc<Self>, servers: Servers) {
        tokio::join!(
            self.watch_one("rabbitmq", || servers.broker.check()),
            self.watch_one("redis", || servers.ledger.check()),
            self.watch_one("s3", || check_reading(&servers.objects)),
        );
    }

    async fn watch_one<E, F>(&self, server: &'static str, check: impl Fn() -> F)
    where
        E: fmt::Display,
        F: Future<Output = Result<(), E>>,
    {
        loop {
            let mut check = pin!(check());
            let result = match tokio::time::timeout(Self::TIMEOUT, &mut check).await {
                Ok(result) => result,
                Err(_) => {
                    self.note(server, Some(format!("no answer for {:?}", Self::TIMEOUT)));
                    // The client's own timeout replaces a connection that fell silent, so the check goes on.
                    check.await
                }
            };
            self.note(server, result.err().map(|error| error.to_string()));
            tokio::time::sleep(Self::PERIOD).await;
        }
    }

    /// Sets or clears the fault of a server.
    pub fn note(&self, server: &'static str, fault: Option<String>) {
        let mut faults = self.lock();
        match fault {
            Some(fault) => {
                if !faults.contains_key(server) {
                    tracing::warn!(server, fault, "not ready");
                }
                faults.insert(server, fault);
            }
            None => {
                if faults.remove(server).is_some() {
                    tracing::info!(server, "ready");
                }
            }
        }
    }

    /// A stage has ended without a shutdown.
    pub fn set_broken(&self) {
        self.broken.cancel();
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Why the process takes no photos; empty if it does.
    pub fn faults(&self) -> Vec<String> {
        if self.shutdown.is_cancelled() {
            return vec!["shutting down".into()];
        }
        self.lock().iter().map(|(server, fault)| format!("{server}: {fault}")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether the bucket answers. Writing is checked once, at the start: repeated writes would fill a bucket that keeps
/// versions.
async fn check_reading(objects: &S3) -> Result<(), ObjectError> {
    objects.list("records/", None, 1).await.map(drop)
}
