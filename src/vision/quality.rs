//! Quality measures of a crop: how much of it is mirrored, and its pixels.

use image::RgbImage;

use super::geometry::Square;
use super::resample::resize;

/// Shares of mirrored pixels in a crop.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirrored {
    /// Of the crop, 0 to 1.
    pub share: f64,
    /// Of the ellipse around the head.
    pub head: f64,
    /// Of each cell of a 4x4 grid, row by row.
    pub grid: [f32; 16],
}

/// Side of the grid of sample points.
const SAMPLES: u32 = 128;

/// Whether a sample point is in the ellipse around the head: centre (63.5, 60), radii 41.6 and 59.2.
fn in_head(x: u32, y: u32) -> bool {
    ((f64::from(x) - 63.5) / 41.6).powi(2) + ((f64::from(y) - 60.0) / 59.2).powi(2) <= 1.0
}

/// Measures how much of the square is outside a photo of `width` x `height` pixels.
pub fn mirrored(square: &Square, width: u32, height: u32) -> Mirrored {
    let (mut outside, mut head, mut head_outside) = (0u32, 0u32, 0u32);
    let mut cells = [0u32; 16];
    let grid = square.grid(SAMPLES);
    for y in 0..SAMPLES {
        for x in 0..SAMPLES {
            let [px, py] = grid.at([f64::from(x), f64::from(y)]);
            let inside = |at: f64, length: u32| (-0.5..=f64::from(length) - 0.5).contains(&at);
            let mirrored = u32::from(!(inside(px, width) && inside(py, height)));
            outside += mirrored;
            cells[(y / 32 * 4 + x / 32) as usize] += mirrored;
            if in_head(x, y) {
                head += 1;
                head_outside += mirrored;
            }
        }
    }
    Mirrored {
        share: f64::from(outside) / f64::from(SAMPLES * SAMPLES),
        head: f64::from(head_outside) / f64::from(head),
        grid: cells.map(|count| count as f32 / (32.0 * 32.0)),
    }
}

/// Sharpness, light and colour of a crop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelQuality {
    /// Variance of the Laplacian (Pech-Pacheco et al., ICPR 2000), in squared grey levels. Low values mean blur.
    /// Measured on the crop at 256 x 256 pixels, so that crops from 256 pixels on are comparable. Smaller crops are
    /// scaled up and measure as blurred. A sharp face has several hundred, a soft one less than 50.
    pub blur: f64,
    /// The same of the box around the landmarks at 128 x 128 pixels: neither the background nor the share of the face in
    /// the crop counts.
    pub face_blur: f64,
    /// Mean luma (BT.601) within the ellipse around the head, 0 (black) to 1 (white).
    pub exposure: f64,
    /// Standard deviation of that luma, 0 to 0.5.
    pub contrast: f64,
    /// Mean difference between the largest and the smallest channel there, 0 (grey) to 1.
    pub saturation: f64,
}

/// Measures the pixels of a crop. `landmarks` are in its pixels.
pub fn measure(crop: &RgbImage, landmarks: &[[f32; 2]]) -> PixelQuality {
    const SIZE: u32 = 256;
    let face_blur = face_box(crop, landmarks).map_or(0.0, |face| {
        let (width, height) = face.dimensions();
        // The longer side decides, so that the proportions of the face stay.
        let scale = f64::from(FACE_SIZE) / f64::from(width.max(height));
        let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).clamp(3, FACE_SIZE);
        let (width, height) = (scaled(width), scaled(height));
        laplacian_variance(&luma(&resize(&face, width, height)), width as usize)
    });
    let crop = resize(crop, SIZE, SIZE);
    let grey = luma(&crop);
    let (mut sum, mut squares, mut colour, mut points) = (0f64, 0f64, 0f64, 0f64);
    for y in 0..SAMPLES {
        for x in (0..SAMPLES).filter(|&x| in_head(x, y)) {
            let at = (2 * y * SIZE + 2 * x) as usize;
            let [red, green, blue] = [0, 1, 2].map(|channel| crop.as_raw()[3 * at + channel]);
            let value = f64::from(grey[at]) / 255.0;
            sum += value;
            squares += value * value;
            colour += f64::from(red.max(green).max(blue) - red.min(green).min(blue)) / 255.0;
            points += 1.0;
        }
    }
    let exposure = sum / points;
    PixelQuality {
        blur: laplacian_variance(&grey, SIZE as usize),
        face_blur,
        exposure,
        contrast: (squares / points - exposure * exposure).max(0.0).sqrt(),
        saturation: colour / points,
    }
}

/// The longer side in pixels at which the box of the face is measured.
const FACE_SIZE: u32 = 128;

/// The part of the crop around the landmarks. None: they lie outside, or in one point.
fn face_box(crop: &RgbImage, landmarks: &[[f32; 2]]) -> Option<RgbImage> {
    let within = |axis: usize, length: u32| {
        let (low, high) = landmarks
            .iter()
            .fold((f32::MAX, f32::MIN), |(low, high), point| (low.min(point[axis]), high.max(point[axis])));
        let low = low.round().clamp(0.0, length as f32) as u32;
        (low, ((high.round() + 1.0).clamp(0.0, length as f32) as u32).saturating_sub(low))
    };
    let ((x, width), (y, height)) = (within(0, crop.width()), within(1, crop.height()));
    (width >= 3 && height >= 3).then(|| image::imageops::crop_imm(crop, x, y, width, height).to_image())
}

/// Luma of each pixel (BT.601), 0 to 255.
pub fn luma(picture: &RgbImage) -> Vec<f32> {
    let luma = |p: &[u8]| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]);
    picture.chunks_exact(3).map(luma).collect()
}

/// Of the pixels that have four neighbours. `grey`: rows of `width` pixels, at least three of them.
fn laplacian_variance(grey: &[f32], width: usize) -> f64 {
    let height = grey.len() / width;
    let (mut sum, mut squares) = (0f64, 0f64);
    for y in 1..height - 1 {
        let (above, here, below) = (&grey[(y - 1) * width..], &grey[y * width..], &grey[(y + 1) * width..]);
        let (mut row_sum, mut row_squares) = (0f32, 0f32);
        for x in 1..width - 1 {
            let laplacian = above[x] + below[x] + here[x - 1] + here[x + 1] - 4.0 * here[x];
            row_sum += laplacian;
            row_squares += laplacian * laplacian;
        }
        sum += f64::from(row_sum);
        squares += f64::from(row_squares);
    }
    let count = ((width - 2) * (height - 2)) as f64;
    (squares / count - (sum / count).powi(2)).max(0.0)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn the_mirrored_share_is_the_part_outside() {
        // The upper half of the square is above the photo.
        let square = Square { centre: [50.0, -0.5], side: 40.0, angle: 0.0 };
        let half = mirrored(&square, 100, 100);
        assert!((half.share - 0.5).abs() < 0.01, "{half:?}");
        assert_eq!(half.grid[..8], [1.0; 8]);
        assert_eq!(half.grid[8..], [0.0; 8]);
        // The ellipse is above the centre.
        assert!(half.head > 0.5 && half.head < 0.6, "{half:?}");
        let within = mirrored(&Square { centre: [50.0, 50.0], side: 40.0, angle: 30.0 }, 100, 100);
        assert_eq!((within.share, within.head, within.grid), (0.0, 0.0, [0.0; 16]));
    }

    #[test]
    fn corners_of_rotated_squares_are_mirrored_first() {
        let square = Square { centre: [49.5, 49.5], side: 100.0, angle: 45.0 };
        let corners = mirrored(&square, 100, 100);
        let share = 1.0 - (2.0 * 2f64.sqrt() - 2.0); // a square minus the octagon inside it
        assert!((corners.share - share).abs() < 0.01, "{}", corners.share);
        assert!(corners.grid[0] > 0.3 && corners.grid[5] == 0.0);
    }

    fn stripes(size: u32, soft: bool) -> RgbImage {
        RgbImage::from_fn(size, size, |x, _| {
            let phase = f64::from(x) / f64::from(size) * 40.0 * std::f64::consts::PI;
            let value = if soft { phase.sin() * 0.3 } else { phase.sin().signum() };
            Rgb([(127.5 + 100.0 * value) as u8; 3])
        })
    }

    fn blur(crop: &RgbImage) -> f64 {
        measure(crop, &[]).blur
    }

    #[test]
    fn sharp_images_measure_higher_than_soft_ones_at_any_size() {
        let (sharp, soft) = (blur(&stripes(512, false)), blur(&stripes(512, true)));
        assert!(sharp > 10.0 * soft, "{sharp} {soft}");
        let large = blur(&stripes(1024, false));
        assert!((large / sharp - 1.0).abs() < 0.2, "{large} {sharp}");
    }

    #[test]
    fn exposure_is_the_brightness_of_the_head() {
        let grey = RgbImage::from_pixel(300, 300, Rgb([51; 3]));
        assert!((measure(&grey, &[]).exposure - 0.2).abs() < 1e-3);
        assert_eq!(measure(&grey, &[]).blur, 0.0);
        let mut corner = RgbImage::from_pixel(256, 256, Rgb([255; 3]));
        for (x, y, pixel) in corner.enumerate_pixels_mut() {
            if x < 20 && y > 230 {
                *pixel = Rgb([0; 3]);
            }
        }
        assert!((measure(&corner, &[]).exposure - 1.0).abs() < 1e-6);
    }
    #[test]
    fn grey_and_flat_crops_have_neither_colour_nor_contrast() {
        let grey = measure(&RgbImage::from_pixel(300, 300, Rgb([51; 3])), &[]);
        assert_eq!((grey.saturation, grey.face_blur), (0.0, 0.0));
        assert!(grey.contrast < 1e-3);
        let red = measure(&RgbImage::from_pixel(300, 300, Rgb([204, 51, 102])), &[]);
        assert!((red.saturation - 0.6).abs() < 1e-3, "{red:?}");
        let halves = RgbImage::from_fn(256, 256, |x, _| if x < 128 { Rgb([0; 3]) } else { Rgb([255; 3]) });
        assert!((measure(&halves, &[]).contrast - 0.5).abs() < 0.01);
    }

    #[test]
    fn the_blur_of_the_face_depends_on_its_box_alone() {
        // Noise in the box of the face, and none around it; then the other way round.
        let noise = |x: u32, y: u32| Rgb([(x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) >> 3) as u8; 3]);
        let is_face = |x: u32, y: u32| (100..300).contains(&x) && (120..320).contains(&y);
        let crop = |face: bool| {
            RgbImage::from_fn(400, 400, |x, y| if is_face(x, y) == face { noise(x, y) } else { Rgb([128; 3]) })
        };
        let landmarks = [[100.0, 120.0], [299.0, 319.0]];
        assert!(measure(&crop(true), &landmarks).face_blur > 100.0);
        assert!(measure(&crop(false), &landmarks).face_blur < 1.0);
        // The same face at twice the size measures about the same.
        let soft = |scale: u32| {
            let size = 256 * scale;
            let crop = RgbImage::from_fn(size, size, |x, y| {
                let wave = |at: u32| (f64::from(at) / f64::from(8 * scale)).sin();
                Rgb([(127.5 + 60.0 * (wave(x) + wave(y))) as u8; 3])
            });
            let edge = |at: u32| (at * scale) as f32;
            measure(&crop, &[[edge(40), edge(40)], [edge(200), edge(200)]]).face_blur
        };
        assert!((soft(4) / soft(2) - 1.0).abs() < 0.2, "{} {}", soft(4), soft(2));
        // Landmarks beyond the crop.
        let outside = measure(&crop(true), &[[-50.0, -60.0], [900.0, f32::NAN]]);
        assert!(outside.face_blur.is_finite());
        assert_eq!(measure(&crop(true), &[[-50.0, -60.0], [-40.0, -1.0]]).face_blur, 0.0);
    }
}
