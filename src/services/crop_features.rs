//! The features of crops of a run, and of others: what training, suggestions and the search for duplicates begin with.

use std::sync::Arc;

use bytes::Bytes;

use crate::classifier::backbone::Backbone;
use crate::classifier::crop_threads::CropFault;
use crate::classifier::feature_store::FeatureStore;
use crate::classifier::features::{Extracted, FeatureError, FeatureSource};
use crate::domain::{ContentHash, ImageFormat};
use crate::inference::Models;
use crate::inference::Runtime;
use crate::objects::{ObjectError, ObjectKey, Objects};

/// The backbone, and the store of the features that it has extracted.
pub struct CropFeatures {
    pub backbone: Backbone,
    pub runtime: Runtime,
    store: FeatureStore,
    /// That extract features.
    threads: usize,
}

impl CropFeatures {
    /// # Errors
    /// The backbone or onnxruntime is missing.
    pub fn open(models: &Models, store: FeatureStore, threads: usize) -> Result<Self, FeatureError> {
        let runtime = Runtime::load(&models.onnxruntime())?;
        Ok(Self { backbone: Backbone::read(&models.lite0())?, runtime, store, threads })
    }

    /// As [`FeatureSource::features`].
    ///
    /// # Errors
    /// As those of [`FeatureSource::features`].
    pub async fn read_from<F, R>(
        &mut self,
        crops: &[ContentHash],
        read: R,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Extracted, FeatureError>
    where
        R: Fn(usize) -> F,
        F: Future<Output = Result<Bytes, CropFault>>,
    {
        let source = FeatureSource { backbone: &self.backbone, runtime: &self.runtime, threads: self.threads };
        source.features(crops, &mut self.store, read, progress).await
    }

    /// The features of crops of a run, which are read from the object store where they are missing.
    ///
    /// # Errors
    /// As those of [`FeatureSource::features`].
    pub async fn of_crops(
        &mut self,
        objects: &Arc<dyn Objects>,
        crops: &[(ContentHash, ImageFormat)],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Extracted, FeatureError> {
        let hashes: Vec<ContentHash> = crops.iter().map(|(crop, _)| *crop).collect();
        let read = |i: usize| read_crop(objects.clone(), crops[i].0, crops[i].1);
        self.read_from(&hashes, read, progress).await
    }
}

/// Reads a crop of a run.
pub async fn read_crop(objects: Arc<dyn Objects>, crop: ContentHash, format: ImageFormat) -> Result<Bytes, CropFault> {
    objects.get(&ObjectKey::face(crop, format)).await.map_err(|error| match error {
        ObjectError::Server(error) => CropFault::Store(error.to_string()),
        error => CropFault::Crop(error.to_string()),
    })
}
