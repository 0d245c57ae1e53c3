//! `facemill describe`: the names of queues and variables that a deployment uses. The checks of the manifests read it,
//! so that there is no second list.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde_json::json;

use crate::broker::rabbitmq::topology::Names;
use crate::cli::failure::Failure;
use crate::cli::output::print_json;
use crate::domain::StageName;
use crate::objects::s3;
use crate::pipeline::worker;
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The installation's prefix
    #[arg(long, env = "FACEMILL_PREFIX", default_value = "facemill", value_name = "NAME")]
    prefix: String,
}

/// `root`: the whole command line.
pub fn run(args: &Args, root: &clap::Command) -> Result<ExitCode, Failure> {
    let names = Names::new(&args.prefix);
    let stages: BTreeMap<&str, String> =
        StageName::ALL.into_iter().map(|stage| (stage.as_str(), names.stage(stage))).collect();
    let queues: Vec<String> = names.queues().into_iter().map(|queue| queue.name).collect();
    print_json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "environment": environment(root),
        "stage_queues": stages,
        "rescore_queue": names.rescore(),
        "queues": queues,
        "stage_time_limit_seconds": worker::WorkerSettings::default().time_limit.as_secs(),
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// The variables that each command reads.
fn environment(root: &clap::Command) -> BTreeMap<String, BTreeSet<String>> {
    let beside_flags = beside_flags();
    let of = |command: &clap::Command| {
        let named = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
        named.chain(beside_flags.iter().cloned()).collect()
    };
    root.get_subcommands().map(|command| (command.get_name().to_owned(), of(command))).collect()
}

/// The variables without a flag.
fn beside_flags() -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::from([telemetry::ENV.to_owned()]));
    let note = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        Some("x".to_owned())
    };
    let _ = s3::Keys::from_env(note);
    let mut all = asked.into_inner();
    all.extend(s3::VARIABLES.map(str::to_owned));
    all.extend(telemetry::VARIABLES.map(str::to_owned));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_flags_and_of_libraries_are_known() {
        let all = environment(&<crate::cli::Cli as clap::CommandFactory>::command());
        for name in ["FACEMILL_AMQP_URL", "FACEMILL_GRACE", "AWS_SECRET_ACCESS_KEY", "FACEMILL_LOG"] {
            assert!(all["work"].contains(name), "{name}");
        }
        assert!(!all["produce"].contains("FACEMILL_GRACE"), "only work has it");
    }
}
