//! The pictures of a report: crops of faces, and originals of photos that ended without one.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;

use super::error::ReportError;
use crate::atomic_file::AtomicFile;
use crate::dataset::page::{Direction, Order, Sort};
use crate::dataset::{EndedPhoto, Index, IndexSource, Query};
use crate::domain::{ContentHash, Id};
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::vision::image::Limits;
use crate::vision::preview::preview;

/// Which pictures the page has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pictures {
    /// The report is in the folder of the run: the page links to the crops and the originals.
    pub linked: bool,
    /// The report has a small copy of each picture.
    pub thumbnails: bool,
}

impl Pictures {
    /// The folder of the small copies, within that of the report.
    const FOLDER: &str = "thumbnails";
    /// Pixels of the longer side of a small copy: of 60 on a page each is about 15 kB.
    const LONGEST: u32 = 256;
    /// Small copies that are made at a time.
    const MAKERS: usize = 4;

    /// The path of a picture on the page. None: the page has none.
    pub fn source(self, key: &ObjectKey) -> Option<String> {
        match self {
            Self { thumbnails: true, .. } => key.content_hash().map(Self::thumbnail),
            Self { linked: true, .. } => Some(key.to_string()),
            _ => None,
        }
    }

    /// The path that a click on a picture opens.
    pub fn target(self, key: &ObjectKey) -> Option<String> {
        if self.linked { Some(key.to_string()) } else { self.source(key) }
    }

    pub(super) fn thumbnail(hash: ContentHash) -> String {
        format!("{}/{hash}.jpg", Self::FOLDER)
    }
}

/// Photos of one cause that ended without a face and have an original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedPhotos {
    pub ending: EndedPhoto,
    pub originals: Vec<(Id, ObjectKey)>,
}

/// Photos of each cause that are shown.
const OF_A_CAUSE: usize = 12;

/// The first photos of each cause. Photos whose originals the archive does not know are left out.
pub async fn rejected(index: &Index, source: &IndexSource) -> Result<Vec<RejectedPhotos>, ReportError> {
    let mut rejected: BTreeMap<_, RejectedPhotos> = BTreeMap::new();
    for ending in index.first_without_face(OF_A_CAUSE)? {
        let id = ending.photo_id.clone();
        let photo = source.photo(&id).await?;
        let Some(original) = photo.and_then(|photo| photo.facts.original) else { continue };
        let cause = ending.cause.as_ref().map(|cause| cause.as_str().into_owned());
        let of_cause = rejected
            .entry((ending.stage, ending.ending, cause))
            .or_insert_with(|| RejectedPhotos { ending, originals: Vec::new() });
        of_cause.originals.push((id, ObjectKey::original(original.sha256, original.format)));
    }
    Ok(rejected.into_values().collect())
}

/// Makes the small copies that are missing, and deletes those that the report no longer needs. A picture that cannot be
/// decoded, or that is lost, has none. `progress` receives how many are done, then how many there are.
pub async fn write_thumbnails(
    dir: &Path,
    index: &Index,
    rejected: &[RejectedPhotos],
    objects: &Arc<dyn Objects>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), ReportError> {
    let originals = rejected.iter().flat_map(|of_cause| &of_cause.originals).map(|(_, key)| key.clone());
    let mut keys: Vec<ObjectKey> = originals.collect();
    let by_id = Order { sort: Sort::Id, direction: Direction::Ascending };
    index.each_face(&Query::ALL, by_id, 0.0, |face| {
        keys.push(ObjectKey::face(face.crop, face.format));
        Ok::<_, ReportError>(())
    })?;
    let mut known = HashSet::new();
    keys.retain(|key| key.content_hash().is_some_and(|hash| known.insert(hash)));
    let folder = dir.join(Pictures::FOLDER);
    std::fs::create_dir_all(&folder).map_err(|source| ReportError::File { path: folder, source })?;
    forget_thumbnails(dir, &known);

    let total = keys.len() as u64;
    let make = stream::iter(keys).map(async |key| {
        write_thumbnail(dir, &key, objects).await?;
        Ok::<_, ReportError>(())
    });
    let mut made = make.buffer_unordered(Pictures::MAKERS);
    let mut done = 0;
    while made.try_next().await?.is_some() {
        done += 1;
        progress(done, total);
    }
    Ok(())
}

async fn write_thumbnail(dir: &Path, key: &ObjectKey, objects: &Arc<dyn Objects>) -> Result<(), ReportError> {
    let Some(path) = key.content_hash().map(|hash| dir.join(Pictures::thumbnail(hash))) else { return Ok(()) };
    if path.is_file() {
        return Ok(());
    }
    let picture = match objects.get(key).await {
        Ok(picture) => picture,
        Err(ObjectError::Missing(_) | ObjectError::Changed { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let made = spawn_blocking(move || match preview(&picture, Pictures::LONGEST, Limits::default()) {
        Ok(small) => AtomicFile::write(&path, &small).map_err(|source| ReportError::File { path, source }),
        Err(_) => Ok(()),
    });
    made.await.map_err(|panic| ReportError::Stopped(panic.to_string()))?
}

/// Deletes the small copies of an earlier report but for those that are `needed`. Other files stay.
pub fn forget_thumbnails(dir: &Path, needed: &HashSet<ContentHash>) {
    let Ok(files) = std::fs::read_dir(dir.join(Pictures::FOLDER)) else { return };
    for path in files.flatten().map(|file| file.path()) {
        let is_jpeg = path.extension().is_some_and(|extension| extension == "jpg");
        let hash = path.file_stem().and_then(|stem| stem.to_str()?.parse::<ContentHash>().ok());
        if is_jpeg && hash.is_some_and(|hash| !needed.contains(&hash)) {
            // It is made from a picture that may have been taken down, but the report does not show it either way.
            let _ = std::fs::remove_file(path);
        }
    }
}
