//! The retry policy: back-off between the calls to a server, and waits between the attempts of a photo.
//!
//! A *back-off* lasts seconds and is spent in memory, while a server is unavailable. A *wait* lasts up to an hour and
//! is spent in a queue of the broker, while a photo waits for its next attempt at a stage.

use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::str::FromStr;
use std::time::Duration;

/// The tiers of delay: the waits that the broker has a queue for. Another wait is rounded up to the next tier.
pub const TIERS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(3600),
];

/// The longest wait, also where a host asks for a longer one.
pub const LONGEST_WAIT: Duration = TIERS[TIERS.len() - 1];

/// Attempts of a photo at one stage: one before each tier, and one after the last. So every tier is used.
pub const ATTEMPTS: u32 = TIERS.len() as u32 + 1;

/// The shortest tier that is long enough. The last tier serves all longer waits.
pub fn tier_for(wait: Duration) -> Duration {
    TIERS.into_iter().find(|tier| *tier >= wait).unwrap_or(LONGEST_WAIT)
}

/// The waits between the calls to a server that fail one after the other.
///
/// The n-th wait (from 0) is a random part, from a half to the whole, of `first * 2^n`, and of `longest` at most. The
/// random part keeps many workers that lost the same server from coming back at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    seed: u64,
}

impl Backoff {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self::seeded(first, longest, RandomState::new().hash_one(first))
    }

    /// A back-off whose random parts depend on `seed` alone.
    pub fn seeded(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, failures: 0, seed }
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a success: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure, and returns how long to wait before the next call.
    pub fn next_wait(&mut self) -> Duration {
        let whole = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        let part = fraction(&(self.seed, self.failures));
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + 0.5 * part)
    }
}

/// A number in `0..1` that depends on the value alone.
fn fraction(value: &impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    (hasher.finish() % 1024) as f64 / 1024.0
}

/// The waits of a photo after its first, second, ... failed attempt. The last one applies to all later attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits(Vec<Duration>);

impl Default for Waits {
    /// Each tier once.
    fn default() -> Self {
        Self(TIERS.into())
    }
}

impl Waits {
    /// Waits for hosts that recover within seconds, as in the demo.
    pub fn short() -> Self {
        Self([1, 2, 4].map(Duration::from_secs).into())
    }

    /// As many attempts as use every wait.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The wait after `attempt` (from 1). It is up to 20 % shorter than listed, so that photos that failed together do
    /// not come back together. It is never longer: a broker with tiers would round it up to the next tier. Messages
    /// with the same `id` get the same wait.
    pub fn after(&self, attempt: u32, id: &str) -> Duration {
        let index = (attempt.max(1) as usize - 1).min(self.0.len() - 1);
        self.0[index].mul_f64(0.8 + 0.2 * fraction(&id))
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds: Vec<String> = self.0.iter().map(|wait| wait.as_secs_f64().to_string()).collect();
        f.write_str(&seconds.join(","))
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a list of waits: use ascending seconds up to {most}, as in {usual}",
    most = LONGEST_WAIT.as_secs(), usual = Waits::default())]
pub struct BadWaits(String);

impl FromStr for Waits {
    type Err = BadWaits;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadWaits(text.to_owned());
        let seconds: Vec<f64> =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
        let waits: Vec<Duration> =
            seconds.iter().map(|&s| Duration::try_from_secs_f64(s)).collect::<Result<_, _>>().map_err(|_| bad())?;
        let legal = !waits.is_empty() && waits.is_sorted() && waits.iter().all(|&wait| wait <= LONGEST_WAIT);
        if legal { Ok(Self(waits)) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_to_a_tier() {
        for (wait, tier) in [(0.0, 5), (5.0, 5), (5.001, 30), (30.0, 30), (599.0, 600), (9e9, 3600)] {
            assert_eq!(tier_for(Duration::from_secs_f64(wait)).as_secs(), tier, "{wait} s");
        }
    }

    #[test]
    fn a_back_off_doubles_up_to_a_bound() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(15));
        let mut backoff = Backoff::new(first, longest);
        for whole in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0] {
            let wait = backoff.next_wait().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&wait), "{wait} of {whole}");
        }
        assert_eq!(backoff.failures(), 10);
        (0..100).for_each(|_| assert!(backoff.next_wait() <= longest));
        backoff.reset();
        assert!(backoff.next_wait() <= first);
    }

    #[test]
    fn back_offs_differ_except_with_the_same_seed() {
        let first = Duration::from_secs(1);
        let firsts: std::collections::HashSet<_> = (0..50).map(|_| Backoff::new(first, first).next_wait()).collect();
        assert!(firsts.len() > 10, "{firsts:?}");
        let waits = |seed| {
            let mut backoff = Backoff::seeded(first, first * 60, seed);
            [(); 5].map(|()| backoff.next_wait())
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }

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
    fn the_default_attempts_use_every_tier() {
        let waits = Waits::default();
        for id in ["a", "b", "c", "d", "e"] {
            let used: Vec<_> = (1..ATTEMPTS).map(|attempt| tier_for(waits.after(attempt, id))).collect();
            assert_eq!(used, TIERS);
        }
        assert_eq!(waits.attempts(), ATTEMPTS);
    }

    #[test]
    fn lists_of_waits_are_parsed_and_checked() {
        for list in ["0.5,1,2", "5,30,120,600,3600"] {
            assert_eq!(list.parse::<Waits>().unwrap().to_string(), list);
        }
        assert_eq!("0.5, 1,2".parse::<Waits>().unwrap().attempts(), 4);
        for bad in ["", "x", "5,1", "-1", "5,9999", "nan"] {
            assert!(bad.parse::<Waits>().is_err(), "{bad}");
        }
    }
}
