//! Serves a router on a listener until a shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Limits of a server. A client that exceeds one of them is disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at the same time; further ones wait in the listener's backlog.
    pub connections: usize,
    /// The time in which the head of a request must arrive, counted from the connection or the last response.
    pub head: Duration,
    /// The time for one request with its response.
    pub request: Duration,
    /// The size of the read buffer, and so of a request's head, in bytes.
    pub buffer: usize,
}

/// Time until the next attempt after an error of `accept`, which mostly means that file descriptors have run out.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `shutdown`, then finishes the requests in flight. Each connection takes one request: idle
/// connections would use up the limit.
pub async fn serve(listener: TcpListener, router: Router, limits: HttpLimits, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let router = router.clone();
                connections.spawn(async move {
                    serve_connection(stream, router, limits).await;
                    drop(place);
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
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn serve_connection(stream: TcpStream, router: Router, limits: HttpLimits) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.buffer)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // An error concerns only this client, which sees it itself.
    let _ = tokio::time::timeout(limits.request, connection).await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    const LIMITS: HttpLimits = HttpLimits {
        connections: 1,
        head: Duration::from_millis(200),
        request: Duration::from_secs(5),
        buffer: 16 << 10,
    };

    async fn start(router: Router, limits: HttpLimits) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        (address, shutdown.clone(), tokio::spawn(serve(listener, router, limits, shutdown)))
    }

    /// The response to the bytes, until the server closes the connection.
    async fn send(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that has read enough resets the connection.
        let _ = stream.write_all(request).await;
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response).await;
        String::from_utf8_lossy(&response).into_owned()
    }

    fn hello() -> Router {
        Router::new().route("/", get(async || "hello"))
    }

    #[tokio::test]
    async fn a_connection_takes_one_request() {
        let (address, ..) = start(hello(), LIMITS).await;
        let twice = send(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(twice.starts_with("HTTP/1.1 200 OK\r\n") && twice.contains("connection: close\r\n"), "{twice}");
        assert_eq!(twice.matches("hello").count(), 1, "{twice}");
    }

    #[tokio::test]
    async fn a_silent_client_does_not_keep_others_out() {
        let (address, ..) = start(hello(), LIMITS).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        // There is room for one connection: this is answered after the silent one has been closed.
        assert!(send(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_head_larger_than_the_buffer_is_refused() {
        let (address, ..) = start(hello(), LIMITS).await;
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
        assert!(!send(address, long.as_bytes()).await.contains("hello"));
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(32 << 10));
        assert!(!send(address, head.as_bytes()).await.contains("hello"));
        assert!(send(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_shutdown_finishes_the_request_in_flight() {
        let (entered, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let notices = (entered.clone(), finish.clone());
        let slow = get(async move || {
            notices.0.notify_one();
            notices.1.notified().await;
            "done"
        });
        let (address, shutdown, server) = start(Router::new().route("/", slow), LIMITS).await;
        let response = tokio::spawn(async move { send(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await });
        entered.notified().await;
        shutdown.cancel();
        finish.notify_one();
        assert!(response.await.unwrap().ends_with("done"));
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }
}
