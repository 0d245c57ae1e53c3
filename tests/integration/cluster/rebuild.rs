//! Restoring a lost ledger and lost queues.

use facemill::broker::Broker;
use facemill::broker::rabbitmq::{self, RabbitMq};
use facemill::domain::StageName;
use serde_json::{Value, json};

use super::installation::Installation;
use super::{ended, records};
use support::collection::Collection;
use support::servers::process::send_request;
use support::servers::redis::RedisServer;

#[test]
fn a_lost_ledger_is_restored_from_records_and_dump() {
    let redis = RedisServer::start(&[]);
    let collection = Collection::serve();
    let installation = Installation::on(&redis);
    let dump = collection.dump.to_str().unwrap();
    let candidates = collection.candidates().len() as u64;
    installation.json(&["produce", dump]);
    let stages = ["fetch", "detect", "crop", "classify"];
    // Some photos have ended, others are at any stage, and none passes the last stage.
    installation.json(&["pause", "classify"]);
    let mut worker = installation.worker(&stages, &collection);
    installation.until("ten ended photos", |status| ended(status) >= 10);
    assert_eq!(worker.terminate(), Some(0));
    let had = installation.json(&["status"]);
    assert_eq!(had["ended"]["predicted"].as_u64().unwrap_or(0), 0, "{had}");
    let clear_redis = || assert!(send_request(redis.port, "FLUSHALL\r\n").unwrap().starts_with("+OK"));
    clear_redis();

    let rebuilt = installation.json(&["rebuild", dump]);
    assert_eq!(rebuilt["restored"], ended(&had), "{rebuilt}");
    assert_eq!(rebuilt["enqueued"], candidates - ended(&had), "{rebuilt}");
    assert_eq!(installation.json(&["status"])["ended"], had["ended"]);
    let mut worker = installation.worker(&stages, &collection);
    let over = installation.until("the end of all photos", |status| ended(status) == candidates);
    assert_eq!(worker.terminate(), Some(0));

    let scratch = tempfile::tempdir().unwrap();
    let report = |name: &str| {
        let to = scratch.path().join(name);
        let report = installation.facemill(&["report", "--to", to.to_str().unwrap()]);
        assert!(report.status.success(), "{report:?}");
        records(&to)
    };
    let before = report("before");
    clear_redis();
    let rebuilt = installation.json(&["rebuild", dump]);
    assert_eq!(
        rebuilt,
        json!({
        "restored": candidates, "stood": 0, "enqueued": 0, "never_taken": 0, "in_conflict": 0, "conflicts": [], "refused": [],
        "unreadable": [], "published": 0
        })
    );
    let again = installation.json(&["rebuild", dump]);
    assert_eq!(
        again,
        json!({
        "restored": 0, "stood": candidates, "enqueued": 0, "never_taken": 0, "in_conflict": 0, "conflicts": [], "refused": [],
        "unreadable": [], "published": 0
        })
    );
    let audit = installation.json(&["audit", dump]);
    assert_eq!((&audit["faults"], &audit["waiting"]), (&json!([]), &Value::from(0)), "{audit}");
    assert_eq!(installation.json(&["status"])["ended"], over["ended"]);
    assert_eq!(report("after"), before);
}

/// Why the run does not have a photo of its source; nothing for a photo that it has.
fn reason(installation: &Installation, photo: u64, dump: &str) -> String {
    let answer = installation.facemill(&["why", &photo.to_string(), dump, "--json"]);
    let printed = String::from_utf8(answer.stdout).unwrap();
    let answer: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    answer["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn candidates_that_the_run_never_took_are_not_enqueued() {
    const TAKEN: u64 = 12;
    let redis = RedisServer::start(&[]);
    let collection = Collection::serve();
    let installation = Installation::on(&redis);
    let dump = collection.dump.to_str().unwrap();
    let others = collection.candidates().len() as u64 - TAKEN;
    installation.json(&["produce", dump, "--limit", &TAKEN.to_string()]);
    let rebuilt = installation.json(&["rebuild", dump, "--queues"]);
    assert_eq!((&rebuilt["enqueued"], &rebuilt["published"]), (&0.into(), &TAKEN.into()), "{rebuilt}");
    assert_eq!(rebuilt["never_taken"], others);
    // The source says why the run does not have a photo.
    let beyond = collection.candidates().into_iter().filter(|id| reason(&installation, *id, dump) == "beyond-limit");
    assert_eq!(beyond.count() as u64, others);
    assert_eq!(reason(&installation, 987_654_321, dump), "not-in-source");
    assert!(send_request(redis.port, "FLUSHALL\r\n").unwrap().starts_with("+OK"));
    let rebuilt = installation.json(&["rebuild", dump]);
    assert_eq!((&rebuilt["enqueued"], &rebuilt["never_taken"]), (&TAKEN.into(), &others.into()), "{rebuilt}");
    assert_eq!(installation.json(&["status"])["candidates"], TAKEN);
    let text = installation.facemill(&["rebuild", dump]).stdout;
    let expected = format!("{others} candidates left out: the run has never taken them");
    assert!(String::from_utf8(text).unwrap().contains(&expected));
}

/// RabbitMQ has lost the messages in its queues. The ledger knows the position of each photo.
#[test]
fn lost_queues_are_filled_from_the_ledger() {
    let collection = Collection::serve();
    let installation = Installation::new();
    let dump = collection.dump.to_str().unwrap();
    installation.json(&["produce", dump]);
    let mut fetch = installation.worker(&["fetch"], &collection);
    let fetched = installation.until("the end of fetch", |status| {
        let fetch = &status["stages"]["fetch"];
        fetch["oldest"].is_null() && fetch["ready"] == 0 && fetch["delayed"] == 0
    });
    assert_eq!(fetch.terminate(), Some(0));
    // All other photos wait for detect. RabbitMQ counts a message some time after its confirm.
    let lost = collection.candidates().len() as u64 - ended(&fetched);
    assert!(lost > 20, "{fetched}");
    installation.until("all messages counted", |status| status["stages"]["detect"]["ready"] == lost);

    let setting = |name: &str| installation.environment.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    let settings = rabbitmq::RabbitMqSettings::new(&setting("FACEMILL_AMQP_URL")).unwrap();
    let broker = RabbitMq::new(settings.with_prefix(&setting("FACEMILL_PREFIX")).unwrap()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut consumer = broker.consume(StageName::Detect, 10).await.unwrap();
        for _ in 0..lost {
            consumer.next().await.unwrap().ack().await;
        }
        consumer.stop().await;
    });
    assert_eq!(installation.json(&["rebuild", dump])["published"], 0, "only with --queues");
    let rebuilt = installation.json(&["rebuild", dump, "--queues"]);
    assert_eq!((&rebuilt["published"], &rebuilt["enqueued"]), (&lost.into(), &0.into()), "{rebuilt}");
    let mut rest = installation.worker(&["detect", "crop", "classify"], &collection);
    installation.until("the end of all photos", |status| ended(status) == collection.candidates().len() as u64);
    assert_eq!(rest.terminate(), Some(0));
}
