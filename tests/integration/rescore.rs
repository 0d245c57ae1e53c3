//! `facemill rescore` in a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use facemill::archive::predictions::Predictions;
use facemill::domain::{Crop, PhotoKey, RunName};
use facemill::inference::Models;
use facemill::ledger::Ledger;
use facemill::ledger::sqlite::Sqlite;
use facemill::objects::ObjectKey;
use facemill::objects::folder::Folder;
use facemill::sqlite::{Access, Database};
use serde_json::{Value, json};

use crate::classifier::facemill;
use crate::own_classifier::brightness;
use crate::training::{SHOTS, answer, import, photo, run_folder};

fn committed() -> String {
    Models::find(std::env::var_os(Models::ENV).map(PathBuf::from)).classifier().to_str().unwrap().to_owned()
}

async fn status_of_first(out: &Path) -> String {
    let database = Database::open(&out.join("ledger.sqlite"), Access::Read).unwrap();
    let key = PhotoKey { run: RunName::default(), photo_id: 0.into() };
    format!("{:?}", Sqlite::open(database).await.unwrap().status(&key).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescore_scores_what_is_not_scored_and_changes_no_photo() {
    let folder = run_folder().await;
    let out = folder.path();
    let before = status_of_first(out).await;
    let model = committed();
    let part = answer(out, &["rescore", "--model", &model, "--where", "label in ('person 0', 'person 1')"]);
    assert_eq!([&part["crops"], &part["known"], &part["scored"]], [8, 0, 8]);
    let crops: Vec<Crop> = (0..SHOTS.len()).map(|shot| photo(0, shot).0.facts.crop.unwrap()).collect();
    let sha256 = part["sha256"].as_str().unwrap().parse().unwrap();
    let predictions = Predictions::new(Arc::new(Folder::at(out)));
    let mut first = Vec::new();
    for crop in &crops {
        first.push(predictions.read(sha256, crop.sha256).await.unwrap().unwrap());
    }
    assert!(first.iter().any(|prediction| prediction.p_ok != first[0].p_ok), "all scores are equal: {first:?}");

    // The rest, without a crop that is gone. What is known is neither read nor changed.
    let gone = photo(5, 0).0.facts.crop.unwrap();
    for crop in crops.iter().chain([&gone]) {
        std::fs::remove_file(out.join(ObjectKey::face(crop.sha256, crop.format).as_str())).unwrap();
    }
    let output = facemill(&["rescore", "--model", &model, "--json", "--out", out.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("1 crop cannot be scored"), "{error}");
    let rest: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!([&rest["crops"], &rest["known"], &rest["scored"], &rest["unreadable_count"]], [96, 8, 87, 1]);
    assert_eq!(rest["unreadable"][0]["crop"], json!(gone.sha256));
    for (crop, expected) in crops.iter().zip(&first) {
        assert_eq!(predictions.read(sha256, crop.sha256).await.unwrap().as_ref(), Some(expected));
    }
    assert_eq!(status_of_first(out).await, before);
    let status = answer(out, &["status"]);
    let rescore = &status["rescores"][0];
    assert_eq!([&rescore["crops"], &rescore["scored"], &rescore["unreadable"]], [96, 95, 1]);
    assert_eq!((&rescore["model"], &rescore["has_ended"]), (&part["model"], &json!(true)));
    let text = facemill(&["status", "--out", out.to_str().unwrap()]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = format!("95 of 96 crops scored again by {}, 1 cannot be scored\n", part["model"].as_str().unwrap());
    assert!(text.contains(&line), "{text}");

    // The model is stored, and its predictions count once it is the current one.
    let count = || answer(out, &["faces", "--count", "--where", "p_ok is not null"]);
    assert_eq!(count(), 0);
    answer(out, &["models", "use", part["model"].as_str().unwrap()]);
    assert_eq!(count(), 95);
    let near = format!("id = '0' and p_ok > {} and p_ok < {}", first[0].p_ok - 0.0001, first[0].p_ok + 0.0001);
    assert_eq!(answer(out, &["faces", "--count", "--where", &near]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_any_maker_are_compared_on_the_same_verdicts() {
    let folder = run_folder().await;
    let out = folder.path();
    let verdicts = std::fs::read_to_string(out.join("verdicts.jsonl")).unwrap();
    import(out, &verdicts);
    let own = out.join("own.onnx");
    std::fs::write(&own, brightness("2").encode()).unwrap();
    let first = answer(out, &["rescore", "--model", own.to_str().unwrap()]);
    assert_eq!(first.get("comparison"), None, "the run has no classifier");
    let name = first["model"].as_str().unwrap();
    assert!(name.starts_with("brightness-2@"), "{name}");

    // P(OK) is what the file computes.
    let (photo, bytes) = photo(0, 0);
    let crop = image::load_from_memory(&bytes).unwrap().to_rgb8();
    let mean = crop.as_raw().iter().map(|&value| f64::from(value)).sum::<f64>() / crop.as_raw().len() as f64 / 255.0;
    let sha256 = first["sha256"].as_str().unwrap().parse().unwrap();
    let predictions = Predictions::new(Arc::new(Folder::at(out)));
    let prediction = predictions.read(sha256, photo.facts.crop.unwrap().sha256).await.unwrap().unwrap();
    assert!((prediction.p_ok - mean).abs() < 0.01, "{} for {mean}", prediction.p_ok);

    // A stored model is named, and is compared with the current one on the test part.
    answer(out, &["models", "use", name, "--threshold", "0.25"]);
    let committed = committed();
    let second = answer(out, &["rescore", "--model", &committed]);
    let comparison = &second["comparison"];
    assert_eq!((&comparison["model"], &comparison["before"]["threshold"]), (&json!(name), &json!(0.25)));
    let figures = |of: &str| {
        let figures = &comparison[of];
        ["ok_as_ok", "ok_as_ng", "ng_as_ok", "ng_as_ng"].iter().map(|name| figures[name].as_u64().unwrap()).sum()
    };
    let crops: [u64; 2] = ["before", "now"].map(figures);
    assert_eq!(comparison["crops"].as_u64(), Some(crops[0]));
    assert!(crops[0] == crops[1] && (4..96).contains(&crops[0]), "{comparison}");
    let again = answer(out, &["rescore", "--model", name]);
    assert_eq!([&again["known"], &again["scored"]], [96, 0]);
    let rescores = answer(out, &["status"])["rescores"].as_array().unwrap().len();
    assert_eq!(rescores, 2);
}
