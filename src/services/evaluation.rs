//! Measures a classifier on judged crops.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::crop_features::read_crop;
use super::judged_crops::JudgedCrop;
use crate::archive::models::StoredModels;
use crate::classifier::crop_threads::{CropFault, CropThreadsError, each_crop};
use crate::classifier::model::{Input, MIRRORS, Model, ModelError, ModelFile};
use crate::dataset::verdict_history::Agreement;
use crate::domain::ContentHash;
use crate::inference::Runtime;
use crate::objects::{ObjectError, Objects};
use crate::training::evaluation::{EvaluatedCrop, Evaluation};
use crate::training::example::Side;
use crate::training::labels::LabelledCrop;
use crate::training::learning_curve::LearningPoint;
use crate::vision;
use crate::vision::image::Limits;

#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    #[error(transparent)]
    Crops(#[from] CropThreadsError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error("{}: {detail}", file.display())]
    Crop { file: PathBuf, detail: String },
    #[error("{0} is neither a file nor a stored classifier: `facemill models list` prints the stored ones")]
    UnknownModel(String),
    #[error("{count} stored classifiers start with {start}: give more digits")]
    SeveralModels { count: usize, start: String },
}

/// The file `model`, or the stored classifier with this name or start of its hash. `stored`: none has a name.
pub async fn find_model(stored: Option<&StoredModels>, model: &str) -> Result<ModelFile, EvaluationError> {
    let path = Path::new(model);
    let Some(stored) = stored.filter(|_| !path.is_file()) else { return Ok(ModelFile::read(path)?) };
    let start = model.rsplit('@').next().unwrap_or(model).to_lowercase();
    let mut found = stored.all().await?;
    found.retain(|sha256| !start.is_empty() && sha256.to_string().starts_with(&start));
    match found[..] {
        [sha256] => Ok(ModelFile::from_bytes(&format!("models/{sha256}.onnx"), stored.read(sha256).await?)?),
        [] => Err(EvaluationError::UnknownModel(model.to_owned())),
        _ => Err(EvaluationError::SeveralModels { count: found.len(), start }),
    }
}

/// How often a person judged a picture alike that came twice: no model can agree with them more often.
#[derive(Debug, Clone, Serialize)]
pub struct Consistency {
    pub person: String,
    pub pairs: u64,
    pub same: u64,
}

impl From<Agreement> for Consistency {
    fn from(Agreement { person, pairs, same }: Agreement) -> Self {
        Self { person, pairs, same }
    }
}

/// The result of `facemill evaluate`.
#[derive(Debug, Serialize)]
pub struct ModelEvaluation {
    pub model: String,
    pub sha256: ContentHash,
    pub threshold: f64,
    /// What it was measured on.
    pub measured_on: String,
    /// Crops that could not be read or decoded.
    pub unreadable: usize,
    #[serde(flatten)]
    pub evaluation: Evaluation,
    pub learning: Vec<LearningPoint>,
    pub consistency: Vec<Consistency>,
    /// Small JPEGs of the mistakes.
    #[serde(skip)]
    pub pictures: HashMap<ContentHash, Vec<u8>>,
}

/// A crop that is scored.
struct ScoredCrop {
    crop: EvaluatedCrop,
    mirrors: [f32; MIRRORS],
}

/// Scores crops with one model.
pub struct Evaluator<'a> {
    pub file: &'a ModelFile,
    pub runtime: &'a Runtime,
    pub threads: usize,
    pub seed: u64,
    /// Receives how many crops are scored.
    pub progress: &'a (dyn Fn(usize) + Sync),
}

impl Evaluator<'_> {
    /// Measures on judged crops of a run.
    pub async fn of_run(
        &self,
        objects: &Arc<dyn Objects>,
        judged: &[&JudgedCrop],
        measured_on: String,
    ) -> Result<ModelEvaluation, EvaluationError> {
        let crops = judged.iter().map(|judged| ScoredCrop {
            crop: EvaluatedCrop {
                crop: judged.example.crop,
                group: judged.example.group.clone(),
                label: judged.label.clone(),
                ok: judged.example.ok,
                p_ok: f64::NAN,
                size: Some(judged.size),
                mirrored: judged.mirrored,
                random: judged.selection == crate::domain::Selection::Random,
            },
            mirrors: judged.example.mirrors,
        });
        let formats: HashMap<ContentHash, _> =
            judged.iter().map(|judged| (judged.example.crop, judged.format)).collect();
        let read = |crop: ContentHash| read_crop(objects.clone(), crop, formats[&crop]);
        self.evaluate(crops.collect(), read, measured_on).await
    }

    /// Measures on labelled crops in files, on those of a side if one is given.
    pub async fn of_files(
        &self,
        labels: &[LabelledCrop],
        side: Option<Side>,
        measured_on: String,
    ) -> Result<ModelEvaluation, EvaluationError> {
        let mut crops = Vec::with_capacity(labels.len());
        let mut files = HashMap::new();
        for label in labels {
            let fault = |detail: String| EvaluationError::Crop { file: label.file.clone(), detail };
            let bytes = tokio::fs::read(&label.file).await.map_err(|error| fault(error.to_string()))?;
            let example = label.example(ContentHash::of(&bytes)).map_err(fault)?;
            if side.is_some_and(|side| Side::of(&example.group) != side) {
                continue;
            }
            files.insert(example.crop, label.file.clone());
            let crop = EvaluatedCrop {
                crop: example.crop,
                label: label.group.clone().unwrap_or_default(),
                group: example.group,
                ok: label.ok,
                p_ok: f64::NAN,
                size: None,
                mirrored: label.mirrored,
                random: false,
            };
            crops.push(ScoredCrop { crop, mirrors: example.mirrors });
        }
        let read = |crop: ContentHash| {
            let file = files[&crop].clone();
            async move { tokio::fs::read(file).await.map(Bytes::from).map_err(|error| CropFault::Crop(error.to_string())) }
        };
        self.evaluate(crops, read, measured_on).await
    }

    async fn evaluate<F: Future<Output = Result<Bytes, CropFault>>>(
        &self,
        mut crops: Vec<ScoredCrop>,
        read: impl Fn(ContentHash) -> F,
        measured_on: String,
    ) -> Result<ModelEvaluation, EvaluationError> {
        self.file.check(self.runtime)?;
        let opened = (0..self.threads.clamp(1, crops.len().max(1))).map(|_| self.file.open(self.runtime));
        let workers = opened.collect::<Result<Vec<Model>, _>>()?;
        let (hashes, mirrors): (Vec<_>, Vec<_>) = crops.iter().map(|scored| (scored.crop.crop, scored.mirrors)).unzip();
        let mirrors: Arc<[_]> = mirrors.into();
        let mut done = 0;
        let work = move |model: &mut Model, i: usize, bytes: &[u8]| {
            let input = Input::decode(bytes, mirrors[i])?;
            model.predict(&[input]).map(|scores| scores[0]).map_err(|error| error.to_string())
        };
        each_crop(
            (0..crops.len()).collect(),
            workers,
            |i| read(hashes[i]),
            work,
            |i, p_ok| {
                match p_ok {
                    Ok(p_ok) => crops[i].crop.p_ok = p_ok,
                    Err(detail) => tracing::warn!(crop = %crops[i].crop.crop, detail, "a judged crop cannot be scored"),
                }
                done += 1;
                (self.progress)(done);
                Ok::<_, EvaluationError>(())
            },
        )
        .await?;
        let all = crops.len();
        let crops: Vec<EvaluatedCrop> =
            crops.into_iter().map(|scored| scored.crop).filter(|crop| !crop.p_ok.is_nan()).collect();
        let evaluation = Evaluation::of(&crops, self.file.threshold, self.seed);
        let mut pictures = HashMap::new();
        for mistake in &evaluation.mistakes {
            if let Ok(bytes) = read(mistake.crop).await
                && let Some(picture) = preview(&bytes)
            {
                pictures.insert(mistake.crop, picture);
            }
        }
        Ok(ModelEvaluation {
            model: self.file.name.clone(),
            sha256: self.file.sha256,
            threshold: self.file.threshold,
            measured_on,
            unreadable: all - crops.len(),
            evaluation,
            learning: Vec::new(),
            consistency: Vec::new(),
            pictures,
        })
    }
}

/// A JPEG of 160 x 160 pixels. None: it was scored, so that it can be decoded; a full disk of pixels is not worth an
/// error.
fn preview(bytes: &[u8]) -> Option<Vec<u8>> {
    vision::preview::preview(bytes, 160, Limits::default()).ok()
}
