//! The current classifier of each run, as a classify worker sees it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::instrument::WithSubscriber;

use crate::archive::models::StoredModels;
use crate::archive::run_classifier::{ClassifierChange, RunClassifiers};
use crate::classifier::model::ModelFile;
use crate::domain::clock::now;
use crate::domain::{ContentHash, RunName};
use crate::objects::{ObjectError, Objects};
use crate::telemetry::silence::SILENT;

/// Looks up the classifier of a photo's run, and keeps it in memory.
pub struct CurrentClassifier {
    runs: RunClassifiers,
    models: StoredModels,
    /// The file beside the program: for runs that have no classifier yet, and for its own hash.
    own: Arc<ModelFile>,
    known: Mutex<HashMap<RunName, Known>>,
}

#[derive(Clone)]
struct Known {
    model: Arc<ModelFile>,
    read_at: Instant,
}

impl CurrentClassifier {
    /// A change takes effect within this time.
    const REFRESH: Duration = Duration::from_secs(30);

    pub fn new(objects: Arc<dyn Objects>, own: Arc<ModelFile>) -> Self {
        let (runs, models) = (RunClassifiers::new(objects.clone()), StoredModels::new(objects));
        Self { runs, models, own, known: Mutex::default() }
    }

    /// The current classifier of a run. A run without one gets `own`, and the change is recorded.
    ///
    /// # Errors
    /// Outside: the store fails, or lacks the model. Inside: the stored model is not a classifier.
    pub async fn of(&self, run: &RunName) -> Result<Result<Arc<ModelFile>, String>, ObjectError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned();
        if let Some(known) = &known
            && known.read_at.elapsed() < Self::REFRESH
        {
            return Ok(Ok(known.model.clone()));
        }
        let read_at = Instant::now();
        // This lookup is for all photos of the run: it does not belong in the trace of one.
        let sha256 = self.read(run).with_subscriber(SILENT.clone()).await?;
        let model = match known {
            Some(known) if known.model.sha256 == sha256 => known.model,
            _ if self.own.sha256 == sha256 => self.own.clone(),
            _ => {
                let file = self.models.read(sha256).with_subscriber(SILENT.clone()).await?;
                match ModelFile::from_bytes(&format!("models/{sha256}.onnx"), file) {
                    Ok(model) => Arc::new(model),
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(run).is_none_or(|known| known.model.sha256 != sha256) {
            tracing::info!(%run, model = model.name, "classifier of the run");
        }
        known.insert(run.clone(), Known { model: model.clone(), read_at });
        Ok(Ok(model))
    }

    /// The hash of the run's current classifier.
    async fn read(&self, run: &RunName) -> Result<ContentHash, ObjectError> {
        if let Some(current) = self.runs.read(run).await?.current() {
            return Ok(current.model_sha256);
        }
        // The model first: a recorded model exists.
        self.models.write(self.own.bytes.clone()).await?;
        let first = ClassifierChange {
            model_sha256: self.own.sha256,
            model: self.own.name.clone(),
            threshold: self.own.threshold,
            at: now().as_secs(),
            by: "classify".into(),
            why: "the first classifier of the run: the file beside the program".into(),
        };
        Ok(self.runs.start(run, first).await?.model_sha256)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::inference::Models;
    use crate::objects::folder::Folder;

    /// The committed classifier and a copy with other bytes: protobuf ignores an unknown field at the end.
    fn two_models() -> [ModelFile; 2] {
        let models = Models::find(std::env::var_os(Models::ENV).map(std::path::PathBuf::from));
        let one = ModelFile::read(&models.classifier()).unwrap();
        let mut bytes = one.bytes.to_vec();
        bytes.extend([0xa0, 0x06, 0x01]);
        let two = ModelFile::from_bytes("the copy", bytes.into()).unwrap();
        assert_ne!(one.sha256, two.sha256);
        [one, two]
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_takes_effect_within_a_minute() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let (runs, models) = (RunClassifiers::new(objects.clone()), StoredModels::new(objects.clone()));
        let [one, two] = two_models();
        let run = RunName::default();
        let worker = CurrentClassifier::new(objects.clone(), Arc::new(one.clone()));
        assert_eq!(*worker.of(&run).await.unwrap().unwrap(), one);
        let first = runs.read(&run).await.unwrap().current().cloned().unwrap();
        assert_eq!((first.model_sha256, first.threshold), (one.sha256, one.threshold));
        assert_eq!(models.all().await.unwrap(), [one.sha256]);

        models.write(two.bytes.clone()).await.unwrap();
        let change = ClassifierChange { model_sha256: two.sha256, model: two.name.clone(), ..first };
        runs.change(&run, change.clone()).await.unwrap();
        assert_eq!(worker.of(&run).await.unwrap().unwrap().sha256, one.sha256, "still in memory");
        tokio::time::advance(CurrentClassifier::REFRESH).await;
        assert_eq!(worker.of(&run).await.unwrap().unwrap().sha256, two.sha256);

        // A worker with another file uses the run's classifier; its own file is the one for the same hash.
        let other = CurrentClassifier::new(objects.clone(), Arc::new(one.clone()));
        assert_eq!(other.of(&run).await.unwrap().unwrap().sha256, two.sha256);
        tokio::fs::remove_file(scratch.path().join(format!("models/{}.onnx", two.sha256))).await.unwrap();
        let same = CurrentClassifier::new(objects.clone(), Arc::new(two.clone()));
        assert_eq!(same.of(&run).await.unwrap().unwrap().sha256, two.sha256);
        let without = CurrentClassifier::new(objects.clone(), Arc::new(one.clone()));
        assert!(matches!(without.of(&run).await, Err(ObjectError::Missing(_))));
    }

    #[tokio::test]
    async fn a_stored_model_that_is_no_classifier_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let (runs, models) = (RunClassifiers::new(objects.clone()), StoredModels::new(objects.clone()));
        let run = RunName::default();
        let sha256 = models.write(Bytes::from_static(b"not a model")).await.unwrap();
        let change = ClassifierChange {
            model_sha256: sha256,
            model: "none".into(),
            threshold: 0.5,
            at: 1,
            by: "test".into(),
            why: String::new(),
        };
        runs.change(&run, change).await.unwrap();
        let error =
            CurrentClassifier::new(objects, Arc::new(ModelFile::example())).of(&run).await.unwrap().unwrap_err();
        assert!(error.contains(&sha256.to_string()), "{error}");
    }
}
