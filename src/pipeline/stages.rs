//! The four stages with their tools, as a process needs them.

use std::sync::Arc;

use super::classify::Classify;
use super::crop::{Crop, CropSettings};
use super::detect::{Detect, DetectSettings};
use super::fetch::Fetch;
use super::stage::Stage;
use crate::classifier::model::{Model, ModelError};
use crate::config::Models;
use crate::inference::{InferenceError, Runtime};
use crate::net::{Fetcher, Rules, SetupError};
use crate::objects::Objects;
use crate::photo::StageName;
use crate::vision::detector::{Detector, OpenError};
use crate::vision::image::Pictures;

/// What all stages together need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    pub models: Models,
    /// How many photos detect, crop and classify each work on at a time.
    pub cores: usize,
    pub rules: Rules,
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
    pub all: [Arc<dyn Stage>; 4],
    /// From this P(OK) on a crop counts as OK.
    pub ok_threshold: f64,
}

impl Stages {
    /// Decoded pictures that may wait between detect and crop, in bytes of pixels for each core.
    const PICTURES: usize = 64 << 20;

    /// Loads every model and connects the stages to the store.
    pub fn open(settings: &Settings, objects: &Arc<dyn Objects>) -> Result<Self, StagesError> {
        let Settings { models, cores, rules, detect, crop } = settings.clone();
        let fetcher = Fetcher::new(rules)?;
        let detector = Detector::open(&models, 2 * cores)?;
        let runtime = Runtime::load(&models.onnxruntime())?;
        let judges: Vec<Model> =
            (0..cores).map(|_| Model::open(&models.classifier(), &runtime)).collect::<Result<_, _>>()?;
        let ok_threshold = judges.first().map_or(0.5, Model::threshold);
        // A photo that is cropped right after it was searched need not be decoded twice.
        let pictures = Arc::new(Pictures::new(cores * Self::PICTURES));
        let all: [Arc<dyn Stage>; 4] = [
            Arc::new(Fetch::new(objects.clone(), fetcher)),
            Arc::new(Detect::new(objects.clone(), detector.clone(), detect).with_pictures(pictures.clone())),
            Arc::new(Crop::new(objects.clone(), detector, crop).with_pictures(pictures)),
            Arc::new(Classify::new(objects.clone(), judges)?),
        ];
        Ok(Self { all, ok_threshold })
    }
}

/// Fetch is Rust all through and waits most of the time; the others run native code on strangers' pixels.
pub fn runs_native_code(stage: StageName) -> bool {
    stage != StageName::Fetch
}
