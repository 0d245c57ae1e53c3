//! The manifest of an export: JSON lines, first what the export is, then its faces.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::settings::{ExportSettings, ExportSettingsText};
use crate::dataset::selection::Selection;
use crate::domain::{ContentHash, Quality};

/// Changes whenever the same settings and faces give other bytes.
const EXPORT_VERSION: u32 = 2;

/// The first line.
#[derive(Debug, Serialize)]
pub struct Header {
    /// Tells exports apart: a hash of settings and faces.
    pub export: String,
    /// False while the export is not complete.
    pub complete: bool,
    pub facemill: &'static str,
    pub run: String,
    pub faces: usize,
    #[serde(flatten)]
    pub settings: ExportSettingsText,
    /// The P(OK) from which a face without a verdict is `predicted`.
    pub threshold: f64,
    /// SHA-256 of the run's current classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<ContentHash>,
    /// The names of the classes; a class is the position of its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

/// What is read of the first line of an earlier export.
#[derive(Debug, Deserialize)]
pub struct EarlierHeader {
    pub export: String,
    pub complete: bool,
}

/// What the name of the picture is called in the line of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileField {
    /// In a manifest.
    File,
    /// The name that the `imagefolder` of Hugging Face looks for.
    FileName,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<&'a str>,
    #[serde(flatten)]
    facts: FaceFacts<'a>,
}

/// What a dataset says of a face.
#[derive(Serialize)]
pub struct FaceFacts<'a> {
    pub photo_id: &'a str,
    pub label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<usize>,
    pub photo_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posted_at: Option<&'a str>,
    pub crop_sha256: ContentHash,
    pub original_sha256: ContentHash,
    /// Pixels of the crop before it was resized.
    pub crop_size: u32,
    pub landmark_scheme: &'static str,
    pub align: &'static str,
    pub fill: &'static str,
    /// Degrees.
    pub angle: f64,
    pub mirrored: f64,
    pub blur: f64,
    pub exposure: f64,
    /// Score of dlib's detector.
    pub score: f64,
    /// Measured on the crop before it was resized.
    #[serde(flatten)]
    pub quality: Option<&'a Quality>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_ok: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// In pixels of the exported picture.
    pub landmarks: Vec<[f64; 2]>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub columns: &'a std::collections::BTreeMap<String, String>,
}

impl<'a> FaceFacts<'a> {
    /// `size`: pixels of the exported picture.
    pub fn of(entry: &'a Entry, size: u32) -> Self {
        let face = &entry.face;
        let scale = f64::from(size) / f64::from(face.size);
        // Pixel centres are at whole numbers; a tenth of a pixel is more than landmarks are good for.
        let scaled = |value: f64| (((value + 0.5) * scale - 0.5) * 10.0).round() / 10.0;
        Self {
            photo_id: face.photo_id.as_str(),
            label: &entry.label,
            class: entry.class,
            photo_url: &face.photo_url,
            source_url: face.source_url.as_deref(),
            posted_at: face.posted_at.as_deref(),
            crop_sha256: face.crop,
            original_sha256: face.original,
            crop_size: face.size,
            landmark_scheme: face.landmark_scheme.as_str(),
            align: face.align.as_str(),
            fill: face.fill.as_str(),
            angle: face.angle,
            mirrored: face.mirrored,
            blur: face.blur,
            exposure: face.exposure,
            score: face.score,
            quality: face.quality.as_ref(),
            p_ok: face.p_ok,
            verdict: face.verdict.as_ref().map(|verdict| verdict.judgement.as_str()),
            landmarks: face.landmarks.iter().map(|point| point.map(|value| scaled(f64::from(value)))).collect(),
            columns: &face.columns,
        }
    }
}

/// The line of a face, with its end.
pub fn line(entry: &Entry, size: u32, field: FileField) -> serde_json::Result<String> {
    let (file, file_name) = match field {
        FileField::File => (Some(entry.name.as_str()), None),
        FileField::FileName => (None, Some(entry.name.as_str())),
    };
    Ok(serde_json::to_string(&Line { file, file_name, facts: FaceFacts::of(entry, size) })? + "\n")
}

/// Tells exports apart. Everything that decides about their bytes is in it.
pub fn fingerprint(settings: &ExportSettings, selection: &Selection) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(&(EXPORT_VERSION, settings.text()))?;
    for face in &selection.faces {
        let line = (face.photo_id.as_str(), face.crop.to_string(), &face.label, face.is_measured);
        text.push('\n');
        text.push_str(&serde_json::to_string(&line)?);
    }
    Ok(ContentHash::of(text.as_bytes()).to_string())
}
