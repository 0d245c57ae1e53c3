//! Takedowns of a picture that several runs of an installation have.

use facemill::domain::{ContentHash, Photo};
use facemill::objects::ObjectKey;
use serde_json::{Value, json};
use support::curation::{CuratedRun, photo};

use super::leftovers::Leftovers;
use super::{broker, done};

/// A photo that both runs have, and one whose original is that of another photo of the second run.
const BOTH: u64 = 4712;
const SHARED: u64 = 4713;
const OTHER: u64 = 4714;

fn faces(run: &CuratedRun) -> u64 {
    done(run, &["faces", "--count"]).as_u64().unwrap()
}

fn keys(photo: &Photo) -> [ObjectKey; 2] {
    let (original, crop) = (photo.facts.original.as_ref().unwrap(), photo.facts.crop.as_ref().unwrap());
    [ObjectKey::original(original.sha256, original.format), ObjectKey::face(crop.sha256, crop.format)]
}

async fn exist(run: &CuratedRun, photo: &Photo) -> [bool; 2] {
    let [original, crop] = keys(photo);
    [run.objects.get(&original).await.is_ok(), run.objects.get(&crop).await.is_ok()]
}

/// Two runs with three faces each besides the photos above.
async fn two_runs() -> [CuratedRun; 2] {
    let first = CuratedRun::on_servers(3).await;
    let second = first.beside("others").await;
    for id in 10..13 {
        second.classify(id).await;
    }
    first.classify(BOTH).await;
    second.classify(BOTH).await;
    first.classify(SHARED).await;
    // Another address, label and crop, of the same file.
    let (mut other, crop, _) = photo(&second.run, OTHER);
    let (shared, _, original) = photo(&first.run, SHARED);
    other.facts.original = shared.facts.original;
    second.finish(other, crop, original).await;
    [first, second]
}

fn plan(run: &CuratedRun, arguments: &[&str]) -> Value {
    let output = run.command(&["takedown"]).args(arguments).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_photos_of_other_runs_have_stays_with_them() {
    let [first, second] = two_runs().await;
    let before = [faces(&first), faces(&second)];
    let meant = ["--photo", &BOTH.to_string(), &SHARED.to_string()];
    let planned = plan(&first, &meant);
    assert_eq!((&planned["elsewhere"], &planned["kept_originals"]), (&json!(2), &json!(2)), "{planned}");
    let removed = done(&first, &[&["takedown"], &meant[..], &["--yes"]].concat());
    let removed = &removed["removed"];
    assert_eq!((&removed["photos"], &removed["originals"]), (&json!(2), &json!(0)), "{removed}");
    assert_eq!([faces(&first), faces(&second)], [before[0] - 2, before[1]]);

    // The crop of one photo is also that of the other run, the crop of the other photo nobody else's.
    assert_eq!(exist(&second, &photo(&second.run, BOTH).0).await, [true, true]);
    assert_eq!(exist(&second, &photo(&first.run, SHARED).0).await, [true, false]);
    let story = done(&second, &["why", &BOTH.to_string()]);
    assert_eq!(story["state"]["ended"], "predicted");
    let folder = tempfile::tempdir().unwrap();
    let zip = folder.path().join("faces.zip");
    let export = ["export", "--where", "size>=1", "--size", "64", "--upscale", "--to", zip.to_str().unwrap()];
    assert_eq!(done(&second, &export)["faces"], before[1], "the other run can still be exported");

    // With the last photo that has them, they go.
    done(&second, &["takedown", "--photo", &BOTH.to_string(), &OTHER.to_string(), "--yes"]);
    assert_eq!(exist(&second, &photo(&second.run, BOTH).0).await, [false, false]);
    assert_eq!(exist(&second, &photo(&first.run, SHARED).0).await, [false, false]);
    assert_eq!([faces(&first), faces(&second)], [before[0] - 2, before[1] - 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_runs_nothing_is_left_in_any() {
    let [first, second] = two_runs().await;
    let before = [faces(&first), faces(&second)];
    for run in [&first, &second] {
        let judgements = run.path().join("judgements.csv");
        std::fs::write(&judgements, format!("photo_id,judgement\n{BOTH},ok\n")).unwrap();
        done(run, &["verdicts", "import", judgements.to_str().unwrap()]);
        std::fs::remove_file(judgements).unwrap();
        done(run, &["dataset", "freeze", "v1", "--size", "64", "--where", "size>=1", "--placeholders"]);
    }
    // Photos of several runs are listed with their run.
    let plan = first.command(&["takedown"]).args(["--photo", &BOTH.to_string(), "--all-runs"]).output().unwrap();
    let plan = String::from_utf8(plan.stdout).unwrap();
    for run in [&first, &second] {
        assert!(plan.lines().any(|line| line.contains(&format!("  run {}", run.run))), "{plan}");
    }
    let removed = done(&first, &["takedown", "--photo", &BOTH.to_string(), "--all-runs", "--yes"]);
    assert_eq!((&removed["elsewhere"], &removed["kept_originals"]), (&json!(0), &json!(0)));
    let counts = ["photos", "originals", "crops", "verdicts"].map(|what| removed["removed"][what].clone());
    assert_eq!(counts, [2, 1, 1, 2].map(|count| json!(count)));

    let (taken, crop, original) = photo(&first.run, BOTH);
    let broker = broker(&first).await;
    let leftovers = Leftovers::read(&first, &*broker, &first.path().join("facemill")).await;
    let url = taken.candidate.photo_url.as_bytes();
    let [crop, original] = [ContentHash::of(&crop), ContentHash::of(&original)];
    let texts = [crop, original].map(|hash| hash.to_string());
    for bytes in [url, texts[0].as_bytes(), texts[1].as_bytes(), crop.as_bytes(), original.as_bytes()] {
        let mut places = leftovers.with(bytes);
        // A refusal is named like the hash that it refuses.
        places.retain(|place| !place.contains("refusals/originals/"));
        assert_eq!(places, Vec::<String>::new());
    }
    assert_eq!([faces(&first), faces(&second)], before.map(|faces| faces - 1));
    for run in [&first, &second] {
        let version = done(run, &["dataset", "show", "v1"]);
        assert_eq!(version["tombstones"][0]["faces"], 1, "{version}");
    }
    assert_eq!(exist(&first, &photo(&first.run, SHARED).0).await, [true, true]);
}
