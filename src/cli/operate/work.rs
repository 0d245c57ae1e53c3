//! `facemill work`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::archive::records::Records;
use crate::cli::failure::Failure;
use crate::cli::operate::heartbeat::{Heartbeat, Tally};
use crate::cli::operate::probes::{self, Probes};
use crate::cli::progress::Bars;
use crate::cli::settings::flags::{self, StageArgs};
use crate::cli::settings::servers::ServerArgs;
use crate::cluster::{Hosts, PauseWatch, hosts};
use crate::domain::StageName;
use crate::domain::clock::now;
use crate::objects::Objects;
use crate::pipeline::pause::Pause;
use crate::pipeline::stages::runs_native_code;
use crate::pipeline::worker::{self, Gate, Worker};
use crate::telemetry::instruments;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// fetch, detect, crop, classify: one or more
    #[arg(required = true, value_name = "STAGE")]
    stages: Vec<StageName>,
    /// Photos that each of these stages processes at a time: 8, or fetch=64,detect=2 [default: 64 for fetch, the cores of
    /// this machine for the others]
    #[arg(long, env = "FACEMILL_CONCURRENCY", value_name = "N", help_heading = "Work")]
    concurrency: Option<Concurrency>,
    /// Seconds for photos in flight to finish after SIGTERM
    #[arg(long, env = "FACEMILL_GRACE", default_value_t = 45, value_name = "SECONDS", help_heading = "Work")]
    grace: u64,
    /// Serves /healthz, /readyz and /metrics over HTTP at this address [default: off]
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
    let concurrency = args.concurrency.clone().unwrap_or_default();
    let native = args.stages.iter().copied().filter(|stage| runs_native_code(*stage));
    let cores = native.map(|stage| concurrency.of(stage)).max().unwrap_or(1);
    let (mut settings, servers) = Failure::join(args.settings.settings(cores, Vec::new()), args.servers.clients())?;
    settings.rules.max_requests = concurrency.of(StageName::Fetch);
    let level = if args.verbose { "facemill=debug" } else { "facemill=info" };
    let telemetry =
        crate::cli::process::observe(level, &Bars::new(false), &service(&args.stages), args.listen.is_some())?;
    crate::cli::process::block_on(async {
        let shutdown = CancellationToken::new();
        let mut aside = JoinSet::new();
        // From the start: who is told to end while it loads its models ends in order, too.
        aside.spawn(crate::cli::process::signals(shutdown.clone()));
        let listener = match args.listen {
            Some(address) => Some(probes::listen(address).await?),
            None => None,
        };
        servers.check().await?;
        let objects: Arc<dyn Objects> = servers.observed_objects();
        let name = format!("{}-{}-{}", host_name(), std::process::id(), now().as_nanos());
        let pauses = PauseWatch::start(servers.ledger.client().clone()).await.map_err(Failure::broken)?;
        let limits = hosts::LeaseLimits::new(&settings.rules);
        settings.host_limiter =
            Some(Arc::new(Hosts::new(servers.ledger.client().clone(), name.clone(), limits, pauses.hosts())));
        settings.per_run = true;
        let stages = crate::cli::run::open(&args.stages, &settings, objects.clone()).await?;
        let gate = Gate::default();
        if let Some(instruments) = instruments::get() {
            args.stages.iter().for_each(|stage| instruments.register_stage(*stage));
        }
        let tally = Arc::<Tally>::default();
        let mut running = JoinSet::new();
        for stage in &stages.all {
            let native = runs_native_code(stage.name());
            let worker = Worker {
                stage: stage.clone(),
                broker: Arc::new(servers.broker.clone()),
                ledger: servers.ledger.clone(),
                records: Some(Records::new(objects.clone())),
                observer: tally.clone(),
                gate: native.then(|| gate.clone()),
                name: name.clone(),
                settings: worker::Settings {
                    concurrency: match stage.name() {
                        StageName::Fetch => settings.rules.prefetch(),
                        name => concurrency.of(name),
                    },
                    attempts: args.settings.attempts,
                    waits: args.settings.waits.clone(),
                    grace: Duration::from_secs(args.grace),
                    pause: Pause::new(pauses.stage(stage.name())),
                    ..worker::Settings::default()
                },
            };
            tracing::info!(stage = %stage.name(), concurrency = concurrency.of(stage.name()), worker = name, "at work");
            let shutdown = shutdown.clone();
            running.spawn(async move { worker.run(shutdown).await });
        }
        aside.spawn(pauses.run());
        let heart = Arc::new(Heartbeat::new(servers.ledger.client().clone(), tally, &name, &args.stages));
        aside.spawn(heart.clone().beat());
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
        aside.abort_all();
        heart.stop().await;
        match fault {
            Some(fault) => Err(Failure::broken(fault)),
            None => Ok(ExitCode::SUCCESS),
        }
    })
}

/// The service name of a worker in traces: a single stage has a name of its own.
fn service(stages: &[StageName]) -> String {
    match stages {
        [stage] => format!("facemill-{stage}"),
        _ => "facemill-worker".into(),
    }
}

/// How many photos each stage processes at a time, if given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Concurrency {
    all: Option<usize>,
    each: BTreeMap<StageName, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("take a number from 1 to {most}, or one for each stage: fetch=64,detect=2", most = Concurrency::MOST)]
struct BadConcurrency;

impl Concurrency {
    /// RabbitMQ's prefetch is one more, in 16 bits.
    const MOST: usize = 10_000;

    fn of(&self, stage: StageName) -> usize {
        let usual =
            || if runs_native_code(stage) { flags::cores() } else { crate::cli::settings::process_args::FETCHES };
        self.each.get(&stage).copied().or(self.all).unwrap_or_else(usual)
    }
}

impl FromStr for Concurrency {
    type Err = BadConcurrency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse().ok().filter(|number| (1..=Self::MOST).contains(number));
        let mut concurrency = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let is_new = match part.split_once('=') {
                Some((stage, count)) => {
                    let stage = stage.trim().parse().map_err(|_| BadConcurrency)?;
                    concurrency.each.insert(stage, number(count).ok_or(BadConcurrency)?).is_none()
                }
                None => concurrency.all.replace(number(part).ok_or(BadConcurrency)?).is_none(),
            };
            if !is_new {
                return Err(BadConcurrency);
            }
        }
        Ok(concurrency)
    }
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.each.iter().map(|(stage, count)| format!("{stage}={count}"));
        let parts: Vec<String> = self.all.iter().map(usize::to_string).chain(each).collect();
        f.write_str(&parts.join(","))
    }
}

/// The name of the machine or the pod.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_is_one_number_or_one_for_each_stage() {
        let of = |text: &str| {
            let concurrency: Concurrency = text.parse().unwrap();
            assert_eq!(concurrency.to_string().parse(), Ok(concurrency.clone()));
            StageName::ALL.map(|stage| concurrency.of(stage))
        };
        let cores = flags::cores();
        assert_eq!(of(""), [64, cores, cores, cores]);
        assert_eq!(of("8"), [8; 4]);
        assert_eq!(of("fetch=9, detect=2"), [9, 2, cores, cores]);
        assert_eq!(of("3,fetch=9"), [9, 3, 3, 3]);
        for bad in ["0", "10001", "-1", "x", "fetch", "fetch=", "fetch=0", "cut=1", "1,2", "fetch=1,fetch=2", "1,", "="]
        {
            assert_eq!(bad.parse::<Concurrency>(), Err(BadConcurrency), "{bad}");
        }
    }
}
