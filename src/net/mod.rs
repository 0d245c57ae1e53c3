//! Polite and safe fetching of strangers' URLs.
//!
//! Safe: a photo's URL is hostile until proven otherwise. It may name a machine of ours, directly, through DNS or
//! through a redirect; it may answer with a page, with nothing, for ever, or a byte a second. Every hop is checked
//! ([`address`]), every address a name resolves to is checked again where the connection is made ([`resolver`]),
//! and size and time are bounded on what really arrives ([`fetcher`]).
//!
//! Polite: no host gets more than a few requests at once, one that says "not now" is left alone as a whole
//! ([`host_limits`], with [`host_limiter`] across processes), and one that says "not for this purpose" is obeyed ([`robots`]).
//!
//! Fair: while nobody at all answers, it is our own network that is away, and no photo pays for it ([`reach`]).
//!
//! Nothing here decides when to try again, or how often: that is the worker's.

pub mod address;
pub mod error;
pub mod fetcher;
pub mod host_limiter;
pub mod host_limits;
mod photo_url;
mod reach;
mod resolver;
pub mod robots;
pub mod rules;
pub(crate) mod spans;

pub use error::FetchError;
pub use fetcher::{Download, Fetcher, SetupError};
pub use rules::Rules;
