//! Serves a router to browsers: connections that take many requests, with or without TLS.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::certificate::{CertificateError, CertificateFiles};
use super::peers::PeerLimit;
use super::proxies::{Proxies, canonical};
use super::server::{ACCEPT_PAUSE, HttpLimits};
use super::stall::StallLimit;

/// Limits of a server for browsers.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// `head` is also the time for which a connection may be idle. A request that takes longer than `request` until its
    /// response begins is answered with 503.
    pub http: HttpLimits,
    /// Connections of one address. A reverse proxy may have any number.
    pub per_address: usize,
    pub proxies: Proxies,
    /// Requests at the same time; further ones wait. A response counts until it is sent.
    pub requests: usize,
    /// The time for which a client may read nothing of a response.
    pub stall: Duration,
    /// A connection of this age ends after its request.
    pub age: Duration,
}

/// Who sent a request. It is in the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address at the other end of the connection: the client, or a proxy.
    pub address: IpAddr,
    /// Whether this connection uses TLS.
    pub tls: bool,
}

/// Time between two looks at the files of the certificate.
const RELOAD_PERIOD: Duration = Duration::from_secs(30);

/// What all connections share.
struct Server {
    router: Router,
    limits: ClientLimits,
    requests: Arc<Semaphore>,
    shutdown: CancellationToken,
    tls: Option<TlsAcceptor>,
}

/// Serves `router` until `shutdown`, then finishes the requests in flight. With certificate files, it speaks TLS only,
/// and reads the files again when they change.
pub async fn serve_clients(
    listener: TcpListener,
    certificate: Option<CertificateFiles>,
    router: Router,
    limits: ClientLimits,
    shutdown: CancellationToken,
) -> Result<(), CertificateError> {
    let tls = match &certificate {
        Some(files) => Some(TlsAcceptor::from(Arc::new(files.server_config()?))),
        None => None,
    };
    let reloading = certificate.map(|files| tokio::spawn(reload(files)));
    let room = Arc::new(Semaphore::new(limits.http.connections));
    let peers = PeerLimit::new(limits.per_address, limits.proxies.clone());
    let requests = Arc::new(Semaphore::new(limits.requests));
    let server = Arc::new(Server { router, limits, requests, shutdown: shutdown.clone(), tls });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, address, place)) => {
                let Some(of_peer) = peers.enter(address) else {
                    tracing::debug!(%address, "closed a connection: the address has too many");
                    continue;
                };
                let server = server.clone();
                connections.spawn(async move {
                    server.serve(stream, address).await;
                    drop((place, of_peer));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    Ok(())
}

/// The next connection with its address, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    // Responses are small, and a key press must not wait for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    Ok((stream, canonical(address.ip()), place))
}

async fn reload(files: CertificateFiles) {
    loop {
        tokio::time::sleep(RELOAD_PERIOD).await;
        let files = files.clone();
        match tokio::task::spawn_blocking(move || files.reload()).await {
            Ok(Ok(true)) => tracing::info!("read the new certificate"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "keeps the certificate as it was"),
            Err(error) => tracing::warn!(%error, "cannot read the certificate"),
        }
    }
}

impl Server {
    // An error of a connection concerns only its client, which sees it itself.
    async fn serve(self: Arc<Self>, stream: TcpStream, address: IpAddr) {
        let peer = Peer { address, tls: self.tls.is_some() };
        match &self.tls {
            None => self.serve_stream(StallLimit::new(stream, self.limits.stall), peer).await,
            Some(tls) => {
                let accepted = tokio::time::timeout(self.limits.http.head, tls.accept(stream));
                let accepted = tokio::select! {
                    accepted = accepted => accepted,
                    () = self.shutdown.cancelled() => return,
                };
                if let Ok(Ok(stream)) = accepted {
                    self.serve_stream(StallLimit::new(stream, self.limits.stall), peer).await;
                }
            }
        }
    }

    async fn serve_stream<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let service =
            service_fn(|request| async move { Ok::<_, std::convert::Infallible>(self.answer(request, peer).await) });
        let HttpLimits { head, buffer, request, .. } = self.limits.http;
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(head)
                .max_buf_size(buffer)
                .serve_connection(TokioIo::new(stream), service)
        );
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(self.limits.age) => {}
        }
        connection.as_mut().graceful_shutdown();
        // One request may just have begun, and its response must be sent.
        let _ = tokio::time::timeout(request + self.limits.stall, connection).await;
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Counted> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let answer = async {
            let place = self.requests.clone().acquire_owned().await.ok();
            let Ok(response) = self.router.clone().oneshot(request).await;
            response.map(|body| Counted::new(body, place))
        };
        match tokio::time::timeout(self.limits.http.request, answer).await {
            Ok(response) => response,
            Err(_) => too_slow().map(|body| Counted::new(body, None)),
        }
    }
}

fn too_slow() -> Response<Body> {
    let headers = [(header::RETRY_AFTER, "1"), (header::CONNECTION, "close")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, "the request took too long\n").into_response()
}

/// A response that counts as a request until it is sent. It is handed over in small pieces, because a whole piece counts
/// as sent when the connection has taken it.
struct Counted {
    body: Body,
    /// What is left of a piece of `body`.
    rest: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl Counted {
    /// Bytes of one piece.
    const PIECE: usize = 64 << 10;

    fn new(body: Body, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { body, rest: Bytes::new(), _place: place }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(Self::PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Extension;
    use axum::routing::{get, post};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio_rustls::TlsConnector;

    use super::*;

    fn limits() -> ClientLimits {
        let http = HttpLimits {
            connections: 8,
            head: Duration::from_secs(60),
            request: Duration::from_secs(60),
            buffer: 16 << 10,
        };
        ClientLimits {
            http,
            per_address: 8,
            proxies: Proxies::default(),
            requests: 8,
            stall: Duration::from_secs(60),
            age: Duration::from_secs(60),
        }
    }

    struct Running {
        address: SocketAddr,
        shutdown: CancellationToken,
        server: tokio::task::JoinHandle<Result<(), CertificateError>>,
    }

    impl Running {
        async fn start(router: Router, limits: ClientLimits, certificate: Option<CertificateFiles>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
            let server = tokio::spawn(serve_clients(listener, certificate, router, limits, shutdown.clone()));
            Self { address, shutdown, server }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }
    }

    fn hello() -> Router {
        Router::new()
            .route("/", get(async || "hello"))
            .route("/peer", get(async |Extension(peer): Extension<Peer>| format!("{} {}", peer.address, peer.tls)))
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Reads until the text ends with `end`, or to the end of the stream.
    async fn read_to(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match stream.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether the server closes the connection without another byte.
    async fn is_closed(stream: &mut TcpStream) -> bool {
        matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_))
    }

    #[tokio::test]
    async fn a_connection_takes_many_requests_until_it_is_idle_or_old() {
        let running = Running::start(hello(), limits(), None).await;
        let mut stream = running.connect().await;
        for _ in 0..5 {
            stream.write_all(GET).await.unwrap();
            let response = read_to(&mut stream, "hello").await;
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("hello"), "{response}");
        }
        let short = Duration::from_millis(200);
        let idle = ClientLimits { http: HttpLimits { head: short, ..limits().http }, ..limits() };
        for limits in [idle, ClientLimits { age: short, ..limits() }] {
            let running = Running::start(hello(), limits, None).await;
            let mut stream = running.connect().await;
            stream.write_all(GET).await.unwrap();
            assert!(read_to(&mut stream, "hello").await.ends_with("hello"));
            assert!(is_closed(&mut stream).await);
        }
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_connections() {
        let running = Running::start(hello(), ClientLimits { per_address: 1, ..limits() }, None).await;
        let mut first = running.connect().await;
        first.write_all(GET).await.unwrap();
        assert!(read_to(&mut first, "hello").await.ends_with("hello"));
        let mut second = running.connect().await;
        let _ = second.write_all(GET).await;
        assert!(is_closed(&mut second).await);
        // 127.0.0.2 is another address.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = socket.connect(running.address).await.unwrap();
        other.write_all(b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(read_to(&mut other, "127.0.0.2 false").await.ends_with("127.0.0.2 false"));
    }

    #[tokio::test]
    async fn a_slow_request_is_answered_and_makes_room() {
        let limits = ClientLimits {
            http: HttpLimits { request: Duration::from_millis(200), ..limits().http },
            requests: 1,
            ..limits()
        };
        let router = hello().route("/body", post(async |body: Bytes| body.len().to_string()));
        let running = Running::start(router, limits, None).await;
        let mut slow = running.connect().await;
        slow.write_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhal").await.unwrap();
        let mut waiting = running.connect().await;
        waiting.write_all(GET).await.unwrap();
        let refused = read_to(&mut slow, "too long\n").await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1\r\n"), "{refused}");
        assert!(is_closed(&mut slow).await);
        // The one that waited either got its turn or was too slow itself; the next one is answered.
        let _ = read_to(&mut waiting, "hello").await;
        let mut next = running.connect().await;
        next.write_all(GET).await.unwrap();
        assert!(read_to(&mut next, "hello").await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_disconnected_and_makes_room() {
        let large = Bytes::from(vec![0; 64 << 20]);
        let router = hello().route("/large", get(async move || large.clone()));
        let limits = ClientLimits { requests: 1, stall: Duration::from_millis(200), ..limits() };
        let running = Running::start(router, limits, None).await;
        let mut deaf = running.connect().await;
        deaf.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let head = read_to(&mut deaf, "\r\n\r\n").await;
        assert!(head.contains("content-length: 67108864\r\n"), "{head}");
        // There is room for one request: this is answered once the other connection is closed.
        let mut next = running.connect().await;
        next.write_all(GET).await.unwrap();
        assert!(read_to(&mut next, "hello").await.ends_with("hello"));
        let mut rest = Vec::new();
        let _ = deaf.read_to_end(&mut rest).await;
        assert!(rest.len() < 64 << 20, "{}", rest.len());
    }

    #[tokio::test]
    async fn a_shutdown_finishes_the_request_in_flight_and_closes_idle_connections() {
        let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let notices = (entered.clone(), finish.clone());
        let slow = get(async move || {
            notices.0.notify_one();
            notices.1.notified().await;
            "done"
        });
        let running = Running::start(hello().route("/slow", slow), limits(), None).await;
        let (mut idle, mut busy) = (running.connect().await, running.connect().await);
        idle.write_all(GET).await.unwrap();
        assert!(read_to(&mut idle, "hello").await.ends_with("hello"));
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        entered.notified().await;
        running.shutdown.cancel();
        assert!(is_closed(&mut idle).await);
        finish.notify_one();
        assert!(read_to(&mut busy, "done").await.ends_with("done"));
        running.server.await.unwrap().unwrap();
        assert!(TcpStream::connect(running.address).await.is_err(), "the listener is closed");
    }

    #[tokio::test]
    async fn a_new_certificate_is_used_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let write = || {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            made.cert.pem()
        };
        let first = write();
        let files = CertificateFiles::open(&certificate, &key).unwrap();
        let short = ClientLimits { http: HttpLimits { head: Duration::from_millis(500), ..limits().http }, ..limits() };
        let running = Running::start(hello(), short, Some(files.clone())).await;
        let ask = async |pem: &str| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = TlsConnector::from(Arc::new(config)).connect(name, running.connect().await).await;
            let mut stream = stream.map_err(|error| error.to_string())?;
            stream.write_all(b"GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            Ok::<_, String>(read_to(&mut stream, "127.0.0.1 true").await)
        };
        assert!(ask(&first).await.unwrap().ends_with("127.0.0.1 true"));
        let second = write();
        assert!(files.reload().unwrap());
        assert!(ask(&second).await.unwrap().ends_with("127.0.0.1 true"));
        assert!(ask(&first).await.is_err());
        // Who speaks no TLS, or nothing at all, is disconnected.
        let mut plain = running.connect().await;
        plain.write_all(GET).await.unwrap();
        assert!(!read_to(&mut plain, "hello").await.contains("hello"));
        assert!(is_closed(&mut running.connect().await).await);
    }
}
