//! The lines of `faces.jsonl` and `photos.jsonl`. Their fields and the order of fields are a public format.

use serde::{Deserialize, Serialize};

use crate::domain::{Align, ContentHash, Ending, Id, Landmarks, Photo, Search, StageName, State};
use crate::ledger::Entry;
use crate::objects::ObjectKey;

/// One line of `faces.jsonl`: the face of a photo that ended as predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaceRecord {
    pub photo_id: Id,
    pub face_id: Id,
    pub label_id: Id,
    pub label_name: Option<String>,
    pub photo_url: String,
    pub source_url: Option<String>,
    pub posted_at: Option<String>,
    /// Path of the crop, relative to the output folder.
    pub file: String,
    pub original_sha256: ContentHash,
    pub crop_sha256: ContentHash,
    pub search: Search,
    pub align: Align,
    /// Rotation of the square in degrees, with the sign convention of `cv2.getRotationMatrix2D`.
    pub angle: f64,
    /// Centre `[x, y]` and side of the square, in pixels of the upright original.
    pub centre: [f64; 2],
    pub side: f64,
    /// Width and height of the crop in pixels.
    pub size: u32,
    /// 68 points `[x, y]` in pixels of the crop.
    pub landmarks: Landmarks,
    /// Score of dlib's HOG detector.
    pub score: f64,
    /// Shares of mirrored pixels, 0 to 1: in the whole crop, and in the head.
    pub mirrored: f64,
    pub mirrored_head: f64,
    pub blur: f64,
    pub exposure: f64,
    /// Probability that a person keeps the crop, 0 to 1, and the name of the model that predicts it.
    pub p_ok: f64,
    pub model: String,
}

impl FaceRecord {
    /// None when the facts of a stage are missing.
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

/// One line of `photos.jsonl`: the status of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhotoRecord {
    pub photo_id: Id,
    /// None when neither the ledger nor a record has the photo's message.
    pub photo_url: Option<String>,
    /// The stage that the photo waits for, or at which it ended.
    pub step: StageName,
    pub outcome: PhotoOutcome,
    /// Code of the cause; `facemill why` prints the whole cause.
    pub cause: Option<String>,
    /// Number of attempts at that stage.
    pub attempts: u32,
}

/// The ending of a photo, or `Waiting` when it has none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhotoOutcome {
    Predicted,
    Rejected,
    Gone,
    Failed,
    Waiting,
}

impl PhotoOutcome {
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

impl From<State> for PhotoOutcome {
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
        let outcome = PhotoOutcome::from(status.state);
        // The cause of an earlier retry is left out, so that a second run writes the same line.
        let cause = status.cause.as_ref().filter(|_| outcome != PhotoOutcome::Predicted);
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
    fn a_face_has_all_fields_in_order() {
        let photo = fixtures::predicted(7, 0.9);
        let record = FaceRecord::of(&photo).unwrap();
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(fields(&line), FACE_FIELDS);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap().as_object().unwrap().len(), 24);
        assert_eq!(serde_json::from_str::<FaceRecord>(&line).unwrap(), record);
        assert_eq!(record.file, ObjectKey::face(record.crop_sha256, crate::domain::ImageFormat::Png).as_str());
        assert_eq!(record.angle, photo.facts.crop.unwrap().angle, "the angle of the square, not of the face");
    }

    #[test]
    fn a_face_with_missing_facts_has_no_record() {
        let complete = fixtures::predicted(7, 0.9);
        let without: [fn(&mut crate::domain::Facts); 4] =
            [|f| f.original = None, |f| f.face = None, |f| f.crop = None, |f| f.prediction = None];
        for remove in without {
            let mut photo = complete.clone();
            remove(&mut photo.facts);
            assert_eq!(FaceRecord::of(&photo), None);
        }
    }

    #[test]
    fn a_photo_has_its_outcome_and_cause() {
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
    fn a_predicted_photo_has_no_cause() {
        let mut entry = fixtures::predicted_entry(5, 0.5);
        entry.status.cause = Some(crate::domain::Cause::new(CauseCode::Timeout, "earlier timeout"));
        let record = PhotoRecord::of(&entry);
        assert_eq!((record.cause, record.step), (None, StageName::Classify));
    }
}
