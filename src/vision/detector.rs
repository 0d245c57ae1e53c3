//! Finding the one face of a photo, its turn and its landmarks.

use std::sync::{Arc, Mutex, PoisonError};

use image::RgbImage;

use super::dlib::{DlibError, Frame, Hog, HogDetection, Landmarker};
use super::geometry::{self, Grid, Square};
use super::resample::{self, BorderMode, Rect, reduce, resize, warp};
use super::yunet::{self, Detection, Yunet};
use crate::config::Models;
use crate::domain::{CauseCode, Face, FacePolicy, Landmarks, Search};
use crate::inference::{self, InferenceError, Runtime};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Dlib(#[from] DlibError),
}

/// Why there is no face to go on with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoFace {
    #[error("the photo shows no face")]
    None,
    #[error("the photo shows {0} faces")]
    Several(u32),
    #[error("the face is {width:.0} pixels wide, and less than {least} are not taken")]
    TooSmall { width: f64, least: u32 },
    /// Turned by any angle it would not fit into memory.
    #[error("the photo measures {0} pixels from corner to corner, too much for --search full: take guided")]
    TooLong(u32),
    /// Not the photo's fault.
    #[error("the face detector failed: {0}")]
    Failed(String),
}

impl NoFace {
    /// The code under which the photo is rejected; none where the photo is not to blame.
    pub fn code(&self) -> Option<CauseCode> {
        match self {
            Self::None => Some(CauseCode::NoFace),
            Self::Several(_) => Some(CauseCode::SeveralFaces),
            Self::TooSmall { .. } => Some(CauseCode::FaceTooSmall),
            Self::TooLong(_) => Some(CauseCode::TooLarge),
            Self::Failed(_) => None,
        }
    }
}

impl From<InferenceError> for NoFace {
    fn from(error: InferenceError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<DlibError> for NoFace {
    fn from(error: DlibError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<OpenError> for NoFace {
    fn from(error: OpenError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Finds faces. Cheap to clone and shared by all threads; each call borrows a set of tools for itself.
#[derive(Clone)]
pub struct Detector {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Runtime,
    yunet: Vec<u8>,
    landmarker: Landmarker,
    idle: Mutex<Vec<Tools>>,
    threads: usize,
}

/// What one thread works with.
struct Tools {
    yunet: Yunet,
    /// Looks for faces of any size.
    hog: Hog,
    /// Looks for faces of 80 to 170 pixels.
    near: Hog,
    landmarker: Landmarker,
}

impl Detector {
    /// Loads the models; `threads` sets of tools are kept between calls.
    ///
    /// # Errors
    /// A model or onnxruntime is missing or is something else.
    pub fn open(models: &Models, threads: usize) -> Result<Self, OpenError> {
        let runtime = Runtime::load(&models.onnxruntime())?;
        let shared = Shared {
            runtime,
            yunet: yunet::dynamic(&inference::read(&models.yunet())?)?,
            landmarker: Landmarker::open(&models.landmarks())?,
            idle: Mutex::default(),
            threads: threads.max(1),
        };
        let tools = shared.tools()?;
        shared.give_back(tools);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Finds the face of an upright photo. Blocks, up to seconds with [`Search::Full`].
    ///
    /// # Errors
    /// There is no face, there are several and `rule` wants one, or it is narrower than `min_face` pixels.
    pub fn find(&self, picture: &RgbImage, search: Search, min_face: u32, rule: FacePolicy) -> Result<Face, NoFace> {
        let _span = tracing::trace_span!("search", facemill.search = ?search).entered();
        let candidate = self.with_tools(|tools| match search {
            Search::Guided => tools.guided(picture, rule),
            Search::Full => tools.full(picture, rule),
        })?;
        if candidate.width < f64::from(min_face) {
            return Err(NoFace::TooSmall { width: candidate.width, least: min_face });
        }
        Ok(Face {
            width: picture.width(),
            height: picture.height(),
            angle: geometry::round(candidate.angle, 4),
            score: geometry::round(candidate.score, 4),
            landmarks: candidate
                .landmarks
                .iter()
                .map(|point| point.map(|c| geometry::round(f64::from(c), 2) as f32))
                .collect(),
            faces: candidate.faces,
            search,
        })
    }

    /// Looks at a crop again: exactly one face must be there.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn check_crop(&self, crop: &RgbImage) -> Result<(), NoFace> {
        let _span = tracing::trace_span!("check").entered();
        self.with_tools(|tools| tools.check(crop))
    }

    fn with_tools<T>(&self, work: impl FnOnce(&mut Tools) -> Result<T, NoFace>) -> Result<T, NoFace> {
        let idle = self.shared.idle().pop();
        let mut tools = match idle {
            Some(tools) => tools,
            None => self.shared.tools()?,
        };
        // After a panic the tools are dropped, not handed on.
        let answer = work(&mut tools);
        self.shared.give_back(tools);
        answer
    }
}

impl Shared {
    fn tools(&self) -> Result<Tools, OpenError> {
        Ok(Tools {
            yunet: Yunet::new(&self.runtime, &self.yunet)?,
            hog: Hog::new(None)?,
            near: Hog::new(Some(NEAR_LEVELS))?,
            landmarker: self.landmarker.clone(),
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Tools>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, tools: Tools) {
        let mut idle = self.idle();
        if idle.len() < self.threads {
            idle.push(tools);
        }
    }
}

/// A face in pixels of the photo.
struct Candidate {
    angle: f64,
    score: f64,
    /// Of dlib's frame.
    width: f64,
    landmarks: Landmarks,
    faces: u32,
}

/// Width of a face in the region that dlib looks at: between 110 and 140 pixels it finds most.
const NEAR_FACE: f64 = 115.0;
/// The region is that many faces wide.
const NEAR_REGION: f64 = 2.0;
/// Steps of dlib's pyramid, 5/6 each, that the region needs: faces of 80, 96, 115, 138 and 166 pixels.
const NEAR_LEVELS: u32 = 5;
/// A face that is still turned by more degrees is looked at again, twice at the most.
const TILTED: f64 = 8.0;
/// Width of a face where its landmarks are taken: dlib answers whole pixels, so that more of them are finer.
const LANDMARKED_FACE: f64 = 240.0;
/// Landmarks are the mean of guesses from frames that are moved by these parts of the face's width: each errs in its
/// own way, and the worst one per cent of angles is off by half as much.
const STARTS: [f64; 3] = [0.0, 0.04, -0.04];

impl Tools {
    /// One look with YuNet, then dlib on an upright region around the face.
    fn guided(&mut self, picture: &RgbImage, rule: FacePolicy) -> Result<Candidate, NoFace> {
        let pyramid = ImagePyramid::of(picture, 320);
        let mut detections = self.detect_coarse(&pyramid, 320)?;
        if detections.is_empty() {
            detections = self.detect_coarse(&pyramid, 480)?;
        }
        detections.sort_by(|a, b| b.width().total_cmp(&a.width()));
        let largest = detections.first().ok_or(NoFace::None)?;
        let faces = self.count(&pyramid, &detections)?;
        if faces > 1 && rule == FacePolicy::One {
            return Err(NoFace::Several(faces));
        }
        let region = self.straighten(&pyramid, largest)?;
        let (found, mut region) = self.detect_near_or_wider(&pyramid, &region)?.ok_or(NoFace::None)?;
        let mut candidate = self.landmarked(&pyramid, &found, &region);
        for _ in 0..2 {
            if geometry::wrap(candidate.angle - region.angle).abs() <= TILTED {
                break;
            }
            region.angle = candidate.angle;
            let Some(found) = self.detect_near(&pyramid, &region, 0.0)? else { break };
            candidate = self.landmarked(&pyramid, &found, &region);
        }
        Ok(Candidate { faces, ..candidate })
    }

    /// YuNet on the photo with its longer side at `side` pixels.
    fn detect_coarse(&mut self, pyramid: &ImagePyramid<'_>, side: u32) -> Result<Vec<Detection>, NoFace> {
        const LEAST: f32 = 0.6;
        let picture = pyramid.picture;
        let scale = f64::from(side) / f64::from(picture.width().max(picture.height()));
        let size = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
        let small = pyramid.resized(size(picture.width()), size(picture.height()));
        let detections = self.yunet.find(&small, LEAST)?;
        Ok(detections.iter().map(|detection| detection.scaled(1.0 / scale)).collect())
    }

    /// How many faces there are, the largest detection first. People in the background, much smaller than the one in
    /// front, do not count; where YuNet is not sure dlib must see a face, too.
    fn count(&mut self, pyramid: &ImagePyramid<'_>, detections: &[Detection]) -> Result<u32, NoFace> {
        const COUNTS: f64 = 0.4;
        const SURE: f32 = 0.88;
        const ENOUGH: u32 = 20;
        let mut faces = 1;
        for other in detections.iter().skip(1).filter(|other| other.width() >= COUNTS * detections[0].width()) {
            let seen = other.score >= SURE || self.detect_near(pyramid, &region(other), 0.0)?.is_some();
            faces += u32::from(seen);
            if faces == ENOUGH {
                break;
            }
        }
        Ok(faces)
    }

    /// The region around a detected face in which it is upright. YuNet's own roll is short by half at 45 degrees, so
    /// that it looks again at the turned region until little is left; that costs a tenth of a look with dlib.
    fn straighten(&mut self, pyramid: &ImagePyramid<'_>, detection: &Detection) -> Result<Square, NoFace> {
        const SIZE: u32 = 128;
        const LEVEL: f64 = 6.0;
        let mut upright = region(detection);
        for _ in 0..3 {
            let turned = pyramid.region(&upright, SIZE);
            let seen = self.yunet.find(&turned, 0.5)?;
            let middle = f64::from(SIZE) / 2.0 - 0.5;
            let off = |s: &Detection| (s.centre[0] - middle).hypot(s.centre[1] - middle);
            let Some(face) = seen.iter().min_by(|a, b| off(a).total_cmp(&off(b))) else { break };
            let scale = upright.side / f64::from(SIZE);
            let (centre, rest) = (upright.to_picture(face.centre, SIZE), face.roll());
            upright = Square { centre, side: NEAR_REGION * face.width() * scale, angle: upright.angle + rest };
            if rest.abs() <= LEVEL {
                break;
            }
        }
        Ok(upright)
    }

    /// dlib on a region; where it finds nothing, nearer, farther, and at last with a lower threshold, as YuNet has seen
    /// a face there.
    fn detect_near_or_wider(
        &mut self,
        pyramid: &ImagePyramid<'_>,
        upright: &Square,
    ) -> Result<Option<(HogDetection, Square)>, NoFace> {
        for (zoom, threshold) in [(1.0, 0.0), (0.8, 0.0), (1.25, 0.0), (1.0, -0.5)] {
            let region = Square { side: upright.side * zoom, ..*upright };
            if let Some(found) = self.detect_near(pyramid, &region, threshold)? {
                return Ok(Some((found, region)));
            }
        }
        Ok(None)
    }

    /// The best face that dlib finds in the region, in pixels of [`near_size`].
    fn detect_near(
        &mut self,
        pyramid: &ImagePyramid<'_>,
        region: &Square,
        threshold: f64,
    ) -> Result<Option<HogDetection>, NoFace> {
        let size = near_size();
        let near = pyramid.region(region, size);
        Ok(self.near.find_grey(&grey(&near), size, threshold)?.first().copied())
    }

    /// Takes the landmarks of a face that was found in a region.
    fn landmarked(&self, pyramid: &ImagePyramid<'_>, found: &HogDetection, region: &Square) -> Candidate {
        const ROOM: f64 = 1.6;
        let _span = tracing::trace_span!("landmarks").entered();
        let scale = region.side / f64::from(near_size());
        let centre = region.to_picture(found.frame.centre(), near_size());
        let width = found.frame.width() * scale;
        let around = Square { centre, side: ROOM * width, angle: region.angle };
        let size = (ROOM * LANDMARKED_FACE) as u32;
        let (margin, end) = ((ROOM - 1.0) / 2.0 * LANDMARKED_FACE, f64::from(size));
        let frame = Frame { left: margin, top: margin, right: end - margin - 1.0, bottom: end - margin - 1.0 };
        let picture = self.landmarker.on(&pyramid.region(&around, size));
        let guesses = STARTS.map(|start| picture.find(&frame.moved(start * LANDMARKED_FACE, 0.0)));
        let mean = |i: usize, axis: usize| guesses.iter().map(|g| g[i][axis]).sum::<f32>() / guesses.len() as f32;
        let points: Landmarks = (0..guesses[0].len()).map(|i| [mean(i, 0), mean(i, 1)]).collect();
        let landmarks = in_picture(&points, &around, size);
        Candidate { angle: geometry::eye_angle(&landmarks), score: found.score, width, landmarks, faces: 1 }
    }

    /// The published method: the photo on a black square, turned by -48 to 48 degrees in steps of 12; of the turns that
    /// show exactly one face the best score wins; its eye line is levelled, and there must be exactly one face again.
    fn full(&mut self, picture: &RgbImage, rule: FacePolicy) -> Result<Candidate, NoFace> {
        /// Pixels from corner to corner; the canvas takes three bytes for each pixel of its square.
        const LONGEST: f64 = 12_000.0;
        let diagonal = f64::from(picture.width()).hypot(f64::from(picture.height()));
        if diagonal > LONGEST {
            return Err(NoFace::TooLong(diagonal as u32));
        }
        let mut best: Option<(f64, Square, RgbImage, HogDetection)> = None;
        let mut most = 0;
        for step in -4..=4 {
            let (canvas, turned) = on_canvas(picture, 12.0 * f64::from(step));
            let found = self.hog.find_rgb(&turned, 0.0)?;
            most = most.max(found.len());
            if let Some(face) = the_one(&found, rule)
                && best.as_ref().is_none_or(|(score, ..)| face.score > *score)
            {
                best = Some((face.score, canvas, turned, face));
            }
        }
        let lost = |faces: usize| if faces > 1 { NoFace::Several(faces as u32) } else { NoFace::None };
        let (_, canvas, turned, face) = best.ok_or_else(|| lost(most))?;
        let tilted = self.landmarked_as_it_is(&turned, &face, &canvas);
        let (canvas, levelled) = on_canvas(picture, tilted.angle);
        let found = self.hog.find_rgb(&levelled, 0.0)?;
        let face = the_one(&found, rule).ok_or_else(|| lost(found.len()))?;
        let candidate = self.landmarked_as_it_is(&levelled, &face, &canvas);
        Ok(Candidate { faces: found.len() as u32, ..candidate })
    }

    fn landmarked_as_it_is(&self, turned: &RgbImage, found: &HogDetection, canvas: &Square) -> Candidate {
        let _span = tracing::trace_span!("landmarks").entered();
        let points = self.landmarker.on(turned).find(&found.frame);
        let landmarks = in_picture(&points, canvas, turned.width());
        let (angle, width) = (geometry::eye_angle(&landmarks), found.frame.width());
        Candidate { angle, score: found.score, width, landmarks, faces: 1 }
    }

    fn check(&mut self, crop: &RgbImage) -> Result<(), NoFace> {
        const SIZE: u32 = 160;
        match self.near.find_grey(&grey(&resize(crop, SIZE, SIZE)), SIZE, 0.0)?.len() {
            0 => Err(NoFace::None),
            1 => Ok(()),
            several => Err(NoFace::Several(several as u32)),
        }
    }
}

/// The face that counts among those of one turn.
fn the_one(found: &[HogDetection], rule: FacePolicy) -> Option<HogDetection> {
    match (found, rule) {
        ([face], _) => Some(*face),
        (faces, FacePolicy::Largest) => {
            faces.iter().max_by(|a, b| a.frame.width().total_cmp(&b.frame.width())).copied()
        }
        _ => None,
    }
}

/// The region around a detected face, turned as far as YuNet tells.
fn region(face: &Detection) -> Square {
    Square { centre: face.centre, side: NEAR_REGION * face.width(), angle: face.roll() }
}

fn near_size() -> u32 {
    (NEAR_FACE * NEAR_REGION).round() as u32
}

/// Points of a square that was cut out at `size` pixels, as points of the picture.
fn in_picture(points: &[[f32; 2]], square: &Square, size: u32) -> Landmarks {
    points.iter().map(|point| square.to_picture(point.map(f64::from), size).map(|c| c as f32)).collect()
}

/// The photo turned by `angle` in the middle of a black square of side ceil(hypot(width, height)), and that square.
fn on_canvas(picture: &RgbImage, angle: f64) -> (Square, RgbImage) {
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let side = width.hypot(height).ceil();
    let canvas = Square { centre: [width / 2.0 - 0.5, height / 2.0 - 0.5], side, angle };
    let size = side as u32;
    (canvas, warp(picture, &canvas.grid(size), size, size, BorderMode::Black))
}

/// Means of the three channels, as dlib's landmark predictor sees colours.
fn grey(picture: &RgbImage) -> Vec<u8> {
    picture
        .as_raw()
        .chunks_exact(3)
        .map(|p| ((u16::from(p[0]) + u16::from(p[1]) + u16::from(p[2])) / 3) as u8)
        .collect()
}

/// A photo and a smaller copy of it, for whoever needs no more pixels than that.
struct ImagePyramid<'a> {
    picture: &'a RgbImage,
    reduced: RgbImage,
    factor: u32,
}

impl<'a> ImagePyramid<'a> {
    /// The copy's longer side has at least `side` pixels, and less than twice as many, unless the picture is very long.
    fn of(picture: &'a RgbImage, side: u32) -> Self {
        let window = Rect::of(picture);
        let factor = window.reducible(picture.width().max(picture.height()) / side);
        Self { picture, reduced: reduce(picture, window, factor), factor }
    }

    /// The whole photo at another size.
    fn resized(&self, width: u32, height: u32) -> RgbImage {
        let nearer;
        let source = if width.max(height) <= self.reduced.width().max(self.reduced.height()) {
            (&self.reduced, f64::from(self.factor))
        } else {
            let longer = self.picture.width().max(self.picture.height());
            let factor = Rect::of(self.picture).reducible(longer / width.max(height));
            nearer = reduce(self.picture, Rect::of(self.picture), factor);
            (&nearer, f64::from(factor))
        };
        let step = |length: u32, size: u32| f64::from(length) / f64::from(size);
        let (right, down) = (step(self.picture.width(), width), step(self.picture.height(), height));
        let grid = Grid { origin: [right / 2.0 - 0.5, down / 2.0 - 0.5], right: [right, 0.0], down: [0.0, down] };
        warp(source.0, &shrunk(&grid, [0.0; 2], source.1), width, height, BorderMode::Edge)
    }

    /// A turned region at `size` x `size` pixels; beyond the photo its edge goes on.
    fn region(&self, region: &Square, size: u32) -> RgbImage {
        let grid = region.grid(size);
        let wanted = (region.side / f64::from(size)).floor().max(1.0) as u32;
        if wanted == 1 {
            return warp(self.picture, &grid, size, size, BorderMode::Edge);
        }
        if wanted >= self.factor {
            return warp(&self.reduced, &shrunk(&grid, [0.0; 2], f64::from(self.factor)), size, size, BorderMode::Edge);
        }
        let window = bounds(region, self.picture);
        let part = reduce(self.picture, window, wanted);
        let corner = [f64::from(window.x), f64::from(window.y)];
        warp(&part, &shrunk(&grid, corner, f64::from(wanted)), size, size, BorderMode::Edge)
    }
}

/// A grid in pixels of a part of the picture that begins at `corner` and was reduced by `factor`.
fn shrunk(grid: &Grid, corner: [f64; 2], factor: f64) -> Grid {
    let scale = |vector: [f64; 2]| vector.map(|c| c / factor);
    let place = |i: usize| (grid.origin[i] - corner[i] + 0.5) / factor - 0.5;
    Grid { origin: [place(0), place(1)], right: scale(grid.right), down: scale(grid.down) }
}

/// The part of the picture that a turned square touches, at least one pixel of it.
fn bounds(square: &Square, picture: &RgbImage) -> resample::Rect {
    let reach = square.side / 2.0 * (square.angle.to_radians().sin().abs() + square.angle.to_radians().cos().abs());
    let axis = |centre: f64, length: u32| {
        let last = f64::from(length - 1);
        let low = (centre - reach).floor().clamp(0.0, last);
        let high = (centre + reach).ceil().clamp(low, last);
        (low as u32, (high - low) as u32 + 1)
    };
    let (x, width) = axis(square.centre[0], picture.width());
    let (y, height) = axis(square.centre[1], picture.height());
    Rect { x, y, width, height }
}
