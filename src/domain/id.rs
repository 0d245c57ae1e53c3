//! Ids of the source database.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An id of the source DB: a photo's, a face's or a label's.
///
/// Most databases number their rows, some use UUIDs; both are kept as written. Ids order shorter first, then
/// by their bytes, which is numeric order for numbers. In JSON a canonical 64-bit number is a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id(Box<str>);

impl Id {
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn as_number(&self) -> Option<i64> {
        let number = self.0.parse::<i64>().ok()?;
        (number.to_string() == *self.0).then_some(number)
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<i64> for Id {
    fn from(number: i64) -> Self {
        Self::new(number.to_string())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_number() {
            Some(number) => serializer.serialize_i64(number),
            None => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Number(number) => Id::from(number),
            Written::Text(text) => Id::new(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_like_numbers_and_keep_their_spelling() {
        let mut ids: Vec<Id> = ["10", "9", "007", "a-1"].into_iter().map(Id::from).collect();
        ids.sort();
        assert_eq!(ids.iter().map(Id::as_str).collect::<Vec<_>>(), ["9", "10", "007", "a-1"]);
        assert_eq!(serde_json::to_string(&ids).unwrap(), r#"[9,10,"007","a-1"]"#);
        assert_eq!(serde_json::from_str::<Vec<Id>>(r#"[9,10,"007","a-1"]"#).unwrap(), ids);
    }
}
