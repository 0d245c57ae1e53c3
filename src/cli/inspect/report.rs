//! `facemill report`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::classifier::model::Model;
use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::inference::Runtime;
use crate::report::{About, write_all};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The P(OK) from which a crop counts as OK [default: the classifier's]
    #[arg(long, value_name = "P")]
    ok_threshold: Option<f64>,
    /// Output folder for the report of a run on servers; a folder's report is written into the folder
    #[arg(long, default_value = "report", value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    place: RunTargetArgs,
    #[command(flatten)]
    models: ModelArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let ok_threshold = match args.ok_threshold {
        Some(threshold) if (0.0..=1.0).contains(&threshold) => threshold,
        Some(threshold) => return Err(Failure::broken(format!("--ok-threshold {threshold}: take 0 to 1"))),
        None => trained_threshold(args)?,
    };
    let written = crate::cli::process::block_on(async {
        let place = args.place.open().await?;
        let folder = place.folder().unwrap_or(&args.to);
        let settings = place.settings().await.map_err(Failure::broken)?;
        let settings = settings.into_iter().map(|(name, value)| (name, crate::cli::output::plain(&value))).collect();
        let about = About { run: place.run.clone(), made_at: now().as_secs(), ok_threshold, settings };
        write_all(folder, &*place.ledger, place.records.as_ref(), about).await.map_err(Failure::broken)
    })?;
    if args.place.json {
        print_json(&serde_json::json!({ "report": written.page, "waiting": written.waiting }))?;
    } else {
        print_text(&format!("{}\n", written.page.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn trained_threshold(args: &Args) -> Result<f64, Failure> {
    let models = args.models.find();
    let runtime = Runtime::load(&models.onnxruntime()).map_err(Failure::broken)?;
    Ok(Model::open(&models.classifier(), &runtime).map_err(Failure::broken)?.threshold())
}
