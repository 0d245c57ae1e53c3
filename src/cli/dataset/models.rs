//! `facemill models`.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::archive::models::StoredModels;
use crate::archive::run_classifier::{ClassifierChange, ClassifierHistory, RunClassifiers};
use crate::classifier::model::{ModelFile, meta};
use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::process::person;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::domain::{ContentHash, calendar};
use crate::inference::Runtime;
use crate::services::evaluation::find_model;
use crate::services::run_target::RunTarget;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists the stored classifiers and marks the run's current one
    List {
        #[command(flatten)]
        target: RunTargetArgs,
    },
    /// Shows a classifier, and when the run has used it
    Show {
        #[command(flatten)]
        model: ModelArg,
        #[command(flatten)]
        target: RunTargetArgs,
    },
    /// Stores a classifier and makes it the run's current one. Workers load it within a minute
    Use {
        #[command(flatten)]
        model: ModelArg,
        /// A crop with this P(OK) or more counts as OK [default: as the model's training chose it]
        #[arg(long, value_name = "P", value_parser = threshold)]
        threshold: Option<f64>,
        /// The reason, for the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        #[command(flatten)]
        models: ModelArgs,
        #[command(flatten)]
        target: RunTargetArgs,
    },
}

#[derive(Debug, clap::Args)]
struct ModelArg {
    /// A file, or the name or the start of the SHA-256 of a stored classifier
    #[arg(value_name = "MODEL")]
    model: String,
}

fn threshold(text: &str) -> Result<f64, &'static str> {
    let threshold = text.parse().ok().filter(|threshold| (0.0..=1.0).contains(threshold));
    threshold.ok_or("expected a number from 0 to 1, such as 0.8")
}

/// A classifier with what is printed about it.
#[derive(Debug, Serialize)]
struct Shown {
    model: String,
    sha256: ContentHash,
    bytes: usize,
    /// The threshold that its training chose.
    threshold: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    training_digest: Option<String>,
    current: bool,
    /// The changes that made it the run's classifier.
    changes: Vec<ClassifierChange>,
}

impl Shown {
    fn new(file: &ModelFile, history: &ClassifierHistory) -> Self {
        let is_this = |change: &&ClassifierChange| change.model_sha256 == file.sha256;
        Self {
            model: file.name.clone(),
            sha256: file.sha256,
            bytes: file.bytes.len(),
            threshold: file.threshold,
            created_from: file.metadata(meta::CREATED_FROM),
            training_digest: file.metadata(meta::TRAINING_DIGEST),
            current: history.current().as_ref().is_some_and(is_this),
            changes: history.changes.iter().filter(is_this).cloned().collect(),
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        match &args.action {
            Action::List { target } => list(target).await,
            Action::Show { model, target } => show(&model.model, target).await,
            Action::Use { model, threshold, why, models, target } => {
                take(&model.model, *threshold, why, models, target).await
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The run with its models and the history of its classifier.
struct Opened {
    target: RunTarget,
    stored: StoredModels,
    classifiers: RunClassifiers,
    history: ClassifierHistory,
}

impl Opened {
    async fn open(args: &RunTargetArgs) -> Result<Self, Failure> {
        let target = args.open().await?;
        let stored = StoredModels::new(target.objects.clone());
        let classifiers = RunClassifiers::new(target.objects.clone());
        let history = classifiers.read(&target.run).await.map_err(Failure::broken)?;
        Ok(Self { target, stored, classifiers, history })
    }

    async fn stored(&self, sha256: ContentHash) -> Result<ModelFile, Failure> {
        let file = self.stored.read(sha256).await.map_err(Failure::broken)?;
        ModelFile::from_bytes(&format!("models/{sha256}.onnx"), file).map_err(Failure::broken)
    }

    async fn find(&self, model: &str) -> Result<ModelFile, Failure> {
        find_model(Some(&self.stored), model).await.map_err(Failure::broken)
    }
}

async fn list(args: &RunTargetArgs) -> Result<(), Failure> {
    let opened = Opened::open(args).await?;
    let mut shown = Vec::new();
    for sha256 in opened.stored.all().await.map_err(Failure::broken)? {
        shown.push(Shown::new(&opened.stored(sha256).await?, &opened.history));
    }
    if args.json {
        return print_json(&shown);
    }
    let mut text = String::new();
    for model in &shown {
        let mark = if model.current { "*" } else { " " };
        let _ = writeln!(text, "{mark} {:<28} threshold {:<6} {}", model.model, model.threshold, model.sha256);
    }
    if shown.is_empty() {
        text.push_str("no classifier is stored yet\n");
    }
    print_text(&text)
}

async fn show(model: &str, args: &RunTargetArgs) -> Result<(), Failure> {
    let opened = Opened::open(args).await?;
    let shown = Shown::new(&opened.find(model).await?, &opened.history);
    if args.json {
        return print_json(&shown);
    }
    let mut text = format!("{}\nsha256       {}\nbytes        {}\n", shown.model, shown.sha256, shown.bytes);
    let _ = writeln!(text, "threshold    {}", shown.threshold);
    if let Some(created_from) = &shown.created_from {
        let _ = writeln!(text, "created from {created_from}");
    }
    if let Some(digest) = &shown.training_digest {
        let _ = writeln!(text, "trained on   {digest}");
    }
    let current = if shown.current { "the current classifier" } else { "not the current classifier" };
    let _ = writeln!(text, "{current} of run {}", opened.target.run);
    shown.changes.iter().for_each(|change| text.push_str(&line(change)));
    print_text(&text)
}

async fn take(
    model: &str,
    threshold: Option<f64>,
    why: &str,
    models: &ModelArgs,
    args: &RunTargetArgs,
) -> Result<(), Failure> {
    let opened = Opened::open(args).await?;
    let file = opened.find(model).await?;
    // A model that does not fit would stop the classify workers.
    let runtime = Runtime::load(&models.find().onnxruntime()).map_err(Failure::broken)?;
    file.check(&runtime).map_err(Failure::broken)?;
    opened.stored.write(file.bytes.clone()).await.map_err(Failure::broken)?;
    let change = ClassifierChange {
        model_sha256: file.sha256,
        model: file.name,
        threshold: threshold.unwrap_or(file.threshold),
        at: now().as_secs(),
        by: person(),
        why: why.to_owned(),
    };
    let run = &opened.target.run;
    opened.classifiers.change(run, change.clone()).await.map_err(Failure::broken)?;
    match args.json {
        true => print_json(&change),
        false => print_text(&format!("run {run}: {}", line(&change))),
    }
}

fn line(change: &ClassifierChange) -> String {
    let ClassifierChange { model, threshold, at, by, why, .. } = change;
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let threshold = (threshold * 1e4).round() / 1e4;
    format!("{} {model} from {threshold} on, by {by}{why}\n", calendar::second(*at))
}
