//! Exporters for traces and metrics, configured by the standard variables.
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::trace::Sampler;
use tokio::runtime::Handle;

use crate::tls;

/// Looks up a variable: in the environment, or in a test's map.
pub type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The standard variables that are read, without those of a single signal.
pub const VARIABLES: [&str; 17] = [
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_METRICS_EXPORTER",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];

/// A signal of OpenTelemetry, with variables of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Metrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    /// Returns the signal's own variable, or the common one, with its name.
    fn option(self, get: Get, what: &str) -> Option<(String, String)> {
        [format!("OTEL_EXPORTER_OTLP_{}_{what}", self.name()), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| get(&name).filter(|value| !value.is_empty()).map(|value| (name, value)))
    }

    /// Whether the signal is exported. An endpoint must be configured: unlike the standard, the program does not send
    /// to a local collector by default.
    pub fn is_wanted(self, get: Get) -> bool {
        let says = |name: &str, value: &str| get(name).is_some_and(|said| said.eq_ignore_ascii_case(value));
        self.option(get, "ENDPOINT").is_some()
            && !says("OTEL_SDK_DISABLED", "true")
            && !says(&format!("OTEL_{}_EXPORTER", self.name()), "none")
    }

    fn protocol(self, get: Get) -> Result<Protocol, String> {
        match self.option(get, "PROTOCOL") {
            None => Ok(Protocol::Http),
            Some((_, value)) if value == "http/protobuf" => Ok(Protocol::Http),
            Some((_, value)) if value == "grpc" => Ok(Protocol::Grpc),
            Some((name, value)) => Err(format!("{name}=`{value}`: expected grpc or http/protobuf")),
        }
    }

    fn timeout(self, get: Get) -> Result<Duration, String> {
        match self.option(get, "TIMEOUT") {
            None => Ok(Duration::from_secs(10)),
            Some((name, value)) => value
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| format!("{name}=`{value}`: expected a number of milliseconds")),
        }
    }

    /// The PEM of an additional certificate authority for the collector's certificate.
    fn authority(self, get: Get) -> Result<Option<Vec<u8>>, String> {
        let Some((name, path)) = self.option(get, "CERTIFICATE") else { return Ok(None) };
        std::fs::read(&path).map(Some).map_err(|error| format!("{name}=`{path}`: {error}"))
    }

    fn failed(self, error: impl std::fmt::Display) -> String {
        format!("cannot send {} to the collector: {error}", self.name().to_lowercase())
    }

    /// TLS for gRPC. Must be called inside the runtime that runs the connection.
    fn tls(self, get: Get) -> Result<ClientTlsConfig, String> {
        let config = ClientTlsConfig::new().with_native_roots();
        Ok(match self.authority(get)? {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config,
        })
    }

    fn http_client(self, get: Get) -> Result<OnRuntime, String> {
        let authority = self.authority(get)?;
        let tls = tls::client_config(authority.as_deref()).map_err(|error| self.failed(error))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(self.timeout(get)?)
            .build()
            .map_err(|error| self.failed(error))?;
        Ok(OnRuntime { client, runtime: Handle::current() })
    }

    fn is_encrypted(self, get: Get) -> bool {
        self.option(get, "ENDPOINT").is_some_and(|(_, endpoint)| endpoint.starts_with("https://"))
    }
}

/// Builds the exporter for spans. Must be called inside the runtime that sends them.
pub fn spans(get: Get) -> Result<SpanExporter, String> {
    let signal = Signal::Traces;
    let built = match signal.protocol(get)? {
        Protocol::Grpc if signal.is_encrypted(get) => {
            SpanExporter::builder().with_tonic().with_tls_config(signal.tls(get)?).build()
        }
        Protocol::Grpc => SpanExporter::builder().with_tonic().build(),
        Protocol::Http => SpanExporter::builder().with_http().with_http_client(signal.http_client(get)?).build(),
    };
    built.map_err(|error| signal.failed(error))
}

/// Builds the exporter for metrics. Must be called inside the runtime that sends them.
pub fn metrics(get: Get) -> Result<MetricExporter, String> {
    let signal = Signal::Metrics;
    let built = match signal.protocol(get)? {
        Protocol::Grpc if signal.is_encrypted(get) => {
            MetricExporter::builder().with_tonic().with_tls_config(signal.tls(get)?).build()
        }
        Protocol::Grpc => MetricExporter::builder().with_tonic().build(),
        Protocol::Http => MetricExporter::builder().with_http().with_http_client(signal.http_client(get)?).build(),
    };
    built.map_err(|error| signal.failed(error))
}

/// Builds the sampler from the variables. The default samples everything.
pub fn sampler(get: Get) -> Result<Sampler, String> {
    let ratio = || match get("OTEL_TRACES_SAMPLER_ARG").filter(|value| !value.is_empty()) {
        None => Ok(1.0),
        Some(value) => value
            .parse::<f64>()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG=`{value}`: expected a share from 0 to 1")),
    };
    let parent_based = |root: Sampler| Sampler::ParentBased(Box::new(root));
    match get("OTEL_TRACES_SAMPLER").as_deref() {
        None | Some("" | "parentbased_always_on") => Ok(parent_based(Sampler::AlwaysOn)),
        Some("always_on") => Ok(Sampler::AlwaysOn),
        Some("always_off") => Ok(Sampler::AlwaysOff),
        Some("traceidratio") => Ok(Sampler::TraceIdRatioBased(ratio()?)),
        Some("parentbased_always_off") => Ok(parent_based(Sampler::AlwaysOff)),
        Some("parentbased_traceidratio") => Ok(parent_based(Sampler::TraceIdRatioBased(ratio()?))),
        Some(other) => Err(format!(
            "OTEL_TRACES_SAMPLER=`{other}`: expected always_on, always_off or traceidratio, \
             optionally with the prefix parentbased_"
        )),
    }
}

/// The number of spans that may wait for the collector.
pub fn queue_size(get: Get) -> Result<usize, String> {
    /// Four times the standard's default: a producer enqueues thousands of photos a second.
    const DEFAULT: usize = 8192;
    const NAME: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
    match get(NAME).filter(|value| !value.is_empty()) {
        None => Ok(DEFAULT),
        Some(value) => match value.parse() {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(format!("{NAME}=`{value}`: expected a number of spans")),
        },
    }
}

/// Runs requests on the runtime: batches are sent from threads without one.
#[derive(Debug, Clone)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn environment(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
        let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        move |name| map.get(name).cloned()
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        let wanted = |pairs: &[(&str, &str)]| {
            let get = environment(pairs);
            (Signal::Traces.is_wanted(&get), Signal::Metrics.is_wanted(&get))
        };
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert_eq!(wanted(&[]), (false, false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), (false, false));
        assert_eq!(wanted(&[all]), (true, true));
        assert_eq!(wanted(&[all, ("OTEL_SDK_DISABLED", "true")]), (false, false));
        assert_eq!(wanted(&[all, ("OTEL_METRICS_EXPORTER", "none")]), (true, false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/x")]), (true, false));
    }

    #[test]
    fn errors_name_the_variable() {
        let fault = |name: &str, value: &str| {
            let get = environment(&[(name, value)]);
            let faults = [
                Signal::Traces.protocol(&get).err(),
                Signal::Traces.timeout(&get).err(),
                Signal::Traces.authority(&get).err(),
                sampler(&get).err(),
                queue_size(&get).err(),
            ];
            faults.into_iter().flatten().next().unwrap_or_default()
        };
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
            ("OTEL_TRACES_SAMPLER", "some"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ] {
            let message = fault(name, value);
            assert!(message.starts_with(&format!("{name}=`{value}`: ")), "{message}");
        }
        let get = environment(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")]);
        assert!(sampler(&get).unwrap_err().starts_with("OTEL_TRACES_SAMPLER_ARG=`2`: "));
    }

    #[test]
    fn signal_variables_override_common_ones() {
        let get = environment(&[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ]);
        assert_eq!(Signal::Traces.protocol(&get), Ok(Protocol::Grpc));
        assert_eq!(Signal::Metrics.protocol(&get), Ok(Protocol::Http));
    }

    #[test]
    fn samplers_follow_the_standard() {
        let get =
            environment(&[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.1")]);
        assert_eq!(format!("{:?}", sampler(&get).unwrap()), "ParentBased(TraceIdRatioBased(0.1))");
        assert_eq!(format!("{:?}", sampler(&environment(&[])).unwrap()), "ParentBased(AlwaysOn)");
    }
}
