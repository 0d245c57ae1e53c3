//! `facemill work`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::cli::failure::Failure;
use crate::cli::process::Signals;
use crate::cli::progress::Bars;
use crate::cli::settings::flags::{self, StageArgs};
use crate::cli::settings::servers::ServerArgs;
use crate::domain::StageName;
use crate::pipeline::stages::runs_native_code;
use crate::pipeline::worker;
use crate::services::work::Work;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// fetch, detect, crop, classify: one or more
    #[arg(required = true, value_name = "STAGE")]
    stages: Vec<StageName>,
    /// Photos that each of these stages processes at a time: 8, or fetch=64,detect=2 [default: 64 for fetch, the cores
    /// of this machine for the others]
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
        // Signals are caught from the start: loading the models takes time.
        let signals = Signals::catch();
        let listener = match args.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let work = Work {
            concurrency: args.stages.iter().map(|stage| (*stage, concurrency.of(*stage))).collect(),
            stages: settings,
            worker: worker::WorkerSettings {
                attempts: args.settings.attempts,
                waits: args.settings.waits.clone(),
                grace: Duration::from_secs(args.grace),
                ..worker::WorkerSettings::default()
            },
            listener,
            metrics: telemetry.prometheus.clone().unwrap_or_default(),
        };
        work.run(servers, signals.shutdown).await.map_err(Failure::broken)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Binds the address, so that a port that is taken is an error before anything else starts.
async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::broken(format!("--listen: cannot listen on {address}: {error}; choose another port")))
}

/// The service name of a worker in traces.
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
#[error("expected a number from 1 to {most}, or one for each stage: fetch=64,detect=2", most = Concurrency::MOST)]
struct BadConcurrency;

impl Concurrency {
    /// RabbitMQ's prefetch is this plus one, in 16 bits.
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
