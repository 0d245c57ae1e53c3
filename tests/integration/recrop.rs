//! `facemill recrop` on folders: the same faces as a run from the beginning, without the photos being fetched.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::classifier::facemill;
use crate::training::answer;
use support::reference::package_photos;

/// The first two have a face near an edge, so that their crops are partly mirrored; the last one has no face.
const PHOTOS: [&str; 5] =
    ["obama_partial_face.jpg", "obama_partial_face2.jpg", "biden.jpg", "astronaut.png", "coffee.png"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with photos, one of which is none.
fn photos(scratch: &Path) -> PathBuf {
    let photos = scratch.join("photos");
    std::fs::create_dir(&photos).unwrap();
    for name in PHOTOS {
        std::fs::copy(package_photos().join(name), photos.join(name)).unwrap();
    }
    std::fs::write(photos.join("page.jpg"), "<html>").unwrap();
    photos
}

fn run(photos: &Path, out: &Path, more: &[&str]) {
    let run = facemill(&[&["run", text(photos), "--out", text(out)], more].concat());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

fn recrop(out: &Path, new: &Path, more: &[&str]) -> Output {
    facemill(&[&["recrop", "--out", text(out), "--as", text(new), "--json"], more].concat())
}

/// The last line that a command printed.
fn summary(output: &Output) -> Value {
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

/// The faces of a run by photo.
fn faces(out: &Path) -> BTreeMap<String, Value> {
    let listed = answer(out, &["faces", "--limit", "100"]);
    let faces = listed["faces"].as_array().unwrap().iter();
    faces.map(|face| (face["photo_id"].as_str().unwrap().to_owned(), face.clone())).collect()
}

/// The endings and faces of a run, as its report has them.
fn records(out: &Path) -> [String; 2] {
    ["photos.jsonl", "faces.jsonl"].map(|name| std::fs::read_to_string(out.join(name)).unwrap())
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_new_fill_changes_the_crops_that_have_one_and_keeps_the_verdicts_of_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let [first, new, whole] = ["first", "new", "whole"].map(|name| scratch.path().join(name));
    let photos = photos(scratch.path());
    run(&photos, &first, &[]);
    let old = faces(&first);
    let is_mirrored = |photo: &str| old[photo]["mirrored"].as_f64().unwrap() > 0.0;
    assert!(old.keys().any(|photo| is_mirrored(photo)) && old.keys().any(|photo| !is_mirrored(photo)), "{old:?}");
    let rows: String = old.keys().map(|photo| format!("{photo},ok,ada\n")).collect();
    let csv = scratch.path().join("verdicts.csv");
    std::fs::write(&csv, format!("photo_id,judgement,by\n{rows}")).unwrap();
    answer(&first, &["verdicts", "import", text(&csv)]);

    let made = summary(&recrop(&first, &new, &["--fill", "ffhq"]));
    let recropped = &made["recropped"];
    let judged = old.len();
    assert_eq!([&recropped["at_detect"], &recropped["known"]], [0, 0], "{made}");
    assert_eq!(recropped["at_crop"].as_u64().unwrap() + recropped["ended"].as_u64().unwrap(), 6, "{made}");
    assert_eq!(recropped["verdicts"], judged, "{made}");
    // The same as a run from the beginning.
    run(&photos, &whole, &["--fill", "ffhq"]);
    assert_eq!(records(&new), records(&whole));
    let now = faces(&new);
    assert!(old.keys().all(|photo| now.contains_key(photo)), "{now:?}");
    for (photo, face) in now.iter().filter(|(photo, _)| old.contains_key(*photo)) {
        let is_same = face["file"] == old[photo]["file"];
        assert_eq!(is_same, !is_mirrored(photo), "{photo}");
        let verdict = [&face["verdict"], &face["judged_by"]];
        let earlier = face["earlier_verdicts"].as_array().unwrap();
        let why = answer_text(&new, &["why", photo]);
        if is_same {
            assert_eq!((verdict, earlier.len()), ([&"ok".into(), &"ada".into()], 0), "{photo}");
            assert!(why.contains("verdict ok by ada") && !why.contains("earlier"), "{why}");
        } else {
            assert_eq!((verdict, earlier.len()), ([&Value::Null; 2], 1), "{photo}");
            assert_eq!([&earlier[0]["judgement"], &earlier[0]["judged_by"]], ["ok", "ada"]);
            assert!(old[photo]["file"].as_str().unwrap().contains(earlier[0]["crop"].as_str().unwrap()));
            assert!(why.contains("ada") && why.contains("on an earlier crop: it does not count"), "{why}");
        }
    }
    let kept = now.values().filter(|face| !face["verdict"].is_null()).count();
    assert_eq!(answer(&new, &["faces", "--count", "--where", "status=ok"]), kept);

    // The originals are links to the photos themselves.
    let links = originals(&new);
    assert!(!links.is_empty() && links.iter().all(|link| link.is_symlink()), "{links:?}");
    let photos = photos.canonicalize().unwrap();
    assert!(links.iter().all(|link| std::fs::read_link(link).unwrap().parent() == Some(&photos)), "{links:?}");
    let audit = facemill(&["audit", text(&photos), "--out", text(&new)]);
    assert!(audit.status.success(), "{audit:?}");

    // Again: nothing is left to do, and nothing is doubled.
    let again = summary(&recrop(&first, &new, &["--fill", "ffhq"]));
    let recropped = &again["recropped"];
    assert_eq!([&recropped["known"], &recropped["at_crop"], &recropped["ended"]], [6, 0, 0], "{again}");
    assert_eq!([&recropped["verdicts"], &recropped["known_verdicts"]], [&0.into(), &Value::from(judged)]);
    assert_eq!(records(&new), records(&whole));

    // The settings of the new run need not be given again.
    let again = summary(&recrop(&first, &new, &[]));
    assert_eq!([&again["recropped"]["known"], &again["recropped"]["at_crop"]], [6, 0], "{again}");
    assert_eq!(records(&new), records(&whole));

    let other = recrop(&first, &new, &["--align", "ffhq"]);
    assert_eq!(other.status.code(), Some(3));
    assert!(error(&other).contains("--align paper (now ffhq)"), "{}", error(&other));
    let same = recrop(&first, &scratch.path().join("first/../first"), &["--fill", "ffhq"]);
    assert_eq!(same.status.code(), Some(2));
    assert!(error(&same).contains("is the folder of the first run"), "{}", error(&same));
}

fn answer_text(out: &Path, arguments: &[&str]) -> String {
    let output = facemill(&[arguments, &["--out", text(out)]].concat());
    assert!(output.status.success(), "{}", error(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn originals(out: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(out.join("originals")).unwrap();
    folders
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect()
}

#[test]
fn other_rules_for_faces_search_again_also_after_a_kill_and_a_lost_original_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let [first, new, whole, copied] = ["first", "new", "whole", "copied"].map(|name| scratch.path().join(name));
    let photos = photos(scratch.path());
    run(&photos, &first, &["--image-format", "jpeg"]);
    let rules = ["--align", "ffhq", "--min-face", "60", "--cores", "1"];

    let mut killed = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .args([&["recrop", "--out", text(&first), "--as", text(&new), "--json"], &rules[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let events = BufReader::new(killed.stdout.take().unwrap()).lines();
    let stages: Vec<Value> = events.take(1).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!((&stages[0]["stage"], &stages[0]["run"]), (&"detect".into(), &"default".into()), "{stages:?}");
    let made = summary(&recrop(&first, &new, &rules));
    assert_eq!((&made["complete"], &made["recropped"]["known"]), (&true.into(), &6.into()), "{made}");
    // A setting that is not named is that of the first run.
    run(&photos, &whole, &[&rules[..], &["--image-format", "jpeg"]].concat());
    assert_eq!(records(&new), records(&whole));

    // A photo that is gone from its folder can no longer be cut; the others can, and copies need no folder.
    std::fs::remove_file(photos.join("biden.jpg")).unwrap();
    let lost = recrop(&first, &copied, &["--image-format", "png", "--copy"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(error(&lost).contains("1 photo cannot be cut anew"), "{}", error(&lost));
    let printed = String::from_utf8_lossy(&lost.stdout);
    let made: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(made["recropped"]["left_out"]["without_original"], 1, "{made}");
    let expected = faces(&first).into_keys().filter(|photo| !photo.starts_with("biden"));
    assert_eq!(faces(&copied).into_keys().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_ne!(faces(&copied).len(), faces(&first).len());
    assert!(originals(&copied).iter().all(|original| original.is_file() && !original.is_symlink()));
}
