//! Hosts: those that cannot be reached are told once each, not once for each photo; those of one's own have settings.

use std::path::Path;
use std::process::Output;

use facemill::demo::host::{Gate, HostResponse, WebHost};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{facemill, path};

const PHOTOS: u64 = 100;

/// The names of a host that does not exist and of one that refuses connections. The first is too long for DNS, so that
/// the machine's name server, which may lose or delay some of so many queries, is not contacted.
fn hosts() -> [String; 2] {
    [format!("{}.test", "x".repeat(70)), "closed.test".to_owned()]
}

/// Runs as many photos of each of the hosts.
fn run(scratch: &Path, out: &str, more: &[&str]) -> Output {
    // The port is closed again.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [unknown, refusing] = hosts();
    let rows = (0..2 * PHOTOS).map(|id| {
        let host = if id < PHOTOS { &unknown } else { &refusing };
        format!("{id},http://{host}/{id}.jpg\n")
    });
    let table = scratch.join("photos.csv");
    std::fs::write(&table, format!("photo_id,photo_url\n{}", rows.collect::<String>())).unwrap();
    let (out, resolve) = (scratch.join(out), format!("{refusing}={closed}"));
    let quick = ["--resolve", &resolve, "--attempts", "2", "--waits", "0.05", "--spacing", "0"];
    facemill(&[&["run", path(&table), "--out", path(&out)], &quick[..], more].concat())
}

#[test]
fn a_fault_of_a_host_is_told_once_with_the_number_of_its_photos() {
    let scratch = tempfile::tempdir().unwrap();
    let done = run(scratch.path(), "text", &["-v"]);
    let (printed, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{log}");
    for host in hosts() {
        let host = host.as_str();
        assert_eq!(log.matches(host).count(), 1, "{log}");
        let told: Vec<&str> = printed.lines().filter(|line| line.contains(host)).collect();
        assert_eq!(told.len(), 1, "{printed}");
        assert!(told[0].starts_with("not fetched: 100 photos: ") && told[0].contains(host), "{printed}");
    }
    // Each photo has the cause.
    let why = facemill(&["why", "7", "--out", path(&scratch.path().join("text")), "--json"]);
    let why: Value = serde_json::from_slice(&why.stdout).unwrap();
    assert!(why["cause"]["code"] == "dns", "{why}");

    let done = run(scratch.path(), "json", &["--json"]);
    let printed = String::from_utf8_lossy(&done.stdout);
    let summary: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let faults = summary["host_faults"].as_array().unwrap();
    let faults: Vec<u64> = faults.iter().map(|fault| fault["photos"].as_u64().unwrap()).collect();
    assert_eq!(faults, [PHOTOS; 2], "{summary}");
}

/// The host sends nothing until it has as many requests as its settings permit: with the usual four it never would.
#[tokio::test(flavor = "multi_thread")]
async fn the_settings_file_gives_a_host_its_pace_and_its_headers() {
    const AT_A_TIME: usize = 20;
    let scratch = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    let paths = (0..2 * AT_A_TIME).map(|id| format!("/{id}.jpg"));
    let routes = paths.clone().map(|path| (path, HostResponse::gated(&gate, "no picture").into())).collect();
    let host = WebHost::start("127.0.0.1:0", routes).await.unwrap();
    let rows: String = paths.enumerate().map(|(id, path)| format!("{id},http://photos.test{path}\n")).collect();
    let (table, settings) = (scratch.path().join("photos.csv"), scratch.path().join("settings.toml"));
    std::fs::write(&table, format!("photo_id,photo_url\n{rows}")).unwrap();
    let own = format!("per-host = {AT_A_TIME}\nspacing = 0\nheaders-over-http = true\nheaders.X-Token = \"hunter2\"\n");
    let text = format!("resolve = [\"photos.test={}\"]\n[hosts.\"photos.test\"]\n{own}", host.address());
    std::fs::write(&settings, text).unwrap();

    let out = scratch.path().join("out");
    let run = spawn_blocking(move || {
        facemill(&["run", path(&table), "--out", path(&out), "--settings", path(&settings), "-vv"])
    });
    let all_at_once = host.until(|traffic| traffic.now == AT_A_TIME);
    timeout(support::PATIENCE, all_at_once).await.expect("as many requests at a time as the settings permit");
    gate.open();
    let done = run.await.unwrap();
    let (printed, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{log}");
    let traffic = host.traffic();
    assert_eq!((traffic.all_hits(), traffic.peak), (2 * AT_A_TIME, AT_A_TIME));
    assert!(traffic.paths.values().all(|path| path.request.to_lowercase().contains("x-token: hunter2\r\n")));
    assert!(!printed.contains("hunter2") && !log.contains("hunter2"), "the token is in no output");
}
