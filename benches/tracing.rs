//! The cost of tracing: `cargo bench --bench tracing -- [--pairs N] [--json]`.
//!
//! Runs the pictures of the demonstration alternately without and with tracing. Compares the CPU time of the whole
//! process, including its start and the sending of the spans. Host and collector are in this process.

use support::collection;
use support::collector;

use std::process::{Command, Stdio};

use collection::Collection;
use collector::Collector;
use serde_json::json;

/// CPU time of the child processes that have ended, in seconds.
fn children() -> f64 {
    // SAFETY: a zeroed rusage is valid, and getrusage writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), 0, "the CPU time of children can be read");
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// CPU time of one run in a new folder, in seconds.
fn run(collection: &Collection, collector: Option<&Collector>) -> f64 {
    let scratch = tempfile::tempdir().expect("a folder for the run");
    let out = scratch.path().join("out");
    let before = children();
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.args(collection.run_text(&out)).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    if let Some(collector) = collector {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.grpc));
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    }
    assert!(command.status().expect("facemill starts").success(), "the run failed");
    children() - before
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let pairs = arguments.iter().position(|argument| argument == "--pairs");
    let pairs: usize = pairs.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(9).max(1);
    let (collection, collector) = (Collection::of(usize::MAX), Collector::start());
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // The second run of a pair finds warmer caches, so the order alternates.
        if pair % 2 == 0 {
            off.push(run(&collection, None));
            on.push(run(&collection, Some(&collector)));
        } else {
            on.push(run(&collection, Some(&collector)));
            off.push(run(&collection, None));
        }
    }
    let (off_s, on_s) = (median(&mut off), median(&mut on));
    // Other load on the machine only adds CPU time, so the minimum is compared, too.
    let least = on[0] / off[0];
    let (photos, spans) = (collection.candidates().len(), collector.spans().len() / pairs);
    if arguments.iter().any(|argument| argument == "--json") {
        let numbers = json!({
            "pairs": pairs, "photos": photos, "spans_a_run": spans, "cpu_off_s": off_s, "cpu_on_s": on_s,
            "ratio_of_medians": on_s / off_s, "ratio_of_least": least,
        });
        println!("{numbers}");
        return;
    }
    println!("CPU of a run of {photos} photos, {pairs} pairs: off {off_s:.2} s, on {on_s:.2} s, {spans} spans");
    println!("  tracing on / off: {:.3} by the medians, {least:.3} by the least of each", on_s / off_s);
}
