//! `facemill train` from the verdicts of a run in a folder.

use std::path::Path;
use std::sync::Arc;

use facemill::archive::crop_groups::CropGroup;
use facemill::archive::duplicates::StoredDuplicates;
use facemill::broker::embedded::Embedded;
use facemill::domain::{
    Align, ContentHash, Crop, Ending, Face, ImageFormat, LandmarkScheme, Message, Original, Photo, Position, RunName,
    Search, StageName,
};
use facemill::ledger::Ledger;
use facemill::ledger::sqlite::Sqlite;
use facemill::objects::folder::Folder;
use facemill::objects::{ObjectKey, Objects};
use facemill::sqlite::{Access, Database};
use facemill::training::example::Side;
use facemill::training::random::Random;
use facemill::vision::image::encode;
use serde_json::{Value, json};

use crate::classifier::facemill;
use support::portraits::{CROP, CUT, MIDDLE, SIDE, WHOLE, cropped, draw_portrait};

/// People in the run. Six of them are on the test side.
pub const PEOPLE: u64 = 24;
/// Crops of each: those with a whole head, and those with a second one.
pub const SHOTS: [f64; 4] = [WHOLE, WHOLE - 8.0, CUT, CUT + 8.0];

pub fn photo(person: u64, shot: usize) -> (Photo, Vec<u8>) {
    let portrait = draw_portrait(&mut Random::seeded(100 + 10 * person + shot as u64));
    let (pixels, mirrors) = cropped(&portrait, SHOTS[shot]);
    let bytes = encode(&pixels, ImageFormat::Png).unwrap();
    let id = 10 * person + shot as u64;
    let top = (MIDDLE - SHOTS[shot]) as u32;
    let mut photo = support::faces::photo(id);
    photo.candidate.label_id = (person as i64).into();
    photo.candidate.label_name = Some(format!("person {person}"));
    let facts = &mut photo.facts;
    facts.original = Some(Original { sha256: ContentHash::of(&id.to_le_bytes()), bytes: 1, format: ImageFormat::Jpeg });
    facts.face = Some(Face {
        width: SIDE,
        height: SIDE - top,
        angle: 0.0,
        score: 1.0,
        landmarks: vec![[1.0, 2.0]; 68],
        faces: 1,
        landmark_scheme: LandmarkScheme::Ibug,
        search: Search::Guided,
    });
    facts.crop = Some(Crop {
        sha256: ContentHash::of(&bytes),
        format: ImageFormat::Png,
        align: Align::Paper,
        angle: 0.0,
        centre: [MIDDLE, MIDDLE + 3.0 - f64::from(top)],
        side: CROP,
        size: pixels.width(),
        landmarks: vec![[0.0; 2]; 68],
        mirrored: mirrors[0].into(),
        mirrored_head: mirrors[1].into(),
        mirrored_grid: mirrors[2..].to_vec(),
        ..facts.crop.clone().unwrap()
    });
    facts.prediction = None;
    (photo, bytes)
}

/// The photos of the run with the files of their crops, and a judgement of each, a line in JSON.
pub fn judged_photos() -> Vec<(Photo, Vec<u8>, String)> {
    let shots = (0..PEOPLE).flat_map(|person| (0..SHOTS.len()).map(move |shot| (person, shot)));
    let judged = |(person, shot)| {
        let (photo, bytes) = photo(person, shot);
        let judgement = if shot < 2 { "ok" } else { "ng" };
        let line = json!({ "photo_id": photo.candidate.photo_id, "judgement": judgement });
        (photo, bytes, format!("{line}\n"))
    };
    shots.map(judged).collect()
}

/// The message of a photo that classify has ended.
pub fn last_message(photo: Photo) -> Message {
    let position = Position::entering(StageName::Classify);
    Message { position, ..Message::first(photo, 1_700_000_000) }
}

/// The folder of a run with crops of drawn people, and a file with a judgement of each.
pub async fn run_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    let ledger = Sqlite::open(database.clone()).await.unwrap();
    Embedded::open(database, Embedded::CAPACITY).await.unwrap();
    let objects = Folder::at(folder.path());
    let mut lines = String::new();
    for (photo, bytes, line) in judged_photos() {
        let crop = photo.facts.crop.as_ref().unwrap();
        objects.put(&ObjectKey::face(crop.sha256, crop.format), bytes.into(), "image/png").await.unwrap();
        lines += &line;
        assert!(ledger.restore(&last_message(photo), Ending::Predicted, None).await.unwrap());
    }
    std::fs::write(folder.path().join("verdicts.jsonl"), lines).unwrap();
    folder
}

/// The JSON that a command about the run prints.
pub fn answer(out: &Path, arguments: &[&str]) -> Value {
    let output = facemill(&[arguments, &["--json", "--out", out.to_str().unwrap()]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

pub fn import(out: &Path, lines: &str) {
    let file = out.join("more.jsonl");
    std::fs::write(&file, lines).unwrap();
    answer(out, &["verdicts", "import", file.to_str().unwrap()]);
}

/// A verdict on the second whole head of a person.
fn verdict(person: u64, id: &str, fields: Value) -> String {
    let mut verdict = json!({ "id": id, "photo_id": 10 * person as i64 + 1, "by": "ada", "at": 1 });
    verdict.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    format!("{verdict}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_train_a_classifier_that_the_run_can_use() {
    let folder = run_folder().await;
    let out = folder.path();
    let verdicts = out.join("verdicts.jsonl");
    // The verdicts on these five crops contradict what the picture shows, so they are not to be learnt from.
    let judged = std::fs::read_to_string(&verdicts).unwrap();
    let odd = |line: &&str| (0..5).any(|person| line.contains(&format!("\"photo_id\":{}}}", 10 * person + 1)));
    let plain: String = judged.lines().filter(|line| !odd(line)).map(|line| format!("{line}\n")).collect();
    assert_eq!(plain.lines().count(), 91);
    import(out, &plain);
    let others = [
        verdict(0, "bulk", json!({ "judgement": "ng", "view": "bulk" })),
        verdict(1, "wrong", json!({ "judgement": "ng", "reason": "wrong-person" })),
        verdict(2, "first", json!({ "judgement": "ng" })),
        verdict(2, "undo", json!({ "judgement": "unjudged", "replaces": ["first"] })),
        verdict(3, "one", json!({ "judgement": "ng" })),
        verdict(3, "other", json!({ "judgement": "ok", "by": "grace" })),
        verdict(4, "later", json!({ "judgement": "pending" })),
    ];
    import(out, &others.concat());

    let trained = answer(out, &["train"]);
    let left_out = &trained["left_out"];
    let expected = json!({
        "in_bulk": 1, "pending": 2, "placeholder": 0, "wrong_person": 1, "ambiguous": 0, "near_test": 0,
        "too_many": 0
    });
    assert_eq!((left_out, &trained["unreadable"]), (&expected, &json!(0)));
    let report = &trained["report"];
    let [training, test] = [&report["training"], &report["test"]];
    assert_eq!([&training["groups"], &test["groups"]], [18, 6]);
    assert_eq!(training["crops"].as_u64().unwrap() + test["crops"].as_u64().unwrap(), 91);
    assert!(report["model"]["auc"].as_f64().unwrap() > 0.9, "no better than chance: {report}");
    assert_eq!(report.get("comparison"), None, "the run had no classifier");
    let listed = answer(out, &["models", "list"]);
    assert_eq!((&listed[0]["sha256"], &listed[0]["current"]), (&trained["sha256"], &json!(false)));

    // Features are kept, and the same verdicts give the same file, also where the crops are gone.
    assert!(out.join("features.sqlite").exists());
    std::fs::rename(out.join("faces"), out.join("moved")).unwrap();
    let again = answer(out, &["train", "--use"]);
    assert_eq!((&again["sha256"], &again["unreadable"]), (&trained["sha256"], &json!(0)));
    assert_eq!(answer(out, &["models", "list"])[0]["current"], true);

    // The figures are of the people that the training left out.
    std::fs::rename(out.join("moved"), out.join("faces")).unwrap();
    let name = trained["model"].as_str().unwrap();
    let found = answer(out, &["evaluate", name, "--learning-curve"]);
    assert_eq!((&found["crops"], &found["groups"]), (&test["crops"], &json!(6)));
    assert_eq!(found["measures"]["ok_as_ok"], report["model"]["ok_as_ok"]);
    let accuracy = ["low", "value", "high"].map(|name| found["accuracy"][name].as_f64().unwrap());
    assert!(accuracy[0] <= accuracy[1] && accuracy[1] <= accuracy[2], "{accuracy:?}");
    assert_eq!(found["learning"][0]["verdicts"], training["crops"]);
    assert!(std::fs::read_to_string(out.join("evaluation.html")).unwrap().contains(name));
    let all = answer(out, &["evaluate", name, "--all"]);
    assert_eq!(all["crops"], 91);

    // More verdicts move nobody to the other side. Crops that are missing are counted.
    import(out, &verdict(5, "changed", json!({ "judgement": "pending", "replaces": [] })));
    std::fs::remove_file(out.join("features.sqlite")).unwrap();
    let (photo, _) = photo(6, 0);
    let crop = photo.facts.crop.unwrap();
    let key = ObjectKey::face(crop.sha256, crop.format);
    std::fs::remove_file(out.join(key.as_str())).unwrap();
    let last = answer(out, &["train"]);
    assert_eq!(last["unreadable"], 1);
    assert_eq!(last["report"]["test"]["groups"], 6);
    assert_ne!(last["sha256"], trained["sha256"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_that_the_score_has_chosen_calibrate_less() {
    let folder = run_folder().await;
    let out = folder.path();
    let judged = std::fs::read_to_string(out.join("verdicts.jsonl")).unwrap();
    let chosen = |selection: &str, since: i64| -> String {
        let line = |line: &str| {
            let mut verdict: Value = serde_json::from_str(line).unwrap();
            let id = format!("{selection}-{}", verdict["photo_id"]);
            let more = json!({ "id": id, "by": "ada", "at": since, "selection": selection });
            verdict.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            format!("{verdict}\n")
        };
        judged.lines().map(line).collect()
    };
    import(out, &chosen("random", 1));
    let random = answer(out, &["train", "--use"]);
    let name = random["model"].as_str().unwrap();
    answer(out, &["rescore", "--model", name]);
    assert_eq!(answer(out, &["train"])["sha256"], random["sha256"], "scores do not matter to random verdicts");

    import(out, &chosen("suggested", 2));
    let suggested = answer(out, &["train"]);
    assert_ne!(suggested["sha256"], random["sha256"]);
    assert_eq!([&random["chosen_by_p_ok"], &suggested["chosen_by_p_ok"]], [&json!(0), &json!(96)]);
    let [before, now] = [&random, &suggested].map(|trained| &trained["report"]);
    assert_eq!(
        [&before["training"], &before["test"], &before["penalty"]],
        [&now["training"], &now["test"], &now["penalty"]]
    );
    assert_eq!(before["model"]["auc"], now["model"]["auc"], "only the calibration is another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn near_duplicates_of_the_test_part_do_not_train() {
    let folder = run_folder().await;
    let out = folder.path();
    answer(out, &["verdicts", "import", out.join("verdicts.jsonl").to_str().unwrap()]);
    let person = |side: Side| (0..PEOPLE).find(|person| Side::of(&format!("label person {person}")) == side).unwrap();
    let (learnt, tested) = (person(Side::Training), person(Side::Test));
    let crop = |person, shot| photo(person, shot).0.facts.crop.unwrap().sha256;
    let groups = [
        CropGroup { crops: vec![crop(learnt, 0), crop(tested, 1)] },
        CropGroup { crops: vec![crop(tested, 2), crop(tested, 3)] },
    ];
    let stored = StoredDuplicates::new(Arc::new(Folder::at(out)), RunName::default());
    let before = answer(out, &["train"]);
    stored.groups.write(&groups, 96, 1_700_000_000).await.unwrap();
    let trained = answer(out, &["train"]);
    assert_eq!((&before["left_out"]["near_test"], &trained["left_out"]["near_test"]), (&json!(0), &json!(1)));
    let crops = |trained: &Value, side: &str| trained["report"][side]["crops"].as_u64().unwrap();
    assert_eq!(crops(&trained, "training"), crops(&before, "training") - 1);
    assert_eq!(crops(&trained, "test"), crops(&before, "test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_verdicts_are_an_error_that_says_so() {
    let folder = run_folder().await;
    let out = folder.path().to_str().unwrap();
    let output = facemill(&["train", "--out", out]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("the training part has 0 OK and 0 NG crops") && error.contains("judge more"), "{error}");
}
