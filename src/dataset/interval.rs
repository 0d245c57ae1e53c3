//! The uncertainty of a share that was estimated from a sample.

use serde::Serialize;

/// A share, and the interval that has its true value with a probability of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EstimatedShare {
    pub share: f64,
    pub low: f64,
    pub high: f64,
}

impl EstimatedShare {
    /// The 97.5 % quantile of the normal distribution.
    const Z: f64 = 1.959_963_984_540_054;

    /// The score interval of Wilson (1927), "Probable inference, the law of succession, and statistical inference",
    /// Journal of the American Statistical Association 22 (158), equation on page 210,
    /// <https://doi.org/10.1080/01621459.1927.10502953>. Unlike the normal approximation it stays within 0 and 1, and
    /// holds for small samples and for shares near 0 and 1. None: there is no sample.
    pub fn of(successes: u64, trials: u64) -> Option<Self> {
        (trials > 0).then(|| Self::of_share(successes as f64 / trials as f64, trials as f64))
    }

    /// The same for a share of a weighted sample that says as much as one of `n` without weights. `n`: above 0.
    pub fn of_share(share: f64, n: f64) -> Self {
        let z2 = Self::Z * Self::Z;
        let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Self::Z / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        Self { share, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: Newcombe (1998), "Two-sided confidence intervals for the single proportion", Statistics in
    /// Medicine 17, table I, method 3.
    #[test]
    fn intervals_are_those_of_wilson() {
        for (successes, trials, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = EstimatedShare::of(successes, trials).unwrap();
            assert!((found.low - low).abs() < 6e-5 && (found.high - high).abs() < 6e-5, "{successes}: {found:?}");
            assert!((found.share - successes as f64 / trials as f64).abs() < 1e-12);
        }
        let all = EstimatedShare::of(20, 20).unwrap();
        assert!(all.high <= 1.0 && (all.low - (1.0 - 0.1611)).abs() < 6e-5, "{all:?}");
        assert_eq!(EstimatedShare::of(0, 0), None);
    }
}
