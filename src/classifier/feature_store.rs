//! Features by crop in a SQLite file of this machine: a cache with a bound.
//!
//! A crop's features take 22 KB and 10 ms of CPU, less than an object store needs for many small objects. So each
//! machine that trains keeps its own file: beside the index in the folder of a run, or in the user's cache for a run on
//! servers. Embeddings of faces are kept in the same way, in a file of their own ([`FeatureKind`]). Features are known by
//! crop and version, the hash of the network and of the way to its input: two runs, or two releases, share a file
//! without mixing. The file can be deleted at any time. Up to the bound, the features that
//! were not used for longest go first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::backbone::FEATURES;
use facemill_domain::ContentHash;
use facemill_vision::embedding::DIMENSIONS;

#[derive(Debug, thiserror::Error)]
pub enum FeatureStoreError {
    #[error("{} is not a store of {kind}: name another file, or delete it", path.display())]
    Foreign { kind: &'static str, path: PathBuf },
    #[error("cannot use the store of {kind} {}: {detail}; it can be deleted", path.display())]
    Failed { kind: &'static str, path: PathBuf, detail: String },
}

/// What a file has of each crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureKind {
    name: &'static str,
    /// In the header of the file.
    application_id: i32,
    /// Numbers of a crop.
    length: usize,
    page_bytes: u32,
    /// Bytes of the file for each crop.
    crop_bytes: u64,
    /// A bound for the file that suits most.
    pub most_bytes: u64,
}

impl FeatureKind {
    /// What the head of a classifier is trained on. The bound is about 94,000 crops.
    pub const FEATURES: Self = Self {
        name: "features",
        // "feat"
        application_id: 0x6665_6174,
        length: FEATURES,
        // The features of two crops take eleven pages: large pages would be half empty.
        page_bytes: 4096,
        crop_bytes: 11 * 4096 / 2 + 200,
        most_bytes: FeatureStore::MOST_BYTES,
    };
    /// What tells people apart. The bound is about 2.5 million crops.
    pub const EMBEDDINGS: Self = Self {
        name: "embeddings",
        // "embd"
        application_id: 0x656d_6264,
        length: DIMENSIONS,
        page_bytes: 4096,
        crop_bytes: 4096 / 7 + 250,
        most_bytes: 2 << 30,
    };
}

/// The features that a machine has extracted. Several processes may use one file.
pub struct FeatureStore {
    kind: FeatureKind,
    connection: Connection,
    path: PathBuf,
    /// The most crops that are kept.
    most: u64,
    /// The number of this opening: what is read or written now was used last.
    opening: i64,
}

impl FeatureStore {
    /// About 94,000 crops.
    pub const MOST_BYTES: u64 = 2 << 30;
    const BUSY: Duration = Duration::from_secs(60);

    /// Opens the file, which is created if it is missing. A damaged one is made again. `most_bytes`: of the file.
    ///
    /// # Errors
    /// The file is another program's, or cannot be written.
    pub fn open(path: &Path, most_bytes: u64) -> Result<Self, FeatureStoreError> {
        Self::open_kind(FeatureKind::FEATURES, path, most_bytes)
    }

    /// As [`FeatureStore::open`], for another kind of features.
    ///
    /// # Errors
    /// As those of [`FeatureStore::open`].
    pub fn open_kind(kind: FeatureKind, path: &Path, most_bytes: u64) -> Result<Self, FeatureStoreError> {
        match Self::try_open(kind, path, most_bytes) {
            Err(OpenError::Damaged) => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.as_os_str().to_owned();
                    file.push(suffix);
                    // What cannot be deleted is reported by the second attempt.
                    let _ = std::fs::remove_file(file);
                }
                Self::try_open(kind, path, most_bytes).map_err(|error| error.at(kind, path))
            }
            opened => opened.map_err(|error| error.at(kind, path)),
        }
    }

    fn try_open(kind: FeatureKind, path: &Path, most_bytes: u64) -> Result<Self, OpenError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Self::BUSY)?;
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 && application != kind.application_id {
            return Err(OpenError::Foreign);
        }
        if tables == 0 {
            connection.pragma_update(None, "page_size", kind.page_bytes)?;
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "application_id", kind.application_id)?;
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
        let most = (most_bytes / kind.crop_bytes).max(1);
        Ok(Self { kind, connection, path: path.to_owned(), most, opening: opening.unwrap_or(0) + 1 })
    }

    /// The features of `crops` in this version, in their order.
    pub fn read(
        &mut self,
        version: ContentHash,
        crops: &[ContentHash],
    ) -> Result<Vec<Option<Vec<f32>>>, FeatureStoreError> {
        let (opening, length) = (self.opening, self.kind.length);
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
                found.push(row.and_then(|(_, value)| floats(&value, length)));
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
        let (kind, path) = (self.kind.name, self.path.clone());
        let failed = |error: rusqlite::Error| FeatureStoreError::Failed { kind, path, detail: error.to_string() };
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
        let (kind, path) = (self.kind.name, self.path.clone());
        let run = || {
            let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error: rusqlite::Error| FeatureStoreError::Failed { kind, path, detail: error.to_string() })
    }
}

/// None: the value is not that of a crop.
fn floats(value: &[u8], length: usize) -> Option<Vec<f32>> {
    let (values, []) = value.as_chunks::<4>() else { return None };
    let floats: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    (floats.len() == length && floats.iter().all(|value| value.is_finite())).then_some(floats)
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
    fn at(self, kind: FeatureKind, path: &Path) -> FeatureStoreError {
        let (kind, path) = (kind.name, path.to_path_buf());
        match self {
            Self::Foreign => FeatureStoreError::Foreign { kind, path },
            Self::Damaged => FeatureStoreError::Failed { kind, path, detail: "it is damaged".into() },
            Self::Failed(error) => FeatureStoreError::Failed { kind, path, detail: error.to_string() },
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
        let open = || FeatureStore::open(&path, 3 * FeatureKind::FEATURES.crop_bytes).unwrap();
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
    fn a_store_of_another_kind_is_foreign() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("embeddings.sqlite");
        let (version, crop) = (ContentHash::of(b"version"), ContentHash::of(b"crop"));
        let mut store = FeatureStore::open_kind(FeatureKind::EMBEDDINGS, &path, 1 << 20).unwrap();
        store.write(version, &[(crop, vec![0.25; DIMENSIONS])]).unwrap();
        assert_eq!(store.read(version, &[crop]).unwrap(), [Some(vec![0.25; DIMENSIONS])]);
        drop(store);
        let error = FeatureStore::open(&path, 1 << 20).err().unwrap().to_string();
        assert!(error.contains("is not a store of features"), "{error}");
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
        bytes[100..4096].fill(0xff);
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
            assert!(matches!(error, FeatureStoreError::Foreign { .. }), "{error}");
            assert!(path.exists());
        }
    }
}
