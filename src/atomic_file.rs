//! Files that appear as a whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// The suffix of temporary files. A killed process may leave some behind.
pub const PARTIAL: &str = ".part";

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Everybody, less the umask, as for any new file.
    Everybody,
    Owner,
}

/// A file that is written under a temporary name in its folder, and renamed when it is complete. It is deleted when it
/// is dropped before.
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates the temporary file, and the folder of `path` where it is missing.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_for(FileAccess::Everybody, path)
    }

    /// As [`create`](Self::create), for these readers.
    pub fn create_for(access: FileAccess, path: &Path) -> io::Result<Self> {
        let mode = match access {
            FileAccess::Everybody => 0o666,
            FileAccess::Owner => 0o600,
        };
        let folder = folder_of(path);
        std::fs::create_dir_all(folder)?;
        let file =
            tempfile::Builder::new().suffix(PARTIAL).permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes a whole file. It replaces an older one.
    pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
        Self::write_for(FileAccess::Everybody, path, content)
    }

    /// As [`write`](Self::write), for these readers.
    pub fn write_for(access: FileAccess, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = Self::create_for(access, path)?;
        file.write_all(content)?;
        file.publish()
    }

    /// Gives the file its name, and replaces an older one. File and name are on the disk when this returns.
    pub fn publish(self) -> io::Result<()> {
        self.file.as_file().sync_data()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_folder_of(&self.path)
    }

    /// Gives the file its name unless there is such a file. Returns whether it did.
    pub fn publish_if_absent(self) -> io::Result<bool> {
        self.file.as_file().sync_data()?;
        let created = match self.file.persist_noclobber(&self.path) {
            Ok(_) => true,
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error.error),
        };
        // Also when another writer was first: that writer may not have done this yet.
        sync_folder_of(&self.path)?;
        Ok(created)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes the folder of `path` to the disk. Only then is a new name or a deletion durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/model.onnx");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"first").unwrap();
        assert!(!path.exists());
        file.publish().unwrap();
        AtomicFile::write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(path.parent().unwrap()), ["model.onnx"]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let ordinary = folder.path().join("ordinary");
        std::fs::write(&ordinary, "").unwrap();
        assert_eq!(mode, std::fs::metadata(&ordinary).unwrap().permissions().mode(), "the umask applies");
    }

    #[test]
    fn a_file_for_its_owner_is_readable_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.json");
        std::fs::write(&path, "old").unwrap();
        AtomicFile::write_for(FileAccess::Owner, &path, b"new").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_not_published_disappears() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(names(folder.path()).iter().any(|name| name.ends_with(PARTIAL)));
        drop(file);
        assert_eq!(names(folder.path()), ["a"]);
        assert!(!AtomicFile::create(&path).unwrap().publish_if_absent().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
}
