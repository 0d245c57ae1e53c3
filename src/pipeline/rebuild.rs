//! Makes a ledger again that was lost: what has ended from the records among the objects, the rest from the dump.

use std::borrow::Cow;
use std::collections::HashSet;

use futures::TryStreamExt;

use super::producer::{self, Enqueued, ProducerError, Refusal};
use crate::archive::records::{Records, Unreadable};
use crate::broker::Broker;
use crate::domain::Record;
use crate::domain::{Candidate, PhotoKey, RunName};
use crate::ledger::{Ledger, LedgerError};
use crate::objects::{ObjectError, ObjectKey};

/// What became of the records and the candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    /// Photos that have their ending again.
    pub restored: u64,
    /// Records of photos whose place the ledger knew.
    pub stood: u64,
    /// Candidates without a record, which start again.
    pub enqueued: u64,
    pub refused: Vec<Refusal>,
    /// Records that are no help. Their photos are left alone until somebody has looked at them.
    pub unreadable: Vec<Unreadable>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum RebuildError {
    #[error("cannot read the records: {0}")]
    Objects(#[from] ObjectError),
    #[error("cannot restore what has ended: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Producer(#[from] ProducerError),
}

/// Restores at a time.
const AT_ONCE: usize = 32;

/// Restores every photo of the run that has a record, then takes in and enqueues the candidates that have none;
/// `restored` and `enqueued` hear how many are dealt with.
///
/// It may be run again after any failure, and while workers are at work: a photo that stands somewhere stays there.
/// Photos that were under way start again, and their stages find what is in the objects already.
pub async fn rebuild(
    run: &RunName,
    candidates: &[Candidate],
    records: &Records,
    ledger: &dyn Ledger,
    broker: &dyn Broker,
    restored: &(dyn Fn(u64) + Sync),
    enqueued: &(dyn Fn(u64) + Sync),
) -> Result<Rebuilt, RebuildError> {
    let mut rebuilt = Rebuilt::default();
    // Before the candidates are taken in: what has ended is then known as such, and not enqueued.
    let restore = async |record: Result<Record, Unreadable>| {
        let restoring = match record {
            Ok(record) => Ok(ledger.restore(&record.message, record.ending, record.cause.as_ref()).await?),
            Err(unreadable) => Err(unreadable),
        };
        restored(1);
        Ok::<_, RebuildError>(restoring)
    };
    let mut answers =
        std::pin::pin!(records.all(run).map_err(RebuildError::from).map_ok(restore).try_buffer_unordered(AT_ONCE));
    while let Some(restoring) = answers.try_next().await? {
        match restoring {
            Ok(true) => rebuilt.restored += 1,
            Ok(false) => rebuilt.stood += 1,
            Err(unreadable) => rebuilt.unreadable.push(unreadable),
        }
    }
    rebuilt.unreadable.sort_by(|a, b| a.record.cmp(&b.record));
    let candidates = without(run, candidates, &rebuilt.unreadable);
    let Enqueued { new, refused, .. } = producer::enqueue(run, &candidates, ledger, broker, enqueued).await?;
    Ok(Rebuilt { enqueued: new, refused, ..rebuilt })
}

/// The candidates that have none of these records: such a photo has ended, nobody knows how.
fn without<'a>(run: &RunName, candidates: &'a [Candidate], unreadable: &[Unreadable]) -> Cow<'a, [Candidate]> {
    if unreadable.is_empty() {
        return Cow::Borrowed(candidates);
    }
    let records: HashSet<&ObjectKey> = unreadable.iter().map(|unreadable| &unreadable.record).collect();
    let record =
        |candidate: &Candidate| ObjectKey::record(&PhotoKey { run: run.clone(), photo_id: candidate.photo_id.clone() });
    candidates.iter().filter(|candidate| !records.contains(&record(candidate))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::broker::embedded::Embedded;
    use crate::domain::Message;
    use crate::domain::{Cause, CauseCode, Ending, Photo, State};
    use crate::ledger::sqlite::Sqlite;
    use crate::objects::Objects;
    use crate::objects::folder::Folder;
    use crate::sqlite::{Access, Database};

    #[tokio::test]
    async fn an_unreadable_record_is_named_and_its_photo_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path().join("objects")));
        let (records, run) = (Records::new(objects.clone()), RunName::default());
        let database = Database::open(&scratch.path().join("ledger.sqlite"), Access::Write).unwrap();
        let ledger = Sqlite::open(database.clone()).await.unwrap();
        let broker = Embedded::open(database, 100).await.unwrap();
        let key = |id: i64| PhotoKey { run: run.clone(), photo_id: id.into() };
        let message = Message::first(Photo::new(run.clone(), Candidate::example(1)), 5);
        records
            .write(&Record { ending: Ending::Gone, cause: Some(Cause::new(CauseCode::Http(404), "")), message })
            .await
            .unwrap();
        let broken = ObjectKey::record(&key(2));
        objects.put(&broken, Bytes::from_static(b"{\"ending\":"), "application/json").await.unwrap();

        let candidates = [Candidate::example(1), Candidate::example(2), Candidate::example(3)];
        let again = async || rebuild(&run, &candidates, &records, &ledger, &broker, &|_| (), &|_| ()).await.unwrap();
        let rebuilt = again().await;
        assert_eq!((rebuilt.restored, rebuilt.enqueued), (1, 1));
        let [unreadable] = &rebuilt.unreadable[..] else { panic!("{rebuilt:?}") };
        assert_eq!(unreadable.record, broken);
        assert_eq!(ledger.status(&key(1)).await.unwrap().unwrap().state, State::Ended(Ending::Gone));
        assert!(ledger.status(&key(2)).await.unwrap().is_none(), "nobody knows how it ended");

        std::fs::remove_file(scratch.path().join("objects").join(broken.as_str())).unwrap();
        let rebuilt = again().await;
        assert_eq!((rebuilt.stood, rebuilt.enqueued, rebuilt.unreadable), (1, 1, vec![]), "now it starts again");
    }
}
