//! The files of the photos of a run: whether they exist, and are what their names say.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::domain::{ContentHash, Facts, Id};
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::server_error::ServerError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    pub photo_id: Id,
    #[serde(rename = "fault")]
    pub kind: FaultKind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The dump has the photo more than once.
    Doubled,
    /// The ledger does not know the photo.
    Missing,
    /// The ledger has another URL under the id of the photo.
    Conflict,
    /// The ledger knows the photo and has lost its message.
    Forgotten,
    /// The photo waits, and no queue has its message.
    Stranded,
    /// The record of an ended photo lacks what a stage found out.
    Incomplete,
    /// An object of an ended photo does not exist.
    LostObject,
    /// An object of an ended photo has another content than its name says.
    ChangedObject,
}

impl FaultKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Doubled => "doubled",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Forgotten => "forgotten",
            Self::Stranded => "stranded",
            Self::Incomplete => "incomplete",
            Self::LostObject => "lost-object",
            Self::ChangedObject => "changed-object",
        }
    }
}

/// Which files are looked at, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCheck {
    /// Whether those of predicted photos exist.
    Existence,
    /// Those of all photos that have ended, or of this many of them, chosen at random, are read and compared with their
    /// hashes.
    Content { sample: Option<usize> },
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FilesRead {
    /// Photos whose files were read.
    pub photos: u64,
    pub files: u64,
    pub bytes: u64,
}

/// The files that a photo should have.
pub struct PhotoFiles {
    pub photo_id: Id,
    pub keys: Vec<ObjectKey>,
}

impl PhotoFiles {
    pub fn new(photo_id: &Id, facts: &Facts) -> Self {
        let original = facts.original.as_ref().map(|original| ObjectKey::original(original.sha256, original.format));
        let crop = facts.crop.as_ref().map(|crop| ObjectKey::face(crop.sha256, crop.format));
        Self { photo_id: photo_id.clone(), keys: original.into_iter().chain(crop).collect() }
    }
}

/// What is with a file.
enum FileState {
    /// `bytes`: how many were read.
    Intact {
        bytes: usize,
    },
    Missing,
    Changed,
}

impl FileState {
    async fn of(key: &ObjectKey, check: FileCheck, objects: &dyn Objects) -> Result<Self, ObjectError> {
        if check == FileCheck::Existence {
            return Ok(if objects.exists(key).await? { Self::Intact { bytes: 0 } } else { Self::Missing });
        }
        match objects.get(key).await {
            Ok(body) if hash(body.clone()).await == key.content_hash() => Ok(Self::Intact { bytes: body.len() }),
            Ok(_) | Err(ObjectError::Changed { .. }) => Ok(Self::Changed),
            Err(ObjectError::Missing(_)) => Ok(Self::Missing),
            Err(error) => Err(error),
        }
    }
}

async fn hash(body: Bytes) -> Option<ContentHash> {
    spawn_blocking(move || ContentHash::of(&body)).await.ok()
}

/// Checks files, and gathers what is wrong with them.
pub struct FileAudit<'a> {
    check: FileCheck,
    objects: &'a dyn Objects,
    /// Receives the number of photos whose files are checked.
    progress: &'a (dyn Fn(u64) + Sync),
    /// The sample so far, by random keys: it keeps the smallest.
    sample: BTreeMap<(u64, Id), PhotoFiles>,
    random: RandomState,
    pub read: FilesRead,
    pub faults: Vec<Fault>,
}

impl<'a> FileAudit<'a> {
    /// Photos whose files are read at a time: an original may have 30 MB.
    const CONCURRENCY: usize = 8;

    pub fn new(check: FileCheck, objects: &'a dyn Objects, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        let (sample, random) = (BTreeMap::new(), RandomState::new());
        Self { check, objects, progress, sample, random, read: FilesRead::default(), faults: Vec::new() }
    }

    /// Checks the files of some photos. In a sample they may be taken up, and are checked in the end.
    pub async fn add(&mut self, photos: Vec<PhotoFiles>) -> Result<(), AuditError> {
        let FileCheck::Content { sample: Some(size) } = self.check else { return self.look_at(photos).await };
        for photo in photos.into_iter().filter(|photo| !photo.keys.is_empty()) {
            let place = (self.random.hash_one(&photo.photo_id), photo.photo_id.clone());
            self.sample.insert(place, photo);
            if self.sample.len() > size {
                self.sample.pop_last();
            }
        }
        Ok(())
    }

    /// Checks the sample.
    pub async fn finish(mut self) -> Result<(FilesRead, Vec<Fault>), AuditError> {
        let sample = std::mem::take(&mut self.sample).into_values().collect();
        self.look_at(sample).await?;
        Ok((self.read, self.faults))
    }

    async fn look_at(&mut self, photos: Vec<PhotoFiles>) -> Result<(), AuditError> {
        let (check, objects) = (self.check, self.objects);
        let states = async |photo: PhotoFiles| {
            let mut states = Vec::with_capacity(photo.keys.len());
            for key in photo.keys {
                states.push((FileState::of(&key, check, objects).await?, key));
            }
            Ok::<_, ObjectError>((photo.photo_id, states))
        };
        let mut photos = std::pin::pin!(stream::iter(photos).map(states).buffer_unordered(Self::CONCURRENCY));
        while let Some((photo_id, states)) = photos.try_next().await? {
            self.read.photos += u64::from(!states.is_empty());
            for (state, key) in states {
                self.read.files += 1;
                let kind = match state {
                    FileState::Intact { bytes } => {
                        self.read.bytes += bytes as u64;
                        continue;
                    }
                    FileState::Missing => FaultKind::LostObject,
                    FileState::Changed => FaultKind::ChangedObject,
                };
                self.faults.push(Fault { photo_id: photo_id.clone(), kind, detail: key.as_str().into() });
            }
            (self.progress)(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ImageFormat;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn a_sample_has_its_size_and_the_content_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        let mut photos = Vec::new();
        for id in 0..40_i64 {
            let body = Bytes::from(id.to_string());
            let key = ObjectKey::face(ContentHash::of(&body), ImageFormat::Png);
            folder.put(&key, body, "image/png").await.unwrap();
            photos.push((id, key));
        }
        std::fs::write(folder.path(&photos[3].1), "other").unwrap();
        std::fs::remove_file(folder.path(&photos[5].1)).unwrap();
        let audit = async |check| {
            let mut audit = FileAudit::new(check, &folder, &|_| ());
            for page in photos.chunks(15) {
                let files =
                    |(id, key): &(i64, ObjectKey)| PhotoFiles { photo_id: (*id).into(), keys: vec![key.clone()] };
                audit.add(page.iter().map(files).collect()).await.unwrap();
            }
            let (read, mut faults) = audit.finish().await.unwrap();
            faults.sort();
            (read, faults.iter().map(|fault| (fault.photo_id.to_string(), fault.kind)).collect::<Vec<_>>())
        };
        let [changed, lost] = [("3".to_owned(), FaultKind::ChangedObject), ("5".to_owned(), FaultKind::LostObject)];
        assert_eq!(audit(FileCheck::Existence).await.1, std::slice::from_ref(&lost));
        let (read, faults) = audit(FileCheck::Content { sample: None }).await;
        assert_eq!((read.photos, read.files, faults), (40, 40, vec![changed, lost]));
        assert_eq!(audit(FileCheck::Content { sample: Some(7) }).await.0.photos, 7);
        assert_eq!(audit(FileCheck::Content { sample: Some(70) }).await.0.photos, 40);
    }
}
