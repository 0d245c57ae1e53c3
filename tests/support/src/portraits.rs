//! Drawn portraits, and their crops.

use facemill::classifier::model::MIRRORS;
use facemill::training::random::Random;
use facemill::vision::align;
use facemill::vision::geometry::Square;
use facemill::vision::quality::mirrored;
use image::{Rgb, RgbImage};

/// A drawn portrait: head, hair, ears, eyes and mouth on a plain wall.
pub fn draw_portrait(random: &mut Random) -> RgbImage {
    let wall = Rgb([0; 3].map(|_| random.between(90.0, 230.0) as u8));
    let skin =
        Rgb([random.between(170.0, 235.0), random.between(120.0, 180.0), random.between(90.0, 150.0)].map(|c| c as u8));
    let hair =
        Rgb([random.between(10.0, 110.0), random.between(10.0, 70.0), random.between(5.0, 50.0)].map(|c| c as u8));
    let shirt = Rgb([0; 3].map(|_| random.between(20.0, 220.0) as u8));
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (x, y) = (f64::from(x) - MIDDLE, f64::from(y) - MIDDLE);
        let within = |cx: f64, cy: f64, rx: f64, ry: f64| ((x - cx) / rx).powi(2) + ((y - cy) / ry).powi(2) <= 1.0;
        let beside = |cx: f64, cy: f64, rx: f64, ry: f64| within(cx, cy, rx, ry) || within(-cx, cy, rx, ry);
        if beside(12.5, 0.0, 4.0, 2.5) || within(0.0, 28.0, 10.0, 3.0) {
            Rgb([40, 20, 20])
        } else if within(0.0, 8.0, 28.0, 36.0) && y > -16.0 || beside(30.0, 6.0, 5.0, 9.0) {
            skin
        } else if within(0.0, 0.0, 32.0, 42.0) {
            hair
        } else if within(0.0, 95.0, 70.0, 48.0) {
            shirt
        } else {
            wall
        }
    })
}

pub const SIDE: u32 = 400;
pub const MIDDLE: f64 = 200.0;
/// Side of the crop: four eye distances.
pub const CROP: f64 = 100.0;

/// The crop of a portrait whose upper edge is `above` pixels above the middle of the eyes.
pub fn cropped(portrait: &RgbImage, above: f64) -> (RgbImage, [f32; MIRRORS]) {
    let top = (MIDDLE - above) as u32;
    let photo = image::imageops::crop_imm(portrait, 0, top, SIDE, SIDE - top).to_image();
    let square = Square { centre: [MIDDLE, MIDDLE + 3.0 - f64::from(top)], side: CROP, angle: 0.0 };
    (align::cut(&photo, &square, 128), mirrors(&square, &photo))
}

/// The mirror features of a crop.
pub fn mirrors(square: &Square, photo: &RgbImage) -> [f32; MIRRORS] {
    let shares = mirrored(square, photo.width(), photo.height());
    let mut mirrors = [shares.share as f32; MIRRORS];
    mirrors[1] = shares.head as f32;
    mirrors[2..].copy_from_slice(&shares.grid);
    mirrors
}

/// Upper edges: above the whole head, and at the forehead. In the second case the mirror shows an upside-down face.
pub const WHOLE: f64 = 80.0;
pub const CUT: f64 = 12.0;
