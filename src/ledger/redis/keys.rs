//! The names of everything that the ledger keeps in Redis. `docs/names-stores.md` has them as a table.
//!
//! All keys of a run carry `{RUN}`, so that a cluster holds a run in one place: a move changes photo, counters and
//! sorted sets at once, and a script may touch one slot only. Runs spread over the nodes, one run does not.

use crate::domain::CauseCode;
use crate::domain::{Ending, Id, Position, RunName, StageName};
use crate::ledger::Filter;

/// What a photo does at its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Waiting,
    /// Waiting, and not for the first time at this stage.
    Retrying,
    Ended(Ending),
}

impl Kind {
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

/// The photos that stand alike; every photo is in exactly one group. A few dozen groups make up a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub stage: StageName,
    pub kind: Kind,
    /// Code of the cause.
    pub code: Option<CauseCode>,
}

impl Group {
    /// `STAGE/KIND`, or `STAGE/KIND/CAUSE`.
    pub fn name(&self) -> String {
        let stem = Self::stem(self.stage, self.kind);
        match &self.code {
            Some(code) => format!("{stem}/{code}"),
            None => stem,
        }
    }

    /// `STAGE/KIND`.
    pub fn stem(stage: StageName, kind: Kind) -> String {
        format!("{}/{}", stage.as_str(), kind.as_str())
    }

    pub fn parse(name: &str) -> Option<Self> {
        let mut words = name.splitn(3, '/');
        let (stage, kind) = (words.next()?.parse().ok()?, Kind::parse(words.next()?)?);
        Some(Self { stage, kind, code: words.next().map(CauseCode::from) })
    }

    /// Group and host of a counter's name `GROUP/HOST`. No host holds a slash.
    pub fn parse_with_host(name: &str) -> Option<(Self, &str)> {
        let (group, host) = name.rsplit_once('/')?;
        Some((Self::parse(group)?, host))
    }

    /// Whether a filter lets the photos of this group pass, the host left aside.
    pub fn matches(&self, filter: &Filter) -> bool {
        let ending = match self.kind {
            Kind::Ended(ending) => Some(ending),
            Kind::Waiting | Kind::Retrying => None,
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

    /// Hash: photo id, status and history as `packing` has them.
    pub fn photos(&self) -> String {
        format!("{}photos", self.prefix)
    }

    /// Hash: photo id, the message it waits for, as JSON, with zstd when it is long.
    pub fn messages(&self) -> String {
        format!("{}messages", self.prefix)
    }

    /// Hash: group, how many photos.
    pub fn counts(&self) -> String {
        format!("{}counts", self.prefix)
    }

    /// Hash: group/host, how many photos.
    pub fn hosts(&self) -> String {
        format!("{}hosts", self.prefix)
    }

    /// Sorted set: the photos that a stage has to work on, by the second since 1970 from which on they are due.
    pub fn due(&self, stage: StageName) -> String {
        format!("{}due:{stage}", self.prefix)
    }

    /// What the keys of the sorted sets below begin with.
    pub fn groups(&self) -> String {
        format!("{}in:", self.prefix)
    }

    /// Sorted set: the photos of a group, all with score 0, in the order of [`member`].
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

/// A photo's place in a sorted set: ids order shorter first, so their length comes before their bytes.
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
    fn members_order_as_ids_do() {
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
    fn groups_are_read_back() {
        for kind in [Kind::Waiting, Kind::Retrying, Kind::Ended(Ending::Gone)] {
            for code in [None, Some(CauseCode::Http(404))] {
                let group = Group { stage: StageName::Fetch, kind, code };
                assert_eq!(Group::parse(&group.name()), Some(group.clone()));
                let with_host = format!("{}/[::1]", group.name());
                assert_eq!(Group::parse_with_host(&with_host), Some((group.clone(), "[::1]")));
                assert_eq!(Group::parse_with_host(&format!("{}/", group.name())), Some((group, "")), "no host");
            }
        }
    }
}
