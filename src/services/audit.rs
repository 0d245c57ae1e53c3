//! Compares a run with its dump: every candidate must have ended with its files, or be on its way.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

pub use super::audit_files::{AuditError, Fault, FaultKind, FileCheck, FilesRead};
use super::audit_files::{FileAudit, PhotoFiles};
use super::run_target::RunTarget;
use crate::domain::{Candidate, Ending, Id, Printable, State};
use crate::ledger::{Entry, Filter};

/// The result of a comparison.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub candidates: u64,
    /// Candidates that have ended.
    pub ended: BTreeMap<Ending, u64>,
    /// Candidates that are still in the pipeline.
    pub waiting: u64,
    /// Photos of the ledger that this source does not have. They come from another source, which is not a fault.
    pub others: u64,
    /// None: no file was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesRead>,
    pub faults: Vec<Fault>,
}

/// Photos on one page of the ledger.
const PAGE: usize = 1000;

/// Compares the run with the candidates of its dump. `progress` receives the number of photos whose files are checked.
pub async fn compare(
    target: &RunTarget,
    candidates: &[Candidate],
    check: FileCheck,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Findings, AuditError> {
    let mut files = FileAudit::new(check, &*target.objects, progress);
    let mut findings = Findings { candidates: candidates.len() as u64, ..Findings::default() };
    let mut missing = HashMap::with_capacity(candidates.len());
    for candidate in candidates {
        if missing.insert(&candidate.photo_id, candidate).is_some() {
            findings.add(&candidate.photo_id, FaultKind::Doubled, "the dump has it more than once");
        }
    }
    let sources: HashSet<&str> = candidates.iter().filter_map(|candidate| candidate.source.as_deref()).collect();
    // While a process works, a photo between two queues is in none of them.
    let queued = target.message_ids().await?;
    let mut after = None;
    loop {
        let page = target.ledger.page(&target.run, &Filter::default(), after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.photo_id.clone());
        let page = match &target.records {
            Some(records) => records.complete(&target.run, page).await?,
            None => page,
        };
        let mut of_page = Vec::with_capacity(page.len());
        for entry in &page {
            let Some(candidate) = missing.remove(&entry.photo_id) else {
                findings.others += 1;
                // A photo that is no longer in its folder may have been the only copy.
                let message = entry.status.message.as_ref();
                let source = message.and_then(|message| message.photo.candidate.source.as_deref());
                if source.is_some_and(|source| sources.contains(source)) {
                    of_page.extend(findings.check(entry, queued.as_ref(), check));
                }
                continue;
            };
            findings.compare_urls(entry, candidate);
            match entry.status.state {
                State::Waiting(_) => findings.waiting += 1,
                State::Ended(ending) => *findings.ended.entry(ending).or_default() += 1,
            }
            of_page.extend(findings.check(entry, queued.as_ref(), check));
        }
        files.add(of_page).await?;
    }
    for photo_id in missing.into_keys() {
        findings.add(photo_id, FaultKind::Missing, "the dump has it and the ledger does not");
    }
    let (read, faults) = files.finish().await?;
    findings.files = (check != FileCheck::Existence).then_some(read);
    findings.faults.extend(faults);
    findings.faults.sort();
    Ok(findings)
}

impl Findings {
    /// The same id with another URL is another photo.
    fn compare_urls(&mut self, entry: &Entry, candidate: &Candidate) {
        let Some(message) = entry.status.message.as_ref().filter(|_| !entry.status.is_taken_down()) else { return };
        let known = &message.photo.candidate.photo_url;
        if *known != candidate.photo_url {
            let detail = format!("the run has {known}, the source has {}", candidate.photo_url);
            self.add(&entry.photo_id, FaultKind::Conflict, &detail.printable().to_string());
        }
    }

    /// A waiting photo must have its message, a predicted one what the stages found out. Returns the files to check.
    fn check(&mut self, entry: &Entry, queued: Option<&HashSet<String>>, check: FileCheck) -> Option<PhotoFiles> {
        let Some(message) = &entry.status.message else {
            self.add(&entry.photo_id, FaultKind::Forgotten, "the ledger has lost its message");
            return None;
        };
        let facts = &message.photo.facts;
        match entry.status.state {
            State::Waiting(_) if queued.is_some_and(|queued| !queued.contains(&message.id())) => {
                let detail = "no queue has its message: `facemill run` enqueues it again";
                self.add(&entry.photo_id, FaultKind::Stranded, detail);
                None
            }
            State::Ended(Ending::Predicted) => {
                for is_missing in [facts.original.is_none(), facts.crop.is_none()] {
                    if is_missing {
                        let detail = "its record lacks what a stage found out";
                        self.add(&entry.photo_id, FaultKind::Incomplete, detail);
                    }
                }
                Some(PhotoFiles::new(&entry.photo_id, facts))
            }
            State::Ended(_) if check != FileCheck::Existence => Some(PhotoFiles::new(&entry.photo_id, facts)),
            _ => None,
        }
    }

    fn add(&mut self, photo_id: &Id, kind: FaultKind, detail: &str) {
        self.faults.push(Fault { photo_id: photo_id.clone(), kind, detail: detail.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;
    use crate::domain::CauseCode;
    use crate::ledger::Ledger;
    use crate::services::fixture::Fixture;

    #[tokio::test]
    async fn every_kind_of_fault_is_found() {
        let fixture = Fixture::new().await;
        let candidate = |id: i64| fixture.message(id).photo.candidate;
        fixture.end(1, Ending::Gone, CauseCode::Http(404)).await;
        // Predicted without the facts of the stages before.
        fixture.end(2, Ending::Predicted, CauseCode::Http(200)).await;
        fixture.ledger.register(&fixture.run, &[candidate(3), candidate(4), candidate(5)], 5).await.unwrap();
        fixture.broker.publish(&fixture.message(3)).await.unwrap();
        let mut dump = [1, 1, 2, 3, 4, 6].map(candidate);
        dump[3].photo_url = "http://photos.test/other.jpg".into();
        let findings = compare(&*fixture.close().await, &dump, FileCheck::Existence, &|_| ()).await.unwrap();
        assert_eq!((findings.candidates, findings.waiting, findings.others), (6, 2, 1));
        assert_eq!(findings.ended, BTreeMap::from([(Ending::Gone, 1), (Ending::Predicted, 1)]));
        let faults: Vec<(&str, FaultKind)> =
            findings.faults.iter().map(|fault| (fault.photo_id.as_str(), fault.kind)).collect();
        use FaultKind::{Conflict, Doubled, Incomplete, Missing, Stranded};
        let expected =
            [("1", Doubled), ("2", Incomplete), ("2", Incomplete), ("3", Conflict), ("4", Stranded), ("6", Missing)];
        assert_eq!(faults, expected);
        let [.., conflict, _, _] = &findings.faults[..] else { panic!("{findings:?}") };
        assert!(conflict.detail.ends_with("the source has http://photos.test/other.jpg"), "{conflict:?}");
    }
}
