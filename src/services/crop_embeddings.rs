//! The embeddings of the faces in crops of a run: what the search for identities begins with.

use std::path::PathBuf;
use std::sync::Arc;

use super::crop_features::read_crop;
use crate::classifier::crop_threads::CropThreadsError;
use crate::classifier::feature_store::{FeatureStore, FeatureStoreError};
use crate::classifier::features::{Extracted, known_or_extracted};
use crate::domain::{ContentHash, ImageFormat};
use crate::inference::{InferenceError, Models, file_hash};
use crate::objects::Objects;
use crate::vision::dlib::{DlibError, Landmarker};
use crate::vision::embedding::{Embedder, EmbedderError, FacePlace, VERSION};
use crate::vision::image::{Limits, decode};

#[derive(Debug, thiserror::Error)]
pub enum EmbeddingError {
    #[error(transparent)]
    Model(#[from] InferenceError),
    #[error(transparent)]
    Landmarks(#[from] DlibError),
    #[error(transparent)]
    Embedder(#[from] EmbedderError),
    #[error(transparent)]
    Store(#[from] FeatureStoreError),
    #[error(transparent)]
    Crops(#[from] CropThreadsError),
}

/// A crop whose face is embedded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CropFace {
    pub crop: ContentHash,
    pub format: ImageFormat,
    /// None: the record of the crop has no 68 landmarks.
    pub place: Option<FacePlace>,
}

/// The networks, and the store of the embeddings that they have computed.
pub struct CropEmbeddings {
    landmarker: Landmarker,
    network: PathBuf,
    version: ContentHash,
    store: FeatureStore,
    /// That compute embeddings.
    threads: usize,
}

impl CropEmbeddings {
    /// # Errors
    /// A model is missing, or is another file.
    pub fn open(models: &Models, store: FeatureStore, threads: usize) -> Result<Self, EmbeddingError> {
        let (network, landmarks) = (models.face_recognition(), models.ibug());
        let landmarker = Landmarker::open(&landmarks)?;
        // Said before any crop is read.
        drop(Embedder::open(&network, landmarker.clone())?);
        let hashes = (file_hash::sha256(&network)?, file_hash::sha256(&landmarks)?);
        let version = ContentHash::of(format!("{VERSION} {} {}", hashes.0, hashes.1).as_bytes());
        Ok(Self { landmarker, network, version, store, threads })
    }

    /// The embeddings of crops: from the store, or computed from the crops in the object store, and kept. `progress`
    /// receives how many are done.
    ///
    /// # Errors
    /// The object store is unavailable, or the store of embeddings cannot be written.
    pub async fn of_crops(
        &mut self,
        objects: &Arc<dyn Objects>,
        crops: &[CropFace],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Extracted, EmbeddingError> {
        let hashes: Vec<ContentHash> = crops.iter().map(|face| face.crop).collect();
        let places: Arc<[Option<FacePlace>]> = crops.iter().map(|face| face.place).collect();
        let (landmarker, network) = (&self.landmarker, &self.network);
        let open = |missing: usize| {
            (0..self.threads.clamp(1, missing)).map(|_| Embedder::open(network, landmarker.clone())).collect()
        };
        let embed = move |embedder: &mut Embedder, i: usize, crop: &[u8]| {
            let place = places[i].as_ref().ok_or("its record has no 68 landmarks")?;
            embedder.embed(&decode(crop, Limits::default()).map_err(|error| error.to_string())?, place)
        };
        let read = |i: usize| read_crop(objects.clone(), crops[i].crop, crops[i].format);
        known_or_extracted(self.version, &hashes, &mut self.store, open, embed, read, progress).await
    }
}
