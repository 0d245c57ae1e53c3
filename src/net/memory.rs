//! Limits the memory of all downloads of a process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of a reservation, in bytes, so that a semaphore can count gigabytes.
const UNIT: u64 = 1024;

/// The memory for the bodies of all downloads. It is given out in the order of the requests, so that a large photo does
/// not wait for ever.
pub(super) struct DownloadMemory {
    units: Arc<Semaphore>,
    total: u32,
}

/// A part of the memory for downloads, until it is dropped.
#[derive(Debug)]
pub struct Reservation(OwnedSemaphorePermit);

impl DownloadMemory {
    pub fn new(bytes: u64) -> Self {
        let total = units(bytes).min(Semaphore::MAX_PERMITS as u64);
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until so many bytes are free. More than the whole memory counts as the whole memory.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let wanted = u32::try_from(units(bytes)).unwrap_or(u32::MAX).min(self.total);
        Reservation(self.units.clone().acquire_many_owned(wanted).await.expect("this semaphore is never closed"))
    }
}

impl Reservation {
    /// Frees what exceeds so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let excess = (self.0.num_permits() as u64).saturating_sub(units(bytes));
        drop(self.0.split(excess as usize));
    }
}

fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT).max(1)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn memory_is_limited_and_returns() {
        let memory = DownloadMemory::new(10_000);
        let mut first = memory.reserve(9_000).await;
        assert!(memory.reserve(2_000).now_or_never().is_none());
        first.shrink_to(3_000);
        let second = memory.reserve(2_000).now_or_never().unwrap();
        assert!(memory.reserve(1 << 40).now_or_never().is_none());
        drop((first, second));
        assert!(memory.reserve(1 << 40).now_or_never().is_some(), "the whole memory");
    }
}
