//! Logs, traces and metrics of a process.
//!
//! Traces and metrics go to a collector only if the standard `OTEL_*` variables name one. They are sent from separate
//! threads and a separate runtime: a slow or unavailable collector does not delay the photos, and memory is bounded by
//! a queue of fixed size.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

pub mod context;
pub mod instruments;
mod lines;
mod otlp;
pub mod process;
pub mod prometheus;
pub mod silence;
mod tail_sampler;

pub use lines::{ENV, LogContext, Sink};
pub use otlp::VARIABLES;
pub use tail_sampler::KEEP;

use instruments::Instruments;
use otlp::{Get, Signal};
use prometheus::PrometheusReader;
use tail_sampler::{BufferedSpan, CountingExporter, SpanQueue, TailSampler};

/// Scope of our spans and metrics; distinguishes them from those of libraries.
const SCOPE: &str = "facemill";

/// Settings of a process's telemetry.
pub struct TelemetrySettings<'a> {
    /// The log filter, unless [`ENV`] is set.
    pub log: &'a str,
    pub sink: Sink,
    /// The `service.name`, unless the environment sets one.
    pub service: String,
    /// Whether the process serves metrics for Prometheus.
    pub scraped: bool,
}

/// The running telemetry. Dropping it sends what is left, within a few seconds.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    meters: Option<SdkMeterProvider>,
    queue: Option<SpanQueue>,
    /// None: Prometheus metrics are not served.
    pub prometheus: Option<PrometheusReader>,
    /// Runs the connections; stopped last.
    _runtime: Option<Runtime>,
}

impl Telemetry {
    /// Time limit for sending the last spans.
    const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

    /// Starts logs, traces and metrics. Must be called once per process.
    ///
    /// # Errors
    /// A variable is invalid; the message names it.
    pub fn start(settings: TelemetrySettings<'_>) -> Result<Self, String> {
        let get: Get = &|name| std::env::var(name).ok();
        let runtime = match Signal::Traces.is_wanted(get) || Signal::Metrics.is_wanted(get) {
            true => Some(runtime()?),
            false => None,
        };
        let guard = runtime.as_ref().map(Runtime::enter);
        let resource = resource(settings.service);
        let (traces, queue) = match Signal::Traces.is_wanted(get) {
            true => traces(get, resource.clone()).map(|(traces, queue)| (Some(traces), Some(queue)))?,
            false => (None, None),
        };
        let prometheus = settings.scraped.then(PrometheusReader::default);
        let meters = meters(get, resource, prometheus.clone(), queue.as_ref())?;
        let lines = lines::layer::<Registry>(settings.log, settings.sink)?;
        let spans = traces.as_ref().map(|traces| {
            let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer(SCOPE));
            let layer =
                layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
            layer.with_level(false).with_filter(filter_fn(|metadata| {
                metadata.target().starts_with(SCOPE) && (metadata.is_span() || *metadata.level() <= Level::INFO)
            }))
        });
        tracing_subscriber::registry().with(lines).with(spans).init();
        drop(guard);
        Ok(Self { traces, meters, queue, prometheus, _runtime: runtime })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces {
            let _ = traces.shutdown_with_timeout(Self::SHUTDOWN_TIMEOUT);
        }
        if let Some(lost) = self.queue.as_ref().map(|queue| &queue.lost).filter(|lost| lost.total() > 0) {
            let (overflow, refused) = (lost.overflow(), lost.refused());
            tracing::warn!(overflow, refused, "{} spans did not reach the collector", lost.total());
        }
        if let Some(meters) = &self.meters {
            let _ = meters.shutdown_with_timeout(Self::SHUTDOWN_TIMEOUT);
        }
        if let Some(runtime) = self._runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the telemetry thread: {error}"))
}

/// The environment overrides our service name.
fn resource(service: String) -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut builder = Resource::builder().with_attribute(version);
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    if !named {
        builder = builder.with_service_name(service);
    }
    builder.build()
}

fn traces(get: Get, resource: Resource) -> Result<(SdkTracerProvider, SpanQueue), String> {
    let capacity = otlp::queue_size(get)?;
    let queue = SpanQueue::new(capacity);
    let exporter = CountingExporter { exporter: otlp::spans(get)?, queue: queue.clone() };
    let config = BatchConfigBuilder::default().with_max_queue_size(capacity).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_id_generator(context::TraceIds::default())
        .with_sampler(BufferedSpan(otlp::sampler(get)?))
        .with_span_processor(TailSampler::new(batches, queue.clone()))
        .build();
    Ok((provider, queue))
}

/// None: neither a collector nor Prometheus is configured.
fn meters(
    get: Get,
    resource: Resource,
    prometheus: Option<PrometheusReader>,
    queue: Option<&SpanQueue>,
) -> Result<Option<SdkMeterProvider>, String> {
    let wanted = Signal::Metrics.is_wanted(get);
    if !wanted && prometheus.is_none() {
        return Ok(None);
    }
    let service = resource.get(&Key::from_static_str("service.name")).map(|name| name.to_string());
    let mut builder = SdkMeterProvider::builder().with_resource(resource).with_view(instruments::view);
    if let Some(reader) = prometheus {
        builder = builder.with_reader(reader);
    }
    if wanted {
        builder = builder.with_reader(PeriodicReader::builder(otlp::metrics(get)?).build());
    }
    let provider = builder.build();
    let meter = provider.meter(SCOPE);
    if let Some(queue) = queue {
        Instruments::watch(&meter, queue.lost.clone());
    }
    process::watch(&meter, &service.unwrap_or_default());
    instruments::install(Instruments::new(&meter));
    Ok(Some(provider))
}
