//! Errors of a download, and whether another attempt may succeed.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::domain::{Cause, CauseCode};
use crate::error_chain::{find, innermost, tls_problem};
use crate::retry::LONGEST_WAIT;

/// Why a photo was not downloaded.
#[derive(Debug, Clone, PartialEq)]
pub enum FetchError {
    /// The photo is no longer available, or the host forbids its use.
    Gone(Cause),
    /// The URL leads to no acceptable photo: a forbidden address, a page, too many bytes.
    Rejected(Cause),
    /// Another attempt may succeed.
    Transient {
        cause: Cause,
        /// The least wait, where the host has asked for one or is busy.
        after: Option<Duration>,
        /// False for waits: the photo has not failed.
        costs_attempt: bool,
    },
}

/// Why a fetcher cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("contact `{0}` is not valid in an HTTP header: use a URL or an e-mail address in ASCII")]
    Contact(String),
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// Why a name has no address that may be contacted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("{ip} is not a public address ({why})")]
    Forbidden { ip: IpAddr, why: &'static str },
    #[error("the name is not public ({why})")]
    ForbiddenName { why: &'static str },
    #[error("the name has no address")]
    NoAddress,
    #[error("{0}")]
    NotFound(io::Error),
    /// No name server has answered, or they have failed (SERVFAIL).
    #[error("the name servers failed: {0}")]
    ServerFailed(io::Error),
}

impl From<io::Error> for ResolveError {
    fn from(error: io::Error) -> Self {
        // The error has no code: these are the texts of glibc and musl for `EAI_NONAME` and `EAI_NODATA`. All others
        // say that something went wrong on the way.
        const FINAL: [&str; 5] = [
            "Name or service not known",
            "No address associated with hostname",
            "Address family for hostname not supported",
            "Name does not resolve",
            "Name has no usable address",
        ];
        let text = error.to_string();
        // A name that is no name is not looked up.
        let is_final = error.kind() == ErrorKind::InvalidInput || FINAL.iter().any(|words| text.contains(words));
        if is_final { Self::NotFound(error) } else { Self::ServerFailed(error) }
    }
}

impl FetchError {
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Gone(cause) | Self::Rejected(cause) | Self::Transient { cause, .. } => cause,
        }
    }

    /// Whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// The least wait before another attempt, where the host has asked for one or is busy.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { after, .. } => *after,
            Self::Gone(_) | Self::Rejected(_) => None,
        }
    }

    /// Whether a failure uses up one of the photo's attempts. A wait does not.
    pub fn costs_attempt(&self) -> bool {
        matches!(self, Self::Transient { costs_attempt: true, .. })
    }

    pub(super) fn gone(code: impl Into<CauseCode>, detail: impl Into<String>) -> Self {
        Self::Gone(Cause::new(code, detail))
    }

    pub(super) fn rejected(code: CauseCode, detail: impl Into<String>) -> Self {
        Self::Rejected(Cause::new(code, detail))
    }

    pub(super) fn failed(code: impl Into<CauseCode>, detail: impl Into<String>) -> Self {
        Self::Transient { cause: Cause::new(code, detail), after: None, costs_attempt: true }
    }

    pub(super) fn wait(code: impl Into<CauseCode>, detail: impl Into<String>, after: Option<Duration>) -> Self {
        Self::Transient { cause: Cause::new(code, detail), after, costs_attempt: false }
    }

    pub(super) fn forbidden(host: &str, ip: IpAddr, why: &str) -> Self {
        let known = if host.trim_matches(['[', ']']) == ip.to_string() { String::new() } else { format!("{host}: ") };
        Self::rejected(CauseCode::ForbiddenAddress, format!("{known}{ip} is not a public address ({why})"))
    }

    pub(super) fn forbidden_name(host: &str, why: &str) -> Self {
        Self::rejected(CauseCode::ForbiddenAddress, format!("{host} is not a public name ({why})"))
    }

    /// The same error with a remark after its detail.
    pub(super) fn with_remark(mut self, remark: &str) -> Self {
        let (Self::Gone(cause) | Self::Rejected(cause) | Self::Transient { cause, .. }) = &mut self;
        *cause = Cause::new(cause.code.clone(), format!("{} ({remark})", cause.detail));
        self
    }

    /// The error for a status that is neither success nor a redirect.
    ///
    /// Every 4xx status is final, except 408, 425 and 429.
    pub(super) fn from_status(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Self {
        let code = CauseCode::Http(status.as_u16());
        let detail = format!("the host answered {status}");
        let after = parse_retry_after(headers, now);
        match status.as_u16() {
            429 => Self::wait(code, detail, after),
            503 if after.is_some() => Self::wait(code, detail, after),
            408 | 425 => Self::failed(code, detail),
            400..500 => Self::gone(code, detail),
            _ => Self::failed(code, detail),
        }
    }

    /// Whether neither the host nor a name server has answered.
    pub(super) fn is_unreachable(error: &reqwest::Error) -> bool {
        if error.is_dns() {
            return is_dns_failure(error);
        }
        error.is_connect() && (error.is_timeout() || connection_code(error) == CauseCode::Unreachable)
    }

    /// The error for a request without a response, or with an incomplete one.
    pub(super) fn from_error(error: &reqwest::Error, host: &str) -> Self {
        match find(error) {
            Some(ResolveError::Forbidden { ip, why }) => return Self::forbidden(host, *ip, why),
            Some(ResolveError::ForbiddenName { why }) => return Self::forbidden_name(host, why),
            _ => {}
        }
        if let Some(tls) = find::<rustls::Error>(error).filter(|_| !error.is_timeout()) {
            return Self::failed(CauseCode::Tls, format!("{host}: {}", tls_problem(tls)));
        }
        let code = if error.is_timeout() {
            CauseCode::Timeout
        } else if is_dns_failure(error) {
            CauseCode::DnsFailed
        } else if error.is_dns() {
            CauseCode::Dns
        } else {
            connection_code(error)
        };
        Self::failed(code, format!("{host}: {}", innermost(error)))
    }
}

/// Whether the name servers failed; a name that does not exist is no failure.
fn is_dns_failure(error: &reqwest::Error) -> bool {
    error.is_dns() && matches!(find(error), Some(ResolveError::ServerFailed(_)))
}

/// Whether a connection died before any response arrived. A request that was refused, timed out or answered with
/// something unreadable did not.
pub(super) fn is_unanswered(error: &reqwest::Error) -> bool {
    let is_parsed = find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse);
    error.is_request() && !error.is_timeout() && !error.is_connect() && !is_parsed
}

/// Whether the head of the response cannot be parsed, and is not just too long.
pub(super) fn is_bad_head(error: &reqwest::Error) -> bool {
    let is_bad = |error: &hyper::Error| error.is_parse() && !error.is_parse_too_large();
    error.is_request() && find::<hyper::Error>(error).is_some_and(is_bad)
}

/// The cause code of a broken connection.
fn connection_code(error: &reqwest::Error) -> CauseCode {
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => return CauseCode::ConnectionRefused,
        Some(ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe) => {
            return CauseCode::ConnectionReset;
        }
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => return CauseCode::Unreachable,
        _ => {}
    }
    match find::<hyper::Error>(error) {
        Some(hyper) if hyper.is_parse() => CauseCode::BadResponse,
        _ if error.is_body() || error.is_decode() => CauseCode::Truncated,
        Some(hyper) if hyper.is_incomplete_message() => CauseCode::ConnectionReset,
        _ if error.is_connect() => CauseCode::Unreachable,
        _ => CauseCode::BadResponse,
    }
}

/// The duration of a `Retry-After` header in seconds or with a date (RFC 9110, 10.2.3), at most [`LONGEST_WAIT`]. Zero
/// for a date in the past.
fn parse_retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, after: Option<&str>) -> FetchError {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, after.parse().unwrap());
        }
        // Sun, 06 Nov 1994 08:49:37 GMT, the example in the RFC.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        FetchError::from_status(StatusCode::from_u16(status).unwrap(), &headers, now)
    }

    #[test]
    fn client_errors_are_final() {
        for status in [400, 401, 402, 403, 404, 405, 410, 418, 451] {
            let FetchError::Gone(cause) = answer(status, None) else { panic!("{status}") };
            assert_eq!(cause.code, CauseCode::Http(status));
        }
    }

    #[test]
    fn other_statuses_cost_an_attempt() {
        for status in [304, 408, 425, 500, 502, 503, 504, 599] {
            let FetchError::Transient { costs_attempt: true, after: None, .. } = answer(status, None) else {
                panic!("{status}")
            };
        }
    }

    #[test]
    fn requests_to_wait_cost_no_attempt() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (status, header, expected) in [
            (429, None, None),
            (429, Some("7"), seconds(7)),
            (503, Some("120"), seconds(120)),
            (503, Some("Sun, 06 Nov 1994 08:51:37 GMT"), seconds(120)),
            (503, Some("Sunday, 06-Nov-94 08:51:37 GMT"), seconds(120)),
            (503, Some("Sun, 06 Nov 1994 08:00:00 GMT"), seconds(0)),
            (429, Some("86400"), seconds(3600)),
            (429, Some("99999999999999999999999"), seconds(3600)),
            (429, Some("Fri, 31 Dec 9999 23:59:59 GMT"), seconds(3600)),
            (429, Some("soon"), None),
            (429, Some("-5"), None),
        ] {
            let FetchError::Transient { costs_attempt: false, after, .. } = answer(status, header) else {
                panic!("{status} {header:?}")
            };
            assert_eq!(after, expected, "{status} {header:?}");
        }
        assert!(matches!(answer(503, Some("soon")), FetchError::Transient { costs_attempt: true, .. }));
    }

    #[test]
    fn a_failure_of_the_name_servers_differs_from_an_unknown_name() {
        let error = |text: &str| ResolveError::from(io::Error::other(format!("failed to lookup address: {text}")));
        for text in ["Temporary failure in name resolution", "Non-recoverable failure in name resolution", "Try again"]
        {
            assert!(matches!(error(text), ResolveError::ServerFailed(_)), "{text}");
        }
        for text in ["Name or service not known", "No address associated with hostname", "Name does not resolve"] {
            assert!(matches!(error(text), ResolveError::NotFound(_)), "{text}");
        }
    }

    #[test]
    fn a_remark_follows_the_detail() {
        let error = FetchError::gone(CauseCode::Http(404), "the host answered 404").with_remark("mended");
        assert_eq!(error, FetchError::gone(CauseCode::Http(404), "the host answered 404 (mended)"));
    }
}
