//! A run, opened for reading or for writing: in a folder, or on the servers of an installation.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dead_letters::ALL;
use super::requeue::Requeue;
use super::servers::{ServerFaults, Servers};
use crate::archive::records::Records;
use crate::archive::run_settings::StoredRunSettings;
use crate::broker::embedded::Embedded;
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::{Broker, DeadLetter, Depth};
use crate::dataset::IndexSource;
use crate::domain::RunName;
use crate::ledger::Ledger;
use crate::ledger::sqlite::Sqlite;
use crate::objects::{ObjectError, Objects};
use crate::pipeline::local::{LocalError, LockedRunDir, RunDir};
use crate::redis::RedisClient;
use crate::server_error::ServerError;

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    Folder(#[from] LocalError),
    #[error(transparent)]
    Faults(#[from] ServerFaults),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("there is no run {run}: known runs are {}", names(known))]
    UnknownRun { run: RunName, known: Vec<RunName> },
}

fn names(runs: &[RunName]) -> String {
    let names: Vec<&str> = runs.iter().map(RunName::as_str).collect();
    if names.is_empty() { "none yet".into() } else { names.join(", ") }
}

/// A run, opened for reading.
pub struct RunTarget {
    pub run: RunName,
    pub ledger: Arc<dyn Ledger>,
    pub objects: Arc<dyn Objects>,
    /// The messages of ended photos, where the ledger does not keep them.
    pub records: Option<Records>,
    site: Site,
}

enum Site {
    Folder { dir: RunDir, ledger: Sqlite },
    Servers(Servers),
}

impl RunTarget {
    /// The run in a folder. Its ledger must exist; another process may work there.
    pub async fn of_folder(dir: RunDir) -> Result<Self, TargetError> {
        let ledger = dir.read_ledger().await?;
        Ok(Self {
            run: RunName::default(),
            ledger: Arc::new(ledger.clone()),
            objects: Arc::new(dir.objects()),
            records: None,
            site: Site::Folder { dir, ledger },
        })
    }

    /// The run of an installation, which must exist. Needs Redis only, and no permission to write.
    pub async fn of_servers(servers: Servers, run: RunName) -> Result<Self, TargetError> {
        let known = servers.ledger.runs().await?;
        if !known.contains(&run) {
            return Err(TargetError::UnknownRun { run, known });
        }
        Ok(Self::of_unknown(servers, run))
    }

    /// Like [`Self::of_servers`], for whoever shows what the other servers say while Redis does not answer.
    pub async fn of_reachable(servers: Servers, run: RunName) -> Result<Self, TargetError> {
        match Self::of_servers(servers.clone(), run.clone()).await {
            Err(TargetError::Server(_)) => Ok(Self::of_unknown(servers, run)),
            opened => opened,
        }
    }

    fn of_unknown(servers: Servers, run: RunName) -> Self {
        let objects: Arc<dyn Objects> = Arc::new(servers.objects.clone());
        Self {
            run,
            ledger: servers.ledger.clone(),
            records: Some(Records::new(objects.clone())),
            objects,
            site: Site::Servers(servers),
        }
    }

    /// Opens the run for writing. Fails if another process works in the folder, or if a server does not permit it.
    pub async fn lock(self) -> Result<LockedRun, TargetError> {
        let Self { run, ledger, records, site, .. } = self;
        if let Site::Servers(servers) = &site {
            servers.check().await?;
        }
        Ok(match site {
            Site::Servers(servers) => {
                LockedRun { run, ledger, broker: Arc::new(servers.broker), records, locked_dir: None }
            }
            Site::Folder { dir, ledger: reader } => {
                // The reading connections close before the file is opened for writing.
                drop((ledger, reader));
                let locked_dir = dir.lock().await?;
                let (ledger, broker) = (Arc::new(locked_dir.ledger.clone()), Arc::new(locked_dir.broker.clone()));
                LockedRun { run, ledger, broker, records, locked_dir: Some(locked_dir) }
            }
        })
    }

    /// Closes the connections in order.
    pub async fn close(&self) {
        if let Site::Servers(servers) = &self.site {
            servers.broker.close().await;
        }
    }

    pub async fn depths(&self) -> Result<Vec<Depth>, ServerError> {
        match &self.site {
            Site::Folder { dir, .. } => Embedded::peek(&dir.ledger_file()).await,
            Site::Servers(servers) => servers.broker.depths().await,
        }
    }

    /// All dead letters, oldest first. Another process may work in the folder.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, ServerError> {
        match &self.site {
            Site::Folder { dir, .. } => Embedded::peek_dead_letters(&dir.ledger_file()).await,
            Site::Servers(servers) => servers.broker.dead_letters(ALL).await,
        }
    }

    /// The client of the ledger's server, in an installation.
    pub fn redis(&self) -> Option<&RedisClient> {
        match &self.site {
            Site::Folder { .. } => None,
            Site::Servers(servers) => Some(servers.ledger.client()),
        }
    }

    /// The broker of an installation.
    pub fn rabbitmq(&self) -> Option<&RabbitMq> {
        match &self.site {
            Site::Folder { .. } => None,
            Site::Servers(servers) => Some(&servers.broker),
        }
    }

    /// Whether a process works on the run; none if unknown.
    pub fn is_active(&self) -> Option<bool> {
        match &self.site {
            Site::Folder { dir, .. } => Some(dir.is_locked()),
            Site::Servers(_) => None,
        }
    }

    /// The ids of all messages, queued or in flight. Known only for a folder in which no process works.
    pub async fn message_ids(&self) -> Result<Option<HashSet<String>>, ServerError> {
        match &self.site {
            Site::Folder { dir, .. } if !dir.is_locked() => Embedded::message_ids(&dir.ledger_file()).await.map(Some),
            _ => Ok(None),
        }
    }

    /// The folder of a run in one process.
    pub fn folder(&self) -> Option<&Path> {
        match &self.site {
            Site::Folder { dir, .. } => Some(dir.folder()),
            Site::Servers(_) => None,
        }
    }

    /// What the index of the run is filled from.
    pub fn index_source(&self) -> IndexSource {
        IndexSource::new(self.run.clone(), self.ledger.clone(), self.objects.clone(), self.records.clone())
    }

    /// The index of faces of a run in a folder.
    pub fn index_file(&self) -> Option<PathBuf> {
        match &self.site {
            Site::Folder { dir, .. } => Some(dir.index_file()),
            Site::Servers(_) => None,
        }
    }

    /// The bucket and the ledger of a run on servers, for the name of a file about it. Empty for a folder.
    pub fn servers_name(&self) -> String {
        match &self.site {
            Site::Folder { .. } => String::new(),
            Site::Servers(servers) => {
                let redis = servers.ledger.client();
                format!("{} {} {}", servers.objects.full_name(), redis.name(), redis.prefix())
            }
        }
    }

    /// The settings that shape the crops of the run, by name. Empty: the run has none yet.
    pub async fn settings(&self) -> Result<serde_json::Map<String, serde_json::Value>, ObjectError> {
        let stored = StoredRunSettings::new(self.objects.clone()).read(&self.run).await?;
        Ok(stored.map(|settings| settings.by_name()).unwrap_or_default())
    }
}

/// A run, opened for writing.
pub struct LockedRun {
    pub run: RunName,
    pub ledger: Arc<dyn Ledger>,
    pub broker: Arc<dyn Broker>,
    pub records: Option<Records>,
    locked_dir: Option<LockedRunDir>,
}

impl LockedRun {
    pub fn requeue(&self) -> Requeue<'_> {
        Requeue { ledger: &*self.ledger, broker: &*self.broker, records: self.records.as_ref() }
    }

    /// Whether the run is in a folder, where no worker runs before the next `facemill run`.
    pub fn is_folder(&self) -> bool {
        self.locked_dir.is_some()
    }
}
