//! What is measured of a crop beside its square, and what its landmarks are compared with.

use serde::{Deserialize, Serialize};

use super::ContentHash;

/// Measures of a crop. All numbers are finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Standard deviation of the head's luma, 0 to 0.5.
    pub contrast: f64,
    /// Mean difference of the largest and the smallest channel in the head, 0 (grey) to 1.
    pub saturation: f64,
    /// Variance of the Laplacian of the face's box at 128 x 128 pixels; low values are blurred.
    pub face_blur: f64,
    /// Quality of the original's JPEG, 1 to 100, estimated from its quantisation tables. None: it is no JPEG.
    pub jpeg_quality: Option<u8>,
    /// How far the face is turned to the side: 0 is frontal, -1 and 1 are in profile.
    pub yaw: f64,
    /// Where the tip of the nose is between the eyes (0) and the mouth (1). Low values look up.
    pub pitch: f64,
    /// Height of the openings of the eyes by their width.
    pub eyes_open: f64,
    /// Height of the opening of the mouth by its width.
    pub mouth_open: f64,
    /// How unusual extents and angle of the landmarks are, in standard deviations of the run's [`LandmarkReference`].
    pub outlier: f64,
    /// SHA-256 of the pixels of the stored crop: rows of RGB bytes.
    pub pixels: ContentHash,
}

/// What is usual of a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    /// Standard deviation, above 0.
    pub deviation: f64,
}

impl Spread {
    /// How many standard deviations a value is from the mean.
    pub fn distance(&self, value: f64) -> f64 {
        (value - self.mean).abs() / self.deviation.max(f64::MIN_POSITIVE)
    }
}

/// What is usual of the landmarks of crops with one alignment. Extents are distances from the centre of the crop to the
/// outermost landmarks, in sides of the crop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandmarkReference {
    /// The faces that it was computed from.
    pub source: String,
    pub faces: u64,
    pub left: Spread,
    pub top: Spread,
    pub right: Spread,
    pub bottom: Spread,
    /// Rotation of the square, degrees.
    pub angle: Spread,
}
