//! Requests for pictures: crops and originals of faces of the run, by their hashes.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::access::Person;
use super::error::ApiError;
use super::request::Params;
use super::state::Shared;
use crate::domain::{ContentHash, ImageFormat};
use crate::objects::ObjectKey;

/// A picture never changes under its hash.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

pub async fn crop(
    State(shared): State<Shared>,
    _person: Person,
    Path(hash): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    Params::read(&uri, &["size"])?;
    let hash = parse(&hash)?;
    let found = shared.index.with(move |index| index.crop_picture(hash)).await?;
    let (format, _) = found.ok_or_else(unknown)?;
    if is_known(&headers, &hash.to_string()) {
        return Ok(not_modified(&hash.to_string()));
    }
    let body = shared.objects.get(&ObjectKey::face(hash, format)).await?;
    Ok(picture(body, format, &hash.to_string()))
}

pub async fn original(
    State(shared): State<Shared>,
    _person: Person,
    Path(hash): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let hash = parse(&hash)?;
    let format = shared.index.with(move |index| index.original_picture(hash)).await?.ok_or_else(unknown)?;
    if is_known(&headers, &hash.to_string()) {
        return Ok(not_modified(&hash.to_string()));
    }
    let body = shared.objects.get(&ObjectKey::original(hash, format)).await?;
    Ok(picture(body, format, &hash.to_string()))
}

fn unknown() -> ApiError {
    ApiError::not_found("no face of this run has this picture")
}

fn parse(hash: &str) -> Result<ContentHash, ApiError> {
    hash.parse().map_err(|_| ApiError::not_found("expected the SHA-256 of a picture in 64 hex digits"))
}

/// Whether the client has the picture with this tag.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known.strip_prefix("W/").unwrap_or(known).trim_matches('"') == tag
    })
}

fn tagged(tag: &str) -> [(header::HeaderName, HeaderValue); 2] {
    let tag = HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""));
    [(header::ETAG, tag), (header::CACHE_CONTROL, IMMUTABLE)]
}

fn not_modified(tag: &str) -> Response {
    (StatusCode::NOT_MODIFIED, tagged(tag)).into_response()
}

fn picture(body: Bytes, format: ImageFormat, tag: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (StatusCode::OK, tagged(tag), headers, body).into_response()
}
