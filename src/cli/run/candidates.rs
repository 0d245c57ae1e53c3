//! `facemill candidates`.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::output::nobody_reads;
use crate::cli::progress::Bars;
use crate::cli::settings::reading::ReadingArgs;
use crate::cli::settings::servers::S3Args;
use crate::cli::settings::source_arg::SourceArg;
use crate::domain::Candidate;
use crate::source::COLUMNS;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A dump, a list of URLs or a table of photos, of any kind and compression: a file, s3://BUCKET/KEY, or `-` for
    /// standard input; or a folder with photos: a path, or s3://BUCKET/PREFIX/
    #[arg(value_parser = SourceArg::parser(), value_name = "SOURCE")]
    source: SourceArg,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    reading: ReadingArgs,
    #[command(flatten)]
    s3: S3Args,
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
    let bars = Bars::new(true);
    let _telemetry = crate::cli::process::observe("facemill=warn", &bars, "facemill", false)?;
    let s3 = || args.s3.service().map_err(Failure::broken);
    let candidates = crate::cli::process::block_on(args.source.candidates(s3, options, &bars))?;
    match print(&candidates, args.format) {
        Err(error) if !nobody_reads(&error) => Err(Failure::broken(format!("cannot print the candidates: {error}"))),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn print(candidates: &[Candidate], format: Format) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let further: BTreeSet<&str> = candidates.iter().flat_map(|one| one.columns.keys()).map(String::as_str).collect();
    let header = || COLUMNS.into_iter().chain(further.iter().copied()).map(Some);
    let row = |candidate| row(candidate, &further);
    match format {
        Format::Csv => writeln!(out, "{}", join(header(), csv, ","))?,
        Format::Tsv => writeln!(out, "{}", join(header(), tsv, "\t"))?,
        Format::Jsonl => {}
    }
    for candidate in candidates {
        match format {
            Format::Csv => writeln!(out, "{}", join(row(candidate), csv, ","))?,
            Format::Tsv => writeln!(out, "{}", join(row(candidate), tsv, "\t"))?,
            Format::Jsonl => {
                serde_json::to_writer(&mut out, candidate)?;
                out.write_all(b"\n")?;
            }
        }
    }
    out.flush()
}

/// The candidate's values, then those of its further columns.
fn row<'c>(candidate: &'c Candidate, further: &BTreeSet<&str>) -> impl Iterator<Item = Option<&'c str>> {
    let column = |name: &&str| candidate.columns.get(*name).map(String::as_str);
    values(candidate).into_iter().chain(further.iter().map(column).collect::<Vec<_>>())
}

fn join<'a>(values: impl Iterator<Item = Option<&'a str>>, write: fn(Option<&str>) -> String, between: &str) -> String {
    values.map(write).collect::<Vec<_>>().join(between)
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
    fn further_columns_follow() {
        let columns = [("licence".to_owned(), "by, sa".to_owned())].into();
        let candidate = Candidate { columns, ..Candidate::example(1) };
        let further = BTreeSet::from(["born", "licence"]);
        let line = join(row(&candidate, &further), csv, ",");
        assert_eq!(line, "1,1,,http://photos.test/1.jpg,,1,,,\"by, sa\"");
    }

    #[test]
    fn values_are_written_as_postgresql_writes_them() {
        assert_eq!(
            [None, Some(""), Some("a\"b"), Some(" a\\b;"), Some("a,\n")].map(csv),
            ["", "\"\"", "\"a\"\"b\"", " a\\b;", "\"a,\n\""]
        );
        assert_eq!([None, Some(""), Some("a\t\\N\n宇")].map(tsv), ["\\N", "", "a\\t\\\\N\\n宇"]);
    }
}
