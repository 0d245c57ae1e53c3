//! A crop as a picture of the wanted size.

use std::sync::LazyLock;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8x3, U16x3};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use super::settings::Light;
use crate::domain::ImageFormat;
use crate::vision::image::{Limits, decode, encode, encode_preview};

/// How a picture is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// PNG without compression, as StyleGAN's own tool writes it.
    StoredPng,
    Compressed(ImageFormat),
    /// A small JPEG for a page.
    Preview,
}

/// Renders crops as square pictures of `size` pixels. The same crop gives the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct Rendering {
    pub size: u32,
    pub light: Light,
    pub encoding: Encoding,
}

impl Rendering {
    /// # Errors
    /// What is wrong with the crop, in words.
    pub fn render(self, crop: &[u8]) -> Result<Vec<u8>, String> {
        let pixels = decode(crop, Limits::default()).map_err(|error| error.to_string())?;
        let pixels = match pixels.dimensions() {
            (width, height) if (width, height) == (self.size, self.size) => pixels,
            _ => resize(&pixels, self.size, self.light)?,
        };
        match self.encoding {
            Encoding::StoredPng => stored_png(&pixels).map_err(|error| error.to_string()),
            Encoding::Preview => encode_preview(&pixels).map_err(|error| error.to_string()),
            Encoding::Compressed(format) => encode(&pixels, format).map_err(|error| error.to_string()),
        }
    }
}

/// Lanczos with three lobes, and a wider kernel where the picture gets smaller.
fn resize(pixels: &RgbImage, size: u32, light: Light) -> Result<RgbImage, String> {
    let (width, height) = pixels.dimensions();
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    let mut resizer = Resizer::new();
    let resized = match light {
        Light::Plain => {
            let source =
                TypedImageRef::<U8x3>::from_buffer(width, height, pixels).map_err(|error| error.to_string())?;
            let mut target = TypedImage::<U8x3>::new(size, size);
            resizer.resize_typed(&source, &mut target, &options).map_err(|error| error.to_string())?;
            values(target.pixels().iter().map(|pixel| pixel.0))
        }
        Light::Linear => {
            // The tables are looked up once, and not for each value.
            let (to_linear, from_linear): (&[u16; 256], &[u8; 1 << 16]) = (&TO_LINEAR, &FROM_LINEAR);
            let light = |pixel: &[u8; 3]| U16x3::new(pixel.map(|value| to_linear[usize::from(value)]));
            let linear = pixels.as_raw().as_chunks().0.iter().map(light).collect();
            let source = TypedImage::from_pixels(width, height, linear).map_err(|error| error.to_string())?;
            let mut target = TypedImage::<U16x3>::new(size, size);
            resizer.resize_typed(&source, &mut target, &options).map_err(|error| error.to_string())?;
            values(target.pixels().iter().map(|pixel| pixel.0.map(|value| from_linear[usize::from(value)])))
        }
    };
    RgbImage::from_raw(size, size, resized).ok_or_else(|| "the resized picture has the wrong size".to_owned())
}

/// The values of pixels, one after the other.
fn values(pixels: impl ExactSizeIterator<Item = [u8; 3]>) -> Vec<u8> {
    let mut values = vec![0; 3 * pixels.len()];
    values.as_chunks_mut().0.iter_mut().zip(pixels).for_each(|(to, pixel)| *to = pixel);
    values
}

/// Light in 65,535ths, by the value of sRGB (IEC 61966-2-1).
static TO_LINEAR: LazyLock<[u16; 256]> = LazyLock::new(|| {
    std::array::from_fn(|value| {
        let value = value as f64 / 255.0;
        let light = if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) };
        (light * 65_535.0).round() as u16
    })
});

/// The value of sRGB by light in 65,535ths.
static FROM_LINEAR: LazyLock<Box<[u8; 1 << 16]>> = LazyLock::new(|| {
    let value = |light: u32| {
        let light = f64::from(light) / 65_535.0;
        let value = if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
        (value * 255.0).round() as u8
    };
    let mut values = Box::new([0; 1 << 16]);
    values.iter_mut().zip(0..).for_each(|(to, light)| *to = value(light));
    values
});

fn stored_png(pixels: &RgbImage) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::with_capacity(pixels.len() + pixels.len() / 64 + 1024);
    let mut encoder = png::Encoder::new(&mut bytes, pixels.width(), pixels.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::NoCompression);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use fast_image_resize::pixels::F32x3;

    use super::*;

    fn stripes(size: u32) -> RgbImage {
        RgbImage::from_fn(size, size, |x, _| image::Rgb([if x % 2 == 0 { 0 } else { 255 }; 3]))
    }

    fn rendering(light: Light, encoding: Encoding) -> Rendering {
        Rendering { size: 64, light, encoding }
    }

    #[test]
    fn light_is_averaged_in_the_wanted_values() {
        let crop = encode(&stripes(256), ImageFormat::Png).unwrap();
        let middle = |light| {
            let rendered = rendering(light, Encoding::StoredPng).render(&crop).unwrap();
            decode(&rendered, Limits::default()).unwrap().get_pixel(32, 32).0[0]
        };
        // Half of the light has the value 188 of sRGB.
        assert!((186..=190).contains(&middle(Light::Linear)), "{}", middle(Light::Linear));
        assert!((126..=130).contains(&middle(Light::Plain)), "{}", middle(Light::Plain));
    }

    /// Light in floats, without tables. Like sixteen bits, and like Pillow, it is clipped after each of the two passes: the
    /// kernel overshoots at edges.
    fn exact(pixels: &RgbImage, size: u32) -> Vec<u8> {
        let light = |value: u8| match f32::from(value) / 255.0 {
            value if value <= 0.040_45 => value / 12.92,
            value => ((value + 0.055) / 1.055).powf(2.4),
        };
        let value = |light: f32| match light {
            light if light <= 0.003_130_8 => 12.92 * light,
            light => 1.055 * light.powf(1.0 / 2.4) - 0.055,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        let resized = |source: &TypedImage<'_, F32x3>, width, height| {
            let mut target = TypedImage::<F32x3>::new(width, height);
            Resizer::new().resize_typed(source, &mut target, &options).unwrap();
            target.pixels_mut().iter_mut().for_each(|pixel| pixel.0 = pixel.0.map(|light| light.clamp(0.0, 1.0)));
            target
        };
        let source = pixels.pixels().map(|pixel| F32x3::new(pixel.0.map(light))).collect();
        let source = TypedImage::from_pixels(pixels.width(), pixels.height(), source).unwrap();
        let target = resized(&resized(&source, size, pixels.height()), size, size);
        let values = target.pixels().iter().flat_map(|pixel| pixel.0);
        values.map(|light| (255.0 * value(light)).round() as u8).collect()
    }

    #[test]
    fn sixteen_bits_of_light_are_within_a_level_of_floats() {
        // Noise over a gradient that is dark on the left, where a level is least light.
        let mut random = crate::training::random::Random::seeded(5);
        let mut noise = |x: u32| (f64::from(x) * 0.5 * (1.0 + 0.4 * random.normal())).clamp(0.0, 255.0) as u8;
        let pixels = RgbImage::from_fn(511, 511, |x, _| image::Rgb([noise(x), noise(x), noise(x)]));
        for size in [256, 400, 512, 1024] {
            let (found, expected) = (resize(&pixels, size, Light::Linear).unwrap(), exact(&pixels, size));
            let differences = found.as_raw().iter().zip(&expected).map(|(found, expected)| found.abs_diff(*expected));
            assert!(differences.clone().all(|difference| difference <= 1), "{size}: {:?}", differences.max());
            assert!(differences.filter(|difference| *difference == 1).count() < expected.len() / 50, "{size}");
        }
    }

    #[test]
    fn a_crop_of_the_wanted_size_keeps_its_pixels() {
        let pixels = RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
        let crop = encode(&pixels, ImageFormat::Png).unwrap();
        for encoding in [Encoding::StoredPng, Encoding::Compressed(ImageFormat::Png)] {
            let rendered = rendering(Light::Linear, encoding).render(&crop).unwrap();
            assert_eq!(decode(&rendered, Limits::default()).unwrap(), pixels);
        }
        let stored = rendering(Light::Linear, Encoding::StoredPng).render(&crop).unwrap();
        assert!(stored.len() > 64 * 64 * 3, "it is stored without compression");
    }

    #[test]
    fn values_of_srgb_survive_the_way_to_light_and_back() {
        for value in 0..=255u8 {
            assert_eq!(FROM_LINEAR[usize::from(TO_LINEAR[usize::from(value)])], value);
        }
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        assert!(rendering(Light::Plain, Encoding::StoredPng).render(b"no picture").is_err());
    }
}
