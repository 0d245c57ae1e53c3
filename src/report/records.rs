//! The lines of `faces.jsonl` and `photos.jsonl`. Their fields and the order of fields are a public format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::{EndedPhoto, Face};
use crate::domain::{Align, ContentHash, Ending, Fill, Id, LandmarkScheme, Landmarks, Quality, Search, StageName};
use crate::ledger::{Entry, PhotoStatus};
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
    #[serde(default)]
    pub landmark_scheme: LandmarkScheme,
    pub align: Align,
    #[serde(default)]
    pub fill: Fill,
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
    /// Absent: an earlier version made the crop.
    #[serde(flatten)]
    pub quality: Option<Quality>,
    /// Probability that a person keeps the crop, 0 to 1, and the name of the model that predicts it: the run's current
    /// classifier. None: it has not scored the crop.
    pub p_ok: Option<f64>,
    pub model: Option<String>,
    /// Whether so many photos or labels share the original that it is probably no photo of the labelled person.
    #[serde(default)]
    pub placeholder: bool,
    /// The source that the photo was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Further columns of the source, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// What is wrong with the file of the original, which could be decoded nevertheless. None: nothing.
    pub damaged: Option<String>,
    /// What the host reserved about the use of the photo, in its headers. None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_out: Option<String>,
}

impl FaceRecord {
    pub fn of(face: &Face) -> Self {
        Self {
            photo_id: face.photo_id.clone(),
            face_id: face.face_id.clone(),
            label_id: face.label_id.clone(),
            label_name: face.label_name.clone(),
            photo_url: face.photo_url.clone(),
            source_url: face.source_url.clone(),
            posted_at: face.posted_at.clone(),
            file: ObjectKey::face(face.crop, face.format).to_string(),
            original_sha256: face.original,
            crop_sha256: face.crop,
            search: face.search,
            landmark_scheme: face.landmark_scheme,
            align: face.align,
            fill: face.fill,
            angle: face.angle,
            centre: face.centre,
            side: face.side,
            size: face.size,
            landmarks: face.landmarks.clone(),
            score: face.score,
            mirrored: face.mirrored,
            mirrored_head: face.mirrored_head,
            blur: face.blur,
            exposure: face.exposure,
            quality: face.quality.clone(),
            p_ok: face.p_ok,
            model: face.model.clone(),
            placeholder: face.is_placeholder(),
            source: face.source.clone(),
            columns: face.columns.clone(),
            damaged: face.damaged.clone(),
            opt_out: face.opt_out.clone(),
        }
    }
}

/// One line of `photos.jsonl`: the status of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhotoRecord {
    pub photo_id: Id,
    /// None when the photo has no record.
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

impl From<Ending> for PhotoOutcome {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Predicted => Self::Predicted,
            Ending::Rejected => Self::Rejected,
            Ending::Gone => Self::Gone,
            Ending::Failed => Self::Failed,
        }
    }
}

impl From<EndedPhoto> for PhotoRecord {
    fn from(photo: EndedPhoto) -> Self {
        let EndedPhoto { photo_id, photo_url, ending, stage, cause, attempt } = photo;
        let cause = cause.map(|code| code.to_string());
        Self { photo_id, photo_url, step: stage, outcome: ending.into(), cause, attempts: attempt }
    }
}

/// A photo that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPhoto {
    pub record: PhotoRecord,
    /// Empty if the photo's URL has none.
    pub host: String,
    /// Whether the photo has an original.
    pub downloaded: bool,
}

impl From<Entry> for WaitingPhoto {
    fn from(entry: Entry) -> Self {
        let PhotoStatus { stage, attempt, cause, message, .. } = entry.status;
        let photo = message.map(|message| message.photo);
        Self {
            host: photo.as_ref().map(|photo| photo.candidate.host()).unwrap_or_default(),
            downloaded: photo.as_ref().is_some_and(|photo| photo.facts.original.is_some()),
            record: PhotoRecord {
                photo_id: entry.photo_id,
                photo_url: photo.map(|photo| photo.candidate.photo_url),
                step: stage,
                outcome: PhotoOutcome::Waiting,
                cause: cause.map(|cause| cause.code.to_string()),
                attempts: attempt,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CauseCode;
    use crate::report::fixtures;

    const FACE_FIELDS: &str = "photo_id, face_id, label_id, label_name, photo_url, source_url, posted_at, file, \
        original_sha256, crop_sha256, search, landmark_scheme, align, fill, angle, centre, side, size, landmarks, score, mirrored, \
        mirrored_head, blur, exposure, contrast, saturation, face_blur, jpeg_quality, yaw, pitch, eyes_open, mouth_open, \
        outlier, pixels, p_ok, model, placeholder, damaged";

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
        let record = FaceRecord::of(&Face::of(&photo).unwrap());
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(fields(&line), FACE_FIELDS);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap().as_object().unwrap().len(), 38);
        assert_eq!(serde_json::from_str::<FaceRecord>(&line).unwrap(), record);
        assert_eq!(record.file, ObjectKey::face(record.crop_sha256, crate::domain::ImageFormat::Png).as_str());
        assert_eq!(record.angle, photo.facts.crop.unwrap().angle, "the angle of the square, not of the face");
    }

    #[test]
    fn a_photo_has_its_outcome_and_cause() {
        let gone = EndedPhoto {
            photo_id: 3.into(),
            photo_url: Some("https://photos.example/3.jpg".into()),
            ending: Ending::Gone,
            stage: StageName::Fetch,
            cause: Some(CauseCode::Http(404)),
            attempt: 1,
        };
        let expected = concat!(
            r#"{"photo_id":3,"photo_url":"https://photos.example/3.jpg","step":"fetch","#,
            r#""outcome":"gone","cause":"http-404","attempts":1}"#
        );
        assert_eq!(serde_json::to_string(&PhotoRecord::from(gone)).unwrap(), expected);
        let waiting = WaitingPhoto::from(fixtures::waiting(4, StageName::Crop));
        let line = serde_json::to_string(&waiting.record).unwrap();
        assert!(line.contains(r#""step":"crop","outcome":"waiting","cause":null"#), "{line}");
        assert_eq!((waiting.host.as_str(), waiting.downloaded), ("photos.example", false));
    }
}
