//! Labelled crops out of whole-head photographs, for a first classifier before there are verdicts.
//!
//! A turned window of a photograph stands for a crop. The crop is cut from it as the pipeline cuts it, mirrored
//! beyond the window's edge; but as the photograph goes on there, it is known what the mirror shows where. What the
//! eye objects to is ghosts, mirrored head where there is none; so the label follows them, and not how much was
//! mirrored.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};

use super::random::Random;
use crate::domain::{Align, Landmarks};
use crate::vision::align;
use crate::vision::geometry::{self, Grid, Point, Square, turn};
use crate::vision::image::{Limits, decode};
use crate::vision::quality::{self, Mirrored};
use crate::vision::resample::resize;

/// Up to here the eye finds nothing, from there on it objects; between them there is no label.
const OK_BELOW: f64 = 0.012;
const NG_ABOVE: f64 = 0.035;
/// Where a border crop has to be called one or the other: half-way between them, as shares multiply.
pub const BORDER: f64 = 0.0205;

/// From here on nobody needs to look twice.
const EASY_ABOVE: f64 = 0.12;
const EASY_KEPT: f64 = 0.3;

/// Pixels of the side of the square around a face, in the photograph that synthetic are cut from.
const LARGEST_FACE: f64 = 480.0;

/// The crop's width and height in points that are looked at for a label.
const GRID: u32 = 64;
/// Rows from here on are the lowest 3/16 of the crop, where shoulders are and ghosts hardly show.
const BOTTOM: u32 = GRID / 16 * 13;

/// A photograph of a whole head, and where the head is in it.
pub struct Source {
    picture: RgbImage,
    landmarks: Landmarks,
    /// One flag a pixel, row by row.
    head: Vec<bool>,
}

/// Why a photograph cannot be cut into synthetic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the mask has {0} x {1} pixels, the photograph {2} x {3}")]
    OtherSize(u32, u32, u32, u32),
    #[error("the head reaches the photograph's edge")]
    HeadCut,
}

impl Source {
    /// `person` is the photograph's mask: 128 and more is person. `landmarks` are the face's 68.
    ///
    /// # Errors
    /// The mask is not the photograph's, or the photograph itself cuts the head.
    pub fn new(picture: RgbImage, person: &GrayImage, landmarks: Landmarks) -> Result<Self, Unfit> {
        let ((width, height), (w, h)) = (picture.dimensions(), person.dimensions());
        if (width, height) != (w, h) {
            return Err(Unfit::OtherSize(w, h, width, height));
        }
        let (picture, person, landmarks) = shrunk(picture, person, landmarks);
        let (width, height) = picture.dimensions();
        let head = head(&person, &landmarks);
        let source = Self { picture, landmarks, head };
        let (right, bottom) = (f64::from(width) - 2.0, f64::from(height) - 2.0);
        let across = (0..width).map(f64::from).flat_map(|x| [[x, 1.0], [x, bottom]]);
        let down = (0..height).map(f64::from).flat_map(|y| [[1.0, y], [right, y]]);
        let touching = across.chain(down).filter(|&point| source.is_head(point)).count();
        // A stray lock of hair may touch the edge: 1 % of the width.
        if touching as u32 * 100 > width { Err(Unfit::HeadCut) } else { Ok(source) }
    }

    /// Whether a point of the photograph is head. Beyond the photograph is none.
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

/// Shrinks a photograph to the largest size that a crop has, so that turning a window costs little.
fn shrunk(picture: RgbImage, person: &GrayImage, landmarks: Landmarks) -> (RgbImage, GrayImage, Landmarks) {
    let (width, height) = picture.dimensions();
    let scale = LARGEST_FACE / align::square(&landmarks, Align::Paper).side;
    if scale >= 1.0 {
        return (picture, person.clone(), landmarks);
    }
    let [w, h] = [width, height].map(|length| (f64::from(length) * scale).round().max(1.0) as u32);
    let [across, down] = [f64::from(w) / f64::from(width), f64::from(h) / f64::from(height)].map(|s| s as f32);
    let moved = |[x, y]: &[f32; 2]| [(x + 0.5) * across - 0.5, (y + 0.5) * down - 0.5];
    let person = imageops::resize(person, w, h, FilterType::Triangle);
    (resize(&picture, w, h), person, landmarks.iter().map(moved).collect())
}

/// The person above the jaw line. Beside the jaw, where hair falls, the head ends at the height of the mouth.
fn head(person: &GrayImage, landmarks: &[[f32; 2]]) -> Vec<bool> {
    let angle = geometry::eye_angle(landmarks);
    let levelled: Vec<Point> = landmarks.iter().map(|point| turn(point.map(f64::from), angle)).collect();
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

/// A window of a photograph as a picture of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    /// The square around the window's middle whose side is the window's longer one.
    around: Square,
    /// Pixels of that side, and of the window.
    size: u32,
    width: u32,
    height: u32,
}

impl Window {
    /// Pixels of the square that lie left of and above the window.
    fn offset(&self) -> [u32; 2] {
        [(self.size - self.width) / 2, (self.size - self.height) / 2]
    }

    fn to_photograph(self, [x, y]: Point) -> Point {
        let [left, top] = self.offset().map(f64::from);
        self.around.to_picture([x + left, y + top], self.size)
    }

    /// The photograph's landmarks as the window has them. None when it cuts the face itself: dlib finds a face whose
    /// jaw is cut a little, but none without brows, eyes, nose and mouth.
    fn shown(&self, landmarks: &[[f32; 2]]) -> Option<Landmarks> {
        let [left, top] = self.offset().map(|c| c as f32);
        let shown: Landmarks = align::landmarks_in_crop(landmarks, &self.around, self.size)
            .iter()
            .map(|[x, y]| [x - left, y - top])
            .collect();
        let inside = |point: &&[f32; 2]| self.contains(point.map(f64::from));
        let (jaw, features) = shown.split_at(17);
        (jaw.iter().filter(inside).count() >= 13 && features.iter().filter(inside).count() == 51).then_some(shown)
    }

    fn corners(&self) -> [Point; 4] {
        let (right, bottom) = (f64::from(self.width) - 1.0, f64::from(self.height) - 1.0);
        [[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom]].map(|corner| self.to_photograph(corner))
    }

    fn contains(&self, [x, y]: Point) -> bool {
        (0.0..f64::from(self.width)).contains(&x) && (0.0..f64::from(self.height)).contains(&y)
    }

    /// Where the mirror takes a point from that lies beyond the edge.
    fn mirror(&self, [x, y]: Point) -> Point {
        let fold = |at: f64, length: u32| {
            let length = f64::from(length);
            let within = (at + 0.5).rem_euclid(2.0 * length);
            within.min(2.0 * length - within) - 0.5
        };
        [fold(x, self.width), fold(y, self.height)]
    }
}

/// What the eye would say to a crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ng,
    Ok,
    /// It might say either; nothing to learn from, but to measure with.
    Border,
}

impl Kind {
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

/// A labelled crop.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticCrop {
    pub crop: RgbImage,
    pub kind: Kind,
    pub mirrored: Mirrored,
    /// What the label was told by: 0 without ghosts.
    pub ghosts: f64,
    /// The JPEG quality of the window, which must have nothing to do with the label.
    pub quality: u8,
    /// For NG: the same square filled with what was really there, where the photograph reaches so far.
    pub unmirrored: Option<RgbImage>,
}

/// The largest crop that is made, in pixels.
const MAX_CROP: f64 = 320.0;

/// Cuts one crop at random. None: this one would not come so far as to be classified, or is of a kind that is not
/// `wanted`.
pub fn crop(source: &Source, random: &mut Random, wanted: impl Fn(Kind) -> bool) -> Option<SyntheticCrop> {
    let window = window(source, random)?;
    let landmarks = window.shown(&source.landmarks)?;
    let square = align::square(&landmarks, Align::Paper);
    if align::leaves_canvas(&square, window.width, window.height) {
        return None;
    }
    let ghosts = ghosts(source, &window, &square);
    let kind = Kind::of(ghosts);
    let mirrored = quality::mirrored(&square, window.width, window.height);
    // Crops that anybody can tell apart teach little, so most of them are left out.
    let easy = if kind == Kind::Ok { mirrored.share == 0.0 } else { ghosts > EASY_ABOVE };
    if !wanted(kind) || (easy && random.unit() > EASY_KEPT) {
        return None;
    }
    let quality = random.between(60.0, 96.0) as u8;
    let picture = recompressed(&picture(source, &window), quality);
    let size = square.side.round().min(MAX_CROP) as u32;
    Some(SyntheticCrop {
        crop: align::cut(&picture, &square, size),
        kind,
        mirrored,
        ghosts,
        quality,
        unmirrored: (kind == Kind::Ng).then(|| unmirrored(source, &window, &square, size)).flatten(),
    })
}

/// Lays a turned window around the face, at random. None when it leaves the photograph.
fn window(source: &Source, random: &mut Random) -> Option<Window> {
    const ASPECTS: [f64; 6] = [0.5625, 0.75, 0.75, 0.8, 1.0, 1.333];
    let face = align::square(&source.landmarks, Align::Paper);
    let aspect = ASPECTS[(random.unit() * ASPECTS.len() as f64) as usize];
    let width = face.side * random.between(0.6, 1.4);
    let height = width / aspect;
    let turned = if random.unit() < 0.3 { 6.0 * random.normal() } else { random.between(-45.0, 45.0) };
    let shift = |random: &mut Random| face.side * random.between(-0.28, 0.28);
    let centre = [face.centre[0] + shift(random), face.centre[1] + shift(random)];
    // As many pixels as a phone or a web page would leave of it, but none invented.
    let scale = (random.between(160.0, LARGEST_FACE) / face.side).min(1.0);
    let pixels = |length: f64| (length * scale).round().max(2.0) as u32;
    let side = width.max(height);
    let (width, height) = (pixels(width), pixels(height));
    let around = Square { centre, side, angle: face.angle + turned };
    let window = Window { around, size: width.max(height), width, height };
    window.corners().iter().all(|&corner| source.contains(corner)).then_some(window)
}

fn picture(source: &Source, window: &Window) -> RgbImage {
    let square = align::cut(&source.picture, &window.around, window.size);
    let [left, top] = window.offset();
    imageops::crop_imm(&square, left, top, window.width, window.height).to_image()
}

/// As some website would have stored it.
fn recompressed(picture: &RgbImage, quality: u8) -> RgbImage {
    let mut bytes = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture);
    let decoded = encoded.ok().and_then(|()| decode(&bytes, Limits::default()).ok());
    decoded.unwrap_or_else(|| picture.clone())
}

/// How much of the mirror the eye objects to.
///
/// With the shares of the crop that show mirrored head outside the head, above and in the lowest 3/16, and the share of
/// the head that was overwritten: above + 0.25 below + 0.5 overwritten.
fn ghosts(source: &Source, window: &Window, square: &Square) -> f64 {
    let crop = square.grid(GRID);
    let photograph = window.around.grid(window.size);
    let [left, top] = window.offset().map(f64::from);
    let is_head = |[x, y]: Point| source.is_head(along(&photograph, [x + left, y + top]));
    let (mut above, mut below, mut overwritten, mut head) = (0u32, 0u32, 0u32, 0u32);
    for (x, y) in (0..GRID * GRID).map(|i| (i % GRID, i / GRID)) {
        let point = along(&crop, [f64::from(x), f64::from(y)]);
        let beyond = !window.contains(point);
        let real = is_head(point);
        head += u32::from(real);
        overwritten += u32::from(real && beyond);
        if beyond && !real && is_head(window.mirror(point)) {
            *(if y < BOTTOM { &mut above } else { &mut below }) += 1;
        }
    }
    let crop = f64::from(GRID * GRID);
    let lost = f64::from(overwritten) / f64::from(head.max(1));
    f64::from(above) / crop + 0.25 * f64::from(below) / crop + 0.5 * lost
}

fn along(grid: &Grid, [x, y]: Point) -> Point {
    std::array::from_fn(|axis| grid.origin[axis] + grid.right[axis] * x + grid.down[axis] * y)
}

fn unmirrored(source: &Source, window: &Window, square: &Square, size: u32) -> Option<RgbImage> {
    let last = f64::from(size) - 1.0;
    let corners = [[0.0, 0.0], [last, 0.0], [0.0, last], [last, last]];
    let whole = corners.iter().all(|&c| source.contains(window.to_photograph(square.to_picture(c, size))));
    let scale = window.around.side / f64::from(window.size);
    let centre = window.to_photograph(square.centre);
    let angle = window.around.angle + square.angle;
    whole.then(|| align::cut(&source.picture, &Square { centre, side: square.side * scale, angle }, size))
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    const SIDE: u32 = 400;
    const MIDDLE: [f32; 2] = [199.5, 199.5];

    /// A level face with an eye distance of 40: the square around it has a side of 160.
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

    /// A head 120 wide and 140 high on a body, red on blue.
    fn person() -> GrayImage {
        GrayImage::from_fn(SIDE, SIDE, |x, y| {
            let (x, y) = (x as f32 - MIDDLE[0], y as f32 - MIDDLE[1]);
            let head = (x / 60.0).powi(2) + (y / 70.0).powi(2) <= 1.0;
            Luma([if head || y > 80.0 { 255 } else { 0 }])
        })
    }

    fn source() -> Source {
        let person = person();
        let red = |x, y| if person.get_pixel(x, y)[0] > 0 { Rgb([200, 0, 0]) } else { Rgb([0, 0, 200]) };
        Source::new(RgbImage::from_fn(SIDE, SIDE, red), &person, landmarks()).unwrap()
    }

    /// An upright window of that size around the middle, moved down by `lower` pixels.
    fn around(width: u32, height: u32, lower: f64) -> Window {
        let centre = [199.5, 199.5 + lower];
        let size = width.max(height);
        Window { around: Square { centre, side: f64::from(size), angle: 0.0 }, size, width, height }
    }

    fn ghosts_in(window: Window) -> f64 {
        let source = source();
        let square = align::square(&window.shown(&source.landmarks).unwrap(), Align::Paper);
        ghosts(&source, &window, &square)
    }

    #[test]
    fn the_head_ends_at_the_jaw() {
        let source = source();
        assert!(source.is_head([199.5, 190.0]) && source.is_head([199.5, 140.0]) && source.is_head([255.0, 200.0]));
        assert!(!source.is_head([199.5, 265.0]), "neck");
        assert!(!source.is_head([199.5, 300.0]) && !source.is_head([20.0, 20.0]) && !source.is_head([-5.0, 190.0]));
    }

    #[test]
    fn a_mirrored_wall_is_ok_and_a_second_crown_is_not() {
        assert_eq!(ghosts_in(around(300, 300, 0.0)), 0.0);
        // 10 pixels of wall above and beside the head: the mirror shows wall and, at its end, a little of the head.
        assert!(ghosts_in(around(150, 180, 0.0)) < OK_BELOW);
        // The upper edge on the forehead: brows and eyes stand on their head above it.
        assert!(ghosts_in(around(200, 200, 60.0)) > NG_ABOVE);
        // The left edge at the ear.
        assert!(ghosts_in(around(118, 300, 0.0)) > NG_ABOVE);
    }

    #[test]
    fn the_mirror_is_the_one_of_the_crop() {
        let window = around(100, 200, 0.0);
        assert_eq!(window.mirror([-1.0, 200.0]), [0.0, 199.0]);
        assert_eq!(window.mirror([99.0, -200.0]), [99.0, 199.0]);
        assert_eq!(window.mirror([42.25, 100.5]), [42.25, 100.5]);
    }

    #[test]
    fn a_selfie_is_what_its_window_shows() {
        let source = source();
        let mut random = Random::seeded(1);
        let mut found = [0; 3];
        for _ in 0..3000 {
            let Some(crop) = crop(&source, &mut random, |kind| found[kind as usize] < 3) else { continue };
            found[crop.kind as usize] += 1;
            assert_eq!(crop.kind, Kind::of(crop.ghosts));
            assert!(crop.kind != Kind::Ng || crop.mirrored.share > 0.0, "ghosts without a mirror");
            if let Some(real) = crop.unmirrored {
                assert_eq!(real.dimensions(), crop.crop.dimensions());
            }
        }
        assert_eq!(found, [3, 3, 3]);
    }

    #[test]
    fn photographs_that_cut_the_head_are_left_out() {
        let cut = GrayImage::from_fn(SIDE, SIDE, |x, _| Luma([if x.abs_diff(200) < 60 { 255 } else { 0 }]));
        let picture = RgbImage::new(SIDE, SIDE);
        assert_eq!(Source::new(picture.clone(), &cut, landmarks()).err(), Some(Unfit::HeadCut));
        let small = GrayImage::new(3, 3);
        assert_eq!(Source::new(picture, &small, landmarks()).err(), Some(Unfit::OtherSize(3, 3, SIDE, SIDE)));
    }
}
