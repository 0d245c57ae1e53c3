//! How far models have scored the crops of a run again: `rescores/RUN/MODEL.json`.

use std::sync::Arc;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::{JSON, PAGE, decode, encode, keys, optional};
use crate::domain::{ContentHash, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects};

/// The last rescore of a run with a model, as its command saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rescore {
    /// Name and version of the model.
    pub model: String,
    pub model_sha256: ContentHash,
    /// Which faces; empty: all.
    #[serde(rename = "where", default, skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// Who gave the command: a user and host.
    pub by: String,
    /// Seconds since 1970, UTC.
    pub started_at: u64,
    /// Seconds since 1970, UTC, of this count.
    pub updated_at: u64,
    /// The crops that fulfil the query.
    pub crops: u64,
    /// Those that the model has scored, earlier ones included.
    pub scored: u64,
    /// Those that cannot be scored.
    pub unreadable: u64,
    /// All crops are scored or unreadable.
    pub has_ended: bool,
}

/// The rescores in the object store. Clones share the store.
#[derive(Clone)]
pub struct Rescores {
    objects: Arc<dyn Objects>,
}

impl Rescores {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Replaces that of the same run and model.
    pub async fn write(&self, run: &RunName, rescore: &Rescore) -> Result<(), ObjectError> {
        let key = ObjectKey::rescore(run, rescore.model_sha256);
        self.objects.put(&key, encode(&key, rescore)?, JSON).await.map(drop)
    }

    /// All rescores of a run, the latest first.
    pub async fn all(&self, run: &RunName) -> Result<Vec<Rescore>, ObjectError> {
        let keys: Vec<ObjectKey> = keys(self.objects.clone(), ObjectKey::rescores(run), PAGE).try_collect().await?;
        let mut all: Vec<Rescore> = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(body) = optional(self.objects.get(&key).await)? {
                all.push(decode(&key, &body)?);
            }
        }
        all.sort_by_key(|rescore| std::cmp::Reverse((rescore.started_at, rescore.model_sha256)));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn a_run_has_one_rescore_for_each_model() {
        let scratch = tempfile::tempdir().unwrap();
        let rescores = Rescores::new(Arc::new(Folder::at(scratch.path())));
        let run = RunName::default();
        assert_eq!(rescores.all(&run).await.unwrap(), []);
        let rescore = |model: &str, started_at, scored| Rescore {
            model: model.into(),
            model_sha256: ContentHash::of(model.as_bytes()),
            query: "size>=512".into(),
            by: "ada@host".into(),
            started_at,
            updated_at: started_at + scored,
            crops: 3,
            scored,
            unreadable: 0,
            has_ended: scored == 3,
        };
        for written in [rescore("one", 1, 1), rescore("two", 2, 0), rescore("one", 1, 3)] {
            rescores.write(&run, &written).await.unwrap();
        }
        rescores.write(&"other".parse().unwrap(), &rescore("three", 3, 3)).await.unwrap();
        assert_eq!(rescores.all(&run).await.unwrap(), [rescore("two", 2, 0), rescore("one", 1, 3)]);
    }
}
