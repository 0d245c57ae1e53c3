//! A crop as a picture of the wanted size.

use image::RgbImage;

use crate::domain::ImageFormat;
use crate::vision::image::{Limits, decode, encode, encode_preview};
use crate::vision::rescale::{Light, rescaled};

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
            _ => rescaled(&pixels, self.size, self.light)?,
        };
        match self.encoding {
            Encoding::StoredPng => stored_png(&pixels).map_err(|error| error.to_string()),
            Encoding::Preview => encode_preview(&pixels).map_err(|error| error.to_string()),
            Encoding::Compressed(format) => encode(&pixels, format).map_err(|error| error.to_string()),
        }
    }
}

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
    fn what_is_no_picture_is_an_error() {
        assert!(rendering(Light::Plain, Encoding::StoredPng).render(b"no picture").is_err());
    }
}
