//! An installation with worker processes on real servers.

use support::collection;
mod dead_letters;
mod full_store;
mod hosts;
pub mod installation;
mod pauses;
mod permissions;
mod probes;
mod rebuild;
mod recrop;
mod run_settings;
mod s3_folder;
mod settings;
mod tracing;
mod training;

use std::path::Path;
use std::process::Command;

use collection::Collection;
use installation::Installation;
use serde_json::Value;

fn ended(status: &Value) -> u64 {
    status["ended"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// The records of a report, a line each.
fn records(folder: &Path) -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    ["faces.jsonl", "photos.jsonl"]
        .iter()
        .flat_map(|name| read(name).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Fails with the lines in which the records differ.
fn assert_same_records(left: &[String], right: &[String]) {
    let lacks =
        |of: &[String], other: &[String]| of.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>();
    assert_eq!(lacks(left, right), lacks(right, left));
    assert_eq!(left, right, "another order");
}

#[test]
fn workers_make_the_same_faces_as_one_process_also_after_kills() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let alone = scratch.path().join("alone");
    let run = Command::new(env!("CARGO_BIN_EXE_facemill")).args(collection.run_text(&alone)).output().unwrap();
    assert!(run.status.success(), "{run:?}");

    let installation = Installation::new();
    let dump = collection.dump.to_str().unwrap();
    let candidates = collection.candidates().len() as u64;
    let produced = installation.json(&["produce", dump]);
    assert_eq!((&produced["new"], &produced["known"]), (&Value::from(candidates), &Value::from(0)));
    let again = installation.json(&["produce", dump]);
    assert_eq!((&again["new"], &again["known"]), (&Value::from(0), &Value::from(candidates)), "nothing is doubled");

    let mut fetch = installation.worker(&["fetch"], &collection);
    let mut detect = installation.worker(&["detect"], &collection);
    let mut rest = installation.worker(&["crop", "classify"], &collection);
    // One worker is killed, another is terminated; new workers continue.
    installation.until("five ended photos", |status| ended(status) >= 5);
    detect.kill();
    let mut second = installation.worker(&["detect"], &collection);
    installation.until("twenty ended photos", |status| ended(status) >= 20);
    assert_eq!(rest.terminate(), Some(0));
    let mut third = installation.worker(&["classify", "crop"], &collection);
    let status = installation.until("the end of all photos", |status| ended(status) == candidates);
    for worker in [&mut fetch, &mut second, &mut third] {
        assert_eq!(worker.terminate(), Some(0));
    }

    let audit = installation.json(&["audit", dump, "--files"]);
    assert!(audit["files"]["files"].as_u64() > status["ended"]["predicted"].as_u64(), "{audit}");
    assert_eq!(installation.json(&["audit", dump, "--files", "--sample", "4"])["files"]["photos"], 4);
    let together = scratch.path().join("together");
    let report = installation.facemill(&["report", "--to", together.to_str().unwrap(), "--with-faces"]);
    assert!(report.status.success(), "{report:?}");
    let page = std::fs::read_to_string(together.join("report.html")).unwrap();
    assert!(page.contains("<title>facemill: run faces-"), "{page}");
    for line in std::fs::read_to_string(together.join("faces.jsonl")).unwrap().lines() {
        let face: Value = serde_json::from_str(line).unwrap();
        let picture = together.join("thumbnails").join(format!("{}.jpg", face["crop_sha256"].as_str().unwrap()));
        assert!(picture.is_file(), "{}", picture.display());
    }
    assert_same_records(&records(&together), &records(&alone));
    index_is_cached(&installation, status["ended"]["predicted"].as_u64().unwrap());
    assert_eq!(status["ended"]["failed"], status["dead_letters"], "the dead letters are the failed photos");
    let story = installation.json(&["why", &collection.id_of("/broken.jpg").to_string()]);
    assert_eq!(story["cause"]["code"], "http-500");
}

/// `report` leaves an index. A second reader uses it; a deleted index is made again.
fn index_is_cached(installation: &Installation, faces: u64) {
    let folder = installation.cache.path().join("facemill");
    let files = || -> Vec<_> { std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect() };
    let [index] = &files()[..] else { panic!("{:?}", files()) };
    assert!(index.file_name().unwrap().to_str().unwrap().starts_with("index-faces-"), "{index:?}");
    let made = std::fs::metadata(index).unwrap().modified().unwrap();
    assert_eq!(installation.json(&["faces", "--count"]), faces);
    assert_eq!(std::fs::metadata(index).unwrap().modified().unwrap(), made, "the index is not changed");
    std::fs::remove_file(index).unwrap();
    assert_eq!(installation.json(&["faces", "--count"]), faces);
    let other = installation.cache.path().join("other.sqlite");
    assert_eq!(installation.json(&["faces", "--count", "--index", other.to_str().unwrap()]), faces);
    assert!(other.is_file());
}

#[test]
fn doctor_and_commands_name_the_faulty_server_or_setting() {
    let installation = Installation::new();
    let doctor = installation.facemill(&["doctor"]);
    let output = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.status.success(), "{output}");

    let mut wrong = installation.command(&["doctor"]);
    wrong.env("AWS_SECRET_ACCESS_KEY", "wrong").env("FACEMILL_REDIS_URL", "redis://:hidden-word@127.0.0.1:1/");
    let wrong = wrong.output().unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let output = String::from_utf8(wrong.stdout).unwrap();
    assert!(output.contains("✗ redis") && output.contains("✗ s3") && output.contains("✓ rabbitmq"), "{output}");
    assert!(!output.contains("hidden-word"), "{output}");

    let unknown = installation.facemill(&["status", "--run", "unknown"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("there is no run unknown"));

    let nothing = Command::new(env!("CARGO_BIN_EXE_facemill")).args(["produce", "x.sql"]).output().unwrap();
    let output = String::from_utf8(nothing.stderr).unwrap();
    for name in ["FACEMILL_AMQP_URL", "FACEMILL_REDIS_URL", "FACEMILL_S3_BUCKET"] {
        assert!(output.contains(name), "{output}");
    }
}
