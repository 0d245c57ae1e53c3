//! The fetch stage: downloads a photo and stores it unchanged, or links to a photo that is stored already.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::{Cause, Ending, Facts, Original, Photo, StageName};
use crate::net::{Download, FetchError, Fetcher};
use crate::objects::{ObjectError, ObjectKey, Objects};

use super::refused::RefusalCheck;
use super::stage::{Outcome, Retry, Stage, store_failed};
use super::stored_photos::{StoredAccess, StoredPhotos};

/// Stores originals under their content hash: several URLs of one picture share an object, and a second delivery of a
/// photo changes nothing.
pub struct Fetch {
    objects: Arc<dyn Objects>,
    fetcher: Fetcher,
    /// None: photos come from hosts only.
    stored: Option<StoredPhotos>,
    refusals: RefusalCheck,
}

impl Fetch {
    pub fn new(objects: Arc<dyn Objects>, fetcher: Fetcher) -> Self {
        let refusals = RefusalCheck::new(objects.clone());
        Self { objects, fetcher, stored: None, refusals }
    }

    /// Also takes the photos of folders and buckets.
    #[must_use]
    pub fn with_stored_photos(self, access: StoredAccess) -> Self {
        let stored = StoredPhotos::new(access, self.objects.clone());
        Self { stored: Some(stored), ..self }
    }

    /// Whether the original of an earlier fetch is still stored.
    async fn is_stored(&self, original: &Original) -> Result<bool, ObjectError> {
        self.objects.exists(&ObjectKey::original(original.sha256, original.format)).await
    }
}

#[async_trait]
impl Stage for Fetch {
    fn name(&self) -> StageName {
        StageName::Fetch
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        if let Some(original) = &photo.facts.original {
            match self.is_stored(original).await {
                Ok(true) => return Outcome::Advance(Box::new(photo.clone())),
                Ok(false) => {}
                Err(error) => return store_failed(&error),
            }
        }
        if let Some(stored) = &self.stored
            && let Some(fetched) = stored.fetch(photo, &self.fetcher).await
        {
            return match fetched {
                Ok(original) => {
                    let mut photo = Box::new(photo.clone());
                    photo.facts.original = Some(original);
                    Outcome::Advance(photo)
                }
                Err(outcome) => outcome,
            };
        }
        let download = match self.fetcher.fetch(&photo.candidate.photo_url).await {
            Ok(download) => download,
            Err(error) => return error.into(),
        };
        let Download { bytes, sha256, format, mended_url, opt_out, reservation } = download;
        let original = Original { sha256, bytes: bytes.len() as u64, format };
        let mended = mended_url.as_ref().map(|mended| mended.url.as_str());
        let urls: Vec<&str> = [Some(photo.candidate.photo_url.as_str()), mended].into_iter().flatten().collect();
        if let Err(refused) = self.refusals.of_original(&urls, sha256).await {
            return refused;
        }
        let stored = self.objects.put(&ObjectKey::original(sha256, format), bytes, format.media_type()).await;
        drop(reservation);
        if let Err(error) = stored {
            return store_failed(&error);
        }
        let mut photo = Box::new(photo.clone());
        photo.facts = Facts { original: Some(original), mended_url, opt_out, ..photo.facts };
        Outcome::Advance(photo)
    }

    fn exhausted(&self, cause: &Cause) -> Ending {
        if cause.code.means_gone_when_lasting() { Ending::Gone } else { Ending::Failed }
    }
}

impl From<FetchError> for Outcome {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Gone(cause) => Self::Gone(cause),
            FetchError::Rejected(cause) => Self::Reject(cause),
            FetchError::Transient { cause, after, costs_attempt } => Self::Retry(Retry { cause, after, costs_attempt }),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::net::Rules;
    use crate::net::host_limits::DEFERRALS;
    use crate::pipeline::worker;

    #[test]
    fn a_full_queue_outlasts_the_shortest_deferral() {
        let rules = Rules::default();
        assert!(rules.queue_timeout / 2 > DEFERRALS[0]);
    }

    #[test]
    fn queues_leave_enough_of_the_time_limit() {
        let rules = Rules::default();
        let queueing = rules.queue_timeout * (1 + rules.max_redirects as u32);
        assert!(
            queueing + rules.total < worker::WorkerSettings::default().time_limit,
            "a photo may be in a queue before each redirect"
        );
    }
}
