//! Limits the memory of a kind of work for the whole process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of a reservation, in bytes, so that a semaphore can count gigabytes.
const UNIT: u64 = 1024;

/// Memory that is given out in the order of the requests, so that a large one does not wait for ever.
#[derive(Debug)]
pub struct MemoryBudget {
    units: Arc<Semaphore>,
    total: u32,
    waiting: AtomicUsize,
}

/// A part of the memory, until it is dropped.
#[derive(Debug)]
pub struct Reservation(OwnedSemaphorePermit);

impl MemoryBudget {
    pub fn new(bytes: u64) -> Self {
        let total = units(bytes).min(Semaphore::MAX_PERMITS as u64);
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(total as usize)), total, waiting: AtomicUsize::new(0) }
    }

    /// The whole memory in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.total) * UNIT
    }

    /// Waits until so many bytes are free. More than the whole memory counts as the whole memory. The request waits from
    /// this call on, not from the first poll.
    pub fn reserve(&self, bytes: u64) -> impl Future<Output = Reservation> + '_ {
        let waiting = Waiting::of(&self.waiting);
        let permits = self.units.clone().acquire_many_owned(self.permits(bytes));
        async move {
            let _waiting = waiting;
            Reservation(permits.await.expect("this semaphore is never closed"))
        }
    }

    /// None: so many bytes are not free now, or another request waits.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        self.units.clone().try_acquire_many_owned(self.permits(bytes)).ok().map(Reservation)
    }

    /// Whether a request waits for memory.
    pub fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn permits(&self, bytes: u64) -> u32 {
        u32::try_from(units(bytes)).unwrap_or(u32::MAX).min(self.total)
    }
}

/// Counts a request as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Reservation {
    /// Frees what exceeds so many bytes.
    pub fn shrink_to(&mut self, bytes: u64) {
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
        let memory = MemoryBudget::new(10_000);
        let mut first = memory.reserve(9_000).await;
        assert!(memory.reserve(2_000).now_or_never().is_none());
        first.shrink_to(3_000);
        let second = memory.reserve(2_000).now_or_never().unwrap();
        assert!(memory.reserve(1 << 40).now_or_never().is_none());
        drop((first, second));
        assert!(memory.reserve(1 << 40).now_or_never().is_some(), "the whole memory");
    }

    #[tokio::test]
    async fn a_waiting_request_is_seen_until_it_is_served_or_dropped() {
        let memory = MemoryBudget::new(10_000);
        let first = memory.try_reserve(9_000).unwrap();
        assert!(memory.try_reserve(9_000).is_none() && !memory.is_contended());
        let mut waiting = Box::pin(memory.reserve(9_000));
        assert!(waiting.as_mut().now_or_never().is_none() && memory.is_contended());
        drop(first);
        let served = waiting.as_mut().now_or_never().unwrap();
        drop(waiting);
        assert!(!memory.is_contended());
        drop(Box::pin(memory.reserve(9_000)).now_or_never());
        assert!(!memory.is_contended());
        drop(served);
    }
}
