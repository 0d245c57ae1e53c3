//! From the dump of a source database to its candidate photos.
//!
//! ```text
//! input       file or standard input, unpacked         table       CSV, TSV, JSON lines
//! stream      a window on the bytes, with a place      sqlite      an SQLite file
//! lexer       the words of SQL                         mapping     what the tables and columns are called
//! script      statements: what is where                catalogue   which tables there are
//! values      the rows of an INSERT                    candidates  the query, with moment and spool
//! postgres    the rows of a COPY; pg_restore
//! ```
//!
//! A dump is read once, from front to end, in memory that does not grow with the tables that are not ours.

mod candidates;
mod catalogue;
mod error;
mod input;
mod lexer;
mod mapping;
pub mod moment;
mod postgres;
mod script;
mod spool;
mod sqlite;
mod stream;
mod table;
mod values;

use std::io::Read;

pub use error::{Position, SourceError};
pub use input::Input;
pub use mapping::{BadMapping, Mapping, Role};
pub use stream::Progress;
pub use table::COLUMNS;

use crate::domain::Candidate;
use candidates::Gatherer;
use input::Opened;
use postgres::{Archive, Restore};
use stream::{BOM, Stream};

/// How to read a dump.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub mapping: Mapping,
}

/// How pg_dump's custom format begins.
const CUSTOM_FORMAT: &[u8] = b"PGDMP";

/// Reads the dump to its end and answers the candidates in the order of the query. Nothing is answered when the dump
/// is broken. `progress` is called now and then.
///
/// # Errors
/// The dump cannot be read, is none of the known kinds, is broken or cut off (with its place), or lacks tables or
/// columns (with the `--map` that would help).
pub fn candidates(
    input: &Input,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    read(input.open()?, options, progress)
}

/// As [`candidates`], from any reader.
///
/// # Errors
/// As [`candidates`].
pub fn candidates_from(
    reader: impl Read + Send + 'static,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    read(input::open(Box::new(reader))?, options, progress)
}

fn read(opened: Opened, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Candidate>, SourceError> {
    let Opened { reader, head, meter, plain_file, .. } = opened;
    let mapping = &options.mapping;
    let mut gatherer = Gatherer::default();
    if head.starts_with(CUSTOM_FORMAT) {
        let archive = plain_file.map_or(Archive::Stream(reader), Archive::File);
        let (restore, output) = Restore::start("pg_restore", archive)?;
        let stream = Stream::new(Box::new(output), meter, progress);
        restore.finish(script::read(stream, lexer::Dialect::Standard, mapping, &mut gatherer))?;
    } else if head.starts_with(sqlite::MAGIC) {
        match plain_file {
            Some(path) => sqlite::read(&path, mapping, &mut gatherer, progress)?,
            None => sqlite::read(sqlite::unpack(reader)?.path(), mapping, &mut gatherer, progress)?,
        }
    } else {
        let stream = Stream::new(reader, meter, progress);
        if let Some(format) = table::sniff(&head, mapping) {
            return table::read(stream, format, mapping);
        }
        let dialect = script::dialect(&head);
        known(stream, &head).and_then(|stream| script::read(stream, dialect, mapping, &mut gatherer))?;
    }
    gatherer.finish()
}

/// Passes the stream on if it can be an SQL script.
fn known<'s>(mut stream: Stream<'s>, head: &[u8]) -> Result<Stream<'s>, SourceError> {
    const BEGINNINGS: &str = "-- /* \\ # COPY INSERT REPLACE CREATE DROP ALTER SET SELECT BEGIN START COMMIT USE LOCK \
        PRAGMA DELIMITER TRUNCATE DELETE";
    let start = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    let is = |word: &str| start.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word.as_bytes()));
    if !BEGINNINGS.split_whitespace().any(is) {
        // If it breaks off so early, that says more.
        stream.fill(head.len() + 1)?;
        if start.is_empty() {
            return Err(SourceError::Unknown("the dump is empty".into()));
        }
        let shown = String::from_utf8_lossy(&start[..start.len().min(24)]).escape_debug().to_string();
        return Err(SourceError::Unknown(format!(
            "what begins with `{shown}` is no dump that can be read: give the output of pg_dump (plain or custom), \
             mysqldump or mariadb-dump, an SQLite file, or CSV, TSV or JSON lines with columns photo_id and photo_url \
             (or what --map photos.photo_url=COLUMN calls them), each plain or as gz, zst, xz or bz2"
        )));
    }
    if head.starts_with(BOM) {
        stream.fill(BOM.len())?;
        stream.consume(BOM.len());
    }
    Ok(stream)
}
