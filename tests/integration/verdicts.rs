//! `facemill verdicts` as a process: from files of judgements to the log and back.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use facemill::domain::{Ending, Judgement, Message, Position, RunName, Selection, StageName, Verdict, View};
use facemill::ledger::Ledger;
use facemill::ledger::sqlite::Sqlite;
use facemill::objects::ObjectKey;
use facemill::objects::folder::Folder;
use facemill::sqlite::{Access, Database};
use facemill::verdicts::{VerdictLog, VerdictWriter};
use serde_json::{Value, json};
use support::faces::photo;
use support::servers::process::wait_for;

fn verdicts(out: &Path, arguments: &[&str]) -> Output {
    command(out, arguments).output().unwrap()
}

fn command(out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.arg("verdicts").args(arguments).arg("--out").arg(out);
    command
}

fn text(output: &[u8]) -> &str {
    std::str::from_utf8(output).unwrap()
}

/// Standard output, of a command that succeeds.
fn printed(output: &Output) -> &str {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The folder of a run in which so many photos became faces.
async fn run_folder(faces: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    let ledger = Sqlite::open(database).await.unwrap();
    for id in 0..faces {
        let at = Position::entering(StageName::Classify);
        let message = Message { position: at, ..Message::first(photo(id), 1_700_000_000) };
        assert!(ledger.restore(&message, Ending::Predicted, None).await.unwrap());
    }
    folder
}

fn crop(id: u64) -> String {
    photo(id).facts.crop.unwrap().sha256.to_string()
}

fn exported(out: &Path, more: &[&str]) -> Vec<Value> {
    let output = verdicts(out, &[&["export"], more].concat());
    printed(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn judgements_of_a_file_are_stored_once_and_exported() {
    let folder = run_folder(4).await;
    let out = folder.path();
    let csv = out.join("labels.csv");
    let rows = format!(
        "photo_id,crop,status,reason,by,at\n0,,OK,,ada,2024-01-02 03:04:05\n,{},ng,Cut-Off,\"Grace, H.\",\n\
         0,,pending,,ada,2024-01-03 00:00:00\n99,,ok,,ada,\n",
        crop(1)
    );
    std::fs::write(&csv, rows).unwrap();
    let file = csv.to_str().unwrap();

    let first = verdicts(out, &["import", file]);
    let expected = "stored 3 verdicts\n1 line without a face in this run, not stored: 5\n";
    assert_eq!((text(&first.stdout), first.status.code()), (expected, Some(1)), "{}", text(&first.stderr));
    let again = verdicts(out, &["import", file, "--json"]);
    let expected = json!({ "stored": 0, "known": 3, "unknown": [5], "conflicts": 0 });
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap(), expected);

    let all = exported(out, &[]);
    let part = |name: &str| all.iter().map(|verdict| verdict[name].clone()).collect::<Vec<_>>();
    assert_eq!(part("photo_id"), [json!(0), json!(1), json!(0)]);
    assert_eq!(part("judgement"), ["ok", "ng", "pending"]);
    assert_eq!(part("reason"), [Value::Null, json!("cut-off"), Value::Null]);
    assert_eq!(part("by"), ["ada", "Grace, H.", "ada"]);
    assert_eq!(part("crop"), [crop(0), crop(1), crop(0)]);
    assert_eq!(all[0]["at"], 1_704_164_645_000_u64);
    // The later row of a photo replaces the earlier one.
    assert_eq!(all[2]["replaces"], json!([all[0]["id"]]));
    assert_eq!(part("counts"), [false, true, true]);
    assert_eq!(exported(out, &["--current"]), all[1..]);

    // A CSV has the same content, and can be imported elsewhere.
    let copy = out.join("copy.csv");
    let written = verdicts(out, &["export", "--to", copy.to_str().unwrap()]);
    assert_eq!(printed(&written), format!("{}: 3 verdicts\n", copy.display()));
    let other = run_folder(4).await;
    printed(&verdicts(other.path(), &["import", copy.to_str().unwrap()]));
    assert_eq!(exported(other.path(), &[]), all);
}

fn program(out: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.args(arguments).arg("--out").arg(out).env("XDG_CACHE_HOME", out.join("cache")).output().unwrap()
}

/// Who has given the verdicts that `facemill why` lists.
fn judged_by(out: &Path, photo: &str) -> Vec<String> {
    let story: Value = serde_json::from_str(printed(&program(out, &["why", photo, "--json"]))).unwrap();
    let verdicts = story["verdicts"].as_array().cloned().unwrap_or_default();
    verdicts.iter().map(|verdict| verdict["by"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_reads_what_the_index_does_not_have() {
    let folder = run_folder(2).await;
    let out = folder.path();
    let csv = out.join("labels.csv");
    std::fs::write(&csv, "photo_id,status,by\n0,ok,ada\n1,ok,ada\n").unwrap();
    printed(&verdicts(out, &["import", csv.to_str().unwrap()]));
    printed(&program(out, &["faces", "--count"]));
    assert_eq!(judged_by(out, "0"), ["ada"]);
    let log = VerdictLog::new(Arc::new(Folder::at(out)), RunName::default());
    let later = Verdict {
        id: "later".parse().unwrap(),
        photo_id: 0.into(),
        crop: photo(0).facts.crop.unwrap().sha256,
        judgement: Judgement::Ng,
        reason: None,
        by: "grace".into(),
        at: 1_900_000_000_000,
        replaces: vec![],
        selection: Selection::Filter,
        view: View::Single,
        repeat: false,
        seen: None,
    };
    VerdictWriter::open(log, |_| ()).await.unwrap().append(&[later]).await.unwrap();
    // What the index has of the log is not read again.
    let segment = out.join(ObjectKey::verdicts(&RunName::default(), 1).as_str());
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, [b"damaged".as_slice(), &whole[7..]].concat()).unwrap();
    assert_eq!(judged_by(out, "0"), ["ada", "grace"]);
    let index = out.join("index.sqlite");
    let known = std::fs::read(&index).unwrap();
    std::fs::remove_file(&index).unwrap();
    let failed = program(out, &["why", "0"]);
    assert!(text(&failed.stderr).contains("line 1"), "{}", text(&failed.stderr));
    std::fs::write(&segment, whole).unwrap();
    assert_eq!(judged_by(out, "0"), ["ada", "grace"]);

    // An index that does not know of a takedown still has the verdicts.
    printed(&program(out, &["takedown", "--photo", "0", "--yes"]));
    for file in ["index.sqlite-wal", "index.sqlite-shm"] {
        let _ = std::fs::remove_file(out.join(file));
    }
    std::fs::write(&index, known).unwrap();
    assert_eq!((judged_by(out, "0"), judged_by(out, "1")), (vec![], vec!["ada".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_is_told_and_nothing_is_overwritten() {
    let folder = run_folder(2).await;
    let out = folder.path();
    let import = |name: &str, lines: &str| {
        let file = out.join(name);
        std::fs::write(&file, lines).unwrap();
        verdicts(out, &["import", file.to_str().unwrap(), "--by", "ada"])
    };
    printed(&import("one.jsonl", "{\"photo_id\":0,\"judgement\":\"ok\"}\n\n{\"photo_id\":1,\"judgement\":\"ng\"}\n"));
    let second = import("two.jsonl", "{\"photo_id\":0,\"judgement\":\"ng\"}\n{\"photo_id\":1,\"judgement\":\"ng\"}\n");
    let expected = "stored 1 verdict, 1 known already\n\
                    1 crop now with verdicts that contradict each other: these are pending\n";
    assert_eq!(printed(&second), expected);
    let judgements: Vec<Value> = exported(out, &["--current"]).iter().map(|one| one["judgement"].clone()).collect();
    assert_eq!(judgements, ["ok", "ng", "ng"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_an_error_stores_nothing() {
    let folder = run_folder(1).await;
    let file = folder.path().join("labels.jsonl");
    for (line, fault) in [
        (r#"{"photo_id":0}"#, "`judgement` is missing: expected ok, ng or pending"),
        (r#"{"judgement":"ok"}"#, "both `photo_id` and `crop` are missing"),
        (r#"{"photo_id":0,"judgement":"good"}"#, "`good` is not a judgement: expected ok, ng, pending, unjudged"),
        (
            r#"{"photo_id":0,"judgement":"ok","reason":"blurred"}"#,
            "the reason blurred is given for ok: only NG has a reason",
        ),
        (
            r#"{"photo_id":0,"judgement":"ok","at":"soon"}"#,
            "`at` is \"soon\": expected a time, or milliseconds since 1970",
        ),
        (r#"{"photo_id":0,"judgement":"#, "EOF while parsing a value at line 1 column 26"),
    ] {
        std::fs::write(&file, format!("{{\"photo_id\":0,\"judgement\":\"ok\"}}\n{line}\n")).unwrap();
        let failed = verdicts(folder.path(), &["import", file.to_str().unwrap()]);
        let expected = format!("facemill: {}: line 2: {fault}\n", file.display());
        assert_eq!((text(&failed.stderr), failed.status.code()), (expected.as_str(), Some(3)));
    }
    assert!(exported(folder.path(), &[]).is_empty());
}

/// Each process is killed after it has stored something. The last one ends.
#[tokio::test(flavor = "multi_thread")]
async fn killed_imports_lose_and_double_nothing() {
    let folder = run_folder(3000).await;
    let out = folder.path();
    let file = out.join("labels.jsonl");
    let lines = (0..3000).map(|id| {
        let judgement = if id % 7 == 0 { "ok" } else { "ng" };
        format!("{}\n", json!({ "photo_id": id, "judgement": judgement, "by": "ada", "at": id }))
    });
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    let stored = || {
        let segments = std::fs::read_dir(out.join("verdicts/default")).into_iter().flatten();
        segments.map(|segment| segment.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum::<u64>()
    };
    let mut kills = 0;
    for _ in 0..3 {
        let before = stored();
        let mut import = command(out, &["import", file.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
        wait_for("a stored batch", || (stored() > before || import.try_wait().unwrap().is_some()).then_some(()));
        kills += u32::from(import.try_wait().unwrap().is_none());
        import.kill().unwrap();
        import.wait().unwrap();
    }
    assert!(kills > 0, "one process was killed within its import");
    printed(&verdicts(out, &["import", file.to_str().unwrap()]));
    let photos: Vec<u64> = exported(out, &[]).iter().map(|one| one["photo_id"].as_u64().unwrap()).collect();
    assert_eq!(photos, (0..3000).collect::<Vec<u64>>());
}
