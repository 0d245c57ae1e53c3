//! The span of a request.
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>

use opentelemetry::trace::Status;
use reqwest::Response;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;

use super::error::FetchError;

/// The span of a request, until the photo is downloaded. Its URL contains no secrets.
pub(super) fn request(url: &Url) -> Span {
    let span = tracing::trace_span!("request", otel.name = "GET", otel.kind = "client");
    if !span.is_disabled() {
        span.set_attribute("http.request.method", "GET");
        span.set_attribute("server.address", url.host_str().unwrap_or_default().to_owned());
        span.set_attribute("server.port", i64::from(url.port_or_known_default().unwrap_or_default()));
        span.set_attribute("url.scheme", url.scheme().to_owned());
        span.set_attribute("url.full", without_secrets(url.clone()));
    }
    span
}

/// Adds the response to the span of a request.
pub(super) fn record_response(span: &Span, response: &Response) {
    if span.is_disabled() {
        return;
    }
    span.set_attribute("http.response.status_code", i64::from(response.status().as_u16()));
    let version = format!("{:?}", response.version());
    span.set_attribute(
        "network.protocol.version",
        version.trim_start_matches("HTTP/").trim_end_matches(".0").to_owned(),
    );
    if let Some(peer) = response.remote_addr() {
        span.set_attribute("network.peer.address", peer.ip().to_string());
        span.set_attribute("network.peer.port", i64::from(peer.port()));
    }
}

/// Adds the error of a request, if there is one, to its span.
pub(super) fn record_error(span: &Span, error: Option<&FetchError>) {
    if let (Some(error), false) = (error, span.is_disabled()) {
        let cause = error.cause();
        span.set_attribute("error.type", cause.code.to_string());
        span.set_status(Status::error(cause.to_string()));
    }
}

/// A URL without user, password, query and fragment, which may contain secrets.
pub(crate) fn without_secrets(mut url: Url) -> String {
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_contain_no_secrets() {
        let url = Url::parse("https://me:pass@photos.test:8443/a/1.jpg?token=abc#x").unwrap();
        assert_eq!(without_secrets(url), "https://photos.test:8443/a/1.jpg");
    }
}
