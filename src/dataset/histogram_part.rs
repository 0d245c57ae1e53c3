//! The parts of a histogram.

/// Which of `bins` equal parts of `from..=to` a value is in; what is beyond is in the nearest one. None: there is no
/// value.
pub fn part(value: f64, (from, to): (f64, f64), bins: usize) -> Option<usize> {
    let share = (value - from) / (to - from);
    // The cast saturates: below the range is 0.
    (!share.is_nan()).then(|| ((share * bins as f64) as usize).min(bins - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_range_are_in_its_ends() {
        let parts = [-9.0, 0.0, 0.49, 0.5, 1.0, 9.0, f64::NAN].map(|value| part(value, (0.0, 1.0), 2));
        assert_eq!(parts, [Some(0), Some(0), Some(0), Some(1), Some(1), Some(1), None]);
    }
}
