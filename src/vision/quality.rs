//! Quality measures of a crop.

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
    for y in 0..SAMPLES {
        for x in 0..SAMPLES {
            let [px, py] = square.to_picture([f64::from(x), f64::from(y)], SAMPLES);
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

/// Sharpness and brightness of a crop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelQuality {
    /// Variance of the Laplacian (Pech-Pacheco et al., ICPR 2000), in squared grey levels. Low values mean blur.
    /// Measured on the crop at 256 x 256 pixels, so that crops from 256 pixels on are comparable. Smaller crops are
    /// scaled up and measure as blurred. A sharp face has several hundred, a soft one less than 50.
    pub blur: f64,
    /// Mean luma (BT.601) within the ellipse around the head, 0 (black) to 1 (white).
    pub exposure: f64,
}

/// Measures sharpness and brightness.
pub fn measure(crop: &RgbImage) -> PixelQuality {
    const SIZE: u32 = 256;
    let crop = resize(crop, SIZE, SIZE);
    let luma = |p: &[u8]| 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]);
    let grey: Vec<f32> = crop.chunks_exact(3).map(luma).collect();
    let size = SIZE as usize;
    let (mut sum, mut squares) = (0f64, 0f64);
    for y in 1..size - 1 {
        let (above, here, below) = (&grey[(y - 1) * size..], &grey[y * size..], &grey[(y + 1) * size..]);
        let (mut row_sum, mut row_squares) = (0f32, 0f32);
        for x in 1..size - 1 {
            let laplacian = above[x] + below[x] + here[x - 1] + here[x + 1] - 4.0 * here[x];
            row_sum += laplacian;
            row_squares += laplacian * laplacian;
        }
        sum += f64::from(row_sum);
        squares += f64::from(row_squares);
    }
    let count = ((size - 2) * (size - 2)) as f64;
    let (mut brightness, mut points) = (0f64, 0f64);
    for y in 0..SAMPLES {
        for x in (0..SAMPLES).filter(|&x| in_head(x, y)) {
            brightness += f64::from(grey[(2 * y) as usize * size + (2 * x) as usize]);
            points += 1.0;
        }
    }
    PixelQuality { blur: squares / count - (sum / count).powi(2), exposure: brightness / points / 255.0 }
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

    #[test]
    fn sharp_images_measure_higher_than_soft_ones_at_any_size() {
        let (sharp, soft) = (measure(&stripes(512, false)).blur, measure(&stripes(512, true)).blur);
        assert!(sharp > 10.0 * soft, "{sharp} {soft}");
        let large = measure(&stripes(1024, false)).blur;
        assert!((large / sharp - 1.0).abs() < 0.2, "{large} {sharp}");
    }

    #[test]
    fn exposure_is_the_brightness_of_the_head() {
        let grey = RgbImage::from_pixel(300, 300, Rgb([51; 3]));
        assert!((measure(&grey).exposure - 0.2).abs() < 1e-3);
        assert_eq!(measure(&grey).blur, 0.0);
        let mut corner = RgbImage::from_pixel(256, 256, Rgb([255; 3]));
        for (x, y, pixel) in corner.enumerate_pixels_mut() {
            if x < 20 && y > 230 {
                *pixel = Rgb([0; 3]);
            }
        }
        assert!((measure(&corner).exposure - 1.0).abs() < 1e-6);
    }
}
