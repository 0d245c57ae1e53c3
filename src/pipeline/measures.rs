//! The quality of a crop, put together from its pixels, its landmarks and the file of its original.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::image::RgbImage;
use tracing::instrument::WithSubscriber;

use super::stage::{Outcome, store_failed};
use crate::archive::landmark_references::LandmarkReferences;
use crate::domain::{Align, ContentHash, LandmarkReference, LandmarkScheme, Quality, RunName};
use crate::objects::Objects;
use crate::telemetry::silence::SILENT;
use crate::vision::geometry::round;
use crate::vision::pose;
use crate::vision::quality::PixelQuality;

/// What is known of a crop beside its pixels.
#[derive(Debug, Clone, Copy)]
pub struct CropFacts<'a> {
    /// 68 points in pixels of the crop.
    pub landmarks: &'a [[f32; 2]],
    /// Rotation of the square, degrees.
    pub angle: f64,
    /// Of the original's file.
    pub jpeg_quality: Option<u8>,
    /// What is usual in the run.
    pub reference: &'a LandmarkReference,
}

/// The quality of a crop. `pixels`: those that its stored file decodes to; `measured`: what
/// [`crate::vision::quality::measure`] says of them.
pub fn quality(pixels: &RgbImage, measured: &PixelQuality, facts: CropFacts<'_>) -> Quality {
    let CropFacts { landmarks, angle, jpeg_quality, reference } = facts;
    let pose = pose::measure(landmarks);
    Quality {
        contrast: round(measured.contrast, 4),
        saturation: round(measured.saturation, 4),
        face_blur: round(measured.face_blur, 2),
        jpeg_quality,
        yaw: round(pose.yaw, 3),
        pitch: round(pose.pitch, 3),
        eyes_open: round(pose.eyes_open, 3),
        mouth_open: round(pose.mouth_open, 3),
        outlier: round(pose::outlier(landmarks, pixels.width(), angle, reference), 3),
        pixels: ContentHash::of(pixels),
    }
}

/// Looks up the landmark references of runs, and keeps them in memory: they never change.
pub struct RunReferences {
    stored: LandmarkReferences,
    known: Mutex<HashMap<RunName, Arc<LandmarkReference>>>,
}

impl RunReferences {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { stored: LandmarkReferences::new(objects), known: Mutex::default() }
    }

    /// The reference of a run with this alignment and these landmarks. A run that has none gets that of the program.
    ///
    /// # Errors
    /// The photo waits: the store fails.
    pub async fn of(
        &self,
        run: &RunName,
        align: Align,
        scheme: LandmarkScheme,
    ) -> Result<Arc<LandmarkReference>, Outcome> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        // This lookup is for all photos of the run: it does not belong in the trace of one.
        let fixed = self.stored.fix(run, &pose::reference(align, scheme)).with_subscriber(SILENT.clone()).await;
        let reference = Arc::new(fixed.map_err(|error| store_failed(&error))?);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(run.clone(), reference.clone());
        Ok(reference)
    }
}
