//! `facemill evaluate`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::archive::models::StoredModels;
use crate::atomic_file::AtomicFile;
use crate::cli::dataset::features::FeatureArgs;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::dataset::train::shown;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::inference::Runtime;
use crate::report::evaluation::evaluation_page;
use crate::services::evaluation::{Evaluator, ModelEvaluation, find_model};
use crate::services::judged_crops::{JudgedCrop, judged_crops};
use crate::services::learning_curve::learning_curve;
use crate::services::training::Trainer;
use crate::training::evaluation::Figure;
use crate::training::example::Side;
use crate::training::labels;
use crate::training::train::TrainingSettings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file, or the name or the start of the SHA-256 of a stored classifier
    #[arg(value_name = "MODEL")]
    model: String,
    /// Labelled crops instead of a run's verdicts, as for `facemill train`
    #[arg(value_name = "FOLDER")]
    labels: Option<PathBuf>,
    /// Measures on all judged crops, not only on those of people that no training uses: for a model that was made from
    /// other pictures
    #[arg(long)]
    all: bool,
    /// The page with figures, charts and the worst mistakes [default: evaluation.html in the run's folder, or here]
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Trains on 100, 300, 1000 and 3000 verdicts, too, to show what more verdicts would bring
    #[arg(long, conflicts_with = "labels")]
    learning_curve: bool,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

const SEED: u64 = 1;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let runtime = Runtime::load(&args.models.find().onnxruntime()).map_err(Failure::broken)?;
        let (found, page) = match &args.labels {
            Some(path) => (of_folder(args, path, &runtime).await?, PathBuf::from("evaluation.html")),
            None => of_run(args, &runtime).await?,
        };
        let page = args.page.clone().unwrap_or(page);
        AtomicFile::write(&page, evaluation_page(&found, now().as_secs()).as_bytes())
            .map_err(|error| Failure::broken(format!("cannot write {}: {error}", page.display())))?;
        match args.target.json {
            true => print_json(&found),
            false => print_text(&format!("{}{}\n", text(&found), page.display())),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn of_folder(args: &Args, path: &Path, runtime: &Runtime) -> Result<ModelEvaluation, Failure> {
    let file = find_model(None, &args.model).await.map_err(Failure::broken)?;
    let labels = labels::read(path).map_err(Failure::broken)?;
    let side = (!args.all).then_some(Side::Test);
    let bars = Bars::new(!args.target.json);
    let bar = bars.count("crops", labels.len() as u64);
    let progress = |done| bar.set_position(done as u64);
    let evaluator = Evaluator { file: &file, runtime, threads: threads(), seed: SEED, progress: &progress };
    let found = evaluator.of_files(&labels, side, path.display().to_string()).await;
    bars.clear();
    found.map_err(Failure::broken)
}

async fn of_run(args: &Args, runtime: &Runtime) -> Result<(ModelEvaluation, PathBuf), Failure> {
    let target = args.target.open().await?;
    let stored = StoredModels::new(target.objects.clone());
    let file = find_model(Some(&stored), &args.model).await.map_err(Failure::broken)?;
    let (mut index, source) = args.index.open(&target)?;
    let bars = Bars::new(!args.target.json);
    source.update(&mut index, &progress(&bars)).await.map_err(Failure::broken)?;
    let judged = judged_crops(&index).map_err(Failure::broken)?;
    let measured: Vec<&JudgedCrop> =
        judged.crops.iter().filter(|judged| args.all || judged.side() == Side::Test).collect();
    if measured.is_empty() {
        return Err(Failure::broken("the run has no judged crops to measure on: judge some, or give --all"));
    }
    let part = if args.all { "all verdicts" } else { "the verdicts of the test part" };
    let measured_on = format!("{part} of run {}", target.run);
    let bar = bars.count("crops", measured.len() as u64);
    let progress = |done| bar.set_position(done as u64);
    let evaluator = Evaluator { file: &file, runtime, threads: threads(), seed: SEED, progress: &progress };
    let mut found = evaluator.of_run(&target.objects, &measured, measured_on).await.map_err(Failure::broken)?;
    found.consistency = index.agreements().map_err(Failure::broken)?.into_iter().map(Into::into).collect();
    if args.learning_curve {
        let settings = TrainingSettings { seed: SEED, precision: 0.9, threads: threads(), created_from: String::new() };
        let features = args.features.open(target.folder())?;
        let trainer = Trainer::open(&args.models.find(), features, settings, shown(&bars));
        let mut trainer = trainer.map_err(Failure::broken)?;
        found.learning = learning_curve(&mut trainer, &target.objects, &judged).await.map_err(Failure::broken)?;
    }
    bars.clear();
    let folder = target.folder().map(PathBuf::from).unwrap_or_default();
    Ok((found, folder.join("evaluation.html")))
}

fn text(found: &ModelEvaluation) -> String {
    let evaluation = &found.evaluation;
    let mut text = format!(
        "{} on {}: {}, {} of them OK\n",
        found.model,
        found.measured_on,
        counted(evaluation.crops as u64, "crop"),
        evaluation.ok
    );
    let figures = [
        ("accuracy", &evaluation.accuracy),
        ("precision of OK", &evaluation.precision),
        ("recall of OK", &evaluation.recall),
        ("F1 of OK", &evaluation.f1),
        ("area, precision and recall", &evaluation.average_precision),
        ("area, ROC", &evaluation.auc),
        ("calibration error", &evaluation.calibration_error),
    ];
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    for (name, Figure { value, low, high }) in figures {
        let _ = writeln!(text, "{name:<28}{:>6}  ({} to {})", share(*value), share(*low), share(*high));
    }
    for point in &found.learning {
        let (accuracy, area) = (share(point.accuracy.value), share(point.average_precision.value));
        let _ = writeln!(text, "with {:>5} verdicts: accuracy {accuracy}, area {area}", point.verdicts);
    }
    for person in &found.consistency {
        let _ =
            writeln!(text, "{} agrees with themselves on {} of {} pictures", person.person, person.same, person.pairs);
    }
    if found.unreadable > 0 {
        let _ = writeln!(text, "not readable: {}", counted(found.unreadable as u64, "crop"));
    }
    text
}
