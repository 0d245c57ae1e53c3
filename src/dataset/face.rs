//! A face as the index has it, and the fields that queries can name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::placeholder::Placeholder;
use super::query::{Field, FieldType};
use crate::domain::{
    Align, ContentHash, Fill, Fingerprint, Id, ImageFormat, Judgement, LandmarkScheme, Landmarks, NgReason, Photo,
    Quality, Search,
};
use crate::domain::{calendar, photo_url};
use crate::verdicts::CropVerdicts;

/// A face that passed all stages. Landmarks are in pixels of the crop, the square in pixels of the upright original.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Face {
    pub photo_id: Id,
    pub face_id: Id,
    pub label_id: Id,
    pub label_name: Option<String>,
    pub photo_url: String,
    pub source_url: Option<String>,
    /// As the source database wrote it.
    pub posted_at: Option<String>,
    pub original: ContentHash,
    pub original_format: ImageFormat,
    /// Bytes.
    pub original_bytes: u64,
    /// Size of the upright original in pixels.
    pub width: u32,
    pub height: u32,
    pub search: Search,
    #[serde(default)]
    pub landmark_scheme: LandmarkScheme,
    /// dlib's HOG score.
    pub score: f64,
    /// Faces in the photo.
    pub faces: u32,
    pub crop: ContentHash,
    pub format: ImageFormat,
    pub align: Align,
    #[serde(default)]
    pub fill: Fill,
    /// Degrees.
    pub angle: f64,
    pub centre: [f64; 2],
    pub side: f64,
    /// Width and height of the crop in pixels.
    pub size: u32,
    pub landmarks: Landmarks,
    /// Shares, 0 to 1: of the crop, and of the head's ellipse.
    pub mirrored: f64,
    pub mirrored_head: f64,
    pub blur: f64,
    pub exposure: f64,
    /// None: an earlier version made the crop, and it is not measured yet.
    pub quality: Option<Quality>,
    /// What copies of the photo have in common; none if the crop is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Photos of the run that have this original, and their labels: see [`Placeholder`].
    pub shared_photos: u32,
    pub shared_labels: u32,
    /// The source of the photo, and its further columns.
    pub source: Option<String>,
    pub columns: BTreeMap<String, String>,
    /// What is wrong with the file of the original, which could be decoded nevertheless.
    pub damaged: Option<String>,
    /// What the host reserved about the use of the photo.
    pub opt_out: Option<String>,
    /// P(OK) of the run's current classifier, and its name; none if it has not scored the crop.
    pub p_ok: Option<f64>,
    pub model: Option<String>,
    /// What people said about the crop; none if it is not judged.
    pub verdict: Option<FaceVerdict>,
    /// The number of the identity, as of the last search; none if the face looks like no other one. It is no part of what
    /// is kept of a face, since each search numbers anew.
    #[serde(skip)]
    pub identity: Option<u32>,
}

/// What counts of the verdicts on a crop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaceVerdict {
    /// Pending also if the verdicts contradict each other.
    pub judgement: Judgement,
    pub reason: Option<NgReason>,
    /// Who gave the last verdict that counts.
    pub by: String,
    /// The day of that verdict in UTC, as `2026-11-28`.
    pub day: String,
}

impl FaceVerdict {
    /// None: the crop is not judged.
    pub fn of(verdicts: &CropVerdicts) -> Option<Self> {
        let (judgement, last) = (verdicts.judgement()?, verdicts.last()?);
        let reason = last.reason.filter(|_| judgement == Judgement::Ng);
        Some(Self { judgement, reason, by: last.by.clone(), day: calendar::day(last.at / 1000) })
    }
}

/// Where a face is on its way into the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaceStatus {
    /// Not judged, and P(OK) is below the threshold or unknown.
    Ready,
    /// Not judged, and P(OK) is at or above the threshold.
    Predicted,
    Ok,
    Ng,
    Pending,
}

impl FaceStatus {
    pub const ALL: [FaceStatus; 5] = [Self::Ready, Self::Predicted, Self::Ok, Self::Ng, Self::Pending];
    const NAMES: [&'static str; 5] = ["ready", "predicted", "ok", "ng", "pending"];

    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The status of a face with this verdict and P(OK).
    pub fn of(judgement: Option<Judgement>, p_ok: Option<f64>, threshold: f64) -> Self {
        match judgement {
            Some(Judgement::Ok) => Self::Ok,
            Some(Judgement::Ng) => Self::Ng,
            Some(Judgement::Pending) => Self::Pending,
            // In the precision of the columns, like the field `ok`.
            _ if p_ok.is_some_and(|p_ok| p_ok as f32 >= threshold as f32) => Self::Predicted,
            _ => Self::Ready,
        }
    }
}

impl Face {
    /// Of a photo alone: no other photo shares its original. None if the result of a stage before classify is missing.
    pub fn of(photo: &Photo) -> Option<Self> {
        let (candidate, facts) = (&photo.candidate, &photo.facts);
        let (original, face) = (facts.original.as_ref()?, facts.face.as_ref()?);
        let (crop, prediction) = (facts.crop.as_ref()?, facts.prediction.as_ref());
        Some(Self {
            photo_id: candidate.photo_id.clone(),
            face_id: candidate.face_id.clone(),
            label_id: candidate.label_id.clone(),
            label_name: candidate.label_name.clone(),
            photo_url: candidate.photo_url.clone(),
            source_url: candidate.source_url.clone(),
            posted_at: candidate.posted_at.clone(),
            original: original.sha256,
            original_format: original.format,
            original_bytes: original.bytes,
            width: face.width,
            height: face.height,
            search: face.search,
            landmark_scheme: face.landmark_scheme,
            score: face.score,
            faces: face.faces,
            crop: crop.sha256,
            format: crop.format,
            align: crop.align,
            fill: crop.fill,
            angle: crop.angle,
            centre: crop.centre,
            side: crop.side,
            size: crop.size,
            landmarks: crop.landmarks.clone(),
            mirrored: crop.mirrored,
            mirrored_head: crop.mirrored_head,
            blur: crop.blur,
            exposure: crop.exposure,
            quality: crop.quality.clone(),
            fingerprint: crop.fingerprint,
            shared_photos: 1,
            shared_labels: 1,
            source: candidate.source.clone(),
            columns: candidate.columns.clone(),
            damaged: facts.decoding.as_ref().and_then(|decoding| decoding.damaged.clone()),
            opt_out: facts.opt_out.clone(),
            p_ok: prediction.map(|prediction| prediction.p_ok),
            model: prediction.map(|prediction| prediction.model.clone()),
            verdict: None,
            identity: None,
        })
    }

    /// Whether the original is probably not a photo of the labelled person.
    pub fn is_placeholder(&self) -> bool {
        Placeholder::is(self.shared_photos, self.shared_labels)
    }

    /// The host of the photo's URL; empty if it has none.
    pub fn host(&self) -> String {
        photo_url::host(&self.photo_url)
    }
}

/// Numbers that are kept in columns, and flags as 0 and 1. The order is that of [`Number::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    POk,
    Size,
    Angle,
    Score,
    Faces,
    Mirrored,
    MirroredHead,
    Blur,
    Exposure,
    Side,
    Width,
    Height,
    Bytes,
    SharedPhotos,
    SharedLabels,
    Contrast,
    Saturation,
    FaceBlur,
    JpegQuality,
    Yaw,
    Pitch,
    EyesOpen,
    MouthOpen,
    Outlier,
    Damaged,
    Identity,
}

impl Number {
    pub const ALL: [Number; 26] = [
        Self::POk,
        Self::Size,
        Self::Angle,
        Self::Score,
        Self::Faces,
        Self::Mirrored,
        Self::MirroredHead,
        Self::Blur,
        Self::Exposure,
        Self::Side,
        Self::Width,
        Self::Height,
        Self::Bytes,
        Self::SharedPhotos,
        Self::SharedLabels,
        Self::Contrast,
        Self::Saturation,
        Self::FaceBlur,
        Self::JpegQuality,
        Self::Yaw,
        Self::Pitch,
        Self::EyesOpen,
        Self::MouthOpen,
        Self::Outlier,
        Self::Damaged,
        Self::Identity,
    ];

    /// The value of a face, in the precision of the columns; NaN if it has none.
    pub fn of(self, face: &Face) -> f32 {
        let measured = |value: fn(&Quality) -> f64| face.quality.as_ref().map_or(f64::NAN, value);
        let value = match self {
            Self::POk => face.p_ok.unwrap_or(f64::NAN),
            Self::Size => f64::from(face.size),
            Self::Angle => face.angle,
            Self::Score => face.score,
            Self::Faces => f64::from(face.faces),
            Self::Mirrored => face.mirrored,
            Self::MirroredHead => face.mirrored_head,
            Self::Blur => face.blur,
            Self::Exposure => face.exposure,
            Self::Side => face.side,
            Self::Width => f64::from(face.width),
            Self::Height => f64::from(face.height),
            Self::Bytes => face.original_bytes as f64,
            Self::SharedPhotos => f64::from(face.shared_photos),
            Self::SharedLabels => f64::from(face.shared_labels),
            Self::Contrast => measured(|quality| quality.contrast),
            Self::Saturation => measured(|quality| quality.saturation),
            Self::FaceBlur => measured(|quality| quality.face_blur),
            Self::JpegQuality => measured(|quality| quality.jpeg_quality.map_or(f64::NAN, f64::from)),
            Self::Yaw => measured(|quality| quality.yaw),
            Self::Pitch => measured(|quality| quality.pitch),
            Self::EyesOpen => measured(|quality| quality.eyes_open),
            Self::MouthOpen => measured(|quality| quality.mouth_open),
            Self::Outlier => measured(|quality| quality.outlier),
            Self::Damaged => f64::from(u8::from(face.damaged.is_some())),
            Self::Identity => face.identity.map_or(f64::NAN, f64::from),
        };
        value as f32
    }

    pub fn field(self) -> &'static Field {
        &FIELDS[self as usize]
    }
}

/// Texts that are kept in columns, each value once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    Label,
    LabelId,
    Host,
    Model,
    Search,
    LandmarkScheme,
    Align,
    Fill,
    Format,
    Verdict,
    Reason,
    JudgedBy,
    JudgedAt,
    OptOut,
    Source,
}

impl Text {
    pub const ALL: [Text; 15] = [
        Self::Label,
        Self::LabelId,
        Self::Host,
        Self::Model,
        Self::Search,
        Self::LandmarkScheme,
        Self::Align,
        Self::Fill,
        Self::Format,
        Self::Verdict,
        Self::Reason,
        Self::JudgedBy,
        Self::JudgedAt,
        Self::OptOut,
        Self::Source,
    ];

    /// The value of a face; none if it has none.
    pub fn of(self, face: &Face) -> Option<String> {
        match self {
            Self::Label => face.label_name.clone(),
            Self::LabelId => Some(face.label_id.to_string()),
            Self::Host => Some(face.host()).filter(|host| !host.is_empty()),
            Self::Model => face.model.clone(),
            Self::Search => Some(face.search.to_string()),
            Self::LandmarkScheme => Some(face.landmark_scheme.to_string()),
            Self::Align => Some(face.align.to_string()),
            Self::Fill => Some(face.fill.to_string()),
            Self::Format => Some(face.format.extension().to_owned()),
            Self::Verdict => face.verdict.as_ref().map(|verdict| verdict.judgement.to_string()),
            Self::Reason => face.verdict.as_ref().and_then(|verdict| verdict.reason).map(|reason| reason.to_string()),
            Self::JudgedBy => face.verdict.as_ref().map(|verdict| verdict.by.clone()),
            Self::JudgedAt => face.verdict.as_ref().map(|verdict| verdict.day.clone()),
            Self::OptOut => face.opt_out.clone(),
            Self::Source => face.source.clone(),
        }
    }

    pub fn field(self) -> &'static Field {
        &FIELDS[Number::ALL.len() + self as usize]
    }
}

/// The field of the hash of the pixels.
pub const PIXELS: &str = "pixels";

/// The field that says whether another crop of the group of duplicates is better.
pub const DUPLICATE: &str = "duplicate";

/// The field that says whether the label disagrees with the look.
pub const WRONG_PERSON: &str = "wrong_person";

/// The field that says whether an original is a placeholder.
pub const PLACEHOLDER: &str = "placeholder";

const fn field(name: &'static str, kind: FieldType, meaning: &'static str) -> Field {
    Field { name, kind, meaning }
}

const REASONS: &[&str] =
    &["blurred", "cut-off", "covered", "not-a-face", "wrong-person", "bad-crop", "mirrored-ghost", "other"];

/// The field of [`FaceStatus`].
pub const STATUS: Field =
    field("status", FieldType::Choice(&FaceStatus::NAMES), "the verdict; `predicted` or `ready` if there is none");

/// The fields of faces: numbers, then texts, then those with a rule of their own. `docs/query.md` lists them.
pub static FIELDS: &[Field] = &[
    field("p_ok", FieldType::Number, "P(OK) of the run's classifier, 0 to 1"),
    field("size", FieldType::Number, "width and height of the crop in pixels"),
    field("angle", FieldType::Number, "rotation that levels the face, degrees"),
    field("score", FieldType::Number, "score of dlib's detector"),
    field("faces", FieldType::Number, "faces in the photo"),
    field("mirrored", FieldType::Number, "share of the crop that is mirrored, 0 to 1"),
    field("mirrored_head", FieldType::Number, "share of the head's ellipse that is mirrored, 0 to 1"),
    field("blur", FieldType::Number, "variance of the Laplacian; low values are blurred"),
    field("exposure", FieldType::Number, "mean brightness, 0 to 1"),
    field("side", FieldType::Number, "side of the square in pixels of the original"),
    field("width", FieldType::Number, "width of the original in pixels"),
    field("height", FieldType::Number, "height of the original in pixels"),
    field("bytes", FieldType::Number, "size of the original file in bytes"),
    field("shared_photos", FieldType::Number, "photos of the run that have the same original, this one included"),
    field(
        "shared_labels",
        FieldType::Number,
        "labels of the photos that have the same original, by name, or by id without one",
    ),
    field("contrast", FieldType::Number, "standard deviation of the head's brightness, 0 to 0.5"),
    field("saturation", FieldType::Number, "mean colour of the head, 0 (grey) to 1"),
    field(
        "face_blur",
        FieldType::Number,
        "variance of the Laplacian of the face at 128 pixels; low values are blurred",
    ),
    field(
        "jpeg_quality",
        FieldType::Number,
        "quality of the original's JPEG, 1 to 100, from its tables; other formats have none",
    ),
    field("yaw", FieldType::Number, "turn to the side: 0 is frontal, -1 and 1 are in profile"),
    field("pitch", FieldType::Number, "the nose between the eyes (0) and the mouth (1); low values look up"),
    field("eyes_open", FieldType::Number, "height of the openings of the eyes by their width"),
    field("mouth_open", FieldType::Number, "height of the opening of the mouth by its width"),
    field("outlier", FieldType::Number, "how unusual the landmarks are, in standard deviations"),
    field("damaged", FieldType::Flag, "the file of the original has a fault, and was decoded nevertheless"),
    field("identity", FieldType::Number, "number of the identity: faces that look like one person have the same"),
    field("label", FieldType::Text, "name of the label"),
    field("label_id", FieldType::Text, "id of the label"),
    field("host", FieldType::Text, "host of the photo's URL"),
    field("model", FieldType::Text, "name of the classifier"),
    field("search", FieldType::Choice(&["guided", "full"]), "how the face was searched for"),
    field("landmark_scheme", FieldType::Choice(&["ibug", "permissive"]), "the model of the landmarks"),
    field("align", FieldType::Choice(&["paper", "ffhq", "seed"]), "alignment of the crop"),
    field("fill", FieldType::Choice(&["mirror", "ffhq"]), "what fills the crop beyond the photo"),
    field("format", FieldType::Choice(&["png", "jpg"]), "image format of the crop"),
    field("verdict", FieldType::Choice(&["ok", "ng", "pending"]), "what people said about the crop"),
    field("reason", FieldType::Choice(REASONS), "why it is NG"),
    field("judged_by", FieldType::Text, "who gave the last verdict"),
    field("judged_at", FieldType::Text, "day of the last verdict in UTC: `judged_at>='2026-11-28'`"),
    field("opt_out", FieldType::Text, "what the host reserved about the use of the photo, in its headers"),
    field("source", FieldType::Text, "the file, folder or URL that the photo was read from"),
    field("id", FieldType::Text, "id of the photo"),
    field(PIXELS, FieldType::Text, "SHA-256 of the crop's pixels, 64 hex digits"),
    STATUS,
    field("ok", FieldType::Flag, "p_ok is at or above the threshold"),
    field(PLACEHOLDER, FieldType::Flag, "shared_labels is 2 or more, or shared_photos is 10 or more"),
    field(DUPLICATE, FieldType::Flag, "another face of its group of duplicates is better"),
    field(WRONG_PERSON, FieldType::Flag, "the face looks like the person of another label"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_field() {
        let numbers = Number::ALL.map(|number| number.field().name);
        assert_eq!(numbers[..3], ["p_ok", "size", "angle"]);
        let own = ["side", "width", "height", "bytes", "shared_photos", "shared_labels"];
        assert_eq!(numbers[9..15], own);
        assert_eq!((numbers[15], numbers[23]), ("contrast", "outlier"));
        assert_eq!(numbers[24..], ["damaged", "identity"]);
        assert!(Number::ALL[..24].iter().all(|number| number.field().kind == FieldType::Number));
        let texts = Text::ALL.map(|text| text.field().name);
        assert_eq!(texts[..5], ["label", "label_id", "host", "model", "search"]);
        assert_eq!(texts[5..9], ["landmark_scheme", "align", "fill", "format"]);
        assert_eq!(texts[9..], ["verdict", "reason", "judged_by", "judged_at", "opt_out", "source"]);
        assert!(REASONS.iter().copied().eq(NgReason::ALL.iter().map(|reason| reason.as_str())));
    }

    #[test]
    fn the_documentation_lists_the_fields() {
        let text = include_str!("../../docs/query.md");
        let section = text.split("## Fields of faces").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = FIELDS
            .iter()
            .map(|field| {
                let kind = match field.kind {
                    FieldType::Number => "number".to_owned(),
                    FieldType::Text => "text".to_owned(),
                    FieldType::Flag => "true or false".to_owned(),
                    FieldType::Choice(words) => words.join(", "),
                };
                format!("| `{}` | {kind} | {} |", field.name, field.meaning)
            })
            .collect();
        assert_eq!(rows, expected);
    }
}
