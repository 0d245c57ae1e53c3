//! What others see of a process at work: its log lines, the traces of its photos, its numbers.
//!
//! Traces and numbers go to a collector only where the standard `OTEL_*` variables name one. They travel on threads and a
//! runtime of their own: a collector that is slow or away costs the photos nothing, and no more memory than a queue of
//! fixed size.

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
mod tail_sampler;

pub use lines::{About, ENV, Sink};
pub use otlp::VARIABLES;
pub use tail_sampler::KEEP;

use instruments::Instruments;
use otlp::{Get, Signal};
use tail_sampler::{BufferedSpan, Counted, Gauge, TailSampler};

/// Name of everything that is ours, to tell it from what libraries say.
const SCOPE: &str = "facemill";

/// How a process wants to be observed.
pub struct Settings<'a> {
    /// What is logged, unless [`ENV`] says something else.
    pub log: &'a str,
    pub sink: Sink,
    /// Its `service.name`, unless the environment has another.
    pub service: String,
    /// Whether somebody will ask for its numbers.
    pub scraped: bool,
}

/// Holds what is on its way to the collector; dropping it sends the rest, within a few seconds.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    numbers: Option<SdkMeterProvider>,
    gauge: Option<Gauge>,
    /// None: nobody will ask.
    pub prometheus: Option<prometheus::Reader>,
    /// Carries the connections; ends last.
    _runtime: Option<Runtime>,
}

impl Telemetry {
    /// What the last spans may take to get away.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Begins to observe this process. Must be called once, by the command line.
    ///
    /// # Errors
    /// A variable cannot be understood; it is named.
    pub fn begin(settings: Settings<'_>) -> Result<Self, String> {
        let get: Get = &|name| std::env::var(name).ok();
        let runtime = match Signal::Traces.is_wanted(get) || Signal::Metrics.is_wanted(get) {
            true => Some(runtime()?),
            false => None,
        };
        let _inside = runtime.as_ref().map(Runtime::enter);
        let resource = resource(settings.service);
        let (traces, gauge) = match Signal::Traces.is_wanted(get) {
            true => traces(get, resource.clone()).map(|(traces, gauge)| (Some(traces), Some(gauge)))?,
            false => (None, None),
        };
        let prometheus = settings.scraped.then(prometheus::Reader::default);
        let numbers = numbers(get, resource, prometheus.clone(), gauge.as_ref())?;
        let lines = lines::layer::<Registry>(settings.log, settings.sink)?;
        let spans = traces.as_ref().map(|traces| {
            let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer(SCOPE));
            let layer =
                layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
            layer.with_level(false).with_filter(filter_fn(|about| {
                about.target().starts_with(SCOPE) && (about.is_span() || *about.level() <= Level::INFO)
            }))
        });
        tracing_subscriber::registry().with(lines).with(spans).init();
        drop(_inside);
        Ok(Self { traces, numbers, gauge, prometheus, _runtime: runtime })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces {
            let _ = traces.shutdown_with_timeout(Self::PATIENCE);
        }
        if let Some(lost) = self.gauge.as_ref().map(|gauge| &gauge.lost).filter(|lost| lost.all() > 0) {
            let (overflow, refused) = (lost.overflow(), lost.refused());
            tracing::warn!(overflow, refused, "{} spans did not reach the collector", lost.all());
        }
        if let Some(numbers) = &self.numbers {
            let _ = numbers.shutdown_with_timeout(Self::PATIENCE);
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
        .map_err(|error| format!("cannot start the thread that sends traces: {error}"))
}

/// The environment has the last word.
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

fn traces(get: Get, resource: Resource) -> Result<(SdkTracerProvider, Gauge), String> {
    let room = otlp::queue_size(get)?;
    let gauge = Gauge::new(room);
    let exporter = Counted { exporter: otlp::spans(get)?, gauge: gauge.clone() };
    let config = BatchConfigBuilder::default().with_max_queue_size(room).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_id_generator(context::Ids::default())
        .with_sampler(BufferedSpan(otlp::sampler(get)?))
        .with_span_processor(TailSampler::new(batches, gauge.clone()))
        .build();
    Ok((provider, gauge))
}

/// None: nobody wants to know.
fn numbers(
    get: Get,
    resource: Resource,
    prometheus: Option<prometheus::Reader>,
    gauge: Option<&Gauge>,
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
    if let Some(gauge) = gauge {
        Instruments::watch(&meter, gauge.lost.clone());
    }
    process::watch(&meter, &service.unwrap_or_default());
    instruments::install(Instruments::new(&meter));
    Ok(Some(provider))
}
