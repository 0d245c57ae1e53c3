//! Which run a command looks at.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::ledger::sqlite::Sqlite;
use crate::photo::RunName;
use crate::pipeline::local::Home;

/// The folder of a run.
#[derive(Debug, Clone, Args)]
pub struct HomeArgs {
    /// The folder that the run writes to
    #[arg(long, env = "FACEMILL_OUT", default_value = "out", value_name = "DIR")]
    out: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

impl HomeArgs {
    pub fn home(&self) -> Home {
        Home::at(&self.out)
    }

    /// The ledger of a folder in which something was run, maybe by a process that is still at work.
    pub async fn ledger(&self) -> Result<Sqlite, Failure> {
        self.home().look().await.map_err(Failure::broken)
    }

    pub fn run(&self) -> RunName {
        RunName::default()
    }
}
