//! A second request where the head of a response cannot be parsed: its broken lines are left out.
//!
//! The HTTP client already skips lines that are no headers. What it cannot skip stops it: a NUL or a bare carriage
//! return, `Transfer-Encoding` in HTTP/1.0, a `Content-Length` that is no number, a broken status line. Here the head
//! is mended before it is parsed, and what was wrong is remembered, for the case that it still cannot be parsed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap};
use hyper_util::rt::TokioIo;
use reqwest::{Body, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::resolver::Resolver;
use super::rules::Rules;

/// The longest head that is mended, in bytes.
const MAX_HEAD: usize = 256 * 1024;
/// Broken lines that are remembered, and their bytes.
const MAX_FAULTS: usize = 3;
const MAX_FAULT: usize = 80;

/// Sends single requests, each on a connection of its own.
pub(super) struct MendingClient {
    rules: Arc<Rules>,
    resolver: Resolver,
    tls: TlsConnector,
    /// The headers of every request.
    headers: HeaderMap,
    max_headers: usize,
}

impl MendingClient {
    /// `tls`: without ALPN, so that hosts speak HTTP/1.1.
    pub fn new(rules: Arc<Rules>, tls: rustls::ClientConfig, headers: HeaderMap, max_headers: usize) -> Self {
        let resolver = Resolver::new(rules.clone());
        Self { rules, resolver, tls: Arc::new(tls).into(), headers, max_headers }
    }

    /// The response to a GET of the URL, which must have been checked. `headers`: those of this request alone.
    ///
    /// # Errors
    /// What is wrong with the response, in words.
    pub async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Response, String> {
        let stream = timeout(self.rules.connect, self.connect(url)).await;
        let stream = stream.map_err(|_| "no second connection".to_owned())??;
        let faults = Faults::default();
        let mended = MendedHead { inner: stream, state: HeadState::Head(Vec::new()), faults: faults.clone() };
        let mut client = http1::Builder::new();
        let handshake = client.max_headers(self.max_headers).handshake::<_, Body>(TokioIo::new(mended)).await;
        let (mut sender, connection) = handshake.map_err(|error| faults.describe(&error))?;
        // Ends with the response, or when the response is dropped.
        tokio::spawn(connection);
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let request = hyper::Request::get(target).header(HOST, host).body(Body::default());
        let mut request = request.map_err(|error| error.to_string())?;
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().extend(headers);
        let response = sender.send_request(request).await.map_err(|error| faults.describe(&error))?;
        Ok(response.map(Body::wrap).into())
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, String> {
        let host = url.host().ok_or("no host")?;
        let tcp = self.connect_tcp(&host, url).await.map_err(|error| error.to_string())?;
        if url.scheme() != "https" {
            return Ok(Box::new(tcp));
        }
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?,
            Host::Ipv4(ip) => ServerName::IpAddress(std::net::IpAddr::from(ip).into()),
            Host::Ipv6(ip) => ServerName::IpAddress(std::net::IpAddr::from(ip).into()),
        };
        let tls = self.tls.connect(name, tcp).await;
        Ok(Box::new(tls.map_err(|error| error.to_string())?))
    }

    async fn connect_tcp(&self, host: &Host<&str>, url: &Url) -> io::Result<TcpStream> {
        let port = url.port_or_known_default().unwrap_or_default();
        let addresses: Vec<SocketAddr> = match host {
            Host::Ipv4(ip) => vec![(*ip, port).into()],
            Host::Ipv6(ip) => vec![(*ip, port).into()],
            Host::Domain(name) => {
                let found = self.resolver.look_up(name).await.map_err(io::Error::other)?;
                let own_port = |address: &SocketAddr| url.port().is_none() && address.port() != 0;
                let port_of = |address: &SocketAddr| if own_port(address) { address.port() } else { port };
                found.into_iter().map(|address| SocketAddr::new(address.ip(), port_of(&address))).collect()
            }
        };
        TcpStream::connect(&addresses[..]).await
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What is wrong with a head.
#[derive(Debug, Clone, Default)]
struct Faults(Arc<Mutex<Vec<String>>>);

impl Faults {
    fn add(&self, line: usize, text: &[u8]) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < MAX_FAULTS {
            let clipped = text[..text.len().min(MAX_FAULT)].escape_ascii();
            let more = if text.len() > MAX_FAULT { "..." } else { "" };
            faults.push(format!("line {line} is `{clipped}{more}`"));
        }
    }

    /// The error of the parser, with the lines that are at fault.
    fn describe(&self, error: &hyper::Error) -> String {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.is_empty() { error.to_string() } else { format!("{error}: {}", faults.join(", ")) }
    }
}

/// A connection whose first response is mended.
struct MendedHead<S> {
    inner: S,
    state: HeadState,
    faults: Faults,
}

enum HeadState {
    /// The head so far.
    Head(Vec<u8>),
    /// What was read and not yet delivered.
    Rest(Bytes),
}

impl<S> MendedHead<S> {
    /// Mends the head if it is complete, or is no HTTP.
    fn advance(&mut self) {
        let HeadState::Head(head) = &mut self.state else { return };
        loop {
            let blank = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            head.drain(..blank);
            let known = head.len().min(5);
            if !head[..known].eq_ignore_ascii_case(&b"HTTP/"[..known]) {
                let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
                self.faults.add(1, line.trim_ascii_end());
                self.state = HeadState::Rest(std::mem::take(head).into());
                return;
            }
            let Some(end) = head_end(head) else { return };
            let rest = head.split_off(end);
            if is_informational(head) {
                *head = rest;
                continue;
            }
            let mut mended = mend(head, &self.faults);
            mended.extend_from_slice(&rest);
            self.state = HeadState::Rest(mended.into());
            return;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MendedHead<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                HeadState::Rest(rest) if rest.is_empty() => {
                    return Pin::new(&mut this.inner).poll_read(context, buffer);
                }
                HeadState::Rest(rest) => {
                    let length = rest.len().min(buffer.remaining());
                    buffer.put_slice(&rest.split_to(length));
                    return Poll::Ready(Ok(()));
                }
                HeadState::Head(head) => {
                    let mut chunk = [0; 8192];
                    let mut chunk = ReadBuf::new(&mut chunk);
                    ready!(Pin::new(&mut this.inner).poll_read(context, &mut chunk))?;
                    if chunk.filled().is_empty() {
                        this.state = HeadState::Rest(std::mem::take(head).into());
                        continue;
                    }
                    head.extend_from_slice(chunk.filled());
                    this.advance();
                    if matches!(&this.state, HeadState::Head(head) if head.len() > MAX_HEAD) {
                        return Poll::Ready(Err(io::Error::other("the head of the response is too long")));
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MendedHead<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Where the head ends: after its first empty line.
fn head_end(head: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', head).find_map(|at| match head[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The version and the status of a status line like `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<(&[u8], u16)> {
    let version = line.split(u8::is_ascii_whitespace).next()?;
    let rest = line[version.len()..].trim_ascii_start();
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    Some((version, str::from_utf8(digits).ok()?.parse().ok()?))
}

/// Whether the response with this head is followed by another (RFC 9110, 15.2).
fn is_informational(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    status(line).is_some_and(|(_, code)| (100..200).contains(&code) && code != 101)
}

/// Whether a value of `Transfer-Encoding` can be followed; without it, `Content-Length` or the end of the connection
/// counts.
fn is_chunked(value: &[u8]) -> bool {
    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// The same head in the form that the parser expects, without lines that are broken.
fn mend(head: &[u8], faults: &Faults) -> Vec<u8> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).zip(1..);
    let (first, _) = lines.next().unwrap_or_default();
    let mut is_old = false;
    let mut mended = match status(first) {
        // The version decides about chunks and reuse only: this connection is not used again.
        Some((version, code)) => {
            is_old = version.eq_ignore_ascii_case(b"HTTP/1.0");
            format!("HTTP/1.1 {code:03} \r\n").into_bytes()
        }
        None => {
            faults.add(1, first);
            [first, b"\r\n"].concat()
        }
    };
    let mut fields: Vec<(usize, &[u8], Vec<u8>)> = Vec::new();
    for (line, number) in lines.filter(|(line, _)| !line.is_empty()) {
        let is_broken = |text: &[u8]| text.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
        if matches!(line[0], b' ' | b'\t')
            && let Some((_, _, value)) = fields.last_mut().filter(|_| !is_broken(line))
        {
            value.push(b' ');
            value.extend_from_slice(line.trim_ascii());
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let field = colon.map(|at| (line[..at].trim_ascii_end(), line[at + 1..].trim_ascii()));
        match field.filter(|(name, value)| hyper::header::HeaderName::from_bytes(name).is_ok() && !is_broken(value)) {
            Some((name, value)) => fields.push((number, name, value.to_vec())),
            None => faults.add(number, line),
        }
    }
    let mut length: Option<Vec<u8>> = None;
    for (number, name, value) in fields {
        let line = [name, b": ", &value].concat();
        let is_kept = if name.eq_ignore_ascii_case(b"transfer-encoding") {
            !is_old && is_chunked(&value)
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // Two lengths that differ are left for the parser to refuse: the body may end at either.
            let is_other = length.as_ref().is_some_and(|length| *length != value);
            if is_other {
                faults.add(number, &line);
            }
            let is_number = value.split(|byte| *byte == b',').all(|part| {
                let digits = part.trim_ascii();
                !digits.is_empty() && digits.len() < 20 && digits.iter().all(u8::is_ascii_digit)
            });
            if is_number {
                length = Some(value);
            }
            is_number
        } else {
            true
        };
        if is_kept {
            mended.extend_from_slice(&line);
            mended.extend_from_slice(b"\r\n");
        } else {
            faults.add(number, &line);
        }
    }
    mended.extend_from_slice(b"\r\n");
    mended
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn mended(head: &[u8]) -> (String, Vec<String>) {
        let faults = Faults::default();
        let text = String::from_utf8(mend(head, &faults)).unwrap();
        let faults = faults.0.lock().unwrap().clone();
        (text, faults)
    }

    #[test]
    fn broken_lines_are_left_out_and_named() {
        let (head, faults) =
            mended(b"HTTP/1.0  200 Fine\nA: 1\r\nno colon\r\nB : 2\r\nC: x\0y\r\n: 4\r\nD: a\rb\r\n\r\n");
        assert_eq!(head, "HTTP/1.1 200 \r\nA: 1\r\nB: 2\r\n\r\n");
        assert_eq!(faults, ["line 3 is `no colon`", "line 5 is `C: x\\x00y`", "line 6 is `: 4`"], "the first three");
    }

    #[test]
    fn folded_lines_are_joined() {
        let (head, faults) = mended(b"HTTP/1.1 200 OK\r\nA: 1\r\n  2\r\n\t3\r\nB: 4\r\n\r\n");
        assert_eq!((head.as_str(), faults), ("HTTP/1.1 200 \r\nA: 1 2 3\r\nB: 4\r\n\r\n", vec![]));
    }

    #[test]
    fn encodings_and_lengths_that_mean_nothing_are_left_out() {
        for (head, kept) in [
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", "Content-Length: 5\r\n"),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n", "Transfer-Encoding: gzip, Chunked\r\n"),
            ("HTTP/1.1 200 OK\r\nContent-Length: about 5\r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", "Content-Length: 5, 5\r\n"),
        ] {
            assert_eq!(mended(head.as_bytes()).0, format!("HTTP/1.1 200 \r\n{kept}\r\n"), "{head}");
        }
        let (head, faults) = mended(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n");
        assert!(head.contains("5\r\n") && head.contains("6\r\n"), "the parser refuses both");
        assert_eq!(faults, ["line 3 is `Content-Length: 6`"]);
    }

    async fn read(chunks: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let mut inner = tokio_test_io(chunks);
        let faults = Faults::default();
        let mut mended = MendedHead { inner: &mut inner, state: HeadState::Head(Vec::new()), faults: faults.clone() };
        let mut read = Vec::new();
        mended.read_to_end(&mut read).await.unwrap();
        let faults = faults.0.lock().unwrap().clone();
        (read, faults)
    }

    /// A stream that delivers one chunk at a time.
    fn tokio_test_io(chunks: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        let (mut to, from) = tokio::io::duplex(1 << 20);
        let chunks: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        tokio::spawn(async move {
            for chunk in chunks {
                tokio::io::AsyncWriteExt::write_all(&mut to, &chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        from
    }

    #[tokio::test]
    async fn only_the_head_of_the_last_response_is_mended() {
        let body = b"\xff\xd8 no: colon\r\n\r\n\0";
        let whole =
            [&b"\r\nHTTP/1.1 103 Early\r\nbad\r\n\r\nHTTP/1.1 200 OK\r\nbad\r\nA: 1\r\n\r\n"[..], body].concat();
        let expected = [&b"HTTP/1.1 200 \r\nA: 1\r\n\r\n"[..], body].concat();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        for chunks in [vec![&whole[..]], bytes] {
            let (found, faults) = read(&chunks).await;
            assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
            assert_eq!(faults, ["line 2 is `bad`"]);
        }
    }

    #[tokio::test]
    async fn other_protocols_pass_unchanged() {
        let (found, faults) = read(&[b"SSH-2.0-OpenSSH_9.2\r\n"]).await;
        assert_eq!(found, b"SSH-2.0-OpenSSH_9.2\r\n");
        assert_eq!(faults, ["line 1 is `SSH-2.0-OpenSSH_9.2`"]);
        assert_eq!(read(&[b"HTTP/1.1 200 OK\r\nA: "]).await.0, b"HTTP/1.1 200 OK\r\nA: ", "cut off");
    }
}
