//! Printing for people and programs.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::source::Warnings;

/// Prints for a program: one JSON value on a line.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::broken)?;
    print_text(&format!("{text}\n"))
}

/// Prints to standard output. A reader that closes it early, such as `head`, is not an error.
pub fn print_text(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::broken(format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints the warnings of reading a source to standard error. Call it after the progress bar has finished.
pub fn print_warnings(warnings: &Warnings) {
    for warning in warnings.lines() {
        // Without standard error there is nobody to warn.
        let _ = writeln!(io::stderr().lock(), "facemill: warning: {warning}");
    }
}

/// The end of a command that enqueues. Candidates with the ids of other photos are findings.
pub fn check_conflicts(in_conflict: u64) -> Result<ExitCode, Failure> {
    match in_conflict {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Failure::findings(format!(
            "{count} photos were not enqueued: the run has other photos with their ids; --id-prefix keeps two sources apart"
        ))),
    }
}

/// A value in the form in which people write it.
pub fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `1 crop`, `2 crops`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
