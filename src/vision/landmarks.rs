//! Predicts the 68 landmarks of a face with dlib's model, an ensemble of regression trees (Kazemi and Sullivan, CVPR
//! 2014).
//!
//! The results are those of dlib, which reads the file slowly and waits for memory at every tree. Here the file is read
//! in a fifth of the time, all numbers of a step are beside each other, and those of the next trees are fetched while
//! the present ones are used.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::dlib::Frame;
use facemill_domain::Landmarks;

/// Landmarks of a face.
const POINTS: usize = 68;
/// Their coordinates, x and y by turns.
type Shape = [f32; 2 * POINTS];

/// The model. Coordinates are relative to the frame of a face.
pub struct LandmarkModel {
    mean_shape: Shape,
    /// The centre of the mean shape, and the mean of its squared distances from there.
    mean_centre: [f64; 2],
    mean_variance: f64,
    steps: Vec<Step>,
}

/// One step of the cascade: trees that look at the same pixels, and whose results are added to the shape.
#[derive(Default)]
struct Step {
    pixels: Vec<Pixel>,
    /// Splits of each tree: one less than it has leaves.
    splits_per_tree: usize,
    splits: Vec<Split>,
    leaves: Vec<Shape>,
}

/// A pixel relative to a landmark, in the orientation and scale of the mean shape.
struct Pixel {
    landmark: u16,
    offset: [f32; 2],
}

/// Goes left where the first pixel exceeds the second one by more than the threshold.
struct Split {
    pixels: [u16; 2],
    threshold: f32,
}

#[derive(Debug, thiserror::Error)]
#[error("{} is not dlib's 68-landmark model, or cannot be read: {error}; `make setup` fetches it", path.display())]
pub struct LandmarkError {
    path: PathBuf,
    error: io::Error,
}

/// A grey image.
#[derive(Clone, Copy)]
pub struct Grey<'a> {
    /// Row by row, without padding.
    pub pixels: &'a [u8],
    pub width: u32,
}

impl LandmarkModel {
    /// Reads a model from the file in which dlib serializes it.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold a model of 68 landmarks.
    pub fn open(path: &Path) -> Result<Self, LandmarkError> {
        let failed = |error| LandmarkError { path: path.to_path_buf(), error };
        let file = File::open(path).map_err(failed)?;
        Self::read(&mut Numbers::of(file)).map_err(failed)
    }

    /// The format of `dlib::serialize(shape_predictor)`: the mean shape, the trees of all steps, then for all steps the
    /// landmarks that the pixels are next to, and the offsets of the pixels.
    fn read<R: Read>(numbers: &mut Numbers<R>) -> io::Result<Self> {
        if numbers.integer()? != 1 {
            return Err(invalid("its version is unknown"));
        }
        let mean_shape = numbers.shape()?;
        let count = numbers.count(1_000)?;
        let mut steps = (0..count).map(|_| numbers.trees()).collect::<io::Result<Vec<Step>>>()?;
        let mut landmarks = Vec::new();
        numbers.expect(count)?;
        for _ in 0..count {
            let pixels = numbers.count(10_000)?;
            landmarks.push((0..pixels).map(|_| numbers.index(POINTS)).collect::<io::Result<Vec<u16>>>()?);
        }
        numbers.expect(count)?;
        for (step, landmarks) in steps.iter_mut().zip(landmarks) {
            numbers.expect(landmarks.len())?;
            for landmark in landmarks {
                step.pixels.push(Pixel { landmark, offset: [numbers.float()?, numbers.float()?] });
            }
            let unknown = |split: &Split| split.pixels.iter().any(|&pixel| usize::from(pixel) >= step.pixels.len());
            if step.splits.iter().any(unknown) {
                return Err(invalid("a split uses a pixel that the model does not have"));
            }
        }
        let mean_centre = centre(&mean_shape);
        let mean_variance = points(&mean_shape)
            .map(|point| (0..2).map(|i| (f64::from(point[i]) - mean_centre[i]).powi(2)).sum::<f64>())
            .sum::<f64>()
            / POINTS as f64;
        Ok(Self { mean_shape, mean_centre, mean_variance, steps })
    }

    /// The landmarks of a face for each of several frames around it, in whole pixels of the image, as dlib gives them.
    /// Frames that differ little cost little more than one.
    pub fn find(&self, image: Grey<'_>, frames: &[Frame]) -> Vec<Landmarks> {
        let mut shapes = vec![self.mean_shape; frames.len()];
        let mut values = Vec::new();
        let mut leaves = Vec::new();
        for step in &self.steps {
            for (frame, shape) in frames.iter().zip(&mut shapes) {
                self.look(step, image, frame, shape, &mut values);
                step.walk(&values, &mut leaves);
                for &leaf in &leaves {
                    for (sum, part) in shape.iter_mut().zip(&step.leaves[leaf]) {
                        *sum += part;
                    }
                }
            }
        }
        let in_image = |(frame, shape): (&Frame, &Shape)| {
            points(shape).map(|point| place(frame, point).map(|c| (c + 0.5).floor() as f32)).collect()
        };
        frames.iter().zip(&shapes).map(in_image).collect()
    }

    /// The values of the pixels of a step. Outside the image they are 0.
    fn look(&self, step: &Step, image: Grey<'_>, frame: &Frame, shape: &Shape, values: &mut Vec<f32>) {
        let [[a, b], [c, d]] = self.similarity(shape).map(|row| row.map(|value| value as f32));
        let (width, height) = (i64::from(image.width), (image.pixels.len() / image.width.max(1) as usize) as i64);
        let value = |pixel: &Pixel| {
            let [x, y] = pixel.offset;
            let at = 2 * usize::from(pixel.landmark);
            let point = [a * x + b * y + shape[at], c * x + d * y + shape[at + 1]];
            let [x, y] = place(frame, point).map(|c| (c + 0.5).floor() as i64);
            let inside = (0..width).contains(&x) && (0..height).contains(&y);
            if inside { f32::from(image.pixels[(y * width + x) as usize]) } else { 0.0 }
        };
        values.clear();
        values.extend(step.pixels.iter().map(value));
    }

    /// The rotation and scale that map the mean shape best to a shape (Umeyama, PAMI 1991, equations 34 to 43, in two
    /// dimensions and without reflection).
    fn similarity(&self, shape: &Shape) -> [[f64; 2]; 2] {
        let centre = centre(shape);
        let [mut cos, mut sin] = [0.0; 2];
        for (from, to) in points(&self.mean_shape).zip(points(shape)) {
            let from: [f64; 2] = std::array::from_fn(|i| f64::from(from[i]) - self.mean_centre[i]);
            let to: [f64; 2] = std::array::from_fn(|i| f64::from(to[i]) - centre[i]);
            cos += to[0] * from[0] + to[1] * from[1];
            sin += to[1] * from[0] - to[0] * from[1];
        }
        let scale = 1.0 / (POINTS as f64 * self.mean_variance);
        let (cos, sin) = (cos * scale, sin * scale);
        [[cos, -sin], [sin, cos]]
    }
}

impl Step {
    /// The leaves that the trees end at, and fetches them from memory.
    fn walk(&self, values: &[f32], leaves: &mut Vec<usize>) {
        leaves.clear();
        for (tree, splits) in self.splits.chunks_exact(self.splits_per_tree).enumerate() {
            let mut at = 0;
            while let Some(Split { pixels: [first, second], threshold }) = splits.get(at) {
                let difference = values[usize::from(*first)] - values[usize::from(*second)];
                at = 2 * at + if difference > *threshold { 1 } else { 2 };
            }
            let leaf = tree * (self.splits_per_tree + 1) + at - self.splits_per_tree;
            fetch(&self.leaves[leaf]);
            leaves.push(leaf);
        }
    }
}

/// Tells the processor that the shape is needed soon.
fn fetch(shape: &Shape) {
    #[cfg(target_arch = "x86_64")]
    for line in shape.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: it has no effect on the memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = shape;
}

fn points(shape: &Shape) -> impl Iterator<Item = [f32; 2]> {
    shape.as_chunks::<2>().0.iter().copied()
}

fn centre(shape: &Shape) -> [f64; 2] {
    let sum = points(shape).fold([0.0; 2], |sum, point| [sum[0] + f64::from(point[0]), sum[1] + f64::from(point[1])]);
    sum.map(|sum| sum / POINTS as f64)
}

/// The pixel at a position in a frame. The corners of the frame are at 0 and 1.
fn place(frame: &Frame, [x, y]: [f32; 2]) -> [f64; 2] {
    let (width, height) = (frame.right - frame.left, frame.bottom - frame.top);
    [frame.left + f64::from(x) * width, frame.top + f64::from(y) * height]
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Numbers as dlib serializes them: a byte with sign and length, then the bytes, the lowest first.
struct Numbers<R> {
    reader: R,
    buffer: Vec<u8>,
    at: usize,
}

impl<R: Read> Numbers<R> {
    const BUFFER: usize = 1 << 16;

    fn of(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), at: 0 }
    }

    /// Reads on, if the buffer may end within the next number.
    fn refill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let missing = (Self::BUFFER - self.buffer.len()) as u64;
        (&mut self.reader).take(missing).read_to_end(&mut self.buffer)?;
        Ok(())
    }

    fn integer(&mut self) -> io::Result<i64> {
        if self.buffer.len() < self.at + 9 {
            self.refill()?;
        }
        let short = || invalid("it ends within a number");
        let rest = &self.buffer[self.at..];
        let head = *rest.first().ok_or_else(short)?;
        let length = usize::from(head & 0x0f);
        if !(1..=8).contains(&length) {
            return Err(invalid("a number has no valid length"));
        }
        let value = match rest[1..].first_chunk::<8>() {
            Some(eight) => u64::from_le_bytes(*eight) & (u64::MAX >> (64 - 8 * length)),
            None => {
                let bytes = rest.get(1..=length).ok_or_else(short)?;
                bytes.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte))
            }
        };
        self.at += 1 + length;
        let value = i64::try_from(value).map_err(|_| invalid("a number is too large"))?;
        Ok(if head & 0x80 == 0 { value } else { -value })
    }

    /// Mantissa and exponent of 2.
    fn float(&mut self) -> io::Result<f32> {
        let (mantissa, exponent) = (self.integer()?, self.integer()?);
        match exponent {
            // The bits of the power of 2.
            -1022..=1023 => Ok((mantissa as f64 * f64::from_bits(((exponent + 1023) as u64) << 52)) as f32),
            _ => Err(invalid("a number is not finite")),
        }
    }

    fn count(&mut self, most: usize) -> io::Result<usize> {
        let count = usize::try_from(self.integer()?).ok().filter(|count| (1..=most).contains(count));
        count.ok_or_else(|| invalid("it has an unexpected size"))
    }

    fn expect(&mut self, count: usize) -> io::Result<()> {
        if self.integer()? == count as i64 { Ok(()) } else { Err(invalid("its parts do not fit together")) }
    }

    fn index(&mut self, end: usize) -> io::Result<u16> {
        let index = u16::try_from(self.integer()?).ok().filter(|&index| usize::from(index) < end);
        index.ok_or_else(|| invalid("an index is out of range"))
    }

    /// A column of numbers. Its sizes are negative in files of today's dlib.
    fn shape(&mut self) -> io::Result<Shape> {
        let size = [self.integer()?.abs(), self.integer()?.abs()];
        if size != [2 * POINTS as i64, 1] {
            return Err(invalid("it does not have 68 landmarks"));
        }
        let mut shape = [0.0; 2 * POINTS];
        for value in &mut shape {
            *value = self.float()?;
        }
        Ok(shape)
    }

    /// The trees of a step: splits and leaves of each, from the root down.
    fn trees(&mut self) -> io::Result<Step> {
        let mut step = Step::default();
        for _ in 0..self.count(10_000)? {
            let splits = self.count(1 << 10)?;
            if !(splits + 1).is_power_of_two() || ![0, splits].contains(&step.splits_per_tree) {
                return Err(invalid("its trees are not complete"));
            }
            step.splits_per_tree = splits;
            for _ in 0..splits {
                let pixels = [self.index(1 << 16)?, self.index(1 << 16)?];
                step.splits.push(Split { pixels, threshold: self.float()? });
            }
            self.expect(splits + 1)?;
            for _ in 0..=splits {
                step.leaves.push(self.shape()?);
            }
        }
        step.leaves.shrink_to_fit();
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use image::imageops::{FilterType, resize};

    use super::*;
    use crate::dlib::Landmarker;
    use facemill_inference::Models;

    fn model_file() -> PathBuf {
        Models::find(std::env::var_os(Models::ENV).map(PathBuf::from)).ibug()
    }

    fn grey(picture: &RgbImage) -> Vec<u8> {
        let mean = |p: &[u8]| ((u16::from(p[0]) + u16::from(p[1]) + u16::from(p[2])) / 3) as u8;
        picture.as_raw().chunks_exact(3).map(mean).collect()
    }

    #[test]
    fn the_landmarks_are_those_of_dlib() {
        let model = LandmarkModel::open(&model_file()).unwrap();
        let dlib = Landmarker::open(&model_file()).unwrap();
        let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/photos");
        let (mut points, mut same) = (0, 0);
        for name in ["obama.jpg", "biden.jpg", "astronaut.png", "coffee.png"] {
            let picture = resize(&image::open(photos.join(name)).unwrap().into_rgb8(), 300, 400, FilterType::Triangle);
            let pixels = grey(&picture);
            let image = Grey { pixels: &pixels, width: 300 };
            // Also frames beyond the edges, and such that show no face.
            let frame = |left: f64, top: f64, side: f64| Frame { left, top, right: left + side, bottom: top + side };
            let frames = [(90.0, 60.0, 110.0), (-20.0, 10.0, 140.0), (200.0, 300.0, 160.0), (60.0, 100.0, 60.0)];
            let frames = frames.map(|(left, top, side)| frame(left, top, side));
            for (frame, found) in frames.iter().zip(model.find(image, &frames)) {
                let expected = dlib.on(&picture).find(frame);
                assert_eq!(found.len(), expected.len());
                points += found.len();
                same += found.iter().zip(&expected).filter(|(a, b)| a == b).count();
            }
        }
        // The last bits of a transform may move a pixel that a tree looks at.
        assert!(points == 4 * 4 * 68 && same * 100 >= points * 98, "{same} of {points}");
    }

    /// The bytes of a model of one step with one tree.
    fn file(split: [i64; 2], landmark: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |value: i64| {
            bytes.push(if value < 0 { 0x82 } else { 2 });
            bytes.extend_from_slice(&(value.unsigned_abs() as u16).to_le_bytes());
        };
        let shape = |put: &mut dyn FnMut(i64)| {
            [-136, -1].into_iter().chain((0..136).flat_map(|i| [i, -7])).for_each(put);
        };
        put(1);
        shape(&mut put);
        [1, 1, 1, split[0], split[1], 5, 0, 2].into_iter().for_each(&mut put);
        shape(&mut put);
        shape(&mut put);
        [1, 2, landmark, 3, 1, 2, 1, -4, 0, 0, 3, -1, 2, 0].into_iter().for_each(&mut put);
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        LandmarkModel::read(&mut Numbers::of(bytes)).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn a_broken_file_is_refused() {
        let whole = file([0, 1], 67);
        assert_eq!(refusal(&whole), "");
        for end in 0..whole.len() {
            assert_eq!(refusal(&whole[..end]), "it ends within a number", "{end}");
        }
        assert!(refusal(&file([0, 2], 67)).contains("a pixel that the model does not have"));
        assert!(refusal(&file([0, 1], 68)).contains("out of range"));
        let mut other = whole.clone();
        other[1] = 2;
        assert!(refusal(&other).contains("version"));
        other[1] = 1;
        other[0] = 9;
        assert!(refusal(&other).contains("length"));
        let error = LandmarkModel::open(Path::new("/nowhere/landmarks.dat")).err().unwrap().to_string();
        assert!(error.contains("/nowhere/landmarks.dat") && error.contains("make setup"), "{error}");
    }
}
