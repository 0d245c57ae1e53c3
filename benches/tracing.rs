//! What tracing everything costs a real run: `cargo bench --bench tracing -- [--pairs N] [--json]`.
//!
//! The demonstration's pictures are run with tracing off and on, in turn; what is compared is the CPU time of the whole
//! process, its own start and the sending of the spans included. The collector is a real receiver in this process.

#[path = "../tests/cluster/collector.rs"]
#[allow(dead_code)]
mod collector;

use std::path::Path;
use std::process::{Command, Stdio};

use collector::Collector;
use serde_json::json;

/// Seconds of CPU that ended children have used.
fn children() -> f64 {
    // SAFETY: all zeroes is a valid rusage, and getrusage writes one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), 0, "the times of children can be read");
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Seconds of CPU of one run into a folder of its own.
fn run(collector: Option<&Collector>) -> f64 {
    let scratch = tempfile::tempdir().expect("a folder for the run");
    let before = children();
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.args(["demo", "--attempts", "1", "--timeout", "2", "--json", "--out"]).arg(scratch.path().join("out"));
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdout(Stdio::null())
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    if let Some(collector) = collector {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.grpc));
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    }
    assert!(command.status().expect("facemill starts").success(), "the run failed");
    children() - before
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let pairs = arguments.iter().position(|argument| argument == "--pairs");
    let pairs: usize = pairs.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(7);
    let collector = Collector::start();
    let mut ratios = Vec::new();
    let (mut off, mut on) = (0.0, 0.0);
    for pair in 0..pairs.max(1) {
        // Whoever goes second finds warmer caches: they take turns.
        let (without, with) = if pair % 2 == 0 {
            let without = run(None);
            (without, run(Some(&collector)))
        } else {
            let with = run(Some(&collector));
            (run(None), with)
        };
        (off, on) = (off + without, on + with);
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let spans = collector.spans().len() / ratios.len();
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let numbers = json!({
        "pairs": ratios.len(), "spans_a_run": spans, "cpu_off_s": off / ratios.len() as f64,
        "cpu_on_s": on / ratios.len() as f64, "ratio_median": median, "ratio_least": least, "ratio_most": most,
    });
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{numbers}");
        return;
    }
    println!("CPU of a run, tracing on / off: median {median:.3} of {} pairs ({least:.3} to {most:.3})", ratios.len());
    println!("  off {:.2} s, on {:.2} s, {spans} spans", off / ratios.len() as f64, on / ratios.len() as f64);
}
