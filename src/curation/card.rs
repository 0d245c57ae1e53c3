//! A face as a picture to judge.

use serde::Serialize;

use crate::dataset::{Face, FaceStatus, Index, IndexError};
use crate::domain::{ContentHash, Judgement, Landmarks, NgReason, Quality, Verdict, VerdictId};
use crate::verdicts::CropVerdicts;

/// A picture to judge, with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    pub photo_id: String,
    pub crop: ContentHash,
    pub format: &'static str,
    /// The path of the crop's picture.
    pub picture: String,
    /// Pixels.
    pub size: u32,
    pub label: Option<String>,
    pub p_ok: Option<f64>,
    pub status: &'static str,
    pub judgement: Option<Judgement>,
    pub reason: Option<NgReason>,
    /// Those that count. A new verdict replaces them.
    pub verdicts: Vec<CountingVerdict>,
    /// Faces of the run with this crop.
    pub copies: usize,
    /// Other faces in its group of near-duplicates.
    pub near_duplicates: usize,
    pub mirrored: f64,
    pub mirrored_head: f64,
    pub blur: f64,
    pub exposure: f64,
    pub quality: Option<Quality>,
    pub score: f64,
    /// Degrees.
    pub angle: f64,
    /// In pixels of the crop.
    pub landmarks: Landmarks,
    /// Sealed; comes back with the verdict.
    pub ticket: String,
}

/// A verdict that counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CountingVerdict {
    pub id: VerdictId,
    pub judgement: Judgement,
    pub reason: Option<NgReason>,
    pub by: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

impl From<&Verdict> for CountingVerdict {
    fn from(verdict: &Verdict) -> Self {
        let Verdict { id, judgement, reason, by, at, .. } = verdict;
        Self { id: id.clone(), judgement: *judgement, reason: *reason, by: by.clone(), at: *at }
    }
}

/// The verdicts that count for a crop, as the API has them.
pub fn counting(verdicts: &CropVerdicts) -> Vec<CountingVerdict> {
    verdicts.verdicts().iter().map(CountingVerdict::from).collect()
}

/// How many other faces of the run show the same.
#[derive(Debug, Clone, Copy)]
pub struct RelatedFaces {
    pub copies: usize,
    pub near_duplicates: usize,
}

impl RelatedFaces {
    /// `keys`: those of the faces with the crop.
    pub fn of(index: &Index, row: usize, keys: &[i64]) -> Result<Self, IndexError> {
        let group = index.group_of(row)?;
        let others = group.iter().filter(|row| !keys.contains(&index.key(**row)));
        Ok(Self { copies: keys.len(), near_duplicates: others.count() })
    }
}

impl Card {
    /// `verdicts`: those on the crop; the default makes the face look as if nobody had judged it.
    pub fn of(
        face: &Face,
        verdicts: &CropVerdicts,
        RelatedFaces { copies, near_duplicates }: RelatedFaces,
        threshold: f64,
        ticket: String,
    ) -> Self {
        let judgement = verdicts.judgement();
        Self {
            photo_id: face.photo_id.to_string(),
            crop: face.crop,
            format: face.format.extension(),
            picture: crop_path(face.crop),
            size: face.size,
            label: face.label_name.clone(),
            p_ok: face.p_ok,
            status: FaceStatus::of(judgement, face.p_ok, threshold).as_str(),
            judgement,
            reason: verdicts.last().and_then(|last| last.reason).filter(|_| judgement == Some(Judgement::Ng)),
            verdicts: counting(verdicts),
            copies,
            near_duplicates,
            mirrored: face.mirrored,
            mirrored_head: face.mirrored_head,
            blur: face.blur,
            exposure: face.exposure,
            quality: face.quality.clone(),
            score: face.score,
            angle: face.angle,
            landmarks: face.landmarks.clone(),
            ticket,
        }
    }
}

/// The path of a crop's picture.
pub fn crop_path(crop: ContentHash) -> String {
    format!("/pictures/crops/{crop}")
}
