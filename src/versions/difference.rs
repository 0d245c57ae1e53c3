//! The difference between two versions.

use std::cmp::Ordering;

use serde::Serialize;

use super::error::VersionError;
use super::header::header;
use super::shard::{self, FaceKey};
use crate::archive::versions::{StoredVersions, VersionHeader};
use crate::domain::VersionName;

/// A photo whose face has another crop or another label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedFace {
    pub before: FaceKey,
    pub after: FaceKey,
}

/// What the faces of a version have become in another one, in the order of their photo ids.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub added: Vec<FaceKey>,
    pub removed: Vec<FaceKey>,
    pub changed: Vec<ChangedFace>,
    /// Faces with the same crop and label in both.
    pub same: u64,
}

/// Compares two versions of a run.
///
/// # Errors
/// There is no such version, or it cannot be read.
pub async fn compare(
    versions: &StoredVersions,
    before: &VersionName,
    after: &VersionName,
) -> Result<Difference, VersionError> {
    let (mut before, mut after) = (Keys::of(versions, before).await?, Keys::of(versions, after).await?);
    let mut difference = Difference::default();
    let (mut old, mut new) = (before.next().await?, after.next().await?);
    loop {
        let order = match (&old, &new) {
            (None, None) => return Ok(difference),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.photo_id.cmp(&new.photo_id),
        };
        let taken_old = if order.is_le() { std::mem::replace(&mut old, before.next().await?) } else { None };
        let taken_new = if order.is_ge() { std::mem::replace(&mut new, after.next().await?) } else { None };
        match (taken_old, taken_new) {
            (Some(before), Some(after)) if before == after => difference.same += 1,
            (Some(before), Some(after)) => difference.changed.push(ChangedFace { before, after }),
            (Some(removed), None) => difference.removed.push(removed),
            (None, added) => difference.added.extend(added),
        }
    }
}

/// The keys of a version, one shard at a time.
struct Keys<'a> {
    versions: &'a StoredVersions,
    header: VersionHeader,
    shard: usize,
    keys: std::vec::IntoIter<FaceKey>,
}

impl<'a> Keys<'a> {
    async fn of(versions: &'a StoredVersions, name: &VersionName) -> Result<Self, VersionError> {
        let header = header(versions, name).await?;
        Ok(Self { versions, header, shard: 0, keys: Vec::new().into_iter() })
    }

    async fn next(&mut self) -> Result<Option<FaceKey>, VersionError> {
        loop {
            if let Some(key) = self.keys.next() {
                return Ok(Some(key));
            }
            let Some(shard) = self.header.shards.get(self.shard) else { return Ok(None) };
            self.shard += 1;
            let name = &self.header.name;
            let file = self.versions.read_shard(name, shard.sha256).await?;
            let damaged = |error: parquet::errors::ParquetError| VersionError::Damaged {
                name: name.clone(),
                detail: error.to_string(),
            };
            self.keys = shard::keys(file).map_err(damaged)?.into_iter();
        }
    }
}
