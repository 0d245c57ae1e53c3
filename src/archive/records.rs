//! Records: `records/RUN/ab/PHOTO.json`. A record holds all results of a photo that has ended, for a ledger that does
//! not keep them, and to rebuild a lost ledger.

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::refusals::Refusals;
use super::run_candidates::RunCandidates;
use super::{JSON, PAGE, READERS, damaged, encode, keys, optional};
use crate::domain::{Message, PhotoKey, Record, RunName, State};
use crate::ledger::Entry;
use crate::objects::{ObjectError, ObjectKey, Objects, Swap};

/// A record that cannot be read. The others can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    #[serde(serialize_with = "as_text")]
    pub record: ObjectKey,
    pub reason: String,
}

fn as_text<S: serde::Serializer>(key: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// The records in the object store. Clones share the store.
#[derive(Clone)]
pub struct Records {
    objects: Arc<dyn Objects>,
}

impl Records {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// The refusals of the same store.
    pub fn refusals(&self) -> Refusals {
        Refusals::new(self.objects.clone())
    }

    /// The candidates of runs in the same store.
    pub fn candidates(&self) -> RunCandidates {
        RunCandidates::new(self.objects.clone())
    }

    /// Writing the same record again is harmless.
    pub async fn write(&self, record: &Record) -> Result<(), ObjectError> {
        let key = ObjectKey::record(&record.message.photo.key());
        self.objects.put(&key, encode(&key, record)?, JSON).await.map(drop)
    }

    /// Replaces a record that is still as it was read. False: it is another one by now, and stays.
    pub async fn replace(&self, known: &Record, record: &Record) -> Result<bool, ObjectError> {
        let key = ObjectKey::record(&record.message.photo.key());
        let Some((body, version)) = optional(self.objects.get_versioned(&key).await)? else { return Ok(false) };
        if Self::decode(&body).ok().as_ref() != Some(known) {
            return Ok(false);
        }
        let body = encode(&key, record)?;
        Ok(self.objects.compare_and_swap(&key, &version, body, JSON).await? == Swap::Done)
    }

    /// None: the photo has no record.
    pub async fn read(&self, key: &PhotoKey) -> Result<Option<Record>, ObjectError> {
        let key = ObjectKey::record(key);
        match self.objects.get(&key).await {
            Ok(body) => Self::decode(&body).map(Some).map_err(|detail| damaged(&key, &detail)),
            Err(ObjectError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the record, or what is wrong with it.
    fn decode(body: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(body)
            .map_err(|error| format!("{error}: delete it; then `facemill rebuild` starts its photo again"))?;
        match record.message.schema <= Message::SCHEMA {
            true => Ok(record),
            false => Err("a later version of facemill wrote it: update this one".into()),
        }
    }

    /// All records of a run, in no order. Only a failure of the store ends the stream early.
    pub fn all(&self, run: &RunName) -> impl Stream<Item = Result<Result<Record, Unreadable>, ObjectError>> {
        self.paged(run, PAGE)
    }

    fn paged(&self, run: &RunName, page: usize) -> impl Stream<Item = Result<Result<Record, Unreadable>, ObjectError>> {
        let keys = keys(self.objects.clone(), ObjectKey::records(run), page);
        keys.map_ok(async |key| self.read_listed(&key).await).try_buffer_unordered(READERS)
    }

    async fn read_listed(&self, key: &ObjectKey) -> Result<Result<Record, Unreadable>, ObjectError> {
        let read = match self.objects.get(key).await {
            Ok(body) => Self::decode(&body),
            Err(ObjectError::Missing(_)) => Err("it was deleted meanwhile".into()),
            Err(error) => return Err(error),
        };
        let has_its_key = |record: Record| match ObjectKey::record(&record.message.photo.key()) == *key {
            true => Ok(record),
            false => Err(format!(
                "it is the record of {}: delete it; then `facemill rebuild` starts its photo again",
                record.message.photo.key()
            )),
        };
        Ok(read.and_then(has_its_key).map_err(|reason| Unreadable { record: key.clone(), reason }))
    }

    /// Adds to the ended photos of a listing the messages that the ledger has dropped.
    pub async fn complete(&self, run: &RunName, entries: Vec<Entry>) -> Result<Vec<Entry>, ObjectError> {
        stream::iter(entries).map(|entry| self.complete_one(run, entry)).buffered(READERS).try_collect().await
    }

    async fn complete_one(&self, run: &RunName, mut entry: Entry) -> Result<Entry, ObjectError> {
        if entry.status.message.is_none() && matches!(entry.status.state, State::Ended(_)) {
            let key = PhotoKey { run: run.clone(), photo_id: entry.photo_id.clone() };
            entry.status.message = self.read(&key).await?.map(|record| record.message);
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::{Candidate, Cause, CauseCode, Ending, Photo};
    use crate::objects::folder::Folder;

    fn record(run: &RunName, id: u64) -> Record {
        let message = Message::first(Photo::new(run.clone(), Candidate::example(id as i64)), 5);
        Record { ending: Ending::Gone, cause: Some(Cause::new(CauseCode::Http(404), "not found")), message }
    }

    #[tokio::test]
    async fn all_records_of_a_run_are_read_over_many_pages() {
        let scratch = tempfile::tempdir().unwrap();
        let records = Records::new(Arc::new(Folder::at(scratch.path())));
        let (run, other) = (RunName::default(), "other".parse().unwrap());
        assert!(records.paged(&run, 2).try_collect::<Vec<_>>().await.unwrap().is_empty());
        let written: Vec<Record> = (1..=6).map(|id| record(&run, id)).collect();
        for record in written.iter().chain([&record(&other, 7)]) {
            records.write(record).await.unwrap();
        }
        for page in [1, 2, 4, 6, 7] {
            let read: Vec<_> = records.paged(&run, page).try_collect().await.unwrap();
            let mut read: Vec<Record> = read.into_iter().map(Result::unwrap).collect();
            read.sort_by_key(|record| record.message.photo.candidate.photo_id.clone());
            assert_eq!(read, written, "{page} a page");
        }
    }

    #[tokio::test]
    async fn an_unreadable_record_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path()));
        let (records, run) = (Records::new(objects.clone()), RunName::default());
        let key = ObjectKey::record(&record(&run, 1).message.photo.key());
        let strange = serde_json::to_vec(&record(&run, 2)).unwrap();
        let mut newer = record(&run, 1);
        newer.message.schema = Message::SCHEMA + 1;
        let newer = serde_json::to_vec(&newer).unwrap();
        records.write(&record(&run, 3)).await.unwrap();
        for (body, remedy) in [(&b"{\"ending\":"[..], "delete it"), (&strange, "delete it"), (&newer, "update")] {
            objects.put(&key, Bytes::copy_from_slice(body), "application/json").await.unwrap();
            let mut read: Vec<_> = records.all(&run).try_collect().await.unwrap();
            read.sort_by_key(Result::is_err);
            let [Ok(other), Err(unreadable)] = &read[..] else { panic!("{read:?}") };
            assert_eq!((other, &unreadable.record), (&record(&run, 3), &key), "the others are read");
            assert!(unreadable.reason.contains(remedy), "{unreadable:?}");
        }
    }
}
