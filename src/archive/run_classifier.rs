//! The classifier of a run: `runs/RUN/classifier.json`, an append-only list of changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{JSON, decode, encode, optional};
use crate::domain::{ContentHash, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent, Swap, Version};

/// From `at` on, the predictions of this model count in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifierChange {
    /// SHA-256 of the model's file.
    pub model_sha256: ContentHash,
    /// Name and version of the model.
    pub model: String,
    /// A crop with this P(OK) or more counts as OK.
    pub threshold: f64,
    /// Seconds since 1970, UTC.
    pub at: u64,
    /// Who made the change: a user and host, or a command.
    pub by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// All classifiers that a run has had, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassifierHistory {
    pub changes: Vec<ClassifierChange>,
}

impl ClassifierHistory {
    /// Of a run that has no classifier yet, and so no predictions.
    const DEFAULT_THRESHOLD: f64 = 0.5;

    /// The P(OK) from which a crop of the run counts as OK: that of the current classifier.
    pub fn threshold(&self) -> f64 {
        self.current().map_or(Self::DEFAULT_THRESHOLD, |current| current.threshold)
    }

    pub fn current(&self) -> Option<&ClassifierChange> {
        self.changes.last()
    }
}

/// The classifiers of runs in the object store. Clones share the store.
#[derive(Clone)]
pub struct RunClassifiers {
    objects: Arc<dyn Objects>,
}

impl RunClassifiers {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    fn key(run: &RunName) -> ObjectKey {
        ObjectKey::of_run(run, "classifier")
    }

    /// The history of a run. It is empty before the first change.
    pub async fn read(&self, run: &RunName) -> Result<ClassifierHistory, ObjectError> {
        Ok(self.versioned(run).await?.map(|(history, _)| history).unwrap_or_default())
    }

    async fn versioned(&self, run: &RunName) -> Result<Option<(ClassifierHistory, Version)>, ObjectError> {
        let key = Self::key(run);
        match optional(self.objects.get_versioned(&key).await)? {
            Some((body, version)) => Ok(Some((decode(&key, &body)?, version))),
            None => Ok(None),
        }
    }

    /// Records the classifier that a run starts with, if it has none, and returns the current one.
    pub async fn start(&self, run: &RunName, first: ClassifierChange) -> Result<ClassifierChange, ObjectError> {
        match self.read(run).await?.changes.pop() {
            Some(current) => Ok(current),
            None if self.create(run, &first).await? == PutIfAbsent::Created => Ok(first),
            None => Ok(self.read(run).await?.changes.pop().unwrap_or(first)),
        }
    }

    /// Records a change. Concurrent changes are all kept.
    pub async fn change(&self, run: &RunName, change: ClassifierChange) -> Result<(), ObjectError> {
        let key = Self::key(run);
        loop {
            let Some((mut history, version)) = self.versioned(run).await? else {
                match self.create(run, &change).await? {
                    PutIfAbsent::Created => return Ok(()),
                    PutIfAbsent::AlreadyThere => continue,
                }
            };
            // An earlier attempt may have succeeded although its answer was lost.
            if history.changes.contains(&change) {
                return Ok(());
            }
            history.changes.push(change.clone());
            let body = encode(&key, &history)?;
            if self.objects.compare_and_swap(&key, &version, body, JSON).await? == Swap::Done {
                return Ok(());
            }
        }
    }

    async fn create(&self, run: &RunName, first: &ClassifierChange) -> Result<PutIfAbsent, ObjectError> {
        let key = Self::key(run);
        let body = encode(&key, &ClassifierHistory { changes: vec![first.clone()] })?;
        self.objects.put_if_absent(&key, body, JSON).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    fn change(model: &str, by: &str) -> ClassifierChange {
        ClassifierChange {
            model_sha256: ContentHash::of(model.as_bytes()),
            model: model.into(),
            threshold: 0.5,
            at: 1_700_000_000,
            by: by.into(),
            why: String::new(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_changes_are_kept_and_the_last_one_is_current() {
        let scratch = tempfile::tempdir().unwrap();
        let classifiers = RunClassifiers::new(Arc::new(Folder::at(scratch.path())));
        let run = RunName::default();
        assert_eq!(classifiers.read(&run).await.unwrap().current(), None);
        assert_eq!(classifiers.start(&run, change("one", "a")).await.unwrap(), change("one", "a"));
        assert_eq!(classifiers.start(&run, change("two", "b")).await.unwrap(), change("one", "a"));
        let concurrent = (0..8).map(|number| {
            let (classifiers, run) = (classifiers.clone(), run.clone());
            tokio::spawn(async move { classifiers.change(&run, change("three", &number.to_string())).await.unwrap() })
        });
        futures::future::join_all(concurrent).await.into_iter().for_each(Result::unwrap);
        classifiers.change(&run, change("four", "c")).await.unwrap();
        classifiers.change(&run, change("four", "c")).await.unwrap();
        let history = classifiers.read(&run).await.unwrap();
        assert_eq!(history.changes.len(), 10);
        assert_eq!(history.current(), Some(&change("four", "c")));
        // A run that never started may be changed, too.
        let other = "other".parse().unwrap();
        classifiers.change(&other, change("one", "a")).await.unwrap();
        assert_eq!(classifiers.read(&other).await.unwrap().changes, [change("one", "a")]);
    }
}
