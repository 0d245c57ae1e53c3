//! The ledger in Redis: for many workers on many machines.
//!
//! Every move is one script, and so one atomic round trip: it looks where the photo stands, moves it, counts it where
//! it arrives and files it for listings. Scripts change nothing when the photo stands elsewhere, and an answer that was
//! lost on the way does no harm: who asks again is told that the photo has moved on.
//!
//! While a photo waits its message is kept. When it has ended, its message goes to the objects as the photo's record,
//! and [`Ledger::recorded`] lets go of it here; a finished photo takes a few hundred bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use redis::{Script, Value};

use super::{Begin, CauseCount, Counts, Entry, Event, EventKind, Filter, Ledger, LedgerError, Registration};
use super::{Move, Moved, PhotoStatus};
use crate::domain::Message;
use crate::domain::{Candidate, Cause, Ending, Id, Photo, PhotoKey, Position, RunName, StageName, State};
use crate::redis::RedisClient;

mod body;
pub mod keys;
mod packing;

use keys::{Group, Keys, Kind};
use packing::{Facts, Packed};

static REGISTER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/register.lua")));
static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/begin.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/release.lua")));
static MOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/move.lua")));
static RECORDED: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/recorded.lua")));
static PAGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/page.lua")));

type Bytes = Vec<u8>;

/// Photos in the hashes and sorted sets of one Redis server.
#[derive(Debug)]
pub struct Redis {
    client: Arc<RedisClient>,
    /// Runs that are known to be in the set of runs.
    known_runs: Mutex<HashSet<RunName>>,
}

/// A photo's group and the names that its keys and counters have.
struct Place {
    group: String,
    with_host: String,
    keys: [String; 2],
}

impl Place {
    fn new(keys: &Keys, at: Position, ending: Option<Ending>, facts: &Facts) -> Self {
        let code = facts.cause.as_ref().map(|cause| cause.code.clone());
        let group = Group { stage: at.stage, kind: Kind::of(at, ending), code }.name();
        let with_host = format!("{group}/{}", facts.host);
        let keys = [keys.group(&group), keys.group_and_host(&group, &facts.host)];
        Self { group, with_host, keys }
    }
}

/// What a script answers.
enum Answer {
    Number(i64),
    /// The photo stands elsewhere: what is kept of it.
    Elsewhere(Box<PhotoStatus>),
}

impl Redis {
    /// Photos in one script: it holds the server up for about two milliseconds.
    const BATCH: usize = 200;
    /// The name of a worker is clipped: a byte counts its length.
    const MAX_WORKER: usize = 255;

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

    /// Puts the run among the runs, once a process. A set of its own slot, so not part of any script.
    async fn enter(&self, run: &RunName) -> Result<(), LedgerError> {
        let is_known_runs = |runs: &Mutex<HashSet<RunName>>| runs.lock().is_ok_and(|runs| runs.contains(run));
        if is_known_runs(&self.known_runs) {
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
    ) -> Result<Answer, LedgerError> {
        let value = self.client.script(what, script, keys, arguments).await?;
        match value {
            Value::Int(number) => Ok(Answer::Number(number)),
            Value::Array(values) => {
                let [kept, message] =
                    <[Value; 2]>::try_from(values).map_err(|_| self.client.unexpected_answer(what))?;
                let kept = bytes(kept).ok_or_else(|| self.client.unexpected_answer(what))?;
                Ok(Answer::Elsewhere(Box::new(self.status_of(what, &kept, bytes(message).as_deref())?)))
            }
            _ => Err(self.client.unexpected_answer(what)),
        }
    }

    fn status_of(&self, what: &str, kept: &[u8], message: Option<&[u8]>) -> Result<PhotoStatus, LedgerError> {
        let mut status = self.read(what, kept)?.status();
        status.message = message.map(body::unpack).transpose().map_err(|error| self.client.refused(what, error))?;
        Ok(status)
    }

    fn read(&self, what: &str, kept: &[u8]) -> Result<Packed, LedgerError> {
        Packed::read(kept).map_err(|error| self.client.refused(what, error))
    }

    /// What is kept of a photo and its message.
    async fn look_up(&self, key: &PhotoKey) -> Result<Option<(Packed, Option<Message>)>, LedgerError> {
        const WHAT: &str = "look a photo up";
        let keys = self.keys(&key.run);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("HGET").arg(keys.photos()).arg(key.photo_id.as_str());
        pipe.cmd("HGET").arg(keys.messages()).arg(key.photo_id.as_str());
        let (kept, message): (Option<Bytes>, Option<Bytes>) = self.client.pipeline(WHAT, &pipe).await?;
        let Some(kept) = kept else { return Ok(None) };
        let message =
            message.map(|body| body::unpack(&body)).transpose().map_err(|error| self.client.refused(WHAT, error))?;
        Ok(Some((self.read(WHAT, &kept)?, message)))
    }

    /// One step of a photo: what `advance`, `restore` and `reopen` have in common.
    async fn shift(&self, what: &str, shift: Shift<'_>) -> Result<Answer, LedgerError> {
        let Shift { key, from, to, facts, event, due, message } = shift;
        let keys = self.keys(&key.run);
        let place = Place::new(&keys, to.0, to.1, facts);
        let [group, group_and_host] = place.keys;
        let (old, new) = (keys.due(from.0.stage), keys.due(to.0.stage));
        let names = [keys.photos(), keys.messages(), keys.counts(), keys.hosts(), group, group_and_host, old, new];
        let arguments = [
            key.photo_id.as_str().into(),
            keys::member(&key.photo_id),
            packing::place(from.0, from.1).into(),
            packing::place(to.0, to.1).into(),
            facts.pack(),
            event.map(packing::pack_event).unwrap_or_default(),
            packing::MAX_HISTORY.to_string().into(),
            body::pack(message),
            keys.groups().into(),
            Group::stem(from.0.stage, Kind::of(from.0, from.1)).into(),
            place.group.into(),
            place.with_host.into(),
            due.map(|second| second.to_string()).unwrap_or_default().into(),
        ];
        self.answer(what, &MOVE, &names, &arguments).await
    }
}

/// From where to where, and what to write down on arrival.
struct Shift<'a> {
    key: &'a PhotoKey,
    from: (Position, Option<Ending>),
    to: (Position, Option<Ending>),
    facts: &'a Facts,
    event: Option<&'a Event>,
    /// The second since 1970 from which on it waits to be worked on; none when it has ended.
    due: Option<u64>,
    message: &'a Message,
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// A photo that waits where its message says, as the ledger first hears of it.
fn newcomer(message: &Message) -> (Facts, Bytes) {
    let facts = Facts::new(message.attempt, 0, &message.photo.candidate.host(), None);
    let event = enqueued(message.position, message.enqueued_at);
    let packed = packing::pack_new(message.position, &facts, &event);
    (facts, packed)
}

fn enqueued(at: Position, now: u64) -> Event {
    Event { at_ms: now * 1000, stage: at.stage, attempt: 0, what: EventKind::Enqueued, cause: None, took_ms: 0 }
}

#[async_trait]
impl Ledger for Redis {
    async fn register(
        &self,
        run: &RunName,
        candidates: &[Candidate],
        now: u64,
    ) -> Result<Vec<Registration>, LedgerError> {
        const WHAT: &str = "take photos in";
        self.enter(run).await?;
        let keys = self.keys(run);
        let group = Group::stem(Position::START.stage, Kind::Waiting);
        let mut registrations = Vec::with_capacity(candidates.len());
        for batch in candidates.chunks(Self::BATCH) {
            let mut names = vec![keys.photos(), keys.messages(), keys.counts(), keys.hosts(), keys.group(&group)];
            let mut hosts = HashMap::new();
            let mut arguments: Vec<Bytes> = vec![group.as_str().into(), now.to_string().into()];
            for candidate in batch {
                let message = Message::first(Photo::new(run.clone(), candidate.clone()), now);
                let (facts, packed) = newcomer(&message);
                let next = hosts.len() + 1;
                let number = *hosts.entry(facts.host.clone()).or_insert_with(|| {
                    names.push(keys.group_and_host(&group, &facts.host));
                    next
                });
                arguments.extend([
                    candidate.photo_id.as_str().into(),
                    keys::member(&candidate.photo_id),
                    packed,
                    body::pack(&message),
                    number.to_string().into(),
                    facts.host.into(),
                ]);
            }
            names.push(keys.due(Position::START.stage));
            let Value::Array(known) = self.client.script(WHAT, &REGISTER, &names, &arguments).await? else {
                return Err(self.client.unexpected_answer(WHAT));
            };
            for kept in known {
                registrations.push(match bytes(kept) {
                    None => Registration::New,
                    Some(kept) => match self.read(WHAT, &kept)? {
                        Packed { at: Position::START, ending: None, .. } => Registration::Pending,
                        _ => Registration::InProgress,
                    },
                });
            }
        }
        match registrations.len() == candidates.len() {
            true => Ok(registrations),
            false => Err(self.client.unexpected_answer(WHAT)),
        }
    }

    async fn begin(&self, message: &Message, worker: &str, redelivered: bool) -> Result<Begin, LedgerError> {
        let key = message.photo.key();
        self.enter(&key.run).await?;
        let keys = self.keys(&key.run);
        let (facts, packed) = newcomer(message);
        let place = Place::new(&keys, message.position, None, &facts);
        let [group, group_and_host] = place.keys;
        let due = keys.due(message.position.stage);
        let names = [keys.photos(), keys.messages(), keys.counts(), keys.hosts(), group, group_and_host, due];
        let arguments = [
            key.photo_id.as_str().into(),
            keys::member(&key.photo_id),
            packing::place(message.position, None).into(),
            note(worker).into(),
            u8::from(redelivered).to_string().into(),
            packed,
            body::pack(message),
            place.group.into(),
            place.with_host.into(),
            message.enqueued_at.to_string().into(),
        ];
        Ok(match self.answer("begin with a photo", &BEGIN, &names, &arguments).await? {
            Answer::Number(crashes) => Begin::Go { crashes: u32::try_from(crashes).unwrap_or_default() },
            Answer::Elsewhere(status) => Begin::Stale(status),
        })
    }

    async fn release(&self, key: &PhotoKey, at: Position, worker: &str) -> Result<(), LedgerError> {
        let names = [self.keys(&key.run).photos()];
        let arguments = [key.photo_id.as_str().into(), packing::place(at, None).into(), note(worker).into()];
        self.client.script("give a photo up", &RELEASE, &names, &arguments).await.map(drop)
    }

    async fn advance(&self, step: &Move<'_>) -> Result<Moved, LedgerError> {
        let to = match step.to {
            State::Waiting(position) => (position, None),
            State::Ended(ending) => (step.from, Some(ending)),
        };
        let host = step.message.photo.candidate.host();
        let facts = Facts::new(step.attempt, step.due_at, &host, step.event.cause.as_ref());
        let (key, event, message) = (step.key, Some(&step.event), step.message);
        let due = matches!(step.to, State::Waiting(_)).then(|| step.due_at.max(step.event.at_ms / 1000));
        let shift = Shift { key, from: (step.from, None), to, facts: &facts, event, due, message };
        Ok(match self.shift("move a photo", shift).await? {
            Answer::Number(_) => Moved::Done,
            Answer::Elsewhere(status) => Moved::Stale(status),
        })
    }

    async fn recorded(&self, key: &PhotoKey, at: Position, ending: Ending) -> Result<(), LedgerError> {
        let keys = self.keys(&key.run);
        let arguments = [key.photo_id.as_str().into(), packing::place(at, Some(ending)).into()];
        self.client
            .script("let go of a message", &RECORDED, &[keys.photos(), keys.messages()], &arguments)
            .await
            .map(drop)
    }

    async fn status(&self, key: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError> {
        let found = self.look_up(key).await?;
        Ok(found.map(|(packed, message)| PhotoStatus { message, ..packed.status() }))
    }

    async fn history(&self, key: &PhotoKey) -> Result<Vec<Event>, LedgerError> {
        Ok(self.look_up(key).await?.map(|(packed, _)| packed.history).unwrap_or_default())
    }

    async fn counts(&self, run: &RunName) -> Result<Counts, LedgerError> {
        const WHAT: &str = "count the photos";
        let keys = self.keys(run);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("HGETALL").arg(keys.counts()).cmd("HGETALL").arg(keys.hosts());
        let (groups, hosts): (Tally, Tally) = self.client.pipeline(WHAT, &pipe).await?;
        let mut counts = Counts::default();
        for (name, count) in groups {
            let Group { stage, kind, .. } = Group::parse(&name).ok_or_else(|| self.client.unexpected_answer(WHAT))?;
            counts.candidates += count;
            match kind {
                Kind::Ended(ending) => *counts.ended.entry(ending).or_default() += count,
                Kind::Waiting => *counts.waiting.entry(stage).or_default() += count,
                Kind::Retrying => {
                    *counts.waiting.entry(stage).or_default() += count;
                    *counts.retrying.entry(stage).or_default() += count;
                }
            }
        }
        for (name, count) in hosts {
            let (group, host) = Group::parse_with_host(&name).ok_or_else(|| self.client.unexpected_answer(WHAT))?;
            if let Group { stage, kind: Kind::Ended(ending), code: Some(code) } = group {
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

    /// The record has the message: it is let go of in a second step, which a call after a failure makes up for.
    async fn restore(&self, message: &Message, ending: Ending, cause: Option<&Cause>) -> Result<bool, LedgerError> {
        let (key, at) = (message.photo.key(), message.position);
        self.enter(&key.run).await?;
        let facts = Facts::new(message.attempt, 0, &message.photo.candidate.host(), cause);
        let (from, to) = ((Position::START, None), (at, Some(ending)));
        let shift = Shift { key: &key, from, to, facts: &facts, event: None, due: None, message };
        let is_restored = matches!(self.shift("give a photo its end back", shift).await?, Answer::Number(_));
        self.recorded(&key, at, ending).await?;
        Ok(is_restored)
    }

    async fn reopen(&self, key: &PhotoKey, record: Option<&Message>, now: u64) -> Result<Option<Message>, LedgerError> {
        const WHAT: &str = "send a photo back";
        let Some((Packed { at, ending: Some(ending), .. }, kept)) = self.look_up(key).await? else {
            return Ok(None);
        };
        let lost =
            || self.client.refused(WHAT, format_args!("{key} has no message any more, it takes its record to go on"));
        let message = kept.or_else(|| record.cloned()).ok_or_else(lost)?;
        let message = Message { attempt: 1, position: at.next_delivery(), enqueued_at: now, ..message };
        let to = (message.position, None);
        let facts = Facts::new(1, 0, &message.photo.candidate.host(), None);
        let event = enqueued(message.position, now);
        let (from, event, due) = ((at, Some(ending)), Some(&event), Some(now));
        let shift = Shift { key, from, to, facts: &facts, event, due, message: &message };
        Ok(match self.shift(WHAT, shift).await? {
            Answer::Number(_) => Some(message),
            // Somebody else has just sent it back.
            Answer::Elsewhere(_) => None,
        })
    }

    async fn due_since(&self, run: &RunName) -> Result<BTreeMap<StageName, u64>, LedgerError> {
        let keys = self.keys(run);
        let mut pipe = redis::pipe();
        for stage in StageName::ALL {
            pipe.cmd("ZRANGE").arg(keys.due(stage)).arg(0).arg(0).arg("WITHSCORES");
        }
        let oldest: Vec<Vec<(String, u64)>> = self.client.pipeline("look for the oldest photos", &pipe).await?;
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

type Tally = Vec<(String, u64)>;

impl Redis {
    /// The ids of one page. Every set that the filter names is read at one moment, up to where the first of them
    /// may go on.
    async fn ids(
        &self,
        run: &RunName,
        filter: &Filter,
        after: Option<&Id>,
        limit: usize,
    ) -> Result<Vec<Id>, LedgerError> {
        const WHAT: &str = "list photos";
        let keys = self.keys(run);
        let mut groups: Tally = self.client.command(WHAT, redis::cmd("HGETALL").arg(keys.counts())).await?;
        groups.retain(|(name, _)| Group::parse(name).is_some_and(|group| group.matches(filter)));
        let total: u64 = groups.iter().map(|(_, count)| count).sum();
        let name = |(name, _): &(String, u64)| match &filter.host {
            Some(host) => keys.group_and_host(name, host),
            None => keys.group(name),
        };
        let names: Vec<String> = groups.iter().map(name).collect();
        let (mut ids, mut after) = (Vec::new(), after.map(keys::member));
        while !names.is_empty() && ids.len() < limit {
            let left = limit - ids.len();
            // A large group has more of the next ids than a small one.
            let share = |count: u64| (left as u64 * count * 5 / (4 * total.max(1)) + 16).min(left as u64);
            let shares: Vec<u64> = groups.iter().map(|(_, count)| share(*count)).collect();
            let mut arguments = vec![after.as_ref().map_or(b"-".to_vec(), |after| [b"(", after.as_slice()].concat())];
            arguments.extend(shares.iter().map(|share| share.to_string().into_bytes()));
            let value = self.client.script(WHAT, &PAGE, &names, &arguments).await?;
            let members: Vec<Vec<Bytes>> =
                redis::from_redis_value(value).map_err(|error| self.client.refused(WHAT, error))?;
            let may_go_on = members.iter().zip(&shares).filter(|(members, share)| members.len() as u64 == **share);
            let horizon = may_go_on.filter_map(|(members, _)| members.last()).min().cloned();
            let mut merged: Vec<Bytes> = members.into_iter().flatten().collect();
            merged.retain(|member| horizon.as_ref().is_none_or(|horizon| member <= horizon));
            merged.sort_unstable();
            ids.extend(merged.iter().take(left).filter_map(|member| keys::id_of_member(member)));
            if horizon.is_none() {
                break;
            }
            after = horizon;
        }
        Ok(ids)
    }

    /// What is kept of the photos, those left out that no longer fit the filter.
    async fn entries(&self, run: &RunName, filter: &Filter, ids: Vec<Id>) -> Result<Vec<Entry>, LedgerError> {
        const WHAT: &str = "list photos";
        let keys = self.keys(run);
        let mut pipe = redis::pipe();
        pipe.atomic();
        for key in [keys.photos(), keys.messages()] {
            pipe.cmd("HMGET").arg(key);
            for id in &ids {
                pipe.arg(id.as_str());
            }
        }
        let (photos, messages): (Vec<Option<Bytes>>, Vec<Option<Bytes>>) = self.client.pipeline(WHAT, &pipe).await?;
        let mut entries = Vec::with_capacity(ids.len());
        for ((photo_id, kept), message) in ids.into_iter().zip(photos).zip(messages) {
            let Some(kept) = kept else { continue };
            let packed = self.read(WHAT, &kept)?;
            let code = packed.facts.cause.as_ref().map(|cause| cause.code.clone());
            let group = Group { stage: packed.at.stage, kind: Kind::of(packed.at, packed.ending), code };
            if group.matches(filter) && filter.host.as_ref().is_none_or(|host| *host == packed.facts.host) {
                let message = message.map(|body| body::unpack(&body)).transpose();
                let message = message.map_err(|error| self.client.refused(WHAT, error))?;
                entries.push(Entry { photo_id, status: PhotoStatus { message, ..packed.status() } });
            }
        }
        Ok(entries)
    }
}

fn note(worker: &str) -> &str {
    &worker[..worker.floor_char_boundary(Redis::MAX_WORKER)]
}
