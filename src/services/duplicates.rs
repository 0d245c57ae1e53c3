//! Looks for duplicates in a run: crops that show one photograph, however it was copied.
//!
//! Fingerprints find the pairs that may be copies, without comparing all pairs; the features of the classifier confirm
//! them. What people have parted stays apart.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::task::{JoinError, spawn_blocking};

use super::crop_features::CropFeatures;
use crate::archive::crop_groups::{CropGroup, FoundGroups};
use crate::archive::duplicates::{Parting, StoredDuplicates};
use crate::classifier::coarse::coarse;
use crate::classifier::feature_store::FeatureStore;
use crate::classifier::features::FeatureError;
use crate::dataset::duplicates::ComparedCrop;
use crate::dataset::{Index, IndexError, Query};
use crate::domain::{ContentHash, Id, Printable};
use crate::inference::Models;
use crate::objects::{ObjectError, Objects};
use crate::similarity::groups::Groups;
use crate::similarity::likeness::{COPIES, likeness};
use crate::similarity::multi_index::{Item, MAX_DISTANCE, Pair, STEPS, close_pairs};
use crate::vision::fingerprint;

/// Crops whose features are in memory at a time, with 7 KB each once they are coarse.
const BATCH: usize = 4000;

#[derive(Debug, thiserror::Error)]
pub enum DuplicatesError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error("the search has ended: {0}")]
    Thread(#[from] JoinError),
    #[error("the face of photo {} is in no group of duplicates", .0.as_str().printable())]
    NoGroup(Id),
}

/// How far a search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchStep {
    /// Parts of the comparison of fingerprints.
    Fingerprints { done: u64, of: u64 },
    /// Pairs that are confirmed or refuted.
    Pairs { done: u64, of: u64 },
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Search {
    #[serde(flatten)]
    pub found: FoundGroups,
    /// Crops that are not the best of their group.
    pub duplicates: u64,
    /// Pairs of close fingerprints whose features say that they show something else.
    pub refuted: u64,
    /// Crops that are not measured: `facemill measure` adds their fingerprints.
    pub unmeasured: u64,
    /// Crops that could not be read or decoded. They are in no group.
    pub unreadable: u64,
}

pub type SearchProgress = Arc<dyn Fn(SearchStep) + Send + Sync>;

/// Looks for duplicates.
pub struct DuplicateFinder {
    features: CropFeatures,
    progress: SearchProgress,
}

/// Pairs that were looked at.
#[derive(Default)]
struct Confirmed {
    pairs: Vec<Pair>,
    refuted: u64,
    unreadable: Vec<ContentHash>,
}

impl DuplicateFinder {
    /// # Errors
    /// The backbone or onnxruntime is missing.
    pub fn open(
        models: &Models,
        features: FeatureStore,
        threads: usize,
        progress: SearchProgress,
    ) -> Result<Self, DuplicatesError> {
        Ok(Self { features: CropFeatures::open(models, features, threads)?, progress })
    }

    /// Finds the groups of a run, and makes them the ones that count. `query`: which faces are compared; none: all.
    /// `now`: seconds since 1970, UTC.
    ///
    /// # Errors
    /// The index, the store of the crops or the store of features is unavailable.
    pub async fn search(
        &mut self,
        index: &Index,
        query: Option<&Query>,
        objects: &Arc<dyn Objects>,
        now: u64,
    ) -> Result<Search, DuplicatesError> {
        let (mut crops, mut items, mut unmeasured) = (Vec::new(), Vec::new(), 0);
        let chosen = match query {
            Some(query) => Some(index.crops_of(query)?),
            None => None,
        };
        index.each_compared_crop(|crop| match crop.fingerprint {
            _ if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&crop.crop)) => {}
            Some(upright) => {
                items.push(Item { upright, mirrored: fingerprint::mirrored(upright) });
                crops.push(crop);
            }
            None => unmeasured += 1,
        })?;
        let (progress, done) = (self.progress.clone(), AtomicU64::new(0));
        let step =
            move || progress(SearchStep::Fingerprints { done: 1 + done.fetch_add(1, Ordering::Relaxed), of: STEPS });
        let pairs = spawn_blocking(move || close_pairs(&items, MAX_DISTANCE, &step)).await?;
        let confirmed = self.confirm(&crops, pairs, objects).await?;

        let stored = StoredDuplicates::new(objects.clone(), index.run().clone());
        let mut partings = stored.partings().await?;
        loop {
            let groups = groups(&crops, &confirmed.pairs, &partings);
            let found = stored.groups.write(&groups, crops.len() as u64, now).await?;
            // Somebody may have parted one of the groups before, and not seen these.
            let later = stored.partings().await?;
            if later == partings {
                return Ok(Search {
                    found,
                    duplicates: groups.iter().map(|group| group.crops.len() as u64 - 1).sum(),
                    refuted: confirmed.refuted,
                    unmeasured,
                    unreadable: confirmed.unreadable.len() as u64,
                });
            }
            partings = later;
        }
    }

    /// Keeps the pairs whose features are alike.
    async fn confirm(
        &mut self,
        crops: &[ComparedCrop],
        pairs: Vec<Pair>,
        objects: &Arc<dyn Objects>,
    ) -> Result<Confirmed, DuplicatesError> {
        let mut confirmed = Confirmed::default();
        let of = pairs.len() as u64;
        let mut rest = &pairs[..];
        while !rest.is_empty() {
            let done = of - rest.len() as u64;
            let (batch, places) = next_batch(rest);
            rest = &rest[batch.len()..];
            let wanted: Vec<_> =
                places.iter().map(|place| (crops[*place as usize].crop, crops[*place as usize].format)).collect();
            let (progress, share) = (self.progress.clone(), batch.len() as f64 / wanted.len() as f64);
            let report = move |crops| progress(SearchStep::Pairs { done: done + (share * crops as f64) as u64, of });
            let extracted = self.features.of_crops(objects, &wanted, &report).await?;
            confirmed.unreadable.extend(extracted.faults.iter().map(|(i, _)| wanted[*i].0));
            let found = places.iter().zip(&extracted.features);
            let of_place: HashMap<u32, Vec<f32>> =
                found.filter_map(|(place, features)| Some((*place, coarse(features.as_ref()?)))).collect();
            for pair in batch {
                let (Some(first), Some(second)) = (of_place.get(&pair.first), of_place.get(&pair.second)) else {
                    continue;
                };
                match likeness(first, second, pair.is_mirrored) >= COPIES {
                    true => confirmed.pairs.push(*pair),
                    false => confirmed.refuted += 1,
                }
            }
        }
        confirmed.unreadable.sort_unstable();
        confirmed.unreadable.dedup();
        Ok(confirmed)
    }
}

/// The first pairs, as many as have at most [`BATCH`] crops, and the places of these crops.
fn next_batch(pairs: &[Pair]) -> (&[Pair], Vec<u32>) {
    let mut places = BTreeSet::new();
    let ends = pairs.iter().position(|pair| {
        places.extend([pair.first, pair.second]);
        places.len() >= BATCH
    });
    (&pairs[..ends.map_or(pairs.len(), |last| last + 1)], places.into_iter().collect())
}

/// The groups that pairs make, the best crop of each first.
fn groups(crops: &[ComparedCrop], pairs: &[Pair], partings: &[Parting]) -> Vec<CropGroup> {
    let places: HashMap<ContentHash, u32> = (0u32..).zip(crops).map(|(place, crop)| (crop.crop, place)).collect();
    let mut groups = Groups::new(crops.len() as u32);
    for parting in partings {
        let parted = parting.crops.iter().filter_map(|crop| places.get(crop));
        for crop in parted {
            parting
                .group
                .iter()
                .filter_map(|other| places.get(other))
                .for_each(|other| groups.keep_apart(*crop, *other));
        }
    }
    for pair in pairs {
        groups.join(pair.first, pair.second);
    }
    let mut found: Vec<CropGroup> = groups
        .all()
        .into_iter()
        .map(|group| {
            let mut members: Vec<&ComparedCrop> = group.iter().map(|place| &crops[*place as usize]).collect();
            members.sort_by_key(|crop| rank(crop));
            CropGroup { crops: members.into_iter().map(|crop| crop.crop).collect() }
        })
        .collect();
    found.sort_by(|a, b| a.crops.cmp(&b.crops));
    found
}

/// Sorts the best crop first: the largest one, in steps of 5 %; then the one that has least of a mirrored head, colours,
/// the least compressed and the sharpest one. The hash makes the order the same each time.
fn rank(crop: &ComparedCrop) -> impl Ord {
    /// Below this saturation a picture is grey.
    const GREY: f64 = 0.02;
    let step = (f64::from(crop.size.max(1)).ln() / 1.05f64.ln()) as i64;
    let mirrored = (crop.mirrored_head * 50.0) as i64;
    let sharpness = crop.face_blur as i64;
    (-step, mirrored, crop.saturation < GREY, -i64::from(crop.jpeg_quality / 5), -sharpness, crop.crop)
}

/// Takes faces, each a photo with its crop, out of their groups, and remembers it for later searches. Returns how many
/// crops were parted.
///
/// # Errors
/// A face is in no group; then nothing is changed.
pub async fn part(
    stored: &StoredDuplicates,
    faces: &[(Id, ContentHash)],
    by: &str,
    now: u64,
) -> Result<usize, DuplicatesError> {
    let groups = stored.groups.current_groups().await?.map(|(_, groups)| groups).unwrap_or_default();
    let mut partings: Vec<Parting> = Vec::new();
    for (photo, crop) in faces {
        let group = groups.iter().find(|group| group.crops.contains(crop));
        let group = group.ok_or_else(|| DuplicatesError::NoGroup(photo.clone()))?;
        if !partings.iter().any(|parting| parting.crops.contains(crop)) {
            partings.push(Parting { crops: vec![*crop], group: group.crops.clone(), by: by.to_owned(), at: now });
        }
    }
    stored.part(&partings).await?;
    // Other groups may count by now: those of a search, or of somebody else who has parted one.
    while let Some((found, groups)) = stored.groups.current_groups().await? {
        let left = groups.into_iter().filter_map(|group| without_parted(group, &partings)).collect::<Vec<_>>();
        if stored.groups.replace(&found, &left, now).await? {
            break;
        }
    }
    Ok(partings.len())
}

/// What is left of a group when crops are taken out of it. None: at most one crop.
fn without_parted(mut group: CropGroup, partings: &[Parting]) -> Option<CropGroup> {
    group.crops.retain(|crop| !partings.iter().any(|parting| parting.crops.contains(crop)));
    (group.crops.len() > 1).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fingerprint, ImageFormat};

    fn crop(name: &str, size: u32) -> ComparedCrop {
        ComparedCrop {
            crop: ContentHash::of(name.as_bytes()),
            format: ImageFormat::Png,
            size,
            mirrored_head: 0.0,
            fingerprint: Some(Fingerprint::from_bits(0)),
            saturation: 0.3,
            face_blur: 100.0,
            jpeg_quality: 90,
        }
    }

    fn pair(first: u32, second: u32) -> Pair {
        Pair { distance: 1, first, second, is_mirrored: false }
    }

    #[test]
    fn the_best_crop_comes_first() {
        let best = crop("best", 500);
        let others = [
            crop("smaller", 400),
            ComparedCrop { saturation: 0.0, ..crop("grey", 505) },
            ComparedCrop { jpeg_quality: 30, ..crop("compressed", 500) },
            ComparedCrop { face_blur: 10.0, ..crop("blurred", 501) },
            ComparedCrop { mirrored_head: 0.2, ..crop("cut off", 500) },
        ];
        for other in others {
            let crops = [other, best.clone()];
            let found = groups(&crops, &[pair(0, 1)], &[]);
            assert_eq!(found[0].crops[0], best.crop);
        }
    }

    #[test]
    fn what_was_parted_stays_apart() {
        let crops = ["a", "b", "c"].map(|name| crop(name, 100));
        let pairs = [pair(0, 1), pair(1, 2), pair(0, 2)];
        assert_eq!(groups(&crops, &pairs, &[])[0].crops.len(), 3);
        let parting = Parting {
            crops: vec![crops[1].crop],
            group: crops.iter().map(|crop| crop.crop).collect(),
            by: "ada".into(),
            at: 1,
        };
        let found = groups(&crops, &pairs, &[parting]);
        assert_eq!(found.len(), 1);
        assert!(!found[0].crops.contains(&crops[1].crop));
    }

    #[test]
    fn batches_have_all_pairs() {
        let pairs: Vec<Pair> = (0..10_000).map(|at| pair(2 * at, 2 * at + 1)).collect();
        let (mut rest, mut count) = (&pairs[..], 0);
        while !rest.is_empty() {
            let (batch, places) = next_batch(rest);
            assert!(places.len() <= BATCH + 1 && !batch.is_empty());
            rest = &rest[batch.len()..];
            count += batch.len();
        }
        assert_eq!(count, pairs.len());
    }
}
