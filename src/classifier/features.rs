//! Features of crops: the output of the frozen backbone.

use bytes::Bytes;
use ort::session::Session;
use ort::value::TensorRef;

use super::backbone::{Backbone, BackboneError, FEATURES};
use super::crop_threads::{CropFault, CropThreadsError, each_crop};
use super::feature_store::{FeatureStore, FeatureStoreError};
use super::model::{Input, MIRRORS, SIDE};
use facemill_domain::ContentHash;
use facemill_inference::{InferenceError, Runtime};

/// How the pixels of a crop become the input of the backbone. Another way makes other features: change the name.
const INPUT_VERSION: &str = "bilinear-224";
/// Features that are kept in one write.
const BATCH: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Store(#[from] FeatureStoreError),
    #[error(transparent)]
    Crops(#[from] CropThreadsError),
}

/// Names features that are comparable: those of one backbone and one way to make its input.
pub fn version(backbone: &Backbone) -> ContentHash {
    ContentHash::of(format!("{INPUT_VERSION} {}", ContentHash::of(&backbone.bytes)).as_bytes())
}

/// Extracts features. Use one per thread.
pub struct Extractor(Session);

impl Extractor {
    /// # Errors
    /// onnxruntime rejects the backbone.
    pub fn open(backbone: &Backbone, runtime: &Runtime) -> Result<Self, InferenceError> {
        Ok(Self(runtime.session("EfficientNet-Lite0", &backbone.bytes, 1)?))
    }

    /// The [`FEATURES`] features of a crop.
    ///
    /// # Errors
    /// The crop cannot be decoded, or onnxruntime fails.
    pub fn extract(&mut self, crop: &[u8]) -> Result<Vec<f32>, String> {
        let input = Input::decode(crop, [0.0; MIRRORS])?;
        let failed = |error: ort::Error| error.to_string();
        let crop = TensorRef::from_array_view(([1, SIDE, SIDE, 3], input.pixels())).map_err(failed)?;
        let outputs = self.0.run(ort::inputs![Backbone::INPUT => crop]).map_err(failed)?;
        let (_, features) = outputs[Backbone::OUTPUT].try_extract_tensor::<f32>().map_err(failed)?;
        match features.len() == FEATURES && features.iter().all(|value| value.is_finite()) {
            true => Ok(features.to_vec()),
            false => Err(format!("the network returned no {FEATURES} finite features")),
        }
    }
}

/// Features of the crops that were asked for, in their order.
#[derive(Debug, Default)]
pub struct Extracted {
    /// None: the crop could not be read or decoded.
    pub features: Vec<Option<Vec<f32>>>,
    /// How many of them were in the store.
    pub known: usize,
    /// The crops without features, by their place, with the reason.
    pub faults: Vec<(usize, String)>,
}

/// What features are extracted with.
pub struct FeatureSource<'a> {
    pub backbone: &'a Backbone,
    pub runtime: &'a Runtime,
    /// Threads that run the network.
    pub threads: usize,
}

impl FeatureSource<'_> {
    /// The features of `crops`: from the store, or extracted from what `read` returns for the place of a crop, and kept
    /// in the store. `progress` receives how many are done.
    ///
    /// # Errors
    /// The store of the crops is unavailable, the store of features cannot be written, or onnxruntime fails.
    pub async fn features<F, R>(
        &self,
        crops: &[ContentHash],
        store: &mut FeatureStore,
        read: R,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Extracted, FeatureError>
    where
        R: Fn(usize) -> F,
        F: Future<Output = Result<Bytes, CropFault>>,
    {
        let open = |missing: usize| {
            (0..self.threads.clamp(1, missing)).map(|_| Extractor::open(self.backbone, self.runtime)).collect()
        };
        let extract = |extractor: &mut Extractor, _, crop: &[u8]| extractor.extract(crop);
        known_or_extracted(version(self.backbone), crops, store, open, extract, read, progress).await
    }
}

/// The features of `crops` in this version: from the store, or extracted from what `read` returns for the place of a
/// crop, and kept in the store. `open` makes the workers for a number of crops, one for each thread. `progress` receives
/// how many are done.
///
/// # Errors
/// The workers cannot be made, the store of the crops is unavailable, or the store of features cannot be written.
pub async fn known_or_extracted<W, E, O, F>(
    version: ContentHash,
    crops: &[ContentHash],
    store: &mut FeatureStore,
    open: impl FnOnce(usize) -> Result<Vec<W>, O>,
    extract: impl Fn(&mut W, usize, &[u8]) -> Result<Vec<f32>, String> + Clone + Send + 'static,
    read: impl Fn(usize) -> F,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Extracted, E>
where
    W: Send + 'static,
    E: From<FeatureStoreError> + From<CropThreadsError> + From<O>,
    F: Future<Output = Result<Bytes, CropFault>>,
{
    let features = store.read(version, crops)?;
    let missing: Vec<usize> = (0..crops.len()).filter(|&i| features[i].is_none()).collect();
    let mut extracted = Extracted { known: crops.len() - missing.len(), features, faults: Vec::new() };
    progress(extracted.known);
    if missing.is_empty() {
        return Ok(extracted);
    }
    let workers = open(missing.len())?;
    let (mut done, mut fresh) = (extracted.known, Vec::new());
    each_crop(missing, workers, read, extract, |i, result| {
        done += 1;
        match result {
            Ok(features) => {
                fresh.push((crops[i], features.clone()));
                extracted.features[i] = Some(features);
            }
            Err(detail) => extracted.faults.push((i, detail)),
        }
        if fresh.len() >= BATCH {
            store.write(version, &std::mem::take(&mut fresh))?;
        }
        progress(done);
        Ok::<_, E>(())
    })
    .await?;
    store.write(version, &fresh)?;
    extracted.faults.sort();
    Ok(extracted)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use image::RgbImage;

    use super::*;
    use facemill_domain::ImageFormat;
    use facemill_inference::Models;
    use facemill_vision::image::encode;

    fn crop(shade: u8) -> Bytes {
        let pixel = |x: u32, y: u32| image::Rgb([shade, (3 * x) as u8, (2 * y) as u8]);
        encode(&RgbImage::from_fn(64, 64, pixel), ImageFormat::Png).unwrap().into()
    }

    #[tokio::test]
    async fn features_are_extracted_once_and_a_bad_crop_fails_alone() {
        let models = Models::find(std::env::var_os(Models::ENV).map(PathBuf::from));
        let backbone = Backbone::read(&models.lite0()).unwrap();
        let runtime = Runtime::load(&models.onnxruntime()).unwrap();
        let source = FeatureSource { backbone: &backbone, runtime: &runtime, threads: 2 };
        let scratch = tempfile::tempdir().unwrap();
        let mut store = FeatureStore::open(&scratch.path().join("features.sqlite"), FeatureStore::MOST_BYTES).unwrap();
        let files = [crop(10), crop(200), Bytes::from_static(b"no image"), crop(90)];
        let hashes: Vec<ContentHash> = files.iter().map(|file| ContentHash::of(file)).collect();
        let (reads, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let read = |i: usize| {
            reads.fetch_add(1, Ordering::Relaxed);
            let crop = match i {
                3 => Err(CropFault::Crop("it is missing".into())),
                _ => Ok(files[i].clone()),
            };
            std::future::ready(crop)
        };
        let progress = |done| seen.store(done, Ordering::Relaxed);
        let first = source.features(&hashes, &mut store, read, &progress).await.unwrap();
        assert_eq!((first.known, reads.load(Ordering::Relaxed), seen.load(Ordering::Relaxed)), (0, 4, 4));
        assert_eq!(first.faults.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(first.features[0], Some(Extractor::open(&backbone, &runtime).unwrap().extract(&files[0]).unwrap()));
        assert_ne!(first.features[0], first.features[1]);

        let second = source.features(&hashes, &mut store, read, &progress).await.unwrap();
        assert_eq!((second.known, reads.load(Ordering::Relaxed)), (2, 6), "only the bad crops are read again");
        assert_eq!(second.features, first.features);

        let down = |_| std::future::ready(Err(CropFault::Store("the store is down".into())));
        let error = source.features(&hashes, &mut store, down, &progress).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot read the crops: the store is down");
    }
}
