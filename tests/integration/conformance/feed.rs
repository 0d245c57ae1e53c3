//! The feed of endings of every ledger.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use facemill::domain::{Cause, CauseCode, Ending, Id, Message, Photo, Position, RunName, StageName};
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{Cursor, Endings, Epoch, FeedChange, FeedEntry, Ledger};
use facemill::sqlite::{Access, Database};

use super::ledger::{begin, end};
use super::{candidate, run};
use support::servers::redis::RedisServer;

const GONE: FeedChange = FeedChange::Ended(Ending::Gone);
const FAILED: FeedChange = FeedChange::Ended(Ending::Failed);

fn start(name: &RunName, id: &str) -> Message {
    Message::first(Photo::new(name.clone(), candidate(id)), 5)
}

async fn end_photo(ledger: &dyn Ledger, name: &RunName, id: &str, ending: Ending) -> Message {
    let message = start(name, id);
    begin(ledger, &message).await;
    end(ledger, &message, ending, "timeout").await;
    message
}

/// Everything after `after`, read in pages of `limit`.
async fn read(ledger: &dyn Ledger, name: &RunName, after: Option<Cursor>, limit: usize) -> (Vec<FeedEntry>, Cursor) {
    let (mut entries, mut after) = (Vec::new(), after);
    loop {
        let page = ledger.endings(name, after.as_ref(), limit).await.unwrap();
        assert!(page.entries.len() <= limit && !page.restarted, "{page:?}");
        if page.entries.is_empty() {
            return (entries, page.cursor);
        }
        assert_eq!(page.cursor.sequence, page.entries.last().unwrap().sequence);
        entries.extend(page.entries);
        after = Some(page.cursor);
    }
}

fn changes(entries: &[FeedEntry]) -> Vec<(&str, FeedChange)> {
    entries.iter().map(|entry| (entry.photo_id.as_str(), entry.change)).collect()
}

fn assert_sequences_grow(entries: &[FeedEntry]) {
    assert!(entries.is_sorted_by(|a, b| a.sequence < b.sequence), "{entries:?}");
}

async fn suite(ledger: Arc<dyn Ledger>) {
    order_and_pages(&*ledger).await;
    requeue_and_restore(&*ledger).await;
    amended_photos_come_again(&*ledger).await;
    writers_and_a_reader(ledger.clone()).await;
    waits(ledger).await;
}

/// Longer than any wait below takes when news end it.
const PATIENCE: Duration = Duration::from_secs(300);

async fn waits(ledger: Arc<dyn Ledger>) {
    let (name, other) = (run("feed-wait"), run("feed-wait-other"));
    let wait = |after: Option<Cursor>, patience| {
        let (ledger, name) = (ledger.clone(), name.clone());
        tokio::spawn(async move { ledger.wait_for_endings(&name, after.as_ref(), 10, patience).await.unwrap() })
    };
    // The run does not exist when the first wait begins.
    let mut cursor = None;
    for round in 0..10 {
        let waiting = wait(cursor.clone(), PATIENCE);
        if round % 2 == 0 {
            // A round trip that is not held up, and news of another run, which do not end the wait.
            tokio::task::yield_now().await;
            end_photo(&*ledger, &other, &round.to_string(), Ending::Gone).await;
            assert!(!waiting.is_finished());
        }
        end_photo(&*ledger, &name, &round.to_string(), Ending::Gone).await;
        let began = Instant::now();
        let page = tokio::time::timeout(PATIENCE, waiting).await.expect("the news end the wait").unwrap();
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        assert_eq!(changes(&page.entries), [(round.to_string().as_str(), GONE)]);
        cursor = Some(page.cursor);
    }
    let began = Instant::now();
    let all = wait(None, PATIENCE).await.unwrap();
    assert_eq!(all.entries.len(), 10, "what is there needs no wait");
    let foreign = Cursor { epoch: Epoch::random(), sequence: 3 };
    assert!(wait(Some(foreign), PATIENCE).await.unwrap().restarted);
    assert!(began.elapsed() < PATIENCE / 2);

    for patience in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(30)] {
        let began = Instant::now();
        let nothing = wait(cursor.clone(), patience).await.unwrap();
        assert!(began.elapsed() >= patience && nothing.entries.is_empty() && !nothing.restarted, "{nothing:?}");
        assert_eq!(Some(nothing.cursor), cursor);
    }
}

async fn order_and_pages(ledger: &dyn Ledger) {
    let (name, other) = (run("feed"), run("feed-other"));
    let Endings { entries, cursor: early, restarted } = ledger.endings(&name, None, 10).await.unwrap();
    assert!(entries.is_empty() && !restarted, "the run is unknown");
    let ids: Vec<String> = (0..30).rev().map(|id| id.to_string()).collect();
    for (number, id) in ids.iter().enumerate() {
        end_photo(ledger, &name, id, Ending::ALL[number % 4]).await;
        end_photo(ledger, &other, id, Ending::Failed).await;
    }
    begin(ledger, &start(&name, "waits")).await;
    let expected: Vec<(&str, FeedChange)> = ids
        .iter()
        .zip(Ending::ALL.iter().cycle())
        .map(|(id, &ending)| (id.as_str(), FeedChange::Ended(ending)))
        .collect();
    for limit in [1, 7, 30, 1000] {
        for after in [None, Some(early.clone())] {
            let (entries, cursor) = read(ledger, &name, after, limit).await;
            assert_eq!(changes(&entries), expected, "the order of the endings, in pages of {limit}");
            assert_sequences_grow(&entries);
            assert_eq!(read(ledger, &name, Some(cursor.clone()), limit).await, (vec![], cursor), "nothing is new");
        }
    }
    let (entries, _) = read(ledger, &other, None, 1000).await;
    assert!(entries.len() == 30 && entries.iter().all(|entry| entry.change == FAILED), "each run has its own feed");
}

async fn requeue_and_restore(ledger: &dyn Ledger) {
    let name = run("feed-again");
    let message = end_photo(ledger, &name, "1", Ending::Failed).await;
    let key = message.photo.key();
    assert_ne!(end(ledger, &message, Ending::Gone, "http-404").await, facemill::ledger::Moved::Done);
    ledger.recorded(&key, Position::START, Ending::Failed).await.unwrap();
    let (entries, cursor) = read(ledger, &name, None, 10).await;
    assert_eq!(changes(&entries), [("1", FAILED)], "a stale move adds nothing");

    let reopened = ledger.reopen(&key, Some(&message), 9).await.unwrap().unwrap();
    assert_eq!(ledger.reopen(&key, Some(&message), 9).await.unwrap(), None);
    begin(ledger, &reopened).await;
    end(ledger, &reopened, Ending::Gone, "http-404").await;
    let (entries, cursor) = read(ledger, &name, Some(cursor), 10).await;
    assert_eq!(changes(&entries), [("1", FeedChange::Reopened), ("1", GONE)]);

    let cause = Cause::new(CauseCode::NoFace, "a wall");
    let lost = Message { position: Position::entering(StageName::Detect), ..start(&name, "2") };
    for _ in 0..2 {
        ledger.restore(&lost, Ending::Rejected, Some(&cause)).await.unwrap();
    }
    let (entries, _) = read(ledger, &name, Some(cursor), 10).await;
    assert_eq!(changes(&entries), [("2", FeedChange::Ended(Ending::Rejected))], "restored once");
    let (all, _) = read(ledger, &name, None, 10).await;
    assert_eq!(all.len(), 4);
    assert_sequences_grow(&all);
}

async fn amended_photos_come_again(ledger: &dyn Ledger) {
    let name = run("feed-amend");
    let message = end_photo(ledger, &name, "1", Ending::Gone).await;
    end_photo(ledger, &name, "2", Ending::Gone).await;
    let (key, counts) = (message.photo.key(), ledger.counts(&name).await.unwrap());
    let (before, history) = (ledger.status(&key).await.unwrap().unwrap(), ledger.history(&key).await.unwrap());
    let (_, cursor) = read(ledger, &name, None, 10).await;
    let mut amended = message.clone();
    amended.photo.candidate.source = Some("amended".into());
    for _ in 0..2 {
        assert!(ledger.amend(&amended, Ending::Gone).await.unwrap());
    }
    let (entries, cursor) = read(ledger, &name, Some(cursor), 10).await;
    assert_eq!(changes(&entries), [("1", GONE), ("1", GONE)]);
    let after = ledger.status(&key).await.unwrap().unwrap();
    assert!(after.message.as_ref().is_none_or(|message| *message == amended), "{after:?}");
    assert_eq!(
        (after.state, after.stage, after.attempt, after.cause),
        (before.state, before.stage, before.attempt, before.cause)
    );
    assert_eq!(ledger.history(&key).await.unwrap(), history);
    assert_eq!(ledger.counts(&name).await.unwrap(), counts);

    assert!(!ledger.amend(&amended, Ending::Failed).await.unwrap(), "another ending");
    assert!(!ledger.amend(&start(&name, "3"), Ending::Gone).await.unwrap(), "an unknown photo");
    let reopened = ledger.reopen(&key, Some(&amended), 9).await.unwrap().unwrap();
    assert_eq!(reopened.photo, amended.photo);
    assert!(!ledger.amend(&amended, Ending::Gone).await.unwrap(), "it is under way");
    end(ledger, &reopened, Ending::Gone, "http-404").await;
    assert!(!ledger.amend(&amended, Ending::Gone).await.unwrap(), "it has ended anew");
    let (entries, _) = read(ledger, &name, Some(cursor), 10).await;
    assert_eq!(changes(&entries), [("1", FeedChange::Reopened), ("1", GONE)]);
}

/// Eight writers end photos and requeue some of them while a reader follows.
async fn writers_and_a_reader(ledger: Arc<dyn Ledger>) {
    const WRITERS: usize = 8;
    const PHOTOS: usize = 40;
    let name = run("feed-crowd");
    let writer = |number: usize| {
        let (ledger, name) = (ledger.clone(), name.clone());
        async move {
            for photo in 0..PHOTOS {
                let message = end_photo(&*ledger, &name, &format!("{number}-{photo}"), Ending::Gone).await;
                if photo % 4 == 0 {
                    let reopened = ledger.reopen(&message.photo.key(), None, 9).await.unwrap().unwrap();
                    begin(&*ledger, &reopened).await;
                    end(&*ledger, &reopened, Ending::Failed, "timeout").await;
                }
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|number| tokio::spawn(writer(number))).collect();
    let expected = WRITERS * (PHOTOS + 2 * PHOTOS / 4);
    let follow = async {
        let (mut entries, mut cursor) = (Vec::new(), None);
        while entries.len() < expected {
            let page = ledger.endings(&name, cursor.as_ref(), 5).await.unwrap();
            // The first answers may come before the run has an epoch.
            assert!(!page.restarted);
            entries.extend(page.entries);
            cursor = Some(page.cursor);
            tokio::task::yield_now().await;
        }
        entries
    };
    let entries = tokio::time::timeout(PATIENCE, follow).await.expect("no gap");
    for writer in writers {
        writer.await.unwrap();
    }
    assert_sequences_grow(&entries);
    assert_eq!(read(&*ledger, &name, None, 1000).await.0, entries, "the reader saw the same as a later reader");
    let ended: HashSet<(&Id, FeedChange)> = entries.iter().map(|entry| (&entry.photo_id, entry.change)).collect();
    assert_eq!(ended.len(), expected, "no entry twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    suite(Arc::new(RedisServer::shared().ledger())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(open(&folder.path().join("ledger.sqlite")).await)).await;
}

async fn open(path: &Path) -> Sqlite {
    Sqlite::open(Database::open(path, Access::Write).unwrap()).await.unwrap()
}

/// Ends a photo before and one after `restart`; a reader goes on from its stored cursor.
async fn over_a_restart<L: Ledger>(ledger: L, restart: impl AsyncFnOnce(L) -> L) {
    let name = run("feed-restart");
    end_photo(&ledger, &name, "1", Ending::Gone).await;
    end_photo(&ledger, &name, "2", Ending::Gone).await;
    let stored = serde_json::to_string(&ledger.endings(&name, None, 1).await.unwrap().cursor).unwrap();
    let ledger = restart(ledger).await;
    end_photo(&ledger, &name, "3", Ending::Failed).await;
    let (entries, _) = read(&ledger, &name, Some(serde_json::from_str(&stored).unwrap()), 10).await;
    assert_eq!(changes(&entries), [("2", GONE), ("3", FAILED)]);
}

#[tokio::test]
async fn a_redis_cursor_survives_a_restart_of_the_server() {
    let mut server = RedisServer::start(&[]);
    let settings = server.settings();
    over_a_restart(RedisServer::ledger_with(settings.clone()), async |ledger| {
        drop(ledger);
        server.process.kill();
        server.restart();
        RedisServer::ledger_with(settings)
    })
    .await;
}

#[tokio::test]
async fn a_sqlite_cursor_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    over_a_restart(open(&path).await, async |ledger| {
        drop(ledger);
        open(&path).await
    })
    .await;
}

/// A ledger that was lost and rebuilt has another epoch: the reader starts again, and learns so.
async fn over_a_loss<L: Ledger>(ledger: L, lose: impl AsyncFnOnce(L) -> L) {
    let name = run("feed-lost");
    for id in ["1", "2", "3"] {
        end_photo(&ledger, &name, id, Ending::Gone).await;
    }
    let (_, cursor) = read(&ledger, &name, None, 10).await;
    let ledger = lose(ledger).await;
    for id in ["3", "1", "2", "4", "5"] {
        assert!(ledger.restore(&start(&name, id), Ending::Gone, None).await.unwrap());
    }
    let first = ledger.endings(&name, Some(&cursor), 3).await.unwrap();
    assert!(first.restarted && first.cursor.epoch != cursor.epoch, "{first:?}");
    let (rest, _) = read(&ledger, &name, Some(first.cursor), 10).await;
    let entries = [first.entries, rest].concat();
    assert_eq!(changes(&entries), ["3", "1", "2", "4", "5"].map(|id| (id, GONE)));
}

#[tokio::test]
async fn a_redis_ledger_that_was_lost_has_another_epoch() {
    let server = RedisServer::start(&[]);
    over_a_loss(server.ledger(), async |ledger| {
        let answer = support::servers::process::send_request(server.port, "FLUSHALL\r\n").unwrap();
        assert!(answer.starts_with("+OK"), "{answer}");
        ledger
    })
    .await;
}

#[tokio::test]
async fn a_sqlite_ledger_that_was_lost_has_another_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let lost = folder.path().join("lost.sqlite");
    over_a_loss(open(&lost).await, async |ledger| {
        drop(ledger);
        open(&folder.path().join("new.sqlite")).await
    })
    .await;
}

#[tokio::test]
async fn a_sqlite_reader_ahead_of_the_feed_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    let ledger = Sqlite::open(database.clone()).await.unwrap();
    let name = run("feed-rewound");
    for id in ["1", "2"] {
        end_photo(&ledger, &name, id, Ending::Gone).await;
    }
    let (_, cursor) = read(&ledger, &name, None, 10).await;
    database.call(|c| c.execute("DELETE FROM endings WHERE id = '2'", [])).await.unwrap();
    let page = ledger.endings(&name, Some(&cursor), 10).await.unwrap();
    assert!(page.restarted);
    assert_eq!(changes(&page.entries), [("1", GONE)]);
}
