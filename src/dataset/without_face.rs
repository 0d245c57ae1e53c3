//! Photos that ended without a face.

use super::ending::EndedPhoto;
use super::index::{Index, IndexError};
use super::rows;
use crate::domain::Ending;

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
