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
    assert!(text.contains("1 photos were not enqueued") && text.contains("--id-prefix"), "{text}");
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
