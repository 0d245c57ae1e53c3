//! Compares a run with its dump: every candidate must have ended with its files, or be on its way.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::run_target::RunTarget;
use crate::domain::{Candidate, Ending, Id, State};
use crate::ledger::{Entry, Filter};
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::server_error::ServerError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

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
    pub faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    pub photo_id: Id,
    #[serde(rename = "fault")]
    pub kind: FaultKind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The dump has the photo more than once.
    Doubled,
    /// The ledger does not know the photo.
    Missing,
    /// The ledger has another URL under the id of the photo.
    Conflict,
    /// The ledger knows the photo and has lost its message.
    Forgotten,
    /// The photo waits, and no queue has its message.
    Stranded,
    /// The record of an ended photo lacks what a stage found out.
    Incomplete,
    /// An object of an ended photo does not exist.
    LostObject,
}

impl FaultKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Doubled => "doubled",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Forgotten => "forgotten",
            Self::Stranded => "stranded",
            Self::Incomplete => "incomplete",
            Self::LostObject => "lost-object",
        }
    }
}

/// Photos on one page of the ledger.
const PAGE: usize = 1000;

/// Compares the run with the candidates of its dump.
pub async fn compare(target: &RunTarget, candidates: &[Candidate]) -> Result<Findings, AuditError> {
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
        for entry in &page {
            let Some(candidate) = missing.remove(&entry.photo_id) else {
                findings.others += 1;
                // A photo that is no longer in its folder may have been the only copy.
                let message = entry.status.message.as_ref();
                let source = message.and_then(|message| message.photo.candidate.source.as_deref());
                if source.is_some_and(|source| sources.contains(source)) {
                    findings.check(entry, queued.as_ref(), &*target.objects).await?;
                }
                continue;
            };
            findings.compare_urls(entry, candidate);
            match entry.status.state {
                State::Waiting(_) => findings.waiting += 1,
                State::Ended(ending) => *findings.ended.entry(ending).or_default() += 1,
            }
            findings.check(entry, queued.as_ref(), &*target.objects).await?;
        }
    }
    for photo_id in missing.into_keys() {
        findings.add(photo_id, FaultKind::Missing, "the dump has it and the ledger does not");
    }
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
            self.add(&entry.photo_id, FaultKind::Conflict, &detail.escape_debug().to_string());
        }
    }

    /// A waiting photo must have its message, a predicted one its objects.
    async fn check(
        &mut self,
        entry: &Entry,
        queued: Option<&HashSet<String>>,
        objects: &dyn Objects,
    ) -> Result<(), AuditError> {
        let Some(message) = &entry.status.message else {
            self.add(&entry.photo_id, FaultKind::Forgotten, "the ledger has lost its message");
            return Ok(());
        };
        match entry.status.state {
            State::Waiting(_) if queued.is_some_and(|queued| !queued.contains(&message.id())) => {
                let detail = "no queue has its message: `facemill run` enqueues it again";
                self.add(&entry.photo_id, FaultKind::Stranded, detail);
            }
            State::Ended(Ending::Predicted) => {
                let facts = &message.photo.facts;
                let original =
                    facts.original.as_ref().map(|original| ObjectKey::original(original.sha256, original.format));
                let crop = facts.crop.as_ref().map(|crop| ObjectKey::face(crop.sha256, crop.format));
                for key in [original, crop] {
                    match key {
                        None => {
                            let detail = "its record lacks what a stage found out";
                            self.add(&entry.photo_id, FaultKind::Incomplete, detail);
                        }
                        Some(key) if !objects.exists(&key).await? => {
                            self.add(&entry.photo_id, FaultKind::LostObject, key.as_str());
                        }
                        Some(_) => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
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
        let findings = compare(&*fixture.close().await, &dump).await.unwrap();
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
