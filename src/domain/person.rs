//! The people who judge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::named_enum;
use crate::printable::Printable;

named_enum! {
    /// What a person may do.
    pub enum Role is "a role" {
        /// Sees everything and changes nothing.
        Viewer = "viewer",
        /// Judges.
        Curator = "curator",
    }
}

/// The name of a person who signs in: 1 to 64 of `[A-Za-z0-9._@+-]`, starting with a letter or a digit. An e-mail address
/// is such a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "user name `{}` is not valid: expected 1 to 64 of A-Z, a-z, 0-9 and `._@+-`, starting with a letter or a digit",
    .0.printable()
)]
pub struct BadUserName(String);

impl UserName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = BadUserName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match starts_well && text.len() <= 64 && text.chars().all(legal) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadUserName(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for UserName {
    type Error = BadUserName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_checked() {
        for good in ["a", "ada", "Ada.Lovelace+faces@example.org", "7", &"x".repeat(64)] {
            assert_eq!(good.parse::<UserName>().unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "a b", "a/b", "<b>", "a\n", "宇佐美", &"x".repeat(65)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
        let error = "a\u{202e}".parse::<UserName>().unwrap_err().to_string();
        assert!(error.contains(r"`a\u{202e}`"), "{error}");
    }
}
