//! `--landmarks permissive`: runs without the model that may not be used commercially.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use facemill::domain::{Align, FacePolicy, LandmarkScheme, Search};
use facemill::inference::Models;
use facemill::vision::align;
use facemill::vision::detector::{Detector, OpenError};
use facemill::vision::geometry::{Square, wrap};
use facemill::vision::image::{Limits, decode};
use serde_json::Value;

use reference::{Kind, Sample, quantile};
use support::reference;

const PORTRAITS: [&str; 4] = ["obama.jpg", "obama3.jpg", "biden.jpg", "astronaut.png"];

/// A folder with photographs, one with the models except dlib's landmarks, and the output of a run.
struct Desk {
    scratch: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { scratch: tempfile::tempdir().unwrap() };
        let all = Models::find(std::env::var_os(Models::ENV).map(PathBuf::from));
        std::fs::create_dir_all(desk.models().folder()).unwrap();
        let needed = |models: &Models| [models.mesh(), models.yunet(), models.classifier(), models.onnxruntime()];
        for (file, link) in needed(&all).iter().zip(needed(&desk.models())) {
            let file = file.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            std::os::unix::fs::symlink(file, link).unwrap();
        }
        std::fs::create_dir_all(desk.photos()).unwrap();
        for name in PORTRAITS {
            std::fs::copy(reference::package_photos().join(name), desk.photos().join(name)).unwrap();
        }
        desk
    }

    fn models(&self) -> Models {
        Models::at(self.scratch.path().join("models"))
    }

    fn photos(&self) -> PathBuf {
        self.scratch.path().join("photos")
    }

    /// Runs the program with the models of the desk on an output folder.
    fn facemill(&self, out: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_facemill"))
            .args(arguments)
            .arg("--out")
            .arg(self.scratch.path().join(out))
            .env(Models::ENV, self.models().folder())
            .output()
            .unwrap()
    }

    fn read(&self, file: &str) -> String {
        let path = self.scratch.path().join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn square(face: &Value) -> Square {
    let number = |value: &Value| value.as_f64().unwrap();
    let centre = [0, 1].map(|axis| number(&face["centre"][axis]));
    Square { centre, side: number(&face["side"]), angle: number(&face["angle"]) }
}

#[test]
fn a_run_with_permissive_landmarks_needs_no_other_model() {
    let desk = Desk::new();
    let photos = desk.photos();
    let photos = photos.to_str().unwrap();
    let refused = desk.facemill("ibug", &["run", photos]);
    assert!(!refused.status.success() && text(&refused).contains("landmarks-68.dat"), "{}", text(&refused));
    let run = desk.facemill("out", &["run", photos, "--landmarks", "permissive"]);
    assert!(run.status.success(), "{}", text(&run));

    let settings: Value = serde_json::from_str(&desk.read("out/runs/default/settings.json")).unwrap();
    assert_eq!(settings["landmarks"], "permissive");
    let faces: Vec<Value> =
        desk.read("out/faces.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(faces.len(), PORTRAITS.len());
    let detector = ibug();
    for face in &faces {
        assert_eq!(face["landmark_scheme"], "permissive");
        assert_eq!(face["landmarks"].as_array().unwrap().len(), 68);
        let name = PORTRAITS.iter().find(|name| face["photo_url"].as_str().unwrap().ends_with(*name)).unwrap();
        let other = find(&detector, &desk.photos().join(name), LandmarkScheme::Ibug).unwrap();
        let square = square(face);
        assert!(wrap(square.angle - other.angle).abs() < 2.0, "{name}: {square:?}, not {other:?}");
        assert!(square.overlap(&other) > 0.85, "{name}: {square:?}, not {other:?}");
    }

    // A run keeps its landmarks: mixed ones ruin a dataset as mixed alignments do.
    let again = desk.facemill("out", &["run", photos]);
    assert!(again.status.success(), "the setting is taken from the run: {}", text(&again));
    let doctor = desk.facemill("out", &["doctor", "--landmarks", "permissive"]);
    assert!(doctor.status.success() && text(&doctor).contains("permissive landmarks"), "{}", text(&doctor));
    let doctor = desk.facemill("out", &["doctor"]);
    assert!(!doctor.status.success() && text(&doctor).contains("landmarks-68.dat"), "{}", text(&doctor));
    let status = desk.facemill("out", &["status"]);
    assert!(text(&status).contains("permissive"), "{}", text(&status));
}

fn ibug() -> Detector {
    let models = Models::find(std::env::var_os(Models::ENV).map(PathBuf::from));
    Detector::open(&models, 2, LandmarkScheme::Ibug).expect("the models (`make setup` fetches them)")
}

fn find(detector: &Detector, photo: &Path, scheme: LandmarkScheme) -> Option<Square> {
    let bytes = std::fs::read(photo).unwrap_or_else(|error| panic!("{}: {error}", photo.display()));
    let picture = decode(&bytes, Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", photo.display()));
    let face = detector.find(&picture, Search::Guided, scheme, 1, FacePolicy::One).ok()?;
    assert_eq!(face.landmark_scheme, scheme);
    Some(align::square(&face.landmarks, Align::Paper))
}

/// A worker serves runs of both schemes.
#[test]
fn a_detector_loads_the_other_landmarks_when_a_photo_needs_them() {
    let desk = Desk::new();
    assert!(matches!(Detector::open(&desk.models(), 1, LandmarkScheme::Ibug), Err(OpenError::Landmarks(_))));
    let detector = Detector::open(&desk.models(), 1, LandmarkScheme::Permissive).unwrap();
    let photo = desk.photos().join(PORTRAITS[0]);
    let first = find(&detector, &photo, LandmarkScheme::Permissive).unwrap();
    assert_eq!(find(&detector, &photo, LandmarkScheme::Ibug), None, "its model is not there");
    let both = ibug();
    let of_ibug = find(&both, &photo, LandmarkScheme::Ibug).unwrap();
    assert_eq!(find(&both, &photo, LandmarkScheme::Permissive), Some(first));
    assert_eq!(find(&both, &photo, LandmarkScheme::Ibug), Some(of_ibug));
    assert_ne!(first, of_ibug);
}

#[test]
fn the_published_search_takes_permissive_landmarks() {
    let photo = reference::package_photos().join(PORTRAITS[0]);
    let picture = decode(&std::fs::read(photo).unwrap(), Limits::default()).unwrap();
    let picture = reference::rotated(&picture, 20.0);
    let detector = ibug();
    let [guided, full] = [Search::Guided, Search::Full].map(|search| {
        let face = detector.find(&picture, search, LandmarkScheme::Permissive, 1, FacePolicy::One).expect("one face");
        align::square(&face.landmarks, Align::Paper)
    });
    assert!(guided.overlap(&full) > 0.9, "{guided:?}, not {full:?}");
}

#[test]
#[ignore = "needs the reference data: FACEMILL_TEST_DATA, or shared/data beside the project"]
fn permissive_landmarks_find_the_same_faces_and_nearly_the_same_squares() {
    let data = reference::required_data();
    let detector = ibug();
    let samples: Vec<Sample> = reference::samples(&data)
        .into_iter()
        .filter(|sample| matches!(sample.kind, Kind::Single | Kind::Tilted))
        .step_by(3)
        .collect();
    let (mut overlaps, mut errors) = (Vec::new(), Vec::new());
    for sample in &samples {
        let [ibug, permissive] = LandmarkScheme::ALL.map(|scheme| find(&detector, &sample.path, scheme));
        assert_eq!(ibug.is_some(), permissive.is_some(), "{}", sample.name);
        let (Some(ibug), Some(permissive)) = (ibug, permissive) else { continue };
        overlaps.push(ibug.overlap(&permissive));
        errors.extend(sample.roll().map(|roll| wrap(permissive.angle - roll).abs()));
    }
    assert!(overlaps.len() > 140 && errors.len() > 30, "{} {}", overlaps.len(), errors.len());
    let (median, worst) = (quantile(&errors, 0.5), quantile(&errors, 1.0));
    println!("angle errors: median {median:.3}, largest {worst:.3}; overlap {:.3}", quantile(&overlaps, 0.5));
    assert!(median <= 0.6 && worst <= 2.0, "angle errors: median {median}, largest {worst}");
    assert!(quantile(&overlaps, 0.5) >= 0.94 && quantile(&overlaps, 0.01) >= 0.75, "{overlaps:?}");
}
