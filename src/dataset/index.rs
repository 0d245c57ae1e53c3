//! The index file: faces and endings in SQLite, and the columns of the faces in memory.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement, Transaction, TransactionBehavior, params};

use super::columns::{ColumnValues, Columns};
use super::ending::{EndedPhoto, EndingCount};
use super::face::{Face, FaceStatus, FaceVerdict, Number, Text};
use super::group_place::group_place;
use super::histogram_part::part;
use super::page::{Cursor, Order, Page, select, sorted};
use super::placeholder::{Placeholder, Placeholders};
use super::query::Query;
use super::removal;
use super::rows;
use super::suggested::SuggestedOrders;
use super::verdict_table;
use crate::archive::run_classifier::ClassifierHistory;
use crate::domain::{Candidate, CauseCode, ContentHash, Ending, Id, Photo, Prediction, Record, RunName, Verdict};
use crate::ledger::{Cursor as FeedCursor, Epoch};
use crate::verdicts::{CropVerdicts, LogPosition};

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
    /// The photo has ended. The record of a face has the prediction of the run's current classifier, or none.
    Ended(Box<Record>),
    /// The photo has ended, and has no record.
    Unrecorded(EndedPhoto),
    /// The photo was requeued: it has no ending.
    Reopened(Id),
}

impl Change {
    /// Whether a person has had the photo taken down.
    fn is_takedown(&self) -> bool {
        match self {
            Self::Ended(record) => record.cause.as_ref().is_some_and(|cause| cause.code == CauseCode::TakenDown),
            Self::Unrecorded(photo) => photo.cause == Some(CauseCode::TakenDown),
            Self::Reopened(_) => false,
        }
    }

    fn photo_id(&self) -> &Id {
        match self {
            Self::Ended(record) => &record.message.photo.candidate.photo_id,
            Self::Unrecorded(photo) => &photo.photo_id,
            Self::Reopened(id) => id,
        }
    }
}

/// Numbers of faces by their P(OK).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OkSplit {
    /// At the threshold or above.
    pub ok: u64,
    pub ng: u64,
    /// Without a prediction of the run's current classifier.
    pub unscored: u64,
}

/// The faces and endings of one run.
pub struct Index {
    path: PathBuf,
    pub(super) connection: Connection,
    pub(super) columns: Columns,
    /// Grows when the columns are read again: rows have other numbers then.
    pub(super) generation: u64,
    run: RunName,
    /// The P(OK) from which a crop of the run counts as OK.
    threshold: f64,
    /// The model whose predictions the index has; none: those that stand in the records.
    model: Option<ContentHash>,
    /// Grows when another process has written to the file.
    version: i64,
}

impl Index {
    /// "fidx" in the file's header.
    pub(super) const APPLICATION_ID: i32 = 0x6669_6478;
    /// Grows with every change of the schema or of what is stored; a file of another schema is made anew.
    const SCHEMA: i32 = 15;
    pub(super) const BUSY: Duration = Duration::from_secs(10);

    /// Opens the index of a run, or makes an empty one. A file of another run, or of another version of the program, is
    /// emptied.
    ///
    /// # Errors
    /// The file is something else, or cannot be written.
    pub fn open(path: &Path, run: &RunName) -> Result<Self, IndexError> {
        let failed = |error| IndexError::Failed { path: path.into(), error };
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Self::BUSY).map_err(failed)?;
        // Tables first: another process may make the index between the two reads.
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
        let application = pragma(&connection, "application_id").map_err(failed)?;
        if application != Self::APPLICATION_ID && (application != 0 || tables > 0) {
            return Err(IndexError::Foreign(path.into()));
        }
        Self::use_write_ahead_log(&connection).map_err(failed)?;
        // What a power failure takes is made again.
        connection.pragma_update(None, "synchronous", "off").map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(32);
        let mut index = Self {
            path: path.into(),
            connection,
            columns: Columns::default(),
            generation: 0,
            run: run.clone(),
            threshold: ClassifierHistory::default().threshold(),
            model: None,
            version: 0,
        };
        if !fits(&index.connection, run).map_err(failed)? {
            index.make().map_err(failed)?;
        }
        index.load()?;
        Ok(index)
    }

    /// Changes the journal mode, which needs the file for itself. SQLite does not call its busy handler for this: two
    /// processes that open a new file at the same moment would both fail.
    fn use_write_ahead_log(connection: &Connection) -> rusqlite::Result<()> {
        const PAUSE: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + Self::BUSY;
        loop {
            match connection.pragma_update(None, "journal_mode", "wal") {
                Err(error)
                    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    fn make(&self) -> rusqlite::Result<()> {
        let transaction = self.transaction()?;
        // Another process may have made it meanwhile.
        if fits(&self.connection, &self.run)? {
            return Ok(());
        }
        let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let tables: Vec<String> =
            transaction.prepare(names)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for table in tables {
            transaction.execute_batch(&format!("DROP TABLE \"{table}\""))?;
        }
        transaction.execute_batch(include_str!("schema.sql"))?;
        transaction.execute("INSERT INTO meta VALUES ('run', ?1)", [self.run.as_str()])?;
        transaction.execute("INSERT INTO meta VALUES ('made by', ?1)", [env!("CARGO_PKG_VERSION")])?;
        transaction.pragma_update(None, "application_id", Self::APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", Self::SCHEMA)?;
        transaction.commit()
    }

    pub(super) fn failed(&self, error: rusqlite::Error) -> IndexError {
        IndexError::Failed { path: self.path.clone(), error }
    }

    pub(super) fn meta(&self, name: &str) -> Result<Option<String>, IndexError> {
        meta(&self.connection, name).map_err(|error| self.failed(error))
    }

    pub fn run(&self) -> &RunName {
        &self.run
    }

    /// How far the index has read the feed; none if it has to be filled from all records.
    pub fn position(&self) -> Result<Option<FeedCursor>, IndexError> {
        let (epoch, cursor) = (self.meta("epoch")?, self.meta("cursor")?);
        let sequence = cursor.and_then(|cursor| cursor.parse().ok());
        Ok(epoch.map(Epoch::stored).zip(sequence).map(|(epoch, sequence)| FeedCursor { epoch, sequence }))
    }

    /// The P(OK) from which a crop of the run counts as OK, as of the last [`Index::set_classifier`].
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The model whose predictions the index has, as of the last [`Index::set_classifier`]. None: the run has no
    /// classifier yet, and the predictions are those of the records.
    pub fn model(&self) -> Option<ContentHash> {
        self.model
    }

    /// Makes the index hold the predictions of the run's current classifier, and its threshold. Of another model than
    /// before, the index has no predictions yet: see [`Index::unscored`]. Returns whether the model is another one.
    pub fn set_classifier(&mut self, history: &ClassifierHistory) -> Result<bool, IndexError> {
        let model = history.current().map(|current| current.model_sha256);
        self.refresh()?;
        if (model, history.threshold()) == (self.model, self.threshold) {
            return Ok(false);
        }
        let write = |transaction: &Transaction<'_>| {
            let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
            set.execute(params!["threshold", history.threshold().to_string()])?;
            set.execute(params!["model", model.map_or_else(String::new, |model| model.to_string())])?;
            let is_other = model != self.model;
            if is_other {
                transaction.execute("DELETE FROM predictions", [])?;
            }
            Ok(is_other)
        };
        let (is_other, version) = self.write(write)?;
        (self.model, self.threshold) = (model, history.threshold());
        if is_other {
            self.columns.clear_predictions();
        }
        self.catch_up(version)?;
        Ok(is_other)
    }

    /// The faces that the run's current classifier has not scored, by their keys in the file, with their crops.
    pub fn unscored(&self) -> Result<Vec<(i64, ContentHash)>, IndexError> {
        let read = || {
            let mut crop = self.connection.prepare_cached("SELECT crop FROM faces WHERE key = ?1")?;
            let crops = self.columns.unscored().map(|key| {
                let crop = crop.query_row([key], |row| rows::hash(row, 0)).optional()?;
                Ok(crop.map(|crop| (key, crop)))
            });
            crops.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    /// Adds predictions of the run's current classifier for faces, by their keys in the file.
    pub fn add_predictions(&mut self, predictions: &[(i64, Prediction)]) -> Result<(), IndexError> {
        let write = |transaction: &Transaction<'_>| {
            let mut add = transaction.prepare_cached(rows::ADD_PREDICTION)?;
            let model = stored_model(transaction)?;
            let mut added = Vec::with_capacity(predictions.len());
            for (key, prediction) in predictions {
                if is_of(prediction, model) && add.execute(params![key, prediction.p_ok, prediction.model])? > 0 {
                    added.push((*key, prediction));
                }
            }
            Ok(added)
        };
        let (added, version) = self.write(write)?;
        added
            .iter()
            .for_each(|(key, prediction)| self.columns.set_prediction(*key, prediction.p_ok, &prediction.model));
        self.catch_up(version)
    }

    /// Applies changes in order, in one transaction, with the position that they lead to.
    pub fn apply(&mut self, changes: &[Change], position: Option<&FeedCursor>) -> Result<(), IndexError> {
        let has_takedowns = changes.iter().any(Change::is_takedown);
        if has_takedowns {
            removal::erase_what_is_deleted(&self.connection).map_err(|error| self.failed(error))?;
        }
        let (applied, version) = self.write(|transaction| apply(transaction, changes, position))?;
        if has_takedowns {
            removal::empty_log(&self.connection);
        }
        for change in applied {
            match change {
                Applied::Face(key, values) => self.columns.upsert(key, *values),
                Applied::Removed(id) => self.columns.remove(&id),
                Applied::Shared { faces, photos, labels } => self.columns.set_shared(&faces, photos, labels),
            }
        }
        self.catch_up(version)
    }

    /// How far the index has read the log of verdicts.
    pub fn verdict_position(&self) -> Result<LogPosition, IndexError> {
        verdict_position(&self.connection).map_err(|error| self.failed(error))
    }

    /// Applies the verdicts of the log between two positions. False: the index is not at `from`, and has not changed;
    /// somebody else has applied them.
    pub fn add_verdicts(
        &mut self,
        from: LogPosition,
        verdicts: &[Verdict],
        to: LogPosition,
    ) -> Result<bool, IndexError> {
        let (changed, version) = self.write(|transaction| match verdict_position(transaction)? == from {
            true => verdict_table::add(transaction, verdicts, to).map(Some),
            false => Ok(None),
        })?;
        let is_at_position = changed.is_some();
        for (key, verdict) in changed.into_iter().flatten() {
            self.columns.set_verdict(key, verdict.as_ref());
        }
        self.catch_up(version)?;
        Ok(is_at_position)
    }

    /// The verdicts on a crop that no other replaces.
    pub fn verdicts_on(&self, crop: ContentHash) -> Result<CropVerdicts, IndexError> {
        verdict_table::on_crop(&self.connection, crop).map_err(|error| self.failed(error))
    }

    /// Deletes all faces and endings, and the position in the feed.
    pub fn clear(&mut self) -> Result<(), IndexError> {
        let clear = "BEGIN IMMEDIATE; DELETE FROM predictions; DELETE FROM faces; DELETE FROM endings;
                     DELETE FROM ending_counts; DELETE FROM meta WHERE name IN ('epoch', 'cursor'); COMMIT";
        self.connection.execute_batch(clear).map_err(|error| self.failed(error))?;
        self.load()?;
        // Keys name other faces from now on.
        self.columns.suggested = SuggestedOrders::default();
        Ok(())
    }

    fn transaction(&self) -> rusqlite::Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
    }

    /// Writes in a transaction. Returns also the version of the file before it.
    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<(T, i64), IndexError> {
        let write = || {
            let transaction = self.transaction()?;
            let version = data_version(&transaction)?;
            let written = write(&transaction)?;
            transaction.commit()?;
            Ok((written, version))
        };
        write().map_err(|error| self.failed(error))
    }

    /// Reads the columns again if another process wrote to the file before the version that this one changed.
    pub(super) fn catch_up(&mut self, version: i64) -> Result<(), IndexError> {
        if version == self.version { Ok(()) } else { self.load() }
    }

    /// Reads the columns again if another process has written to the file.
    pub fn refresh(&mut self) -> Result<(), IndexError> {
        let version = data_version(&self.connection).map_err(|error| self.failed(error))?;
        self.catch_up(version)
    }

    fn load(&mut self) -> Result<(), IndexError> {
        // Read first: a commit between the two reads is then seen as a change.
        self.version = data_version(&self.connection).map_err(|error| self.failed(error))?;
        let suggested = std::mem::take(&mut self.columns.suggested);
        self.columns = rows::read_columns(&self.connection).map_err(|error| self.failed(error))?;
        self.columns.suggested = suggested;
        self.generation += 1;
        self.model = stored_model(&self.connection).map_err(|error| self.failed(error))?;
        let threshold = self.meta("threshold")?.and_then(|threshold| threshold.parse().ok());
        self.threshold = threshold.unwrap_or_else(|| ClassifierHistory::default().threshold());
        Ok(())
    }

    /// Reads several things as of one moment, whatever other processes write meanwhile.
    pub fn snapshot<T>(&mut self, read: impl FnOnce(&Self) -> T) -> Result<T, IndexError> {
        // The first read after BEGIN fixes the moment.
        let begin = "BEGIN; SELECT count(*) FROM meta";
        self.connection.execute_batch(begin).map_err(|error| self.failed(error))?;
        let refreshed = self.refresh();
        let read = refreshed.map(|()| read(self));
        self.connection.execute_batch("ROLLBACK").map_err(|error| self.failed(error))?;
        read
    }

    /// How many faces fulfil the query. `threshold`: the P(OK) from which a face is `ok`.
    pub fn count(&self, query: &Query, threshold: f64) -> u64 {
        self.columns.matching(query, threshold).count()
    }

    /// How they divide into OK and NG.
    pub fn ok_split(&self, query: &Query, threshold: f64) -> OkSplit {
        let mut split = OkSplit::default();
        self.columns.matching(query, threshold).each(|row| {
            let part = match self.columns.number(Number::POk, row).partial_cmp(&(threshold as f32)) {
                None => &mut split.unscored,
                Some(Ordering::Less) => &mut split.ng,
                Some(_) => &mut split.ok,
            };
            *part += 1;
        });
        split
    }

    /// How they divide by status.
    pub fn count_by_status(&self, query: &Query, threshold: f64) -> [(FaceStatus, u64); FaceStatus::ALL.len()] {
        let mut counts = FaceStatus::ALL.map(|status| (status, 0));
        let rows = self.columns.matching(query, threshold);
        self.columns.each_status(&rows, threshold as f32, |_, status| counts[status as usize].1 += 1);
        counts
    }

    /// How many of them have each text, most frequent first; none stands for no text.
    pub fn count_by(&self, text: Text, query: &Query, threshold: f64) -> Vec<(Option<String>, u64)> {
        let mut counts = self.columns.text(text).count(&self.columns.matching(query, threshold));
        counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts.into_iter().map(|(text, count)| (text.map(str::to_owned), count)).collect()
    }

    /// How many of them have a number in each of `bins` equal parts of the range; others are in the nearest part.
    /// Faces without a value are in no part.
    pub fn histogram(&self, number: Number, range: (f64, f64), bins: usize, query: &Query, threshold: f64) -> Vec<u64> {
        let mut counts = vec![0; bins.max(1)];
        let parts = counts.len();
        self.columns.matching(query, threshold).each(|row| {
            if let Some(part) = part(self.columns.number(number, row).into(), range, parts) {
                counts[part] += 1;
            }
        });
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
        let mut read = self.reader()?;
        // A face that another process has just removed is left out.
        let faces = rows.iter().filter_map(|row| read(*row).transpose());
        Ok(Page { faces: faces.collect::<Result<_, _>>()?, next })
    }

    /// Visits all faces that fulfil the query, in order.
    ///
    /// # Errors
    /// The index cannot be read, or `visit` fails.
    pub fn each_face<E: From<IndexError>>(
        &self,
        query: &Query,
        order: Order,
        threshold: f64,
        mut visit: impl FnMut(Face) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = self.columns.matching(query, threshold);
        let mut read = self.reader()?;
        for row in sorted(&self.columns, &rows, order, threshold) {
            if let Some(face) = read(row)? {
                visit(face)?;
            }
        }
        Ok(())
    }

    /// Reads the face of a row of the columns.
    pub(super) fn reader(&self) -> Result<impl FnMut(usize) -> Result<Option<Face>, IndexError> + '_, IndexError> {
        let sql = format!("{} WHERE key = ?1", rows::SELECT_FACE);
        let mut by_key = self.connection.prepare_cached(&sql).map_err(|error| self.failed(error))?;
        Ok(move |row| {
            let found = by_key.query_row([self.columns.key(row)], rows::face).optional();
            found.map_err(|error| self.failed(error))
        })
    }

    /// The face of one photo.
    pub fn face(&self, photo_id: &Id) -> Result<Option<Face>, IndexError> {
        self.photo_reader()?(photo_id)
    }

    /// Reads the faces of photos, one after the other, as they are at the first one.
    pub fn photo_reader(&self) -> Result<impl FnMut(&Id) -> Result<Option<Face>, IndexError> + '_, IndexError> {
        let sql = format!("{} WHERE photo_id = ?1", rows::SELECT_FACE);
        let mut by_id = self.connection.prepare_cached(&sql).map_err(|error| self.failed(error))?;
        // Without it, each face takes and releases the locks of the file.
        let reading = self.connection.unchecked_transaction().map_err(|error| self.failed(error))?;
        Ok(move |photo_id: &Id| {
            let _ = &reading;
            let found = by_id.query_row([photo_id.as_str()], rows::face).optional();
            found.map_err(|error| self.failed(error))
        })
    }

    /// How many photos ended alike.
    pub fn endings(&self) -> Result<Vec<EndingCount>, IndexError> {
        let read = || {
            let mut rows = self.connection.prepare_cached("SELECT * FROM ending_counts")?;
            rows.query_map([], rows::ending_count)?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    /// The originals that many photos or labels share, and the `limit` largest of them.
    pub fn placeholders(&self, limit: usize) -> Result<Placeholders, IndexError> {
        placeholders(&self.connection, limit).map_err(|error| self.failed(error))
    }

    /// Whether the photo has ended.
    pub fn has_ended(&self, photo_id: &Id) -> Result<bool, IndexError> {
        let read = || {
            let sql = "SELECT EXISTS (SELECT 1 FROM endings WHERE bytes = ?1 AND photo_id = ?2)";
            let mut exists = self.connection.prepare_cached(sql)?;
            exists.query_row(params![photo_id.as_str().len() as i64, photo_id.as_str()], |row| row.get(0))
        };
        read().map_err(|error| self.failed(error))
    }

    /// Visits all photos that have ended, in the order of their ids.
    ///
    /// # Errors
    /// The index cannot be read, or `visit` fails.
    pub fn each_ended<E: From<IndexError>>(&self, mut visit: impl FnMut(EndedPhoto) -> Result<(), E>) -> Result<(), E> {
        let failed = |error| self.failed(error);
        let mut statement = self.connection.prepare_cached(rows::SELECT_ENDED).map_err(failed)?;
        for photo in statement.query_map([], rows::ended_photo).map_err(failed)? {
            visit(photo.map_err(failed)?)?;
        }
        Ok(())
    }

    /// Photos that have ended and have no record, or one that lacks what a stage found out: their number, and the first
    /// `limit` of their ids.
    pub fn unrecorded(&self, limit: usize) -> Result<(u64, Vec<Id>), IndexError> {
        let read = || {
            let count = "SELECT count(*) FROM endings WHERE NOT recorded";
            let count: i64 = self.connection.query_row(count, [], |row| row.get(0))?;
            let mut rows = self.connection.prepare_cached(rows::SELECT_UNRECORDED)?;
            let ids = rows.query_map([limit as i64], |row| row.get::<_, String>(0).map(Id::new))?;
            Ok((count as u64, ids.collect::<rusqlite::Result<_>>()?))
        };
        read().map_err(|error| self.failed(error))
    }
}

/// Whether the file is an index of the run in the present schema.
pub(super) fn fits(connection: &Connection, run: &RunName) -> rusqlite::Result<bool> {
    let has_schema = pragma(connection, "user_version")? == Index::SCHEMA;
    Ok(has_schema && meta(connection, "run")?.as_deref() == Some(run.as_str()))
}

pub(super) fn placeholders(connection: &Connection, limit: usize) -> rusqlite::Result<Placeholders> {
    let mut select = connection.prepare_cached(rows::SELECT_PLACEHOLDERS)?;
    let mut found = Placeholders::default();
    let mut shared = select.query(params![Placeholder::MIN_LABELS, Placeholder::MIN_PHOTOS])?;
    while let Some(row) = shared.next()? {
        let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
        let original = rows::hash(row, 0)?;
        let one = Placeholder { original, photos: number(1)?, labels: number(2)?, faces: number(3)? };
        found.originals += 1;
        found.photos += one.photos;
        found.faces += one.faces;
        if found.largest.len() < limit {
            found.largest.push(one);
        }
    }
    Ok(found)
}

pub(super) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(super) fn verdict_position(connection: &Connection) -> rusqlite::Result<LogPosition> {
    Ok(meta(connection, "verdicts")?.and_then(|position| position.parse().ok()).unwrap_or_default())
}

/// The model whose predictions the file has.
fn stored_model(connection: &Connection) -> rusqlite::Result<Option<ContentHash>> {
    Ok(meta(connection, "model")?.and_then(|model| model.parse().ok()))
}

/// Whether the prediction counts where the run's current classifier is `model`. Another process may have set it since
/// the prediction was looked up.
fn is_of(prediction: &Prediction, model: Option<ContentHash>) -> bool {
    model.is_none_or(|model| prediction.model_sha256 == model)
}

/// What a change did to the faces.
enum Applied {
    Face(i64, Box<ColumnValues>),
    Removed(Id),
    /// So many photos and labels now share the original of these faces.
    Shared {
        faces: Vec<i64>,
        photos: u32,
        labels: u32,
    },
}

/// The statements that changes need.
struct Statements<'a> {
    remove_face: Statement<'a>,
    remove_ending: Statement<'a>,
    add_face: Statement<'a>,
    add_prediction: Statement<'a>,
    add_ending: Statement<'a>,
}

fn apply(
    transaction: &Transaction<'_>,
    changes: &[Change],
    position: Option<&FeedCursor>,
) -> rusqlite::Result<Vec<Applied>> {
    let mut statements = Statements {
        remove_face: transaction.prepare("DELETE FROM faces WHERE photo_id = ?1")?,
        remove_ending: transaction
            .prepare("DELETE FROM endings WHERE bytes = ?1 AND photo_id = ?2 RETURNING original")?,
        add_face: transaction.prepare(rows::ADD_FACE)?,
        add_prediction: transaction.prepare(rows::ADD_PREDICTION)?,
        add_ending: transaction.prepare(rows::ADD_ENDING)?,
    };
    let model = stored_model(transaction)?;
    let mut applied = Vec::with_capacity(changes.len());
    let mut originals = ChangedOriginals::default();
    for change in changes {
        let id = change.photo_id();
        if change.is_takedown() {
            removal::forget(transaction, id)?;
        }
        let removed = statements.remove_ending.query_row(params![id.as_str().len() as i64, id.as_str()], |row| {
            (row.get_ref(0)? != ValueRef::Null).then(|| rows::hash(row, 0)).transpose()
        });
        originals.removed.extend(removed.optional()?.flatten());
        if statements.remove_face.execute([id.as_str()])? > 0 {
            applied.push(Applied::Removed(id.clone()));
        }
        match change {
            Change::Ended(record) => {
                originals.added.extend(record.message.photo.facts.original.as_ref().map(|original| original.sha256));
                let face = add_record(transaction, &mut statements, record, model)?;
                applied.extend(face.map(|(key, values)| Applied::Face(key, Box::new(values))));
            }
            Change::Unrecorded(photo) => add_ending(&mut statements.add_ending, photo, "", None, false)?,
            Change::Reopened(_) => {}
        }
    }
    applied.extend(originals.shared(transaction)?);
    if let Some(position) = position {
        let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?;
        set.execute(["epoch", position.epoch.as_str()])?;
        set.execute(["cursor", position.sequence.to_string().as_str()])?;
    }
    Ok(applied)
}

/// The originals of photos that ended, or that have not ended any more.
#[derive(Default)]
struct ChangedOriginals {
    added: HashSet<ContentHash>,
    removed: HashSet<ContentHash>,
}

impl ChangedOriginals {
    /// The faces whose originals are shared by another number of photos than before.
    fn shared(self, transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Applied>> {
        let mut count = transaction.prepare_cached(rows::SELECT_SHARED)?;
        let mut keys = transaction.prepare_cached("SELECT key FROM faces WHERE original = ?1 ORDER BY key")?;
        let mut shared = Vec::new();
        for original in self.added.union(&self.removed) {
            let (photos, labels): (u32, u32) =
                count.query_row([original.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            // A new face whose original no other photo has needs no update.
            if photos <= 1 && !self.removed.contains(original) {
                continue;
            }
            let faces: Vec<i64> =
                keys.query_map([original.as_bytes()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            if !faces.is_empty() {
                shared.push(Applied::Shared { faces, photos, labels });
            }
        }
        Ok(shared)
    }
}

/// Adds the photo, and its face if it has one, which it returns with the key.
fn add_record(
    transaction: &Transaction<'_>,
    statements: &mut Statements<'_>,
    record: &Record,
    model: Option<ContentHash>,
) -> rusqlite::Result<Option<(i64, ColumnValues)>> {
    let Record { ending, cause, message } = record;
    let photo = &message.photo;
    let ended = EndedPhoto {
        photo_id: photo.candidate.photo_id.clone(),
        photo_url: Some(photo.candidate.photo_url.clone()),
        ending: *ending,
        stage: message.position.stage,
        // A photo that passed all stages has no cause, whatever held it up on the way.
        cause: cause.as_ref().filter(|_| *ending != Ending::Predicted).map(|cause| cause.code.clone()),
        attempt: message.attempt,
    };
    let face = (*ending == Ending::Predicted).then(|| Face::of(photo)).flatten();
    let recorded = face.is_some() || *ending != Ending::Predicted;
    let original = photo.facts.original.as_ref().map(|original| (original.sha256, label_of(photo)));
    add_ending(&mut statements.add_ending, &ended, &photo.candidate.host(), original, recorded)?;
    let Some(mut face) = face else { return Ok(None) };
    let published = rows::published(face.posted_at.as_deref());
    rows::insert(&mut statements.add_face, &face, published)?;
    let key = transaction.last_insert_rowid();
    face.verdict = FaceVerdict::of(&verdict_table::on_crop(transaction, face.crop)?);
    match photo.facts.prediction.as_ref().filter(|prediction| is_of(prediction, model)) {
        Some(prediction) => {
            statements.add_prediction.execute(params![key, prediction.p_ok, prediction.model])?;
        }
        None => (face.p_ok, face.model) = (None, None),
    }
    let mut find = transaction.prepare_cached("SELECT of_group, place FROM duplicates WHERE crop = ?1")?;
    let group = find.query_row([face.crop.as_bytes()], |row| group_place(row, 0)).optional()?.flatten();
    let mut find = transaction.prepare_cached("SELECT identity FROM identities WHERE crop = ?1")?;
    face.identity = find.query_row([face.crop.as_bytes()], |row| row.get(0)).optional()?;
    Ok(Some((key, ColumnValues { group, ..ColumnValues::of(&face, published) })))
}

/// The name of a photo's label, or its id; empty if the photo has none.
fn label_of(photo: &Photo) -> &str {
    let Candidate { label_id, label_name, .. } = &photo.candidate;
    label_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(label_id.as_str())
}

/// `original`: the photo's original and label, if it was downloaded.
fn add_ending(
    statement: &mut Statement<'_>,
    photo: &EndedPhoto,
    host: &str,
    original: Option<(ContentHash, &str)>,
    recorded: bool,
) -> rusqlite::Result<()> {
    let EndedPhoto { photo_id, photo_url, ending, stage, cause, attempt } = photo;
    let values = params![
        photo_id.as_str().len() as i64,
        photo_id.as_str(),
        photo_url,
        ending.as_str(),
        stage.as_str(),
        cause.as_ref().map_or_else(String::new, ToString::to_string),
        host,
        original.is_some(),
        attempt,
        recorded,
        original.as_ref().map(|(original, _)| original.as_bytes()),
        original.map(|(_, label)| label),
    ];
    statement.execute(values).map(drop)
}
