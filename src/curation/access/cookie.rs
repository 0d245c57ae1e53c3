//! The cookie of a session.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};

use crate::curation::error::ApiError;
use crate::domain::ContentHash;

/// Characters of a token, see [`tokens::random`](crate::services::tokens::random).
const TOKEN_LENGTH: usize = 43;

/// A cookie with the prefix `__Host-` is taken from a TLS connection to this host only.
fn cookie_name(tls: bool) -> &'static str {
    if tls { "__Host-facemill" } else { "facemill" }
}

/// The cookie with a token, for so long.
pub fn cookie(token: &str, age: Duration, tls: bool) -> Result<HeaderValue, ApiError> {
    let secure = if tls { "; Secure" } else { "" };
    let (name, seconds) = (cookie_name(tls), age.as_secs());
    let text = format!("{name}={token}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).map_err(ApiError::internal)
}

/// Has the browser forget the token.
pub fn clear_cookie(tls: bool) -> HeaderValue {
    match tls {
        true => HeaderValue::from_static("__Host-facemill=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict; Secure"),
        false => HeaderValue::from_static("facemill=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"),
    }
}

/// The hash of the token in the cookie of a request.
pub fn token_hash(headers: &HeaderMap, tls: bool) -> Option<ContentHash> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let (_, token) = cookies.find(|(name, _)| *name == cookie_name(tls))?;
    (token.len() == TOKEN_LENGTH).then(|| ContentHash::of(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tokens;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    #[test]
    fn cookies_are_for_this_host_and_for_no_script() {
        let token = tokens::random().unwrap();
        let plain = cookie(&token, WEEK, false).unwrap();
        let attributes = "Max-Age=604800; Path=/; HttpOnly; SameSite=Strict";
        assert_eq!(plain, format!("facemill={token}; {attributes}"));
        assert_eq!(cookie(&token, WEEK, true).unwrap(), format!("__Host-facemill={token}; {attributes}; Secure"));
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let token = tokens::random().unwrap();
        let hash = |cookies: &[&str], tls| {
            let values = cookies.iter().map(|cookie| (header::COOKIE, HeaderValue::from_str(cookie).unwrap()));
            token_hash(&values.collect(), tls)
        };
        let expected = Some(ContentHash::of(token.as_bytes()));
        assert_eq!(hash(&[&format!("a=b; facemill={token}; c")], false), expected);
        assert_eq!(hash(&["a=b", &format!("__Host-facemill={token}")], true), expected);
        assert_eq!(hash(&[&format!("facemill={token}")], true), None, "a cookie without TLS does not count with it");
        assert_eq!(hash(&["facemill=short"], false), None);
        assert_eq!(hash(&[], false), None);
    }
}
