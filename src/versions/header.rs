//! The header of a version that must be there.

use super::error::VersionError;
use crate::archive::versions::{StoredVersions, VersionHeader};
use crate::domain::VersionName;

/// # Errors
/// There is no such version, or it cannot be read.
pub async fn header(versions: &StoredVersions, name: &VersionName) -> Result<VersionHeader, VersionError> {
    let unknown = || VersionError::Unknown { run: versions.run().clone(), name: name.clone() };
    versions.read(name).await?.ok_or_else(unknown)
}
