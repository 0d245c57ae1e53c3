//! What a picture at hand has in common with the photos of a run: the hash of its bytes, and the fingerprint of its crop.

use crate::domain::{ContentHash, Fingerprint};
use crate::inference::Models;
use crate::pipeline::run_shapes::{CropSettings, DetectSettings};
use crate::vision::detector::{Detector, OpenError};
use crate::vision::image::{self, DecodeError, Limits};
use crate::vision::{align, fingerprint};

#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("it cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Detector(#[from] OpenError),
}

/// How a picture is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureMarks {
    pub original: ContentHash,
    /// None: no face was found.
    pub fingerprint: Option<Fingerprint>,
}

impl PictureMarks {
    /// Cuts the face out of the picture as the run does.
    pub fn of(file: &[u8], models: &Models, detect: DetectSettings, crop: CropSettings) -> Result<Self, PictureError> {
        let picture = image::decode(file, Limits::default())?;
        let detector = Detector::open(models, 1, detect.landmarks)?;
        let face = detector.find(&picture, detect.search, detect.landmarks, detect.min_face, detect.faces).ok();
        let fingerprint = face.map(|face| {
            let square = align::square(&face.landmarks, crop.align);
            let size = align::native_size(&square);
            fingerprint::of(&align::cut_filled(&picture, &square, size, crop.fill))
        });
        Ok(Self { original: ContentHash::of(file), fingerprint })
    }
}
