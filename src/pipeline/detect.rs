//! The detect stage: finds the face of a photo.

use std::sync::Arc;

use async_trait::async_trait;

use super::originals::{Originals, original};
pub use super::run_shapes::DetectSettings;
use super::run_shapes::RunShapes;
use super::stage::{Outcome, Retry, Stage};
use crate::domain::{Cause, CauseCode, Decoding, Photo, StageName};
use crate::vision::detector::{self, Detector, NoFace};

/// Reads the original, adds [`crate::domain::Face`].
pub struct Detect {
    originals: Originals,
    detector: Detector,
    settings: DetectSettings,
    runs: Option<Arc<RunShapes>>,
}

impl Detect {
    pub fn new(originals: Originals, detector: Detector, settings: DetectSettings) -> Self {
        Self { originals, detector, settings, runs: None }
    }

    /// Uses the settings of each photo's run instead of its own.
    #[must_use]
    pub fn with_run_shapes(mut self, runs: Arc<RunShapes>) -> Self {
        self.runs = Some(runs);
        self
    }

    async fn detect(&self, photo: &Photo) -> Result<Photo, Outcome> {
        let original = original(photo)?;
        let settings = match &self.runs {
            Some(runs) => DetectSettings::from(&runs.of(&photo.run).await?),
            None => self.settings,
        };
        self.originals.let_next_stage_catch_up().await;
        let detector = self.detector.clone();
        let extra_memory = |width, height| detector::memory(settings.search, width, height);
        let search = move |image: &_, _| {
            detector
                .find(image, settings.search, settings.landmarks, settings.min_face, settings.faces)
                .map_err(|error| reject_face(&error))
        };
        let (image, decoding, face) = self.originals.work_on(original, settings.limits, extra_memory, search).await?;
        self.originals.keep(original, image);
        let mut photo = photo.clone();
        photo.facts.decoding = (decoding != Decoding::default()).then_some(decoding);
        photo.facts.face = Some(face);
        Ok(photo)
    }
}

#[async_trait]
impl Stage for Detect {
    fn name(&self) -> StageName {
        StageName::Detect
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        self.detect(photo).await.map_or_else(|outcome| outcome, |photo| Outcome::Advance(Box::new(photo)))
    }
}

fn reject_face(error: &NoFace) -> Outcome {
    match error.code() {
        Some(code) => Outcome::Reject(Cause::new(code, error.to_string())),
        None => Retry::failed(Cause::new(CauseCode::DetectorFailed, error.to_string())),
    }
}
