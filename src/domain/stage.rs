//! The four stages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::named::{self, UnknownName};

/// The four stages, in the order in which a photo passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    Fetch,
    Detect,
    Crop,
    Classify,
}

impl StageName {
    pub const ALL: [StageName; 4] = [Self::Fetch, Self::Detect, Self::Crop, Self::Classify];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Detect => "detect",
            Self::Crop => "crop",
            Self::Classify => "classify",
        }
    }

    /// The stage after this one; none after the last.
    pub fn next(self) -> Option<StageName> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StageName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::as_str, "a stage", text)
    }
}
