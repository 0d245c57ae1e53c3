//! Predictions: `predictions/MODEL/ab/CROP.json`, one for each model and crop. All are kept.

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, future};
use serde::{Deserialize, Serialize};

use super::{JSON, PAGE, damaged, decode, encode, keys, optional};
use crate::domain::{ContentHash, Prediction};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent};

/// The prediction of a model for a crop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CropPrediction {
    /// SHA-256 of the crop.
    pub crop: ContentHash,
    #[serde(flatten)]
    pub prediction: Prediction,
}

/// The predictions in the object store. Clones share the store.
#[derive(Clone)]
pub struct Predictions {
    objects: Arc<dyn Objects>,
}

impl Predictions {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Stores a prediction and returns the one that counts: the first for this crop and model. Another machine may
    /// compute slightly different scores.
    pub async fn write(&self, crop: ContentHash, prediction: Prediction) -> Result<Prediction, ObjectError> {
        let key = ObjectKey::prediction(prediction.model_sha256, crop);
        let document = CropPrediction { crop, prediction };
        match self.objects.put_if_absent(&key, encode(&key, &document)?, JSON).await? {
            PutIfAbsent::Created => Ok(document.prediction),
            PutIfAbsent::AlreadyThere => Ok(self.read_key(&key).await?.prediction),
        }
    }

    /// None: the model has not scored the crop.
    pub async fn read(&self, model: ContentHash, crop: ContentHash) -> Result<Option<Prediction>, ObjectError> {
        let read = optional(self.read_key(&ObjectKey::prediction(model, crop)).await)?;
        Ok(read.map(|document| document.prediction))
    }

    /// The crops that a model has scored, in order.
    pub fn crops_of_model(
        &self,
        model: ContentHash,
    ) -> impl Stream<Item = Result<ContentHash, ObjectError>> + Send + use<> {
        let crop = |key: ObjectKey| key.as_str().rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        keys(self.objects.clone(), ObjectKey::predictions(model), PAGE)
            .try_filter_map(move |key| future::ok(crop(key)))
            .boxed()
    }

    /// Removes the prediction of a model for a crop, if there is one.
    pub async fn remove(&self, model: ContentHash, crop: ContentHash) -> Result<(), ObjectError> {
        self.objects.delete(&ObjectKey::prediction(model, crop)).await
    }

    async fn read_key(&self, key: &ObjectKey) -> Result<CropPrediction, ObjectError> {
        let document: CropPrediction = decode(key, &self.objects.get(key).await?)?;
        match ObjectKey::prediction(document.prediction.model_sha256, document.crop) == *key {
            true => Ok(document),
            false => Err(damaged(key, "it holds the prediction for another crop or of another model: delete it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    fn prediction(p_ok: f64, model: &str) -> Prediction {
        Prediction { p_ok, model: model.into(), model_sha256: ContentHash::of(model.as_bytes()) }
    }

    #[tokio::test]
    async fn the_first_prediction_of_a_crop_and_model_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let predictions = Predictions::new(Arc::new(Folder::at(scratch.path())));
        let (crop, other) = (ContentHash::of(b"crop"), ContentHash::of(b"other"));
        let (one, two) = (prediction(0.5, "one"), prediction(0.25, "two"));
        assert_eq!(predictions.read(one.model_sha256, crop).await.unwrap(), None);
        for (crop, prediction) in [(crop, &one), (crop, &two), (other, &one)] {
            assert_eq!(predictions.write(crop, prediction.clone()).await.unwrap(), *prediction);
        }
        assert_eq!(predictions.write(crop, prediction(0.75, "one")).await.unwrap(), one);
        assert_eq!(predictions.read(two.model_sha256, crop).await.unwrap(), Some(two));
        let scored: Vec<ContentHash> = predictions.crops_of_model(one.model_sha256).try_collect().await.unwrap();
        let mut expected = [crop, other];
        expected.sort();
        assert_eq!(scored, expected);
    }
}
