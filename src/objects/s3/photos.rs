//! Photos in other buckets of the service: their names, their bytes, and links to them.
//!
//! A link is an object whose metadata names the photo. S3 has no links of its own; copying every photo would double what
//! a person pays for.

use std::str::FromStr;

use bytes::Bytes;

use super::S3;
use crate::domain::{ContentHash, StoredUrl};
use crate::objects::{ObjectError, ObjectKey};

/// Names of objects, as a listing has them.
#[derive(Debug, Default)]
pub struct Names {
    pub names: Vec<String>,
    /// Whether more follow the last one.
    pub more: bool,
}

impl S3 {
    /// A page of the names that start with `prefix` and follow `after`, in byte order. Any names, of any program.
    pub async fn names(&self, prefix: &str, after: Option<&str>) -> Result<Names, ObjectError> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let request = request.set_start_after(after.map(str::to_owned)).max_keys(Self::MAX_LISTED as i32);
        let listed = request.send().await.map_err(|error| self.failure(format!("list {prefix}"), &error))?;
        let names: Vec<String> = listed.contents().iter().filter_map(|object| object.key()).map(Into::into).collect();
        Ok(Names { more: listed.is_truncated().unwrap_or_default() && !names.is_empty(), names })
    }

    /// The size in bytes of an object of any program. None: it does not exist.
    pub async fn size_of(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        let head = self.head(key).await?;
        Ok(head.map(|head| head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or_default()))
    }

    /// An object of any program, as a whole. None: it does not exist.
    pub async fn read_foreign(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        Ok(self.read(key).await?.map(|object| object.body))
    }

    /// The key of the program's own objects below this prefix of this service, if the prefix contains any.
    pub fn own_objects_below(&self, bucket: &str, prefix: &str) -> Option<&str> {
        let of_prefix = || {
            let below = prefix.strip_prefix(&self.prefix)?;
            let is_own = |name: &&&str| below.starts_with(&format!("{name}/"));
            [
                "originals",
                "faces",
                "records",
                "predictions",
                "models",
                "runs",
                "verdicts",
                "versions",
                "curation",
                "refusals",
                "takedowns",
            ]
            .iter()
            .find(is_own)
            .copied()
        };
        match bucket == self.bucket {
            true if self.prefix.starts_with(prefix) => Some("originals"),
            true => of_prefix(),
            false => None,
        }
    }

    /// Whether there is an object under the key, and it is what the key says: a link may be dead.
    pub(super) async fn is_intact(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        let Some(head) = self.head(&self.full(key)).await? else { return Ok(false) };
        let Some(link) = head.metadata().and_then(|metadata| metadata.get(Self::LINK)) else { return Ok(true) };
        match self.follow(key, link).await {
            Ok(_) => Ok(true),
            Err(ObjectError::Missing(_) | ObjectError::Changed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a link under the key. False: there is an object, and it is what the key says.
    pub(super) async fn write_link(&self, key: &ObjectKey, photo: &StoredUrl) -> Result<bool, ObjectError> {
        if self.is_intact(key).await? {
            return Ok(false);
        }
        let full = self.full(key);
        let url = photo.to_string();
        let put = self.put_request(&full, Bytes::from(url.clone()), "text/uri-list").metadata(Self::LINK, url);
        put.send().await.map_err(|error| self.failure(format!("write {full}"), &error))?;
        Ok(true)
    }

    /// The photo that a link leads to.
    ///
    /// # Errors
    /// [`ObjectError::Missing`]: it does not exist. [`ObjectError::Changed`]: its content has not the hash of the key.
    pub(super) async fn follow(&self, key: &ObjectKey, link: &str) -> Result<Bytes, ObjectError> {
        let (bucket, photo) = self.target(key, link)?;
        let body = self.in_bucket(&bucket).read(&photo).await?.ok_or_else(|| ObjectError::Missing(key.clone()))?.body;
        match key.content_hash() == Some(ContentHash::of(&body)) {
            true => Ok(body),
            false => Err(ObjectError::Changed { key: key.clone(), photo: link.to_owned() }),
        }
    }

    /// Whether the photo that a link leads to exists.
    pub(super) async fn leads_to_something(&self, key: &ObjectKey, link: &str) -> Result<bool, ObjectError> {
        let (bucket, photo) = self.target(key, link)?;
        Ok(self.in_bucket(&bucket).head(&photo).await?.is_some())
    }

    fn target(&self, key: &ObjectKey, link: &str) -> Result<(String, String), ObjectError> {
        match StoredUrl::from_str(link) {
            Ok(StoredUrl::S3 { bucket, key }) => Ok((bucket, key)),
            _ => Err(self.refused(format!("read {key}"), format_args!("it links to `{link}`, which is no object"))),
        }
    }
}
