//! `facemill train`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::classifier::labels::{self, LabelledCrop};
use crate::classifier::measure::{Judged, Measures, TABLE_HEAD};
use crate::classifier::model::Model;
use crate::classifier::training::{self, Report, Settings, TrainError};
use crate::cli::Failure;
use crate::config::Models;
use crate::inference::Runtime;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Labelled crops: a file of JSON lines, or the folder with `labels.jsonl` in it.
    ///
    /// One crop a line: file, ok, group (the person), mirrored, mirrored_head, mirrored_grid.
    labels: PathBuf,
    /// Where the trained classifier goes
    #[arg(long, value_name = "FILE", required_unless_present = "measure")]
    out: Option<PathBuf>,
    /// Trains nothing: measures this classifier on all the labels
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    measure: Option<PathBuf>,
    /// Choose the threshold so that at least this share of the crops taken for OK is OK
    #[arg(long, value_name = "SHARE", default_value_t = 0.9, value_parser = share)]
    threshold_for_precision: f64,
    /// Deals the people into other parts, and starts from other weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the file shall say it was made from
    #[arg(long, value_name = "TEXT")]
    created_from: Option<String>,
    /// Folder with the models and onnxruntime
    #[arg(long, env = Models::ENV, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "take a share from 0 to 1, such as 0.9".into())
}

pub fn run(args: Args) -> Result<(), Failure> {
    let models = Models::find(args.models.clone());
    let labels = labels::read(&args.labels).map_err(Failure::broken)?;
    let runtime = Runtime::load(&models.onnxruntime()).map_err(Failure::broken)?;
    match (&args.measure, &args.out) {
        (Some(file), _) => measure(file, &labels, &runtime, args.json),
        (None, Some(out)) => train(&args, out, &labels, &models, &runtime),
        (None, None) => Err(Failure::broken("say with --out where the classifier goes")),
    }
}

fn train(args: &Args, out: &Path, labels: &[LabelledCrop], models: &Models, runtime: &Runtime) -> Result<(), Failure> {
    let settings = Settings {
        seed: args.seed,
        precision: args.threshold_for_precision,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        created_from: args.created_from.clone().unwrap_or_else(|| format!("{} labelled crops", labels.len())),
    };
    let bar = progress_bar(labels.len());
    let trained = training::train(labels, models, runtime, &settings, &|seen| bar.set_position(seen as u64))
        .map_err(Failure::broken)?;
    bar.finish_and_clear();
    write_whole(out, &trained.bytes)
        .map_err(|error| Failure::broken(format!("cannot write {}: {error}", out.display())))?;
    let name = Model::from_bytes(&out.display().to_string(), &trained.bytes, runtime).map_err(Failure::broken)?;
    if args.json {
        print_json(&serde_json::json!({ "file": out, "model": name.name(), "report": trained.report }))
    } else {
        print_report(&trained.report, args.threshold_for_precision);
        println!("{} is {}, {} bytes", out.display(), name.name(), trained.bytes.len());
        Ok(())
    }
}

fn measure(file: &Path, labels: &[LabelledCrop], runtime: &Runtime, json: bool) -> Result<(), Failure> {
    let mut model = Model::open(file, runtime).map_err(Failure::broken)?;
    let bar = progress_bar(labels.len());
    let mut judged = Vec::with_capacity(labels.len());
    for label in labels {
        let input = training::input(label).map_err(Failure::broken)?.0;
        let p_ok = model.predict(&[input]).map_err(TrainError::from).map_err(Failure::broken)?[0];
        judged.push(Judged { p_ok, ok: label.ok });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let measures = Measures::of(&judged, model.threshold());
    if json {
        print_json(&serde_json::json!({ "model": model.name(), "crops": judged.len(), "measures": measures }))
    } else {
        println!("{} on {} crops", model.name(), judged.len());
        println!("{TABLE_HEAD}\n{measures}");
        Ok(())
    }
}

fn print_report(report: &Report, precision: f64) {
    let Report { crops, ok, groups, parts: [learn, choose, measure], .. } = report;
    println!("{crops} crops of {groups} people, {ok} of them OK: {learn} to learn from, {choose} to choose by,");
    println!("{measure} of people it never saw to measure with:");
    println!("{:<22}{TABLE_HEAD}", "");
    println!("{:<22}{}", format!("this ({})", report.judge), report.model);
    println!("{:<22}{}", "4x4 mirrored grid", report.grid);
    if !report.precision_reached {
        println!("no threshold reaches a precision of {precision}: it is 0.5");
    }
    if report.beats_grid {
        println!("it beats the mirrored grid, in AUC and in recall at precision .9");
    } else {
        println!("it does NOT beat the mirrored grid: do not use it; label more crops, of more people");
    }
}

fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    println!("{value:#}");
    Ok(())
}

/// Rate and time left on a terminal, silence elsewhere.
pub(super) fn progress_bar(len: usize) -> ProgressBar {
    let visible = std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} crops, {per_sec}, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(len as u64), target);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

/// Writes beside the target first, so that nobody ever reads half a model.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)
}
