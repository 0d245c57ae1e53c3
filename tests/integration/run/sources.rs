//! Several sources of one run: what is added, and what is in conflict.

use std::path::PathBuf;

use serde_json::Value;

use super::{facemill, lines, path};

/// A folder with sources and a run.
struct Desk {
    scratch: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { scratch: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.scratch.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn out(&self) -> PathBuf {
        self.scratch.path().join("out")
    }

    /// Runs a command on the run. Returns the exit code and the output.
    fn text(&self, arguments: &[&str]) -> (i32, String) {
        let out = self.out();
        let done = facemill(&[arguments, &["--out", path(&out)]].concat());
        (done.status.code().unwrap(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    }

    /// The ids of the photos of the run, and how they ended.
    fn photos(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let photos = lines(&self.out().join("photos.jsonl"));
        photos.iter().map(|photo| (text(&photo["photo_id"]), text(&photo["outcome"]))).collect()
    }
}

#[test]
fn a_second_source_is_added_and_conflicts_are_told() {
    // Photos at private addresses end at once.
    let desk = Desk::new();
    let one = desk.file("one.csv", "photo_id,photo_url\n1,http://127.0.0.1/one.jpg\n");
    let two = desk.file("two.csv", "photo_id,photo_url\n1,http://127.0.0.1/other.jpg\n2,http://127.0.0.1/two.jpg\n");
    let (code, text) = desk.text(&["run", path(&one)]);
    assert_eq!(code, 0, "{text}");

    let (code, text) = desk.text(&["run", path(&two)]);
    assert_eq!(code, 1, "{text}");
    for url in ["http://127.0.0.1/one.jpg", "http://127.0.0.1/other.jpg"] {
        assert!(text.contains(url), "{text}");
    }
    assert!(text.contains("not enqueued: 1 photo,") && text.contains("--id-prefix"), "{text}");
    assert_eq!(desk.photos().len(), 2, "the photo without a conflict was added");
    let (code, text) = desk.text(&["audit", path(&two)]);
    assert!(code == 1 && text.contains("photo 1: conflict: the run has http://127.0.0.1/one.jpg"), "{text}");
    let (code, text) = desk.text(&["audit", path(&one)]);
    assert!(code == 0 && text.contains("1 more in the ledger"), "{text}");

    for (id, source) in [("1", &one), ("2", &two)] {
        let (code, text) = desk.text(&["why", id]);
        assert!(code == 0 && text.contains(&format!("  source  {}\n", source.display())), "{text}");
    }

    let (code, text) = desk.text(&["run", path(&two), "--id-prefix", "two-"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        desk.photos().into_iter().map(|(id, _)| id).collect::<Vec<_>>(),
        ["1", "2", "two-1", "two-2"],
        "the prefix keeps the sources apart"
    );
    assert_eq!(desk.text(&["audit", path(&two), "--id-prefix", "two-"]).0, 0);
}

#[test]
fn a_source_that_has_grown_adds_what_is_new() {
    let desk = Desk::new();
    let dump = desk.file("dump.csv", "photo_id,photo_url\n1,http://127.0.0.1/1.jpg\n");
    assert_eq!(desk.text(&["run", path(&dump)]).0, 0);
    let dump = desk.file("dump.csv", "photo_id,photo_url\n1,http://127.0.0.1/1.jpg\n2,http://127.0.0.1/2.jpg\n");
    let (code, text) = desk.text(&["run", path(&dump), "--json"]);
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((code, &summary["enqueued"]["new"], &summary["enqueued"]["known"]), (0, &1.into(), &1.into()), "{text}");
}

/// A photograph with one face.
fn photo(name: &str) -> Vec<u8> {
    std::fs::read(support::project().join(".cache/photos").join(name)).unwrap()
}

/// The objects of the run below `originals`, and whether each is a link.
fn originals(desk: &Desk) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(desk.out().join("originals")).unwrap() {
        for entry in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let entry = entry.unwrap();
            found.push((entry.path(), entry.file_type().unwrap().is_symlink()));
        }
    }
    found.sort();
    found
}

#[test]
fn names_are_shown_as_they_are() {
    let desk = Desk::new();
    let name = "O'Neill \"Q\"";
    let id = format!("{name}/it's.jpg");
    let copy = desk.file(&format!("photos/{id}"), photo("obama.jpg")).with_file_name("it's again.png");
    image::load_from_memory(&photo("obama.jpg")).unwrap().fliph().save(copy).unwrap();
    let folder = desk.scratch.path().join("photos");
    assert_eq!(desk.text(&["run", path(&folder), "--label-from", "folder"]).0, 0);
    for arguments in [
        &["why", &id][..],
        &["faces"],
        &["dataset", "balance"],
        &["duplicates"],
        &["identities"],
        &["suggest"],
        // Without --yes it only says what it would remove.
        &["takedown", "--label", name],
    ] {
        let (code, text) = desk.text(arguments);
        assert_eq!(code, i32::from(arguments[0] == "takedown"), "{arguments:?}: {text}");
        assert!(text.contains(name) && !text.contains('\\'), "{arguments:?}: {text}");
    }
}

#[test]
fn a_terminal_obeys_no_text_of_a_source() {
    let desk = Desk::new();
    let bell = "\u{7}\u{1b}[2J";
    let columns = "photo_id,photo_url,face_id,label_id,label_name,source_url";
    let row = format!("1,http://127.0.0.1/1.jpg,f{bell},l{bell},Ann{bell},http://127.0.0.1/{bell}");
    let dump = desk.file("dump.csv", format!("{columns}\n{row}\n"));
    assert_eq!(desk.text(&["run", path(&dump)]).0, 0);
    let (code, why) = desk.text(&["why", "1"]);
    let shown = r"\u{7}\u{1b}[2J";
    assert_eq!(code, 0, "{why}");
    assert!(why.contains(&format!("  label   Ann{shown} (l{shown}), face f{shown}\n")), "{why:?}");
    assert!(!why.contains(['\u{7}', '\u{1b}']), "{why:?}");
}

#[test]
fn a_folder_of_photos_becomes_faces_without_copies() {
    let desk = Desk::new();
    let (anna, ben) = (photo("obama.jpg"), photo("biden.jpg"));
    let first = desk.file("photos/anna/1.jpg", &anna);
    desk.file("photos/ben/2 ü.JPG", &ben);
    desk.file("photos/ben/cat.png", photo("chelsea.png"));
    desk.file("photos/readme.txt", "no photo");
    let folder = desk.scratch.path().join("photos");
    let before = std::fs::metadata(&first).unwrap();
    let run = || desk.text(&["run", path(&folder), "--label-from", "folder", "--json"]);
    let (code, text) = run();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 file was left out, because it is no photo: ") && text.contains("readme.txt"), "{text}");

    let faces = lines(&desk.out().join("faces.jsonl"));
    let named: Vec<_> = faces.iter().map(|face| (face["photo_id"].as_str(), face["label_name"].as_str())).collect();
    assert_eq!(named, [(Some("anna/1.jpg"), Some("anna")), (Some("ben/2 ü.JPG"), Some("ben"))]);
    let root = folder.canonicalize().unwrap();
    assert_eq!(faces[0]["photo_url"], format!("file://{}/anna/1.jpg", root.display()));
    assert_eq!(faces[0]["source"], format!("file://{}/", root.display()));
    let stored = originals(&desk);
    assert!(stored.len() == 3 && stored.iter().all(|(_, is_link)| *is_link), "{stored:?}");
    assert!(stored.iter().any(|(path, _)| std::fs::read(path).unwrap() == anna));
    let after = std::fs::metadata(&first).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), anna);
    assert_eq!((after.modified().unwrap(), after.permissions()), (before.modified().unwrap(), before.permissions()));
    assert_eq!(desk.text(&["audit", path(&folder)]).0, 0);
    let (_, why) = desk.text(&["why", "anna/1.jpg"]);
    assert!(why.contains("url     file:///") && why.contains("label   anna"), "{why}");

    // The folder grows: only what is new is taken.
    desk.file("photos/anna/3.jpg", photo("obama3.jpg"));
    let (code, text) = run();
    let summary = text.lines().rfind(|line| line.contains("\"summary\"")).unwrap();
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert_eq!((code, &summary["enqueued"]["new"], &summary["enqueued"]["known"]), (0, &1.into(), &3.into()), "{text}");
    assert_eq!(summary["faces"], 3, "{text}");

    // A photo that is lost is told; once it is back, all is well.
    std::fs::remove_file(&first).unwrap();
    let (code, text) = desk.text(&["audit", path(&folder)]);
    assert!(code == 1 && text.contains("photo anna/1.jpg: lost-object"), "{text}");
    std::fs::write(&first, &anna).unwrap();
    assert_eq!(desk.text(&["audit", path(&folder)]).0, 0);
}

#[test]
fn a_folder_can_be_copied() {
    let desk = Desk::new();
    desk.file("photos/1.jpg", photo("obama.jpg"));
    let folder = desk.scratch.path().join("photos");
    let (code, text) = desk.text(&["run", path(&folder), "--copy"]);
    assert_eq!(code, 0, "{text}");
    let stored = originals(&desk);
    assert!(stored.len() == 1 && !stored[0].1, "{stored:?}");
    let (code, text) = desk.text(&["run", path(&desk.file("a.csv", "photo_id,photo_url\n")), "--copy"]);
    assert!(code == 2 && text.contains("is no folder with photos"), "{text}");
}

#[test]
fn a_dump_cannot_name_a_file() {
    let desk = Desk::new();
    let photo = desk.file("photos/1.jpg", photo("obama.jpg"));
    let folder = desk.scratch.path().join("photos");
    let (code, text) = desk.text(&["run", path(&folder), "--copy"]);
    assert_eq!(code, 0, "{text}");
    // Not even a photo of a folder that was named for this run.
    let rows = format!(
        "photo_id,photo_url\na,file://{}\nb,file:///etc/passwd\nc,s3://bucket/secret.jpg\nd,FILE:///etc/passwd\n",
        photo.canonicalize().unwrap().display()
    );
    let dump = desk.file("dump.csv", rows);
    let (code, text) = desk.text(&["run", path(&dump)]);
    assert_eq!(code, 0, "{text}");
    let photos = lines(&desk.out().join("photos.jsonl"));
    let ends: Vec<_> =
        photos.iter().map(|photo| (photo["photo_id"].as_str().unwrap(), photo["cause"].as_str())).collect();
    let bad = Some("bad-url");
    assert_eq!(ends, [("a", bad), ("b", bad), ("c", bad), ("d", bad), ("1.jpg", None)]);
    assert_eq!(originals(&desk).len(), 1);
}

#[test]
fn a_photo_that_changes_while_it_is_under_way_is_not_mixed_up() {
    use facemill::domain::{ContentHash, ImageFormat, StoredUrl};
    use facemill::objects::folder::Folder;
    use facemill::objects::{ObjectError, ObjectKey, Objects};

    let desk = Desk::new();
    let path = desk.file("1.jpg", photo("obama.jpg"));
    let store = Folder::at(desk.out());
    let key = ObjectKey::original(ContentHash::of(&photo("obama.jpg")), ImageFormat::Jpeg);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = StoredUrl::file(&path);
        assert!(store.links_to(&url) && store.link(&key, &url).await.unwrap());
        assert!(!store.link(&key, &url).await.unwrap(), "the link is there");
        assert_eq!(store.get(&key).await.unwrap(), photo("obama.jpg"));
        std::fs::write(&path, photo("biden.jpg")).unwrap();
        assert!(matches!(store.get(&key).await, Err(ObjectError::Changed { .. })));
        let other = desk.file("2.jpg", photo("obama.jpg"));
        assert!(store.link(&key, &StoredUrl::file(&other)).await.unwrap(), "a link to a changed photo is replaced");
        assert_eq!(store.get(&key).await.unwrap(), photo("obama.jpg"));
        store.delete(&key).await.unwrap();
        assert!(!store.exists(&key).await.unwrap() && other.exists(), "the photo stays");
    });
}

#[test]
fn a_list_of_urls_is_a_source() {
    let desk = Desk::new();
    let urls =
        "# private addresses end at once\nhttp://127.0.0.1/1.jpg\r\n\nhttp://127.0.0.1/2.jpg\nhttp://127.0.0.1/1.jpg\n";
    let list = desk.file("urls.txt", urls);
    let (code, text) = desk.text(&["run", path(&list)]);
    assert!(code == 0 && text.contains("1 row repeats a URL"), "{text}");
    let ids: Vec<String> = desk.photos().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 2);
    let (_, why) = desk.text(&["why", &ids[0]]);
    assert!(why.contains("  label   none, face "), "{why}");
    // The same URLs in another format have the same ids.
    let table = desk.file("urls.tsv", "caption\tURL\nx\thttp://127.0.0.1/2.jpg\ny\thttp://127.0.0.1/1.jpg\n");
    let (code, text) = desk.text(&["run", path(&table), "--json"]);
    let summary = text.lines().rfind(|line| line.contains("\"summary\"")).unwrap();
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert_eq!((code, &summary["enqueued"]["known"], &summary["enqueued"]["new"]), (0, &2.into(), &0.into()), "{text}");
    assert_eq!(desk.text(&["audit", path(&list)]).0, 0);
    let broken = desk.file("broken.txt", "http://127.0.0.1/1.jpg\nphoto.jpg\n");
    let (code, text) = desk.text(&["run", path(&broken)]);
    assert!(code == 3 && text.contains("line 2") && text.contains("`photo.jpg` is not a URL"), "{text}");
}

#[test]
fn a_photo_that_the_run_does_not_have_is_explained_by_its_source() {
    let desk = Desk::new();
    let photos = ["1", "2", "3", "4", "5"].map(|id| format!("{id}\t\\N\thttp://127.0.0.1/{id}.jpg\t\\N\n")).concat();
    let faces = [
        "11\t1\t7\t2020-01-05 00:00:00",   // one labelled face, the latest
        "12\t2\t\\N\t2020-01-04 00:00:00", // no label
        "13\t3\t7\t2020-01-03 00:00:00",   // two labelled faces
        "14\t3\t7\t2020-01-03 00:00:00",
        "15\t4\t7\t2020-01-02 00:00:00", // a candidate, beyond the limit
        "16\t5\t9\t2020-01-01 00:00:00", // an unknown label
    ];
    let dump = format!(
        "-- PostgreSQL database dump\n\
         CREATE TABLE photos (id bigint, source_url text, photo_url text, posted_at timestamp);\n\
         CREATE TABLE faces (id bigint, photo_id bigint, label_id bigint, updated_at timestamp);\n\
         CREATE TABLE labels (id bigint, name text);\n\
         COPY photos (id, source_url, photo_url, posted_at) FROM stdin;\n{photos}\\.\n\
         COPY faces (id, photo_id, label_id, updated_at) FROM stdin;\n{}\n\\.\n\
         COPY labels (id, name) FROM stdin;\n7\tAna\n\\.\n-- PostgreSQL database dump complete\n",
        faces.join("\n")
    );
    let dump = desk.file("dump.sql", dump);
    let dump = path(&dump);
    let (code, text) = desk.text(&["run", dump, "--limit", "1"]);
    assert_eq!(code, 0, "{text}");

    let (code, text) = desk.text(&["why", "4"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("run default has no photo 4: `facemill why 4 SOURCE` reads"), "{text}");
    for (photo, reason, words) in [
        ("2", "no-label", "no candidate: none of its faces has a label"),
        ("3", "several-labels", "no candidate: its faces 13, 14 have labels"),
        ("http://127.0.0.1/3.jpg", "several-labels", "no candidate: its faces 13, 14 have labels"),
        ("4", "beyond-limit", "not enqueued: it is candidate 2 of 2, and the run has the first 1, as with --limit"),
        ("5", "unknown-label", "no candidate: the label 9 of its face 16 does not exist"),
        ("6", "not-in-source", "the source does not have it"),
    ] {
        let (code, text) = desk.text(&["why", photo, dump]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(&format!("run default has no photo {photo}: {words}")), "{text}");
        let (_, json) = desk.text(&["why", photo, dump, "--json"]);
        let json: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!(json["reason"], reason, "{json}");
    }
    let (_, text) = desk.text(&["why", "a-2", dump, "--id-prefix", "a-"]);
    assert!(text.contains("run default has no photo a-2: no candidate: none of its faces has a label"), "{text}");
    // A photo that the run has needs no source, and one may be given.
    for arguments in [&["why", "1"][..], &["why", "1", dump]] {
        let (code, text) = desk.text(arguments);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("photo 1: rejected at fetch"), "{text}");
    }
    // A takedown refuses the address before the run has the photo.
    let (code, text) = desk.text(&["takedown", "--url", "http://127.0.0.1/4.jpg", "--yes"]);
    assert_eq!(code, 0, "{text}");
    let (_, text) = desk.text(&["why", "4", dump]);
    assert!(text.contains("run default has no photo 4: refused: a takedown refuses its address"), "{text}");
}
