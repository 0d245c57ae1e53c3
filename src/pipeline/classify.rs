//! The classify stage: predicts how likely a person is to accept a crop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::current_classifier::CurrentClassifier;
use super::gate::{self, GateGuard};
use super::handover::Handover;
use super::stage::{Outcome, Retry, Stage, panic_text, store_failed};
use crate::archive::predictions::Predictions;
use crate::classifier::model::{Input, Model, ModelError, ModelFile, mirrors_of};
use crate::domain::{Cause, CauseCode, ContentHash, Crop, Photo, Prediction, RunName, StageName};
use crate::inference::Runtime;
use crate::objects::{ObjectKey, Objects};
use crate::telemetry::{context, instruments};

/// The most crops in one batch.
const MAX_BATCH: usize = 16;

/// Opened models that a thread keeps. A run changes its classifier rarely.
const SESSIONS: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum ClassifyError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("cannot start the classifier's threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// Scores crops with the current classifier of their run, and stores the predictions.
///
/// Crops that wait are scored in one batch. A batch does not wait for more crops: the next one collects while the
/// present one is computed.
pub struct Classify {
    objects: Arc<dyn Objects>,
    predictions: Predictions,
    classifier: CurrentClassifier,
    scorer: CropScorer,
    inputs: Option<Arc<Handover<Input>>>,
}

impl Classify {
    /// Starts `threads` threads, which end when this is dropped. `own` is the classifier of runs that have none yet.
    ///
    /// # Errors
    /// A thread cannot be started, or onnxruntime does not accept `own`.
    pub fn new(
        objects: Arc<dyn Objects>,
        own: Arc<ModelFile>,
        runtime: &Runtime,
        threads: usize,
    ) -> Result<Self, ClassifyError> {
        let scorer = |_| {
            let opened = vec![(own.sha256, own.open(runtime)?)];
            Ok::<_, ClassifyError>(Sessions { runtime: runtime.clone(), opened })
        };
        let scorers = (0..threads).map(scorer).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::with_scorers(objects, scorers, own)?)
    }

    fn with_scorers<S: Scorer + 'static>(
        objects: Arc<dyn Objects>,
        scorers: Vec<S>,
        own: Arc<ModelFile>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for scorer in scorers {
            let jobs = Arc::clone(&jobs);
            std::thread::Builder::new().name("classify".into()).spawn(move || serve(scorer, &jobs))?;
        }
        let predictions = Predictions::new(objects.clone());
        let classifier = CurrentClassifier::new(objects.clone(), own);
        Ok(Self { objects, predictions, classifier, scorer: CropScorer { queue }, inputs: None })
    }

    /// Takes the inputs that crop has left in the same process.
    #[must_use]
    pub fn with_inputs(mut self, inputs: Arc<Handover<Input>>) -> Self {
        self.inputs = Some(inputs);
        self
    }

    /// The threads, for crops that are scored with other models.
    pub fn scorer(&self) -> CropScorer {
        self.scorer.clone()
    }

    async fn prediction(&self, run: &RunName, crop: &Crop) -> Result<Prediction, Outcome> {
        let left = self.inputs.as_ref().and_then(|inputs| inputs.take(crop.sha256));
        let input = match left {
            Some(input) => input,
            None => self.read(crop).await?,
        };
        let failed = |detail| Retry::failed(Cause::new(CauseCode::ClassifierFailed, detail));
        let model = self.classifier.of(run).await.map_err(|error| store_failed(&error))?.map_err(failed)?;
        let p_ok = self.scorer.score(input, model.clone()).await.map_err(failed)?;
        let prediction = Prediction::new(p_ok, &model.name, model.sha256);
        self.predictions.write(crop.sha256, prediction).await.map_err(|error| store_failed(&error))
    }

    /// Decodes the crop that is stored.
    async fn read(&self, crop: &Crop) -> Result<Input, Outcome> {
        let key = ObjectKey::face(crop.sha256, crop.format);
        let bytes = self.objects.get(&key).await.map_err(|error| store_failed(&error))?;
        let poison = |detail: String| Outcome::Poison(Cause::new(CauseCode::BadCrop, detail));
        let mirrors = mirrors_of(crop).map_err(poison)?;
        gate::spawn_blocking(move || Input::decode(&bytes, mirrors))
            .await
            .map_err(|error| poison(format!("the decoder panicked: {error}")))?
            .map_err(poison)
    }
}

/// The threads of a [`Classify`]. They end with the last clone.
#[derive(Clone)]
pub struct CropScorer {
    queue: Sender<Job>,
}

impl CropScorer {
    /// P(OK) of a crop. The error is the reason.
    pub async fn score(&self, input: Input, model: Arc<ModelFile>) -> Result<f64, String> {
        let (answer, answered) = oneshot::channel();
        let span = tracing::trace_span!("inference", facemill.model = model.name);
        let stopped = || "the threads of the classifier have ended".to_owned();
        self.queue
            .send(Job { input, model, answer, span: span.clone(), guard: gate::current() })
            .map_err(|_| stopped())?;
        answered.instrument(span).await.unwrap_or_else(|_| Err(stopped()))
    }
}

#[async_trait]
impl Stage for Classify {
    fn name(&self) -> StageName {
        StageName::Classify
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        let Some(crop) = &photo.facts.crop else {
            return Outcome::Poison(Cause::new(
                CauseCode::UnfitMessage,
                "the photo has no crop: it has not passed crop",
            ));
        };
        match self.prediction(&photo.run, crop).await {
            Ok(prediction) => {
                let mut photo = photo.clone();
                photo.facts.prediction = Some(prediction);
                Outcome::Advance(Box::new(photo))
            }
            Err(outcome) => outcome,
        }
    }
}

/// A crop that waits for its score.
struct Job {
    input: Input,
    model: Arc<ModelFile>,
    answer: oneshot::Sender<Result<f64, String>>,
    /// The span of the caller's wait, in the trace of its photo.
    span: Span,
    /// Held until the crop is scored.
    guard: Option<Arc<GateGuard>>,
}

/// Scores a batch of crops. Implemented by the models of a thread and by a test double.
trait Scorer: Send {
    fn predict(&mut self, model: &ModelFile, batch: &[Input]) -> Result<Vec<f64>, String>;
}

/// The models that a thread has opened, the last used one at the end.
struct Sessions {
    runtime: Runtime,
    opened: Vec<(ContentHash, Model)>,
}

impl Scorer for Sessions {
    fn predict(&mut self, model: &ModelFile, batch: &[Input]) -> Result<Vec<f64>, String> {
        let known = self.opened.iter().position(|(sha256, _)| *sha256 == model.sha256);
        let mut session = match known {
            Some(index) => self.opened.remove(index).1,
            None => model.open(&self.runtime).map_err(|error| error.to_string())?,
        };
        let scores = session.predict(batch).map_err(|error| error.to_string());
        self.opened.push((model.sha256, session));
        if self.opened.len() > SESSIONS {
            self.opened.remove(0);
        }
        scores
    }
}

/// Scores the crops that wait until no caller is left.
fn serve(mut scorer: impl Scorer, jobs: &Mutex<Receiver<Job>>) {
    while let Some(mut jobs) = next_batch(jobs) {
        jobs.sort_by_key(|job| job.model.sha256);
        while let Some(first) = jobs.first() {
            let model = first.model.clone();
            let rest = jobs.partition_point(|job| job.model.sha256 == model.sha256);
            let batch: Vec<Job> = jobs.drain(..rest).collect();
            serve_batch(&mut scorer, &model, batch);
        }
    }
}

fn serve_batch(scorer: &mut impl Scorer, model: &ModelFile, batch: Vec<Job>) {
    if let Some(instruments) = instruments::get() {
        instruments.batch(batch.len());
    }
    let span = batch_span(&batch);
    let (inputs, answers): (Vec<Input>, Vec<_>) =
        batch.into_iter().map(|job| (job.input, (job.answer, job.guard))).unzip();
    let scores = span.in_scope(|| scores(scorer, model, &inputs));
    drop(span);
    for ((answer, guard), score) in answers.into_iter().zip(scores) {
        drop(guard);
        // A caller that has stopped waiting needs no answer.
        let _ = answer.send(score);
    }
}

/// The root span of a batch. A batch belongs to several photos: its span and theirs are linked to each other.
fn batch_span(batch: &[Job]) -> Span {
    let span = tracing::trace_span!(parent: None, "inference batch", facemill.batch.size = batch.len());
    let Some(batch_context) = context::of(&span) else { return span };
    for job in batch {
        if let Some(photo_context) = context::of(&job.span) {
            span.add_link(photo_context);
            job.span.add_link(batch_context.clone());
        }
    }
    span
}

/// Waits for a job, and takes all others that are waiting.
fn next_batch(jobs: &Mutex<Receiver<Job>>) -> Option<Vec<Job>> {
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = vec![jobs.recv().ok()?];
    batch.extend(jobs.try_iter().take(MAX_BATCH - 1));
    Some(batch)
}

/// A score for each crop. The crops of a failed batch are scored one by one, so that a bad crop fails alone.
fn scores(scorer: &mut impl Scorer, model: &ModelFile, batch: &[Input]) -> Vec<Result<f64, String>> {
    match predict(scorer, model, batch) {
        Ok(scores) => scores.into_iter().map(Ok).collect(),
        Err(detail) if batch.len() == 1 => vec![Err(detail)],
        Err(_) => batch.chunks(1).flat_map(|single| scores(scorer, model, single)).collect(),
    }
}

fn predict(scorer: &mut impl Scorer, model: &ModelFile, batch: &[Input]) -> Result<Vec<f64>, String> {
    match catch_unwind(AssertUnwindSafe(|| scorer.predict(model, batch))) {
        Ok(Ok(scores)) if scores.len() == batch.len() => Ok(scores),
        Ok(Ok(scores)) => Err(format!("the model returned {} scores for {} crops", scores.len(), batch.len())),
        Ok(Err(detail)) => Err(detail),
        Err(panic) => Err(format!("the model panicked: {}", panic_text(panic.as_ref()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Barrier;

    use bytes::Bytes;
    use image::RgbImage;

    use super::*;
    use crate::domain::{Align, Candidate, ImageFormat};
    use crate::objects::{ObjectError, Page, PutIfAbsent, Swap, Version};
    use crate::server_error::ServerError;
    use crate::vision::image::encode;

    /// Objects in memory. A key that it does not have is missing, or the store is unavailable or refuses access.
    #[derive(Default)]
    struct MemoryObjects {
        objects: HashMap<ObjectKey, Bytes>,
        unavailable: bool,
        refuses: bool,
    }

    #[async_trait]
    impl Objects for MemoryObjects {
        async fn put(&self, _: &ObjectKey, _: Bytes, _: &str) -> Result<bool, ObjectError> {
            Ok(true)
        }

        async fn put_if_absent(&self, _: &ObjectKey, _: Bytes, _: &str) -> Result<PutIfAbsent, ObjectError> {
            Ok(PutIfAbsent::Created)
        }

        async fn compare_and_swap(&self, _: &ObjectKey, _: &Version, _: Bytes, _: &str) -> Result<Swap, ObjectError> {
            unreachable!("classify replaces nothing")
        }

        async fn get_versioned(&self, key: &ObjectKey) -> Result<(Bytes, Version), ObjectError> {
            Ok((self.get(key).await?, Version::new("1")))
        }

        async fn delete(&self, _: &ObjectKey) -> Result<(), ObjectError> {
            unreachable!("classify deletes nothing")
        }

        async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
            match self.objects.get(key) {
                Some(body) => Ok(body.clone()),
                None if self.refuses => Err(ServerError::Refused { what: key.to_string(), detail: "no".into() }.into()),
                None if self.unavailable => {
                    Err(ServerError::Unavailable { what: key.to_string(), detail: "down".into() }.into())
                }
                None => Err(ObjectError::Missing(key.clone())),
            }
        }

        async fn exists(&self, _: &ObjectKey) -> Result<bool, ObjectError> {
            unreachable!()
        }

        async fn list(&self, _: &str, _: Option<&ObjectKey>, _: usize) -> Result<Page, ObjectError> {
            unreachable!()
        }

        async fn check(&self) -> Result<(), ObjectError> {
            Ok(())
        }
    }

    /// Scores a crop by its mirrored share, and panics at 1. Notes the sizes of its batches. Waits twice at the barrier
    /// of its first batch, if it has one.
    struct FakeScorer {
        sizes: Arc<Mutex<Vec<usize>>>,
        barrier: Option<Arc<Barrier>>,
    }

    impl Scorer for FakeScorer {
        fn predict(&mut self, _: &ModelFile, batch: &[Input]) -> Result<Vec<f64>, String> {
            self.sizes.lock().unwrap().push(batch.len());
            if let Some(barrier) = self.barrier.take() {
                barrier.wait();
                barrier.wait();
            }
            let score = |input: &Input| {
                let share = f64::from(input.mirrors()[0]);
                assert!(share < 1.0, "everything is mirrored");
                share
            };
            Ok(batch.iter().map(score).collect())
        }
    }

    fn photo(crop_bytes: &[u8], mirrored: f64) -> Photo {
        let mut photo = Photo::new(RunName::default(), Candidate::example(1));
        photo.facts.crop = Some(Crop {
            sha256: ContentHash::of(crop_bytes),
            format: ImageFormat::Png,
            align: Align::Paper,
            fill: Default::default(),
            angle: 0.0,
            centre: [16.0, 16.0],
            side: 32.0,
            size: 32,
            landmarks: vec![[0.0; 2]; 68],
            mirrored,
            mirrored_head: 0.0,
            mirrored_grid: vec![0.0; 16],
            blur: 0.0,
            exposure: 0.0,
            quality: None,
            fingerprint: None,
        });
        photo
    }

    fn png() -> Vec<u8> {
        encode(&RgbImage::from_pixel(32, 32, image::Rgb([90, 80, 70])), ImageFormat::Png).unwrap()
    }

    fn store_with(bytes: &[u8]) -> MemoryObjects {
        let key = ObjectKey::face(ContentHash::of(bytes), ImageFormat::Png);
        MemoryObjects { objects: HashMap::from([(key, Bytes::copy_from_slice(bytes))]), ..MemoryObjects::default() }
    }

    fn stage(store: MemoryObjects, barrier: Option<Arc<Barrier>>) -> (Classify, Arc<Mutex<Vec<usize>>>) {
        let sizes = Arc::default();
        let scorer = FakeScorer { sizes: Arc::clone(&sizes), barrier };
        (Classify::with_scorers(Arc::new(store), vec![scorer], Arc::new(ModelFile::example())).unwrap(), sizes)
    }

    fn p_ok(outcome: &Outcome) -> f64 {
        let Outcome::Advance(photo) = outcome else { panic!("{outcome:?}") };
        photo.facts.prediction.as_ref().unwrap().p_ok
    }

    #[tokio::test]
    async fn a_single_crop_is_scored_at_once() {
        let (classify, sizes) = stage(store_with(&png()), None);
        for mirrored in [0.25, 0.123_456_789] {
            let expected = (mirrored * 1e4f64).round() / 1e4;
            assert_eq!(p_ok(&classify.run(&photo(&png(), mirrored)).await), expected);
        }
        assert_eq!(*sizes.lock().unwrap(), [1, 1]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn waiting_crops_share_a_batch_and_a_bad_one_fails_alone() {
        let barrier = Arc::new(Barrier::new(2));
        let (classify, sizes) = stage(store_with(&png()), Some(Arc::clone(&barrier)));
        let classify = Arc::new(classify);
        let first = tokio::spawn({
            let classify = Arc::clone(&classify);
            async move { classify.run(&photo(&png(), 0.5)).await }
        });
        tokio::task::spawn_blocking({
            let barrier = Arc::clone(&barrier);
            move || barrier.wait()
        })
        .await
        .unwrap();
        // The scorer waits in its first batch. These jobs are queued before it continues, so they share the next one.
        let mut waiting = Vec::new();
        for mirrored in [0.1, 1.0, 0.3] {
            let (answer, answered) = oneshot::channel();
            let mirrors = mirrors_of(photo(&png(), mirrored).facts.crop.as_ref().unwrap()).unwrap();
            let input = Input::decode(&png(), mirrors).unwrap();
            let model = Arc::new(ModelFile::example());
            classify.scorer.queue.send(Job { input, model, answer, span: Span::none(), guard: None }).unwrap();
            waiting.push(answered);
        }
        tokio::task::spawn_blocking(move || barrier.wait()).await.unwrap();
        assert_eq!(p_ok(&first.await.unwrap()), 0.5);
        let mut answers = Vec::new();
        for answer in waiting {
            answers.push(answer.await.unwrap().map(|score| (score * 10.0).round()));
        }
        let failed = Err("the model panicked: everything is mirrored".to_owned());
        assert_eq!(answers, [Ok(1.0), failed, Ok(3.0)]);
        assert_eq!(*sizes.lock().unwrap(), [1, 3, 1, 1, 1]);
    }

    #[tokio::test]
    async fn failures_are_poison_or_retried() {
        let broken = b"\x89PNG but no more".to_vec();
        let code = |outcome: Outcome| match outcome {
            Outcome::Poison(cause) => ("poison", cause.code),
            Outcome::Retry(retry) if retry.costs_attempt => ("failed", retry.cause.code),
            Outcome::Retry(retry) => ("wait", retry.cause.code),
            other => panic!("{other:?}"),
        };
        let run = async |store: MemoryObjects, photo: &Photo| code(stage(store, None).0.run(photo).await);
        let usual = photo(&png(), 0.5);
        assert_eq!(run(MemoryObjects::default(), &usual).await, ("failed", "object-missing".into()));
        assert_eq!(
            run(MemoryObjects { unavailable: true, ..MemoryObjects::default() }, &usual).await,
            ("wait", "store-unavailable".into())
        );
        assert_eq!(
            run(MemoryObjects { refuses: true, ..MemoryObjects::default() }, &usual).await,
            ("wait", "store-refused".into())
        );
        assert_eq!(run(store_with(&broken), &photo(&broken, 0.5)).await, ("poison", "bad-crop".into()));
        assert_eq!(run(store_with(&png()), &photo(&png(), 7.0)).await, ("poison", "bad-crop".into()));
        assert_eq!(run(store_with(&png()), &photo(&png(), 1.0)).await, ("failed", "classifier-failed".into()));
        let mut without = usual;
        without.facts.crop = None;
        assert_eq!(run(store_with(&png()), &without).await, ("poison", "unfit-message".into()));
    }
}
