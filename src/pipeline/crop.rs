//! The crop stage: cuts the aligned face out of a photo.

use std::sync::Arc;

use ::image::RgbImage;
use async_trait::async_trait;
use bytes::Bytes;

use super::handover::Handover;
use super::measures::{self, CropFacts, RunReferences};
use super::originals::{Originals, original};
use super::refused::RefusalCheck;
pub use super::run_shapes::CropSettings;
use super::run_shapes::RunShapes;
use super::stage::{Outcome, Retry, Stage, store_failed};
use crate::classifier::model::{Input, mirrors_of};
use crate::domain::{
    self, Cause, CauseCode, ContentHash, Face, ImageFormat, LandmarkReference, Landmarks, Photo, StageName,
};
use crate::objects::ObjectKey;
use crate::vision::detector::{Detector, NoFace};
use crate::vision::geometry::{Square, round};
use crate::vision::image::{self, Limits};
use crate::vision::{align, fingerprint, quality};

/// Reads the original, stores the crop, adds [`crate::domain::Crop`]. The same photo and settings result in the same
/// bytes.
pub struct Crop {
    originals: Originals,
    detector: Detector,
    settings: CropSettings,
    runs: Option<Arc<RunShapes>>,
    references: RunReferences,
    refusals: RefusalCheck,
    inputs: Option<Arc<Handover<Input>>>,
}

impl Crop {
    pub fn new(originals: Originals, detector: Detector, settings: CropSettings) -> Self {
        let references = RunReferences::new(originals.objects().clone());
        let refusals = RefusalCheck::new(originals.objects().clone());
        Self { originals, detector, settings, runs: None, references, refusals, inputs: None }
    }

    /// Uses the settings of each photo's run instead of its own.
    #[must_use]
    pub fn with_run_shapes(mut self, runs: Arc<RunShapes>) -> Self {
        self.runs = Some(runs);
        self
    }

    /// Leaves the classifier's input for classify, which then need not decode the crop.
    #[must_use]
    pub fn with_inputs(mut self, inputs: Arc<Handover<Input>>) -> Self {
        self.inputs = Some(inputs);
        self
    }

    async fn crop(&self, photo: &Photo) -> Result<Photo, Outcome> {
        let original = original(photo)?;
        // Before anything can end the photo here.
        let kept = self.originals.take_kept(original);
        let unfit =
            || Outcome::Poison(Cause::new(CauseCode::UnfitMessage, "the photo has no face: it has not passed detect"));
        let face = photo.facts.face.as_ref().filter(|face| face.landmarks.len() == 68).ok_or_else(unfit)?.clone();
        let settings = match &self.runs {
            Some(runs) => CropSettings::from(&runs.of(&photo.run).await?),
            None => self.settings,
        };
        let square = align::square(&face.landmarks, settings.align);
        if align::leaves_canvas(&square, face.width, face.height) {
            let detail =
                format!("the crop of {:.0} x {:.0} pixels reaches too far beyond the photo", square.side, square.side);
            return Err(Outcome::Reject(Cause::new(CauseCode::OutOfFrame, detail)));
        }
        let reference = self.references.of(&photo.run, settings.align, face.landmark_scheme).await?;
        let detector = self.detector.clone();
        let extra_memory = align::fill_memory(&square, face.width, face.height, settings.fill);
        let inputs = self.inputs.clone();
        let work = move |pixels: &RgbImage, jpeg_quality: Option<u8>| {
            let (pixels, bytes, crop) = cut(pixels, jpeg_quality, &face, &square, &detector, settings, &reference)?;
            if let (Some(inputs), Ok(mirrors)) = (inputs, mirrors_of(&crop)) {
                let input = Input::new(&pixels, mirrors);
                let size = input.pixels().len();
                inputs.put(crop.sha256, input, size);
            }
            Ok((bytes, crop))
        };
        let (bytes, crop) = self.originals.work_on_kept(kept, original, settings.limits, extra_memory, work).await?;
        if let Some(fingerprint) = crop.fingerprint {
            self.refusals.of_crop(fingerprint).await?;
        }
        let key = ObjectKey::face(crop.sha256, crop.format);
        let objects = self.originals.objects();
        objects.put(&key, bytes, crop.format.media_type()).await.map_err(|error| store_failed(&error))?;
        let mut photo = photo.clone();
        photo.facts.crop = Some(crop);
        Ok(photo)
    }
}

#[async_trait]
impl Stage for Crop {
    fn name(&self) -> StageName {
        StageName::Crop
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        self.crop(photo).await.map_or_else(|outcome| outcome, |photo| Outcome::Advance(Box::new(photo)))
    }
}

/// The crop's pixels as a reader of its file sees them, its file, and the facts about it.
fn cut(
    picture: &RgbImage,
    jpeg_quality: Option<u8>,
    face: &Face,
    square: &Square,
    detector: &Detector,
    settings: CropSettings,
    reference: &LandmarkReference,
) -> Result<(RgbImage, Bytes, domain::Crop), Outcome> {
    let size = align::native_size(square);
    let pixels = align::cut_filled(picture, square, size, settings.fill);
    detector.check_crop(&pixels).map_err(|error| lost_face(&error))?;
    let landmarks: Landmarks = align::landmarks_in_crop(&face.landmarks, square, size)
        .into_iter()
        .map(|point| point.map(|c| round(f64::from(c), 2) as f32))
        .collect();
    let mirrored = quality::mirrored(square, face.width, face.height);
    let failed = |error: String| Retry::failed(Cause::new(CauseCode::EncoderFailed, error));
    let bytes = image::encode(&pixels, settings.image_format).map_err(|error| failed(error.to_string()))?;
    // The pixels that a reader of the file sees are measured, so that `facemill measure` finds the same numbers.
    let pixels = match settings.image_format {
        ImageFormat::Png => pixels,
        _ => image::decode(&bytes, Limits::default()).map_err(|error| failed(error.to_string()))?,
    };
    let angle = round(square.angle, 4);
    let measured = quality::measure(&pixels, &landmarks);
    let facts = CropFacts { landmarks: &landmarks, angle, jpeg_quality, reference };
    let quality = measures::quality(&pixels, &measured, facts);
    let crop = domain::Crop {
        sha256: ContentHash::of(&bytes),
        format: settings.image_format,
        align: settings.align,
        fill: settings.fill,
        angle,
        centre: square.centre.map(|c| round(c, 2)),
        side: round(square.side, 2),
        size,
        landmarks,
        mirrored: round(mirrored.share, 4),
        mirrored_head: round(mirrored.head, 4),
        mirrored_grid: mirrored.grid.to_vec(),
        blur: round(measured.blur, 2),
        exposure: round(measured.exposure, 4),
        quality: Some(quality),
        fingerprint: Some(fingerprint::of(&pixels)),
    };
    Ok((pixels, Bytes::from(bytes), crop))
}

fn lost_face(error: &NoFace) -> Outcome {
    let detail = |why: &str| Cause::new(CauseCode::FaceLostInCrop, format!("in the crop: {why}"));
    match error {
        NoFace::Failed(what) => Retry::failed(Cause::new(CauseCode::DetectorFailed, what.clone())),
        NoFace::None(_) => Outcome::Reject(detail("no face")),
        NoFace::Several(count) => Outcome::Reject(detail(&format!("{count} faces"))),
        NoFace::TooSmall { .. } => Outcome::Reject(detail("a face too small")),
        NoFace::TooLong(_) => Outcome::Reject(detail("too many pixels")),
    }
}
