//! The crop: the square that was cut out of the original.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::named::{self, UnknownName};
use super::{ContentHash, Fingerprint, ImageFormat, Landmarks, Quality};

/// How the square of the crop is placed around the face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// Level on the eyes, the centre moved towards the forehead (Karras et al., arXiv 1710.10196, appendix C).
    #[default]
    Paper,
    /// As `paper`, but level on eyes and mouth together, as FFHQ does.
    Ffhq,
    /// As the original scripts: the centre moved away from the mouth's side of the face. For comparison only.
    Seed,
}

impl Align {
    pub const ALL: [Align; 3] = [Self::Paper, Self::Ffhq, Self::Seed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Ffhq => "ffhq",
            Self::Seed => "seed",
        }
    }
}

impl fmt::Display for Align {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Align {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::as_str, "an alignment", text)
    }
}

/// What fills the part of the crop beyond the edge of the photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// The photo, mirrored at its edge.
    #[default]
    Mirror,
    /// As FFHQ: the photo is reflected, blurred the more the farther out, and fades to the median colour.
    Ffhq,
}

impl Fill {
    pub const ALL: [Fill; 2] = [Self::Mirror, Self::Ffhq];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Ffhq => "ffhq",
        }
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Fill {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::as_str, "a fill", text)
    }
}

/// The result of crop: the square that was cut, and measures of its pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Crop {
    pub sha256: ContentHash,
    pub format: ImageFormat,
    pub align: Align,
    /// What fills the crop beyond the photo. Crops of earlier versions are mirrored.
    #[serde(default)]
    pub fill: Fill,
    /// Rotation of the square in degrees, as [`Face::angle`](super::Face::angle).
    pub angle: f64,
    /// `[x, y]` of the square's centre and its side, in pixels of the upright original.
    pub centre: [f64; 2],
    pub side: f64,
    /// Width and height of the saved crop.
    pub size: u32,
    /// 68 points in pixels of the crop.
    pub landmarks: Landmarks,
    /// Share of the crop's pixels that are mirrored, 0 to 1.
    pub mirrored: f64,
    /// The same inside the head's ellipse.
    pub mirrored_head: f64,
    /// Share of mirrored pixels in each cell of a 4x4 grid, row by row: the classifier's second input.
    pub mirrored_grid: Vec<f32>,
    /// Variance of the Laplacian; low values are blurred.
    pub blur: f64,
    pub exposure: f64,
    /// None: an earlier version made the crop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// What copies of the photo have in common. None: an earlier version made the crop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}
