//! A decoded image before its orientation is applied.

use image::RgbImage;

use super::colour_space::ColourSpace;
use super::error::DecodeError;
use facemill_domain::Decoding;

/// The largest share of rows that a damaged file may lack.
pub const MAX_MISSING_ROWS: f64 = 0.01;

/// The largest profile in bytes that is read. Profiles of printers have about two megabytes.
pub const MAX_PROFILE: usize = 4 << 20;

/// Pixels as they are stored, before orientation and colour profile are applied.
pub struct Decoded {
    pub pixels: RgbImage,
    /// What the file's samples are: a colour profile must be made for them.
    pub samples: Samples,
    /// What is wrong with the file, and what was done to its colours.
    pub decoding: Decoding,
    pub colours: Colours,
}

/// What a file says about its colours, as far as that is not yet applied.
#[derive(Debug)]
pub enum Colours {
    /// Nothing: they are sRGB.
    Unspecified,
    Profile(Vec<u8>),
    Numbers(ColourSpace),
    /// Something that cannot be used, and why.
    Unusable(String),
}

impl Colours {
    /// A profile. One that is too large is kept in part, so that it is ignored with a note.
    pub fn profile(bytes: &[u8]) -> Self {
        Self::Profile(bytes[..bytes.len().min(MAX_PROFILE + 1)].to_vec())
    }
}

impl From<Option<Vec<u8>>> for Colours {
    fn from(profile: Option<Vec<u8>>) -> Self {
        profile.map_or(Self::Unspecified, Self::Profile)
    }
}

impl From<Result<ColourSpace, String>> for Colours {
    fn from(space: Result<ColourSpace, String>) -> Self {
        space.map_or_else(Self::Unusable, Self::Numbers)
    }
}

/// The samples of a pixel in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Samples {
    Grey,
    Rgb,
}

impl Decoded {
    /// An image without a fault.
    pub fn sound(pixels: RgbImage, samples: Samples, colours: Colours) -> Self {
        Self { pixels, samples, decoding: Decoding::default(), colours }
    }
}

/// Checks that an image of `height` rows may lack so many of them.
///
/// # Errors
/// More than [`MAX_MISSING_ROWS`] are missing.
pub fn check_rows(missing: f64, height: u32, format: &'static str) -> Result<(), DecodeError> {
    if missing > MAX_MISSING_ROWS * f64::from(height) {
        let detail = format!("{:.0} of {height} rows are missing", missing.ceil());
        return Err(DecodeError::Truncated { format, detail });
    }
    Ok(())
}

/// Blends a colour with white.
pub fn on_white(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    let alpha = u32::from(alpha);
    colour.map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}
