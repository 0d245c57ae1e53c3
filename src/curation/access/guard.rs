//! What a request must fulfil before a handler sees it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use tower_http::csrf::{CsrfLayer, ProtectionError};

use super::client::Client;
use super::cookie::{clear_cookie, token_hash};
use super::directory::Snapshot;
use super::person::Person;
use super::state::Access;
use crate::curation::error::ApiError;
use crate::curation::request::MAX_BODY;
use crate::domain::UserName;
use crate::domain::clock::now;
use crate::telemetry::instruments;
use crate::web::Peer;

/// The time in which a body must arrive.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a body that is refused which are read nevertheless.
const DISCARDED: usize = 4 << 20;
/// Pages without data, which every visitor gets: the page asks to sign in.
const PUBLIC_PAGES: [&str; 5] = ["/", "/grid", "/border", "/statistics", "/sign-in"];

/// Refuses requests from other pages and from nobody, and adds [`Person`], [`Client`] and [`Access`] to those that it lets through.
pub fn guard(access: Access, router: Router) -> Router {
    let foreign = |_: ProtectionError| {
        refused(ApiError::new(StatusCode::FORBIDDEN, "foreign-origin", "the request comes from another page"))
    };
    router
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let access = access.clone();
            async move { access.admit(request, next).await }
        }))
        .layer(CsrfLayer::new().with_rejection_response(foreign))
}

/// The response to a request that is not let through.
fn refused(error: ApiError) -> Response {
    if let Some(instruments) = instruments::get() {
        instruments.refused(error.code);
    }
    error.into_response()
}

impl Access {
    async fn admit(&self, request: Request, next: Next) -> Response {
        let client = Client::of(&request, &self.shared.settings.proxies);
        let (mut parts, body) = request.into_parts();
        let error = match self.check(&mut parts, client).await {
            Ok(()) => match read(body, MAX_BODY).await {
                Ok(body) => return next.run(Request::from_parts(parts, body.into())).await,
                Err(error) => error,
            },
            Err(error) => {
                // A client that is still sending would not see the answer.
                let _ = read(body, 0).await;
                error
            }
        };
        let has_ended = error.status == StatusCode::UNAUTHORIZED && token_hash(&parts.headers, client.tls).is_some();
        let mut response = refused(error);
        if has_ended {
            response.headers_mut().append(header::SET_COOKIE, clear_cookie(client.tls));
        }
        response
    }

    /// Adds the person to a request that may be let in.
    async fn check(&self, request: &mut Parts, client: Client) -> Result<(), ApiError> {
        let is_local = !self.signs_in() && self.shared.settings.local.is_some();
        // Without users, the only client is the person at this machine.
        if !is_local && let Err(wait) = self.shared.requests.take(&client.address, Instant::now()) {
            return Err(ApiError::too_many("there are too many requests from this address", wait));
        }
        let snapshot = self.shared.directory.current().await?;
        if is_local && !names_this_machine(request) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "foreign-host",
                "the address of the page names another machine: open it as http://127.0.0.1 or http://localhost, or add \
                 users",
            ));
        }
        match self.person(request, client, &snapshot)? {
            Some(person) => {
                request.extensions.insert(person);
            }
            None if is_public(&request.method, request.uri.path()) => {}
            None => return Err(ApiError::unauthorized()),
        }
        request.extensions.insert(client);
        request.extensions.insert(self.clone());
        Ok(())
    }

    /// None: the request does not say who it comes from.
    fn person(&self, request: &Parts, client: Client, snapshot: &Snapshot) -> Result<Option<Person>, ApiError> {
        let settings = &self.shared.settings;
        let peer = request.extensions.get::<Peer>();
        if let Some(header) = &settings.header
            && peer.is_some_and(|peer| settings.proxies.contains(peer.address))
            && let Some(name) = only(&request.headers, header.name.as_str())?
        {
            let name: UserName = name.parse().map_err(|error| {
                let message = format!("the reverse proxy names somebody who cannot be a user: {error}");
                ApiError::new(StatusCode::UNAUTHORIZED, "bad-proxy-header", message)
            })?;
            let role = snapshot.users.users.get(&name).map_or(header.role, |user| user.role);
            return Ok(Some(Person { name: name.into(), role }));
        }
        let token = token_hash(&request.headers, client.tls);
        if let Some(session) = token.and_then(|hash| snapshot.session(hash, now().as_secs()))
            && let Some(user) = snapshot.users.users.get(&session.user)
        {
            return Ok(Some(Person { name: session.user.to_string(), role: user.role }));
        }
        Ok(settings.local.clone().filter(|_| settings.header.is_none() && snapshot.users.users.is_empty()))
    }
}

/// The value of a header that stands once at most. A proxy that appends its line to one of the client is not safe.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let bad = |what: &str| ApiError::new(StatusCode::UNAUTHORIZED, "bad-proxy-header", format!("{name} {what}"));
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("stands twice: the reverse proxy must replace it"));
    }
    let value = value.to_str().map_err(|_| bad("is not ASCII"))?;
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// Whether nobody needs to sign in for this. Everything that is not named needs it.
fn is_public(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => {
            let is_page = PUBLIC_PAGES.contains(&path) || path.starts_with("/faces/") || path.starts_with("/assets/");
            is_page || path == "/api/openapi.json"
        }
        Method::POST => path == "/api/session",
        _ => false,
    }
}

/// Whether the browser was told an address of this machine itself. A page of somebody else can give its own name the
/// address 127.0.0.1 (DNS rebinding), but then its name is in the request.
fn names_this_machine(request: &Parts) -> bool {
    let in_header = || request.headers.get(header::HOST)?.to_str().ok()?.parse().ok();
    let authority = request.uri.authority().cloned().or_else(in_header);
    let Some(authority) = authority else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_loopback || host.eq_ignore_ascii_case("localhost")
}

/// Reads a body before a handler sees the request, so that no handler waits for a slow client. Of a larger one, so much
/// is read and forgotten that most clients see the answer; the connection ends then.
async fn read(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let mut pieces = body.into_data_stream();
    let read = async {
        let (mut body, mut length) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| ApiError::malformed("bad-body", error))?;
            length += piece.len();
            if length <= most {
                body.extend_from_slice(&piece);
            } else if length > DISCARDED {
                break;
            }
        }
        match length <= most {
            true => Ok(body.into()),
            false => {
                let message = format!("the body is larger than {most} bytes");
                Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message))
            }
        }
    };
    let slow = |_| Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "the body took too long"));
    tokio::time::timeout(BODY_LIMIT, read).await.unwrap_or_else(slow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_pages_are_public() {
        let is_public = |method, path| is_public(&method, path);
        for path in ["/", "/grid", "/faces/7", "/assets/0a/page.js", "/api/openapi.json", "/sign-in"] {
            assert!(is_public(Method::GET, path) && !is_public(Method::PUT, path), "{path}");
        }
        assert!(is_public(Method::POST, "/api/session"));
        let closed = ["/api/session", "/api/faces", "/api/counts", "/pictures/crops/0a", "/API/faces", "//", "/x", ""];
        for path in closed {
            assert!(!is_public(Method::GET, path), "{path}");
        }
        assert!(!is_public(Method::DELETE, "/api/session") && !is_public(Method::POST, "/api/verdicts"));
    }

    #[test]
    fn hosts_of_other_machines_are_foreign() {
        let check = |uri: &str, host: Option<&str>| {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            names_this_machine(&request.body(Body::empty()).unwrap().into_parts().0)
        };
        for host in ["127.0.0.1:8080", "127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8080", "127.9.9.9"] {
            assert!(check("/", Some(host)), "{host}");
        }
        for host in
            ["evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example", "", "a b", "0.0.0.0"]
        {
            assert!(!check("/", Some(host)), "{host}");
        }
        assert!(!check("/", None));
        assert!(!check("http://evil.example/", Some("127.0.0.1")));
    }
}
