//! The square around a face, and the crop that is cut from it.

use image::RgbImage;

use super::ffhq_fill::{self, Filled};
use super::geometry::{self, Point, Square, rotate};
use super::lanczos;
use facemill_domain::{Align, Fill, Landmarks};

/// Maximum side of a crop in pixels. It bounds the memory for faces that fill a 50-megapixel photo. The largest images
/// of StyleGAN have half this side.
pub const MAX_SIZE: u32 = 2048;

/// Computes the square around a face from its 68 landmarks.
///
/// With the eye centres e0 and e1 and the corners of the mouth m0 and m1: x = e1 - e0, y = (e0 + e1)/2 - (m0 + m1)/2,
/// side = max(4 |x|, 3.6 |y|), centre = (e0 + e1)/2 - 0.1 y, level with x (Karras et al., arXiv 1710.10196,
/// appendix C). The vector y points up from the mouth to the eyes, so minus moves the centre down. `seed` uses plus.
/// `ffhq` is level with x - rotate90(y), as in the paper's formula and in the FFHQ dataset.
pub fn square(landmarks: &[[f32; 2]], align: Align) -> Square {
    let [e0, e1] = geometry::eyes(landmarks);
    let middle = |a: Point, b: Point| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
    let eyes = middle(e0, e1);
    let mouth = middle(landmarks[48].map(f64::from), landmarks[54].map(f64::from));
    let x = [e1[0] - e0[0], e1[1] - e0[1]];
    let y = [eyes[0] - mouth[0], eyes[1] - mouth[1]];
    let shift = if align == Align::Seed { 0.1 } else { -0.1 };
    let axis = match align {
        Align::Paper | Align::Seed => x,
        // rotate90([a, b]) = [b, -a]: a quarter turn to the left on the screen, where y points down.
        Align::Ffhq => [x[0] - y[1], x[1] + y[0]],
    };
    Square {
        centre: [eyes[0] + shift * y[0], eyes[1] + shift * y[1]],
        side: (4.0 * x[0].hypot(x[1])).max(3.6 * y[0].hypot(y[1])),
        angle: axis[1].atan2(axis[0]).to_degrees(),
    }
}

/// Whether the square leaves the canvas of the published method: a square of side ceil(hypot(width, height)) with the
/// photo in its centre, rotated with the photo.
pub fn leaves_canvas(square: &Square, width: u32, height: u32) -> bool {
    let canvas = f64::from(width).hypot(f64::from(height)).ceil();
    let middle = [f64::from(width) / 2.0 - 0.5, f64::from(height) / 2.0 - 0.5];
    let centre = rotate([square.centre[0] - middle[0], square.centre[1] - middle[1]], square.angle);
    centre.iter().any(|c| c.abs() + square.side / 2.0 > canvas / 2.0)
}

/// Side of the crop in pixels: the side of the square in the photo, up to [`MAX_SIZE`].
pub fn native_size(square: &Square) -> u32 {
    square.side.round().clamp(1.0, f64::from(MAX_SIZE)) as u32
}

/// Cuts the square at `size` x `size` pixels. Lanczos filter, mirrored borders, several samples per pixel where the
/// square is scaled down.
pub fn cut(picture: &RgbImage, square: &Square, size: u32) -> RgbImage {
    let _span = tracing::trace_span!("resample", facemill.size = size).entered();
    lanczos::cut(picture, square, size)
}

/// As [`cut`], with this fill beyond the photo.
pub fn cut_filled(picture: &RgbImage, square: &Square, size: u32, fill: Fill) -> RgbImage {
    let filled = match fill {
        Fill::Mirror => None,
        Fill::Ffhq => ffhq_fill::fill(picture, square),
    };
    match filled {
        Some(Filled { picture, square }) => cut(&picture, &square, size),
        None => cut(picture, square, size),
    }
}

/// The bytes that [`cut_filled`] takes beside the photo and the crop.
pub fn fill_memory(square: &Square, width: u32, height: u32, fill: Fill) -> u64 {
    match fill {
        Fill::Mirror => 0,
        Fill::Ffhq => ffhq_fill::memory(square, width, height),
    }
}

/// Converts landmarks from pixels of the photo to pixels of the crop.
pub fn landmarks_in_crop(landmarks: &[[f32; 2]], square: &Square, size: u32) -> Landmarks {
    landmarks.iter().map(|point| square.from_picture(point.map(f64::from), size).map(|c| c as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eyes with a distance of 100 and the mouth 110 below, rotated around the middle of the eyes.
    fn face(rotation: f64, sideways: f64) -> Landmarks {
        let mut landmarks = vec![[0f32; 2]; 68];
        let place = |point: [f64; 2]| rotate(point, -rotation).map(|c| (c + 500.0) as f32);
        landmarks[36..42].fill(place([-50.0, 0.0]));
        landmarks[42..48].fill(place([50.0, 0.0]));
        landmarks[48] = place([-30.0 + sideways, 110.0]);
        landmarks[54] = place([30.0 + sideways, 110.0]);
        landmarks
    }

    #[test]
    fn the_square_follows_the_paper() {
        let level = square(&face(0.0, 0.0), Align::Paper);
        assert!((level.side - 400.0).abs() < 1e-3 && level.angle.abs() < 1e-4);
        // 0.1 of 110 down, to the mouth.
        assert!((level.centre[1] - 511.0).abs() < 1e-3 && (level.centre[0] - 500.0).abs() < 1e-3);
        let seed = square(&face(0.0, 0.0), Align::Seed);
        assert!((seed.centre[1] - 489.0).abs() < 1e-3);
        let rotated = square(&face(30.0, 0.0), Align::Paper);
        assert!((rotated.angle - 30.0).abs() < 1e-3, "{}", rotated.angle);
    }

    #[test]
    fn ffhq_uses_the_mouth() {
        assert!(square(&face(0.0, 0.0), Align::Ffhq).angle.abs() < 1e-4);
        assert!((square(&face(20.0, 0.0), Align::Ffhq).angle - 20.0).abs() < 1e-3);
        // The mouth is to the right of the middle of the eyes, so the face is rotated counter-clockwise.
        let angle = square(&face(0.0, 20.0), Align::Ffhq).angle;
        let expected = (-20.0f64).atan2(100.0 + 110.0).to_degrees();
        assert!((angle - expected).abs() < 1e-3, "{angle}, not {expected}");
        assert!(square(&face(0.0, 20.0), Align::Paper).angle.abs() < 1e-4);
    }

    #[test]
    fn squares_that_leave_the_canvas_are_detected() {
        // 300 x 400: the canvas is 500 wide.
        let square = |x: f64, y: f64, side: f64, angle: f64| Square { centre: [x, y], side, angle };
        assert!(!leaves_canvas(&square(149.5, 199.5, 500.0, 0.0), 300, 400));
        assert!(leaves_canvas(&square(149.5, 199.5, 501.0, 0.0), 300, 400));
        assert!(leaves_canvas(&square(20.0, 199.5, 300.0, 0.0), 300, 400));
        // The same distance is shorter along a rotated axis.
        assert!(!leaves_canvas(&square(20.0, 199.5, 300.0, 45.0), 300, 400));
    }

    #[test]
    fn landmarks_are_converted_to_the_crop() {
        let landmarks = face(17.0, 0.0);
        let square = square(&landmarks, Align::Paper);
        let moved = landmarks_in_crop(&landmarks, &square, 400);
        let [e0, e1] = geometry::eyes(&moved);
        assert!((e0[1] - e1[1]).abs() < 1e-2, "level");
        assert!(((e1[0] - e0[0]) - 100.0).abs() < 0.1, "the square is 4 eye distances wide");
        assert!((e0[0] + e1[0] - 399.0).abs() < 1e-2, "in the middle");
    }

    #[test]
    fn sizes_are_bounded() {
        let square = |side: f64| Square { centre: [0.0; 2], side, angle: 0.0 };
        assert_eq!(native_size(&square(511.6)), 512);
        assert_eq!(native_size(&square(9000.0)), MAX_SIZE);
        assert_eq!(native_size(&square(0.0)), 1);
    }
}
