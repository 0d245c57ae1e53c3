//! What the landmarks of a run are compared with: `runs/RUN/landmarks.json`.
//!
//! The first crop of a run fixes it, so that the outlier scores of all its faces have one scale, whichever worker
//! computes them and when.

use std::sync::Arc;

use super::{JSON, decode, encode, optional};
use crate::domain::{LandmarkReference, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent};

/// The landmark references of runs in the object store. Clones share the store.
#[derive(Clone)]
pub struct LandmarkReferences {
    objects: Arc<dyn Objects>,
}

impl LandmarkReferences {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    fn key(run: &RunName) -> ObjectKey {
        ObjectKey::of_run(run, "landmarks")
    }

    /// None: the run has no reference yet.
    pub async fn read(&self, run: &RunName) -> Result<Option<LandmarkReference>, ObjectError> {
        let key = Self::key(run);
        match optional(self.objects.get(&key).await)? {
            Some(body) => decode(&key, &body).map(Some),
            None => Ok(None),
        }
    }

    /// Stores `proposed` if the run has no reference, and returns that of the run.
    pub async fn fix(&self, run: &RunName, proposed: &LandmarkReference) -> Result<LandmarkReference, ObjectError> {
        if let Some(known) = self.read(run).await? {
            return Ok(known);
        }
        let key = Self::key(run);
        match self.objects.put_if_absent(&key, encode(&key, proposed)?, JSON).await? {
            PutIfAbsent::Created => Ok(proposed.clone()),
            PutIfAbsent::AlreadyThere => decode(&key, &self.objects.get(&key).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Spread;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn the_first_reference_of_a_run_is_fixed() {
        let scratch = tempfile::tempdir().unwrap();
        let references = LandmarkReferences::new(Arc::new(Folder::at(scratch.path())));
        let run = RunName::default();
        assert_eq!(references.read(&run).await.unwrap(), None);
        let [first, other] = [0.25, 0.5].map(|mean| {
            let usual = Spread { mean, deviation: 0.125 };
            let (left, top, right, bottom, angle) = (usual, usual, usual, usual, usual);
            LandmarkReference { source: "a test".into(), faces: 9, left, top, right, bottom, angle }
        });
        assert_eq!(references.fix(&run, &first).await.unwrap(), first);
        assert_eq!(references.fix(&run, &other).await.unwrap(), first);
        assert_eq!(references.read(&run).await.unwrap(), Some(first));
    }
}
