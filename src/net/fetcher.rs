//! One photo over HTTP.

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
use super::host_limits::{Entry, HostLimits, Permit, Why};
use super::reach::Reach;
use super::resolver::Resolver;
use super::rules::Rules;
use super::{photo_url, robots, spans};
use crate::domain::{CauseCode, ContentHash, ImageFormat};
use crate::telemetry::instruments;

/// Longest magic number among the picture formats.
const MAGIC: usize = 12;
/// A stranger's Content-Length earns this much memory in advance, not more.
const HEAD_START: u64 = 256 * 1024;

/// A photo as its host served it.
#[derive(Debug, Clone)]
pub struct Download {
    pub bytes: Bytes,
    pub sha256: ContentHash,
    pub format: ImageFormat,
}

/// Why there is no fetcher.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("contact `{0}` does not fit into a header: use a plain URL or e-mail address")]
    Contact(String),
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

/// Fetches photos under [`Rules`]. Share one: it knows what every host has asked for. Proxies named by the
/// environment are not used: behind one, no address could be checked.
pub struct Fetcher {
    rules: Arc<Rules>,
    client: Client,
    host_limits: HostLimits,
    reach: Reach,
}

/// What one request led to.
enum Step {
    Photo(Download),
    Redirect(Url),
}

impl Fetcher {
    pub fn new(rules: Rules) -> Result<Self, SetupError> {
        let rules = Arc::new(rules);
        let client = client(&rules)?;
        let host_limits = HostLimits::new(&rules);
        Ok(Self { rules, client, host_limits, reach: Reach::default() })
    }

    /// Keeps to the host_limiter of all processes that fetch.
    pub fn with_limiter(self, host_limiter: Arc<dyn HostLimiter>) -> Self {
        Self { host_limits: self.host_limits.with_limiter(host_limiter), ..self }
    }

    /// Fetches the photo behind a URL. Never retries.
    pub async fn fetch(&self, url: &str) -> Result<Download, FetchError> {
        let mut url = photo_url::parse(url, &self.rules)?;
        self.reach.wait(self.rules.connect).await;
        let mut left = self.rules.total;
        let mut permit = self.enter(&url).await?;
        let mut redirects = 0;
        loop {
            let began = Instant::now();
            let too_late = |_| FetchError::failed(CauseCode::Timeout, format!("not done after {:?}", self.rules.total));
            let next = match timeout(left, self.request(&url, &permit)).await.map_err(too_late)?? {
                Step::Photo(download) => return Ok(download),
                Step::Redirect(next) => next,
            };
            left = left.saturating_sub(began.elapsed());
            if redirects == self.rules.max_redirects {
                let detail = format!("more than {redirects}, the last one to {next}");
                return Err(FetchError::rejected(CauseCode::TooManyRedirects, detail));
            }
            // Within a host the permit goes on; who would have to stand in line again might never get through.
            if next.host() != url.host() {
                drop(permit);
                permit = self.enter(&next).await?;
            }
            url = next;
            redirects += 1;
        }
    }

    async fn enter(&self, url: &Url) -> Result<Permit, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let came = Instant::now();
        let entry = self.host_limits.enter(host).instrument(tracing::trace_span!("line")).await;
        if let Some(instruments) = instruments::get() {
            instruments.host_wait(came.elapsed());
        }
        let (after, why) = match entry {
            Entry::Go(permit) => return Ok(permit),
            Entry::Later { after, why } => (after, why),
        };
        let (code, detail) = match why {
            Why::Busy => (CauseCode::HostBusy, format!("{host} has as many requests as it gets")),
            Why::Quiet => (CauseCode::HostQuiet, format!("{host} has asked for a pause")),
            Why::Paused => (CauseCode::HostPaused, format!("requests to {host} are paused: see `facemill pause`")),
            Why::Away => (CauseCode::HostLimiter, format!("nobody can tell how many requests {host} has")),
        };
        Err(FetchError::wait(code, detail, Some(after)))
    }

    async fn request(&self, url: &Url, permit: &Permit) -> Result<Step, FetchError> {
        let span = spans::request(url);
        let step = self.ask(url, permit).instrument(span.clone()).await;
        spans::conclude(&span, step.as_ref().err());
        step
    }

    async fn ask(&self, url: &Url, permit: &Permit) -> Result<Step, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let sending = timeout(self.rules.first_byte, self.client.get(url.clone()).send());
        let answer = sending.await.map_err(|_| silent(host, "no answer", self.rules.first_byte))?;
        let answer = answer.map_err(|error| self.unanswered(&error, host))?;
        self.reach.answered(host);
        spans::answered(&Span::current(), &answer);
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
                let obstacle = FetchError::from_status(status, answer.headers(), SystemTime::now());
                if let FetchError::Transient { after, costs_attempt: false, .. } = obstacle {
                    let pause = permit.on_retry_after(after);
                    if let Some(instruments) = instruments::get() {
                        instruments.host_pause(host);
                    }
                    tracing::info!(host, seconds = pause.as_secs(), "host wants a pause");
                }
                Err(obstacle)
            }
        }
    }

    /// What it means that a request found no answer.
    fn unanswered(&self, error: &reqwest::Error, host: &str) -> FetchError {
        if !FetchError::is_unreachable(error) {
            self.reach.answered(host);
        } else if self.reach.is_lost_without(host) {
            let detail = format!("{host} does not answer, and nobody else does: is this machine's network away?");
            return FetchError::wait(CauseCode::NoNetwork, detail, None);
        }
        FetchError::from_error(error, host)
    }

    /// Takes the body in, as far as it is a photo and not too large.
    async fn photo(&self, mut answer: Response, host: &str) -> Result<Download, FetchError> {
        check_headers(answer.headers())?;
        let claimed = answer.content_length().unwrap_or(0);
        if claimed > self.rules.max_bytes {
            return Err(self.too_large());
        }
        let mut bytes = Vec::with_capacity(claimed.min(HEAD_START) as usize);
        let mut hash = Sha256::new();
        while let Some(piece) = self.piece(&mut answer, host).await? {
            if (bytes.len() + piece.len()) as u64 > self.rules.max_bytes {
                return Err(self.too_large());
            }
            hash.update(&piece);
            let known = bytes.len() >= MAGIC;
            bytes.extend_from_slice(&piece);
            if !known && bytes.len() >= MAGIC {
                sniff(&bytes)?;
            }
        }
        Span::current().set_attribute("facemill.bytes", bytes.len() as i64);
        let format = sniff(&bytes)?;
        let sha256 = ContentHash::from_digest(hash.finalize().into());
        Ok(Download { bytes: bytes.into(), sha256, format })
    }

    async fn piece(&self, answer: &mut Response, host: &str) -> Result<Option<Bytes>, FetchError> {
        let piece = timeout(self.rules.idle, answer.chunk()).await;
        let piece = piece.map_err(|_| silent(host, "nothing more", self.rules.idle))?;
        piece.map_err(|error| FetchError::from_error(&error, host))
    }

    fn too_large(&self) -> FetchError {
        FetchError::rejected(CauseCode::TooLarge, format!("more than {} bytes", self.rules.max_bytes))
    }
}

/// What the answer says about the photo, before any of it is read.
fn check_headers(headers: &HeaderMap) -> Result<(), FetchError> {
    let tags = headers.get_all("x-robots-tag").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let tags: Vec<_> = tags.collect();
    if let Some(directive) = robots::forbids(tags.iter().map(AsRef::as_ref)) {
        return Err(FetchError::gone(CauseCode::RefusedByRobotsTag, format!("its X-Robots-Tag says {directive}")));
    }
    // Nothing is unpacked here, so nothing can blow up; a packed photo is just not a photo.
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(FetchError::rejected(
            CauseCode::NotAnImage,
            format!("packed as {coding:?} although nobody asked for it"),
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
        FetchError::rejected(CauseCode::NotAnImage, format!("it begins with \"{start}\""))
    })
}

fn empty() -> FetchError {
    FetchError::rejected(CauseCode::EmptyBody, "the host sent nothing")
}

fn silent(host: &str, what: &str, limit: Duration) -> FetchError {
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
