//! Measurements in a real browser: the time from a key to the next painted picture, and memory over many pictures.

use std::time::Duration;

use serde_json::Value;
use support::curation::RunFolder;
use support::servers::chromium::Screen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Page, exported, turn};

/// Half of the round trip that is added.
const DELAY: Duration = Duration::from_millis(150);

/// Forwards connections to a port, with a delay in each direction. Returns its own port.
async fn slow(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            tokio::spawn(delayed(near_in, far_out));
            tokio::spawn(delayed(far_in, near_out));
        }
    });
    own
}

/// Copies bytes, each piece so long after it came. The throughput stays.
async fn delayed(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    tokio::spawn(async move {
        while let Some((at, piece)) = receiver.recv().await {
            // The delay is what this proxy is for: it stands for the way to a distant server.
            tokio::time::sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if sender.send((Instant::now() + DELAY, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

fn port_of(url: &str) -> u16 {
    url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap()
}

/// Durations of key events until the next paint, in milliseconds, in ascending order.
async fn durations(page: &Page) -> Vec<f64> {
    let entries = page.browser.run("return window.seen").await;
    let mut durations: Vec<f64> = entries.as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    durations.sort_by(f64::total_cmp);
    durations
}

const OBSERVE: &str = "window.seen = []; new PerformanceObserver((list) => { \
    for (const {name, duration} of list.getEntries()) if (name === 'keydown') window.seen.push(duration); \
}).observe({type: 'event', durationThreshold: 16, buffered: false})";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures the time from a key to the next painted picture: prints it"]
async fn time_from_key_to_painted_picture() {
    let _turn = turn().await;
    const PICTURES: usize = 200;
    let run = RunFolder::with_faces(0).await;
    for id in 0..PICTURES as u64 + 40 {
        // Every fourth has a crop of 1,024 pixels.
        run.classify(4 * id + 3).await;
    }
    let mut server = run.serve(&[]);
    let port = slow(port_of(&server.url)).await;
    let page = Page::open(&format!("http://127.0.0.1:{port}"), Screen::DESKTOP).await;
    page.go("/").await;
    page.photo_at(0).await;
    page.browser.run(OBSERVE).await;
    // A person needs a moment: two keys a second, then ten.
    for (name, pause, range) in [("2 a second", 500, 0..40), ("10 a second", 100, 40..PICTURES)] {
        page.browser.run("window.seen = []").await;
        let keys = range.len();
        let mut ticks = tokio::time::interval(Duration::from_millis(pause));
        for place in range {
            ticks.tick().await;
            page.photo_at(place).await;
            page.browser.press([['1', '3'][place % 2]]).await;
        }
        report(name, keys, &durations(&page).await);
    }
    server.kill();
    page.browser.run("window.seen = []").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for place in PICTURES..PICTURES + 10 {
        ticks.tick().await;
        page.photo_at(place).await;
        page.browser.press(['3']).await;
    }
    report("server down", 10, &durations(&page).await);
}

/// Events that are painted within 16 ms are not listed by the browser.
fn report(name: &str, keys: usize, slow: &[f64]) {
    let at = |share: f64| {
        let rank = (share * keys as f64).ceil() as usize;
        let fast = keys.saturating_sub(slow.len());
        if rank <= fast { 16.0 } else { slow[(rank - fast - 1).min(slow.len() - 1)] }
    };
    println!(
        "{name}: {keys} keys, key to paint p50 {} ms, p95 {} ms, p99 {} ms, most {} ms",
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures memory over 10,000 pictures: takes minutes and prints it"]
async fn memory_over_ten_thousand_pictures() {
    let _turn = turn().await;
    const PICTURES: usize = 10_000;
    let run = RunFolder::with_faces(0).await;
    for id in 0..PICTURES as u64 + 500 {
        run.classify(4 * id).await;
    }
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/").await;
    let mut first = 0.0;
    for place in 0..PICTURES {
        page.photo_at(place).await;
        page.browser.press([['1', '3'][place % 2]]).await;
        if place == 500 || (place + 1) % 1000 == 0 {
            page.browser.devtools("HeapProfiler.enable", serde_json::json!({})).await;
            page.browser.devtools("HeapProfiler.collectGarbage", serde_json::json!({})).await;
            let usage = page.browser.devtools("Runtime.getHeapUsage", serde_json::json!({})).await;
            let heap = usage["usedSize"].as_f64().unwrap() / 1e6;
            if place == 500 {
                first = heap;
            }
            println!("{} pictures: {heap:.2} MB of heap, {:+.2} MB", place + 1, heap - first);
        }
    }
    page.all_sent().await;
    assert_eq!(exported(run.path()).len(), PICTURES);
    page.close().await;
}
