//! `facemill retry`.

use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::operate::filter;
use crate::cli::output::{print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::ledger::Filter;
use crate::services::requeue::{RequeueError, Retried};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which photos: "outcome=gone and cause=http-403 and host=photos.example"; also stage
    #[arg(long = "where", value_name = "QUERY", value_parser = filter::of_endings)]
    filter: Filter,
    /// Also publishes photos again that an interrupted retry requeued and no stage has processed since
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    place: RunTargetArgs,
}

/// Printed for a folder, where no worker runs now.
pub const NEXT_RUN: &str = "the next `facemill run` processes them\n";

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let _telemetry = crate::cli::process::observe("facemill=warn", &Bars::new(false), "facemill-producer", false)?;
    crate::cli::process::block_on(async {
        let locked = args.place.lock().await?;
        let retried = locked.requeue().retry(&locked.run, &args.filter, args.again).await.map_err(failure)?;
        match args.place.json {
            true => print_json(&retried),
            false => print_text(&text(&retried, locked.is_folder())),
        }?;
        Ok(ExitCode::SUCCESS)
    })
}

fn failure(error: RequeueError) -> Failure {
    match error {
        RequeueError::DeadLetters(_) => Failure::broken(error),
        _ => Failure::broken(format!("{error}; run the same command with --again to continue")),
    }
}

fn text(retried: &Retried, is_folder: bool) -> String {
    let Retried { requeued, published_again, letters_removed } = retried;
    let mut text = format!("{requeued} photos requeued, {letters_removed} dead letters removed\n");
    if *published_again > 0 {
        text.push_str(&format!("{published_again} photos of an interrupted retry published again\n"));
    }
    if is_folder && requeued + published_again > 0 {
        text.push_str(NEXT_RUN);
    }
    text
}
