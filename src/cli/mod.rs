//! The command line: one file a command family. It prints for people and, with `--json`, for programs.

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
enum Command {}

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
    match command {}
}
