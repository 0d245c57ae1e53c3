//! The four stages with their tools, as a process needs them.

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
use crate::vision::image::Pictures;

/// What all stages together need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    pub models: Models,
    /// How many photos detect, crop and classify each work on at a time.
    pub cores: usize,
    pub rules: Rules,
    /// None: no other process fetches.
    pub turns: Option<Arc<dyn HostLimiter>>,
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

/// The stages of one process, in the order in which a photo passes them.
pub struct Stages {
    pub all: Vec<Arc<dyn Stage>>,
    /// From this P(OK) on a crop counts as OK; known where crops are classified.
    pub ok_threshold: Option<f64>,
}

impl Stages {
    /// Decoded pictures that may wait between detect and crop, in bytes of pixels for each core.
    const PICTURES: usize = 64 << 20;

    /// Loads the models of the stages in `names` and connects the stages to the store.
    pub fn open(names: &[StageName], settings: &Settings, objects: &Arc<dyn Objects>) -> Result<Self, StagesError> {
        let has = |name| names.contains(&name);
        let mut stages = Self { all: Vec::new(), ok_threshold: None };
        if has(StageName::Fetch) {
            let fetcher = Fetcher::new(settings.rules.clone())?;
            let fetcher = match &settings.turns {
                Some(turns) => fetcher.with_limiter(turns.clone()),
                None => fetcher,
            };
            stages.all.push(Arc::new(Fetch::new(objects.clone(), fetcher)));
        }
        if has(StageName::Detect) || has(StageName::Crop) {
            let detector = Detector::open(&settings.models, 2 * settings.cores)?;
            // A photo that is cropped right after it was searched need not be decoded twice.
            let both = has(StageName::Detect) && has(StageName::Crop);
            let pictures = Arc::new(Pictures::new(if both { settings.cores * Self::PICTURES } else { 0 }));
            if has(StageName::Detect) {
                let detect = Detect::new(objects.clone(), detector.clone(), settings.detect);
                stages.all.push(Arc::new(detect.with_pictures(pictures.clone())));
            }
            if has(StageName::Crop) {
                stages.all.push(Arc::new(Crop::new(objects.clone(), detector, settings.crop).with_pictures(pictures)));
            }
        }
        if has(StageName::Classify) {
            let runtime = Runtime::load(&settings.models.onnxruntime())?;
            let open = |_| Model::open(&settings.models.classifier(), &runtime);
            let judges: Vec<Model> = (0..settings.cores).map(open).collect::<Result<_, _>>()?;
            stages.ok_threshold = judges.first().map(Model::threshold);
            stages.all.push(Arc::new(Classify::new(objects.clone(), judges)?));
        }
        Ok(stages)
    }
}

/// Fetch is Rust all through and waits most of the time; the others run native code on strangers' pixels.
pub fn runs_native_code(stage: StageName) -> bool {
    stage != StageName::Fetch
}
