//! Dead letters and requeued photos of a run in a folder.

use facemill::broker::{Broker, DeadLetter};
use facemill::domain::CauseCode;
use facemill::domain::{Cause, Id, PhotoKey, RunName};
use facemill::ledger::Ledger;
use facemill::pipeline::local::{LockedRunDir, RunDir};
use serde_json::Value;

use super::{Collection, Running, facemill, path};

/// A finished run over photos that fail, are gone or are rejected.
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
        ended.resume();
        ended
    }

    /// Runs again. Returns the summary.
    fn resume(&self) -> Value {
        let (table, out) = (self.scratch.path().join("few.csv"), self.scratch.path().join("out"));
        let mut arguments = vec!["run", path(&table), "--out", path(&out), "--json"];
        arguments.extend(self.collection.stage_arguments());
        let run = facemill(&arguments);
        assert!(run.status.success(), "{run:?}");
        serde_json::from_str(String::from_utf8(run.stdout).unwrap().lines().last().unwrap()).unwrap()
    }

    /// Returns the exit code and the output.
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

    /// Accesses the ledger and the queues of the folder.
    fn within(&self, work: impl AsyncFnOnce(&LockedRunDir)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            work(&RunDir::at(self.scratch.path().join("out")).lock().await.unwrap()).await;
        });
    }
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_dropped() {
    let ended = Ended::run();
    let id = ended.failed().photo_id.to_string();
    let [letter] = &ended.dead()[..] else { panic!("one photo failed") };
    assert_eq!((letter["photo_id"].to_string(), &letter["cause"]["code"]), (id.clone(), &Value::from("http-500")));
    assert_eq!((&letter["stage"], &letter["attempt"]), (&Value::from("fetch"), &Value::from(3)));
    let (_, line) = ended.text(&["dead", "list", "--where", "stage=fetch,cause=http-500"]);
    for word in [&id, "http-500", letter["host"].as_str().unwrap(), letter["trace_id"].as_str().unwrap()] {
        assert!(line.contains(word), "{line}");
    }
    let none = (0, "no dead letter fulfils the query\n".to_owned());
    assert_eq!(ended.text(&["dead", "list", "--where", "stage=crop"]), none);
    let (code, causes) = ended.text(&["retry", "--where", "cause=http-404x"]);
    assert!(code == 0 && causes.contains("no photo fulfils the query; the causes that there are:"), "{causes}");
    assert!(causes.contains(" failed    http-500\n") && causes.contains(" gone      http-403\n"), "{causes}");
    let (_, shown) = ended.text(&["dead", "show", &id]);
    assert!(shown.contains("/broken.jpg") && shown.contains("dead-lettered at fetch"), "{shown}");
    assert_eq!(ended.text(&["dead", "show", "987654321"]).0, 1);
    let (code, output) = ended.text(&["dead", "list", "--where", "colour=red"]);
    assert!(code == 2 && output.contains("the fields are stage, cause, host"), "{output}");

    // The photo is requeued, fails again and is dead-lettered again.
    let (_, output) = ended.text(&["dead", "replay", "--where", "cause=http-500"]);
    assert!(output.contains("1 photo requeued") && output.contains("the next `facemill run`"), "{output}");
    assert_eq!((ended.dead(), ended.ready()), (vec![], 1.into()));
    ended.resume();
    assert_eq!(ended.dead()[0]["photo_id"].to_string(), id);

    let (code, output) = ended.text(&["dead", "drop", "--where", "cause=http-500"]);
    assert!(code == 1 && output.contains("would delete 1 dead letter:"), "{output}");
    assert_eq!(ended.dead().len(), 1);
    assert_eq!(ended.json(&["dead", "drop", "--yes"])["dropped"], 1);
    assert_eq!((ended.dead(), ended.ready()), (vec![], 0.into()));
}

#[test]
fn an_interrupted_replay_is_completed_and_foreign_letters_stay() {
    let ended = Ended::run();
    let key = ended.failed();
    ended.within(async |folder| {
        // As after a crash of a replay between the writes to ledger and queue.
        folder.ledger.reopen(&key, None, 1).await.unwrap().unwrap();
        let cause = Cause::new(CauseCode::ForeignMessage, "\u{1b}[2J");
        let (stage, body) = (None, "a foreign body".to_owned());
        let foreign = DeadLetter { stage, cause, attempt: 0, first_at: 1, last_at: 1, trace_id: None, body };
        folder.broker.dead_letter(&foreign).await.unwrap();
    });
    assert_eq!(ended.ready(), 0);
    let replayed = ended.json(&["dead", "replay"]);
    assert_eq!((&replayed["requeued"], &replayed["foreign"]), (&1.into(), &1.into()));
    assert_eq!(ended.ready(), 1, "the photo is in the queue");
    let [foreign] = &ended.dead()[..] else { panic!("only the foreign letter remains") };
    let (_, shown) = ended.text(&["dead", "show", foreign["id"].as_str().unwrap()]);
    assert!(shown.contains("a foreign body") && !shown.contains('\u{1b}'), "{shown}");

    // As after a later crash: the message is in the queue, but the letter is not removed yet.
    ended.resume();
    assert_eq!(ended.dead().len(), 2, "the photo failed again");
    ended.within(async |folder| {
        let message = folder.ledger.reopen(&key, None, 1).await.unwrap().unwrap();
        folder.broker.publish(&message).await.unwrap();
    });
    let replayed = ended.json(&["dead", "replay"]);
    assert_eq!((&replayed["requeued"], ended.ready()), (&1.into(), 1.into()), "no photo is in the queue twice");
    assert_eq!(ended.dead().len(), 1);
}

#[test]
fn photos_are_requeued_by_their_cause() {
    let ended = Ended::run();
    let gone = ended.json(&["retry", "--where", "outcome=gone,cause=http-410"]);
    assert_eq!((&gone["requeued"], &gone["letters_removed"], ended.ready()), (&1.into(), &0.into(), 1.into()));
    let rejected = ended.json(&["retry", "--where", "cause=too-many-redirects"]);
    assert_eq!((&rejected["requeued"], ended.ready()), (&1.into(), 2.into()));
    let failed = ended.json(&["retry", "--where", "outcome=failed,stage=fetch"]);
    assert_eq!((&failed["requeued"], &failed["letters_removed"]), (&1.into(), &1.into()));
    assert_eq!((ended.dead(), ended.ready()), (vec![], 3.into()));
    let nothing = ended.json(&["retry", "--where", "host=unknown.test"]);
    assert_eq!(nothing["requeued"], 0);
    assert_eq!(ended.resume()["complete"], true);
    assert_eq!((ended.dead().len(), ended.ready()), (1, 0.into()));

    // As after a crash between the writes to ledger and queue. With --again, the photo is published again.
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
fn a_folder_in_use_is_refused() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let mut running = Running::start(&collection, scratch.path(), &[]);
    running.next().unwrap();
    for command in [&["dead", "replay"][..], &["dead", "drop", "--yes"], &["retry", "--where", "outcome=gone"]] {
        let refused = facemill(&[command, &["--out", path(scratch.path())]].concat());
        assert_eq!(refused.status.code(), Some(3));
        assert!(String::from_utf8(refused.stderr).unwrap().contains("another facemill process uses"));
    }
    // What only reads works beside the run.
    let listed = facemill(&["dead", "list", "--out", path(scratch.path())]);
    assert!(listed.status.success(), "{listed:?}");
    let shown = facemill(&["dead", "show", "987654321", "--out", path(scratch.path())]);
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let nothing = facemill(&["dead", "list", "--out", path(&scratch.path().join("nowhere"))]);
    assert_eq!(nothing.status.code(), Some(3));
    assert!(!scratch.path().join("nowhere").exists(), "a listing creates no folder");
}
