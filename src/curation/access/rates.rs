//! How often somebody may do something: token buckets in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A bucket for each key. A key has `burst` tokens, and gets one more each `period`.
pub struct Rates<K> {
    burst: u32,
    period: Duration,
    /// Keys that are known. Beyond, those that took a token longest ago are forgotten.
    most: usize,
    /// When each key has all its tokens again.
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    pub fn new(burst: u32, period: Duration, most: usize) -> Self {
        Self { burst, period, most, full_at: Mutex::default() }
    }

    /// Takes a token. Without one, returns the time until the next one.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.lock();
        let full = full_at.get(key).copied().unwrap_or(now).max(now) + self.period;
        let wait = full.saturating_duration_since(now + self.period * self.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        if full_at.len() >= self.most && !full_at.contains_key(key) {
            self.forget(&mut full_at, now);
        }
        full_at.insert(key.clone(), full);
        Ok(())
    }

    /// Gives a token back.
    pub fn give_back(&self, key: &K) {
        if let Some(full) = self.lock().get_mut(key) {
            *full = full.checked_sub(self.period).unwrap_or(*full);
        }
    }

    /// Makes room: nothing is lost with keys that have all tokens. If there are too few of these, a quarter goes.
    fn forget(&self, full_at: &mut HashMap<K, Instant>, now: Instant) {
        full_at.retain(|_, full| *full > now);
        if full_at.len() >= self.most {
            let mut times: Vec<Instant> = full_at.values().copied().collect();
            let (_, quarter, _) = times.select_nth_unstable(self.most / 4);
            let quarter = *quarter;
            full_at.retain(|_, full| *full > quarter);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_key_has_so_many_tokens_and_gets_one_each_period() {
        let rates = Rates::new(3, SECOND, 10);
        let start = Instant::now();
        let take = |key: &str, seconds: f64| rates.take(&key.to_owned(), start + SECOND.mul_f64(seconds));
        assert_eq!([0.0; 3].map(|at| take("a", at)), [Ok(()); 3]);
        assert_eq!(take("a", 0.25), Err(SECOND.mul_f64(0.75)));
        assert_eq!(take("a", 0.25), Err(SECOND.mul_f64(0.75)), "a refusal costs nothing");
        assert_eq!(take("b", 0.25), Ok(()));
        assert_eq!((take("a", 1.0), take("a", 1.0).is_err()), (Ok(()), true));
        assert_eq!([100.0; 3].map(|at| take("a", at)), [Ok(()); 3], "no more than all tokens");
        assert!(take("a", 100.0).is_err());
        rates.give_back(&"a".to_owned());
        assert_eq!(take("a", 100.0), Ok(()));
    }

    #[test]
    fn the_memory_is_bounded() {
        let rates = Rates::new(1, SECOND, 100);
        let start = Instant::now();
        for key in 0..100_000 {
            rates.take(&key, start + Duration::from_micros(key)).unwrap();
            assert!(rates.lock().len() <= 100);
        }
        // The last ones are known.
        assert!(rates.take(&99_999, start + Duration::from_millis(100)).is_err());
        // Keys with all tokens go first.
        let late = start + 10 * SECOND;
        rates.take(&7, late).unwrap();
        (0..99).for_each(|key| rates.take(&(key + 200_000), late).unwrap());
        rates.take(&8, late + SECOND * 2).unwrap();
        assert_eq!(rates.lock().len(), 1);
    }
}
