//! How photos ended.

use super::index::{Index, IndexError};
use super::rows;
use crate::domain::{CauseCode, Ending, Id, StageName};

/// How a photo ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPhoto {
    pub photo_id: Id,
    /// None if the photo has no record.
    pub photo_url: Option<String>,
    pub ending: Ending,
    pub stage: StageName,
    pub cause: Option<CauseCode>,
    /// The number of the last attempt at the stage.
    pub attempt: u32,
}

impl Index {
    /// Photos that have an original and ended without a face: the first `limit` ones of each stage, ending and cause.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn first_without_face(&self, limit: usize) -> Result<Vec<EndedPhoto>, IndexError> {
        let read = || {
            let mut rows = self.connection.prepare_cached(
                "SELECT photo_id, photo_url, ending, stage, cause, attempt FROM (
                     SELECT *, row_number() OVER (PARTITION BY stage, ending, cause ORDER BY bytes, photo_id) AS place
                     FROM endings WHERE original IS NOT NULL AND ending <> ?1
                 ) WHERE place <= ?2 ORDER BY bytes, photo_id",
            )?;
            rows.query_map((Ending::Predicted.as_str(), limit as i64), rows::ended_photo)?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }
}

/// Photos that ended alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingCount {
    pub ending: Ending,
    pub stage: StageName,
    pub cause: Option<CauseCode>,
    /// Empty if the photo's URL has none.
    pub host: String,
    /// Whether the photo has an original.
    pub downloaded: bool,
    pub photos: u64,
}
