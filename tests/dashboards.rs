//! Every query of the dashboard and of the alerts is PromQL, and asks for what the program really exports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use facemill::photo::StageName;
use facemill::telemetry::instruments::{Instruments, Io};
use facemill::telemetry::prometheus::Reader;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use promql_parser::parser::{self, Expr, VectorSelector};

/// The labels of every metric, by its name at Prometheus.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let reader = Reader::default();
    let provider = SdkMeterProvider::builder().with_reader(reader.clone()).build();
    let meter = provider.meter("facemill");
    let instruments = Instruments::new(&meter);
    Instruments::watch(&meter, std::sync::Arc::default());
    let moment = Duration::from_millis(1);
    instruments.photo(StageName::Fetch, "failed", "timeout", moment);
    instruments.fetch("photos.test", "advanced");
    instruments.host_pause("photos.test");
    instruments.host_wait(moment);
    instruments.dead_letter(Some(StageName::Fetch), "timeout");
    instruments.object(Io::Get, 1);
    instruments.batch(1);
    instruments.sent(StageName::Fetch, moment, None);
    instruments.taken(StageName::Fetch);
    instruments.put_down(StageName::Fetch, moment);
    instruments.queue(StageName::Fetch, "ready", 1);
    instruments.oldest(StageName::Fetch, 1);
    let mut exported: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in reader.text().lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let labels = rest.split(['{', ',']).filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()));
        exported.entry(name.to_owned()).or_default().extend(labels);
    }
    exported
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The queries of the dashboard, with what Grafana puts in place of its variables.
fn of_dashboard() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/facemill.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "1m")).collect()
}

/// The queries of the alerts: what follows `expr:`, folded over lines or not.
fn of_alerts() -> Vec<String> {
    let text = read("deploy/prometheus/alerts.yml");
    let mut queries = Vec::new();
    for part in text.split("        expr: ").skip(1) {
        let mut lines = part.lines();
        let first = lines.next().unwrap();
        let folded = lines.take_while(|line| line.starts_with("          ")).map(str::trim);
        queries.push(if first == ">-" { folded.collect::<Vec<_>>().join(" ") } else { first.to_owned() });
    }
    queries
}

/// Every selector of a query, and the labels that it is grouped by.
fn selectors<'a>(expr: &'a Expr, found: &mut Vec<&'a VectorSelector>, grouped: &mut Vec<&'a str>) {
    match expr {
        Expr::VectorSelector(selector) => found.push(selector),
        Expr::MatrixSelector(matrix) => found.push(&matrix.vs),
        Expr::Aggregate(aggregate) => {
            if let Some(parser::LabelModifier::Include(labels) | parser::LabelModifier::Exclude(labels)) =
                &aggregate.modifier
            {
                grouped.extend(labels.labels.iter().map(String::as_str));
            }
            selectors(&aggregate.expr, found, grouped);
        }
        Expr::Binary(binary) => {
            selectors(&binary.lhs, found, grouped);
            selectors(&binary.rhs, found, grouped);
        }
        Expr::Paren(paren) => selectors(&paren.expr, found, grouped),
        Expr::Unary(unary) => selectors(&unary.expr, found, grouped),
        Expr::Subquery(subquery) => selectors(&subquery.expr, found, grouped),
        Expr::Call(call) => call.args.args.iter().for_each(|argument| selectors(argument, found, grouped)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

/// What is wrong with a query.
fn fault(query: &str, exported: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let expr = match parser::parse(query) {
        Ok(expr) => expr,
        Err(error) => return Some(error),
    };
    let (mut found, mut grouped) = (Vec::new(), Vec::new());
    selectors(&expr, &mut found, &mut grouped);
    if found.is_empty() {
        return Some("it asks for nothing".into());
    }
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for selector in &found {
        let name = selector.name.as_deref().unwrap_or_default();
        let Some(labels) = exported.get(name) else { return Some(format!("there is no metric {name}")) };
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) {
                return Some(format!("{name} has no label {}", matcher.name));
            }
        }
        known.extend(labels.iter().map(String::as_str));
    }
    let unknown = grouped.iter().find(|label| !known.contains(**label));
    unknown.map(|label| format!("none of its metrics has a label {label}"))
}

#[test]
fn every_query_asks_for_what_there_is() {
    let exported = exported();
    let (dashboard, alerts) = (of_dashboard(), of_alerts());
    assert!(dashboard.len() >= 18 && alerts.len() == 6, "{} and {}", dashboard.len(), alerts.len());
    for query in dashboard.iter().chain(&alerts) {
        assert_eq!(fault(query, &exported), None, "{query}");
    }
}

#[test]
fn a_query_for_what_is_not_there_is_found_out() {
    let exported = exported();
    for bad in [
        "sum(rate(facemill_photos[5m]))",
        "sum(facemill_in_flight{stage=\"fetch\"})",
        "sum by (host) (facemill_in_flight)",
        "sum(rate(facemill_photos_total[5m])",
        "1 > 2",
    ] {
        assert!(fault(bad, &exported).is_some(), "{bad}");
    }
}

/// Whoever looks at the dashboard sees all that there is, and whoever reads the documentation finds it explained.
#[test]
fn every_metric_is_shown_and_explained() {
    let (shown, explained) =
        (of_dashboard().join(" "), read("docs/tracing.md").replace("`..._sent", "`messaging_client_sent"));
    for name in exported().keys().filter(|name| *name != "target_info") {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(shown.contains(stem), "{name} is on no panel");
        assert!(explained.contains(stem), "{name} is not in docs/tracing.md");
    }
}
