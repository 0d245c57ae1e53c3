//! Small copies of pictures, for people to look at.

use super::image::{DecodeError, EncodeError, Limits, decode, encode_preview};
use super::resample::resize;

#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A JPEG of a picture in any format that is read, with its longer side scaled down to at most `longest` pixels.
///
/// # Errors
/// The picture cannot be decoded within the limits.
pub fn preview(picture: &[u8], longest: u32, limits: Limits) -> Result<Vec<u8>, PreviewError> {
    let pixels = decode(picture, limits)?;
    let (width, height) = pixels.dimensions();
    let longer = width.max(height);
    if longer <= longest {
        return Ok(encode_preview(&pixels)?);
    }
    let scaled = |side: u32| ((f64::from(side) * f64::from(longest) / f64::from(longer)).round() as u32).max(1);
    Ok(encode_preview(&resize(&pixels, scaled(width), scaled(height)))?)
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;
    use crate::image::encode;
    use facemill_domain::ImageFormat;

    #[test]
    fn the_longer_side_is_scaled_down() {
        let size_of = |width, height| {
            let picture = encode(&RgbImage::new(width, height), ImageFormat::Png).unwrap();
            let small = preview(&picture, 100, Limits { pixels: 1_000_000 }).unwrap();
            image::load_from_memory(&small).unwrap().to_rgb8().dimensions()
        };
        assert_eq!(size_of(400, 300), (100, 75));
        assert_eq!(size_of(300, 400), (75, 100));
        assert_eq!(size_of(999, 1), (100, 1));
        assert_eq!(size_of(60, 40), (60, 40));
        assert!(preview(b"no picture", 100, Limits { pixels: 1_000_000 }).is_err());
    }
}
