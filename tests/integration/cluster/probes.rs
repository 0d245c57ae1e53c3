//! The probes and the metrics of a worker.

use std::net::TcpListener;
use std::process::Stdio;

use super::ended;
use super::installation::{Installation, get, send_request};
use support::collection::Collection;
use support::servers::process::{free_ports, wait_for};
use support::servers::redis::RedisServer;

/// The sum of the series of a metric that have all the labels.
fn number(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let of_it = |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label));
    metrics.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_worker_serves_probes_and_metrics() {
    let redis = RedisServer::start(&[]);
    let collection = Collection::serve();
    let installation = Installation::on(&redis);
    let candidates = collection.candidates().len() as u64;
    installation.json(&["produce", collection.dump.to_str().unwrap()]);
    let [port] = free_ports();
    let address = format!("127.0.0.1:{port}");
    let stages = ["fetch", "detect", "crop", "classify"];
    let mut worker = installation.worker_with(&stages, &collection, &["--listen", &address]);
    let ready = |status: u16| move || get(port, "/readyz").filter(|(found, _)| *found == status);
    wait_for("a ready worker", ready(200));
    assert_eq!(get(port, "/healthz").unwrap(), (200, "ok\n".into()));

    assert_eq!(get(port, "/secrets").unwrap().0, 404);
    assert_eq!(send_request(port, "POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap().0, 405);
    assert_eq!(send_request(port, "\u{1} not HTTP\r\n\r\n").unwrap().0, 400);
    let _ = send_request(port, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)));

    let status = installation.until("the end of all photos", |status| ended(status) == candidates);
    let (_, metrics) = get(port, "/metrics").unwrap();
    let predicted = number(&metrics, "facemill_photos_total", &["stage=\"classify\"", "outcome=\"predicted\""]);
    assert_eq!(predicted, status["ended"]["predicted"].as_u64().unwrap(), "{metrics}");
    let not_found =
        number(&metrics, "facemill_photos_total", &["stage=\"fetch\"", "outcome=\"gone\"", "cause=\"http-404\""]);
    assert!(not_found > 0, "{metrics}");
    // A retried photo is fetched several times.
    assert!(number(&metrics, "facemill_stage_duration_seconds_count", &["stage=\"fetch\""]) >= candidates, "{metrics}");
    wait_for("an idle worker", || {
        let (_, metrics) = get(port, "/metrics")?;
        stages
            .iter()
            .all(|stage| metrics.contains(&format!("facemill_in_flight{{facemill_stage=\"{stage}\"}} 0\n")))
            .then_some(())
    });

    let (_, metrics) = get(port, "/metrics").unwrap();
    for stage in stages {
        let of_stage = format!("facemill_stage=\"{stage}\"");
        for series in ["facemill_queue_messages{", "facemill_queue_oldest_seconds{"] {
            let exported = metrics.lines().any(|line| line.starts_with(series) && line.contains(&of_stage));
            assert!(exported, "{series} of {stage}: {metrics}");
        }
    }

    let letters = status["dead_letters"].as_u64().unwrap();
    let line = format!("\nfacemill_dead_letters_kept {letters}\n");
    wait_for("the dead letters", || get(port, "/metrics")?.1.contains(&line).then_some(()));
    let of_process = |series: &str| {
        let line = metrics.lines().find(|line| line.starts_with(series) && line.contains("service_name=\"facemill-"));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
    };
    assert!(of_process("process_cpu_time_seconds_total{cpu_mode=\"user\"").is_some_and(|s| s > 0.0), "{metrics}");
    assert!(of_process("process_memory_usage_bytes{").is_some_and(|bytes| bytes > 1e7), "{metrics}");

    let is_paused = |paused: u8| {
        let line = format!("facemill_stage_paused{{facemill_stage=\"detect\"}} {paused}\n");
        move || get(port, "/metrics")?.1.contains(&line).then_some(())
    };
    for (command, paused) in [("pause", 1), ("resume", 0)] {
        installation.json(&[command, "detect"]);
        wait_for(command, is_paused(paused));
    }

    redis.process.freeze();
    let (_, faults) = wait_for("an unready worker", ready(503));
    assert!(faults.starts_with("redis: ") && !faults.contains("s3"), "{faults}");
    assert_eq!(get(port, "/healthz").unwrap().0, 200, "a restart would not help");
    redis.process.thaw();
    wait_for("a ready worker", ready(200));
    assert_eq!(worker.terminate(), Some(0));
}

#[test]
fn a_port_in_use_is_reported() {
    let installation = Installation::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let worker = installation.command(&["work", "fetch", "--listen", &address]).stdout(Stdio::null()).output().unwrap();
    let error = String::from_utf8(worker.stderr).unwrap();
    assert_eq!(worker.status.code(), Some(3), "{error}");
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
}
