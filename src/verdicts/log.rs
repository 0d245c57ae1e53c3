//! The log of verdicts of a run: `verdicts/RUN/NNNNNNNN.jsonl`.
//!
//! The log is a sequence of segments. A segment is JSON lines, one verdict a line, and only grows: an append replaces
//! it by itself and the new lines, with compare-and-swap. A segment of [`SEGMENT_BYTES`] or more is complete, and the
//! next append creates the next one, if it is absent. So every writer appends behind the last verdict, and no writer
//! replaces what another has written: a writer that is not alone fails its swap, reads what is new, and appends behind
//! that.
//!
//! A verdict is stored when the append returns. An append whose answer is lost may have been stored or not; the writer
//! sends it again, and the ids of the verdicts tell which are in the log.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{BadVerdict, ContentHash, Printable, RunName, Verdict, VerdictId};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent, Swap, Version};
use crate::server_error::ServerError;

/// From this size on, a segment is complete. The number is part of the format: all writers must agree on it.
pub const SEGMENT_BYTES: u64 = 256 * 1024;
pub(super) const MEDIA_TYPE: &str = "application/jsonl";

/// A position in the log: behind so many bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    segment: u64,
    bytes: u64,
}

impl Default for LogPosition {
    /// The start of the log.
    fn default() -> Self {
        Self { segment: 1, bytes: 0 }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.bytes)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a position in a log of verdicts: expected SEGMENT:BYTES", .0.printable())]
pub struct BadPosition(String);

impl FromStr for LogPosition {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (segment, bytes) = text.split_once(':')?;
            let segment = segment.parse().ok().filter(|segment| *segment > 0)?;
            Some(Self { segment, bytes: bytes.parse().ok()? })
        };
        parse().ok_or_else(|| BadPosition(text.to_owned()))
    }
}

/// The log of verdicts of a run. Clones share the store.
#[derive(Clone)]
pub struct VerdictLog {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) run: RunName,
    segment_bytes: u64,
}

/// The last segment of the log. None: the next append creates it.
type Tail = Option<(Bytes, Version)>;

/// Whether a segment that was read is the last one.
enum Segment {
    Complete,
    Last(Tail),
}

impl VerdictLog {
    pub fn new(objects: Arc<dyn Objects>, run: RunName) -> Self {
        Self { objects, run, segment_bytes: SEGMENT_BYTES }
    }

    /// A log with small segments, for tests.
    pub fn with_segment_bytes(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// Reads the rest of the log after `position`, which it moves to the end. `visit` gets each verdict in order.
    ///
    /// # Errors
    /// The store fails, a segment is damaged, or it is shorter than it was. `position` is behind what `visit` got.
    pub async fn read(&self, position: &mut LogPosition, mut visit: impl FnMut(Verdict)) -> Result<(), ObjectError> {
        self.catch_up(position, &mut visit).await.map(drop)
    }

    /// Reads on from `position`, to the end of a segment at most, and moves `position` behind what it returns. Empty:
    /// the log has no more verdicts now.
    ///
    /// # Errors
    /// As those of [`VerdictLog::read`].
    pub async fn next(&self, position: &mut LogPosition) -> Result<Vec<Verdict>, ObjectError> {
        let mut verdicts = Vec::new();
        loop {
            let segment = self.read_segment(position, &mut |verdict| verdicts.push(verdict)).await?;
            if !verdicts.is_empty() || matches!(segment, Segment::Last(_)) {
                return Ok(verdicts);
            }
        }
    }

    async fn catch_up(&self, position: &mut LogPosition, visit: &mut impl FnMut(Verdict)) -> Result<Tail, ObjectError> {
        loop {
            if let Segment::Last(tail) = self.read_segment(position, visit).await? {
                return Ok(tail);
            }
        }
    }

    /// Reads the rest of a segment. After a complete one, `position` is the start of the next.
    async fn read_segment(
        &self,
        position: &mut LogPosition,
        visit: &mut impl FnMut(Verdict),
    ) -> Result<Segment, ObjectError> {
        let key = ObjectKey::verdicts(&self.run, position.segment);
        let (body, version) = match self.objects.get_versioned(&key).await {
            Ok(read) => read,
            Err(ObjectError::Missing(_)) => {
                self.check_end(&key, *position).await?;
                return Ok(Segment::Last(None));
            }
            Err(error) => return Err(error),
        };
        let Some(news) = usize::try_from(position.bytes).ok().and_then(|known| body.get(known..)) else {
            return Err(damaged(&key, "it is shorter than it was: restore it from a backup"));
        };
        let known_lines = body[..body.len() - news.len()].iter().filter(|byte| **byte == b'\n').count();
        for (number, line) in (known_lines + 1..).zip(news.split_inclusive(|byte| *byte == b'\n')) {
            let verdict = parse(line).map_err(|error| damaged(&key, &format!("line {number}: {error}")))?;
            position.bytes += line.len() as u64;
            if verdict.crop != ContentHash::REMOVED {
                visit(verdict);
            }
        }
        if position.bytes < self.segment_bytes {
            return Ok(Segment::Last(Some((body, version))));
        }
        *position = LogPosition { segment: position.segment + 1, bytes: 0 };
        Ok(Segment::Complete)
    }

    /// Checks that a missing segment is the end of the log, and not a gap.
    async fn check_end(&self, key: &ObjectKey, position: LogPosition) -> Result<(), ObjectError> {
        let later = self.objects.list(&ObjectKey::all_verdicts(&self.run), Some(key), 1).await?;
        if position.bytes > 0 || !later.keys.is_empty() {
            return Err(damaged(key, "the segment is missing: restore it from a backup"));
        }
        Ok(())
    }
}

fn parse(line: &[u8]) -> Result<Verdict, String> {
    let line = line.strip_suffix(b"\n").ok_or("the line has no end")?;
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

fn damaged(key: &ObjectKey, detail: &str) -> ObjectError {
    ServerError::Refused { what: format!("cannot read {key}"), detail: detail.to_owned() }.into()
}

/// Why verdicts were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("verdict {id} is not valid: {fault}")]
    Invalid { id: VerdictId, fault: BadVerdict },
    /// The client made an id twice, or sends other content under an id.
    #[error("verdict {0} is in the log with other content: send it under another id")]
    IdTaken(VerdictId),
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

/// The result of an append.
#[derive(Debug, Default, PartialEq)]
pub struct Appended {
    /// Everything that is new in the log since the last call, in order: what other writers appended, then the verdicts
    /// that this call stored.
    pub news: Vec<Verdict>,
    /// How many of the verdicts were in the log already.
    pub known: usize,
    /// How many of `news` came from other writers. Only one server should write to a log.
    pub foreign: usize,
}

/// Appends to a log. It keeps a fingerprint of every verdict, 24 bytes, so that none is stored twice.
pub struct VerdictWriter {
    log: VerdictLog,
    position: LogPosition,
    acts: HashMap<[u8; 16], u64>,
    /// What was read and not yet returned, because the call failed.
    unreported: Vec<Verdict>,
}

impl VerdictWriter {
    /// Reads the whole log. `visit` gets each verdict.
    pub async fn open(log: VerdictLog, mut visit: impl FnMut(Verdict)) -> Result<Self, ObjectError> {
        let (mut position, mut acts) = (LogPosition::default(), HashMap::new());
        log.read(&mut position, |verdict| {
            let (id, act) = fingerprint(&verdict);
            acts.insert(id, act);
            visit(verdict);
        })
        .await?;
        Ok(Self { log, position, acts, unreported: Vec::new() })
    }

    /// The end of what this writer has read and written.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Reads what other writers have appended. Returns everything that is new since the last call of this or of
    /// [`VerdictWriter::append`], in order.
    pub async fn follow(&mut self) -> Result<Vec<Verdict>, ObjectError> {
        self.catch_up().await?;
        Ok(std::mem::take(&mut self.unreported))
    }

    /// Whether the log has a verdict with this id, as far as it was read, and whether it is the same act.
    pub fn knows(&self, verdict: &Verdict) -> Option<bool> {
        let (id, act) = fingerprint(verdict);
        self.acts.get(&id).map(|known| *known == act)
    }

    /// Stores the verdicts durably, in order, as a whole or not at all. Verdicts that are in the log count as stored.
    ///
    /// # Errors
    /// A verdict is not valid or its id is taken: nothing is stored. Or the store fails: call again with the same
    /// verdicts, which are stored once.
    pub async fn append(&mut self, verdicts: &[Verdict]) -> Result<Appended, AppendError> {
        for verdict in verdicts {
            verdict.check().map_err(|fault| AppendError::Invalid { id: verdict.id.clone(), fault })?;
        }
        loop {
            let tail = self.catch_up().await?;
            let (fresh, lines) = self.fresh(verdicts)?;
            let foreign = self.unreported.len();
            if !fresh.is_empty() && !self.store(tail, &lines).await? {
                continue;
            }
            if !fresh.is_empty() {
                self.position.bytes += lines.len() as u64;
            }
            for verdict in &fresh {
                let (id, act) = fingerprint(verdict);
                self.acts.insert(id, act);
            }
            let known = verdicts.len() - fresh.len();
            self.unreported.extend(fresh);
            return Ok(Appended { news: std::mem::take(&mut self.unreported), known, foreign });
        }
    }

    async fn catch_up(&mut self) -> Result<Tail, ObjectError> {
        let Self { log, position, acts, unreported } = self;
        let mut visit = |verdict: Verdict| {
            let (id, act) = fingerprint(&verdict);
            acts.insert(id, act);
            unreported.push(verdict);
        };
        log.catch_up(position, &mut visit).await
    }

    /// The verdicts that are not in the log, and their lines.
    fn fresh(&self, verdicts: &[Verdict]) -> Result<(Vec<Verdict>, Vec<u8>), AppendError> {
        let (mut fresh, mut lines, mut own) = (Vec::new(), Vec::new(), HashMap::new());
        for verdict in verdicts {
            let (id, act) = fingerprint(verdict);
            match self.acts.get(&id).or_else(|| own.get(&id)) {
                Some(known) if *known == act => continue,
                Some(_) => return Err(AppendError::IdTaken(verdict.id.clone())),
                None => own.insert(id, act),
            };
            serde_json::to_writer(&mut lines, verdict).map_err(|error| {
                let what = format!("cannot write verdict {}", verdict.id);
                ObjectError::from(ServerError::Refused { what, detail: error.to_string() })
            })?;
            lines.push(b'\n');
            fresh.push(verdict.clone());
        }
        Ok((fresh, lines))
    }

    /// Appends the lines. False: another writer was faster.
    async fn store(&self, tail: Tail, lines: &[u8]) -> Result<bool, ObjectError> {
        let key = ObjectKey::verdicts(&self.log.run, self.position.segment);
        let objects = &self.log.objects;
        Ok(match tail {
            None => {
                let body = Bytes::copy_from_slice(lines);
                objects.put_if_absent(&key, body, MEDIA_TYPE).await? == PutIfAbsent::Created
            }
            Some((body, version)) => {
                let body = Bytes::from([&body, lines].concat());
                objects.compare_and_swap(&key, &version, body, MEDIA_TYPE).await? == Swap::Done
            }
        })
    }
}

/// Hashes of the id and of the content without the time. Two different ids have the same hash with a probability of
/// 2^-128.
fn fingerprint(verdict: &Verdict) -> ([u8; 16], u64) {
    let id = ContentHash::of(verdict.id.as_str().as_bytes());
    let act = serde_json::to_vec(&Verdict { at: 0, ..verdict.clone() }).unwrap_or_default();
    let act = ContentHash::of(&act);
    let (mut first, mut content) = ([0; 16], [0; 8]);
    first.copy_from_slice(&id.as_bytes()[..16]);
    content.copy_from_slice(&act.as_bytes()[..8]);
    (first, u64::from_le_bytes(content))
}
