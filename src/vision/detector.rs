//! Finds the face of a photo, its angle and its landmarks.

use std::sync::{Arc, Mutex, PoisonError};

use image::RgbImage;

use super::dlib::{DlibError, Frame, Hog, HogDetection};
use super::geometry::{self, Grid, Square};
use super::landmarks::{Grey, LandmarkError, LandmarkModel};
use super::mesh::Mesh;
use super::resample::{BorderMode, Rect, reduce, resize, warp};
use super::yunet::{self, Detection, Yunet};
use facemill_domain::{CauseCode, Face, FacePolicy, LandmarkScheme, Landmarks, Search};
use facemill_inference::{InferenceError, Models, Runtime};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Dlib(#[from] DlibError),
    #[error(transparent)]
    Landmarks(#[from] LandmarkError),
}

/// Why no face is returned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoFace {
    /// With the width in pixels of the smallest face that was searched for, where that is more than the minimum.
    #[error("the photo shows no face{}", unsearched(*.0))]
    None(Option<u32>),
    #[error("the photo shows {0} faces")]
    Several(u32),
    #[error("the face is {width:.0} pixels wide; the minimum is {min}")]
    TooSmall { width: f64, min: u32 },
    /// The rotated canvas would not fit into memory.
    #[error("the diagonal of the photo has {0} pixels, too many for --search full; use --search guided")]
    TooLong(u32),
    /// An error of the detector, not of the photo.
    #[error("the face detector failed: {0}")]
    Failed(String),
}

fn unsearched(smallest: Option<u32>) -> String {
    smallest.map_or_else(String::new, |width| {
        format!(" of {width} pixels or more; it is too large to be searched for smaller ones")
    })
}

impl NoFace {
    /// The code of the rejection. `None` for an error of the detector.
    pub fn code(&self) -> Option<CauseCode> {
        match self {
            Self::None(_) => Some(CauseCode::NoFace),
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

/// Finds faces. Cheap to clone, and shared by all threads. Each call borrows one set of tools.
#[derive(Clone)]
pub struct Detector {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Runtime,
    models: Models,
    yunet: Vec<u8>,
    /// Read for the first photo that needs it.
    ibug: Mutex<Option<Arc<LandmarkModel>>>,
    mesh: Mutex<Option<Arc<[u8]>>>,
    idle: Mutex<Vec<Tools>>,
    threads: usize,
}

/// The detectors that one call uses.
struct Tools {
    yunet: Yunet,
    /// Finds faces of any size. Only the full search needs it.
    hog: Option<Hog>,
    /// Finds faces of 80 to 115 pixels, for [`CLOSE_LOOK`].
    close_hog: Hog,
    /// Finds faces of 80 to 170 pixels, for [`WIDE_LOOK`].
    wide_hog: Hog,
    /// None: no photo has needed landmarks yet.
    predictor: Option<Predictor>,
}

/// The model of a landmark scheme.
enum Predictor {
    Ibug(Arc<LandmarkModel>),
    Permissive(Mesh),
}

impl Predictor {
    fn scheme(&self) -> LandmarkScheme {
        match self {
            Self::Ibug(_) => LandmarkScheme::Ibug,
            Self::Permissive(_) => LandmarkScheme::Permissive,
        }
    }
}

impl Detector {
    /// Loads the models, of the landmarks that of `scheme`: the other one is loaded for the first photo that needs it. Up
    /// to `threads` sets of tools are kept between calls.
    ///
    /// # Errors
    /// A model or onnxruntime is missing or invalid.
    pub fn open(models: &Models, threads: usize, scheme: LandmarkScheme) -> Result<Self, OpenError> {
        let runtime = Runtime::load(&models.onnxruntime())?;
        let shared = Shared {
            runtime,
            models: models.clone(),
            yunet: yunet::dynamic(&facemill_inference::read(&models.yunet())?)?,
            ibug: Mutex::default(),
            mesh: Mutex::default(),
            idle: Mutex::default(),
            threads: threads.max(1),
        };
        let tools = shared.tools(Some(scheme))?;
        shared.give_back(tools);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Finds the face of a photo. Blocks for milliseconds, or for seconds with [`Search::Full`].
    ///
    /// # Errors
    /// The photo shows no face, or several although `policy` is [`FacePolicy::One`], or the face is narrower than
    /// `min_face` pixels, or the detector fails.
    pub fn find(
        &self,
        picture: &RgbImage,
        search: Search,
        scheme: LandmarkScheme,
        min_face: u32,
        policy: FacePolicy,
    ) -> Result<Face, NoFace> {
        let _span = tracing::trace_span!("search", facemill.search = ?search).entered();
        let candidate = self.with_tools(Some(scheme), |tools| match search {
            Search::Guided => tools.guided(picture, min_face, policy),
            Search::Full => tools.full(picture, policy),
        })?;
        if candidate.width < f64::from(min_face) {
            return Err(NoFace::TooSmall { width: candidate.width, min: min_face });
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
            landmark_scheme: scheme,
            faces: candidate.faces,
            search,
        })
    }

    /// Checks that a crop shows exactly one face.
    ///
    /// # Errors
    /// The crop shows no face or several, or the detector fails.
    pub fn check_crop(&self, crop: &RgbImage) -> Result<(), NoFace> {
        let _span = tracing::trace_span!("check").entered();
        self.with_tools(None, |tools| tools.check(crop))
    }

    /// `scheme` is that of the landmarks; none if there will be none.
    fn with_tools<T>(
        &self,
        scheme: Option<LandmarkScheme>,
        work: impl FnOnce(&mut Tools) -> Result<T, NoFace>,
    ) -> Result<T, NoFace> {
        let idle = self.shared.idle().pop();
        let mut tools = match idle {
            Some(tools) => tools,
            None => self.shared.tools(scheme)?,
        };
        if let Some(scheme) = scheme
            && tools.predictor.as_ref().is_none_or(|predictor| predictor.scheme() != scheme)
        {
            tools.predictor = Some(self.shared.predictor(scheme)?);
        }
        // After a panic the tools are dropped, not reused.
        let result = work(&mut tools);
        self.shared.give_back(tools);
        result
    }
}

impl Shared {
    fn tools(&self, scheme: Option<LandmarkScheme>) -> Result<Tools, OpenError> {
        Ok(Tools {
            yunet: Yunet::new(&self.runtime, &self.yunet)?,
            hog: None,
            close_hog: Hog::new(Some(CLOSE_LOOK.levels))?,
            wide_hog: Hog::new(Some(WIDE_LOOK.levels))?,
            predictor: scheme.map(|scheme| self.predictor(scheme)).transpose()?,
        })
    }

    fn predictor(&self, scheme: LandmarkScheme) -> Result<Predictor, OpenError> {
        match scheme {
            LandmarkScheme::Ibug => {
                let open = || LandmarkModel::open(&self.models.ibug()).map(Arc::new);
                Ok(Predictor::Ibug(loaded(&self.ibug, open)?))
            }
            LandmarkScheme::Permissive => {
                let read = || facemill_inference::read(&self.models.mesh()).map(Arc::from);
                let model = loaded(&self.mesh, read)?;
                Ok(Predictor::Permissive(Mesh::new(&self.runtime, &model)?))
            }
        }
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

/// What is loaded once and then kept.
fn loaded<T: Clone, E>(kept: &Mutex<Option<T>>, load: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    match &*kept {
        Some(kept) => Ok(kept.clone()),
        None => load().map(|value| kept.insert(value).clone()),
    }
}

/// A face in pixels of the photo.
struct Candidate {
    angle: f64,
    score: f64,
    /// Width of dlib's frame in pixels.
    width: f64,
    landmarks: Landmarks,
    faces: u32,
}

/// The longer side of the photo in pixels at which YuNet sees the whole of it, one after the other.
const COARSE_SIDES: [u32; 2] = [320, 480];
/// The least score of YuNet.
const MIN_SCORE: f32 = 0.6;
/// Width of the smallest face in pixels that YuNet finds reliably.
const YUNET_FACE: f64 = 14.0;
/// Side of a tile in pixels, and how much of it the next tile shares: more than the largest faces that are not found in
/// the whole photo.
const TILE_SIDE: u32 = 512;
const TILE_OVERLAP: u32 = 96;
/// Bounds the time and the memory of a search in tiles.
const MAX_TILES: usize = 48;
/// Side of the region that dlib searches in widths of the face, as YuNet sees it.
const REGION_SCALE: f64 = 2.0;
/// Width of the smallest face in pixels that is searched for: the least value of the setting.
const MIN_DLIB_FACE: u32 = 20;
/// Bytes that the full search takes for each pixel of its canvas.
const FULL_MEMORY: u64 = 25;
/// dlib looks at the whole region for faces of 0.69 to 1.44 of the expected width.
const WIDE_LOOK: Look = Look { face: 115, levels: 5, part: 1.0 };
/// dlib looks at the middle of the region for faces of 0.83 to 1.2 of the expected width. That finds most faces, in less
/// than half of the time.
const CLOSE_LOOK: Look = Look { face: 96, levels: 3, part: 0.8 };
/// A face with a larger remaining angle, in degrees, is detected again, at most twice.
const MAX_TILT: f64 = 8.0;
/// Width of the face for the landmarks. dlib returns whole pixels, so a larger face is more precise.
const LANDMARKED_FACE: f64 = 240.0;
/// The landmarks are the mean of predictions from frames moved by these fractions of the width of the face. This halves
/// the 99th percentile of the error of the angle.
const FRAME_SHIFTS: [f64; 3] = [0.0, 0.04, -0.04];

/// How dlib looks at a region.
struct Look {
    /// Expected width of the face in pixels.
    face: u32,
    /// Steps of dlib's pyramid: the first for faces of 80 pixels, each other for those 6/5 as large as the one before.
    levels: u32,
    /// Side of the part of the region that is seen, in sides of the region.
    part: f64,
}

impl Look {
    /// Side of the part that is seen, in pixels.
    fn size(&self) -> u32 {
        (REGION_SCALE * self.part * f64::from(self.face)).round() as u32
    }

    /// The best face that dlib finds in a region.
    fn detect(
        &self,
        hog: &mut Hog,
        pyramid: &ImagePyramid<'_>,
        region: &Square,
        threshold: f64,
    ) -> Result<Option<Confirmed>, NoFace> {
        let (seen, size) = (Square { side: self.part * region.side, ..*region }, self.size());
        let pixels = grey(&pyramid.region(&seen, size));
        Ok(hog.find_grey(&pixels, size, threshold)?.first().map(|found| {
            let side = found.frame.width() * seen.side / f64::from(size);
            let frame = Square { centre: seen.to_picture(found.frame.centre(), size), side, ..seen };
            Confirmed { score: found.score, frame }
        }))
    }
}

/// A face that dlib has found in a region.
struct Confirmed {
    score: f64,
    /// In the photo, rotated as the region.
    frame: Square,
}

impl Tools {
    /// YuNet over the photo, then dlib on an upright region around the face. Where nothing is confirmed, YuNet sees the
    /// photo at larger sizes, up to the one at which the smallest face that counts is large enough for it.
    fn guided(&mut self, picture: &RgbImage, min_face: u32, policy: FacePolicy) -> Result<Candidate, NoFace> {
        let pyramid = ImagePyramid::of(picture, COARSE_SIDES[0]);
        for side in COARSE_SIDES {
            let detections = self.detect_coarse(&pyramid, side)?;
            if let Some(candidate) = self.confirmed(&pyramid, detections, policy)? {
                return Ok(candidate);
            }
        }
        let Some(tiles) = Tiles::of(picture, min_face) else { return Err(NoFace::None(None)) };
        let detections = self.detect_in_tiles(&pyramid, &tiles)?;
        let smallest = (tiles.smallest > f64::from(min_face)).then(|| tiles.smallest.ceil() as u32);
        self.confirmed(&pyramid, detections, policy)?.ok_or(NoFace::None(smallest))
    }

    /// The largest detection that dlib confirms. None: there is none.
    fn confirmed(
        &mut self,
        pyramid: &ImagePyramid<'_>,
        mut detections: Vec<Detection>,
        policy: FacePolicy,
    ) -> Result<Option<Candidate>, NoFace> {
        /// Bounds the time for a crowd of faces that dlib does not see.
        const MAX_TRIES: usize = 6;
        detections.sort_by(|a, b| b.width().total_cmp(&a.width()));
        for (at, detection) in detections.iter().enumerate().take(MAX_TRIES) {
            let region = self.straighten(pyramid, detection)?;
            let Some((found, region)) = self.detect_near_or_wider(pyramid, &region)? else { continue };
            let faces = self.count(pyramid, &detections, at, found.score)?;
            if faces > 1 && policy == FacePolicy::One {
                return Err(NoFace::Several(faces));
            }
            return Ok(Some(Candidate { faces, ..self.levelled(pyramid, &found, region)? }));
        }
        Ok(None)
    }

    /// The landmarks of a face that was found in a region, which is rotated until the eyes are level.
    fn levelled(
        &mut self,
        pyramid: &ImagePyramid<'_>,
        found: &Confirmed,
        mut region: Square,
    ) -> Result<Candidate, NoFace> {
        let mut candidate = self.with_landmarks(pyramid, found)?;
        for _ in 0..2 {
            if geometry::wrap(candidate.angle - region.angle).abs() <= MAX_TILT {
                break;
            }
            region.angle = candidate.angle;
            let Some(found) = self.detect_near(pyramid, &region)? else { break };
            candidate = self.with_landmarks(pyramid, &found)?;
        }
        Ok(candidate)
    }

    /// Runs YuNet on overlapping parts of the photo.
    fn detect_in_tiles(&mut self, pyramid: &ImagePyramid<'_>, tiles: &Tiles) -> Result<Vec<Detection>, NoFace> {
        let mut detections = Vec::new();
        for tile in &tiles.squares {
            let scale = tile.side / f64::from(TILE_SIDE);
            let corner = tile.centre.map(|centre| centre + 0.5 - tile.side / 2.0);
            let found = self.yunet.find(&pyramid.region(tile, TILE_SIDE), MIN_SCORE)?;
            detections.extend(found.iter().map(|detection| detection.scaled(scale).moved(corner)));
        }
        Ok(yunet::distinct(detections))
    }

    /// Runs YuNet on the photo, scaled so that the longer side has `side` pixels.
    fn detect_coarse(&mut self, pyramid: &ImagePyramid<'_>, side: u32) -> Result<Vec<Detection>, NoFace> {
        let picture = pyramid.picture;
        let scale = f64::from(side) / f64::from(picture.width().max(picture.height()));
        let size = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
        let small = pyramid.resized(size(picture.width()), size(picture.height()));
        let detections = self.yunet.find(&small, MIN_SCORE)?;
        Ok(detections.iter().map(|detection| detection.scaled(1.0 / scale)).collect())
    }

    /// Counts the faces beside the one that was confirmed, which is at `confirmed`; larger ones precede it. Much smaller
    /// faces are people in the background and do not count. Where YuNet is not certain of a whole face, dlib must
    /// confirm it. A larger face that dlib has not confirmed counts if YuNet is certain of it, such as a profile.
    ///
    /// `score` is dlib's for the confirmed face. Where it is weak, that may be a drawing or a poster: then a smaller face
    /// counts, too, if its score is much better.
    fn count(
        &mut self,
        pyramid: &ImagePyramid<'_>,
        detections: &[Detection],
        confirmed: usize,
        score: f64,
    ) -> Result<u32, NoFace> {
        const MIN_WIDTH_RATIO: f64 = 0.4;
        const MIN_RATIO_TO_WEAK: f64 = 0.15;
        const WEAK: f64 = 1.0;
        const CERTAIN: f32 = 0.88;
        const MAX_FACES: u32 = 20;
        let is_certain = |face: &Detection| face.score >= CERTAIN && face.is_within(pyramid.picture);
        let mut faces = 1 + detections[..confirmed].iter().filter(|face| is_certain(face)).count() as u32;
        for other in &detections[confirmed + 1..] {
            let ratio = other.width() / detections[confirmed].width();
            if faces >= MAX_FACES || ratio < if score < WEAK { MIN_RATIO_TO_WEAK } else { MIN_WIDTH_RATIO } {
                break;
            }
            let is_large = ratio >= MIN_WIDTH_RATIO;
            let threshold = if is_large { 0.0 } else { score.max(0.0) + WEAK };
            let counts = (is_large && is_certain(other))
                || WIDE_LOOK.detect(&mut self.wide_hog, pyramid, &region(other), threshold)?.is_some();
            faces += u32::from(counts);
        }
        Ok(faces)
    }

    /// The region around a detected face, rotated so that the face is upright. YuNet's roll is too small by half at 45
    /// degrees, so YuNet runs again on the rotated region until the rest is small. A pass takes a tenth of dlib's time.
    fn straighten(&mut self, pyramid: &ImagePyramid<'_>, detection: &Detection) -> Result<Square, NoFace> {
        const SIZE: u32 = 128;
        const MAX_ROLL: f64 = 6.0;
        let mut square = region(detection);
        for _ in 0..3 {
            let rotated = pyramid.region(&square, SIZE);
            let detections = self.yunet.find(&rotated, 0.5)?;
            let middle = f64::from(SIZE) / 2.0 - 0.5;
            let distance = |s: &Detection| (s.centre[0] - middle).hypot(s.centre[1] - middle);
            let Some(face) = detections.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))) else { break };
            let scale = square.side / f64::from(SIZE);
            let (centre, rest) = (square.to_picture(face.centre, SIZE), face.roll());
            square = Square { centre, side: REGION_SCALE * face.width() * scale, angle: square.angle + rest };
            if rest.abs() <= MAX_ROLL {
                break;
            }
        }
        Ok(square)
    }

    /// Runs dlib on a region. Where it finds no face, it tries a smaller and a larger region, and then a lower
    /// threshold, because YuNet has found a face there. Returns the region that was used.
    fn detect_near_or_wider(
        &mut self,
        pyramid: &ImagePyramid<'_>,
        square: &Square,
    ) -> Result<Option<(Confirmed, Square)>, NoFace> {
        if let Some(found) = self.detect_near(pyramid, square)? {
            return Ok(Some((found, *square)));
        }
        for (zoom, threshold) in [(0.8, 0.0), (1.25, 0.0), (1.0, -0.5)] {
            let region = Square { side: square.side * zoom, ..*square };
            if let Some(found) = WIDE_LOOK.detect(&mut self.wide_hog, pyramid, &region, threshold)? {
                return Ok(Some((found, region)));
            }
        }
        Ok(None)
    }

    /// The best face that dlib finds in a region: in the close look, or else in the wide one.
    fn detect_near(&mut self, pyramid: &ImagePyramid<'_>, region: &Square) -> Result<Option<Confirmed>, NoFace> {
        match CLOSE_LOOK.detect(&mut self.close_hog, pyramid, region, 0.0)? {
            Some(found) => Ok(Some(found)),
            None => WIDE_LOOK.detect(&mut self.wide_hog, pyramid, region, 0.0),
        }
    }

    /// Predicts the landmarks of a face that was found in a region.
    fn with_landmarks(&mut self, pyramid: &ImagePyramid<'_>, found: &Confirmed) -> Result<Candidate, NoFace> {
        let _span = tracing::trace_span!("landmarks").entered();
        let frame = found.frame;
        let landmarks = match &mut self.predictor {
            Some(Predictor::Ibug(model)) => ibug_landmarks(model, pyramid, &frame),
            Some(Predictor::Permissive(mesh)) => mesh.landmarks(&frame, |square, size| pyramid.region(square, size))?,
            None => return Err(NoFace::Failed("no landmark model is loaded".into())),
        };
        let angle = geometry::eye_angle(&landmarks);
        Ok(Candidate { angle, score: found.score, width: frame.side, landmarks, faces: 1 })
    }

    /// The published method. The photo is rotated on a black square by -48 to 48 degrees in steps of 12. Of the angles
    /// with exactly one face, the one with the best score is used. The photo is then rotated by the angle of the eye
    /// line and must again show exactly one face.
    fn full(&mut self, picture: &RgbImage, policy: FacePolicy) -> Result<Candidate, NoFace> {
        /// Maximum diagonal in pixels. The canvas takes three bytes per pixel of a square with this side.
        const MAX_DIAGONAL: f64 = 12_000.0;
        let diagonal = f64::from(picture.width()).hypot(f64::from(picture.height()));
        if diagonal > MAX_DIAGONAL {
            return Err(NoFace::TooLong(diagonal as u32));
        }
        let mut best: Option<(f64, Square, RgbImage, HogDetection)> = None;
        let mut most_faces = 0;
        for step in -4..=4 {
            let (canvas, rotated) = on_canvas(picture, 12.0 * f64::from(step));
            let found = self.full_hog()?.find_rgb(&rotated, 0.0)?;
            most_faces = most_faces.max(found.len());
            if let Some(face) = chosen_face(&found, policy)
                && best.as_ref().is_none_or(|(score, ..)| face.score > *score)
            {
                best = Some((face.score, canvas, rotated, face));
            }
        }
        let rejection = |faces: usize| if faces > 1 { NoFace::Several(faces as u32) } else { NoFace::None(None) };
        let (_, canvas, rotated, face) = best.ok_or_else(|| rejection(most_faces))?;
        let tilted = self.with_landmarks_on_canvas(picture, &rotated, &face, &canvas)?;
        let (canvas, levelled) = on_canvas(picture, tilted.angle);
        let found = self.full_hog()?.find_rgb(&levelled, 0.0)?;
        let face = chosen_face(&found, policy).ok_or_else(|| rejection(found.len()))?;
        let candidate = self.with_landmarks_on_canvas(picture, &levelled, &face, &canvas)?;
        Ok(Candidate { faces: found.len() as u32, ..candidate })
    }

    fn full_hog(&mut self) -> Result<&mut Hog, DlibError> {
        let hog = self.hog.take().map_or_else(|| Hog::new(None), Ok)?;
        Ok(self.hog.insert(hog))
    }

    /// Predicts the landmarks of a face that was found on the canvas.
    fn with_landmarks_on_canvas(
        &mut self,
        picture: &RgbImage,
        rotated: &RgbImage,
        found: &HogDetection,
        canvas: &Square,
    ) -> Result<Candidate, NoFace> {
        let _span = tracing::trace_span!("landmarks").entered();
        let landmarks = match &mut self.predictor {
            Some(Predictor::Ibug(model)) => {
                let image = Grey { pixels: &grey(rotated), width: rotated.width() };
                in_picture(&model.find(image, &[found.frame]).remove(0), canvas, rotated.width())
            }
            Some(Predictor::Permissive(mesh)) => {
                let centre = canvas.to_picture(found.frame.centre(), rotated.width());
                let frame = Square { centre, side: found.frame.width(), angle: canvas.angle };
                let pyramid = ImagePyramid::of(picture, COARSE_SIDES[0]);
                mesh.landmarks(&frame, |square, size| pyramid.region(square, size))?
            }
            None => return Err(NoFace::Failed("no landmark model is loaded".into())),
        };
        let (angle, width) = (geometry::eye_angle(&landmarks), found.frame.width());
        Ok(Candidate { angle, score: found.score, width, landmarks, faces: 1 })
    }

    fn check(&mut self, crop: &RgbImage) -> Result<(), NoFace> {
        const SIZE: u32 = 160;
        match self.wide_hog.find_grey(&grey(&resize(crop, SIZE, SIZE)), SIZE, 0.0)?.len() {
            0 => Err(NoFace::None(None)),
            1 => Ok(()),
            several => Err(NoFace::Several(several as u32)),
        }
    }
}

/// dlib's landmarks of a face in `frame`, the frame of its detector, which is rotated with the face.
fn ibug_landmarks(model: &LandmarkModel, pyramid: &ImagePyramid<'_>, frame: &Square) -> Landmarks {
    const SCALE: f64 = 1.6;
    let around = Square { side: SCALE * frame.side, ..*frame };
    let size = (SCALE * LANDMARKED_FACE) as u32;
    let (margin, end) = ((SCALE - 1.0) / 2.0 * LANDMARKED_FACE, f64::from(size));
    let frame = Frame { left: margin, top: margin, right: end - margin - 1.0, bottom: end - margin - 1.0 };
    let pixels = grey(&pyramid.region(&around, size));
    let frames = FRAME_SHIFTS.map(|shift| frame.moved(shift * LANDMARKED_FACE, 0.0).rounded());
    let predictions = model.find(Grey { pixels: &pixels, width: size }, &frames);
    let mean = |i: usize, axis: usize| predictions.iter().map(|p| p[i][axis]).sum::<f32>() / predictions.len() as f32;
    let points: Landmarks = (0..predictions[0].len()).map(|i| [mean(i, 0), mean(i, 1)]).collect();
    in_picture(&points, &around, size)
}

/// Overlapping squares that cover a photo.
struct Tiles {
    squares: Vec<Square>,
    /// Width in pixels of the smallest face that YuNet finds in them.
    smallest: f64,
}

impl Tiles {
    /// Tiles in which YuNet finds faces of `min_face` pixels, or the smallest ones that [`MAX_TILES`] allow. None: YuNet
    /// finds such faces in the whole photo.
    fn of(picture: &RgbImage, min_face: u32) -> Option<Self> {
        let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
        let seen = width.max(height) * YUNET_FACE / f64::from(COARSE_SIDES[COARSE_SIDES.len() - 1]);
        let step = f64::from(TILE_SIDE - TILE_OVERLAP) / YUNET_FACE;
        let count = |length: f64, smallest: f64| {
            let rest = length / smallest * YUNET_FACE - f64::from(TILE_OVERLAP);
            (rest / f64::from(TILE_SIDE - TILE_OVERLAP)).ceil().max(1.0)
        };
        let mut smallest = f64::from(min_face.max(MIN_DLIB_FACE));
        while smallest < seen && count(width, smallest) * count(height, smallest) > MAX_TILES as f64 {
            smallest *= 1.05;
        }
        if smallest >= seen {
            return None;
        }
        let side = f64::from(TILE_SIDE) / YUNET_FACE * smallest;
        let centres = |length: f64| {
            let count = count(length, smallest) as u32;
            // The last tile ends with the photo, and the others are moved likewise.
            let step = if count > 1 { ((length - side) / f64::from(count - 1)).min(step * smallest) } else { 0.0 };
            let first = if count > 1 { side / 2.0 } else { length / 2.0 };
            (0..count).map(move |at| first + f64::from(at) * step - 0.5)
        };
        let squares = centres(height)
            .flat_map(|y| centres(width).map(move |x| Square { centre: [x, y], side, angle: 0.0 }))
            .collect();
        Some(Self { squares, smallest })
    }
}

/// The face to use among those found at one angle.
fn chosen_face(found: &[HogDetection], policy: FacePolicy) -> Option<HogDetection> {
    match (found, policy) {
        ([face], _) => Some(*face),
        (faces, FacePolicy::Largest) => {
            faces.iter().max_by(|a, b| a.frame.width().total_cmp(&b.frame.width())).copied()
        }
        _ => None,
    }
}

/// The bytes that a search takes beside a photo of this size, without the tools.
pub fn memory(search: Search, width: u32, height: u32) -> u64 {
    let pixels = u64::from(width) * u64::from(height);
    match search {
        // Reduced copies.
        Search::Guided => 3 * pixels / 4,
        // Two canvases, and dlib's pyramid of one.
        Search::Full => FULL_MEMORY * (u64::from(width).pow(2) + u64::from(height).pow(2)),
    }
}

/// The region around a detected face, rotated by the roll of YuNet.
fn region(face: &Detection) -> Square {
    Square { centre: face.centre, side: REGION_SCALE * face.width(), angle: face.roll() }
}

/// Converts points of a square that was cut at `size` pixels to points of the photo.
fn in_picture(points: &[[f32; 2]], square: &Square, size: u32) -> Landmarks {
    points.iter().map(|point| square.to_picture(point.map(f64::from), size).map(|c| c as f32)).collect()
}

/// Rotates the photo by `angle` in the centre of a black square of side ceil(hypot(width, height)). Also returns the
/// square.
fn on_canvas(picture: &RgbImage, angle: f64) -> (Square, RgbImage) {
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let side = width.hypot(height).ceil();
    let canvas = Square { centre: [width / 2.0 - 0.5, height / 2.0 - 0.5], side, angle };
    let size = side as u32;
    (canvas, warp(picture, &canvas.grid(size), size, size, BorderMode::Black))
}

/// The means of the three channels, as in dlib's landmark predictor.
fn grey(picture: &RgbImage) -> Vec<u8> {
    picture
        .as_raw()
        .chunks_exact(3)
        .map(|p| ((u16::from(p[0]) + u16::from(p[1]) + u16::from(p[2])) / 3) as u8)
        .collect()
}

/// A photo and a reduced copy of it, which is used where its resolution is sufficient.
struct ImagePyramid<'a> {
    picture: &'a RgbImage,
    reduced: RgbImage,
    factor: u32,
}

impl<'a> ImagePyramid<'a> {
    /// The longer side of the copy has at least `side` pixels, and less than twice as many unless the photo is very
    /// long.
    fn of(picture: &'a RgbImage, side: u32) -> Self {
        let whole = Rect::of(picture);
        let factor = whole.reducible(picture.width().max(picture.height()) / side);
        Self { picture, reduced: reduce(picture, whole, factor), factor }
    }

    /// The whole photo, scaled to a size.
    fn resized(&self, width: u32, height: u32) -> RgbImage {
        let finer;
        let source = if width.max(height) <= self.reduced.width().max(self.reduced.height()) {
            (&self.reduced, f64::from(self.factor))
        } else {
            let longer = self.picture.width().max(self.picture.height());
            let factor = Rect::of(self.picture).reducible(longer / width.max(height));
            finer = reduce(self.picture, Rect::of(self.picture), factor);
            (&finer, f64::from(factor))
        };
        let step = |length: u32, size: u32| f64::from(length) / f64::from(size);
        let (right, down) = (step(self.picture.width(), width), step(self.picture.height(), height));
        let grid = Grid { origin: [right / 2.0 - 0.5, down / 2.0 - 0.5], right: [right, 0.0], down: [0.0, down] };
        warp(source.0, &reduced_grid(&grid, [0.0; 2], source.1), width, height, BorderMode::Edge)
    }

    /// A rotated region at `size` x `size` pixels. Outside the photo, the edge pixels are repeated.
    fn region(&self, region: &Square, size: u32) -> RgbImage {
        let grid = region.grid(size);
        let factor = (region.side / f64::from(size)).floor().max(1.0) as u32;
        if factor == 1 {
            return warp(self.picture, &grid, size, size, BorderMode::Edge);
        }
        if factor >= self.factor {
            return warp(
                &self.reduced,
                &reduced_grid(&grid, [0.0; 2], f64::from(self.factor)),
                size,
                size,
                BorderMode::Edge,
            );
        }
        let window = bounds(region, self.picture);
        let part = reduce(self.picture, window, factor);
        let corner = [f64::from(window.x), f64::from(window.y)];
        warp(&part, &reduced_grid(&grid, corner, f64::from(factor)), size, size, BorderMode::Edge)
    }
}

/// Converts a grid to pixels of the part of the photo that begins at `corner` and is reduced by `factor`.
fn reduced_grid(grid: &Grid, corner: [f64; 2], factor: f64) -> Grid {
    let scale = |vector: [f64; 2]| vector.map(|c| c / factor);
    let position = |i: usize| (grid.origin[i] - corner[i] + 0.5) / factor - 0.5;
    Grid { origin: [position(0), position(1)], right: scale(grid.right), down: scale(grid.down) }
}

/// The part of the photo that a rotated square touches: at least one pixel.
fn bounds(square: &Square, picture: &RgbImage) -> Rect {
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
