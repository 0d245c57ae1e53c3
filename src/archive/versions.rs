//! Versions of a dataset: `versions/RUN/NAME/version.json`, and its faces in shards beside it.
//!
//! The header is written last: a version without it does not exist. Only a takedown replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{TryStreamExt, future};
use serde::{Deserialize, Serialize};

use super::{PAGE, damaged, decode, encode, keys, optional};
use crate::domain::{ContentHash, RunName, VersionName};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent, Swap};

/// How the faces of a version were selected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSelection {
    #[serde(rename = "where")]
    pub query: String,
    pub sort: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
    /// The smallest crop, pixels.
    pub size: u32,
    pub upscale: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_label: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_identity: Option<usize>,
    pub placeholders: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicates: bool,
}

/// Numbers of faces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionCounts {
    pub faces: u64,
    pub labels: u64,
    /// Faces that fulfilled the query, whatever their size.
    pub matching: u64,
    #[serde(flatten)]
    pub left_out: LeftOut,
    /// `not judged` for faces without a verdict.
    pub by_verdict: BTreeMap<String, u64>,
    pub by_alignment: BTreeMap<String, u64>,
}

/// Faces that fulfil a query and are not in its selection, by reason. Each face counts for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Smaller than the wanted size.
    pub too_small: u64,
    /// The same crop as that of another photo.
    pub copies: u64,
    /// Another crop of a photograph of which a better one fulfils the query.
    #[serde(default)]
    pub duplicates: u64,
    pub beyond_label_limit: u64,
    #[serde(default)]
    pub beyond_identity_limit: u64,
    /// Behind the wanted number in the order of the selection.
    #[serde(default)]
    pub beyond_number: u64,
}

impl LeftOut {
    /// The numbers with their reasons, for people. `size` is the wanted one, in pixels.
    pub fn reasons(&self, size: u32) -> [(u64, String); 6] {
        [
            (self.too_small, format!("smaller than {size} pixels")),
            (self.copies, "the crop of another photo".into()),
            (self.duplicates, "near-duplicates of a better crop".into()),
            (self.beyond_label_limit, "beyond the limit of their label".into()),
            (self.beyond_identity_limit, "beyond the limit of their identity".into()),
            (self.beyond_number, "behind the wanted number".into()),
        ]
    }

    /// The reasons that apply to any face.
    pub fn known_reasons(&self, size: u32) -> impl Iterator<Item = (u64, String)> {
        self.reasons(size).into_iter().filter(|(faces, _)| *faces > 0)
    }
}

/// A part of the faces of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionShard {
    pub sha256: ContentHash,
    pub faces: u64,
}

/// Faces that were taken down after the version was frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// How many faces the version lost.
    pub faces: u64,
    /// Seconds since 1970, UTC.
    pub at: u64,
    /// The digest of the version with them.
    pub digest_before: ContentHash,
}

/// What a version is. Its faces are in the shards, in the order of their photo ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionHeader {
    pub name: VersionName,
    pub run: RunName,
    /// Seconds since 1970, UTC.
    pub frozen_at: u64,
    /// The version of the program.
    pub facemill: String,
    pub selection: VersionSelection,
    /// The P(OK) from which a face without a verdict was `predicted`.
    pub threshold: f64,
    /// SHA-256 of the run's classifier at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<ContentHash>,
    pub counts: VersionCounts,
    /// SHA-256 of all that the version says of its faces.
    pub digest: ContentHash,
    pub shards: Vec<VersionShard>,
    /// What takedowns have removed, oldest first. Nothing else ever changes a version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tombstones: Vec<Tombstone>,
}

/// The versions of one run in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredVersions {
    objects: Arc<dyn Objects>,
    run: RunName,
}

impl StoredVersions {
    pub fn new(objects: Arc<dyn Objects>, run: RunName) -> Self {
        Self { objects, run }
    }

    pub fn run(&self) -> &RunName {
        &self.run
    }

    /// None: there is no such version.
    pub async fn read(&self, name: &VersionName) -> Result<Option<VersionHeader>, ObjectError> {
        let key = ObjectKey::version(&self.run, name);
        optional(self.objects.get(&key).await)?.map(|body| decode(&key, &body)).transpose()
    }

    /// The shards must be there already. Returns whether the name was free.
    pub async fn write(&self, header: &VersionHeader) -> Result<bool, ObjectError> {
        let key = ObjectKey::version(&self.run, &header.name);
        let body = encode(&key, header)?;
        Ok(self.objects.put_if_absent(&key, body, super::JSON).await? == PutIfAbsent::Created)
    }

    /// Replaces a version that is still as it was read, after a takedown. False: it is another one by now.
    pub async fn replace(&self, known: &VersionHeader, header: &VersionHeader) -> Result<bool, ObjectError> {
        let key = ObjectKey::version(&self.run, &header.name);
        let Some((body, version)) = optional(self.objects.get_versioned(&key).await)? else { return Ok(false) };
        if decode::<VersionHeader>(&key, &body)? != *known {
            return Ok(false);
        }
        let body = encode(&key, header)?;
        Ok(self.objects.compare_and_swap(&key, &version, body, super::JSON).await? == Swap::Done)
    }

    /// Deletes the shards that a version does not refer to.
    pub async fn delete_other_shards(&self, header: &VersionHeader) -> Result<(), ObjectError> {
        let prefix = format!("{}{}/", ObjectKey::versions(&self.run), header.name);
        let all: Vec<ObjectKey> = keys(self.objects.clone(), prefix, PAGE).try_collect().await?;
        let name = |shard: &VersionShard| ObjectKey::version_shard(&self.run, &header.name, shard.sha256);
        let kept: Vec<ObjectKey> = header.shards.iter().map(name).collect();
        for key in all.iter().filter(|key| key.as_str().ends_with(".parquet") && !kept.contains(key)) {
            self.objects.delete(key).await?;
        }
        Ok(())
    }

    /// All versions, by name.
    pub async fn all(&self) -> Result<Vec<VersionHeader>, ObjectError> {
        let all = keys(self.objects.clone(), ObjectKey::versions(&self.run), PAGE);
        let headers = all.try_filter(|key| future::ready(key.as_str().ends_with("/version.json")));
        let read = headers.and_then(|key| async move { decode(&key, &self.objects.get(&key).await?) });
        read.try_collect().await
    }

    pub async fn write_shard(&self, name: &VersionName, shard: Bytes) -> Result<ContentHash, ObjectError> {
        let sha256 = ContentHash::of(&shard);
        let key = ObjectKey::version_shard(&self.run, name, sha256);
        self.objects.put(&key, shard, "application/vnd.apache.parquet").await?;
        Ok(sha256)
    }

    /// The file of a shard. Its content is checked against the hash.
    pub async fn read_shard(&self, name: &VersionName, sha256: ContentHash) -> Result<Bytes, ObjectError> {
        let key = ObjectKey::version_shard(&self.run, name, sha256);
        let file = self.objects.get(&key).await?;
        match ContentHash::of(&file) == sha256 {
            true => Ok(file),
            false => Err(damaged(&key, "its content does not have this hash: restore it from a backup")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn a_version_is_written_once() {
        let scratch = tempfile::tempdir().unwrap();
        let versions = StoredVersions::new(Arc::new(Folder::at(scratch.path())), RunName::default());
        let name: VersionName = "v1".parse().unwrap();
        let sha256 = versions.write_shard(&name, Bytes::from_static(b"faces")).await.unwrap();
        assert_eq!(versions.all().await.unwrap(), [], "a shard alone is no version");
        let header = VersionHeader {
            name: name.clone(),
            run: RunName::default(),
            frozen_at: 7,
            facemill: "0.1.0".into(),
            selection: VersionSelection {
                query: "ok".into(),
                sort: "-p_ok".into(),
                number: None,
                size: 512,
                upscale: false,
                per_label: Some(3),
                per_identity: Some(2),
                placeholders: false,
                duplicates: false,
            },
            threshold: 0.5,
            model_sha256: None,
            counts: VersionCounts::default(),
            digest: sha256,
            shards: vec![VersionShard { sha256, faces: 1 }],
            tombstones: vec![],
        };
        assert!(versions.write(&header).await.unwrap());
        assert!(!versions.write(&VersionHeader { frozen_at: 8, ..header.clone() }).await.unwrap());
        assert_eq!(versions.read(&name).await.unwrap(), Some(header.clone()));
        assert_eq!(versions.all().await.unwrap(), [header]);
        assert_eq!(versions.read_shard(&name, sha256).await.unwrap(), "faces");
        std::fs::write(scratch.path().join(format!("versions/default/v1/{sha256}.parquet")), "other").unwrap();
        assert!(versions.read_shard(&name, sha256).await.unwrap_err().to_string().contains(&sha256.to_string()));
        assert_eq!(versions.read(&"v2".parse().unwrap()).await.unwrap(), None);
    }
}
