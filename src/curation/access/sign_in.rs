//! Signing in with a password, and out.

use std::time::{Duration, Instant};

use axum::Extension;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::client::Client;
use super::cookie::{clear_cookie, cookie, token_hash};
use super::state::Access;
use crate::archive::sessions::Session;
use crate::curation::error::ApiError;
use crate::curation::request::JsonBody;
use crate::domain::clock::now;
use crate::domain::{ContentHash, Printable, UserName};
use crate::services::{passwords, tokens};
use crate::telemetry::instruments;

/// After this time a person signs in again.
const SESSION: Duration = Duration::from_secs(7 * 24 * 3600);
/// Only letters of a name that cannot be a user's are counted against its rate.
const NAME_LENGTH: usize = 64;

/// The body of a sign-in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    name: String,
    #[serde(deserialize_with = "secret")]
    password: Zeroizing<String>,
}

/// `POST /api/session`.
pub async fn sign_in(
    Extension(access): Extension<Access>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    JsonBody(credentials): JsonBody<Credentials>,
) -> Result<Response, ApiError> {
    let signed_in = access.sign_in(credentials, client).await;
    if let Some(instruments) = instruments::get() {
        instruments.sign_in(match &signed_in {
            Ok(_) => "signed-in",
            Err(error) if error.status == StatusCode::UNAUTHORIZED => "wrong",
            Err(error) if error.status == StatusCode::TOO_MANY_REQUESTS => "limited",
            Err(_) => "unavailable",
        });
    }
    let token = signed_in?;
    // The browser forgets the token that it had.
    if let Some(old) = token_hash(&headers, client.tls) {
        access.shared.directory.end(old).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie(&token, SESSION, client.tls)?)]).into_response())
}

/// `DELETE /api/session`.
pub async fn sign_out(
    Extension(access): Extension<Access>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(hash) = token_hash(&headers, client.tls) {
        access.shared.directory.end(hash).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, clear_cookie(client.tls))]).into_response())
}

impl Access {
    /// Begins a session and returns its token.
    async fn sign_in(&self, credentials: Credentials, client: Client) -> Result<Zeroizing<String>, ApiError> {
        let shared = &self.shared;
        let Credentials { name, password } = credentials;
        let limited = |wait| ApiError::too_many("there were too many attempts to sign in: wait", wait);
        shared.by_client.take(&client.address, Instant::now()).map_err(limited)?;
        let key: String = name.chars().take(NAME_LENGTH).collect();
        shared.by_name.take(&key, Instant::now()).map_err(limited)?;
        let busy = |_| ApiError::unavailable("too many people sign in now");
        let _attempt = shared.attempts.try_acquire().map_err(busy)?;
        let users = shared.directory.read().await?;
        let user = name.parse().ok().and_then(|name: UserName| users.users.users.get_key_value(&name));
        let hash = user.and_then(|(_, user)| user.password.clone());
        let is_right = {
            let _hashing = shared.hashing.acquire().await.map_err(ApiError::internal)?;
            let verify = move || passwords::verify(&password, hash.as_deref());
            tokio::task::spawn_blocking(verify).await.map_err(ApiError::internal)?
        };
        let Some((name, user)) = user.filter(|_| is_right) else {
            tracing::warn!(name = key.printable().to_string(), client = %client.address, "a sign-in failed");
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "wrong-password", "the name or the password is wrong"));
        };
        shared.by_name.give_back(&key);
        shared.by_client.give_back(&client.address);
        let token = Zeroizing::new(tokens::random().map_err(ApiError::internal)?);
        let begun_at = now().as_secs();
        let session = Session {
            token_sha256: ContentHash::of(token.as_bytes()),
            user: name.clone(),
            stamp: user.stamp.clone(),
            begun_at,
            ends_at: begun_at + SESSION.as_secs(),
        };
        shared.directory.begin(&session).await?;
        tracing::info!(%name, client = %client.address, "signed in");
        Ok(token)
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}
