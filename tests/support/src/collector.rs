//! An OTLP collector over gRPC and HTTP that stores what it receives.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A received span, with its service and protocol.
#[derive(Debug, Clone)]
pub struct ReceivedSpan {
    pub service: String,
    pub protocol: &'static str,
    pub header: Option<String>,
    pub span: Span,
}

impl ReceivedSpan {
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.span.attributes.iter().find(|attribute| attribute.key == name).map(|found| text(found.value.as_ref()))
    }

    pub fn kind(&self) -> &'static str {
        ["?", "internal", "server", "client", "producer", "consumer"][self.span.kind as usize]
    }

    pub fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
    }
}

#[derive(Default)]
struct Received {
    spans: Vec<ReceivedSpan>,
    metrics: BTreeMap<String, String>,
}

#[derive(Clone, Default)]
struct Store(Arc<Mutex<Received>>);

impl Store {
    fn add_spans(&self, request: ExportTraceServiceRequest, protocol: &'static str, header: Option<String>) {
        let mut received = self.0.lock().unwrap();
        for resource in request.resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = service.map(|service| text(service.value.as_ref())).unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                received.spans.push(ReceivedSpan { service: service.clone(), protocol, header: header.clone(), span });
            }
        }
    }

    fn add_metrics(&self, request: ExportMetricsServiceRequest) {
        let mut received = self.0.lock().unwrap();
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        received.metrics.extend(scopes.flat_map(|scope| scope.metrics).map(|metric| (metric.name, metric.unit)));
    }
}

/// A running collector. Dropping it stops it.
pub struct Collector {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    store: Store,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    /// Starts a collector without TLS.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a collector with TLS. Returns it with the PEM of its certificate, which is valid for `localhost`.
    pub fn start_encrypted() -> (Self, String) {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        (Self::start_with(Some((&certificate, &key))), certificate.clone())
    }

    /// `tls`: certificate and key in PEM.
    fn start_with(tls: Option<(&str, &str)>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = Store::default();
        let (grpc, http) = runtime.block_on(async {
            let [grpc, http] =
                [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
            let addresses = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
            let traces = TraceServiceServer::new(store.clone()).accept_compressed(CompressionEncoding::Gzip);
            let metrics = MetricsServiceServer::new(store.clone()).accept_compressed(CompressionEncoding::Gzip);
            let mut server = tonic::transport::Server::builder();
            if let Some((certificate, key)) = tls {
                let identity = tonic::transport::Identity::from_pem(certificate, key);
                server = server.tls_config(tonic::transport::ServerTlsConfig::new().identity(identity)).unwrap();
            }
            let server = server.add_service(traces).add_service(metrics);
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(grpc)));
            tokio::spawn(serve_http(http, store.clone(), tls.map(acceptor)));
            addresses
        });
        Self { grpc, http, store, _runtime: runtime }
    }

    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.store.0.lock().unwrap().spans.clone()
    }

    /// The names and units of the received metrics.
    pub fn metrics(&self) -> BTreeMap<String, String> {
        self.store.0.lock().unwrap().metrics.clone()
    }
}

#[tonic::async_trait]
impl TraceService for Store {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = request.metadata().get("x-tenant").and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.add_spans(request.into_inner(), "grpc", header);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Store {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.add_metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn acceptor((certificate, key): (&str, &str)) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()))
}

async fn serve_http(listener: TcpListener, store: Store, tls: Option<TlsAcceptor>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (store, tls) = (store.clone(), tls.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(store.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            match tls {
                None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                Some(tls) => {
                    let stream = tls.accept(stream).await.ok()?;
                    http.serve_connection(TokioIo::new(stream), service).await.ok()
                }
            }
        });
    }
}

async fn respond(store: Store, request: hyper::Request<Incoming>) -> Result<hyper::Response<String>, Infallible> {
    let path = request.uri().path().to_owned();
    let header = request.headers().get("x-tenant").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let accepted = match path.as_str() {
        "/v1/traces" => ExportTraceServiceRequest::decode(body)
            .map(|request| store.add_spans(request, "http/protobuf", header))
            .is_ok(),
        "/v1/metrics" => ExportMetricsServiceRequest::decode(body).map(|request| store.add_metrics(request)).is_ok(),
        _ => false,
    };
    let mut response = hyper::Response::new(String::new());
    *response.status_mut() = if accepted { hyper::StatusCode::OK } else { hyper::StatusCode::BAD_REQUEST };
    Ok(response)
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// An attribute of an event.
pub fn value(attributes: &[KeyValue], name: &str) -> Option<String> {
    attributes.iter().find(|attribute| attribute.key == name).map(|attribute| text(attribute.value.as_ref()))
}
