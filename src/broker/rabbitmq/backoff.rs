//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doubles from attempt to attempt, up to a bound; each wait is drawn from the upper half, so that many workers that
/// lost the same server do not come back at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    random: RandomState,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(15);

    pub fn new() -> Self {
        Self { failures: 0, random: RandomState::new() }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn next(&mut self) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures += 1;
        let share = (self.random.hash_one(self.failures) % 1024) as f64 / 1024.0;
        full.mul_f64(0.5 + 0.5 * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_spread() {
        let mut backoff = Backoff::new();
        for full in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0] {
            let wait = backoff.next().as_secs_f64();
            assert!((full / 2.0..=full).contains(&wait), "{wait} of {full}");
        }
        backoff.reset();
        assert!(backoff.next() <= Backoff::FIRST);
        let firsts: std::collections::HashSet<_> = (0..50).map(|_| Backoff::new().next()).collect();
        assert!(firsts.len() > 10);
    }
}
