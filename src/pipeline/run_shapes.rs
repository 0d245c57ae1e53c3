//! The settings of each photo's run, for workers: they serve many runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinError, spawn_blocking};
use tracing::instrument::WithSubscriber;

use super::stage::{Outcome, Retry, store_failed};
use crate::archive::run_settings::{RunSettings, RunSettingsError, StoredRunSettings};
use crate::domain::{
    Align, Cause, CauseCode, ContentHash, FacePolicy, Fill, ImageFormat, LandmarkScheme, RunName, Search,
};
use crate::inference::{InferenceError, Models, file_hash};
use crate::objects::Objects;
use crate::telemetry::silence::SILENT;
use crate::vision::image::Limits;

/// The settings of the detect stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectSettings {
    pub search: Search,
    pub landmarks: LandmarkScheme,
    pub faces: FacePolicy,
    /// The least width of a face, in pixels of dlib's box.
    pub min_face: u32,
    pub limits: Limits,
}

impl Default for DetectSettings {
    /// 80 pixels is the smallest face that dlib finds without upsampling.
    fn default() -> Self {
        Self {
            search: Search::Guided,
            landmarks: LandmarkScheme::default(),
            faces: FacePolicy::One,
            min_face: 80,
            limits: Limits::default(),
        }
    }
}

/// The settings of the crop stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropSettings {
    pub align: Align,
    pub fill: Fill,
    /// PNG or JPEG.
    pub image_format: ImageFormat,
    pub limits: Limits,
}

impl Default for CropSettings {
    fn default() -> Self {
        Self { align: Align::Paper, fill: Fill::Mirror, image_format: ImageFormat::Png, limits: Limits::default() }
    }
}

/// The hashes of the landmark models that this process has. A call may read the file.
pub type LandmarkHashes = Arc<dyn Fn(LandmarkScheme) -> Result<ContentHash, InferenceError> + Send + Sync>;

/// The hashes of the landmark models in a folder. Only the file of the scheme in question is read.
pub fn landmark_hashes(models: Models) -> LandmarkHashes {
    Arc::new(move |scheme| file_hash::sha256(&models.landmarks(scheme)))
}

/// A run cannot be started, or not continued with the settings that are given.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    #[error(transparent)]
    Settings(#[from] RunSettingsError),
    #[error(transparent)]
    LandmarkModel(#[from] InferenceError),
    /// The thread that read the landmark model panicked.
    #[error(transparent)]
    Panic(#[from] JoinError),
}

/// The settings that detect and crop have in common, as a run keeps them. `landmark_model` is the hash of the file.
pub fn run_settings(detect: &DetectSettings, crop: &CropSettings, landmark_model: ContentHash) -> RunSettings {
    RunSettings {
        search: detect.search,
        landmarks: detect.landmarks,
        faces: detect.faces,
        min_face: detect.min_face,
        align: crop.align,
        fill: crop.fill,
        image_format: crop.image_format,
        max_megapixels: detect.limits.megapixels(),
        landmark_model,
    }
}

/// The settings of a run that a person gives. None: as the run has it; for a new run the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenSettings {
    pub search: Option<Search>,
    pub landmarks: Option<LandmarkScheme>,
    pub faces: Option<FacePolicy>,
    pub min_face: Option<u32>,
    pub align: Option<Align>,
    pub fill: Option<Fill>,
    pub image_format: Option<ImageFormat>,
    pub max_megapixels: Option<u64>,
}

impl GivenSettings {
    /// What is given, and the rest of `run`. `landmark_model` is the hash of this process's file for the scheme.
    pub fn over(&self, run: &RunSettings, landmark_model: ContentHash) -> RunSettings {
        RunSettings {
            search: self.search.unwrap_or(run.search),
            landmarks: self.landmarks.unwrap_or(run.landmarks),
            faces: self.faces.unwrap_or(run.faces),
            min_face: self.min_face.unwrap_or(run.min_face),
            align: self.align.unwrap_or(run.align),
            fill: self.fill.unwrap_or(run.fill),
            image_format: self.image_format.unwrap_or(run.image_format),
            max_megapixels: self.max_megapixels.unwrap_or(run.max_megapixels),
            landmark_model,
        }
    }

    /// The scheme of the landmarks: that which is given, else that of the run, if it has settings.
    pub fn scheme(&self, run: Option<&RunSettings>) -> LandmarkScheme {
        self.landmarks.or(run.map(|run| run.landmarks)).unwrap_or_default()
    }

    /// The settings of a new run.
    pub fn of_new_run(&self, landmark_model: ContentHash) -> RunSettings {
        let defaults = run_settings(&DetectSettings::default(), &CropSettings::default(), landmark_model);
        self.over(&defaults, landmark_model)
    }

    /// Starts or continues a run: with its own settings where nothing else is given.
    ///
    /// # Errors
    /// [`RunSettingsError::Differ`]: other settings are given than those of the run.
    /// [`AgreeError::LandmarkModel`]: the model of the landmarks cannot be read.
    pub async fn agree(
        &self,
        run: &RunName,
        hashes: &LandmarkHashes,
        objects: Arc<dyn Objects>,
    ) -> Result<RunSettings, AgreeError> {
        let stored = StoredRunSettings::new(objects);
        let known = stored.read(run).await.map_err(RunSettingsError::from)?;
        let scheme = self.scheme(known.as_ref());
        let hashes = hashes.clone();
        let landmark_model = spawn_blocking(move || hashes(scheme)).await??;
        let settings = match known {
            Some(known) => self.over(&known, landmark_model),
            None => self.of_new_run(landmark_model),
        };
        stored.agree(run, &settings).await?;
        Ok(settings)
    }
}

impl From<&RunSettings> for DetectSettings {
    fn from(run: &RunSettings) -> Self {
        let limits = Limits::of_megapixels(run.max_megapixels);
        Self { search: run.search, landmarks: run.landmarks, faces: run.faces, min_face: run.min_face, limits }
    }
}

impl From<&RunSettings> for CropSettings {
    fn from(run: &RunSettings) -> Self {
        let limits = Limits::of_megapixels(run.max_megapixels);
        Self { align: run.align, fill: run.fill, image_format: run.image_format, limits }
    }
}

/// Looks up the settings of runs, and keeps them in memory: they never change.
pub struct RunShapes {
    stored: StoredRunSettings,
    given: GivenSettings,
    hashes: LandmarkHashes,
    /// An error: this process cannot work on the run.
    known: Mutex<HashMap<RunName, Result<RunSettings, Cause>>>,
}

impl RunShapes {
    /// `given` are the settings of this process. They become those of a run that has none.
    pub fn new(objects: Arc<dyn Objects>, given: GivenSettings, hashes: LandmarkHashes) -> Self {
        Self { stored: StoredRunSettings::new(objects), given, hashes, known: Mutex::default() }
    }

    /// The settings of a run.
    ///
    /// # Errors
    /// The photo waits: the store fails, or this process has another landmark model than the run.
    pub async fn of(&self, run: &RunName) -> Result<RunSettings, Outcome> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned();
        let settings = match known {
            Some(known) => known,
            None => {
                // This lookup is for all photos of the run: it does not belong in the trace of one.
                let stored = self.stored.read(run).with_subscriber(SILENT.clone()).await;
                let stored = match stored.map_err(|error| store_failed(&error))? {
                    Some(stored) => stored,
                    None => {
                        let own = self.hash(self.given.scheme(None)).await.map(|hash| self.given.of_new_run(hash));
                        let own =
                            own.map_err(|detail| Retry::wait(Cause::new(CauseCode::RunSettings, detail), None))?;
                        let fixed = self.stored.fix(run, &own).with_subscriber(SILENT.clone()).await;
                        fixed.map_err(|error| store_failed(&error))?
                    }
                };
                let checked = self.check(run, stored).await;
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(run.clone(), checked.clone());
                checked
            }
        };
        settings.map_err(|cause| Retry::wait(cause, None))
    }

    /// The hash of this process's model for a scheme.
    async fn hash(&self, scheme: LandmarkScheme) -> Result<ContentHash, String> {
        let hashes = self.hashes.clone();
        let hash = spawn_blocking(move || hashes(scheme)).await;
        hash.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())
    }

    async fn check(&self, run: &RunName, stored: RunSettings) -> Result<RunSettings, Cause> {
        let unfit = |detail: String| {
            tracing::error!(%run, "{detail}");
            Cause::new(CauseCode::RunSettings, detail)
        };
        let scheme = stored.landmarks;
        let own =
            self.hash(scheme).await.map_err(|error| unfit(format!("run {run} has --landmarks {scheme}: {error}")))?;
        if own != stored.landmark_model {
            let model = stored.landmark_model;
            let detail = format!(
                "run {run} needs landmark-model {model} (now {own}): give this worker the models folder of the run"
            );
            return Err(unfit(detail));
        }
        for difference in stored.differences(&self.given.over(&stored, own)) {
            tracing::warn!(%run, "the run's setting counts: {difference}");
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Align;
    use crate::objects::folder::Folder;

    /// A process whose model of a scheme is that which the scheme's name is the content of.
    fn hashes() -> LandmarkHashes {
        Arc::new(|scheme| Ok(hash_of(scheme)))
    }

    fn hash_of(scheme: LandmarkScheme) -> ContentHash {
        ContentHash::of(scheme.as_str().as_bytes())
    }

    fn without_model() -> LandmarkHashes {
        landmark_hashes(Models::at("/nowhere"))
    }

    #[tokio::test]
    async fn what_is_not_given_is_taken_from_the_run() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let run = RunName::default();
        let agree = async |given: GivenSettings| given.agree(&run, &hashes(), objects.clone()).await;
        let ffhq = GivenSettings { align: Some(Align::Ffhq), min_face: Some(90), ..GivenSettings::default() };
        let first = agree(ffhq).await.unwrap();
        assert_eq!((first.align, first.min_face, first.fill), (Align::Ffhq, 90, Fill::Mirror));
        assert_eq!(agree(GivenSettings::default()).await.unwrap(), first);
        assert_eq!(agree(ffhq).await.unwrap(), first);
        let other = GivenSettings { align: Some(Align::Paper), ..GivenSettings::default() };
        let error = agree(other).await.unwrap_err().to_string();
        assert!(error.contains("--align ffhq (now paper)") && !error.contains("min-face"), "{error}");
    }

    #[tokio::test]
    async fn the_landmarks_of_a_run_are_fixed_with_their_model() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let run = RunName::default();
        let permissive = GivenSettings { landmarks: Some(LandmarkScheme::Permissive), ..GivenSettings::default() };
        let error = permissive.agree(&run, &without_model(), objects.clone()).await.unwrap_err().to_string();
        assert!(error.contains("face-mesh.onnx"), "{error}");
        let first = permissive.agree(&run, &hashes(), objects.clone()).await.unwrap();
        let scheme = LandmarkScheme::Permissive;
        assert_eq!((first.landmarks, first.landmark_model), (scheme, hash_of(scheme)));
        assert_eq!(GivenSettings::default().agree(&run, &hashes(), objects.clone()).await.unwrap(), first);
        let ibug = GivenSettings { landmarks: Some(LandmarkScheme::Ibug), ..GivenSettings::default() };
        let error = ibug.agree(&run, &hashes(), objects.clone()).await.unwrap_err().to_string();
        assert!(error.contains("--landmarks permissive (now ibug)"), "{error}");

        // A worker takes the scheme of the run, if it has its model.
        let worker = RunShapes::new(objects.clone(), ibug, hashes());
        assert_eq!(DetectSettings::from(&worker.of(&run).await.unwrap()).landmarks, LandmarkScheme::Permissive);
        let Err(Outcome::Retry(retry)) = RunShapes::new(objects, ibug, without_model()).of(&run).await else {
            panic!("it works on the run")
        };
        assert_eq!((retry.cause.code, retry.costs_attempt), (CauseCode::RunSettings, false));
        assert!(retry.cause.detail.contains("face-mesh.onnx"), "{}", retry.cause.detail);
    }

    #[tokio::test]
    async fn a_worker_takes_the_settings_of_the_run() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let (run, new) = (RunName::default(), "new".parse().unwrap());
        let stored = StoredRunSettings::new(objects.clone());
        let own = GivenSettings { align: Some(Align::Paper), ..GivenSettings::default() };
        let new_run = own.of_new_run(hash_of(LandmarkScheme::Ibug));
        let ffhq = RunSettings { align: Align::Ffhq, fill: Fill::Ffhq, max_megapixels: 7, ..new_run.clone() };
        stored.agree(&run, &ffhq).await.unwrap();
        let worker = RunShapes::new(objects.clone(), own, hashes());
        for _ in 0..2 {
            assert_eq!(worker.of(&run).await.unwrap(), ffhq);
        }
        let crop = CropSettings::from(&ffhq);
        assert_eq!((crop.align, crop.fill), (Align::Ffhq, Fill::Ffhq));
        assert_eq!(DetectSettings::from(&ffhq).limits.pixels, 7_000_000);
        assert_eq!(worker.of(&new).await.unwrap(), new_run);
        assert_eq!(stored.read(&new).await.unwrap(), Some(new_run));

        let other = RunShapes::new(objects, own, Arc::new(|_| Ok(ContentHash::of(b"others"))));
        let Err(Outcome::Retry(retry)) = other.of(&run).await else { panic!("it works on the run") };
        assert_eq!((retry.cause.code, retry.costs_attempt), (CauseCode::RunSettings, false));
        assert!(retry.cause.detail.contains("landmark-model"), "{}", retry.cause.detail);
    }
}
