//! The command line: one file a command family. It prints for people and, with `--json`, for programs.

pub mod audit;
pub mod candidates;
pub mod demo;
pub mod doctor;
pub mod report;
pub mod run;
pub mod status;
pub mod train;
pub mod why;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Turns a heap of photo URLs into a clean, aligned face dataset.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes a dump all the way: fetch, detect, crop and classify, in this process
    Run(run::Args),
    /// Prints the candidate photos of a dump: those with exactly one labelled face
    Candidates(candidates::Args),
    /// Shows where the photos of a run are
    Status(status::Args),
    /// Tells everything that happened to one photo
    Why(why::Args),
    /// Compares a dump with the ledger: every candidate must have exactly one state
    Audit(audit::Args),
    /// Writes the report of a run again
    Report(report::Args),
    /// Trains the OK/NG classifier from labelled crops
    Train(train::Args),
    /// Checks everything facemill needs, one line each, with the remedy
    Doctor(doctor::Args),
    /// Makes a small collection, serves it from a local host, good and bad, and runs it
    Demo(demo::Args),
}

/// Why a command ended badly, and the exit code that says so.
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

/// Runs the command line and answers the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("facemill: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Candidates(args) => candidates::run(args),
        Command::Status(args) => status::run(args),
        Command::Why(args) => why::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Report(args) => report::run(args),
        Command::Train(args) => train::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Demo(args) => demo::run(args),
    }
}
