//! Faces that are taken down: the version loses them, and gets a tombstone and a new digest.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::error::VersionError;
use super::header::header;
use super::shard::{self, FrozenFace, encode};
use crate::archive::versions::{StoredVersions, Tombstone, VersionHeader, VersionShard};
use crate::dataset::Face;
use crate::dataset::selection::label_of;
use crate::domain::{ContentHash, Id, VersionName};

/// Which faces are removed: those of these photos, and those with one of these crops or originals.
#[derive(Debug, Clone, Default)]
pub struct RemovedFaces {
    pub photos: HashSet<Id>,
    pub crops: HashSet<ContentHash>,
    pub originals: HashSet<ContentHash>,
}

impl RemovedFaces {
    fn has(&self, face: &Face) -> bool {
        self.photos.contains(&face.photo_id)
            || self.crops.contains(&face.crop)
            || self.originals.contains(&face.original)
    }
}

/// The faces of a version that a removal would take.
pub async fn faces_of(
    versions: &StoredVersions,
    header: &VersionHeader,
    removed: &RemovedFaces,
) -> Result<Vec<Face>, VersionError> {
    let mut found = Vec::new();
    for part in &header.shards {
        let faces = read(versions, &header.name, part).await?;
        found.extend(faces.into_iter().map(|frozen| frozen.face).filter(|face| removed.has(face)));
    }
    Ok(found)
}

/// Removes faces from a version, and returns what it is now. The call can be repeated; it changes nothing if the version
/// has none of them. `at`: seconds since 1970, UTC.
///
/// # Errors
/// There is no such version, or it cannot be read or written.
pub async fn remove(
    versions: &StoredVersions,
    name: &VersionName,
    removed: &RemovedFaces,
    at: u64,
) -> Result<VersionHeader, VersionError> {
    loop {
        let known = header(versions, name).await?;
        let changed = without(versions, &known, removed, at).await?;
        let is_current = match &changed {
            Some(changed) => versions.replace(&known, changed).await?,
            None => true,
        };
        if is_current {
            let header = changed.unwrap_or(known);
            // Also what an interrupted call has left.
            versions.delete_other_shards(&header).await?;
            return Ok(header);
        }
    }
}

/// The version without the faces, whose new shards are written. None: it has none of them.
async fn without(
    versions: &StoredVersions,
    known: &VersionHeader,
    removed: &RemovedFaces,
    at: u64,
) -> Result<Option<VersionHeader>, VersionError> {
    let mut changed = VersionHeader { shards: Vec::new(), ..known.clone() };
    let (mut digest, mut count, mut labels) = (Sha256::new(), 0, BTreeSet::new());
    for part in &known.shards {
        let (gone, left): (Vec<FrozenFace>, Vec<FrozenFace>) =
            read(versions, &known.name, part).await?.into_iter().partition(|frozen| removed.has(&frozen.face));
        for FrozenFace { face, text } in &left {
            digest.update(text);
            digest.update("\n");
            labels.extend(Some(label_of(face)).filter(|name| !name.is_empty()).map(str::to_owned));
        }
        for FrozenFace { face, .. } in &gone {
            let verdict = face.verdict.as_ref().map_or("not judged", |verdict| verdict.judgement.as_str());
            let counts = &mut changed.counts;
            for (counts, name) in [(&mut counts.by_verdict, verdict), (&mut counts.by_alignment, face.align.as_str())] {
                if let Some(count) = counts.get_mut(name) {
                    *count = count.saturating_sub(1);
                }
                counts.retain(|_, count| *count > 0);
            }
            changed.counts.matching = changed.counts.matching.saturating_sub(1);
        }
        count += gone.len() as u64;
        if gone.is_empty() {
            changed.shards.push(part.clone());
        } else if !left.is_empty() {
            let shard = encode(&left).map_err(|error| write_failed(&known.name, error))?;
            let sha256 = versions.write_shard(&known.name, Bytes::from(shard)).await?;
            changed.shards.push(VersionShard { sha256, faces: left.len() as u64 });
        }
    }
    if count == 0 {
        return Ok(None);
    }
    changed.counts.faces = known.counts.faces.saturating_sub(count);
    changed.counts.labels = labels.len() as u64;
    changed.digest = ContentHash::from_digest(digest.finalize().into());
    changed.tombstones.push(Tombstone { faces: count, at, digest_before: known.digest });
    Ok(Some(changed))
}

async fn read(
    versions: &StoredVersions,
    name: &VersionName,
    part: &VersionShard,
) -> Result<Vec<FrozenFace>, VersionError> {
    let damaged = |detail: String| VersionError::Damaged { name: name.clone(), detail };
    let file = versions.read_shard(name, part.sha256).await?;
    let rows = shard::faces(file).map_err(|error| damaged(error.to_string()))?;
    let frozen = |(_, text): (String, String)| {
        let face = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        Ok(FrozenFace { face, text: text.into() })
    };
    rows.into_iter().map(frozen).collect()
}

fn write_failed(name: &VersionName, error: impl ToString) -> VersionError {
    VersionError::Write { name: name.clone(), detail: error.to_string() }
}
