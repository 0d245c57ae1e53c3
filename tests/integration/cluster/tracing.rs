//! The traces of photos that pass, are retried, are rejected, or whose worker is killed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::ended;
use super::installation::{Installation, Worker};
use support::collector::{Collector, ReceivedSpan, value};
use support::servers::process::wait_for;

/// A host of photos. `/late` fails once. `/stuck` reports its first request and does not respond to it.
struct PhotoHost {
    address: SocketAddr,
    stuck: Receiver<()>,
}

impl PhotoHost {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, stuck) = channel();
        std::thread::spawn(move || {
            let hits: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
            for stream in listener.incoming().map_while(Result::ok) {
                let (hits, sender) = (hits.clone(), sender.clone());
                std::thread::spawn(move || Self::respond(stream, &hits, &sender));
            }
        });
        Self { address, stuck }
    }

    fn respond(mut stream: TcpStream, hits: &Mutex<BTreeMap<String, u32>>, stuck: &Sender<()>) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let hit = {
            let mut hits = hits.lock().unwrap();
            let hit = hits.entry(path.clone()).or_default();
            *hit += 1;
            *hit
        };
        let photo = |name: &str| {
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/photos").join(name))
                .expect("a photograph: run `make setup`")
        };
        let (status, body) = match (path.as_str(), hit) {
            ("/stuck", 1) => {
                stuck.send(()).unwrap();
                // Until the client disconnects.
                let _ = stream.read(&mut byte);
                return;
            }
            ("/late", 1) => ("503 Service Unavailable", Vec::new()),
            ("/faceless", _) => ("200 OK", photo("coffee.png")),
            _ => ("200 OK", photo("obama.jpg")),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }
}

/// The ids and paths of the photos.
const PHOTOS: [(&str, &str); 4] = [("1", "passes"), ("2", "late"), ("3", "faceless"), ("4", "stuck")];

fn table(folder: &Path) -> std::path::PathBuf {
    let mut text = String::from("face_id,photo_id,source_url,photo_url,posted_at,label_id,label_name\n");
    for (id, name) in PHOTOS {
        writeln!(text, "{id},{id},,http://photos.test/{name}?key=secret,,7,Ada").unwrap();
    }
    let file = folder.join("photos.csv");
    std::fs::write(&file, text).unwrap();
    file
}

impl Installation {
    /// A command with tracing.
    fn traced(&self, arguments: &[&str], collector: &Collector, protocol: &str) -> std::process::Command {
        let endpoint = if protocol == "grpc" { collector.grpc } else { collector.http };
        let mut command = self.command(arguments);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{endpoint}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=faces")
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// The spans of the trace of a photo.
struct Trace(Vec<ReceivedSpan>);

impl Trace {
    fn of(collector: &Collector, trace_id: &str) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut spans: Vec<ReceivedSpan> =
            collector.spans().into_iter().filter(|received| hex(&received.span.trace_id) == trace_id).collect();
        spans.sort_by_key(|received| received.span.start_time_unix_nano);
        Self(spans)
    }

    /// The trace as a tree, one line per span: name, kind, the given attributes, and a mark for an error.
    fn tree(&self, attributes: &[&str]) -> String {
        let mut text = String::new();
        self.branch(&[], 0, attributes, &mut text);
        text
    }

    fn branch(&self, parent: &[u8], depth: usize, attributes: &[&str], text: &mut String) {
        for received in self.0.iter().filter(|received| received.span.parent_span_id == parent) {
            write!(text, "{:1$}{2}", "", 2 * depth, received.span.name).unwrap();
            if received.kind() != "internal" {
                write!(text, " ({})", received.kind()).unwrap();
            }
            for name in attributes {
                if let Some(value) = received.attribute(name) {
                    write!(text, " {}={value}", name.rsplit('.').next().unwrap()).unwrap();
                }
            }
            text.push_str(if received.is_error() { " !\n" } else { "\n" });
            self.branch(&received.span.span_id, depth + 1, attributes, text);
        }
    }

    fn named(&self, name: &str) -> Vec<&ReceivedSpan> {
        self.0.iter().filter(|received| received.span.name == name).collect()
    }
}

#[test]
fn a_trace_has_all_spans_of_a_photo() {
    let scratch = tempfile::tempdir().unwrap();
    let (collector, host, installation) = (Collector::start(), PhotoHost::start(), Installation::new());
    let prefix = installation.environment.iter().find(|(name, _)| *name == "FACEMILL_PREFIX").unwrap().1.clone();
    let dump = table(scratch.path());
    let produced = installation.traced(&["produce", dump.to_str().unwrap()], &collector, "grpc").status().unwrap();
    assert!(produced.success());

    let resolve = format!("photos.test={}", host.address);
    let arguments = ["work", "fetch", "detect", "crop", "classify", "--resolve", &resolve];
    let arguments = [
        &arguments[..],
        &["--waits", "0.05,0.1", "--timeout", "1000"],
        &["--concurrency", "fetch=8,detect=1,crop=1,classify=1"],
    ]
    .concat();
    let mut first = Worker(installation.traced(&arguments, &collector, "grpc").spawn().unwrap());
    installation.until("three ended photos", |status| ended(status) == 3);
    host.stuck.recv().unwrap();
    let trace_ids: BTreeMap<&str, String> = PHOTOS
        .iter()
        .map(|(id, name)| (*name, installation.json(&["why", id])["trace_id"].as_str().unwrap().to_owned()))
        .collect();
    let trace = |name: &str| Trace::of(&collector, &trace_ids[name]);
    let (detect, classify) = (format!("process {prefix}.detect"), format!("process {prefix}.classify"));
    wait_for("the last spans of the ended photos", || {
        let last = [("passes", &classify), ("late", &classify), ("faceless", &detect)];
        last.iter().all(|(name, span)| !trace(name).named(span).is_empty()).then_some(())
    });
    first.kill();
    let mut second = Worker(installation.traced(&arguments, &collector, "http/protobuf").spawn().unwrap());
    installation.until("four ended photos", |status| ended(status) == 4);
    assert_eq!(second.terminate(), Some(0), "the worker ends in order");

    let shown = ["facemill.attempt", "facemill.redelivered", "facemill.outcome", "facemill.cause"];
    let tree = |name: &str| without_rereads(&trace(name).tree(&shown).replace(&prefix, "Q"));
    assert_eq!(tree("passes"), format!("photo\n{}", fetched("1 redelivered=false", 1) + &the_rest(2)));
    assert_eq!(
        tree("stuck"),
        format!("photo\n{}", fetched("1 redelivered=true", 1) + &the_rest(2)),
        "by another worker"
    );
    let retried = "photo
  send Q.fetch (producer) attempt=1
    process Q.fetch (consumer) attempt=1 redelivered=false outcome=retried cause=http-503 !
      ledger.begin (client)
      wait for host
      GET (client) !
        connect
          dns
      ledger.advance (client)
";
    assert_eq!(tree("late"), retried.to_owned() + &fetched("2 redelivered=false", 3) + &the_rest(4));
    let rejected = "      send Q.detect (producer) attempt=1
        process Q.detect (consumer) attempt=1 redelivered=false outcome=rejected cause=no-face
          ledger.begin (client)
          object get
          decode
          search
          ledger.advance (client)
          object put
          ledger.recorded (client)
";
    assert_eq!(tree("faceless"), format!("photo\n{}{rejected}", fetched("1 redelivered=false", 1)));
    assert_attributes(&trace("passes"), &trace("late"), &prefix, &host);
    assert_links(&collector, &trace("passes"));
    let story = installation.json(&["why", "1", "--jaeger", "http://jaeger:16686/"]);
    assert_eq!(story["trace_url"], format!("http://jaeger:16686/trace/{}", trace_ids["passes"]));

    let again = ["retry", "--where", "cause=no-face"];
    assert!(installation.traced(&again, &collector, "grpc").status().unwrap().success());
    let faceless = trace("faceless");
    let root = &faceless.named("photo")[0].span.span_id;
    let sent = faceless.named(&format!("send {prefix}.detect"));
    let [_, requeued] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(&requeued.span.parent_span_id, root, "a requeued photo keeps its trace");
    assert_eq!(requeued.attribute("facemill.delivery").as_deref(), Some("2"));

    let spans = collector.spans();
    let of = |protocol: &str| spans.iter().filter(|received| received.protocol == protocol).count();
    assert!(of("grpc") > 0 && of("http/protobuf") > 0);
    assert!(spans.iter().all(|received| received.header.as_deref() == Some("faces")), "the headers of the environment");
    let text = format!("{spans:?}");
    assert!(!text.contains("key=secret"), "the query of a URL may be secret");
    let metrics = collector.metrics();
    for (name, unit) in [
        ("facemill.photos", "{photo}"),
        ("facemill.stage.duration", "s"),
        ("facemill.object.io", "By"),
        ("facemill.inference.batch.size", "{crop}"),
        ("messaging.process.duration", "s"),
        ("messaging.client.sent.messages", "{message}"),
    ] {
        assert_eq!(metrics.get(name).map(String::as_str), Some(unit), "{name} in {metrics:?}");
    }
}

/// The lines of a successful fetch.
fn fetched(attempt: &str, depth: usize) -> String {
    let sent = attempt.split(' ').next().unwrap();
    indented(
        depth,
        &format!(
            "send Q.fetch (producer) attempt={sent}
  process Q.fetch (consumer) attempt={attempt} outcome=advanced
    ledger.begin (client)
    wait for host
    GET (client)
      connect
        dns
      download
    object put
    ledger.advance (client)
"
        ),
    )
}

/// The lines of a fetched photo that passes. `depth`: that of the span of fetch.
fn the_rest(depth: usize) -> String {
    let process = |stage: &str| format!("process Q.{stage} (consumer) attempt=1 redelivered=false outcome=advanced");
    let detect = format!(
        "  send Q.detect (producer) attempt=1
    {}
      ledger.begin (client)
      object get
      decode
      search
        landmarks
      ledger.advance (client)
",
        process("detect")
    );
    let crop = format!(
        "      send Q.crop (producer) attempt=1
        {}
          ledger.begin (client)
          resample
          check
          encode
          object put
          ledger.advance (client)
",
        process("crop")
    );
    let classify = format!(
        "          send Q.classify (producer) attempt=1
            {}
              ledger.begin (client)
              inference
              object put
              ledger.advance (client)
              object put
              ledger.recorded (client)
",
        process("classify").replace("advanced", "predicted")
    );
    indented(depth, &(detect + &crop + &classify))
}

/// Removes the lines that differ between photos: they share a crop. Crop leaves it for the first one, and the others may
/// have to read it; only the first one stores the prediction, and the others read that.
fn without_rereads(tree: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in tree.lines() {
        if line.trim() == "inference"
            && lines.ends_with(&[&line.replace("inference", "object get"), &line.replace("inference", "decode")])
        {
            lines.truncate(lines.len() - 2);
        }
        let rereads = line.trim() == "object get" && lines.last().is_some_and(|last| last.trim() == "object put");
        if !rereads {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

fn indented(depth: usize, lines: &str) -> String {
    lines.lines().map(|line| format!("{:1$}{line}\n", "", 2 * depth)).collect()
}

/// Checks the attributes of the OpenTelemetry conventions and those of facemill.
fn assert_attributes(passed: &Trace, late: &Trace, prefix: &str, host: &PhotoHost) {
    let only = |trace: &Trace, name: &str| trace.named(name)[0].clone();
    let root = only(passed, "photo");
    assert_eq!(root.service, "facemill-producer");
    assert_eq!(root.attribute("url.full").unwrap(), "http://photos.test/passes");
    let process = only(passed, &format!("process {prefix}.fetch"));
    assert_eq!(process.service, "facemill-worker");
    for (name, expected) in [
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", &format!("{prefix}.fetch")),
        ("facemill.stage", "fetch"),
        ("facemill.photo_id", "1"),
        ("facemill.label", "Ada"),
        ("facemill.delivery", "1"),
        ("facemill.format", "jpg"),
    ] {
        assert_eq!(process.attribute(name).as_deref(), Some(expected), "{name}: {process:?}");
    }
    let id = process.attribute("messaging.message.id").unwrap();
    assert!(id.ends_with("/1/fetch/1"), "{id}");
    assert_eq!(only(passed, &format!("send {prefix}.fetch")).attribute("messaging.message.id"), Some(id));
    assert!(process.attribute("facemill.bytes").unwrap().parse::<u64>().unwrap() > 10_000);

    let get = only(passed, "GET");
    for (name, expected) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", "photos.test"),
        ("server.port", "80"),
        ("url.full", "http://photos.test/passes"),
        ("network.protocol.version", "1.1"),
        ("network.peer.port", &host.address.port().to_string()),
    ] {
        assert_eq!(get.attribute(name).as_deref(), Some(expected), "{name}: {get:?}");
    }
    let put = only(passed, "object put");
    for (name, expected) in [("rpc.system", "aws-api"), ("rpc.service", "S3"), ("rpc.method", "PutObject")] {
        assert_eq!(put.attribute(name).as_deref(), Some(expected), "{name}: {put:?}");
    }
    assert_eq!(only(passed, "ledger.begin").attribute("db.system.name").as_deref(), Some("redis"));
    let angle = only(passed, &format!("process {prefix}.detect")).attribute("facemill.angle").unwrap();
    assert!(angle.parse::<f64>().unwrap().abs() < 45.0, "{angle}");
    let classified = only(passed, &format!("process {prefix}.classify"));
    assert!(classified.attribute("facemill.model").unwrap().starts_with("facemill-okng"), "{classified:?}");

    let failed = only(late, &format!("process {prefix}.fetch"));
    assert_eq!(failed.attribute("error.type").as_deref(), Some("http-503"));
    let exception = failed.span.events.iter().find(|event| event.name == "exception").unwrap();
    assert_eq!(value(&exception.attributes, "exception.type").as_deref(), Some("http-503"));
    assert!(value(&exception.attributes, "exception.message").unwrap().contains("503"));
    assert_eq!(only(late, "GET").attribute("http.response.status_code").as_deref(), Some("503"));
}

/// Checks the batch of crops: it has its own trace, and its span and those of the photos are linked.
fn assert_links(collector: &Collector, passed: &Trace) {
    let inference = passed.named("inference")[0];
    let [link] = &inference.span.links[..] else { panic!("{inference:?}") };
    let spans = collector.spans();
    let batch = spans.iter().find(|received| received.span.span_id == link.span_id).expect("the batch");
    assert_eq!(batch.span.name, "inference batch");
    assert!(batch.span.parent_span_id.is_empty() && batch.span.trace_id != inference.span.trace_id);
    assert!(batch.span.links.iter().any(|link| link.span_id == inference.span.span_id), "{batch:?}");
    let size: usize = batch.attribute("facemill.batch.size").unwrap().parse().unwrap();
    assert_eq!(size, batch.span.links.len());
}

#[test]
fn failed_deliveries_are_kept_at_any_sampling_ratio() {
    let scratch = tempfile::tempdir().unwrap();
    let (collector, host, installation) = (Collector::start(), PhotoHost::start(), Installation::new());
    let prefix = installation.environment.iter().find(|(name, _)| *name == "FACEMILL_PREFIX").unwrap().1.clone();
    let dump = table(scratch.path());
    let sampled = |arguments: &[&str]| {
        let mut command = installation.traced(arguments, &collector, "grpc");
        command.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").env("OTEL_TRACES_SAMPLER_ARG", "0");
        command
    };
    assert!(sampled(&["produce", dump.to_str().unwrap(), "--limit", "2"]).status().unwrap().success());
    let resolve = format!("photos.test={}", host.address);
    let arguments = ["work", "fetch", "--resolve", &resolve, "--waits", "0.05"];
    let mut worker = Worker(sampled(&arguments).spawn().unwrap());
    installation.until("two photos fetched", |status| status["stages"]["detect"]["ready"] == 2);
    assert_eq!(worker.terminate(), Some(0));

    let kept = collector.spans();
    let late = Trace(kept.clone()).named(&format!("process {prefix}.fetch")).into_iter().cloned().collect::<Vec<_>>();
    let [failed] = &late[..] else { panic!("{kept:?}") };
    assert_eq!(failed.attribute("facemill.keep").as_deref(), Some("true"));
    assert_eq!(failed.attribute("facemill.photo_id").as_deref(), Some("2"));
    let names: Vec<&str> = kept.iter().map(|received| received.span.name.as_str()).collect();
    assert!(names.contains(&"GET") && names.contains(&"connect"), "all spans of the delivery: {names:?}");
    assert!(
        kept.iter().all(|received| received.span.trace_id == failed.span.trace_id),
        "only the failed photo: {names:?}"
    );
}

#[test]
fn the_certificate_of_a_collector_is_verified() {
    let scratch = tempfile::tempdir().unwrap();
    let (collector, authority) = Collector::start_encrypted();
    let installation = Installation::new();
    let file = scratch.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let dump = table(scratch.path());
    for (protocol, address) in [("grpc", collector.grpc), ("http/protobuf", collector.http)] {
        let produce = |run: &str, authority: Option<&Path>| {
            let arguments = ["produce", dump.to_str().unwrap(), "--run", &format!("{run}-{}", address.port())];
            let mut command = installation.traced(&arguments, &collector, protocol);
            command
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{}", address.port()))
                .env("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
                .envs(authority.map(|file| ("OTEL_EXPORTER_OTLP_CERTIFICATE", file)));
            assert!(command.status().unwrap().success());
        };
        let arrived = || collector.spans().iter().filter(|received| received.protocol == protocol).count();
        produce("untrusted", None);
        assert_eq!(arrived(), 0, "an unknown certificate is refused");
        produce("trusted", Some(&file));
        assert_eq!(arrived(), 2 * PHOTOS.len(), "a root and a message for each photo, over {protocol}");
    }
}

/// Photos are processed without a collector, and the lost spans are reported at the end.
#[test]
fn an_unavailable_collector_costs_only_the_spans() {
    let scratch = tempfile::tempdir().unwrap();
    let (host, installation) = (PhotoHost::start(), Installation::new());
    let dump = table(scratch.path());
    let resolve = format!("photos.test={}", host.address);
    for (protocol, photos) in [("grpc", 1), ("http/protobuf", 2)] {
        let limit = photos.to_string();
        assert!(installation.facemill(&["produce", dump.to_str().unwrap(), "--limit", &limit]).status.success());
        let mut worker = installation.command(&["work", "fetch", "--resolve", &resolve, "--waits", "0.05"]);
        worker
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
            .env("OTEL_METRICS_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut worker = Worker(worker.spawn().unwrap());
        installation.until("two photos fetched", |status| status["stages"]["detect"]["ready"] == photos);
        let mut stderr = worker.0.stderr.take().unwrap();
        assert_eq!(worker.terminate(), Some(0));
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.contains("spans did not reach the collector")).expect(&text);
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["refused"].as_u64().unwrap() >= 8, "{protocol}: {line}");
    }
}
