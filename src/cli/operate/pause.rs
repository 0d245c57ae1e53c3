//! `facemill pause` and `facemill resume`.

use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::servers::ServerArgs;
use crate::cluster::pauses::{HostName, PauseTarget, Pauses};
use crate::domain::StageName;
use crate::domain::calendar;

#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    /// Stages to pause: fetch, detect, crop, classify
    #[arg(value_name = "STAGE")]
    stages: Vec<StageName>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Stages to resume: fetch, detect, crop, classify
    #[arg(value_name = "STAGE", required_unless_present = "hosts")]
    stages: Vec<StageName>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Hosts to pause or resume, as in the photos' URLs
    #[arg(long = "host", value_name = "NAME", num_args = 1..)]
    hosts: Vec<HostName>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    servers: ServerArgs,
}

/// Pauses the targets and prints all pauses.
pub fn pause(args: &PauseArgs) -> Result<ExitCode, Failure> {
    change(&args.stages, &args.common, async |redis, targets| Pauses::add(redis, targets).await)
}

/// Resumes the targets and prints the remaining pauses.
pub fn resume(args: &ResumeArgs) -> Result<ExitCode, Failure> {
    change(&args.stages, &args.common, async |redis, targets| Pauses::remove(redis, targets).await)
}

fn change(
    stages: &[StageName],
    common: &Common,
    work: impl AsyncFn(&crate::redis::RedisClient, &[PauseTarget]) -> Result<(), crate::ledger::LedgerError>,
) -> Result<ExitCode, Failure> {
    let targets = targets(stages, &common.hosts)?;
    let redis = common.servers.redis()?;
    let pauses = crate::cli::process::block_on(async {
        if !targets.is_empty() {
            work(&redis, &targets).await.map_err(Failure::broken)?;
        }
        Pauses::read(&redis).await.map_err(Failure::broken)
    })?;
    if common.json { print_json(&pauses) } else { print_text(&text(&pauses)) }?;
    Ok(ExitCode::SUCCESS)
}

fn targets(stages: &[StageName], hosts: &[HostName]) -> Result<Vec<PauseTarget>, Failure> {
    // `--host` takes all following values.
    if let Some(stage) = hosts.iter().find(|host| host.to_string().parse::<StageName>().is_ok()) {
        return Err(Failure::usage(format!("{stage} is a stage, not a host: write it before --host")));
    }
    let hosts = hosts.iter().cloned().map(PauseTarget::Host);
    Ok(stages.iter().copied().map(PauseTarget::Stage).chain(hosts).collect())
}

/// One line for each pause.
pub fn text(pauses: &Pauses) -> String {
    if pauses.is_empty() {
        return "nothing is paused\n".into();
    }
    let stages = pauses.stages.iter().map(|(stage, since)| (stage.to_string(), since));
    let hosts = pauses.hosts.iter().map(|(host, since)| (format!("host {host}"), since));
    stages.chain(hosts).map(|(what, &since)| format!("{what} is paused since {}\n", calendar::second(since))).collect()
}
