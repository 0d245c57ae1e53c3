//! Fills the index from the feed of endings, and its predictions from the archive. The index is not held while something
//! is read: a server that answers from it goes on meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::ending::EndedPhoto;
use super::index::{Change, IndexError};
use super::shared::IndexAccess;
use crate::archive::crop_groups::{CropGroup, GroupKind, StoredGroups};
use crate::archive::duplicates::StoredDuplicates;
use crate::archive::predictions::Predictions;
use crate::archive::records::Records;
use crate::archive::run_classifier::RunClassifiers;
use crate::domain::{ContentHash, Ending, Id, Photo, PhotoKey, Prediction, Record, RunName, State};
use crate::ledger::{FeedChange, Ledger, LedgerError, PhotoStatus};
use crate::objects::{ObjectError, Objects};
use crate::verdicts::VerdictLog;

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("cannot read the feed of endings: {0}")]
    Ledger(#[from] LedgerError),
    #[error("cannot read the archive for the index: {0}")]
    Objects(#[from] ObjectError),
}

/// What the index of a run is filled from. Clones share the clients.
#[derive(Clone)]
pub struct IndexSource {
    pub run: RunName,
    pub ledger: Arc<dyn Ledger>,
    /// Where the messages of ended photos are, if the ledger does not keep them.
    records: Option<Records>,
    classifiers: RunClassifiers,
    predictions: Predictions,
    verdicts: VerdictLog,
    pub duplicates: StoredDuplicates,
    identities: StoredGroups,
}

impl IndexSource {
    /// Entries of the feed that are applied in one transaction.
    const BATCH: usize = 1000;
    /// Photos or predictions that are read at a time.
    const READERS: usize = 16;
    /// Up to so many missing predictions are looked up one by one; for more, the model's predictions are listed first.
    const LOOK_UPS: usize = 1000;
    /// Photos without a record that are looked up again each time: their records may have been restored.
    const AGAIN: usize = 1000;

    /// `records`: where the messages of ended photos are, if the ledger does not keep them.
    pub fn new(run: RunName, ledger: Arc<dyn Ledger>, objects: Arc<dyn Objects>, records: Option<Records>) -> Self {
        let (classifiers, predictions) = (RunClassifiers::new(objects.clone()), Predictions::new(objects.clone()));
        let duplicates = StoredDuplicates::new(objects.clone(), run.clone());
        let identities = StoredGroups::new(objects.clone(), run.clone(), GroupKind::Identities);
        let verdicts = VerdictLog::new(objects, run.clone());
        Self { run, ledger, records, classifiers, predictions, verdicts, duplicates, identities }
    }

    /// Brings the index up to date: the run's classifier, everything that is new in the feed and in the log of
    /// verdicts, and predictions that were made since. `progress` receives the number of photos of each batch.
    pub async fn update(
        &self,
        index: &mut impl IndexAccess,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), FollowError> {
        self.follow(index, progress).await?;
        self.judge(index).await?;
        self.score(index, progress).await?;
        Ok(())
    }

    /// Applies the run's current classifier, its groups of crops and everything that is new in the feed, and returns
    /// how many photos changed. An interrupted call loses nothing: the index and its position in the feed are written
    /// together.
    ///
    /// After a change of the classifier, the faces have no predictions until [`IndexSource::score`].
    pub async fn follow(
        &self,
        index: &mut impl IndexAccess,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, FollowError> {
        let history = self.classifiers.read(&self.run).await?;
        let model = history.current().map(|current| current.model_sha256);
        let (_, unrecorded) = index
            .call(move |index| {
                index.set_classifier(&history)?;
                index.unrecorded(Self::AGAIN)
            })
            .await?;
        if !unrecorded.is_empty() {
            let again = self.changes(unrecorded.into_iter().map(|id| (id, true)), model).await?;
            index.call(move |index| index.apply(&again, None)).await?;
        }

        self.group(index).await?;
        let mut changed = 0;
        loop {
            let after = index.call(|index| index.position()).await?;
            let endings = self.ledger.endings(&self.run, after.as_ref(), Self::BATCH).await?;
            if endings.restarted || after.is_none() {
                index.call(|index| index.clear()).await?;
            } else if endings.entries.is_empty() {
                return Ok(changed);
            }
            // Only the last entry of a photo counts.
            let last: HashMap<&Id, u64> =
                endings.entries.iter().map(|entry| (&entry.photo_id, entry.sequence)).collect();
            let latest = endings.entries.iter().filter(|entry| last[&entry.photo_id] == entry.sequence);
            let latest = latest.map(|entry| (entry.photo_id.clone(), entry.change != FeedChange::Reopened));
            let changes = self.changes(latest, model).await?;
            let (count, cursor) = (changes.len() as u64, endings.cursor);
            index.call(move |index| index.apply(&changes, Some(&cursor))).await?;
            changed += count;
            progress(count);
            if endings.entries.len() < Self::BATCH {
                return Ok(changed);
            }
        }
    }

    /// Applies the groups of duplicates and the identities that were found last.
    pub async fn group(&self, index: &mut impl IndexAccess) -> Result<(), FollowError> {
        let known = index.call(|index| index.duplicates_version()).await?;
        if let Some((version, groups)) = other_groups(&self.duplicates.groups, known).await? {
            index.call(move |index| index.set_duplicates(version, &groups)).await?;
        }
        let known = index.call(|index| index.identities_version()).await?;
        if let Some((version, groups)) = other_groups(&self.identities, known).await? {
            index.call(move |index| index.set_identities(version, &groups)).await?;
        }
        Ok(())
    }

    /// Applies everything that is new in the log of verdicts, and returns how many verdicts there are.
    pub async fn judge(&self, index: &mut impl IndexAccess) -> Result<u64, FollowError> {
        let mut applied = 0;
        loop {
            let from = index.call(|index| index.verdict_position()).await?;
            let mut to = from;
            let verdicts = self.verdicts.next(&mut to).await?;
            if verdicts.is_empty() {
                return Ok(applied);
            }
            let count = verdicts.len() as u64;
            if index.call(move |index| index.add_verdicts(from, &verdicts, to)).await? {
                applied += count;
            }
        }
    }

    /// Looks up the predictions of the run's current classifier for the faces that have none, and returns how many
    /// there are. Predictions are not announced: a reader that follows the feed for long calls this from time to time.
    pub async fn score(
        &self,
        index: &mut impl IndexAccess,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, FollowError> {
        let (model, mut unscored) = index.call(|index| Ok((index.model(), index.unscored()?))).await?;
        let Some(model) = model else { return Ok(0) };
        if unscored.len() > Self::LOOK_UPS {
            let mut scored: Vec<ContentHash> = self.predictions.crops_of_model(model).try_collect().await?;
            scored.sort_unstable();
            unscored.retain(|(_, crop)| scored.binary_search(crop).is_ok());
        }
        let mut found = 0;
        for batch in unscored.chunks(Self::BATCH) {
            let look_up = |&(key, crop): &(i64, ContentHash)| async move {
                Ok::<_, FollowError>(self.predictions.read(model, crop).await?.map(|prediction| (key, prediction)))
            };
            let predictions = stream::iter(batch.iter().map(look_up).collect::<Vec<_>>()).buffered(Self::READERS);
            let predictions: Vec<Option<(i64, Prediction)>> = predictions.try_collect().await?;
            let predictions: Vec<(i64, Prediction)> = predictions.into_iter().flatten().collect();
            let count = predictions.len() as u64;
            index.call(move |index| index.add_predictions(&predictions)).await?;
            found += count;
            progress(count);
        }
        Ok(found)
    }

    /// What is known of a photo. None: nothing is, or it was taken down.
    pub async fn photo(&self, id: &Id) -> Result<Option<Photo>, FollowError> {
        let key = PhotoKey { run: self.run.clone(), photo_id: id.clone() };
        let status = self.ledger.status(&key).await?.filter(|status| !status.is_taken_down());
        let message = match (status, &self.records) {
            (Some(PhotoStatus { message: Some(message), .. }), _) => Some(message),
            (Some(_), Some(records)) => records.read(&key).await?.map(|record| record.message),
            _ => None,
        };
        Ok(message.map(|message| message.photo))
    }

    /// The changes of photos, each with whether it has ended.
    async fn changes(
        &self,
        photos: impl Iterator<Item = (Id, bool)>,
        model: Option<ContentHash>,
    ) -> Result<Vec<Change>, FollowError> {
        let changes = photos.map(|(id, has_ended)| self.change(id, has_ended, model));
        stream::iter(changes.collect::<Vec<_>>()).buffered(Self::READERS).try_collect().await
    }

    async fn change(&self, id: Id, has_ended: bool, model: Option<ContentHash>) -> Result<Change, FollowError> {
        if !has_ended {
            return Ok(Change::Reopened(id));
        }
        let key = PhotoKey { run: self.run.clone(), photo_id: id };
        // The photo may have moved on since: then a later entry says so, and its ending does not count now.
        let status = self.ledger.status(&key).await?;
        let Some(PhotoStatus { state: State::Ended(ending), cause, message, stage, attempt, .. }) = status else {
            return Ok(Change::Reopened(key.photo_id));
        };
        let record = match (message, &self.records) {
            (Some(message), _) => Some(Record { ending, cause: cause.clone(), message }),
            (None, Some(records)) => records.read(&key).await?,
            (None, None) => None,
        };
        match record {
            Some(record) => self.with_prediction(record, model).await,
            None => Ok(Change::Unrecorded(EndedPhoto {
                photo_id: key.photo_id,
                photo_url: None,
                ending,
                stage,
                cause: cause.filter(|_| ending != Ending::Predicted).map(|cause| cause.code),
                attempt,
            })),
        }
    }

    /// Replaces the prediction in a record, which is that of the classifier at the time, by that of `model`.
    async fn with_prediction(&self, mut record: Record, model: Option<ContentHash>) -> Result<Change, FollowError> {
        let facts = &mut record.message.photo.facts;
        if let (Some(model), Some(crop)) = (model, &facts.crop)
            && facts.prediction.as_ref().is_some_and(|prediction| prediction.model_sha256 != model)
        {
            facts.prediction = self.predictions.read(model, crop.sha256).await?;
        }
        Ok(Change::Ended(Box::new(record)))
    }
}

/// The groups that count, unless they are the known ones. None also if they have just been replaced: the next call reads
/// the new ones.
async fn other_groups(
    stored: &StoredGroups,
    known: Option<ContentHash>,
) -> Result<Option<(ContentHash, Vec<CropGroup>)>, ObjectError> {
    let version = stored.current().await?.map(|found| found.groups_sha256).filter(|version| Some(*version) != known);
    let Some(version) = version else { return Ok(None) };
    Ok(stored.groups(version).await?.map(|groups| (version, groups)))
}
