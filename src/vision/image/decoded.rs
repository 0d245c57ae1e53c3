//! A decoded image before its orientation is applied.

use image::RgbImage;

use super::error::DecodeError;
use crate::domain::Decoding;

/// The largest share of rows that a damaged file may lack.
pub const MAX_MISSING_ROWS: f64 = 0.01;

/// Pixels as they are stored, before orientation and colour profile are applied.
pub struct Decoded {
    pub pixels: RgbImage,
    /// What the file's samples are: a colour profile must be made for them.
    pub samples: Samples,
    /// What is wrong with the file, and what was done to its colours.
    pub decoding: Decoding,
    /// A colour profile that is not yet applied.
    pub profile: Option<Vec<u8>>,
}

/// The samples of a pixel in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Samples {
    Grey,
    Rgb,
}

impl Decoded {
    /// An image without a fault.
    pub fn sound(pixels: RgbImage, samples: Samples, profile: Option<Vec<u8>>) -> Self {
        Self { pixels, samples, decoding: Decoding::default(), profile }
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
