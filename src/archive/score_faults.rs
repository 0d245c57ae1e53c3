//! Why workers could not score crops again: `score-faults/MODEL/ab/CROP.json`, one for each model and crop.

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, future};
use serde::{Deserialize, Serialize};

use super::{JSON, PAGE, decode, encode, keys, optional};
use crate::domain::ContentHash;
use crate::objects::{ObjectError, ObjectKey, Objects};

/// A crop that a model could not score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreFault {
    pub crop: ContentHash,
    pub model_sha256: ContentHash,
    pub reason: String,
    /// Seconds since 1970, UTC.
    pub at: u64,
}

/// The faults in the object store. Clones share the store.
#[derive(Clone)]
pub struct ScoreFaults {
    objects: Arc<dyn Objects>,
}

impl ScoreFaults {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    pub async fn write(&self, fault: &ScoreFault) -> Result<(), ObjectError> {
        let key = ObjectKey::score_fault(fault.model_sha256, fault.crop);
        self.objects.put(&key, encode(&key, fault)?, JSON).await.map(drop)
    }

    /// None: the model has no fault at the crop.
    pub async fn read(&self, model: ContentHash, crop: ContentHash) -> Result<Option<ScoreFault>, ObjectError> {
        let key = ObjectKey::score_fault(model, crop);
        optional(self.objects.get(&key).await)?.map(|body| decode(&key, &body)).transpose()
    }

    /// Forgets a fault, before the crop is tried again.
    pub async fn remove(&self, model: ContentHash, crop: ContentHash) -> Result<(), ObjectError> {
        optional(self.objects.delete(&ObjectKey::score_fault(model, crop)).await).map(drop)
    }

    /// The crops at which a model has a fault, in order.
    pub fn crops_of_model(
        &self,
        model: ContentHash,
    ) -> impl Stream<Item = Result<ContentHash, ObjectError>> + Send + use<> {
        let crop = |key: ObjectKey| key.as_str().rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        keys(self.objects.clone(), ObjectKey::score_faults(model), PAGE)
            .try_filter_map(move |key| future::ok(crop(key)))
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn faults_are_listed_until_they_are_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let faults = ScoreFaults::new(Arc::new(Folder::at(scratch.path())));
        let (model, crop) = (ContentHash::of(b"model"), ContentHash::of(b"crop"));
        let fault = ScoreFault { crop, model_sha256: model, reason: "it is empty".into(), at: 1 };
        let all = async || faults.crops_of_model(model).try_collect::<Vec<ContentHash>>().await.unwrap();
        assert_eq!((faults.read(model, crop).await.unwrap(), all().await), (None, vec![]));
        faults.write(&fault).await.unwrap();
        assert_eq!((faults.read(model, crop).await.unwrap(), all().await), (Some(fault), vec![crop]));
        for _ in 0..2 {
            faults.remove(model, crop).await.unwrap();
        }
        assert_eq!(all().await, []);
    }
}
