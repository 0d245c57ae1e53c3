//! The page: HTML, styles and scripts, embedded in the program.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const SHELL: &str = include_str!("assets/index.html");
/// Nothing from other hosts, and nothing inline.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'");

/// The paths of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let paths = ["/", "/grid", "/border", "/faces/{photo_id}", "/statistics", "/sign-in"];
    paths.into_iter().fold(Router::new(), |router, path| router.route(path, get(shell)))
}

async fn shell() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, SHELL).into_response()
}
