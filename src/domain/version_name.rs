//! The name of a version of a dataset.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::printable::Printable;

/// The name of a version of a dataset. `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version name `{}` is not valid: expected 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first",
    .0.printable())]
pub struct BadVersionName(String);

impl VersionName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VersionName {
    type Err = BadVersionName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins && text.len() <= 64 && text.chars().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadVersionName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for VersionName {
    type Error = BadVersionName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<VersionName> for String {
    fn from(name: VersionName) -> Self {
        name.0
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_parts_of_keys_and_paths() {
        for good in ["v1", "2026-11-28", "Faces_512.b", "0"] {
            assert_eq!(good.parse::<VersionName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-v1", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<VersionName>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<VersionName>("\"../users\"").is_err());
    }
}
