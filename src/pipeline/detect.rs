//! The detect stage: finds the face of a photo.

use std::sync::Arc;

use ::image::RgbImage;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinError;

use super::gate;
pub use super::run_shapes::DetectSettings;
use super::run_shapes::RunShapes;
use super::stage::{Outcome, Retry, Stage, panic_text, store_failed};
use crate::domain::{Cause, CauseCode, Original, Photo, StageName};
use crate::objects::{ObjectKey, Objects};
use crate::vision::detector::{Detector, NoFace};
use crate::vision::image::{self, DecodeError, ImageCache, Limits};

/// Reads the original, adds [`crate::domain::Face`].
pub struct Detect {
    originals: Originals,
    detector: Detector,
    settings: DetectSettings,
    runs: Option<Arc<RunShapes>>,
}

impl Detect {
    pub fn new(objects: Arc<dyn Objects>, detector: Detector, settings: DetectSettings) -> Self {
        Self { originals: Originals::new(objects), detector, settings, runs: None }
    }

    /// Shares the decoded pictures with the crop stage of the same process.
    #[must_use]
    pub fn with_image_cache(mut self, pictures: Arc<ImageCache>) -> Self {
        self.originals.pictures = Some(pictures);
        self
    }

    /// Uses the settings of each photo's run instead of its own.
    #[must_use]
    pub fn with_run_shapes(mut self, runs: Option<Arc<RunShapes>>) -> Self {
        self.runs = runs;
        self
    }

    async fn detect(&self, photo: &Photo) -> Result<Photo, Outcome> {
        let original = original(photo)?;
        let settings = match &self.runs {
            Some(runs) => DetectSettings::from(&runs.of(&photo.run).await?),
            None => self.settings,
        };
        let bytes = self.originals.read(original).await?;
        let detector = self.detector.clone();
        let (picture, face) = off_thread(move || {
            let picture = image::decode(&bytes, settings.limits).map_err(|error| reject_picture(&error))?;
            let face = detector
                .find(&picture, settings.search, settings.min_face, settings.faces)
                .map_err(|error| reject_face(&error))?;
            Ok((picture, face))
        })
        .await?;
        if let Some(pictures) = &self.originals.pictures {
            pictures.put(original.sha256, Arc::new(picture));
        }
        let mut photo = photo.clone();
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

/// Reads originals for detect and crop.
pub(super) struct Originals {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) pictures: Option<Arc<ImageCache>>,
}

impl Originals {
    pub(super) fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects, pictures: None }
    }

    async fn read(&self, original: &Original) -> Result<Bytes, Outcome> {
        let key = ObjectKey::original(original.sha256, original.format);
        self.objects.get(&key).await.map_err(|error| store_failed(&error))
    }

    /// The upright pixels: from the cache of the detect stage, or decoded.
    pub(super) async fn picture(&self, original: &Original, limits: Limits) -> Result<Arc<RgbImage>, Outcome> {
        if let Some(picture) = self.pictures.as_ref().and_then(|pictures| pictures.take(original.sha256)) {
            return Ok(picture);
        }
        let bytes = self.read(original).await?;
        off_thread(move || image::decode(&bytes, limits).map(Arc::new).map_err(|error| reject_picture(&error))).await
    }
}

/// The original that fetch has stored.
pub(super) fn original(photo: &Photo) -> Result<&Original, Outcome> {
    let unfit =
        || Outcome::Poison(Cause::new(CauseCode::UnfitMessage, "the photo has no original: it has not passed fetch"));
    photo.facts.original.as_ref().ok_or_else(unfit)
}

/// Runs native or blocking work off the async threads. A panic is a failed attempt.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Outcome> + Send + 'static,
) -> Result<T, Outcome> {
    gate::spawn_blocking(work).await.map_err(panicked).flatten()
}

fn panicked(error: JoinError) -> Outcome {
    let detail = error.try_into_panic().map_or_else(|error| error.to_string(), |panic| panic_text(panic.as_ref()));
    Retry::failed(Cause::new(CauseCode::Panic, detail))
}

fn reject_picture(error: &DecodeError) -> Outcome {
    Outcome::Reject(Cause::new(error.code(), error.to_string()))
}

fn reject_face(error: &NoFace) -> Outcome {
    match error.code() {
        Some(code) => Outcome::Reject(Cause::new(code, error.to_string())),
        None => Retry::failed(Cause::new(CauseCode::DetectorFailed, error.to_string())),
    }
}
