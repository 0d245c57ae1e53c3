//! YuNet, a small face detector (Wu, Peng and Yu, Machine Intelligence Research 2023): positions, sizes and approximate
//! rolls of faces.

use image::RgbImage;
use ort::session::Session;
use ort::value::TensorRef;

use facemill_inference::onnx::{Dim, ModelProto, ValueInfoProto};
use facemill_inference::{InferenceError, Runtime};

const NAME: &str = "yunet.onnx";
const STRIDES: [usize; 3] = [8, 16, 32];

/// A detected face, in pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    pub score: f32,
    pub centre: [f64; 2],
    pub size: [f64; 2],
    /// Eyes, nose, corners of the mouth. The one on the left of an upright image is first.
    pub points: [[f64; 2]; 5],
}

impl Detection {
    /// Side of the square with the area of the box. It varies less with the pose than height or width alone.
    pub fn width(&self) -> f64 {
        (self.size[0] * self.size[1]).sqrt()
    }

    /// Rotation in degrees that makes the face upright, from eyes and mouth. The error is a few degrees near 0. At 45
    /// degrees the value is too small, by up to half.
    pub fn roll(&self) -> f64 {
        let [right_eye, left_eye, _, right_mouth, left_mouth] = self.points;
        let middle = |a: [f64; 2], b: [f64; 2]| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
        let (eyes, mouth) = (middle(right_eye, left_eye), middle(right_mouth, left_mouth));
        let across = [left_eye[0] - right_eye[0], left_eye[1] - right_eye[1]];
        let down = [mouth[0] - eyes[0], mouth[1] - eyes[1]];
        (across[1] - down[0]).atan2(across[0] + down[1]).to_degrees()
    }

    /// Intersection over union of two boxes.
    fn overlap(&self, other: &Self) -> f64 {
        let shared: f64 = (0..2)
            .map(|i| {
                let low = (self.centre[i] - self.size[i] / 2.0).max(other.centre[i] - other.size[i] / 2.0);
                let high = (self.centre[i] + self.size[i] / 2.0).min(other.centre[i] + other.size[i] / 2.0);
                (high - low).max(0.0)
            })
            .product();
        let area = |s: &Self| s.size[0] * s.size[1];
        shared / (area(self) + area(other) - shared)
    }

    /// Whether eyes, nose and mouth are in the image.
    pub fn is_within(&self, picture: &RgbImage) -> bool {
        let size = [picture.width(), picture.height()].map(f64::from);
        self.points.iter().all(|point| (0..2).all(|i| (-0.5..=size[i] - 0.5).contains(&point[i])))
    }

    /// The same face, moved.
    #[must_use]
    pub fn moved(&self, by: [f64; 2]) -> Self {
        let shift = |point: [f64; 2]| [point[0] + by[0], point[1] + by[1]];
        Self { centre: shift(self.centre), points: self.points.map(shift), ..*self }
    }

    /// The same face in an image that is `factor` times as large.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |point: [f64; 2]| point.map(|c| (c + 0.5) * factor - 0.5);
        Self {
            score: self.score,
            centre: scale(self.centre),
            size: self.size.map(|length| length * factor),
            points: self.points.map(scale),
        }
    }
}

/// Replaces the fixed 640x640 input of the published model by a dynamic one.
///
/// Declared shapes that depend on the input size are removed. The graph itself is convolutional and reshapes with -1.
///
/// # Errors
/// The file is not an ONNX model, or has an unknown output.
pub fn dynamic(published: &[u8]) -> Result<Vec<u8>, InferenceError> {
    let invalid = |detail: String| InferenceError::Model { model: NAME.into(), detail };
    let mut model = ModelProto::decode(published).map_err(|error| invalid(error.to_string()))?;
    let graph = model.graph.as_mut().ok_or_else(|| invalid("it has no graph".into()))?;
    graph.value_info.clear();
    graph.input =
        vec![ValueInfoProto::floats("input", &[Dim::Fixed(1), Dim::Fixed(3), Dim::Named("h"), Dim::Named("w")])];
    for output in &mut graph.output {
        let name = output.name().to_owned();
        let columns = match name.split('_').next() {
            Some("cls" | "obj") => 1,
            Some("bbox") => 4,
            Some("kps") => 10,
            _ => return Err(invalid(format!("it has an unknown output {name}"))),
        };
        let anchors = format!("anchors_{name}");
        *output = ValueInfoProto::floats(&name, &[Dim::Fixed(1), Dim::Named(&anchors), Dim::Fixed(columns)]);
    }
    Ok(model.encode())
}

/// A session. Each thread needs its own.
pub struct Yunet {
    session: Session,
    input: Vec<f32>,
}

impl Yunet {
    /// `model` is the result of [`dynamic`].
    pub fn new(runtime: &Runtime, model: &[u8]) -> Result<Self, InferenceError> {
        Ok(Self { session: runtime.session(NAME, model, 1)?, input: Vec::new() })
    }

    /// Finds faces with a score of at least `threshold`, best first.
    ///
    /// # Errors
    /// onnxruntime fails.
    pub fn find(&mut self, picture: &RgbImage, threshold: f32) -> Result<Vec<Detection>, InferenceError> {
        let (width, height) = (picture.width().next_multiple_of(32), picture.height().next_multiple_of(32));
        self.fill(picture, width as usize, height as usize);
        let failed = |error: ort::Error| InferenceError::Run { model: NAME.into(), detail: error.to_string() };
        let shape = [1usize, 3, height as usize, width as usize];
        let tensor = TensorRef::from_array_view((shape, &self.input[..])).map_err(failed)?;
        let outputs = self.session.run(ort::inputs!["input" => tensor]).map_err(failed)?;
        let mut detections = Vec::new();
        for stride in STRIDES {
            let values = |kind: &str| {
                let (_, values) = outputs[format!("{kind}_{stride}").as_str()].try_extract_tensor::<f32>()?;
                Ok(values)
            };
            let (class, object) = (values("cls").map_err(failed)?, values("obj").map_err(failed)?);
            let (boxes, points) = (values("bbox").map_err(failed)?, values("kps").map_err(failed)?);
            let columns = width as usize / stride;
            for (anchor, (&class, &object)) in class.iter().zip(object).enumerate() {
                let score = (class.clamp(0.0, 1.0) * object.clamp(0.0, 1.0)).sqrt();
                if score < threshold {
                    continue;
                }
                // Offsets are relative to the corner of the cell of the anchor.
                let cell = [(anchor % columns) as f64, (anchor / columns) as f64];
                let position = |i: usize, offset: f32| (cell[i] + f64::from(offset)) * stride as f64 - 0.5;
                let (frame, marks) = (&boxes[4 * anchor..][..4], &points[10 * anchor..][..10]);
                detections.push(Detection {
                    score,
                    centre: [position(0, frame[0]), position(1, frame[1])],
                    size: [frame[2], frame[3]].map(|log| f64::from(log).exp() * stride as f64),
                    points: std::array::from_fn(|p| std::array::from_fn(|i| position(i, marks[2 * p + i]))),
                });
            }
        }
        Ok(distinct(detections))
    }

    /// Fills the input: planes of blue, green and red, 0 to 255, padded with black.
    fn fill(&mut self, picture: &RgbImage, width: usize, height: usize) {
        let plane = width * height;
        self.input.clear();
        self.input.resize(3 * plane, 0.0);
        let columns = picture.width() as usize;
        let (blue, rest) = self.input.split_at_mut(plane);
        let (green, red) = rest.split_at_mut(plane);
        for (y, row) in picture.as_raw().chunks_exact(3 * columns.max(1)).enumerate() {
            let line = y * width..y * width + columns;
            let planes = blue[line.clone()].iter_mut().zip(&mut green[line.clone()]).zip(&mut red[line]);
            for (pixel, ((b, g), r)) in row.chunks_exact(3).zip(planes) {
                (*r, *g, *b) = (f32::from(pixel[0]), f32::from(pixel[1]), f32::from(pixel[2]));
            }
        }
    }
}

/// Keeps the best of each group of overlapping detections.
pub fn distinct(mut detections: Vec<Detection>) -> Vec<Detection> {
    const SAME: f64 = 0.3;
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for detection in detections {
        if kept.iter().all(|better| better.overlap(&detection) < SAME) {
            kept.push(detection);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(score: f32, x: f64) -> Detection {
        Detection { score, centre: [x, 50.0], size: [20.0, 20.0], points: [[0.0; 2]; 5] }
    }

    #[test]
    fn overlapping_detections_are_one_face() {
        let kept = distinct(vec![detection(0.7, 52.0), detection(0.9, 50.0), detection(0.8, 90.0)]);
        assert_eq!(kept.iter().map(|s| s.score).collect::<Vec<_>>(), [0.9, 0.8]);
    }

    #[test]
    fn another_model_is_an_error() {
        assert!(dynamic(b"\xff\xff").is_err());
        assert!(dynamic(b"").is_err());
    }
}
