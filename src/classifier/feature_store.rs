//! Features by crop in a SQLite file of this machine: a cache with a bound.
//!
//! A crop's features take 7 KB and 10 ms of CPU, less than an object store needs for many small objects. So each
//! machine that trains keeps its own file: beside the index in the folder of a run, or in the user's cache for a run on
//! servers. Features are known by crop and version, the hash of the backbone and of the way to its input: two runs, or
//! two releases, share a file without mixing. The file can be deleted at any time. Up to the bound, the features that
//! were not used for longest go first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::backbone::FEATURES;
use crate::domain::ContentHash;

#[derive(Debug, thiserror::Error)]
pub enum FeatureStoreError {
    #[error("{} is not a store of features: name another file, or delete it", .0.display())]
    Foreign(PathBuf),
    #[error("cannot use the store of features {}: {detail}; it can be deleted", path.display())]
    Failed { path: PathBuf, detail: String },
}

/// The features that a machine has extracted. Several processes may use one file.
pub struct FeatureStore {
    connection: Connection,
    path: PathBuf,
    /// The most crops that are kept.
    most: u64,
    /// The number of this opening: what is read or written now was used last.
    opening: i64,
}

impl FeatureStore {
    /// About 260,000 crops.
    pub const MOST_BYTES: u64 = 2 << 30;
    /// "feat" in the header of the file.
    const APPLICATION_ID: i32 = 0x6665_6174;
    /// Bytes of the file for each crop: a page for the features, and its share of the tables.
    const CROP_BYTES: u64 = 8192 + 200;
    const BUSY: Duration = Duration::from_secs(60);

    /// Opens the file, which is created if it is missing. A damaged one is made again. `most_bytes`: of the file.
    ///
    /// # Errors
    /// The file is another program's, or cannot be written.
    pub fn open(path: &Path, most_bytes: u64) -> Result<Self, FeatureStoreError> {
        match Self::try_open(path, most_bytes) {
            Err(OpenError::Damaged) => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.as_os_str().to_owned();
                    file.push(suffix);
                    // What cannot be deleted is reported by the second attempt.
                    let _ = std::fs::remove_file(file);
                }
                Self::try_open(path, most_bytes).map_err(|error| error.at(path))
            }
            opened => opened.map_err(|error| error.at(path)),
        }
    }

    fn try_open(path: &Path, most_bytes: u64) -> Result<Self, OpenError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Self::BUSY)?;
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 && application != Self::APPLICATION_ID {
            return Err(OpenError::Foreign);
        }
        if tables == 0 {
            // Features of a crop fit a page.
            connection.pragma_update(None, "page_size", 8192)?;
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "application_id", Self::APPLICATION_ID)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS crops (
                 key INTEGER PRIMARY KEY,
                 version BLOB NOT NULL,
                 crop BLOB NOT NULL,
                 used INTEGER NOT NULL,
                 UNIQUE (version, crop)
             );
             CREATE INDEX IF NOT EXISTS crops_by_use ON crops(used, key);
             -- Little-endian floats.
             CREATE TABLE IF NOT EXISTS features (key INTEGER PRIMARY KEY, value BLOB NOT NULL);",
        )?;
        let opening: Option<i64> = connection.query_row("SELECT max(used) FROM crops", [], |row| row.get(0))?;
        let most = (most_bytes / Self::CROP_BYTES).max(1);
        Ok(Self { connection, path: path.to_owned(), most, opening: opening.unwrap_or(0) + 1 })
    }

    /// The features of `crops` in this version, in their order.
    pub fn read(
        &mut self,
        version: ContentHash,
        crops: &[ContentHash],
    ) -> Result<Vec<Option<Vec<f32>>>, FeatureStoreError> {
        let opening = self.opening;
        let read = |transaction: &Transaction<'_>| {
            let mut find = transaction.prepare_cached(
                "SELECT key, value FROM crops JOIN features USING (key) WHERE version = ?1 AND crop = ?2",
            )?;
            let mut touch = transaction.prepare_cached("UPDATE crops SET used = ?1 WHERE key = ?2 AND used <> ?1")?;
            let mut found = Vec::with_capacity(crops.len());
            for crop in crops {
                let row = find.query_row([version.as_bytes(), crop.as_bytes()], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
                });
                let row = row.optional()?;
                if let Some((key, _)) = &row {
                    touch.execute([opening, *key])?;
                }
                found.push(row.and_then(|(_, value)| floats(&value)));
            }
            Ok(found)
        };
        self.transaction(read)
    }

    /// Keeps features, and drops those that were not used for longest beyond the bound.
    pub fn write(
        &mut self,
        version: ContentHash,
        features: &[(ContentHash, Vec<f32>)],
    ) -> Result<(), FeatureStoreError> {
        let (opening, most) = (self.opening, self.most);
        // Of one crop that is given twice, the last counts.
        let features: HashMap<ContentHash, &Vec<f32>> = features.iter().map(|(crop, value)| (*crop, value)).collect();
        self.transaction(|transaction| {
            let mut add = transaction.prepare_cached(
                "INSERT INTO crops (version, crop, used) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET used = ?3 RETURNING key",
            )?;
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO features VALUES (?1, ?2)")?;
            for (crop, values) in &features {
                let key: i64 =
                    add.query_row(params![version.as_bytes(), crop.as_bytes(), opening], |row| row.get(0))?;
                let value: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                put.execute(params![key, value])?;
            }
            let count: i64 = transaction.query_row("SELECT count(*) FROM crops", [], |row| row.get(0))?;
            let too_many = (count as u64).saturating_sub(most) as i64;
            if too_many > 0 {
                transaction.execute(
                    "DELETE FROM features WHERE key IN (SELECT key FROM crops ORDER BY used, key LIMIT ?1)",
                    [too_many],
                )?;
                transaction.execute(
                    "DELETE FROM crops WHERE key IN (SELECT key FROM crops ORDER BY used, key LIMIT ?1)",
                    [too_many],
                )?;
            }
            Ok(())
        })
    }

    /// Removes the features of crops in all versions, also from the free parts of the file.
    pub fn remove(&mut self, crops: &[ContentHash]) -> Result<(), FeatureStoreError> {
        let path = self.path.clone();
        let failed = |error: rusqlite::Error| FeatureStoreError::Failed { path, detail: error.to_string() };
        self.connection.query_row("PRAGMA secure_delete = on", [], |_| Ok(())).map_err(failed)?;
        self.transaction(|transaction| {
            let of_crop = "SELECT key FROM crops WHERE crop = ?1";
            let mut features = transaction.prepare_cached(&format!("DELETE FROM features WHERE key IN ({of_crop})"))?;
            let mut known = transaction.prepare_cached("DELETE FROM crops WHERE crop = ?1")?;
            for crop in crops {
                features.execute([crop.as_bytes()])?;
                known.execute([crop.as_bytes()])?;
            }
            Ok(())
        })?;
        // Without effect while another process reads: its end does it.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        Ok(())
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, FeatureStoreError> {
        let path = self.path.clone();
        let run = || {
            let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error: rusqlite::Error| FeatureStoreError::Failed { path, detail: error.to_string() })
    }
}

/// None: the value is not that of a crop.
fn floats(value: &[u8]) -> Option<Vec<f32>> {
    let (values, []) = value.as_chunks::<4>() else { return None };
    let floats: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (floats.len() == FEATURES && floats.iter().all(|value| value.is_finite())).then_some(floats)
}

enum OpenError {
    Foreign,
    Damaged,
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Self::Damaged,
            Some(rusqlite::ErrorCode::NotADatabase) => Self::Foreign,
            _ => Self::Failed(error),
        }
    }
}

impl OpenError {
    fn at(self, path: &Path) -> FeatureStoreError {
        match self {
            Self::Foreign => FeatureStoreError::Foreign(path.into()),
            Self::Damaged => FeatureStoreError::Failed { path: path.into(), detail: "it is damaged".into() },
            Self::Failed(error) => FeatureStoreError::Failed { path: path.into(), detail: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(number: u8) -> (ContentHash, Vec<f32>) {
        (ContentHash::of(&[number]), vec![f32::from(number) + 0.1; FEATURES])
    }

    #[test]
    fn features_are_known_by_crop_and_version_after_a_restart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("features.sqlite");
        let [one, two] = [ContentHash::of(b"one"), ContentHash::of(b"two")];
        let mut store = FeatureStore::open(&path, FeatureStore::MOST_BYTES).unwrap();
        store.write(one, &[features(1), features(2), features(2)]).unwrap();
        store.write(two, &[features(3)]).unwrap();
        drop(store);
        let mut store = FeatureStore::open(&path, FeatureStore::MOST_BYTES).unwrap();
        let crops = [3, 2, 1].map(|number| features(number).0);
        let found = store.read(one, &crops).unwrap();
        assert_eq!(found, [None, Some(features(2).1), Some(features(1).1)]);
        assert_eq!(store.read(two, &crops).unwrap(), [Some(features(3).1), None, None]);
    }

    #[test]
    fn removed_features_leave_nothing_in_the_file() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("features.sqlite");
        let version = ContentHash::of(b"version");
        let mut store = FeatureStore::open(&path, FeatureStore::MOST_BYTES).unwrap();
        store.write(version, &[features(1), features(2)]).unwrap();
        store.remove(&[features(1).0]).unwrap();
        assert_eq!(store.read(version, &[features(1).0, features(2).0]).unwrap(), [None, Some(features(2).1)]);
        drop(store);
        let file = std::fs::read(&path).unwrap();
        let has = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
        assert!(!has(features(1).0.as_bytes()) && !has(&1.1f32.to_le_bytes().repeat(8)));
        assert!(has(features(2).0.as_bytes()) && has(&2.1f32.to_le_bytes().repeat(8)));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("features.sqlite");
        let version = ContentHash::of(b"version");
        let open = || FeatureStore::open(&path, 3 * FeatureStore::CROP_BYTES).unwrap();
        open().write(version, &[features(1)]).unwrap();
        open().write(version, &[features(2), features(3)]).unwrap();
        let mut store = open();
        assert!(store.read(version, &[features(1).0]).unwrap()[0].is_some());
        store.write(version, &[features(4)]).unwrap();
        let crops = [1, 2, 3, 4].map(|number| features(number).0);
        let left = store.read(version, &crops).unwrap();
        assert_eq!(left.iter().filter(|found| found.is_some()).count(), 3);
        assert!(left[0].is_some() && left[3].is_some(), "used last");
    }

    #[test]
    fn a_damaged_store_is_made_again_and_a_foreign_file_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("features.sqlite");
        let version = ContentHash::of(b"version");
        let mut store = FeatureStore::open(&path, FeatureStore::MOST_BYTES).unwrap();
        store.write(version, &[features(1)]).unwrap();
        drop(store);
        // The header stays, the first table's page does not.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100..8192].fill(0xff);
        std::fs::write(&path, &bytes).unwrap();
        let mut store = FeatureStore::open(&path, FeatureStore::MOST_BYTES).unwrap();
        assert_eq!(store.read(version, &[features(1).0]).unwrap(), [None]);
        store.write(version, &[features(1)]).unwrap();

        for (name, content) in [("text", &b"not a database, but a text of some length"[..]), ("other.sqlite", b"")] {
            let path = scratch.path().join(name);
            std::fs::write(&path, content).unwrap();
            if content.is_empty() {
                Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
            }
            let error = FeatureStore::open(&path, FeatureStore::MOST_BYTES).err().unwrap();
            assert!(matches!(error, FeatureStoreError::Foreign(_)), "{error}");
            assert!(path.exists());
        }
    }
}
