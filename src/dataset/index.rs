//! The index file: faces and endings in SQLite, and the columns of the faces in memory.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::columns::{ColumnValues, Columns};
use super::face::{Face, Number, Text};
use super::page::{Cursor, Order, Page, select};
use super::query::Query;
use crate::domain::{CauseCode, ContentHash, Ending, Id, Record, RunName, StageName};
use crate::ledger::{Cursor as FeedCursor, Epoch};
use crate::source::timestamp::Timestamp;

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{} is not an index of facemill: name another file, or delete it", .0.display())]
    Foreign(PathBuf),
    #[error("index {}: {error}; it can be deleted, and is then made again", path.display())]
    Failed { path: PathBuf, error: rusqlite::Error },
}

/// What happened to a photo, as far as the index is concerned.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The photo has ended.
    Ended(Box<Record>),
    /// The photo was requeued: it has no ending.
    Reopened(Id),
}

/// Photos that ended alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingCount {
    pub ending: Ending,
    pub stage: StageName,
    pub cause: Option<CauseCode>,
    /// Empty if the photo's URL has none.
    pub host: String,
    /// Whether the photo has an original.
    pub downloaded: bool,
    pub photos: u64,
}

/// The faces and endings of one run.
pub struct Index {
    path: PathBuf,
    connection: Connection,
    columns: Columns,
    /// Grows when another process has written to the file.
    version: i64,
}

impl Index {
    /// "fidx" in the file's header.
    const APPLICATION_ID: i32 = 0x6669_6478;
    /// Grows with every change of the schema or of what is stored; a file of another schema is made anew.
    const SCHEMA: i32 = 1;
    const BUSY: Duration = Duration::from_secs(10);

    /// Opens the index of a run, or makes an empty one. A file of another run, or of another version of the program, is
    /// emptied.
    ///
    /// # Errors
    /// The file is something else, or cannot be written.
    pub fn open(path: &Path, run: &RunName) -> Result<Self, IndexError> {
        let failed = |error| IndexError::Failed { path: path.into(), error };
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Self::BUSY).map_err(failed)?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let application = pragma("application_id").map_err(failed)?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
        if application != Self::APPLICATION_ID && (application != 0 || tables > 0) {
            return Err(IndexError::Foreign(path.into()));
        }
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        // What a power failure takes is made again.
        connection.pragma_update(None, "synchronous", "off").map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(32);
        let schema = pragma("user_version").map_err(failed)?;
        let mut index = Self { path: path.into(), connection, columns: Columns::default(), version: 0 };
        let fits = schema == Self::SCHEMA && index.meta("run")?.as_deref() == Some(run.as_str());
        if !fits {
            index.make(run).map_err(failed)?;
        }
        index.load()?;
        Ok(index)
    }

    fn make(&self, run: &RunName) -> rusqlite::Result<()> {
        let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let tables: Vec<String> =
            self.connection.prepare(names)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let transaction = self.connection.unchecked_transaction()?;
        for table in tables {
            transaction.execute_batch(&format!("DROP TABLE \"{table}\""))?;
        }
        transaction.execute_batch(include_str!("schema.sql"))?;
        transaction.execute("INSERT INTO meta VALUES ('run', ?1)", [run.as_str()])?;
        transaction.execute("INSERT INTO meta VALUES ('made by', ?1)", [env!("CARGO_PKG_VERSION")])?;
        transaction.pragma_update(None, "application_id", Self::APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", Self::SCHEMA)?;
        transaction.commit()
    }

    fn failed(&self, error: rusqlite::Error) -> IndexError {
        IndexError::Failed { path: self.path.clone(), error }
    }

    fn meta(&self, name: &str) -> Result<Option<String>, IndexError> {
        let value = self.connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0));
        value.optional().map_err(|error| self.failed(error))
    }

    /// How far the index has read the feed; none if it has to be filled from all records.
    pub fn position(&self) -> Result<Option<FeedCursor>, IndexError> {
        let (epoch, cursor) = (self.meta("epoch")?, self.meta("cursor")?);
        let sequence = cursor.and_then(|cursor| cursor.parse().ok());
        Ok(epoch.map(Epoch::stored).zip(sequence).map(|(epoch, sequence)| FeedCursor { epoch, sequence }))
    }

    /// Applies changes in order, in one transaction, with the position that they lead to.
    pub fn apply(&mut self, changes: &[Change], position: Option<&FeedCursor>) -> Result<(), IndexError> {
        self.refresh()?;
        let applied = self.write(changes, position).map_err(|error| self.failed(error))?;
        for (key, change) in applied {
            match change {
                Applied::Face(values) => self.columns.upsert(key, *values),
                Applied::Removed(id) => self.columns.remove(&id),
            }
        }
        self.version = self.data_version()?;
        Ok(())
    }

    /// Deletes all faces and endings, and the position in the feed.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        let clear = "BEGIN IMMEDIATE; DELETE FROM faces; DELETE FROM endings; DELETE FROM ending_counts;
                     DELETE FROM meta WHERE name IN ('epoch', 'cursor'); COMMIT";
        self.connection.execute_batch(clear).map_err(|error| self.failed(error))?;
        self.load()
    }

    fn write(&self, changes: &[Change], position: Option<&FeedCursor>) -> rusqlite::Result<Vec<(i64, Applied)>> {
        let transaction =
            rusqlite::Transaction::new_unchecked(&self.connection, rusqlite::TransactionBehavior::Immediate)?;
        let mut applied = Vec::with_capacity(changes.len());
        {
            let mut remove_face = transaction.prepare_cached("DELETE FROM faces WHERE photo_id = ?1")?;
            let mut remove_ending = transaction.prepare_cached("DELETE FROM endings WHERE photo_id = ?1")?;
            let mut add_face = transaction.prepare_cached(ADD_FACE)?;
            let mut add_ending = transaction.prepare_cached("INSERT INTO endings VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            for change in changes {
                let id = match change {
                    Change::Ended(record) => &record.message.photo.candidate.photo_id,
                    Change::Reopened(id) => id,
                };
                remove_ending.execute([id.as_str()])?;
                if remove_face.execute([id.as_str()])? > 0 {
                    applied.push((0, Applied::Removed(id.clone())));
                }
                let Change::Ended(record) = change else { continue };
                let photo = &record.message.photo;
                // A photo that passed all stages has no cause, whatever held it up on the way.
                let cause = record.cause.as_ref().filter(|_| record.ending != Ending::Predicted);
                add_ending.execute(params![
                    id.as_str(),
                    record.ending.as_str(),
                    record.message.position.stage.as_str(),
                    cause.map_or_else(String::new, |cause| cause.code.to_string()),
                    photo.candidate.host(),
                    photo.facts.original.is_some()
                ])?;
                if let (Ending::Predicted, Some(face)) = (record.ending, Face::of(photo)) {
                    let published = published(face.posted_at.as_deref());
                    insert(&mut add_face, &face, published)?;
                    let values = ColumnValues::of(&face, published);
                    applied.push((transaction.last_insert_rowid(), Applied::Face(Box::new(values))));
                }
            }
            if let Some(position) = position {
                let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
                set.execute(["epoch", position.epoch.as_str()])?;
                set.execute(["cursor", position.sequence.to_string().as_str()])?;
            }
        }
        transaction.commit()?;
        Ok(applied)
    }

    fn data_version(&self) -> Result<i64, IndexError> {
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        version.map_err(|error| self.failed(error))
    }

    /// Reads the columns again if another process has written to the file.
    pub fn refresh(&mut self) -> Result<(), IndexError> {
        if self.data_version()? == self.version { Ok(()) } else { self.load() }
    }

    fn load(&mut self) -> Result<(), IndexError> {
        self.version = self.data_version()?;
        let columns = read_columns(&self.connection).map_err(|error| self.failed(error))?;
        self.columns = columns;
        Ok(())
    }

    /// How many faces fulfil the query. `threshold`: the P(OK) from which a face is `ok`.
    pub fn count(&self, query: &Query, threshold: f64) -> u64 {
        self.columns.matching(query, threshold).count()
    }

    /// How many of them have each text, most frequent first; none stands for no text.
    pub fn count_by(&self, text: Text, query: &Query, threshold: f64) -> Vec<(Option<String>, u64)> {
        let column = self.columns.text(text);
        let mut counts = std::collections::HashMap::<Option<&str>, u64>::new();
        for row in self.columns.matching(query, threshold).iter() {
            *counts.entry(column.get(row)).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().map(|(text, count)| (text.map(str::to_owned), count)).collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts
    }

    /// How many of them have a number in each of `bins` equal parts of `from..=to`; others are in the nearest part.
    pub fn histogram(
        &self,
        number: Number,
        (from, to): (f64, f64),
        bins: usize,
        query: &Query,
        threshold: f64,
    ) -> Vec<u64> {
        let mut counts = vec![0; bins.max(1)];
        let last = counts.len() - 1;
        for row in self.columns.matching(query, threshold).iter() {
            let share = (f64::from(self.columns.number(number, row)) - from) / (to - from);
            // The cast saturates: below the range is 0, above it the last part.
            counts[((share * (last + 1) as f64) as usize).min(last)] += 1;
        }
        counts
    }

    /// The faces that fulfil the query, at most `limit` of them after `after`, in order.
    pub fn page(
        &self,
        query: &Query,
        order: Order,
        threshold: f64,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, IndexError> {
        let rows = self.columns.matching(query, threshold);
        let (rows, next) = select(&self.columns, &rows, order, threshold, after, limit);
        let read = || -> rusqlite::Result<Vec<Face>> {
            let mut by_key = self.connection.prepare_cached("SELECT * FROM faces WHERE key = ?1")?;
            let faces = rows.iter().map(|row| by_key.query_row([self.columns.key(*row)], face).optional());
            // A face that another process has just removed is left out.
            faces.filter_map(Result::transpose).collect()
        };
        Ok(Page { faces: read().map_err(|error| self.failed(error))?, next })
    }

    /// The face of one photo.
    pub fn face(&self, photo_id: &Id) -> Result<Option<Face>, IndexError> {
        let found = self.connection.query_row("SELECT * FROM faces WHERE photo_id = ?1", [photo_id.as_str()], face);
        found.optional().map_err(|error| self.failed(error))
    }

    /// How many photos ended alike.
    pub fn endings(&self) -> Result<Vec<EndingCount>, IndexError> {
        let read = || {
            let mut rows = self.connection.prepare_cached("SELECT * FROM ending_counts")?;
            let counts = rows.query_map([], |row| {
                let cause: String = row.get(2)?;
                Ok(EndingCount {
                    ending: word(row, 0)?,
                    stage: word(row, 1)?,
                    cause: (!cause.is_empty()).then(|| cause.into()),
                    host: row.get(3)?,
                    downloaded: row.get(4)?,
                    photos: row.get::<_, i64>(5)? as u64,
                })
            })?;
            counts.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }
}

/// What a change did to the faces.
enum Applied {
    Face(Box<ColumnValues>),
    Removed(Id),
}

const ADD_FACE: &str = "INSERT INTO faces VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
    ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32)";

/// Seconds since 1970, where the text is a time.
fn published(text: Option<&str>) -> Option<i64> {
    match Timestamp::parse(text) {
        Timestamp::At(seconds, _) => Some(seconds),
        _ => None,
    }
}

fn insert(statement: &mut Statement<'_>, face: &Face, published: Option<i64>) -> rusqlite::Result<()> {
    let landmarks: Vec<u8> = face.landmarks.iter().flatten().flat_map(|c| c.to_le_bytes()).collect();
    let values = params![
        face.photo_id.as_str(),
        face.face_id.as_str(),
        face.label_id.as_str(),
        face.label_name,
        face.photo_url,
        face.source_url,
        face.posted_at,
        published,
        Text::Host.of(face),
        face.original.as_bytes(),
        face.original_format.extension(),
        face.original_bytes as i64,
        face.width,
        face.height,
        face.search.as_str(),
        face.score,
        face.faces,
        face.crop.as_bytes(),
        face.format.extension(),
        face.align.as_str(),
        face.angle,
        face.centre[0],
        face.centre[1],
        face.side,
        face.size,
        face.mirrored,
        face.mirrored_head,
        face.blur,
        face.exposure,
        face.p_ok,
        face.model,
        landmarks,
    ];
    statement.execute(values).map(drop)
}

/// A face from all columns of the table.
fn face(row: &Row<'_>) -> rusqlite::Result<Face> {
    let text = |column| row.get::<_, String>(column);
    let landmarks: Vec<u8> = row.get(32)?;
    let (points, _) = landmarks.as_chunks::<8>();
    let coordinate = |bytes: &[u8]| bytes.try_into().map_or(0.0, f32::from_le_bytes);
    Ok(Face {
        photo_id: Id::new(text(1)?),
        face_id: Id::new(text(2)?),
        label_id: Id::new(text(3)?),
        label_name: row.get(4)?,
        photo_url: text(5)?,
        source_url: row.get(6)?,
        posted_at: row.get(7)?,
        original: hash(row, 10)?,
        original_format: word(row, 11)?,
        original_bytes: row.get::<_, i64>(12)? as u64,
        width: row.get(13)?,
        height: row.get(14)?,
        search: word(row, 15)?,
        score: row.get(16)?,
        faces: row.get(17)?,
        crop: hash(row, 18)?,
        format: word(row, 19)?,
        align: word(row, 20)?,
        angle: row.get(21)?,
        centre: [row.get(22)?, row.get(23)?],
        side: row.get(24)?,
        size: row.get(25)?,
        landmarks: points.iter().map(|point| [coordinate(&point[..4]), coordinate(&point[4..])]).collect(),
        mirrored: row.get(26)?,
        mirrored_head: row.get(27)?,
        blur: row.get(28)?,
        exposure: row.get(29)?,
        p_ok: row.get(30)?,
        model: text(31)?,
    })
}

/// The columns of all faces, in the order of their keys.
fn read_columns(connection: &Connection) -> rusqlite::Result<Columns> {
    let mut columns = Columns::default();
    let mut rows = connection.prepare(
        "SELECT key, photo_id, published, p_ok, size, angle, score, faces, mirrored, mirrored_head, blur, exposure, side,
         width, height, original_bytes, label_name, label_id, host, model, search, align, format FROM faces ORDER BY key",
    )?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let mut numbers = [0.0; Number::ALL.len()];
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = match row.get_ref(3 + at)? {
                ValueRef::Integer(value) => value as f32,
                ValueRef::Real(value) => value as f32,
                _ => f32::NAN,
            };
        }
        let mut texts = [const { None }; Text::ALL.len()];
        for (at, text) in texts.iter_mut().enumerate() {
            *text = row.get(3 + Number::ALL.len() + at)?;
        }
        let id = Id::new(row.get::<_, String>(1)?);
        columns.upsert(row.get(0)?, ColumnValues { id, numbers, texts, published: row.get(2)? });
    }
    Ok(columns)
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<ContentHash> {
    row.get::<_, [u8; 32]>(column).map(ContentHash::from_digest)
}

/// A value that is stored by its name.
fn word<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    let bad = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    text.parse().map_err(bad)
}
