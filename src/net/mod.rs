//! Downloads photos from untrusted URLs.
//!
//! **Safety.** A photo's URL is hostile until proven otherwise. It may name a machine of ours, directly, through DNS or
//! through a redirect. The server may answer with a page, with nothing, without end, or at a byte a second. Every URL
//! is checked, redirects included ([`photo_url`]). Every address that a name resolves to is checked when the connection
//! is made ([`resolver`]). Size and time limits apply to the bytes that arrive ([`fetcher`]), and to what they unpack
//! to ([`content`]).
//!
//! **Sloppy hosts.** What a browser can show is taken. Requests that die on a reused connection are repeated
//! ([`client`]), broken heads of responses are mended ([`mended_head`]), wrong content codings do not matter
//! ([`content`]), cookies live as long as a chain of redirects ([`cookies`]).
//!
//! **Rate limiting.** A host receives only a few requests at the same time. A host that asks for a pause receives no
//! requests until the pause is over ([`host_limits`], with [`host_limiter`] across processes). Single hosts may have other
//! limits ([`host_rules`]). `X-Robots-Tag` is honoured ([`robots`]).
//!
//! **Local outages.** While the local network is down, photos wait without using up attempts ([`network`]).
//!
//! The worker decides when to try again and how often; this module does not.

pub mod address;
mod client;
mod content;
mod cookies;
pub mod error;
pub mod fetcher;
mod host;
pub mod host_limiter;
pub mod host_limits;
pub mod host_rules;
mod mended_head;
mod network;
mod photo_url;
mod resolver;
pub mod robots;
pub mod rules;
pub(crate) mod spans;

pub use content::sniff_photo;
pub use error::{FetchError, SetupError};
pub use fetcher::{Download, Fetcher};
pub use rules::Rules;
