//! Where a photo is in the pipeline, and how it ended.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::StageName;
use super::named::{self, UnknownName};

/// A final answer. Every candidate ends in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The photo is no longer available: 404, 410, 403, or the host refuses.
    Gone,
    /// The photo exists but does not qualify: not an image, no face, several faces, ...
    Rejected,
    /// All attempts are used up, or the photo is poison: a dead letter.
    Failed,
    /// The photo passed all stages and has a prediction.
    Predicted,
}

impl Ending {
    pub const ALL: [Ending; 4] = [Self::Gone, Self::Rejected, Self::Failed, Self::Predicted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Predicted => "predicted",
        }
    }
}

impl FromStr for Ending {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::as_str, "a final answer", text)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The position of a photo in the pipeline. Positions only grow: first by stage, then by delivery number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub stage: StageName,
    /// Delivery number: how often the photo was enqueued for this stage, counted from 1. Waits that cost no attempt
    /// count, too.
    pub delivery: u32,
}

impl Position {
    pub const START: Position = Position { stage: StageName::Fetch, delivery: 1 };

    pub fn entering(stage: StageName) -> Self {
        Self { stage, delivery: 1 }
    }

    pub fn next_delivery(self) -> Self {
        Self { delivery: self.delivery + 1, ..self }
    }
}

/// The state of a photo in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Enqueued for a stage, or being processed there.
    Waiting(Position),
    Ended(Ending),
}
