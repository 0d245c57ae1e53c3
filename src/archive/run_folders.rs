//! The photo folders of a run: `runs/RUN/folders.json`.
//!
//! A fetch worker reads a photo from a file system or a bucket only if its folder is in this list, which only a command
//! writes that a person gave the folder to. A URL in a dump can thus not make it read anything else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{JSON, decode, encode, optional};
use crate::domain::{Candidate, RunName, StoredUrl};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent, Swap};
use crate::server_error::ServerError;

/// A folder, or a prefix in a bucket, whose photos a run takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFolder {
    /// `file:///photos/` or `s3://bucket/prefix/`.
    pub url: String,
    /// Whether the photos are copied into the object store. Otherwise the store links to them where it can.
    pub copy: bool,
}

/// The folders of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFolders {
    pub folders: Vec<RunFolder>,
}

impl RunFolders {
    /// The folder that the candidate comes from, if the photo is in it.
    pub fn folder_of(&self, candidate: &Candidate, photo: &StoredUrl) -> Option<&RunFolder> {
        let source = candidate.source.as_deref()?;
        let folder = self.folders.iter().find(|folder| folder.url == source)?;
        folder.url.parse().is_ok_and(|url| photo.is_below(&url)).then_some(folder)
    }

    /// Adds a folder, or changes whether its photos are copied. False: it is known with this setting.
    fn add(&mut self, folder: &RunFolder) -> bool {
        match self.folders.iter_mut().find(|known| known.url == folder.url) {
            Some(known) if known == folder => false,
            Some(known) => {
                known.copy = folder.copy;
                true
            }
            None => {
                self.folders.push(folder.clone());
                true
            }
        }
    }
}

/// The folders of runs in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredRunFolders {
    objects: Arc<dyn Objects>,
}

impl StoredRunFolders {
    /// Attempts at a change while other commands change the list, too.
    const ATTEMPTS: usize = 20;

    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    fn key(run: &RunName) -> ObjectKey {
        ObjectKey::of_run(run, "folders")
    }

    /// The folders of a run; empty if it has none.
    pub async fn read(&self, run: &RunName) -> Result<RunFolders, ObjectError> {
        let key = Self::key(run);
        match optional(self.objects.get(&key).await)? {
            Some(body) => decode(&key, &body),
            None => Ok(RunFolders::default()),
        }
    }

    /// Adds a folder that a person has named.
    pub async fn add(&self, run: &RunName, folder: &RunFolder) -> Result<(), ObjectError> {
        let key = Self::key(run);
        for _ in 0..Self::ATTEMPTS {
            let known = optional(self.objects.get_versioned(&key).await)?;
            let mut folders = match &known {
                Some((body, _)) => decode(&key, body)?,
                None => RunFolders::default(),
            };
            if !folders.add(folder) {
                return Ok(());
            }
            let body = encode(&key, &folders)?;
            let written = match known {
                Some((_, version)) => self.objects.compare_and_swap(&key, &version, body, JSON).await? == Swap::Done,
                None => self.objects.put_if_absent(&key, body, JSON).await? == PutIfAbsent::Created,
            };
            if written {
                return Ok(());
            }
        }
        let detail = "other commands change it all the time: try again".into();
        Err(ServerError::Unavailable { what: format!("change {key}"), detail }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn only_photos_of_named_folders_are_found() {
        let scratch = tempfile::tempdir().unwrap();
        let (stored, run) = (StoredRunFolders::new(Arc::new(Folder::at(scratch.path()))), RunName::default());
        assert_eq!(stored.read(&run).await.unwrap(), RunFolders::default());
        let folder = |url: &str, copy| RunFolder { url: url.into(), copy };
        for (url, copy) in [("file:///p/", false), ("s3://b/q/", true), ("file:///p/", false), ("s3://b/q/", false)] {
            stored.add(&run, &folder(url, copy)).await.unwrap();
        }
        let folders = stored.read(&run).await.unwrap();
        assert_eq!(folders.folders, [folder("file:///p/", false), folder("s3://b/q/", false)]);

        let is_found = |source: Option<&str>, photo: &str| {
            let candidate = Candidate { source: source.map(Into::into), ..Candidate::example(1) };
            folders.folder_of(&candidate, &photo.parse().unwrap()).is_some()
        };
        assert!(is_found(Some("file:///p/"), "file:///p/a.jpg"));
        assert!(!is_found(Some("file:///p/"), "file:///etc/passwd"), "not in the folder");
        assert!(!is_found(Some("dump.sql"), "file:///p/a.jpg"), "a dump names a photo of a folder");
        assert!(!is_found(None, "file:///p/a.jpg"));
        assert!(!is_found(Some("s3://c/q/"), "s3://c/q/a.jpg"), "nobody has named this bucket");
    }
}
