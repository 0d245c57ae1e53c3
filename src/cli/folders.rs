//! Names of folders.

use std::path::Path;

/// The name of a folder, without those above it. None: it has none, as the root.
pub fn folder_name(folder: &Path) -> Option<String> {
    Some(folder.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned())
}

/// Whether both paths lead to one folder, which may not exist yet.
pub fn is_same_folder(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| path.canonicalize().ok();
    one == other || resolved(one).is_some_and(|one| resolved(other) == Some(one))
}
