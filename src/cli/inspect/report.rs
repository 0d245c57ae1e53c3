//! `facemill report`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::dataset::index::{IndexArgs, progress, unrecorded_note};
use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_note, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::report::{About, write_all};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The P(OK) from which a crop counts as OK [default: the run's, see `facemill models`]
    #[arg(long, value_name = "P")]
    ok_threshold: Option<f64>,
    /// Output folder for the report of a run on servers; a folder's report is written into the folder
    #[arg(long, default_value = "report", value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(threshold) = args.ok_threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
        return Err(Failure::usage(format!("--ok-threshold {threshold}: expected 0 to 1")));
    }
    let written = crate::cli::process::block_on(async {
        let place = args.place.open().await?;
        let folder = place.folder().unwrap_or(&args.to);
        let settings = place.settings().await.map_err(Failure::broken)?;
        let settings = settings.into_iter().map(|(name, value)| (name, crate::cli::output::plain(&value))).collect();
        let about =
            About { run: place.run.clone(), made_at: now().as_secs(), ok_threshold: args.ok_threshold, settings };
        let (index, source) = args.index.open(&place)?;
        let bars = Bars::new(!args.place.json);
        let written = write_all(folder, index, &source, about, &progress(&bars)).await;
        bars.clear();
        written.map_err(Failure::broken)
    })?;
    if let Some(note) = unrecorded_note(&written.unrecorded) {
        print_note(note);
    }
    if args.place.json {
        let (unrecorded, _) = written.unrecorded;
        let written =
            serde_json::json!({ "report": written.page, "waiting": written.waiting, "unrecorded": unrecorded });
        print_json(&written)?;
    } else {
        print_text(&format!("{}\n", written.page.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
