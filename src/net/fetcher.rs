//! Downloads a photo over HTTP.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;

use super::error::FetchError;
use super::host_limiter::HostLimiter;
use super::host_limits::{Admission, DeferReason, HostLimits, Permit};
use super::memory::{DownloadMemory, Reservation};
use super::network::NetworkMonitor;
use super::resolver::Resolver;
use super::rules::Rules;
use super::{photo_url, robots, spans};
use crate::domain::{CauseCode, ContentHash, ImageFormat};
use crate::retry::TIERS;
use crate::telemetry::instruments;

/// The length in bytes of the longest magic number of an image format.
const MAGIC: usize = 12;
/// The most memory in bytes that a Content-Length reserves before the body arrives.
const MAX_RESERVED: u64 = 256 * 1024;

/// A downloaded photo, unchanged.
#[derive(Debug)]
pub struct Download {
    pub bytes: Bytes,
    pub sha256: ContentHash,
    pub format: ImageFormat,
    /// The share of `bytes` in the memory of all downloads. Keep it as long as `bytes`.
    pub reservation: Reservation,
}

/// Why a fetcher cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("contact `{0}` is not valid in an HTTP header: use a URL or an e-mail address in ASCII")]
    Contact(String),
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// Downloads photos within [`Rules`]. A process shares one fetcher, because it holds the limits of every host. Proxies
/// from the environment are not used: behind a proxy, addresses cannot be checked.
pub struct Fetcher {
    rules: Arc<Rules>,
    client: Client,
    host_limits: HostLimits,
    memory: DownloadMemory,
    network: NetworkMonitor,
}

/// The result of one request.
enum Step {
    Photo(Download),
    Redirect(Url),
}

impl Fetcher {
    pub fn new(rules: Rules) -> Result<Self, SetupError> {
        let rules = Arc::new(rules);
        let client = client(&rules)?;
        let host_limits = HostLimits::new(&rules);
        let memory = DownloadMemory::new(rules.max_memory.max(rules.max_bytes));
        Ok(Self { rules, client, host_limits, memory, network: NetworkMonitor::default() })
    }

    /// Also applies the limits that all fetching processes share.
    pub fn with_limiter(self, limiter: Arc<dyn HostLimiter>) -> Self {
        Self { host_limits: self.host_limits.with_limiter(limiter), ..self }
    }

    /// Downloads the photo at a URL. Follows redirects, never retries.
    pub async fn fetch(&self, url: &str) -> Result<Download, FetchError> {
        let mut url = photo_url::parse(url, &self.rules)?;
        self.network.wait_until_up(self.rules.connect).await;
        let mut left = self.rules.total;
        let mut permit = self.admit(&url).await?;
        let mut redirects = 0;
        loop {
            let began = Instant::now();
            let too_late =
                |_| FetchError::failed(CauseCode::Timeout, format!("not finished after {:?}", self.rules.total));
            let next = match timeout(left, self.request(&url, &permit)).await.map_err(too_late)?? {
                Step::Photo(download) => return Ok(download),
                Step::Redirect(next) => next,
            };
            left = left.saturating_sub(began.elapsed());
            if redirects == self.rules.max_redirects {
                let detail = format!("more than {redirects} redirects, the last one to {next}");
                return Err(FetchError::rejected(CauseCode::TooManyRedirects, detail));
            }
            // A redirect within the host keeps the permit: back in the queue, the photo might never finish.
            if next.host() != url.host() {
                drop(permit);
                permit = self.admit(&next).await?;
            }
            url = next;
            redirects += 1;
        }
    }

    /// Waits for a permit of the URL's host.
    async fn admit(&self, url: &Url) -> Result<Permit, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let began = Instant::now();
        let admission = self.host_limits.admit(host).instrument(tracing::trace_span!("host queue")).await;
        if let Some(instruments) = instruments::get() {
            instruments.host_wait(began.elapsed());
        }
        let (after, reason) = match admission {
            Admission::Granted(permit) => return Ok(permit),
            Admission::Deferred { after, reason } => (after, reason),
        };
        let (code, detail) = match reason {
            DeferReason::Busy => (CauseCode::HostBusy, format!("{host} has reached its limit of requests")),
            DeferReason::Quiet => (CauseCode::HostQuiet, format!("{host} has asked for a pause")),
            DeferReason::Paused => {
                (CauseCode::HostPaused, format!("requests to {host} are paused: see `facemill pause`"))
            }
            DeferReason::LimiterUnavailable => {
                (CauseCode::HostLimiter, format!("the host limiter is unavailable: no request to {host} may start"))
            }
        };
        Err(FetchError::wait(code, detail, Some(after)))
    }

    async fn request(&self, url: &Url, permit: &Permit) -> Result<Step, FetchError> {
        let span = spans::request(url);
        let step = self.send(url, permit).instrument(span.clone()).await;
        spans::record_error(&span, step.as_ref().err());
        step
    }

    async fn send(&self, url: &Url, permit: &Permit) -> Result<Step, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let sending = timeout(self.rules.first_byte, self.client.get(url.clone()).send());
        let answer = sending.await.map_err(|_| timed_out(host, "no response", self.rules.first_byte))?;
        let answer = answer.map_err(|error| self.no_response(&error, host))?;
        self.network.on_answer(host);
        spans::record_response(&Span::current(), &answer);
        match answer.status() {
            StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
                permit.on_success();
                self.photo(answer, host).instrument(tracing::trace_span!("download")).await.map(Step::Photo)
            }
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => Err(empty()),
            status if status.is_redirection() && answer.headers().contains_key(LOCATION) => {
                let location = answer.headers().get(LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
                photo_url::join(url, &String::from_utf8_lossy(location), &self.rules).map(Step::Redirect)
            }
            status => {
                let error = FetchError::from_status(status, answer.headers(), SystemTime::now());
                if error.is_retryable() && !error.costs_attempt() {
                    let pause = permit.on_retry_after(error.retry_after());
                    if let Some(instruments) = instruments::get() {
                        instruments.host_pause(host);
                    }
                    tracing::info!(host, seconds = pause.as_secs(), "the host asks for a pause");
                }
                Err(error)
            }
        }
    }

    /// The error for a request without a response.
    fn no_response(&self, error: &reqwest::Error, host: &str) -> FetchError {
        if !FetchError::is_unreachable(error) {
            self.network.on_answer(host);
        } else if self.network.on_unreachable(host) {
            let detail = format!("{host} and all other hosts are unreachable: is the local network down?");
            return FetchError::wait(CauseCode::NoNetwork, detail, None);
        }
        FetchError::from_error(error, host)
    }

    /// Reads the body, unless it is too large or no photo.
    async fn photo(&self, mut answer: Response, host: &str) -> Result<Download, FetchError> {
        check_headers(answer.headers())?;
        let length = answer.content_length();
        if length.is_some_and(|length| length > self.rules.max_bytes) {
            return Err(self.too_large());
        }
        let mut reservation = self.reserve(length.unwrap_or(self.rules.max_bytes)).await?;
        let mut bytes = Vec::with_capacity(length.unwrap_or(0).min(MAX_RESERVED) as usize);
        let mut hash = Sha256::new();
        while let Some(chunk) = self.chunk(&mut answer, host).await? {
            if (bytes.len() + chunk.len()) as u64 > self.rules.max_bytes {
                return Err(self.too_large());
            }
            hash.update(&chunk);
            let was_checked = bytes.len() >= MAGIC;
            bytes.extend_from_slice(&chunk);
            if !was_checked && bytes.len() >= MAGIC {
                sniff(&bytes)?;
            }
        }
        Span::current().set_attribute("facemill.bytes", bytes.len() as i64);
        let format = sniff(&bytes)?;
        let sha256 = ContentHash::from_digest(hash.finalize().into());
        reservation.shrink_to(bytes.len() as u64);
        Ok(Download { bytes: bytes.into(), sha256, format, reservation })
    }

    /// Waits for memory, for `queue_timeout` at most.
    async fn reserve(&self, bytes: u64) -> Result<Reservation, FetchError> {
        timeout(self.rules.queue_timeout, self.memory.reserve(bytes)).await.map_err(|_| {
            let detail = format!("other downloads hold the {} bytes of memory for downloads", self.rules.max_memory);
            FetchError::wait(CauseCode::DownloadMemory, detail, Some(TIERS[0]))
        })
    }

    async fn chunk(&self, answer: &mut Response, host: &str) -> Result<Option<Bytes>, FetchError> {
        let chunk = timeout(self.rules.idle, answer.chunk()).await;
        let chunk = chunk.map_err(|_| timed_out(host, "no more data", self.rules.idle))?;
        chunk.map_err(|error| FetchError::from_error(&error, host))
    }

    fn too_large(&self) -> FetchError {
        FetchError::rejected(CauseCode::TooLarge, format!("more than {} bytes", self.rules.max_bytes))
    }
}

/// Checks the headers before any of the body is read.
fn check_headers(headers: &HeaderMap) -> Result<(), FetchError> {
    let tags = headers.get_all("x-robots-tag").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let tags: Vec<_> = tags.collect();
    if let Some(directive) = robots::forbids(tags.iter().map(AsRef::as_ref)) {
        return Err(FetchError::gone(
            CauseCode::RefusedByRobotsTag,
            format!("the X-Robots-Tag header contains {directive}"),
        ));
    }
    // Nothing is decompressed here, so no decompression bomb can expand.
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(FetchError::rejected(
            CauseCode::NotAnImage,
            format!("the response is compressed as {coding:?}, which was not requested"),
        )),
        _ => Ok(()),
    }
}

fn sniff(bytes: &[u8]) -> Result<ImageFormat, FetchError> {
    if bytes.is_empty() {
        return Err(empty());
    }
    ImageFormat::sniff(bytes).ok_or_else(|| {
        let start = bytes[..bytes.len().min(MAGIC)].escape_ascii();
        FetchError::rejected(CauseCode::NotAnImage, format!("the content begins with \"{start}\""))
    })
}

fn empty() -> FetchError {
    FetchError::rejected(CauseCode::EmptyBody, "the host sent an empty body")
}

fn timed_out(host: &str, what: &str, limit: Duration) -> FetchError {
    FetchError::failed(CauseCode::Timeout, format!("{host}: {what} within {limit:?}"))
}

fn client(rules: &Arc<Rules>) -> Result<Client, SetupError> {
    let agent = HeaderValue::from_str(&rules.user_agent());
    let agent = agent.map_err(|_| SetupError::Contact(rules.contact.clone().unwrap_or_default()))?;
    let headers = [
        (ACCEPT, HeaderValue::from_static("image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.1")),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ];
    Client::builder()
        .user_agent(agent)
        .default_headers(headers.into_iter().collect())
        .tls_backend_preconfigured(tls()?)
        .connector_layer(spans::ConnectLayer)
        .dns_resolver(Resolver::new(Arc::clone(rules)))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(rules.connect)
        .pool_max_idle_per_host(rules.per_host)
        .pool_idle_timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| SetupError::Client(error.to_string()))
}

fn tls() -> Result<rustls::ClientConfig, SetupError> {
    let mut config = crate::tls::client_config(None).map_err(|error| SetupError::Client(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
