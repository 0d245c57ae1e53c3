//! The command line: one file a command family. It prints for people and, with `--json`, for programs.

pub mod dataset;
pub mod inspect;
pub mod operate;
pub mod run;
pub mod settings;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use dataset::{faces, models, synthetic, train};
use inspect::{audit, describe, doctor, report, simulate, status, why};
use operate::{dead, pause, produce, rebuild, retry, work};
use run::{candidates, demo, progress};
use settings::settings_file::{self, SettingsFile};
use settings::show_settings;

use crate::telemetry::{self, Telemetry};

/// Turns a heap of photo URLs into a clean, aligned face dataset.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// A TOML file with settings: `per-host = 2` for all commands, below `[work]` for one. Flags and the environment
    /// override it
    #[arg(long, env = "FACEMILL_SETTINGS", global = true, value_name = "FILE")]
    settings: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all stages on a dump in this process: fetch, detect, crop and classify
    Run(run::Args),
    /// Enqueues the candidate photos of a dump for the workers of an installation
    Produce(produce::Args),
    /// Runs one or more stages of an installation
    Work(work::Args),
    /// Prints the candidate photos of a dump: those with exactly one labelled face
    Candidates(candidates::Args),
    /// Shows where the photos of a run are
    Status(status::Args),
    /// Prints the history of one photo
    Why(why::Args),
    /// Lists dead letters, requeues their photos, or deletes them
    Dead(dead::Args),
    /// Requeues photos that ended for a cause
    Retry(retry::Args),
    /// Pauses stages or hosts for all workers of an installation; alone, lists what is paused
    Pause(pause::PauseArgs),
    /// Resumes paused stages or hosts
    Resume(pause::ResumeArgs),
    /// Compares a dump with the ledger: every candidate must have exactly one state
    Audit(audit::Args),
    /// Restores the lost ledger of a run from its records and its dump
    Rebuild(rebuild::Args),
    /// Predicts how long a collection takes, or how many workers it needs
    Simulate(simulate::Args),
    /// Writes the report of a run again
    Report(report::Args),
    /// Lists the faces of a run that fulfil a query
    Faces(faces::Args),
    /// Trains the OK/NG classifier from labelled crops
    Train(train::Args),
    /// Lists stored classifiers, shows one, or makes one the current classifier of a run
    Models(models::Args),
    /// Cuts whole-head photographs into labelled crops, for a first training without verdicts
    #[command(hide = true)]
    Synthetic(synthetic::Args),
    /// Checks everything that facemill needs, one line each, with remedies
    Doctor(doctor::Args),
    /// Prints the names of queues and variables, for programs that deploy this one
    #[command(hide = true)]
    Describe(describe::Args),
    /// Prints the settings in force and their origin
    Settings(show_settings::Args),
    /// Makes a small collection with good and bad hosts, serves it locally and runs it
    Demo(demo::Args),
}

/// The commands with their flags, whose defaults are those of the settings file.
pub struct Definition {
    command: clap::Command,
    file: Option<SettingsFile>,
}

impl Definition {
    fn load(arguments: &[OsString]) -> Result<Self, Failure> {
        let command = Cli::command();
        let Some(path) = settings_file::find(arguments) else { return Ok(Self { command, file: None }) };
        match SettingsFile::read(&path, &command) {
            Ok(file) => Ok(Self { command: file.apply(command), file: Some(file) }),
            // Who asks for help gets it.
            Err(faults) => match command.try_get_matches_from(arguments) {
                Err(error) if !error.use_stderr() => error.exit(),
                _ => Err(faults),
            },
        }
    }

    /// A usage error ends the process with clap's message and exit code.
    fn parse(&self, arguments: &[OsString]) -> Command {
        let mut command = self.command.clone();
        let matches = command.try_get_matches_from_mut(arguments).unwrap_or_else(|error| error.exit());
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit()).command
    }
}

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The answer is no: an audit found something, a doctor's check failed. Exit 1.
    pub fn findings(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    /// Something could not be done: bad input, an unreachable server, a full disk. Exit 3. (2 is clap's, for usage.)
    pub fn broken(message: impl fmt::Display) -> Self {
        Self { code: 3, message: message.to_string() }
    }
}

impl Failure {
    /// All faults, not only the first.
    pub fn all(faults: Vec<String>) -> Self {
        Self::broken(faults.join("\n          "))
    }

    /// Two things that can be wrong at once.
    pub fn join<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => Err(Self::all(vec![one.message, other.message])),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    }
}

/// The exit code of an interrupted command, as shells report Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    Definition::load(&arguments)
        .and_then(|definition| dispatch(definition.parse(&arguments), &definition))
        .unwrap_or_else(|failure| {
            eprintln!("facemill: {}", failure.message);
            ExitCode::from(failure.code)
        })
}

fn dispatch(command: Command, definition: &Definition) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Work(args) => work::run(&args),
        Command::Candidates(args) => candidates::run(args),
        Command::Status(args) => status::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Dead(args) => dead::run(&args),
        Command::Retry(args) => retry::run(&args),
        Command::Audit(args) => audit::run(args),
        Command::Rebuild(args) => rebuild::run(args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => pause::resume(&args),
        Command::Settings(args) => show_settings::run(&args, definition),
        Command::Report(args) => report::run(&args),
        Command::Faces(args) => faces::run(&args),
        Command::Train(args) => train::run(args).map(|()| ExitCode::SUCCESS),
        Command::Models(args) => models::run(&args),
        Command::Synthetic(args) => synthetic::run(args).map(|()| ExitCode::SUCCESS),
        Command::Simulate(args) => simulate::run(&args),
        Command::Describe(args) => describe::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(args),
    }
}

/// Begins to log, and to send traces and metrics where the environment says so. `scraped`: somebody will read the
/// metrics here. To be kept until the command is done.
fn observe(log: &str, bars: &progress::Bars, service: &str, scraped: bool) -> Result<Telemetry, Failure> {
    let settings = telemetry::TelemetrySettings { log, sink: bars.sink(), service: service.to_owned(), scraped };
    Telemetry::start(settings).map_err(Failure::broken)
}

/// Runs a command's asynchronous part.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::broken)?;
    runtime.block_on(work)
}

/// Shuts down in order after the first Ctrl-C or SIGTERM, and exits at once after the second.
async fn signals(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return tracing::warn!("signals cannot be caught: Ctrl-C ends at once");
    };
    let mut next = async || tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () };
    next().await;
    eprintln!("finishing what is in flight; once more to stop at once");
    shutdown.cancel();
    next().await;
    std::process::exit(INTERRUPTED.into());
}

/// Prints for a program: one JSON value on a line.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::broken)?;
    print_text(&format!("{text}\n"))
}

/// Prints to standard output. A reader that closes it early, such as `head`, is not an error.
fn print_text(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::broken(format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

/// A value as a person writes it.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
