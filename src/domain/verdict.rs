//! What a person says about a crop.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ContentHash, Id};
use crate::named_enum;
use crate::printable::Printable;

/// The id of a verdict, made by the client that sends it: 1 to 64 of `[A-Za-z0-9-]`. A client that sends a verdict
/// again uses the same id, so that it is stored once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerdictId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("verdict id `{}` is not valid: expected 1 to 64 of A-Z, a-z, 0-9 and '-'", .0.printable())]
pub struct BadVerdictId(String);

impl VerdictId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VerdictId {
    type Err = BadVerdictId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match (1..=64).contains(&text.len()) && text.chars().all(legal) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadVerdictId(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for VerdictId {
    type Error = BadVerdictId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<VerdictId> for String {
    fn from(id: VerdictId) -> Self {
        id.0
    }
}

impl fmt::Display for VerdictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

named_enum! {
    /// What a person says about a crop.
    pub enum Judgement is "a judgement" {
        /// The crop belongs in the dataset.
        Ok = "ok",
        Ng = "ng",
        /// The person does not decide now.
        Pending = "pending",
        /// An undo of the first verdict: the crop counts as not judged.
        Unjudged = "unjudged",
    }
}

named_enum! {
    /// Why a crop is NG.
    pub enum NgReason is "a reason" {
        Blurred = "blurred",
        CutOff = "cut-off",
        Covered = "covered",
        NotAFace = "not-a-face",
        WrongPerson = "wrong-person",
        BadCrop = "bad-crop",
        /// The reflection that fills the crop beyond the photo looks like a second head.
        MirroredGhost = "mirrored-ghost",
        Other = "other",
    }
}

named_enum! {
    /// How the crop was chosen for the person. Only a random choice is without bias, so only `Random` measures a model.
    pub enum Selection is "a selection" {
        Random = "random",
        Uncertain = "uncertain",
        BestFirst = "best-first",
        /// In the suggested order: what a model learns most from.
        Suggested = "suggested",
        Filter = "filter",
        /// Judged elsewhere and imported: nothing is known.
        Import = "import",
    }
}

named_enum! {
    /// How the crop was judged. A bulk verdict neither trains nor measures a model: nobody looked at the crop.
    pub enum View is "a view" {
        Single = "single",
        Grid = "grid",
        Bulk = "bulk",
    }
}

/// The prediction that the person saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenPrediction {
    pub p_ok: f64,
    /// SHA-256 of the model's file.
    pub model_sha256: ContentHash,
}

/// What a person says about a crop. Verdicts are only added: an undo is a verdict that repeats the earlier judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub id: VerdictId,
    pub photo_id: Id,
    /// SHA-256 of the crop. The verdict holds for these bytes only.
    pub crop: ContentHash,
    pub judgement: Judgement,
    /// Only for NG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<NgReason>,
    /// Who judged.
    pub by: String,
    /// Milliseconds since 1970, UTC, by the clock of the server. The order of the log counts, not this.
    pub at: u64,
    /// The verdicts on this crop that the person saw. Several, if they contradicted each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<VerdictId>,
    pub selection: Selection,
    pub view: View,
    /// Whether the crop was shown again to measure how far a person agrees with themselves. A repeat replaces nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenPrediction>,
}

/// Why a verdict is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVerdict {
    #[error("the reason {reason} is given for {judgement}: only NG has a reason")]
    Reason { judgement: Judgement, reason: NgReason },
    #[error("a repeated verdict replaces nothing, but names verdicts that it replaces")]
    RepeatReplaces,
    #[error("the name of the person has {0} characters: expected 1 to 100, none of them a control character")]
    Name(usize),
    #[error("it replaces {0} verdicts: expected at most 100")]
    Replaces(usize),
    #[error("P(OK) is {0}: expected a number from 0 to 1")]
    Share(String),
}

impl Verdict {
    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), BadVerdict> {
        if let Some(reason) = self.reason.filter(|_| self.judgement != Judgement::Ng) {
            return Err(BadVerdict::Reason { judgement: self.judgement, reason });
        }
        if self.repeat && !self.replaces.is_empty() {
            return Err(BadVerdict::RepeatReplaces);
        }
        let length = self.by.chars().count();
        if !(1..=100).contains(&length) || self.by.chars().any(char::is_control) {
            return Err(BadVerdict::Name(length));
        }
        if self.replaces.len() > 100 {
            return Err(BadVerdict::Replaces(self.replaces.len()));
        }
        match &self.seen {
            Some(seen) if !(0.0..=1.0).contains(&seen.p_ok) => Err(BadVerdict::Share(seen.p_ok.to_string())),
            _ => Ok(()),
        }
    }

    /// Whether both are the same act, sent twice. The server sets the time, so the time does not count.
    pub fn is_same_act(&self, other: &Self) -> bool {
        Self { at: other.at, ..self.clone() } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Verdict {
        Verdict {
            id: "a-1".parse().unwrap(),
            photo_id: 7.into(),
            crop: ContentHash::of(b"crop"),
            judgement: Judgement::Ng,
            reason: Some(NgReason::CutOff),
            by: "ada".into(),
            at: 1_764_032_523_000,
            replaces: vec![],
            selection: Selection::BestFirst,
            view: View::Single,
            repeat: false,
            seen: None,
        }
    }

    #[test]
    fn a_verdict_is_one_line_of_json() {
        let text = serde_json::to_string(&verdict()).unwrap();
        let expected = format!(
            r#"{{"id":"a-1","photo_id":7,"crop":"{}","judgement":"ng","reason":"cut-off","by":"ada","at":1764032523000,"selection":"best-first","view":"single"}}"#,
            ContentHash::of(b"crop")
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        assert!(Judgement::ALL.iter().all(|value| value.to_string().parse() == Ok(*value)));
        assert!(NgReason::ALL.iter().all(|value| value.to_string().parse() == Ok(*value)));
        let unknown = "maybe".parse::<Judgement>().unwrap_err().to_string();
        assert_eq!(unknown, "`maybe` is not a judgement: expected ok, ng, pending, unjudged");
    }

    #[test]
    fn contradictions_are_refused() {
        assert_eq!(verdict().check(), Ok(()));
        let ok = Verdict { judgement: Judgement::Ok, ..verdict() };
        assert_eq!(ok.check().unwrap_err().to_string(), "the reason cut-off is given for ok: only NG has a reason");
        let repeat = Verdict { repeat: true, replaces: vec!["x".parse().unwrap()], ..verdict() };
        assert_eq!(repeat.check(), Err(BadVerdict::RepeatReplaces));
        for by in [String::new(), "a\nb".into(), "x".repeat(101)] {
            assert_eq!(Verdict { by: by.clone(), ..verdict() }.check(), Err(BadVerdict::Name(by.len())));
        }
        let seen = SeenPrediction { p_ok: f64::NAN, model_sha256: ContentHash::of(b"model") };
        assert_eq!(Verdict { seen: Some(seen), ..verdict() }.check(), Err(BadVerdict::Share("NaN".into())));
        for id in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(id.parse::<VerdictId>().is_err(), "{id}");
        }
    }

    #[test]
    fn the_time_does_not_make_another_act() {
        assert!(verdict().is_same_act(&Verdict { at: 5, ..verdict() }));
        assert!(!verdict().is_same_act(&Verdict { reason: None, ..verdict() }));
    }
}
