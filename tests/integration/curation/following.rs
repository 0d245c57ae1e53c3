//! A server notices what others do.

use std::time::{Duration, Instant};

use axum::http::Method;
use facemill::archive::run_classifier::RunClassifiers;
use facemill::domain::PhotoKey;
use serde_json::{Value, json};
use support::collector::Collector;
use support::curation::{CuratedRun, CurationServer};
use support::servers::process::wait_for;

use super::client::{ApiClient, verdict};

/// Waits for an answer that fulfils the condition.
async fn until(api: &ApiClient, path: &str, condition: impl Fn(&Value) -> bool) {
    let began = Instant::now();
    loop {
        // Too many requests are an answer, too.
        let (status, answer) = api.send(Method::GET, path, None).await;
        if status == 200 && condition(&answer) {
            return;
        }
        assert!(began.elapsed() < support::PATIENCE, "{path}: {answer}");
        // The server gives no signal, so this polls. Without a pause the requests would take its CPU.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn news_arrive(run: &CuratedRun) {
    let server = run.serve(&[]);
    let api = ApiClient::of(&server);
    assert_eq!(api.counts().await["total"], 3);
    for id in 3..6 {
        run.classify(id).await;
        let name = id.to_string();
        until(&api, "/api/faces?sort=-updated&limit=1", |page| {
            page["total"] == id + 1 && page["faces"][0]["photo_id"] == name.as_str()
        })
        .await;
    }

    // Verdicts from a file, and a threshold that a command has set.
    let file = run.path().join("labels.csv");
    std::fs::write(&file, "photo_id,judgement,by\n1,ok,grace\n").unwrap();
    let mut import = run.command(&["verdicts", "import", file.to_str().unwrap()]);
    let index = run.path().join("import.sqlite");
    let imported = import.args(["--index", index.to_str().unwrap()]).output().unwrap();
    assert!(imported.status.success(), "{imported:?}");
    until(&api, "/api/counts", |counts| counts["statuses"]["ok"] == 1).await;
    let classifiers = RunClassifiers::new(run.objects.clone());
    let mut change = classifiers.read(&run.run).await.unwrap().changes.pop().unwrap();
    change.threshold = 0.0;
    classifiers.change(&run.run, change).await.unwrap();
    until(&api, "/api/counts", |counts| counts["threshold"] == json!(0.0)).await;
    assert_eq!(api.get("/api/session").await["threshold"], json!(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn news_arrive_in_a_folder() {
    news_arrive(&CuratedRun::in_folder(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_arrive_on_servers() {
    news_arrive(&CuratedRun::on_servers(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_ends_in_order_and_serves_probes_and_metrics() {
    let run = CuratedRun::in_folder(2).await;
    let [port] = support::servers::process::free_ports();
    let mut server = run.serve(&["--health-listen", &format!("127.0.0.1:{port}")]);
    let api = ApiClient::of(&server);
    let list = api.open_list("", "id", "single", "tab").await;
    let entries = api.entries(&list, "tab").await;
    api.judge(&[verdict("v1", &entries[0], "ok")]).await;
    let probes = ApiClient::at(&format!("http://127.0.0.1:{port}"));
    let probe = async |path: &str| probes.answer(Method::GET, path, &[], Vec::new()).await;
    assert_eq!(probe("/readyz").await.status, 200);
    let metrics = String::from_utf8(probe("/metrics").await.body.to_vec()).unwrap();
    for series in [
        "facemill_verdicts_total{facemill_judgement=\"ok\",facemill_result=\"stored\",facemill_view=\"single\"} 1",
        "facemill_verdict_duration_seconds_count{facemill_stored=\"true\"} 1",
        "http_route=\"/api/lists/{list}/entries\"",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usual_start_and_end_is_no_warning() {
    let run = CuratedRun::in_folder(2).await;
    let log = run.path().join("log");
    let [port] = support::servers::process::free_ports();
    let mut command = run.command(&["curate", "--health-listen", &format!("127.0.0.1:{port}")]);
    command.stderr(std::fs::File::create(&log).unwrap());
    assert_eq!(CurationServer::start(command).terminate(), Some(0));
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// The collector has a runtime of its own.
#[test]
fn a_verdict_is_a_span_in_the_trace_of_its_photo() {
    let collector = Collector::start();
    tokio::runtime::Runtime::new().unwrap().block_on(verdict_is_traced(&collector));
}

async fn verdict_is_traced(collector: &Collector) {
    let run = CuratedRun::in_folder(2).await;
    let mut command = run.command(&["curate"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.grpc));
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let mut server = CurationServer::start(command);
    let api = ApiClient::of(&server);
    let list = api.open_list("", "id", "single", "tab").await;
    let entries = api.entries(&list, "tab").await;
    api.judge(&[verdict("v1", &entries[1], "ng")]).await;
    assert_eq!(server.terminate(), Some(0));
    let span =
        wait_for("the span of the verdict", || collector.spans().into_iter().find(|span| span.span.name == "verdict"));
    let trace = PhotoKey { run: run.run.clone(), photo_id: 1.into() }.trace();
    assert_eq!((&span.span.trace_id[..], &span.span.parent_span_id[..]), (&trace.trace_id[..], &trace.root_span[..]));
    let attribute = |name| span.attribute(name).unwrap();
    assert_eq!((attribute("facemill.judgement"), attribute("facemill.result")), ("ng".into(), "stored".into()));
    assert_eq!((attribute("facemill.photo_id"), attribute("facemill.view")), ("1".into(), "single".into()));
}
