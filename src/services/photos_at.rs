//! Finds photos of a run by the URL that they were read from.

use crate::dataset::{FollowError, Index, IndexError, IndexSource};
use crate::domain::Id;
use crate::ledger::{Filter, LedgerError};

#[derive(Debug, thiserror::Error)]
pub enum PhotosAtError {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The photos with this URL: those that have ended, else those that wait. Brings the index up to date.
///
/// # Errors
/// Index, archive or ledger cannot be read.
pub async fn photos_at(url: &str, index: &mut Index, source: &IndexSource) -> Result<Vec<Id>, PhotosAtError> {
    const PAGE: usize = 1000;
    source.follow(index, &|_| {}).await?;
    let mut found = index.photos_at(url)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let filter = Filter { waiting: true, ..Filter::default() };
    let mut after = None;
    loop {
        let page = source.ledger.page(&source.run, &filter, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.photo_id.clone());
        let is_there = |message: &crate::domain::Message| message.photo.candidate.photo_url == url;
        found.extend(page.into_iter().filter(|e| e.status.message.as_ref().is_some_and(is_there)).map(|e| e.photo_id));
    }
}
