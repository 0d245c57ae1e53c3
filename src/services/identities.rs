//! Looks for identities in a run: groups of faces that look like one person.

use std::sync::Arc;

use serde::Serialize;
use tokio::task::{JoinError, spawn_blocking};

use super::crop_embeddings::{CropEmbeddings, CropFace, EmbeddingError};
use crate::archive::crop_groups::{CropGroup, FoundGroups, GroupKind, StoredGroups};
use crate::classifier::feature_store::FeatureStore;
use crate::dataset::{Index, IndexError};
use crate::domain::ContentHash;
use crate::inference::Models;
use crate::objects::{ObjectError, Objects};
use crate::similarity::identities::{RoundProgress, identities};
use crate::similarity::points::{Point, point};
use crate::vision::embedding::FacePlace;

/// Crops whose embeddings are read at a time.
const BATCH: usize = 4000;

#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    #[error("the search has ended: {0}")]
    Thread(#[from] JoinError),
}

/// How far a search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStep {
    /// Crops that have an embedding.
    Embeddings { done: u64, of: u64 },
    /// A round of the grouping.
    Grouping(RoundProgress),
}

pub type SearchProgress = Arc<dyn Fn(SearchStep) + Send + Sync>;

/// What a search has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdentitySearch {
    #[serde(flatten)]
    pub found: FoundGroups,
    /// Crops that are in an identity; the others look like no other crop.
    pub grouped: u64,
    /// Crops in the largest identity.
    pub largest: u64,
    /// The distance of embeddings within which two single faces count as one person.
    pub distance: f64,
    /// Crops that could not be read or decoded, or have no landmarks. They are in no identity.
    pub unreadable: u64,
}

/// Looks for identities.
pub struct IdentityFinder {
    embeddings: CropEmbeddings,
    progress: SearchProgress,
}

impl IdentityFinder {
    /// # Errors
    /// A model is missing, or is another file.
    pub fn open(
        models: &Models,
        store: FeatureStore,
        threads: usize,
        progress: SearchProgress,
    ) -> Result<Self, IdentitiesError> {
        Ok(Self { embeddings: CropEmbeddings::open(models, store, threads)?, progress })
    }

    /// Finds the identities of a run, and makes them the ones that count. `distance`: of embeddings; `now`: seconds
    /// since 1970, UTC.
    ///
    /// # Errors
    /// The index, the store of the crops or the store of embeddings is unavailable.
    pub async fn search(
        &mut self,
        index: &Index,
        objects: &Arc<dyn Objects>,
        distance: f64,
        now: u64,
    ) -> Result<IdentitySearch, IdentitiesError> {
        let mut faces = Vec::new();
        index.each_embedded_crop(|crop| {
            let place = FacePlace::of(&crop.landmarks, crop.size);
            faces.push(CropFace { crop: crop.crop, format: crop.format, place });
        })?;
        let (crops, points) = self.points(&faces, objects).await?;
        let (compared, unreadable) = (crops.len() as u64, (faces.len() - crops.len()) as u64);
        let progress = self.progress.clone();
        let report = move |step| progress(SearchStep::Grouping(step));
        let groups = spawn_blocking(move || identities(&points, distance, &report)).await?;
        let of_group = |group: &Vec<u32>| CropGroup { crops: group.iter().map(|face| crops[*face as usize]).collect() };
        let groups: Vec<CropGroup> = groups.iter().map(of_group).collect();
        let stored = StoredGroups::new(objects.clone(), index.run().clone(), GroupKind::Identities);
        Ok(IdentitySearch {
            found: stored.write(&groups, compared, now).await?,
            grouped: groups.iter().map(|group| group.crops.len() as u64).sum(),
            largest: groups.first().map_or(0, |group| group.crops.len() as u64),
            distance,
            unreadable,
        })
    }

    /// The crops that have an embedding, and their points.
    async fn points(
        &mut self,
        faces: &[CropFace],
        objects: &Arc<dyn Objects>,
    ) -> Result<(Vec<ContentHash>, Vec<Point>), IdentitiesError> {
        let (mut crops, mut points) = (Vec::with_capacity(faces.len()), Vec::with_capacity(faces.len()));
        let (of, mut before) = (faces.len() as u64, 0);
        for batch in faces.chunks(BATCH) {
            let progress = self.progress.clone();
            let report = move |done| progress(SearchStep::Embeddings { done: before + done as u64, of });
            let extracted = self.embeddings.of_crops(objects, batch, &report).await?;
            before += batch.len() as u64;
            for (face, embedding) in batch.iter().zip(extracted.features) {
                if let Some(point) = embedding.and_then(|embedding| point(&embedding)) {
                    crops.push(face.crop);
                    points.push(point);
                }
            }
        }
        Ok((crops, points))
    }
}
