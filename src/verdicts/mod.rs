//! What people said about crops: an append-only log in the object store, and what counts for each crop.

pub mod crop_verdicts;
pub mod log;
mod removal;

pub use crop_verdicts::CropVerdicts;
pub use log::{AppendError, Appended, LogPosition, VerdictLog, VerdictWriter};
