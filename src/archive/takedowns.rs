//! Takedowns: `takedowns/ID.json`.
//!
//! A takedown is written before anything is removed, with everything that is to be removed, so that it can be completed
//! after a crash although what named the photos is gone. When it is complete, what it removed is forgotten: the document
//! keeps numbers, and the ids of the photos.

use std::sync::Arc;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::refusals::Refused;
use super::{JSON, PAGE, change, damaged, decode, encode, keys};
use crate::domain::{ContentHash, ImageFormat, PhotoKey, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent};

/// A takedown, under way or complete. It names no person, URL or label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takedown {
    /// Seconds since 1970, UTC.
    pub at: u64,
    /// Who gave the command.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub photos: Vec<PhotoKey>,
    /// What is still to be removed. None: the takedown is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Removal>,
}

/// Everything that a takedown removes besides the photos themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    pub refused: Refused,
    pub originals: Vec<RemovedOriginal>,
    /// All crops that the photos have or had.
    pub crops: Vec<ContentHash>,
    /// The models whose predictions of the crops are removed.
    pub models: Vec<ContentHash>,
    /// Versions that have one of the photos.
    pub versions: Vec<RemovedFromVersion>,
    /// Whether the queues are searched: a photo had not ended.
    pub queues: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedOriginal {
    pub sha256: ContentHash,
    pub format: ImageFormat,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemovedFromVersion {
    pub run: RunName,
    pub version: crate::domain::VersionName,
}

/// The takedowns in the object store. Clones share the store.
#[derive(Clone)]
pub struct Takedowns {
    objects: Arc<dyn Objects>,
}

impl Takedowns {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Writes a takedown that is about to begin, and returns its id.
    pub async fn begin(&self, takedown: &Takedown) -> Result<String, ObjectError> {
        let body = encode(&ObjectKey::takedown("new"), takedown)?;
        let id = ContentHash::of(&body).to_string()[..16].to_owned();
        // The same takedown, given twice in a second, is one.
        match self.objects.put_if_absent(&ObjectKey::takedown(&id), body, JSON).await? {
            PutIfAbsent::Created | PutIfAbsent::AlreadyThere => Ok(id),
        }
    }

    /// Notes that a takedown is complete, and forgets what it has removed.
    pub async fn complete(&self, id: &str) -> Result<(), ObjectError> {
        let key = ObjectKey::takedown(id);
        let forget = |document: &mut Option<Takedown>| match document {
            Some(takedown) => {
                takedown.pending = None;
                Ok(())
            }
            None => Err(damaged(&key, "somebody has deleted it: give the command again")),
        };
        change(&*self.objects, &key, forget).await
    }

    /// The takedowns that are not complete, with their ids, oldest first.
    pub async fn pending(&self) -> Result<Vec<(String, Takedown)>, ObjectError> {
        let prefix = ObjectKey::TAKEDOWNS;
        let all: Vec<ObjectKey> = keys(self.objects.clone(), prefix.into(), PAGE).try_collect().await?;
        let mut pending = Vec::new();
        for key in all {
            let takedown: Takedown = decode(&key, &self.objects.get(&key).await?)?;
            let id = key.as_str().strip_prefix(prefix).and_then(|name| name.strip_suffix(".json"));
            if let (Some(id), true) = (id, takedown.pending.is_some()) {
                pending.push((id.to_owned(), takedown));
            }
        }
        pending.sort_by_key(|(id, takedown)| (takedown.at, id.clone()));
        Ok(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn a_complete_takedown_has_forgotten_what_it_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path()));
        let takedowns = Takedowns::new(objects.clone());
        let crop = ContentHash::of(b"crop");
        let takedown = |at| Takedown {
            at,
            by: "ada".into(),
            reason: None,
            photos: vec![PhotoKey { run: RunName::default(), photo_id: 7.into() }],
            pending: Some(Removal { crops: vec![crop], ..Removal::default() }),
        };
        let later = takedowns.begin(&takedown(9)).await.unwrap();
        let first = takedowns.begin(&takedown(5)).await.unwrap();
        assert_eq!(takedowns.begin(&takedown(5)).await.unwrap(), first);
        let pending = takedowns.pending().await.unwrap();
        assert_eq!(pending, [(first.clone(), takedown(5)), (later.clone(), takedown(9))]);
        for _ in 0..2 {
            takedowns.complete(&first).await.unwrap();
        }
        assert_eq!(takedowns.pending().await.unwrap(), [(later, takedown(9))]);
        let left = objects.get(&ObjectKey::takedown(&first)).await.unwrap();
        let left = String::from_utf8(left.to_vec()).unwrap();
        assert!(left.contains("ada") && !left.contains(&crop.to_string()), "{left}");
        assert!(takedowns.complete("unknown").await.is_err());
    }
}
