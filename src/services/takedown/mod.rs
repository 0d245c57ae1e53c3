//! Takedowns: a photo, and all that was made of it, is removed for good and refused from then on.
//!
//! [`plan_takedown`] finds the photos and everything that belongs to them, and changes nothing. The takedown is then written to the
//! object store ([`crate::archive::takedowns`]), and [`carry_out`] removes what it says. Every step can be repeated, so
//! that a takedown that was interrupted is completed by carrying it out once more.
//!
//! The order: refusals first, so that nothing comes back; then ledger and records, so that no reader sees the photo any
//! more; then everything else.

use serde::Serialize;

use crate::archive::takedowns::Takedown;
use crate::classifier::feature_store::FeatureStoreError;
use crate::dataset::{FollowError, IndexError};
use crate::domain::{Id, Printable, RunName, VersionName};
use crate::objects::ObjectError;
use crate::pipeline::producer::ProducerError;
use crate::server_error::ServerError;
use crate::sqlite::DatabaseError;
use crate::versions::VersionError;

mod caches;
mod picture;
mod removal;
mod survey;

pub use caches::Caches;
pub use picture::{PictureError, PictureMarks};
pub use removal::{Removed, Site, carry_out};
pub use survey::{Chosen, SurveySettings, plan_takedown};

#[derive(Debug, thiserror::Error)]
pub enum TakedownError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Versions(#[from] VersionError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Features(#[from] FeatureStoreError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("cannot delete the thumbnails in {}: {error}", path.display())]
    Thumbnails { path: std::path::PathBuf, error: std::io::Error },
    #[error("run {run} has no photo {}", photo_id.as_str().printable())]
    NoPhoto { run: RunName, photo_id: Id },
}

impl From<ProducerError> for TakedownError {
    fn from(error: ProducerError) -> Self {
        match error {
            ProducerError::Server(error) => Self::Server(error),
            ProducerError::Objects(error) => Self::Objects(error),
        }
    }
}

/// What a takedown will remove, for the person who decides.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub photos: Vec<PlannedPhoto>,
    /// Versions that lose faces.
    pub versions: Vec<PlannedVersion>,
    /// Photos of other runs that show the same, and stay.
    pub elsewhere: u64,
    /// Originals that stay because photos that are not taken down have them, too.
    pub kept_originals: u64,
    /// Photos that have not ended. A worker may have one in hand.
    pub waiting: u64,
    /// Addresses, originals and fingerprints that will be refused.
    pub refused: [usize; 3],
    #[serde(skip)]
    pub takedown: Takedown,
}

impl Plan {
    /// Whether there is nothing to remove and nothing to refuse.
    pub fn is_empty(&self) -> bool {
        self.photos.is_empty() && self.refused == [0; 3]
    }
}

/// A photo that is taken down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedPhoto {
    pub run: RunName,
    pub photo_id: Id,
    pub photo_url: String,
    pub label: Option<String>,
    pub why: Why,
    pub has_crop: bool,
}

/// Why a photo is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The command names it.
    Named,
    SameUrl,
    SameOriginal,
    SameCrop,
    /// Its crop looks like that of a named photo.
    NearCopy,
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::SameUrl => "same URL",
            Self::SameOriginal => "same original",
            Self::SameCrop => "same crop",
            Self::NearCopy => "near copy",
        }
    }
}

/// A version that loses faces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedVersion {
    pub run: RunName,
    pub version: VersionName,
    pub faces: u64,
}
