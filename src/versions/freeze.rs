//! Freezing: making a version.

use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::error::VersionError;
use super::shard::{EncodedShard, FrozenFace, SHARD};
use crate::archive::versions::{StoredVersions, VersionCounts, VersionHeader, VersionShard};
use crate::dataset::selection::{SelectedFace, Selection, SelectionSettings, select};
use crate::dataset::{Face, Index};
use crate::domain::{ContentHash, VersionName};

/// Makes a version of the faces that the settings select. `progress` receives the number of faces of each step;
/// `frozen_at` is in seconds since 1970, UTC.
///
/// # Errors
/// The name is taken, no face is selected, or index or object store cannot be used. An attempt that failed leaves shards
/// that nothing refers to; the same command writes them again.
pub async fn freeze(
    index: &Index,
    versions: &StoredVersions,
    name: &VersionName,
    settings: &SelectionSettings,
    frozen_at: u64,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<VersionHeader, VersionError> {
    let taken = || VersionError::Taken { run: versions.run().clone(), name: name.clone() };
    if versions.read(name).await?.is_some() {
        return Err(taken());
    }
    let selection = select(index, settings)?;
    let faces = selection.faces.len() as u64;
    let mut counts = counts(&selection);
    let (mut digest, mut shards) = (Sha256::new(), Vec::new());
    // The faces of the next shard are read while one is encoded.
    let encoded = |part| {
        let encoding = read(index, part).map(|faces| spawn_blocking(move || EncodedShard::of(faces)));
        async move { encoding?.await.map_err(|error| failed(name, error))?.map_err(|error| failed(name, error)) }
    };
    let mut parts = stream::iter(selection.faces.chunks(SHARD)).map(encoded).buffered(2);
    while let Some(encoded) = parts.next().await {
        let EncodedShard { frozen, file } = encoded?;
        for FrozenFace { face, text } in &frozen {
            digest.update(text);
            digest.update("\n");
            let verdict = face.verdict.as_ref().map_or("not judged", |verdict| verdict.judgement.as_str());
            *counts.by_verdict.entry(verdict.to_owned()).or_default() += 1;
            *counts.by_alignment.entry(face.align.as_str().to_owned()).or_default() += 1;
        }
        let sha256 = versions.write_shard(name, file).await?;
        shards.push(VersionShard { sha256, faces: frozen.len() as u64 });
        progress(frozen.len() as u64, faces);
    }
    let header = VersionHeader {
        name: name.clone(),
        run: versions.run().clone(),
        frozen_at,
        facemill: env!("CARGO_PKG_VERSION").to_owned(),
        selection: settings.stored(),
        threshold: index.threshold(),
        model_sha256: index.model(),
        counts,
        digest: ContentHash::from_digest(digest.finalize().into()),
        shards,
        tombstones: Vec::new(),
    };
    // Another process may have been faster.
    if versions.write(&header).await? { Ok(header) } else { Err(taken()) }
}

fn read(index: &Index, part: &[SelectedFace]) -> Result<Vec<Face>, VersionError> {
    let mut read = index.photo_reader()?;
    let faces = part.iter().map(|selected| {
        let face = read(&selected.photo_id)?.filter(|face| face.crop == selected.crop);
        face.ok_or_else(|| VersionError::Left(selected.photo_id.clone()))
    });
    faces.collect()
}

fn counts(selection: &Selection) -> VersionCounts {
    VersionCounts {
        faces: selection.faces.len() as u64,
        labels: selection.label_count() as u64,
        matching: selection.matching,
        left_out: selection.left_out,
        ..VersionCounts::default()
    }
}

fn failed(name: &VersionName, error: impl ToString) -> VersionError {
    VersionError::Write { name: name.clone(), detail: error.to_string() }
}
