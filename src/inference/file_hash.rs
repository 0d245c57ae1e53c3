//! Hashes of model files.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::InferenceError;
use facemill_domain::ContentHash;

/// What models/fetch.py wrote down when it checked a file against its pin.
#[derive(Deserialize)]
struct Verified {
    size: u64,
    modified_ns: u128,
    sha256: ContentHash,
}

impl Verified {
    const FILE: &'static str = ".verified.json";

    fn of(path: &Path) -> Option<Self> {
        let text = std::fs::read(path.with_file_name(Self::FILE)).ok()?;
        let mut files: HashMap<String, Self> = serde_json::from_slice(&text).ok()?;
        files.remove(path.file_name()?.to_str()?)
    }

    /// Whether the file is still the one that was checked.
    fn describes(&self, file: &Metadata) -> bool {
        let modified = file.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        self.size == file.len() && modified.is_some_and(|modified| modified.as_nanos() == self.modified_ns)
    }
}

/// SHA-256 of a model's file. Reads the hash that models/fetch.py wrote down if the file has the same size and time as
/// then, because 100 MB take 0.05 s of CPU at every start.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(path: &Path) -> Result<ContentHash, InferenceError> {
    let unreadable = |cause| InferenceError::Unreadable { path: path.to_path_buf(), cause };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    match Verified::of(path).filter(|verified| verified.describes(&metadata)) {
        Some(verified) => Ok(verified.sha256),
        None => ContentHash::of_reader(file).map_err(unreadable),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_that_was_verified_is_hashed_again_only_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.dat");
        let write_down = |text: &str| std::fs::write(folder.path().join(Verified::FILE), text).unwrap();
        std::fs::write(&path, "abc").unwrap();
        let hash = ContentHash::of(b"abc");
        assert_eq!(sha256(&path).unwrap(), hash, "nothing is written down");

        let noted = ContentHash::of(b"the hash that was written down");
        let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
        let nanoseconds = modified(&path).duration_since(UNIX_EPOCH).unwrap().as_nanos();
        write_down(&format!(r#"{{"model.dat": {{"size": 3, "modified_ns": {nanoseconds}, "sha256": "{noted}"}}}}"#));
        assert_eq!(sha256(&path).unwrap(), noted);

        let later: SystemTime = modified(&path) + Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(sha256(&path).unwrap(), hash, "another time");

        write_down("{");
        assert_eq!(sha256(&path).unwrap(), hash, "a broken file");
        assert!(matches!(sha256(&folder.path().join("absent.dat")), Err(InferenceError::Unreadable { .. })));
    }
}
