//! Predicts landmarks with MediaPipe's face mesh, a network that finds 468 points of a face (Kartynnik, Ablavatski,
//! Grishchenko and Grundmann, arXiv 1907.06724).
//!
//! The mesh has no landmarks of iBUG's scheme, but points that mean the same. Corners and lids of the eyes, lips and
//! nose are the same places of a face. The jaw is not: iBUG's is the edge that the image shows, the mesh's is fixed to
//! the surface of the face.

use facemill_domain::Landmarks;
use facemill_inference::{InferenceError, Runtime};
use image::RgbImage;
use image::imageops::flip_horizontal_in_place;
use ort::session::Session;
use ort::value::TensorRef;

use super::geometry::{Square, line_angle, rotate};

const NAME: &str = "face-mesh.onnx";
/// Side of the network's input in pixels.
const SIDE: u32 = 192;
/// Points of the mesh.
const POINTS: usize = 468;
/// The side of the first square in widths of the frame of dlib's detector, and of the second one by the longer side of
/// the box around the first one's points. MediaPipe's 1.5 shows more than the face and makes the eyes 5 % further
/// apart; with 1.4, the centres of the lids are nearest to the pupils.
const FRAME_SCALE: f64 = 1.6;
const BOX_SCALE: f64 = 1.4;
/// The outer corners of the eyes.
const CORNERS: [usize; 2] = [33, 263];

/// The points of the mesh that stand for the 68 landmarks of iBUG's scheme.
#[rustfmt::skip]
const IBUG: [usize; 68] = [
    // Jaw.
    127, 234, 132, 58, 172, 136, 149, 176, 152, 400, 378, 365, 397, 288, 361, 454, 356,
    // Brows.
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    // Nose: bridge, base.
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    // Eyes.
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    // Outer edge of the lips.
    61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91,
    // Inner edge of the lips.
    78, 82, 13, 312, 308, 317, 14, 87,
];

/// The landmark that takes the place of each one in a mirrored face.
#[rustfmt::skip]
const MIRRORED: [usize; 68] = [
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
    26, 25, 24, 23, 22, 21, 20, 19, 18, 17,
    27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55,
    64, 63, 62, 61, 60, 67, 66, 65,
];

/// The points of a mesh, in pixels of the network's input.
type Points = Vec<[f32; 2]>;

/// A session. Each thread needs its own.
pub struct Mesh {
    session: Session,
}

impl Mesh {
    /// `model`: the file that `models/convert_mesh.py` makes.
    ///
    /// # Errors
    /// onnxruntime rejects the model.
    pub fn new(runtime: &Runtime, model: &[u8]) -> Result<Self, InferenceError> {
        Ok(Self { session: runtime.session(NAME, model, 1)? })
    }

    /// The 68 landmarks of the face in `frame`, in pixels of the picture. `frame`: the frame of dlib's detector,
    /// rotated with the face. `cut` returns a square of the picture at a number of pixels.
    ///
    /// The points of a first pass place the square of a second one. There, the landmarks are the mean of those of the
    /// face and of its mirror image, whose errors of the angle are opposite: that takes a third of the error away.
    ///
    /// # Errors
    /// onnxruntime fails, or the model returns something else than the points.
    pub fn landmarks(
        &mut self,
        frame: &Square,
        cut: impl Fn(&Square, u32) -> RgbImage,
    ) -> Result<Landmarks, InferenceError> {
        let first = Square { side: FRAME_SCALE * frame.side, ..*frame };
        let square = around(&self.find(&cut(&first, SIDE))?, &first);
        let mut picture = cut(&square, SIDE);
        let upright = self.find(&picture)?;
        flip_horizontal_in_place(&mut picture);
        let mirrored = self.find(&picture)?;
        let mean = |landmark: usize| {
            let [[x, y], [mirrored_x, mirrored_y]] =
                [upright[IBUG[landmark]], mirrored[IBUG[MIRRORED[landmark]]]].map(|point| point.map(f64::from));
            let point = [(x + f64::from(SIDE - 1) - mirrored_x) / 2.0, (y + mirrored_y) / 2.0];
            square.to_picture(point, SIDE).map(|c| c as f32)
        };
        Ok((0..IBUG.len()).map(mean).collect())
    }

    /// The points of the face in a picture of [`SIDE`] pixels squared.
    fn find(&mut self, picture: &RgbImage) -> Result<Points, InferenceError> {
        let failed = |detail: String| InferenceError::Run { model: NAME.into(), detail };
        let in_session = |error: ort::Error| failed(error.to_string());
        let shape = [1, picture.height() as usize, picture.width() as usize, 3];
        let tensor = TensorRef::from_array_view((shape, &picture.as_raw()[..])).map_err(in_session)?;
        let outputs = self.session.run(ort::inputs!["crop" => tensor]).map_err(in_session)?;
        let (_, values) = outputs["points"].try_extract_tensor::<f32>().map_err(in_session)?;
        let (points, _) = values.as_chunks::<3>();
        if points.len() != POINTS || values.iter().any(|value| !value.is_finite()) {
            return Err(failed(format!("it returned no {POINTS} finite points")));
        }
        Ok(points.iter().map(|&[x, y, _depth]| [x, y]).collect())
    }
}

/// The square around points that were found in `seen`, level with the corners of the eyes.
fn around(points: &[[f32; 2]], seen: &Square) -> Square {
    let in_picture: Vec<[f64; 2]> = points.iter().map(|point| seen.to_picture(point.map(f64::from), SIDE)).collect();
    let [right, left] = CORNERS.map(|corner| in_picture[corner]);
    let angle = line_angle(right, left);
    let (mut low, mut high) = ([f64::MAX; 2], [f64::MIN; 2]);
    for point in &in_picture {
        let levelled = rotate(*point, angle);
        low = [0, 1].map(|axis| low[axis].min(levelled[axis]));
        high = [0, 1].map(|axis| high[axis].max(levelled[axis]));
    }
    let middle = [0, 1].map(|axis| (low[axis] + high[axis]) / 2.0);
    Square { centre: rotate(middle, -angle), side: BOX_SCALE * (high[0] - low[0]).max(high[1] - low[1]), angle }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use facemill_inference::Models;

    use super::super::resample::{BorderMode, warp};
    use super::*;

    fn mesh() -> Mesh {
        let models = Models::find(std::env::var_os(Models::ENV).map(PathBuf::from));
        let runtime = Runtime::load(&models.onnxruntime()).expect("onnxruntime (`make setup` fetches it)");
        let model = facemill_inference::read(&models.mesh()).expect("face-mesh.onnx (`make setup` makes it)");
        Mesh::new(&runtime, &model).unwrap()
    }

    /// Discs on a gradient, which the network takes for a face well enough to compare numbers.
    fn drawing() -> RgbImage {
        let near = |x: u32, y: u32, at: [i64; 2], radius: i64| {
            (i64::from(x) - at[0]).pow(2) + (i64::from(y) - at[1]).pow(2) < radius * radius
        };
        RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let dark = [[66, 80], [126, 80], [96, 140]].iter().any(|&at| near(x, y, at, 10));
            let skin = near(x, y, [96, 100], 70);
            match (dark, skin) {
                (true, _) => image::Rgb([60, 40, 40]),
                (_, true) => image::Rgb([(180 + x / 8) as u8, (140 + y / 8) as u8, 120]),
                _ => image::Rgb([(x / 2) as u8, (y / 2) as u8, 90]),
            }
        })
    }

    /// The points that LiteRT finds with the TensorFlow Lite file.
    #[test]
    fn the_points_are_those_of_the_original_network() {
        let expected: [(usize, [f32; 2]); 6] = [
            (4, [95.406, 114.252]),
            (33, [53.014, 84.081]),
            (61, [73.800, 137.583]),
            (152, [96.976, 171.091]),
            (263, [138.836, 84.995]),
            (467, [140.454, 82.324]),
        ];
        let points = mesh().find(&drawing()).unwrap();
        for (index, [x, y]) in expected {
            let [found_x, found_y] = points[index];
            assert!(
                (found_x - x).abs() < 0.01 && (found_y - y).abs() < 0.01,
                "point {index}: {:?}, not {:?}",
                points[index],
                [x, y]
            );
        }
    }

    #[test]
    fn a_mirrored_picture_has_mirrored_landmarks() {
        let mut mesh = mesh();
        let mut picture = drawing();
        let frame = Square { centre: [95.5, 95.5], side: 120.0, angle: 0.0 };
        let cut = |picture: &RgbImage, square: &Square| warp(picture, &square.grid(SIDE), SIDE, SIDE, BorderMode::Edge);
        let upright = mesh.landmarks(&frame, |square, _| cut(&picture, square)).unwrap();
        flip_horizontal_in_place(&mut picture);
        let mirrored = mesh.landmarks(&frame, |square, _| cut(&picture, square)).unwrap();
        for (landmark, [x, y]) in upright.iter().enumerate() {
            let [mirrored_x, mirrored_y] = mirrored[MIRRORED[landmark]];
            let distance = (191.0 - mirrored_x - x).hypot(mirrored_y - y);
            // The square of the second pass comes from one picture only, so a little of its error remains.
            assert!(distance < 4.0, "landmark {landmark}: {distance}");
        }
    }

    #[test]
    fn the_next_square_is_level_with_the_eyes_and_contains_all_points() {
        let seen = Square { centre: [500.0, 400.0], side: 384.0, angle: 20.0 };
        let mut points = vec![[96.0, 96.0]; POINTS];
        points[33] = [60.0, 70.0];
        points[263] = [130.0, 140.0];
        let square = around(&points, &seen);
        assert!((square.angle - 65.0).abs() < 1e-3, "{square:?}");
        // The points lie on a line with the angle of the square: its length decides.
        assert!((square.side - BOX_SCALE * 2.0 * 70.0 * 2f64.sqrt()).abs() < 1e-2, "{square:?}");
        assert!((square.from_picture(seen.to_picture([95.0, 105.0], SIDE), 192)[0] - 95.5).abs() < 1e-2, "{square:?}");
    }

    #[test]
    fn every_landmark_has_its_mirror_image() {
        let mut points = IBUG.to_vec();
        points.sort_unstable();
        points.dedup();
        assert_eq!(points.len(), 68, "each is another point");
        assert!((0..68).all(|landmark| MIRRORED[MIRRORED[landmark]] == landmark));
    }

    #[test]
    fn another_model_is_an_error() {
        let models = Models::find(std::env::var_os(Models::ENV).map(PathBuf::from));
        let runtime = Runtime::load(&models.onnxruntime()).unwrap();
        assert!(Mesh::new(&runtime, b"not a model").is_err());
        let other = facemill_inference::read(&models.yunet()).unwrap();
        assert!(Mesh::new(&runtime, &other).unwrap().find(&drawing()).is_err());
    }
}
