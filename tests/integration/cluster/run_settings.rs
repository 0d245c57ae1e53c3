//! The settings of a run count, whatever flags its workers have.

use serde_json::{Value, json};

use super::ended;
use super::installation::Installation;
use support::collection::Collection;

fn done(status: &Value, stage: &str) -> Vec<u64> {
    let workers = status["workers"].as_array().unwrap().iter();
    workers.filter(|worker| worker["stages"] == json!([stage])).map(|worker| worker["done"].as_u64().unwrap()).collect()
}

#[test]
fn workers_with_different_flags_make_crops_of_one_kind() {
    let collection = Collection::serve();
    let installation = Installation::new();
    let dump = collection.dump.to_str().unwrap();
    let candidates = collection.candidates().len() as u64;
    installation.json(&["produce", dump, "--align", "ffhq", "--min-face", "90"]);
    let other = installation.facemill(&["produce", dump, "--align", "paper"]);
    assert_eq!(other.status.code(), Some(3));
    let error = String::from_utf8(other.stderr).unwrap();
    assert!(error.contains("--align ffhq (now paper)") && !error.contains("min-face"), "{error}");
    assert_eq!(installation.json(&["produce", dump])["known"], candidates, "what is not given is as in the run");

    // Each of the two crop workers has its share: none begins before both are there.
    installation.json(&["pause", "crop"]);
    let flags: [&[&str]; 2] = [
        &["--align", "seed", "--image-format", "jpeg", "--max-megapixels", "1"],
        &["--align", "paper", "--fill", "ffhq"],
    ];
    let mut workers: Vec<_> =
        flags.into_iter().map(|flags| installation.worker_with(&["crop"], &collection, flags)).collect();
    let others = ["--search", "full", "--faces", "largest", "--min-face", "20"];
    workers.push(installation.worker_with(&["fetch", "detect", "classify"], &collection, &others));
    installation.until("both crop workers, and photos for both", |status| {
        done(status, "crop").len() == 2 && status["stages"]["detect"]["passed"].as_u64().unwrap() >= 10
    });
    installation.json(&["resume", "crop"]);
    let status = installation.until("the end of all photos", |status| {
        ended(status) == candidates && done(status, "crop").iter().all(|done| *done > 0)
    });

    assert_eq!(status["settings"]["align"], "ffhq");
    let shown = String::from_utf8(installation.facemill(&["status"]).stdout).unwrap();
    assert!(shown.contains("min-face 90, search guided") && shown.contains("align ffhq, "), "{shown}");
    let [columns, heads] = ["all runs of the installation", "ready"]
        .map(|text| shown.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text}: {shown}")));
    assert_eq!((columns + 1, &status["queues_of"]), (heads, &"all-runs".into()), "{shown}");
    let faces = installation.json(&["faces", "--limit", "1000"]);
    let faces = faces["faces"].as_array().unwrap();
    assert!(faces.len() > 10);
    for face in faces {
        assert_eq!([&face["align"], &face["fill"]], ["ffhq", "mirror"], "{face}");
        assert!(face["file"].as_str().unwrap().ends_with(".png"), "{face}");
        assert!(face["model"].is_string(), "a prediction without its model: {face}");
    }
    // The same faces as one process makes with these settings.
    let scratch = tempfile::tempdir().unwrap();
    let more = ["--align", "ffhq", "--min-face", "90"];
    let mut alone = installation.command(&[&collection.run_text(scratch.path())[..], &more].concat());
    assert!(alone.output().unwrap().status.success());
    let alone = std::fs::read_to_string(scratch.path().join("faces.jsonl")).unwrap();
    let crops = |face: Value| (face["photo_id"].to_string(), face["file"].to_string());
    let mut expected: Vec<_> = alone.lines().map(|line| crops(serde_json::from_str(line).unwrap())).collect();
    let mut found: Vec<_> = faces.iter().cloned().map(crops).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let to = scratch.path().join("report");
    installation.json(&["report", "--to", to.to_str().unwrap()]);
    let page = std::fs::read_to_string(to.join("report.html")).unwrap();
    assert!(page.contains("<dt>align</dt>") && page.contains("ffhq"), "the report has no settings");
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0));
    }
}
