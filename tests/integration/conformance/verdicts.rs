//! The log of verdicts, on a folder and on S3.

use std::sync::Arc;

use bytes::Bytes;
use facemill::domain::{ContentHash, Id, Judgement, Selection, Verdict, View};
use facemill::objects::folder::Folder;
use facemill::objects::s3::S3;
use facemill::objects::{ObjectKey, Objects};
use facemill::verdicts::{AppendError, LogPosition, VerdictLog, VerdictWriter};

use super::run;
use support::failpoints::{Failpoint, FailpointObjects};
use support::servers::seaweedfs::SeaweedFs;

/// Small, so that a few verdicts fill a segment.
const SEGMENT: u64 = 2000;

/// `first` and `second` are two clients of one store, as two processes have them.
async fn suite(first: Arc<dyn Objects>, second: Arc<dyn Objects>) {
    verdicts_are_read_in_the_order_in_which_they_were_stored(&first).await;
    a_verdict_that_is_sent_again_is_stored_once(&first).await;
    two_writers_notice_each_other_and_lose_nothing(&first, &second).await;
    a_crash_at_any_write_loses_nothing(&first).await;
    a_damaged_log_is_named(&first).await;
}

fn log(objects: &Arc<dyn Objects>, name: &str) -> VerdictLog {
    VerdictLog::new(objects.clone(), run(name)).with_segment_bytes(SEGMENT)
}

async fn writer(log: VerdictLog) -> VerdictWriter {
    VerdictWriter::open(log, drop).await.unwrap()
}

fn verdict(id: &str, at: u64) -> Verdict {
    Verdict {
        id: id.parse().unwrap(),
        photo_id: Id::from("1"),
        crop: ContentHash::of(id.as_bytes()),
        judgement: Judgement::Ok,
        reason: None,
        by: "ada".into(),
        at,
        replaces: vec![],
        selection: Selection::Random,
        view: View::Single,
        repeat: false,
        seen: None,
    }
}

async fn ids(log: &VerdictLog) -> Vec<String> {
    let mut ids = Vec::new();
    log.read(&mut LogPosition::default(), |verdict| ids.push(verdict.id.to_string())).await.unwrap();
    ids
}

async fn verdicts_are_read_in_the_order_in_which_they_were_stored(objects: &Arc<dyn Objects>) {
    let log = log(objects, "ordered");
    assert_eq!(ids(&log).await, [] as [&str; 0]);
    // The clock of the server jumps back; the order of the log counts.
    let verdicts: Vec<Verdict> = (0..40).map(|number| verdict(&format!("v{number}"), 1_000_000 - number)).collect();
    let mut writer = writer(log.clone()).await;
    let (mut position, mut followed) = (LogPosition::default(), Vec::new());
    for batch in verdicts.chunks(3) {
        let appended = writer.append(batch).await.unwrap();
        assert_eq!((appended.news.as_slice(), appended.known, appended.foreign), (batch, 0, 0));
        // A reader that follows gets each verdict once.
        log.read(&mut position, |verdict| followed.push(verdict)).await.unwrap();
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    assert_eq!(followed, verdicts);
    let mut read = Vec::new();
    log.read(&mut LogPosition::default(), |verdict| read.push(verdict)).await.unwrap();
    assert_eq!(read, verdicts);
    let segments = objects.list(&ObjectKey::all_verdicts(&run("ordered")), None, 100).await.unwrap().keys;
    assert!((4..=8).contains(&segments.len()), "{segments:?}");
}

async fn a_verdict_that_is_sent_again_is_stored_once(objects: &Arc<dyn Objects>) {
    let log = log(objects, "again");
    let sent = [verdict("a", 1), verdict("b", 1)];
    let mut first = writer(log.clone()).await;
    first.append(&sent).await.unwrap();
    // The answer was lost: the client sends both again, later, with a third.
    let again = [verdict("a", 9), verdict("b", 9), verdict("c", 9), verdict("c", 9)];
    for mut writer in [first, writer(log.clone()).await] {
        let appended = writer.append(&again).await.unwrap();
        assert!(appended.news.iter().all(|verdict| verdict.id.as_str() == "c"));
    }
    assert_eq!(ids(&log).await, ["a", "b", "c"]);
    // Another judgement under a known id would be lost silently: it is refused, with the whole batch.
    let other = Verdict { judgement: Judgement::Pending, ..verdict("a", 1) };
    let mut writer = writer(log.clone()).await;
    let refused = writer.append(&[verdict("d", 1), other]).await;
    assert!(matches!(refused, Err(AppendError::IdTaken(id)) if id.as_str() == "a"));
    let invalid = writer.append(&[verdict("d", 1), Verdict { by: String::new(), ..verdict("e", 1) }]).await;
    assert!(matches!(invalid, Err(AppendError::Invalid { id, .. }) if id.as_str() == "e"));
    assert_eq!(ids(&log).await, ["a", "b", "c"]);
}

async fn two_writers_notice_each_other_and_lose_nothing(first: &Arc<dyn Objects>, second: &Arc<dyn Objects>) {
    const BATCHES: usize = 25;
    let log_of = |objects| log(objects, "two");
    let writers = [(first, "one"), (second, "two")].map(|(objects, name)| {
        let log = log_of(objects);
        tokio::spawn(async move {
            let mut writer = writer(log).await;
            let (mut foreign, mut seen) = (0, Vec::new());
            for number in 0..BATCHES {
                let batch = [verdict(&format!("{name}-{number}-a"), 0), verdict(&format!("{name}-{number}-b"), 0)];
                let appended = writer.append(&batch).await.unwrap();
                foreign += appended.foreign;
                seen.extend(appended.news.into_iter().map(|verdict| verdict.id.to_string()));
            }
            (foreign, seen)
        })
    });
    let logged =
        |ids: Vec<String>, name: &str| -> Vec<String> { ids.into_iter().filter(|id| id.starts_with(name)).collect() };
    let mut noticed = 0;
    let log = log_of(first);
    for writer in writers {
        let (foreign, seen) = writer.await.unwrap();
        noticed += foreign;
        // Each has seen the log up to its own last verdict, in the order of the log.
        let all = ids(&log).await;
        assert_eq!(all[..seen.len()], seen);
    }
    assert!(noticed > 0, "one of the writers was the second to write");
    let all = ids(&log).await;
    assert_eq!(all.len(), 4 * BATCHES);
    for name in ["one", "two"] {
        let expected: Vec<String> =
            (0..BATCHES).flat_map(|number| [format!("{name}-{number}-a"), format!("{name}-{number}-b")]).collect();
        assert_eq!(logged(all.clone(), name), expected);
    }
}

/// The process dies before or after each write in turn. The next one sends everything that was not acknowledged.
async fn a_crash_at_any_write_loses_nothing(objects: &Arc<dyn Objects>) {
    let verdicts: Vec<Verdict> = (0..24).map(|number| verdict(&format!("v{number}"), 0)).collect();
    for (step, after) in (1..=8).flat_map(|step| [(step, false), (step, true)]) {
        let name = format!("crash-{step}-{after}");
        let failpoint = Failpoint::of(step, after);
        let failing: Arc<dyn Objects> =
            Arc::new(FailpointObjects { objects: objects.clone(), failpoint: failpoint.clone() });
        let mut acknowledged = 0;
        let mut writer_that_dies = writer(log(&failing, &name)).await;
        for batch in verdicts.chunks(3) {
            tokio::select! {
                biased;
                appended = writer_that_dies.append(batch) => acknowledged += appended.unwrap().news.len(),
                () = failpoint.reached() => break,
            }
        }
        assert_eq!(acknowledged as i64, 3 * (step - 1), "{name}");
        let log = log(objects, &name);
        let stored = ids(&log).await.len();
        assert!(stored == acknowledged || stored == acknowledged + 3, "{name}: {stored} of {acknowledged}");
        let mut next = writer(log.clone()).await;
        next.append(&verdicts[acknowledged..]).await.unwrap();
        let expected: Vec<String> = verdicts.iter().map(|verdict| verdict.id.to_string()).collect();
        assert_eq!(ids(&log).await, expected, "{name}");
    }
}

async fn a_damaged_log_is_named(objects: &Arc<dyn Objects>) {
    let log = log(objects, "damaged");
    let mut first = writer(log.clone()).await;
    for number in 0..40 {
        first.append(&[verdict(&format!("v{number}"), 0)]).await.unwrap();
    }
    let segment = |number| ObjectKey::verdicts(&run("damaged"), number);
    let fault = async || log.read(&mut LogPosition::default(), drop).await.unwrap_err().to_string();
    let body = objects.get(&segment(2)).await.unwrap();

    objects.delete(&segment(2)).await.unwrap();
    let expected = "cannot read verdicts/damaged/00000002.jsonl: the segment is missing: restore it from a backup";
    assert_eq!(fault().await, expected);

    let mut lines: Vec<&[u8]> = body.split_inclusive(|byte| *byte == b'\n').collect();
    lines.insert(1, b"{\"id\":\n");
    objects.put(&segment(2), Bytes::from(lines.concat()), "application/jsonl").await.unwrap();
    assert!(fault().await.starts_with("cannot read verdicts/damaged/00000002.jsonl: line 2: "), "{}", fault().await);

    objects.put(&segment(2), body, "application/jsonl").await.unwrap();
    let mut position = LogPosition::default();
    log.read(&mut position, drop).await.unwrap();
    let last = objects.list(&ObjectKey::all_verdicts(&run("damaged")), None, 100).await.unwrap().keys.pop().unwrap();
    objects.put(&last, Bytes::from_static(b""), "application/jsonl").await.unwrap();
    let error = log.read(&mut position, drop).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot read {last}: it is shorter than it was: restore it from a backup"));
}

#[tokio::test(flavor = "multi_thread")]
async fn folder() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(Folder::at(folder.path())), Arc::new(Folder::at(folder.path()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let settings = SeaweedFs::shared().settings();
    suite(Arc::new(S3::new(settings.clone())), Arc::new(S3::new(settings))).await;
}
