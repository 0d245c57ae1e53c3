//! Tests of the ledger in Redis beyond those of every ledger in `conformance`.

use support::servers::process;
use support::servers::redis as server;
use support::servers::seaweedfs::SeaweedFs;
use support::synthetic;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use facemill::domain::{
    Candidate, Cause, CauseCode, Ending, Id, Message, Photo, PhotoKey, Position, RunName, StageName, State,
};
use facemill::ledger::redis::Redis;
use facemill::ledger::redis::keys::{self, GroupKind, Keys, PhotoGroup};
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{
    Counts, Endings, Event, EventKind, Filter, Ledger, LedgerError, Move, Moved, Permission, PhotoStatus, Registration,
};
use facemill::redis::{RedisClient, RedisSettings, check_key};
use facemill::sqlite::{Access, Database};

use server::RedisServer;

fn run() -> RunName {
    "r".parse().unwrap()
}

fn photo(id: &str) -> Candidate {
    Candidate { photo_id: Id::from(id), ..synthetic::candidate(1) }
}

fn first(id: &str) -> Message {
    Message::first(Photo::new(run(), photo(id)), 5)
}

fn key(id: &str) -> PhotoKey {
    first(id).photo.key()
}

async fn advance(ledger: &dyn Ledger, message: &Message, to: State, code: Option<&str>) -> Result<Moved, LedgerError> {
    let what = match to {
        State::Waiting(position) if position.stage == message.position.stage => EventKind::Retried,
        State::Waiting(_) => EventKind::Advanced,
        State::Ended(ending) => ending.into(),
    };
    let cause = code.map(|code| Cause::new(code, "a detail"));
    let event = Event { at_ms: 7, stage: message.position.stage, attempt: 1, what, cause, took_ms: 1 };
    let position = match to {
        State::Waiting(position) => position,
        State::Ended(_) => message.position,
    };
    let next = Message { position, ..message.clone() };
    let key = message.photo.key();
    let step = Move { key: &key, from: message.position, to, attempt: 1, due_at: 0, event, message: &next };
    ledger.advance(&step).await
}

async fn end(ledger: &dyn Ledger, message: &Message, ending: Ending) -> Result<Moved, LedgerError> {
    advance(ledger, message, State::Ended(ending), (ending != Ending::Predicted).then_some("no-face")).await
}

/// Sends a command over a connection of its own.
fn send_command(server: &RedisServer, command: &str) {
    let answer = process::send_request(server.port, &format!("{command}\r\n")).unwrap_or_default();
    assert!(answer.starts_with("+OK") || answer.starts_with(':'), "{command}: {answer}");
}

fn connect(settings: RedisSettings) -> Redis {
    Redis::new(Arc::new(RedisClient::new(settings).unwrap()))
}

/// Two connections to one ledger: one with the usual timeouts, and one that gives up soon. The second is only for a server
/// that does not answer: on a busy machine, one that does may take longer.
fn patient_and_hasty(server: &RedisServer) -> [Redis; 2] {
    let (usual, short) = (server.settings(), Duration::from_millis(300));
    [connect(usual.clone()), connect(RedisSettings { connect_timeout: short, answer_timeout: short, ..usual })]
}

#[tokio::test]
async fn calls_to_a_hanging_server_time_out() {
    let server = RedisServer::start(&[]);
    let [patient, hasty] = patient_and_hasty(&server);
    patient.register(&run(), &[photo("1")], 5).await.unwrap();
    server.process.freeze();
    for _ in 0..3 {
        let error = hasty.begin(&first("1"), "w", false).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains(&server.port.to_string()), "{error}");
    }
    server.process.thaw();
    let begun = eventually(async || hasty.begin(&first("1"), "w", false).await).await;
    assert_eq!(begun, Permission::Granted { crashes: 0 });
}

/// Retries until the ledger is available again.
async fn eventually<T>(attempt: impl AsyncFn() -> Result<T, LedgerError>) -> T {
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                assert!(tokio::time::Instant::now() < deadline, "{error}");
                // The server does not announce this, so the test polls up to a deadline.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test]
async fn confirmed_moves_survive_a_kill_of_the_server() {
    let mut server = RedisServer::start(&[]);
    let [patient, hasty] = patient_and_hasty(&server);
    let ids: Vec<String> = (0..400).map(|id| id.to_string()).collect();
    let photos: Vec<Candidate> = ids.iter().map(|id| photo(id)).collect();
    patient.register(&run(), &photos, 5).await.unwrap();
    let detect = Position::entering(StageName::Detect);
    for id in &ids[..200] {
        assert_eq!(advance(&patient, &first(id), State::Waiting(detect), None).await.unwrap(), Moved::Done);
    }
    server.process.kill();
    for id in &ids[200..] {
        let error = advance(&hasty, &first(id), State::Waiting(detect), None).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    server.restart();
    for id in &ids[..200] {
        let status = eventually(async || patient.status(&key(id)).await).await.unwrap();
        assert_eq!(status.state, State::Waiting(detect), "{id}");
    }
    let counts = patient.counts(&run()).await.unwrap();
    assert_eq!((counts.candidates, counts.waiting[&StageName::Detect]), (400, 200));
    assert_eq!(advance(&patient, &first("300"), State::Waiting(detect), None).await.unwrap(), Moved::Done);
}

#[tokio::test]
async fn a_server_without_the_scripts_gets_them_again() {
    let server = RedisServer::start(&[]);
    let ledger = server.ledger();
    ledger.register(&run(), &[photo("1")], 5).await.unwrap();
    send_command(&server, "SCRIPT FLUSH");
    assert_eq!(ledger.register(&run(), &[photo("1")], 5).await.unwrap(), [Registration::Pending]);
}

#[tokio::test]
async fn a_server_that_refuses_writes_for_now_is_retryable() {
    let server = RedisServer::start(&[]);
    let ledger = server.ledger();
    ledger.register(&run(), &[photo("1")], 5).await.unwrap();
    let refused = async |reason: &str| {
        let error = end(&ledger, &first("1"), Ending::Gone).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains(reason), "{error}");
    };
    send_command(&server, "CONFIG SET maxmemory 1000");
    let error = ledger.register(&run(), &[photo("2")], 5).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("memory is full"), "{error}");
    send_command(&server, "CONFIG SET maxmemory 0");
    send_command(&server, "REPLICAOF 127.0.0.1 1");
    refused("replica").await;
    send_command(&server, "REPLICAOF NO ONE");
    assert_eq!(eventually(async || end(&ledger, &first("1"), Ending::Gone).await).await, Moved::Done);
    assert_eq!(ledger.counts(&run()).await.unwrap().candidates, 1);
}

#[tokio::test]
async fn login_errors_name_the_reason_without_passwords() {
    let user = ["--user", "reader", "on", ">sesame", "~*", "-@all", "+ping", "+@transaction"];
    let server = RedisServer::start(&[&["--requirepass", "sesame"][..], &user].concat());
    let ledger = |login: &str| connect(RedisSettings::new(format!("redis://{login}127.0.0.1:{}/", server.port)));
    ledger(":sesame@").check().await.unwrap();
    for (login, reason) in [
        ("", "password"),
        (":hunter2@", "wrong user or password"),
        ("unknown:hunter2@", "wrong user or password"),
        ("reader:sesame@", "lacks the permission"),
    ] {
        let ledger = ledger(login);
        let (transaction, pipeline) = (ledger.counts(&run()).await, ledger.due_since(&run()).await);
        for error in [ledger.check().await.unwrap_err(), transaction.unwrap_err(), pipeline.unwrap_err()] {
            assert!(matches!(error, LedgerError::Refused { .. }), "{login} {error:?}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(reason) && shown.contains(&server.port.to_string()), "{login} {shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("sesame"), "{shown}");
            assert!(!shown.contains("Index"), "the commands of a transaction or pipeline are not listed: {shown}");
        }
    }
}

#[tokio::test]
async fn a_port_of_another_kind_is_named() {
    let server = RedisServer::start(&[]);
    let reason = async |url: String| connect(RedisSettings::new(url)).check().await.unwrap_err().to_string();
    let without_tls = reason(format!("rediss://127.0.0.1:{}/", server.port)).await;
    assert!(without_tls.contains("is this the port for TLS?"), "{without_tls}");
    let store = SeaweedFs::shared().settings().endpoint.unwrap().replace("http:", "redis:");
    let foreign = reason(store).await;
    assert!(foreign.ends_with("its answer is none of Redis: is this the port of another server?"), "{foreign}");
}

#[tokio::test]
async fn a_server_that_evicts_keys_is_refused() {
    let server = RedisServer::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let error = server.ledger().check().await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("noeviction"), "{error}");
}

#[tokio::test]
async fn the_message_of_a_recorded_photo_is_deleted() {
    let ledger = RedisServer::shared().ledger();
    ledger.register(&run(), &[photo("1")], 5).await.unwrap();
    let start = Position::START;
    ledger.recorded(&key("1"), start, Ending::Gone).await.unwrap();
    end(&ledger, &first("1"), Ending::Gone).await.unwrap();
    let message = async || ledger.status(&key("1")).await.unwrap().unwrap().message;
    assert_eq!(message().await, Some(first("1")), "the record is not written yet");
    ledger.recorded(&key("1"), start.next_delivery(), Ending::Gone).await.unwrap();
    assert!(message().await.is_some(), "the call is for another delivery");
    ledger.recorded(&key("1"), start, Ending::Gone).await.unwrap();
    assert_eq!(message().await, None);
    assert!(matches!(ledger.reopen(&key("1"), None, 9).await, Err(LedgerError::Refused { .. })));
    let reopened = ledger.reopen(&key("1"), Some(&first("1")), 9).await.unwrap().unwrap();
    assert_eq!((reopened.position, reopened.enqueued_at), (start.next_delivery(), 9));
    assert_eq!(message().await, Some(reopened.clone()));
    assert_eq!(end(&ledger, &reopened, Ending::Predicted).await.unwrap(), Moved::Done);
}

#[tokio::test]
async fn a_worker_that_begins_twice_has_not_crashed() {
    let ledger = RedisServer::shared().ledger();
    for _ in 0..2 {
        assert_eq!(ledger.begin(&first("1"), "w", true).await.unwrap(), Permission::Granted { crashes: 0 });
    }
    assert_eq!(ledger.begin(&first("1"), "other", true).await.unwrap(), Permission::Granted { crashes: 1 });
}

#[tokio::test]
async fn a_move_of_an_unknown_photo_adds_it() {
    let ledger = RedisServer::shared().ledger();
    assert_eq!(end(&ledger, &first("1"), Ending::Rejected).await.unwrap(), Moved::Done);
    let counts = ledger.counts(&run()).await.unwrap();
    assert_eq!((counts.candidates, counts.ended[&Ending::Rejected]), (1, 1));
}

#[tokio::test]
async fn ids_may_contain_any_character() {
    let ledger = RedisServer::shared().ledger();
    let longest = "\u{10348}".repeat(50);
    let mut ids =
        vec![Id::from("\0"), Id::from("{x}\r\n"), Id::from("a:b/c@d"), Id::from("*"), Id::from(longest.as_str())];
    let photos: Vec<Candidate> = ids.iter().map(|id| photo(id.as_str())).collect();
    assert_eq!(ledger.register(&run(), &photos, 5).await.unwrap(), vec![Registration::New; ids.len()]);
    ids.sort();
    for id in &ids {
        let message = ledger.status(&key(id.as_str())).await.unwrap().unwrap().message.unwrap();
        assert_eq!(end(&ledger, &message, Ending::Gone).await.unwrap(), Moved::Done);
    }
    let mut listed = Vec::new();
    while let Some(entry) = ledger.page(&run(), &Filter::default(), listed.last(), 1).await.unwrap().pop() {
        listed.push(entry.photo_id);
    }
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn the_oldest_due_time_of_each_stage_is_known() {
    let ledger = RedisServer::shared().ledger();
    let due = async || ledger.due_since(&run()).await.unwrap();
    let at = |stage: StageName, second| BTreeMap::from([(stage, second)]);
    let (fetch, detect) = (StageName::Fetch, StageName::Detect);
    assert_eq!(due().await, BTreeMap::new());
    ledger.register(&run(), &[photo("1")], 50).await.unwrap();
    ledger.register(&run(), &[photo("2")], 60).await.unwrap();
    assert_eq!(due().await, at(fetch, 50));
    ledger.begin(&first("1"), "w", false).await.unwrap();
    assert_eq!(due().await, at(fetch, 50), "it is still being processed");
    ledger.begin(&first("3"), "w", false).await.unwrap();
    assert_eq!(due().await, at(fetch, 5), "an unknown photo is due since its message was enqueued");
    end(&ledger, &first("3"), Ending::Gone).await.unwrap();

    advance(&ledger, &first("1"), State::Waiting(Position::entering(detect)), None).await.unwrap();
    // The events of this file are at second 0.
    assert_eq!(due().await, BTreeMap::from([(fetch, 60), (detect, 0)]));
    let message = first("2");
    let again = Message { position: message.position.next_delivery(), ..message.clone() };
    let what = EventKind::Retried;
    let event = Event { at_ms: 70_000, stage: fetch, attempt: 1, what, cause: None, took_ms: 1 };
    let (key, to) = (key("2"), State::Waiting(again.position));
    let step = Move { key: &key, from: message.position, to, attempt: 2, due_at: 900, event, message: &again };
    ledger.advance(&step).await.unwrap();
    assert_eq!(due().await[&fetch], 900, "it counts from its due time");
    end(&ledger, &again, Ending::Failed).await.unwrap();
    end(&ledger, &Message { position: Position::entering(detect), ..first("1") }, Ending::Rejected).await.unwrap();
    assert_eq!(due().await, BTreeMap::new());
    ledger.reopen(&key, None, 1000).await.unwrap().unwrap();
    assert_eq!(due().await, at(fetch, 1000));
}

#[tokio::test]
async fn a_long_history_is_truncated() {
    let ledger = RedisServer::shared().ledger();
    let mut message = first("1");
    for _ in 0..60 {
        let again = message.position.next_delivery();
        assert_eq!(advance(&ledger, &message, State::Waiting(again), Some("http-429")).await.unwrap(), Moved::Done);
        message.position = again;
    }
    let history = ledger.history(&key("1")).await.unwrap();
    assert!((10..40).contains(&history.len()), "{}", history.len());
    assert!(history.iter().all(|event| event.cause.as_ref().unwrap().code == CauseCode::Http(429)));
    assert_eq!(history.last().unwrap().cause.as_ref().unwrap().detail, "a detail");
}

/// After the same random calls, Redis and SQLite have the same state.
#[tokio::test]
async fn redis_and_sqlite_agree() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    let (redis, sqlite) = (RedisServer::shared().ledger(), Sqlite::open(database).await.unwrap());
    let mut seed = 1_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let photos: Vec<Candidate> = (0..40).map(synthetic::candidate).collect();
    let codes = ["timeout", "http-503", "no-face"];
    for step in 0..1500 {
        let candidate = &photos[random(photos.len())];
        let key = PhotoKey { run: run(), photo_id: candidate.photo_id.clone() };
        let Some(PhotoStatus { state, message, .. }) = sqlite.status(&key).await.unwrap() else {
            for ledger in [&redis as &dyn Ledger, &sqlite] {
                let registered = ledger.register(&run(), std::slice::from_ref(candidate), 5).await.unwrap();
                assert_eq!(registered, [Registration::New]);
            }
            continue;
        };
        let message = message.unwrap();
        let code = codes[random(codes.len())];
        match (state, random(8)) {
            (State::Ended(_), 0..2) => {
                let reopened = redis.reopen(&key, Some(&message), step).await.unwrap();
                assert_eq!(reopened, sqlite.reopen(&key, None, step).await.unwrap());
            }
            (State::Ended(ending), _) => {
                redis.recorded(&key, message.position, ending).await.unwrap();
                assert!(matches!(end(&redis, &message, Ending::Gone).await.unwrap(), Moved::Stale(_)));
            }
            (State::Waiting(at), choice) => {
                let next = at.stage.next().map(|stage| State::Waiting(Position::entering(stage)));
                let (to, code) = match choice {
                    0..2 => (State::Waiting(at.next_delivery()), Some(code)),
                    2 => (State::Ended(Ending::Rejected), Some(code)),
                    3 => (State::Ended(Ending::Failed), Some(code)),
                    _ => (next.unwrap_or(State::Ended(Ending::Predicted)), None),
                };
                for ledger in [&redis as &dyn Ledger, &sqlite] {
                    assert_eq!(advance(ledger, &message, to, code).await.unwrap(), Moved::Done);
                }
            }
        }
        if step % 50 == 0 {
            assert_agree(&redis, &sqlite).await;
        }
    }
    assert_agree(&redis, &sqlite).await;
}

async fn assert_agree(redis: &dyn Ledger, sqlite: &dyn Ledger) {
    // Sequences of SQLite are those of the file, so only the order is the same.
    let feed = async |ledger: &dyn Ledger| {
        let Endings { entries, .. } = ledger.endings(&run(), None, 10_000).await.unwrap();
        entries.into_iter().map(|entry| (entry.photo_id, entry.change)).collect::<Vec<_>>()
    };
    let sorted = |mut counts: Counts| {
        counts.causes.sort_by_key(|count| format!("{count:?}"));
        counts
    };
    assert_eq!(feed(redis).await, feed(sqlite).await);
    assert_eq!(sorted(redis.counts(&run()).await.unwrap()), sorted(sqlite.counts(&run()).await.unwrap()));
    let host = Some(synthetic::candidate(3).host());
    let plain = Filter::default;
    for filter in [
        plain(),
        Filter { waiting: true, ..plain() },
        Filter { stage: Some(StageName::Fetch), ..plain() },
        Filter { ending: Some(Ending::Failed), ..plain() },
        Filter { cause: Some("timeout".into()), ..plain() },
        Filter { host: host.clone(), ..plain() },
        Filter { host, cause: Some("no-face".into()), stage: Some(StageName::Detect), ..plain() },
    ] {
        for limit in [3, 100] {
            let mut after = None;
            loop {
                let theirs = sqlite.page(&run(), &filter, after.as_ref(), limit).await.unwrap();
                let ours = redis.page(&run(), &filter, after.as_ref(), limit).await.unwrap();
                assert_eq!(ours.len(), theirs.len(), "{filter:?}");
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    let kept = ours.status.message.clone().or(theirs.status.message.clone());
                    let ours = PhotoStatus { message: kept, ..ours.status.clone() };
                    assert_eq!(ours, theirs.status, "{filter:?}");
                }
                let Some(last) = theirs.last() else { break };
                after = Some(last.photo_id.clone());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_photo_takes_at_most_600_bytes() {
    const PHOTOS: u64 = 10_000;
    let server = RedisServer::start(&["--appendonly", "no"]);
    let ledger = server.ledger();
    ledger.check().await.unwrap();
    let before = used_memory(&server).await;
    synthetic::live(&ledger, &run(), 0..PHOTOS).await;
    let each = (used_memory(&server).await - before) / PHOTOS;
    assert!(each <= 600, "{each} bytes a photo");
    let feed = Keys::of(ledger.client().prefix(), &run()).endings();
    let in_feed = memory_usage(&server, &feed).await / PHOTOS;
    assert!((8..=64).contains(&in_feed), "{in_feed} bytes a photo in the feed");
}

async fn memory_usage(server: &RedisServer, key: &str) -> u64 {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_reader_ahead_of_the_feed_starts_again() {
    let server = RedisServer::start(&[]);
    let ledger = server.ledger();
    for id in ["1", "2"] {
        end(&ledger, &first(id), Ending::Gone).await.unwrap();
    }
    let read = ledger.endings(&run(), None, 10).await.unwrap();
    let feed = Keys::of(ledger.client().prefix(), &run()).endings();
    // A failover to a replica that had not received the last write.
    send_command(&server, &format!("XDEL {feed} 0-2"));
    let again = ledger.endings(&run(), Some(&read.cursor), 10).await.unwrap();
    assert!(again.restarted);
    assert_eq!(again.entries, read.entries[..1]);
}

async fn used_memory(server: &RedisServer) -> u64 {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn the_table_of_names_has_the_keys_of_the_code() {
    use facemill::cluster::keys as cluster;
    use facemill::domain::{ContentHash, ImageFormat};
    use facemill::objects::ObjectKey;
    let (run, prefix) = (run(), RedisSettings::PREFIX);
    let keys = Keys::of(prefix, &run);
    let code = Some(CauseCode::Http(404));
    let group = PhotoGroup { stage: StageName::Fetch, kind: GroupKind::Ended(Ending::Gone), code }.name();
    let hash = ContentHash::of(b"abc");
    let version = "v1".parse().unwrap();
    let record = ObjectKey::record(&PhotoKey { run: run.clone(), photo_id: Id::from("4_2") });
    let expected = [
        keys::runs(prefix),
        keys.photos(),
        keys.messages(),
        keys.counts(),
        keys.hosts(),
        keys.epoch(),
        keys.endings(),
        keys.due(StageName::Fetch),
        keys.group(&group),
        keys.group_and_host(&group, "photos.example"),
        cluster::pauses(prefix),
        cluster::worker_reports(prefix),
        cluster::worker_report_times(prefix),
        cluster::queue_report(prefix),
        cluster::queue_claim(prefix),
        cluster::host(prefix, "photos.example"),
        cluster::leases(prefix, "photos.example"),
        cluster::processes(prefix, "photos.example"),
        check_key(prefix),
        ObjectKey::original(hash, ImageFormat::Jpeg).to_string(),
        ObjectKey::face(hash, ImageFormat::Png).to_string(),
        record.to_string(),
        ObjectKey::candidates(&run, hash).to_string(),
        ObjectKey::of_run(&run, "settings").to_string(),
        ObjectKey::of_run(&run, "folders").to_string(),
        ObjectKey::of_run(&run, "classifier").to_string(),
        ObjectKey::of_run(&run, "landmarks").to_string(),
        ObjectKey::of_run(&run, "duplicates").to_string(),
        ObjectKey::of_run(&run, "partings").to_string(),
        ObjectKey::duplicates(&run, hash).to_string(),
        ObjectKey::of_run(&run, "identities").to_string(),
        ObjectKey::identities(&run, hash).to_string(),
        ObjectKey::model(hash).to_string(),
        ObjectKey::prediction(hash, hash).to_string(),
        ObjectKey::version(&run, &version).to_string(),
        ObjectKey::version_shard(&run, &version, hash).to_string(),
        ObjectKey::rescore(&run, hash).to_string(),
        ObjectKey::score_fault(hash, hash).to_string(),
        ObjectKey::verdicts(&run, 1).to_string(),
        ObjectKey::refused_url(hash).to_string(),
        ObjectKey::refused_original(hash).to_string(),
        ObjectKey::refused_fingerprints().to_string(),
        ObjectKey::takedown("ba7816bf8f01cfea").to_string(),
        ObjectKey::of_curation("users").to_string(),
        ObjectKey::of_curation("sessions").to_string(),
        ObjectKey::of_curation("key").to_string(),
    ];
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/names-stores.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let examples = docs.lines().filter(|line| line.starts_with("| `"));
    let listed: Vec<&str> = examples.filter_map(|line| line.split('`').nth(3)).collect();
    assert_eq!(listed, expected);
}
