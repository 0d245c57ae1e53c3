//! Printing for people and programs.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::source::Warnings;

/// Prints for a program: one JSON value on a line.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::broken)?;
    print_text(&format!("{text}\n"))
}

/// Prints to standard output. That nobody reads it is not an error.
pub fn print_text(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if !nobody_reads(&error) => Err(Failure::broken(format!("cannot print: {error}"))),
        _ => Ok(()),
    }
}

/// Whether a write to standard output failed because its reader, such as `head`, has closed it, or because its terminal
/// was closed.
pub fn nobody_reads(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || (error.raw_os_error() == Some(libc::EIO) && stdout_is_device())
}

/// A closed terminal no longer counts as a terminal, but is still a device.
fn stdout_is_device() -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    stdout.and_then(|stdout| stdout.metadata()).is_ok_and(|what| what.file_type().is_char_device())
}

/// Prints a line for a person to standard error. Unlike `eprintln!` it does not panic where nobody reads it: a command
/// goes on when its terminal is closed.
pub fn print_note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "facemill: {text}");
}

/// Prints the warnings of reading a source to standard error. Call it after the progress bar has finished.
pub fn print_warnings(warnings: &Warnings) {
    for warning in warnings.lines() {
        print_note(format_args!("warning: {warning}"));
    }
}

/// The end of a command that enqueues. Candidates with the ids of other photos are findings.
pub fn check_conflicts(in_conflict: u64) -> Result<ExitCode, Failure> {
    match in_conflict {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Failure::findings(format!(
            "not enqueued: {}, whose ids the run has for other photos; --id-prefix keeps two sources apart",
            counted(count, "photo")
        ))),
    }
}

/// A value in the form in which people write it.
pub fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The first lines of a long list, and how many things more there are; each line ends with a line break. `--json` has
/// all of them.
pub fn first_lines(lines: impl ExactSizeIterator<Item = String>, things: &str) -> String {
    const MOST: usize = 20;
    let more = lines.len().saturating_sub(MOST);
    let mut text: String = lines.take(MOST).collect();
    if more > 0 {
        text.push_str(&format!("... and {more} more {things}: see --json\n"));
    }
    text
}

/// `1 crop`, `2 crops`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {}", named(count, noun))
}

/// `photo` or `photos`.
pub fn named(count: u64, noun: &str) -> String {
    format!("{noun}{}", if count == 1 { "" } else { "s" })
}

/// How many faces a dataset has, and of how many labels.
pub fn faces_of_labels(faces: u64, labels: u64) -> String {
    match labels {
        0 => format!("{} without labels", counted(faces, "face")),
        _ => format!("{} of {}", counted(faces, "face"), counted(labels, "label")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_of_no_label_says_so() {
        assert_eq!(faces_of_labels(2, 1), "2 faces of 1 label");
        assert_eq!(faces_of_labels(1, 0), "1 face without labels");
    }
}
