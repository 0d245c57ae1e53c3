//! Fills the index from the feed of endings.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};

use super::index::{Change, Index, IndexError};
use crate::archive::records::Records;
use crate::domain::{Id, PhotoKey, Record, RunName, State};
use crate::ledger::{FeedChange, Ledger, LedgerError, PhotoStatus};
use crate::objects::ObjectError;

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("cannot read the feed of endings: {0}")]
    Ledger(#[from] LedgerError),
    #[error("cannot read the records: {0}")]
    Objects(#[from] ObjectError),
}

/// Entries of the feed that are applied in one transaction.
const BATCH: usize = 1000;
/// Photos that are read at a time.
const READERS: usize = 16;

/// Applies everything that is new in the feed of the run, and answers how many photos changed. `progress` hears of each
/// batch. An interrupted call loses nothing: the index and its position in the feed are written together.
///
/// `records`: where the messages of ended photos are, if the ledger does not keep them.
pub async fn follow(
    index: &mut Index,
    run: &RunName,
    ledger: &dyn Ledger,
    records: Option<&Records>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, FollowError> {
    let mut changed = 0;
    loop {
        let after = index.position()?;
        let endings = ledger.endings(run, after.as_ref(), BATCH).await?;
        if endings.restarted || after.is_none() {
            index.clear()?;
        }
        // Only the last entry of a photo counts.
        let last: HashMap<&Id, u64> = endings.entries.iter().map(|entry| (&entry.photo_id, entry.sequence)).collect();
        let latest = endings.entries.iter().filter(|entry| last[&entry.photo_id] == entry.sequence);
        let changes = latest.map(|entry| change(run, &entry.photo_id, entry.change, ledger, records));
        let changes: Vec<Change> = stream::iter(changes.collect::<Vec<_>>()).buffered(READERS).try_collect().await?;
        index.apply(&changes, Some(&endings.cursor))?;
        changed += changes.len() as u64;
        progress(changes.len() as u64);
        if endings.entries.len() < BATCH {
            return Ok(changed);
        }
    }
}

async fn change(
    run: &RunName,
    id: &Id,
    change: FeedChange,
    ledger: &dyn Ledger,
    records: Option<&Records>,
) -> Result<Change, FollowError> {
    let reopened = || Change::Reopened(id.clone());
    if change == FeedChange::Reopened {
        return Ok(reopened());
    }
    let key = PhotoKey { run: run.clone(), photo_id: id.clone() };
    // The photo may have moved on since: then a later entry says so, and its ending does not count now.
    let Some(PhotoStatus { state: State::Ended(ending), cause, message, .. }) = ledger.status(&key).await? else {
        return Ok(reopened());
    };
    if let Some(message) = message {
        return Ok(Change::Ended(Box::new(Record { ending, cause, message })));
    }
    let record = match records {
        Some(records) => records.read(&key).await?,
        None => None,
    };
    Ok(record.map_or_else(reopened, |record| Change::Ended(Box::new(record))))
}
