//! A web host with scripted faults. It writes HTTP/1.1 directly to TCP, so it can truncate, delay or never finish a
//! response, and send a wrong length. It counts requests, and can hold a response back until a test opens a gate.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The routes of a host, by path with query or by path alone.
pub type Routes = BTreeMap<String, Route>;

/// Limit for request line and headers, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The responses of one path, in order of the requests. The last one is repeated.
#[derive(Debug, Clone)]
pub struct Route(Vec<HostResponse>);

impl Route {
    pub fn new(responses: impl IntoIterator<Item = HostResponse>) -> Self {
        Self(responses.into_iter().collect())
    }

    fn response(&self, hit: usize) -> Option<&HostResponse> {
        self.0.get(hit).or(self.0.last())
    }
}

impl From<HostResponse> for Route {
    fn from(response: HostResponse) -> Self {
        Self(vec![response])
    }
}

/// The steps of one response. After the last step the connection is closed.
#[derive(Debug, Clone, Default)]
pub struct HostResponse(Vec<ResponseStep>);

#[derive(Debug, Clone)]
pub enum ResponseStep {
    Send(Bytes),
    /// Sends the bytes one at a time, with a pause after each.
    Drip(Bytes, Duration),
    /// Waits for a fixed time.
    Pause(Duration),
    /// Sends the same bytes repeatedly until the client disconnects.
    Forever(Bytes),
    /// Sends nothing until the client disconnects.
    Hang,
    /// Waits until the gate is opened.
    Wait(Gate),
    /// Ends the connection with a TCP reset.
    Reset,
    /// Answers the next request on this connection. Only as the last step.
    KeepAlive,
    /// Reads the next request on this connection, and does not answer it.
    IgnoreRequest,
}

impl HostResponse {
    pub fn then(mut self, step: ResponseStep) -> Self {
        self.0.push(step);
        self
    }

    /// A status line and the given headers, without a length.
    pub fn head(status: u16, headers: &[(&str, &str)]) -> Self {
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\n", reason.unwrap_or("Unknown"));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        Self::default().then(ResponseStep::Send((head + "\r\n").into()))
    }

    /// A complete response with its length.
    pub fn full(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        let headers = [headers, &[("Content-Length", length.as_str())]].concat();
        Self::head(status, &headers).then(ResponseStep::Send(body))
    }

    /// A status line and headers as they are, and a body.
    pub fn raw(head: impl AsRef<[u8]>, body: impl Into<Bytes>) -> Self {
        let head = Bytes::copy_from_slice(head.as_ref());
        Self::default().then(ResponseStep::Send(head)).then(ResponseStep::Send(body.into()))
    }

    /// A photo after which the connection stays open.
    pub fn kept_open(bytes: impl Into<Bytes>) -> Self {
        let body = bytes.into();
        Self::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()), body)
    }

    pub fn photo(bytes: impl Into<Bytes>) -> Self {
        Self::full(200, &[("Content-Type", "image/jpeg")], bytes)
    }

    pub fn status(status: u16) -> Self {
        Self::full(status, &[("Content-Type", "text/plain")], status.to_string())
    }

    /// `status` with `Retry-After`: seconds or a date.
    pub fn retry_after(status: u16, retry_after: &str) -> Self {
        Self::full(status, &[("Retry-After", retry_after)], "")
    }

    pub fn redirect(to: &str) -> Self {
        Self::full(302, &[("Location", to)], "")
    }

    /// An HTML page with the content type of a photo.
    pub fn html_page() -> Self {
        Self::photo("<!DOCTYPE html>\n<title>Not here any more</title>\n<p>This account is suspended.</p>\n")
    }

    /// A photo with an `X-Robots-Tag`.
    pub fn robots(tag: &str, bytes: impl Into<Bytes>) -> Self {
        Self::full(200, &[("X-Robots-Tag", tag)], bytes)
    }

    /// No response: the connection stays open until the client disconnects.
    pub fn hang() -> Self {
        Self::default().then(ResponseStep::Hang)
    }

    /// Headers, sent one byte at a time.
    pub fn slow_head(every: Duration) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nX-Padding: {}\r\n\r\n", "x".repeat(4000));
        Self::default().then(ResponseStep::Drip(head.into(), every))
    }

    /// Headers that never end.
    pub fn endless_head() -> Self {
        let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\n");
        Self::default()
            .then(ResponseStep::Send(head))
            .then(ResponseStep::Forever(format!("X-Padding: {}\r\n", "x".repeat(1000)).into()))
    }

    /// A body, sent one byte at a time.
    pub fn slow_body(bytes: impl Into<Bytes>, every: Duration) -> Self {
        Self::head(200, &[]).then(ResponseStep::Drip(bytes.into(), every))
    }

    /// A body that starts like a photo and never ends.
    pub fn endless_body(start: impl Into<Bytes>) -> Self {
        Self::head(200, &[])
            .then(ResponseStep::Send(start.into()))
            .then(ResponseStep::Forever(vec![0; 64 * 1024].into()))
    }

    /// A body with a given `Content-Length`, right or wrong.
    pub fn with_length(length: u64, bytes: impl Into<Bytes>) -> Self {
        Self::head(200, &[("Content-Length", &length.to_string())]).then(ResponseStep::Send(bytes.into()))
    }

    /// A reset after the first half of the body.
    pub fn reset(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::with_length(bytes.len() as u64, bytes.slice(..bytes.len() / 2)).then(ResponseStep::Reset)
    }

    /// A few kilobytes that decompress to a hundred megabytes.
    pub fn gzip_bomb() -> Self {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        let packed = (0..100).try_for_each(|_| gzip.write_all(&zeros)).and_then(|()| gzip.finish());
        // Writing to memory does not fail.
        Self::full(200, &[("Content-Encoding", "gzip")], packed.unwrap_or_default())
    }

    /// The same response after another step.
    pub fn after(mut self, step: ResponseStep) -> Self {
        self.0.insert(0, step);
        self
    }

    /// A photo that is sent once the gate is open.
    pub fn gated(gate: &Gate, bytes: impl Into<Bytes>) -> Self {
        Self::photo(bytes).after(ResponseStep::Wait(gate.clone()))
    }
}

/// Holds responses back until it is opened.
#[derive(Debug, Clone, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        self.0.cancel();
    }
}

/// The requests to a host so far.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    pub connections: usize,
    pub paths: BTreeMap<String, PathTraffic>,
    pub now: usize,
    pub peak: usize,
}

#[derive(Debug, Clone, Default)]
pub struct PathTraffic {
    pub hits: usize,
    pub now: usize,
    pub peak: usize,
    /// The last request, with headers.
    pub request: String,
}

impl Traffic {
    pub fn hits(&self, path: &str) -> usize {
        self.paths.get(path).map_or(0, |path| path.hits)
    }

    pub fn all_hits(&self) -> usize {
        self.paths.values().map(|path| path.hits).sum()
    }
}

/// A running host. Dropping it stops it.
pub struct WebHost {
    address: SocketAddr,
    traffic: watch::Sender<Traffic>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl WebHost {
    /// Starts a host on the address `listen`. Port 0 selects a free port.
    pub async fn start(listen: &str, routes: Routes) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (traffic, _) = watch::channel(Traffic::default());
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let service = Service { routes: Arc::new(routes), traffic: traffic.clone() };
        tasks.spawn(accept(listener, service, tasks.clone(), stop.clone()));
        Ok(Self { address, traffic, tasks, stop: stop.drop_guard() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path on this host, with its IP address.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic.borrow().clone()
    }

    /// Waits until the traffic satisfies the condition.
    pub async fn until(&self, condition: impl FnMut(&Traffic) -> bool) {
        // The host owns the sender, so the wait cannot fail.
        let _ = self.traffic.subscribe().wait_for(condition).await;
    }

    /// Closes all connections and waits until all tasks have ended.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[derive(Clone)]
struct Service {
    routes: Arc<Routes>,
    traffic: watch::Sender<Traffic>,
}

async fn accept(listener: TcpListener, service: Service, tasks: TaskTracker, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        let service = service.clone();
        let stop = stop.clone();
        tasks.spawn(async move {
            // An error on a connection affects only that connection.
            let _ = stop.run_until_cancelled(service.serve(stream)).await;
        });
    }
}

impl Service {
    async fn serve(self, mut stream: TcpStream) -> io::Result<()> {
        self.traffic.send_modify(|traffic| traffic.connections += 1);
        while self.answer(&mut stream).await? {}
        Ok(())
    }

    /// Answers one request. Returns whether the connection stays open.
    async fn answer(&self, stream: &mut TcpStream) -> io::Result<bool> {
        let head = match read_head(stream).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await?;
                return Ok(false);
            }
            head => head?,
        };
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default();
        let route = self.routes.get(&target).or_else(|| self.routes.get(path));
        let request = ActiveRequest::enter(&self.traffic, &target, head);
        let not_found = HostResponse::status(404);
        let response = route.and_then(|route| route.response(request.hit)).unwrap_or(&not_found);
        for step in &response.0 {
            match step {
                ResponseStep::Reset => {
                    stream.set_zero_linger()?;
                    return Ok(false);
                }
                ResponseStep::KeepAlive => return Ok(true),
                step => perform(step, stream).await?,
            }
        }
        stream.shutdown().await?;
        Ok(false)
    }
}

async fn perform(step: &ResponseStep, stream: &mut TcpStream) -> io::Result<()> {
    match step {
        ResponseStep::Send(bytes) => stream.write_all(bytes).await,
        ResponseStep::Drip(bytes, every) => {
            for byte in bytes {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(*every).await;
            }
            Ok(())
        }
        ResponseStep::Pause(time) => {
            tokio::time::sleep(*time).await;
            Ok(())
        }
        ResponseStep::Forever(bytes) => loop {
            stream.write_all(bytes).await?;
        },
        ResponseStep::Hang => {
            let mut ignored = [0; 1024];
            while stream.read(&mut ignored).await? > 0 {}
            Ok(())
        }
        ResponseStep::Wait(gate) => {
            gate.0.cancelled().await;
            Ok(())
        }
        ResponseStep::IgnoreRequest => read_head(stream).await.map(drop),
        // `answer` handles these steps: they decide about the connection.
        ResponseStep::Reset | ResponseStep::KeepAlive => Ok(()),
    }
}

/// Reads the request line and headers. Returns `InvalidData` if this is not an HTTP request, for example TLS.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.len() > MAX_HEAD || !head[0].is_ascii_uppercase() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A request in progress.
struct ActiveRequest<'a> {
    traffic: &'a watch::Sender<Traffic>,
    target: String,
    /// The number of earlier requests for the same target.
    hit: usize,
}

impl<'a> ActiveRequest<'a> {
    fn enter(traffic: &'a watch::Sender<Traffic>, target: &str, request: String) -> Self {
        let mut hit = 0;
        traffic.send_modify(|all| {
            all.now += 1;
            all.peak = all.peak.max(all.now);
            let path = all.paths.entry(target.to_owned()).or_default();
            hit = path.hits;
            path.hits += 1;
            path.now += 1;
            path.peak = path.peak.max(path.now);
            path.request = request;
        });
        Self { traffic, target: target.to_owned(), hit }
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.traffic.send_modify(|all| {
            all.now -= 1;
            if let Some(path) = all.paths.get_mut(&self.target) {
                path.now -= 1;
            }
        });
    }
}
