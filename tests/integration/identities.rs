//! `facemill identities`: photographs of people go through the whole pipeline, are grouped by look, and compared with
//! their labels.

use std::collections::BTreeSet;
use std::path::Path;

use image::RgbImage;
use image::imageops::{self, FilterType};
use serde_json::Value;

use crate::classifier::facemill;
use crate::training::answer;
use support::reference::package_photos;

/// A run of photographs of three people in a folder, labelled by sub-folder. One of them is in the wrong sub-folder.
fn run_people(scratch: &Path) -> String {
    let photos = scratch.join("photos");
    let picture = |name: &str| image::open(package_photos().join(name)).unwrap().into_rgb8();
    let smaller = |picture: &RgbImage| {
        imageops::resize(picture, picture.width() * 6 / 10, picture.height() * 6 / 10, FilterType::Lanczos3)
    };
    let (obama, other, biden) = (picture("obama.jpg"), picture("obama3.jpg"), picture("biden.jpg"));
    for (name, picture) in [
        ("obama/1.png", &obama),
        ("obama/2.png", &other),
        ("obama/3.png", &smaller(&obama)),
        ("biden/1.png", &biden),
        ("biden/2.png", &imageops::flip_horizontal(&biden)),
        ("biden/3.png", &smaller(&biden)),
        ("biden/wrong.png", &imageops::flip_horizontal(&obama)),
        ("collins/1.png", &picture("astronaut.png")),
    ] {
        let file = photos.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        picture.save(file).unwrap();
    }
    let out = scratch.join("out");
    let (photos, out) = (photos.to_str().unwrap(), out.to_str().unwrap());
    let run = facemill(&["run", photos, "--label-from", "folder", "--out", out]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    out.to_owned()
}

/// The ids of the faces that a query selects.
fn ids(out: &Path, query: &str) -> BTreeSet<String> {
    let faces = answer(out, &["faces", "--where", query, "--limit", "100"]);
    let id = |face: &Value| face["photo_id"].as_str().unwrap().to_owned();
    faces["faces"].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn people_are_grouped_by_look_and_compared_with_their_labels() {
    let scratch = tempfile::tempdir().unwrap();
    let out = run_people(scratch.path());
    let out = Path::new(&out);
    assert_eq!(ids(out, "identity is not null or wrong_person"), BTreeSet::new(), "nobody has looked");
    let export = |name: &str, flags: &[&str]| {
        let to = scratch.path().join(name);
        let export = ["export", "--size", "64", "--format", "folder", "--duplicates", "--where", "size>=64"];
        [&export[..], &["--to", to.to_str().unwrap()], flags]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let exported = |name: &str, flags: &[&str]| {
        let arguments = export(name, flags);
        answer(out, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut early = export("early", &["--max-per-identity", "1"]);
    early.extend(["--out".into(), out.to_str().unwrap().into()]);
    let early = facemill(&early.iter().map(String::as_str).collect::<Vec<_>>());
    let error = String::from_utf8_lossy(&early.stderr);
    assert!(early.status.code() == Some(3) && error.contains("`facemill identities` finds them"), "{error}");

    let found = answer(out, &["identities"]);
    assert_eq!((&found["compared"], &found["groups"], &found["grouped"]), (&8.into(), &2.into(), &7.into()), "{found}");
    assert_eq!((&found["largest"], &found["unreadable"]), (&4.into(), &0.into()));
    let names: Vec<&Value> =
        found["identities"].as_array().unwrap().iter().map(|identity| &identity["label"]).collect();
    assert_eq!(names, ["obama", "biden"]);
    // 6 pairs of the one, 3 of them with the wrong photo, and 3 of the other.
    assert_eq!((&found["pairs"], &found["of_one_label"]), (&9.into(), &6.into()));
    assert_eq!(found["suspects"].as_array().unwrap().len(), 1, "{found}");
    let suspect = &found["suspects"][0];
    assert_eq!((&suspect["label"], &suspect["looks_like"]), (&"biden".into(), &"obama".into()));
    let wrong = suspect["photo_id"].as_str().unwrap();
    assert!(wrong.contains("wrong"), "{wrong}");
    assert_eq!(ids(out, "wrong_person"), BTreeSet::from([wrong.to_owned()]));
    assert_eq!(
        (ids(out, "identity=1").len(), ids(out, "identity=2").len(), ids(out, "identity is null").len()),
        (4, 3, 1)
    );
    let again = answer(out, &["identities"]);
    assert_eq!(again["groups_sha256"], found["groups_sha256"], "the same again");

    // At most so many of each, and all faces that look like nobody else.
    let two = exported("two", &["--max-per-identity", "2"]);
    assert_eq!((&two["faces"], &two["beyond_identity_limit"]), (&5.into(), &3.into()));
    let both = exported("both", &["--max-per-identity", "2", "--max-per-label", "1"]);
    assert_eq!((&both["faces"], &both["beyond_label_limit"]), (&3.into(), &5.into()));
    let version =
        answer(out, &["dataset", "freeze", "v1", "--size", "64", "--where", "size>=64", "--max-per-identity", "1"]);
    assert_eq!(version["selection"]["per_identity"], 1);
    assert_eq!(version["counts"]["faces"], 3);

    // A smaller distance splits; embeddings are kept.
    let strict = answer(out, &["identities", "--distance", "0.05"]);
    assert!(strict["grouped"].as_u64() < found["grouped"].as_u64(), "{strict}");
    assert!(out.join("embeddings.sqlite").is_file());
}
