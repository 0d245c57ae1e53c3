//! The flags of a run in this process.

use std::path::PathBuf;

use crate::cli::failure::Failure;
use crate::cli::settings::flags::{self, StageArgs};
use crate::pipeline::stages;

/// The flags of a run in this process, except those of its dump.
#[derive(Debug, Clone, clap::Args)]
pub struct ProcessArgs {
    /// Output folder for originals, faces, records, the ledger and the report
    #[arg(long, env = "FACEMILL_OUT", default_value = "out", value_name = "DIR")]
    pub out: PathBuf,
    /// Takes only the first N candidates
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Makes faces again whose files were deleted, from the originals
    #[arg(long)]
    pub remake_faces: bool,
    /// Prints every event and the summary as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// Logs retries, too; given twice, every step of every photo
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Photos that detect, crop and classify each process at a time [default: the cores of this machine]
    #[arg(long, env = "FACEMILL_CORES", value_name = "N", help_heading = "Work")]
    pub cores: Option<usize>,
    /// Downloads at a time
    #[arg(long, env = "FACEMILL_FETCHES", default_value_t = FETCHES, value_name = "N", help_heading = "Work")]
    pub fetches: usize,
    #[command(flatten)]
    pub stages: StageArgs,
}

/// The default number of downloads at a time.
pub const FETCHES: usize = 64;

impl ProcessArgs {
    pub fn settings(&self) -> Result<stages::StageSettings, Failure> {
        let cores = self.cores.unwrap_or_else(flags::cores);
        let faults = [
            flags::out_of_range("cores", cores as u64, 1, 1024),
            flags::out_of_range("fetches", self.fetches as u64, 1, 10_000),
        ];
        let mut settings = self.stages.settings(cores, faults.into_iter().flatten().collect())?;
        settings.rules.max_requests = self.fetches;
        Ok(settings)
    }

    pub fn json(&self) -> bool {
        self.json
    }
}
