//! Versions of a dataset: selections of faces that stay as they are, whatever is judged or deleted later.
//!
//! [`freeze`](freeze()) writes what the index says of each selected face into shards, then the header
//! ([`VersionHeader`](crate::archive::versions::VersionHeader)). Crops are not copied: their names are hashes of their
//! content. [`FrozenFaces`] reads a version back, and [`compare`] compares two.

mod difference;
mod error;
mod freeze;
mod frozen;
mod header;
mod removal;
mod shard;

pub use difference::{ChangedFace, Difference, compare};
pub use error::VersionError;
pub use freeze::freeze;
pub use frozen::FrozenFaces;
pub use header::header;
pub use removal::{RemovedFaces, faces_of, remove};
pub use shard::FaceKey;
