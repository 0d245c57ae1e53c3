//! Rebuilds a lost ledger: ended photos from the records in the object store, the others from the dump, as far as the run
//! has taken them.

use std::borrow::Cow;
use std::collections::HashSet;

use futures::TryStreamExt;

use crate::archive::records::{Records, Unreadable};
use crate::broker::Broker;
use crate::domain::Record;
use crate::domain::{Candidate, PhotoKey, RunName};
use crate::ledger::{Ledger, LedgerError};
use crate::objects::{ObjectError, ObjectKey};
use crate::pipeline::producer::{Conflict, Enqueued, ProducerError, Refusal};
use crate::pipeline::refused;

/// What a rebuild did with the records and the candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    /// Photos whose ending was restored.
    pub restored: u64,
    /// Records of photos that the ledger knew already.
    pub stood: u64,
    /// Candidates of the run without a record, which start from the first stage.
    pub enqueued: u64,
    /// Candidates of the source that the run has never taken.
    pub never_taken: u64,
    /// Candidates that were not enqueued because the run has another photo with their id, and the first of these.
    pub in_conflict: u64,
    pub conflicts: Vec<Conflict>,
    pub refused: Vec<Refusal>,
    /// Records that cannot be read. Their photos are neither restored nor enqueued.
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

/// Records that are restored at a time.
const CONCURRENCY: usize = 32;

/// Restores every photo of the run that has a record, then enqueues the candidates that have none. `restored` and
/// `enqueued` receive how many are done.
///
/// It may be repeated after any failure and while workers run: a photo that the ledger knows stays as it is. Photos
/// that were in the pipeline start again, and their stages reuse the objects that exist.
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
    // This precedes the candidates, so that ended photos are not enqueued.
    let restore = async |record: Result<Record, Unreadable>| {
        let restoring = match record {
            Ok(record) => Ok(ledger.restore(&record.message, record.ending, record.cause.as_ref()).await?),
            Err(unreadable) => Err(unreadable),
        };
        restored(1);
        Ok::<_, RebuildError>(restoring)
    };
    let mut answers =
        std::pin::pin!(records.all(run).map_err(RebuildError::from).map_ok(restore).try_buffer_unordered(CONCURRENCY));
    while let Some(restoring) = answers.try_next().await? {
        match restoring {
            Ok(true) => rebuilt.restored += 1,
            Ok(false) => rebuilt.stood += 1,
            Err(unreadable) => rebuilt.unreadable.push(unreadable),
        }
    }
    rebuilt.unreadable.sort_by(|a, b| a.record.cmp(&b.record));
    let taken = records.candidates().read(run).await?;
    let all = candidates.len();
    let candidates: Vec<Candidate> =
        candidates.iter().filter(|candidate| taken.contains(&candidate.photo_id)).cloned().collect();
    rebuilt.never_taken = (all - candidates.len()) as u64;
    let candidates = without(run, &candidates, &rebuilt.unreadable);
    let Enqueued { new, refused, in_conflict, conflicts, .. } =
        refused::enqueue(run, &candidates, ledger, broker, Some(records), &records.refusals(), enqueued).await?;
    Ok(Rebuilt { enqueued: new, in_conflict, conflicts, refused, ..rebuilt })
}

/// The candidates without one of these records: their photos have ended, and how is unknown.
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
    use crate::archive::run_candidates::RunCandidates;
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

        let candidates = [1, 2, 3, 4].map(Candidate::example);
        RunCandidates::new(objects.clone()).add(&run, &candidates[..3]).await.unwrap();
        let again = async || rebuild(&run, &candidates, &records, &ledger, &broker, &|_| (), &|_| ()).await.unwrap();
        let rebuilt = again().await;
        assert_eq!((rebuilt.restored, rebuilt.enqueued, rebuilt.never_taken), (1, 1, 1));
        let [unreadable] = &rebuilt.unreadable[..] else { panic!("{rebuilt:?}") };
        assert_eq!(unreadable.record, broken);
        assert_eq!(ledger.status(&key(1)).await.unwrap().unwrap().state, State::Ended(Ending::Gone));
        assert!(ledger.status(&key(2)).await.unwrap().is_none(), "its ending is unknown");

        std::fs::remove_file(scratch.path().join("objects").join(broken.as_str())).unwrap();
        let rebuilt = again().await;
        assert_eq!((rebuilt.stood, rebuilt.enqueued, rebuilt.unreadable), (1, 1, vec![]), "now it starts again");
    }
}
