//! `facemill rescore`.

use std::fmt::Write;
use std::process::ExitCode;

use crate::archive::models::StoredModels;
use crate::archive::run_classifier::RunClassifiers;
use crate::cli::dataset::faces::query;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::process::person;
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::Query;
use crate::inference::Runtime;
use crate::services::evaluation::find_model;
use crate::services::rescore::{RescorePlan, Rescored, UnreadableCrop};
use crate::services::rescore_here::score_here;
use crate::services::rescore_queue::score_on_workers;
use crate::training::measure::TABLE_HEADER;
use crate::training::train::Comparison;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The classifier: a file, or the name or the start of the SHA-256 of a stored one
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Scores only faces that fulfil this query: "status=ready and size>=512"; docs/query.md has the fields
    #[arg(long = "where", value_name = "QUERY", default_value = "", value_parser = query)]
    query: Query,
    /// Scores in this process, also for a run on servers, where the workers of classify do it otherwise
    #[arg(long)]
    here: bool,
    /// Threads that score in this process [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let rescored = crate::cli::process::block_on(rescore(args))?;
    if args.target.json { print_json(&rescored) } else { print_text(&text(&rescored)) }?;
    match rescored.unreadable_count {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Failure::findings(format!("{} cannot be scored", counted(count as u64, "crop")))),
    }
}

async fn rescore(args: &Args) -> Result<Rescored, Failure> {
    let target = args.target.open().await?;
    let stored = StoredModels::new(target.objects.clone());
    let file = find_model(Some(&stored), &args.model).await.map_err(Failure::broken)?;
    let runtime = Runtime::load(&args.models.find().onnxruntime()).map_err(Failure::broken)?;
    // A model that does not fit is refused before a crop is scored.
    file.check(&runtime).map_err(Failure::broken)?;
    let (mut index, source) = args.index.open(&target)?;
    let bars = Bars::new(!args.target.json);
    source.update(&mut index, &progress(&bars)).await.map_err(Failure::broken)?;
    let classifiers = RunClassifiers::new(target.objects.clone());
    let history = classifiers.read(&target.run).await.map_err(Failure::broken)?;
    let (run, objects) = (target.run.clone(), target.objects.clone());
    let plan = RescorePlan::make(file, run, objects, (&index, &args.query), person()).await.map_err(Failure::broken)?;
    let bar = bars.count("crops", plan.crops() as u64);
    let report = |done: usize| bar.set_position(done as u64);
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or_else(cores, usize::from);
    let tally = match target.rabbitmq().filter(|_| !args.here) {
        Some(broker) => score_on_workers(&plan, broker, &report).await,
        None => score_here(&plan, &runtime, threads, &report).await,
    };
    bars.clear();
    let again = |error| Failure::broken(format!("{error}; run the same command again to continue"));
    plan.finish(tally.map_err(again)?, &index, &history).await.map_err(again)
}

/// Unreadable crops that are printed; `--json` has more.
const PRINTED: usize = 5;

fn text(rescored: &Rescored) -> String {
    let Rescored { model, sha256, known, scored, unreadable, unreadable_count, comparison, .. } = rescored;
    let mut text = format!("{model}: scored {}, {known} known before\n", counted(*scored as u64, "crop"));
    for UnreadableCrop { crop, reason } in unreadable.iter().take(PRINTED) {
        let _ = writeln!(text, "crop {crop}: {reason}");
    }
    if let Some(more @ 1..) = unreadable_count.checked_sub(PRINTED) {
        let _ = writeln!(text, "and {more} more");
    }
    if let Some(Comparison { model, crops, before, now }) = comparison {
        let _ = writeln!(text, "against {model}, on {crops} judged crops of the test part that both scored:");
        let _ = writeln!(text, "{:<22}{TABLE_HEADER}\n{:<22}{before}\n{:<22}{now}", "", "before", "this");
    }
    let _ = writeln!(text, "to use it: facemill models use {}", &sha256.to_string()[..8]);
    text
}
