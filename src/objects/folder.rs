//! The object store as files in a folder.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectError, ObjectKey, Objects, Page, PutIfAbsent, Swap, Version, nonce};
use crate::atomic_file::{AtomicFile, FileAccess, PARTIAL, sync_folder_of};
use crate::domain::{ContentHash, StoredUrl};
use crate::server_error::ServerError;

/// Keys are relative paths. A writer writes a temporary file in the same folder and renames it, so that a reader or a
/// restart never sees a partial object.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    write_refusal: Arc<OnceLock<ServerError>>,
}

impl Folder {
    /// Whoever replaces or deletes an object holds a lock on this file, so that two processes exclude each other.
    const LOCK: &'static str = ".objects.lock";

    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), write_refusal: Arc::default() }
    }

    /// Why this folder takes no more objects: its disk is full, or is mounted for reading only. None: no write has
    /// failed for that yet.
    pub fn write_refusal(&self) -> Option<&ServerError> {
        self.write_refusal.get()
    }

    pub fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: String,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ObjectError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let failure = failure(what, &error);
                if refuses_all_writes(&error) {
                    let _ = self.write_refusal.set(failure.clone());
                }
                Err(failure.into())
            }
            Err(error) => Err(ServerError::Unavailable { what, detail: error.to_string() }.into()),
        }
    }

    /// None: the object does not exist.
    async fn read(&self, key: &ObjectKey) -> Result<Option<Vec<u8>>, ObjectError> {
        let (path, hash) = (self.path(key), key.content_hash());
        let read = self.blocking(format!("read {}", path.display()), move || read_checked(&path, hash)).await?;
        match read {
            None => Ok(None),
            Some(Ok(body)) => Ok(Some(body)),
            Some(Err(photo)) => Err(ObjectError::Changed { key: key.clone(), photo: photo.display().to_string() }),
        }
    }
}

/// A full disk or a missing permission lasts until a person acts. Other file errors may be temporary.
fn failure(what: String, error: &io::Error) -> ServerError {
    let detail = match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".into(),
        _ => error.to_string(),
    };
    match refuses_all_writes(error) || error.kind() == io::ErrorKind::PermissionDenied {
        true => ServerError::Refused { what, detail },
        false => ServerError::Unavailable { what, detail },
    }
}

fn refuses_all_writes(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// None: there is no such file.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Reads an object. A photo that it links to must have the hash; otherwise returns the path of the photo. None: there is
/// no such object, or no such photo.
fn read_checked(path: &Path, hash: Option<ContentHash>) -> io::Result<Option<Result<Vec<u8>, PathBuf>>> {
    let Some(body) = read_file(path)? else { return Ok(None) };
    match hash {
        Some(hash) if is_link(path) && ContentHash::of(&body) != hash => Ok(Some(Err(std::fs::read_link(path)?))),
        _ => Ok(Some(Ok(body))),
    }
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.is_symlink())
}

/// Whether an object exists. A link counts if its photo is there and has the hash.
fn is_intact(path: &Path, hash: Option<ContentHash>) -> io::Result<bool> {
    match is_link(path) {
        true => Ok(matches!(read_checked(path, hash)?, Some(Ok(_)))),
        false => path.try_exists(),
    }
}

/// Stores a symbolic link. False: there is an object, and it is what the hash says.
fn store_link(path: &Path, photo: &Path, hash: Option<ContentHash>) -> io::Result<bool> {
    if is_intact(path, hash)? {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let partial = folder.join(format!("{:x}{PARTIAL}", nonce()));
    std::os::unix::fs::symlink(photo, &partial)?;
    let renamed = std::fs::rename(&partial, path);
    if renamed.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    renamed?;
    sync_folder_of(path)?;
    Ok(true)
}

/// Who may read the file of an object. The umask applies to what all may read.
fn access(key: &ObjectKey) -> FileAccess {
    if key.is_secret() { FileAccess::Owner } else { FileAccess::Everybody }
}

fn store_if_absent(path: &Path, body: &[u8], access: FileAccess) -> io::Result<PutIfAbsent> {
    let put = if path.try_exists()? {
        // The writer of the object may not have done this yet.
        sync_folder_of(path)?;
        PutIfAbsent::AlreadyThere
    } else {
        let mut file = AtomicFile::create_for(access, path)?;
        file.write_all(body)?;
        if file.publish_if_absent()? { PutIfAbsent::Created } else { PutIfAbsent::AlreadyThere }
    };
    Ok(put)
}

/// Excludes other tasks and processes until the file is dropped.
fn lock(root: &Path) -> io::Result<File> {
    std::fs::create_dir_all(root)?;
    let file = File::options().create(true).truncate(false).write(true).open(root.join(Folder::LOCK))?;
    file.lock()?;
    Ok(file)
}

fn version_of(body: &[u8]) -> Version {
    Version::new(ContentHash::of(body).to_string())
}

#[async_trait]
impl Objects for Folder {
    async fn put(&self, key: &ObjectKey, body: Bytes, _media_type: &str) -> Result<bool, ObjectError> {
        let (path, hash, access) = (self.path(key), key.content_hash(), access(key));
        self.blocking(format!("write {}", path.display()), move || {
            if hash.is_some() && is_intact(&path, hash)? {
                return Ok(false);
            }
            AtomicFile::write_for(access, &path, &body)?;
            Ok(true)
        })
        .await
    }

    async fn put_if_absent(&self, key: &ObjectKey, body: Bytes, _media_type: &str) -> Result<PutIfAbsent, ObjectError> {
        let (path, access) = (self.path(key), access(key));
        self.blocking(format!("write {}", path.display()), move || store_if_absent(&path, &body, access)).await
    }

    async fn compare_and_swap(
        &self,
        key: &ObjectKey,
        expected: &Version,
        body: Bytes,
        _media_type: &str,
    ) -> Result<Swap, ObjectError> {
        let (root, path, expected, access) = (self.root.clone(), self.path(key), expected.clone(), access(key));
        self.blocking(format!("replace {}", path.display()), move || {
            let _lock = lock(&root)?;
            if read_file(&path)?.is_none_or(|present| version_of(&present) != expected) {
                return Ok(Swap::Conflict);
            }
            AtomicFile::write_for(access, &path, &body)?;
            Ok(Swap::Done)
        })
        .await
    }

    fn links_to(&self, photo: &StoredUrl) -> bool {
        matches!(photo, StoredUrl::File(_))
    }

    async fn link(&self, key: &ObjectKey, photo: &StoredUrl) -> Result<bool, ObjectError> {
        let (path, hash) = (self.path(key), key.content_hash());
        let what = format!("link {}", path.display());
        let Some(photo) = photo.path() else {
            let detail = format!("a folder cannot link to {photo}");
            return Err(ServerError::Refused { what, detail }.into());
        };
        self.blocking(what, move || store_link(&path, &photo, hash)).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
        self.read(key).await?.map(Bytes::from).ok_or_else(|| ObjectError::Missing(key.clone()))
    }

    async fn get_versioned(&self, key: &ObjectKey) -> Result<(Bytes, Version), ObjectError> {
        let body = self.get(key).await?;
        let version = version_of(&body);
        Ok((body, version))
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        let path = self.path(key);
        self.blocking(format!("look for {}", path.display()), move || path.try_exists()).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let (root, path) = (self.root.clone(), self.path(key));
        self.blocking(format!("delete {}", path.display()), move || {
            if !path.try_exists()? && !is_link(&path) {
                return Ok(());
            }
            let _lock = lock(&root)?;
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed.and_then(|()| sync_folder_of(&path)),
            }
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        let after = after.map(|key| key.as_str().to_owned()).unwrap_or_default();
        self.blocking(format!("list {}", root.display()), move || {
            let mut page = Page::default();
            let mut walk = Walk { root: &root, prefix: &prefix, after: &after, limit, page: &mut page };
            walk.below("")?;
            Ok(page)
        })
        .await
    }

    async fn check(&self) -> Result<(), ObjectError> {
        let root = self.root.clone();
        let probe = root.join(format!(".check-{:x}{PARTIAL}", nonce()));
        self.blocking(format!("write to {}", self.root.display()), move || {
            let missing: Vec<&Path> = root.ancestors().take_while(|folder| !folder.exists()).collect();
            let probed = std::fs::create_dir_all(&root)
                .and_then(|()| std::fs::write(&probe, b"facemill"))
                .and_then(|()| std::fs::remove_file(&probe));
            // A check leaves nothing behind. A folder that somebody has put something into meanwhile stays.
            for folder in missing {
                let _ = std::fs::remove_dir(folder);
            }
            probed
        })
        .await
    }
}

/// A walk in the byte order of whole keys. It skips folders that hold no key of the page.
struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    page: &'a mut Page,
}

impl Walk<'_> {
    fn below(&mut self, folder: &str) -> io::Result<()> {
        let entries = match std::fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            if let Ok(name) = entry.file_name().into_string() {
                names.push(format!("{folder}{name}{slash}"));
            }
        }
        names.sort_unstable();
        for name in names {
            if self.page.more {
                break;
            }
            let may_match = name.starts_with(self.prefix) || (name.ends_with('/') && self.prefix.starts_with(&name));
            let comes_later = name.as_str() > self.after || self.after.starts_with(&name);
            if !may_match || !comes_later {
                continue;
            }
            if name.ends_with('/') {
                self.below(&name)?;
            } else if name.as_str() > self.after
                && !name.ends_with(PARTIAL)
                && let Some(key) = ObjectKey::parse(&name)
            {
                self.take(key);
            }
        }
        Ok(())
    }

    fn take(&mut self, key: ObjectKey) {
        if self.page.keys.len() == self.limit {
            self.page.more = true;
        } else {
            self.page.keys.push(key);
        }
    }
}
