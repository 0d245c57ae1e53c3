//! The time that requests take.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::telemetry::instruments;

/// Measures a request until the head of its response.
pub async fn measure(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let Some(instruments) = instruments::get() else { return next.run(request).await };
    let method = method(request.method());
    // Paths without a route come from strangers: they share one series.
    let route = request.extensions().get::<MatchedPath>().map_or_else(String::new, |path| path.as_str().to_owned());
    let response = next.run(request).await;
    instruments.http_request(method, route, response.status().as_u16(), began.elapsed());
    response
}

/// Other methods share one name: anybody can make one up.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "_OTHER",
    }
}
