//! Fetch: the photo's original comes into the object store, unchanged.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::{Cause, Ending, Original, Photo, StageName};
use crate::net::{FetchError, Fetcher};
use crate::objects::{ObjectError, ObjectKey, Objects};

use super::stage::{Outcome, Retry, Stage, store_failed};

/// Keeps originals under their content hash, so that two URLs of one picture share it and a second delivery of the
/// same photo changes nothing.
pub struct Fetch {
    objects: Arc<dyn Objects>,
    fetcher: Fetcher,
}

impl Fetch {
    pub fn new(objects: Arc<dyn Objects>, fetcher: Fetcher) -> Self {
        Self { objects, fetcher }
    }

    /// A photo that was fetched before, and whose original is still there, is not fetched again.
    async fn is_here(&self, original: &Original) -> Result<bool, ObjectError> {
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
            match self.is_here(original).await {
                Ok(true) => return Outcome::Advance(Box::new(photo.clone())),
                Ok(false) => {}
                Err(error) => return store_failed(&error),
            }
        }
        let download = match self.fetcher.fetch(&photo.candidate.photo_url).await {
            Ok(download) => download,
            Err(obstacle) => return obstacle.into(),
        };
        let key = ObjectKey::original(download.sha256, download.format);
        let bytes = download.bytes.len() as u64;
        if let Err(error) = self.objects.put(&key, download.bytes, download.format.media_type()).await {
            return store_failed(&error);
        }
        let mut photo = Box::new(photo.clone());
        photo.facts.original = Some(Original { sha256: download.sha256, bytes, format: download.format });
        Outcome::Advance(photo)
    }

    fn exhausted(&self, cause: &Cause) -> Ending {
        if cause.code.means_gone_when_lasting() { Ending::Gone } else { Ending::Failed }
    }
}

impl From<FetchError> for Outcome {
    fn from(obstacle: FetchError) -> Self {
        match obstacle {
            FetchError::Gone(cause) => Self::Gone(cause),
            FetchError::Rejected(cause) => Self::Reject(cause),
            FetchError::Transient { cause, after, costs_attempt } => Self::Retry(Retry { cause, after, costs_attempt }),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::broker::rabbitmq::topology::TIERS;
    use crate::net::Rules;
    use crate::net::host_limits::ABSENCES;
    use crate::pipeline::worker;

    #[test]
    fn who_is_sent_away_from_a_busy_host_comes_back_when_it_was_told_to() {
        for absence in ABSENCES {
            assert!(TIERS.contains(&(absence.as_secs() as u32)), "{absence:?} would be rounded up");
        }
        let rules = Rules::default();
        assert!(rules.patience / 2 > ABSENCES[0], "a full line lasts until then");
    }

    #[test]
    fn lines_leave_a_stage_time_for_its_work() {
        let rules = Rules::default();
        let in_lines = rules.patience * (1 + rules.max_redirects as u32);
        assert!(
            in_lines + rules.total < worker::Settings::default().time_limit,
            "before every redirect there is a line"
        );
    }
}
