//! The broker of a run in one process: queues in the run's SQLite file.
//!
//! A killed process leaves its unacknowledged messages marked as taken. The next process that opens the file gets them
//! as redelivered. Memory holds only prefetched messages.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{
    BodyFilter, Broker, BrokerError, Consumer, DeadLetter, DeadLetterFilter, Delivery, Depth, Message, Receipt,
};
use crate::domain::StageName;
use crate::retry::Backoff;
use crate::sqlite::{Access, Database, DatabaseError};

/// Queues in a SQLite file that only this process consumes. Clones share them.
#[derive(Clone)]
pub struct Embedded {
    database: Database,
    shared: Arc<Shared>,
}

struct Shared {
    /// Notifies that a message has entered a stage's queue.
    arrived: HashMap<StageName, Notify>,
    /// Notifies that a message has left a stage's queue.
    left: HashMap<StageName, Notify>,
    /// Stages whose consumer was stopped: nothing makes room in their queues any more.
    stopped: HashMap<StageName, AtomicBool>,
    capacity: usize,
}

impl Embedded {
    /// How many messages may wait between two stages: enough to use every core, and few enough that the original of a
    /// photo is still in the page cache when it is cropped.
    pub const CAPACITY: usize = 256;

    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS queue(
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            stage TEXT NOT NULL,
            due_ms INTEGER NOT NULL,
            taken INTEGER NOT NULL DEFAULT 0,
            redelivered INTEGER NOT NULL DEFAULT 0,
            body BLOB NOT NULL);
        CREATE INDEX IF NOT EXISTS queue_by_stage ON queue(stage, taken, due_ms, seq);
        CREATE TABLE IF NOT EXISTS dead(
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            letter TEXT NOT NULL);";

    /// Opens the queues for the one process that consumes them. Unacknowledged messages of a killed process return.
    pub async fn open(database: Database, capacity: usize) -> Result<Self, BrokerError> {
        database
            .call(|c| {
                c.execute_batch(Self::SCHEMA)?;
                c.execute("UPDATE queue SET taken = 0, redelivered = 1 WHERE taken = 1", [])
            })
            .await
            .map_err(|error| failure("open the queues", &error))?;
        let notifiers = || StageName::ALL.into_iter().map(|stage| (stage, Notify::new())).collect();
        let stopped = StageName::ALL.into_iter().map(|stage| (stage, AtomicBool::new(false))).collect();
        let shared = Shared { arrived: notifiers(), left: notifiers(), stopped, capacity };
        Ok(Self { database, shared: Arc::new(shared) })
    }

    /// The number of messages in each queue, for a process that only reads.
    pub async fn peek(path: &std::path::Path) -> Result<Vec<Depth>, BrokerError> {
        let database = Database::open(path, Access::Read).map_err(|error| failure("read the queues", &error))?;
        depths(&database).await
    }

    /// The dead letters, oldest first, for a process that only reads.
    pub async fn peek_dead_letters(path: &std::path::Path) -> Result<Vec<DeadLetter>, BrokerError> {
        let database = Database::open(path, Access::Read).map_err(|error| failure("read the dead letters", &error))?;
        dead_letters(&database, i64::MAX).await
    }

    /// The ids of all messages, unacknowledged ones included, for a process that only reads.
    pub async fn message_ids(path: &std::path::Path) -> Result<HashSet<String>, BrokerError> {
        let database = Database::open(path, Access::Read).map_err(|error| failure("read the queues", &error))?;
        let read = database.call(|c| {
            let mut rows = c.prepare("SELECT id FROM queue")?;
            rows.query_map([], |row| row.get(0))?.collect()
        });
        read.await.map_err(|error| failure("read the queues", &error))
    }

    /// Returns false if there is no room.
    async fn enqueue(&self, message: &Message, due_ms: i64, capacity: Option<usize>) -> Result<bool, BrokerError> {
        let (stage, id, body) = (message.position.stage, message.id(), message.encode());
        let enqueue = self.database.call(move |c| {
            if let Some(capacity) = capacity {
                let ready: i64 = c
                    .prepare_cached("SELECT count(*) FROM queue WHERE stage = ?1 AND taken = 0 AND due_ms <= ?2")?
                    .query_row(params![stage.as_str(), due_ms], |row| row.get(0))?;
                if ready >= capacity as i64 {
                    return Ok(false);
                }
            }
            // A second copy of a message changes nothing.
            c.prepare_cached("INSERT OR IGNORE INTO queue(id, stage, due_ms, body) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id, stage.as_str(), due_ms, body])?;
            Ok(true)
        });
        let enqueued = enqueue.await.map_err(|error| failure("enqueue", &error))?;
        if enqueued {
            self.shared.arrived[&stage].notify_waiters();
        }
        Ok(enqueued)
    }
}

async fn dead_letters(database: &Database, limit: i64) -> Result<Vec<DeadLetter>, BrokerError> {
    let read = database.call(move |c| {
        let mut rows = c.prepare("SELECT letter FROM dead ORDER BY seq LIMIT ?1")?;
        rows.query_map([limit], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
    });
    let letters = read.await.map_err(|error| failure("read the dead letters", &error))?;
    Ok(letters.iter().filter_map(|letter| serde_json::from_str(letter).ok()).collect())
}

fn failure(what: &str, error: &DatabaseError) -> BrokerError {
    let (what, detail) = (what.into(), error.to_string());
    match error {
        DatabaseError::DiskFull(_) => BrokerError::Refused { what, detail },
        _ => BrokerError::Unavailable { what, detail },
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// The depths by stage. None: the dead letters.
fn count(c: &Connection) -> rusqlite::Result<HashMap<Option<StageName>, Depth>> {
    let now = now_ms();
    let empty = |stage| Depth { stage, ready: 0, in_flight: 0, delayed: 0, oldest_age: None };
    let stages = StageName::ALL.into_iter().map(Some).chain([None]);
    let mut depths: HashMap<_, _> = stages.map(|stage| (stage, empty(stage))).collect();
    let mut rows = c.prepare_cached(
        "SELECT stage, taken, due_ms > ?1, count(*), min(due_ms) FROM queue GROUP BY stage, taken, due_ms > ?1",
    )?;
    let mut rows = rows.query([now])?;
    while let Some(row) = rows.next()? {
        let stage: StageName = row.get_ref(0)?.as_str()?.parse().map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
        })?;
        let (taken, later, messages, due): (bool, bool, i64, i64) =
            (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let Some(depth) = depths.get_mut(&Some(stage)) else { continue };
        match (taken, later) {
            (true, _) => depth.in_flight += messages as u64,
            (false, true) => depth.delayed += messages as u64,
            (false, false) => {
                depth.ready += messages as u64;
                depth.oldest_age = Some(((now - due) / 1000).max(0) as u64);
            }
        }
    }
    if let Some(depth) = depths.get_mut(&None) {
        depth.ready = c.query_row("SELECT count(*) FROM dead", [], |row| row.get::<_, i64>(0))? as u64;
    }
    Ok(depths)
}

async fn depths(database: &Database) -> Result<Vec<Depth>, BrokerError> {
    let counted = database.call(count).await.map_err(|error| failure("count the messages", &error))?;
    let mut depths: Vec<Depth> = counted.into_values().collect();
    depths.sort_by_key(|depth| (depth.stage.is_none(), depth.stage));
    Ok(depths)
}

#[async_trait]
impl Broker for Embedded {
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        let stage = message.position.stage;
        loop {
            let left = self.shared.left[&stage].notified();
            tokio::pin!(left);
            left.as_mut().enable();
            // The first queue is not bounded: the producer enqueues the whole collection and ends.
            let is_bounded = stage != StageName::Fetch && !self.shared.stopped[&stage].load(Ordering::Acquire);
            let capacity = is_bounded.then_some(self.shared.capacity);
            if self.enqueue(message, now_ms(), capacity).await? {
                return Ok(());
            }
            left.await;
        }
    }

    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError> {
        let due_ms = now_ms().saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        self.enqueue(message, due_ms, None).await.map(drop)
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError> {
        let (id, letter) = (letter.id(), serde_json::to_string(letter).expect("a dead letter has only string keys"));
        let dead_letter = self.database.call(move |c| {
            c.execute(
                "INSERT INTO dead(id, letter) VALUES (?1, ?2) ON CONFLICT(id) DO UPDATE SET letter = ?2",
                params![id, letter],
            )
        });
        dead_letter.await.map(drop).map_err(|error| failure("add a dead letter", &error))
    }

    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.shared.stopped[&stage].store(false, Ordering::Release);
        Ok(Box::new(EmbeddedConsumer {
            broker: self.clone(),
            stage,
            permits: Arc::new(Semaphore::new(usize::from(prefetch.max(1)))),
            buffer: VecDeque::new(),
            stopped: false,
        }))
    }

    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        depths(&self.database).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        dead_letters(&self.database, limit as i64).await
    }

    async fn take_dead_letters(&self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        let mut letters = self.dead_letters(usize::MAX >> 1).await?;
        letters.retain(|letter| filter(letter));
        let ids: Vec<String> = letters.iter().map(DeadLetter::id).collect();
        let removal = self
            .database
            .call(move |c| ids.iter().try_for_each(|id| c.execute("DELETE FROM dead WHERE id = ?1", [id]).map(drop)));
        removal.await.map_err(|error| failure("remove dead letters", &error))?;
        Ok(letters)
    }

    async fn remove_messages(&self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        const PAGE: usize = 500;
        let failed = |error| failure("remove messages", &error);
        let (mut after, mut removed) = (0, 0);
        loop {
            let page = self.database.call(move |c| {
                let mut rows = c.prepare_cached("SELECT seq, body FROM queue WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
                let message = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                rows.query_map([after, PAGE as i64], message)?.collect::<Result<Vec<(i64, Vec<u8>)>, _>>()
            });
            let page = page.await.map_err(failed)?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            after = *last;
            let matching = page.iter().filter(|(_, body)| matches(body)).map(|(seq, _)| *seq);
            let matching: Vec<i64> = matching.collect();
            removed += matching.len() as u64;
            let removal = self.database.call(move |c| {
                let mut remove = c.prepare_cached("DELETE FROM queue WHERE seq = ?1")?;
                matching.iter().try_for_each(|seq| remove.execute([seq]).map(drop))
            });
            removal.await.map_err(failed)?;
        }
    }

    async fn check(&self) -> Result<(), BrokerError> {
        let check = self.database.call(|c| c.query_row("SELECT count(*) FROM queue", [], |row| row.get::<_, i64>(0)));
        check.await.map(drop).map_err(|error| failure("read the queues", &error))
    }
}

/// A consumer of one stage's queue.
struct EmbeddedConsumer {
    broker: Embedded,
    stage: StageName,
    /// A permit for each message that may be unacknowledged.
    permits: Arc<Semaphore>,
    buffer: VecDeque<Unacked>,
    stopped: bool,
}

/// An unacknowledged message. Dropping it returns it to its queue.
struct Unacked {
    broker: Embedded,
    stage: StageName,
    seq: i64,
    redelivered: bool,
    body: Bytes,
    /// [`Consumer::next`] has returned it.
    delivered: bool,
    settled: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl EmbeddedConsumer {
    /// Takes the messages that are due, up to the prefetch. Returns in how long the next message is due, if there is
    /// one.
    ///
    /// It may be dropped at any time: a message that is marked as taken has a guard.
    async fn fill(&mut self) -> Result<Option<Duration>, DatabaseError> {
        let (broker, stage) = (self.broker.clone(), self.stage);
        let mut permits = self.permits.clone().acquire_owned().await.expect("this semaphore is never closed");
        if let Ok(rest) = self.permits.clone().try_acquire_many_owned(self.permits.available_permits() as u32) {
            permits.merge(rest);
        }
        let (taken, next) = self
            .broker
            .database
            .call(move |c| {
                let now = now_ms();
                let mut take = c.prepare_cached(
                    "UPDATE queue SET taken = 1 WHERE seq IN (SELECT seq FROM queue
                     WHERE stage = ?1 AND taken = 0 AND due_ms <= ?2 ORDER BY due_ms, seq LIMIT ?3)
                     RETURNING seq, redelivered, body",
                )?;
                let limit = permits.num_permits() as i64;
                let rows = take.query_map(params![stage.as_str(), now, limit], |row| {
                    Ok(Unacked {
                        broker: broker.clone(),
                        stage,
                        seq: row.get(0)?,
                        redelivered: row.get(1)?,
                        body: row.get::<_, Vec<u8>>(2)?.into(),
                        delivered: false,
                        settled: false,
                        _permit: permits.split(1),
                    })
                })?;
                let mut taken = rows.collect::<Result<Vec<_>, _>>()?;
                taken.sort_by_key(|taken| taken.seq);
                let next: Option<i64> = c
                    .prepare_cached("SELECT min(due_ms) FROM queue WHERE stage = ?1 AND taken = 0")?
                    .query_row([stage.as_str()], |row| row.get(0))?;
                Ok((taken, next.map(|due| Duration::from_millis((due - now).max(1) as u64))))
            })
            .await?;
        if !taken.is_empty() {
            self.broker.shared.left[&self.stage].notify_waiters();
        }
        self.buffer.extend(taken);
        Ok(next)
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        while !self.stopped {
            if let Some(mut taken) = self.buffer.pop_front() {
                taken.delivered = true;
                return Some(Delivery::new(self.stage, taken.body.clone(), taken.redelivered, Box::new(taken)));
            }
            let shared = self.broker.shared.clone();
            let arrived = shared.arrived[&self.stage].notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            match self.fill().await {
                Ok(_) if !self.buffer.is_empty() => {}
                Ok(None) => arrived.await,
                Ok(Some(wait)) => drop(tokio::time::timeout(wait, arrived).await),
                Err(error) => {
                    let wait = backoff.next_wait();
                    tracing::warn!(%error, stage = %self.stage, retry_in = ?wait, "cannot read the queue");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        None
    }

    async fn stop(&mut self) {
        self.stopped = true;
        self.buffer.clear();
        // A publisher must not wait for room during the whole grace period.
        self.broker.shared.stopped[&self.stage].store(true, Ordering::Release);
        self.broker.shared.left[&self.stage].notify_waiters();
        // The database runs calls in order: after this one the messages are in the queue again.
        let _ = self.broker.check().await;
    }
}

impl Unacked {
    /// Returns the message to its queue. A message that was only prefetched does not count as redelivered.
    fn release(&mut self) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let (seq, stage, shared) = (self.seq, self.stage, self.broker.shared.clone());
        let redelivered = self.redelivered || self.delivered;
        self.broker.database.cast(move |c| {
            c.prepare_cached("UPDATE queue SET taken = 0, redelivered = ?2 WHERE seq = ?1")?
                .execute(params![seq, redelivered])?;
            shared.arrived[&stage].notify_waiters();
            Ok(())
        });
    }
}

#[async_trait]
impl Receipt for Unacked {
    async fn ack(mut self: Box<Self>) {
        self.settled = true;
        let seq = self.seq;
        let removal =
            self.broker.database.call(move |c| c.prepare_cached("DELETE FROM queue WHERE seq = ?1")?.execute([seq]));
        match removal.await {
            Ok(_) => {}
            // The worker says so of its next call.
            Err(error @ DatabaseError::DiskFull(_)) => tracing::debug!(%error, "an acknowledgement was lost"),
            Err(error) => tracing::warn!(%error, "an acknowledgement was lost; the message is delivered again"),
        }
    }

    async fn nack(mut self: Box<Self>) {
        self.release();
    }
}

impl Drop for Unacked {
    fn drop(&mut self) {
        self.release();
    }
}
