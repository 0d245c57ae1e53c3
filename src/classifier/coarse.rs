//! The features of a crop averaged over 4x4 overlapping windows: what compares crops and what few verdicts are learnt
//! with, where the 7x7 cells would say more than is asked.

use super::backbone::{CHANNELS, FEATURES, GRID};

/// Rows, and columns, of windows.
pub const WINDOWS: usize = 4;
/// Coarse features of a crop: 112 channels on a 4x4 grid.
pub const COARSE: usize = CHANNELS * WINDOWS * WINDOWS;

/// The windows have a length of five, and begin at every third, of the network's 14 rows or columns. A cell has two.
const POSITIONS: usize = 5;
const STEP: usize = 3;
const OF_CELL: usize = 2;

/// Averages the [`FEATURES`] features of a crop. A cell that a window cuts counts with the part that is in the window.
pub fn coarse(features: &[f32]) -> Vec<f32> {
    debug_assert_eq!(features.len(), FEATURES);
    let weights = weights();
    let mut coarse = Vec::with_capacity(COARSE);
    for cells in features.chunks(GRID * GRID) {
        for row in &weights {
            coarse.extend(weights.iter().map(|column| windowed(cells, row, column)));
        }
    }
    coarse
}

/// Spreads a value for each window over the cells that the window has: for all `row`, the product of `row` and
/// [`coarse`] features is that of the result and the features.
pub fn spread(row: &[f64]) -> Vec<f64> {
    debug_assert_eq!(row.len(), COARSE);
    let weights = weights();
    let mut spread = vec![0.0; FEATURES];
    for (windows, cells) in row.chunks(WINDOWS * WINDOWS).zip(spread.chunks_mut(GRID * GRID)) {
        for (at, value) in windows.iter().enumerate() {
            for (cell, spread) in cells.iter_mut().enumerate() {
                let [row, column] = [weights[at / WINDOWS][cell / GRID], weights[at % WINDOWS][cell % GRID]];
                *spread += value * f64::from(row) * f64::from(column);
            }
        }
    }
    spread
}

fn windowed(cells: &[f32], row: &[f32; GRID], column: &[f32; GRID]) -> f32 {
    let along = |cells: &[f32]| cells.iter().zip(column).map(|(value, weight)| value * weight).sum::<f32>();
    cells.chunks(GRID).zip(row).map(|(cells, weight)| weight * along(cells)).sum()
}

/// The share that each cell of a row has in each window.
fn weights() -> [[f32; GRID]; WINDOWS] {
    let share = |window: usize, cell: usize| {
        let (first, last) = (STEP * window, STEP * window + POSITIONS);
        let shared = (OF_CELL * (cell + 1)).min(last).saturating_sub((OF_CELL * cell).max(first));
        shared as f32 / POSITIONS as f32
    };
    std::array::from_fn(|window| std::array::from_fn(|cell| share(window, cell)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_mean_of_its_cells() {
        let flat = coarse(&[2.5; FEATURES]);
        assert_eq!(flat.len(), COARSE);
        assert!(flat.iter().all(|value| (value - 2.5).abs() < 1e-5));
        // The second channel rises from left to right by 1 for each of the network's columns: the middles of the cells
        // are at 0.5, 2.5 and so on, those of the windows at 2, 5, 8 and 11.
        let mut features = vec![0.0; FEATURES];
        let of_channel = &mut features[GRID * GRID..2 * GRID * GRID];
        of_channel.iter_mut().enumerate().for_each(|(at, value)| *value = 2.0 * (at % GRID) as f32 + 0.5);
        let found = &coarse(&features)[WINDOWS * WINDOWS..2 * WINDOWS * WINDOWS];
        for row in found.chunks(WINDOWS) {
            // A cut cell counts with its mean, which is half a column from the part in the window.
            let expected = [2.1, 4.9, 8.1, 10.9];
            assert!(row.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5), "{row:?}");
        }
    }

    #[test]
    fn spread_weights_see_what_weights_see_of_coarse_features() {
        let features: Vec<f32> = (0..FEATURES).map(|at| (at * at % 17) as f32 - 8.0).collect();
        let row: Vec<f64> = (0..COARSE).map(|at| (at * at % 13) as f64 - 6.0).collect();
        let product = |features: &[f32], row: &[f64]| {
            features.iter().zip(row).map(|(value, weight)| f64::from(*value) * weight).sum::<f64>()
        };
        let (found, expected) = (product(&features, &spread(&row)), product(&coarse(&features), &row));
        assert!((found - expected).abs() < 1e-2 * expected.abs().max(1.0), "{found} for {expected}");
    }
}
