//! Errors of the API: `{"error": {"code": "bad-query", "message": "..."}}`.

use std::fmt::Display;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::dataset::{FollowError, IndexError};
use crate::objects::ObjectError;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Seconds until another try makes sense.
    pub retry_after: Option<u64>,
    /// A number that the client needs to try again.
    pub count: Option<u64>,
}

impl ApiError {
    /// Seconds until a store that is unavailable may be back.
    const RETRY_AFTER: u64 = 5;

    pub fn new(status: StatusCode, code: &'static str, message: impl Display) -> Self {
        Self { status, code, message: message.to_string(), retry_after: None, count: None }
    }

    /// The request cannot be read.
    pub fn malformed(code: &'static str, message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The request can be read, but is not valid.
    pub fn invalid(code: &'static str, message: impl Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "sign-in", "sign in first")
    }

    pub fn forbidden(message: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub fn not_found(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    pub fn gone(message: impl Display) -> Self {
        Self::new(StatusCode::GONE, "gone", message)
    }

    pub fn conflict(code: &'static str, message: impl Display) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub fn unavailable(message: impl Display) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after: Some(Self::RETRY_AFTER), ..error }
    }

    /// `wait`: the time after which the client may try again.
    pub fn too_many(message: impl Display, wait: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", message);
        Self { retry_after: Some(wait.as_secs() + 1), ..error }
    }

    pub fn internal(message: impl Display) -> Self {
        tracing::error!(error = %message, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed: its log says why")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(count) = self.count {
            error["count"] = count.into();
        }
        let mut response = json_response(self.status, &json!({ "error": error }));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A response with a JSON body.
pub fn json_response(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let media_type = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, media_type)], body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a response cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl From<IndexError> for ApiError {
    fn from(error: IndexError) -> Self {
        Self::internal(error)
    }
}

impl From<ObjectError> for ApiError {
    /// A store that does not answer, or that refuses: nothing was stored.
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Missing(_) | ObjectError::Changed { .. } => Self::not_found(error),
            ObjectError::Server(error) => Self::unavailable(error),
        }
    }
}

impl From<crate::server_error::ServerError> for ApiError {
    fn from(error: crate::server_error::ServerError) -> Self {
        Self::unavailable(error)
    }
}

impl From<FollowError> for ApiError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Index(error) => error.into(),
            error => Self::unavailable(error),
        }
    }
}
