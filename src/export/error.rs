//! Why an export failed.

use std::io;

use crate::dataset::IndexError;
use crate::dataset::selection::SelectionError;
use crate::domain::{Id, Printable, VersionName};
use crate::objects::ObjectError;
use crate::versions::VersionError;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("all faces of the version ({count}) are smaller than {size} pixels: give a smaller --size, or --upscale")]
    TooSmall { count: u64, size: u32 },
    #[error("version {version} has no face that version {since} has not: there is nothing to export")]
    Unchanged { version: VersionName, since: VersionName },
    #[error("crop of photo {}: {error}; `facemill audit` finds what is missing", photo_id.as_str().printable())]
    Crop { photo_id: Id, error: ObjectError },
    #[error("crop of photo {}: {detail}", photo_id.as_str().printable())]
    Picture { photo_id: Id, detail: String },
    #[error("photo {} has left the index during the export: start it again", .0.as_str().printable())]
    Left(Id),
    #[error("{place} has another export or other files: name another place, or give --overwrite")]
    Occupied { place: String },
    #[error("another process exports to {place}")]
    Locked { place: String },
    #[error("cannot write {place}: {error}")]
    Write { place: String, error: io::Error },
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error("{place} was written, but is not a valid dataset: {detail}")]
    Invalid { place: String, detail: String },
    #[error("the export was interrupted; the same command continues it")]
    Interrupted,
}

impl ExportError {
    pub fn write(place: impl ToString, error: impl Into<io::Error>) -> Self {
        Self::Write { place: place.to_string(), error: error.into() }
    }
}
