//! Trains the classifier from the verdicts of a run, or from a folder of labelled crops.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::task::{JoinError, spawn_blocking};

use super::crop_features::CropFeatures;
use super::judged_crops::{Judged, LeftOut};
use crate::archive::models::StoredModels;
use crate::classifier::crop_threads::CropFault;
use crate::classifier::feature_store::FeatureStore;
use crate::classifier::features::FeatureError;
use crate::classifier::model::{ModelError, ModelFile};
use crate::domain::ContentHash;
use crate::inference::Models;
use crate::objects::{ObjectError, Objects};
use crate::training::example::{Example, TrainingSet};
use crate::training::labels::{LabelError, LabelledCrop};
use crate::training::train::{self, Before, TrainError, TrainingReport, TrainingSettings};

#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error("{}: {detail}", file.display())]
    Crop { file: PathBuf, detail: String },
    #[error("the training has ended: {0}")]
    Thread(#[from] JoinError),
}

/// What a training does now, with how many of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum TrainingStep {
    Features { done: usize, of: usize },
    Fits { done: usize, of: usize },
}

pub type Progress = Arc<dyn Fn(TrainingStep) + Send + Sync>;

/// What a training needs besides crops.
pub struct Trainer {
    features: CropFeatures,
    pub settings: TrainingSettings,
    pub progress: Progress,
}

impl Trainer {
    /// # Errors
    /// The backbone or onnxruntime is missing, or the store of features cannot be used.
    pub fn open(
        models: &Models,
        features: FeatureStore,
        settings: TrainingSettings,
        progress: Progress,
    ) -> Result<Self, TrainingError> {
        let features = CropFeatures::open(models, features, settings.threads)?;
        Ok(Self { features, settings, progress })
    }

    /// Reports `of` crops whose features are extracted.
    fn report(&self, of: usize) -> impl Fn(usize) + Sync + use<> {
        let progress = self.progress.clone();
        move |done| progress(TrainingStep::Features { done, of })
    }

    /// Labelled crops in files, with their features.
    ///
    /// # Errors
    /// A crop cannot be read or decoded: the error names the file.
    pub async fn from_files(&mut self, labels: &[LabelledCrop]) -> Result<TrainingSet, TrainingError> {
        let mut examples = Vec::with_capacity(labels.len());
        for label in labels {
            let fault = |detail: String| TrainingError::Crop { file: label.file.clone(), detail };
            let bytes = tokio::fs::read(&label.file).await.map_err(|error| fault(error.to_string()))?;
            examples.push(label.example(ContentHash::of(&bytes)).map_err(fault)?);
        }
        let crops: Vec<ContentHash> = examples.iter().map(|example| example.crop).collect();
        let read = |i: usize| {
            let file = labels[i].file.clone();
            async move { tokio::fs::read(file).await.map(Bytes::from).map_err(|error| CropFault::Crop(error.to_string())) }
        };
        let report = self.report(crops.len());
        let extracted = self.features.read_from(&crops, read, &report).await?;
        match extracted.faults.first() {
            Some((i, detail)) => Err(TrainingError::Crop { file: labels[*i].file.clone(), detail: detail.clone() }),
            None => Ok(joined(examples, extracted.features)),
        }
    }

    /// Judged crops of a run, with their features. Crops that cannot be read or decoded are left out and counted.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn from_run(
        &mut self,
        objects: &Arc<dyn Objects>,
        judged: &Judged,
    ) -> Result<(TrainingSet, usize), TrainingError> {
        let crops: Vec<_> = judged.crops.iter().map(|judged| (judged.example.crop, judged.format)).collect();
        let report = self.report(crops.len());
        let extracted = self.features.of_crops(objects, &crops, &report).await?;
        for (i, detail) in &extracted.faults {
            tracing::warn!(crop = %crops[*i].0, detail, "a judged crop cannot be used");
        }
        let examples = judged.crops.iter().map(|judged| judged.example.clone()).collect();
        let set = joined(examples, extracted.features).of_run(judged.run.as_ref());
        Ok((set, extracted.faults.len()))
    }

    /// Trains on a thread of its own.
    ///
    /// # Errors
    /// As those of [`train::train`].
    pub async fn train(&self, set: TrainingSet, before: Option<Before>) -> Result<NewModel, TrainingError> {
        let (backbone, runtime) = (self.features.backbone.clone(), self.features.runtime.clone());
        let (settings, progress) = (self.settings.clone(), self.progress.clone());
        let trained = spawn_blocking(move || {
            let progress = move |done, of| progress(TrainingStep::Fits { done, of });
            train::train(&set, backbone, &runtime, &settings, before.as_ref(), &progress)
        });
        let trained = trained.await??;
        let file = ModelFile::from_bytes("the new classifier", trained.bytes.into())?;
        // A file that onnxruntime does not accept would stop the classify workers.
        file.check(&self.features.runtime)?;
        Ok(NewModel { file, report: trained.report })
    }
}

fn joined(examples: Vec<Example>, features: Vec<Option<Vec<f32>>>) -> TrainingSet {
    TrainingSet::new(examples.into_iter().zip(features).filter_map(|(example, features)| Some((example, features?))))
}

/// A new classifier with its figures.
#[derive(Debug)]
pub struct NewModel {
    pub file: ModelFile,
    pub report: TrainingReport,
}

/// The result of a training from verdicts.
#[derive(Debug, Clone, Serialize)]
pub struct RunTraining {
    pub model: String,
    pub sha256: ContentHash,
    pub threshold: f64,
    pub left_out: LeftOut,
    /// Judged crops that could not be read or decoded.
    pub unreadable: usize,
    /// Judged crops that P(OK) has chosen for the person: they are not like all crops, and neither are the figures.
    pub chosen_by_p_ok: usize,
    pub report: TrainingReport,
}

/// Trains from the judged crops of a run, and stores the classifier among its models. `before`: the current classifier.
///
/// # Errors
/// The store is unavailable, or the verdicts are too few.
pub async fn train_run(
    trainer: &mut Trainer,
    objects: &Arc<dyn Objects>,
    judged: &Judged,
    before: Option<(String, f64)>,
) -> Result<(ModelFile, RunTraining), TrainingError> {
    let (set, unreadable) = trainer.from_run(objects, judged).await?;
    let p_ok = || judged.crops.iter().filter_map(|judged| Some((judged.example.crop, judged.p_ok?))).collect();
    let before = before.map(|(model, threshold)| Before { model, threshold, p_ok: p_ok() });
    let NewModel { file, report } = trainer.train(set, before).await?;
    StoredModels::new(objects.clone()).write(file.bytes.clone()).await?;
    let trained = RunTraining {
        model: file.name.clone(),
        sha256: file.sha256,
        threshold: file.threshold,
        left_out: judged.left_out,
        unreadable,
        chosen_by_p_ok: judged.chosen_by_p_ok(),
        report,
    };
    Ok((file, trained))
}

/// The store of features for a run in a folder.
pub fn features_file(folder: &Path) -> PathBuf {
    folder.join("features.sqlite")
}
