//! Why a version could not be made or read.

use crate::dataset::IndexError;
use crate::dataset::selection::SelectionError;
use crate::domain::{Id, Printable, RunName, VersionName};
use crate::objects::ObjectError;

#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error("run {run} has a version {name}: versions never change, so choose another name")]
    Taken { run: RunName, name: VersionName },
    #[error("run {run} has no version {name}: `facemill dataset list` prints the versions")]
    Unknown { run: RunName, name: VersionName },
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error("photo {} has left the index meanwhile: start again", .0.as_str().printable())]
    Left(Id),
    #[error("cannot write a shard of version {name}: {detail}")]
    Write { name: VersionName, detail: String },
    #[error("a shard of version {name} cannot be read: {detail}")]
    Damaged { name: VersionName, detail: String },
    #[error("cannot keep the faces of a version in a temporary file: {0}; set TMPDIR to a folder with more room")]
    Scratch(String),
}
