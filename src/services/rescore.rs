//! Scores the crops of a run with a further model.
//!
//! One job for each crop and model: its result is the prediction object of both, which is written once and never
//! changes. So a rescore that was interrupted continues where it ended, several at a time do no harm, and the state and
//! the record of a photo stay as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::judged_crops::{JudgedError, checked_mirrors, judged_crops};
use crate::archive::models::StoredModels;
use crate::archive::predictions::Predictions;
use crate::archive::rescores::{Rescore, Rescores};
use crate::archive::run_classifier::ClassifierHistory;
use crate::broker::BrokerError;
use crate::classifier::crop_threads::CropThreadsError;
use crate::classifier::model::{MIRRORS, ModelError, ModelFile};
use crate::dataset::page::Order;
use crate::dataset::{Direction, Index, IndexError, Query, Sort};
use crate::domain::clock::now;
use crate::domain::{ContentHash, ImageFormat, RunName};
use crate::objects::{ObjectError, Objects};
use crate::training::example::Side;
use crate::training::train::Comparison;

#[derive(Debug, thiserror::Error)]
pub enum RescoreError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Judged(#[from] JudgedError),
    #[error(transparent)]
    Crops(#[from] CropThreadsError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("{0} crops are neither scored nor in the queue of crops")]
    Lost(usize),
}

/// A crop that cannot be scored, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableCrop {
    pub crop: ContentHash,
    pub reason: String,
}

/// The result of a rescore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rescored {
    pub model: String,
    pub sha256: ContentHash,
    /// Crops that fulfil the query.
    pub crops: usize,
    /// Those that the model had scored before.
    pub known: usize,
    pub scored: usize,
    /// Those that could not be read, decoded or scored: the first hundred.
    pub unreadable: Vec<UnreadableCrop>,
    pub unreadable_count: usize,
    /// Against the run's current classifier, on the same verdicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// Predictions that are read at a time.
const READERS: usize = 16;

/// A crop to be scored.
#[derive(Debug, Clone)]
pub struct ScoreJob {
    pub crop: ContentHash,
    pub format: ImageFormat,
    pub mirrors: [f32; MIRRORS],
}

/// Counts the results of jobs.
#[derive(Debug, Clone, Default)]
pub struct ScoreTally {
    pub scored: usize,
    pub unreadable: Vec<UnreadableCrop>,
    pub unreadable_count: usize,
}

impl ScoreTally {
    /// Crops that are named when they cannot be scored.
    pub const NAMED: usize = 100;

    pub fn add_unreadable(&mut self, crop: ContentHash, reason: String) {
        tracing::warn!(%crop, reason, "a crop cannot be scored");
        self.unreadable_count += 1;
        if self.unreadable.len() < Self::NAMED {
            self.unreadable.push(UnreadableCrop { crop, reason });
        }
    }

    pub fn done(&self) -> usize {
        self.scored + self.unreadable_count
    }
}

/// Which crops of a run a model scores, and how far it is.
pub struct RescorePlan {
    pub file: ModelFile,
    pub run: RunName,
    pub objects: Arc<dyn Objects>,
    /// Crops that the model has not scored, each once.
    pub jobs: Vec<ScoreJob>,
    crops: usize,
    /// Crops whose jobs cannot be made.
    unfit: ScoreTally,
    progress: Rescore,
}

impl RescorePlan {
    /// Stores the model, and finds the crops that fulfil the query and that it has not scored. `index`: up to date.
    /// `file`: checked.
    ///
    /// # Errors
    /// The store or the index is unavailable.
    pub async fn make(
        file: ModelFile,
        run: RunName,
        objects: Arc<dyn Objects>,
        (index, query): (&Index, &Query),
        by: String,
    ) -> Result<Self, RescoreError> {
        let sha256 = StoredModels::new(objects.clone()).write(file.bytes.clone()).await?;
        let predictions = Predictions::new(objects.clone());
        let mut known: Vec<ContentHash> = predictions.crops_of_model(sha256).try_collect().await?;
        known.sort_unstable();
        let (mut by_crop, mut unfit) = (BTreeMap::new(), ScoreTally::default());
        let order = Order { sort: Sort::Updated, direction: Direction::Ascending };
        index.each_face(query, order, index.threshold(), |face| {
            by_crop.entry(face.crop).or_insert_with(|| (face.format, checked_mirrors(&face)));
            Ok::<_, IndexError>(())
        })?;
        let crops = by_crop.len();
        by_crop.retain(|crop, _| known.binary_search(crop).is_err());
        let known = crops - by_crop.len();
        let mut jobs = Vec::with_capacity(by_crop.len());
        for (crop, (format, mirrors)) in by_crop {
            match mirrors {
                Ok(mirrors) => jobs.push(ScoreJob { crop, format, mirrors }),
                Err(reason) => unfit.add_unreadable(crop, reason),
            }
        }
        let progress = Rescore {
            model: file.name.clone(),
            model_sha256: sha256,
            query: query.to_string(),
            by,
            started_at: now().as_secs(),
            updated_at: now().as_secs(),
            crops: crops as u64,
            scored: known as u64,
            unreadable: unfit.unreadable_count as u64,
            has_ended: false,
        };
        let plan = Self { file, run, objects, jobs, crops, unfit, progress };
        plan.write(&ScoreTally::default(), false).await?;
        Ok(plan)
    }

    /// Crops that fulfil the query.
    pub fn crops(&self) -> usize {
        self.crops
    }

    /// Those that the model had scored before.
    pub fn known(&self) -> usize {
        self.crops - self.jobs.len() - self.unfit.unreadable_count
    }

    /// Crops that are done when `tally` has counted their jobs.
    pub fn done(&self, tally: &ScoreTally) -> usize {
        self.known() + self.unfit.unreadable_count + tally.done()
    }

    /// Stores how far the rescore is, for `facemill status`.
    pub async fn write(&self, tally: &ScoreTally, has_ended: bool) -> Result<(), ObjectError> {
        let progress = Rescore {
            updated_at: now().as_secs(),
            scored: (self.known() + tally.scored) as u64,
            unreadable: (self.unfit.unreadable_count + tally.unreadable_count) as u64,
            has_ended,
            ..self.progress.clone()
        };
        Rescores::new(self.objects.clone()).write(&self.run, &progress).await
    }

    /// Stores the end, and compares the model with the run's current classifier.
    ///
    /// # Errors
    /// The store or the index is unavailable.
    pub async fn finish(
        self,
        tally: ScoreTally,
        index: &Index,
        history: &ClassifierHistory,
    ) -> Result<Rescored, RescoreError> {
        self.write(&tally, true).await?;
        let comparison = self.comparison(index, history).await?;
        let mut unreadable = [self.unfit.unreadable.clone(), tally.unreadable].concat();
        unreadable.sort_by_key(|unreadable| unreadable.crop);
        unreadable.truncate(ScoreTally::NAMED);
        Ok(Rescored {
            model: self.file.name.clone(),
            sha256: self.file.sha256,
            crops: self.crops,
            known: self.known(),
            scored: tally.scored,
            unreadable,
            unreadable_count: self.unfit.unreadable_count + tally.unreadable_count,
            comparison,
        })
    }

    /// Both on the verdicts of the test part whose crops both have scored. None: there are none, or the model is the
    /// current one.
    async fn comparison(&self, index: &Index, history: &ClassifierHistory) -> Result<Option<Comparison>, RescoreError> {
        let Some(current) = history.current().filter(|current| current.model_sha256 != self.file.sha256) else {
            return Ok(None);
        };
        let judged = judged_crops(index)?.crops;
        let judged = judged.into_iter().filter(|judged| judged.side() == Side::Test);
        let judged: Vec<_> =
            judged.filter_map(|judged| Some((judged.example.crop, judged.example.ok, judged.p_ok?))).collect();
        let predictions = Predictions::new(self.objects.clone());
        let both = judged.into_iter().map(|(crop, ok, before)| {
            let predictions = predictions.clone();
            async move {
                let prediction = predictions.read(self.file.sha256, crop).await?;
                Ok::<_, ObjectError>(prediction.map(|prediction| (ok, before, prediction.p_ok)))
            }
        });
        let both: Vec<Option<_>> = stream::iter(both.collect::<Vec<_>>()).buffered(READERS).try_collect().await?;
        let before = (current.model.as_str(), current.threshold);
        Ok(Comparison::of(both.into_iter().flatten(), before, self.file.threshold))
    }
}
