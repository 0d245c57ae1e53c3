//! How long a photo waits before its next attempt.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;
use std::time::Duration;

/// The waits after the first, second, ... failed attempt. The last one applies to all later attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits(Vec<Duration>);

impl Default for Waits {
    fn default() -> Self {
        Self([5, 30, 120, 600, 3600].map(Duration::from_secs).into())
    }
}

impl Waits {
    /// The longest wait, also for a Retry-After.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// Waits for hosts that recover within seconds, as in the demo.
    pub fn short() -> Self {
        Self([1, 2, 4].map(Duration::from_secs).into())
    }

    /// The wait after `attempt` (from 1). It is up to 20 % shorter than listed, so that photos that failed together do not
    /// come back together. It is never longer: a broker with tiers would round it up to the next tier. Messages with the
    /// same `id` get the same wait.
    pub fn after(&self, attempt: u32, id: &str) -> Duration {
        let index = (attempt.max(1) as usize - 1).min(self.0.len() - 1);
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let share = (hasher.finish() % 1024) as f64 / 1023.0;
        self.0[index].mul_f64(0.8 + 0.2 * share)
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a list of waits: use ascending seconds up to 3600, as in 5,30,120,600,3600")]
pub struct BadWaits(String);

impl FromStr for Waits {
    type Err = BadWaits;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadWaits(text.to_owned());
        let seconds: Vec<f64> =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
        let waits: Vec<Duration> =
            seconds.iter().map(|&s| Duration::try_from_secs_f64(s)).collect::<Result<_, _>>().map_err(|_| bad())?;
        let legal = !waits.is_empty() && waits.is_sorted() && waits.iter().all(|&wait| wait <= Self::LONGEST);
        if legal { Ok(Self(waits)) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_vary() {
        let waits = Waits::default();
        for (attempt, seconds) in [(1, 5.0), (2, 30.0), (5, 3600.0), (9, 3600.0)] {
            let all: Vec<f64> = (0..100).map(|i| waits.after(attempt, &format!("p{i}")).as_secs_f64()).collect();
            assert!(all.iter().all(|wait| (0.8 * seconds..=seconds).contains(wait)));
            assert!(all.iter().any(|wait| *wait < 0.85 * seconds) && all.iter().any(|wait| *wait > 0.95 * seconds));
        }
        assert_eq!(waits.after(2, "a"), waits.after(2, "a"));
    }

    #[test]
    fn lists_of_waits_are_checked() {
        assert_eq!("0.5, 1,2".parse::<Waits>().unwrap().0.len(), 3);
        for bad in ["", "x", "5,1", "-1", "5,9999", "nan"] {
            assert!(bad.parse::<Waits>().is_err(), "{bad}");
        }
    }
}
