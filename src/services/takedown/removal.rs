//! Carries out a takedown. Every step can be repeated.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::TakedownError;
use crate::archive::crop_groups::{GroupKind, StoredGroups};
use crate::archive::duplicates::StoredDuplicates;
use crate::archive::predictions::Predictions;
use crate::archive::records::Records;
use crate::archive::refusals::Refusals;
use crate::archive::score_faults::ScoreFaults;
use crate::archive::takedowns::{Removal, RemovedFromVersion, Takedown};
use crate::archive::versions::{StoredVersions, VersionHeader};
use crate::broker::{Broker, DeadLetter};
use crate::domain::{ContentHash, Id, ImageFormat, Message, PhotoKey, RunName, ScoreMessage};
use crate::ledger::Ledger;
use crate::objects::{ObjectKey, Objects};
use crate::pipeline::refused;
use crate::verdicts::VerdictLog;
use crate::versions::{self, RemovedFaces};

/// Where a takedown is carried out.
#[derive(Clone)]
pub struct Site<'a> {
    pub ledger: &'a dyn Ledger,
    pub broker: &'a dyn Broker,
    pub objects: Arc<dyn Objects>,
    /// The messages of ended photos, where the ledger does not keep them.
    pub records: Option<&'a Records>,
}

/// What was removed.
#[derive(Debug, Default, Serialize)]
pub struct Removed {
    pub photos: u64,
    pub originals: u64,
    pub crops: u64,
    pub verdicts: u64,
    /// Messages in queues, dead letters included.
    pub messages: u64,
    /// The versions that have lost faces, as they are now.
    pub versions: Vec<VersionHeader>,
}

/// Things that are removed at a time.
const CONCURRENCY: usize = 16;

/// Removes all that the takedown `id` says. `progress` receives the number of photos of each step.
pub async fn carry_out(
    site: &Site<'_>,
    id: &str,
    takedown: &Takedown,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Removed, TakedownError> {
    let Some(pending) = &takedown.pending else { return Ok(Removed::default()) };
    let mut removed = Removed { photos: takedown.photos.len() as u64, ..Removed::default() };
    Refusals::new(site.objects.clone()).add(&pending.refused, id, takedown.at).await?;
    site.end_photos(&takedown.photos, progress).await?;
    removed.messages = site.remove_messages(takedown, pending).await?;

    let crops: HashSet<ContentHash> = pending.crops.iter().copied().collect();
    let runs: HashSet<&RunName> = takedown.photos.iter().map(|photo| &photo.run).collect();
    for run in runs {
        removed.verdicts += VerdictLog::new(site.objects.clone(), run.clone()).remove(&crops).await?;
        StoredDuplicates::new(site.objects.clone(), run.clone()).remove(&crops, takedown.at).await?;
        let identities = StoredGroups::new(site.objects.clone(), run.clone(), GroupKind::Identities);
        identities.remove(&crops, takedown.at).await?;
    }
    for RemovedFromVersion { run, version } in &pending.versions {
        let stored = StoredVersions::new(site.objects.clone(), run.clone());
        let of_run = takedown.photos.iter().filter(|photo| photo.run == *run);
        let faces = RemovedFaces {
            photos: of_run.map(|photo| photo.photo_id.clone()).collect::<HashSet<Id>>(),
            crops: crops.clone(),
            originals: HashSet::new(),
        };
        removed.versions.push(versions::remove(&stored, version, &faces, takedown.at).await?);
    }
    site.remove_scores(pending).await?;
    removed.originals = pending.originals.len() as u64;
    removed.crops = pending.crops.len() as u64;
    let originals = pending.originals.iter().map(|original| ObjectKey::original(original.sha256, original.format));
    let faces = pending.crops.iter().flat_map(|crop| Site::CROP_FORMATS.map(|format| ObjectKey::face(*crop, format)));
    site.delete(originals.chain(faces).collect()).await?;
    // A worker may have written the record of a photo that it had just moved.
    if site.records.is_some() {
        site.end_photos(&takedown.photos, &|_| {}).await?;
    }
    Ok(removed)
}

impl Site<'_> {
    const CROP_FORMATS: [ImageFormat; 2] = [ImageFormat::Png, ImageFormat::Jpeg];

    async fn end_photos(&self, photos: &[PhotoKey], progress: &(dyn Fn(u64) + Sync)) -> Result<(), TakedownError> {
        let end = |key: &PhotoKey| {
            let key = key.clone();
            async move {
                refused::end(&key, self.ledger, self.records).await?;
                progress(1);
                Ok::<_, TakedownError>(())
            }
        };
        stream::iter(photos.iter().map(end).collect::<Vec<_>>()).buffer_unordered(CONCURRENCY).try_collect().await
    }

    /// Queues are searched only where a message may be there: a search reads all of them.
    async fn remove_messages(&self, takedown: &Takedown, pending: &Removal) -> Result<u64, TakedownError> {
        let photos: HashSet<&PhotoKey> = takedown.photos.iter().collect();
        let crops: HashSet<ContentHash> = pending.crops.iter().copied().collect();
        let is_of_photo =
            |body: &[u8]| Message::decode(body).is_ok_and(|message| photos.contains(&message.photo.key()));
        let is_of_crop = |body: &[u8]| ScoreMessage::decode(body).is_ok_and(|message| crops.contains(&message.crop));
        let mut removed = 0;
        if pending.queues {
            removed += self.broker.remove_messages(&|body| is_of_photo(body) || is_of_crop(body)).await?;
        }
        let is_theirs = |letter: &DeadLetter| is_of_photo(letter.body.as_bytes()) || is_of_crop(letter.body.as_bytes());
        removed += self.broker.take_dead_letters(&is_theirs).await?.len() as u64;
        Ok(removed)
    }

    async fn remove_scores(&self, pending: &Removal) -> Result<(), TakedownError> {
        let (predictions, faults) = (Predictions::new(self.objects.clone()), ScoreFaults::new(self.objects.clone()));
        let scores = pending.crops.iter().flat_map(|crop| pending.models.iter().map(|model| (*model, *crop)));
        let remove = |(model, crop)| {
            let (predictions, faults) = (&predictions, &faults);
            async move {
                predictions.remove(model, crop).await?;
                faults.remove(model, crop).await?;
                Ok::<_, TakedownError>(())
            }
        };
        stream::iter(scores.map(remove).collect::<Vec<_>>()).buffer_unordered(CONCURRENCY).try_collect().await
    }

    async fn delete(&self, keys: Vec<ObjectKey>) -> Result<(), TakedownError> {
        let delete = |key: ObjectKey| async move { self.objects.delete(&key).await.map_err(TakedownError::from) };
        stream::iter(keys.into_iter().map(delete).collect::<Vec<_>>()).buffer_unordered(CONCURRENCY).try_collect().await
    }
}
