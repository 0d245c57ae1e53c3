//! `facemill train`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::archive::run_classifier::{ClassifierChange, RunClassifiers};
use crate::atomic_file::AtomicFile;
use crate::cli::dataset::features::FeatureArgs;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::process::person;
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::services::judged_crops::{LeftOut, judged_crops};
use crate::services::training::{NewModel, Progress, Trainer, TrainingStep, train_run};
use crate::training::labels;
use crate::training::measure::TABLE_HEADER;
use crate::training::train::{Comparison, MeasuredOn, TrainingReport, TrainingSettings};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Labelled crops instead of a run's verdicts: a folder with `ok` and `ng`, or with `labels.jsonl`, or that file.
    ///
    /// A line of the file is a crop: file, ok, group (the person), mirrored, mirrored_head, mirrored_grid.
    #[arg(value_name = "FOLDER")]
    labels: Option<PathBuf>,
    /// Writes the classifier to a file, too
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Makes it the current classifier of the run. Workers load it within a minute
    #[arg(long = "use", conflicts_with = "labels")]
    take: bool,
    /// Chooses the threshold for at least this precision: the share of OK among the crops predicted OK
    #[arg(long, value_name = "SHARE", default_value_t = 0.9, value_parser = share)]
    threshold_for_precision: f64,
    /// Seed of the folds and of the first weights. The people of the test part do not depend on it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Description of the training data, stored in the file
    #[arg(long, value_name = "TEXT")]
    created_from: Option<String>,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.9".into())
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        match (&args.labels, &args.to) {
            (Some(labels), Some(_)) => from_folder(args, labels).await,
            (Some(_), None) => Err(Failure::usage("--to FILE is missing: it names the file of the classifier")),
            (None, _) => from_verdicts(args).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &Args, created_from: String) -> TrainingSettings {
    TrainingSettings {
        seed: args.seed,
        precision: args.threshold_for_precision,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        created_from: args.created_from.clone().unwrap_or(created_from),
    }
}

async fn from_folder(args: &Args, path: &Path) -> Result<(), Failure> {
    let labels = labels::read(path).map_err(Failure::broken)?;
    let bars = Bars::new(!args.target.json);
    let settings = settings(args, format!("{} labelled crops", labels.len()));
    let mut trainer = Trainer::open(&args.models.find(), args.features.open(None)?, settings, shown(&bars))
        .map_err(Failure::broken)?;
    let set = trainer.from_files(&labels).await.map_err(Failure::broken)?;
    let trained = trainer.train(set, None).await;
    bars.clear();
    let NewModel { file, report } = trained.map_err(Failure::broken)?;
    write_file(args, &file.bytes)?;
    match args.target.json {
        true => print_json(&serde_json::json!({ "file": args.to, "model": file.name, "report": report })),
        false => {
            let text = shown_report(&report, args.threshold_for_precision);
            print_text(&format!("{text}{}{}\n", file_line(args), file.name))
        }
    }
}

async fn from_verdicts(args: &Args) -> Result<(), Failure> {
    let target = args.target.open().await?;
    let (mut index, source) = args.index.open(&target)?;
    let bars = Bars::new(!args.target.json);
    source.update(&mut index, &progress(&bars)).await.map_err(Failure::broken)?;
    let judged = judged_crops(&index).map_err(Failure::broken)?;
    let classifiers = RunClassifiers::new(target.objects.clone());
    let history = classifiers.read(&target.run).await.map_err(Failure::broken)?;
    let before = history.current().map(|current| (current.model.clone(), current.threshold));

    let settings = settings(args, format!("verdicts on {} crops of run {}", judged.crops.len(), target.run));
    let features = args.features.open(target.folder())?;
    let mut trainer = Trainer::open(&args.models.find(), features, settings, shown(&bars)).map_err(Failure::broken)?;
    let trained = train_run(&mut trainer, &target.objects, &judged, before).await;
    bars.clear();
    let (file, trained) = trained.map_err(Failure::broken)?;
    write_file(args, &file.bytes)?;
    if args.take {
        let change = ClassifierChange {
            model_sha256: file.sha256,
            model: file.name.clone(),
            threshold: file.threshold,
            at: now().as_secs(),
            by: person(),
            why: "facemill train".into(),
        };
        classifiers.change(&target.run, change).await.map_err(Failure::broken)?;
    }
    if args.target.json {
        return print_json(&trained);
    }
    let mut text = left_out(&trained.left_out, trained.unreadable);
    text.push_str(&shown_report(&trained.report, args.threshold_for_precision));
    if trained.chosen_by_p_ok > 0 {
        let chosen = counted(trained.chosen_by_p_ok as u64, "judged crop");
        let _ =
            writeln!(text, "P(OK) has chosen {chosen}, which are not like all crops, and neither are these figures;");
        text.push_str("threshold and P(OK) of the classifier allow for it\n");
    }
    let _ = writeln!(text, "{}{}", file_line(args), file.name);
    match args.take {
        true => text.push_str("it is now the current classifier of the run\n"),
        false => {
            let _ = writeln!(text, "to use it: facemill models use {}", &file.sha256.to_string()[..8]);
        }
    }
    print_text(&text)
}

fn write_file(args: &Args, bytes: &[u8]) -> Result<(), Failure> {
    let Some(to) = &args.to else { return Ok(()) };
    AtomicFile::write(to, bytes).map_err(|error| Failure::broken(format!("cannot write {}: {error}", to.display())))
}

fn file_line(args: &Args) -> String {
    args.to.as_ref().map(|to| format!("{} is ", to.display())).unwrap_or_default()
}

/// Draws a bar for each step.
pub(super) fn shown(bars: &Bars) -> Progress {
    let bars = bars.clone();
    let (features, fits) = (bars.count("features", 0), bars.count("fits", 0));
    Arc::new(move |step| {
        let (bar, done, of) = match step {
            TrainingStep::Features { done, of } => (&features, done, of),
            TrainingStep::Fits { done, of } => (&fits, done, of),
        };
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })
}

fn left_out(
    LeftOut { in_bulk, pending, placeholder, wrong_person, ambiguous, near_test, too_many }: &LeftOut,
    unreadable: usize,
) -> String {
    let parts = [
        (*in_bulk, "judged in bulk"),
        (*pending, "pending or contradicted"),
        (*placeholder, "placeholders"),
        (*wrong_person, "NG because of the wrong person"),
        (*ambiguous, "crops of several people"),
        (*near_test, "for training, with a near-duplicate in the test part"),
        (*too_many, "beyond the largest number"),
        (unreadable as u64, "not readable"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { String::new() } else { format!("left out: {}\n", parts.join(", ")) }
}

fn shown_report(report: &TrainingReport, precision: f64) -> String {
    let TrainingReport { training, test, measured_on, head, penalty, calibration, model, grid, comparison, .. } =
        report;
    let mut text = String::new();
    for (name, side) in [("training", training), ("test", test)] {
        let people = if side.groups == 1 { "1 person".to_owned() } else { format!("{} people", side.groups) };
        let _ = writeln!(text, "{name}: {} of {people}, {} of them OK", counted(side.crops as u64, "crop"), side.ok);
    }
    let measured_on = match measured_on {
        MeasuredOn::TestPart => "figures of the test part",
        MeasuredOn::CrossValidation => {
            "the test part lacks OK or NG crops, so these are figures of the cross-validation over people; judge more people"
        }
    };
    let _ = writeln!(text, "penalty {penalty}, calibration {calibration}; {measured_on}:");
    let _ = writeln!(text, "{:<22}{TABLE_HEADER}", "");
    let _ = writeln!(text, "{:<22}{model}", format!("this ({head})"));
    let _ = writeln!(text, "{:<22}{grid}", "4x4 mirrored grid");
    if let Some(Comparison { model, crops, before, now }) = comparison {
        let _ = writeln!(text, "against {model}, on {crops} crops that both scored:");
        let _ = writeln!(text, "{:<22}{before}\n{:<22}{now}", "before", "this");
    }
    if !report.precision_reached {
        let _ = writeln!(text, "no threshold reaches a precision of {precision}; the threshold is 0.5");
    }
    text.push_str(match report.beats_grid {
        true => "the classifier beats the mirrored grid in AUC and in recall at precision .9\n",
        false => "the classifier does NOT beat the mirrored grid: do not use it; judge more crops, of more people\n",
    });
    text
}

/// Shows rate and time left on a terminal, and nothing elsewhere.
pub(super) fn progress_bar(len: usize) -> ProgressBar {
    let visible = std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} crops, {per_sec}, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(len as u64), target);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}
