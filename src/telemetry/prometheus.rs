//! Metrics in Prometheus's text format, version 0.0.4, with OpenTelemetry's names converted.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>

use std::fmt::{self, Display, Write};
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Histogram, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};

/// The media type of [`PrometheusReader::text`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Reads the metrics on demand. Clones read the same metrics.
#[derive(Debug, Clone)]
pub struct PrometheusReader(Arc<ManualReader>);

impl Default for PrometheusReader {
    fn default() -> Self {
        Self(Arc::new(ManualReader::builder().build()))
    }
}

impl PrometheusReader {
    /// Returns the current values of all metrics.
    pub fn text(&self) -> String {
        let mut metrics = ResourceMetrics::default();
        match self.0.collect(&mut metrics) {
            Ok(()) => text(&metrics),
            Err(error) => format!("# cannot read the metrics: {error}\n"),
        }
    }
}

impl MetricReader for PrometheusReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

fn text(metrics: &ResourceMetrics) -> String {
    let mut text = String::new();
    let mut families: Vec<(String, &Metric)> =
        metrics.scope_metrics().flat_map(|scope| scope.metrics()).map(|metric| (name(metric), metric)).collect();
    families.sort_by(|a, b| a.0.cmp(&b.0));
    write_target(&mut text, metrics)
        .and_then(|()| families.iter().try_for_each(|(name, metric)| write_family(&mut text, name, metric)))
        .expect("writing to a String cannot fail");
    text
}

/// Writes `target_info`, the attributes of the resource.
fn write_target(text: &mut String, metrics: &ResourceMetrics) -> fmt::Result {
    let mut attributes: Vec<KeyValue> =
        metrics.resource().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    writeln!(text, "# HELP target_info Attributes of the process.\n# TYPE target_info gauge")?;
    writeln!(text, "target_info{} 1", labels(attributes.iter(), None))
}

/// The name in Prometheus: without dots, with its unit, and with `_total` if it only grows.
fn name(metric: &Metric) -> String {
    let mut name = sanitised(metric.name());
    let unit = match metric.unit() {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    name.push_str(unit);
    if kind(metric) == "counter" {
        name.push_str("_total");
    }
    name
}

fn kind(metric: &Metric) -> &'static str {
    fn of<T>(data: &MetricData<T>) -> &'static str {
        match data {
            MetricData::Sum(sum) if sum.is_monotonic() => "counter",
            MetricData::Histogram(_) => "histogram",
            _ => "gauge",
        }
    }
    match metric.data() {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    }
}

fn write_family(text: &mut String, name: &str, metric: &Metric) -> fmt::Result {
    writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", metric.description(), kind(metric))?;
    match metric.data() {
        AggregatedMetrics::F64(data) => write_data(text, name, data),
        AggregatedMetrics::U64(data) => write_data(text, name, data),
        AggregatedMetrics::I64(data) => write_data(text, name, data),
    }
}

fn write_data<T: Copy + Display>(text: &mut String, name: &str, data: &MetricData<T>) -> fmt::Result {
    let mut lines: Vec<(String, String)> = Vec::new();
    match data {
        MetricData::Gauge(gauge) => lines
            .extend(gauge.data_points().map(|point| (labels(point.attributes(), None), format!("{}", point.value())))),
        MetricData::Sum(sum) => lines
            .extend(sum.data_points().map(|point| (labels(point.attributes(), None), format!("{}", point.value())))),
        MetricData::Histogram(histogram) => return write_histogram(text, name, histogram),
        // Not used here.
        MetricData::ExponentialHistogram(_) => {}
    }
    lines.sort();
    lines.iter().try_for_each(|(labels, value)| writeln!(text, "{name}{labels} {value}"))
}

fn write_histogram<T: Copy + Display>(text: &mut String, name: &str, histogram: &Histogram<T>) -> fmt::Result {
    let mut points: Vec<_> = histogram.data_points().collect();
    points.sort_by_cached_key(|point| labels(point.attributes(), None));
    for point in points {
        let mut count = 0;
        let bounds = point.bounds().map(|bound| bound.to_string()).chain(["+Inf".to_owned()]);
        for (bound, in_bucket) in bounds.zip(point.bucket_counts()) {
            count += in_bucket;
            writeln!(text, "{name}_bucket{} {count}", labels(point.attributes(), Some(&bound)))?;
        }
        let labels = labels(point.attributes(), None);
        writeln!(text, "{name}_sum{labels} {}\n{name}_count{labels} {}", point.sum(), point.count())?;
    }
    Ok(())
}

/// Formats the labels as `{a="b"}`, sorted by name; empty without labels.
fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>, bound: Option<&str>) -> String {
    let mut pairs: Vec<String> = attributes
        .map(|attribute| format!("{}=\"{}\"", sanitised(attribute.key.as_str()), escaped(&attribute.value.as_str())))
        .collect();
    pairs.sort();
    pairs.extend(bound.map(|bound| format!("le=\"{bound}\"")));
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn sanitised(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::instruments::{Instruments, view};
    use super::*;
    use crate::domain::StageName;
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    fn instruments() -> (PrometheusReader, SdkMeterProvider, Instruments) {
        let reader = PrometheusReader::default();
        let resource = Resource::builder_empty().with_service_name("a \"service\"").build();
        let provider =
            SdkMeterProvider::builder().with_resource(resource).with_reader(reader.clone()).with_view(view).build();
        let instruments = Instruments::new(&provider.meter("facemill"));
        (reader, provider, instruments)
    }

    #[test]
    fn text_follows_prometheus_format() {
        let (reader, _provider, instruments) = instruments();
        instruments.register_stage(StageName::Fetch);
        let ms = Duration::from_millis;
        instruments.photo(StageName::Fetch, "advanced", "", ms(5));
        instruments.photo(StageName::Fetch, "advanced", "", ms(6));
        instruments.photo(StageName::Fetch, "gone", "http-404", ms(200_000));
        instruments.photo(StageName::Fetch, "failed", "a \"b\"\\\n", ms(0));
        instruments.delivery_started(StageName::Fetch);
        instruments.delivery_started(StageName::Fetch);
        instruments.delivery_finished(StageName::Fetch, ms(7));
        let text = reader.text();
        for lines in [
            "target_info{service_name=\"a \\\"service\\\"\"} 1\n",
            r#"# HELP facemill_in_flight Photos in work now.
# TYPE facemill_in_flight gauge
facemill_in_flight{facemill_stage="fetch"} 1
"#,
            r#"# TYPE facemill_photos_total counter
facemill_photos_total{facemill_cause="",facemill_outcome="advanced",facemill_stage="fetch"} 2
facemill_photos_total{facemill_cause="a \"b\"\\\n",facemill_outcome="failed",facemill_stage="fetch"} 1
facemill_photos_total{facemill_cause="http-404",facemill_outcome="gone",facemill_stage="fetch"} 1
"#,
            r#"facemill_stage_duration_seconds_bucket{facemill_outcome="gone",facemill_stage="fetch",le="120"} 0
facemill_stage_duration_seconds_bucket{facemill_outcome="gone",facemill_stage="fetch",le="+Inf"} 1
facemill_stage_duration_seconds_sum{facemill_outcome="gone",facemill_stage="fetch"} 200
facemill_stage_duration_seconds_count{facemill_outcome="gone",facemill_stage="fetch"} 1
"#,
            "facemill_stage_duration_seconds_bucket{facemill_outcome=\"advanced\",facemill_stage=\"fetch\",le=\"0.005\"} 1\n",
            "messaging_process_duration_seconds_count{facemill_stage=\"fetch\"} 1\n",
        ] {
            assert!(text.contains(lines), "{lines}\n---\n{text}");
        }
    }

    #[test]
    fn series_per_host_are_bounded() {
        let (reader, _provider, instruments) = instruments();
        for number in 0..1000 {
            for outcome in ["advanced", "retried", "gone", "rejected", "failed"] {
                instruments.fetch(&format!("{number}.test"), outcome);
            }
        }
        instruments.fetch("3.test", "advanced");
        let text = reader.text();
        assert!(text.matches("\nfacemill_fetches_total{").count() <= 1002, "{text}");
        assert!(text.contains("facemill_fetches_total{facemill_outcome=\"advanced\",server_address=\"3.test\"} 2\n"));
        assert!(text.contains("facemill_fetches_total{facemill_outcome=\"failed\",server_address=\"198.test\"} 1\n"));
        assert!(text.contains("facemill_fetches_total{otel_metric_overflow=\"true\"} "), "{text}");
    }
}
