//! Objects as files below a folder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use super::{ObjectError, ObjectKey, Objects, Page, nonce};

/// Keys are relative paths. An object is written beside its place and renamed into it, so that a reader or a restart
/// never meets half of one.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Begun files have this ending until they are whole; a killed process may leave some behind.
    const BEGUN: &'static str = "part";

    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    async fn blocking<T: Send + 'static>(
        what: String,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, ObjectError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failure(what, &error)),
            Err(error) => Err(ObjectError::Unavailable { what, detail: error.to_string() }),
        }
    }
}

/// A full disk or a missing right does not pass by itself; what else goes wrong with files may.
fn failure(what: String, error: &io::Error) -> ObjectError {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let detail = error.to_string();
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded => ObjectError::Refused { what, detail },
        _ => ObjectError::Unavailable { what, detail },
    }
}

fn store(path: &Path, body: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let begun = path.with_extension(format!("{:x}.{}", nonce(), Folder::BEGUN));
    let written = (|| {
        let mut file = std::fs::File::create_new(&begun)?;
        file.write_all(body)?;
        file.sync_data()?;
        std::fs::rename(&begun, path)?;
        // The name is on disk only when its folder is.
        std::fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&begun);
    }
    written
}

#[async_trait]
impl Objects for Folder {
    async fn put(&self, key: &ObjectKey, body: Bytes, _media_type: &str) -> Result<bool, ObjectError> {
        let (path, hashed) = (self.path(key), key.is_content_addressed());
        Self::blocking(format!("write {}", path.display()), move || {
            if hashed && path.try_exists()? {
                return Ok(false);
            }
            store(&path, &body)?;
            Ok(true)
        })
        .await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
        let path = self.path(key);
        let read = Self::blocking(format!("read {}", path.display()), move || match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        });
        read.await?.map(Bytes::from).ok_or_else(|| ObjectError::Missing(key.clone()))
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        let path = self.path(key);
        Self::blocking(format!("look for {}", path.display()), move || path.try_exists()).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        let after = after.map(|key| key.as_str().to_owned()).unwrap_or_default();
        Self::blocking(format!("list {}", root.display()), move || {
            let mut page = Page::default();
            let mut walk = Walk { root: &root, prefix: &prefix, after: &after, limit, page: &mut page };
            walk.below("")?;
            Ok(page)
        })
        .await
    }

    async fn check(&self) -> Result<(), ObjectError> {
        let probe = self.root.join(format!(".check-{:x}.{}", nonce(), Self::BEGUN));
        Self::blocking(format!("write to {}", self.root.display()), move || {
            std::fs::create_dir_all(probe.parent().unwrap_or(Path::new(".")))?;
            std::fs::write(&probe, b"facemill")?;
            std::fs::remove_file(&probe)
        })
        .await
    }
}

/// A walk in the byte order of whole keys, which skips folders that hold nothing of the page.
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
                && !name.ends_with(Folder::BEGUN)
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
