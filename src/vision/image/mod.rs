//! Decodes image files to upright sRGB pixels, and encodes crops.

mod colour;
mod colour_space;
mod decoded;
mod encode;
mod error;
mod exif;
mod gif;
mod heif;
mod jpeg;
mod jpeg_quality;
mod library;
mod png;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

pub use encode::{EncodeError, encode, encode_preview};
pub use error::{DecodeError, Limits};
pub use jpeg_quality::jpeg_quality;

use facemill_domain::{Decoding, ImageFormat, unsupported_format};

/// Decodes the first frame of an image: upright, with white behind transparent pixels, and with its colours converted to
/// sRGB. Files with small faults are taken.
///
/// # Errors
/// The file is not an image of a known format, is too large, lacks rows, or cannot be decoded.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<RgbImage, DecodeError> {
    Header::read(bytes, limits)?.decode(bytes).map(|(pixels, _)| pixels)
}

/// What the header of an image file says.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Of the upright image.
    pub width: u32,
    pub height: u32,
    format: ImageFormat,
    orientation: Orientation,
    /// Width times height is at most this.
    limits: Limits,
    /// The most bytes that decoding takes, beside the file.
    memory: u64,
    /// The bytes of the decoded image.
    decoded: u64,
}

impl Header {
    /// Reads the header. Nothing is decoded.
    ///
    /// # Errors
    /// The file is not an image of a known format, or is too large, or has no valid header.
    pub fn read(bytes: &[u8], limits: Limits) -> Result<Self, DecodeError> {
        let format = ImageFormat::sniff(bytes).ok_or_else(|| match unsupported_format(bytes) {
            Some(format) => DecodeError::Unsupported { format, detail: None },
            None => DecodeError::NotAnImage,
        })?;
        contained(format, || {
            let (width, height, memory) = match format {
                ImageFormat::Jpeg => match jpeg::header(bytes) {
                    Some(header) => header,
                    None => library::header(bytes, format, limits)?,
                },
                ImageFormat::Png => png::header(bytes).ok_or_else(|| undecodable(format, "it has no header".into()))?,
                ImageFormat::Avif | ImageFormat::Heic => heif::header(bytes, format, limits)?,
                _ => library::header(bytes, format, limits)?,
            };
            limits.check(width, height)?;
            if width * height == 0 {
                return Err(undecodable(format, "it has no pixels".into()));
            }
            let orientation = exif::orientation(bytes, format);
            let decoded = 3 * width * height;
            // A quarter turn takes a copy.
            let memory = if turns(orientation) { memory.max(2 * decoded) } else { memory };
            let (width, height) = if turns(orientation) { (height, width) } else { (width, height) };
            let side = |length: u64| u32::try_from(length).unwrap_or(u32::MAX);
            Ok(Self { width: side(width), height: side(height), format, orientation, limits, memory, decoded })
        })
    }

    /// The most bytes that decoding takes, beside the file. The decoded image is included.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// The bytes of the decoded image.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded
    }

    /// Decodes the file whose header this is.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode(&self, bytes: &[u8]) -> Result<(RgbImage, Decoding), DecodeError> {
        let _span = tracing::trace_span!("decode", facemill.bytes = bytes.len()).entered();
        contained(self.format, || {
            // A decoder may find another size than the header has.
            let limits = Limits { pixels: self.limits.pixels.min(self.decoded / 3) };
            let decoded = match self.format {
                ImageFormat::Jpeg => jpeg::decode(bytes, limits)?,
                ImageFormat::Png => png::decode(bytes, limits)?,
                format @ (ImageFormat::Avif | ImageFormat::Heic) => heif::decode(bytes, format, limits)?,
                format => library::decode(bytes, format, limits)?,
            };
            let decoded::Decoded { mut pixels, samples, mut decoding, colours } = decoded;
            if pixels.is_empty() {
                return Err(undecodable(self.format, "it has no pixels".into()));
            }
            colour::apply(&mut pixels, samples, colours, &mut decoding);
            Ok((apply(self.orientation, pixels), decoding))
        })
    }
}

fn undecodable(format: ImageFormat, detail: String) -> DecodeError {
    DecodeError::Undecodable { format: format.extension(), detail }
}

/// Some decoders panic on hostile bytes. They share no state that a panic could corrupt.
fn contained<T>(format: ImageFormat, work: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(undecodable(format, "the decoder panicked".into())))
}

fn turns(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn apply(orientation: Orientation, picture: RgbImage) -> RgbImage {
    let mut picture = DynamicImage::from(picture);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::Rgb;

    use super::*;

    /// Smooth colours with a red corner that shows the orientation.
    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            if x < width / 4 && y < height / 4 {
                Rgb([255, 0, 0])
            } else {
                Rgb([40, (255 * x / width) as u8, (255 * y / height) as u8])
            }
        })
    }

    fn encoded(picture: DynamicImage, format: image::ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// The largest difference of a channel.
    fn difference(a: &RgbImage, b: &RgbImage) -> u8 {
        assert_eq!(a.dimensions(), b.dimensions());
        a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn every_format_decodes() {
        use image::ImageFormat as F;
        let original = picture(60, 40);
        for format in [F::Png, F::Bmp, F::Tiff, F::WebP] {
            let bytes = encoded(original.clone().into(), format);
            assert_eq!(decode(&bytes, Limits::default()).unwrap(), original, "{format:?}");
        }
        let gif = encoded(DynamicImage::from(original.clone()).into_rgba8().into(), F::Gif);
        assert!(difference(&decode(&gif, Limits::default()).unwrap(), &original) < 40);
        let grey = DynamicImage::from(original.clone()).into_luma8();
        let jpeg = encoded(grey.clone().into(), F::Jpeg);
        assert!(difference(&decode(&jpeg, Limits::default()).unwrap(), &DynamicImage::from(grey).into_rgb8()) < 30);
    }

    #[test]
    fn decode_applies_the_exif_orientation() {
        let original = picture(64, 48);
        let DynamicImage::ImageRgb8(stored) = DynamicImage::from(original.clone()).rotate270() else { panic!() };
        let mut bytes = encode(&stored, ImageFormat::Jpeg).unwrap();
        // 6: a quarter turn clockwise makes the image upright.
        bytes.splice(2..2, exif::segment(6));
        assert!(difference(&decode(&bytes, Limits::default()).unwrap(), &original) < 8);
    }

    #[test]
    fn all_eight_orientations_match_the_standard() {
        let upright_picture = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 0]));
        let dynamic = DynamicImage::from(upright_picture.clone());
        let stored = [
            dynamic.clone(),
            dynamic.fliph(),
            dynamic.rotate180(),
            dynamic.flipv(),
            dynamic.rotate90().fliph(),
            dynamic.rotate270(),
            dynamic.rotate270().fliph(),
            dynamic.rotate90(),
        ];
        for (value, stored) in (1u16..).zip(stored) {
            let block = &exif::segment(value)[10..];
            let orientation = exif::orientation(block, ImageFormat::Tiff);
            assert_eq!(apply(orientation, stored.into_rgb8()), upright_picture, "orientation {value}");
        }
    }

    #[test]
    fn transparent_pixels_become_white() {
        let clear = image::RgbaImage::from_pixel(4, 4, image::Rgba([0, 0, 0, 0]));
        let bytes = encoded(clear.into(), image::ImageFormat::Png);
        assert!(decode(&bytes, Limits::default()).unwrap().iter().all(|&value| value == 255));
    }

    #[test]
    fn large_images_are_rejected_by_their_header() {
        let limits = Limits { pixels: 60 * 40 - 1 };
        for bytes in
            [encode(&picture(60, 40), ImageFormat::Jpeg).unwrap(), encode(&picture(60, 40), ImageFormat::Png).unwrap()]
        {
            let error = decode(&bytes, limits).unwrap_err();
            assert_eq!(error, DecodeError::TooLarge { width: 60, height: 40, limit: limits.pixels });
        }
        let webp = encoded(picture(60, 40).into(), image::ImageFormat::WebP);
        let frame = [b"ANMF\x1d\0\0\0", &[0; 16][..], b"VP8L\x05\0\0\0\x2f", &[0xff; 4]].concat();
        let animated = [b"RIFF\0\0\0\0WEBP", &frame[..]].concat();
        for (bytes, size) in [(webp, (60, 40)), (animated, (16384, 16384))] {
            let error = decode(&bytes, limits).unwrap_err();
            assert_eq!(error, DecodeError::TooLarge { width: size.0, height: size.1, limit: limits.pixels });
        }
        // A header with four gigapixels and no data.
        let mut png = encode(&picture(8, 8), ImageFormat::Png).unwrap();
        png[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
        assert!(decode(&png, Limits::default()).is_err());
    }

    #[test]
    fn formats_that_are_not_read_have_a_cause_of_their_own() {
        for (bytes, name) in [(&b"\xff\x0a\xfa\x01\0"[..], "JPEG XL"), (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000")] {
            let error = decode(bytes, Limits::default()).unwrap_err();
            assert_eq!(error.code(), facemill_domain::CauseCode::UnsupportedFormat);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    /// An uncompressed TIFF whose directory comes before its pixels.
    fn tiff_with_pixels_last(picture: &RgbImage) -> Vec<u8> {
        let entries: [(u16, u16, u32, u32); 9] = [
            (256, 4, 1, picture.width()),
            (257, 4, 1, picture.height()),
            (258, 3, 3, 122),
            (259, 3, 1, 1),
            (262, 3, 1, 2),
            (273, 4, 1, 128),
            (277, 3, 1, 3),
            (278, 4, 1, picture.height()),
            (279, 4, 1, picture.len() as u32),
        ];
        let mut bytes = b"II*\0\x08\0\0\0\x09\0".to_vec();
        for (tag, kind, count, value) in entries {
            bytes.extend_from_slice(&[&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes()].concat());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&[0, 0, 0, 0, 8, 0, 8, 0, 8, 0]);
        [bytes, picture.to_vec()].concat()
    }

    #[test]
    fn files_that_end_a_little_early_are_damaged_and_others_truncated() {
        use image::ImageFormat as F;
        let noise = RgbImage::from_fn(50, 200, |x, y| Rgb([(x * x * 7 + y * 13) as u8, (x * y) as u8, (y * y) as u8]));
        let limits = Limits::default();
        let files = [
            ("BMP", encoded(noise.clone().into(), F::Bmp), 100),
            ("TIFF", tiff_with_pixels_last(&noise), 100),
            ("WebP", encoded(noise.clone().into(), F::WebP), 20),
            ("GIF", encoded(DynamicImage::from(noise.clone()).into_rgba8().into(), F::Gif), 40),
        ];
        for (name, whole, little) in files {
            let decoded = |bytes: &[u8]| Header::read(bytes, limits)?.decode(bytes);
            let (pixels, decoding) = decoded(&whole).unwrap();
            assert_eq!(decoding, Decoding::default(), "{name}");
            let (cut, decoding) =
                decoded(&whole[..whole.len() - little]).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(decoding.damaged.is_some(), "{name} is damaged");
            let same = cut.rows().zip(pixels.rows()).filter(|(a, b)| a.clone().eq(b.clone())).count();
            assert!(same >= 198, "{name}: {same} rows");
            for tenth in [3, 5, 8] {
                let error = decode(&whole[..whole.len() * tenth / 10], limits).unwrap_err();
                assert!(matches!(error, DecodeError::Truncated { .. }), "{name}: {error}");
            }
        }
        // The last hundredth of the bytes has half of the rows.
        let flat = RgbImage::from_fn(50, 200, |x, y| if y < 100 { *noise.get_pixel(x, y) } else { Rgb([9; 3]) });
        let whole = encoded(flat.into(), F::WebP);
        let error = decode(&whole[..whole.len() - whole.len() / 110], limits).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
        // Blocks that tell how to repeat an animation, after its frames.
        let gif = encoded(DynamicImage::from(noise).into_rgba8().into(), F::Gif);
        let with_comment = [&gif[..gif.len() - 1], b"\x21\xfe\x03abc"].concat();
        let (_, decoding) = Header::read(&with_comment, limits).unwrap().decode(&with_comment).unwrap();
        assert_eq!(decoding.damaged.as_deref(), Some("the end mark is missing"));
    }

    #[test]
    fn the_header_bounds_the_memory() {
        let memory = |bytes: &[u8]| Header::read(bytes, Limits::default()).unwrap().memory();
        let pixels = 3 * 60 * 40;
        assert_eq!(memory(&encode(&picture(60, 40), ImageFormat::Jpeg).unwrap()), pixels);
        let png = encoded(DynamicImage::from(picture(60, 40)).into_rgba16().into(), image::ImageFormat::Png);
        assert_eq!(memory(&png), pixels + 32 * 60, "a PNG is read row by row");
        let mut turned = encode(&picture(60, 40), ImageFormat::Jpeg).unwrap();
        turned.splice(2..2, exif::segment(6));
        assert_eq!(memory(&turned), 2 * pixels);
        let header = Header::read(&turned, Limits::default()).unwrap();
        assert_eq!((header.width, header.height, header.decoded_bytes()), (40, 60, pixels));
        let tiff = encoded(DynamicImage::from(picture(60, 40)).into_rgba16().into(), image::ImageFormat::Tiff);
        assert!(memory(&tiff) >= 8 * 60 * 40 + pixels);
    }

    #[test]
    fn hostile_bytes_are_errors() {
        assert_eq!(decode(b"<html>", Limits::default()), Err(DecodeError::NotAnImage));
        assert_eq!(decode(b"", Limits::default()), Err(DecodeError::NotAnImage));
        use image::ImageFormat as F;
        let original = picture(40, 30);
        let small = Limits { pixels: 100_000 };
        for format in [F::Png, F::Bmp, F::Tiff, F::WebP, F::Jpeg] {
            let whole = encoded(original.clone().into(), format);
            for end in (0..whole.len()).step_by(7) {
                let _ = decode(&whole[..end], small);
            }
            for at in (0..whole.len()).step_by(5) {
                let mut bytes = whole.clone();
                bytes[at] ^= 0xff;
                let _ = decode(&bytes, small);
            }
        }
        let mut jpeg = encode(&original, ImageFormat::Jpeg).unwrap();
        jpeg.truncate(jpeg.len() - 60);
        assert!(matches!(decode(&jpeg, small), Err(DecodeError::Truncated { .. })), "a truncated image");
        let with_video = [encode(&original, ImageFormat::Jpeg).unwrap(), b"\xff\xda\0\x02".repeat(500)].concat();
        assert!(decode(&with_video, small).is_ok(), "an appended video has no scans of the image");
        let without_pixels = b"GIF89a\0\0\0\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;";
        assert!(matches!(decode(without_pixels, small), Err(DecodeError::Undecodable { .. })), "no pixels");
        let scans = [&b"\xff\xd8"[..], &b"\xff\xda\0\x02".repeat(500)].concat();
        assert!(decode(&[b"\xff\xd8\xff", &scans[2..]].concat(), small).is_err());
    }

    #[test]
    fn encoding_is_deterministic() {
        let original = picture(100, 100);
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let bytes = encode(&original, format).unwrap();
            assert_eq!(bytes, encode(&original, format).unwrap());
            let decoded = decode(&bytes, Limits::default()).unwrap();
            assert!(difference(&decoded, &original) <= if format == ImageFormat::Png { 0 } else { 4 });
        }
        assert!(encode(&original, ImageFormat::Gif).is_err());
    }
}
