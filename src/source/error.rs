//! Errors of reading a dump.

use std::fmt;
use std::io;

/// A position in the dump, after decompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: u64,
    /// Bytes from the start.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, byte {}", self.line, self.offset)
    }
}

/// No error here is transient: the dump, the command or the machine has to change.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    /// The content has no known format.
    #[error("{0}")]
    Unknown(String),
    /// Invalid content.
    #[error("the dump is broken at {at}: {detail}")]
    Broken { at: Position, detail: String },
    /// The dump ends too early.
    #[error("the dump is truncated at {at}: {detail}")]
    Truncated { at: Position, detail: String },
    /// The dump has a statement or a value that only the database can work out.
    #[error("cannot read the dump at {at}: {detail}")]
    Refused { at: Position, detail: String },
    /// Tables or columns are missing or ambiguous. One line each, with the remedy.
    #[error("the dump does not fit:\n  {}", .0.join("\n  "))]
    Unfit(Vec<String>),
    /// Rows contradict each other, for example by a duplicate id.
    #[error("{0}")]
    Contradiction(String),
    #[error(
        "the dump is in pg_dump's custom format, which needs `{program}`, and `{program}` is not installed: \
         install the package postgresql-client"
    )]
    NoPgRestore { program: String },
    #[error("pg_restore failed to read the dump: {0}")]
    PgRestore(String),
    #[error("cannot read the SQLite file: {0}")]
    Sqlite(#[from] rusqlite::Error),
}
