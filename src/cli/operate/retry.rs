//! `facemill retry`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::operate::filter;
use crate::cli::output::{counted, first_lines, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::Ending;
use crate::ledger::{CauseCount, Filter};
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
        if args.place.json {
            print_json(&retried)?;
        } else if retried == Retried::default() {
            let counts = locked.ledger.counts(&locked.run).await.map_err(Failure::broken)?;
            print_text(&nothing(&counts.causes))?;
        } else {
            print_text(&text(&retried, locked.is_folder()))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn failure(error: RequeueError) -> Failure {
    match error {
        RequeueError::DeadLetters(_) => Failure::broken(error),
        _ => Failure::broken(format!("{error}; run the same command with --again to continue")),
    }
}

/// What to say where the query fits no photo: the causes that there are.
fn nothing(causes: &[CauseCount]) -> String {
    let mut by_cause: BTreeMap<(Ending, String), u64> = BTreeMap::new();
    for CauseCount { ending, code, count, .. } in causes {
        *by_cause.entry((*ending, code.as_str().into_owned())).or_default() += count;
    }
    if by_cause.is_empty() {
        return "no photo fulfils the query: no photo has ended without a face\n".to_owned();
    }
    let lines =
        by_cause.into_iter().map(|((ending, code), count)| format!("{count:>9} {:<9} {code}\n", ending.as_str()));
    format!("no photo fulfils the query; the causes that there are:\n{}", first_lines(lines, "causes"))
}

fn text(retried: &Retried, is_folder: bool) -> String {
    let Retried { requeued, published_again, letters_removed } = retried;
    let mut text =
        format!("{} requeued, {} removed\n", counted(*requeued, "photo"), counted(*letters_removed, "dead letter"));
    if *published_again > 0 {
        text.push_str(&format!("{} of an interrupted retry published again\n", counted(*published_again, "photo")));
    }
    if is_folder && requeued + published_again > 0 {
        text.push_str(NEXT_RUN);
    }
    text
}
