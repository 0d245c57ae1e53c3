//! The feed of endings: what has ended in a run, in order, so that a reader learns what is new without walking all
//! photos.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};

use crate::domain::{Ending, Id};

/// Identifies one life of a ledger. A ledger that was lost and rebuilt has another epoch, and numbers its feed anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(String);

impl Epoch {
    /// 64 random bits in hexadecimal.
    pub fn random() -> Self {
        Self(format!("{:016x}", RandomState::new().hash_one("epoch")))
    }

    /// The epoch as an adapter has stored it. Empty for a run that has no ledger yet.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A reader's position in the feed of a run: everything up to `sequence` has been read. Readers store it together with
/// what they derive from the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub epoch: Epoch,
    pub sequence: u64,
}

/// A part of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endings {
    /// Oldest first, with growing sequences. Empty: there is nothing new.
    pub entries: Vec<FeedEntry>,
    /// For the next call.
    pub cursor: Cursor,
    /// The reader's cursor does not belong to this feed: the ledger was lost since. `entries` start with the first of
    /// the feed, and what the reader derived from the earlier feed no longer counts.
    pub restarted: bool,
}

/// One change. Readers upsert by `photo_id`: a photo that is requeued and ends again has a later entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    pub sequence: u64,
    pub photo_id: Id,
    pub change: FeedChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedChange {
    Ended(Ending),
    /// The photo was requeued after it had ended: its earlier ending no longer counts.
    Reopened,
}

impl Endings {
    /// Whether the answer tells a reader anything.
    pub(super) fn are_news(&self) -> bool {
        self.restarted || !self.entries.is_empty()
    }

    /// `after`: the cursor that the reader came with.
    pub(super) fn new(entries: Vec<FeedEntry>, epoch: Epoch, after: Option<&Cursor>, restarted: bool) -> Self {
        let unmoved = after.filter(|_| !restarted).map_or(0, |cursor| cursor.sequence);
        let sequence = entries.last().map_or(unmoved, |entry| entry.sequence);
        Self { entries, cursor: Cursor { epoch, sequence }, restarted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ() {
        let epochs: std::collections::HashSet<Epoch> = (0..1000).map(|_| Epoch::random()).collect();
        assert_eq!(epochs.len(), 1000);
        assert!(epochs.iter().all(|epoch| epoch.as_str().len() == 16));
    }
}
