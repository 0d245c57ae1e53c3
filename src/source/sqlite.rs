//! Reads a source database that is an SQLite file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::candidates::CandidateBuilder;
use super::catalog::{Catalog, Naming, TableName, TableUse};
use super::error::{Position, SourceError};
use super::mapping::{Mapping, SourceRow};
use super::script::not_utf8;
use super::stream::Progress;

/// The first bytes of an SQLite file.
pub const MAGIC: &[u8] = b"SQLite format 3\0";

/// Reads a database file.
pub fn read(
    path: &Path,
    mapping: &Mapping,
    builder: &mut CandidateBuilder,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), SourceError> {
    let size = check_size(path)?;
    let connection = open(path)?;
    let naming = Naming { any_case: true, default_schema: None };
    let mut catalog = Catalog::new(mapping, naming);
    let mut queries = Vec::new();
    for table in tables(&connection)? {
        let columns = columns(&connection, &table)?;
        let name = TableName { name: table.clone(), ..TableName::default() };
        if let TableUse::Read(column_map) = catalog.look_up(&name, Some(columns.clone())) {
            let picked =
                column_map.indices.map(|index| index.map_or_else(|| "NULL".into(), |index| quote(&columns[index])));
            queries.push((column_map.role, format!("SELECT {} FROM {}", picked.join(", "), quote(&table))));
        }
    }
    catalog.check()?;
    let mut count = 0u64;
    for (role, query) in queries {
        let mut statement = connection.prepare(&query)?;
        let mut rows = statement.query([])?;
        while let Some(found) = rows.next()? {
            let mut row = SourceRow::default();
            for ((slot, column), value) in role.columns().iter().enumerate().zip(&mut row) {
                *value = text(found.get_ref(slot)?, column.ends_with("id"))
                    .map_err(|_| SourceError::Contradiction(not_utf8(role, slot)))?;
            }
            builder.add(role, row)?;
            count += 1;
            if count.is_multiple_of(4096) {
                progress(Progress { bytes: 0, total: Some(size), rows: count });
            }
        }
    }
    progress(Progress { bytes: size, total: Some(size), rows: count });
    Ok(())
}

/// Opens the file read-only and trusts nothing in it. Without a journal beside it the file is opened as immutable, so
/// that it may be in a read-only directory.
fn open(path: &Path) -> Result<Connection, SourceError> {
    let is_there = |suffix: &str| {
        let mut journal = path.as_os_str().to_owned();
        journal.push(suffix);
        Path::new(&journal).exists()
    };
    let immutable = if is_there("-wal") || is_there("-journal") { "" } else { "?immutable=1" };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let escaped: String = absolute.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{escaped}{immutable}"), flags)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA query_only = ON")?;
    Ok(connection)
}

/// Checks that the file has as many pages as its header says: a truncated file has fewer. Returns the size in bytes.
fn check_size(path: &Path) -> Result<u64, SourceError> {
    let failed = |error| SourceError::Io { what: path.display().to_string(), error };
    let mut file = File::open(path).map_err(failed)?;
    let mut header = [0u8; 100];
    let mut read = 0;
    while let more @ 1.. = file.read(&mut header[read..]).map_err(failed)? {
        read += more;
    }
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    // The page count is valid only if it was written with the last change.
    let pages = if word(24) == word(92) { u64::from(word(28)) } else { 1 };
    if read < header.len() || size < page * pages {
        return Err(SourceError::Truncated {
            at: Position { line: 1, offset: size },
            detail: format!("an SQLite file of {pages} pages should have {} bytes", page * pages),
        });
    }
    Ok(size)
}

fn tables(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(value: ValueRef<'_>, is_id: bool) -> Result<Option<Cow<'_, str>>, std::str::Utf8Error> {
    Ok(match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into()),
        ValueRef::Real(number) => Some(number.to_string().into()),
        ValueRef::Blob(bytes) if is_id => Some(crate::domain::hash::hex(bytes).into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(std::str::from_utf8(bytes)?.into()),
    })
}
