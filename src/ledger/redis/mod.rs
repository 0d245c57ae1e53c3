//! The ledger in Redis: for many workers on many machines.
//!
//! Every move is one script, and so one atomic round trip. It compares the photo's position, moves it, updates counters
//! and listings, and adds an ending to the feed. A script changes nothing when the photo is at another position, so a
//! call can be repeated after its answer was lost: the second answer is that the photo has moved on.
//!
//! The message of a photo is stored while the photo waits. After the ending the message is in the object store, in the
//! photo's record, and [`Ledger::recorded`] deletes it here. A finished photo takes a few hundred bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::{Script, Value};

use super::{CauseCount, Counts, Entry, Event, EventKind, Filter, Ledger, LedgerError, Permission, Registration};
use super::{Cursor, Endings, Epoch, FeedChange, FeedEntry, Move, Moved, PhotoStatus};
use crate::domain::{Cause, Ending, Id, Message, Photo, PhotoKey, Position, RunName, StageName, State};
use crate::redis::RedisClient;

mod body;
pub mod keys;
mod listing;
mod packing;

use keys::{GroupKind, Keys, PhotoGroup};
use packing::{MAX_HISTORY, PackedPhoto, StatusFields, index_of};

static REGISTER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/register.lua")));
static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/begin.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/release.lua")));
static MOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/move.lua")));
static RECORDED: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/recorded.lua")));
static ENDINGS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/endings.lua")));
static PAGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/page.lua")));

type Bytes = Vec<u8>;

/// Photos in the hashes and sorted sets of one Redis server.
#[derive(Debug)]
pub struct Redis {
    client: Arc<RedisClient>,
    /// Runs that this process has added to the set of runs.
    known_runs: Mutex<HashSet<RunName>>,
}

/// The names of a photo's group, and of its counters and sorted sets.
struct GroupNames {
    group: String,
    with_host: String,
    keys: [String; 2],
}

impl GroupNames {
    fn new(keys: &Keys, at: Position, ending: Option<Ending>, fields: &StatusFields) -> Self {
        let code = fields.cause.as_ref().map(|cause| cause.code.clone());
        let group = PhotoGroup { stage: at.stage, kind: GroupKind::of(at, ending), code }.name();
        let with_host = format!("{group}/{}", fields.host);
        let keys = [keys.group(&group), keys.group_and_host(&group, &fields.host)];
        Self { group, with_host, keys }
    }
}

/// The answer of a script.
enum ScriptAnswer {
    Number(i64),
    /// The photo is at another position.
    Stale(Box<PhotoStatus>),
}

impl Redis {
    /// Photos in one script, which blocks the server for about two milliseconds.
    const BATCH: usize = 200;

    pub fn new(client: Arc<RedisClient>) -> Self {
        Self { client, known_runs: Mutex::default() }
    }

    /// The client, for what else the server stores.
    pub fn client(&self) -> &Arc<RedisClient> {
        &self.client
    }

    fn keys(&self, run: &RunName) -> Keys {
        Keys::of(self.client.prefix(), run)
    }

    /// Adds the run to the set of runs, once in a process. The set has another slot, so no script can do it.
    async fn add_run(&self, run: &RunName) -> Result<(), LedgerError> {
        let is_known = |runs: &Mutex<HashSet<RunName>>| runs.lock().is_ok_and(|runs| runs.contains(run));
        if is_known(&self.known_runs) {
            return Ok(());
        }
        let command = redis::Cmd::sadd(keys::runs(self.client.prefix()), run.as_str());
        let _: () = self.client.command("add the run", &command).await?;
        if let Ok(mut runs) = self.known_runs.lock() {
            runs.insert(run.clone());
        }
        Ok(())
    }

    async fn answer(
        &self,
        what: &str,
        script: &Script,
        keys: &[String],
        arguments: &[Bytes],
    ) -> Result<ScriptAnswer, LedgerError> {
        let value = self.client.script(what, script, keys, arguments).await?;
        match value {
            Value::Int(number) => Ok(ScriptAnswer::Number(number)),
            Value::Array(values) => {
                let [stored, message] =
                    <[Value; 2]>::try_from(values).map_err(|_| self.client.unexpected_answer(what))?;
                let stored = bytes(stored).ok_or_else(|| self.client.unexpected_answer(what))?;
                Ok(ScriptAnswer::Stale(Box::new(self.status_of(what, &stored, bytes(message).as_deref())?)))
            }
            _ => Err(self.client.unexpected_answer(what)),
        }
    }

    fn status_of(&self, what: &str, stored: &[u8], message: Option<&[u8]>) -> Result<PhotoStatus, LedgerError> {
        let mut status = self.read(what, stored)?.status();
        status.message = message.map(body::unpack).transpose().map_err(|error| self.client.refused(what, error))?;
        Ok(status)
    }

    fn read(&self, what: &str, stored: &[u8]) -> Result<PackedPhoto, LedgerError> {
        PackedPhoto::read(stored).map_err(|error| self.client.refused(what, error))
    }

    /// The stored photo and its message.
    async fn read_photo(&self, key: &PhotoKey) -> Result<Option<(PackedPhoto, Option<Message>)>, LedgerError> {
        const WHAT: &str = "read a photo";
        let keys = self.keys(&key.run);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("HGET").arg(keys.photos()).arg(key.photo_id.as_str());
        pipe.cmd("HGET").arg(keys.messages()).arg(key.photo_id.as_str());
        let (stored, message): (Option<Bytes>, Option<Bytes>) = self.client.pipeline(WHAT, &pipe).await?;
        let Some(stored) = stored else { return Ok(None) };
        let message =
            message.map(|body| body::unpack(&body)).transpose().map_err(|error| self.client.refused(WHAT, error))?;
        Ok(Some((self.read(WHAT, &stored)?, message)))
    }

    /// Runs the move script for `advance`, `restore`, `amend`, `take_down` and `reopen`.
    async fn transition(&self, what: &str, transition: Transition<'_>) -> Result<ScriptAnswer, LedgerError> {
        let Transition { key, from, to, fields, event, history, due, message } = transition;
        let keys = self.keys(&key.run);
        let GroupNames { group, with_host, keys: [members, host_members] } = GroupNames::new(&keys, to.0, to.1, fields);
        let (old, new) = (keys.due(from.0.stage), keys.due(to.0.stage));
        let (epoch, endings) = (keys.epoch(), keys.endings());
        let names = [
            keys.photos(),
            keys.messages(),
            keys.counts(),
            keys.hosts(),
            epoch,
            endings,
            members,
            host_members,
            old,
            new,
        ];
        let arguments = [
            key.photo_id.as_str().into(),
            keys::member(&key.photo_id),
            packing::position(from.0, from.1).into(),
            packing::position(to.0, to.1).into(),
            fields.pack(),
            event.map(packing::pack_event).unwrap_or_default(),
            history.to_string().into(),
            body::pack(message),
            keys.groups().into(),
            PhotoGroup::stem(from.0.stage, GroupKind::of(from.0, from.1)).into(),
            group.into(),
            with_host.into(),
            due.map(|second| second.to_string()).unwrap_or_default().into(),
            feed_code(from.1, to.1).into(),
            new_epoch(),
        ];
        self.answer(what, &MOVE, &names, &arguments).await
    }
}

/// The arguments of the move script.
struct Transition<'a> {
    key: &'a PhotoKey,
    from: (Position, Option<Ending>),
    to: (Position, Option<Ending>),
    fields: &'a StatusFields,
    event: Option<&'a Event>,
    /// Bytes of the history that are kept, besides the event.
    history: usize,
    /// The second since 1970 at which the photo is due; none when it has ended.
    due: Option<u64>,
    message: &'a Message,
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// A new photo at the position of its message.
fn new_photo(message: &Message) -> (StatusFields, Bytes) {
    let fields = StatusFields::new(message.attempt, 0, &message.photo.candidate, None);
    let event = enqueued(message.position, message.enqueued_at);
    let packed = packing::pack_new(message.position, &fields, &event);
    (fields, packed)
}

/// The epoch that a script stores if the run has none.
fn new_epoch() -> Bytes {
    Epoch::random().as_str().into()
}

/// The code of a move in the feed: `0` for a photo that is reopened, from `1` on its ending; empty: no entry.
fn feed_code(from: Option<Ending>, to: Option<Ending>) -> String {
    match (from, to) {
        (_, Some(ending)) => (1 + index_of(&Ending::ALL, ending)).to_string(),
        (Some(_), None) => "0".to_owned(),
        (None, None) => String::new(),
    }
}

fn feed_change(code: u8) -> Option<FeedChange> {
    match code.checked_sub(1) {
        None => Some(FeedChange::Reopened),
        Some(index) => Ending::ALL.get(usize::from(index)).copied().map(FeedChange::Ended),
    }
}

/// An entry of the stream: `0-SEQUENCE`, then the fields `id` and `change`.
fn feed_entry((stream_id, fields): (String, StreamFields)) -> Option<FeedEntry> {
    let (_, id, _, code) = fields;
    let sequence = stream_id.strip_prefix("0-")?.parse().ok()?;
    Some(FeedEntry { sequence, photo_id: Id::from(id.as_str()), change: feed_change(code)? })
}

/// The names and values of `id` and `change`.
type StreamFields = (String, String, String, u8);

fn enqueued(at: Position, now: u64) -> Event {
    Event { at_ms: now * 1000, stage: at.stage, attempt: 0, what: EventKind::Enqueued, cause: None, took_ms: 0 }
}

#[async_trait]
impl Ledger for Redis {
    async fn register_at(
        &self,
        run: &RunName,
        stage: StageName,
        photos: &[Photo],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError> {
        const WHAT: &str = "register photos";
        self.add_run(run).await?;
        let keys = self.keys(run);
        let group = PhotoGroup::stem(stage, GroupKind::Waiting);
        let mut registrations = Vec::with_capacity(photos.len());
        for batch in photos.chunks(Self::BATCH) {
            let due = keys.due(stage);
            let mut names = vec![keys.photos(), keys.messages(), keys.counts(), keys.hosts(), keys.epoch(), due];
            names.push(keys.group(&group));
            let mut hosts = HashMap::new();
            let mut arguments: Vec<Bytes> = vec![new_epoch(), group.as_str().into(), now.to_string().into()];
            for photo in batch {
                let message = Message::entering(stage, Photo { run: run.clone(), ..photo.clone() }, now);
                let id = &photo.candidate.photo_id;
                let (fields, packed) = new_photo(&message);
                let next = hosts.len() + 1;
                let number = *hosts.entry(fields.host.clone()).or_insert_with(|| {
                    names.push(keys.group_and_host(&group, &fields.host));
                    next
                });
                arguments.extend([
                    id.as_str().into(),
                    keys::member(id),
                    packed,
                    body::pack(&message),
                    number.to_string().into(),
                    fields.host.into(),
                ]);
            }
            let Value::Array(known) = self.client.script(WHAT, &REGISTER, &names, &arguments).await? else {
                return Err(self.client.unexpected_answer(WHAT));
            };
            for (stored, photo) in known.into_iter().zip(batch) {
                registrations.push(match bytes(stored) {
                    None => Registration::New,
                    Some(stored) => match self.read(WHAT, &stored)? {
                        PackedPhoto { fields, .. } if fields.differ_from(&photo.candidate) => Registration::Conflict,
                        PackedPhoto { at, ending: None, .. } if at == Position::entering(stage) => {
                            Registration::Pending
                        }
                        _ => Registration::InProgress,
                    },
                });
            }
        }
        match registrations.len() == photos.len() {
            true => Ok(registrations),
            false => Err(self.client.unexpected_answer(WHAT)),
        }
    }

    async fn begin(&self, message: &Message, worker: &str, redelivered: bool) -> Result<Permission, LedgerError> {
        let key = message.photo.key();
        self.add_run(&key.run).await?;
        let keys = self.keys(&key.run);
        let (fields, packed) = new_photo(message);
        let GroupNames { group, with_host, keys: [members, host_members] } =
            GroupNames::new(&keys, message.position, None, &fields);
        let (epoch, due) = (keys.epoch(), keys.due(message.position.stage));
        let names = [keys.photos(), keys.messages(), keys.counts(), keys.hosts(), epoch, due, members, host_members];
        let arguments = [
            key.photo_id.as_str().into(),
            keys::member(&key.photo_id),
            packing::position(message.position, None).into(),
            clip_worker(worker).into(),
            u8::from(redelivered).to_string().into(),
            packed,
            body::pack(message),
            group.into(),
            with_host.into(),
            message.enqueued_at.to_string().into(),
            new_epoch(),
        ];
        Ok(match self.answer("begin a photo", &BEGIN, &names, &arguments).await? {
            ScriptAnswer::Number(crashes) => {
                Permission::Granted { crashes: u32::try_from(crashes).unwrap_or_default() }
            }
            ScriptAnswer::Stale(status) => Permission::Stale(status),
        })
    }

    async fn release(&self, key: &PhotoKey, at: Position, worker: &str) -> Result<(), LedgerError> {
        let names = [self.keys(&key.run).photos()];
        let arguments = [key.photo_id.as_str().into(), packing::position(at, None).into(), clip_worker(worker).into()];
        self.client.script("release a photo", &RELEASE, &names, &arguments).await.map(drop)
    }

    async fn advance(&self, step: &Move<'_>) -> Result<Moved, LedgerError> {
        let to = match step.to {
            State::Waiting(position) => (position, None),
            State::Ended(ending) => (step.from, Some(ending)),
        };
        let candidate = &step.message.photo.candidate;
        let fields = StatusFields::new(step.attempt, step.due_at, candidate, step.event.cause.as_ref());
        let (key, event, message) = (step.key, Some(&step.event), step.message);
        let due = matches!(step.to, State::Waiting(_)).then(|| step.due_at.max(step.event.at_ms / 1000));
        let transition =
            Transition { key, from: (step.from, None), to, fields: &fields, event, history: MAX_HISTORY, due, message };
        Ok(match self.transition("move a photo", transition).await? {
            ScriptAnswer::Number(_) => Moved::Done,
            ScriptAnswer::Stale(status) => Moved::Stale(status),
        })
    }

    async fn endings(&self, run: &RunName, after: Option<&Cursor>, limit: usize) -> Result<Endings, LedgerError> {
        const WHAT: &str = "read the feed of endings";
        let keys = self.keys(run);
        let (epoch, sequence) = after.map_or(("", 0), |cursor| (cursor.epoch.as_str(), cursor.sequence));
        let arguments = [epoch.into(), sequence.to_string().into(), limit.to_string().into()];
        let value = self.client.script(WHAT, &ENDINGS, &[keys.epoch(), keys.endings()], &arguments).await?;
        let (epoch, restarted, entries): (String, bool, Vec<(String, StreamFields)>) =
            redis::from_redis_value(value).map_err(|error| self.client.refused(WHAT, error))?;
        let entries: Option<Vec<FeedEntry>> = entries.into_iter().map(feed_entry).collect();
        let entries = entries.ok_or_else(|| self.client.unexpected_answer(WHAT))?;
        Ok(Endings::new(entries, Epoch::stored(epoch), after, restarted))
    }

    async fn wait_for_endings(
        &self,
        run: &RunName,
        after: Option<&Cursor>,
        limit: usize,
        patience: Duration,
    ) -> Result<Endings, LedgerError> {
        let deadline = Instant::now() + patience;
        let first = self.endings(run, after, limit).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if first.are_news() || left.is_zero() {
            return Ok(first);
        }
        let mut command = redis::cmd("XREAD");
        // Rounded up: in Redis, 0 milliseconds are for ever.
        command.arg("COUNT").arg(1).arg("BLOCK").arg(left.as_millis() as u64 + 1).arg("STREAMS");
        command.arg(self.keys(run).endings()).arg(format!("0-{}", first.cursor.sequence));
        let _: Value = self.client.wait("wait for endings", &command, left).await?;
        self.endings(run, after, limit).await
    }

    async fn recorded(&self, key: &PhotoKey, at: Position, ending: Ending) -> Result<(), LedgerError> {
        let keys = self.keys(&key.run);
        let arguments = [key.photo_id.as_str().into(), packing::position(at, Some(ending)).into()];
        self.client.script("delete a message", &RECORDED, &[keys.photos(), keys.messages()], &arguments).await.map(drop)
    }

    async fn status(&self, key: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError> {
        let found = self.read_photo(key).await?;
        Ok(found.map(|(packed, message)| PhotoStatus { message, ..packed.status() }))
    }

    async fn history(&self, key: &PhotoKey) -> Result<Vec<Event>, LedgerError> {
        Ok(self.read_photo(key).await?.map(|(packed, _)| packed.history).unwrap_or_default())
    }

    async fn counts(&self, run: &RunName) -> Result<Counts, LedgerError> {
        const WHAT: &str = "count the photos";
        let keys = self.keys(run);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("HGETALL").arg(keys.counts()).cmd("HGETALL").arg(keys.hosts());
        let (groups, hosts): (Counters, Counters) = self.client.pipeline(WHAT, &pipe).await?;
        let mut counts = Counts::default();
        for (name, count) in groups {
            let PhotoGroup { stage, kind, .. } =
                PhotoGroup::parse(&name).ok_or_else(|| self.client.unexpected_answer(WHAT))?;
            counts.candidates += count;
            match kind {
                GroupKind::Ended(ending) => *counts.ended.entry(ending).or_default() += count,
                GroupKind::Waiting => *counts.waiting.entry(stage).or_default() += count,
                GroupKind::Retrying => {
                    *counts.waiting.entry(stage).or_default() += count;
                    *counts.retrying.entry(stage).or_default() += count;
                }
            }
        }
        for (name, count) in hosts {
            let (group, host) =
                PhotoGroup::parse_with_host(&name).ok_or_else(|| self.client.unexpected_answer(WHAT))?;
            if let PhotoGroup { stage, kind: GroupKind::Ended(ending), code: Some(code) } = group {
                counts.causes.push(CauseCount { stage, ending, code, host: host.to_owned(), count });
            }
        }
        Ok(counts)
    }

    async fn page(
        &self,
        run: &RunName,
        filter: &Filter,
        after: Option<&Id>,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerError> {
        let mut after = after.cloned();
        loop {
            let ids = self.ids(run, filter, after.as_ref(), limit).await?;
            let Some(last) = ids.last() else { return Ok(Vec::new()) };
            after = Some(last.clone());
            let entries = self.entries(run, filter, ids).await?;
            // All of them may have moved on since their ids were read; an empty page would say that there is no more.
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }

    /// The record has the message, so a second step deletes it here. A repeated call after a failure does it, too.
    async fn restore(&self, message: &Message, ending: Ending, cause: Option<&Cause>) -> Result<bool, LedgerError> {
        let (key, at) = (message.photo.key(), message.position);
        self.add_run(&key.run).await?;
        let fields = StatusFields::new(message.attempt, 0, &message.photo.candidate, cause);
        let (from, to) = ((Position::START, None), (at, Some(ending)));
        let history = MAX_HISTORY;
        let transition = Transition { key: &key, from, to, fields: &fields, event: None, history, due: None, message };
        let is_restored = matches!(self.transition("restore a photo", transition).await?, ScriptAnswer::Number(_));
        self.recorded(&key, at, ending).await?;
        Ok(is_restored)
    }

    async fn amend(&self, message: &Message, ending: Ending) -> Result<bool, LedgerError> {
        const WHAT: &str = "amend a photo";
        let (key, at) = (message.photo.key(), message.position);
        let Some((photo, _)) = self.read_photo(&key).await? else { return Ok(false) };
        if (photo.at, photo.ending) != (at, Some(ending)) {
            return Ok(false);
        }
        // A move to where the photo is adds it to the feed.
        let place = (at, Some(ending));
        let (fields, history) = (&photo.fields, MAX_HISTORY);
        let transition =
            Transition { key: &key, from: place, to: place, fields, event: None, history, due: None, message };
        let is_amended = matches!(self.transition(WHAT, transition).await?, ScriptAnswer::Number(_));
        if is_amended {
            self.recorded(&key, at, ending).await?;
        }
        Ok(is_amended)
    }

    async fn take_down(&self, message: &Message, cause: &Cause, now: u64) -> Result<(), LedgerError> {
        const WHAT: &str = "take down a photo";
        let key = message.photo.key();
        self.add_run(&key.run).await?;
        loop {
            let from = match self.read_photo(&key).await? {
                Some((photo, _)) if photo.clone().status().is_taken_down() => {
                    return self.recorded(&key, photo.at, Ending::Rejected).await;
                }
                Some((photo, _)) => (photo.at, photo.ending),
                None => (message.position, None),
            };
            let (at, ending) = (from.0, Ending::Rejected);
            let fields = StatusFields::new(message.attempt, 0, &message.photo.candidate, Some(cause));
            let event = Event::taken_down(at, cause.clone(), now);
            let left = Message { position: at, ..message.clone() };
            let transition = Transition {
                key: &key,
                from,
                to: (at, Some(ending)),
                fields: &fields,
                event: Some(&event),
                history: 0,
                due: None,
                message: &left,
            };
            // Otherwise a worker has just moved it.
            if matches!(self.transition(WHAT, transition).await?, ScriptAnswer::Number(_)) {
                return self.recorded(&key, at, ending).await;
            }
        }
    }

    async fn reopen(&self, key: &PhotoKey, record: Option<&Message>, now: u64) -> Result<Option<Message>, LedgerError> {
        const WHAT: &str = "reopen a photo";
        let Some((PackedPhoto { at, ending: Some(ending), .. }, stored)) = self.read_photo(key).await? else {
            return Ok(None);
        };
        let lost = || {
            self.client.refused(
                WHAT,
                format_args!("the ledger has deleted the message of {key}, and there is no record with it"),
            )
        };
        let message = stored.or_else(|| record.cloned()).ok_or_else(lost)?;
        let message = Message { attempt: 1, position: at.next_delivery(), enqueued_at: now, ..message };
        let to = (message.position, None);
        let fields = StatusFields::new(1, 0, &message.photo.candidate, None);
        let event = enqueued(message.position, now);
        let (from, event, due) = ((at, Some(ending)), Some(&event), Some(now));
        let history = MAX_HISTORY;
        let transition = Transition { key, from, to, fields: &fields, event, history, due, message: &message };
        Ok(match self.transition(WHAT, transition).await? {
            ScriptAnswer::Number(_) => Some(message),
            // Another process has just reopened it.
            ScriptAnswer::Stale(_) => None,
        })
    }

    async fn due_since(&self, run: &RunName) -> Result<BTreeMap<StageName, u64>, LedgerError> {
        let keys = self.keys(run);
        let mut pipe = redis::pipe();
        for stage in StageName::ALL {
            pipe.cmd("ZRANGE").arg(keys.due(stage)).arg(0).arg(0).arg("WITHSCORES");
        }
        let oldest: Vec<Vec<(String, u64)>> = self.client.pipeline("read the oldest due times", &pipe).await?;
        let first = |(stage, oldest): (StageName, Vec<(String, u64)>)| oldest.first().map(|(_, since)| (stage, *since));
        Ok(StageName::ALL.into_iter().zip(oldest).filter_map(first).collect())
    }

    async fn runs(&self) -> Result<Vec<RunName>, LedgerError> {
        let command = redis::Cmd::smembers(keys::runs(self.client.prefix()));
        let names: Vec<String> = self.client.command("list the runs", &command).await?;
        let mut runs: Vec<RunName> = names.iter().filter_map(|name| name.parse().ok()).collect();
        runs.sort();
        Ok(runs)
    }

    fn system(&self) -> &'static str {
        "redis"
    }

    /// Also whether the server never evicts keys.
    async fn check(&self) -> Result<(), LedgerError> {
        self.client.check("write to the ledger").await
    }
}

/// A hash of counters.
type Counters = Vec<(String, u64)>;

/// A byte stores the length of a worker's name.
fn clip_worker(worker: &str) -> &str {
    &worker[..worker.floor_char_boundary(255)]
}
