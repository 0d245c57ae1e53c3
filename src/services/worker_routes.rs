//! What a worker serves over HTTP: `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::health::Health;
use crate::telemetry::prometheus::{self, PrometheusReader};
use crate::web::HttpLimits;

/// Probes and scrapes are few and small.
pub const LIMITS: HttpLimits =
    HttpLimits { connections: 32, head: Duration::from_secs(5), request: Duration::from_secs(5), buffer: 16 << 10 };

pub fn router(health: Arc<Health>, metrics: PrometheusReader) -> Router {
    let ready = health.clone();
    let metrics = move || async move { ([(header::CONTENT_TYPE, prometheus::MEDIA_TYPE)], metrics.text()) };
    Router::new()
        .route("/healthz", get(move || async move { report(health.is_broken().then(|| "a stage has ended".into())) }))
        .route("/readyz", get(move || async move { report(ready.faults()) }))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "expected /healthz, /readyz or /metrics\n"))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "expected GET\n"))
}

/// 200 without faults, else 503 with one fault a line.
fn report(faults: impl IntoIterator<Item = String>) -> impl IntoResponse {
    let faults: Vec<String> = faults.into_iter().collect();
    match faults.is_empty() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, faults.join("\n") + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;

    async fn send(router: &Router, method: Method, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_probes_report_faults_and_the_end() {
        let shutdown = CancellationToken::new();
        let health = Arc::new(Health::new(shutdown.clone()));
        let router = router(health.clone(), PrometheusReader::default());
        let ok = (StatusCode::OK, "ok\n".to_owned());
        assert_eq!(send(&router, Method::GET, "/readyz").await, ok);
        health.note("redis", Some("no answer".into()));
        let unavailable = |text: &str| (StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
        assert_eq!(send(&router, Method::GET, "/readyz").await, unavailable("redis: no answer\n"));
        assert_eq!(send(&router, Method::GET, "/healthz").await, ok, "a new process would not help");
        health.note("redis", None);
        assert_eq!(send(&router, Method::GET, "/readyz").await, ok);
        shutdown.cancel();
        assert_eq!(send(&router, Method::GET, "/readyz").await, unavailable("shutting down\n"));
        assert_eq!(send(&router, Method::GET, "/healthz").await, ok);
        health.set_broken();
        assert_eq!(send(&router, Method::GET, "/healthz").await, unavailable("a stage has ended\n"));
    }

    #[tokio::test]
    async fn other_methods_and_paths_are_refused() {
        let router = router(Arc::new(Health::new(CancellationToken::new())), PrometheusReader::default());
        assert_eq!(send(&router, Method::HEAD, "/healthz").await, (StatusCode::OK, String::new()));
        assert_eq!(send(&router, Method::POST, "/healthz").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(send(&router, Method::GET, "/secrets").await.0, StatusCode::NOT_FOUND);
        assert_eq!(send(&router, Method::GET, "/metrics").await.0, StatusCode::OK);
    }
}
