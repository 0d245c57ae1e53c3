//! What can go wrong between a dump and its candidates.

use std::fmt;
use std::io;

/// A place in the dump, after decompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Counted from 1.
    pub line: u64,
    /// Bytes before it.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, byte {}", self.line, self.offset)
    }
}

/// None of these passes by itself: the dump, the command or the machine has to change.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    /// The content is none of the kinds that can be read.
    #[error("{0}")]
    Unknown(String),
    /// Something stands there that cannot be.
    #[error("the dump is broken at {at}: {detail}")]
    Broken { at: Position, detail: String },
    /// It ends too early.
    #[error("the dump is truncated at {at}: {detail}")]
    Truncated { at: Position, detail: String },
    /// Tables or columns are missing, or there are too many of a name: one line each, with the remedy.
    #[error("the dump does not fit:\n  {}", .0.join("\n  "))]
    Unfit(Vec<String>),
    /// Two rows have the same id, or another rule between rows is broken.
    #[error("{0}")]
    Contradiction(String),
    #[error(
        "this is a dump in pg_dump's own format, and `{program}` to read it is not installed: \
         install the package postgresql-client"
    )]
    NoPgRestore { program: String },
    #[error("pg_restore cannot read the dump: {0}")]
    PgRestore(String),
    #[error("the SQLite file cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
}
