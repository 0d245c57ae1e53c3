//! Opens the stages of a process, with their models and clients.

use std::sync::Arc;

use super::classify::Classify;
use super::crop::{Crop, CropSettings};
use super::detect::{Detect, DetectSettings};
use super::fetch::Fetch;
use super::stage::Stage;
use crate::classifier::model::{Model, ModelError};
use crate::config::Models;
use crate::domain::StageName;
use crate::inference::{InferenceError, Runtime};
use crate::net::host_limiter::HostLimiter;
use crate::net::{Fetcher, Rules, SetupError};
use crate::objects::Objects;
use crate::vision::detector::{Detector, OpenError};
use crate::vision::image::ImageCache;

/// The settings of all stages.
#[derive(Debug, Clone)]
pub struct Settings {
    pub models: Models,
    /// How many photos detect, crop and classify each process at the same time.
    pub cores: usize,
    pub rules: Rules,
    /// None: no other process fetches.
    pub host_limiter: Option<Arc<dyn HostLimiter>>,
    pub detect: DetectSettings,
    pub crop: CropSettings,
}

#[derive(Debug, thiserror::Error)]
pub enum StagesError {
    #[error(transparent)]
    Fetcher(#[from] SetupError),
    #[error(transparent)]
    Detector(#[from] OpenError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Classifier(#[from] ModelError),
    #[error("cannot start the classifier's threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// The stages of one process, in pipeline order.
pub struct Stages {
    pub all: Vec<Arc<dyn Stage>>,
    /// A crop counts as OK from this P(OK). None: the process does not classify.
    pub ok_threshold: Option<f64>,
}

impl Stages {
    /// The size of the cache of decoded pictures between detect and crop, in bytes of pixels for each core.
    const PICTURES: usize = 64 << 20;

    /// Opens the stages in `names`, with the models that they need.
    pub fn open(names: &[StageName], settings: &Settings, objects: &Arc<dyn Objects>) -> Result<Self, StagesError> {
        let has = |name| names.contains(&name);
        let mut stages = Self { all: Vec::new(), ok_threshold: None };
        if has(StageName::Fetch) {
            let fetcher = Fetcher::new(settings.rules.clone())?;
            let fetcher = match &settings.host_limiter {
                Some(limiter) => fetcher.with_limiter(limiter.clone()),
                None => fetcher,
            };
            stages.all.push(Arc::new(Fetch::new(objects.clone(), fetcher)));
        }
        if has(StageName::Detect) || has(StageName::Crop) {
            let detector = Detector::open(&settings.models, 2 * settings.cores)?;
            // With both stages in one process, crop takes the pictures that detect has decoded.
            let both = has(StageName::Detect) && has(StageName::Crop);
            let pictures = Arc::new(ImageCache::new(if both { settings.cores * Self::PICTURES } else { 0 }));
            if has(StageName::Detect) {
                let detect = Detect::new(objects.clone(), detector.clone(), settings.detect);
                stages.all.push(Arc::new(detect.with_image_cache(pictures.clone())));
            }
            if has(StageName::Crop) {
                stages
                    .all
                    .push(Arc::new(Crop::new(objects.clone(), detector, settings.crop).with_image_cache(pictures)));
            }
        }
        if has(StageName::Classify) {
            let runtime = Runtime::load(&settings.models.onnxruntime())?;
            let open = |_| Model::open(&settings.models.classifier(), &runtime);
            let models: Vec<Model> = (0..settings.cores).map(open).collect::<Result<_, _>>()?;
            stages.ok_threshold = models.first().map(Model::threshold);
            stages.all.push(Arc::new(Classify::new(objects.clone(), models)?));
        }
        Ok(stages)
    }
}

/// Whether a stage runs native code on untrusted pixels. Fetch does not.
pub fn runs_native_code(stage: StageName) -> bool {
    stage != StageName::Fetch
}
