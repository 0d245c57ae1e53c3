//! Reads a source database that is an SQLite file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::asked::{AskedPhoto, FoundFace, FoundPhoto};
use super::column::Column;
use super::error::{Position, SourceError};
use super::mapping::{Mapping, Role, UPDATED};
use super::sql::catalog::{Catalog, Naming, Table, TableName, TableUse};
use super::sql::not_utf8;
use super::stream::Progress;
use super::table_columns::ORIGINS;
use super::warnings::Warnings;
use facemill_domain::{Candidate, Id};

/// The first bytes of an SQLite file.
pub const MAGIC: &[u8] = b"SQLite format 3\0";

/// How a file is read.
pub struct Reading<'r> {
    pub mapping: &'r Mapping,
    pub warnings: &'r Warnings,
    /// Whether refusals that need not concern the candidates become warnings.
    pub lenient: bool,
    /// A photo that somebody asks about.
    pub asked: Option<&'r AskedPhoto>,
}

/// Reads a database file. SQLite itself runs the query, so that ids join by its rules.
pub fn read(
    path: &Path,
    reading: &Reading<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    let size = check_size(path)?;
    let connection = open(path)?;
    check_content(&connection)?;
    query(&connection, size, reading, progress)
}

/// Lets SQLite run the query. `size` is that of the source in bytes.
pub fn query(
    connection: &Connection,
    size: u64,
    reading: &Reading<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Candidate>, SourceError> {
    let names = SourceNames::find(connection, reading.mapping)?;
    let selected = [&ORIGINS[..], &[(Role::Faces, 3)]].concat();
    let column = |role: Role, slot: usize| {
        let column = names.column(role, slot);
        // A real number is shown as SQLite shows it.
        format!("CASE typeof({column}) WHEN 'real' THEN CAST({column} AS TEXT) ELSE {column} END")
    };
    let [faces, photos, labels] = &names.tables;
    let (photo, photo_id) = (names.column(Role::Photos, 0), names.column(Role::Faces, 1));
    let (label, label_id) = (names.column(Role::Labels, 0), names.column(Role::Faces, 2));
    let (face, updated) = (names.column(Role::Faces, 0), names.column(Role::Faces, 3));
    let joined = format!("{faces} AS faces JOIN {photos} AS photos ON {photo} = {photo_id}");
    let labelled = match reading.mapping.is_left_out(Role::Labels) {
        true => format!("WHERE {label_id} IS NOT NULL AND"),
        false => format!("JOIN {labels} AS labels ON {label} = {label_id} WHERE"),
    };
    let columns: Vec<String> = selected.iter().map(|&(role, slot)| column(role, slot)).collect();
    let query = format!(
        "SELECT {} FROM {joined} {labelled} {photo} IN \
         (SELECT {photo} FROM {joined} WHERE {label_id} IS NOT NULL GROUP BY {photo} HAVING count({face}) = 1) \
         ORDER BY {updated} IS NULL DESC, {updated} DESC, {face}",
        columns.join(", ")
    );
    let mut statement = connection.prepare(&query)?;
    let mut rows = statement.query([])?;
    let mut found: Vec<Candidate> = Vec::new();
    while let Some(row) = rows.next()? {
        let value = |at: usize| {
            let (role, slot) = selected[at];
            text(row.get_ref(at)?, role.columns()[slot].ends_with("id"))
                .map_err(|_| SourceError::Contradiction(not_utf8(role, slot)))
        };
        let id = |at: usize| Ok::<_, SourceError>(Id::new(value(at)?.unwrap_or_default()));
        let owned = |at: usize| Ok::<_, SourceError>(value(at)?.map(Cow::into_owned));
        let candidate = Candidate {
            face_id: id(0)?,
            photo_id: id(1)?,
            source_url: owned(2)?,
            photo_url: owned(3)?.unwrap_or_default(),
            posted_at: owned(4)?,
            label_id: id(5)?,
            label_name: owned(6)?,
            source: None,
            columns: match reading.mapping.carries_updated() {
                true => owned(7)?.map(|text| (UPDATED.to_owned(), text)).into_iter().collect(),
                false => Default::default(),
            },
        };
        found.push(candidate);
        if found.len().is_multiple_of(4096) {
            progress(Progress { bytes: 0, total: Some(size), rows: found.len() as u64 });
        }
    }
    if found.is_empty() {
        check_joins(connection, &names, reading)?;
    }
    if let Some(asked) = reading.asked {
        asked.answer(find(connection, &names, asked.id_or_url(), reading.mapping)?);
    }
    progress(Progress { bytes: size, total: Some(size), rows: found.len() as u64 });
    Ok(found)
}

/// The tables and columns of the query, quoted.
struct SourceNames {
    tables: [String; 3],
    columns: [[Option<String>; 4]; 3],
}

impl SourceNames {
    fn find(connection: &Connection, mapping: &Mapping) -> Result<Self, SourceError> {
        let naming = Naming { any_case: true, default_schema: None };
        let mut catalog = Catalog::new(mapping, naming);
        let mut names = Self { tables: Default::default(), columns: Default::default() };
        for table in tables(connection)? {
            let columns = columns(connection, &table)?;
            let name = TableName { name: table.clone(), ..TableName::default() };
            let defined = columns.iter().map(|name| Column { name: name.clone(), ..Column::default() }).collect();
            catalog.create(&name, Table::of(defined));
            if let TableUse::Read(plan) = catalog.look_up(&name, Some(columns.clone())) {
                let role = plan.columns.role;
                names.tables[role as usize] = quote(&table);
                names.columns[role as usize] =
                    plan.columns.indices.map(|index| index.map(|index| format!("{role}.{}", quote(&columns[index]))));
            }
        }
        catalog.check()?;
        if mapping.is_left_out(Role::Labels) {
            names.columns[Role::Labels as usize][0] = names.columns[Role::Faces as usize][2].clone();
        }
        Ok(names)
    }

    fn column(&self, role: Role, slot: usize) -> &str {
        self.columns[role as usize][slot].as_deref().unwrap_or("NULL")
    }
}

/// Looks for a photo with an id or a URL, and for its labelled faces.
fn find(
    connection: &Connection,
    names: &SourceNames,
    id_or_url: &str,
    mapping: &Mapping,
) -> Result<FoundPhoto, SourceError> {
    // As `text` shows an id.
    let shown = |column: &str| {
        format!("CASE typeof({column}) WHEN 'blob' THEN lower(hex({column})) ELSE CAST({column} AS TEXT) END")
    };
    let [faces, photos, labels] = &names.tables;
    let (photo, photo_id) = (names.column(Role::Photos, 0), names.column(Role::Faces, 1));
    let (label, label_id) = (names.column(Role::Labels, 0), names.column(Role::Faces, 2));
    let (face, url) = (names.column(Role::Faces, 0), names.column(Role::Photos, 2));
    let is_asked = format!("({} = ?1 OR {url} = ?1)", shown(photo));
    let rows = format!("SELECT count(*) FROM {photos} AS photos WHERE {is_asked}");
    let rows = connection.query_row(&rows, [id_or_url], |row| row.get::<_, i64>(0))?;
    let label_exists = match mapping.is_left_out(Role::Labels) {
        true => "1".to_owned(),
        false => format!("EXISTS (SELECT 1 FROM {labels} AS labels WHERE {label} = {label_id})"),
    };
    let mut labelled = connection.prepare(&format!(
        "SELECT {}, {}, {label_exists} FROM {faces} AS faces JOIN {photos} AS photos ON {photo} = {photo_id} \
         WHERE {label_id} IS NOT NULL AND {is_asked} ORDER BY {face}",
        shown(face),
        shown(label_id)
    ))?;
    let labelled = labelled.query_map([id_or_url], |row| {
        let id = |text: Option<String>| Id::new(text.unwrap_or_default());
        Ok(FoundFace { id: id(row.get(0)?), label: id(row.get(1)?), label_exists: row.get(2)? })
    })?;
    Ok(FoundPhoto { rows: rows.unsigned_abs(), labelled: labelled.collect::<Result<_, _>>()? })
}

/// Refuses a database in which labelled faces exist, but join nothing.
fn check_joins(connection: &Connection, names: &SourceNames, reading: &Reading<'_>) -> Result<(), SourceError> {
    let exists = |query: String| connection.query_row(&format!("SELECT EXISTS ({query})"), [], |row| row.get(0));
    let faces = &names.tables[Role::Faces as usize];
    let (photo_id, label_id) = (names.column(Role::Faces, 1), names.column(Role::Faces, 2));
    let labelled: bool =
        exists(format!("SELECT 1 FROM {faces} AS faces WHERE {photo_id} IS NOT NULL AND {label_id} IS NOT NULL"))?;
    if !labelled {
        return Ok(());
    }
    for (role, foreign) in [(Role::Photos, photo_id), (Role::Labels, label_id)] {
        if reading.mapping.is_left_out(role) {
            continue;
        }
        let (table, id) = (&names.tables[role as usize], names.column(role, 0));
        let joins: bool = exists(format!(
            "SELECT 1 FROM {faces} AS faces JOIN {table} AS {role} ON {id} = {foreign} WHERE {label_id} IS NOT NULL"
        ))?;
        if !joins {
            let refusal = format!(
                "no labelled face joins: no value of {foreign} is the {id} of a row; check the names given by --map"
            );
            if !reading.lenient {
                return Err(SourceError::Contradiction(refusal));
            }
            reading.warnings.overrule(refusal);
        }
    }
    Ok(())
}

/// Checks that SQLite finds no damage.
fn check_content(connection: &Connection) -> Result<(), SourceError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let found = found.lines().find(|line| !line.starts_with("***")).unwrap_or_default();
    Err(SourceError::Contradiction(format!(
        "the SQLite file is damaged ({found}): take an intact copy, or save what is left with `sqlite3 FILE .recover`"
    )))
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

/// All tables but virtual ones. Those have no pages, and code that is not here may have made them.
fn tables(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_master
            WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
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
        ValueRef::Blob(bytes) if is_id => Some(facemill_domain::hash::hex(bytes).into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(std::str::from_utf8(bytes)?.into()),
    })
}
