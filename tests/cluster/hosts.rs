//! Politeness of several fetch workers together.

use std::time::Duration;

use facemill::demo::host::{Act, Answer, Host, Route, Routes};

use super::ended;
use super::installation::{Installation, Worker};

/// Two processes that would each ask three at a time.
#[test]
fn two_workers_together_ask_a_host_no_more_than_one_may() {
    const PHOTOS: usize = 40;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Looks like a photo; a while passes before it is there.
    let picture = [&[0xff, 0xd8, 0xff, 0xe0][..], &[7; 2000]].concat();
    let slow = Answer::photo(picture).after(Act::Pause(Duration::from_millis(60)));
    let routes: Routes = (0..PHOTOS).map(|n| (format!("/{n}.jpg"), Route::from(slow.clone()))).collect();
    let host = runtime.block_on(Host::start("127.0.0.1:0", routes)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let table = scratch.path().join("table.csv");
    let rows = (0..PHOTOS).map(|n| format!("{n},{n},,http://photos.test/{n}.jpg,,1,\n"));
    let head = "face_id,photo_id,source_url,photo_url,posted_at,label_id,label_name\n".to_owned();
    std::fs::write(&table, rows.fold(head, |text, row| text + &row)).unwrap();

    let installation = Installation::new();
    assert_eq!(installation.json(&["produce", table.to_str().unwrap()])["new"], PHOTOS);
    let resolve = format!("photos.test={}", host.address());
    let arguments = ["work", "fetch", "--per-host", "3", "--concurrency", "8", "--resolve", &resolve];
    let start = || Worker(installation.command(&arguments).spawn().unwrap());
    let mut workers = [start(), start()];
    installation.until("all fetched", |status| status["stages"]["fetch"]["passed"] == PHOTOS);
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0));
    }
    let traffic = host.traffic();
    assert_eq!(traffic.all_hits(), PHOTOS, "each was fetched once");
    assert!((2..=3).contains(&traffic.peak), "{} at a time", traffic.peak);
    assert_eq!(ended(&installation.json(&["status"])), 0);
}
