//! What a worker answers to whoever watches it: is it alive, is it ready, what has it done?

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::cli::failure::Failure;
use crate::cli::settings::servers::Servers;
use crate::domain::StageName;
use crate::domain::clock::now;
use crate::ledger::{Ledger, LedgerError};
use crate::objects::s3::S3;
use crate::objects::{ObjectError, Objects};
use crate::telemetry::instruments;
use crate::telemetry::prometheus::{self, PrometheusReader};

/// Answers `/healthz`, `/readyz` and `/metrics`.
pub struct Probes {
    pub metrics: PrometheusReader,
    /// No photo is taken any more.
    pub shutdown: CancellationToken,
    /// A stage has ended and was not told to.
    pub broken: CancellationToken,
    /// What the servers last answered, asked once for however many probes. One without a fault is not there.
    faults: Mutex<BTreeMap<&'static str, String>>,
}

impl Probes {
    /// Between two looks at the servers.
    const PERIOD: Duration = Duration::from_secs(3);
    /// A server that takes longer to answer is no help to a photo.
    const PATIENCE: Duration = Duration::from_secs(3);
    /// Connections at a time; more of them wait.
    const CONNECTIONS: usize = 32;
    /// For one request and its answer.
    const LONGEST: Duration = Duration::from_secs(5);

    /// The servers have just answered: a worker asks them before it begins.
    pub fn new(metrics: PrometheusReader, shutdown: CancellationToken) -> Self {
        Self { metrics, shutdown, broken: CancellationToken::new(), faults: Mutex::default() }
    }

    /// Looks at the servers again and again.
    pub async fn watch(self: Arc<Self>, servers: Servers) {
        tokio::join!(
            self.watch_one("rabbitmq", || servers.broker.check()),
            self.watch_one("redis", || servers.ledger.check()),
            self.watch_one("s3", || peek(&servers.objects)),
            measure(&servers),
        );
    }

    async fn watch_one<E, F>(&self, server: &'static str, check: impl Fn() -> F)
    where
        E: fmt::Display,
        F: Future<Output = Result<(), E>>,
    {
        loop {
            let mut check = pin!(check());
            let answer = match tokio::time::timeout(Self::PATIENCE, &mut check).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.note(server, Some(format!("no answer for {:?}", Self::PATIENCE)));
                    // To its end: the client's own time limit is what replaces a connection that fell silent.
                    check.await
                }
            };
            self.note(server, answer.err().map(|error| error.to_string()));
            tokio::time::sleep(Self::PERIOD).await;
        }
    }

    fn note(&self, server: &'static str, fault: Option<String>) {
        let mut faults = self.faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match fault {
            Some(fault) => {
                if !faults.contains_key(server) {
                    tracing::warn!(server, fault, "not ready");
                }
                faults.insert(server, fault);
            }
            None => {
                if faults.remove(server).is_some() {
                    tracing::info!(server, "ready");
                }
            }
        }
    }

    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(Self::CONNECTIONS));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let probes = self.clone();
                    tokio::spawn(async move {
                        probes.talk(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a probe's connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// One request a connection: probes come seldom, and no idle one takes a place.
    async fn talk(&self, stream: TcpStream) {
        let service = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request)));
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // Whatever goes wrong is between the caller and its connection.
        let _ = tokio::time::timeout(Self::LONGEST, connection).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "take GET\n".into());
            answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/healthz" => verdict(if self.broken.is_cancelled() { vec!["a stage has ended".into()] } else { vec![] }),
            "/readyz" => verdict(self.faults()),
            "/metrics" => typed(StatusCode::OK, prometheus::MEDIA_TYPE, self.metrics.text()),
            _ => plain(StatusCode::NOT_FOUND, "take /healthz, /readyz or /metrics\n".into()),
        }
    }

    /// Why no photo should be expected to be worked on.
    fn faults(&self) -> Vec<String> {
        if self.shutdown.is_cancelled() {
            return vec!["shutting down".into()];
        }
        let faults = self.faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        faults.iter().map(|(server, fault)| format!("{server}: {fault}")).collect()
    }
}

/// Whether the bucket answers us. That it takes writes was tried at the start; to try it all day long would fill a bucket
/// that keeps versions.
async fn peek(objects: &S3) -> Result<(), ObjectError> {
    objects.list("records/", None, 1).await.map(drop)
}

/// Tells the metrics again and again what lies in the queues, and for how long. Every worker tells the same.
async fn measure(servers: &Servers) {
    const PERIOD: Duration = Duration::from_secs(15);
    let Some(instruments) = instruments::get() else { return };
    loop {
        // That a server is away is told by those who watch it.
        for depth in servers.broker.depths().await.unwrap_or_default() {
            let Some(stage) = depth.stage else {
                instruments.dead_letters_kept(depth.ready);
                continue;
            };
            for (state, messages) in
                [("ready", depth.ready), ("in_flight", depth.in_flight), ("delayed", depth.delayed)]
            {
                instruments.queue(stage, state, messages);
            }
        }
        if let Ok(since) = due_since(servers).await {
            let now = now().as_secs();
            for stage in StageName::ALL {
                instruments.oldest(stage, since.get(&stage).map_or(0, |since| now.saturating_sub(*since)));
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// The second from which on the photo is due that has waited longest for each stage, whatever its run.
async fn due_since(servers: &Servers) -> Result<BTreeMap<StageName, u64>, LedgerError> {
    let mut oldest = BTreeMap::new();
    for run in servers.ledger.runs().await? {
        for (stage, since) in servers.ledger.due_since(&run).await? {
            let known = oldest.entry(stage).or_insert(since);
            *known = since.min(*known);
        }
    }
    Ok(oldest)
}

/// Takes the address; a port that somebody else has is an error at once.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::broken(format!("--listen: cannot listen on {address}: {error}; choose another port")))
}

fn verdict(faults: Vec<String>) -> Response<String> {
    match faults.is_empty() {
        true => plain(StatusCode::OK, "ok\n".into()),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, faults.join("\n") + "\n"),
    }
}

fn plain(status: StatusCode, text: String) -> Response<String> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, media_type: &'static str, text: String) -> Response<String> {
    let mut answer = Response::new(text);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(media_type));
    answer
}
