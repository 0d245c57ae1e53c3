//! The committed classifier, and the training of a new one, end to end.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use facemill::archive::predictions::Predictions;
use facemill::classifier::model::{Input, MIRRORS, Model, ModelFile, meta};
use facemill::domain::{
    Align, Candidate, ContentHash, Crop, FacePolicy, ImageFormat, LandmarkScheme, Photo, RunName, Search,
};
use facemill::inference::onnx::ModelProto;
use facemill::inference::{Models, Runtime};
use facemill::objects::{ObjectKey, Objects};
use facemill::pipeline::classify::Classify;
use facemill::pipeline::stage::{Outcome, Stage};
use facemill::training::labels::{FILE, LabelledCrop};
use facemill::training::random::Random;
use facemill::vision::align;
use facemill::vision::detector::Detector;
use facemill::vision::geometry::Square;
use facemill::vision::image::{Limits, decode, encode};
use support::objects::MemoryObjects;
use support::portraits::{CROP, CUT, MIDDLE, WHOLE, cropped, draw_portrait, mirrors};

pub fn models() -> Models {
    Models::find(std::env::var_os(Models::ENV).map(PathBuf::from))
}

fn runtime() -> Runtime {
    Runtime::load(&models().onnxruntime()).expect("onnxruntime (`make setup` fetches it)")
}

fn committed() -> Model {
    Model::open(&models().classifier(), &runtime()).expect("models/classifier.onnx")
}

#[test]
fn the_committed_classifier_has_its_metadata() {
    let path = models().classifier();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() < 4_000_000, "{} bytes", bytes.len());
    let file = ModelProto::decode(&bytes).unwrap();
    assert_eq!(file.metadata(meta::NAME), Some("facemill-okng"));
    assert_eq!(file.metadata(meta::TRAINING_DIGEST).map(str::len), Some(64));
    assert!(file.metadata(meta::CREATED_FROM).is_some_and(|text| text.contains("crops")));
    let model = committed();
    let hash = ContentHash::of(&bytes).to_string();
    assert_eq!(model.name(), format!("facemill-okng-1@{}", &hash[..8]));
    assert!((0.05..0.95).contains(&model.threshold()), "{}", model.threshold());
    let card = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/classifier.md")).unwrap();
    assert!(card.contains(&hash), "models/classifier.md does not describe the file with sha256 {hash}");
}

/// Photographs of whole heads: governors, who are not in the training data, or the photographs of `make setup`.
fn portraits() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = std::env::var_os("FACEMILL_TEST_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let folders = [data.join("photos/us-governors"), root.join(".cache/photos")];
    let Some(listing) = folders.iter().find_map(|folder| std::fs::read_dir(folder).ok()) else { return Vec::new() };
    let mut files: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[test]
fn a_second_face_is_ng_and_a_whole_head_ok() {
    let mut model = committed();
    let detector = Detector::open(&models(), 1, LandmarkScheme::Ibug).unwrap();
    let (mut photos, mut whole_ok, mut cut_ok) = (0, 0, 0);
    for file in portraits().iter().take(4) {
        let Ok(photo) = decode(&std::fs::read(file).unwrap(), Limits::default()) else { continue };
        let Ok(face) = detector.find(&photo, Search::Guided, LandmarkScheme::Ibug, 1, FacePolicy::One) else {
            continue;
        };
        let square = align::square(&face.landmarks, Align::Paper);
        // Cut at the brows: the mirror shows eyes and nose upside down.
        let top = face.landmarks.iter().map(|point| point[1]).fold(f32::INFINITY, f32::min) as u32;
        let cut = image::imageops::crop_imm(&photo, 0, top, photo.width(), photo.height() - top).to_image();
        let lower = Square { centre: [square.centre[0], square.centre[1] - f64::from(top)], ..square };
        let inputs = [(&photo, square), (&cut, lower)]
            .map(|(photo, square)| Input::new(&align::cut(photo, &square, 224), mirrors(&square, photo)));
        let scores = model.predict(&inputs).unwrap();
        photos += 1;
        whole_ok += i32::from(scores[0] >= model.threshold());
        cut_ok += i32::from(scores[1] >= model.threshold());
    }
    assert!(photos > 0, "no photographs of faces: run `make setup`");
    // Some photographs from packages cut the head.
    assert!(2 * whole_ok > photos, "{whole_ok} of {photos} whole heads are predicted OK");
    assert_eq!(cut_ok, 0, "of {photos} crops with a second face are predicted OK");
}

#[test]
fn a_score_has_the_same_bits_in_every_batch() {
    let mut model = committed();
    let mut random = Random::seeded(2);
    let inputs: Vec<Input> = (0..16)
        .map(|i| {
            let (crop, mirrors) = cropped(&draw_portrait(&mut random), 12.0 + 3.0 * f64::from(i));
            Input::new(&crop, mirrors)
        })
        .collect();
    let batched = model.predict(&inputs).unwrap();
    let alone: Vec<f64> = inputs.iter().map(|input| model.predict(std::slice::from_ref(input)).unwrap()[0]).collect();
    let reversed: Vec<Input> = inputs.iter().rev().take(7).cloned().collect();
    let reversed = model.predict(&reversed).unwrap();
    assert_eq!(batched, alone);
    assert!(reversed.iter().eq(batched.iter().rev().take(7)));
    assert!(batched.windows(2).any(|pair| pair[0] != pair[1]), "all scores are equal: {batched:?}");
    assert_eq!(model.predict(&[]).unwrap(), [0.0; 0]);
}

#[test]
fn other_files_are_rejected_by_name() {
    let yunet = Model::open(&models().yunet(), &runtime()).err().unwrap().to_string();
    assert!(yunet.contains("yunet.onnx") && yunet.contains("`name`"), "{yunet}");
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.onnx");
    std::fs::write(&text, "not a model").unwrap();
    let error = Model::open(&text, &runtime()).err().unwrap().to_string();
    assert!(error.contains("text.onnx") && error.contains("facemill train"), "{error}");
}

fn photo(id: i64, sha256: ContentHash, mirrors: &[f32; MIRRORS]) -> Photo {
    let candidate = Candidate {
        photo_id: id.into(),
        face_id: id.into(),
        label_id: 1.into(),
        label_name: Some("a drawing".into()),
        photo_url: format!("http://photos.test/{id}.jpg"),
        source_url: None,
        posted_at: None,
        source: None,
        columns: Default::default(),
    };
    let mut photo = Photo::new(RunName::default(), candidate);
    photo.facts.crop = Some(Crop {
        sha256,
        format: ImageFormat::Png,
        align: Align::Paper,
        fill: Default::default(),
        angle: 0.0,
        centre: [MIDDLE, MIDDLE],
        side: CROP,
        size: 128,
        landmarks: vec![[0.0; 2]; 68],
        mirrored: mirrors[0].into(),
        mirrored_head: mirrors[1].into(),
        mirrored_grid: mirrors[2..].to_vec(),
        blur: 100.0,
        exposure: 0.5,
        quality: None,
        fingerprint: None,
    });
    photo
}

#[tokio::test]
async fn the_stage_adds_the_prediction() {
    let objects = Arc::new(MemoryObjects::default());
    let mut random = Random::seeded(3);
    let mut expected = Vec::new();
    let mut photos = Vec::new();
    let mut model = committed();
    for i in 0..6 {
        let (crop, mirrors) = cropped(&draw_portrait(&mut random), if i % 2 == 0 { WHOLE } else { CUT });
        let bytes = encode(&crop, ImageFormat::Png).unwrap();
        let hash = ContentHash::of(&bytes);
        objects.put(&ObjectKey::face(hash, ImageFormat::Png), bytes.into(), "image/png").await.unwrap();
        expected.push((model.predict(&[Input::new(&crop, mirrors)]).unwrap()[0] * 1e4).round() / 1e4);
        photos.push(photo(i, hash, &mirrors));
    }
    let name = model.name().to_owned();
    let file = Arc::new(ModelFile::read(&models().classifier()).unwrap());
    let stage = Classify::new(objects.clone(), file.clone(), &runtime(), 2).unwrap();
    let predictions = Predictions::new(objects);
    let outcomes = futures::future::join_all(photos.iter().map(|photo| stage.run(photo))).await;
    for ((outcome, photo), expected) in outcomes.into_iter().zip(&photos).zip(expected) {
        let Outcome::Advance(scored) = outcome else { panic!("{outcome:?}") };
        let prediction = scored.facts.prediction.clone().unwrap();
        assert_eq!((prediction.p_ok, &prediction.model, prediction.model_sha256), (expected, &name, file.sha256));
        let crop = scored.facts.crop.as_ref().unwrap().sha256;
        assert_eq!(predictions.read(file.sha256, crop).await.unwrap(), Some(prediction));
        assert_eq!((&scored.candidate, &scored.facts.crop), (&photo.candidate, &photo.facts.crop));
    }
}

/// Writes labelled crops of drawn portraits to a folder. Half of them are OK.
fn write_portraits(folder: &Path, people: u64) {
    let mut lines = String::new();
    for person in 0..people {
        for (shot, above) in [WHOLE, WHOLE - 8.0, CUT, CUT + 8.0].into_iter().enumerate() {
            let portrait = draw_portrait(&mut Random::seeded(100 + 10 * person + shot as u64));
            let (crop, mirrors) = cropped(&portrait, above);
            let file = PathBuf::from(format!("{person}-{shot}.png"));
            std::fs::write(folder.join(&file), encode(&crop, ImageFormat::Png).unwrap()).unwrap();
            let label = LabelledCrop {
                file,
                ok: shot < 2,
                group: Some(format!("person {person}")),
                mirrored: mirrors[0].into(),
                mirrored_head: mirrors[1].into(),
                mirrored_grid: mirrors[2..].to_vec(),
            };
            lines += &serde_json::to_string(&label).unwrap();
            lines.push('\n');
        }
    }
    std::fs::write(folder.join(FILE), lines).unwrap();
}

pub fn facemill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facemill")).args(arguments).env(Models::ENV, models().folder()).output().unwrap()
}

#[test]
fn training_learns_and_is_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    write_portraits(folder.path(), 14);
    let labels = folder.path().to_str().unwrap();
    let files = ["a.onnx", "b.onnx"].map(|name| folder.path().join(name));
    for file in &files {
        let features = folder.path().join("features.sqlite");
        let features = ["--features", features.to_str().unwrap()];
        let output = facemill(&[&["train", labels, "--to", file.to_str().unwrap(), "--json"], &features[..]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let report = &answer["report"];
        let sides = [&report["training"], &report["test"]];
        let sum = |name: &str| sides.iter().map(|side| side[name].as_u64().unwrap()).sum::<u64>();
        assert_eq!([sum("crops"), sum("ok"), sum("groups")], [56, 28, 14]);
        assert_eq!(report["head"], "logistic");
        assert!(report["model"]["auc"].as_f64().unwrap() > 0.9, "no better than chance: {report}");
        assert!(report["beats_grid"].is_boolean(), "{report}");
    }
    assert_eq!(std::fs::read(&files[0]).unwrap(), std::fs::read(&files[1]).unwrap());

    let page = folder.path().join("page.html");
    let measured = |more: &[&str]| {
        let model = files[0].to_str().unwrap();
        let measured = facemill(&[&["evaluate", model, labels, "--page", page.to_str().unwrap()], more].concat());
        String::from_utf8(measured.stdout).unwrap()
    };
    let text = measured(&["--all"]);
    assert!(text.starts_with("facemill-okng-1@") && text.contains(": 56 crops, 28 of them OK"), "{text}");
    // On the people of the test part, the whole file gives the figures that the training gave.
    let text = measured(&["--json"]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let report: serde_json::Value =
        serde_json::from_str(&ModelFile::read(&files[0]).unwrap().metadata(meta::MEASURES).unwrap()).unwrap();
    assert_eq!((found["crops"].as_u64(), &found["measures"]["ok_as_ok"]), (Some(12), &report["ok_as_ok"]));
    assert!((found["auc"]["value"].as_f64().unwrap() - report["auc"].as_f64().unwrap()).abs() < 1e-9);
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("<h2>Worst mistakes</h2>") && !page.contains("<script"), "{page}");
    let mut model = Model::open(&files[0], &runtime()).unwrap();
    let (crop, mirrors) = cropped(&draw_portrait(&mut Random::seeded(5)), CUT);
    assert!(model.predict(&[Input::new(&crop, mirrors)]).unwrap()[0] < 0.5);
}

#[test]
fn errors_name_the_label_and_the_line() {
    let folder = tempfile::tempdir().unwrap();
    write_portraits(folder.path(), 2);
    let labels = folder.path().join(FILE);
    let out = folder.path().join("out.onnx");
    let lines = std::fs::read_to_string(&labels).unwrap();
    let error = |text: String| {
        std::fs::write(&labels, text).unwrap();
        let output = facemill(&["train", labels.to_str().unwrap(), "--to", out.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3));
        assert!(!out.exists(), "a failed training left a file");
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = error(lines.replace("1-0.png", "1-9.png"));
    assert!(missing.contains("labels.jsonl:5: ") && missing.contains("1-9.png"), "{missing}");
    let broken = error(lines.replacen("\"ok\":true", "\"ok\":maybe", 1));
    assert!(broken.contains("labels.jsonl:1: not a label"), "{broken}");
    let one_class = error(lines.replace("\"ok\":true", "\"ok\":false"));
    assert!(one_class.contains("has 0 OK") && one_class.contains("judge more crops"), "{one_class}");
    let empty = error(String::new());
    assert!(empty.contains("has no labels"), "{empty}");
    write_portraits(folder.path(), 8);
    std::fs::write(folder.path().join("0-1.png"), "not an image").unwrap();
    let undecodable = error(std::fs::read_to_string(&labels).unwrap());
    assert!(undecodable.contains("0-1.png"), "{undecodable}");
}
