//! The errors behind an error: what a library wraps, and what a person wants to read.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::CertificateError;

/// The first error of a type in the chain.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        error = source(error)?;
    }
}

/// The message of the last error in the chain; the outer errors only say that a request failed.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(next) = source(error) {
        error = next;
    }
    error.to_string()
}

/// Why a server of the installation does not answer, for people.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        let hint = match tls {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                ": SSL_CERT_FILE names a file with the certificates to trust"
            }
            rustls::Error::InvalidMessage(_) => ": is this the port for TLS?",
            _ => "",
        };
        return format!("TLS: {}{hint}", tls_problem(tls));
    }
    let innermost = innermost(error);
    if is_unknown_name(&innermost) {
        return "the host name is not known".into();
    }
    // Some libraries keep only the text of the operating system, which ends with its error number.
    let (text, code) = match innermost.split_once(" (os error ") {
        Some((text, code)) => (text, code.trim_end_matches(')').parse().ok()),
        None => (innermost.as_str(), None),
    };
    let by_code = code.map(|code| io::Error::from_raw_os_error(code).kind());
    match by_code.or_else(|| find::<io::Error>(error).map(io::Error::kind)) {
        Some(ErrorKind::ConnectionRefused) => "connection refused".into(),
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted) => {
            "the connection was closed".into()
        }
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => "the network does not reach it".into(),
        Some(ErrorKind::TimedOut) => "no answer in time".into(),
        Some(ErrorKind::UnexpectedEof) => "the connection was closed".into(),
        _ => text.to_owned(),
    }
}

/// The text without the numbers that Rust adds to errors of the operating system: ` (os error 2)`.
pub fn without_os_codes(mut text: String) -> String {
    const BEGIN: &str = " (os error ";
    let mut from = 0;
    while let Some(at) = text[from..].find(BEGIN).map(|at| from + at) {
        let code = text[at + BEGIN.len()..].find(|c: char| !c.is_ascii_digit()).map(|digits| at + BEGIN.len() + digits);
        match code {
            Some(end) if text[end..].starts_with(')') => text.replace_range(at..=end, ""),
            _ => from = at + BEGIN.len(),
        }
    }
    text
}

/// Whether a name server said that there is no such host.
pub fn is_unknown_name(text: &str) -> bool {
    let known = ["name or service not known", "no address associated with hostname", "name does not resolve"];
    let text = text.to_ascii_lowercase();
    known.iter().any(|known| text.contains(known))
}

/// What is wrong with a TLS connection, for people.
pub fn tls_problem(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(certificate) = error else { return error.to_string() };
    // A certificate that signs itself as an authority has a variant of its own only in webpki.
    let is_own_authority =
        matches!(certificate, CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity"));
    let problem = match certificate {
        CertificateError::UnknownIssuer => "the certificate is self-signed, or its authority is not trusted here",
        _ if is_own_authority => "the certificate is self-signed",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another name"
        }
        CertificateError::Revoked => "the certificate was revoked",
        _ => return format!("the certificate is not valid: {error}"),
    };
    problem.to_owned()
}

/// The next error in the chain. The `source` of an `io::Error` skips the error that it wraps, and so does that of a
/// shared error, as Redis errors have.
fn source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**shared);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_operating_system_are_cut() {
        for (text, shown) in [
            ("a.csv: No such file or directory (os error 2)", "a.csv: No such file or directory"),
            ("a: x (os error 2); b: y (os error 13).", "a: x; b: y."),
            ("a (os error of yours), (os error 5", "a (os error of yours), (os error 5"),
        ] {
            assert_eq!(without_os_codes(text.into()), shown);
        }
    }

    #[test]
    fn wrapped_errors_are_found() {
        let inner = rustls::Error::DecryptError;
        let outer = io::Error::other(io::Error::new(ErrorKind::InvalidData, inner));
        assert!(find::<rustls::Error>(&outer).is_some());
        assert!(find::<std::fmt::Error>(&outer).is_none());
    }

    #[test]
    fn problems_of_certificates_are_named() {
        let problem = |error| tls_problem(&rustls::Error::InvalidCertificate(error));
        assert!(problem(CertificateError::UnknownIssuer).contains("self-signed"));
        assert_eq!(problem(CertificateError::Expired), "the certificate has expired");
        assert_eq!(problem(CertificateError::NotValidForName), "the certificate is for another name");
        assert!(problem(CertificateError::BadEncoding).starts_with("the certificate is not valid: "));
        assert_eq!(tls_problem(&rustls::Error::DecryptError), rustls::Error::DecryptError.to_string());
    }

    #[test]
    fn reasons_are_for_people() {
        let refused = io::Error::other(io::Error::from_raw_os_error(111));
        assert_eq!(reason(&refused), "connection refused");
        assert_eq!(reason(&io::Error::other("Connection refused (os error 111)")), "connection refused");
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(reason(&io::Error::other(unknown)), "the host name is not known");
        let authority = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = io::Error::other(authority);
        assert!(reason(&authority).contains("SSL_CERT_FILE"));
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(authority);
        assert!(reason(&shared).contains("SSL_CERT_FILE"));
    }
}
