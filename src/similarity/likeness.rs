//! How alike two crops are by the coarse features of the classifier.

/// Features are those of places of the crop: channels, rows, columns.
const ROWS: usize = 4;
const COLUMNS: usize = 4;

/// The least likeness of two crops that show one photograph: see docs/decisions/7-fingerprints.md.
pub const COPIES: f32 = 0.6;

/// The cosine of the coarse features of two crops. `is_mirrored`: of the first and the mirrored second one.
pub fn likeness(first: &[f32], second: &[f32], is_mirrored: bool) -> f32 {
    debug_assert_eq!(first.len() % (ROWS * COLUMNS), 0);
    let place = |at: usize| if is_mirrored { at - at % COLUMNS + (COLUMNS - 1 - at % COLUMNS) } else { at };
    let product: f32 = (0..first.len().min(second.len())).map(|at| first[at] * second[place(at)]).sum();
    let length = |features: &[f32]| features.iter().map(|value| value * value).sum::<f32>().sqrt();
    product / (length(first) * length(second)).max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_features_are_most_alike_and_mirrored_ones_when_they_are_mirrored() {
        let features: Vec<f32> = (0..2 * ROWS * COLUMNS).map(|at| (at * at % 7) as f32 - 3.0).collect();
        let mirrored: Vec<f32> =
            features.chunks(COLUMNS).flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>()).collect();
        assert!((likeness(&features, &features, false) - 1.0).abs() < 1e-5);
        assert!((likeness(&features, &mirrored, true) - 1.0).abs() < 1e-5);
        assert!(likeness(&features, &mirrored, false) < 0.9);
        assert_eq!(likeness(&[0.0; 16], &[1.0; 16], false), 0.0);
    }
}
