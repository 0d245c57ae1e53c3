//! What this machine has derived from photos that are taken down: the index of faces, features, embeddings, thumbnails, and the
//! free parts of the ledger's file.

use std::path::{Path, PathBuf};

use super::TakedownError;
use crate::archive::takedowns::Removal;
use crate::classifier::feature_store::{FeatureKind, FeatureStore};
use crate::dataset::{Index, IndexSource};
use crate::sqlite::compact;

/// The files. Those that do not exist are left alone.
#[derive(Debug, Clone, Default)]
pub struct Caches {
    pub index: Option<PathBuf>,
    pub features: Option<PathBuf>,
    pub embeddings: Option<PathBuf>,
    /// The folder of the thumbnails.
    pub thumbnails: Option<PathBuf>,
    /// The ledger of a run in a folder.
    pub ledger: Option<PathBuf>,
}

impl Caches {
    /// Removes what the takedown removes. `source`: of the index. The call can be repeated.
    pub async fn forget(&self, pending: &Removal, source: &IndexSource) -> Result<(), TakedownError> {
        if let Some(path) = self.index.as_ref().filter(|path| path.is_file()) {
            let mut index = Index::open(path, &source.run)?;
            source.update(&mut index, &|_| {}).await?;
            drop(index);
            compacted(path).await?;
        }
        if let Some(path) = self.features.as_ref().filter(|path| path.is_file()) {
            FeatureStore::open(path, FeatureStore::MOST_BYTES)?.remove(&pending.crops)?;
        }
        if let Some(path) = self.embeddings.as_ref().filter(|path| path.is_file()) {
            let kind = FeatureKind::EMBEDDINGS;
            FeatureStore::open_kind(kind, path, kind.most_bytes)?.remove(&pending.crops)?;
        }
        if let Some(folder) = self.thumbnails.as_ref().filter(|folder| folder.is_dir()) {
            let failed = |error| TakedownError::Thumbnails { path: folder.clone(), error };
            delete_thumbnails(folder, pending).map_err(failed)?;
        }
        if let Some(path) = self.ledger.as_ref().filter(|path| path.is_file()) {
            compacted(path).await?;
        }
        Ok(())
    }
}

async fn compacted(path: &Path) -> Result<(), TakedownError> {
    let path = path.to_owned();
    let compacted = tokio::task::spawn_blocking(move || compact(&path)).await;
    Ok(compacted.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?)
}

/// The names of thumbnails begin with the hash of their picture.
fn delete_thumbnails(folder: &Path, pending: &Removal) -> std::io::Result<()> {
    let originals = pending.originals.iter().map(|original| original.sha256);
    let hashes: Vec<String> = originals.chain(pending.crops.iter().copied()).map(|hash| hash.to_string()).collect();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        if hashes.iter().any(|hash| name.starts_with(hash.as_str())) {
            match std::fs::remove_file(file.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
