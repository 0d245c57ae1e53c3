//! What a page asks first: who the person is, and about which run.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::access::Person;
use super::error::{ApiError, json_response};
use super::state::Shared;

/// The languages of the page.
const LANGUAGES: [&str; 2] = ["en", "ja"];

pub async fn session(State(shared): State<Shared>, person: Person) -> Result<Response, ApiError> {
    let history = shared.classifiers.read(&shared.run).await?;
    let model = history.current().map(|current| json!({ "sha256": current.model_sha256, "name": current.model }));
    let threshold = shared.index.with(|index| index.threshold()).await;
    let session = json!({
        "person": person,
        "run": shared.run,
        "store": shared.tickets.store_name(),
        "wanted": shared.wanted,
        "threshold": threshold,
        "model": model,
        "sign_in": shared.access.signs_in(),
        "languages": LANGUAGES,
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(json_response(StatusCode::OK, &session))
}
