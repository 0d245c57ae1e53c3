//! What the processes of an installation tell each other beside the photos: what a person has paused, who is at work,
//! and whose turn it is at a host. It lives in the Redis server of the ledger, belongs to the installation and not to a
//! run, and may be lost: nothing of it decides where a photo is.

pub mod hosts;
pub mod keys;
pub mod pauses;
pub mod workers;

pub use hosts::Hosts;
pub use pauses::{HostName, Pauses, Subject};
pub use workers::Workers;
