//! Downloads a photo over HTTP.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, TRANSFER_ENCODING};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;

use super::client::{HttpClient, RequestError};
use super::content::{CheckedPicture, Content, ContentEncoding};
use super::cookies::CookieJar;
use super::error::{FetchError, SetupError};
use super::host_limiter::HostLimiter;
use super::host_limits::{Admission, DeferReason, HostLimits, Permit};
use super::network::NetworkMonitor;
use super::rules::Rules;
use super::{photo_url, robots, spans};
use crate::domain::photo_url::MendedUrl;
use crate::domain::{CauseCode, ContentHash, ImageFormat};
use crate::memory::{MemoryBudget, Reservation};
use crate::retry::TIERS;
use crate::telemetry::instruments;

/// The most memory in bytes that a Content-Length reserves before the body arrives.
const MAX_RESERVED: u64 = 256 * 1024;

/// A downloaded photo, unchanged.
#[derive(Debug)]
pub struct Download {
    pub bytes: Bytes,
    pub sha256: ContentHash,
    pub format: ImageFormat,
    /// The URL that was requested first; none if it is the photo's.
    pub mended_url: Option<MendedUrl>,
    /// What the host reserves about the use of the photo.
    pub opt_out: Option<String>,
    /// The share of `bytes` in the memory of all downloads. Keep it as long as `bytes`.
    pub reservation: Reservation,
}

/// Downloads photos within [`Rules`]. A process shares one fetcher, because it holds the limits of every host. Proxies
/// from the environment are not used: behind a proxy, addresses cannot be checked.
pub struct Fetcher {
    rules: Arc<Rules>,
    client: HttpClient,
    host_limits: HostLimits,
    memory: MemoryBudget,
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
        let client = HttpClient::new(&rules)?;
        let host_limits = HostLimits::new(&rules);
        let memory = MemoryBudget::new(rules.max_memory.max(rules.max_bytes));
        Ok(Self { rules, client, host_limits, memory, network: NetworkMonitor::default() })
    }

    /// Also applies the limits that all fetching processes share.
    pub fn with_limiter(self, limiter: Arc<dyn HostLimiter>) -> Self {
        Self { host_limits: self.host_limits.with_limiter(limiter), ..self }
    }

    /// The largest photo that is taken, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.rules.max_bytes
    }

    /// Downloads the photo at a URL. Follows redirects, never retries.
    pub async fn fetch(&self, url: &str) -> Result<Download, FetchError> {
        let (url, mended) = photo_url::parse(url, &self.rules)?;
        match self.follow(url).await {
            Ok(download) => Ok(Download { mended_url: mended, ..download }),
            Err(error) => Err(match mended {
                Some(mended) => error.with_remark(&mended.summary()),
                None => error,
            }),
        }
    }

    /// Follows redirects, from a URL that was checked.
    async fn follow(&self, mut url: Url) -> Result<Download, FetchError> {
        self.network.wait_until_up(self.rules.connect).await;
        let mut left = self.rules.total;
        let mut permit = self.admit(&url).await?;
        let mut redirects = 0;
        let mut cookies = CookieJar::default();
        loop {
            let began = Instant::now();
            let too_late =
                |_| FetchError::failed(CauseCode::Timeout, format!("not finished after {:?}", self.rules.total));
            let next = match timeout(left, self.request(&url, &permit, &mut cookies)).await.map_err(too_late)?? {
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
        let admission = self.host_limits.admit(host).instrument(tracing::trace_span!("wait for host")).await;
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

    async fn request(&self, url: &Url, permit: &Permit, cookies: &mut CookieJar) -> Result<Step, FetchError> {
        let span = spans::request(url);
        let step = self.send(url, permit, cookies).instrument(span.clone()).await;
        spans::record_error(&span, step.as_ref().err());
        step
    }

    async fn send(&self, url: &Url, permit: &Permit, cookies: &mut CookieJar) -> Result<Step, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let answer = self.client.get(url, cookies.header(url)).await;
        let answer = answer.map_err(|error| self.no_response(&error, host))?;
        self.network.on_answer(host);
        spans::record_response(&Span::current(), &answer);
        cookies.store(url, answer.headers(), SystemTime::now());
        match answer.status() {
            StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
                permit.on_success();
                self.photo(answer, host, None).instrument(tracing::trace_span!("download")).await.map(Step::Photo)
            }
            StatusCode::PARTIAL_CONTENT => {
                permit.on_success();
                let Some(whole) = whole_range(answer.headers()) else {
                    let range = answer.headers().get(CONTENT_RANGE).map(|range| format!(" ({range:?})"));
                    let detail = format!("the host sent a part of the photo{}", range.unwrap_or_default());
                    return Err(FetchError::failed(CauseCode::Http(206), detail));
                };
                let photo = self.photo(answer, host, Some(whole));
                photo.instrument(tracing::trace_span!("download")).await.map(Step::Photo)
            }
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => {
                Err(FetchError::rejected(CauseCode::EmptyBody, "the host sent no content"))
            }
            status if status.is_redirection() && answer.headers().contains_key(LOCATION) => {
                let location = answer.headers().get(LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
                photo_url::join(url, location, &self.rules).map(Step::Redirect)
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
    fn no_response(&self, error: &RequestError, host: &str) -> FetchError {
        let error = match error {
            RequestError::Timeout(limit) => return timed_out(host, "no response", *limit),
            RequestError::BadHead(what) => {
                self.network.on_answer(host);
                return FetchError::failed(CauseCode::BadResponse, format!("{host}: {what}"));
            }
            RequestError::Failed(error) => error,
        };
        if !FetchError::is_unreachable(error) {
            self.network.on_answer(host);
        } else if self.network.on_unreachable(host) {
            let detail = format!("{host} and all other hosts are unreachable: is the local network down?");
            return FetchError::wait(CauseCode::NoNetwork, detail, None);
        }
        FetchError::from_error(error, host)
    }

    /// Reads the body, unless it is too large or no photo. `whole`: the length that it must have, if that is known from
    /// elsewhere.
    async fn photo(&self, mut answer: Response, host: &str, whole: Option<u64>) -> Result<Download, FetchError> {
        check_robots(answer.headers())?;
        let opt_out = robots::opt_out(answer.headers());
        let encoding = ContentEncoding::of(answer.headers());
        let stop = length_without_encoding(answer.headers());
        let length = answer.content_length().or(stop);
        if length.is_some_and(|length| length > self.rules.max_bytes) {
            return Err(self.too_large());
        }
        let mut reservation = self.reserve(encoding.memory(length, self.rules.max_bytes)).await?;
        let capacity = length.unwrap_or(0).min(MAX_RESERVED) as usize;
        let mut content = Content::new(encoding, self.rules.max_bytes, capacity);
        while let Some(mut chunk) = self.chunk(&mut answer, host).await? {
            if let Some(stop) = stop {
                chunk.truncate(usize::try_from(stop - content.received()).unwrap_or(usize::MAX));
            }
            content.push(&chunk)?;
            if stop == Some(content.received()) {
                break;
            }
        }
        if let Some(expected) = whole.or(stop).filter(|expected| *expected != content.received()) {
            let detail = format!("{host}: {} of {expected} bytes", content.received());
            return Err(FetchError::failed(CauseCode::Truncated, detail));
        }
        let CheckedPicture { bytes, sha256, format } = content.finish()?;
        Span::current().set_attribute("facemill.bytes", bytes.len() as i64);
        reservation.shrink_to(bytes.len() as u64);
        Ok(Download { bytes: bytes.into(), sha256, format, mended_url: None, opt_out, reservation })
    }

    /// Waits for memory, for `queue_timeout` at most.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, FetchError> {
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

/// Refuses a photo whose host forbids its use.
fn check_robots(headers: &HeaderMap) -> Result<(), FetchError> {
    let tags = headers.get_all("x-robots-tag").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let tags: Vec<_> = tags.collect();
    match robots::forbids(tags.iter().map(AsRef::as_ref)) {
        None => Ok(()),
        Some(directive) => Err(FetchError::gone(
            CauseCode::RefusedByRobotsTag,
            format!("the X-Robots-Tag header contains {directive}"),
        )),
    }
}

/// The `Content-Length` beside a `Transfer-Encoding` that is not chunked, such as `identity`: the HTTP client would
/// read until the host closes the connection, which it may not do.
fn length_without_encoding(headers: &HeaderMap) -> Option<u64> {
    let encodings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes).collect();
    let is_chunked = encodings.iter().any(|value| value.to_ascii_lowercase().ends_with(b"chunked"));
    let length = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok();
    if encodings.is_empty() || is_chunked { None } else { length() }
}

/// The length of a photo whose `Content-Range` is all of it: `bytes 0-99/100`.
fn whole_range(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (unit, range) = range.split_once([' ', '='])?;
    let (range, length) = range.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last, length) = (number(first)?, number(last)?, number(length)?);
    (unit.eq_ignore_ascii_case("bytes") && first == 0 && last.checked_add(1) == Some(length)).then_some(length)
}

fn timed_out(host: &str, what: &str, limit: Duration) -> FetchError {
    FetchError::failed(CauseCode::Timeout, format!("{host}: {what} within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_range_is_a_photo() {
        let whole = |range: &str| whole_range(&[(CONTENT_RANGE, range.parse().unwrap())].into_iter().collect());
        for range in ["bytes 0-99/100", "Bytes 0-99/100", "bytes=0-99/100", "bytes 0 - 99 / 100"] {
            assert_eq!(whole(range), Some(100), "{range}");
        }
        for range in ["bytes 0-98/100", "bytes 1-99/100", "bytes 0-99/*", "bytes */100", "pages 0-99/100", "", "0-9/10"]
        {
            assert_eq!(whole(range), None, "{range}");
        }
        assert_eq!(whole(&format!("bytes 0-{0}/{0}", u64::MAX)), None);
        assert_eq!(whole_range(&HeaderMap::new()), None);
    }

    #[test]
    fn a_length_counts_beside_an_encoding_that_is_not_chunked() {
        let length = |encoding: &'static str| {
            let encoding = HeaderValue::from_static(encoding);
            let headers = [(TRANSFER_ENCODING, encoding), (CONTENT_LENGTH, HeaderValue::from_static("7"))];
            length_without_encoding(&headers.into_iter().collect())
        };
        assert_eq!(["identity", "none", "chunked", "gzip, Chunked"].map(length), [Some(7), Some(7), None, None]);
        assert_eq!(length_without_encoding(&HeaderMap::new()), None);
    }
}
