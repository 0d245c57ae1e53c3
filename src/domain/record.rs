//! The record of a photo that has ended.

use serde::{Deserialize, Serialize};

use super::{Cause, Ending, Message};

/// How a photo ended. The message holds the stage, the attempt and the results of all stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub ending: Ending,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    pub message: Message,
}
