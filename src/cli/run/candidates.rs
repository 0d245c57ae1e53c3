//! `facemill candidates`.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::progress::Bars;
use crate::cli::settings::reading::ReadingArgs;
use crate::domain::Candidate;
use crate::source::{self, COLUMNS, Input};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump, of any kind and compression; `-` is standard input
    dump: Input,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    reading: ReadingArgs,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// As PostgreSQL's `COPY ... CSV HEADER`: NULL is empty, an empty text is `""`
    #[default]
    Csv,
    /// As PostgreSQL's `COPY ... HEADER`: NULL is `\N`
    Tsv,
    /// One JSON object a line
    Jsonl,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let options = args.reading.options(None)?;
    let reading = Bars::new(true).reading();
    let candidates = source::candidates(&args.dump, &options, &mut |progress| reading.show(progress));
    reading.finish();
    let candidates = candidates.map_err(Failure::broken)?;
    match print(&candidates, args.format) {
        // A reader such as `head` closes the pipe early.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::broken(format!("cannot print the candidates: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn print(candidates: &[Candidate], format: Format) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    match format {
        Format::Csv => writeln!(out, "{}", COLUMNS.join(","))?,
        Format::Tsv => writeln!(out, "{}", COLUMNS.join("\t"))?,
        Format::Jsonl => {}
    }
    for candidate in candidates {
        match format {
            Format::Csv => writeln!(out, "{}", values(candidate).map(csv).join(","))?,
            Format::Tsv => writeln!(out, "{}", values(candidate).map(tsv).join("\t"))?,
            Format::Jsonl => {
                serde_json::to_writer(&mut out, candidate)?;
                out.write_all(b"\n")?;
            }
        }
    }
    out.flush()
}

/// The candidate's values in the order of [`COLUMNS`]. A photo without a URL has an empty one; it was NULL.
fn values(candidate: &Candidate) -> [Option<&str>; 7] {
    [
        Some(candidate.face_id.as_str()),
        Some(candidate.photo_id.as_str()),
        candidate.source_url.as_deref(),
        Some(candidate.photo_url.as_str()).filter(|url| !url.is_empty()),
        candidate.posted_at.as_deref(),
        Some(candidate.label_id.as_str()),
        candidate.label_name.as_deref(),
    ]
}

fn csv(value: Option<&str>) -> String {
    match value {
        None => String::new(),
        Some("") => "\"\"".into(),
        Some(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Some(text) => text.into(),
    }
}

fn tsv(value: Option<&str>) -> String {
    let Some(text) = value else { return "\\N".into() };
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\u{8}' => escaped.push_str("\\b"),
            '\u{b}' => escaped.push_str("\\v"),
            '\u{c}' => escaped.push_str("\\f"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_postgresql_writes_them() {
        assert_eq!(
            [None, Some(""), Some("a\"b"), Some(" a\\b;"), Some("a,\n")].map(csv),
            ["", "\"\"", "\"a\"\"b\"", " a\\b;", "\"a,\n\""]
        );
        assert_eq!([None, Some(""), Some("a\t\\N\n宇")].map(tsv), ["\\N", "", "a\\t\\\\N\\n宇"]);
    }
}
