//! Dead letters and requeued photos, in a folder.

use facemill::broker::{Broker, DeadLetter};
use facemill::domain::CauseCode;
use facemill::domain::{Cause, Id, PhotoKey, RunName};
use facemill::ledger::Ledger;
use facemill::pipeline::local::{LockedRunDir, RunDir};
use serde_json::Value;

use super::{Collection, Running, facemill, path};

/// A run over photos that fail, are gone, or do not qualify.
struct Ended {
    collection: Collection,
    scratch: tempfile::TempDir,
}

impl Ended {
    fn run() -> Self {
        let collection = Collection::serve();
        let scratch = tempfile::tempdir().unwrap();
        let table = collection.table_of(&["/broken.jpg", "/410.jpg", "/403.jpg", "/loop.jpg"]);
        std::fs::write(scratch.path().join("few.csv"), table).unwrap();
        let ended = Self { collection, scratch };
        ended.go_on();
        ended
    }

    /// Answers the summary.
    fn go_on(&self) -> Value {
        let (table, out) = (self.scratch.path().join("few.csv"), self.scratch.path().join("out"));
        let mut arguments = vec!["run", path(&table), "--out", path(&out), "--json"];
        arguments.extend(self.collection.stage_arguments());
        let run = facemill(&arguments);
        assert!(run.status.success(), "{run:?}");
        serde_json::from_str(String::from_utf8(run.stdout).unwrap().lines().last().unwrap()).unwrap()
    }

    /// Answers the exit code and what was printed.
    fn text(&self, arguments: &[&str]) -> (i32, String) {
        let out = self.scratch.path().join("out");
        let done = facemill(&[arguments, &["--out", path(&out)]].concat());
        (done.status.code().unwrap(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, printed) = self.text(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{printed}");
        serde_json::from_str(&printed).unwrap()
    }

    fn dead(&self) -> Vec<Value> {
        self.json(&["dead", "list"]).as_array().unwrap().clone()
    }

    fn ready(&self) -> Value {
        self.json(&["status"])["stages"]["fetch"]["ready"].clone()
    }

    fn failed(&self) -> PhotoKey {
        let photo_id = Id::from(self.collection.id_of("/broken.jpg") as i64);
        PhotoKey { run: RunName::default(), photo_id }
    }

    /// Works in the folder as another process would.
    fn within(&self, work: impl AsyncFnOnce(&LockedRunDir)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            work(&RunDir::at(self.scratch.path().join("out")).lock().await.unwrap()).await;
        });
    }
}

#[test]
fn letters_are_listed_shown_replayed_and_dropped() {
    let ended = Ended::run();
    let id = ended.failed().photo_id.to_string();
    let [letter] = &ended.dead()[..] else { panic!("one photo failed") };
    assert_eq!((letter["photo_id"].to_string(), &letter["cause"]["code"]), (id.clone(), &Value::from("http-500")));
    assert_eq!((&letter["stage"], &letter["attempt"]), (&Value::from("fetch"), &Value::from(3)));
    let (_, line) = ended.text(&["dead", "list", "--where", "stage=fetch,cause=http-500"]);
    for word in [&id, "http-500", letter["host"].as_str().unwrap(), letter["trace_id"].as_str().unwrap()] {
        assert!(line.contains(word), "{line}");
    }
    assert_eq!(ended.text(&["dead", "list", "--where", "stage=crop"]), (0, String::new()));
    let (_, shown) = ended.text(&["dead", "show", &id]);
    assert!(shown.contains("/broken.jpg") && shown.contains("dead-lettered at fetch"), "{shown}");
    assert_eq!(ended.text(&["dead", "show", "987654321"]).0, 1);
    let (code, told) = ended.text(&["dead", "list", "--where", "colour=red"]);
    assert!(code == 2 && told.contains("the fields are stage, cause, host"), "{told}");

    // It is requeued, fails again, and leaves another letter.
    let (_, told) = ended.text(&["dead", "replay", "--where", "cause=http-500"]);
    assert!(told.contains("1 photos requeued") && told.contains("the next `facemill run`"), "{told}");
    assert_eq!((ended.dead(), ended.ready()), (vec![], 1.into()));
    ended.go_on();
    assert_eq!(ended.dead()[0]["photo_id"].to_string(), id);

    let (code, told) = ended.text(&["dead", "drop", "--where", "cause=http-500"]);
    assert!(code == 1 && told.contains("would delete 1 dead letters"), "{told}");
    assert_eq!(ended.dead().len(), 1);
    assert_eq!(ended.json(&["dead", "drop", "--yes"])["dropped"], 1);
    assert_eq!((ended.dead(), ended.ready()), (vec![], 0.into()));
}

#[test]
fn a_replay_that_died_is_repeated_and_what_is_not_ours_stays() {
    let ended = Ended::run();
    let key = ended.failed();
    ended.within(async |folder| {
        // As if a replay had died between ledger and queue.
        folder.ledger.reopen(&key, None, 1).await.unwrap().unwrap();
        let cause = Cause::new(CauseCode::ForeignMessage, "\u{1b}[2J");
        let (stage, body) = (None, "who are you?".to_owned());
        let foreign = DeadLetter { stage, cause, attempt: 0, first_at: 1, last_at: 1, trace_id: None, body };
        folder.broker.dead_letter(&foreign).await.unwrap();
    });
    assert_eq!(ended.ready(), 0);
    let replayed = ended.json(&["dead", "replay"]);
    assert_eq!((&replayed["requeued"], &replayed["foreign"]), (&1.into(), &1.into()));
    assert_eq!(ended.ready(), 1, "the photo is on its way");
    let [foreign] = &ended.dead()[..] else { panic!("only the foreign letter is left") };
    let (_, shown) = ended.text(&["dead", "show", foreign["id"].as_str().unwrap()]);
    assert!(shown.contains("who are you?") && !shown.contains('\u{1b}'), "{shown}");

    // The same, but it died later: the message is in the queue, and the letter not yet removed.
    ended.go_on();
    assert_eq!(ended.dead().len(), 2, "it failed again");
    ended.within(async |folder| {
        let message = folder.ledger.reopen(&key, None, 1).await.unwrap().unwrap();
        folder.broker.publish(&message).await.unwrap();
    });
    let replayed = ended.json(&["dead", "replay"]);
    assert_eq!((&replayed["requeued"], ended.ready()), (&1.into(), 1.into()), "no photo lies in the queue twice");
    assert_eq!(ended.dead().len(), 1);
}

#[test]
fn photos_that_ended_for_a_cause_are_sent_back() {
    let ended = Ended::run();
    let gone = ended.json(&["retry", "--where", "outcome=gone,cause=http-410"]);
    assert_eq!((&gone["requeued"], &gone["letters_removed"], ended.ready()), (&1.into(), &0.into(), 1.into()));
    let rejected = ended.json(&["retry", "--where", "cause=too-many-redirects"]);
    assert_eq!((&rejected["requeued"], ended.ready()), (&1.into(), 2.into()));
    let failed = ended.json(&["retry", "--where", "outcome=failed,stage=fetch"]);
    assert_eq!((&failed["requeued"], &failed["letters_removed"]), (&1.into(), &1.into()));
    assert_eq!((ended.dead(), ended.ready()), (vec![], 3.into()));
    let nothing = ended.json(&["retry", "--where", "host=nobody.test"]);
    assert_eq!(nothing["requeued"], 0);
    assert_eq!(ended.go_on()["complete"], true);
    assert_eq!((ended.dead().len(), ended.ready()), (1, 0.into()));

    // Died between ledger and queue: told so, it publishes once more.
    let photo_id = Id::from(ended.collection.id_of("/403.jpg") as i64);
    ended.within(async |folder| {
        let key = PhotoKey { run: RunName::default(), photo_id };
        folder.ledger.reopen(&key, None, 1).await.unwrap().unwrap();
    });
    let repeated = ended.json(&["retry", "--where", "cause=http-403", "--again"]);
    assert_eq!((&repeated["requeued"], &repeated["published_again"]), (&0.into(), &1.into()));
    assert_eq!(ended.ready(), 1);
}

#[test]
fn a_folder_that_is_in_use_is_left_alone() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let mut running = Running::start(&collection, scratch.path(), &[]);
    running.next().unwrap();
    for command in [&["dead", "list"][..], &["dead", "replay"], &["retry", "--where", "outcome=gone"]] {
        let refused = facemill(&[command, &["--out", path(scratch.path())]].concat());
        assert_eq!(refused.status.code(), Some(3));
        assert!(String::from_utf8(refused.stderr).unwrap().contains("another facemill process uses"));
    }
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let nothing = facemill(&["dead", "list", "--out", path(&scratch.path().join("nowhere"))]);
    assert_eq!(nothing.status.code(), Some(3));
    assert!(!scratch.path().join("nowhere").exists(), "who looks makes no folder");
}
