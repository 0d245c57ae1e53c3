//! Why a run does not have a photo: what its source says about it.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use super::run_target::RunTarget;
use crate::archive::refusals::Refusals;
use crate::domain::{Candidate, Id};
use crate::ledger::Filter;
use crate::pipeline::producer;
use crate::server_error::ServerError;
use crate::source::{AskedPhoto, FoundPhoto};

/// Why a run does not have a photo of its source. `place` is that of the candidate among all, from 1.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum WhyNot {
    NotInSource,
    /// Several rows of photos have its id.
    SeveralRows {
        rows: u64,
    },
    NoLabel,
    SeveralLabels {
        faces: Vec<Id>,
    },
    /// The table of labels does not have the label of its face.
    UnknownLabel {
        face: Id,
        label: Id,
    },
    /// The producer refuses the candidate.
    Refused {
        detail: &'static str,
    },
    /// A takedown refuses its address.
    TakenDown,
    /// The run has another photo with its id.
    Conflict {
        photo_id: Id,
    },
    /// The run has the candidates up to some place, and this one comes later.
    BeyondLimit {
        place: usize,
        candidates: usize,
        taken: usize,
    },
    NotEnqueued {
        place: usize,
        candidates: usize,
    },
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const RULE: &str = "a candidate has exactly one face with a label";
        match self {
            Self::NotInSource => f.write_str("the source does not have it"),
            Self::SeveralRows { rows } => write!(f, "no candidate: {rows} photos of the source have its id"),
            Self::NoLabel => write!(f, "no candidate: none of its faces has a label; {RULE}"),
            Self::SeveralLabels { faces } => {
                let ids: Vec<&str> = faces.iter().map(Id::as_str).collect();
                write!(f, "no candidate: its faces {} have labels; {RULE}", ids.join(", "))
            }
            Self::UnknownLabel { face, label } => {
                write!(f, "no candidate: the label {label} of its face {face} does not exist")
            }
            Self::Refused { detail } => write!(f, "refused: {detail}"),
            Self::TakenDown => f.write_str("refused: a takedown refuses its address"),
            Self::Conflict { photo_id } => write!(
                f,
                "not enqueued: the run has another photo with its id {photo_id}; --id-prefix keeps two sources apart"
            ),
            Self::BeyondLimit { place, candidates, taken } => write!(
                f,
                "not enqueued: it is candidate {place} of {candidates}, and the run has the first {taken}, as with \
                 --limit"
            ),
            Self::NotEnqueued { place, candidates } => write!(
                f,
                "not enqueued: it is candidate {place} of {candidates}; `facemill run` or `produce` with this source \
                 enqueues it"
            ),
        }
    }
}

/// Why the run does not have the photo `photo_id`, which is asked about. `candidates`: those of the source.
///
/// # Errors
/// Ledger or object store cannot be read.
pub async fn why_not(
    target: &RunTarget,
    asked: &AskedPhoto,
    photo_id: &Id,
    candidates: &[Candidate],
) -> Result<WhyNot, ServerError> {
    let is_asked = |candidate: &Candidate| candidate.photo_id == *photo_id || candidate.photo_url == asked.id_or_url();
    let Some(at) = candidates.iter().position(is_asked) else {
        return Ok(asked.found().map_or(WhyNot::NotInSource, no_candidate));
    };
    let candidate = &candidates[at];
    if let Some(refusal) = producer::refusal(candidate) {
        return Ok(WhyNot::Refused { detail: refusal.reason });
    }
    if Refusals::new(target.objects.clone()).has_url(&candidate.photo_url).await? {
        return Ok(WhyNot::TakenDown);
    }
    let known = known(target).await?;
    if known.contains(&candidate.photo_id) {
        return Ok(WhyNot::Conflict { photo_id: candidate.photo_id.clone() });
    }
    let is_known = |candidate: &Candidate| known.contains(&candidate.photo_id);
    let taken = candidates.iter().take_while(|candidate| is_known(candidate)).count();
    let (place, count) = (at + 1, candidates.len());
    Ok(match taken > 0 && !candidates[taken..].iter().any(is_known) {
        true => WhyNot::BeyondLimit { place, candidates: count, taken },
        false => WhyNot::NotEnqueued { place, candidates: count },
    })
}

/// Why a photo of a database is no candidate.
fn no_candidate(FoundPhoto { rows, labelled }: FoundPhoto) -> WhyNot {
    match (rows, &labelled[..]) {
        (1, []) => WhyNot::NoLabel,
        (1, [face]) if !face.label_exists => WhyNot::UnknownLabel { face: face.id.clone(), label: face.label.clone() },
        (1, [_, _, ..]) => WhyNot::SeveralLabels { faces: labelled.into_iter().map(|face| face.id).collect() },
        (2.., _) => WhyNot::SeveralRows { rows },
        _ => WhyNot::NotInSource,
    }
}

/// The ids of all photos of the run.
async fn known(target: &RunTarget) -> Result<HashSet<Id>, ServerError> {
    const PAGE: usize = 1000;
    let (mut known, mut after) = (HashSet::new(), None);
    loop {
        let page = target.ledger.page(&target.run, &Filter::default(), after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(known) };
        after = Some(last.photo_id.clone());
        known.extend(page.into_iter().map(|entry| entry.photo_id));
    }
}
