//! `facemill suggest`: what to judge next, how many OK are left, and verdicts to look at again.

use std::collections::BTreeSet;
use std::path::Path;

use facemill::archive::predictions::Predictions;
use facemill::classifier::model::ModelFile;
use facemill::domain::{ContentHash, Prediction};
use facemill::objects::folder::Folder;
use serde_json::{Value, json};

use crate::training::{answer, import, run_folder};

/// Faces of the run.
const FACES: usize = 96;

fn ids(faces: &Value, selection: &str) -> Vec<u64> {
    let faces = faces.as_array().unwrap().iter().filter(|face| face["selection"] == selection);
    faces.map(|face| face["photo_id"].as_u64().unwrap()).collect()
}

/// Whether the crop shows a whole head.
fn is_ok(id: u64) -> bool {
    id % 10 < 2
}

fn verdict(id: u64, ok: bool, selection: &str) -> String {
    let judgement = if ok { "ok" } else { "ng" };
    let fields = json!({
        "id": format!("{selection}-{id}"), "photo_id": id, "judgement": judgement, "by": "ada",
        "at": 1_764_000_000_000u64 + id, "selection": selection, "view": "single",
    });
    format!("{fields}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn typical_faces_come_first_without_a_model_and_random_ones_tell_how_many_are_left() {
    let folder = run_folder().await;
    let out = folder.path();
    let first = answer(out, &["suggest", "--limit", "200"]);
    assert_eq!((&first["method"], &first["why"]), (&json!("typical"), &json!("the run has no classifier")));
    let [suggested, random] = ["suggested", "random"].map(|selection| ids(&first["faces"], selection));
    let all: BTreeSet<u64> = suggested.iter().chain(&random).copied().collect();
    assert_eq!((all.len(), suggested.len() + random.len()), (FACES, FACES), "each face comes once");
    assert!((3..=20).contains(&random.len()), "{random:?}");
    assert_eq!(first["ok_left"]["left"], Value::Null);
    assert_eq!(answer(out, &["suggest", "--limit", "200"]), first, "the order does not depend on the call");
    let other = answer(out, &["suggest", "--limit", "200", "--seed", "2"]);
    assert_ne!(ids(&other["faces"], "random"), random);
    // A list by filter is no sample of the run.
    let filtered = answer(out, &["suggest", "--limit", "200", "--where", "label='person 3'"]);
    let mut of_person = ids(&filtered["faces"], "filter");
    of_person.sort_unstable();
    assert_eq!((of_person, ids(&filtered["faces"], "random")), (vec![30, 31, 32, 33], vec![]));

    // Judged faces come no more, and random ones that were judged singly are the sample.
    let lines: String = random.iter().map(|id| verdict(*id, is_ok(*id), "random")).collect();
    let others: String = suggested[..10].iter().map(|id| verdict(*id, true, "suggested")).collect();
    import(out, &(lines + &others));
    let next = answer(out, &["suggest", "--limit", "200"]);
    let again: BTreeSet<u64> = ["suggested", "random"].iter().flat_map(|name| ids(&next["faces"], name)).collect();
    let judged: BTreeSet<u64> = random.iter().chain(&suggested[..10]).copied().collect();
    assert_eq!(again, &all - &judged);
    let left = &next["ok_left"];
    let random_ok = random.iter().filter(|id| is_ok(**id)).count();
    assert_eq!((&left["random"], &left["random_ok"]), (&json!(random.len()), &json!(random_ok)));
    assert_eq!((&left["unjudged"], &left["found"]), (&json!(again.len()), &json!(random_ok + 10)));
    assert!(left["left"]["low"].as_f64().unwrap() <= left["left"]["count"].as_f64().unwrap());
    assert_eq!(left["is_complete"], false);
}

/// Stores a P(OK) of the model for each face.
async fn score(out: &Path, model: ContentHash, name: &str, p_ok: impl Fn(u64) -> f64) {
    let predictions = Predictions::new(std::sync::Arc::new(Folder::at(out)));
    let faces = answer(out, &["faces", "--limit", "200"]);
    for face in faces["faces"].as_array().unwrap() {
        let crop: ContentHash = face["file"].as_str().unwrap().split(['/', '.']).rev().nth(1).unwrap().parse().unwrap();
        let p_ok = p_ok(face["photo_id"].as_u64().unwrap());
        let prediction = Prediction { p_ok, model: name.into(), model_sha256: model };
        predictions.write(crop, prediction).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uncertain_faces_come_first_with_a_model_that_was_trained_on_verdicts_of_the_run() {
    let folder = run_folder().await;
    let out = folder.path();
    // Three in four faces are judged; of eight of them the verdict is wrong.
    let wrong: BTreeSet<u64> = [1, 3, 41, 43, 81, 83, 121, 123].into();
    let judged: Vec<u64> = (0..24).flat_map(|person| (0..4).map(move |shot| 10 * person + shot)).collect();
    let judged: Vec<u64> = judged.into_iter().filter(|id| id / 10 < 18).collect();
    let lines: String = judged.iter().map(|id| verdict(*id, is_ok(*id) ^ wrong.contains(id), "best-first")).collect();
    import(out, &lines);

    let found = answer(out, &["suggest", "--suspicious", "--limit", "10"]);
    assert_eq!(found["judged"], json!(judged.len()));
    let listed: Vec<&Value> = found["verdicts"].as_array().unwrap().iter().collect();
    let named: BTreeSet<u64> = listed.iter().take(8).map(|one| one["verdict"]["photo_id"].as_u64().unwrap()).collect();
    assert!((&named & &wrong).len() >= 6, "{named:?}");
    let disagreement = |one: &Value| one["disagreement"].as_f64().unwrap();
    assert!(listed.windows(2).all(|pair| disagreement(pair[0]) >= disagreement(pair[1])));
    let id = listed[0]["verdict"]["photo_id"].as_u64().unwrap();
    let said = &listed[0]["verdict"];
    assert_eq!((&said["by"], &said["at"]), (&json!("ada"), &json!(1_764_000_000_000u64 + id)));
    assert!(answer(out, &["models", "list"]).as_array().unwrap().is_empty(), "no model is stored");

    let trained = answer(out, &["train", "--use"]);
    let (name, sha256) = (trained["model"].as_str().unwrap(), trained["sha256"].as_str().unwrap());
    let file = ModelFile::from_bytes("model", std::fs::read(out.join(format!("models/{sha256}.onnx"))).unwrap().into());
    assert_eq!(file.unwrap().metadata("run").as_deref(), Some("default"));
    let unscored = answer(out, &["suggest"]);
    assert_eq!(
        (&unscored["method"], &unscored["why"]),
        (&json!("typical"), &json!(format!("{name} has not scored the faces of this run yet")))
    );
    let threshold = trained["threshold"].as_f64().unwrap();
    // The later the photo, the farther from the threshold.
    let p_ok = |id: u64| {
        let distance = id as f64 / 3000.0;
        if threshold + distance <= 1.0 { threshold + distance } else { threshold - distance }
    };
    score(out, sha256.parse().unwrap(), name, p_ok).await;
    let found = answer(out, &["suggest", "--limit", "200"]);
    assert_eq!(found["method"], "uncertain", "{}", found["why"]);
    let order = ids(&found["faces"], "suggested");
    let distance = |id: &u64| (p_ok(*id) - threshold).abs();
    let nearest = (180..240).filter(|id| id % 10 < 4).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
    assert_eq!((order[0], order.len() + ids(&found["faces"], "random").len()), (nearest, 24));
    let falls = order.windows(2).filter(|pair| distance(&pair[0]) > distance(&pair[1])).count();
    assert!(falls <= 8, "crops that are alike wait for a later round, the others are in order: {order:?}");
}
