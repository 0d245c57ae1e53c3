//! Labelled crops made from photographs of whole heads, for training without verdicts.
//!
//! A rotated window of a photograph is used as if it were a photo. The crop is cut from it as in the pipeline, with
//! mirrored borders. The photograph continues beyond the window, so the true content is known. People reject ghosts:
//! mirrored head where there is no head. So the label depends on ghosts, and not on the share of mirrored pixels.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};

use super::random::Random;
use facemill_domain::{Align, Landmarks};
use facemill_vision::align;
use facemill_vision::geometry::{self, Grid, Point, Square, rotate};
use facemill_vision::image::{Limits, decode};
use facemill_vision::quality::{self, Mirrored};
use facemill_vision::resample::resize;

/// Ghost scores below are OK, above are NG. Between them a crop has no label and is a border crop.
const OK_BELOW: f64 = 0.012;
const NG_ABOVE: f64 = 0.035;
/// A border crop below counts as OK in measurements: the geometric mean of the two limits.
pub const BORDER: f64 = 0.0205;

/// NG crops with a higher ghost score are easy.
const EASY_ABOVE: f64 = 0.12;
/// Share of the easy crops that are kept.
const EASY_KEPT: f64 = 0.3;

/// Maximum side, in pixels, of the square around the face in a photograph. Larger photographs are scaled down.
const LARGEST_FACE: f64 = 480.0;

/// Width and height of the grid of points that are tested for ghosts.
const GRID: u32 = 64;
/// First row of the lowest 3/16 of the crop. Shoulders are there, and ghosts are hardly visible.
const BOTTOM: u32 = GRID / 16 * 13;

/// A photograph of a whole head, with the position of the head.
pub struct Portrait {
    picture: RgbImage,
    landmarks: Landmarks,
    /// One flag per pixel, row by row.
    head: Vec<bool>,
}

/// Why a photograph is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortraitError {
    #[error("the mask has {0} x {1} pixels, the photograph has {2} x {3}")]
    OtherSize(u32, u32, u32, u32),
    #[error("the head reaches the edge of the photograph")]
    HeadCut,
}

impl Portrait {
    /// `person` is the mask of the photograph: values from 128 are person. `landmarks` are the 68 of the face.
    ///
    /// # Errors
    /// The mask has another size than the photograph, or the head reaches the edge of the photograph.
    pub fn new(picture: RgbImage, person: &GrayImage, landmarks: Landmarks) -> Result<Self, PortraitError> {
        let ((width, height), (w, h)) = (picture.dimensions(), person.dimensions());
        if (width, height) != (w, h) {
            return Err(PortraitError::OtherSize(w, h, width, height));
        }
        let (picture, person, landmarks) = scaled_down(picture, person, landmarks);
        let (width, height) = picture.dimensions();
        let head = head(&person, &landmarks);
        let portrait = Self { picture, landmarks, head };
        let (right, bottom) = (f64::from(width) - 2.0, f64::from(height) - 2.0);
        let across = (0..width).map(f64::from).flat_map(|x| [[x, 1.0], [x, bottom]]);
        let down = (0..height).map(f64::from).flat_map(|y| [[1.0, y], [right, y]]);
        let touching = across.chain(down).filter(|&point| portrait.is_head(point)).count();
        // A lock of hair may touch the edge: up to 1 % of the width.
        if touching as u32 * 100 > width { Err(PortraitError::HeadCut) } else { Ok(portrait) }
    }

    /// Whether a point belongs to the head. Points outside the photograph do not.
    fn is_head(&self, point: Point) -> bool {
        let [x, y] = point.map(f64::round);
        let (width, height) = self.picture.dimensions();
        let inside = (0.0..f64::from(width)).contains(&x) && (0.0..f64::from(height)).contains(&y);
        inside && self.head[y as usize * width as usize + x as usize]
    }

    fn contains(&self, [x, y]: Point) -> bool {
        let (width, height) = self.picture.dimensions();
        (0.0..f64::from(width)).contains(&x) && (0.0..f64::from(height)).contains(&y)
    }
}

/// Scales a photograph down to `LARGEST_FACE`, so that rotating a window is fast.
fn scaled_down(picture: RgbImage, person: &GrayImage, landmarks: Landmarks) -> (RgbImage, GrayImage, Landmarks) {
    let (width, height) = picture.dimensions();
    let scale = LARGEST_FACE / align::square(&landmarks, Align::Paper).side;
    if scale >= 1.0 {
        return (picture, person.clone(), landmarks);
    }
    let [w, h] = [width, height].map(|length| (f64::from(length) * scale).round().max(1.0) as u32);
    let [across, down] = [f64::from(w) / f64::from(width), f64::from(h) / f64::from(height)].map(|s| s as f32);
    let scaled = |[x, y]: &[f32; 2]| [(x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5];
    let person = imageops::resize(person, w, h, FilterType::Triangle);
    (resize(&picture, w, h), person, landmarks.iter().map(scaled).collect())
}

/// The person above the jaw line. Beside the jaw, where hair hangs, the head ends at the height of the mouth.
fn head(person: &GrayImage, landmarks: &[[f32; 2]]) -> Vec<bool> {
    let angle = geometry::eye_angle(landmarks);
    let levelled: Vec<Point> = landmarks.iter().map(|point| rotate(point.map(f64::from), angle)).collect();
    let (sin, cos) = angle.to_radians().sin_cos();
    let mouth = (levelled[48][1] + levelled[54][1]) / 2.0;
    let above_jaw = |x: f64, y: f64| {
        let (across, down) = (cos * x + sin * y, cos * y - sin * x);
        let part = levelled[..17].windows(2).find(|part| (part[0][0]..part[1][0]).contains(&across));
        let limit = part.map_or(mouth, |part| {
            let share = (across - part[0][0]) / (part[1][0] - part[0][0]);
            part[0][1] + share * (part[1][1] - part[0][1])
        });
        down <= limit
    };
    person.enumerate_pixels().map(|(x, y, pixel)| pixel[0] >= 128 && above_jaw(f64::from(x), f64::from(y))).collect()
}

/// A rotated rectangle of a photograph that is used as a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    /// The square with the centre of the window. Its side is the longer side of the window.
    around: Square,
    /// Side of the square and size of the window, in pixels.
    size: u32,
    width: u32,
    height: u32,
}

impl Window {
    /// Pixels of the square to the left of the window, and above it.
    fn offset(&self) -> [u32; 2] {
        [(self.size - self.width) / 2, (self.size - self.height) / 2]
    }

    fn to_photograph(self, [x, y]: Point) -> Point {
        let [left, top] = self.offset().map(f64::from);
        self.around.to_picture([x + left, y + top], self.size)
    }

    /// The landmarks in pixels of the window. `None` when the window cuts the face: dlib tolerates a slightly cut jaw,
    /// but needs brows, eyes, nose and mouth.
    fn landmarks(&self, of_photograph: &[[f32; 2]]) -> Option<Landmarks> {
        let [left, top] = self.offset().map(|c| c as f32);
        let landmarks: Landmarks = align::landmarks_in_crop(of_photograph, &self.around, self.size)
            .iter()
            .map(|[x, y]| [x - left, y - top])
            .collect();
        let inside = |point: &&[f32; 2]| self.contains(point.map(f64::from));
        let (jaw, features) = landmarks.split_at(17);
        (jaw.iter().filter(inside).count() >= 13 && features.iter().filter(inside).count() == 51).then_some(landmarks)
    }

    fn corners(&self) -> [Point; 4] {
        let (right, bottom) = (f64::from(self.width) - 1.0, f64::from(self.height) - 1.0);
        [[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom]].map(|corner| self.to_photograph(corner))
    }

    fn contains(&self, [x, y]: Point) -> bool {
        (0.0..f64::from(self.width)).contains(&x) && (0.0..f64::from(self.height)).contains(&y)
    }

    /// The point whose pixel the mirrored border shows at a point outside the window.
    fn mirror(&self, [x, y]: Point) -> Point {
        let fold = |at: f64, length: u32| {
            let length = f64::from(length);
            let within = (at + 0.5).rem_euclid(2.0 * length);
            within.min(2.0 * length - within) - 0.5
        };
        [fold(x, self.width), fold(y, self.height)]
    }
}

/// The label of a synthetic crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GhostLabel {
    Ng,
    Ok,
    /// People disagree. Not used for training, but for measurements.
    Border,
}

impl GhostLabel {
    fn of(ghosts: f64) -> Self {
        if ghosts < OK_BELOW {
            Self::Ok
        } else if ghosts > NG_ABOVE {
            Self::Ng
        } else {
            Self::Border
        }
    }
}

/// What a person sees of the mirrored border, as shares from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ghosts {
    /// Of the crop: mirrored head outside the head, above the lowest 3/16.
    pub above: f64,
    /// Of the crop: the same in the lowest 3/16.
    pub below: f64,
    /// Of the head: what the mirror covers.
    pub overwritten: f64,
}

impl Ghosts {
    /// The ghost score, which decides the label: 0 without ghosts.
    pub fn score(&self) -> f64 {
        self.above + 0.25 * self.below + 0.5 * self.overwritten
    }
}

/// A labelled crop.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticCrop {
    pub crop: RgbImage,
    pub label: GhostLabel,
    pub mirrored: Mirrored,
    pub ghosts: Ghosts,
    /// JPEG quality of the window. It must not correlate with the label.
    pub quality: u8,
    /// For NG: the same square with the true content, where the photograph is large enough.
    pub unmirrored: Option<RgbImage>,
}

/// Maximum side of a crop in pixels.
const MAX_CROP: f64 = 320.0;

/// Cuts one random crop. `None` when the pipeline would reject it before classification, or its label is not `wanted`.
pub fn crop(portrait: &Portrait, random: &mut Random, wanted: impl Fn(GhostLabel) -> bool) -> Option<SyntheticCrop> {
    let window = window(portrait, random)?;
    let landmarks = window.landmarks(&portrait.landmarks)?;
    let square = align::square(&landmarks, Align::Paper);
    if align::leaves_canvas(&square, window.width, window.height) {
        return None;
    }
    let ghosts = ghosts(portrait, &window, &square);
    let label = GhostLabel::of(ghosts.score());
    let mirrored = quality::mirrored(&square, window.width, window.height);
    // Easy crops teach little, so most of them are skipped.
    let easy = if label == GhostLabel::Ok { mirrored.share == 0.0 } else { ghosts.score() > EASY_ABOVE };
    if !wanted(label) || (easy && random.unit() > EASY_KEPT) {
        return None;
    }
    let quality = random.between(60.0, 96.0) as u8;
    let picture = recompressed(&picture(portrait, &window), quality);
    let size = square.side.round().min(MAX_CROP) as u32;
    Some(SyntheticCrop {
        crop: align::cut(&picture, &square, size),
        label,
        mirrored,
        ghosts,
        quality,
        unmirrored: (label == GhostLabel::Ng).then(|| unmirrored(portrait, &window, &square, size)).flatten(),
    })
}

/// A random rotated window around the face. `None` when it leaves the photograph.
fn window(portrait: &Portrait, random: &mut Random) -> Option<Window> {
    const ASPECTS: [f64; 6] = [0.5625, 0.75, 0.75, 0.8, 1.0, 1.333];
    let face = align::square(&portrait.landmarks, Align::Paper);
    let aspect = ASPECTS[(random.unit() * ASPECTS.len() as f64) as usize];
    let width = face.side * random.between(0.6, 1.4);
    let height = width / aspect;
    let rotation = if random.unit() < 0.3 { 6.0 * random.normal() } else { random.between(-45.0, 45.0) };
    let shift = |random: &mut Random| face.side * random.between(-0.28, 0.28);
    let centre = [face.centre[0] + shift(random), face.centre[1] + shift(random)];
    // The resolution of phones and web pages; never scaled up.
    let scale = (random.between(160.0, LARGEST_FACE) / face.side).min(1.0);
    let pixels = |length: f64| (length * scale).round().max(2.0) as u32;
    let side = width.max(height);
    let (width, height) = (pixels(width), pixels(height));
    let around = Square { centre, side, angle: face.angle + rotation };
    let window = Window { around, size: width.max(height), width, height };
    window.corners().iter().all(|&corner| portrait.contains(corner)).then_some(window)
}

/// The pixels of the window.
fn picture(portrait: &Portrait, window: &Window) -> RgbImage {
    let square = align::cut(&portrait.picture, &window.around, window.size);
    let [left, top] = window.offset();
    imageops::crop_imm(&square, left, top, window.width, window.height).to_image()
}

/// The window as a website would store it.
fn recompressed(picture: &RgbImage, quality: u8) -> RgbImage {
    let mut bytes = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture);
    let decoded = encoded.ok().and_then(|()| decode(&bytes, Limits::default()).ok());
    decoded.unwrap_or_else(|| picture.clone())
}

fn ghosts(portrait: &Portrait, window: &Window, square: &Square) -> Ghosts {
    let crop = square.grid(GRID);
    let photograph = window.around.grid(window.size);
    let [left, top] = window.offset().map(f64::from);
    let is_head = |[x, y]: Point| portrait.is_head(point_at(&photograph, [x + left, y + top]));
    let (mut above, mut below, mut overwritten, mut head) = (0u32, 0u32, 0u32, 0u32);
    for (x, y) in (0..GRID * GRID).map(|i| (i % GRID, i / GRID)) {
        let point = point_at(&crop, [f64::from(x), f64::from(y)]);
        let outside = !window.contains(point);
        let head_here = is_head(point);
        head += u32::from(head_here);
        overwritten += u32::from(head_here && outside);
        if outside && !head_here && is_head(window.mirror(point)) {
            *(if y < BOTTOM { &mut above } else { &mut below }) += 1;
        }
    }
    let [above, below] = [above, below].map(|points| f64::from(points) / f64::from(GRID * GRID));
    Ghosts { above, below, overwritten: f64::from(overwritten) / f64::from(head.max(1)) }
}

/// The point of the photograph at a position of a grid.
fn point_at(grid: &Grid, [x, y]: Point) -> Point {
    std::array::from_fn(|axis| grid.origin[axis] + grid.right[axis] * x + grid.down[axis] * y)
}

/// The square of an NG crop with its true content.
fn unmirrored(portrait: &Portrait, window: &Window, square: &Square, size: u32) -> Option<RgbImage> {
    let last = f64::from(size) - 1.0;
    let corners = [[0.0, 0.0], [last, 0.0], [0.0, last], [last, last]];
    let inside = corners.iter().all(|&c| portrait.contains(window.to_photograph(square.to_picture(c, size))));
    let scale = window.around.side / f64::from(window.size);
    let centre = window.to_photograph(square.centre);
    let angle = window.around.angle + square.angle;
    inside.then(|| align::cut(&portrait.picture, &Square { centre, side: square.side * scale, angle }, size))
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    const SIDE: u32 = 400;
    const MIDDLE: [f32; 2] = [199.5, 199.5];

    /// A level face with an eye distance of 40. The square around it has a side of 160.
    fn landmarks() -> Landmarks {
        let mut points = vec![[0.0, 0.0]; 68];
        for (i, point) in points.iter_mut().take(17).enumerate() {
            let angle = std::f32::consts::PI * i as f32 / 16.0;
            *point = [-50.0 * angle.cos(), 60.0 * angle.sin()];
        }
        points[36..42].fill([-20.0, 0.0]);
        points[42..48].fill([20.0, 0.0]);
        points[48] = [-15.0, 40.0];
        points[54] = [15.0, 40.0];
        points.iter().map(|[x, y]| [x + MIDDLE[0], y + MIDDLE[1]]).collect()
    }

    /// A mask: a head of 120x140 pixels on a body.
    fn person() -> GrayImage {
        GrayImage::from_fn(SIDE, SIDE, |x, y| {
            let (x, y) = (x as f32 - MIDDLE[0], y as f32 - MIDDLE[1]);
            let head = (x / 60.0).powi(2) + (y / 70.0).powi(2) <= 1.0;
            Luma([if head || y > 80.0 { 255 } else { 0 }])
        })
    }

    fn portrait() -> Portrait {
        let person = person();
        let red = |x, y| if person.get_pixel(x, y)[0] > 0 { Rgb([200, 0, 0]) } else { Rgb([0, 0, 200]) };
        Portrait::new(RgbImage::from_fn(SIDE, SIDE, red), &person, landmarks()).unwrap()
    }

    /// A level window of this size around the middle, moved down by `lower` pixels.
    fn around(width: u32, height: u32, lower: f64) -> Window {
        let centre = [199.5, 199.5 + lower];
        let size = width.max(height);
        Window { around: Square { centre, side: f64::from(size), angle: 0.0 }, size, width, height }
    }

    fn ghosts_in(window: Window) -> f64 {
        let portrait = portrait();
        let square = align::square(&window.landmarks(&portrait.landmarks).unwrap(), Align::Paper);
        ghosts(&portrait, &window, &square).score()
    }

    #[test]
    fn the_head_ends_at_the_jaw() {
        let portrait = portrait();
        assert!(
            portrait.is_head([199.5, 190.0]) && portrait.is_head([199.5, 140.0]) && portrait.is_head([255.0, 200.0])
        );
        assert!(!portrait.is_head([199.5, 265.0]), "neck");
        assert!(
            !portrait.is_head([199.5, 300.0]) && !portrait.is_head([20.0, 20.0]) && !portrait.is_head([-5.0, 190.0])
        );
    }

    #[test]
    fn a_mirrored_wall_is_ok_and_a_second_crown_is_ng() {
        assert_eq!(ghosts_in(around(300, 300, 0.0)), 0.0);
        // 10 pixels of wall above and beside the head. The mirror shows wall and a small part of the head.
        assert!(ghosts_in(around(150, 180, 0.0)) < OK_BELOW);
        // The upper edge is on the forehead. The mirror shows brows and eyes upside down.
        assert!(ghosts_in(around(200, 200, 60.0)) > NG_ABOVE);
        // The left edge is at the ear.
        assert!(ghosts_in(around(118, 300, 0.0)) > NG_ABOVE);
    }

    #[test]
    fn the_mirror_folds_at_the_edges_of_the_window() {
        let window = around(100, 200, 0.0);
        assert_eq!(window.mirror([-1.0, 200.0]), [0.0, 199.0]);
        assert_eq!(window.mirror([99.0, -200.0]), [99.0, 199.0]);
        assert_eq!(window.mirror([42.25, 100.5]), [42.25, 100.5]);
    }

    #[test]
    fn crops_have_the_label_of_their_ghost_score() {
        let portrait = portrait();
        let mut random = Random::seeded(1);
        let mut found = [0; 3];
        for _ in 0..3000 {
            let Some(crop) = crop(&portrait, &mut random, |label| found[label as usize] < 3) else { continue };
            found[crop.label as usize] += 1;
            assert_eq!(crop.label, GhostLabel::of(crop.ghosts.score()));
            assert!(crop.label != GhostLabel::Ng || crop.mirrored.share > 0.0, "ghosts without a mirror");
            if let Some(real) = crop.unmirrored {
                assert_eq!(real.dimensions(), crop.crop.dimensions());
            }
        }
        assert_eq!(found, [3, 3, 3]);
    }

    #[test]
    fn photographs_that_cut_the_head_are_rejected() {
        let cut = GrayImage::from_fn(SIDE, SIDE, |x, _| Luma([if x.abs_diff(200) < 60 { 255 } else { 0 }]));
        let picture = RgbImage::new(SIDE, SIDE);
        assert_eq!(Portrait::new(picture.clone(), &cut, landmarks()).err(), Some(PortraitError::HeadCut));
        let small = GrayImage::new(3, 3);
        assert_eq!(Portrait::new(picture, &small, landmarks()).err(), Some(PortraitError::OtherSize(3, 3, SIDE, SIDE)));
    }
}
