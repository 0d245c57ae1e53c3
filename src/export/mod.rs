//! Export: faces of a run as a dataset that training tools read.
//!
//! [`select`](selection::select) finds the faces, [`job::export`] renders the crops at the wanted size and writes them in
//! one of the formats. The same faces, verdicts and settings give the same bytes, from a folder and from servers alike.
//!
//! An export is written in files ([`layout`]): pictures, shards, or one archive. A file appears under its name as a whole or
//! not at all. An export that was interrupted continues with the files that are missing, and an archive with the first
//! picture that is missing.

mod card;
pub mod destination;
mod entry;
mod error;
pub mod job;
mod layout;
mod manifest;
mod parquet;
mod picture;
pub mod selection;
pub mod settings;
mod stylegan;
mod webdataset;

pub use destination::Destination;
pub use error::ExportError;
pub use job::{ExportJob, Exported, export};
pub use selection::{Selection, select};
pub use settings::{Classes, ExportFormat, ExportSettings, Light};
