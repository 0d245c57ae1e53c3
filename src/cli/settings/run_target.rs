//! Where a run lives that a command looks at: a folder, or the servers of an installation.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::archive::records::Records;
use crate::archive::run_settings::StoredRunSettings;
use crate::broker::embedded::Embedded;
use crate::broker::{Broker, Depth};
use crate::cli::failure::Failure;
use crate::cli::settings::servers::{ServerArgs, Servers};
use crate::domain::RunName;
use crate::ledger::Ledger;
use crate::ledger::sqlite::Sqlite;
use crate::objects::Objects;
use crate::pipeline::local::{LockedRunDir, RunDir};
use crate::pipeline::requeue::Requeue;
use crate::redis::RedisClient;

/// The run that a command works on.
#[derive(Debug, Clone, Args)]
pub struct RunTargetArgs {
    /// The folder of a run in one process [default: out, if no servers are configured]
    #[arg(long, env = "FACEMILL_OUT", value_name = "DIR")]
    out: Option<PathBuf>,
    /// The run's name in an installation with servers
    #[arg(long, env = "FACEMILL_RUN", default_value_t, value_name = "NAME")]
    run: RunName,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// A run, opened for reading.
pub struct RunTarget {
    pub run: RunName,
    pub ledger: Arc<dyn Ledger>,
    pub objects: Arc<dyn Objects>,
    /// Where the messages of ended photos are, if the ledger does not keep them.
    pub records: Option<Records>,
    site: Site,
}

enum Site {
    Folder { home: RunDir, ledger: Sqlite },
    Servers(Servers),
}

impl RunTargetArgs {
    /// The folder; none if servers are configured and no folder is given.
    pub fn folder(&self) -> Option<RunDir> {
        match &self.out {
            Some(out) => Some(RunDir::at(out)),
            None if self.servers.are_given() => None,
            None => Some(RunDir::at("out")),
        }
    }

    pub async fn open(&self) -> Result<RunTarget, Failure> {
        match self.folder() {
            Some(home) => {
                let ledger = home.read_ledger().await.map_err(Failure::broken)?;
                Ok(RunTarget {
                    run: RunName::default(),
                    ledger: Arc::new(ledger.clone()),
                    objects: Arc::new(home.objects()),
                    records: None,
                    site: Site::Folder { home, ledger },
                })
            }
            None => {
                let servers = self.servers.clients()?;
                servers.check().await?;
                let runs = servers.ledger.runs().await.map_err(Failure::broken)?;
                if !runs.contains(&self.run) {
                    let known: Vec<&str> = runs.iter().map(RunName::as_str).collect();
                    return Err(Failure::broken(format!(
                        "there is no run {}: known are {}",
                        self.run,
                        if known.is_empty() { "none yet".to_owned() } else { known.join(", ") }
                    )));
                }
                let objects: Arc<dyn Objects> = Arc::new(servers.objects.clone());
                Ok(RunTarget {
                    run: self.run.clone(),
                    ledger: servers.ledger.clone(),
                    records: Some(Records::new(objects.clone())),
                    objects,
                    site: Site::Servers(servers),
                })
            }
        }
    }
}

/// A run, opened for writing.
pub struct LockedRun {
    pub run: RunName,
    pub ledger: Arc<dyn Ledger>,
    pub broker: Arc<dyn Broker>,
    pub records: Option<Records>,
    /// The lock of a folder.
    locked_dir: Option<LockedRunDir>,
}

impl LockedRun {
    pub fn requeue(&self) -> Requeue<'_> {
        Requeue { ledger: &*self.ledger, broker: &*self.broker, records: self.records.as_ref() }
    }

    /// Whether the run is in a folder: no worker runs before the next `facemill run`.
    pub fn is_folder(&self) -> bool {
        self.locked_dir.is_some()
    }
}

impl RunTargetArgs {
    /// Opens the run for writing. Fails if another process works in the folder.
    pub async fn hold(&self) -> Result<LockedRun, Failure> {
        let RunTarget { run, ledger, records, site, .. } = self.open().await?;
        Ok(match site {
            Site::Servers(servers) => {
                LockedRun { run, ledger, broker: Arc::new(servers.broker), records, locked_dir: None }
            }
            Site::Folder { home, ledger: looked } => {
                // Who looks holds no lock; from here on one file has one owner.
                drop((ledger, looked));
                let locked_dir = home.lock().await.map_err(Failure::broken)?;
                let (ledger, broker) = (Arc::new(locked_dir.ledger.clone()), Arc::new(locked_dir.broker.clone()));
                LockedRun { run, ledger, broker, records, locked_dir: Some(locked_dir) }
            }
        })
    }
}

impl RunTarget {
    pub async fn depths(&self) -> Result<Vec<Depth>, Failure> {
        match &self.site {
            Site::Folder { home, .. } => Embedded::peek(&home.ledger_file()).await.map_err(Failure::broken),
            Site::Servers(servers) => servers.broker.depths().await.map_err(Failure::broken),
        }
    }

    /// The server of the ledger, in an installation.
    pub fn redis(&self) -> Option<&RedisClient> {
        match &self.site {
            Site::Folder { .. } => None,
            Site::Servers(servers) => Some(servers.ledger.client()),
        }
    }

    /// Whether a process works on the run; None if unknown.
    pub fn is_at_work(&self) -> Option<bool> {
        match &self.site {
            Site::Folder { home, .. } => Some(home.is_locked()),
            Site::Servers(_) => None,
        }
    }

    /// The ids of all messages, queued or in flight. Known only for a folder in which no process works.
    pub async fn message_ids(&self) -> Result<Option<HashSet<String>>, Failure> {
        match &self.site {
            Site::Folder { home, .. } if !home.is_locked() => {
                Embedded::message_ids(&home.ledger_file()).await.map(Some).map_err(Failure::broken)
            }
            _ => Ok(None),
        }
    }

    /// The command that registers candidates there.
    pub fn takes_in(&self) -> &'static str {
        match &self.site {
            Site::Folder { .. } => "facemill run",
            Site::Servers(_) => "facemill produce",
        }
    }

    /// The folder of a run in one process.
    pub fn folder(&self) -> Option<&Path> {
        match &self.site {
            Site::Folder { home, .. } => Some(home.folder()),
            Site::Servers(_) => None,
        }
    }

    /// The settings that shape the crops of the run, by name. Empty: the run has none yet.
    pub async fn settings(&self) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
        let stored = StoredRunSettings::new(self.objects.clone()).read(&self.run).await.map_err(Failure::broken)?;
        Ok(stored.map(|settings| settings.by_name()).unwrap_or_default())
    }
}
