//! The lines of `faces.jsonl` and `photos.jsonl`. Their fields and order are a promise to whoever reads them.

use serde::{Deserialize, Serialize};

use crate::domain::{Align, ContentHash, Ending, Id, Landmarks, Photo, Search, StageName, State};
use crate::ledger::Entry;
use crate::objects::ObjectKey;

/// A face that went all the way: one line of `faces.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaceRecord {
    pub photo_id: Id,
    pub face_id: Id,
    pub label_id: Id,
    pub label_name: Option<String>,
    pub photo_url: String,
    pub source_url: Option<String>,
    pub posted_at: Option<String>,
    /// Path of the crop below the output folder.
    pub file: String,
    pub original_sha256: ContentHash,
    pub crop_sha256: ContentHash,
    pub search: Search,
    pub align: Align,
    /// The square's turn in degrees, as `cv2.getRotationMatrix2D` counts them.
    pub angle: f64,
    /// `[x, y]` of the square's centre and its side, in pixels of the upright original.
    pub centre: [f64; 2],
    pub side: f64,
    /// Width and height of the crop in pixels.
    pub size: u32,
    /// 68 points in pixels of the crop.
    pub landmarks: Landmarks,
    /// dlib's HOG score.
    pub score: f64,
    /// Shares of mirrored pixels, 0 to 1: of the whole crop, and inside the head.
    pub mirrored: f64,
    pub mirrored_head: f64,
    pub blur: f64,
    pub exposure: f64,
    /// Probability that a person would say OK, and the model that says so.
    pub p_ok: f64,
    pub model: String,
}

impl FaceRecord {
    /// None as long as a stage's part of the facts is missing.
    pub fn of(photo: &Photo) -> Option<Self> {
        let facts = &photo.facts;
        let (original, face) = (facts.original.as_ref()?, facts.face.as_ref()?);
        let (crop, prediction) = (facts.crop.as_ref()?, facts.prediction.as_ref()?);
        let candidate = &photo.candidate;
        Some(Self {
            photo_id: candidate.photo_id.clone(),
            face_id: candidate.face_id.clone(),
            label_id: candidate.label_id.clone(),
            label_name: candidate.label_name.clone(),
            photo_url: candidate.photo_url.clone(),
            source_url: candidate.source_url.clone(),
            posted_at: candidate.posted_at.clone(),
            file: ObjectKey::face(crop.sha256, crop.format).to_string(),
            original_sha256: original.sha256,
            crop_sha256: crop.sha256,
            search: face.search,
            align: crop.align,
            angle: crop.angle,
            centre: crop.centre,
            side: crop.side,
            size: crop.size,
            landmarks: crop.landmarks.clone(),
            score: face.score,
            mirrored: crop.mirrored,
            mirrored_head: crop.mirrored_head,
            blur: crop.blur,
            exposure: crop.exposure,
            p_ok: prediction.p_ok,
            model: prediction.model.clone(),
        })
    }
}

/// Where a candidate stands: one line of `photos.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhotoRecord {
    pub photo_id: Id,
    /// None when the ledger no longer has the photo's message.
    pub photo_url: Option<String>,
    /// The stage that the photo waits for, or that ended it.
    pub step: StageName,
    pub outcome: Outcome,
    /// The code of the cause; what exactly happened, `facemill why` tells.
    pub cause: Option<String>,
    /// Attempts at that stage.
    pub attempts: u32,
}

/// A photo's ending, or that it has none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Predicted,
    Rejected,
    Gone,
    Failed,
    Waiting,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Predicted => Ending::Predicted.as_str(),
            Self::Rejected => Ending::Rejected.as_str(),
            Self::Gone => Ending::Gone.as_str(),
            Self::Failed => Ending::Failed.as_str(),
            Self::Waiting => "waiting",
        }
    }
}

impl From<State> for Outcome {
    fn from(state: State) -> Self {
        match state {
            State::Waiting(_) => Self::Waiting,
            State::Ended(Ending::Predicted) => Self::Predicted,
            State::Ended(Ending::Rejected) => Self::Rejected,
            State::Ended(Ending::Gone) => Self::Gone,
            State::Ended(Ending::Failed) => Self::Failed,
        }
    }
}

impl PhotoRecord {
    pub fn of(entry: &Entry) -> Self {
        let status = &entry.status;
        let outcome = Outcome::from(status.state);
        // A photo that arrived has no cause, whatever once held it up: a second run must write the same line.
        let cause = status.cause.as_ref().filter(|_| outcome != Outcome::Predicted);
        Self {
            photo_id: entry.photo_id.clone(),
            photo_url: status.message.as_ref().map(|message| message.photo.candidate.photo_url.clone()),
            step: status.stage,
            outcome,
            cause: cause.map(|cause| cause.code.to_string()),
            attempts: status.attempt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CauseCode;
    use crate::report::fixtures;

    const FACE_FIELDS: &str = "photo_id, face_id, label_id, label_name, photo_url, source_url, posted_at, file, \
        original_sha256, crop_sha256, search, align, angle, centre, side, size, landmarks, score, mirrored, \
        mirrored_head, blur, exposure, p_ok, model";

    fn fields(line: &str) -> String {
        let mut positions: Vec<(usize, &str)> = FACE_FIELDS
            .split(", ")
            .chain(["step", "outcome", "cause", "attempts"])
            .filter_map(|name| line.find(&format!("\"{name}\":")).map(|at| (at, name)))
            .collect();
        positions.sort();
        positions.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_face_has_all_fields_in_their_order() {
        let photo = fixtures::predicted(7, 0.9);
        let record = FaceRecord::of(&photo).unwrap();
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(fields(&line), FACE_FIELDS);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap().as_object().unwrap().len(), 24);
        assert_eq!(serde_json::from_str::<FaceRecord>(&line).unwrap(), record);
        assert_eq!(record.file, ObjectKey::face(record.crop_sha256, crate::domain::ImageFormat::Png).as_str());
        assert_eq!(record.angle, photo.facts.crop.unwrap().angle, "the square's turn, not the face's");
    }

    #[test]
    fn a_face_is_not_told_before_all_is_known() {
        let whole = fixtures::predicted(7, 0.9);
        let without: [fn(&mut crate::domain::Facts); 4] =
            [|f| f.original = None, |f| f.face = None, |f| f.crop = None, |f| f.prediction = None];
        for take in without {
            let mut photo = whole.clone();
            take(&mut photo.facts);
            assert_eq!(FaceRecord::of(&photo), None);
        }
    }

    #[test]
    fn a_photo_has_its_ending_and_cause() {
        let line = |entry: &Entry| serde_json::to_string(&PhotoRecord::of(entry)).unwrap();
        let gone = fixtures::ended(3, Ending::Gone, StageName::Fetch, "http-404");
        let expected = concat!(
            r#"{"photo_id":3,"photo_url":"https://photos.example/3.jpg","step":"fetch","#,
            r#""outcome":"gone","cause":"http-404","attempts":1}"#
        );
        assert_eq!(line(&gone), expected);
        let waiting = fixtures::waiting(4, StageName::Crop);
        assert!(line(&waiting).contains(r#""step":"crop","outcome":"waiting","cause":null"#), "{}", line(&waiting));
    }

    #[test]
    fn an_arrived_photo_has_no_cause() {
        let mut entry = fixtures::arrived(5, 0.5);
        entry.status.cause = Some(crate::domain::Cause::new(CauseCode::Timeout, "once"));
        let record = PhotoRecord::of(&entry);
        assert_eq!((record.cause, record.step), (None, StageName::Classify));
    }
}
