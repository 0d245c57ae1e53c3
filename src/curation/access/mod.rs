//! Who may see and judge.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::{Extension, Router};

use super::error::ApiError;

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything, changes nothing.
    Viewer,
    Curator,
}

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

/// Decides who a request comes from.
#[derive(Debug, Clone)]
pub struct Access {
    person: Person,
}

impl Access {
    /// Everybody is the one curator of this machine. `name`: 1 to 100 characters, none of them a control character; else
    /// `curator` is taken.
    pub fn local(name: Option<String>) -> Self {
        let is_valid = |name: &String| (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        let name = name.filter(is_valid).unwrap_or_else(|| "curator".into());
        Self { person: Person { name, role: Role::Curator } }
    }

    /// Whether people sign in.
    pub fn signs_in(&self) -> bool {
        false
    }

    /// Adds the person to each request.
    pub fn protect(&self, router: Router) -> Router {
        let person = Extension(self.person.clone());
        router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
            request.extensions_mut().insert(person.0.clone());
            async move { Ok::<_, Infallible>(next.run(request).await) }
        }))
    }
}
