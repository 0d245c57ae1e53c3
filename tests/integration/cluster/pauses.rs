//! Paused stages and hosts.

use serde_json::Value;

use super::ended;
use super::installation::{Installation, get};
use support::collection::Collection;
use support::servers::process::{free_ports, wait_for};

fn waiting(status: &Value, stage: &str) -> u64 {
    ["ready", "in_flight", "delayed"].iter().map(|kind| status["stages"][stage][kind].as_u64().unwrap()).sum()
}

#[test]
fn a_paused_stage_stops_and_continues_when_it_is_resumed() {
    let collection = Collection::serve();
    let installation = Installation::new();
    let candidates = collection.candidates().len() as u64;
    assert_eq!(installation.json(&["pause"]), serde_json::json!({ "stages": {}, "hosts": {} }));
    installation.json(&["pause", "detect"]);
    installation.json(&["produce", collection.dump.to_str().unwrap()]);
    let [port] = free_ports();
    let address = format!("127.0.0.1:{port}");
    let mut all = installation.worker_with(&["fetch", "detect"], &collection, &["--listen", &address]);
    // Photos in flight are in no queue, and delayed ones are not due, so queues and ledger are both checked. The worker
    // reports a little later that nothing is in flight.
    let is_idle = |status: &Value| {
        waiting(status, "fetch") == 0
            && status["stages"]["fetch"]["oldest"].is_null()
            && status["workers"][0]["in_flight"] == 0
    };
    let status = installation.until("the end of fetch", is_idle);
    let fetched = waiting(&status, "detect");
    assert!(fetched > 0 && fetched < candidates);
    assert_eq!((&status["stages"]["detect"]["in_flight"], waiting(&status, "crop")), (&0.into(), 0));
    assert!(status["stages"]["detect"]["oldest"].is_u64(), "{status}");
    assert!(status["paused"]["stages"]["detect"].is_u64(), "{status}");
    let [worker] = &status["workers"].as_array().unwrap()[..] else { panic!("one worker: {status}") };
    assert_eq!((&worker["stages"], &worker["in_flight"]), (&serde_json::json!(["fetch", "detect"]), &0.into()));
    assert_eq!(get(port, "/readyz").unwrap().0, 200, "a worker with a paused stage is ready");

    installation.json(&["resume", "detect"]);
    installation.until("a detected photo", |status| waiting(status, "detect") < fetched);
    installation.json(&["pause", "detect"]);
    // Photos in flight are finished, and prefetched ones return to the queue.
    installation.until("an idle stage", |status| status["stages"]["detect"]["in_flight"] == 0);
    assert_eq!(all.terminate(), Some(0), "a worker with a paused stage ends in order");
    wait_for("no worker", || installation.json(&["status"])["workers"].as_array()?.is_empty().then_some(()));

    installation.json(&["resume", "detect"]);
    let mut rest = installation.worker(&["fetch", "detect", "crop", "classify"], &collection);
    installation.until("the end of all photos", |status| ended(status) == candidates);
    assert_eq!(rest.terminate(), Some(0));
}

#[test]
fn photos_of_a_paused_host_wait_and_cost_no_attempt() {
    let collection = Collection::serve();
    let installation = Installation::new();
    let table = collection.table_of(&["/410.jpg", "/403.jpg", "/loop.jpg"]);
    let names = ["archive.test", "hostile.test"];
    installation.json(&[&["pause", "--host"], &names[..]].concat());
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("table.csv");
    std::fs::write(&file, &table).unwrap();
    assert_eq!(installation.json(&["produce", file.to_str().unwrap()])["new"], 3);
    let mut worker = installation.worker(&["fetch"], &collection);
    installation.until("three deferred photos", |status| status["stages"]["fetch"]["delayed"] == 3);
    let id = collection.id_of("/410.jpg").to_string();
    let story = installation.json(&["why", &id]);
    assert_eq!((&story["cause"]["code"], &story["attempt"]), (&"host-paused".into(), &1.into()), "{story}");
    installation.json(&[&["resume", "--host"], &names[..]].concat());
    installation.until("three ended photos", |status| ended(status) == 3);
    assert_eq!(worker.terminate(), Some(0));
}

#[test]
fn unknown_stages_and_hosts_are_refused() {
    let installation = Installation::new();
    let error = |arguments: &[&str]| {
        let output = installation.facemill(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&["pause", "cut"]).contains("cut"));
    assert!(error(&["pause", "--host", "http://a.example/"]).contains("not the name of a host"));
    assert!(error(&["pause", "--host", "a.example", "fetch"]).contains("before --host"));
    assert!(error(&["resume"]).contains("STAGE"));
    let mut away = installation.command(&["pause", "fetch"]);
    let away = away.env("FACEMILL_REDIS_URL", "redis://:hunter2@127.0.0.1:1/").output().unwrap();
    let away = String::from_utf8(away.stderr).unwrap();
    assert!(away.contains("127.0.0.1:1") && !away.contains("hunter2"), "{away}");
}
