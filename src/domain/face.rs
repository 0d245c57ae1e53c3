//! The face that detect found, and how it was searched for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::named::{self, UnknownName};

/// 68 points, iBUG 300-W order, `[x, y]` in pixels; a pixel's centre has whole coordinates.
pub type Landmarks = Vec<[f32; 2]>;

/// How the face is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// YuNet once, then dlib on an upright region of interest.
    #[default]
    Guided,
    /// The published method: dlib on nine rotations of the whole photo.
    Full,
}

impl Search {
    pub const ALL: [Search; 2] = [Self::Guided, Self::Full];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guided => "guided",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Search {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::as_str, "a search", text)
    }
}

/// The model that the 68 landmarks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LandmarkScheme {
    /// dlib's model, trained on iBUG 300-W, which may not be used commercially. Records that name no scheme have it.
    #[default]
    Ibug,
    /// The points of MediaPipe's face mesh that mean the same. Its licence, Apache-2.0, permits commercial use.
    Permissive,
}

impl LandmarkScheme {
    pub const ALL: [LandmarkScheme; 2] = [Self::Ibug, Self::Permissive];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ibug => "ibug",
            Self::Permissive => "permissive",
        }
    }
}

impl fmt::Display for LandmarkScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LandmarkScheme {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::as_str, "a landmark scheme", text)
    }
}

/// What happens to a photo that shows several faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FacePolicy {
    /// It is rejected: the label may belong to any of the faces.
    #[default]
    One,
    /// The largest face is taken.
    Largest,
}

impl FacePolicy {
    pub const ALL: [FacePolicy; 2] = [Self::One, Self::Largest];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Largest => "largest",
        }
    }
}

impl fmt::Display for FacePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FacePolicy {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::as_str, "a face policy", text)
    }
}

/// The result of detect: the one face of the photo, in pixels of the upright original.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// Size of the upright original (EXIF orientation applied).
    pub width: u32,
    pub height: u32,
    /// Degrees as `cv2.getRotationMatrix2D` counts them: rotating the photo by this angle levels the eyes.
    pub angle: f64,
    /// dlib's HOG score.
    pub score: f64,
    pub landmarks: Landmarks,
    #[serde(default)]
    pub landmark_scheme: LandmarkScheme,
    /// How many faces the photo shows.
    pub faces: u32,
    pub search: Search,
}
