//! Reads requests strictly: unknown parameters and fields are errors, and bodies are bounded.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, Uri, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use url::form_urlencoded;

use super::error::ApiError;
use crate::dataset::Query;
use crate::dataset::face::FIELDS;

/// Bytes of the largest body.
pub const MAX_BODY: usize = 256 * 1024;
/// Entries, faces and verdicts in one request or response.
pub const MAX_ITEMS: usize = 200;

/// The parameters of a query string.
#[derive(Debug)]
pub struct Params(HashMap<String, String>);

impl Params {
    /// # Errors
    /// A parameter is not one of `allowed`, or is given twice.
    pub fn read(uri: &Uri, allowed: &[&str]) -> Result<Self, ApiError> {
        let mut params = HashMap::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let bad = |what: &str| {
                let name: String = name.chars().take(80).collect();
                ApiError::malformed("bad-parameter", format!("the parameter {name:?} {what}"))
            };
            if !allowed.contains(&&*name) {
                return Err(bad(&format!("is not known: expected {}", allowed.join(", "))));
            }
            if params.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(bad("is given twice"));
            }
        }
        Ok(Self(params))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: &str| text.parse().map_err(|error: T::Err| bad_parameter(name, error));
        self.text(name).map(parse).transpose()
    }

    /// A number in a range.
    pub fn number<T>(&self, name: &str, default: T, range: RangeInclusive<T>) -> Result<T, ApiError>
    where
        T: FromStr<Err: Display> + PartialOrd + Display,
    {
        let number = self.parsed(name)?.unwrap_or(default);
        match range.contains(&number) {
            true => Ok(number),
            false => Err(bad_parameter(name, format!("expected {} to {}", range.start(), range.end()))),
        }
    }

    /// The query `where`.
    pub fn query(&self) -> Result<Query, ApiError> {
        query(self.text("where").unwrap_or_default())
    }
}

pub fn bad_parameter(name: &str, error: impl Display) -> ApiError {
    ApiError::malformed("bad-parameter", format!("{name}: {error}"))
}

/// A query over the fields of faces.
pub fn query(text: &str) -> Result<Query, ApiError> {
    Query::parse(text, FIELDS).map_err(|error| ApiError::malformed("bad-query", error))
}

/// A share or probability.
pub fn check_share(name: &str, share: f64) -> Result<f64, ApiError> {
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(ApiError::invalid("bad-field", format!("{name} is {share}: expected a number from 0 to 1"))),
    }
}

/// A body of JSON.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") {
            let message = "expected a body with Content-Type: application/json";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad-media-type", message));
        }
        let body = to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
            let message = format!("the body is larger than {MAX_BODY} bytes, or ended early");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
        })?;
        serde_json::from_slice(&body).map(Self).map_err(|error| match error.classify() {
            Category::Data => ApiError::invalid("bad-field", error),
            _ => ApiError::malformed("bad-json", error),
        })
    }
}

/// Names a client, such as a tab of a browser: 1 to 64 of `[A-Za-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a client's id is not valid: expected 1 to 64 of A-Z, a-z, 0-9 and '-'")]
pub struct BadClientId;

impl TryFrom<String> for ClientId {
    type Error = BadClientId;

    fn try_from(text: String) -> Result<Self, BadClientId> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match (1..=64).contains(&text.len()) && text.chars().all(legal) {
            true => Ok(Self(text)),
            false => Err(BadClientId),
        }
    }
}

impl FromStr for ClientId {
    type Err = BadClientId;

    fn from_str(text: &str) -> Result<Self, BadClientId> {
        text.to_owned().try_into()
    }
}

impl From<ClientId> for String {
    fn from(id: ClientId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_doubled_and_bad_parameters_are_errors() {
        let read = |query: &str| Params::read(&format!("/x?{query}").parse().unwrap(), &["where", "limit"]);
        let params = read("where=label%3D%27a+b%27&limit=7").unwrap();
        assert_eq!((params.text("where"), params.number("limit", 1, 1..=9).unwrap()), (Some("label='a b'"), 7));
        assert_eq!(read("").unwrap().number("limit", 5, 1..=9).unwrap(), 5);
        for (query, part) in [("size=1", "\"size\" is not known"), ("limit=1&limit=2", "\"limit\" is given twice")] {
            let error = read(query).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert!(params.number("limit", 1, 1..=6).unwrap_err().message.contains("limit: expected 1 to 6"));
        assert!(read("limit=x").unwrap().number("limit", 1, 1..=6).is_err());
        assert_eq!(read("where=size").unwrap().query().unwrap_err().code, "bad-query");
    }

    #[test]
    fn client_ids_are_checked() {
        assert!("tab-1".parse::<ClientId>().is_ok());
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<ClientId>(), Err(BadClientId), "{bad}");
        }
    }
}
