//! Encodes crops, and marks them as sRGB.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use facemill_domain::ImageFormat;

/// The chunk sRGB with its length, perceptual intent and checksum (PNG, 11.3.2.5). It follows the header.
const SRGB_CHUNK: [u8; 13] = *b"\0\0\0\x01sRGB\0\xae\xce\x1c\xe9";
/// Bytes of signature and header of a PNG.
const PNG_HEADER: usize = 33;
/// A profile of sRGB, of half a kilobyte.
const SRGB_PROFILE: &[u8] = include_bytes!("srgb.icc");

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {format} cannot be encoded: {detail}")]
pub struct EncodeError {
    format: &'static str,
    detail: String,
}

/// Encodes sRGB pixels as PNG with fast compression, or as JPEG with quality 100 and without colour subsampling. The same
/// pixels give the same bytes. The file says that it is sRGB: a PNG by a chunk, a JPEG by a profile.
///
/// # Errors
/// The format is neither PNG nor JPEG, or the image is too large for it.
pub fn encode(picture: &RgbImage, format: ImageFormat) -> Result<Vec<u8>, EncodeError> {
    let _span = tracing::trace_span!("encode", facemill.format = format.extension()).entered();
    let failed = |detail: String| EncodeError { format: format.extension(), detail };
    let (width, height) = picture.dimensions();
    match format {
        ImageFormat::Png => {
            let mut bytes = Vec::with_capacity(picture.len());
            PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up)
                .write_image(picture, width, height, ExtendedColorType::Rgb8)
                .map_err(|error| failed(error.to_string()))?;
            bytes.splice(PNG_HEADER..PNG_HEADER, SRGB_CHUNK);
            Ok(bytes)
        }
        ImageFormat::Jpeg => jpeg(picture, 100, turbojpeg::Subsamp::None).map_err(failed),
        _ => Err(failed("only png and jpeg are supported".into())),
    }
}

/// Encodes sRGB pixels for a page on a screen: as JPEG with quality 88 and usual colour subsampling.
///
/// # Errors
/// The image is too large for a JPEG.
pub fn encode_preview(picture: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    let failed = |detail| EncodeError { format: ImageFormat::Jpeg.extension(), detail };
    jpeg(picture, 88, turbojpeg::Subsamp::Sub2x2).map_err(failed)
}

fn jpeg(picture: &RgbImage, quality: i32, colour: turbojpeg::Subsamp) -> Result<Vec<u8>, String> {
    let (width, height) = picture.dimensions();
    let input = turbojpeg::Image {
        pixels: &**picture,
        width: width as usize,
        pitch: 3 * width as usize,
        height: height as usize,
        format: turbojpeg::PixelFormat::RGB,
    };
    let mut compressor = turbojpeg::Compressor::new().map_err(|error| error.to_string())?;
    compressor.set_quality(quality);
    compressor.set_subsamp(colour);
    let mut bytes = compressor.compress_to_vec(input).map_err(|error| error.to_string())?;
    let after_jfif = after_jfif(&bytes);
    bytes.splice(after_jfif..after_jfif, profile_segment());
    Ok(bytes)
}

/// Where the first segment of a JPEG ends.
fn after_jfif(bytes: &[u8]) -> usize {
    match bytes {
        [0xff, 0xd8, 0xff, 0xe0, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 2,
    }
}

/// The APP2 segment with the profile (ICC.1:2022, B.4): the first of one.
fn profile_segment() -> Vec<u8> {
    let name = b"ICC_PROFILE\0\x01\x01";
    let length = (2 + name.len() + SRGB_PROFILE.len()) as u16;
    [&[0xff, 0xe2][..], &length.to_be_bytes(), name, SRGB_PROFILE].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_fits_into_a_segment_after_the_first() {
        assert!(SRGB_PROFILE.len() < 1000 && profile_segment().len() == 4 + 14 + SRGB_PROFILE.len());
        let jpeg = encode(&RgbImage::new(8, 8), ImageFormat::Jpeg).unwrap();
        assert_eq!(
            (&jpeg[..4], &jpeg[6..10], &jpeg[20..22]),
            (&b"\xff\xd8\xff\xe0"[..], &b"JFIF"[..], &b"\xff\xe2"[..])
        );
        assert_eq!(jpeg[24..35], *b"ICC_PROFILE");
    }

    #[test]
    fn the_chunk_has_its_checksum() {
        let mut checksum = flate2::Crc::new();
        checksum.update(&SRGB_CHUNK[4..9]);
        assert_eq!(SRGB_CHUNK[9..], checksum.sum().to_be_bytes());
    }
}
