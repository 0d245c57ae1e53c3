//! The paths of the server.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post, put};

use super::error::ApiError;
use super::request::MAX_BODY;
use super::state::Shared;
use super::{
    access, assets, balance, border, bulk, counts, duplicates, faces, judge, metrics, openapi, pictures, session,
    statistics, training,
};

/// All paths, for people that `access` lets in.
pub fn router(shared: Shared) -> Router {
    let api = Router::new()
        .route("/session", get(session::session).post(access::sign_in).delete(access::sign_out))
        .route("/lists", post(judge::open_list))
        .route("/lists/{list}/entries", post(judge::read_entries))
        .route("/verdicts", post(judge::send_verdicts))
        .route("/bulk", post(bulk::judge_all))
        .route("/bulk/{id}/undo", post(bulk::undo))
        .route("/border", get(border::border))
        .route("/statistics", get(statistics::statistics))
        .route("/training", get(training::training).post(training::start))
        .route("/openapi.json", get(openapi::document))
        .route("/clients/{client}/alive", post(judge::keep_alive))
        .route("/clients/{client}/closed", post(judge::close_client))
        .route("/faces", get(faces::list))
        .route("/faces/{photo_id}", get(faces::one))
        .route("/faces/{photo_id}/part", post(duplicates::part))
        .route("/counts", get(counts::counts))
        .route("/threshold", put(counts::set_threshold))
        .route("/labels", get(counts::labels))
        .route("/labels/counts", get(counts::label_counts))
        .route("/hosts", get(counts::hosts))
        .route("/balance", get(balance::balance))
        .fallback(async || ApiError::not_found("there is no such path: /api/openapi.json lists them"))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(metrics::measure));
    let pictures = Router::new()
        .route("/crops/{hash}", get(pictures::crop))
        .route("/originals/{hash}", get(pictures::original))
        .fallback(async || ApiError::not_found("expected /pictures/crops/HASH or /pictures/originals/HASH"))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(metrics::measure));
    let inside = Router::new()
        .nest("/api", api)
        .nest("/pictures", pictures)
        .merge(assets::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared.clone());
    access::protect(&shared.access, inside)
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", "the path does not have this method")
}
