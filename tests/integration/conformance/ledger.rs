//! The moves, counts and listings of every ledger.

use facemill::domain::{Candidate, Cause, CauseCode, Ending, Id, Message, Photo, PhotoKey, Position, StageName, State};
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{Event, EventKind, Filter, Ledger, Move, Moved, Permission, Registration};
use facemill::sqlite::{Access, Database};

use super::{candidate, first, run};
use support::servers::redis::RedisServer;

async fn suite(ledger: &dyn Ledger) {
    ledger.check().await.unwrap();
    registration(ledger).await;
    registration_at_a_stage(ledger).await;
    a_photo_through_the_stages(ledger).await;
    moves_go_forward_only(ledger).await;
    crashes_are_counted(ledger).await;
    unknown_photos_are_added(ledger).await;
    racing_moves(ledger).await;
    counting_and_paging(ledger).await;
    reopening(ledger).await;
    restoring(ledger).await;
    taking_down(ledger).await;
}

fn key(id: &str) -> PhotoKey {
    PhotoKey { run: run("r"), photo_id: Id::from(id) }
}

fn event(stage: StageName, what: EventKind, cause: Option<Cause>) -> Event {
    Event { at_ms: 1_700_000_000_123, stage, attempt: 1, what, cause, took_ms: 7 }
}

pub async fn begin(ledger: &dyn Ledger, message: &Message) {
    assert_eq!(ledger.begin(message, "w", false).await.unwrap(), Permission::Granted { crashes: 0 });
}

/// Moves the photo of `message` to the next stage. Returns the next message.
async fn advance(ledger: &dyn Ledger, message: &Message) -> Message {
    let position = Position::entering(message.position.stage.next().unwrap());
    let next = Message { position, attempt: 1, ..message.clone() };
    let step = Move {
        key: &message.photo.key(),
        from: message.position,
        to: State::Waiting(position),
        attempt: 1,
        due_at: 0,
        event: event(message.position.stage, EventKind::Advanced, None),
        message: &next,
    };
    assert_eq!(ledger.advance(&step).await.unwrap(), Moved::Done);
    next
}

pub async fn end(ledger: &dyn Ledger, message: &Message, ending: Ending, code: &str) -> Moved {
    let cause = (ending != Ending::Predicted).then(|| Cause::new(code, "it's \"so\" — 無"));
    let step = Move {
        key: &message.photo.key(),
        from: message.position,
        to: State::Ended(ending),
        attempt: message.attempt,
        due_at: 0,
        event: event(message.position.stage, ending.into(), cause),
        message,
    };
    ledger.advance(&step).await.unwrap()
}

async fn registration(ledger: &dyn Ledger) {
    let photos: Vec<Candidate> = ["e1", "e2", "e2"].into_iter().map(candidate).collect();
    let registrations = ledger.register(&run("r"), &photos, 5).await.unwrap();
    assert_eq!(registrations, [Registration::New, Registration::New, Registration::Pending]);
    let message = ledger.status(&key("e1")).await.unwrap().unwrap().message.unwrap();
    assert_eq!(message.photo.candidate, candidate("e1"));
    begin(ledger, &message).await;
    advance(ledger, &message).await;
    assert_eq!(
        ledger.register(&run("r"), &photos, 6).await.unwrap()[..2],
        [Registration::InProgress, Registration::Pending]
    );
    assert_eq!(ledger.register(&run("other"), &photos[..1], 6).await.unwrap(), [Registration::New]);
    let others = [
        Candidate { photo_url: "http://photos.test/other.jpg".into(), ..candidate("e1") },
        Candidate { photo_url: "http://photos.test/other.jpg".into(), ..candidate("e2") },
    ];
    assert_eq!(ledger.register(&run("r"), &others, 7).await.unwrap(), [Registration::Conflict; 2]);
    let kept = ledger.status(&key("e2")).await.unwrap().unwrap().message.unwrap();
    assert_eq!(kept.photo.candidate, candidate("e2"), "the known photo is not changed");
    let history = ledger.history(&key("e1")).await.unwrap();
    assert_eq!(history.iter().map(|event| event.what).collect::<Vec<_>>(), [EventKind::Enqueued, EventKind::Advanced]);
    assert!(ledger.runs().await.unwrap().starts_with(&[run("other"), run("r")]));
}

/// Photos with the results of earlier stages start at a later one.
async fn registration_at_a_stage(ledger: &dyn Ledger) {
    let photo = |id: &str| {
        let mut photo = support::faces::photo(1);
        photo.candidate = candidate(id);
        Photo { run: run("later"), ..photo }
    };
    let photos = ["l1", "l2"].map(photo);
    let register = async |stage| ledger.register_at(&run("later"), stage, &photos, 5).await.unwrap();
    assert_eq!(register(StageName::Crop).await, [Registration::New; 2]);
    assert_eq!(register(StageName::Crop).await, [Registration::Pending; 2]);
    assert_eq!(register(StageName::Detect).await, [Registration::InProgress; 2], "they are further");
    let key = PhotoKey { run: run("later"), photo_id: "l1".into() };
    let status = ledger.status(&key).await.unwrap().unwrap();
    assert_eq!(status.state, State::Waiting(Position::entering(StageName::Crop)));
    let message = status.message.unwrap();
    assert_eq!((&message.photo, message.position.stage), (&photos[0], StageName::Crop));
    assert_eq!(ledger.counts(&run("later")).await.unwrap().waiting, [(StageName::Crop, 2)].into());
    begin(ledger, &message).await;
    advance(ledger, &message).await;
    assert_eq!(register(StageName::Crop).await, [Registration::InProgress, Registration::Pending]);
    let mut other = photos[1].clone();
    other.candidate.photo_url = "http://photos.test/other.jpg".into();
    let registered = ledger.register_at(&run("later"), StageName::Crop, &[other], 6).await.unwrap();
    assert_eq!(registered, [Registration::Conflict]);
}

async fn a_photo_through_the_stages(ledger: &dyn Ledger) {
    assert_eq!(ledger.status(&key("w")).await.unwrap(), None);
    ledger.register(&run("r"), &[candidate("w")], 5).await.unwrap();
    let fetch = first("w");
    begin(ledger, &fetch).await;
    let again = Message { position: fetch.position.next_delivery(), attempt: 2, ..fetch.clone() };
    let cause = Cause::new(CauseCode::Http(503), "busy");
    let step = Move {
        key: &key("w"),
        from: fetch.position,
        to: State::Waiting(again.position),
        attempt: 2,
        due_at: 99,
        event: event(Fetch, Retried, Some(cause.clone())),
        message: &again,
    };
    assert_eq!(ledger.advance(&step).await.unwrap(), Moved::Done);
    let status = ledger.status(&key("w")).await.unwrap().unwrap();
    assert_eq!((status.state, status.attempt, status.due_at), (State::Waiting(again.position), 2, 99));
    assert_eq!((status.cause, status.message.as_ref()), (Some(cause), Some(&again)));
    begin(ledger, &again).await;
    let detect = advance(ledger, &again).await;
    begin(ledger, &detect).await;
    assert_eq!(end(ledger, &detect, Ending::Rejected, "no-face").await, Moved::Done);
    let status = ledger.status(&key("w")).await.unwrap().unwrap();
    assert_eq!((status.state, status.stage), (State::Ended(Ending::Rejected), Detect));
    assert_eq!(status.cause.unwrap().code, CauseCode::NoFace);
    let history = ledger.history(&key("w")).await.unwrap();
    let happened: Vec<_> = history.iter().map(|event| (event.stage, event.what)).collect();
    use EventKind::{Advanced, Enqueued, Rejected, Retried};
    use StageName::{Detect, Fetch};
    assert_eq!(happened, [(Fetch, Enqueued), (Fetch, Retried), (Fetch, Advanced), (Detect, Rejected)]);
    assert_eq!(history[3].cause.as_ref().unwrap().detail, "it's \"so\" — 無");
    assert_eq!((history[3].at_ms, history[3].took_ms), (1_700_000_000_123, 7));
}

async fn moves_go_forward_only(ledger: &dyn Ledger) {
    ledger.register(&run("r"), &[candidate("f")], 5).await.unwrap();
    let fetch = first("f");
    begin(ledger, &fetch).await;
    let detect = advance(ledger, &fetch).await;
    let Permission::Stale(status) = ledger.begin(&fetch, "w", true).await.unwrap() else {
        panic!("permission granted twice")
    };
    assert_eq!((status.state, status.message), (State::Waiting(detect.position), Some(detect.clone())));
    let Moved::Stale(_) = end(ledger, &fetch, Ending::Gone, "http-404").await else {
        panic!("moved from an old position")
    };
    assert_eq!(end(ledger, &detect, Ending::Failed, "panic").await, Moved::Done);
    assert!(matches!(end(ledger, &detect, Ending::Failed, "panic").await, Moved::Stale(_)));
    assert!(matches!(ledger.begin(&detect, "w", false).await.unwrap(), Permission::Stale(_)));
}

async fn crashes_are_counted(ledger: &dyn Ledger) {
    ledger.register(&run("r"), &[candidate("c")], 5).await.unwrap();
    let fetch = first("c");
    begin(ledger, &fetch).await;
    // A copy of the message, not redelivered: no worker has crashed.
    assert_eq!(ledger.begin(&fetch, "w2", false).await.unwrap(), Permission::Granted { crashes: 0 });
    assert_eq!(ledger.begin(&fetch, "w3", true).await.unwrap(), Permission::Granted { crashes: 1 });
    assert_eq!(
        ledger.begin(&fetch, "w3", true).await.unwrap(),
        Permission::Granted { crashes: 1 },
        "the same worker asks again"
    );
    ledger.release(&key("c"), fetch.position, "w3").await.unwrap();
    assert_eq!(
        ledger.begin(&fetch, "w4", true).await.unwrap(),
        Permission::Granted { crashes: 1 },
        "released without a crash"
    );
    ledger.release(&key("c"), fetch.position, "another worker").await.unwrap();
    assert_eq!(ledger.begin(&fetch, "w5", true).await.unwrap(), Permission::Granted { crashes: 2 });
    let detect = advance(ledger, &fetch).await;
    assert_eq!(
        ledger.begin(&detect, "w6", true).await.unwrap(),
        Permission::Granted { crashes: 0 },
        "each stage has its own count"
    );
}

async fn unknown_photos_are_added(ledger: &dyn Ledger) {
    let detect = Message { position: Position::entering(StageName::Detect), ..first("u") };
    begin(ledger, &detect).await;
    let status = ledger.status(&key("u")).await.unwrap().unwrap();
    assert_eq!(status.state, State::Waiting(detect.position));
    advance(ledger, &detect).await;
}

async fn racing_moves(ledger: &dyn Ledger) {
    ledger.register(&run("r"), &[candidate("race")], 5).await.unwrap();
    let fetch = first("race");
    begin(ledger, &fetch).await;
    let moves = (0..20).map(|_| end(ledger, &fetch, Ending::Gone, "http-410"));
    let moved = futures::future::join_all(moves).await;
    assert_eq!(moved.iter().filter(|moved| **moved == Moved::Done).count(), 1);
    assert_eq!(ledger.history(&key("race")).await.unwrap().len(), 2);
}

async fn counting_and_paging(ledger: &dyn Ledger) {
    let name = run("counted");
    let ids: Vec<String> = (1..=120).map(|i| i.to_string()).chain(["äöü".into(), "zzzz".into()]).collect();
    let photos: Vec<Candidate> = ids.iter().map(|id| candidate(id)).collect();
    ledger.register(&name, &photos, 5).await.unwrap();
    for id in ["7", "30"] {
        let message = Message::first(Photo::new(name.clone(), candidate(id)), 5);
        begin(ledger, &message).await;
        end(ledger, &message, Ending::Gone, "http-404").await;
    }
    let message = Message::first(Photo::new(name.clone(), candidate("9")), 5);
    begin(ledger, &message).await;
    advance(ledger, &message).await;
    let counts = ledger.counts(&name).await.unwrap();
    assert_eq!(counts.candidates, 122);
    assert_eq!(counts.waiting.into_iter().collect::<Vec<_>>(), [(StageName::Fetch, 119), (StageName::Detect, 1)]);
    assert_eq!(counts.ended.into_iter().collect::<Vec<_>>(), [(Ending::Gone, 2)]);
    let [cause] = &counts.causes[..] else { panic!("{:?}", counts.causes) };
    assert_eq!((&cause.code, cause.host.as_str(), cause.count), (&CauseCode::Http(404), "photos.test", 2));

    let mut sorted: Vec<Id> = ids.iter().map(|id| Id::from(id.as_str())).collect();
    sorted.sort();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.page(&name, &Filter::default(), after.as_ref(), 50).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.photo_id.clone());
        listed.extend(page.into_iter().map(|entry| entry.photo_id));
    }
    assert_eq!(listed, sorted);
    let select = async |filter: Filter| {
        let page = ledger.page(&name, &filter, None, 1000).await.unwrap();
        page.into_iter().map(|entry| entry.photo_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(select(Filter { ending: Some(Ending::Gone), ..Filter::default() }).await, ["7", "30"]);
    assert_eq!(select(Filter { stage: Some(StageName::Detect), waiting: true, ..Filter::default() }).await, ["9"]);
    assert_eq!(select(Filter { cause: Some("http-404".into()), ..Filter::default() }).await.len(), 2);
    assert_eq!(select(Filter { host: Some("elsewhere.test".into()), ..Filter::default() }).await.len(), 0);
    assert_eq!(select(Filter { waiting: true, ..Filter::default() }).await.len(), 120);
}

async fn reopening(ledger: &dyn Ledger) {
    ledger.register(&run("r"), &[candidate("reopened")], 5).await.unwrap();
    assert_eq!(ledger.reopen(&key("reopened"), None, 9).await.unwrap(), None, "it has not ended");
    let fetch = first("reopened");
    begin(ledger, &fetch).await;
    end(ledger, &fetch, Ending::Failed, "timeout").await;
    let reopened = ledger.reopen(&key("reopened"), None, 9).await.unwrap().unwrap();
    assert!(reopened.position > fetch.position && reopened.position.stage == StageName::Fetch);
    assert!(matches!(ledger.begin(&fetch, "w", true).await.unwrap(), Permission::Stale(_)), "the old message is stale");
    begin(ledger, &reopened).await;
    advance(ledger, &reopened).await;
}

/// Photos in all states, and one that the ledger does not know.
async fn taking_down(ledger: &dyn Ledger) {
    let of_run = |id: &str| {
        let mut message = first(id);
        message.photo.run = run("down");
        message
    };
    let key = |id: &str| of_run(id).photo.key();
    let ids = ["t-waits", "t-retries", "t-ended"];
    let photos = ids.map(candidate);
    ledger.register(&run("down"), &photos, 5).await.unwrap();
    let fetched = advance(ledger, &of_run("t-retries")).await;
    assert_eq!(end(ledger, &of_run("t-ended"), Ending::Gone, "http-404").await, Moved::Done);
    let feed = ledger.endings(&run("down"), None, 9).await.unwrap();
    let cause = Cause::new(CauseCode::TakenDown, "asked for");
    let take_down = async |id: &str| ledger.take_down(&Message::taken_down(&key(id), 9), &cause, 9).await.unwrap();
    for id in ids.into_iter().chain(["t-unknown", "t-ended"]) {
        take_down(id).await;
    }
    for id in ids.into_iter().chain(["t-unknown"]) {
        let status = ledger.status(&key(id)).await.unwrap().unwrap();
        assert_eq!((status.state, status.is_taken_down()), (State::Ended(Ending::Rejected), true), "{id}");
        assert_eq!(status.cause, Some(cause.clone()));
        // A ledger that deletes the messages of ended photos has none.
        if let Some(message) = status.message {
            let left = Message { position: message.position, ..Message::taken_down(&key(id), 9) };
            assert_eq!(message, left, "{id}");
        }
        let history = ledger.history(&key(id)).await.unwrap();
        assert_eq!(history.iter().map(|event| event.what).collect::<Vec<_>>(), [EventKind::Rejected], "{id}");
    }
    // The message of a photo that was on its way is stale.
    for message in [&fetched, &of_run("t-waits")] {
        let answer = ledger.begin(message, "w", false).await.unwrap();
        assert!(matches!(&answer, Permission::Stale(status) if status.is_taken_down()), "{answer:?}");
    }
    let counts = ledger.counts(&run("down")).await.unwrap();
    assert_eq!((counts.candidates, &counts.ended), (4, &[(Ending::Rejected, 4)].into()));
    assert!(counts.waiting.values().all(|waiting| *waiting == 0), "{counts:?}");
    assert!(counts.causes.iter().all(|cause| cause.host.is_empty()), "{counts:?}");
    let news = ledger.endings(&run("down"), Some(&feed.cursor), 9).await.unwrap();
    let told: Vec<&str> = news.entries.iter().map(|entry| entry.photo_id.as_str()).collect();
    assert_eq!(told, ["t-waits", "t-retries", "t-ended", "t-unknown"], "each once");
    let filter = Filter { cause: Some(CauseCode::TakenDown), ..Filter::default() };
    let listed = ledger.page(&run("down"), &filter, None, 9).await.unwrap();
    assert_eq!(listed.len(), 4);
}

async fn restoring(ledger: &dyn Ledger) {
    let name = run("lost");
    let message = |id: &str, position: Position| Message {
        position,
        attempt: 3,
        ..Message::first(Photo::new(name.clone(), candidate(id)), 5)
    };
    let cause = Cause::new(CauseCode::NoFace, "a wall");
    let detect = Position { stage: StageName::Detect, delivery: 4 };
    let ended = message("1", detect);
    for is_restored in [true, false] {
        let restored = ledger.restore(&ended, Ending::Rejected, Some(&cause)).await.unwrap();
        assert_eq!(restored, is_restored, "the second call changes nothing");
        let status = ledger.status(&ended.photo.key()).await.unwrap().unwrap();
        assert_eq!((status.state, status.stage), (State::Ended(Ending::Rejected), StageName::Detect));
        assert_eq!((status.attempt, status.due_at, status.cause.as_ref()), (3, 0, Some(&cause)));
        assert!(ledger.history(&ended.photo.key()).await.unwrap().is_empty());
    }
    assert!(ledger.runs().await.unwrap().contains(&name));
    assert!(matches!(ledger.begin(&ended, "w", true).await.unwrap(), Permission::Stale(_)), "the photo has ended");

    // The producer ran before the records were read.
    assert_eq!(ledger.register(&name, &[candidate("1"), candidate("2")], 5).await.unwrap()[1], Registration::New);
    let classify = message("2", Position::entering(StageName::Classify));
    assert!(ledger.restore(&classify, Ending::Predicted, None).await.unwrap());
    assert!(matches!(ledger.begin(&message("2", Position::START), "w", false).await.unwrap(), Permission::Stale(_)));

    // A photo that has moved on is newer than the record.
    let crop = message("3", Position::entering(StageName::Crop));
    begin(ledger, &crop).await;
    assert!(!ledger.restore(&message("3", Position::START), Ending::Failed, Some(&cause)).await.unwrap());
    let again = Message { position: detect.next_delivery(), ..ended.clone() };
    assert_eq!(ledger.reopen(&ended.photo.key(), Some(&ended), 9).await.unwrap().unwrap().position, again.position);
    assert!(!ledger.restore(&ended, Ending::Rejected, Some(&cause)).await.unwrap());
    let counts = ledger.counts(&name).await.unwrap();
    assert_eq!(counts.candidates, 3);
    let waiting = [(StageName::Detect, 1), (StageName::Crop, 1)];
    assert_eq!(counts.waiting.into_iter().collect::<Vec<_>>(), waiting);
    assert_eq!(counts.ended.into_iter().collect::<Vec<_>>(), [(Ending::Predicted, 1)]);
    let page = ledger.page(&name, &Filter::default(), None, 10).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.photo_id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[tokio::test]
async fn redis() {
    suite(&RedisServer::shared().ledger()).await;
}

#[tokio::test]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
    suite(&Sqlite::open(database).await.unwrap()).await;
}

#[tokio::test]
async fn sqlite_keeps_its_photos_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let message = {
        let ledger = Sqlite::open(Database::open(&path, Access::Write).unwrap()).await.unwrap();
        ledger.register(&run("r"), &[candidate("1")], 5).await.unwrap();
        begin(&ledger, &first("1")).await;
        advance(&ledger, &first("1")).await
    };
    let ledger = Sqlite::open(Database::open(&path, Access::Read).unwrap()).await.unwrap();
    assert_eq!(ledger.status(&key("1")).await.unwrap().unwrap().message, Some(message));
}
