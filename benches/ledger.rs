//! The ledger in Redis at size: `FACEMILL_BENCH_PHOTOS=1000000 cargo bench --bench ledger`.
//!
//! Prints the memory of a finished photo and of its entry in the feed, the CPU time of a move in server and client, and
//! the time of counts, pages and reads of the feed. Starts a private server.

use support::servers::cpu;
use support::servers::redis as server;
use support::synthetic;

use std::time::{Duration, Instant};

use facemill::domain::{Ending, Id, RunName, StageName};
use facemill::ledger::redis::keys::Keys;
use facemill::ledger::{Cursor, Filter, Ledger};

use server::RedisServer;

fn main() {
    let photos = std::env::var("FACEMILL_BENCH_PHOTOS").ok().and_then(|count| count.parse().ok()).unwrap_or(50_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(measure(photos));
}

async fn measure(photos: u64) {
    let server = RedisServer::start(&["--appendonly", "no"]);
    let ledger = server.ledger();
    let run = RunName::default();
    ledger.check().await.expect("the server is up");
    let empty = figure(&server, "memory", "used_memory").await;

    let started = Instant::now();
    let (own, theirs) = (cpu::own_seconds(), server_cpu(&server).await);
    let moves = synthetic::live(&ledger, &run, 0..photos).await as f64;
    let (own, theirs) = (cpu::own_seconds() - own, server_cpu(&server).await - theirs);
    let each = (figure(&server, "memory", "used_memory").await - empty) / photos as f64;
    println!("{photos} photos, {moves} moves in {:.0} s", started.elapsed().as_secs_f64());
    let feed = Keys::of(ledger.client().prefix(), &run).endings();
    let in_feed = memory_usage(&server, &feed).await / photos as f64;
    println!("  {each:.0} bytes a finished photo, {in_feed:.1} of them in the feed of endings");
    println!(
        "  CPU a move, registration and farewell included: server {:.1} us, client {:.1} us",
        1e6 * theirs / moves,
        1e6 * own / moves
    );

    let middle = Id::from(1_000_000 + photos as i64 / 2);
    let plain = Filter::default;
    let host = Some(synthetic::candidate(7).host());
    let filters = [
        ("all", plain()),
        ("ending", Filter { ending: Some(Ending::Rejected), ..plain() }),
        ("stage", Filter { stage: Some(StageName::Detect), ..plain() }),
        ("cause", Filter { cause: Some("timeout".into()), ..plain() }),
        ("host", Filter { host: host.clone(), ..plain() }),
        ("cause and host", Filter { cause: Some("timeout".into()), host, ..plain() }),
        ("nothing waits", Filter { waiting: true, ..plain() }),
    ];
    for (name, filter) in filters {
        for limit in [100, 1000] {
            let time =
                worst(async || drop(ledger.page(&run, &filter, Some(&middle), limit).await.expect("a page"))).await;
            println!("  page of {limit:>4}, {name}: {time:.1?}");
        }
    }
    let first = ledger.endings(&run, None, 1).await.expect("the feed");
    let last = Cursor { sequence: photos - 1, ..first.cursor };
    for (name, after, limit) in [("from the start", None, 1000), ("one new entry", Some(&last), 1000)] {
        let time = worst(async || drop(ledger.endings(&run, after, limit).await.expect("the feed"))).await;
        println!("  endings, {name}: {time:.1?}");
    }
    let time = worst(async || drop(ledger.counts(&run).await.expect("counts"))).await;
    println!("  counts: {time:.1?}");

    let before = figure(&server, "memory", "used_memory").await;
    let waiting: Vec<_> = (photos..photos + 10_000).map(synthetic::candidate).collect();
    ledger.register(&run, &waiting, 5).await.expect("room");
    println!("  {:.0} bytes a waiting photo", (figure(&server, "memory", "used_memory").await - before) / 1e4);
}

/// Bytes.
async fn memory_usage(server: &RedisServer, key: &str) -> f64 {
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut command = redis::cmd("MEMORY");
    command.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
    command.query_async(&mut connection).await.expect("a size")
}

/// The longest of 20.
async fn worst(work: impl AsyncFn()) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let started = Instant::now();
        work().await;
        longest = longest.max(started.elapsed());
    }
    longest
}

async fn figure(server: &RedisServer, section: &str, name: &str) -> f64 {
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let info: String = redis::cmd("INFO").arg(section).query_async(&mut connection).await.expect("figures");
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the figure");
    line.trim().parse().expect("a number")
}

/// Seconds.
async fn server_cpu(server: &RedisServer) -> f64 {
    figure(server, "cpu", "used_cpu_user").await + figure(server, "cpu", "used_cpu_sys").await
}
