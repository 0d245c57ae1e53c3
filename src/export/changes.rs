//! Exports of what changed between two versions.

use std::collections::HashSet;

use serde::Serialize;

use super::layout::picture_name;
use super::settings::{ExportFormat, ExportSettings};
use crate::dataset::selection::Selection;
use crate::domain::{ContentHash, Id};
use crate::versions::{Difference, FaceKey};

/// A face that an earlier export has and this version has not: its line in `removed.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedFace {
    pub photo_id: Id,
    pub crop_sha256: ContentHash,
    /// The picture in a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Leaves those faces in `selection` that are new or changed, and returns the pictures that have to go.
pub fn only_changes(selection: &mut Selection, difference: &Difference, settings: &ExportSettings) -> Vec<RemovedFace> {
    let kept: HashSet<ContentHash> = selection.faces.iter().map(|face| face.crop).collect();
    let added = difference.added.iter().chain(difference.changed.iter().map(|changed| &changed.after));
    let added: HashSet<&Id> = added.map(|key| &key.photo_id).collect();
    selection.faces.retain(|face| added.contains(&face.photo_id));
    let before = difference.changed.iter().map(|changed| &changed.before);
    let gone = difference.removed.iter().chain(before).filter(|key| !kept.contains(&key.crop));
    let removed = |key: &FaceKey| RemovedFace {
        photo_id: key.photo_id.clone(),
        crop_sha256: key.crop,
        file: (settings.format == ExportFormat::Folder).then(|| picture_name(settings, key.crop)),
    };
    let mut removed: Vec<RemovedFace> = gone.map(removed).collect();
    removed.sort_by(|a, b| a.photo_id.cmp(&b.photo_id));
    removed
}
