//! Faults of hosts, logged once for each and not once for each photo.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::event::{Observer, PhotoEvent};
use crate::domain::Cause;
use crate::ledger::EventKind;

/// Warns of each fault of a host at its first photo, and counts the photos that it ended. The fault is known by its
/// cause, which names the host: after a redirect it is not the one in the photo's URL.
#[derive(Debug, Default)]
pub struct HostFaults {
    photos: Mutex<HashMap<Box<str>, u64>>,
}

impl HostFaults {
    /// How many faults are remembered. Further ones are not logged.
    const MOST: usize = 10_000;

    /// Each fault in words, with the number of photos that ended because of it: most photos first, none without.
    pub fn ended(&self) -> Vec<(String, u64)> {
        let photos = self.photos.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended: Vec<(String, u64)> =
            photos.iter().filter(|(_, count)| **count > 0).map(|(fault, count)| (fault.to_string(), *count)).collect();
        ended.sort_by(|(one, one_count), (other, other_count)| (other_count, one).cmp(&(one_count, other)));
        ended
    }

    /// Notes a photo with the fault. Returns whether it is the first one.
    fn note(&self, cause: &Cause, ends: bool) -> bool {
        let fault = cause.to_string();
        let mut photos = self.photos.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = photos.get_mut(fault.as_str()) {
            *count += u64::from(ends);
            return false;
        }
        let is_new = photos.len() < Self::MOST;
        if is_new {
            photos.insert(fault.into(), u64::from(ends));
        }
        is_new
    }
}

impl Observer for HostFaults {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        let Some(cause) = event.event.cause.as_ref().filter(|cause| cause.code.is_of_host()) else { return };
        let ends = matches!(event.event.what, EventKind::Gone | EventKind::Failed);
        if self.note(cause, ends) {
            // It is not about one photo: without the context of its span.
            tracing::warn!(parent: None, "{cause}: its photos cannot be fetched; this is logged once for all of them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CauseCode;

    #[test]
    fn a_fault_is_new_once_and_counts_the_photos_that_it_ends() {
        let faults = HostFaults::default();
        let unknown = |host: &str| Cause::new(CauseCode::Dns, format!("{host}: name or service not known"));
        let noted = [("b", false), ("b", true), ("a", true), ("c", false), ("b", true)];
        assert_eq!(noted.map(|(host, ends)| faults.note(&unknown(host), ends)), [true, false, true, true, false]);
        let ended = [("dns: b: name or service not known", 2), ("dns: a: name or service not known", 1)];
        assert_eq!(faults.ended(), ended.map(|(fault, count)| (fault.to_owned(), count)));
    }
}
