//! HTTP servers with limits, for routers of axum; and the style of pages.

mod certificate;
mod clients;
mod peers;
mod proxies;
mod server;
mod stall;

pub use certificate::{CertificateError, CertificateFiles};
pub use clients::{ClientLimits, Peer, serve_clients};
pub use peers::network_of;
pub use proxies::{BadNetwork, Network, Proxies};
pub use server::{HttpLimits, serve};

/// The style that the report and the curation page share: colours, type, form controls, tables.
pub const STYLE: &str = include_str!("style.css");
