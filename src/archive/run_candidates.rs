//! The candidates of a run: `candidates/RUN/SHA256.json`, one list of ids for each `produce`, by its hash.
//!
//! A lost ledger is rebuilt from them: a source may have more candidates than were taken.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;

use super::{JSON, PAGE, decode, encode, keys};
use crate::domain::{Candidate, ContentHash, Id, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects};

/// The candidates of runs in the object store. Clones share the store.
#[derive(Clone)]
pub struct RunCandidates {
    objects: Arc<dyn Objects>,
}

impl RunCandidates {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Notes that the run takes these candidates. It precedes their registration in the ledger.
    pub async fn add(&self, run: &RunName, candidates: &[Candidate]) -> Result<(), ObjectError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let mut ids: Vec<&Id> = candidates.iter().map(|candidate| &candidate.photo_id).collect();
        ids.sort_unstable();
        let hash = ContentHash::of(&serde_json::to_vec(&ids).unwrap_or_default());
        let key = ObjectKey::candidates(run, hash);
        if !self.objects.exists(&key).await? {
            self.objects.put(&key, encode(&key, &ids)?, JSON).await?;
        }
        Ok(())
    }

    /// The ids of all candidates that the run has taken.
    pub async fn read(&self, run: &RunName) -> Result<HashSet<Id>, ObjectError> {
        let mut all = HashSet::new();
        let mut lists = std::pin::pin!(keys(self.objects.clone(), ObjectKey::all_candidates(run), PAGE));
        while let Some(key) = lists.try_next().await? {
            all.extend(decode::<Vec<Id>>(&key, &self.objects.get(&key).await?)?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn the_lists_of_a_run_are_joined() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path()));
        let (stored, run) = (RunCandidates::new(objects.clone()), RunName::default());
        let candidates = |ids: &[i64]| ids.iter().copied().map(Candidate::example).collect::<Vec<_>>();
        for ids in [&[2, 1][..], &[1, 2], &[], &[2, 3]] {
            stored.add(&run, &candidates(ids)).await.unwrap();
        }
        assert_eq!(stored.read(&run).await.unwrap(), [1, 2, 3].map(Id::from).into());
        let lists = objects.list(&ObjectKey::all_candidates(&run), None, 10).await.unwrap();
        assert_eq!(lists.keys.len(), 2, "a repetition adds none");
        assert!(stored.read(&"other".parse().unwrap()).await.unwrap().is_empty());
    }
}
