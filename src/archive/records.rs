//! The record of a photo that has ended, among the objects: all that is known of it, for a ledger that has no room for
//! it, and to restore a ledger that was lost.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::domain::Message;
use crate::domain::Record;
use crate::domain::{PhotoKey, RunName, State};
use crate::ledger::Entry;
use crate::objects::{ObjectError, ObjectKey, Objects};

/// A record that cannot be read, which is no reason not to read the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    #[serde(serialize_with = "as_text")]
    pub record: ObjectKey,
    pub reason: String,
}

fn as_text<S: serde::Serializer>(key: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
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
        match self.objects.get(&key).await {
            Ok(body) => Self::decode(&body)
                .map(Some)
                .map_err(|detail| ObjectError::Refused { what: format!("cannot read {key}"), detail }),
            Err(ObjectError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers the record, or what is wrong with it.
    fn decode(body: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(body)
            .map_err(|error| format!("{error}: delete it, and `facemill rebuild` starts its photo again"))?;
        match record.message.schema <= Message::SCHEMA {
            true => Ok(record),
            false => Err("a later version of facemill wrote it: update this one".into()),
        }
    }

    /// All records of a run, in no order. Only a store that fails ends it.
    pub fn all(&self, run: &RunName) -> impl Stream<Item = Result<Result<Record, Unreadable>, ObjectError>> {
        const PAGE: usize = 1000;
        self.paged(run, PAGE)
    }

    fn paged(&self, run: &RunName, page: usize) -> impl Stream<Item = Result<Result<Record, Unreadable>, ObjectError>> {
        let prefix = ObjectKey::records(run);
        // The key to go on after; none when there are no more.
        let pages = stream::try_unfold(Some(None), move |after: Option<Option<ObjectKey>>| {
            let (objects, prefix) = (self.objects.clone(), prefix.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                let page = objects.list(&prefix, after.as_ref(), page).await?;
                let next = page.keys.last().cloned().filter(|_| page.more).map(Some);
                Ok::<_, ObjectError>(Some((stream::iter(page.keys.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().map_ok(async |key| self.read_listed(&key).await).try_buffer_unordered(Self::READERS)
    }

    async fn read_listed(&self, key: &ObjectKey) -> Result<Result<Record, Unreadable>, ObjectError> {
        let read = match self.objects.get(key).await {
            Ok(body) => Self::decode(&body),
            Err(ObjectError::Missing(_)) => Err("it has just been deleted".into()),
            Err(error) => return Err(error),
        };
        let is_at_home = |record: Record| match ObjectKey::record(&record.message.photo.key()) == *key {
            true => Ok(record),
            false => Err(format!(
                "it is the record of {}: delete it, and `facemill rebuild` starts its photo again",
                record.message.photo.key()
            )),
        };
        Ok(read.and_then(is_at_home).map_err(|reason| Unreadable { record: key.clone(), reason }))
    }

    /// Gives the ended photos of a listing the messages that the ledger let go of.
    pub async fn complete(&self, run: &RunName, entries: Vec<Entry>) -> Result<Vec<Entry>, ObjectError> {
        stream::iter(entries).map(|entry| self.complete_one(run, entry)).buffered(Self::READERS).try_collect().await
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
    use super::*;
    use crate::domain::Cause;
    use crate::domain::CauseCode;
    use crate::domain::Ending;
    use crate::domain::{Candidate, Photo};
    use crate::objects::folder::Folder;

    fn record(run: &RunName, id: u64) -> Record {
        let message = Message::first(Photo::new(run.clone(), Candidate::example(id as i64)), 5);
        Record { ending: Ending::Gone, cause: Some(Cause::new(CauseCode::Http(404), "it is gone")), message }
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
    async fn a_record_that_is_none_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let objects = Arc::new(Folder::at(scratch.path()));
        let (records, run) = (Records::new(objects.clone()), RunName::default());
        let key = ObjectKey::record(&record(&run, 1).message.photo.key());
        let strange = serde_json::to_vec(&record(&run, 2)).unwrap();
        let mut newer = record(&run, 1);
        newer.message.schema = Message::SCHEMA + 1;
        let newer = serde_json::to_vec(&newer).unwrap();
        records.write(&record(&run, 3)).await.unwrap();
        for (body, told) in [(&b"{\"ending\":"[..], "delete it"), (&strange, "delete it"), (&newer, "update")] {
            objects.put(&key, Bytes::copy_from_slice(body), "application/json").await.unwrap();
            let mut read: Vec<_> = records.all(&run).try_collect().await.unwrap();
            read.sort_by_key(Result::is_err);
            let [Ok(other), Err(unreadable)] = &read[..] else { panic!("{read:?}") };
            assert_eq!((other, &unreadable.record), (&record(&run, 3), &key), "the others are read");
            assert!(unreadable.reason.contains(told), "{unreadable:?}");
        }
    }
}
