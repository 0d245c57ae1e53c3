//! The report's counts: the funnel, the causes and the hosts.

use std::collections::HashMap;

use super::records::{FaceRecord, PhotoOutcome, PhotoRecord};
use crate::domain::{Photo, StageName};

/// Number of photos that passed each step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Funnel {
    pub candidates: u64,
    pub downloaded: u64,
    /// Aligned crops with a prediction.
    pub faces: u64,
    /// Faces whose P(OK) is at or above the threshold.
    pub ok: u64,
}

/// The outcome of photos, with its stage and cause.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason {
    pub outcome: PhotoOutcome,
    pub step: StageName,
    /// Empty without a cause: the photo waits, or ended as predicted.
    pub cause: String,
}

/// The outcomes of one host's photos.
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

/// All counts of the report, taken in one pass over the ledger.
#[derive(Debug)]
pub struct ReportTally {
    pub funnel: Funnel,
    ok_threshold: f64,
    reasons: HashMap<Reason, u64>,
    hosts: HashMap<String, HostTally>,
}

impl ReportTally {
    /// Hosts that are counted one by one, which bounds memory. Further hosts share the line without a name.
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
            PhotoOutcome::Gone => host.gone += 1,
            PhotoOutcome::Rejected => host.rejected += 1,
            PhotoOutcome::Failed => host.failed += 1,
            PhotoOutcome::Waiting => host.waiting += 1,
            PhotoOutcome::Predicted => host.faces += 1,
        }
    }

    pub fn face(&mut self, record: &FaceRecord) {
        self.funnel.faces += 1;
        self.funnel.ok += u64::from(record.p_ok >= self.ok_threshold);
    }

    pub fn ok_threshold(&self) -> f64 {
        self.ok_threshold
    }

    /// Number of photos that have not ended.
    pub fn waiting(&self) -> u64 {
        self.reasons.iter().filter(|(reason, _)| reason.outcome == PhotoOutcome::Waiting).map(|(_, count)| count).sum()
    }

    /// Reasons with their number of photos, in descending order of that number.
    pub fn reasons(&self) -> Vec<(&Reason, u64)> {
        let mut reasons: Vec<_> = self.reasons.iter().map(|(reason, &count)| (reason, count)).collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        reasons
    }

    /// The `limit` hosts with the most photos, then the sum over all other hosts and the number of those.
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

    fn tally_of(entries: &[Entry]) -> ReportTally {
        let mut tally = ReportTally::new(0.5);
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
    fn the_funnel_counts_the_photos_of_each_step() {
        let mut faceless = fixtures::ended(3, Ending::Rejected, StageName::Detect, "no-face");
        let photo = &mut faceless.status.message.as_mut().unwrap().photo;
        photo.facts.original = fixtures::predicted(3, 0.1).facts.original;
        let tally = tally_of(&[
            fixtures::predicted_entry(1, 0.5),
            fixtures::predicted_entry(2, 0.49),
            faceless,
            fixtures::ended(4, Ending::Gone, StageName::Fetch, "http-404"),
            fixtures::waiting(5, StageName::Fetch),
        ]);
        assert_eq!(tally.funnel, Funnel { candidates: 5, downloaded: 3, faces: 2, ok: 1 });
        assert_eq!(tally.waiting(), 1);
        let (reason, count) = tally.reasons()[0];
        assert_eq!((reason.outcome, count), (PhotoOutcome::Predicted, 2));
    }

    #[test]
    fn hosts_beyond_the_limit_are_summed() {
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
