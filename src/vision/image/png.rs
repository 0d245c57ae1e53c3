//! PNG, row by row: only the RGB pixels of the image are held in memory, whatever its samples are.
//!
//! Where checksums are wrong or the end is missing, the pixels are taken as browsers take them.

use std::io::{Cursor, Read};

use image::RgbImage;
use png::{ColorType, DecodeOptions, Decoder, DecodingError, Transformations};

use super::colour_space::{ColourSpace, Curve};
use super::decoded::{Colours, Decoded, MAX_PROFILE, Samples, check_rows, on_white};
use super::error::{DecodeError, Limits};
use facemill_domain::Decoding;

const FORMAT: &str = "png";
/// Bytes that the decoder may take for a few rows and for chunks such as eXIf.
pub const DECODER_MEMORY: usize = 64 << 20;

/// Decodes the image, not the frames of an animation.
///
/// # Errors
/// The image is too large, lacks rows, or cannot be decoded.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    let mut colours = colours(bytes);
    let strict = read(bytes, limits, &colours, true)?;
    let (rows, damaged) = match strict.fault {
        None => (strict, None),
        Some(fault) if strict.missing == 0.0 => (Rows { fault: None, ..strict }, Some(fault.to_string())),
        // Wrong checksums come first, and chunks without pixels. The rows may be there nevertheless.
        Some(fault) => {
            drop(strict.pixels);
            (read(&only_pixels(bytes), limits, &colours, false)?, Some(fault.to_string()))
        }
    };
    if rows.missing > 0.0 {
        let is_cut = matches!(&rows.fault, Some(DecodingError::IoError(_)) | None) || ends_early(bytes);
        match (is_cut, rows.fault) {
            (false, Some(fault)) => {
                check_rows(rows.missing, rows.pixels.height(), FORMAT).map_err(|_| failed(&fault))?
            }
            _ => check_rows(rows.missing, rows.pixels.height(), FORMAT)?,
        }
    }
    let samples = if rows.is_grey { Samples::Grey } else { Samples::Rgb };
    let mut decoding = Decoding { damaged, ..Decoding::default() };
    if let (true, Colours::Numbers(space)) = (rows.has_curve, &mut colours) {
        space.curve = Curve::Srgb;
        decoding.profile = Some(space.name.clone());
    }
    Ok(Decoded { pixels: rows.pixels, samples, decoding, colours })
}

fn failed(error: &DecodingError) -> DecodeError {
    DecodeError::Undecodable { format: FORMAT, detail: error.to_string() }
}

/// The file with only the chunks that pixels depend on.
fn only_pixels(bytes: &[u8]) -> Vec<u8> {
    let mut kept = bytes[..bytes.len().min(8)].to_vec();
    let mut at = kept.len();
    for (name, body) in Chunks::of(bytes) {
        let end = bytes.len().min(at + 12 + body.len());
        if matches!(&name, b"IHDR" | b"PLTE" | b"tRNS" | b"IDAT" | b"IEND") {
            kept.extend_from_slice(&bytes[at..end]);
        }
        at = end;
    }
    kept
}

/// Whether there is no end chunk.
fn ends_early(bytes: &[u8]) -> bool {
    !Chunks::of(bytes).any(|(name, _)| name == *b"IEND")
}

/// The rows that could be decoded. The others are white.
struct Rows {
    pixels: RgbImage,
    is_grey: bool,
    /// The curve of the file's colour space has been applied: 16 bits a sample would lose too much in 8.
    has_curve: bool,
    missing: f64,
    fault: Option<DecodingError>,
}

fn read(bytes: &[u8], limits: Limits, colours: &Colours, strict: bool) -> Result<Rows, DecodeError> {
    let mut options = DecodeOptions::default();
    // Profile and orientation are read elsewhere, and texts are not read.
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    options.set_ignore_checksums(!strict);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(png::Limits { bytes: DECODER_MEMORY });
    decoder.set_transformations(Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(|error| failed(&error))?;
    let (width, height, interlaced) = (header.width, header.height, header.interlaced);
    limits.check(width.into(), height.into())?;
    let mut reader = match decoder.read_info() {
        Ok(reader) => reader,
        Err(fault) if strict => {
            let pixels = RgbImage::new(0, 0);
            return Ok(Rows {
                pixels,
                is_grey: false,
                has_curve: false,
                missing: f64::from(height),
                fault: Some(fault),
            });
        }
        Err(fault) => return Err(failed(&fault)),
    };
    let (colour, depth) = reader.output_color_type();
    let wide = depth == png::BitDepth::Sixteen;
    let curve = match colours {
        Colours::Numbers(space) if wide => space.curve_table(1 << 16),
        _ => None,
    };
    let row = PixelRow { colour, wide, curve };
    // White, in one go: `RgbImage::from_pixel` writes pixel by pixel.
    let white = vec![255; 3 * width as usize * height as usize];
    let mut pixels = RgbImage::from_raw(width, height, white).unwrap_or_default();
    let mut missing = f64::from(height);
    let mut fault = None;
    for line in Line::all(width, height, interlaced) {
        match reader.next_row() {
            Ok(Some(data)) => row.write(data.data(), &mut pixels, &line),
            Ok(None) => break,
            Err(error) => {
                fault = Some(error);
                break;
            }
        }
        missing -= f64::from(line.count(width)) / f64::from(width);
    }
    if fault.is_none() {
        // Whether the rest is right, too: checksums, and the end.
        fault = reader.finish().err();
    }
    let is_grey = matches!(colour, ColorType::Grayscale | ColorType::GrayscaleAlpha);
    let missing = if missing < 1e-6 { 0.0 } else { missing };
    Ok(Rows { pixels, is_grey, has_curve: row.curve.is_some(), missing, fault })
}

/// Where the pixels of a row of the file are in the image.
struct Line {
    y: u32,
    first: u32,
    step: u32,
}

impl Line {
    /// The rows in the order of the file: seven passes where the image is interlaced (PNG, 8.2).
    fn all(width: u32, height: u32, interlaced: bool) -> impl Iterator<Item = Self> {
        /// First column and row, and their steps.
        const PASSES: [[u32; 4]; 7] =
            [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
        let passes: &[[u32; 4]] = if interlaced { &PASSES } else { &[[0, 0, 1, 1]] };
        let wide_enough = passes.iter().filter(move |[x, ..]| *x < width);
        wide_enough.flat_map(move |&[x, y, step_x, step_y]| {
            (y..height).step_by(step_y as usize).map(move |y| Self { y, first: x, step: step_x })
        })
    }

    fn count(&self, width: u32) -> u32 {
        (width - self.first).div_ceil(self.step)
    }
}

/// How the pixels of a row are stored.
struct PixelRow {
    colour: ColorType,
    /// 16 bits a sample, the high byte first.
    wide: bool,
    /// For each sample of 16 bits, the one of sRGB.
    curve: Option<Vec<u8>>,
}

impl PixelRow {
    /// Blends transparent pixels with white.
    fn write(&self, data: &[u8], pixels: &mut RgbImage, line: &Line) {
        let width = pixels.width();
        let row = &mut pixels.as_flat_samples_mut().samples[3 * (line.y * width) as usize..][..3 * width as usize];
        // Crops, and most photos.
        if self.colour == ColorType::Rgb && !self.wide && line.step == 1 && data.len() == row.len() {
            return row.copy_from_slice(data);
        }
        let to = row[3 * line.first as usize..].chunks_mut(3 * line.step as usize);
        let channels = self.colour.samples();
        let size = channels * if self.wide { 2 } else { 1 };
        let wide = |pixel: &[u8], channel: usize| u16::from_be_bytes([pixel[2 * channel], pixel[2 * channel + 1]]);
        let alpha = |pixel: &[u8], channel: usize| match self.wide {
            true => ((u32::from(wide(pixel, channel)) + 128) / 257) as u8,
            false => pixel[channel],
        };
        let sample = |pixel: &[u8], channel: usize| match &self.curve {
            Some(curve) => curve[usize::from(wide(pixel, channel))],
            None => alpha(pixel, channel),
        };
        for (to, pixel) in to.zip(data.chunks_exact(size)) {
            let rgb = match channels {
                1 | 2 => [sample(pixel, 0); 3],
                _ => [sample(pixel, 0), sample(pixel, 1), sample(pixel, 2)],
            };
            let blended = match channels {
                2 | 4 => on_white(rgb, alpha(pixel, channels - 1)),
                _ => rgb,
            };
            to[..3].copy_from_slice(&blended);
        }
    }
}

/// The chunks: name and body. The last one may be cut.
pub struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes.get(8..).unwrap_or_default())
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_be_bytes(*self.0.first_chunk()?) as usize;
        let name = *self.0.get(4..)?.first_chunk()?;
        let body = &self.0[8..self.0.len().min(length.saturating_add(8))];
        self.0 = self.0.get(length.saturating_add(12)..).unwrap_or_default();
        Some((name, body))
    }
}

/// The colours of the image: of the chunks cICP, iCCP, sRGB, and gAMA with cHRM, the first counts (PNG, 3rd edition, 4.3).
fn colours(bytes: &[u8]) -> Colours {
    let find = |name: &[u8; 4]| {
        let mut before_pixels = Chunks::of(bytes).take_while(|(name, _)| *name != *b"IDAT");
        before_pixels.find(|(other, _)| other == name).map(|(_, body)| body)
    };
    if let Some(codes) = find(b"cICP") {
        return match *codes {
            [primaries, transfer, 0, 1] => ColourSpace::of_codes(primaries.into(), transfer.into()).into(),
            _ => Colours::Unusable("its cICP is not for RGB of the full range".into()),
        };
    }
    if let Some(body) = find(b"iCCP") {
        return profile(body).into();
    }
    let (gamma, chromaticities) = (find(b"gAMA"), find(b"cHRM"));
    if find(b"sRGB").is_some() || (gamma.is_none() && chromaticities.is_none()) {
        return Colours::Unspecified;
    }
    let number = |body: &[u8], at: usize| body.get(4 * at..)?.first_chunk().copied().map(u32::from_be_bytes);
    let gamma = gamma.map(|body| number(body, 0).unwrap_or_default());
    let chromaticities =
        chromaticities.map(|body| [0, 1, 2, 3, 4, 5, 6, 7].map(|at| number(body, at).unwrap_or_default()));
    ColourSpace::of_gamma(gamma, chromaticities).into()
}

/// The profile in the body of an iCCP, which is compressed. One that is too large is returned in part.
fn profile(body: &[u8]) -> Option<Vec<u8>> {
    // A name that ends with zero, and the method of compression.
    let end = memchr::memchr(0, body)?;
    let compressed = body.get(end + 2..)?;
    let mut profile = Vec::new();
    // A broken stream gives a part of the profile, which is then ignored with a reason.
    let _ = flate2::read::ZlibDecoder::new(compressed).take(MAX_PROFILE as u64 + 1).read_to_end(&mut profile);
    Some(profile)
}

/// Width, height, and the most bytes that decoding takes.
pub fn header(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let (name, body) = Chunks::of(bytes).next()?;
    let (width, height) =
        (u32::from_be_bytes(*body.first_chunk()?), u32::from_be_bytes(*body.get(4..)?.first_chunk()?));
    let (width, height) = (u64::from(width), u64::from(height));
    let memory = 3 * width.saturating_mul(height);
    // The decoder holds a few rows of at most eight bytes a pixel.
    let rows = (32 * width).min(DECODER_MEMORY as u64);
    (name == *b"IHDR").then_some((width, height, memory.saturating_add(rows)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use image::{DynamicImage, ImageFormat};

    use super::*;
    use crate::test_pictures;

    fn noise() -> RgbImage {
        test_pictures::noise(64, 400)
    }

    fn encoded(picture: DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut checksum = flate2::Crc::new();
        checksum.update(name);
        checksum.update(body);
        [&(body.len() as u32).to_be_bytes()[..], name, body, &checksum.sum().to_be_bytes()].concat()
    }

    /// An interlaced RGB image, made from the definition.
    fn interlaced(picture: &RgbImage) -> Vec<u8> {
        let (width, height) = picture.dimensions();
        let mut rows = Vec::new();
        for [x0, y0, dx, dy] in
            [[0u32, 0u32, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]]
        {
            for y in (y0..height).step_by(dy as usize) {
                if x0 < width {
                    rows.push(0);
                    (x0..width).step_by(dx as usize).for_each(|x| rows.extend(picture.get_pixel(x, y).0));
                }
            }
        }
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&rows).unwrap();
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 1]].concat();
        let pixels = packer.finish().unwrap();
        let chunks = [chunk(b"IHDR", &header), chunk(b"IDAT", &pixels), chunk(b"IEND", &[])].concat();
        [b"\x89PNG\r\n\x1a\n", &chunks[..]].concat()
    }

    fn decoded(bytes: &[u8]) -> Result<Decoded, DecodeError> {
        decode(bytes, Limits::default())
    }

    #[test]
    fn every_kind_of_sample_is_read() {
        let picture = noise();
        let original = DynamicImage::from(picture.clone());
        assert!(decoded(&encoded(original.clone())).unwrap().pixels == picture);
        assert!(decoded(&encoded(original.clone().into_rgb16().into())).unwrap().pixels == picture);
        assert!(decoded(&encoded(original.clone().into_rgba16().into())).unwrap().pixels == picture);
        assert!(decoded(&interlaced(&picture)).unwrap().pixels == picture);
        for (width, height) in [(1, 1), (3, 2), (5, 9)] {
            let small = image::imageops::crop_imm(&picture, 0, 0, width, height).to_image();
            assert!(decoded(&interlaced(&small)).unwrap().pixels == small, "{width} x {height}");
        }
        let grey = decoded(&encoded(original.clone().into_luma16().into())).unwrap();
        assert!(grey.samples == Samples::Grey && grey.pixels == DynamicImage::from(original.into_luma8()).into_rgb8());
    }

    #[test]
    fn wrong_checksums_and_a_missing_end_are_damage() {
        for whole in [encoded(noise().into()), interlaced(&noise())] {
            let pixels_end = whole.len() - 12;
            let mut wrong_chunk = whole.clone();
            wrong_chunk[pixels_end - 1] ^= 1;
            let mut wrong_stream = whole.clone();
            wrong_stream[pixels_end - 5] ^= 1;
            let mut short_chunk = whole.clone();
            short_chunk.splice(33..33, chunk(b"cICP", &[1, 13, 1, 1]));
            let faults =
                [(wrong_chunk, "CRC"), (wrong_stream, ""), (whole[..pixels_end].to_vec(), ""), (short_chunk, "")];
            for (bytes, what) in faults {
                let damaged = decoded(&bytes).unwrap();
                assert!(damaged.pixels == noise(), "{what}");
                let noted = damaged.decoding.damaged.expect("the fault is noted");
                assert!(noted.contains(what), "{noted}");
            }
        }
    }

    #[test]
    fn missing_rows_are_counted() {
        // Noise is not compressed: 192 bytes a row.
        let whole = encoded(noise().into());
        let damaged = decoded(&whole[..whole.len() - 12 - 300]).unwrap();
        assert!(damaged.decoding.damaged.is_some());
        let error = decoded(&whole[..whole.len() / 2]).err().expect("half of the rows are missing");
        assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
        let cut = interlaced(&noise());
        assert!(decoded(&cut[..cut.len() - 12 - 300]).is_ok());
        assert!(matches!(decoded(&cut[..cut.len() * 9 / 10]), Err(DecodeError::Truncated { .. })));
        // A fault in the middle of the compressed data, and not at its end.
        let mut corrupt = whole;
        let middle = corrupt.len() / 4;
        corrupt[middle..middle + 400].fill(0xff);
        assert!(decoded(&corrupt).is_ok() || matches!(decoded(&corrupt), Err(DecodeError::Undecodable { .. })));
    }

    #[test]
    fn texts_and_profiles_do_not_grow_in_memory() {
        let bomb = || {
            let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            (0..200).for_each(|_| packer.write_all(&[0; 1 << 20]).unwrap());
            packer.finish().unwrap()
        };
        let text = chunk(b"zTXt", &[b"comment\0\0", &bomb()[..]].concat());
        let colours = chunk(b"iCCP", &[b"colours\0\0", &bomb()[..]].concat());
        let mut bytes = encoded(noise().into());
        bytes.splice(33..33, [colours, text].concat());
        let decoded = decoded(&bytes).unwrap();
        assert!(decoded.pixels == noise());
        let Colours::Profile(profile) = decoded.colours else { panic!("it has a profile") };
        assert_eq!(profile.len(), MAX_PROFILE + 1);
    }
}
