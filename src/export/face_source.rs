//! Where an export reads what is known of a face: the index as it is now, or a version.

use super::error::ExportError;
use crate::dataset::{Face, Index};
use crate::domain::{ContentHash, Id};
use crate::versions::FrozenFaces;

pub trait FaceSource {
    /// The face of a photo.
    fn face(&self, photo_id: &Id) -> Result<Option<Face>, ExportError>;

    /// The P(OK) from which a face without a verdict is `predicted`.
    fn threshold(&self) -> f64;

    /// SHA-256 of the classifier.
    fn model(&self) -> Option<ContentHash>;
}

impl FaceSource for Index {
    fn face(&self, photo_id: &Id) -> Result<Option<Face>, ExportError> {
        Ok(self.face(photo_id)?)
    }

    fn threshold(&self) -> f64 {
        self.threshold()
    }

    fn model(&self) -> Option<ContentHash> {
        self.model()
    }
}

impl FaceSource for FrozenFaces {
    fn face(&self, photo_id: &Id) -> Result<Option<Face>, ExportError> {
        Ok(self.face(photo_id)?)
    }

    fn threshold(&self) -> f64 {
        self.header.threshold
    }

    fn model(&self) -> Option<ContentHash> {
        self.header.model_sha256
    }
}
