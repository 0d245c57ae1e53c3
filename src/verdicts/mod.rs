//! What people said about crops: an append-only log in the object store, and what counts for each crop.

pub mod log;
pub mod standing;

pub use log::{AppendError, Appended, Position, VerdictLog, VerdictWriter};
pub use standing::Standing;
