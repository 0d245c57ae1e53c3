//! `facemill recrop` in an installation: another run on the same originals, without a worker that fetches.

use std::process::Stdio;

use serde_json::Value;

use super::ended;
use super::installation::Installation;
use support::collection::Collection;

#[test]
fn an_installation_cuts_faces_anew_without_fetching_also_after_a_kill() {
    let collection = Collection::serve();
    let mut installation = Installation::new();
    let first = installation.environment.iter().find(|(name, _)| *name == "FACEMILL_RUN").unwrap().1.clone();
    let new = format!("{first}-again");
    let candidates = collection.candidates().len() as u64;
    let mut worker = installation.worker(&["fetch", "detect", "crop", "classify"], &collection);
    let recrop = ["recrop", "--run", &first, "--as", &new, "--align", "ffhq"];
    installation.json(&["produce", collection.dump.to_str().unwrap()]);
    let status = installation.until("the end of all photos", |status| ended(status) == candidates);
    assert_eq!(worker.terminate(), Some(0));
    let old = installation.json(&["faces", "--limit", "1000", "--sort", "id"]);
    let judged = &old["faces"][0]["photo_id"];
    let file = installation.cache.path().join("verdicts.jsonl");
    std::fs::write(&file, format!(r#"{{"photo_id":{judged},"judgement":"ng","reason":"cut-off","by":"ada"}}"#))
        .unwrap();
    installation.json(&["verdicts", "import", file.to_str().unwrap()]);

    // A command that is killed is repeated; every photo is enqueued once.
    let mut killed = installation.command(&recrop).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_there = || installation.facemill(&["status", "--run", &new]).status.success();
    while !is_there() && killed.try_wait().unwrap().is_none() {}
    killed.kill().unwrap();
    killed.wait().unwrap();
    let made = installation.json(&recrop);
    let count = |name: &str| made[name].as_u64().unwrap();
    let failed = status["ended"]["failed"].as_u64().unwrap();
    assert_eq!((count("at_detect"), &made["left_out"]["failed"]), (0, &failed.into()), "{made}");
    assert_eq!(count("at_crop") + count("ended") + count("known") + failed, candidates, "{made}");
    assert_eq!(count("verdicts") + count("known_verdicts"), 1, "{made}");
    // The settings of the new run need not be given again.
    for again in [&recrop[..], &recrop[..5]] {
        let again = installation.json(again);
        assert_eq!((&again["known"], &again["verdicts"]), (&(candidates - failed).into(), &0.into()), "{again}");
    }

    installation.environment.iter_mut().find(|(name, _)| *name == "FACEMILL_RUN").unwrap().1 = new.clone();
    let mut worker = installation.worker(&["detect", "crop", "classify"], &collection);
    let status = installation.until("the end of all photos", |status| ended(status) == candidates - failed);
    assert_eq!(worker.terminate(), Some(0));
    assert_eq!(status["ended"]["failed"], Value::Null, "{status}");
    let faces = installation.json(&["faces", "--limit", "1000", "--sort", "id"]);
    assert_eq!(faces["total"], status["ended"]["predicted"]);
    assert!(faces["faces"].as_array().unwrap().iter().all(|face| face["align"] == "ffhq"));
    let face = faces["faces"].as_array().unwrap().iter().find(|face| face["photo_id"] == *judged).unwrap();
    assert_ne!(face["file"], old["faces"][0]["file"]);
    let earlier = &face["earlier_verdicts"][0];
    assert_eq!((&face["verdict"], &earlier["judgement"]), (&Value::Null, &"ng".into()), "{face}");
    assert_eq!([&earlier["reason"], &earlier["judged_by"]], ["cut-off", "ada"]);
    // Endings that no setting changes are there, with their causes.
    let gone = installation.json(&["why", &collection.id_of("/410.jpg").to_string()]);
    assert_eq!((&gone["state"]["ended"], &gone["cause"]["code"]), (&"gone".into(), &"http-410".into()), "{gone}");

    let other = installation.facemill(&["recrop", "--run", &first, "--as", &new, "--align", "paper"]);
    assert_eq!(other.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&other.stderr).contains("--align ffhq (now paper)"), "{other:?}");
    for wrong in [&["--as", &first[..]][..], &["--as", "No Name"], &["--as", &new, "--copy"]] {
        let wrong = installation.facemill(&[&["recrop", "--run", &first], wrong].concat());
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    }
}
