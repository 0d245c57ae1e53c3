//! Sends GET requests, and repeats those that failed for no reason of the photo's.
//!
//! - A request that dies on a reused connection is repeated at once on a fresh one: the host had closed the connection
//!   before the request arrived, or closes it under every second request.
//! - A request whose response has a head that cannot be parsed is repeated by [`MendingClient`].

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, COOKIE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Client, Response};
use tokio::time::timeout;
use tower::{Layer, Service};
use tracing::Instrument;
use url::Url;

use super::error::{SetupError, is_bad_head, is_unanswered};
use super::mended_head::MendingClient;
use super::resolver::Resolver;
use super::rules::Rules;

/// The most headers of a response. Browsers have no limit but the size of the head.
const MAX_HEADERS: usize = 1024;

/// JPEG and PNG first: a host that could also make a WebP or AVIF of it sends the file that it stores.
const ACCEPTED: &str = "image/jpeg,image/png,image/gif,image/tiff,image/*;q=0.8,*/*;q=0.1";

tokio::task_local! {
    /// Whether the request of this task has made a connection.
    static HAS_CONNECTED: Cell<bool>;
}

/// Sends requests. All requests share the connections.
pub(super) struct HttpClient {
    pooled: Client,
    /// Makes a connection for each request.
    fresh: Client,
    mending: MendingClient,
    rules: Arc<Rules>,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum RequestError {
    /// No response within this time.
    Timeout(Duration),
    Failed(reqwest::Error),
    /// The head of the response cannot be parsed, not even when it is mended.
    BadHead(String),
}

impl HttpClient {
    pub fn new(rules: &Arc<Rules>) -> Result<Self, SetupError> {
        let headers = headers(rules)?;
        let most = rules.host_rules.max_per_host().unwrap_or(0).max(rules.per_host);
        let pooled = builder(rules, &headers)?.pool_max_idle_per_host(most);
        let fresh = builder(rules, &headers)?.pool_max_idle_per_host(0);
        let build =
            |builder: reqwest::ClientBuilder| builder.build().map_err(|error| SetupError::Client(error.to_string()));
        Ok(Self {
            pooled: build(pooled.pool_idle_timeout(Duration::from_secs(10)))?,
            fresh: build(fresh)?,
            mending: MendingClient::new(rules.clone(), tls()?, headers, MAX_HEADERS),
            rules: rules.clone(),
        })
    }

    /// The response to a GET of the URL, which must have been checked. Redirects are not followed. The headers of the
    /// URL's host are added.
    pub async fn get(&self, url: &Url, cookies: Option<HeaderValue>) -> Result<Response, RequestError> {
        let headers = self.headers_for(url, cookies);
        let request = async {
            let answer = self.send(&self.pooled, url, &headers).await;
            (answer, HAS_CONNECTED.with(Cell::get))
        };
        let (mut answer, has_connected) = HAS_CONNECTED.scope(Cell::new(false), request).await;
        if let Err(RequestError::Failed(error)) = &answer
            && !has_connected
            && is_unanswered(error)
        {
            tracing::debug!(host = url.host_str(), "a reused connection was dead: the request is repeated");
            let repeated = self.send(&self.fresh, url, &headers);
            answer = repeated.instrument(tracing::trace_span!("fresh connection")).await;
        }
        match answer {
            Err(RequestError::Failed(error)) if is_bad_head(&error) => {
                let limit = self.rules.first_byte;
                let mended = self.mending.get(url, headers).instrument(tracing::trace_span!("mended head"));
                let mended = timeout(limit, mended).await;
                mended.map_err(|_| RequestError::Timeout(limit))?.map_err(RequestError::BadHead)
            }
            answer => answer,
        }
    }

    async fn send(&self, client: &Client, url: &Url, headers: &HeaderMap) -> Result<Response, RequestError> {
        let limit = self.rules.first_byte;
        let answer = timeout(limit, client.get(url.clone()).headers(headers.clone()).send()).await;
        answer.map_err(|_| RequestError::Timeout(limit))?.map_err(RequestError::Failed)
    }

    /// The headers of one request: those of the host's rules, and cookies.
    fn headers_for(&self, url: &Url, cookies: Option<HeaderValue>) -> HeaderMap {
        let mut headers = self.rules.host_rules.headers(url).cloned().unwrap_or_default();
        if let Some(cookies) = cookies {
            let own = headers.get(COOKIE).map(HeaderValue::as_bytes);
            let all = own.map(|own| HeaderValue::from_bytes(&[own, b"; ", cookies.as_bytes()].concat()));
            headers.insert(COOKIE, all.and_then(Result::ok).unwrap_or(cookies));
        }
        headers
    }
}

/// The headers of every request.
fn headers(rules: &Rules) -> Result<HeaderMap, SetupError> {
    let agent = HeaderValue::from_str(&rules.user_agent());
    let agent = agent.map_err(|_| SetupError::Contact(rules.contact.clone().unwrap_or_default()))?;
    let headers = [
        (USER_AGENT, agent),
        (ACCEPT, HeaderValue::from_static(ACCEPTED)),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ];
    Ok(headers.into_iter().collect())
}

fn builder(rules: &Arc<Rules>, headers: &HeaderMap) -> Result<reqwest::ClientBuilder, SetupError> {
    let mut tls = tls()?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let builder = Client::builder()
        .default_headers(headers.clone())
        .tls_backend_preconfigured(tls)
        .connector_layer(ConnectLayer)
        .dns_resolver(Resolver::new(Arc::clone(rules)))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(rules.connect)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_max_headers(MAX_HEADERS);
    Ok(builder)
}

fn tls() -> Result<rustls::ClientConfig, SetupError> {
    crate::tls::client_config(None).map_err(|error| SetupError::Client(error.to_string()))
}

/// Adds a span for each new connection, with DNS, TCP and TLS, and notes which request has made it.
#[derive(Debug, Clone)]
struct ConnectLayer;

impl<S> Layer<S> for ConnectLayer {
    type Service = Connect<S>;

    fn layer(&self, inner: S) -> Connect<S> {
        Connect(inner)
    }
}

#[derive(Debug, Clone)]
struct Connect<S>(S);

impl<S, R> Service<R> for Connect<S>
where
    S: Service<R>,
    S::Response: 'static,
    S::Error: 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let span = tracing::trace_span!("connect");
        // The call starts the DNS lookup.
        let connecting = span.in_scope(|| self.0.call(request));
        let connecting = async move {
            let connection = connecting.await;
            if connection.is_ok() {
                // A connection that is finished by another task does not carry this request: an idle one was faster.
                let _ = HAS_CONNECTED.try_with(|connected| connected.set(true));
            }
            connection
        };
        Box::pin(connecting.instrument(span))
    }
}
