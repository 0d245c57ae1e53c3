//! What the file of an index has, as it was left, without the time that its faces take to read.

use std::path::Path;

use rusqlite::Connection;

use super::index::{Index, IndexError, fits, placeholders, pragma, verdict_position};
use super::placeholder::Placeholders;
use super::verdict_table;
use crate::domain::{ContentHash, Id, RunName, Verdict};
use crate::verdicts::LogPosition;

/// Verdicts of the log up to a position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredVerdicts {
    /// In the order of the log.
    pub verdicts: Vec<Verdict>,
    pub to: LogPosition,
}

/// The results are none if there is no index of the run.
impl Index {
    /// The originals that many photos or labels share, and the `limit` largest of them.
    pub fn stored_placeholders(path: &Path, run: &RunName, limit: usize) -> Result<Option<Placeholders>, IndexError> {
        stored(path, run, |connection| placeholders(connection, limit))
    }

    /// The verdicts on a photo, also on its earlier crops, and on a crop.
    pub fn stored_verdicts(
        path: &Path,
        run: &RunName,
        photo_id: &Id,
        crop: Option<ContentHash>,
    ) -> Result<Option<StoredVerdicts>, IndexError> {
        stored(path, run, |connection| {
            // Both as of one moment.
            let transaction = connection.unchecked_transaction()?;
            let to = verdict_position(&transaction)?;
            let verdicts = verdict_table::history(&transaction, photo_id, crop, usize::MAX)?;
            Ok(StoredVerdicts { verdicts, to })
        })
    }
}

fn stored<T>(
    path: &Path,
    run: &RunName,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<Option<T>, IndexError> {
    let failed = |error| IndexError::Failed { path: path.into(), error };
    if !path.is_file() {
        return Ok(None);
    }
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(Index::BUSY).map_err(failed)?;
    let is_index = pragma(&connection, "application_id").map_err(failed)? == Index::APPLICATION_ID
        && fits(&connection, run).map_err(failed)?;
    is_index.then(|| read(&connection)).transpose().map_err(failed)
}
