//! Everything between the network and the handlers.

use axum::Router;

use super::guard::guard;
use super::headers::secure;
use super::state::Access;

/// Lets only the right requests through to `router`, adds their [`Person`](super::Person), and adds security headers to
/// all responses.
pub fn protect(access: &Access, router: Router) -> Router {
    secure(access.clone(), guard(access.clone(), router))
}
