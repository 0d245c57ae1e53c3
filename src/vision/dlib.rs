//! dlib: the frontal HOG face detector with its scores, through a small C++ shim, and the 68-landmark predictor,
//! through `dlib-face-recognition`.
//!
//! The package's own face detector has neither scores nor thresholds nor grey pictures, hence the shim. Its landmark
//! predictor fits: prediction only reads the model, so that one copy of its 100 MB serves all threads. Most of its time
//! goes into fetching parts of those 100 MB from memory.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use dlib_face_recognition::{ImageMatrix, LandmarkPredictor, LandmarkPredictorTrait, Rectangle};
use image::RgbImage;

use crate::domain::Landmarks;

/// A face as the detector sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HogDetection {
    pub score: f64,
    pub frame: Frame,
}

/// A face's frame in pixels, its edges included.
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

    #[must_use]
    pub fn moved(&self, x: f64, y: f64) -> Self {
        Self { left: self.left + x, top: self.top + y, right: self.right + x, bottom: self.bottom + y }
    }
}

/// As hog.cpp has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Box {
    score: f64,
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

struct Functions {
    new: unsafe extern "C" fn(u32) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    find: unsafe extern "C" fn(*mut c_void, *const u8, i64, i64, i32, f64, *mut Box, usize) -> i64,
}

macro_rules! functions {
    ($new:ident, $free:ident, $find:ident) => {{
        unsafe extern "C" {
            fn $new(levels: u32) -> *mut c_void;
            fn $free(hog: *mut c_void);
            fn $find(
                hog: *mut c_void,
                pixels: *const u8,
                width: i64,
                height: i64,
                channels: i32,
                threshold: f64,
                boxes: *mut Box,
                room: usize,
            ) -> i64;
        }
        &Functions { new: $new, free: $free, find: $find }
    }};
}

/// The build of the shim for this processor.
fn functions() -> &'static Functions {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        return functions!(facemill_hog_avx2_new, facemill_hog_avx2_free, facemill_hog_avx2_find);
    }
    portable()
}

fn portable() -> &'static Functions {
    functions!(facemill_hog_base_new, facemill_hog_base_free, facemill_hog_base_find)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DlibError {
    #[error("{} is not dlib's 68-landmark model, or cannot be read; `make setup` fetches it", .0.display())]
    Landmarks(PathBuf),
    #[error("dlib's face detector ran out of memory")]
    Memory,
}

/// dlib's frontal face detector. It keeps the picture's pyramid between calls, so each thread needs its own.
pub struct Hog {
    /// Made by `functions.new`, not yet freed, and used by `functions` only.
    raw: NonNull<c_void>,
    functions: &'static Functions,
}

// SAFETY: the detector behind `raw` is owned by this value alone and has no tie to a thread.
unsafe impl Send for Hog {}

impl Hog {
    /// A detector that looks for faces of 80 pixels, of 96, and so on for at most `levels` steps of its pyramid.
    pub fn new(levels: Option<u32>) -> Result<Self, DlibError> {
        Self::with(functions(), levels)
    }

    fn with(functions: &'static Functions, levels: Option<u32>) -> Result<Self, DlibError> {
        // SAFETY: takes any number.
        let raw = unsafe { (functions.new)(levels.unwrap_or(0)) };
        Ok(Self { raw: NonNull::new(raw).ok_or(DlibError::Memory)?, functions })
    }

    /// Faces that score above `threshold`, best first, in a grey picture `width` pixels wide.
    pub fn find_grey(&mut self, pixels: &[u8], width: u32, threshold: f64) -> Result<Vec<HogDetection>, DlibError> {
        self.find(pixels, width as usize, 1, threshold)
    }

    /// The same in a picture in colours, as the published method does it. Four times the work.
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
        const ROOM: usize = 64;
        let row = width * channels;
        if row == 0 || pixels.is_empty() {
            return Ok(Vec::new());
        }
        assert_eq!(pixels.len() % row, 0, "rows without gaps");
        let (mut boxes, height) = ([Box::default(); ROOM], pixels.len() / row);
        // SAFETY: `raw` is alive and ours; the shim reads height x width x channels bytes, which is what there is, and
        // writes at most ROOM boxes. It lets no exception out.
        let count = unsafe {
            (self.functions.find)(
                self.raw.as_ptr(),
                pixels.as_ptr(),
                width as i64,
                height as i64,
                channels as i32,
                threshold,
                boxes.as_mut_ptr(),
                ROOM,
            )
        };
        let count = usize::try_from(count).map_err(|_| DlibError::Memory)?;
        let found = |b: &Box| HogDetection {
            score: b.score,
            frame: Frame { left: b.left as f64, top: b.top as f64, right: b.right as f64, bottom: b.bottom as f64 },
        };
        Ok(boxes[..count.min(ROOM)].iter().map(found).collect())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // SAFETY: `raw` was made by the same build's `new` and is freed once.
        unsafe { (self.functions.free)(self.raw.as_ptr()) }
    }
}

/// The 68-landmark predictor. Cheap to clone; all clones read one model.
#[derive(Clone)]
pub struct Landmarker {
    predictor: Arc<LandmarkPredictor>,
}

impl Landmarker {
    /// Reads the model: half a second for its 100 MB.
    pub fn open(path: &Path) -> Result<Self, DlibError> {
        let unusable = || DlibError::Landmarks(path.to_path_buf());
        // The package panics on a path that is not UTF-8.
        path.to_str().ok_or_else(unusable)?;
        let predictor = LandmarkPredictor::open(path).map_err(|_| unusable())?;
        let landmarker = Self { predictor: Arc::new(predictor) };
        let blank = Frame { left: 0.0, top: 0.0, right: 9.0, bottom: 9.0 };
        let points = landmarker.on(&RgbImage::new(10, 10)).find(&blank);
        if points.len() == 68 { Ok(landmarker) } else { Err(unusable()) }
    }

    /// Takes a picture up; any number of faces can then be looked at.
    pub fn on(&self, picture: &RgbImage) -> LandmarkedPicture<'_> {
        LandmarkedPicture { predictor: &self.predictor, matrix: ImageMatrix::from_image(picture) }
    }
}

pub struct LandmarkedPicture<'a> {
    predictor: &'a LandmarkPredictor,
    matrix: ImageMatrix,
}

impl LandmarkedPicture<'_> {
    /// The 68 landmarks of the face in a frame.
    pub fn find(&self, frame: &Frame) -> Landmarks {
        let rectangle = Rectangle {
            left: frame.left.round() as _,
            top: frame.top.round() as _,
            right: frame.right.round() as _,
            bottom: frame.bottom.round() as _,
        };
        let points = self.predictor.face_landmarks(&self.matrix, &rectangle);
        points.iter().map(|point| [point.x() as f32, point.y() as f32]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_picture_has_no_face() {
        let mut hog = Hog::new(None).unwrap();
        assert_eq!(hog.find_rgb(&RgbImage::new(0, 0), 0.0).unwrap(), []);
        assert_eq!(hog.find_grey(&[], 5, 0.0).unwrap(), []);
        assert_eq!(hog.find_grey(&[7; 5], 5, 0.0).unwrap(), []);
        assert_eq!(hog.find_grey(&[7; 300 * 200], 300, 0.0).unwrap(), []);
    }

    /// Noise is as good as a face to see whether both builds compute the same.
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
        let (wide, base) = (found(functions()), found(portable()));
        assert!(!base.is_empty(), "the threshold is low enough for noise");
        assert_eq!(wide.len(), base.len());
        for (a, b) in wide.iter().zip(&base) {
            assert!((a.score - b.score).abs() < 1e-4, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_missing_model_is_named() {
        let error = Landmarker::open(Path::new("/nowhere/landmarks.dat")).err().unwrap().to_string();
        assert!(error.contains("/nowhere/landmarks.dat") && error.contains("make setup"), "{error}");
    }
}
