//! Evaluates the queries of the dashboard and of the alerts in Prometheus, on the series that the program exports.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use facemill::domain::StageName;
use facemill::ledger::EventKind;
use facemill::telemetry::instruments::{Instruments, Io};
use facemill::telemetry::process;
use facemill::telemetry::prometheus::PrometheusReader;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use serde_json::{Value, json};

/// The text of `/metrics` after every counted event has happened once.
fn exported() -> String {
    let reader = PrometheusReader::default();
    let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
    let meter = provider.meter("facemill");
    let instruments = Instruments::new(&meter);
    Instruments::watch(&meter, std::sync::Arc::default());
    process::watch(&meter, "facemill-detect");
    let instant = Duration::from_millis(1);
    for stage in StageName::ALL {
        for outcome in EventKind::ALL.map(EventKind::as_str) {
            let cause = if ["advanced", "predicted"].contains(&outcome) { "" } else { "timeout" };
            instruments.photo(stage, outcome, cause, instant);
            instruments.fetch("photos.test", outcome);
        }
        instruments.dead_letter(Some(stage), "timeout");
        instruments.sent(stage, instant, None);
        instruments.sent(stage, instant, Some("timeout"));
        instruments.delivery_started(stage);
        instruments.delivery_finished(stage, instant);
        for state in ["ready", "in_flight", "delayed"] {
            instruments.queue(stage, state, 1);
        }
        instruments.oldest(stage, 1);
        instruments.paused(stage, true);
    }
    instruments.dead_letters_kept(1);
    instruments.host_pause("photos.test");
    instruments.host_wait(instant);
    instruments.object(Io::Get, 1);
    instruments.object(Io::Put, 1);
    instruments.batch(1);
    for result in ["stored", "known", "conflict", "refused"] {
        instruments.verdict("single", "ok", result);
    }
    instruments.verdicts_stored(instant, true);
    instruments.verdicts_stored(instant, false);
    instruments.http_request("GET", "/api/counts".into(), 200, instant);
    for outcome in ["signed-in", "wrong", "limited", "unavailable"] {
        instruments.sign_in(outcome);
    }
    instruments.refused("sign-in");
    reader.text()
}

/// One series: its metric, and the values of its labels.
type Series = (String, BTreeMap<String, String>);

/// Parses `name{label="value",...}`. The values in these tests contain neither commas nor quotes.
fn series(text: &str) -> Series {
    let (name, labels) = text.split_once('{').unwrap_or((text, ""));
    let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    (name.to_owned(), pairs.map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned())).collect())
}

/// The series of an exposition, each with its value as text.
fn lines(exposition: &str) -> impl Iterator<Item = (&str, &str)> {
    exposition.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap())
}

/// The exposition as input of promtool: for two hours, counters grow by their value every 15 seconds, and gauges stay.
fn two_hours_of(exposition: &str) -> Vec<Value> {
    let gauges: BTreeSet<&str> =
        exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge")).collect();
    let values = |(series, value): (&str, &str)| {
        let name = series.split('{').next().unwrap();
        let values = if gauges.contains(name) { format!("{value}x480") } else { format!("0+{value}x480") };
        json!({ "series": series, "values": values })
    };
    lines(exposition).map(values).collect()
}

fn in_repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(in_repository(file)).unwrap()
}

/// Runs promtool. Returns its output if it fails.
fn promtool_error(arguments: &[&str], file: &Path) -> Option<String> {
    let output = match Command::new("promtool").args(arguments).arg(file).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("promtool is not installed: run `make setup-tests`")
        }
        output => output.unwrap(),
    };
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (!output.status.success()).then_some(text)
}

/// A query of the dashboard with its variables replaced, and the labels in its legend.
#[derive(Debug)]
struct Query {
    expr: String,
    legend: Vec<String>,
}

fn dashboard_queries() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/facemill.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let query = |target: &Value| {
        let legend = target["legendFormat"].as_str().unwrap();
        let labels = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().to_owned());
        let expr = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
        Query { expr, legend: labels.collect() }
    };
    targets.map(query).collect()
}

/// The labels that the selectors in a text compare with a value.
fn compared_labels(text: &str) -> BTreeSet<&str> {
    let label = |(at, _): (usize, &str)| {
        let before = text[..at].trim_end_matches(['=', '!', '~']);
        (before.len() < at).then(|| before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
    };
    text.match_indices('"').filter_map(label).collect()
}

/// Returns a fault of the queries: invalid PromQL, an empty result, a label that no metric has, or a result without any
/// series.
fn fault(queries: &[Query], exposition: &str) -> Option<String> {
    let known: BTreeSet<String> = lines(exposition).flat_map(|(text, _)| series(text).1.into_keys()).collect();
    for query in queries {
        // `!=` is also true if the label is missing.
        if let Some(label) = compared_labels(&query.expr).into_iter().find(|label| !known.contains(*label)) {
            return Some(format!("{query:?}: no metric has a label {label}"));
        }
    }
    let has_result = |expr: &str| {
        json!({
            "expr": format!("count({expr}) > bool 0"), "eval_time": "2h", "exp_samples": [{ "labels": "{}", "value": 1 }]
        })
    };
    let has_no_result = |query: &Query| json!({ "expr": query.expr, "eval_time": "2h", "exp_samples": [] });
    let expectations = queries.iter().flat_map(|query| {
        let labelled =
            query.legend.iter().map(|label| has_result(&format!("{} unless on ({label}) vector(1)", query.expr)));
        labelled.chain([has_result(&query.expr)]).collect::<Vec<_>>()
    });
    let tests = json!({ "tests": [
        { "interval": "15s", "input_series": two_hours_of(exposition), "promql_expr_test": expectations.collect::<Vec<_>>() },
        { "interval": "15s", "promql_expr_test": queries.iter().map(has_no_result).collect::<Vec<_>>() },
    ] });
    let folder = tempfile::tempdir().unwrap();
    // JSON is valid YAML.
    let file = folder.path().join("queries.yml");
    std::fs::write(&file, tests.to_string()).unwrap();
    promtool_error(&["test", "rules"], &file)
}

#[test]
fn every_panel_has_data() {
    let queries = dashboard_queries();
    assert!(queries.len() >= 19, "{}", queries.len());
    if let Some(fault) = fault(&queries, &exported()) {
        panic!("{fault}");
    }
}

#[test]
fn queries_without_data_are_found() {
    let exported = exported();
    let fault = |expr: &str, legend: &[&str]| {
        fault(&[Query { expr: expr.into(), legend: legend.iter().map(ToString::to_string).collect() }], &exported)
    };
    assert_eq!(fault("sum by (facemill_stage) (facemill_in_flight)", &["facemill_stage"]), None);
    for (bad, legend) in [
        ("sum(rate(facemill_photos[5m]))", &[][..]),
        ("sum(facemill_in_flight{stage=\"fetch\"})", &[]),
        ("sum(facemill_in_flight{stage!=\"fetch\"})", &[]),
        ("sum(rate(facemill_photos_total{facemill_outcome=\"perfect\"}[5m]))", &[]),
        ("sum by (host) (facemill_in_flight)", &["host"]),
        ("sum by (facemill_stage) (facemill_in_flight)", &["facemill_stage", "facemill_state"]),
        ("sum(rate(facemill_photos_total[5m])", &[]),
        ("1 > 2", &[]),
        ("vector(1)", &[]),
    ] {
        assert!(fault(bad, legend).is_some(), "{bad} {legend:?}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard_and_in_the_docs() {
    let shown: String = dashboard_queries().into_iter().map(|query| query.expr + " ").collect();
    let explained = read("docs/tracing.md").replace("`..._sent", "`messaging_client_sent");
    let names: BTreeSet<String> = lines(&exported()).map(|(text, _)| series(text).0).collect();
    for name in names.iter().filter(|name| *name != "target_info") {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(shown.contains(stem), "{name} is on no panel");
        assert!(explained.contains(stem), "{name} is not in docs/tracing.md");
    }
}

#[test]
fn alerts_fire_in_their_scenarios() {
    let rules = read("deploy/prometheus/alerts.yml");
    assert_eq!(
        promtool_error(&["check", "rules", "--lint-fatal"], &in_repository("deploy/prometheus/alerts.yml")),
        None
    );
    if let Some(error) = promtool_error(&["test", "rules"], &in_repository("tests/alerts.yml")) {
        panic!("{error}");
    }
    let scenarios = read("tests/alerts.yml");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(scenarios.contains(&format!("alertname: {alert}\n")), "{alert} fires in no scenario");
    }
}

#[test]
fn scenarios_use_series_that_the_program_exports() {
    let text = exported();
    let exported: Vec<Series> = lines(&text).map(|(text, _)| series(text)).collect();
    let (rules, scenarios) = (read("deploy/prometheus/alerts.yml"), read("tests/alerts.yml"));
    let used: BTreeSet<&str> =
        scenarios.split("{series: '").skip(1).map(|rest| rest.split('\'').next().unwrap()).collect();
    assert!(used.len() >= 30, "{}", used.len());
    for text in used {
        let (name, mut labels) = series(text);
        assert!(labels.remove("instance").is_some(), "{text}");
        // Series of RabbitMQ, and the series of OpenTelemetry for hosts beyond the limit.
        if name.starts_with("rabbitmq_") || labels.keys().eq(["otel_metric_overflow"]) {
            continue;
        }
        let any = |label: &str| ["facemill_cause", "server_address"].contains(&label);
        let is_like = |(theirs, values): &&Series| {
            *theirs == name
                && values.keys().eq(labels.keys())
                && values.iter().all(|(label, value)| any(label) || labels[label] == *value)
        };
        assert!(exported.iter().any(|series| is_like(&series)), "{text}");
    }
    let known: BTreeSet<&str> = exported.iter().flat_map(|(_, labels)| labels.keys().map(String::as_str)).collect();
    for label in compared_labels(&rules) {
        assert!(known.contains(label) || ["queue", "alertname", "alertstate"].contains(&label), "{label}");
    }
}

/// `facemill simulate --metrics` reads the same text.
#[test]
fn the_simulation_reads_the_metrics() {
    for stage in facemill::capacity::measured(&[exported()]).unwrap() {
        assert!((0.000_5..0.002).contains(&stage.seconds), "{stage:?}: each photo took a millisecond");
        assert!((0.0..1.0).contains(&stage.passed), "{stage:?}");
    }
}
