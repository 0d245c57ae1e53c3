//! `facemill verdicts`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use crate::atomic_file::AtomicFile;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::process::person;
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::services::verdict_files::{Defaults, Imported, VerdictFormat, export, import};
use crate::verdicts::VerdictLog;

/// Lines without a face that are named.
const NAMED: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Writes all verdicts of a run, in the order in which they were made
    Export {
        /// The output file [default: standard output]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// The format [default: csv if the file's name ends in .csv, else jsonl]
        #[arg(long, value_enum)]
        format: Option<FileFormat>,
        /// Leaves out verdicts that a later one replaces
        #[arg(long)]
        current: bool,
        #[command(flatten)]
        target: RunTargetArgs,
    },
    /// Adds judgements from a file: JSON lines or CSV with photo_id or crop, judgement, and optionally reason, by, at
    Import {
        /// The file; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The format [default: csv if the file's name ends in .csv, else jsonl]
        #[arg(long, value_enum)]
        format: Option<FileFormat>,
        /// Who judged, where the file does not say [default: this user]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        #[command(flatten)]
        index: IndexArgs,
        #[command(flatten)]
        target: RunTargetArgs,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileFormat {
    Jsonl,
    Csv,
}

fn format(given: Option<FileFormat>, file: Option<&Path>) -> VerdictFormat {
    let is_csv = || file.and_then(Path::extension).is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    match given {
        Some(FileFormat::Csv) => VerdictFormat::Csv,
        Some(FileFormat::Jsonl) => VerdictFormat::JsonLines,
        None if is_csv() => VerdictFormat::Csv,
        None => VerdictFormat::JsonLines,
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        match &args.action {
            Action::Export { to, format: given, current, target } => {
                write(target, to.as_deref(), format(*given, to.as_deref()), *current).await
            }
            Action::Import { file, format: given, by, index, target } => {
                let by = by.clone().unwrap_or_else(person);
                read(target, index, file, format(*given, Some(file)), by).await
            }
        }
    })
}

async fn write(
    target: &RunTargetArgs,
    to: Option<&Path>,
    format: VerdictFormat,
    current: bool,
) -> Result<ExitCode, Failure> {
    let opened = target.open().await?;
    let log = VerdictLog::new(opened.objects.clone(), opened.run.clone());
    let Some(path) = to else {
        let mut text = Vec::new();
        export(&log, format, current, &mut text).await.map_err(Failure::broken)?;
        print_text(&String::from_utf8_lossy(&text))?;
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |error| Failure::broken(format!("cannot write {}: {error}", path.display()));
    let mut file = AtomicFile::create(path).map_err(failed)?;
    let written = export(&log, format, current, &mut file).await.map_err(Failure::broken)?;
    file.flush().and_then(|()| file.publish()).map_err(failed)?;
    match target.json {
        true => print_json(&serde_json::json!({ "verdicts": written, "file": path }))?,
        false => print_text(&format!("{}: {}\n", path.display(), counted(written, "verdict")))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(
    target: &RunTargetArgs,
    index: &IndexArgs,
    path: &Path,
    format: VerdictFormat,
    by: String,
) -> Result<ExitCode, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::broken(format!("{}: {error}", path.display()));
    let mut from: Box<dyn BufRead + Send> = match path.as_os_str() == "-" {
        true => Box::new(BufReader::new(std::io::stdin())),
        false => Box::new(BufReader::new(File::open(path).map_err(|error| named(&error))?)),
    };
    let opened = target.open().await?;
    let log = VerdictLog::new(opened.objects.clone(), opened.run.clone());
    let (mut index, source) = index.open(&opened)?;
    let bars = Bars::new(!target.json);
    let updated = source.follow(&mut index, &progress(&bars)).await;
    updated.map_err(Failure::broken)?;
    let bar = bars.count("verdicts", 0);
    let stored = |count| {
        bar.inc_length(count);
        bar.inc(count);
    };
    let defaults = Defaults { by, at: now().as_millis() as u64 };
    let imported = import(log, &index, format, &mut from, &defaults, &stored).await;
    bars.clear();
    let imported = imported.map_err(|error| named(&error))?;
    match target.json {
        true => print_json(&imported)?,
        false => print_text(&summary(&imported))?,
    }
    // Nothing of the rest is lost, but the person must look at these lines.
    Ok(if imported.unknown.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn summary(imported: &Imported) -> String {
    let mut text = format!("stored {}", counted(imported.stored, "verdict"));
    if imported.known > 0 {
        text.push_str(&format!(", {} known already", imported.known));
    }
    text.push('\n');
    if imported.conflicts > 0 {
        let crops = counted(imported.conflicts, "crop");
        text.push_str(&format!("{crops} now with verdicts that contradict each other: these are pending\n"));
    }
    if !imported.unknown.is_empty() {
        let lines: Vec<String> = imported.unknown.iter().take(NAMED).map(u64::to_string).collect();
        let more = if imported.unknown.len() > NAMED { ", ..." } else { "" };
        let (count, lines) = (counted(imported.unknown.len() as u64, "line"), lines.join(", "));
        text.push_str(&format!("{count} without a face in this run, not stored: {lines}{more}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_a_person_must_look_at() {
        let imported = Imported { stored: 1, ..Imported::default() };
        assert_eq!(summary(&imported), "stored 1 verdict\n");
        let imported = Imported { stored: 30, known: 2, unknown: (1..=21).collect(), conflicts: 1 };
        let lines: Vec<String> = (1..=20).map(|line: u64| line.to_string()).collect();
        let expected = format!(
            "stored 30 verdicts, 2 known already\n1 crop now with verdicts that contradict each other: these are \
             pending\n21 lines without a face in this run, not stored: {}, ...\n",
            lines.join(", ")
        );
        assert_eq!(summary(&imported), expected);
    }

    #[test]
    fn the_name_of_the_file_gives_the_format() {
        assert_eq!(format(None, Some(Path::new("labels.CSV"))), VerdictFormat::Csv);
        assert_eq!(format(None, Some(Path::new("labels.jsonl"))), VerdictFormat::JsonLines);
        assert_eq!(format(Some(FileFormat::Csv), None), VerdictFormat::Csv);
        assert_eq!(format(None, None), VerdictFormat::JsonLines);
    }
}
