//! How photos ended.

use crate::domain::{CauseCode, Ending, Id, StageName};

/// How a photo ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedPhoto {
    pub photo_id: Id,
    /// None if the photo has no record.
    pub photo_url: Option<String>,
    pub ending: Ending,
    pub stage: StageName,
    pub cause: Option<CauseCode>,
    /// The number of the last attempt at the stage.
    pub attempt: u32,
}

/// Photos that ended alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingCount {
    pub ending: Ending,
    pub stage: StageName,
    pub cause: Option<CauseCode>,
    /// Empty if the photo's URL has none.
    pub host: String,
    /// Whether the photo has an original.
    pub downloaded: bool,
    pub photos: u64,
}
