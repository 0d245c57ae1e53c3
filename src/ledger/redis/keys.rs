//! The Redis keys of the ledger. `docs/names-stores.md` lists them in a table.
//!
//! All keys of a run contain `{RUN}`, so that a cluster stores a run in one slot: a move changes the photo, counters,
//! sorted sets and the feed in one script, and a script may use one slot only. Several runs spread over the nodes.

use crate::domain::{CauseCode, Ending, Id, Position, RunName, StageName};
use crate::ledger::Filter;

/// What the photos of a group do at their stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    Waiting,
    /// Waiting, with a delivery number above 1.
    Retrying,
    Ended(Ending),
}

impl GroupKind {
    pub fn of(at: Position, ending: Option<Ending>) -> Self {
        match ending {
            Some(ending) => Self::Ended(ending),
            None if at.delivery > 1 => Self::Retrying,
            None => Self::Waiting,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Ended(ending) => ending.as_str(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "waiting" => Some(Self::Waiting),
            "retrying" => Some(Self::Retrying),
            _ => text.parse().ok().map(Self::Ended),
        }
    }
}

/// Photos with the same stage, kind and cause. Every photo is in exactly one group; a run has a few dozen groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoGroup {
    pub stage: StageName,
    pub kind: GroupKind,
    /// Code of the cause.
    pub code: Option<CauseCode>,
}

impl PhotoGroup {
    /// `STAGE/KIND`, or `STAGE/KIND/CAUSE`.
    pub fn name(&self) -> String {
        let stem = Self::stem(self.stage, self.kind);
        match &self.code {
            Some(code) => format!("{stem}/{code}"),
            None => stem,
        }
    }

    /// `STAGE/KIND`.
    pub fn stem(stage: StageName, kind: GroupKind) -> String {
        format!("{}/{}", stage.as_str(), kind.as_str())
    }

    pub fn parse(name: &str) -> Option<Self> {
        let mut words = name.splitn(3, '/');
        let (stage, kind) = (words.next()?.parse().ok()?, GroupKind::parse(words.next()?)?);
        Some(Self { stage, kind, code: words.next().map(CauseCode::from) })
    }

    /// Group and host of a counter's name `GROUP/HOST`. No host contains a slash.
    pub fn parse_with_host(name: &str) -> Option<(Self, &str)> {
        let (group, host) = name.rsplit_once('/')?;
        Some((Self::parse(group)?, host))
    }

    /// Whether a filter selects the photos of this group, whatever their host.
    pub fn matches(&self, filter: &Filter) -> bool {
        let ending = match self.kind {
            GroupKind::Ended(ending) => Some(ending),
            GroupKind::Waiting | GroupKind::Retrying => None,
        };
        filter.stage.is_none_or(|stage| stage == self.stage)
            && (filter.ending.is_none() || filter.ending == ending)
            && (filter.cause.is_none() || filter.cause == self.code)
            && !(filter.waiting && ending.is_some())
    }
}

/// The keys of one run.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn of(prefix: &str, run: &RunName) -> Self {
        Self { prefix: format!("{prefix}:{{{run}}}:") }
    }

    /// Hash: photo id, status and history in the layout of `packing`.
    pub fn photos(&self) -> String {
        format!("{}photos", self.prefix)
    }

    /// Hash: photo id, its message in JSON, compressed with zstd when it is long.
    pub fn messages(&self) -> String {
        format!("{}messages", self.prefix)
    }

    /// Hash: group, number of photos.
    pub fn counts(&self) -> String {
        format!("{}counts", self.prefix)
    }

    /// Hash: group/host, number of photos.
    pub fn hosts(&self) -> String {
        format!("{}hosts", self.prefix)
    }

    /// Text: the epoch of the ledger.
    pub fn epoch(&self) -> String {
        format!("{}epoch", self.prefix)
    }

    /// Stream: the feed of endings.
    pub fn endings(&self) -> String {
        format!("{}endings", self.prefix)
    }

    /// Sorted set: the photos that wait for a stage or are processed by it, by the second since 1970 at which they are
    /// due.
    pub fn due(&self, stage: StageName) -> String {
        format!("{}due:{stage}", self.prefix)
    }

    /// The prefix of the keys below.
    pub fn groups(&self) -> String {
        format!("{}in:", self.prefix)
    }

    /// Sorted set: the photos of a group with score 0, in the order of [`member`].
    pub fn group(&self, group: &str) -> String {
        format!("{}{group}", self.groups())
    }

    /// Sorted set: the photos of a group that one host serves.
    pub fn group_and_host(&self, group: &str, host: &str) -> String {
        format!("{}{group}@{host}", self.groups())
    }
}

/// Set: the names of the runs.
pub fn runs(prefix: &str) -> String {
    format!("{prefix}:runs")
}

/// A photo in a sorted set: the length of its id, then the id, as shorter ids order first.
pub fn member(id: &Id) -> Vec<u8> {
    let length = u16::try_from(id.as_str().len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], id.as_str().as_bytes()].concat()
}

pub fn id_of_member(member: &[u8]) -> Option<Id> {
    std::str::from_utf8(member.get(2..)?).ok().map(Id::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_the_order_of_ids() {
        let mut ids: Vec<Id> = ["10", "9", "007", "a-1", "\0", "ü", &"x".repeat(255), &"y".repeat(300)]
            .into_iter()
            .map(Id::from)
            .collect();
        let mut members: Vec<_> = ids.iter().map(member).collect();
        ids.sort();
        members.sort();
        assert_eq!(members.iter().map(|member| id_of_member(member).unwrap()).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn group_names_are_read_back() {
        for kind in [GroupKind::Waiting, GroupKind::Retrying, GroupKind::Ended(Ending::Gone)] {
            for code in [None, Some(CauseCode::Http(404))] {
                let group = PhotoGroup { stage: StageName::Fetch, kind, code };
                assert_eq!(PhotoGroup::parse(&group.name()), Some(group.clone()));
                let with_host = format!("{}/[::1]", group.name());
                assert_eq!(PhotoGroup::parse_with_host(&with_host), Some((group.clone(), "[::1]")));
                assert_eq!(PhotoGroup::parse_with_host(&format!("{}/", group.name())), Some((group, "")), "no host");
            }
        }
    }
}
