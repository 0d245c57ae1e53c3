//! `facemill train`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::atomic_file::AtomicFile;
use crate::classifier::model::Model;
use crate::cli::failure::Failure;
use crate::config::Models;
use crate::inference::Runtime;
use crate::training::labels::{self, LabelledCrop};
use crate::training::measure::{Measures, Scored, TABLE_HEADER};
use crate::training::train::{self, TrainError, TrainingReport, TrainingSettings};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Labelled crops: a file of JSON lines, or a folder with `labels.jsonl`.
    ///
    /// One crop per line: file, ok, group (the person), mirrored, mirrored_head, mirrored_grid.
    labels: PathBuf,
    /// Output file of the trained classifier
    #[arg(long, value_name = "FILE", required_unless_present = "measure")]
    out: Option<PathBuf>,
    /// Do not train; measure this classifier on all labels
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    measure: Option<PathBuf>,
    /// Choose the threshold for at least this precision: the share of OK among the crops predicted OK
    #[arg(long, value_name = "SHARE", default_value_t = 0.9, value_parser = share)]
    threshold_for_precision: f64,
    /// Seed of the split into parts and of the initial weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Description of the training data, stored in the file
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
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.9".into())
}

pub fn run(args: Args) -> Result<(), Failure> {
    let models = Models::find(args.models.clone());
    let labels = labels::read(&args.labels).map_err(Failure::broken)?;
    let runtime = Runtime::load(&models.onnxruntime()).map_err(Failure::broken)?;
    match (&args.measure, &args.out) {
        (Some(file), _) => measure(file, &labels, &runtime, args.json),
        (None, Some(out)) => train(&args, out, &labels, &models, &runtime),
        (None, None) => Err(Failure::broken("--out is missing: name the output file of the classifier")),
    }
}

fn train(args: &Args, out: &Path, labels: &[LabelledCrop], models: &Models, runtime: &Runtime) -> Result<(), Failure> {
    let settings = TrainingSettings {
        seed: args.seed,
        precision: args.threshold_for_precision,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        created_from: args.created_from.clone().unwrap_or_else(|| format!("{} labelled crops", labels.len())),
    };
    let bar = progress_bar(labels.len());
    let trained = train::train(labels, models, runtime, &settings, &|done| bar.set_position(done as u64))
        .map_err(Failure::broken)?;
    bar.finish_and_clear();
    AtomicFile::write(out, &trained.bytes)
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
    let mut scored = Vec::with_capacity(labels.len());
    for label in labels {
        let input = train::input(label).map_err(Failure::broken)?.0;
        let p_ok = model.predict(&[input]).map_err(TrainError::from).map_err(Failure::broken)?[0];
        scored.push(Scored { p_ok, ok: label.ok });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let measures = Measures::of(&scored, model.threshold());
    if json {
        print_json(&serde_json::json!({ "model": model.name(), "crops": scored.len(), "measures": measures }))
    } else {
        println!("{} on {} crops", model.name(), scored.len());
        println!("{TABLE_HEADER}\n{measures}");
        Ok(())
    }
}

fn print_report(report: &TrainingReport, precision: f64) {
    let TrainingReport { crops, ok, groups, parts: [training, validation, test], .. } = report;
    println!("{crops} crops of {groups} people, {ok} of them OK");
    println!("{training} for training, {validation} for validation, {test} for the test; each person is in one part");
    println!("figures of the test part:");
    println!("{:<22}{TABLE_HEADER}", "");
    println!("{:<22}{}", format!("this ({})", report.head), report.model);
    println!("{:<22}{}", "4x4 mirrored grid", report.grid);
    if !report.precision_reached {
        println!("no threshold reaches a precision of {precision}; the threshold is 0.5");
    }
    if report.beats_grid {
        println!("the classifier beats the mirrored grid in AUC and in recall at precision .9");
    } else {
        println!("the classifier does NOT beat the mirrored grid: do not use it; label more crops, of more people");
    }
}

fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    println!("{value:#}");
    Ok(())
}

/// Shows rate and time left on a terminal, and nothing elsewhere.
pub(super) fn progress_bar(len: usize) -> ProgressBar {
    let visible = std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} crops, {per_sec}, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(len as u64), target);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}
