//! AVIF and HEIC (ISO/IEC 23008-12), decoded by libheif.

mod boxes;
mod coded;
#[cfg(test)]
mod fixture;
mod items;
mod libheif;
mod plan;

use image::RgbImage;

use super::decoded::{Decoded, MAX_MISSING_ROWS, Samples};
use super::error::{DecodeError, Limits};
use facemill_domain::ImageFormat;
use libheif::{Failure, Libheif};
use plan::{Plan, undecodable, unsupported};

/// Width, height, and the most bytes that decoding takes.
///
/// # Errors
/// libheif is not installed, or the file is not understood or too large.
pub fn header(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<(u64, u64, u64), DecodeError> {
    let plan = Plan::of(bytes, format, limits)?;
    library(&plan, format)?;
    let [width, height] = plan.size;
    let padded = if plan.missing > 0 { plan.whole } else { 0 };
    Ok((width, height, plan.memory() + padded.min(2 * bytes.len() as u64)))
}

/// Decodes the primary image, upright. A file that lacks a hundredth of its coded data is taken.
///
/// # Errors
/// As [`header`], or the coded data cannot be decoded.
pub fn decode(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<Decoded, DecodeError> {
    let plan = Plan::of(bytes, format, limits)?;
    let library = library(&plan, format)?;
    let cut = (plan.missing > 0).then(|| {
        let all = plan.present.saturating_add(plan.missing);
        (format!("{} of {all} bytes of its pixels are missing", plan.missing), plan.missing as f64 / all as f64)
    });
    let image = match &cut {
        None => library.decode(bytes, plan.longest).map_err(|failure| failed(failure, format))?,
        Some((detail, share)) => {
            let truncated = || DecodeError::Truncated { format: format.extension(), detail: detail.clone() };
            let length = usize::try_from(plan.whole).unwrap_or(usize::MAX);
            if *share > MAX_MISSING_ROWS || length > 2 * bytes.len() {
                return Err(truncated());
            }
            let mut padded = bytes.to_vec();
            padded.resize(length, 0);
            library.decode(&padded, plan.longest).map_err(|_| truncated())?
        }
    };
    limits.check(image.width.into(), image.height.into())?;
    let pixels = RgbImage::from_raw(image.width, image.height, image.pixels)
        .ok_or_else(|| undecodable(format, "it has no pixels".into()))?;
    let mut decoded = Decoded::sound(pixels, Samples::Rgb, plan.colours);
    decoded.decoding.damaged = cut.map(|(detail, _)| detail);
    Ok(decoded)
}

/// libheif with the decoders that a file needs.
fn library(plan: &Plan, format: ImageFormat) -> Result<&'static Libheif, DecodeError> {
    let library = Libheif::load().map_err(|detail| unsupported(format, detail))?;
    for (needed, codec) in [(plan.needs_av1, libheif::AV1), (plan.needs_hevc, libheif::HEVC)] {
        if needed && !library.can_decode(codec) {
            let detail = format!("libheif has no decoder of {}: install {}", codec.name, codec.packages);
            return Err(unsupported(format, detail));
        }
    }
    Ok(library)
}

fn failed(failure: Failure, format: ImageFormat) -> DecodeError {
    match failure {
        Failure::Unsupported(detail) => unsupported(format, detail),
        Failure::Broken(detail) => undecodable(format, detail),
    }
}

#[cfg(test)]
mod tests {
    use image::imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};
    use image::{DynamicImage, Rgb};
    use moxcms::ColorProfile;

    use super::fixture::{Item, av1, boxed, colours, file, grid, hevc, hevc_10_bits};
    use super::*;
    use crate::image::{Header, decode as decode_any};
    use facemill_domain::{CauseCode, Decoding};

    /// What the samples show.
    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| match x < width / 4 && y < height / 4 {
            true => Rgb([250, 20, 20]),
            false => Rgb([255 * x / width, 255 * y / height, 200 - 100 * x / width].map(|value| value as u8)),
        })
    }

    fn decoded(bytes: &[u8]) -> (RgbImage, Decoding) {
        let header = Header::read(bytes, Limits::default()).unwrap();
        header.decode(bytes).unwrap()
    }

    fn pixels(item: Item) -> RgbImage {
        decoded(&file(b"avif", &[item])).0
    }

    /// The mean difference of a sample.
    fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
        assert_eq!(a.dimensions(), b.dimensions());
        let sum: f64 = a.iter().zip(b.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum / a.len() as f64
    }

    #[test]
    fn avif_and_heic_are_read() {
        for (brand, item, height, format) in
            [(b"avif", av1(), 48, ImageFormat::Avif), (b"heic", hevc(), 64, ImageFormat::Heic)]
        {
            let bytes = file(brand, &[item]);
            assert_eq!(ImageFormat::sniff(&bytes), Some(format));
            let header = Header::read(&bytes, Limits::default()).unwrap();
            assert_eq!((header.width, header.height), (64, height));
            assert!(header.memory() >= (16 << 20) + 9 * 64 * u64::from(height));
            let (pixels, decoding) = header.decode(&bytes).unwrap();
            assert_eq!(decoding, Decoding::default());
            let difference = difference(&pixels, &picture(64, height));
            assert!(difference < 3.0, "{format:?}: {difference}");
        }
        let ramp = RgbImage::from_fn(64, 64, |x, _| Rgb([(255 * x / 64) as u8; 3]));
        let (pixels, _) = decoded(&file(b"heic", &[hevc_10_bits()]));
        assert!(difference(&pixels, &ramp) < 2.0, "10 bits a sample: {}", difference(&pixels, &ramp));
    }

    #[test]
    fn turns_and_mirrors_of_the_file_are_applied() {
        let upright = pixels(av1());
        let turned = |quarter: u8| pixels(av1().with(boxed(b"irot", &[quarter])));
        // Against the clock.
        assert!(
            turned(1) == rotate270(&upright) && turned(2) == rotate180(&upright) && turned(3) == rotate90(&upright)
        );
        let mirrored = |axis: u8| pixels(av1().with(boxed(b"imir", &[axis])));
        assert!(mirrored(0) == flip_vertical(&upright), "top and bottom are exchanged");
        assert!(mirrored(1) == flip_horizontal(&upright), "left and right are exchanged");
        let both = pixels(av1().with(boxed(b"irot", &[1])).with(boxed(b"imir", &[1])));
        assert!(both == flip_horizontal(&rotate270(&upright)), "in the order of the properties");
        // Half of each side, around the centre.
        let half: Vec<u8> = [32u32, 1, 24, 1, 0, 1, 0, 1].iter().flat_map(|value| value.to_be_bytes()).collect();
        let cropped = pixels(av1().with(boxed(b"clap", &half)));
        assert!(cropped == image::imageops::crop_imm(&upright, 16, 12, 32, 24).to_image());
    }

    #[test]
    fn tiles_are_joined() {
        let bytes = file(b"heic", &[grid(1, 3, 180, 60), hevc(), hevc(), hevc()]);
        let (pixels, _) = decoded(&bytes);
        assert_eq!(pixels.dimensions(), (180, 60));
        let tile = decoded(&file(b"heic", &[hevc()])).0;
        for (left, width) in [(0, 64), (64, 64), (128, 52)] {
            let own = image::imageops::crop_imm(&pixels, left, 0, width, 60).to_image();
            assert!(difference(&own, &image::imageops::crop_imm(&tile, 0, 0, width, 60).to_image()) < 0.5);
        }
    }

    #[test]
    fn transparent_pixels_become_white() {
        let transparent = file(b"avif", &[av1(), av1().alpha_of(1)]);
        let (blended, _) = decoded(&transparent);
        let opaque = pixels(av1());
        // The sample is its own transparency: its luma.
        let alpha = DynamicImage::from(opaque.clone()).into_luma8();
        let (dark, light) = ((2, 46), (60, 46));
        assert!(alpha.get_pixel(dark.0, dark.1).0 < alpha.get_pixel(light.0, light.1).0);
        for (x, y) in [dark, light] {
            let (from, to) = (opaque.get_pixel(x, y).0, blended.get_pixel(x, y).0);
            assert!(from.iter().zip(to).all(|(from, to)| to >= *from), "{from:?} {to:?}");
        }
        assert!(difference(&blended, &opaque) > 30.0);
    }

    #[test]
    fn colours_become_srgb() {
        let plain = pixels(av1());
        assert!(pixels(av1().with(colours(1, 13))) == plain, "they are sRGB");
        let (wide, decoding) = decoded(&file(b"avif", &[av1().with(colours(12, 13))]));
        assert_eq!(decoding.profile.as_deref(), Some("Display P3 primaries, sRGB curve"));
        let profile = [b"prof", &ColorProfile::new_display_p3().encode().unwrap()[..]].concat();
        let both = av1().with(colours(1, 13)).with(boxed(b"colr", &profile));
        let (by_profile, decoding) = decoded(&file(b"avif", &[both]));
        assert!(decoding.profile.is_some() && decoding.profile_ignored.is_none());
        assert!(difference(&wide, &plain) > 2.0 && difference(&wide, &by_profile) < 0.5, "a profile counts more");
        let tiles = [grid(1, 2, 128, 64), hevc().with(colours(12, 13)), hevc().with(colours(12, 13))];
        assert!(decoded(&file(b"heic", &tiles)).1.profile.is_some(), "the tiles have the colours");
        let (pixels, decoding) = decoded(&file(b"avif", &[av1().with(boxed(b"colr", b"profnone"))]));
        assert!(pixels == plain && decoding.profile_ignored.is_some());
        let (_, decoding) = decoded(&file(b"avif", &[av1().with(colours(99, 13))]));
        assert!(decoding.profile_ignored.is_some_and(|why| why.contains("99")));
    }

    #[test]
    fn files_that_lack_pixels_are_truncated() {
        for (brand, item) in [(b"avif", av1()), (b"heic", hevc())] {
            let whole = file(brand, std::slice::from_ref(&item));
            let cut = &whole[..whole.len() - item.data.len() / 3];
            let error = decode_any(cut, Limits::default()).unwrap_err();
            assert_eq!(error.code(), CauseCode::Truncated, "{error}");
            let little = &whole[..whole.len() - item.data.len() / 120];
            let (pixels, decoding) = decoded(little);
            assert!(decoding.damaged.as_ref().is_some_and(|what| what.contains("missing")), "{decoding:?}");
            assert_eq!(pixels.width(), 64);
        }
    }

    #[test]
    fn sizes_are_limited_before_anything_is_decoded() {
        let limits = Limits { pixels: 64 * 48 };
        assert!(Header::read(&file(b"avif", &[av1()]), limits).is_ok());
        let too_large = |items: &[Item]| {
            let error = Header::read(&file(b"heic", items), limits).unwrap_err();
            assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
        };
        too_large(&[hevc()]);
        // Only one of the sizes is true.
        let stated = av1().with(fixture::ispe(60_000, 60_000));
        too_large(&[stated]);
        let mut hidden = hevc();
        hidden.properties[1] = fixture::ispe(8, 8);
        too_large(&[hidden]);
        too_large(&[grid(1, 1, 60_000, 60_000), av1()]);
        too_large(&[av1(), hevc().alpha_of(1)]);
    }

    /// The error of a file, which is found before anything is decoded.
    fn refused(items: &[Item]) -> String {
        let limits = Limits { pixels: 1_000_000 };
        Plan::of(&file(b"heic", items), ImageFormat::Heic, limits).err().expect("it is refused").to_string()
    }

    #[test]
    fn hostile_structures_are_refused_before_anything_is_decoded() {
        let mut itself = grid(1, 1, 64, 64);
        itself.parts = vec![1];
        assert!(refused(&[itself]).contains("a tile is not an image"));
        let mut circle = Item { kind: *b"iden", parts: vec![2], ..Item::default() };
        assert!(
            refused(&[circle.clone(), Item { parts: vec![1], ..circle.clone() }]).contains("not made of one other")
        );
        circle.parts = vec![1, 1];
        assert!(refused(&[circle]).contains("not made of one other"));
        let mutual = [av1().alpha_of(2), av1().alpha_of(1)];
        assert!(refused(&mutual).contains("without end"));
        let turned = (0..6).fold(av1(), |item, _| item.with(boxed(b"irot", &[1])));
        assert!(refused(&[turned]).contains("turned too often"));
        let mut many = grid(200, 200, 64, 64);
        many.parts = vec![2; 40_000];
        assert!(refused(&[many, hevc()]).contains("far more pixels"));
        let mut frames = av1();
        // Each frame of the size of the sample, a thousand times.
        let frame = frames.data[13..].to_vec();
        (0..2000).for_each(|_| frames.data.extend_from_slice(&frame));
        assert!(refused(&[frames]).contains("far more pixels"));
        let mut slices = hevc();
        let slice = slices.data.clone();
        (0..2000).for_each(|_| slices.data.extend_from_slice(&slice));
        assert!(refused(&[slices]).contains("far more pixels"));
        let overlay = Item { kind: *b"iovl", parts: vec![2], ..Item::default() };
        assert!(refused(&[overlay, av1()]).contains("type iovl"));
        let whole = file(b"avif", &[av1()]);
        let second = [whole.clone(), file(b"avif", &[hevc()])].concat();
        let error = Plan::of(&second, ImageFormat::Avif, Limits::default()).err().unwrap();
        assert!(error.to_string().contains("two boxes meta"), "{error}");
    }

    #[test]
    fn broken_files_are_errors() {
        let files = [
            file(b"avif", &[av1().with(colours(12, 16)), av1().alpha_of(1)]),
            file(b"heic", &[grid(1, 2, 128, 64), hevc(), hevc_10_bits()]),
        ];
        let limits = Limits { pixels: 100_000 };
        for whole in files {
            for end in (0..whole.len()).step_by(41) {
                let _ = decode_any(&whole[..end], limits);
            }
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= [0xff, 0x01, 0x80][at % 3];
                let _ = decode_any(&bytes, limits);
            }
        }
    }
}
