//! The report's counts: the funnel, the causes and the hosts.

use std::collections::HashMap;

use super::records::{PhotoOutcome, WaitingPhoto};
use crate::dataset::balance::Balance;
use crate::dataset::caps::Caps;
use crate::dataset::face::Number;
use crate::dataset::index::{Index, IndexError, OkSplit};
use crate::dataset::page::{Direction, Order, Sort};
use crate::dataset::placeholder::Placeholders;
use crate::dataset::quality_histogram::QualityHistogram;
use crate::dataset::query::Query;
use crate::domain::{Id, StageName};

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

/// All counts of the report.
#[derive(Debug)]
pub struct ReportTally {
    pub funnel: Funnel,
    /// Faces that the run's current classifier has not scored: they are neither OK nor NG.
    pub unscored: u64,
    /// Number of faces with a P(OK) in each of [`ReportTally::BINS`] equal parts of 0 to 1.
    pub histogram: Vec<u64>,
    /// Photos that ended without a record, and the first of their ids.
    pub unrecorded: (u64, Vec<Id>),
    pub placeholders: Placeholders,
    pub quality: Vec<QualityHistogram>,
    pub balance: Balance,
    ok_threshold: f64,
    reasons: HashMap<Reason, u64>,
    hosts: HashMap<String, HostTally>,
}

impl ReportTally {
    /// Hosts that are counted one by one, which bounds memory. Further hosts share the line without a name.
    const MAX_HOSTS: usize = 100_000;
    const BINS: usize = 40;
    /// Ids of photos without a record that are named.
    const NAMED: usize = 5;
    /// Labels, hosts and sources that are listed in the balance.
    const NAMED_VALUES: usize = 15;
    /// Placeholders that are listed.
    const PLACEHOLDERS: usize = 10;

    /// `waiting`: photos that have not ended.
    pub fn of(index: &Index, waiting: &[WaitingPhoto], ok_threshold: f64) -> Result<Self, IndexError> {
        let OkSplit { ok, ng, unscored } = index.ok_split(&Query::ALL, ok_threshold);
        let by_id = Order { sort: Sort::Id, direction: Direction::Ascending };
        let mut tally = Self {
            funnel: Funnel { faces: ok + ng + unscored, ok, ..Funnel::default() },
            unscored,
            histogram: index.histogram(Number::POk, (0.0, 1.0), Self::BINS, &Query::ALL, ok_threshold),
            unrecorded: index.unrecorded(Self::NAMED)?,
            placeholders: index.placeholders(Self::PLACEHOLDERS)?,
            quality: QualityHistogram::of_index(index, ok_threshold),
            balance: index.balance(&Query::ALL, ok_threshold, by_id, Caps::default(), Self::NAMED_VALUES),
            ok_threshold,
            reasons: HashMap::new(),
            hosts: HashMap::new(),
        };
        for alike in index.endings()? {
            let cause = alike.cause.map(|code| code.to_string()).unwrap_or_default();
            let reason = Reason { outcome: alike.ending.into(), step: alike.stage, cause };
            tally.add(reason, &alike.host, alike.downloaded, alike.photos);
        }
        for WaitingPhoto { record, host, downloaded } in waiting {
            let cause = record.cause.clone().unwrap_or_default();
            tally.add(Reason { outcome: record.outcome, step: record.step, cause }, host, *downloaded, 1);
        }
        Ok(tally)
    }

    fn add(&mut self, reason: Reason, host: &str, downloaded: bool, photos: u64) {
        self.funnel.candidates += photos;
        self.funnel.downloaded += if downloaded { photos } else { 0 };
        let known = self.hosts.len() < Self::MAX_HOSTS || self.hosts.contains_key(host);
        let host = self.hosts.entry(if known { host.to_owned() } else { String::new() }).or_default();
        host.candidates += photos;
        let outcomes = match reason.outcome {
            PhotoOutcome::Gone => &mut host.gone,
            PhotoOutcome::Rejected => &mut host.rejected,
            PhotoOutcome::Failed => &mut host.failed,
            PhotoOutcome::Waiting => &mut host.waiting,
            PhotoOutcome::Predicted => &mut host.faces,
        };
        *outcomes += photos;
        *self.reasons.entry(reason).or_default() += photos;
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
    use crate::domain::{Ending, Record};
    use crate::report::fixtures;

    fn tally_of(records: impl IntoIterator<Item = Record>, waiting: &[WaitingPhoto]) -> ReportTally {
        ReportTally::of(&fixtures::index_of(records), waiting, 0.5).unwrap()
    }

    #[test]
    fn the_funnel_counts_the_photos_of_each_step() {
        let mut faceless = fixtures::ended(3, Ending::Rejected, StageName::Detect, "no-face");
        faceless.message.photo.facts.original = fixtures::predicted(3, 0.1).facts.original;
        let mut unscored = fixtures::predicted_record(6, 0.9);
        unscored.message.photo.facts.prediction = None;
        let records = [
            fixtures::predicted_record(1, 0.5),
            fixtures::predicted_record(2, 0.49),
            faceless,
            fixtures::ended(4, Ending::Gone, StageName::Fetch, "http-404"),
            unscored,
        ];
        let tally = tally_of(records, &[fixtures::waiting(5, StageName::Fetch).into()]);
        assert_eq!(tally.funnel, Funnel { candidates: 6, downloaded: 4, faces: 3, ok: 1 });
        assert_eq!((tally.waiting(), tally.unscored), (1, 1));
        assert_eq!((tally.histogram[20], tally.histogram.iter().sum::<u64>()), (1, 2));
        let (reason, count) = tally.reasons()[0];
        assert_eq!((reason.outcome, count), (PhotoOutcome::Predicted, 3));
    }

    #[test]
    fn originals_that_labels_share_are_placeholders() {
        let mut records: Vec<Record> = (1..=4).map(|id| fixtures::predicted_record(id, 0.9)).collect();
        let shared = records[0].message.photo.facts.original.clone();
        records[1].message.photo.facts.original = shared.clone();
        let mut faceless = fixtures::ended(5, Ending::Rejected, StageName::Detect, "no-face");
        faceless.message.photo.facts.original = shared;
        records.push(faceless);
        let placeholders = tally_of(records, &[]).placeholders;
        assert_eq!((placeholders.originals, placeholders.photos, placeholders.faces), (1, 3, 2));
        assert_eq!((placeholders.largest[0].labels, placeholders.largest[0].photos), (2, 3), "labels 1, 2 and 2");
    }

    #[test]
    fn hosts_beyond_the_limit_are_summed() {
        let records = (1..=5).map(|id| {
            let mut record = fixtures::ended(id, Ending::Gone, StageName::Fetch, "http-404");
            record.message.photo.candidate.photo_url = format!("https://host{}.example/", id.min(4));
            record
        });
        let tally = tally_of(records, &[]);
        let (hosts, rest, others) = tally.hosts(2);
        assert_eq!(hosts[0], ("host4.example", HostTally { candidates: 2, gone: 2, ..HostTally::default() }));
        assert_eq!(hosts[1].0, "host1.example");
        assert_eq!((rest.candidates, others), (2, 2));
    }
}
