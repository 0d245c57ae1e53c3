//! The limits of hosts for several fetch workers together.

use std::time::Duration;

use facemill::demo::host::{HostResponse, ResponseStep, Route, Routes, WebHost};

use super::ended;
use super::installation::{self, Installation, Worker};
use support::servers::process;

#[test]
fn two_workers_share_the_limit_of_a_host() {
    const PHOTOS: usize = 40;
    let enqueued = EnqueuedPhotos::new(PHOTOS, &["photos.test"], Duration::from_millis(60));
    let more = ["--per-host", "3", "--concurrency", "8"];
    let mut workers = [enqueued.worker(&more), enqueued.worker(&more)];
    enqueued.all_fetched();
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0));
    }
    let traffic = enqueued.host.traffic();
    assert_eq!(traffic.all_hits(), PHOTOS, "every photo is fetched once");
    assert!((2..=3).contains(&traffic.peak), "{} at a time", traffic.peak);
    assert_eq!(ended(&enqueued.installation.json(&["status"])), 0);
}

/// Photos queue for their hosts in memory, so few are deferred to the delay queues.
#[test]
fn few_photos_of_busy_hosts_are_deferred() {
    const PHOTOS: usize = 300;
    let enqueued = EnqueuedPhotos::new(PHOTOS, &["one.test", "two.test"], Duration::from_millis(5));
    let ports: [u16; 2] = process::free_ports();
    let mut workers = ports.map(|port| enqueued.worker(&["--listen", &format!("127.0.0.1:{port}")]));
    enqueued.all_fetched();
    let deferred: usize = ports.into_iter().map(times_deferred).sum();
    // Photos that find the queue full; few of them find it full again.
    assert!(deferred <= PHOTOS, "{deferred} times");
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0));
    }
}

/// How often the worker deferred a photo because its host was busy.
fn times_deferred(port: u16) -> usize {
    let (_, metrics) = installation::get(port, "/metrics").unwrap();
    let counts = metrics.lines().filter(|line| {
        line.starts_with("facemill_photos_total{") && line.contains("\"host-busy\"") && line.contains("\"retried\"")
    });
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum()
}

/// Enqueued photos, and the host that serves them under several names.
struct EnqueuedPhotos {
    installation: Installation,
    host: WebHost,
    photos: usize,
    resolve: Vec<String>,
    _runtime: tokio::runtime::Runtime,
}

impl EnqueuedPhotos {
    fn new(photos: usize, names: &[&str], delay: Duration) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // Bytes that look like a JPEG, sent after a delay.
        let picture = [&[0xff, 0xd8, 0xff, 0xe0][..], &[7; 2000]].concat();
        let slow = HostResponse::photo(picture).after(ResponseStep::Pause(delay));
        let routes: Routes = (0..photos).map(|n| (format!("/{n}.jpg"), Route::from(slow.clone()))).collect();
        let host = runtime.block_on(WebHost::start("127.0.0.1:0", routes)).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let table = scratch.path().join("table.csv");
        let rows = (0..photos).map(|n| format!("{n},{n},,http://{}/{n}.jpg,,1,\n", names[n % names.len()]));
        let head = "face_id,photo_id,source_url,photo_url,posted_at,label_id,label_name\n".to_owned();
        std::fs::write(&table, rows.fold(head, |text, row| text + &row)).unwrap();
        let installation = Installation::new();
        assert_eq!(installation.json(&["produce", table.to_str().unwrap()])["new"], photos);
        let resolve = names.iter().map(|name| format!("{name}={}", host.address())).collect();
        Self { installation, host, photos, resolve, _runtime: runtime }
    }

    fn worker(&self, more: &[&str]) -> Worker {
        let resolve = self.resolve.iter().flat_map(|entry| ["--resolve", entry]);
        let arguments: Vec<&str> = ["work", "fetch"].into_iter().chain(resolve).chain(more.iter().copied()).collect();
        Worker(self.installation.command(&arguments).spawn().unwrap())
    }

    fn all_fetched(&self) {
        self.installation.until("all fetched", |status| status["stages"]["fetch"]["passed"] == self.photos);
    }
}
