//! Faults of the object store, logged once a minute and not once for each photo that waits for it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Observer, PhotoEvent};
use crate::domain::{CauseCode, StageName};

/// Warns when photos of a stage wait because the object store is full, away, or refuses them.
#[derive(Debug, Default)]
pub struct StoreFaults {
    stages: Mutex<HashMap<StageName, Unlogged>>,
}

#[derive(Debug)]
struct Unlogged {
    logged_at: Instant,
    waits: u64,
}

impl StoreFaults {
    const PERIOD: Duration = Duration::from_secs(60);

    /// Notes that a photo waits. Returns the number of waits to log, if it is time to.
    fn note(&self, stage: StageName, now: Instant) -> Option<u64> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(unlogged) = stages.get_mut(&stage) else {
            stages.insert(stage, Unlogged { logged_at: now, waits: 0 });
            return Some(1);
        };
        unlogged.waits += 1;
        if now.duration_since(unlogged.logged_at) < Self::PERIOD {
            return None;
        }
        unlogged.logged_at = now;
        Some(std::mem::take(&mut unlogged.waits))
    }
}

impl Observer for StoreFaults {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        let Some(cause) = event.event.cause.as_ref().filter(|_| event.waits) else { return };
        if !matches!(cause.code, CauseCode::StoreUnavailable | CauseCode::StoreRefused) {
            return;
        }
        let stage = event.event.stage;
        if let Some(waits) = self.note(stage, Instant::now()) {
            // It is not about one photo: without the context of its span.
            tracing::warn!(parent: None, %stage, waits, "{cause}: photos wait until it works again, and none is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_logged_at_once_and_then_once_a_minute_for_each_stage() {
        let faults = StoreFaults::default();
        let start = Instant::now();
        let note = |stage, seconds| faults.note(stage, start + Duration::from_secs(seconds));
        assert_eq!(note(StageName::Crop, 0), Some(1));
        assert_eq!(note(StageName::Fetch, 1), Some(1), "another stage");
        assert_eq!((note(StageName::Crop, 1), note(StageName::Crop, 59)), (None, None));
        assert_eq!(note(StageName::Crop, 60), Some(3));
        assert_eq!(note(StageName::Crop, 61), None);
        assert_eq!(note(StageName::Crop, 900), Some(2), "the fault has returned");
    }
}
