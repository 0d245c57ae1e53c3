//! Photos that were taken down: they are not enqueued, fetched or cropped again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::instrument::WithSubscriber;

use super::producer::{self, Enqueued, ProducerError};
use super::stage::{Outcome, store_failed};
use crate::archive::records::Records;
use crate::archive::refusals::Refusals;
use crate::broker::Broker;
use crate::domain::clock::now;
use crate::domain::photo_url::address_hash;
use crate::domain::{
    Candidate, Cause, CauseCode, ContentHash, Ending, Fingerprint, Message, PhotoKey, Record, RunName,
};
use crate::ledger::Ledger;
use crate::objects::{ObjectError, Objects};
use crate::telemetry::silence::SILENT;
use crate::vision::fingerprint;

/// Why a photo that was taken down has ended.
pub fn taken_down() -> Cause {
    Cause::new(CauseCode::TakenDown, "a person has had it taken down; `facemill takedown` explains")
}

/// As [`producer::enqueue`], but a candidate at a refused address ends at once: the ledger gets its id and nothing else
/// of it.
pub async fn enqueue(
    run: &RunName,
    candidates: &[Candidate],
    ledger: &dyn Ledger,
    broker: &dyn Broker,
    records: Option<&Records>,
    refusals: &Refusals,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Enqueued, ProducerError> {
    let urls = refusals.urls().await?;
    let is_refused = |candidate: &&Candidate| urls.contains(&address_hash(&candidate.photo_url));
    let refused: Vec<&Candidate> = match urls.is_empty() {
        true => Vec::new(),
        false => candidates.iter().filter(is_refused).collect(),
    };
    if refused.is_empty() {
        return producer::enqueue(run, candidates, ledger, broker, records, progress).await;
    }
    let mut taken_down = 0;
    for candidate in &refused {
        // The producer refuses this candidate with the reason.
        if producer::refusal(candidate).is_none() {
            let key = PhotoKey { run: run.clone(), photo_id: candidate.photo_id.clone() };
            end(&key, ledger, records).await?;
            taken_down += 1;
        }
        progress(1);
    }
    let others: Vec<Candidate> = candidates.iter().filter(|candidate| !is_refused(candidate)).cloned().collect();
    let enqueued = producer::enqueue(run, &others, ledger, broker, records, progress).await?;
    Ok(Enqueued { taken_down, ..enqueued })
}

/// Ends a photo as taken down, and leaves nothing but its id in ledger and record.
pub async fn end(key: &PhotoKey, ledger: &dyn Ledger, records: Option<&Records>) -> Result<(), ProducerError> {
    let (at, cause) = (now().as_secs(), taken_down());
    let status = ledger.status(key).await?;
    let mut message = Message::taken_down(key, at);
    if let Some(records) = records {
        // Otherwise the record would change with every repetition.
        let is_done = status.as_ref().is_some_and(|status| status.is_taken_down())
            && records.read(key).await.is_ok_and(|record| record.is_some_and(|record| is_emptied(&record)));
        if let Some(status) = &status {
            message.position.stage = status.stage;
        }
        if !is_done {
            let record = Record { ending: Ending::Rejected, cause: Some(cause.clone()), message: message.clone() };
            records.write(&record).await?;
        }
    }
    ledger.take_down(&message, &cause, at).await?;
    Ok(())
}

fn is_emptied(record: &Record) -> bool {
    record.cause.as_ref().is_some_and(|cause| cause.code == CauseCode::TakenDown)
        && record.message.photo.candidate.photo_url.is_empty()
}

/// What the stages ask before they store something.
pub struct RefusalCheck {
    refusals: Refusals,
    known: Mutex<Option<KnownRefusals>>,
}

/// What was known of the refusals when they were last read.
#[derive(Clone)]
struct KnownRefusals {
    read_at: Instant,
    /// Nothing is refused, as in most stores: then no photo costs a request.
    is_empty: bool,
    fingerprints: Arc<Vec<Fingerprint>>,
}

impl RefusalCheck {
    /// The list of fingerprints, and whether there are refusals, are read again after this time.
    const FRESH: Duration = Duration::from_secs(10);

    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { refusals: Refusals::new(objects), known: Mutex::default() }
    }

    /// An error: the photo at one of these URLs, or with this original, is refused, or the store fails.
    pub async fn of_original(&self, urls: &[&str], original: ContentHash) -> Result<(), Outcome> {
        let look_up = async {
            if self.known().await?.is_empty {
                return Ok(false);
            }
            for url in urls {
                if self.refusals.has_url(url).await? {
                    return Ok(true);
                }
            }
            self.refusals.has_original(original).await
        };
        // These look-ups are answered with "no" for nearly all photos: they do not belong in their traces.
        refuse_if(look_up.with_subscriber(SILENT.clone()).await)
    }

    /// An error: a crop that looks like this one is refused, or the store fails.
    pub async fn of_crop(&self, fingerprint: Fingerprint) -> Result<(), Outcome> {
        let known = self.known().with_subscriber(SILENT.clone()).await;
        let is_near = |refused: &Fingerprint| are_near(*refused, fingerprint);
        refuse_if(known.map(|known| known.fingerprints.iter().any(is_near)))
    }

    async fn known(&self) -> Result<KnownRefusals, ObjectError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.read_at.elapsed() < Self::FRESH) {
            return Ok(known);
        }
        let read_at = Instant::now();
        let is_empty = self.refusals.is_empty().await?;
        let fingerprints = if is_empty { Vec::new() } else { self.refusals.fingerprints().await? };
        let read = KnownRefusals { read_at, is_empty, fingerprints: Arc::new(fingerprints) };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
        Ok(read)
    }
}

/// Whether two crops, one of them perhaps mirrored, may show one photograph.
pub fn are_near(one: Fingerprint, other: Fingerprint) -> bool {
    one.distance(other) <= Fingerprint::MAX_DISTANCE
        || fingerprint::mirrored(one).distance(other) <= Fingerprint::MAX_DISTANCE
}

fn refuse_if(is_refused: Result<bool, ObjectError>) -> Result<(), Outcome> {
    match is_refused {
        Ok(false) => Ok(()),
        Ok(true) => Err(Outcome::Reject(taken_down())),
        Err(error) => Err(store_failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::refusals::Refused;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn refused_photos_and_near_copies_of_their_crops_are_rejected() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let [original, other] = [ContentHash::of(b"original"), ContentHash::of(b"other")];
        let fingerprint = Fingerprint::from_bits(0x0123_4567_89ab_cdef_1122_3344_5566_7788);
        let refused = Refused {
            urls: vec![address_hash("https://a.test/1.jpg")],
            originals: vec![original],
            fingerprints: vec![fingerprint],
        };
        let before = RefusalCheck::new(objects.clone());
        assert_eq!(before.of_original(&["https://a.test/1.jpg"], original).await, Ok(()));
        Refusals::new(objects.clone()).add(&refused, "t", 1).await.unwrap();
        assert_eq!(before.of_original(&["https://a.test/1.jpg"], original).await, Ok(()), "it asks once in a while");
        let check = RefusalCheck::new(objects);
        let rejected = Err(Outcome::Reject(taken_down()));
        assert_eq!(check.of_original(&["http://a.test/1.jpg"], other).await, rejected);
        assert_eq!(check.of_original(&["http://b.test/", "http://a.test/1.jpg"], other).await, rejected);
        assert_eq!(check.of_original(&["http://b.test/1.jpg"], original).await, rejected);
        assert_eq!(check.of_original(&["http://b.test/1.jpg"], other).await, Ok(()));
        let flipped = |bits: u32| Fingerprint::from_bits(fingerprint.bits() ^ ((1 << bits) - 1));
        for near in [fingerprint, flipped(15), fingerprint::mirrored(flipped(15))] {
            assert_eq!(check.of_crop(near).await, rejected, "{near}");
        }
        assert_eq!(check.of_crop(flipped(16)).await, Ok(()));
    }
}
