//! Hosts that cannot be reached: told once for each host, not once for each photo.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::{facemill, path};

const PHOTOS: u64 = 100;

/// Runs photos of a host whose name is not known and of one that refuses connections.
fn run(scratch: &Path, out: &str, more: &[&str]) -> Output {
    // The port is closed again.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rows = (0..2 * PHOTOS).map(|id| {
        let host = if id < PHOTOS { "unknown.invalid" } else { "closed.test" };
        format!("{id},http://{host}/{id}.jpg\n")
    });
    let table = scratch.join("photos.csv");
    std::fs::write(&table, format!("photo_id,photo_url\n{}", rows.collect::<String>())).unwrap();
    let (out, resolve) = (scratch.join(out), format!("closed.test={closed}"));
    let hosts = ["--resolve", &resolve, "--attempts", "2", "--waits", "0.05"];
    facemill(&[&["run", path(&table), "--out", path(&out)], &hosts[..], more].concat())
}

#[test]
fn a_fault_of_a_host_is_told_once_with_the_number_of_its_photos() {
    let scratch = tempfile::tempdir().unwrap();
    let done = run(scratch.path(), "text", &["-v"]);
    let (printed, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{log}");
    for host in ["unknown.invalid", "closed.test"] {
        assert_eq!(log.matches(host).count(), 1, "{log}");
        let told: Vec<&str> = printed.lines().filter(|line| line.contains(host)).collect();
        assert_eq!(told.len(), 1, "{printed}");
        assert!(told[0].starts_with("not fetched: 100 photos: ") && told[0].contains(host), "{printed}");
    }
    // Each photo has the cause.
    let why = facemill(&["why", "7", "--out", path(&scratch.path().join("text")), "--json"]);
    let why: Value = serde_json::from_slice(&why.stdout).unwrap();
    assert!(why["cause"]["code"].as_str().unwrap().starts_with("dns"), "{why}");

    let done = run(scratch.path(), "json", &["--json"]);
    let printed = String::from_utf8_lossy(&done.stdout);
    let summary: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let faults = summary["host_faults"].as_array().unwrap();
    let faults: Vec<u64> = faults.iter().map(|fault| fault["photos"].as_u64().unwrap()).collect();
    assert_eq!(faults, [PHOTOS; 2], "{summary}");
}
