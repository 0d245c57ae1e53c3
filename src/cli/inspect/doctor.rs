//! `facemill doctor`.

use std::fmt::Display;
use std::process::{Command, ExitCode, Stdio};

use serde::Serialize;

use crate::broker::Broker;
use crate::classifier::model::Model;
use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::names;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::cli::settings::servers::ServerArgs;
use crate::domain::LandmarkScheme;
use crate::inference::Models;
use crate::inference::Runtime;
use crate::ledger::Ledger;
use crate::net::{Fetcher, Rules};
use crate::objects::Objects;
use crate::pipeline::local::RunDir;
use crate::vision::detector::Detector;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: RunTargetArgs,
    #[command(flatten)]
    models: ModelArgs,
    /// The landmarks whose model is checked
    #[arg(long, env = "FACEMILL_LANDMARKS", value_parser = names::landmarks(), default_value_t, help_heading = "Faces")]
    landmarks: LandmarkScheme,
}

/// One line of the checklist.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What was found, or the fault and its remedy.
    detail: String,
    /// Only the function that the detail names does not work without it.
    optional: bool,
}

impl Check {
    fn of(name: &'static str, outcome: Result<String, impl Display>) -> Self {
        let ok = outcome.is_ok();
        Self { name, ok, detail: outcome.unwrap_or_else(|error| error.to_string()), optional: false }
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let models = args.models.find();
    let mut checks =
        vec![onnxruntime(&models), detector(&models, args.landmarks), classifier(&models), pg_restore(), trust()];
    checks.extend(crate::cli::process::block_on(async {
        match args.place.folder() {
            Some(home) => Ok(folder(&home).await),
            None => Ok(servers(&args.place.servers).await),
        }
    })?);
    let failed = checks.iter().filter(|check| !check.ok && !check.optional).count();
    if args.place.json {
        print_json(&checks)?;
    } else {
        let line = |check: &Check| {
            let mark = match (check.ok, check.optional) {
                (true, _) => '✓',
                (false, true) => '–',
                (false, false) => '✗',
            };
            format!("{mark} {:<14}{}\n", check.name, check.detail)
        };
        print_text(&checks.iter().map(line).collect::<String>())?;
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::findings("one check failed")),
        failed => Err(Failure::findings(format!("{failed} checks failed"))),
    }
}

fn onnxruntime(models: &Models) -> Check {
    let library = models.onnxruntime();
    Check::of("onnxruntime", Runtime::load(&library).map(|_| library.display().to_string()))
}

fn detector(models: &Models, scheme: LandmarkScheme) -> Check {
    let found = |_| format!("{scheme} landmarks, YuNet and HOG from {}", models.folder().display());
    Check::of("detector", Detector::open(models, 1, scheme).map(found))
}

fn classifier(models: &Models) -> Check {
    let open = || {
        let runtime = Runtime::load(&models.onnxruntime()).map_err(|error| error.to_string())?;
        let model = Model::open(&models.classifier(), &runtime).map_err(|error| error.to_string())?;
        Ok::<_, String>(format!("{}, OK from {:.3}", model.name(), model.threshold()))
    };
    Check::of("classifier", open())
}

/// Only dumps in pg_dump's custom format need it.
fn pg_restore() -> Check {
    let version = Command::new("pg_restore").arg("--version").stderr(Stdio::null()).output();
    let outcome = match version {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        _ => Err("not installed: dumps in pg_dump's custom format cannot be read; install postgresql-client"),
    };
    Check { optional: true, ..Check::of("pg_restore", outcome) }
}

fn trust() -> Check {
    let fetcher = Fetcher::new(Rules::default());
    Check::of("fetching", fetcher.map(|_| "certificate authorities found".to_owned()))
}

/// The fault of one server does not hide those of the others.
async fn servers(servers: &ServerArgs) -> Vec<Check> {
    let (broker, ledger, objects) = servers.each();
    let answers = "answers and permits what is needed";
    let broker = async {
        let broker = broker?;
        let checked = broker.check().await.map_err(|error| error.to_string());
        broker.close().await;
        checked.map(|()| answers.to_owned())
    };
    let ledger = async {
        let ledger = ledger?;
        ledger.check().await.map_err(|error| error.to_string())?;
        let durability = ledger.client().check_durability().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(format!("{answers}; {durability}"))
    };
    let objects = async {
        objects?.check().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(answers.to_owned())
    };
    let (broker, ledger, objects) = tokio::join!(broker, ledger, objects);
    vec![Check::of("rabbitmq", broker), Check::of("redis", ledger), Check::of("s3", objects)]
}

async fn folder(home: &RunDir) -> Vec<Check> {
    let place = home.folder().display().to_string();
    let store = home.objects().check().await.map(|()| format!("{place} is writable"));
    let mut checks = vec![Check::of("folder", store)];
    if home.ledger_file().is_file() {
        let check = async {
            let ledger = home.read_ledger().await.map_err(|error| error.to_string())?;
            ledger.check().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(home.ledger_file().display().to_string())
        };
        checks.push(Check::of("ledger", check.await));
    }
    checks
}
