//! The flags for the run that a command works on: in a folder, or on the servers of an installation.

use std::path::PathBuf;

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::settings::servers::ServerArgs;
use crate::domain::RunName;
use crate::pipeline::local::RunDir;
use crate::services::run_target::{LockedRun, RunTarget};

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

impl RunTargetArgs {
    /// The folder; none if servers are configured and no folder is given.
    pub fn folder(&self) -> Option<RunDir> {
        match &self.out {
            Some(out) => Some(RunDir::at(out)),
            None if self.servers.are_given() => None,
            None => Some(RunDir::at("out")),
        }
    }

    /// Opens the run for reading.
    pub async fn open(&self) -> Result<RunTarget, Failure> {
        let opened = match self.folder() {
            Some(dir) => RunTarget::of_folder(dir).await,
            None => RunTarget::of_servers(self.servers.clients()?, self.run.clone()).await,
        };
        opened.map_err(Failure::broken)
    }

    /// Opens the run for reading, even if Redis does not answer.
    pub async fn open_reachable(&self) -> Result<RunTarget, Failure> {
        let opened = match self.folder() {
            Some(dir) => RunTarget::of_folder(dir).await,
            None => RunTarget::of_reachable(self.servers.clients()?, self.run.clone()).await,
        };
        opened.map_err(Failure::broken)
    }

    /// Opens the run for writing. Fails if another process works in the folder.
    pub async fn lock(&self) -> Result<LockedRun, Failure> {
        self.open().await?.lock().await.map_err(Failure::broken)
    }
}
