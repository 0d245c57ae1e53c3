//! The cost of a download: `cargo bench --bench fetch [-- --json]`, `FACEMILL_BENCH_PHOTOS=5000`,
//! `FACEMILL_BENCH_BYTES=200000`.
//!
//! The fetch stage downloads different photos from a web host on this machine, without limits of the host, and without
//! broker and ledger. Measures the CPU time of a photo, downloaded only, and stored in a folder too. The host is a process
//! of its own, so that its CPU time is not counted.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use facemill::demo::host::{HostResponse, ResponseStep, Route, Routes, WebHost};
use facemill::domain::{Candidate, Photo, RunName};
use facemill::net::{Fetcher, Rules};
use facemill::objects::folder::Folder;
use facemill::pipeline::fetch::Fetch;
use facemill::pipeline::stage::{Outcome, Stage};
use futures::{StreamExt, stream};
use serde::Serialize;
use support::servers::cpu;
use support::synthetic;

/// Set in the process of the host: the number and the size of its photos.
const HOST: &str = "FACEMILL_BENCH_HOST";
/// Downloads at the same time: as many as a fetch worker makes.
const AT_A_TIME: usize = 64;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    if let Ok(photos) = std::env::var(HOST) {
        let (count, bytes) = photos.split_once(' ').expect("two numbers");
        return runtime.block_on(serve(count.parse().expect("a number"), bytes.parse().expect("a number")));
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let count = number("FACEMILL_BENCH_PHOTOS").unwrap_or(1000);
    let bytes = number("FACEMILL_BENCH_BYTES").unwrap_or(200_000);
    let figures = measure(&runtime, count, bytes);
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
        return;
    }
    println!("{count} photos of {bytes} bytes, {AT_A_TIME} at a time");
    for Figures { what, ms, per_core, per_second } in figures {
        println!(
            "  {what:<24} {ms:.2} ms of CPU a photo: {per_core:.0} a second and core; {per_second:.0} a second here"
        );
    }
}

#[derive(Serialize)]
struct Figures {
    what: &'static str,
    /// Milliseconds of CPU time for a photo.
    ms: f64,
    /// Photos for each second of CPU time.
    per_core: f64,
    /// Photos for each second of wall time, beside the host.
    per_second: f64,
}

fn measure(runtime: &tokio::runtime::Runtime, count: usize, bytes: usize) -> [Figures; 2] {
    let host = HostProcess::start(count, bytes);
    let fetcher = || Fetcher::new(rules(host.address)).expect("rules that can be used");
    let scratch = tempfile::tempdir().expect("a folder");
    // The first downloads open the connections and make the threads.
    let warm = fetcher();
    runtime.block_on(each(AT_A_TIME, async |number| drop(warm.fetch(&url(number)).await.expect("a photo"))));

    let alone = fetcher();
    let download = timed("downloaded", count, || {
        runtime.block_on(each(count, async |number| drop(alone.fetch(&url(number)).await.expect("a photo"))));
    });
    let stage = Fetch::new(Arc::new(Folder::at(scratch.path())), fetcher());
    let store = timed("and stored in a folder", count, || {
        runtime.block_on(each(count, async |number| {
            let candidate = Candidate { photo_url: url(number), ..synthetic::candidate(number as u64) };
            let outcome = stage.run(&Photo::new(RunName::default(), candidate)).await;
            assert!(matches!(outcome, Outcome::Advance(_)), "{outcome:?}");
        }));
    });
    [download, store]
}

async fn each(count: usize, work: impl AsyncFn(usize)) {
    stream::iter(0..count).for_each_concurrent(AT_A_TIME, |number| work(number)).await;
}

fn timed(what: &'static str, count: usize, work: impl FnOnce()) -> Figures {
    let (began, before) = (Instant::now(), cpu::own_seconds());
    work();
    let (cpu, wall, count) = (cpu::own_seconds() - before, began.elapsed(), count as f64);
    Figures { what, ms: 1000.0 * cpu / count, per_core: count / cpu, per_second: count / wall.as_secs_f64() }
}

fn rules(address: SocketAddr) -> Rules {
    Rules {
        per_host: AT_A_TIME,
        spacing: Duration::ZERO,
        hosts: [("photos.test".to_owned(), address)].into(),
        allowed: [address].into(),
        ..Rules::default()
    }
}

fn url(number: usize) -> String {
    format!("http://photos.test/{number}.jpg")
}

/// The web host in a process of its own, which ends with this one.
struct HostProcess {
    child: Child,
    address: SocketAddr,
}

impl HostProcess {
    fn start(count: usize, bytes: usize) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.env(HOST, format!("{count} {bytes}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its address");
        Self { child, address: line.trim().parse().expect("an address") }
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Serves photos until the standard input is closed.
async fn serve(count: usize, bytes: usize) {
    let routes: Routes = (0..count)
        .map(|number| {
            let mut body = vec![0; bytes.max(16)];
            body[..4].copy_from_slice(&[0xff, 0xd8, 0xff, 0xe0]);
            body[8..16].copy_from_slice(&(number as u64).to_le_bytes());
            (format!("/{number}.jpg"), Route::new([HostResponse::kept_open(body).then(ResponseStep::KeepAlive)]))
        })
        .collect();
    let host = WebHost::start("127.0.0.1:0", routes).await.expect("a free port");
    println!("{}", host.address());
    let _ = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await;
}
