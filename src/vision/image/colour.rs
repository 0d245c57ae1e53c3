//! Colour profiles (ICC.1:2022) and colour spaces: pixels become sRGB.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use image::RgbImage;
use moxcms::{ColorProfile, DataColorSpace, Layout, ProfileText, RenderingIntent, TransformExecutor, TransformOptions};

use super::colour_space::ColourSpace;
use super::decoded::{Colours, MAX_PROFILE, Samples};
use facemill_domain::Decoding;

/// Pixels that are converted at a time.
const CHUNK: usize = 1 << 14;

/// Converts pixels to sRGB by what their file says, and notes in `decoding` what was done. A description of colours that
/// cannot be used is ignored.
pub fn apply(pixels: &mut RgbImage, samples: Samples, colours: Colours, decoding: &mut Decoding) {
    let applied = match colours {
        Colours::Unspecified => Ok(None),
        Colours::Profile(profile) => Conversion::of(&profile, samples.into())
            .and_then(|conversion| conversion.map(|known| known.convert(pixels).map(|()| known.name)).transpose()),
        Colours::Numbers(space) => convert(pixels, samples, &space),
        Colours::Unusable(why) => Err(why),
    };
    match applied {
        Ok(Some(name)) => decoding.profile = Some(name),
        Ok(None) => {}
        Err(why) => decoding.profile_ignored = Some(why),
    }
}

/// Returns the name of the colour space if it is not that of sRGB.
fn convert(pixels: &mut RgbImage, samples: Samples, space: &ColourSpace) -> Result<Option<String>, String> {
    let primaries = space.primaries_profile().filter(|_| samples == Samples::Rgb);
    let primaries = primaries.map(|profile| Conversion::of_profile(&profile, Channels::Rgb)).transpose()?.flatten();
    let table = space.curve_table(256);
    if let Some(table) = &table {
        pixels.iter_mut().for_each(|sample| *sample = table[usize::from(*sample)]);
    }
    if let Some(primaries) = &primaries {
        primaries.convert(pixels)?;
    }
    Ok((table.is_some() || primaries.is_some()).then(|| space.name.clone()))
}

/// Converts CMYK, four bytes a pixel with 255 for full ink, by the profile of its file; else as if the inks were
/// perfect. Notes in `decoding` what was done.
pub fn from_cmyk(cmyk: &[u8], pixels: &mut RgbImage, profile: Option<&[u8]>, decoding: &mut Decoding) {
    let converted = profile.map(|profile| {
        let conversion = Conversion::of(profile, Channels::Cmyk)?;
        // No profile of inks is that of sRGB.
        let conversion = conversion.ok_or("it is empty")?;
        conversion.convert_cmyk(cmyk, pixels).map(|()| conversion.name)
    });
    match converted {
        Some(Ok(name)) => {
            decoding.profile = Some(name);
            return;
        }
        Some(Err(why)) => decoding.profile_ignored = Some(why),
        None => {}
    }
    for (to, from) in pixels.chunks_exact_mut(3).zip(cmyk.chunks_exact(4)) {
        let paper = 255 - u32::from(from[3]);
        for (to, ink) in to.iter_mut().zip(from) {
            *to = (((255 - u32::from(*ink)) * paper + 127) / 255) as u8;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channels {
    Grey,
    Rgb,
    Cmyk,
}

impl From<Samples> for Channels {
    fn from(samples: Samples) -> Self {
        match samples {
            Samples::Grey => Self::Grey,
            Samples::Rgb => Self::Rgb,
        }
    }
}

const PANICKED: &str = "the reader of profiles panicked";

/// A conversion to sRGB.
struct Conversion {
    name: String,
    channels: Channels,
    transform: Arc<dyn TransformExecutor<u8> + Send + Sync>,
}

impl Conversion {
    /// Opens a profile. None: it changes no colour by more than [`SAME`].
    ///
    /// # Errors
    /// Why the profile cannot be used.
    fn of(profile: &[u8], channels: Channels) -> Result<Option<Self>, String> {
        if profile.len() > MAX_PROFILE {
            return Err(format!("it has more than {MAX_PROFILE} bytes"));
        }
        // Profiles come from strangers, and the library may panic on one.
        let read = catch_unwind(|| ColorProfile::new_from_slice(profile).map_err(|error| error.to_string()));
        Self::of_profile(&read.unwrap_or_else(|_| Err(PANICKED.into()))?, channels)
    }

    fn of_profile(profile: &ColorProfile, channels: Channels) -> Result<Option<Self>, String> {
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open(profile, channels)));
        let conversion = opened.unwrap_or_else(|_| Err(PANICKED.into()))?;
        match channels != Channels::Cmyk && conversion.is_identity()? {
            true => Ok(None),
            false => Ok(Some(conversion)),
        }
    }

    fn open(profile: &ColorProfile, channels: Channels) -> Result<Self, String> {
        let (space, layout) = match channels {
            Channels::Grey => (DataColorSpace::Gray, Layout::Gray),
            Channels::Rgb => (DataColorSpace::Rgb, Layout::Rgb),
            Channels::Cmyk => (DataColorSpace::Cmyk, Layout::Rgba),
        };
        if profile.color_space != space {
            return Err(format!("it is for {:?}, and the pixels are {channels:?}", profile.color_space));
        }
        let options = TransformOptions { rendering_intent: RenderingIntent::Perceptual, ..TransformOptions::default() };
        let transform = profile
            .create_transform_8bit(layout, &ColorProfile::new_srgb(), Layout::Rgb, options)
            .map_err(|error| error.to_string())?;
        Ok(Self { name: name(profile), channels, transform })
    }

    /// Whether every colour stays as it is, as those of a profile of sRGB do. Tried on a grid of colours.
    fn is_identity(&self) -> Result<bool, String> {
        /// The largest difference of a channel. Profiles of sRGB differ by as much from each other.
        const SAME: u8 = 2;
        const STEP: usize = 15;
        let values = || (0..=255u8).step_by(STEP);
        let mut grid = RgbImage::new(18, 18 * 18);
        let colours = values().flat_map(|r| values().flat_map(move |g| values().map(move |b| [r, g, b])));
        for (pixel, colour) in grid.pixels_mut().zip(colours) {
            pixel.0 = if self.channels == Channels::Grey { [colour[0]; 3] } else { colour };
        }
        let before = grid.clone();
        self.convert(&mut grid)?;
        Ok(grid.iter().zip(before.iter()).all(|(a, b)| a.abs_diff(*b) <= SAME))
    }

    fn convert(&self, pixels: &mut RgbImage) -> Result<(), String> {
        let mut source = Vec::new();
        for chunk in pixels.chunks_mut(3 * CHUNK) {
            source.clear();
            match self.channels {
                Channels::Grey => source.extend(chunk.iter().step_by(3)),
                _ => source.extend_from_slice(chunk),
            }
            self.transform(&source, chunk)?;
        }
        Ok(())
    }

    fn convert_cmyk(&self, cmyk: &[u8], pixels: &mut RgbImage) -> Result<(), String> {
        for (to, from) in pixels.chunks_mut(3 * CHUNK).zip(cmyk.chunks(4 * CHUNK)) {
            self.transform(from, to)?;
        }
        Ok(())
    }

    fn transform(&self, from: &[u8], to: &mut [u8]) -> Result<(), String> {
        let done = catch_unwind(AssertUnwindSafe(|| self.transform.transform(from, to)));
        done.map_err(|_| "the conversion panicked".to_owned())?.map_err(|error| error.to_string())
    }
}

/// The description of a profile, clipped: it comes from a stranger.
fn name(profile: &ColorProfile) -> String {
    const MOST: usize = 60;
    let text = match &profile.description {
        Some(ProfileText::PlainString(text)) => text.as_str(),
        Some(ProfileText::Localizable(texts)) => texts.first().map_or("", |text| text.value.as_str()),
        Some(ProfileText::Description(text)) => text.ascii_string.as_str(),
        None => "",
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(MOST).collect();
    if text.trim().is_empty() { "unnamed".into() } else { text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use image::Rgb;

    use super::*;
    use crate::image::{Header, Limits, encode};
    use facemill_domain::ImageFormat;

    /// Smooth colours of medium saturation.
    fn picture() -> RgbImage {
        RgbImage::from_fn(96, 64, |x, y| Rgb([(60 + 2 * x) as u8, (40 + 3 * y) as u8, (200 - x - y) as u8]))
    }

    /// CIE L*a*b* relative to D50 of an sRGB colour.
    fn lab(colour: &[u8]) -> [f64; 3] {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let [r, g, b] = [linear(colour[0]), linear(colour[1]), linear(colour[2])];
        let xyz = [
            (0.436_075 * r + 0.385_065 * g + 0.143_080 * b) / 0.964_22,
            0.222_505 * r + 0.716_879 * g + 0.060_617 * b,
            (0.013_932 * r + 0.097_105 * g + 0.714_173 * b) / 0.825_21,
        ];
        let [x, y, z] = xyz.map(|t| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    fn mean_difference(a: &RgbImage, b: &RgbImage) -> f64 {
        let all = a.chunks(3).zip(b.chunks(3)).map(|(a, b)| distance(lab(a), lab(b)));
        all.sum::<f64>() / f64::from(a.width() * a.height())
    }

    /// The same colours in another colour space.
    fn converted(picture: &RgbImage, profile: &ColorProfile) -> RgbImage {
        let transform = ColorProfile::new_srgb()
            .create_transform_8bit(Layout::Rgb, profile, Layout::Rgb, TransformOptions::default())
            .unwrap();
        let mut converted = picture.clone();
        transform.transform(picture, &mut converted).unwrap();
        converted
    }

    /// Puts a profile before everything else.
    fn with_profile(pixels: &RgbImage, format: ImageFormat, profile: &[u8]) -> Vec<u8> {
        let mut bytes = encode(pixels, format).unwrap();
        match format {
            ImageFormat::Png => {
                let mut body = b"iCCPany name\0\0".to_vec();
                let mut packer = flate2::write::ZlibEncoder::new(&mut body, flate2::Compression::default());
                packer.write_all(profile).unwrap();
                packer.finish().unwrap();
                let mut checksum = flate2::Crc::new();
                checksum.update(&body);
                let length = (body.len() - 4) as u32;
                let chunk = [&length.to_be_bytes()[..], &body, &checksum.sum().to_be_bytes()].concat();
                // Instead of the chunk sRGB.
                bytes.splice(33..46, chunk);
            }
            _ => {
                // Instead of the profile of sRGB.
                let length = usize::from(u16::from_be_bytes([bytes[22], bytes[23]]));
                bytes.splice(20..22 + length, app2(profile, 1, 1));
            }
        }
        bytes
    }

    /// A PNG with these chunks instead of sRGB.
    fn with_chunks(mut png: Vec<u8>, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let chunk = |(name, body): &(&[u8; 4], &[u8])| {
            let mut checksum = flate2::Crc::new();
            checksum.update(&name[..]);
            checksum.update(body);
            [&(body.len() as u32).to_be_bytes()[..], &name[..], body, &checksum.sum().to_be_bytes()].concat()
        };
        let at = png.windows(4).position(|name| name == b"sRGB");
        let old = at.map_or(33..33, |at| at - 4..at + 9);
        png.splice(old, chunks.iter().flat_map(chunk));
        png
    }

    fn png_16_bits(samples: impl Iterator<Item = u16>, width: u32, height: u32) -> Vec<u8> {
        let pixels = image::ImageBuffer::<Rgb<u16>, _>::from_raw(width, height, samples.collect::<Vec<_>>()).unwrap();
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::DynamicImage::from(pixels).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn numbers_of_png_become_srgb() {
        let linear = |sample: u8| {
            let sample = f64::from(sample) / 255.0;
            if sample <= 0.04045 { sample / 12.92 } else { ((sample + 0.055) / 1.055).powf(2.4) }
        };
        let gamma = |value: u32| value.to_be_bytes().to_vec();
        let chromaticities = |values: [u32; 8]| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<_>>();
        let p3 = [31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000];
        let srgb = [31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000];
        let in_p3 = converted(&picture(), &ColorProfile::new_display_p3());
        let with_gamma = |exponent: f64, from: &RgbImage| {
            let mut pixels = from.clone();
            pixels.iter_mut().for_each(|value| *value = (255.0 * linear(*value).powf(1.0 / exponent)).round() as u8);
            pixels
        };
        let png = |pixels: &RgbImage| encode(pixels, ImageFormat::Png).unwrap();
        let wide = |curve: &dyn Fn(f64) -> f64| {
            let samples: Vec<_> =
                picture().iter().map(|value| (65_535.0 * curve(linear(*value))).round() as u16).collect();
            png_16_bits(samples.into_iter(), picture().width(), picture().height())
        };
        let pq = |linear: f64| {
            let power = (linear * 203.0 / 10_000.0).powf(0.159_301_757_812_5);
            ((0.835_937_5 + 18.851_562_5 * power) / (1.0 + 18.687_5 * power)).powf(78.843_75)
        };
        let cases = [
            ("gAMA", with_chunks(png(&with_gamma(1.8, &picture())), &[(b"gAMA", &gamma(55_556))])),
            ("gAMA of 16 bits", with_chunks(wide(&|linear| linear), &[(b"gAMA", &gamma(100_000))])),
            ("cHRM", with_chunks(png(&in_p3), &[(b"gAMA", &gamma(45_455)), (b"cHRM", &chromaticities(p3))])),
            ("cHRM without gAMA", with_chunks(png(&in_p3), &[(b"cHRM", &chromaticities(p3))])),
            (
                "both",
                with_chunks(
                    png(&with_gamma(2.6, &in_p3)),
                    &[(b"gAMA", &gamma(38_462)), (b"cHRM", &chromaticities(p3))],
                ),
            ),
            ("cICP", with_chunks(png(&in_p3), &[(b"cICP", &[12, 13, 0, 1]), (b"gAMA", &gamma(100_000))])),
            ("PQ", with_chunks(wide(&pq), &[(b"cICP", &[1, 16, 0, 1])])),
        ];
        for (name, bytes) in cases {
            let (pixels, decoding) = decoded(&bytes);
            let difference = mean_difference(&pixels, &picture());
            assert!(difference < 1.5, "{name}: {difference}");
            assert!(decoding.profile.is_some() && decoding.profile_ignored.is_none(), "{name}: {decoding:?}");
        }
        let same = [
            with_chunks(png(&picture()), &[(b"gAMA", &gamma(45_455)), (b"cHRM", &chromaticities(srgb))]),
            with_chunks(png(&picture()), &[(b"sRGB", &[0]), (b"gAMA", &gamma(100_000))]),
            with_chunks(png(&picture()), &[(b"cICP", &[1, 13, 0, 1]), (b"cHRM", &chromaticities(p3))]),
        ];
        for bytes in same {
            assert_eq!(decoded(&bytes), (picture(), Decoding::default()), "these are the numbers of sRGB");
        }
        let unusable: [(&[u8; 4], &[u8]); 5] = [
            (b"gAMA", &[0; 4]),
            (b"gAMA", &[1]),
            (b"cHRM", &[0; 32]),
            (b"cICP", &[1, 13, 1, 1]),
            (b"cICP", &[77, 13, 0, 1]),
        ];
        for chunk in unusable {
            let (pixels, decoding) = decoded(&with_chunks(png(&picture()), &[chunk]));
            assert!(pixels == picture() && decoding.profile_ignored.is_some(), "{chunk:?}");
        }
    }

    fn app2(part: &[u8], number: u8, count: u8) -> Vec<u8> {
        let length = (16 + part.len()) as u16;
        [&[0xff, 0xe2], &length.to_be_bytes()[..], b"ICC_PROFILE\0", &[number, count], part].concat()
    }

    fn decoded(bytes: &[u8]) -> (RgbImage, Decoding) {
        Header::read(bytes, Limits::default()).unwrap().decode(bytes).unwrap()
    }

    #[test]
    fn colours_become_srgb() {
        let mut grb = ColorProfile::new_srgb();
        std::mem::swap(&mut grb.red_colorant, &mut grb.green_colorant);
        let profiles =
            [ColorProfile::new_display_p3(), ColorProfile::new_adobe_rgb(), ColorProfile::new_pro_photo_rgb(), grb];
        for profile in profiles {
            let stored = converted(&picture(), &profile);
            let name = name(&profile);
            assert!(mean_difference(&stored, &picture()) > 2.0, "{name} differs from sRGB");
            for format in [ImageFormat::Png, ImageFormat::Jpeg] {
                let (pixels, decoding) = decoded(&with_profile(&stored, format, &profile.encode().unwrap()));
                let difference = mean_difference(&pixels, &picture());
                assert!(difference < 1.5, "{name} in {format:?}: {difference}");
                assert_eq!((decoding.profile, decoding.profile_ignored), (Some(name.clone()), None));
            }
        }
    }

    #[test]
    fn a_profile_of_srgb_changes_nothing() {
        let png = with_profile(&picture(), ImageFormat::Png, &ColorProfile::new_srgb().encode().unwrap());
        assert_eq!(decoded(&png), (picture(), Decoding::default()));
        let (_, decoding) = decoded(&encode(&picture(), ImageFormat::Jpeg).unwrap());
        assert_eq!(decoding, Decoding::default(), "crops say that they are sRGB");
    }

    #[test]
    fn a_profile_of_grey_applies_to_grey_pixels() {
        let grey = RgbImage::from_fn(64, 64, |x, y| Rgb([(2 * x + y) as u8; 3]));
        let linear = ColorProfile::new_gray_with_gamma(1.0);
        let mut pixels = grey.clone();
        let mut decoding = Decoding::default();
        apply(&mut pixels, Samples::Grey, Colours::Profile(linear.encode().unwrap()), &mut decoding);
        assert!(decoding.profile.is_some(), "{decoding:?}");
        // Half of the light is 188 in sRGB.
        let at = grey.pixels().position(|pixel| pixel.0[0] == 127).unwrap();
        assert!(pixels.as_raw()[3 * at].abs_diff(187) <= 2, "{}", pixels.as_raw()[3 * at]);
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_ignored_with_a_note() {
        let p3 = ColorProfile::new_display_p3().encode().unwrap();
        let grey = ColorProfile::new_gray_with_gamma(2.2).encode().unwrap();
        let large = vec![0; 64 << 20];
        for (profile, why) in [(&p3[..p3.len() / 3], ""), (b"not a profile", ""), (&grey, "Gray"), (&large, "bytes")] {
            let png = with_profile(&picture(), ImageFormat::Png, profile);
            assert!(png.len() < 200_000);
            let (pixels, decoding) = decoded(&png);
            assert_eq!(pixels, picture());
            assert!(decoding.profile_ignored.as_ref().is_some_and(|note| note.contains(why)), "{why}: {decoding:?}");
            assert_eq!((decoding.profile, decoding.damaged), (None, None));
        }
        // Every byte of a profile set to extreme values: the pixels are decoded in any case.
        let small = RgbImage::from_fn(8, 8, |x, y| Rgb([(30 * x) as u8, (30 * y) as u8, 90]));
        for at in (0..p3.len()).step_by(3) {
            for value in [0, 0x7f, 0xff] {
                let mut profile = p3.clone();
                profile[at] = value;
                let mut pixels = small.clone();
                apply(&mut pixels, Samples::Rgb, Colours::Profile(profile), &mut Decoding::default());
            }
        }
    }

    #[test]
    fn a_profile_in_several_segments_is_joined() {
        let profile = ColorProfile::new_display_p3();
        let bytes = profile.encode().unwrap();
        let stored = converted(&picture(), &profile);
        let mut jpeg = encode(&stored, ImageFormat::Jpeg).unwrap();
        let length = usize::from(u16::from_be_bytes([jpeg[22], jpeg[23]]));
        let (first, second) = bytes.split_at(200);
        jpeg.splice(20..22 + length, [app2(second, 2, 2), app2(first, 1, 2)].concat());
        let (pixels, decoding) = decoded(&jpeg);
        assert!(decoding.profile.is_some() && mean_difference(&pixels, &picture()) < 1.5, "{decoding:?}");
    }

    /// A profile of a printer with a table of the 16 corners of CMYK (lut8Type, ICC.1:2022, 10.11).
    fn printer(corner: impl Fn(&[bool; 4]) -> [f64; 3]) -> Vec<u8> {
        let mut table = b"mft1\0\0\0\0\x04\x03\x02\0".to_vec();
        for at in 0..9 {
            table.extend_from_slice(&if at % 4 == 0 { 65536u32 } else { 0 }.to_be_bytes());
        }
        let identity = || 0..=255u8;
        (0..4).for_each(|_| table.extend(identity()));
        for at in 0..16 {
            let [lightness, a, b] = corner(&[at & 8 > 0, at & 4 > 0, at & 2 > 0, at & 1 > 0]);
            table.extend([lightness * 2.55, a + 128.0, b + 128.0].map(|value| value.round() as u8));
        }
        (0..3).for_each(|_| table.extend(identity()));
        let size = (128 + 4 + 12 + table.len()) as u32;
        let mut profile = vec![0; 128];
        profile[..4].copy_from_slice(&size.to_be_bytes());
        profile[8..12].copy_from_slice(&[2, 0x40, 0, 0]);
        profile[12..24].copy_from_slice(b"prtrCMYKLab ");
        profile[24..36].copy_from_slice(&[7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
        profile[36..40].copy_from_slice(b"acsp");
        for (at, value) in [(68, 0xf6d6u32), (72, 0x1_0000), (76, 0xd32d)] {
            profile[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        profile.extend_from_slice(&1u32.to_be_bytes());
        profile.extend_from_slice(b"A2B0");
        profile.extend_from_slice(&144u32.to_be_bytes());
        profile.extend_from_slice(&(table.len() as u32).to_be_bytes());
        profile.extend_from_slice(&table);
        profile
    }

    #[test]
    fn cmyk_is_converted_by_its_profile() {
        let corner = |inks: &[bool; 4]| match inks {
            [_, _, _, true] => [10.0, 0.0, 0.0],
            [false, true, true, false] => [47.0, 60.0, 40.0],
            [false, false, false, false] => [93.0, 0.0, 8.0],
            _ => [40.0, 0.0, 0.0],
        };
        let patches = [[false; 4], [false, true, true, false], [true, true, true, false], [false, false, false, true]];
        let inks: Vec<u8> = (0..32 * 32)
            .flat_map(|at| patches[at % 32 / 8].map(|ink| if ink { 0 } else { 255 })) // inverted, as programs store them
            .collect();
        let input = turbojpeg::Image {
            pixels: &inks[..],
            width: 32,
            pitch: 128,
            height: 32,
            format: turbojpeg::PixelFormat::CMYK,
        };
        let mut compressor = turbojpeg::Compressor::new().unwrap();
        compressor.set_quality(100);
        compressor.set_subsamp(turbojpeg::Subsamp::None);
        let plain = compressor.compress_to_vec(input).unwrap();
        let mut jpeg = plain.clone();
        jpeg.splice(2..2, app2(&printer(corner), 1, 1));
        let (pixels, decoding) = decoded(&jpeg);
        assert!(decoding.profile.is_some(), "{decoding:?}");
        let centre = |pixels: &RgbImage, patch: u32| pixels.get_pixel(8 * patch + 4, 16).0;
        for (number, patch) in (0..).zip(&patches) {
            let difference = distance(lab(&centre(&pixels, number)), corner(patch));
            assert!(difference < 3.0, "{patch:?}: {difference}");
        }

        let (pixels, decoding) = decoded(&plain);
        assert_eq!(decoding, Decoding::default());
        let expected = [[255, 255, 255], [255, 0, 0], [0, 0, 0], [0, 0, 0]];
        for (number, expected) in (0..).zip(expected) {
            let colour = centre(&pixels, number);
            assert!(colour.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 8), "{colour:?}");
        }

        let mut broken = plain;
        broken.splice(2..2, app2(b"not a profile", 1, 1));
        let (repeated, decoding) = decoded(&broken);
        assert!(decoding.profile_ignored.is_some());
        assert_eq!(repeated, pixels);
    }
}
