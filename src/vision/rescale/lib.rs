//! A crop at another size.
//!
//! A crate of its own without unit tests, because the kernels take a minute to compile: tests/rescale.rs has the tests.

#![warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

use std::cell::RefCell;
use std::sync::LazyLock;

use facemill_domain::named_enum;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8x3, U16x3};
use fast_image_resize::{CpuExtensions, FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

named_enum! {
    /// In which values pixels are averaged when a crop is resized.
    pub enum Light is "a kind of light" {
        /// In proportion to light: fine patterns keep their brightness.
        Linear = "linear",
        /// In the values of sRGB, as most tools do.
        Plain = "plain",
    }
}

/// Bilinear, with a wider kernel where the picture gets smaller: the triangle filter. The integer arithmetic gives the
/// same pixels with every instruction set.
pub fn shrunk(crop: &RgbImage, size: u32) -> RgbImage {
    shrunk_by(&mut Resizer::new(), crop, size)
}

/// Like [`shrunk`], with no other instruction set than the one of every processor.
pub fn shrunk_portably(crop: &RgbImage, size: u32) -> RgbImage {
    let mut portable = Resizer::new();
    // SAFETY: no extension is asked for.
    unsafe { portable.set_cpu_extensions(CpuExtensions::None) };
    shrunk_by(&mut portable, crop, size)
}

fn shrunk_by(resizer: &mut Resizer, crop: &RgbImage, size: u32) -> RgbImage {
    let (width, height) = crop.dimensions();
    let mut target = TypedImage::<U8x3>::new(size, size);
    if let Ok(source) = TypedImageRef::<U8x3>::from_buffer(width, height, crop) {
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let resized = resizer.resize_typed(&source, &mut target, &options);
        debug_assert!(resized.is_ok(), "{resized:?}");
    }
    let pixels = target.pixels().iter().flat_map(|pixel| pixel.0).collect();
    RgbImage::from_raw(size, size, pixels).unwrap_or_default()
}

/// What a thread keeps from one picture to the next: new memory for each took a tenth of an export.
struct Buffers {
    resizer: Resizer,
    linear: Vec<U16x3>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers { resizer: Resizer::new(), linear: Vec::new() });
}

/// Lanczos with three lobes, and a wider kernel where the picture gets smaller.
///
/// # Errors
/// What is wrong with the crop, in words.
pub fn rescaled(pixels: &RgbImage, size: u32, light: Light) -> Result<RgbImage, String> {
    let (width, height) = pixels.dimensions();
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    let resized = BUFFERS.with_borrow_mut(|Buffers { resizer, linear }| match light {
        Light::Plain => {
            let source =
                TypedImageRef::<U8x3>::from_buffer(width, height, pixels).map_err(|error| error.to_string())?;
            let mut target = TypedImage::<U8x3>::new(size, size);
            resizer.resize_typed(&source, &mut target, &options).map_err(|error| error.to_string())?;
            Ok::<_, String>(values(target.pixels().iter().map(|pixel| pixel.0)))
        }
        Light::Linear => {
            // The tables are looked up once, and not for each value.
            let (to_linear, from_linear): (&[u16; 256], &[u8; 1 << 16]) = (&TO_LINEAR, &FROM_LINEAR);
            let light = |pixel: &[u8; 3]| U16x3::new(pixel.map(|value| to_linear[usize::from(value)]));
            linear.clear();
            linear.extend(pixels.as_raw().as_chunks().0.iter().map(light));
            let source = TypedImageRef::new(width, height, linear).map_err(|error| error.to_string())?;
            let mut target = TypedImage::<U16x3>::new(size, size);
            resizer.resize_typed(&source, &mut target, &options).map_err(|error| error.to_string())?;
            let from_linear = |pixel: &U16x3| pixel.0.map(|value| from_linear[usize::from(value)]);
            Ok(values(target.pixels().iter().map(from_linear)))
        }
    })?;
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
