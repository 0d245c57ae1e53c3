//! HostLimits of several fetch workers together.

use std::time::Duration;

use facemill::demo::host::{HostResponse, ResponseStep, Route, Routes, WebHost};

use super::ended;
use super::installation::{self, Installation, Worker};
use support::servers::process;

/// Two processes that would each ask three at a time.
#[test]
fn two_workers_together_ask_a_host_no_more_than_one_may() {
    const PHOTOS: usize = 40;
    let heap = Heap::new(PHOTOS, &["photos.test"], Duration::from_millis(60));
    let more = ["--per-host", "3", "--concurrency", "8"];
    let mut workers = [heap.worker(&more), heap.worker(&more)];
    heap.all_fetched();
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0));
    }
    let traffic = heap.host.traffic();
    assert_eq!(traffic.all_hits(), PHOTOS, "each was fetched once");
    assert!((2..=3).contains(&traffic.peak), "{} at a time", traffic.peak);
    assert_eq!(ended(&heap.installation.json(&["status"])), 0);
}

/// Photos wait for their hosts in memory, and not in delay queues while their hosts wait for them.
#[test]
fn few_photos_are_sent_away_from_busy_hosts() {
    const PHOTOS: usize = 300;
    let heap = Heap::new(PHOTOS, &["one.test", "two.test"], Duration::from_millis(5));
    let ports: [u16; 2] = process::free_ports();
    let mut workers = ports.map(|port| heap.worker(&["--listen", &format!("127.0.0.1:{port}")]));
    heap.all_fetched();
    let sent_away: usize = ports.into_iter().map(times_busy).sum();
    // Those that find the lines full, and the few of them that find them full again.
    assert!(sent_away <= PHOTOS, "{sent_away} times");
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0));
    }
}

/// How often the worker sent a photo away as its host was busy.
fn times_busy(port: u16) -> usize {
    let (_, metrics) = installation::get(port, "/metrics").unwrap();
    let counts = metrics.lines().filter(|line| {
        line.starts_with("facemill_photos_total{") && line.contains("\"host-busy\"") && line.contains("\"retried\"")
    });
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum()
}

/// Photos that were enqueued, and the host that serves them under some names.
struct Heap {
    installation: Installation,
    host: WebHost,
    photos: usize,
    resolve: Vec<String>,
    _runtime: tokio::runtime::Runtime,
}

impl Heap {
    fn new(photos: usize, names: &[&str], visit: Duration) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // Looks like a photo; a while passes before it is there.
        let picture = [&[0xff, 0xd8, 0xff, 0xe0][..], &[7; 2000]].concat();
        let slow = HostResponse::photo(picture).after(ResponseStep::Pause(visit));
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
