//! Export: faces of a run as a dataset that training tools read.
//!
//! The faces are those that a query selects from the index, or those of a version; [`job::export`] renders the crops at the wanted size and writes them in
//! one of the formats. The same faces, verdicts and settings give the same bytes, from a folder and from servers alike.
//!
//! An export is written in files ([`layout`]): pictures, shards, or one archive. A file appears under its name as a whole or
//! not at all. An export that was interrupted continues with the files that are missing, and an archive with the first
//! picture that is missing.

mod card;
mod changes;
pub mod destination;
mod entry;
mod error;
mod face_source;
pub mod job;
mod layout;
mod manifest;
mod parquet;
mod picture;
pub mod settings;
mod stylegan;
mod webdataset;

pub use changes::{RemovedFace, only_changes};
pub use destination::Destination;
pub use error::ExportError;
pub use face_source::FaceSource;
pub use job::{ExportJob, Exported, export};
pub use settings::{Classes, ExportFormat, ExportSettings, Origin, VersionMark};
