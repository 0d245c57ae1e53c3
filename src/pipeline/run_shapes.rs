//! The settings of each photo's run, for workers: they serve many runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::instrument::WithSubscriber;

use super::stage::{Outcome, Retry, store_failed};
use crate::archive::run_settings::{RunSettings, StoredRunSettings};
use crate::domain::{Align, Cause, CauseCode, ContentHash, FacePolicy, Fill, ImageFormat, RunName, Search};
use crate::objects::Objects;
use crate::telemetry::silence::SILENT;
use crate::vision::image::Limits;

/// The settings of the detect stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectSettings {
    pub search: Search,
    pub faces: FacePolicy,
    /// The least width of a face, in pixels of dlib's box.
    pub min_face: u32,
    pub limits: Limits,
}

impl Default for DetectSettings {
    /// 80 pixels is the smallest face that dlib finds without upsampling.
    fn default() -> Self {
        Self { search: Search::Guided, faces: FacePolicy::One, min_face: 80, limits: Limits::default() }
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

/// The settings that detect and crop have in common, as a run keeps them. `landmark_model` is the hash of the file.
pub fn run_settings(detect: &DetectSettings, crop: &CropSettings, landmark_model: ContentHash) -> RunSettings {
    RunSettings {
        search: detect.search,
        faces: detect.faces,
        min_face: detect.min_face,
        align: crop.align,
        fill: crop.fill,
        image_format: crop.image_format,
        max_megapixels: detect.limits.megapixels(),
        landmark_model,
    }
}

impl From<&RunSettings> for DetectSettings {
    fn from(run: &RunSettings) -> Self {
        let limits = Limits::of_megapixels(run.max_megapixels);
        Self { search: run.search, faces: run.faces, min_face: run.min_face, limits }
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
    own: RunSettings,
    /// An error: this process cannot work on the run.
    known: Mutex<HashMap<RunName, Result<RunSettings, Cause>>>,
}

impl RunShapes {
    /// `own` are the settings of this process. They become those of a run that has none.
    pub fn new(objects: Arc<dyn Objects>, own: RunSettings) -> Self {
        Self { stored: StoredRunSettings::new(objects), own, known: Mutex::default() }
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
                let fixed = self.stored.fix(run, &self.own).with_subscriber(SILENT.clone()).await;
                let stored = fixed.map_err(|error| store_failed(&error))?;
                let checked = self.check(run, stored);
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(run.clone(), checked.clone());
                checked
            }
        };
        settings.map_err(|cause| Retry::wait(cause, None))
    }

    fn check(&self, run: &RunName, stored: RunSettings) -> Result<RunSettings, Cause> {
        let differences = stored.differences(&self.own);
        if let Some(model) = differences.iter().find(|difference| difference.setting == "landmark-model") {
            let detail = format!("run {run} needs {model}: give this worker the models folder of the run");
            tracing::error!(%run, "{detail}");
            return Err(Cause::new(CauseCode::RunSettings, detail));
        }
        for difference in differences {
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

    fn own() -> RunSettings {
        run_settings(&DetectSettings::default(), &CropSettings::default(), ContentHash::of(b"landmarks"))
    }

    #[tokio::test]
    async fn a_worker_takes_the_settings_of_the_run() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let (run, new) = (RunName::default(), "new".parse().unwrap());
        let stored = StoredRunSettings::new(objects.clone());
        let ffhq = RunSettings { align: Align::Ffhq, fill: Fill::Ffhq, max_megapixels: 7, ..own() };
        stored.agree(&run, &ffhq).await.unwrap();
        let worker = RunShapes::new(objects.clone(), own());
        for _ in 0..2 {
            assert_eq!(worker.of(&run).await.unwrap(), ffhq);
        }
        let crop = CropSettings::from(&ffhq);
        assert_eq!((crop.align, crop.fill), (Align::Ffhq, Fill::Ffhq));
        assert_eq!(DetectSettings::from(&ffhq).limits.pixels, 7_000_000);
        assert_eq!(worker.of(&new).await.unwrap(), own());
        assert_eq!(stored.read(&new).await.unwrap(), Some(own()));

        let other = RunShapes::new(objects, RunSettings { landmark_model: ContentHash::of(b"others"), ..own() });
        let Err(Outcome::Retry(retry)) = other.of(&run).await else { panic!("it works on the run") };
        assert_eq!((retry.cause.code, retry.costs_attempt), (CauseCode::RunSettings, false));
        assert!(retry.cause.detail.contains("landmark-model"), "{}", retry.cause.detail);
    }
}
