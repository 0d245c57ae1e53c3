//! What people should judge next in a run: the suggested order of its unjudged faces, and verdicts to look at again.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::{JoinError, spawn_blocking};

use super::crop_features::CropFeatures;
use super::judged_crops::{JudgedError, judged_crops};
use super::training::{Trainer, TrainingError, TrainingStep};
use crate::archive::models::StoredModels;
use crate::classifier::coarse::coarse;
use crate::classifier::feature_store::FeatureStore;
use crate::classifier::features::FeatureError;
use crate::classifier::model::{ModelFile, meta};
use crate::dataset::export_filter::export_filter;
use crate::dataset::page::Order;
use crate::dataset::shared::IndexAccess;
use crate::dataset::suggested::Rest;
use crate::dataset::{Direction, Face, Index, IndexError, Query, QueryError, Rows, Sort};
use crate::domain::{ContentHash, ImageFormat, Verdict};
use crate::inference::Models;
use crate::objects::{ObjectError, Objects};
use crate::training::learner::{LearnError, LearnSettings};
use crate::training::suggestion::{Directions, typical_first, uncertain_first};
use crate::training::suspicion::suspicious;

/// Faces that are put into an order by their features; the others follow by a rule.
const CANDIDATES: usize = 2000;
/// Judged crops that the candidates are compared with.
const JUDGED: usize = 500;
/// Faces that are read from the index at a time.
const BATCH: usize = 100;
/// Of the principal components.
const SEED: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum SuggestionError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Judged(#[from] JudgedError),
    #[error("cannot read the run's classifier: {0}")]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Learn(#[from] LearnError),
    #[error("the computation of the order has ended: {0}")]
    Thread(#[from] JoinError),
}

/// How the order is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Crops that stand for many others, of different kinds.
    Typical,
    /// Crops that the classifier is least sure of; nearly the same ones apart from each other.
    Uncertain,
}

impl Method {
    /// How the faces follow that are no candidates.
    fn rest(self) -> Rest {
        match self {
            Self::Typical => Rest::Random,
            Self::Uncertain => Rest::Uncertain,
        }
    }
}

/// A method, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChosenMethod {
    pub method: Method,
    pub why: String,
}

impl ChosenMethod {
    /// Uncertain first needs the person's own model: one that was trained on verdicts of this run.
    pub async fn of(index: &mut impl IndexAccess, objects: &Arc<dyn Objects>) -> Result<Self, SuggestionError> {
        let (run, model, has_scores) = index
            .call(|index| {
                let scored = index.ok_split(&Query::ALL, index.threshold());
                Ok((index.run().clone(), index.model(), scored.ok + scored.ng > 0))
            })
            .await?;
        let typical = |why: String| Ok(Self { method: Method::Typical, why });
        let Some(sha256) = model else { return typical("the run has no classifier".into()) };
        let file = match StoredModels::new(objects.clone()).read(sha256).await {
            Ok(bytes) => ModelFile::from_bytes("the run's classifier", bytes).ok(),
            Err(ObjectError::Missing(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(file) = file else {
            return typical("nothing is known of the training of the run's classifier".into());
        };
        let (name, own) = (&file.name, file.metadata(meta::RUN).as_deref() == Some(run.as_str()));
        match (own, has_scores) {
            (false, _) => typical(format!("{name} was not trained on verdicts of this run")),
            (true, false) => typical(format!("{name} has not scored the faces of this run yet")),
            (true, true) => {
                let why = format!("{name} was trained on verdicts of this run");
                Ok(Self { method: Method::Uncertain, why })
            }
        }
    }
}

/// A crop whose features are needed.
#[derive(Debug, Clone, Copy)]
struct WantedCrop {
    /// Of the face in the index.
    key: i64,
    crop: ContentHash,
    format: ImageFormat,
    p_ok: Option<f64>,
    is_judged: bool,
}

/// The suggested order, and what it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Suggested {
    /// For [`Sort::Suggested`].
    #[serde(skip)]
    pub number: u64,
    /// Unjudged crops that were compared by their features, and judged ones that they were compared with.
    pub candidates: usize,
    pub judged: usize,
    /// Crops that could not be read or decoded.
    pub unreadable: usize,
}

/// Computes the suggested order.
pub struct Suggester(CropFeatures);

impl Suggester {
    /// # Errors
    /// The backbone or onnxruntime is missing.
    pub fn open(models: &Models, features: FeatureStore, threads: usize) -> Result<Self, SuggestionError> {
        Ok(Self(CropFeatures::open(models, features, threads)?))
    }

    /// Computes the order of the unjudged faces that fulfil the query, and adds it to the index. `progress` receives
    /// how many of how many crops have features. The same index gives the same order.
    ///
    /// # Errors
    /// The index, the store of the crops or the store of features is unavailable.
    pub async fn order(
        &mut self,
        index: &mut impl IndexAccess,
        objects: &Arc<dyn Objects>,
        query: &Query,
        method: Method,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Suggested, SuggestionError> {
        let wanted = wanted(index, query, method).await?;
        let crops: Vec<_> = wanted.iter().map(|wanted| (wanted.crop, wanted.format)).collect();
        let report = |done| progress(done, crops.len());
        let extracted = self.0.of_crops(objects, &crops, &report).await?;
        let unreadable = extracted.faults.len();
        let (wanted, features): (Vec<WantedCrop>, Vec<Vec<f32>>) =
            wanted.into_iter().zip(extracted.features).filter_map(|(one, features)| Some((one, features?))).unzip();
        let judged = wanted.iter().filter(|one| one.is_judged).count();
        let candidates = wanted.len() - judged;
        let threshold = index.call(|index| Ok(index.threshold())).await?;
        let keys = spawn_blocking(move || order_of(&wanted, &features, method, threshold)).await?;
        let number = index.call(move |index| Ok(index.add_suggested(&keys, method.rest()))).await?;
        Ok(Suggested { number, candidates, judged, unreadable })
    }
}

/// Adds an order that names no face, for the time until one by features is there.
pub async fn order_without_features(index: &mut impl IndexAccess, method: Method) -> Result<u64, IndexError> {
    index.call(move |index| Ok(index.add_suggested(&[], method.rest()))).await
}

/// The keys of the candidates in their order.
fn order_of(wanted: &[WantedCrop], features: &[Vec<f32>], method: Method, threshold: f64) -> Vec<i64> {
    let features: Vec<Vec<f32>> = features.iter().map(|row| coarse(row)).collect();
    let crops = Directions::of(&features.iter().map(|row| &row[..]).collect::<Vec<_>>(), SEED);
    let order = match method {
        Method::Typical => typical_first(&crops, &wanted.iter().map(|one| one.is_judged).collect::<Vec<_>>()),
        Method::Uncertain => {
            let distance = |one: &WantedCrop| one.p_ok.map_or(f64::INFINITY, |p_ok| (p_ok - threshold).abs());
            uncertain_first(&crops, &wanted.iter().map(distance).collect::<Vec<_>>())
        }
    };
    order.into_iter().map(|i| wanted[i].key).collect()
}

/// The candidates, each crop once, and for typical ones the judged crops to compare them with.
async fn wanted(
    index: &mut impl IndexAccess,
    query: &Query,
    method: Method,
) -> Result<Vec<WantedCrop>, SuggestionError> {
    let query = query.clone();
    let keys = index.call(move |index| Ok(candidate_keys(index, &query, method))).await??;
    let (mut wanted, mut known) = (Vec::new(), HashSet::new());
    for batch in keys.chunks(BATCH) {
        let batch = batch.to_vec();
        // In small parts: whoever else asks the index does not wait for long.
        let read = move |index: &mut Index| {
            let found = batch.into_iter().filter_map(|(key, is_judged)| {
                let face = index.row(key).map(|row| index.face_of(row))?;
                face.map(|face| face.map(|face| wanted_crop(key, &face, is_judged))).transpose()
            });
            found.collect::<Result<Vec<_>, _>>()
        };
        let read = index.call(read).await?;
        wanted.extend(read.into_iter().filter(|one| known.insert(one.crop)));
    }
    Ok(wanted)
}

fn wanted_crop(key: i64, face: &Face, is_judged: bool) -> WantedCrop {
    WantedCrop { key, crop: face.crop, format: face.format, p_ok: face.p_ok, is_judged }
}

/// The keys of judged faces, then those of candidates, with whether they are judged.
fn candidate_keys(index: &Index, query: &Query, method: Method) -> Result<Vec<(i64, bool)>, QueryError> {
    let threshold = index.threshold();
    // Nobody wants placeholders, and no training uses them.
    let query = Query::And(vec![query.clone(), export_filter()?]);
    let rows = index.unjudged(&index.rows(&query, threshold));
    let order = |sort| Order { sort, direction: Direction::Ascending };
    let keys = |rows: &Rows, sort: Sort, most: usize, is_judged: bool| {
        let found = index.first(rows, order(sort), threshold, None, most);
        found.into_iter().map(move |row| (index.key(row), is_judged))
    };
    Ok(match method {
        Method::Uncertain => keys(&rows, Sort::Uncertainty, CANDIDATES, false).collect(),
        Method::Typical => {
            let all = index.rows(&Query::ALL, threshold);
            let judged = all.clone().minus(&index.unjudged(&all));
            let judged = keys(&judged, Sort::Random(SEED), JUDGED, true);
            judged.chain(keys(&rows, Sort::Random(SEED), CANDIDATES, false)).collect()
        }
    })
}

/// A verdict that a classifier disagrees with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SuspiciousVerdict {
    pub verdict: Verdict,
    pub label: String,
    pub format: ImageFormat,
    /// P(OK) by classifiers that have seen neither the crop, nor its person, nor crops that are nearly the same.
    pub p_ok: f64,
    /// The probability that they give to the other judgement.
    pub disagreement: f64,
}

/// The suspicious verdicts of a run, and how many verdicts were looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SuspiciousVerdicts {
    pub verdicts: Vec<SuspiciousVerdict>,
    pub suspicious: usize,
    pub judged: usize,
    pub unreadable: usize,
}

/// The verdicts of a run that a classifier trained on the others disagrees with; the `limit` strongest ones. Nothing is
/// stored but features.
///
/// # Errors
/// The store is unavailable, or the verdicts are too few.
pub async fn suspicious_verdicts(
    trainer: &mut Trainer,
    objects: &Arc<dyn Objects>,
    index: &Index,
    limit: usize,
) -> Result<SuspiciousVerdicts, SuggestionError> {
    let judged = judged_crops(index)?;
    let (set, unreadable) = trainer.from_run(objects, &judged).await?;
    let settings = LearnSettings { seed: trainer.settings.seed, threads: trainer.settings.threads };
    let progress = trainer.progress.clone();
    let report = move |done, of| progress(TrainingStep::Fits { done, of });
    let crops: Vec<ContentHash> = set.examples().iter().map(|example| example.crop).collect();
    let found = spawn_blocking(move || suspicious(&set, settings, &report)).await??;
    let mut verdicts = Vec::new();
    for one in found.iter().take(limit) {
        let crop = crops[one.place];
        let Ok(at) = judged.crops.binary_search_by_key(&crop, |judged| judged.example.crop) else { continue };
        let Some(verdict) = index.verdicts_on(crop)?.last().cloned() else { continue };
        verdicts.push(SuspiciousVerdict {
            verdict,
            label: judged.crops[at].label.clone(),
            format: judged.crops[at].format,
            p_ok: one.p_ok,
            disagreement: one.disagreement,
        });
    }
    Ok(SuspiciousVerdicts { verdicts, suspicious: found.len(), judged: crops.len(), unreadable })
}
