//! Photos that were taken down: the index forgets also what people said about their crops.

use rusqlite::{Connection, Transaction};

use crate::domain::Id;

/// Deletes the verdicts on a photo, what counted of them, and its places in groups of crops. A crop that another
/// photo has, too, keeps its own.
pub fn forget(transaction: &Transaction<'_>, photo_id: &Id) -> rusqlite::Result<()> {
    const CROPS: &str = "SELECT crop FROM (SELECT crop FROM faces WHERE photo_id = ?1
                         UNION SELECT crop FROM verdicts WHERE photo_id = ?1)
                         WHERE crop NOT IN (SELECT crop FROM faces WHERE photo_id <> ?1)";
    for statement in [
        &format!("DELETE FROM crop_verdicts WHERE crop IN ({CROPS})"),
        &format!("DELETE FROM duplicates WHERE crop IN ({CROPS})"),
        &format!("DELETE FROM identities WHERE crop IN ({CROPS})"),
        "DELETE FROM verdicts WHERE photo_id = ?1",
    ] {
        transaction.prepare_cached(statement)?.execute([photo_id.as_str()])?;
    }
    Ok(())
}

/// From now on, what is deleted is overwritten in the file.
pub fn erase_what_is_deleted(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA secure_delete = on", [], |_| Ok(()))
}

/// Empties the write-ahead log, which has earlier pages; without effect while another process reads.
pub fn empty_log(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}
