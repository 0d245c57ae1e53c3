//! Reads the candidate photos from the dump of a source database.
//!
//! ```text
//! photo_folder  photos that are in a folder already      judgements  what people said about photos
//! input       file or standard input, decompressed       table, csv  CSV, TSV, JSON lines; parquet: Parquet
//! list        URLs, one a line                           table_columns  the columns of these tables
//! gzip, utf16 kinds of input that need care              sqlite      an SQLite file, and the query on it
//! stream      a window on the bytes, with positions      sqlite_script  a script of SQLite, which SQLite runs
//! sql         SQL scripts of PostgreSQL and MySQL
//! charset     character sets                             pg_restore  pg_dump's custom format
//! mapping     names of tables and columns                candidates  the query, with timestamp and spool
//! column      types of columns, and what they store      compare     how ids are compared
//! warnings    what the user is told besides              key_index   ids that come twice
//! kept_columns  further columns of a dump         join        whether the joins are those of the database
//! asked       a photo that somebody asks about
//! ```
//!
//! A dump is read once, front to back. Memory does not grow with the tables that the query does not use.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

mod asked;
mod candidates;
mod charset;
mod column;
mod compare;
mod csv;
mod error;
mod gzip;
mod input;
mod join;
pub mod judgements;
mod kept_columns;
mod key_index;
mod list;
mod mapping;
mod parquet;
mod parquet_pages;
mod pg_restore;
mod photo_folder;
mod spool;
mod sql;
mod sqlite;
mod sqlite_script;
mod stream;
mod table;
mod table_columns;
pub mod timestamp;
mod utf16;
mod value_form;
mod warnings;

use std::io::Read;
use std::sync::Arc;

pub use asked::{AskedPhoto, FoundFace, FoundPhoto};
pub use error::{Position, SourceError};
pub use input::Input;
pub use mapping::{KeptColumn, Mapping, MappingError, Role};
pub use photo_folder::PhotoFolder;
pub use stream::Progress;
pub use table_columns::COLUMNS;
pub use warnings::Warnings;

use candidates::CandidateBuilder;
use compare::Comparer;
use facemill_domain::{Candidate, Id, Printable};
use input::OpenedDump;
use judgements::Judgements;
use pg_restore::{Archive, PgRestore};
use stream::{BOM, ReadMeter, Stream};

/// Options for reading a source.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub mapping: Mapping,
    /// Whether refusals that need not concern the candidates become warnings.
    pub lenient: bool,
    /// The delimiter of a CSV file, if it is no comma.
    pub delimiter: Option<u8>,
    /// Receives the warnings. They are complete when the reading ends.
    pub warnings: Warnings,
    /// The name of the source in the record of each photo.
    pub name: Option<String>,
    /// Precedes every id, so that the ids of two sources differ.
    pub id_prefix: String,
    /// Whether the first sub-folder of a photo folder is the label of its photos.
    pub label_from_folder: bool,
    /// Judgements that the photos carry as columns.
    pub judgements: Option<Arc<Judgements>>,
    /// A photo that somebody asks about. It has its answer when the reading ends.
    pub asked: Option<AskedPhoto>,
}

impl Options {
    /// Adds what all kinds of sources have in common.
    fn complete(&self, candidates: &mut [Candidate]) {
        if let Some(judgements) = &self.judgements {
            judgements.add_to(candidates);
        }
        for candidate in candidates {
            candidate.source.clone_from(&self.name);
            if !self.id_prefix.is_empty() {
                for id in [&mut candidate.photo_id, &mut candidate.face_id, &mut candidate.label_id] {
                    // A photo without a label has an empty label id.
                    if !id.as_str().is_empty() {
                        *id = Id::new(format!("{}{id}", self.id_prefix));
                    }
                }
            }
        }
    }
}

/// First bytes of pg_dump's custom format.
const CUSTOM_FORMAT: &[u8] = b"PGDMP";

/// Magic of a tar archive, and its place in the first header.
const TAR: (usize, &[u8]) = (257, b"ustar");
/// The name of the first file in a tar archive by pg_dump.
const PG_DUMP_TAR: &[u8] = b"toc.dat\0";
const ZIP: &[u8] = b"PK\x03\x04";

/// Reads the whole dump and returns the candidates in the order of the query. A broken dump yields an error and no
/// candidates. `progress` is called after each read.
///
/// # Errors
/// The dump is unreadable, of an unknown kind, broken or truncated (with the position), or lacks tables or columns
/// (with the `--map` entry that helps).
pub fn candidates(
    input: &Input,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    read_and_complete(input.open(&options.warnings)?, options, progress)
}

/// Like [`candidates`], from any reader.
///
/// # Errors
/// Those of [`candidates`].
pub fn candidates_from(
    reader: impl Read + Send + 'static,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    read_and_complete(input::open(Box::new(reader), &options.warnings)?, options, progress)
}

fn read_and_complete(
    opened: OpenedDump,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    check_is_no_archive(&opened.head)?;
    let is_simple = options.mapping.kept().is_empty() || has_own_columns(&opened.head, options)?;
    let mut candidates = match is_simple {
        true => read(opened, options, progress)?,
        false => read_with_columns(opened, options, progress)?,
    };
    options.complete(&mut candidates);
    Ok(candidates)
}

/// Whether the source is no dump of a database: a table carries its columns itself.
fn has_own_columns(head: &[u8], options: &Options) -> Result<bool, SourceError> {
    Ok(head.starts_with(parquet::MAGIC)
        || list::sniff(head)
        || table::sniff(head, &options.mapping, options.delimiter)?.is_some())
}

/// Reads a dump several times: see [`kept_columns`].
fn read_with_columns(
    opened: OpenedDump,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    let unpacked;
    let path = match &opened.plain_file {
        Some(path) => path.clone(),
        None => {
            unpacked = input::unpack_to_file(opened.reader)?;
            unpacked.path().to_owned()
        }
    };
    let mut pass = |mapping: &Mapping, warnings: Warnings| {
        let options = Options { mapping: mapping.clone(), warnings, ..options.clone() };
        read(Input::File(path.clone()).open(&options.warnings)?, &options, progress)
    };
    let mut candidates = pass(&options.mapping, options.warnings.clone())?;
    // The other passes would only repeat the warnings.
    let pass = |mapping: &Mapping| pass(mapping, Warnings::default());
    kept_columns::add(&mut candidates, &options.mapping, pass)?;
    Ok(candidates)
}

fn read(
    opened: OpenedDump,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    let OpenedDump { reader, head, meter, plain_file, .. } = opened;
    let Options { mapping, lenient, delimiter, warnings, asked, .. } = options;
    let mut builder = CandidateBuilder::new(mapping, asked.clone());
    let is_tar = is_tar(&head) && head.starts_with(PG_DUMP_TAR);
    let comparer;
    if head.starts_with(CUSTOM_FORMAT) || is_tar {
        let archive = plain_file.map_or(Archive::Stream(reader), Archive::File);
        let (restore, output) = PgRestore::start("pg_restore", archive)?;
        let stream = Stream::new(Box::new(output), ReadMeter { compressed: false, ..meter }, progress);
        let target = sql::Target { builder: &mut builder, mapping, warnings, lenient: *lenient };
        restore.finish(sql::read(stream, sql::Dialect::Postgres, target))?;
        comparer = Comparer::Postgres;
    } else if head.starts_with(parquet::MAGIC) {
        return match plain_file {
            Some(path) => parquet::read(&path, mapping, progress),
            None => parquet::read(input::unpack_to_file(reader)?.path(), mapping, progress),
        };
    } else if head.starts_with(sqlite::MAGIC) {
        let unpacked;
        let path = match plain_file {
            Some(path) => path,
            None => {
                unpacked = input::unpack_to_file(reader)?;
                unpacked.path().to_owned()
            }
        };
        let reading = sqlite::Reading { mapping, warnings, lenient: *lenient, asked: asked.as_ref() };
        return sqlite::read(&path, &reading, progress);
    } else {
        // Old programs end lines with a carriage return alone.
        let first_line = memchr::memchr2(b'\n', b'\r', &head);
        let returns = first_line.is_some_and(|at| head[at] == b'\r' && head.get(at + 1) != Some(&b'\n'));
        let reader: Box<dyn Read> = match returns && memchr::memchr(b'\n', &head).is_none() {
            true => Box::new(input::LineEnds(reader)),
            false => reader,
        };
        let stream = Stream::new(reader, meter, progress);
        if list::sniff(&head) {
            return match mapping.kept() {
                [] => list::read(stream),
                [kept, ..] => Err(SourceError::Unfit(vec![format!(
                    "--keep {}: a list of URLs has no columns: give a CSV or TSV file with a header line",
                    kept.entry
                )])),
            };
        }
        if let Some(format) = table::sniff(&head, mapping, *delimiter)? {
            let reading = table::TableReading { warnings, lenient: *lenient };
            return table::read(stream, format, mapping, reading);
        }
        let stream = check_is_sql(stream, &head)?;
        let Some(dialect) = sql::dialect(&head) else {
            let reading = sqlite::Reading { mapping, warnings, lenient: *lenient, asked: asked.as_ref() };
            let connection = sqlite_script::load(stream, &reading)?;
            return sqlite::query(&connection, 0, &reading, progress);
        };
        let target = sql::Target { builder: &mut builder, mapping, warnings, lenient: *lenient };
        sql::read(stream, dialect, target)?;
        comparer = sql::comparer(dialect);
    }
    builder.finish(comparer, *lenient, warnings)
}

fn is_tar(head: &[u8]) -> bool {
    head.get(TAR.0..).is_some_and(|head| head.starts_with(TAR.1))
}

/// Archives may have many files, so a person has to choose.
fn check_is_no_archive(head: &[u8]) -> Result<(), SourceError> {
    let kind = match () {
        () if head.starts_with(ZIP) => "ZIP",
        () if is_tar(head) && !head.starts_with(PG_DUMP_TAR) => "tar",
        () => return Ok(()),
    };
    Err(SourceError::Unknown(format!("the dump is a {kind} archive: unpack it, and give the file inside")))
}

/// Returns the stream, past a byte order mark, if it looks like an SQL script.
fn check_is_sql<'s>(mut stream: Stream<'s>, head: &[u8]) -> Result<Stream<'s>, SourceError> {
    const BEGINNINGS: &str = "-- /* \\ # COPY INSERT REPLACE CREATE DROP ALTER SET SELECT BEGIN START COMMIT USE LOCK \
        PRAGMA DELIMITER TRUNCATE DELETE UPDATE SOURCE WITH ( .";
    let start = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    let is = |word: &str| start.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word.as_bytes()));
    if !BEGINNINGS.split_whitespace().any(is) {
        // Reports a truncation first: it explains more than an unknown format does.
        stream.fill(head.len() + 1)?;
        if start.is_empty() {
            return Err(SourceError::Unknown("the dump is empty".into()));
        }
        let shown = String::from_utf8_lossy(&start[..start.len().min(24)]).printable().to_string();
        return Err(SourceError::Unknown(format!(
            "the dump begins with `{shown}`, which is no known format: give the output of pg_dump (plain or custom), \
             mysqldump or mariadb-dump, an SQLite file, a list of URLs (one a line), or CSV, TSV, JSON lines or Parquet \
             with columns photo_id and photo_url, or url (or the name given by --map photos.photo_url=COLUMN), each plain or compressed as gz, zst, xz or bz2"
        )));
    }
    if head.starts_with(BOM) {
        stream.fill(BOM.len())?;
        stream.consume(BOM.len());
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_named() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        tar.append_data(&mut header, "dump.sql", &b"x"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        };
        for (bytes, kind) in [(gzip(&tar), "tar"), (tar, "tar"), (b"PK\x03\x04\x14\0".to_vec(), "ZIP")] {
            let reader = std::io::Cursor::new(bytes);
            let error = candidates_from(reader, &Options::default(), &mut |_| ()).unwrap_err().to_string();
            assert!(error.contains(&format!("is a {kind} archive: unpack it")), "{error}");
        }
    }
}
