//! Originals that are probably no photos of the labelled person.
//!
//! A host answers requests for photos that it has removed with one and the same picture. The same happens with default
//! portraits, banners and photos that were labelled twice. No stage can tell such a picture from a photo: only the run
//! as a whole shows that many photos, or photos of different labels, have the same original.

use serde::Serialize;

use crate::domain::ContentHash;

/// An original that many photos or labels share, with the numbers of its photos, their labels, and their faces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placeholder {
    pub original: ContentHash,
    pub photos: u64,
    pub labels: u64,
    pub faces: u64,
}

impl Placeholder {
    /// An original of so many labels is a placeholder: one face cannot belong to two people.
    pub const MIN_LABELS: u32 = 2;
    /// An original of so many photos is a placeholder even with one label. Fewer may be a photo that was posted again.
    pub const MIN_PHOTOS: u32 = 10;

    /// Whether an original with so many photos and labels is a placeholder.
    pub fn is(photos: u32, labels: u32) -> bool {
        labels >= Self::MIN_LABELS || photos >= Self::MIN_PHOTOS
    }
}

/// All placeholders of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Placeholders {
    /// The number of originals, and of their photos and faces.
    pub originals: u64,
    pub photos: u64,
    pub faces: u64,
    /// The first of them: those with the most photos.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<Placeholder>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_labels_or_very_many_photos_make_a_placeholder() {
        for (photos, labels, is_placeholder) in [(1, 1, false), (9, 1, false), (10, 1, true), (2, 2, true)] {
            assert_eq!(Placeholder::is(photos, labels), is_placeholder, "{photos} photos of {labels} labels");
        }
    }
}
