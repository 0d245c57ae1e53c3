//! An HTTP server with limits, for routers of axum.

mod server;

pub use server::{HttpLimits, serve};
