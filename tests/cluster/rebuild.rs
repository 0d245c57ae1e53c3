//! A ledger that is lost, and made again.

use serde_json::{Value, json};

use super::collection::Collection;
use super::installation::Installation;
use super::process::ask;
use super::redis::RedisServer;
use super::{ended, records};

#[test]
fn a_lost_ledger_is_made_again_from_records_and_dump() {
    let redis = RedisServer::start(&[]);
    let collection = Collection::serve();
    let installation = Installation::on(&redis);
    let dump = collection.dump.to_str().unwrap();
    let candidates = collection.candidates().len() as u64;
    installation.json(&["produce", dump]);
    let stages = ["fetch", "detect", "crop", "classify"];
    let mut worker = installation.worker(&stages, &collection);
    // Half of the way: some photos have records, others are anywhere.
    installation.until("ten photos at their end", |status| ended(status) >= 10);
    assert_eq!(worker.terminate(), Some(0));
    let had = installation.json(&["status"]);
    assert!(ended(&had) < candidates, "it was too fast to be interrupted");
    let forget = || assert!(ask(redis.port, "FLUSHALL\r\n").unwrap().starts_with("+OK"));
    forget();

    let rebuilt = installation.json(&["rebuild", dump]);
    assert_eq!(rebuilt["restored"], ended(&had), "{rebuilt}");
    assert_eq!(rebuilt["enqueued"], candidates - ended(&had), "{rebuilt}");
    assert_eq!(installation.json(&["status"])["ended"], had["ended"]);
    let mut worker = installation.worker(&stages, &collection);
    let over = installation.until("over", |status| ended(status) == candidates);
    assert_eq!(worker.terminate(), Some(0));

    let scratch = tempfile::tempdir().unwrap();
    let report = |name: &str| {
        let to = scratch.path().join(name);
        let report = installation.facemill(&["report", "--to", to.to_str().unwrap()]);
        assert!(report.status.success(), "{report:?}");
        records(&to)
    };
    let before = report("before");
    forget();
    let rebuilt = installation.json(&["rebuild", dump]);
    assert_eq!(rebuilt, json!({ "restored": candidates, "stood": 0, "enqueued": 0, "refused": [], "unreadable": [] }));
    let again = installation.json(&["rebuild", dump]);
    assert_eq!(again, json!({ "restored": 0, "stood": candidates, "enqueued": 0, "refused": [], "unreadable": [] }));
    let audit = installation.json(&["audit", dump]);
    assert_eq!((&audit["faults"], &audit["waiting"]), (&json!([]), &Value::from(0)), "{audit}");
    assert_eq!(installation.json(&["status"])["ended"], over["ended"]);
    assert_eq!(report("after"), before);
}
