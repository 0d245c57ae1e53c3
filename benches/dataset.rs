//! The index of faces at size: how long it takes to make, to open, to page and to count.
//!
//! `FACEMILL_BENCH_FACES=1000000 cargo bench --bench dataset`

use std::time::{Duration, Instant};

use facemill::dataset::face::{FIELDS, Number, Text};
use facemill::dataset::index::{Change, Index};
use facemill::dataset::query::Query;
use facemill::domain::{Ending, Message, Record, RunName};

use support::faces;

const THRESHOLD: f64 = 0.837;
const QUERIES: [&str; 10] = [
    "",
    "ok",
    "not ok and size>=512",
    "label=\"Person O'7\"",
    "label=\"Person O'7\" and p_ok>=0.9 and size>=1024",
    "p_ok>=0.45 and p_ok<0.55",
    "host in ('host1.example', 'host2.example') and not mirrored>0.1",
    "label contains 'o''1' or label is null",
    "id=123456",
    "p_ok>0.9999 and blur>899",
];
const ORDERS: [&str; 6] = ["id", "-updated", "published", "uncertainty", "-p_ok", "-size"];

fn main() {
    let faces: u64 = std::env::var("FACEMILL_BENCH_FACES").map_or(200_000, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("index.sqlite");
    let mut index = Index::open(&path, &RunName::default()).expect("an empty index");

    // Records are made beforehand, in parts: their making is not measured, their JSON is read as from a store.
    let mut making = Duration::ZERO;
    for first in (0..faces).step_by(10_000) {
        let json: Vec<Vec<u8>> = (first..(first + 10_000).min(faces)).map(record).collect();
        let began = Instant::now();
        let changes: Vec<Change> =
            json.iter().map(|json| Change::Ended(serde_json::from_slice(json).expect("a record"))).collect();
        index.apply(&changes, None).expect("the index takes them");
        making += began.elapsed();
    }
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    println!(
        "{faces} faces: made in {:.1} s from records in memory, {} bytes a face",
        making.as_secs_f64(),
        bytes / faces
    );
    drop(index);
    let began = Instant::now();
    let index = Index::open(&path, &RunName::default()).expect("the index");
    println!("opened in {:.2} s", began.elapsed().as_secs_f64());

    let (mut pages, mut counts) = (Vec::new(), Vec::new());
    for text in QUERIES {
        let query = Query::parse(text, FIELDS).unwrap_or_else(|error| panic!("{error}"));
        let mut of_query = Vec::new();
        for order in ORDERS {
            let order = order.parse().expect("a sort");
            let mut after = None;
            // The first pages, as a person turns them.
            for _ in 0..5 {
                let began = Instant::now();
                let page = index.page(&query, order, THRESHOLD, after.as_ref(), 60).expect("a page");
                of_query.push(began.elapsed());
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        let times: Vec<Duration> = (0..10)
            .map(|_| {
                let began = Instant::now();
                index.count(&query, THRESHOLD);
                began.elapsed()
            })
            .collect();
        println!(
            "{:>9} faces  page {:>6.1} ms  count {:>5.1} ms (longest)  {text}",
            index.count(&query, THRESHOLD),
            longest(&of_query),
            longest(&times)
        );
        pages.extend(of_query);
        counts.extend(times);
    }
    summary("pages of 60", &mut pages);
    summary("counts", &mut counts);
    let began = Instant::now();
    index.count_by(Text::Label, &Query::ALL, THRESHOLD);
    println!("counts by label {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    index.histogram(Number::POk, (0.0, 1.0), 50, &Query::ALL, THRESHOLD);
    println!("histogram {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
}

fn record(id: u64) -> Vec<u8> {
    let message = Message::first(faces::photo(id), 1_700_000_000);
    serde_json::to_vec(&Record { ending: Ending::Predicted, cause: None, message }).expect("JSON")
}

fn longest(times: &[Duration]) -> f64 {
    times.iter().max().map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn summary(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    println!("{what}: median {:.1} ms, p99 {:.1} ms, {} timed", at(0.5), at(0.99), times.len());
}
