//! Why a report cannot be written.

use std::io;
use std::path::PathBuf;

use crate::dataset::{FollowError, IndexError};
use crate::ledger::LedgerError;
use crate::objects::ObjectError;

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot read the ledger for the report: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("cannot write {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot read a picture for the report: {0}")]
    Object(#[from] ObjectError),
    #[error("the report is incomplete: {0}")]
    Stopped(String),
}
