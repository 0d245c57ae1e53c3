//! What can stand between us and a photo, and whether it may pass.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::domain::{Cause, CauseCode};

/// Why there is no photo.
#[derive(Debug, Clone, PartialEq)]
pub enum FetchError {
    /// It is not to be had any more: the host says so, or does not want it used.
    Gone(Cause),
    /// Whatever is there is not to be fetched: a forbidden address, a page, too many bytes.
    Rejected(Cause),
    /// Something that may pass.
    Transient {
        cause: Cause,
        /// How long to wait at least, when the host said so or is busy with others.
        after: Option<Duration>,
        /// Being told to wait is nobody's failure.
        costs_attempt: bool,
    },
}

/// A name that leads nowhere we may go.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("{ip} is not a public address ({why})")]
    Forbidden { ip: IpAddr, why: &'static str },
    #[error("the name has no address")]
    Nothing,
    #[error("{0}")]
    Unknown(io::Error),
    /// No name server has answered.
    #[error("{0}")]
    Silence(io::Error),
}

impl From<io::Error> for ResolveError {
    fn from(error: io::Error) -> Self {
        // `EAI_AGAIN`, in the words of glibc and of musl: the code itself is not handed on.
        let text = error.to_string();
        let again = ["Temporary failure in name resolution", "Try again"].iter().any(|words| text.contains(words));
        if again { Self::Silence(error) } else { Self::Unknown(error) }
    }
}

/// Whoever asks for a longer wait gets this one.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl FetchError {
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Gone(cause) | Self::Rejected(cause) | Self::Transient { cause, .. } => cause,
        }
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

    /// What any status but success and a redirect means.
    ///
    /// Every 4xx is the host's last word but for 408, 425 and 429, which speak of this moment.
    pub(super) fn from_status(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Self {
        let code = CauseCode::Http(status.as_u16());
        let detail = format!("the host answered {status}");
        let after = retry_after(headers, now);
        match status.as_u16() {
            429 => Self::wait(code, detail, after),
            503 if after.is_some() => Self::wait(code, detail, after),
            408 | 425 => Self::failed(code, detail),
            400..500 => Self::gone(code, detail),
            _ => Self::failed(code, detail),
        }
    }

    /// Whether nobody answered a request: no host, or no name server that was asked for it.
    pub(super) fn is_unreachable(error: &reqwest::Error) -> bool {
        if error.is_dns() {
            return matches!(find(error), Some(ResolveError::Silence(_)));
        }
        error.is_connect() && (error.is_timeout() || broken(error) == CauseCode::Unreachable)
    }

    /// What a request that found no answer, or an answer that broke off, means.
    pub(super) fn from_error(error: &reqwest::Error, host: &str) -> Self {
        if let Some(ResolveError::Forbidden { ip, why }) = find(error) {
            return Self::forbidden(host, *ip, why);
        }
        let code = if error.is_timeout() {
            CauseCode::Timeout
        } else if error.is_dns() {
            CauseCode::Dns
        } else if find::<rustls::Error>(error).is_some() {
            CauseCode::Tls
        } else {
            broken(error)
        };
        Self::failed(code, format!("{host}: {}", innermost(error)))
    }
}

/// The code of a connection that broke.
fn broken(error: &reqwest::Error) -> CauseCode {
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

/// The first error of a kind in the chain.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        error = beneath(error)?;
    }
}

/// What the last error of the chain says; the outer ones only say that a request failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(next) = beneath(error) {
        error = next;
    }
    error.to_string()
}

/// The next error of the chain. An `io::Error`'s `source` skips the error that it wraps.
fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), an hour at the most. A date that has passed is zero.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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
        // Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        FetchError::from_status(StatusCode::from_u16(status).unwrap(), &headers, now)
    }

    #[test]
    fn the_hosts_last_word_is_final() {
        for status in [400, 401, 402, 403, 404, 405, 410, 418, 451] {
            let FetchError::Gone(cause) = answer(status, None) else { panic!("{status}") };
            assert_eq!(cause.code, CauseCode::Http(status));
        }
    }

    #[test]
    fn what_may_pass_costs_an_attempt() {
        for status in [304, 408, 425, 500, 502, 503, 504, 599] {
            let FetchError::Transient { costs_attempt: true, after: None, .. } = answer(status, None) else {
                panic!("{status}")
            };
        }
    }

    #[test]
    fn being_told_to_wait_costs_none() {
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
    fn wrapped_errors_are_found() {
        let inner = rustls::Error::DecryptError;
        let outer = io::Error::other(io::Error::new(ErrorKind::InvalidData, inner));
        assert!(find::<rustls::Error>(&outer).is_some());
        assert!(find::<hyper::Error>(&outer).is_none());
    }

    #[test]
    fn a_name_server_that_does_not_answer_is_not_one_that_knows_no_such_name() {
        let told = |text: &str| ResolveError::from(io::Error::other(format!("failed to lookup address: {text}")));
        assert!(matches!(told("Temporary failure in name resolution"), ResolveError::Silence(_)));
        assert!(matches!(told("Name or service not known"), ResolveError::Unknown(_)));
    }
}
