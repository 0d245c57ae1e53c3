//! Counts for the head of the report: the funnel, the causes and the hosts.

use std::collections::HashMap;

use super::records::{FaceRecord, Outcome, PhotoRecord};
use crate::domain::{Photo, StageName};

/// How many photos got how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Funnel {
    pub candidates: u64,
    pub downloaded: u64,
    /// Aligned crops with a score.
    pub faces: u64,
    /// Of those, the ones at or above the threshold.
    pub ok: u64,
}

/// Why photos stand where they stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason {
    pub outcome: Outcome,
    pub step: StageName,
    /// Empty: no cause, it is simply not finished, or has arrived.
    pub cause: String,
}

/// What became of one host's photos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostTally {
    pub candidates: u64,
    pub gone: u64,
    pub rejected: u64,
    pub failed: u64,
    pub waiting: u64,
    pub faces: u64,
}

impl HostTally {
    fn add(&mut self, other: &HostTally) {
        self.candidates += other.candidates;
        self.gone += other.gone;
        self.rejected += other.rejected;
        self.failed += other.failed;
        self.waiting += other.waiting;
        self.faces += other.faces;
    }
}

/// Everything that is counted while the ledger is read once.
#[derive(Debug)]
pub struct Tally {
    pub funnel: Funnel,
    ok_threshold: f64,
    reasons: HashMap<Reason, u64>,
    hosts: HashMap<String, HostTally>,
}

impl Tally {
    /// Every host that photos name costs memory; a collection that names more than this has the rest in one line.
    const MAX_HOSTS: usize = 100_000;

    pub fn new(ok_threshold: f64) -> Self {
        Self { funnel: Funnel::default(), ok_threshold, reasons: HashMap::new(), hosts: HashMap::new() }
    }

    pub fn photo(&mut self, record: &PhotoRecord, photo: Option<&Photo>) {
        self.funnel.candidates += 1;
        self.funnel.downloaded += u64::from(photo.is_some_and(|photo| photo.facts.original.is_some()));
        let cause = record.cause.clone().unwrap_or_default();
        *self.reasons.entry(Reason { outcome: record.outcome, step: record.step, cause }).or_default() += 1;

        let host = photo.map(|photo| photo.candidate.host()).unwrap_or_default();
        let known = self.hosts.len() < Self::MAX_HOSTS || self.hosts.contains_key(&host);
        let host = self.hosts.entry(if known { host } else { String::new() }).or_default();
        host.candidates += 1;
        match record.outcome {
            Outcome::Gone => host.gone += 1,
            Outcome::Rejected => host.rejected += 1,
            Outcome::Failed => host.failed += 1,
            Outcome::Waiting => host.waiting += 1,
            Outcome::Predicted => host.faces += 1,
        }
    }

    pub fn face(&mut self, record: &FaceRecord) {
        self.funnel.faces += 1;
        self.funnel.ok += u64::from(record.p_ok >= self.ok_threshold);
    }

    pub fn ok_threshold(&self) -> f64 {
        self.ok_threshold
    }

    /// Photos that have not ended.
    pub fn waiting(&self) -> u64 {
        self.reasons.iter().filter(|(reason, _)| reason.outcome == Outcome::Waiting).map(|(_, count)| count).sum()
    }

    /// Most frequent first.
    pub fn reasons(&self) -> Vec<(&Reason, u64)> {
        let mut reasons: Vec<_> = self.reasons.iter().map(|(reason, &count)| (reason, count)).collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        reasons
    }

    /// The `limit` hosts with the most photos, and what the remaining ones sum up to and how many they are.
    pub fn hosts(&self, limit: usize) -> (Vec<(&str, HostTally)>, HostTally, usize) {
        let mut hosts: Vec<_> = self.hosts.iter().map(|(host, &tally)| (host.as_str(), tally)).collect();
        hosts.sort_by(|a, b| b.1.candidates.cmp(&a.1.candidates).then_with(|| a.0.cmp(b.0)));
        let rest = hosts.split_off(limit.min(hosts.len()));
        let mut sum = HostTally::default();
        rest.iter().for_each(|(_, tally)| sum.add(tally));
        (hosts, sum, rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Ending;
    use crate::ledger::Entry;
    use crate::report::fixtures;

    fn tally_of(entries: &[Entry]) -> Tally {
        let mut tally = Tally::new(0.5);
        for entry in entries {
            let photo = entry.status.message.as_ref().map(|message| &message.photo);
            tally.photo(&PhotoRecord::of(entry), photo);
            if let Some(face) = photo.and_then(FaceRecord::of) {
                tally.face(&face);
            }
        }
        tally
    }

    #[test]
    fn the_funnel_narrows() {
        let mut faceless = fixtures::ended(3, Ending::Rejected, StageName::Detect, "no-face");
        let photo = &mut faceless.status.message.as_mut().unwrap().photo;
        photo.facts.original = fixtures::predicted(3, 0.1).facts.original;
        let tally = tally_of(&[
            fixtures::arrived(1, 0.5),
            fixtures::arrived(2, 0.49),
            faceless,
            fixtures::ended(4, Ending::Gone, StageName::Fetch, "http-404"),
            fixtures::waiting(5, StageName::Fetch),
        ]);
        assert_eq!(tally.funnel, Funnel { candidates: 5, downloaded: 3, faces: 2, ok: 1 });
        assert_eq!(tally.waiting(), 1);
        let (reason, count) = tally.reasons()[0];
        assert_eq!((reason.outcome, count), (Outcome::Predicted, 2));
    }

    #[test]
    fn many_hosts_end_in_one_line() {
        let entries: Vec<Entry> = (1..=5)
            .map(|id| {
                let mut entry = fixtures::ended(id, Ending::Gone, StageName::Fetch, "http-404");
                let photo = &mut entry.status.message.as_mut().unwrap().photo;
                photo.candidate.photo_url = format!("https://host{}.example/", id.min(4));
                entry
            })
            .collect();
        let tally = tally_of(&entries);
        let (hosts, rest, others) = tally.hosts(2);
        assert_eq!(hosts[0], ("host4.example", HostTally { candidates: 2, gone: 2, ..HostTally::default() }));
        assert_eq!(hosts[1].0, "host1.example");
        assert_eq!((rest.candidates, others), (2, 2));
    }
}
