//! dlib: the frontal HOG face detector through a C++ shim, and landmarks as its networks take them through
//! `dlib-face-recognition`.
//!
//! The face detector of that crate has no scores, no thresholds and no grey images, hence the shim. The landmarks
//! of photos are found in `landmarks.rs`, which is faster.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use dlib_face_recognition::{FaceLandmarks, ImageMatrix, LandmarkPredictor, LandmarkPredictorTrait, Rectangle};
use facemill_domain::Landmarks;
use facemill_hog::{DETECTOR, Detection, Functions};
use image::RgbImage;

/// A face found by the HOG detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HogDetection {
    pub score: f64,
    pub frame: Frame,
}

/// A rectangle in pixels. The edges are inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Frame {
    pub fn width(&self) -> f64 {
        self.right - self.left + 1.0
    }

    pub fn centre(&self) -> [f64; 2] {
        [(self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0]
    }

    /// Whole pixels, as in dlib's rectangles.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let [left, top, right, bottom] = [self.left, self.top, self.right, self.bottom].map(f64::round);
        Self { left, top, right, bottom }
    }

    #[must_use]
    pub fn moved(&self, x: f64, y: f64) -> Self {
        Self { left: self.left + x, top: self.top + y, right: self.right + x, bottom: self.bottom + y }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DlibError {
    #[error("{} is not dlib's 68-landmark model, or cannot be read; `make setup` fetches it", .0.display())]
    Landmarks(PathBuf),
    #[error("the face detector of dlib ran out of memory")]
    Memory,
}

/// dlib's frontal face detector. It keeps buffers between calls, so each thread needs its own.
pub struct Hog {
    /// Created by `functions.new`. Freed in `drop`. Used by `functions` only.
    raw: NonNull<c_void>,
    functions: &'static Functions,
}

// SAFETY: only this value owns the detector behind `raw`, and the detector is not bound to a thread.
unsafe impl Send for Hog {}

impl Hog {
    /// Creates a detector for faces of 80 pixels, 96 pixels, and so on, with at most `levels` steps of the pyramid. The
    /// first of a process reads the detector; all others are copies.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(levels: Option<u32>) -> Result<Self, DlibError> {
        Self::with(facemill_hog::fastest(), levels)
    }

    /// How often this process has read the detector.
    pub fn times_loaded() -> u64 {
        // SAFETY: it only reads an atomic number.
        unsafe { (facemill_hog::fastest().loaded)() }
    }

    fn with(functions: &'static Functions, levels: Option<u32>) -> Result<Self, DlibError> {
        // SAFETY: the shim reads the given bytes only. Any number of levels is valid.
        let raw = unsafe { (functions.new)(DETECTOR.as_ptr(), DETECTOR.len(), levels.unwrap_or(0)) };
        Ok(Self { raw: NonNull::new(raw).ok_or(DlibError::Memory)?, functions })
    }

    /// Finds faces with a score above `threshold`, best first, in a grey image of `width` pixels per row.
    ///
    /// # Errors
    /// Out of memory.
    pub fn find_grey(&mut self, pixels: &[u8], width: u32, threshold: f64) -> Result<Vec<HogDetection>, DlibError> {
        self.find(pixels, width as usize, 1, threshold)
    }

    /// Finds faces in an RGB image, as the published method does. It takes four times as long.
    ///
    /// # Errors
    /// Out of memory.
    pub fn find_rgb(&mut self, picture: &RgbImage, threshold: f64) -> Result<Vec<HogDetection>, DlibError> {
        self.find(picture, picture.width() as usize, 3, threshold)
    }

    fn find(
        &mut self,
        pixels: &[u8],
        width: usize,
        channels: usize,
        threshold: f64,
    ) -> Result<Vec<HogDetection>, DlibError> {
        const CAPACITY: usize = 64;
        let row = width * channels;
        if row == 0 || pixels.is_empty() {
            return Ok(Vec::new());
        }
        assert_eq!(pixels.len() % row, 0, "rows have no padding");
        let (mut detections, height) = ([Detection::default(); CAPACITY], pixels.len() / row);
        // SAFETY: `raw` is valid and owned. The shim reads height x width x channels bytes, which is the length of
        // `pixels`, and writes at most CAPACITY detections. No exception leaves it.
        let count = unsafe {
            (self.functions.find)(
                self.raw.as_ptr(),
                pixels.as_ptr(),
                width as i64,
                height as i64,
                channels as i32,
                threshold,
                detections.as_mut_ptr(),
                CAPACITY,
            )
        };
        let count = usize::try_from(count).map_err(|_| DlibError::Memory)?;
        let found = |d: &Detection| HogDetection {
            score: d.score,
            frame: Frame { left: d.left as f64, top: d.top as f64, right: d.right as f64, bottom: d.bottom as f64 },
        };
        Ok(detections[..count.min(CAPACITY)].iter().map(found).collect())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // SAFETY: `new` of the same build created `raw`, and it is freed once.
        unsafe { (self.functions.free)(self.raw.as_ptr()) }
    }
}

/// The 68-landmark predictor. Cheap to clone; all clones share one model.
#[derive(Clone)]
pub struct Landmarker {
    predictor: Arc<LandmarkPredictor>,
}

impl Landmarker {
    /// Reads the model of 100 MB, in about half a second.
    ///
    /// # Errors
    /// The file cannot be read, or is not a 68-landmark model.
    pub fn open(path: &Path) -> Result<Self, DlibError> {
        let unusable = || DlibError::Landmarks(path.to_path_buf());
        // The crate panics on a path that is not UTF-8.
        path.to_str().ok_or_else(unusable)?;
        let predictor = LandmarkPredictor::open(path).map_err(|_| unusable())?;
        let landmarker = Self { predictor: Arc::new(predictor) };
        let blank = Frame { left: 0.0, top: 0.0, right: 9.0, bottom: 9.0 };
        let points = landmarker.on(&RgbImage::new(10, 10)).find(&blank);
        if points.len() == 68 { Ok(landmarker) } else { Err(unusable()) }
    }

    /// Prepares an image for the landmarks of any number of faces.
    pub fn on(&self, picture: &RgbImage) -> LandmarkImage<'_> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        // SAFETY: an `RgbImage` holds width x height x 3 bytes in rows without padding. The matrix is a copy.
        let matrix = unsafe { ImageMatrix::new(width, height, picture.as_ptr()) };
        LandmarkImage { predictor: &self.predictor, matrix }
    }
}

/// An image prepared for landmark prediction.
pub struct LandmarkImage<'a> {
    predictor: &'a LandmarkPredictor,
    matrix: ImageMatrix,
}

impl LandmarkImage<'_> {
    /// The 68 landmarks of the face in `frame`.
    pub fn find(&self, frame: &Frame) -> Landmarks {
        self.predict(frame).iter().map(|point| [point.x() as f32, point.y() as f32]).collect()
    }

    /// The same as dlib's networks take them.
    pub(super) fn predict(&self, frame: &Frame) -> FaceLandmarks {
        let rectangle = Rectangle {
            left: frame.left.round() as _,
            top: frame.top.round() as _,
            right: frame.right.round() as _,
            bottom: frame.bottom.round() as _,
        };
        self.predictor.face_landmarks(&self.matrix, &rectangle)
    }

    pub(super) fn matrix(&self) -> &ImageMatrix {
        &self.matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_image_has_no_face() {
        let mut hog = Hog::new(None).unwrap();
        assert_eq!(hog.find_rgb(&RgbImage::new(0, 0), 0.0).unwrap(), []);
        assert_eq!(hog.find_grey(&[], 5, 0.0).unwrap(), []);
        assert_eq!(hog.find_grey(&[7; 5], 5, 0.0).unwrap(), []);
        assert_eq!(hog.find_grey(&[7; 300 * 200], 300, 0.0).unwrap(), []);
    }

    /// Noise is sufficient to compare the builds.
    #[test]
    fn both_builds_agree() {
        let mut state = 7u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let noise: Vec<u8> = (0..240 * 200).map(|_| byte()).collect();
        let found = |functions| {
            let mut hog = Hog::with(functions, Some(3)).unwrap();
            hog.find_grey(&noise, 240, -1.5).unwrap()
        };
        let (fast, base) = (found(facemill_hog::fastest()), found(facemill_hog::portable()));
        assert!(!base.is_empty(), "the threshold is low enough for noise");
        assert_eq!(fast.len(), base.len());
        for (a, b) in fast.iter().zip(&base) {
            assert!((a.score - b.score).abs() < 1e-4, "{a:?} {b:?}");
        }
    }

    #[test]
    fn the_error_names_a_missing_model() {
        let error = Landmarker::open(Path::new("/nowhere/landmarks.dat")).err().unwrap().to_string();
        assert!(error.contains("/nowhere/landmarks.dat") && error.contains("make setup"), "{error}");
    }
}
