//! The program connects only to the hosts of the photos, and writes only into its folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use support::collection::Collection;

/// Runs the program under strace, without the environment of this test and with an empty home. Returns the internet
/// addresses that it or a native library used, one line of strace each.
fn contacted(home: &Path, arguments: &[&str]) -> Vec<String> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o"]).arg(trace.path());
    command.arg(env!("CARGO_BIN_EXE_facemill")).args(arguments).env_clear().env("HOME", home);
    for name in ["PATH", "LD_LIBRARY_PATH", "FACEMILL_MODELS"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let output = command.output().expect("strace is installed (`make setup-tests` does it)");
    assert!(output.status.success(), "{output:?}");
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    assert!(trace.contains("socket"), "strace sees the signal handler's socket pair: {trace}");
    trace.lines().filter(|line| line.contains("sin_addr=") || line.contains("sin6_addr")).map(str::to_owned).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn doctor_contacts_nobody_and_leaves_no_file() {
    let (home, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let contacted = contacted(home.path(), &["doctor", "--out", out.path().to_str().unwrap()]);
    assert!(contacted.is_empty(), "{contacted:#?}");
    assert_eq!(files_in(home.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_run_contacts_only_the_host_of_its_photo_and_leaves_no_file() {
    let collection = Collection::of(1);
    let (home, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let table = scratch.path().join("candidates.csv");
    std::fs::write(&table, collection.table_of(&["moved/there.jpg"])).unwrap();
    let mut arguments = vec!["run", table.to_str().unwrap(), "--out", out.path().to_str().unwrap(), "--json"];
    arguments.extend(collection.stage_arguments());
    let contacted = contacted(home.path(), &arguments);
    let records = std::fs::read_to_string(out.path().join("photos.jsonl")).unwrap();
    assert!(records.contains("predicted"), "the photo is classified: {records}");
    assert!(!contacted.is_empty(), "strace sees the download");
    let host = |line: &&String| line.contains("127.0.0.1") && !line.contains("htons(53)");
    assert!(contacted.iter().all(|line| host(&line)), "{contacted:#?}");
    assert_eq!(files_in(home.path()), Vec::<PathBuf>::new());
}
