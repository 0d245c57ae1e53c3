//! `facemill candidates`.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::photo::Candidate;
use crate::source::{self, COLUMNS, Input, Mapping, Options, Progress};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump, of any kind and compression; `-` is standard input
    dump: Input,
    /// How to print the candidates
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// What a table or column is called: photos=gallery.images, photos.photo_url=images.url, photos.posted_at= (none)
    #[arg(long = "map", value_name = "NAME=NAME")]
    map: Vec<String>,
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

pub fn run(args: Args) -> Result<(), Failure> {
    let mapping = Mapping::parse(&args.map).map_err(Failure::broken)?;
    let bar = bar();
    let candidates = source::candidates(&args.dump, &Options { mapping }, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let candidates = candidates.map_err(Failure::broken)?;
    match print(&candidates, args.format) {
        // Whoever reads, `head` for one, has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::broken(format!("the candidates cannot be printed: {error}"))),
    }
}

/// Nothing is shown unless standard error is a terminal.
fn bar() -> ProgressBar {
    if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() }
}

fn show(bar: &ProgressBar, progress: Progress) {
    let template = match progress.total {
        Some(_) => "{bytes} of {total_bytes} {wide_bar} {binary_bytes_per_sec}, {eta} left, {msg}",
        None => "{spinner} {bytes}, {binary_bytes_per_sec}, {msg}",
    };
    if bar.is_hidden() {
        return;
    }
    if bar.position() == 0
        && let Ok(style) = ProgressStyle::with_template(template)
    {
        bar.set_style(style);
    }
    if let Some(total) = progress.total {
        bar.set_length(total);
    }
    bar.set_position(progress.bytes);
    bar.set_message(format!("{} rows", progress.rows));
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
