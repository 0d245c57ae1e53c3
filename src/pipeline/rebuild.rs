//! Makes a ledger again that was lost: what has ended from the records among the objects, the rest from the dump.

use futures::TryStreamExt;

use super::producer::{self, Enqueued, ProducerError, Refusal};
use super::record::Records;
use crate::broker::Broker;
use crate::ledger::{Ledger, LedgerError};
use crate::objects::ObjectError;
use crate::photo::{Candidate, RunName};

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
    let restore = async |record: super::record::Record| {
        let is_restored = ledger.restore(&record.message, record.ending, record.cause.as_ref()).await?;
        restored(1);
        Ok::<bool, RebuildError>(is_restored)
    };
    let mut answers =
        std::pin::pin!(records.all(run).map_err(RebuildError::from).map_ok(restore).try_buffer_unordered(AT_ONCE));
    while let Some(is_restored) = answers.try_next().await? {
        *if is_restored { &mut rebuilt.restored } else { &mut rebuilt.stood } += 1;
    }
    let Enqueued { new, refused, .. } = producer::enqueue(run, candidates, ledger, broker, enqueued).await?;
    Ok(Rebuilt { enqueued: new, refused, ..rebuilt })
}
