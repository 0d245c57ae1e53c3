//! `facemill audit`.

use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::output::{counted, first_lines, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::reading::ReadingArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::cli::settings::source_arg::SourceArg;
use crate::domain::Printable;
use crate::services::audit::{self, Fault, FaultKind, FileCheck, FilesRead, Findings};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source that was run: a file, a folder with photos, s3://BUCKET/KEY, s3://BUCKET/PREFIX/, or `-` for standard
    /// input
    #[arg(value_parser = SourceArg::parser(), value_name = "SOURCE")]
    source: SourceArg,
    /// Also reads the originals and faces of the photos that have ended, and compares them with their hashes
    #[arg(long)]
    files: bool,
    /// With --files: only those of N photos, chosen at random
    #[arg(long, requires = "files", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    #[command(flatten)]
    reading: ReadingArgs,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let options = args.reading.options(Some(&args.source.to_string()))?;
    let bars = Bars::new(!args.place.json);
    let (findings, producer) = crate::cli::process::block_on(async {
        let s3 = || args.place.servers.s3.service().map_err(Failure::broken);
        let candidates = args.source.candidates(s3, options, &bars).await?;
        let target = args.place.open().await?;
        let producer = if target.folder().is_some() { "facemill run" } else { "facemill produce" };
        let sample = args.sample.map(|photos| photos as usize);
        let check = if args.files { FileCheck::Content { sample } } else { FileCheck::Existence };
        let bar = bars.count("check", sample.unwrap_or(candidates.len()) as u64);
        let findings = audit::compare(&target, &candidates, check, &|photos| bar.inc(photos)).await;
        bar.finish_and_clear();
        Ok((findings.map_err(Failure::broken)?, producer))
    })?;
    if args.place.json { print_json(&findings) } else { print_text(&text(&findings, producer)) }?;
    match findings.faults.len() {
        0 => Ok(ExitCode::SUCCESS),
        faults => Err(Failure::findings(format!("{} found", counted(faults as u64, "fault")))),
    }
}

/// `producer`: the command that enqueues missing candidates.
fn text(findings: &Findings, producer: &str) -> String {
    let mut text = String::new();
    write(&mut text, findings, producer).expect("writing to a String cannot fail");
    text
}

fn write(text: &mut String, findings: &Findings, producer: &str) -> std::fmt::Result {
    writeln!(text, "{:>9} candidates in the dump", findings.candidates)?;
    for (ending, count) in &findings.ended {
        writeln!(text, "{count:>9} {ending}")?;
    }
    writeln!(text, "{:>9} waiting", findings.waiting)?;
    if findings.others > 0 {
        writeln!(text, "{:>9} more in the ledger, from another dump", findings.others)?;
    }
    if let Some(FilesRead { photos, files, bytes }) = findings.files {
        let (files, photos) = (counted(files, "file"), counted(photos, "photo"));
        writeln!(text, "read {files} of {photos}: {:.1} MB", bytes as f64 / 1e6)?;
    }
    text.push_str(&first_lines(findings.faults.iter().map(|fault| line(fault, producer)), "faults"));
    if findings.faults.is_empty() {
        writeln!(text, "every candidate is accounted for")?;
    }
    Ok(())
}

fn line(Fault { photo_id, kind, detail }: &Fault, producer: &str) -> String {
    let remedy = match kind {
        FaultKind::Missing => format!(": `{producer}` enqueues it"),
        FaultKind::LostObject if detail.starts_with("faces/") && producer == "facemill run" => {
            format!(": `{producer} --remake-faces` makes it again")
        }
        FaultKind::Conflict => ": --id-prefix keeps two sources apart".to_owned(),
        _ => String::new(),
    };
    format!("photo {}: {}: {detail}{remedy}\n", photo_id.as_str().printable(), kind.as_str())
}
