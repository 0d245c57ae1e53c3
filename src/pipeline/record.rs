//! The record of a photo that has ended, among the objects: all that is known of it, for a ledger that has no room for
//! it, and to restore a ledger that was lost.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::broker::Message;
use crate::ledger::Entry;
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::photo::{Cause, Ending, PhotoKey, RunName, State};

/// How a photo ended. Its message has the stage and the attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub ending: Ending,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    pub message: Message,
}

/// The records among the objects. Clones share the store.
#[derive(Clone)]
pub struct Records {
    objects: Arc<dyn Objects>,
}

impl Records {
    /// Records that are read at a time.
    const READERS: usize = 16;

    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Writing the same record again is harmless.
    pub async fn write(&self, record: &Record) -> Result<(), ObjectError> {
        let key = ObjectKey::record(&record.message.photo.key());
        let what = || format!("cannot write {key}");
        let json = serde_json::to_vec(record)
            .map_err(|error| ObjectError::Refused { what: what(), detail: error.to_string() })?;
        self.objects.put(&key, Bytes::from(json), "application/json").await.map(drop)
    }

    /// None: the photo has no record.
    pub async fn read(&self, key: &PhotoKey) -> Result<Option<Record>, ObjectError> {
        let key = ObjectKey::record(key);
        let body = match self.objects.get(&key).await {
            Ok(body) => body,
            Err(ObjectError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let odd = |detail: String| ObjectError::Refused { what: format!("cannot read {key}"), detail };
        let record: Record = serde_json::from_slice(&body).map_err(|error| odd(error.to_string()))?;
        match record.message.schema <= Message::SCHEMA {
            true => Ok(Some(record)),
            false => Err(odd("a later version of facemill wrote it: update this one".into())),
        }
    }

    /// Gives the ended photos of a listing the messages that the ledger let go of.
    pub async fn complete(&self, run: &RunName, entries: Vec<Entry>) -> Result<Vec<Entry>, ObjectError> {
        stream::iter(entries).map(|entry| self.complete_one(run, entry)).buffered(Self::READERS).try_collect().await
    }

    async fn complete_one(&self, run: &RunName, mut entry: Entry) -> Result<Entry, ObjectError> {
        if entry.standing.message.is_none() && matches!(entry.standing.state, State::Ended(_)) {
            let key = PhotoKey { run: run.clone(), photo_id: entry.photo_id.clone() };
            entry.standing.message = self.read(&key).await?.map(|record| record.message);
        }
        Ok(entry)
    }
}
