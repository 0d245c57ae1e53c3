//! The ledger in a SQLite file.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::Type;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::time::{Instant, sleep};

use super::{
    CauseCount, Counts, Cursor, Endings, Entry, Epoch, Event, EventKind, FeedChange, FeedEntry, Filter, Ledger,
    LedgerError, Move, Moved, Permission, PhotoStatus, Registration,
};
use crate::domain::{Cause, CauseCode, Ending, Id, Message, Photo, PhotoKey, Position, RunName, StageName, State};
use crate::sqlite::{Database, DatabaseError};

/// Photos, events and the feed as rows. Clones share the file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    database: Database,
}

impl Sqlite {
    /// How often a wait looks for commits.
    const POLL: Duration = Duration::from_millis(250);

    /// Messages have a separate table, so that counting does not read them. `bytes`, the length of the id, comes
    /// first in the order of ids, as in [`Id`]. In `endings`, an `ending` of NULL is a photo that was reopened; the
    /// sequence counts the entries of all runs.
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
        CREATE INDEX IF NOT EXISTS events_of_photo ON events(run, id);
        CREATE TABLE IF NOT EXISTS endings(
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            run TEXT NOT NULL,
            id TEXT NOT NULL,
            ending TEXT);
        CREATE INDEX IF NOT EXISTS endings_of_run ON endings(run, sequence);
        CREATE TABLE IF NOT EXISTS epoch(only_row INTEGER PRIMARY KEY CHECK (only_row = 1), epoch TEXT NOT NULL);";

    pub async fn open(database: Database) -> Result<Self, LedgerError> {
        let ledger = Self { database };
        ledger
            .call("open the ledger", |c| {
                c.execute_batch(Self::SCHEMA)?;
                c.execute("INSERT OR IGNORE INTO epoch VALUES (1, ?1)", [Epoch::random().as_str()])
            })
            .await?;
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

/// A text column that holds the name of an enum's value.
fn parse_column<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

fn parse_optional<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => parse_column(row, column).map(Some),
    }
}

fn cause(row: &Row<'_>, code: usize) -> rusqlite::Result<Option<Cause>> {
    let (code, detail): (Option<String>, Option<String>) = (row.get(code)?, row.get(code + 1)?);
    Ok(code.map(|code| Cause { code: CauseCode::from(code), detail: detail.unwrap_or_default() }))
}

const SELECT_STATUS: &str = "SELECT p.stage, p.delivery, p.ending, p.attempt, p.due_at, p.cause, p.detail, m.body, p.id
    FROM photos p LEFT JOIN messages m ON m.run = p.run AND m.id = p.id";

fn status_of_row(row: &Row<'_>) -> rusqlite::Result<PhotoStatus> {
    let position = Position { stage: parse_column(row, 0)?, delivery: row.get(1)? };
    let body: Option<Vec<u8>> = row.get(7)?;
    let bad = |error| rusqlite::Error::FromSqlConversionFailure(7, Type::Blob, Box::new(error));
    Ok(PhotoStatus {
        state: parse_optional(row, 2)?.map_or(State::Waiting(position), State::Ended),
        stage: position.stage,
        attempt: row.get(3)?,
        due_at: row.get::<_, i64>(4)? as u64,
        cause: cause(row, 5)?,
        message: body.map(|body| Message::decode(&body)).transpose().map_err(bad)?,
    })
}

fn select_status(c: &Connection, key: &PhotoKey) -> rusqlite::Result<Option<PhotoStatus>> {
    c.prepare_cached(&format!("{SELECT_STATUS} WHERE p.run = ?1 AND p.id = ?2"))?
        .query_row(params![key.run.as_str(), key.photo_id.as_str()], status_of_row)
        .optional()
}

fn upsert_message(c: &Connection, key: &PhotoKey, message: &Message) -> rusqlite::Result<()> {
    c.prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET body = excluded.body")?
        .execute(params![key.run.as_str(), key.photo_id.as_str(), message.encode()])
        .map(drop)
}

fn insert_event(c: &Connection, key: &PhotoKey, event: &Event) -> rusqlite::Result<()> {
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

fn insert_feed_entry(c: &Connection, key: &PhotoKey, change: FeedChange) -> rusqlite::Result<()> {
    let ending = match change {
        FeedChange::Ended(ending) => Some(ending.as_str()),
        FeedChange::Reopened => None,
    };
    c.prepare_cached("INSERT INTO endings(run, id, ending) VALUES (?1, ?2, ?3)")?
        .execute(params![key.run.as_str(), key.photo_id.as_str(), ending])
        .map(drop)
}

/// Adds a photo at the position of its message, with the event. `false`: the photo is known.
fn insert_new_photo(c: &Connection, message: &Message) -> rusqlite::Result<bool> {
    if !insert_photo(c, message)? {
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
    insert_event(c, &message.photo.key(), &event)?;
    Ok(true)
}

/// Adds a photo and its message, without a history. `false`: the photo is known.
fn insert_photo(c: &Connection, message: &Message) -> rusqlite::Result<bool> {
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
    upsert_message(c, &key, message)?;
    Ok(true)
}

#[async_trait]
impl Ledger for Sqlite {
    async fn register_at(
        &self,
        run: &RunName,
        stage: StageName,
        photos: &[Photo],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError> {
        let photos = photos.iter().map(|photo| Photo { run: run.clone(), ..photo.clone() });
        let messages: Vec<Message> = photos.map(|photo| Message::entering(stage, photo, now)).collect();
        self.call("register photos", move |c| {
            let register = |message: &Message| {
                if insert_new_photo(c, message)? {
                    return Ok(Registration::New);
                }
                let known = select_status(c, &message.photo.key())?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                let candidate = known.message.as_ref().map(|message| &message.photo.candidate);
                Ok(match known.state {
                    _ if candidate.is_some_and(|known| known.photo_url != message.photo.candidate.photo_url) => {
                        Registration::Conflict
                    }
                    State::Waiting(at) if at == message.position => Registration::Pending,
                    _ => Registration::InProgress,
                })
            };
            messages.iter().map(register).collect()
        })
        .await
    }

    async fn begin(&self, message: &Message, worker: &str, redelivered: bool) -> Result<Permission, LedgerError> {
        let (message, worker) = (message.clone(), worker.to_owned());
        self.call("begin a photo", move |c| {
            insert_new_photo(c, &message)?;
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
                return Ok(Permission::Granted { crashes });
            }
            let status = select_status(c, &key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            Ok(Permission::Stale(Box::new(status)))
        })
        .await
    }

    async fn release(&self, key: &PhotoKey, at: Position, worker: &str) -> Result<(), LedgerError> {
        let (key, worker) = (key.clone(), worker.to_owned());
        self.call("release a photo", move |c| {
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
                let status = select_status(c, &key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                return Ok(Moved::Stale(Box::new(status)));
            }
            upsert_message(c, &key, &message)?;
            insert_event(c, &key, &event)?;
            if let Some(ending) = ending {
                insert_feed_entry(c, &key, FeedChange::Ended(ending))?;
            }
            Ok(Moved::Done)
        })
        .await
    }

    async fn status(&self, key: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError> {
        let key = key.clone();
        self.call("read a photo", move |c| select_status(c, &key)).await
    }

    async fn history(&self, key: &PhotoKey) -> Result<Vec<Event>, LedgerError> {
        let key = key.clone();
        self.call("read the history of a photo", move |c| {
            let mut rows = c.prepare_cached(
                "SELECT at_ms, stage, attempt, what, cause, detail, took_ms FROM events
                 WHERE run = ?1 AND id = ?2 ORDER BY seq",
            )?;
            rows.query_map(params![key.run.as_str(), key.photo_id.as_str()], |row| {
                Ok(Event {
                    at_ms: row.get::<_, i64>(0)? as u64,
                    stage: parse_column(row, 1)?,
                    attempt: row.get(2)?,
                    what: parse_column(row, 3)?,
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
                let (stage, ending) = (parse_column(row, 0)?, parse_optional(row, 1)?);
                let (count, retrying) = (row.get::<_, i64>(4)? as u64, row.get::<_, i64>(5)? as u64);
                counts.candidates += count;
                let Some(ending) = ending else {
                    *counts.waiting.entry(stage).or_default() += count;
                    *counts.retrying.entry(stage).or_default() += retrying;
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
                "{SELECT_STATUS} WHERE p.run = ?1 AND (p.bytes, p.id) > (?9, ?2)
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
                |row| Ok(Entry { photo_id: Id::new(row.get::<_, String>(8)?), status: status_of_row(row)? }),
            )?
            .collect()
        })
        .await
    }

    async fn endings(&self, run: &RunName, after: Option<&Cursor>, limit: usize) -> Result<Endings, LedgerError> {
        let (run, after) = (run.to_string(), after.cloned());
        self.call("read the feed of endings", move |c| {
            let epoch = c.query_row("SELECT epoch FROM epoch", [], |row| row.get(0).map(Epoch::stored))?;
            let last = c
                .prepare_cached("SELECT ifnull(max(sequence), 0) FROM endings WHERE run = ?1")?
                .query_row([&run], |row| row.get::<_, i64>(0))? as u64;
            // After a power cut, the file's last writes may be missing: its end is then before the cursor.
            let restarted = after.as_ref().is_some_and(|cursor| cursor.epoch != epoch || cursor.sequence > last);
            let sequence = after.as_ref().filter(|_| !restarted).map_or(0, |cursor| cursor.sequence);
            let mut rows = c.prepare_cached(
                "SELECT sequence, id, ending FROM endings WHERE run = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
            )?;
            let entries = rows
                .query_map(params![run, sequence as i64, limit as i64], |row| {
                    let change = parse_optional(row, 2)?.map_or(FeedChange::Reopened, FeedChange::Ended);
                    let (sequence, photo_id) = (row.get::<_, i64>(0)? as u64, Id::new(row.get::<_, String>(1)?));
                    Ok(FeedEntry { sequence, photo_id, change })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(Endings::new(entries, epoch, after.as_ref(), restarted))
        })
        .await
    }

    /// Another process may write the file, which SQLite cannot announce: the version of the file is read every
    /// [`Sqlite::POLL`].
    async fn wait_for_endings(
        &self,
        run: &RunName,
        after: Option<&Cursor>,
        limit: usize,
        patience: Duration,
    ) -> Result<Endings, LedgerError> {
        const WHAT: &str = "wait for endings";
        let deadline = Instant::now() + patience;
        let mut watch = self.database.watch().map_err(|error| failure(WHAT, &error))?;
        loop {
            let endings = self.endings(run, after, limit).await?;
            if endings.are_news() {
                return Ok(endings);
            }
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(endings);
                }
                sleep(left.min(Self::POLL)).await;
                if self.database.has_changed(&mut watch).map_err(|error| failure(WHAT, &error))? {
                    break;
                }
            }
        }
    }

    async fn restore(&self, message: &Message, ending: Ending, cause: Option<&Cause>) -> Result<bool, LedgerError> {
        let (message, cause) = (message.clone(), cause.cloned());
        self.call("restore a photo", move |c| {
            let is_new = insert_photo(c, &message)?;
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
                upsert_message(c, &key, &message)?;
                insert_feed_entry(c, &key, FeedChange::Ended(ending))?;
            }
            Ok(restored > 0)
        })
        .await
    }

    async fn amend(&self, message: &Message, ending: Ending) -> Result<bool, LedgerError> {
        let message = message.clone();
        self.call("amend a photo", move |c| {
            let key = message.photo.key();
            let status = select_status(c, &key)?;
            let known = status.filter(|status| status.state == State::Ended(ending)).and_then(|status| status.message);
            if known.is_none_or(|known| known.position != message.position) {
                return Ok(false);
            }
            upsert_message(c, &key, &message)?;
            insert_feed_entry(c, &key, FeedChange::Ended(ending))?;
            Ok(true)
        })
        .await
    }

    async fn take_down(&self, message: &Message, cause: &Cause, now: u64) -> Result<(), LedgerError> {
        let (mut message, cause) = (message.clone(), cause.clone());
        self.call("take down a photo", move |c| {
            let key = message.photo.key();
            match select_status(c, &key)? {
                Some(status) if status.is_taken_down() => return Ok(()),
                Some(_) => {}
                None => drop(insert_photo(c, &message)?),
            }
            message.position = c
                .prepare_cached(
                    "UPDATE photos SET ending = ?3, attempt = ?4, due_at = 0, cause = ?5, detail = ?6, host = '',
                     worker = NULL, crashes = 0 WHERE run = ?1 AND id = ?2 RETURNING stage, delivery",
                )?
                .query_row(
                    params![
                        key.run.as_str(),
                        key.photo_id.as_str(),
                        Ending::Rejected.as_str(),
                        message.attempt,
                        cause.code.to_string(),
                        cause.detail
                    ],
                    |row| Ok(Position { stage: parse_column(row, 0)?, delivery: row.get(1)? }),
                )?;
            upsert_message(c, &key, &message)?;
            c.prepare_cached("DELETE FROM events WHERE run = ?1 AND id = ?2")?
                .execute([key.run.as_str(), key.photo_id.as_str()])?;
            insert_event(c, &key, &Event::taken_down(message.position, cause, now))?;
            insert_feed_entry(c, &key, FeedChange::Ended(Ending::Rejected))
        })
        .await
    }

    /// The record is not needed: this ledger keeps every message.
    async fn reopen(&self, key: &PhotoKey, _: Option<&Message>, now: u64) -> Result<Option<Message>, LedgerError> {
        let key = key.clone();
        self.call("reopen a photo", move |c| {
            let Some(PhotoStatus { state: State::Ended(_), message: Some(message), .. }) = select_status(c, &key)?
            else {
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
            upsert_message(c, &key, &message)?;
            let what = EventKind::Enqueued;
            insert_event(c, &key, &Event { at_ms: now * 1000, stage, attempt: 0, what, cause: None, took_ms: 0 })?;
            insert_feed_entry(c, &key, FeedChange::Reopened)?;
            Ok(Some(message))
        })
        .await
    }

    async fn runs(&self) -> Result<Vec<RunName>, LedgerError> {
        self.call("list the runs", |c| {
            let mut rows = c.prepare_cached("SELECT DISTINCT run FROM photos ORDER BY run")?;
            rows.query_map([], |row| parse_column(row, 0))?.collect()
        })
        .await
    }

    async fn check(&self) -> Result<(), LedgerError> {
        self.call("write to the ledger", |c| c.execute("UPDATE epoch SET epoch = epoch", []).map(drop)).await
    }
}
