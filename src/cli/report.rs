//! `facemill report`.

use std::process::ExitCode;

use super::home::HomeArgs;
use super::settings::ModelArgs;
use super::{Failure, print_json, print_text};
use crate::classifier::model::Model;
use crate::inference::Runtime;
use crate::pipeline::worker::now;
use crate::report::{About, write_all};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// From this P(OK) on a crop counts as OK [default: as the classifier's training chose it]
    #[arg(long, value_name = "P")]
    ok_threshold: Option<f64>,
    #[command(flatten)]
    home: HomeArgs,
    #[command(flatten)]
    models: ModelArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let ok_threshold = match args.ok_threshold {
        Some(threshold) if (0.0..=1.0).contains(&threshold) => threshold,
        Some(threshold) => return Err(Failure::broken(format!("--ok-threshold {threshold}: take 0 to 1"))),
        None => trained_threshold(args)?,
    };
    let written = super::block_on(async {
        let ledger = args.home.ledger().await?;
        let run = args.home.run();
        let kept = ledger.settings(&run, "{}".into()).await.map_err(Failure::broken)?;
        let kept: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&kept).unwrap_or_default();
        let settings = kept.into_iter().map(|(name, value)| (name, super::plain(&value))).collect();
        let about = About { run, made_at: now().as_secs(), ok_threshold, settings };
        write_all(args.home.home().folder(), &ledger, None, about).await.map_err(Failure::broken)
    })?;
    if args.home.json {
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
