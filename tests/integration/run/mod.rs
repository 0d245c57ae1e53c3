//! `facemill run` as a process: from a dump to faces, also after kills and interruptions.

use support::collection;
mod dead_letters;
mod ends;
mod hosts;
mod pictures;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use facemill::domain::ContentHash;
use serde_json::Value;

use collection::Collection;

/// Runs the program to its end.
fn facemill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facemill")).args(arguments).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The databases. Their pages depend on the order in which photos ended.
const DATABASES: [&str; 2] = ["ledger.sqlite", "index.sqlite"];

/// Files that contain times or locks and therefore differ between runs.
const TIMED: [&str; 3] = ["report.html", ".lock", "runs/default/classifier.json"];

/// All reproducible files below a folder, with the hashes of their content.
fn files(folder: &Path) -> BTreeMap<String, ContentHash> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, ContentHash>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                walk(root, &path, found);
            } else if !DATABASES.iter().any(|database| name.starts_with(database)) && !TIMED.contains(&name.as_str()) {
                found.insert(name, ContentHash::of(&std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// A complete run without a kill. Several tests read it; none changes it.
struct Undisturbed {
    collection: Collection,
    scratch: tempfile::TempDir,
    /// The events that it printed.
    events: Vec<Value>,
}

impl Undisturbed {
    fn out(&self) -> &Path {
        self.scratch.path()
    }
}

static UNDISTURBED: LazyLock<Undisturbed> = LazyLock::new(|| {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let run = facemill(&collection.run_text(scratch.path()));
    assert!(run.status.success(), "{run:?}");
    let printed = String::from_utf8(run.stdout).unwrap();
    let events = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Undisturbed { collection, scratch, events }
});

/// A run in progress.
struct Running {
    child: Child,
    events: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn start(collection: &Collection, out: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_facemill"))
            .args(collection.run_text(out))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, events }
    }

    /// The next event, or `None` once the program has ended.
    fn next(&mut self) -> Option<Value> {
        self.events.next().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }
}

#[test]
fn a_dump_becomes_faces() {
    let Undisturbed { collection, events, .. } = &*UNDISTURBED;
    let out = UNDISTURBED.out();
    let summary = events.last().unwrap();

    // Every candidate has a line, in the order of the ids, with the expected ending.
    let photos = lines(&out.join("photos.jsonl"));
    let ids: Vec<u64> = photos.iter().map(|photo| photo["photo_id"].as_u64().unwrap()).collect();
    assert_eq!(ids, collection.candidates());
    assert_eq!(summary["candidates"], ids.len());
    for photo in &photos {
        let url = photo["photo_url"].as_str().unwrap();
        let found = (photo["outcome"].as_str().unwrap(), photo["cause"].as_str().unwrap_or(""));
        let (host, path) = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).unwrap_or_default();
        let expected = match (host, path) {
            ("archive.test", path) if path.starts_with("deleted/") => ("gone", "http-404"),
            ("archive.test", "410.jpg") => ("gone", "http-410"),
            ("archive.test", "403.jpg") => ("gone", "http-403"),
            ("archive.test", "noai.jpg") => ("gone", "refused-by-robots-tag"),
            ("hostile.test", "page.jpg" | "bomb.jpg") => ("rejected", "not-an-image"),
            ("hostile.test", "empty.jpg") => ("rejected", "empty-body"),
            ("hostile.test", "loop.jpg") => ("rejected", "too-many-redirects"),
            ("hostile.test", "huge.jpg") => ("rejected", "too-large"),
            ("hostile.test", "cut.jpg") => ("rejected", "truncated"),
            ("hostile.test", "noise.jpg") => ("rejected", "undecodable"),
            ("hostile.test", "private.jpg") => ("rejected", "forbidden-address"),
            ("hostile.test", "file.jpg") => ("rejected", "bad-url"),
            ("busy.test", "broken.jpg") => ("failed", "http-500"),
            ("busy.test", _) | ("hostile.test", "twin.jpg") => ("predicted", ""),
            ("photos.test", "moved.jpg") | ("archive.test", "moved/there.jpg") => ("predicted", ""),
            // `check_angles` checks these photos.
            ("photos.test" | "archive.test", _) => continue,
            ("169.254.169.254" | "localhost" | "2130706433" | "[::ffff:10.0.0.1]", _) => {
                ("rejected", "forbidden-address")
            }
            _ => ("rejected", "bad-url"),
        };
        assert_eq!(found, expected, "{url}");
    }

    // Every face has a crop with its hash as name, and with the size and the landmarks of its record.
    let faces = lines(&out.join("faces.jsonl"));
    assert_eq!(summary["faces"], faces.len());
    for face in &faces {
        let file = face["file"].as_str().unwrap();
        let bytes = std::fs::read(out.join(file)).unwrap();
        assert_eq!(face["crop_sha256"], ContentHash::of(&bytes).to_string(), "{file}");
        let size = image::load_from_memory(&bytes).unwrap().width();
        assert_eq!(face["size"], size, "{file}");
        assert_eq!(face["landmarks"].as_array().unwrap().len(), 68);
        let p_ok = face["p_ok"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&p_ok));
        assert_eq!((face["search"].as_str(), face["align"].as_str()), (Some("guided"), Some("paper")));
    }
    let angles: BTreeMap<u64, f64> =
        faces.iter().map(|face| (face["photo_id"].as_u64().unwrap(), face["angle"].as_f64().unwrap())).collect();
    collection.check_angles(&angles);

    // The page loads nothing from elsewhere, and the other commands agree with it.
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("faces/") && !page.contains("src=\"http"));
    let audit = facemill(&["audit", path(&collection.dump), "--out", path(out), "--json"]);
    assert!(audit.status.success(), "{audit:?}");
    let audit: Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!((&audit["candidates"], &audit["waiting"]), (&Value::from(ids.len()), &Value::from(0)));
    let status: Value = serde_json::from_slice(&facemill(&["status", "--out", path(out), "--json"]).stdout).unwrap();
    assert_eq!(status["ended"]["predicted"], faces.len());
    assert_eq!(status["stages"]["classify"]["passed"], faces.len());
    assert_eq!(status["at_work"], false);

    // One photo of the demo is served under many URLs, with two labels: no face of the labelled person.
    for face in &faces {
        let same = faces.iter().filter(|other| other["original_sha256"] == face["original_sha256"]);
        let labels: BTreeSet<String> = same.clone().map(|other| other["label_name"].to_string()).collect();
        assert_eq!(face["placeholder"], labels.len() >= 2 || same.count() >= 10, "{}", face["photo_id"]);
    }
    let placeholders = faces.iter().filter(|face| face["placeholder"] == true).count();
    assert!(placeholders > 5 && placeholders < faces.len(), "{placeholders} of {}", faces.len());
    assert_eq!(status["placeholders"]["faces"], placeholders);
    let text =
        |command: &[&str]| String::from_utf8(facemill(&[command, &["--out", path(out)]].concat()).stdout).unwrap();
    let found = text(&["faces", "--where", "placeholder", "--limit", "1"]);
    assert!(found.contains(&format!("1 of {placeholders} faces\n{placeholders} of them are placeholders")), "{found}");
    assert!(text(&["status"]).contains(&format!(" placeholders with {placeholders} faces")));
    assert!(page.contains("Originals that many photos share"));
}

#[test]
fn a_killed_run_continues_and_ends_with_the_same_files() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path();
    let mut fetched = BTreeSet::new();
    let mut events_before_the_kill = [1, 7, 20, 40].into_iter();
    let mut kills = 0;
    loop {
        let mut running = Running::start(&collection, out, &[]);
        let limit = events_before_the_kill.next().unwrap_or(usize::MAX);
        let mut seen = 0;
        while seen < limit
            && let Some(event) = running.next()
        {
            seen += 1;
            if event["stage"] == "fetch" && event["what"] == "advanced" {
                let id = event["photo_id"].as_u64().unwrap();
                assert!(fetched.insert(id), "photo {id} was fetched twice");
            }
        }
        if seen == limit {
            // SIGKILL: no destructor runs and no buffer is flushed.
            running.child.kill().unwrap();
            running.child.wait().unwrap();
            kills += 1;
            continue;
        }
        assert!(running.child.wait().unwrap().success());
        break;
    }
    assert_eq!(kills, 4);
    let files = files(out);
    let undisturbed = self::files(UNDISTURBED.out());
    let expected = lines(&UNDISTURBED.out().join("photos.jsonl"));
    let found = lines(&out.join("photos.jsonl"));
    let differing: Vec<_> = found.iter().zip(&expected).filter(|(a, b)| a != b).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    let names = |files: &BTreeMap<String, ContentHash>| files.keys().cloned().collect::<Vec<_>>();
    // A kill may leave a partly written file, with the extension `part`.
    let files: BTreeMap<_, _> = files.into_iter().filter(|(name, _)| !name.ends_with(".part")).collect();
    assert_eq!(names(&files), names(&undisturbed));
    // The source of a face is the path of the dump, which is in another folder for each run.
    let faces = |out: &Path| {
        let mut faces = lines(&out.join("faces.jsonl"));
        faces.iter_mut().for_each(|face| assert!(face.as_object_mut().unwrap().remove("source").is_some()));
        faces
    };
    assert_eq!(faces(out), faces(UNDISTURBED.out()));
    for (name, hash) in files.iter().filter(|(name, _)| *name != "faces.jsonl") {
        assert_eq!(hash, &undisturbed[name], "{name} differs");
    }
    let audit = facemill(&["audit", path(&collection.dump), "--out", path(out)]);
    assert!(audit.status.success(), "{audit:?}");
}

#[test]
fn an_interrupted_run_can_be_continued() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let flags = ["--limit", "25", "--align", "ffhq", "--min-face", "90"];
    let mut running = Running::start(&collection, scratch.path(), &flags);
    running.next().unwrap();
    let pid = running.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut last = None;
    while let Some(event) = running.next() {
        last = Some(event);
    }
    assert_eq!(running.child.wait().unwrap().code(), Some(130));
    let summary = last.unwrap();
    assert_eq!(summary["complete"], false);
    let waiting = summary["waiting"].as_u64().unwrap();
    assert!(waiting > 0);
    let status: Value =
        serde_json::from_slice(&facemill(&["status", "--out", path(scratch.path()), "--json"]).stdout).unwrap();
    let stages = status["stages"].as_object().unwrap().values();
    let queued: u64 = stages
        .map(|stage| ["ready", "in_flight", "delayed"].iter().map(|of| stage[of].as_u64().unwrap()).sum::<u64>())
        .sum();
    assert_eq!(queued, waiting, "photos in flight are back in the queues");
    // The printed command is complete: no more photos than before, the same settings, the same hosts.
    let command = summary["to_continue"].as_str().unwrap();
    let rest = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(rest.status.success(), "{command}: {rest:?}");
    let whole = tempfile::tempdir().unwrap();
    assert!(facemill(&[collection.run_text(whole.path()), flags.to_vec()].concat()).status.success());
    let faces = |out: &Path| std::fs::read_to_string(out.join("faces.jsonl")).unwrap();
    assert_eq!(faces(scratch.path()), faces(whole.path()));
    assert!(faces(whole.path()).contains("\"align\":\"ffhq\""));
    assert_eq!(lines(&scratch.path().join("photos.jsonl")).len(), 25);
}

#[test]
fn why_prints_the_history_of_a_photo() {
    let Undisturbed { collection, .. } = &*UNDISTURBED;
    let out = path(UNDISTURBED.out());
    let id = collection.id_of("/broken.jpg").to_string();
    let why = facemill(&["why", &id, "--out", out, "--json"]);
    let story: Value = serde_json::from_slice(&why.stdout).unwrap();
    let history = story["history"].as_array().unwrap();
    let attempts: Vec<(&str, u64)> = history
        .iter()
        .filter(|event| event["cause"]["code"] == "http-500")
        .map(|event| (event["what"].as_str().unwrap(), event["attempt"].as_u64().unwrap()))
        .collect();
    assert_eq!(attempts, [("retried", 1), ("retried", 2), ("failed", 3)]);
    assert_eq!(story["cause"]["code"], "http-500");
    assert_eq!(story["trace_id"].as_str().unwrap().len(), 32);
    let text = String::from_utf8(facemill(&["why", &id, "--out", out]).stdout).unwrap();
    assert!(text.contains("failed at fetch") && text.contains(story["trace_id"].as_str().unwrap()), "{text}");
    let url = story["photo"]["candidate"]["photo_url"].as_str().unwrap();
    let by_url: Value = serde_json::from_slice(&facemill(&["why", url, "--out", out, "--json"]).stdout).unwrap();
    assert_eq!(by_url, story);
    assert_eq!(facemill(&["why", "https://photos.test/nowhere.jpg", "--out", out]).status.code(), Some(1));
    let unknown = facemill(&["why", "987654321", "--out", out]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn the_audit_finds_missing_photos_and_objects() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path();
    let few = [collection.run_text(out), vec!["--limit", "30"]].concat();
    assert!(facemill(&few).status.success());
    let lost = std::fs::read_to_string(out.join("faces.jsonl")).unwrap();
    let lost: Value = serde_json::from_str(lost.lines().next().unwrap()).unwrap();
    std::fs::remove_file(out.join(lost["file"].as_str().unwrap())).unwrap();
    let audit = facemill(&["audit", path(&collection.dump), "--out", path(out), "--json"]);
    assert_eq!(audit.status.code(), Some(1));
    let audit: Value = serde_json::from_slice(&audit.stdout).unwrap();
    let faults = audit["faults"].as_array().unwrap();
    let missing = faults.iter().filter(|fault| fault["fault"] == "missing").count();
    assert_eq!(missing, collection.candidates().len() - 30);
    assert!(faults.iter().any(|fault| fault["fault"] == "lost-object" && fault["photo_id"] == lost["photo_id"]));

    // The content of files counts with --files.
    let changed = lines(&out.join("faces.jsonl")).into_iter().nth(1).unwrap();
    let changed_file = out.join(changed["file"].as_str().unwrap());
    let content = std::fs::read(&changed_file).unwrap();
    std::fs::write(&changed_file, &content[1..]).unwrap();
    let audit = |more: &[&str]| {
        let command = [&["audit", path(&collection.dump), "--out", path(out), "--json"], more].concat();
        serde_json::from_slice::<Value>(&facemill(&command).stdout).unwrap()
    };
    let kinds = |audit: &Value| -> Vec<(String, Value)> {
        let faults = audit["faults"].as_array().unwrap().iter().filter(|fault| fault["fault"] != "missing");
        faults.map(|fault| (fault["fault"].as_str().unwrap().to_owned(), fault["photo_id"].clone())).collect()
    };
    let lost_face = ("lost-object".to_owned(), lost["photo_id"].clone());
    let mut expected = vec![lost_face.clone(), ("changed-object".to_owned(), changed["photo_id"].clone())];
    expected.sort_by_key(|(_, photo)| photo.as_u64());
    assert_eq!(kinds(&audit(&[])), [lost_face]);
    let read = audit(&["--files"]);
    assert_eq!(kinds(&read), expected);
    assert!(
        read["files"]["files"].as_u64() > read["files"]["photos"].as_u64() && read["files"]["bytes"] != 0,
        "{read}"
    );
    assert_eq!(audit(&["--files", "--sample", "3"])["files"]["photos"], 3);
    std::fs::write(&changed_file, &content).unwrap();

    // A run says that a face was deleted, and makes it again.
    let said = facemill(&few);
    let note = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.success() && note.contains("1 face of earlier photos missing in"), "{note}");
    assert!(!out.join(lost["file"].as_str().unwrap()).exists());
    let remade = facemill(&[few.clone(), vec!["--remake-faces"]].concat());
    assert!(remade.status.success(), "{remade:?}");
    assert_eq!(kinds(&audit(&["--files"])), []);
}

#[test]
fn other_settings_and_a_second_process_are_refused() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path();
    let few = [collection.run_text(out), vec!["--limit", "3"]].concat();
    assert!(facemill(&few).status.success());
    let align = |align: &'static str| facemill(&[few.clone(), vec!["--align", align]].concat());
    assert!(align("paper").status.success());
    let other = align("ffhq");
    assert_eq!(other.status.code(), Some(3));
    let error = String::from_utf8(other.stderr).unwrap();
    assert!(error.contains("--align paper (now ffhq)"), "{error}");

    let mut first = Running::start(&collection, out, &[]);
    first.next().unwrap();
    let second = facemill(&few);
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8(second.stderr).unwrap().contains("another facemill process uses"));
    first.child.kill().unwrap();
    first.child.wait().unwrap();
}

#[test]
fn a_run_changes_its_classifier() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path();
    let list = || {
        let listed = facemill(&["models", "list", "--out", path(out), "--json"]);
        serde_json::from_slice::<Vec<Value>>(&listed.stdout).unwrap()
    };
    let take = |model: &str| {
        let used = facemill(&["models", "use", model, "--threshold", "0.75", "--why", "a test", "--out", path(out)]);
        assert!(used.status.success(), "{}", String::from_utf8_lossy(&used.stderr));
    };
    let predictions = |model: &Value| out.join("predictions").join(model["sha256"].as_str().unwrap());
    assert!(facemill(&[collection.run_text(out), vec!["--limit", "30"]].concat()).status.success());
    let [first] = &list()[..] else { panic!("{:?}", list()) };
    assert_eq!((&first["current"], first["changes"].as_array().unwrap().len()), (&Value::from(true), 1));
    assert!(predictions(first).is_dir());

    // The same model with another hash, because readers ignore an unknown field at the end.
    let mut bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/classifier.onnx")).unwrap();
    bytes.extend([0xa0, 0x06, 0x01]);
    let file = out.join("other.onnx");
    std::fs::write(&file, bytes).unwrap();
    take(path(&file));
    std::fs::remove_file(&file).unwrap();
    let listed = list();
    let [second] = &listed.iter().filter(|model| model["current"] == true).collect::<Vec<_>>()[..] else {
        panic!("{listed:?}")
    };
    assert_ne!(first["sha256"], second["sha256"]);
    let change = &second["changes"][0];
    assert_eq!((change["threshold"].as_f64(), change["why"].as_str()), (Some(0.75), Some("a test")));
    assert!(facemill(&collection.run_text(out)).status.success());
    assert!(predictions(second).is_dir(), "photos of the second call are scored by the new model");

    // Faces and the report show the predictions of the current classifier only, and its threshold.
    let scored_by = |model: &Value| {
        let faces = lines(&out.join("faces.jsonl"));
        let (scored, unscored): (Vec<_>, Vec<_>) = faces.into_iter().partition(|face| face["p_ok"].is_number());
        assert!(!scored.is_empty() && !unscored.is_empty() && unscored.iter().all(|face| face["model"].is_null()));
        assert!(scored.iter().all(|face| face["model"] == model["model"]), "{scored:?}");
        for (threshold, given) in [(0.75, None), (0.3, Some("0.3"))] {
            let ok = scored.iter().filter(|face| face["p_ok"].as_f64().unwrap() >= threshold).count();
            let given = given.map_or(vec![], |threshold| vec!["--threshold", threshold]);
            let counted = facemill(&[vec!["faces", "--count", "--where", "ok", "--out", path(out)], given].concat());
            assert_eq!(String::from_utf8(counted.stdout).unwrap(), format!("{ok}\n"), "from {threshold} on");
        }
        scored
    };
    let by_second = scored_by(second);
    take(first["model"].as_str().unwrap());
    assert!(facemill(&["report", "--out", path(out)]).status.success());
    assert_ne!(scored_by(first), by_second);
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("P(OK) of 0.75 or more"));
    let shown = facemill(&["models", "show", first["model"].as_str().unwrap(), "--out", path(out), "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["current"], shown["changes"].as_array().unwrap().len()), (&Value::from(true), 2));
    let unknown = facemill(&["models", "show", "nothing", "--out", path(out)]);
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("neither a file nor a stored classifier"));
}

#[test]
fn all_faults_of_the_settings_are_reported_at_once() {
    let run = facemill(&["run", "x.sql", "--min-face", "3", "--attempts", "0", "--resolve", "nonsense"]);
    assert_eq!(run.status.code(), Some(2));
    let error = String::from_utf8(run.stderr).unwrap();
    for word in ["--min-face 3", "--attempts 0", "nonsense"] {
        assert!(error.contains(word), "{error}");
    }
}
