//! HTTP servers with limits, for routers of axum; and the style and parts of pages.

mod certificate;
mod clients;
pub mod html;
mod peers;
mod proxies;
mod server;
mod stall;

pub use certificate::{CertificateError, CertificateFiles};
pub use clients::{ClientLimits, Peer, serve_clients};
pub use peers::network_of;
pub use proxies::{BadNetwork, Network, Proxies};
pub use server::{HttpLimits, serve};

/// The style that all pages share: colours, type, form controls, tables.
pub const STYLE: &str = include_str!("style.css");
