//! The verdicts that count for one crop.

use serde::{Deserialize, Serialize};

use crate::domain::{Judgement, Verdict};

/// The verdicts on a crop that no other verdict replaces, in the order of the log.
///
/// Usually that is the last one. Two people who judge at the same time replace the same verdict, so both of theirs
/// count until somebody who has seen both replaces them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CropVerdicts {
    verdicts: Vec<Verdict>,
}

impl CropVerdicts {
    /// Adds the next verdict of the log. A repeat measures the person and changes nothing.
    pub fn apply(&mut self, verdict: Verdict) {
        if !verdict.repeat {
            self.verdicts.retain(|earlier| !verdict.replaces.contains(&earlier.id));
            self.verdicts.push(verdict);
        }
    }

    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Whether the verdicts contradict each other.
    pub fn is_conflict(&self) -> bool {
        self.verdicts.windows(2).any(|pair| pair[0].judgement != pair[1].judgement)
    }

    /// What counts: a crop with contradicting verdicts is pending until somebody decides. None: the crop is not judged.
    pub fn judgement(&self) -> Option<Judgement> {
        let judgement = if self.is_conflict() { Judgement::Pending } else { self.verdicts.last()?.judgement };
        (judgement != Judgement::Unjudged).then_some(judgement)
    }

    /// The last verdict that counts.
    pub fn last(&self) -> Option<&Verdict> {
        self.verdicts.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ContentHash, Selection, View};

    fn verdict(id: &str, judgement: Judgement, replaces: &[&str]) -> Verdict {
        Verdict {
            id: id.parse().unwrap(),
            photo_id: 1.into(),
            crop: ContentHash::of(b"crop"),
            judgement,
            reason: None,
            by: "ada".into(),
            at: 0,
            replaces: replaces.iter().map(|id| id.parse().unwrap()).collect(),
            selection: Selection::Filter,
            view: View::Single,
            repeat: false,
            seen: None,
        }
    }

    fn after(verdicts: &[Verdict]) -> CropVerdicts {
        let mut on_crop = CropVerdicts::default();
        verdicts.iter().cloned().for_each(|verdict| on_crop.apply(verdict));
        on_crop
    }

    #[test]
    fn a_verdict_counts_until_it_is_replaced() {
        assert_eq!(CropVerdicts::default().judgement(), None);
        let first = verdict("a", Judgement::Ok, &[]);
        let second = verdict("b", Judgement::Ng, &["a"]);
        assert_eq!(after(std::slice::from_ref(&first)).judgement(), Some(Judgement::Ok));
        let both = after(&[first.clone(), second.clone()]);
        assert_eq!((both.judgement(), both.verdicts()), (Some(Judgement::Ng), &[second.clone()][..]));
        // An undo repeats the earlier judgement, or says that there was none.
        let undone = after(&[first.clone(), second.clone(), verdict("c", Judgement::Ok, &["b"])]);
        assert_eq!(undone.judgement(), Some(Judgement::Ok));
        let undone = after(&[first, verdict("c", Judgement::Unjudged, &["a"])]);
        assert_eq!(undone.judgement(), None);
    }

    #[test]
    fn contradicting_verdicts_are_kept_until_somebody_who_saw_both_decides() {
        let verdicts = [
            verdict("a", Judgement::Ok, &[]),
            verdict("b", Judgement::Ng, &["a"]),
            verdict("c", Judgement::Ok, &["a"]),
        ];
        let conflict = after(&verdicts);
        assert!(conflict.is_conflict());
        assert_eq!(conflict.judgement(), Some(Judgement::Pending));
        let ids: Vec<&str> = conflict.verdicts().iter().map(|verdict| verdict.id.as_str()).collect();
        assert_eq!(ids, ["b", "c"]);
        let mut decided = conflict;
        decided.apply(verdict("d", Judgement::Ng, &["b", "c"]));
        assert_eq!((decided.is_conflict(), decided.judgement()), (false, Some(Judgement::Ng)));
        // Two people who agree do not contradict each other.
        let agreed = after(&[verdict("a", Judgement::Ok, &[]), verdict("b", Judgement::Ok, &[])]);
        assert_eq!((agreed.is_conflict(), agreed.judgement()), (false, Some(Judgement::Ok)));
    }

    #[test]
    fn a_repeat_changes_nothing() {
        let repeat = Verdict { repeat: true, ..verdict("b", Judgement::Ng, &[]) };
        let counting = after(&[verdict("a", Judgement::Ok, &[]), repeat]);
        assert_eq!((counting.judgement(), counting.verdicts().len()), (Some(Judgement::Ok), 1));
    }
}
