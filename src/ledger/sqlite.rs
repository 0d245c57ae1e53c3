//! The ledger in a SQLite file.

use crate::domain::CauseCode;
use async_trait::async_trait;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    Begin, CauseCount, Counts, Entry, Event, EventKind, Filter, Ledger, LedgerError, Move, Moved, PhotoStatus,
    Registration,
};
use crate::domain::Message;
use crate::domain::{Candidate, Cause, Ending, Id, Photo, PhotoKey, Position, RunName, StageName, State};
use crate::sqlite::{Database, DatabaseError};

/// Photos and their events as rows. Clones share the file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    database: Database,
}

impl Sqlite {
    /// Messages have a table of their own so that counting does not read them. Ids order as [`Id`] does, by their
    /// length in bytes first.
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS photos(
            run TEXT NOT NULL,
            id TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            stage TEXT NOT NULL,
            delivery INTEGER NOT NULL,
            ending TEXT,
            attempt INTEGER NOT NULL,
            due_at INTEGER NOT NULL,
            cause TEXT,
            detail TEXT,
            host TEXT NOT NULL,
            worker TEXT,
            crashes INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (run, id)) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS photos_in_order ON photos(run, bytes, id);
        CREATE TABLE IF NOT EXISTS messages(
            run TEXT NOT NULL,
            id TEXT NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (run, id));
        CREATE TABLE IF NOT EXISTS events(
            seq INTEGER PRIMARY KEY,
            run TEXT NOT NULL,
            id TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            stage TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            what TEXT NOT NULL,
            cause TEXT,
            detail TEXT,
            took_ms INTEGER NOT NULL);
        CREATE INDEX IF NOT EXISTS events_of_photo ON events(run, id);";

    pub async fn open(database: Database) -> Result<Self, LedgerError> {
        let ledger = Self { database };
        ledger.call("open the ledger", |c| c.execute_batch(Self::SCHEMA)).await?;
        Ok(ledger)
    }

    async fn call<T, F>(&self, what: &str, work: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.database.call(work).await.map_err(|error| failure(what, &error))
    }
}

fn failure(what: &str, error: &DatabaseError) -> LedgerError {
    let (what, detail) = (what.to_owned(), error.to_string());
    match error {
        DatabaseError::Failed { .. } => LedgerError::Unavailable { what, detail },
        _ => LedgerError::Refused { what, detail },
    }
}

/// A text column that holds one of our words.
fn word<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

fn optional_word<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => word(row, column).map(Some),
    }
}

fn cause(row: &Row<'_>, code: usize) -> rusqlite::Result<Option<Cause>> {
    let (code, detail): (Option<String>, Option<String>) = (row.get(code)?, row.get(code + 1)?);
    Ok(code.map(|code| Cause { code: CauseCode::from(code), detail: detail.unwrap_or_default() }))
}

const STATUS: &str = "SELECT p.stage, p.delivery, p.ending, p.attempt, p.due_at, p.cause, p.detail, m.body, p.id
    FROM photos p LEFT JOIN messages m ON m.run = p.run AND m.id = p.id";

fn status(row: &Row<'_>) -> rusqlite::Result<PhotoStatus> {
    let position = Position { stage: word(row, 0)?, delivery: row.get(1)? };
    let body: Option<Vec<u8>> = row.get(7)?;
    let bad = |error| rusqlite::Error::FromSqlConversionFailure(7, Type::Blob, Box::new(error));
    Ok(PhotoStatus {
        state: optional_word(row, 2)?.map_or(State::Waiting(position), State::Ended),
        stage: position.stage,
        attempt: row.get(3)?,
        due_at: row.get::<_, i64>(4)? as u64,
        cause: cause(row, 5)?,
        message: body.map(|body| Message::decode(&body)).transpose().map_err(bad)?,
    })
}

fn look_up(c: &Connection, key: &PhotoKey) -> rusqlite::Result<Option<PhotoStatus>> {
    c.prepare_cached(&format!("{STATUS} WHERE p.run = ?1 AND p.id = ?2"))?
        .query_row(params![key.run.as_str(), key.photo_id.as_str()], status)
        .optional()
}

fn keep(c: &Connection, key: &PhotoKey, message: &Message) -> rusqlite::Result<()> {
    c.prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET body = excluded.body")?
        .execute(params![key.run.as_str(), key.photo_id.as_str(), message.encode()])
        .map(drop)
}

fn note(c: &Connection, key: &PhotoKey, event: &Event) -> rusqlite::Result<()> {
    let (code, detail) = event.cause.as_ref().map(|cause| (cause.code.to_string(), cause.detail.clone())).unzip();
    c.prepare_cached(
        "INSERT INTO events(run, id, at_ms, stage, attempt, what, cause, detail, took_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        key.run.as_str(),
        key.photo_id.as_str(),
        event.at_ms as i64,
        event.stage.as_str(),
        event.attempt,
        event.what.as_str(),
        code,
        detail,
        event.took_ms
    ])
    .map(drop)
}

/// Takes a photo in where its message stands. False: it is known.
fn take_in(c: &Connection, message: &Message) -> rusqlite::Result<bool> {
    if !insert(c, message)? {
        return Ok(false);
    }
    let event = Event {
        at_ms: message.enqueued_at * 1000,
        stage: message.position.stage,
        attempt: 0,
        what: EventKind::Enqueued,
        cause: None,
        took_ms: 0,
    };
    note(c, &message.photo.key(), &event)?;
    Ok(true)
}

/// The photo and its message, without a history. False: it is known.
fn insert(c: &Connection, message: &Message) -> rusqlite::Result<bool> {
    let key = message.photo.key();
    let added = c
        .prepare_cached(
            "INSERT OR IGNORE INTO photos(run, id, bytes, stage, delivery, attempt, due_at, host)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)",
        )?
        .execute(params![
            key.run.as_str(),
            key.photo_id.as_str(),
            key.photo_id.as_str().len() as i64,
            message.position.stage.as_str(),
            message.position.delivery,
            message.attempt,
            message.photo.candidate.host()
        ])?;
    if added == 0 {
        return Ok(false);
    }
    keep(c, &key, message)?;
    Ok(true)
}

#[async_trait]
impl Ledger for Sqlite {
    async fn register(
        &self,
        run: &RunName,
        candidates: &[Candidate],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError> {
        let photos = candidates.iter().map(|candidate| Photo::new(run.clone(), candidate.clone()));
        let messages: Vec<Message> = photos.map(|photo| Message::first(photo, now)).collect();
        self.call("take photos in", move |c| {
            let register = |message: &Message| {
                if take_in(c, message)? {
                    return Ok(Registration::New);
                }
                let key = message.photo.key();
                let at_start: bool = c
                    .prepare_cached(
                        "SELECT ending IS NULL AND stage = 'fetch' AND delivery = 1 FROM photos WHERE run = ?1 AND id = ?2",
                    )?
                    .query_row(params![key.run.as_str(), key.photo_id.as_str()], |row| row.get(0))?;
                Ok(if at_start { Registration::Pending } else { Registration::InProgress })
            };
            messages.iter().map(register).collect()
        })
        .await
    }

    async fn begin(&self, message: &Message, worker: &str, redelivered: bool) -> Result<Begin, LedgerError> {
        let (message, worker) = (message.clone(), worker.to_owned());
        self.call("begin with a photo", move |c| {
            take_in(c, &message)?;
            let key = message.photo.key();
            let (run, id) = (key.run.as_str(), key.photo_id.as_str());
            let crashes: Option<u32> = c
                .prepare_cached(
                    "UPDATE photos SET crashes = crashes + (?5 AND worker IS NOT NULL AND worker <> ?6), worker = ?6
                     WHERE run = ?1 AND id = ?2 AND stage = ?3 AND delivery = ?4 AND ending IS NULL RETURNING crashes",
                )?
                .query_row(
                    params![run, id, message.position.stage.as_str(), message.position.delivery, redelivered, worker],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(crashes) = crashes {
                return Ok(Begin::Go { crashes });
            }
            let status = look_up(c, &key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            Ok(Begin::Stale(Box::new(status)))
        })
        .await
    }

    async fn release(&self, key: &PhotoKey, at: Position, worker: &str) -> Result<(), LedgerError> {
        let (key, worker) = (key.clone(), worker.to_owned());
        self.call("give a photo up", move |c| {
            c.prepare_cached(
                "UPDATE photos SET worker = NULL
                 WHERE run = ?1 AND id = ?2 AND stage = ?3 AND delivery = ?4 AND worker = ?5 AND ending IS NULL",
            )?
            .execute(params![key.run.as_str(), key.photo_id.as_str(), at.stage.as_str(), at.delivery, worker])
            .map(drop)
        })
        .await
    }

    async fn advance(&self, step: &Move<'_>) -> Result<Moved, LedgerError> {
        let (key, message, event) = (step.key.clone(), step.message.clone(), step.event.clone());
        let (from, to, attempt, due_at) = (step.from, step.to, step.attempt, step.due_at);
        self.call("move a photo", move |c| {
            let (position, ending) = match to {
                State::Waiting(position) => (position, None),
                State::Ended(ending) => (from, Some(ending)),
            };
            let (code, detail) =
                event.cause.as_ref().map(|cause| (cause.code.to_string(), cause.detail.clone())).unzip();
            let moved = c
                .prepare_cached(
                    "UPDATE photos SET stage = ?5, delivery = ?6, ending = ?7, attempt = ?8, due_at = ?9, cause = ?10,
                     detail = ?11, worker = NULL, crashes = 0
                     WHERE run = ?1 AND id = ?2 AND stage = ?3 AND delivery = ?4 AND ending IS NULL",
                )?
                .execute(params![
                    key.run.as_str(),
                    key.photo_id.as_str(),
                    from.stage.as_str(),
                    from.delivery,
                    position.stage.as_str(),
                    position.delivery,
                    ending.map(Ending::as_str),
                    attempt,
                    due_at as i64,
                    code,
                    detail
                ])?;
            if moved == 0 {
                let status = look_up(c, &key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                return Ok(Moved::Stale(Box::new(status)));
            }
            keep(c, &key, &message)?;
            note(c, &key, &event)?;
            Ok(Moved::Done)
        })
        .await
    }

    async fn status(&self, key: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError> {
        let key = key.clone();
        self.call("look a photo up", move |c| look_up(c, &key)).await
    }

    async fn history(&self, key: &PhotoKey) -> Result<Vec<Event>, LedgerError> {
        let key = key.clone();
        self.call("read what happened to a photo", move |c| {
            let mut rows = c.prepare_cached(
                "SELECT at_ms, stage, attempt, what, cause, detail, took_ms FROM events
                 WHERE run = ?1 AND id = ?2 ORDER BY seq",
            )?;
            rows.query_map(params![key.run.as_str(), key.photo_id.as_str()], |row| {
                Ok(Event {
                    at_ms: row.get::<_, i64>(0)? as u64,
                    stage: word(row, 1)?,
                    attempt: row.get(2)?,
                    what: word(row, 3)?,
                    cause: cause(row, 4)?,
                    took_ms: row.get(6)?,
                })
            })?
            .collect()
        })
        .await
    }

    async fn counts(&self, run: &RunName) -> Result<Counts, LedgerError> {
        let run = run.to_string();
        self.call("count the photos", move |c| {
            let mut counts = Counts::default();
            let mut rows = c.prepare_cached(
                "SELECT stage, ending, cause, host, count(*), sum(delivery > 1) FROM photos WHERE run = ?1
                 GROUP BY stage, ending, cause, host",
            )?;
            let mut rows = rows.query([run])?;
            while let Some(row) = rows.next()? {
                let (stage, ending) = (word(row, 0)?, optional_word(row, 1)?);
                let (count, again) = (row.get::<_, i64>(4)? as u64, row.get::<_, i64>(5)? as u64);
                counts.candidates += count;
                let Some(ending) = ending else {
                    *counts.waiting.entry(stage).or_default() += count;
                    *counts.retrying.entry(stage).or_default() += again;
                    continue;
                };
                *counts.ended.entry(ending).or_default() += count;
                if let Some(code) = row.get::<_, Option<String>>(2)? {
                    counts.causes.push(CauseCount { stage, ending, code: code.into(), host: row.get(3)?, count });
                }
            }
            counts.retrying.retain(|_, count| *count > 0);
            Ok(counts)
        })
        .await
    }

    async fn page(
        &self,
        run: &RunName,
        filter: &Filter,
        after: Option<&Id>,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerError> {
        let (run, filter, after) = (run.to_string(), filter.clone(), after.cloned());
        self.call("list photos", move |c| {
            let after = after.as_ref().map_or("", Id::as_str);
            let mut rows = c.prepare_cached(&format!(
                "{STATUS} WHERE p.run = ?1 AND (p.bytes, p.id) > (?9, ?2)
                 AND (?3 IS NULL OR p.stage = ?3) AND (?4 IS NULL OR p.ending = ?4) AND (?5 IS NULL OR p.cause = ?5)
                 AND (?6 IS NULL OR p.host = ?6) AND NOT (?7 AND p.ending IS NOT NULL)
                 ORDER BY p.bytes, p.id LIMIT ?8"
            ))?;
            rows.query_map(
                params![
                    run,
                    after,
                    filter.stage.map(StageName::as_str),
                    filter.ending.map(Ending::as_str),
                    filter.cause.as_ref().map(ToString::to_string),
                    filter.host,
                    filter.waiting,
                    limit as i64,
                    after.len() as i64
                ],
                |row| Ok(Entry { photo_id: Id::new(row.get::<_, String>(8)?), status: status(row)? }),
            )?
            .collect()
        })
        .await
    }

    async fn restore(&self, message: &Message, ending: Ending, cause: Option<&Cause>) -> Result<bool, LedgerError> {
        let (message, cause) = (message.clone(), cause.cloned());
        self.call("give a photo its end back", move |c| {
            let is_new = insert(c, &message)?;
            let key = message.photo.key();
            let (code, detail) = cause.map(|cause| (cause.code.to_string(), cause.detail)).unzip();
            let restored = c
                .prepare_cached(
                    "UPDATE photos SET stage = ?3, delivery = ?4, ending = ?5, attempt = ?6, due_at = 0, cause = ?7,
                     detail = ?8, worker = NULL, crashes = 0
                     WHERE run = ?1 AND id = ?2 AND ending IS NULL AND (?9 OR stage = 'fetch' AND delivery = 1)",
                )?
                .execute(params![
                    key.run.as_str(),
                    key.photo_id.as_str(),
                    message.position.stage.as_str(),
                    message.position.delivery,
                    ending.as_str(),
                    message.attempt,
                    code,
                    detail,
                    is_new
                ])?;
            if restored > 0 {
                keep(c, &key, &message)?;
            }
            Ok(restored > 0)
        })
        .await
    }

    /// Has every message itself.
    async fn reopen(&self, key: &PhotoKey, _: Option<&Message>, now: u64) -> Result<Option<Message>, LedgerError> {
        let key = key.clone();
        self.call("send a photo back", move |c| {
            let Some(PhotoStatus { state: State::Ended(_), message: Some(message), .. }) = look_up(c, &key)? else {
                return Ok(None);
            };
            let message =
                Message { attempt: 1, position: message.position.next_delivery(), enqueued_at: now, ..message };
            let Position { stage, delivery } = message.position;
            c.execute(
                "UPDATE photos SET stage = ?3, delivery = ?4, ending = NULL, attempt = 1, due_at = 0, cause = NULL,
                 detail = NULL, worker = NULL, crashes = 0 WHERE run = ?1 AND id = ?2",
                params![key.run.as_str(), key.photo_id.as_str(), stage.as_str(), delivery],
            )?;
            keep(c, &key, &message)?;
            let what = EventKind::Enqueued;
            note(c, &key, &Event { at_ms: now * 1000, stage, attempt: 0, what, cause: None, took_ms: 0 })?;
            Ok(Some(message))
        })
        .await
    }

    async fn runs(&self) -> Result<Vec<RunName>, LedgerError> {
        self.call("list the runs", |c| {
            let mut rows = c.prepare_cached("SELECT DISTINCT run FROM photos ORDER BY run")?;
            rows.query_map([], |row| word(row, 0))?.collect()
        })
        .await
    }

    async fn check(&self) -> Result<(), LedgerError> {
        self.call("write to the ledger", |c| {
            c.execute("INSERT OR REPLACE INTO settings VALUES ('', '{}')", [])?;
            c.execute("DELETE FROM settings WHERE run = ''", []).map(drop)
        })
        .await
    }
}
