//! Faces of a run whose files were deleted, and how they are made again from the originals: the same photo and settings
//! give the same bytes. Ledger, predictions and verdicts stay as they are.

use futures::{StreamExt, TryStreamExt, stream};

use super::local_run::LocalRun;
use crate::domain::{Ending, Id, Photo, StageName};
use crate::ledger::{Filter, Ledger, LedgerError};
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::pipeline::stage::{Outcome, Stage};

#[derive(Debug, Clone, thiserror::Error)]
pub enum MissingFacesError {
    #[error("cannot look for the faces of the run: {0}")]
    Ledger(#[from] LedgerError),
    #[error("cannot look for the faces of the run: {0}")]
    Objects(#[from] ObjectError),
}

/// Photos on one page of the ledger.
const PAGE: usize = 1000;
/// Files that are looked for at a time.
const CONCURRENCY: usize = 16;

/// The predicted photos whose crop is missing, in the order of their ids.
pub async fn find(local: &LocalRun) -> Result<Vec<Photo>, MissingFacesError> {
    let predicted = Filter { ending: Some(Ending::Predicted), ..Filter::default() };
    let (mut missing, mut after) = (Vec::new(), None);
    loop {
        let page = local.dir.ledger.page(&local.run, &predicted, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(missing) };
        after = Some(last.photo_id.clone());
        let photos = page.into_iter().filter_map(|entry| entry.status.message).map(|message| message.photo);
        let checked: Vec<Option<Photo>> = stream::iter(photos)
            .map(async |photo: Photo| {
                let crop = photo.facts.crop.as_ref().map(|crop| ObjectKey::face(crop.sha256, crop.format));
                let is_there = match crop {
                    Some(key) => local.dir.objects.exists(&key).await?,
                    None => true,
                };
                Ok::<_, ObjectError>((!is_there).then_some(photo))
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        missing.extend(checked.into_iter().flatten());
    }
}

/// Makes the crops of these photos again. Returns the photos whose crop could not be made, and why.
pub async fn remake(local: &LocalRun, photos: &[Photo], progress: &(dyn Fn(u64) + Sync)) -> Vec<(Id, String)> {
    let stages = &local.stages.all;
    let Some(crop) = stages.iter().find(|stage| stage.name() == StageName::Crop) else { return Vec::new() };
    let made = stream::iter(photos).map(async |photo| {
        let fault = remake_one(&**crop, photo).await.err().map(|reason| (photo.candidate.photo_id.clone(), reason));
        progress(1);
        fault
    });
    made.buffered(local.cores()).filter_map(async |fault| fault).collect().await
}

async fn remake_one(crop: &dyn Stage, photo: &Photo) -> Result<(), String> {
    match crop.run(photo).await {
        Outcome::Advance(made) => {
            let [old, new] = [photo, &made].map(|photo| photo.facts.crop.as_ref().map(|crop| crop.sha256));
            match old == new {
                true => Ok(()),
                false => Err("another version of the program made it: its crop differs".to_owned()),
            }
        }
        Outcome::Gone(cause) | Outcome::Reject(cause) | Outcome::Poison(cause) => Err(cause.to_string()),
        Outcome::Retry(retry) => Err(retry.cause.to_string()),
    }
}
