//! Requests for pictures: crops and originals of faces of the run, by their hashes.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;

use super::access::Person;
use super::error::ApiError;
use super::request::{Params, bad_parameter};
use super::state::CurationState;
use super::state::Shared;
use super::thumbnails::Thumbnail;
use crate::dataset::judging::StatusCounts;
use crate::domain::{ContentHash, ImageFormat};
use crate::memory::Reservation;
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
    let size: Option<u32> = Params::read(&uri, &["size"])?.parsed("size")?;
    if size.is_some_and(|size| !StatusCounts::SIZES.contains(&size)) {
        return Err(bad_parameter("size", "expected 256, 512 or 1024"));
    }
    let hash = parse(&hash)?;
    let found = shared.index.with(move |index| index.crop_picture(hash)).await?;
    let (format, width) = found.ok_or_else(unknown)?;
    let smaller = size.filter(|size| *size < width);
    let tag = smaller.map_or_else(|| hash.to_string(), |size| format!("{hash}-{size}"));
    if is_known(&headers, &tag) {
        return Ok(not_modified(&tag));
    }
    let read = async || Ok(shared.objects.get(&ObjectKey::face(hash, format)).await?);
    match smaller {
        Some(size) => {
            let body = shared.thumbnails.get(Thumbnail::Crop(hash, size), read).await?;
            Ok(picture(&shared, body, ImageFormat::Jpeg, &tag).await)
        }
        None => Ok(picture(&shared, read().await?, format, &tag).await),
    }
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
    let found = shared.index.with(move |index| index.original_picture(hash)).await?;
    let (format, bytes) = found.ok_or_else(unknown)?;
    let tag = hash.to_string();
    if is_known(&headers, &tag) {
        return Ok(not_modified(&tag));
    }
    // Originals are large: the memory is there before one is read.
    let memory = shared.memory.reserve(bytes).await;
    let read = async || Ok(shared.objects.get(&ObjectKey::original(hash, format)).await?);
    match is_shown(format) {
        true => Ok(sent(read().await?, format, &tag, memory)),
        false => {
            let body = shared.thumbnails.get(Thumbnail::Original(hash), read).await?;
            Ok(sent(body, ImageFormat::Jpeg, &tag, memory))
        }
    }
}

/// Whether all browsers show the format.
fn is_shown(format: ImageFormat) -> bool {
    match format {
        ImageFormat::Jpeg
        | ImageFormat::Png
        | ImageFormat::Webp
        | ImageFormat::Gif
        | ImageFormat::Bmp
        | ImageFormat::Avif => true,
        ImageFormat::Tiff | ImageFormat::Heic => false,
    }
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

async fn picture(shared: &CurationState, body: Bytes, format: ImageFormat, tag: &str) -> Response {
    let memory = shared.memory.reserve(body.len() as u64).await;
    sent(body, format, tag, memory)
}

/// A response that holds its memory until it is sent.
fn sent(body: Bytes, format: ImageFormat, tag: &str, memory: Reservation) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (header::CONTENT_LENGTH, HeaderValue::from(body.len())),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let parts = stream::unfold((Some(body), memory), |(body, memory)| async move {
        let body = body?;
        Some((Ok::<_, Infallible>(body), (None, memory)))
    });
    (StatusCode::OK, tagged(tag), headers, Body::from_stream(parts)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_any_form_are_compared() {
        let headers =
            |value: &str| HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap())]);
        for known in ["\"abc-256\"", "\"x\", W/\"abc-256\""] {
            assert!(is_known(&headers(known), "abc-256"), "{known}");
        }
        assert!(!is_known(&headers("\"abc\""), "abc-256"));
        assert!(!is_known(&HeaderMap::new(), "abc"));
    }
}
