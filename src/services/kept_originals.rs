//! The originals of a run, for another run.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::domain::{Original, StoredUrl};
use crate::objects::folder::Folder;
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::server_error::ServerError;

/// How a run gets at the originals of another one.
pub enum KeptOriginals {
    /// Both runs use this store.
    Shared(Arc<dyn Objects>),
    /// The new folder links to the files of the first one, or to what these link to.
    Linked { from: Folder, to: Folder },
    /// The new folder has copies.
    Copied { from: Folder, to: Folder },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// The new run can read the original.
    There,
    Missing,
}

impl KeptOriginals {
    /// Makes an original readable for the new run.
    pub async fn take(&self, original: &Original) -> Result<Taken, ObjectError> {
        let key = ObjectKey::original(original.sha256, original.format);
        let (from, to) = match self {
            Self::Shared(objects) => {
                return Ok(if objects.exists(&key).await? { Taken::There } else { Taken::Missing });
            }
            Self::Linked { from, to } | Self::Copied { from, to } => (from, to),
        };
        // Not checked by its hash here: whoever reads a link checks it.
        if to.exists(&key).await? {
            return Ok(Taken::There);
        }
        let path = from.path(&key);
        let Some(file) = resolve(&path).await.map_err(|error| unreadable(&path, &error))? else {
            return Ok(Taken::Missing);
        };
        if let Self::Linked { .. } = self {
            to.link(&key, &StoredUrl::file(&file)).await?;
            return Ok(Taken::There);
        }
        match from.get(&key).await {
            Ok(bytes) => to.put(&key, bytes, original.format.media_type()).await.map(|_| Taken::There),
            Err(ObjectError::Missing(_) | ObjectError::Changed { .. }) => Ok(Taken::Missing),
            Err(error) => Err(error),
        }
    }
}

/// The file behind all links; none if there is none.
async fn resolve(path: &Path) -> io::Result<Option<std::path::PathBuf>> {
    match tokio::fs::canonicalize(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        resolved => resolved.map(Some),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ObjectError {
    ServerError::Unavailable { what: format!("read {}", path.display()), detail: error.to_string() }.into()
}
