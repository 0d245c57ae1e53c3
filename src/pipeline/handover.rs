//! What a stage leaves for the next one in the same process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::domain::ContentHash;

/// Values by the hash of the file that they were made from. A value that is not there is made again from its file.
///
/// The room is bounded. Photos come in about the same order to both stages: while it is full, the values that are there
/// are needed first, and new ones are refused.
pub struct Handover<T> {
    state: Mutex<State<T>>,
    /// Something was taken or dropped.
    change: Notify,
    room: usize,
}

struct State<T> {
    /// In the order of their arrival.
    entries: VecDeque<Entry<T>>,
    takes: u64,
    /// The takes that found a value.
    found: u64,
}

struct Entry<T> {
    hash: ContentHash,
    value: T,
    size: usize,
    /// The takes before its arrival.
    arrival: u64,
}

impl<T> Handover<T> {
    /// A value is dropped after so many takes of others: its photo has ended, or waits for something.
    const PATIENCE: u64 = 256;
    /// How long a stage waits for the next one. It may be that this one does not take anything at present.
    const LONGEST_WAIT: Duration = Duration::from_secs(1);

    /// Creates a handover with room for `room` bytes.
    pub fn new(room: usize) -> Self {
        Self { state: Mutex::new(State { entries: VecDeque::new(), takes: 0, found: 0 }), change: Notify::new(), room }
    }

    /// Removes and returns a value.
    pub fn take(&self, hash: ContentHash) -> Option<T> {
        let mut state = self.state();
        state.takes += 1;
        let at = state.entries.iter().position(|entry| entry.hash == hash);
        let value = at.and_then(|at| state.entries.remove(at)).map(|entry| entry.value);
        state.found += u64::from(value.is_some());
        let oldest = state.takes.saturating_sub(Self::PATIENCE);
        while state.entries.front().is_some_and(|entry| entry.arrival < oldest) {
            state.entries.pop_front();
        }
        drop(state);
        self.change.notify_waiters();
        value
    }

    /// Waits a little while most of the room is taken, so that the next stage gets the processor and catches up. Where it
    /// takes none of the values meanwhile, they are dropped: their photos have ended, or it does not work at present, and
    /// the next wait would be as long.
    pub async fn let_catch_up(&self) {
        let found = self.state().found;
        let caught_up = async {
            loop {
                let change = self.change.notified();
                if self.used() * 4 <= self.room * 3 {
                    return;
                }
                change.await;
            }
        };
        if timeout(Self::LONGEST_WAIT, caught_up).await.is_err() && self.state().found == found {
            self.clear();
        }
    }

    /// Adds a value of so many bytes, if there is room for it. Where no other value is there, one that is larger than the
    /// room is added, too: a large photo takes the most time to make again.
    pub fn put(&self, hash: ContentHash, value: T, size: usize) {
        let mut state = self.state();
        state.entries.retain(|entry| entry.hash != hash);
        if state.entries.is_empty() || state.used() + size <= self.room {
            let arrival = state.takes;
            state.entries.push_back(Entry { hash, value, size, arrival });
        }
    }

    /// Drops all values, so that their memory is free.
    pub fn clear(&self) {
        self.state().entries.clear();
        self.change.notify_waiters();
    }

    fn used(&self) -> usize {
        self.state().used()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn used(&self) -> usize {
        self.entries.iter().map(|entry| entry.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn hash(number: u64) -> ContentHash {
        ContentHash::of(&number.to_be_bytes())
    }

    #[test]
    fn a_value_is_taken_once_and_the_room_is_bounded() {
        let handover = Handover::new(20);
        for number in 0..3 {
            handover.put(hash(number), number, 10);
        }
        assert_eq!(handover.take(hash(2)), None, "there was no room for it");
        assert_eq!([handover.take(hash(0)), handover.take(hash(0))], [Some(0), None]);
        handover.put(hash(3), 3, 11);
        assert_eq!(handover.take(hash(3)), None, "larger than the rest of the room");
        handover.put(hash(1), 4, 21);
        assert_eq!(handover.take(hash(1)), Some(4), "a new value replaces the old one");
        handover.put(hash(5), 5, 21);
        handover.put(hash(6), 6, 1);
        assert_eq!([handover.take(hash(6)), handover.take(hash(5))], [None, Some(5)], "larger than the room");
        handover.put(hash(5), 5, 20);
        handover.clear();
        assert_eq!(handover.take(hash(5)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_waits_for_the_next_one_but_not_for_ever() {
        let handover = Handover::new(20);
        handover.put(hash(1), 1, 10);
        handover.let_catch_up().now_or_never().expect("half of the room is free");
        handover.put(hash(2), 2, 10);
        let mut waiting = Box::pin(handover.let_catch_up());
        assert!(futures::poll!(&mut waiting).is_pending());
        handover.take(hash(1));
        waiting.now_or_never().expect("something was taken");
        handover.put(hash(1), 1, 10);
        let start = tokio::time::Instant::now();
        handover.let_catch_up().await;
        assert_eq!(start.elapsed(), Handover::<u64>::LONGEST_WAIT);
        handover.let_catch_up().now_or_never().expect("what nobody takes was dropped");
        assert_eq!(handover.take(hash(2)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn values_of_a_slow_stage_stay() {
        let handover = Handover::new(40);
        for number in 0..4 {
            handover.put(hash(number), number, 10);
        }
        let mut waiting = Box::pin(handover.let_catch_up());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(handover.take(hash(0)), Some(0));
        handover.put(hash(4), 4, 10);
        waiting.await;
        assert_eq!(handover.take(hash(1)), Some(1));
    }

    #[test]
    fn a_value_that_nobody_takes_makes_room() {
        let handover = Handover::new(20);
        handover.put(hash(0), 0, 10);
        for number in 1..=Handover::<u64>::PATIENCE {
            handover.put(hash(number), number, 10);
            assert_eq!(handover.take(hash(number)), Some(number));
        }
        handover.put(hash(1), 1, 20);
        assert_eq!(handover.take(hash(1)), None, "the first is still there");
        handover.put(hash(2), 2, 20);
        assert_eq!(handover.take(hash(2)), Some(2));
    }
}
