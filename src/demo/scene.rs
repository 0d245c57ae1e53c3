//! The demonstration's collection: a few photographs, rotated by known angles and cut in several ways, and URLs with
//! all faults that occur in real collections.

use std::f64::consts::PI;
use std::fmt::Write;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

use super::dump::{Collection, FaceRow, PhotoRow, START};
use super::host::{HostResponse, ResponseStep, Route, Routes};

/// The host names in the dump. They resolve to the demonstration's host.
pub const HOSTS: [&str; 5] = ["photos.test", "archive.test", "busy.test", "slow.test", "hostile.test"];

/// Pictures made from the photographs with one face.
const PICTURES: usize = 66;
/// Pictures made from each other photograph.
const PICTURES_OF_OTHERS: usize = 2;

/// Limit for magnifying small photographs.
const MAX_SCALE: f64 = 1.5;

/// Clockwise rotations in degrees. The first picture of each photograph is the photograph itself.
const TILTS: [f64; 13] = [0.0, 12.0, -18.0, 27.0, -33.0, 41.0, -45.0, 5.0, -9.0, 21.0, -26.0, 36.0, -40.0];

/// A part of a photograph: its share of width and height, and the centre of the rotation.
#[derive(Debug, Clone, Copy)]
struct Cut {
    name: &'static str,
    width: f64,
    height: f64,
    centre: (f64, f64),
    /// The longer side of the picture, in pixels.
    size: u32,
}

/// Faces are above the middle of most portraits. The tight cuts lose a chin or some hair, as photos at arm's length do.
const CUTS: [Cut; 5] = [
    Cut { name: "whole", width: 1.0, height: 1.0, centre: (0.5, 0.5), size: 900 },
    Cut { name: "upright", width: 0.75, height: 0.95, centre: (0.5, 0.48), size: 1000 },
    Cut { name: "wide", width: 1.0, height: 0.8, centre: (0.5, 0.42), size: 800 },
    Cut { name: "small", width: 0.9, height: 0.9, centre: (0.5, 0.46), size: 420 },
    Cut { name: "tight", width: 0.68, height: 0.68, centre: (0.48, 0.38), size: 700 },
];

#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    #[error("{0}: {1}; run `make setup`, which fetches the demonstration's photographs")]
    Unreadable(PathBuf, String),
    #[error("{0}, line {1}: expected a file name without directories, a tab, and one, none, several or unclear")]
    BadList(PathBuf, usize),
    #[error("{0} lists no photograph with one face")]
    NoFaces(PathBuf),
    #[error("cannot encode a picture: {0}")]
    Encode(#[from] image::ImageError),
}

/// The number of faces in a photograph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaceCount {
    One,
    None,
    Several,
}

impl FaceCount {
    fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::None => "none",
            Self::Several => "several",
        }
    }
}

/// One photograph of the list.
struct Photograph {
    /// The file name without its extension.
    name: String,
    kind: FaceCount,
    file: Bytes,
    pixels: RgbImage,
}

/// How a picture was made.
#[derive(Debug, Clone)]
pub struct Truth {
    pub photo_id: usize,
    pub photograph: String,
    pub kind: FaceCount,
    /// Clockwise rotation in degrees. The picture must be rotated back by this angle.
    pub tilt: f64,
    pub cut: &'static str,
}

/// The collection, its host's answers, and the truth about the pictures.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    pub collection: Collection,
    pub routes: Routes,
    pub truths: Vec<Truth>,
}

impl Scene {
    /// Makes the collection from the photographs listed by `photos.tsv` in `folder`: file, kind (one, none, several, or
    /// unclear, which is skipped), source and licence. The same photographs give the same collection.
    pub fn make(folder: &Path) -> Result<Self, SceneError> {
        let photographs = read(folder)?;
        let of = |kind| photographs.iter().filter(move |photograph| photograph.kind == kind);
        let portraits: Vec<_> = of(FaceCount::One).collect();
        let Some(first) = portraits.first() else { return Err(SceneError::NoFaces(folder.join("photos.tsv"))) };

        let mut scene = Self::default();
        for n in 0..PICTURES.max(portraits.len()) {
            scene.picture(portraits[n % portraits.len()], n / portraits.len(), n)?;
        }
        for photograph in of(FaceCount::None).chain(of(FaceCount::Several)) {
            for variant in 0..PICTURES_OF_OTHERS {
                scene.picture(photograph, variant, variant)?;
            }
        }
        scene.faults(&first.file);
        scene.others();
        Ok(scene)
    }

    /// Formats the truth about the pictures as a table, to check results against.
    pub fn truth(&self) -> String {
        let mut text = String::from("photo_id\tphotograph\tkind\ttilt\tcut\n");
        for truth in &self.truths {
            let Truth { photo_id, photograph, kind, tilt, cut } = truth;
            let _ = writeln!(text, "{photo_id}\t{photograph}\t{}\t{tilt}\t{cut}", kind.as_str());
        }
        text
    }

    /// Adds one picture of a photograph: first the file itself, then rotated cuts. `n` selects the file format.
    fn picture(&mut self, photograph: &Photograph, variant: usize, n: usize) -> Result<(), SceneError> {
        let tilt = TILTS[variant % TILTS.len()];
        let cut = CUTS[(variant + n) % CUTS.len()];
        let name = &photograph.name;
        let (cut_name, ending, bytes) = if variant == 0 {
            let ending = if photograph.file.starts_with(b"\x89PNG") { "png" } else { "jpg" };
            ("original", ending, photograph.file.clone())
        } else {
            let picture = tilted(&photograph.pixels, tilt, cut);
            let (ending, bytes) = match n % 11 {
                5 => ("png", png(&picture)?),
                9 => ("jpg", exif_rotated(&picture)?),
                _ => ("jpg", jpeg(&picture)?),
            };
            (cut.name, ending, bytes)
        };
        let host = HOSTS[n % 2];
        let path = format!("/{name}/{variant:02}.{ending}");
        let photo_id = self.photo(&format!("http://{host}{path}"), &caption(name, tilt));
        let label = self.label(name);
        self.face(photo_id, Some(label), tilt);
        if photograph.kind == FaceCount::Several {
            self.face(photo_id, None, 0.0);
        }
        self.routes.insert(path, HostResponse::photo(bytes).into());
        self.truths.push(Truth { photo_id, photograph: name.clone(), kind: photograph.kind, tilt, cut: cut_name });
        Ok(())
    }

    /// Adds candidates whose URLs are gone, slow or hostile, and some that succeed after retries.
    fn faults(&mut self, photo: &Bytes) {
        for n in 0..10 {
            self.fault(&format!("http://archive.test/deleted/{n}.jpg"), HostResponse::status(404));
        }
        let moved = HostResponse::redirect("http://archive.test/moved/there.jpg");
        let good = || HostResponse::photo(photo.clone());
        let soon = || HostResponse::status(503);
        let start = photo.slice(..photo.len() / 3);
        let nap = ResponseStep::Pause(Duration::from_millis(600));
        let routes: [(&str, Route); 27] = [
            ("http://archive.test/410.jpg", HostResponse::status(410).into()),
            ("http://archive.test/403.jpg", HostResponse::status(403).into()),
            ("http://archive.test/noai.jpg", HostResponse::robots("noai, noimageai", photo.clone()).into()),
            ("http://photos.test/moved.jpg", moved.into()),
            ("http://archive.test/moved/there.jpg", good().into()),
            ("http://busy.test/429.jpg", Route::new([HostResponse::retry_after(429, "1"), good()])),
            ("http://busy.test/503.jpg", Route::new([HostResponse::retry_after(503, "1"), good()])),
            ("http://busy.test/twice.jpg", Route::new([soon(), soon(), good()])),
            ("http://busy.test/reset.jpg", Route::new([HostResponse::reset(photo.clone()), good()])),
            ("http://busy.test/short.jpg", Route::new([HostResponse::with_length(1 << 20, start.clone()), good()])),
            ("http://busy.test/broken.jpg", HostResponse::status(500).into()),
            ("http://slow.test/nap.jpg", good().after(nap).into()),
            ("http://slow.test/once.jpg", Route::new([HostResponse::hang(), good()])),
            ("http://slow.test/never.jpg", HostResponse::hang().into()),
            ("http://slow.test/drip.jpg", HostResponse::slow_body(photo.clone(), Duration::from_millis(100)).into()),
            ("http://hostile.test/page.jpg", HostResponse::html_page().into()),
            ("http://hostile.test/empty.jpg", HostResponse::photo("").into()),
            ("http://hostile.test/loop.jpg", HostResponse::redirect("/loop.jpg").into()),
            ("http://hostile.test/private.jpg", HostResponse::redirect("http://169.254.169.254/latest/").into()),
            ("http://hostile.test/file.jpg", HostResponse::redirect("file:///etc/passwd").into()),
            ("http://hostile.test/endless.jpg", HostResponse::endless_body(start.clone()).into()),
            ("http://hostile.test/huge.jpg", HostResponse::with_length(1 << 40, start.clone()).into()),
            ("http://hostile.test/bomb.jpg", HostResponse::gzip_bomb().into()),
            ("http://hostile.test/head.jpg", Route::new([HostResponse::endless_head(), HostResponse::status(404)])),
            ("http://hostile.test/cut.jpg", HostResponse::photo(start.clone()).into()),
            ("http://hostile.test/noise.jpg", HostResponse::photo(noise()).into()),
            ("http://hostile.test/twin.jpg", good().into()),
        ];
        for (url, route) in routes {
            self.fault(url, route);
        }
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost/photo.jpg",
            "http://2130706433/photo.jpg",
            "http://[::ffff:10.0.0.1]/photo.jpg",
            "http://photos.test:22/photo.jpg",
            "http://user:secret@photos.test/photo.jpg",
            "ftp://photos.test/photo.jpg",
            "not a url",
        ] {
            self.candidate(url);
        }
    }

    fn fault(&mut self, url: &str, route: impl Into<Route>) {
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        self.routes.insert(format!("/{path}"), route.into());
        self.candidate(url);
    }

    fn candidate(&mut self, url: &str) {
        let photo = self.photo(url, "");
        let label = self.label("unknown");
        self.face(photo, Some(label), 0.0);
    }

    /// Adds photos that are no candidates: with two labelled faces, an unlabelled face, or none.
    fn others(&mut self) {
        for faces in [&[true, true][..], &[true, true, false], &[false], &[false, false], &[]] {
            let photo = self.photo("http://photos.test/not-a-candidate.jpg", "not a candidate");
            for labelled in faces {
                let label = labelled.then(|| self.label("unknown"));
                self.face(photo, label, 0.0);
            }
        }
    }

    fn photo(&mut self, url: &str, caption: &str) -> usize {
        let id = 1000 + self.collection.photos.len();
        self.collection.photos.push(PhotoRow {
            id,
            source_url: (!id.is_multiple_of(9)).then(|| format!("http://social.test/status/{}", mix(id, 1) >> 40)),
            photo_url: url.to_owned(),
            caption: caption.to_owned(),
            posted_at: (!id.is_multiple_of(13)).then(|| time_of(mix(id, 2))),
        });
        id
    }

    fn face(&mut self, photo_id: usize, label_id: Option<usize>, angle: f64) {
        let id = 1 + self.collection.faces.len();
        self.collection.faces.push(FaceRow { id, photo_id, label_id, angle, updated_at: time_of(mix(id, 3)) });
    }

    /// Returns the label of a photograph's person, in various scripts and with quotes.
    fn label(&mut self, name: &str) -> usize {
        let labels = &mut self.collection.labels;
        let known = labels.iter().position(|label| label.split(' ').next() == Some(name));
        known.unwrap_or_else(|| {
            let ending = [" 宇佐美", " O'Neill", " \"Q\"", " back\\slash", " ñandú, 🙂"][labels.len() % 5];
            labels.push(format!("{name}{ending}"));
            labels.len() - 1
        }) + 1
    }
}

fn caption(name: &str, tilt: f64) -> String {
    format!("{name}\tturned by {tilt} degrees;\n'as is' \\ \"so\"")
}

/// A time within three years of the start.
fn time_of(hash: u64) -> u64 {
    START + hash % (3 * 365 * 86_400)
}

/// A pseudo-random number, the same on every machine (the finaliser of MurmurHash3).
fn mix(n: usize, salt: u64) -> u64 {
    let mut z = (n as u64) ^ (salt << 56);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        z = (z ^ (z >> 33)).wrapping_mul(factor);
    }
    z ^ (z >> 33)
}

/// The magic bytes of a JPEG, followed by noise.
fn noise() -> Vec<u8> {
    let rest = (0..2000).flat_map(|n| mix(n, 4).to_le_bytes());
    [0xff, 0xd8, 0xff].into_iter().chain(rest).collect()
}

fn read(folder: &Path) -> Result<Vec<Photograph>, SceneError> {
    let list = folder.join("photos.tsv");
    let text = fs::read_to_string(&list).map_err(|error| SceneError::Unreadable(list.clone(), error.to_string()))?;
    let lines = text.lines().enumerate();
    let rows = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#') && !line.starts_with("file\t"));
    rows.filter(|(_, line)| line.split('\t').nth(1) != Some("unclear"))
        .map(|(index, line)| {
            let bad = || SceneError::BadList(list.clone(), index + 1);
            let mut columns = line.split('\t');
            let file = columns.next().filter(|file| !file.is_empty() && !file.contains(['/', '\\'])).ok_or_else(bad)?;
            let kind = match columns.next() {
                Some("one") => FaceCount::One,
                Some("none") => FaceCount::None,
                Some("several") => FaceCount::Several,
                _ => return Err(bad()),
            };
            photograph(&folder.join(file), kind)
        })
        .collect()
}

fn photograph(path: &Path, kind: FaceCount) -> Result<Photograph, SceneError> {
    let unreadable = |error: String| SceneError::Unreadable(path.to_owned(), error);
    let file = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let pixels = image::load_from_memory(&file).map_err(|error| unreadable(error.to_string()))?.into_rgb8();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(Photograph { name, kind, file: file.into(), pixels })
}

/// Cuts a picture from the photograph rotated clockwise by `tilt` degrees about the cut's centre. Beyond the
/// photograph, its edge pixels are repeated.
fn tilted(photograph: &RgbImage, tilt: f64, cut: Cut) -> RgbImage {
    let (width, height) = (f64::from(photograph.width()), f64::from(photograph.height()));
    let longer = (cut.width * width).max(cut.height * height);
    let scale = (f64::from(cut.size) / longer).min(MAX_SCALE);
    let scaled = |length: f64| ((length * scale).round() as u32).max(1);
    // Resized first, so that a pixel of the picture covers about one pixel of its source.
    let source = imageops::resize(photograph, scaled(width), scaled(height), FilterType::Triangle);
    let (centre_x, centre_y) = (cut.centre.0 * width * scale, cut.centre.1 * height * scale);
    let (out_width, out_height) = (scaled(cut.width * width), scaled(cut.height * height));
    let (sin, cos) = (tilt * PI / 180.0).sin_cos();
    RgbImage::from_fn(out_width, out_height, |column, row| {
        let x = f64::from(column) - f64::from(out_width - 1) / 2.0;
        let y = f64::from(row) - f64::from(out_height - 1) / 2.0;
        // y points down: (cos, sin) rotates a vector clockwise, so this maps a pixel of the picture back.
        bilinear(&source, centre_x + cos * x + sin * y, centre_y - sin * x + cos * y)
    })
}

fn bilinear(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let x = x.clamp(0.0, f64::from(image.width() - 1));
    let y = y.clamp(0.0, f64::from(image.height() - 1));
    let (left, top) = (x as u32, y as u32);
    let (right, bottom) = ((left + 1).min(image.width() - 1), (top + 1).min(image.height() - 1));
    let (fx, fy) = (x.fract(), y.fract());
    let corners = [(left, top), (right, top), (left, bottom), (right, bottom)].map(|(x, y)| image.get_pixel(x, y));
    let weights = [(1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy];
    let channel = |c: usize| corners.iter().zip(weights).map(|(pixel, weight)| f64::from(pixel[c]) * weight).sum();
    Rgb([0, 1, 2].map(|c| f64::round(channel(c)) as u8))
}

fn jpeg(picture: &RgbImage) -> Result<Bytes, SceneError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 92).encode_image(picture)?;
    Ok(bytes.into())
}

fn png(picture: &RgbImage) -> Result<Bytes, SceneError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner().into())
}

/// A JPEG as a phone held sideways writes it: the pixels are rotated, and EXIF orientation 6 says that the viewer must
/// rotate them clockwise by 90 degrees.
fn exif_rotated(picture: &RgbImage) -> Result<Bytes, SceneError> {
    /// APP1: one entry, tag 0x0112 (orientation), type 3 (short), count 1, value 6; big-endian TIFF.
    const EXIF: &[u8] = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let bytes = jpeg(&imageops::rotate270(picture))?;
    let (start, rest) = bytes.split_at(2);
    Ok([start, EXIF, rest].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with two portraits, one landscape and one group, each a small asymmetric drawing.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (n, file) in ["ann.png", "bob.jpg", "sea.jpg", "all.jpg"].into_iter().enumerate() {
            let picture = RgbImage::from_fn(120, 160, |x, y| Rgb([x as u8, y as u8, 60 * n as u8]));
            picture.save(folder.path().join(file)).unwrap();
        }
        let list = "file\tkind\tsource\tlicence\nann.png\tone\t-\t-\nbob.jpg\tone\nsea.jpg\tnone\nall.jpg\tseveral\n";
        fs::write(folder.path().join("photos.tsv"), list).unwrap();
        folder
    }

    #[test]
    fn same_photographs_give_the_same_collection() {
        let folder = folder();
        let scenes = [Scene::make(folder.path()).unwrap(), Scene::make(folder.path()).unwrap()];
        let [a, b] =
            scenes.each_ref().map(|scene| format!("{:?} {:?} {:?}", scene.routes, scene.collection, scene.truths));
        assert!(a == b);
    }

    #[test]
    fn truth_matches_the_collection() {
        let folder = folder();
        let scene = Scene::make(folder.path()).unwrap();
        assert_eq!(scene.truths.len(), PICTURES + 2 * PICTURES_OF_OTHERS);
        let faults = scene.collection.candidates() - scene.truths.len();
        assert!(faults > 30, "{faults}");
        assert_eq!(scene.truths.iter().filter(|truth| truth.tilt == 0.0 && truth.cut == "original").count(), 4);
        assert_eq!(scene.truth().lines().count(), 1 + scene.truths.len());

        let mut urls: Vec<_> = scene.collection.photos.iter().map(|photo| &photo.photo_url).collect();
        urls.retain(|url| !url.contains("not-a-candidate"));
        let all = urls.len();
        urls.sort();
        urls.dedup();
        assert_eq!(urls.len(), all, "every candidate has its own URL");
        let hosts = urls.iter().filter_map(|url| url::Url::parse(url).ok()?.host_str().map(str::to_owned));
        assert!(HOSTS.iter().all(|name| hosts.clone().any(|host| host == *name)));
    }

    #[test]
    fn positive_tilt_is_clockwise() {
        let mut photograph = RgbImage::new(201, 201);
        photograph.put_pixel(150, 100, Rgb([255, 255, 255]));
        let cut = Cut { name: "whole", width: 1.0, height: 1.0, centre: (0.5, 0.5), size: 201 };
        let brightest = |tilt| {
            let picture = tilted(&photograph, tilt, cut);
            let (x, y, _) = picture.enumerate_pixels().max_by_key(|(_, _, pixel)| pixel[0]).unwrap();
            (i64::from(x), i64::from(y))
        };
        for (tilt, expected) in [(0.0, (150, 100)), (90.0, (100, 150)), (-90.0, (100, 50)), (30.0, (143, 125))] {
            let found = brightest(tilt);
            assert!((found.0 - expected.0).abs() <= 1 && (found.1 - expected.1).abs() <= 1, "{tilt}: {found:?}");
        }
    }

    #[test]
    fn exif_rotated_picture_is_a_jpeg() {
        let picture = RgbImage::from_fn(40, 60, |x, y| Rgb([4 * x as u8, 4 * y as u8, 0]));
        let bytes = exif_rotated(&picture).unwrap();
        let decoded = image::load_from_memory(&bytes).unwrap().into_rgb8();
        assert_eq!(decoded.dimensions(), (60, 40));
        // Rotated clockwise, the bottom left corner becomes the top left one, which was black.
        assert!(decoded.get_pixel(0, 39).0.iter().all(|&value| value < 20), "{:?}", decoded.get_pixel(0, 39));
    }

    #[test]
    fn list_errors_name_the_line() {
        let folder = folder();
        let list = folder.path().join("photos.tsv");
        for (text, message) in [
            ("ann.png\tone\nbob.jpg\tmany\n", "line 2"),
            ("../ann.png\tone\n", "line 1"),
            ("ann.png\n", "line 1"),
            ("none.png\tone\n", "none.png"),
            ("sea.jpg\tnone\n", "no photograph with one face"),
        ] {
            fs::write(&list, text).unwrap();
            let error = Scene::make(folder.path()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
