//! Formats that the `image` crate decodes: WebP, GIF, BMP, TIFF, and the JPEGs that libjpeg-turbo does not read.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Cursor, ErrorKind};

use image::error::ImageError;
use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, RgbImage};

use super::decoded::{Decoded, MAX_MISSING_ROWS, Samples, check_rows, on_white};
use super::error::{DecodeError, Limits};
use super::gif;
use facemill_domain::ImageFormat;

/// Decodes the first frame. A file without its end is taken if it lacks no more than a hundredth of its rows.
///
/// # Errors
/// The image is too large, is truncated, or cannot be decoded.
pub fn decode(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<Decoded, DecodeError> {
    /// What follows where the data ends. Rows that differ are missing.
    const TAILS: [u8; 2] = [0x00, 0x55];
    let error = match read(bytes, format, limits) {
        Ok(mut decoded) => {
            decoded.decoding.damaged = missing_end(bytes, format);
            return Ok(decoded);
        }
        Err(error @ (DecodeError::TooLarge { .. } | DecodeError::Unsupported { .. })) => return Err(error),
        Err(DecodeError::Undecodable { format: name, detail }) => match missing_end(bytes, format) {
            Some(missing) => DecodeError::Truncated { format: name, detail: format!("{detail}: {missing}") },
            None => DecodeError::Undecodable { format: name, detail },
        },
        Err(error) => error,
    };
    // The other decoder of JPEG fills what is missing with grey.
    if format == ImageFormat::Jpeg {
        return Err(error);
    }
    let mut decoded = match format {
        ImageFormat::Gif => {
            let Some(completed) = gif::completed(bytes, limits)? else { return Err(error) };
            read(&completed, format, limits).map_err(|_| error.clone())?
        }
        _ => {
            let padded = |tail: u8| {
                let mut padded = bytes.to_vec();
                padded.resize(bytes.len() + (MAX_MISSING_ROWS * bytes.len() as f64) as usize + 2, tail);
                read(&padded, format, limits).map_err(|_| error.clone())
            };
            // One image is held at a time.
            let other = hashes(&padded(TAILS[1])?.pixels);
            let decoded = padded(TAILS[0])?;
            let missing = changed_rows(&hashes(&decoded.pixels), &other);
            check_rows(missing as f64, decoded.pixels.height(), format.extension())?;
            decoded
        }
    };
    decoded.decoding.damaged = Some(match error {
        DecodeError::Truncated { detail, .. } | DecodeError::Undecodable { detail, .. } => detail,
        other => other.to_string(),
    });
    Ok(decoded)
}

/// A hash of each row.
fn hashes(pixels: &RgbImage) -> Vec<u64> {
    let hash = |row: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(row);
        hasher.finish()
    };
    pixels.chunks(3 * pixels.width() as usize).map(hash).collect()
}

/// The rows from the first one that differs to the last one that does.
fn changed_rows(a: &[u64], b: &[u64]) -> usize {
    let differs = |(a, b): (&u64, &u64)| a != b;
    let first = a.iter().zip(b).position(differs);
    let last = a.iter().zip(b).rposition(differs);
    first.zip(last).map_or(a.len().abs_diff(b.len()), |(first, last)| last - first + 1)
}

/// What a file lacks that shows its first frame nevertheless.
fn missing_end(bytes: &[u8], format: ImageFormat) -> Option<String> {
    match format {
        ImageFormat::Gif => gif::is_cut(bytes).then(|| "the end mark is missing".into()),
        ImageFormat::Webp => {
            let stated = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
            let missing = stated.saturating_add(8).saturating_sub(bytes.len());
            // Programs forget to count the byte that makes lengths even.
            (missing > 1).then(|| format!("{missing} bytes are missing"))
        }
        _ => None,
    }
}

fn read(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<Decoded, DecodeError> {
    let failed = |error: ImageError| failed(&error, format);
    if format == ImageFormat::Webp {
        check_webp(bytes.get(12..).unwrap_or_default(), limits, false)?;
    }
    let (mut decoder, bounds) = open(bytes, format, limits)?;
    decoder.set_limits(bounds).map_err(failed)?;
    let profile = decoder.icc_profile().unwrap_or_default();
    let colour = decoder.color_type();
    let pixels = flatten(DynamicImage::from_decoder(decoder).map_err(failed)?);
    let samples = match colour {
        ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16 => Samples::Grey,
        _ => Samples::Rgb,
    };
    Ok(Decoded::sound(pixels, samples, profile.into()))
}

/// Opens a decoder that has read the header.
fn open(
    bytes: &[u8],
    format: ImageFormat,
    limits: Limits,
) -> Result<(impl ImageDecoder + '_, image::Limits), DecodeError> {
    let failed = |error: ImageError| failed(&error, format);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), library_format(format)?);
    let mut bounds = image::Limits::no_limits();
    // 16-bit RGBA, and the same for the decoder itself.
    bounds.max_alloc = Some(limits.pixels.saturating_mul(16).max(1 << 20));
    reader.limits(bounds.clone());
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check(width.into(), height.into())?;
    bounds.reserve(decoder.total_bytes()).map_err(failed)?;
    Ok((decoder, bounds))
}

/// Width, height, and the most bytes that decoding takes.
///
/// # Errors
/// The header cannot be read, or the image is too large.
pub fn header(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<(u64, u64, u64), DecodeError> {
    let mut largest = 0;
    if format == ImageFormat::Webp {
        // Frames of animations may be larger than the canvas.
        largest = check_webp(bytes.get(12..).unwrap_or_default(), limits, false)?;
    }
    let (decoder, _) = open(bytes, format, limits)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (u64::from(width), u64::from(height));
    let pixels = (width * height).max(largest);
    // The decoder's own buffers, its output, and the RGB pixels.
    let per_pixel = match format {
        ImageFormat::Bmp => 8,
        ImageFormat::Jpeg => 18,
        _ => 14,
    };
    // TIFF has samples of up to 64 bits.
    let output = decoder.total_bytes();
    Ok((width, height, (per_pixel * pixels).max(2 * output + 7 * pixels)))
}

fn failed(error: &ImageError, format: ImageFormat) -> DecodeError {
    let (format, detail) = (format.extension(), error.to_string());
    let ends_early = match error {
        ImageError::IoError(error) => error.kind() == ErrorKind::UnexpectedEof,
        _ => detail.contains("end of file") || detail.contains("failed to fill whole buffer"),
    };
    match ends_early {
        true => DecodeError::Truncated { format, detail },
        false => DecodeError::Undecodable { format, detail },
    }
}

/// Checks every size in the chunks of a WebP, because its decoder decodes before it reports a size. Returns the most
/// pixels of one. <https://developers.google.com/speed/webp/docs/riff_container>
fn check_webp(mut rest: &[u8], limits: Limits, in_frame: bool) -> Result<u64, DecodeError> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let mut most = 0;
    let mut check = |width: u64, height: u64| {
        most = most.max(width.saturating_mul(height));
        limits.check(width, height)
    };
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = number(&head[4..]) as usize;
        let body = &after[..length.min(after.len())];
        match &head[..4] {
            b"VP8 " if body.len() >= 10 => check(number(&body[6..8]) & 0x3fff, number(&body[8..10]) & 0x3fff)?,
            b"VP8L" if body.len() >= 5 => {
                let bits = number(&body[1..5]);
                check((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)?;
            }
            b"VP8X" if body.len() >= 10 => check(number(&body[4..7]) + 1, number(&body[7..10]) + 1)?,
            // A frame of an animation. Frames are not nested.
            b"ANMF" if body.len() >= 16 && !in_frame => {
                check(number(&body[6..9]) + 1, number(&body[9..12]) + 1)?;
                let inside = check_webp(&body[16..], limits, true)?;
                check(inside, 1)?;
            }
            _ => {}
        }
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    Ok(most)
}

fn library_format(format: ImageFormat) -> Result<image::ImageFormat, DecodeError> {
    Ok(match format {
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::Png => image::ImageFormat::Png,
        ImageFormat::Webp => image::ImageFormat::WebP,
        ImageFormat::Gif => image::ImageFormat::Gif,
        ImageFormat::Bmp => image::ImageFormat::Bmp,
        ImageFormat::Tiff => image::ImageFormat::Tiff,
        ImageFormat::Avif | ImageFormat::Heic => {
            return Err(DecodeError::Unsupported { format: format.extension(), detail: None });
        }
    })
}

/// Blends transparent pixels with white.
fn flatten(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    let mut flat = RgbImage::new(picture.width(), picture.height());
    for (to, from) in flat.pixels_mut().zip(picture.pixels()) {
        to.0 = on_white([from[0], from[1], from[2]], from[3]);
    }
    flat
}
