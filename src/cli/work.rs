//! `facemill work`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::probes::{self, Probes};
use super::progress::Bars;
use super::servers::ServerArgs;
use super::settings::StageArgs;
use crate::objects::Objects;
use crate::photo::StageName;
use crate::pipeline::event::Nobody;
use crate::pipeline::record::Records;
use crate::pipeline::stages::runs_native_code;
use crate::pipeline::worker::{self, Gate, Worker, now};
use crate::telemetry::instruments;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// fetch, detect, crop, classify: one or more
    #[arg(required = true, value_name = "STAGE")]
    stages: Vec<StageName>,
    /// Seconds that photos in flight have to finish after SIGTERM
    #[arg(long, env = "FACEMILL_GRACE", default_value_t = 45, value_name = "SECONDS", help_heading = "Work")]
    grace: u64,
    /// Answers /healthz, /readyz and /metrics there, over HTTP [default: nowhere]
    #[arg(long, env = "FACEMILL_LISTEN", value_name = "ADDRESS:PORT", help_heading = "Work")]
    listen: Option<SocketAddr>,
    /// Logs every step of every photo
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    settings: StageArgs,
    #[command(flatten)]
    servers: ServerArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let settings = args.settings.settings()?;
    let servers = args.servers.clients()?;
    let level = if args.verbose { "facemill=debug" } else { "facemill=info" };
    let telemetry = super::observe(level, &Bars::new(false), &service(&args.stages), args.listen.is_some())?;
    super::block_on(async {
        let shutdown = CancellationToken::new();
        let mut aside = JoinSet::new();
        // From the start: who is told to end while it loads its models ends in order, too.
        aside.spawn(super::signals(shutdown.clone()));
        let listener = match args.listen {
            Some(address) => Some(probes::listen(address).await?),
            None => None,
        };
        servers.check().await?;
        let objects: Arc<dyn Objects> = servers.observed_objects();
        let stages = super::run::open(&args.stages, &settings, objects.clone()).await?;
        let gate = Gate::default();
        if let Some(instruments) = instruments::get() {
            args.stages.iter().for_each(|stage| instruments.announce(*stage));
        }
        let name = format!("{}-{}-{}", host_name(), std::process::id(), now().as_nanos());
        let mut running = JoinSet::new();
        for stage in &stages.all {
            let native = runs_native_code(stage.name());
            let worker = Worker {
                stage: stage.clone(),
                broker: Arc::new(servers.broker.clone()),
                ledger: servers.ledger.clone(),
                records: Some(Records::new(objects.clone())),
                observer: Arc::new(Nobody),
                gate: native.then(|| gate.clone()),
                name: name.clone(),
                settings: worker::Settings {
                    concurrency: if native { settings.cores } else { args.settings.fetches },
                    attempts: args.settings.attempts,
                    waits: args.settings.waits.clone(),
                    grace: Duration::from_secs(args.grace),
                    ..worker::Settings::default()
                },
            };
            tracing::info!(stage = %stage.name(), concurrency = worker.settings.concurrency, worker = name, "at work");
            let shutdown = shutdown.clone();
            running.spawn(async move { worker.run(shutdown).await });
        }
        let probes = Arc::new(Probes::new(telemetry.prometheus.clone().unwrap_or_default(), shutdown.clone()));
        if let Some(listener) = listener {
            tracing::info!(address = ?listener.local_addr().ok(), "answers /healthz, /readyz and /metrics");
            aside.spawn(probes.clone().serve(listener));
            aside.spawn(probes.clone().watch(servers));
        }
        let mut fault = None;
        while let Some(ended) = running.join_next().await {
            let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            fault = fault.or(ended.err());
            if !shutdown.is_cancelled() {
                probes.broken.cancel();
            }
            // One stage that cannot go on ends the process: whoever watches it starts a new one.
            shutdown.cancel();
        }
        match fault {
            Some(fault) => Err(Failure::broken(fault)),
            None => Ok(ExitCode::SUCCESS),
        }
    })
}

/// What traces call a worker: its one stage has a name of its own.
fn service(stages: &[StageName]) -> String {
    match stages {
        [stage] => format!("facemill-{stage}"),
        _ => "facemill-worker".into(),
    }
}

/// The machine's, or the pod's, name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
