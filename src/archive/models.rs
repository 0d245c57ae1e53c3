//! Models as objects: `models/SHA256.onnx`.

use std::sync::Arc;

use bytes::Bytes;
use futures::{TryStreamExt, future};

use super::{PAGE, damaged, keys};
use crate::domain::ContentHash;
use crate::objects::{ObjectError, ObjectKey, Objects};

/// The models in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredModels {
    objects: Arc<dyn Objects>,
}

impl StoredModels {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Stores a model file and returns its hash. Storing the same file again is harmless.
    pub async fn write(&self, file: Bytes) -> Result<ContentHash, ObjectError> {
        let sha256 = ContentHash::of(&file);
        self.objects.put(&ObjectKey::model(sha256), file, "application/octet-stream").await?;
        Ok(sha256)
    }

    /// The file of a model. Its content is checked against the hash.
    pub async fn read(&self, sha256: ContentHash) -> Result<Bytes, ObjectError> {
        let key = ObjectKey::model(sha256);
        let file = self.objects.get(&key).await?;
        match ContentHash::of(&file) == sha256 {
            true => Ok(file),
            false => Err(damaged(&key, "its content does not have this hash: delete it, and store the model again")),
        }
    }

    /// The hashes of all models, in order.
    pub async fn all(&self) -> Result<Vec<ContentHash>, ObjectError> {
        let sha256 = |key: ObjectKey| {
            key.as_str().strip_prefix(ObjectKey::MODELS)?.strip_suffix(".onnx")?.parse::<ContentHash>().ok()
        };
        let keys = keys(self.objects.clone(), ObjectKey::MODELS.into(), PAGE);
        keys.try_filter_map(|key| future::ok(sha256(key))).try_collect().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn models_are_stored_listed_and_checked_by_hash() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path()));
        let models = StoredModels::new(objects.clone());
        let mut stored = Vec::new();
        for file in [&b"one"[..], b"two", b"one"] {
            stored.push(models.write(Bytes::from_static(file)).await.unwrap());
        }
        assert_eq!(models.read(stored[1]).await.unwrap(), "two");
        stored.sort();
        stored.dedup();
        assert_eq!(models.all().await.unwrap(), stored);
        let other = ContentHash::of(b"three");
        assert!(matches!(models.read(other).await, Err(ObjectError::Missing(_))));
        objects.put(&ObjectKey::model(other), Bytes::from("four"), "x").await.unwrap();
        assert!(models.read(other).await.unwrap_err().to_string().contains(&other.to_string()));
    }
}
