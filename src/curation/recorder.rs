//! Stores verdicts: in the log in the object store first, then in the index.

use std::collections::{HashMap, HashSet};

use tokio::sync::Mutex;

use super::error::ApiError;
use crate::dataset::{FollowError, IndexError, IndexSource, SharedIndex};
use crate::domain::{Verdict, VerdictId};
use crate::objects::ObjectError;
use crate::verdicts::{AppendError, LogPosition, VerdictLog, VerdictWriter};

/// What became of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    Stored,
    /// The log had it already.
    Known,
    /// The log has another verdict under its id. Nothing was stored.
    IdTaken,
}

/// The one writer of this process.
pub struct VerdictRecorder {
    index: SharedIndex,
    source: IndexSource,
    writer: Mutex<Writer>,
}

struct Writer {
    log: VerdictWriter,
    /// What lies before it was passed to the index.
    passed_on: LogPosition,
}

impl VerdictRecorder {
    /// Reads the whole log.
    pub async fn open(log: VerdictLog, index: SharedIndex, source: IndexSource) -> Result<Self, ObjectError> {
        let log = VerdictWriter::open(log, drop).await?;
        let passed_on = log.position();
        Ok(Self { index, source, writer: Mutex::new(Writer { log, passed_on }) })
    }

    /// Stores valid verdicts in order, all or none, and returns what became of each. Those whose ids are taken are left
    /// out. When this returns, the verdicts are durable, and the index has them.
    ///
    /// # Errors
    /// The store fails. The caller sends the same verdicts again: they are stored once.
    pub async fn record(&self, verdicts: &[Verdict]) -> Result<Vec<Recorded>, ApiError> {
        let mut writer = self.writer.lock().await;
        let mut recorded = first_of_each_id(verdicts);
        let stored = loop {
            for (verdict, recorded) in verdicts.iter().zip(&mut recorded) {
                match writer.log.knows(verdict) {
                    Some(true) if *recorded == Recorded::Stored => *recorded = Recorded::Known,
                    Some(false) => *recorded = Recorded::IdTaken,
                    _ => {}
                }
            }
            let new = verdicts.iter().zip(&recorded).filter(|(_, recorded)| **recorded == Recorded::Stored);
            let new: Vec<Verdict> = new.map(|(verdict, _)| verdict.clone()).collect();
            match writer.log.append(&new).await {
                Ok(appended) => break appended,
                // Another server has just stored another verdict under this id: now the writer knows it.
                Err(AppendError::IdTaken(_)) => {}
                Err(AppendError::Invalid { id, fault }) => {
                    return Err(ApiError::invalid("bad-verdict", format!("verdict {id}: {fault}")));
                }
                Err(AppendError::Objects(error)) => return Err(error.into()),
            }
        };
        let own: HashSet<&VerdictId> = stored.news[stored.foreign..].iter().map(|verdict| &verdict.id).collect();
        for (verdict, recorded) in verdicts.iter().zip(&mut recorded) {
            if *recorded == Recorded::Stored && !own.contains(&verdict.id) {
                *recorded = Recorded::Known;
            }
        }
        self.pass_on(&mut writer, stored.news).await;
        Ok(recorded)
    }

    /// Reads what others have appended.
    pub async fn follow(&self) -> Result<(), FollowError> {
        let mut writer = self.writer.lock().await;
        let news = writer.log.follow().await?;
        self.pass_on(&mut writer, news).await;
        Ok(())
    }

    /// Brings the index to the end of what was read and written.
    async fn pass_on(&self, writer: &mut Writer, news: Vec<Verdict>) {
        let (from, to) = (writer.passed_on, writer.log.position());
        writer.passed_on = to;
        let added = self.index.with(move |index| {
            let is_behind = index.verdict_position()? < to;
            Ok::<_, IndexError>(!is_behind || index.add_verdicts(from, &news, to)?)
        });
        let error = match added.await {
            Ok(true) => return,
            // The index is at another place: an earlier call did not reach this point.
            Ok(false) => match self.source.judge(&mut self.index.clone()).await {
                Ok(_) => return,
                Err(error) => error,
            },
            Err(error) => FollowError::Index(error),
        };
        // The verdicts are durable. The index follows the log later.
        tracing::warn!(%error, "the index does not have the last verdicts yet");
    }
}

/// The first verdict under each id is to be stored. A later one is the same act, sent twice, or another one.
fn first_of_each_id(verdicts: &[Verdict]) -> Vec<Recorded> {
    let mut first: HashMap<&VerdictId, &Verdict> = HashMap::new();
    let mut recorded = Vec::with_capacity(verdicts.len());
    for verdict in verdicts {
        let known = *first.entry(&verdict.id).or_insert(verdict);
        recorded.push(match () {
            () if std::ptr::eq(known, verdict) => Recorded::Stored,
            () if known.is_same_act(verdict) => Recorded::Known,
            () => Recorded::IdTaken,
        });
    }
    recorded
}
