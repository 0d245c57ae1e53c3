//! The name of a run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a run: one collection's way through the pipeline. `[a-z0-9][a-z0-9-]{0,39}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName(String);

#[derive(Debug, Clone, thiserror::Error)]
#[error("run name `{0}` is not valid: expected 1 to 40 of a-z, 0-9 and '-', not starting with '-'")]
pub struct BadRunName(String);

impl RunName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RunName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for RunName {
    type Err = BadRunName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=40).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadRunName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for RunName {
    type Error = BadRunName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunName> for String {
    fn from(name: RunName) -> Self {
        name.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_names_are_checked() {
        assert!("faces-2026".parse::<RunName>().is_ok());
        for bad in ["", "-x", "Faces", "a/b", &"x".repeat(41)] {
            assert!(bad.parse::<RunName>().is_err(), "{bad}");
        }
    }
}
