//! Embeddings of faces: 128 numbers by dlib's network (`dlib_face_recognition_resnet_model_v1`), which lie close together
//! for faces of one person.
//!
//! The network was trained so that the faces of a person fit a ball of radius 0.6; it gets a picture of 150 x 150 pixels,
//! which dlib cuts by the 68 landmarks. The binding takes no landmarks but those of its own predictor, so they are
//! predicted once more, on the crop.

use std::path::{Path, PathBuf};

use dlib_face_recognition::{FaceEncoderNetwork, FaceEncoderTrait};
use image::RgbImage;

use super::dlib::{DlibError, Frame, Landmarker};
use super::geometry::{self, Point};
use super::resample::resize;

/// Numbers in an embedding.
pub const DIMENSIONS: usize = 128;
/// Larger crops are scaled down to this side: dlib's picture shows the face at about a third of it.
const SIDE: u32 = 320;

/// Names embeddings that are comparable. Another way to make them needs another name.
pub const VERSION: &str = "dlib-resnet-v1 of 320 pixels";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedderError {
    #[error("{} is not dlib's face recognition model, or cannot be read; `make setup` fetches it", .0.display())]
    Network(PathBuf),
    #[error(transparent)]
    Landmarks(#[from] DlibError),
}

/// Where the face is in an aligned crop, in parts of its side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FacePlace {
    eyes: Point,
    mouth: Point,
}

impl FacePlace {
    /// From the 68 landmarks, in pixels of a crop of `size` pixels. None: they are not 68.
    pub fn of(landmarks: &[[f32; 2]], size: u32) -> Option<Self> {
        if landmarks.len() != 68 {
            return None;
        }
        let [e0, e1] = geometry::eyes(landmarks);
        let mouth = geometry::mean(&[landmarks[48], landmarks[54]]);
        let share = |point: Point| point.map(|c| c / f64::from(size.max(1)));
        Some(Self { eyes: share([(e0[0] + e1[0]) / 2.0, (e0[1] + e1[1]) / 2.0]), mouth: share(mouth) })
    }

    /// The frame that dlib's detector would find, in pixels of a crop of `size` pixels.
    fn frame(&self, size: u32) -> Frame {
        let down = [self.mouth[0] - self.eyes[0], self.mouth[1] - self.eyes[1]];
        let centre = [0, 1].map(|axis| f64::from(size) * (self.eyes[axis] + FRAME_DOWN * down[axis]));
        let reach = f64::from(size) * FRAME_SIDE / 2.0;
        Frame { left: centre[0] - reach, top: centre[1] - reach, right: centre[0] + reach, bottom: centre[1] + reach }
    }
}

/// How far the centre of the detector's frame lies from the eyes to the mouth.
const FRAME_DOWN: f64 = 0.38;
/// The side of the detector's frame in parts of the side of the crop.
const FRAME_SIDE: f64 = 0.62;

/// Computes embeddings. Each thread needs its own; the landmark model is shared.
pub struct Embedder {
    landmarker: Landmarker,
    network: FaceEncoderNetwork,
}

impl Embedder {
    /// Reads the network of 22 MB.
    ///
    /// # Errors
    /// The file cannot be read, or is another model.
    pub fn open(network: &Path, landmarker: Landmarker) -> Result<Self, EmbedderError> {
        let unusable = || EmbedderError::Network(network.to_path_buf());
        // The crate panics on a path that is not UTF-8.
        network.to_str().ok_or_else(unusable)?;
        let network = FaceEncoderNetwork::open(network).map_err(|_| unusable())?;
        Ok(Self { landmarker, network })
    }

    /// The embedding of the face in an aligned crop. The same pixels and place give the same numbers.
    ///
    /// # Errors
    /// The network returns something else than [`DIMENSIONS`] finite numbers.
    pub fn embed(&mut self, crop: &RgbImage, place: &FacePlace) -> Result<Vec<f32>, String> {
        let smaller;
        let picture = match crop.width() > SIDE {
            true => {
                smaller = resize(crop, SIDE, SIDE);
                &smaller
            }
            false => crop,
        };
        let image = self.landmarker.on(picture);
        let landmarks = image.predict(&place.frame(picture.width()));
        let encodings = self.network.get_face_encodings(image.matrix(), &[landmarks], 0);
        let embedding: Vec<f32> = encodings
            .first()
            .map(|encoding| encoding.as_ref().iter().map(|value| *value as f32).collect())
            .unwrap_or_default();
        match embedding.len() == DIMENSIONS && embedding.iter().all(|value| value.is_finite()) {
            true => Ok(embedding),
            false => Err(format!("the network returned no {DIMENSIONS} finite numbers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_lies_around_eyes_and_mouth() {
        let mut landmarks = vec![[0.0; 2]; 68];
        landmarks[36..42].fill([75.0, 90.0]);
        landmarks[42..48].fill([125.0, 90.0]);
        landmarks[48] = [80.0, 150.0];
        landmarks[54] = [120.0, 150.0];
        let place = FacePlace::of(&landmarks, 200).unwrap();
        let frame = place.frame(400);
        assert!((frame.centre()[0] - 200.0).abs() < 1e-6, "{frame:?}");
        assert!(frame.top < 180.0 && frame.bottom > 300.0 && frame.left < 150.0 && frame.right > 250.0, "{frame:?}");
        assert_eq!(FacePlace::of(&landmarks[..5], 200), None);
    }

    #[test]
    fn the_error_names_a_missing_network() {
        let models =
            facemill_inference::Models::find(std::env::var_os(facemill_inference::Models::ENV).map(PathBuf::from));
        let landmarker = Landmarker::open(&models.ibug()).unwrap();
        let error = Embedder::open(Path::new("/nowhere/network.dat"), landmarker).err().unwrap().to_string();
        assert!(error.contains("/nowhere/network.dat") && error.contains("make setup"), "{error}");
    }
}
