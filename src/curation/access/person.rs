//! The person of a request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::curation::error::ApiError;
use crate::domain::Role;

/// The person of a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Person {
    pub name: String,
    pub role: Role,
}

/// Everybody who may see the run.
impl<S: Send + Sync> FromRequestParts<S> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

/// A person who may judge.
pub struct Curator(pub Person);

impl<S: Send + Sync> FromRequestParts<S> for Curator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let person = Person::from_request_parts(parts, state).await?;
        match person.role {
            Role::Curator => Ok(Self(person)),
            Role::Viewer => Err(ApiError::forbidden("a viewer cannot change anything: ask for the role curator")),
        }
    }
}
