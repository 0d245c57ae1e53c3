//! `facemill dataset` and exports of versions, on a run in a folder and on one on servers.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use support::curation::{CuratedRun, crop_size};

fn run(curated: &CuratedRun, arguments: &[&str]) -> Output {
    let (name, rest) = match arguments[0] {
        "dataset" | "verdicts" => arguments.split_at(2),
        _ => arguments.split_at(1),
    };
    curated.command(name).args(rest).output().unwrap()
}

/// The JSON of a command that succeeds.
fn done(curated: &CuratedRun, arguments: &[&str]) -> Value {
    let output = run(curated, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Exit code and message of a command that fails.
fn failed(curated: &CuratedRun, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(curated, arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Adds judgements: pairs of photo and judgement.
fn judge(curated: &CuratedRun, folder: &Path, judgements: &[(u64, &str)]) {
    let file = folder.join("judgements.csv");
    let rows: String = judgements.iter().map(|(id, judgement)| format!("{id},{judgement}\n")).collect();
    std::fs::write(&file, format!("photo_id,judgement\n{rows}")).unwrap();
    done(curated, &["verdicts", "import", file.to_str().unwrap()]);
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(faces: &Value) -> Vec<u64> {
    let id = |face: &Value| face["photo_id"].as_str().map_or_else(|| face["photo_id"].as_u64(), |id| id.parse().ok());
    faces.as_array().unwrap().iter().map(|face| id(face).unwrap()).collect()
}

fn a_version_stays_as_it_is(curated: &CuratedRun) {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let large: Vec<u64> = (0..40).filter(|id| crop_size(*id) >= 256).collect();
    let (first, rest) = large.split_at(12);
    let all = |ids: &[u64], judgement: &'static str| ids.iter().map(|id| (*id, judgement)).collect::<Vec<_>>();
    judge(curated, folder.path(), &all(first, "ok"));
    let v1 = done(curated, &["dataset", "freeze", "v1", "--size", "256"]);
    assert_eq!((&v1["counts"]["faces"], &v1["counts"]["by_verdict"]), (&json!(12), &json!({ "ok": 12 })));
    assert_eq!((&v1["selection"]["where"], &v1["selection"]["size"]), (&json!("status='ok'"), &json!(256)));
    let export = ["--frozen", "v1", "--size", "256"];
    done(curated, &[&["export", "--to", &place("before.zip")][..], &export].concat());

    // Other verdicts change what the query selects, and not the version.
    judge(curated, folder.path(), &all(&first[..2], "ng"));
    judge(curated, folder.path(), &all(rest, "ok"));
    done(curated, &[&["export", "--to", &place("after.zip")][..], &export].concat());
    for name in ["zip", "manifest.jsonl", "md"] {
        let read = |stem: &str| std::fs::read(place(&format!("{stem}.{name}"))).unwrap();
        assert_eq!(read("before"), read("after"), "{name}");
    }
    let manifest = lines(&folder.path().join("after.manifest.jsonl"));
    assert_eq!(manifest[0]["version"], json!({ "name": "v1", "digest": v1["digest"] }));
    assert!(manifest[1..].iter().all(|line| line["verdict"] == "ok"), "as it was then");
    assert_eq!(done(curated, &["dataset", "show", "v1"]), v1);

    // A name is given once; the same selection has the same digest.
    let (code, message) = failed(curated, &["dataset", "freeze", "v1", "--size", "256"]);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("has a version v1: versions never change"), "{message}");
    let v2 = done(curated, &["dataset", "freeze", "v2", "--size", "256"]);
    let again = done(curated, &["dataset", "freeze", "again", "--size", "256"]);
    assert_eq!(again["digest"], v2["digest"]);
    assert_ne!(v1["digest"], v2["digest"]);
    let names: Vec<Value> =
        done(curated, &["dataset", "list"]).as_array().unwrap().iter().map(|v| v["name"].clone()).collect();
    assert_eq!(names, ["again", "v1", "v2"]);

    // What has changed, and an export of only that.
    let difference = done(curated, &["dataset", "diff", "v1", "v2"]);
    assert_eq!(ids(&difference["added"]), rest);
    assert_eq!((ids(&difference["removed"]), &difference["changed"]), (first[..2].to_vec(), &json!([])));
    assert_eq!(difference["same"], 10);
    let text = run(curated, &["dataset", "diff", "v1", "v2"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.starts_with(&format!("v1 to v2: {} added, 2 removed, 0 changed, 10 the same\n+ ", rest.len())),
        "{text}"
    );
    // The versions' own size.
    let of_folder = ["export", "--format", "folder", "--to"];
    let one = done(curated, &["dataset", "freeze", "one", "--size", "256", "--num", "1"]);
    let behind = one["counts"]["beyond_number"].as_u64().unwrap();
    assert!(behind > 0, "{one}");
    let text = |arguments: &[&str]| String::from_utf8(run(curated, arguments).stdout).unwrap();
    let shown = text(&["dataset", "show", "one"]);
    assert!(shown.contains(&format!("left out    {behind}, behind the wanted number\n")), "{shown}");
    let exported = text(&[&of_folder[..], &[&place("one"), "--frozen", "one"]].concat());
    assert!(exported.starts_with("1 face of "), "{exported}");
    let card = std::fs::read_to_string(folder.path().join("one/README.md")).unwrap();
    assert!(card.contains(&format!("left out by the version: behind the wanted number | {behind} |")), "{card}");
    done(curated, &[&of_folder[..], &[&place("old"), "--frozen", "v1"]].concat());
    let manifest = lines(&folder.path().join("old/manifest.jsonl"));
    assert_eq!((&manifest[0]["size"], manifest.len()), (&json!(256), 1 + 12), "{}", manifest[0]);
    done(curated, &["dataset", "freeze", "odd", "--size", "300"]);
    done(curated, &[&of_folder[..], &[&place("new"), "--frozen", "v2"]].concat());
    let changes = done(curated, &[&of_folder[..], &[&place("changes"), "--frozen", "v2", "--since", "v1"]].concat());
    assert_eq!((&changes["faces"], &changes["removed"]), (&json!(rest.len()), &json!(2)));
    // The earlier folder, less what was removed, and with the changes, has the pictures of the later one.
    let mut pictures = pictures_of(&folder.path().join("old"));
    for removed in lines(&folder.path().join("changes/removed.jsonl")) {
        let file = removed["file"].as_str().unwrap();
        let at = pictures.iter().position(|picture| picture == file);
        pictures.remove(at.unwrap_or_else(|| panic!("{file} is not in the earlier export")));
    }
    pictures.extend(pictures_of(&folder.path().join("changes")));
    pictures.sort();
    assert_eq!(pictures, pictures_of(&folder.path().join("new")));

    for (arguments, code, expected) in [
        (&["dataset", "show", "v9"][..], 3, "has no version v9: `facemill dataset list` prints the versions"),
        (&["dataset", "diff", "v1", "v9"], 3, "has no version v9"),
        (&["dataset", "freeze", "../v1"], 2, "version name `../v1` is not valid"),
        (&["export", "--to", "x.zip", "--since", "v1"], 2, "--frozen"),
        (&["export", "--to", "x.zip", "--frozen", "v1", "--where", "ok"], 2, "cannot be used with"),
        (&["export", "--to", "x.zip", "--frozen", "odd"], 2, "--frozen odd --size 300: StyleGAN needs a power of two"),
        (&["export", "--to", "x.zip", "--size", "300"], 2, "--size 300: StyleGAN needs a power of two"),
        (&["export", "--to", "x.zip", "--frozen", "v2", "--since", "v1"], 2, "give --format folder"),
        (
            &["export", "--to", "x", "--format", "folder", "--size", "256", "--frozen", "v2", "--since", "again"],
            3,
            "version v2 has no face that version again has not",
        ),
        (&["export", "--to", "x.zip", "--frozen", "v1", "--size", "4096"], 3, "are smaller than 4096 pixels"),
    ] {
        let (got, message) = failed(curated, arguments);
        assert!(got == Some(code) && message.contains(expected), "{arguments:?}: {got:?} {message}");
    }
}

fn pictures_of(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for part in std::fs::read_dir(folder.join("images")).unwrap() {
        for picture in std::fs::read_dir(part.unwrap().path()).unwrap() {
            let path = picture.unwrap().path();
            names.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
        }
    }
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_a_folder_stays_as_it_is() {
    a_version_stays_as_it_is(&CuratedRun::in_folder(40).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_on_servers_stays_as_it_is() {
    a_version_stays_as_it_is(&CuratedRun::on_servers(40).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_version_is_told() {
    let curated = CuratedRun::in_folder(8).await;
    done(&curated, &["dataset", "freeze", "v1", "--size", "64", "--where", "size>=1"]);
    let folder = curated.path().join("versions/default/v1");
    let shard = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let shard = shard.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "parquet")).unwrap();
    std::fs::write(&shard, "PAR1").unwrap();
    let to = curated.path().join("x.zip");
    let export = ["export", "--to", to.to_str().unwrap(), "--size", "64", "--frozen", "v1"];
    let (code, message) = failed(&curated, &export);
    assert!(code == Some(3) && message.contains("does not have this hash"), "{message}");
    std::fs::remove_file(&shard).unwrap();
    let (code, message) = failed(&curated, &["dataset", "diff", "v1", "v1"]);
    assert!(code == Some(3) && message.contains(shard.file_name().unwrap().to_str().unwrap()), "{message}");
}
