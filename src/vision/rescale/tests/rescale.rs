//! Crops at other sizes.

use facemill_rescale::{Light, rescaled, shrunk, shrunk_portably};
use image::imageops::{self, FilterType};
use image::{Rgb, Rgb32FImage, RgbImage};

/// The same noise for each call, with a gradient in green and a pattern in blue.
fn noise(side: u32) -> RgbImage {
    let mut state = u64::from(side);
    RgbImage::from_fn(side, side, |x, y| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Rgb([(state >> 56) as u8, (x * 255 / side) as u8, ((x ^ y) & 255) as u8])
    })
}

#[test]
fn shrunk_pixels_do_not_depend_on_the_instruction_set() {
    for side in [100u32, 257, 900] {
        let crop = noise(side);
        let fast = shrunk(&crop, 224);
        assert!(fast == shrunk_portably(&crop, 224), "{side}");
        let exact = imageops::resize(&crop, 224, 224, FilterType::Triangle);
        let worst = fast.iter().zip(exact.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{side}: {worst:?} from the triangle filter in floats");
    }
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
    let resized = |source: &Rgb32FImage, width, height| {
        let mut target = imageops::resize(source, width, height, FilterType::Lanczos3);
        target.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|light| light.clamp(0.0, 1.0)));
        target
    };
    let source = Rgb32FImage::from_fn(pixels.width(), pixels.height(), |x, y| Rgb(pixels.get_pixel(x, y).0.map(light)));
    let target = resized(&resized(&source, size, pixels.height()), size, size);
    target.iter().map(|light| (255.0 * value(*light)).round() as u8).collect()
}

#[test]
fn sixteen_bits_of_light_are_within_a_level_of_floats() {
    // Noise over a gradient that is dark on the left, where a level is least light.
    let mut pixels = noise(511);
    for (x, _, pixel) in pixels.enumerate_pixels_mut() {
        pixel.0 = [((0.2 + 0.8 * f64::from(pixel.0[0]) / 255.0) * f64::from(x) / 2.0) as u8; 3];
    }
    for size in [256, 400, 512, 1024] {
        let (found, expected) = (rescaled(&pixels, size, Light::Linear).unwrap(), exact(&pixels, size));
        let differences = found.as_raw().iter().zip(&expected).map(|(found, expected)| found.abs_diff(*expected));
        assert!(differences.clone().all(|difference| difference <= 1), "{size}: {:?}", differences.max());
        assert!(differences.filter(|difference| *difference == 1).count() < expected.len() / 50, "{size}");
    }
}

#[test]
fn values_of_srgb_survive_the_way_to_light_and_back() {
    for value in 0..=255 {
        let plain = RgbImage::from_pixel(5, 5, Rgb([value; 3]));
        for light in [Light::Linear, Light::Plain] {
            let found = rescaled(&plain, 3, light).unwrap();
            assert!(found.iter().all(|found| *found == value), "{value}, {light}: {found:?}");
        }
    }
}
