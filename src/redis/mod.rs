//! The Redis client: settings, one shared connection, scripts, and the meaning of errors. `ledger` and `cluster` use
//! it; each owns its keys.

mod client;
mod error;
mod settings;

pub use client::{RedisClient, check_key};
pub use settings::RedisSettings;
