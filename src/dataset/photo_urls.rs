//! Photos by the URLs that they were read from.

use super::index::{Index, IndexError};
use crate::domain::Id;

impl Index {
    /// The photos with this URL that have ended, in the order of their ids.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn photos_at(&self, url: &str) -> Result<Vec<Id>, IndexError> {
        let read = || {
            let mut rows = self
                .connection
                .prepare_cached("SELECT photo_id FROM endings WHERE photo_url = ?1 ORDER BY bytes, photo_id")?;
            rows.query_map([url], |row| row.get::<_, String>(0).map(Id::new))?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }
}
