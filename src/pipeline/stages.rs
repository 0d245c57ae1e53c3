//! Opens the stages of a process, with their models and clients.

use std::sync::Arc;

use super::classify::{Classify, ClassifyError, CropScorer};
use super::crop::{Crop, CropSettings};
use super::detect::{Detect, DetectSettings};
use super::fetch::Fetch;
use super::handover::Handover;
use super::originals::Originals;
use super::run_shapes::{GivenSettings, RunShapes, landmark_hashes};
use super::stage::Stage;
use super::stored_photos::StoredAccess;
use crate::classifier::model::{ModelError, ModelFile};
use crate::domain::StageName;
use crate::inference::{InferenceError, Models, Runtime};
use crate::memory::MemoryBudget;
use crate::net::host_limiter::HostLimiter;
use crate::net::{Fetcher, Rules, SetupError};
use crate::objects::Objects;
use crate::vision::detector::{Detector, OpenError};

/// The settings of all stages.
#[derive(Debug, Clone)]
pub struct StageSettings {
    pub models: Models,
    /// How many photos detect, crop and classify each process at the same time.
    pub cores: usize,
    /// The memory in bytes for the images that detect and crop decode.
    pub decode_memory: u64,
    pub rules: Rules,
    /// Where the photos of folders and buckets are read.
    pub stored_access: StoredAccess,
    /// None: no other process fetches.
    pub host_limiter: Option<Arc<dyn HostLimiter>>,
    /// Detect and crop use the settings that each photo's run keeps in the object store. These become the settings of a
    /// run that has none.
    pub given: GivenSettings,
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
    #[error(transparent)]
    Classify(#[from] ClassifyError),
}

/// The stages of one process, in pipeline order.
pub struct Stages {
    pub all: Vec<Arc<dyn Stage>>,
    /// The classifier beside the program, if crops are classified here.
    pub classifier: Option<Arc<ModelFile>>,
    /// The threads of classify, if crops are classified here.
    pub scorer: Option<CropScorer>,
}

impl Stages {
    /// The room for decoded pictures between detect and crop, in bytes of pixels for each core: a few photos.
    const PICTURES: usize = 12 << 20;
    /// The room for small copies of crops between crop and classify, in bytes of pixels for each core.
    const SMALL_CROPS: usize = 4 << 20;

    /// Opens the stages in `names`, with the models that they need.
    pub fn open(
        names: &[StageName],
        settings: &StageSettings,
        objects: &Arc<dyn Objects>,
    ) -> Result<Self, StagesError> {
        let has = |name| names.contains(&name);
        let mut stages = Self { all: Vec::new(), classifier: None, scorer: None };
        let inputs = (has(StageName::Crop) && has(StageName::Classify))
            .then(|| Arc::new(Handover::new(settings.cores * Self::SMALL_CROPS)));
        if has(StageName::Fetch) {
            let fetcher = Fetcher::new(settings.rules.clone())?;
            let fetcher = match &settings.host_limiter {
                Some(limiter) => fetcher.with_limiter(limiter.clone()),
                None => fetcher,
            };
            stages.all.push(Arc::new(
                Fetch::new(objects.clone(), fetcher).with_stored_photos(settings.stored_access.clone()),
            ));
        }
        if has(StageName::Detect) || has(StageName::Crop) {
            let detector = Detector::open(&settings.models, 2 * settings.cores, settings.given.scheme(None))?;
            let hashes = landmark_hashes(settings.models.clone());
            let runs = Arc::new(RunShapes::new(objects.clone(), settings.given, hashes));
            let memory = Arc::new(MemoryBudget::new(settings.decode_memory));
            let mut originals = Originals::new(objects.clone()).with_memory(memory);
            if has(StageName::Detect) && has(StageName::Crop) {
                originals = originals.with_images(Arc::new(Handover::new(settings.cores * Self::PICTURES)));
            }
            if has(StageName::Detect) {
                let detect = Detect::new(originals.clone(), detector.clone(), DetectSettings::default());
                stages.all.push(Arc::new(detect.with_run_shapes(runs.clone())));
            }
            if has(StageName::Crop) {
                let crop = Crop::new(originals, detector, CropSettings::default()).with_run_shapes(runs);
                stages.all.push(match &inputs {
                    Some(inputs) => Arc::new(crop.with_inputs(inputs.clone())),
                    None => Arc::new(crop),
                });
            }
        }
        if has(StageName::Classify) {
            let runtime = Runtime::load(&settings.models.onnxruntime())?;
            let file = Arc::new(ModelFile::read(&settings.models.classifier())?);
            stages.classifier = Some(file.clone());
            let classify = Classify::new(objects.clone(), file, &runtime, settings.cores)?;
            stages.scorer = Some(classify.scorer());
            stages.all.push(match inputs {
                Some(inputs) => Arc::new(classify.with_inputs(inputs)),
                None => Arc::new(classify),
            });
        }
        Ok(stages)
    }
}

/// Whether a stage runs native code on untrusted pixels. Fetch does not.
pub fn runs_native_code(stage: StageName) -> bool {
    stage != StageName::Fetch
}
