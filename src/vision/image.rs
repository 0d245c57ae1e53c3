//! Decodes image files to upright RGB pixels, and encodes crops.

use std::collections::VecDeque;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader, RgbImage};

use super::exif;
use crate::domain::{CauseCode, ContentHash, ImageFormat};

/// Limits for untrusted images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum width times height.
    pub pixels: u64,
}

impl Limits {
    pub fn of_megapixels(megapixels: u64) -> Self {
        Self { pixels: megapixels * 1_000_000 }
    }

    pub fn megapixels(self) -> u64 {
        self.pixels / 1_000_000
    }
}

impl Default for Limits {
    /// 50 megapixels: 150 MB of RGB.
    fn default() -> Self {
        Self { pixels: 50_000_000 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the file is not a JPEG, PNG, WebP, GIF, BMP or TIFF")]
    NotAnImage,
    #[error("the image has {width} x {height} pixels; the limit is {limit}")]
    TooLarge { width: u64, height: u64, limit: u64 },
    #[error("the {format} cannot be decoded: {detail}")]
    Undecodable { format: &'static str, detail: String },
}

impl DecodeError {
    /// The code of the rejection.
    pub fn code(&self) -> CauseCode {
        match self {
            Self::NotAnImage => CauseCode::NotAnImage,
            Self::TooLarge { .. } => CauseCode::TooLarge,
            Self::Undecodable { .. } => CauseCode::Undecodable,
        }
    }
}

/// Decodes the first frame of an image and applies its EXIF orientation.
///
/// Transparent pixels are blended with white. Colours are treated as sRGB; profiles are not applied. A truncated file
/// is an error.
///
/// # Errors
/// The file is not an image of a known format, is too large, or cannot be decoded.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<RgbImage, DecodeError> {
    let _span = tracing::trace_span!("decode", facemill.bytes = bytes.len()).entered();
    let format = ImageFormat::sniff(bytes).ok_or(DecodeError::NotAnImage)?;
    let undecodable = |detail: String| DecodeError::Undecodable { format: format.extension(), detail };
    // Some decoders panic on hostile bytes. They share no state that a panic could corrupt.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => jpeg(bytes, limits),
        _ => decode_with_image(bytes, format, limits),
    }))
    .unwrap_or_else(|_| Err(undecodable("the decoder panicked".into())))?;
    if decoded.is_empty() {
        return Err(undecodable("it has no pixels".into()));
    }
    Ok(apply(exif::orientation(bytes, format), decoded))
}

/// Decodes a JPEG with libjpeg-turbo, and with the slower decoder where that fails (CMYK, unusual sampling).
fn jpeg(bytes: &[u8], limits: Limits) -> Result<RgbImage, DecodeError> {
    // A small file with very many progressive scans of a large image takes minutes to decode. Real files have about
    // ten.
    const MAX_SCANS: usize = 100;
    let markers = JpegMarkers::of(bytes);
    if markers.scans > MAX_SCANS {
        let detail = format!("it has more than {MAX_SCANS} scans");
        return Err(DecodeError::Undecodable { format: "jpg", detail });
    }
    let Some((mut decoder, header)) = turbojpeg::Decompressor::new()
        .and_then(|mut decoder| decoder.read_header(bytes).map(|header| (decoder, header)))
        .ok()
    else {
        return decode_with_image(bytes, ImageFormat::Jpeg, limits);
    };
    check(header.width as u64, header.height as u64, limits)?;
    let mut picture = RgbImage::new(header.width as u32, header.height as u32);
    let output = turbojpeg::Image {
        pixels: &mut *picture,
        width: header.width,
        pitch: 3 * header.width,
        height: header.height,
        format: turbojpeg::PixelFormat::RGB,
    };
    match decoder.decompress(bytes, output) {
        Ok(()) => Ok(picture),
        // The other decoder fills what is missing with grey.
        Err(_) if !markers.ended => {
            Err(DecodeError::Undecodable { format: "jpg", detail: "the file is truncated".into() })
        }
        // libjpeg-turbo also reports warnings as errors. The other decoder decides.
        Err(_) => decode_with_image(bytes, ImageFormat::Jpeg, limits),
    }
}

struct JpegMarkers {
    scans: usize,
    /// There is an end marker.
    ended: bool,
}

impl JpegMarkers {
    /// Reads up to the end marker. Data after it, such as a video that a camera appends, is ignored.
    fn of(bytes: &[u8]) -> Self {
        const START_OF_SCAN: u8 = 0xda;
        const END: u8 = 0xd9;
        let (mut scans, mut at) = (0, 2);
        while let Some(marker) = memchr::memchr(0xff, bytes.get(at..).unwrap_or_default()) {
            at += marker + 1;
            let length =
                || bytes.get(at + 1..at + 3).map_or(0, |two| usize::from(u16::from_be_bytes([two[0], two[1]])));
            match bytes.get(at) {
                None => break,
                Some(&END) => return Self { scans, ended: true },
                // Stuffing and markers within a scan have no length.
                Some(0x00 | 0x01 | 0xd0..=0xd8 | 0xff) => {}
                Some(&marker) => {
                    scans += usize::from(marker == START_OF_SCAN);
                    at += 1 + length();
                }
            }
        }
        Self { scans, ended: false }
    }
}

/// Decodes any format with the `image` crate.
fn decode_with_image(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<RgbImage, DecodeError> {
    let undecodable = |error: image::ImageError| {
        let detail = error.to_string();
        DecodeError::Undecodable { format: format.extension(), detail }
    };
    if format == ImageFormat::Webp {
        check_webp(bytes.get(12..).unwrap_or_default(), limits, false)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), library_format(format));
    let mut bounds = image::Limits::no_limits();
    // 16-bit RGBA, and the same for the decoder itself.
    bounds.max_alloc = Some(limits.pixels.saturating_mul(16).max(1 << 20));
    reader.limits(bounds.clone());
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    check(u64::from(width), u64::from(height), limits)?;
    bounds.reserve(decoder.total_bytes()).map_err(undecodable)?;
    decoder.set_limits(bounds).map_err(undecodable)?;
    Ok(flatten(DynamicImage::from_decoder(decoder).map_err(undecodable)?))
}

/// Checks every size in the chunks of a WebP, because its decoder decodes before it reports a size.
/// <https://developers.google.com/speed/webp/docs/riff_container>
fn check_webp(mut rest: &[u8], limits: Limits, in_frame: bool) -> Result<(), DecodeError> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = number(&head[4..]) as usize;
        let body = &after[..length.min(after.len())];
        match &head[..4] {
            b"VP8 " if body.len() >= 10 => {
                check(number(&body[6..8]) & 0x3fff, number(&body[8..10]) & 0x3fff, limits)?;
            }
            b"VP8L" if body.len() >= 5 => {
                let bits = number(&body[1..5]);
                check((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1, limits)?;
            }
            b"VP8X" if body.len() >= 10 => check(number(&body[4..7]) + 1, number(&body[7..10]) + 1, limits)?,
            // A frame of an animation. Frames are not nested.
            b"ANMF" if body.len() >= 16 && !in_frame => {
                check(number(&body[6..9]) + 1, number(&body[9..12]) + 1, limits)?;
                check_webp(&body[16..], limits, true)?;
            }
            _ => {}
        }
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    Ok(())
}

fn check(width: u64, height: u64, limits: Limits) -> Result<(), DecodeError> {
    if width.saturating_mul(height) > limits.pixels {
        return Err(DecodeError::TooLarge { width, height, limit: limits.pixels });
    }
    Ok(())
}

fn library_format(format: ImageFormat) -> image::ImageFormat {
    match format {
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::Webp => image::ImageFormat::WebP,
        ImageFormat::Gif => image::ImageFormat::Gif,
        ImageFormat::Bmp => image::ImageFormat::Bmp,
        ImageFormat::Tiff => image::ImageFormat::Tiff,
    }
}

/// Blends transparent pixels with white.
fn flatten(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    let mut flat = RgbImage::new(picture.width(), picture.height());
    for (to, from) in flat.pixels_mut().zip(picture.pixels()) {
        let alpha = u32::from(from[3]);
        to.0 = std::array::from_fn(|i| ((u32::from(from[i]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
    }
    flat
}

fn apply(orientation: Orientation, picture: RgbImage) -> RgbImage {
    let mut picture = DynamicImage::from(picture);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {format} cannot be encoded: {detail}")]
pub struct EncodeError {
    format: &'static str,
    detail: String,
}

/// Encodes a crop as PNG with fast compression, or as JPEG with quality 100 and without colour subsampling. The same
/// pixels give the same bytes.
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
            Ok(bytes)
        }
        ImageFormat::Jpeg => {
            let input = turbojpeg::Image {
                pixels: &**picture,
                width: width as usize,
                pitch: 3 * width as usize,
                height: height as usize,
                format: turbojpeg::PixelFormat::RGB,
            };
            let mut compressor = turbojpeg::Compressor::new().map_err(|error| failed(error.to_string()))?;
            compressor.set_quality(100);
            compressor.set_subsamp(turbojpeg::Subsamp::None);
            compressor.compress_to_vec(input).map_err(|error| failed(error.to_string()))
        }
        _ => Err(failed("only png and jpeg are supported".into())),
    }
}

/// A cache of decoded images, by the hash of their files.
///
/// The stages detect and crop both need the pixels of the original. Where both run in one process, crop takes them from
/// this cache. Decoding takes as long as detection. The cache is bounded. An evicted image is decoded again.
pub struct ImageCache {
    entries: Mutex<VecDeque<(ContentHash, Arc<RgbImage>)>>,
    bytes: usize,
}

impl ImageCache {
    /// Creates a cache for at most `bytes` of pixels.
    pub fn new(bytes: usize) -> Self {
        Self { entries: Mutex::default(), bytes }
    }

    /// Removes and returns an image.
    pub fn take(&self, hash: ContentHash) -> Option<Arc<RgbImage>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|(other, _)| *other == hash)?;
        entries.remove(at).map(|(_, picture)| picture)
    }

    /// Adds an image and evicts the oldest ones where necessary. An image larger than the whole cache is not added.
    pub fn put(&self, hash: ContentHash, picture: Arc<RgbImage>) {
        if picture.len() > self.bytes {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(other, _)| *other != hash);
        entries.push_back((hash, picture));
        while entries.iter().map(|(_, picture)| picture.len()).sum::<usize>() > self.bytes {
            entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
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
        jpeg.truncate(jpeg.len() / 2);
        assert!(matches!(decode(&jpeg, small), Err(DecodeError::Undecodable { .. })), "a truncated image");
        let without_end = encode(&original, ImageFormat::Jpeg).unwrap();
        let truncated = decode(&without_end[..without_end.len() - 2], small).unwrap_err();
        assert!(truncated.to_string().contains("truncated"), "{truncated}");
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

    #[test]
    fn the_cache_is_bounded_and_returns_an_image_once() {
        let cache = ImageCache::new(2 * 300);
        let hash = |i: u8| ContentHash::of(&[i]);
        for i in 0..3 {
            cache.put(hash(i), Arc::new(picture(10, 10)));
        }
        assert!(cache.take(hash(0)).is_none(), "the oldest is evicted");
        assert!(cache.take(hash(2)).is_some());
        assert!(cache.take(hash(2)).is_none());
        cache.put(hash(9), Arc::new(picture(20, 20)));
        assert!(cache.take(hash(9)).is_none(), "larger than the cache");
        assert!(cache.take(hash(1)).is_some());
    }
}
