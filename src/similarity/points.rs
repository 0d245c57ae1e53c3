//! Embeddings as whole numbers: sums and distances are exact, so groups do not depend on the machine or on the number of
//! threads.

use facemill_vision::embedding::DIMENSIONS;

/// Steps of a coordinate from 0 to 1.
const SCALE: f32 = 2048.0;
/// With coordinates up to this, a squared distance fits 31 bits. Those of dlib's embeddings are below 1.
const MAX: f32 = 2047.0;

/// An embedding, in steps of 1/2048.
pub type Point = [i16; DIMENSIONS];

/// The point of an embedding. None: it does not have [`DIMENSIONS`] numbers.
pub fn point(embedding: &[f32]) -> Option<Point> {
    let embedding: &[f32; DIMENSIONS] = embedding.try_into().ok()?;
    Some(embedding.map(|value| (value * SCALE).round().clamp(-MAX, MAX) as i16))
}

/// The mean of so many points, given their sum.
pub fn mean(sum: &[i32; DIMENSIONS], count: u32) -> Point {
    sum.map(|value| (f64::from(value) / f64::from(count.max(1))).round() as i16)
}

/// The squared distance of two points, in squared steps.
#[inline(always)]
pub fn squared_distance(a: &Point, b: &Point) -> i32 {
    // Differences fit 16 bits, and their products are added in pairs by one instruction of the processor.
    let square = |(a, b): (&i16, &i16)| {
        let difference = a.wrapping_sub(*b);
        i32::from(difference) * i32::from(difference)
    };
    a.iter().zip(b).map(square).sum()
}

/// A distance of embeddings in squared steps.
pub fn squared_steps(distance: f64) -> i32 {
    (distance * f64::from(SCALE)).powi(2).round().min(f64::from(i32::MAX)) as i32
}

/// The squared distance of embeddings, from squared steps.
pub fn squared_units(steps: f64) -> f64 {
    steps / f64::from(SCALE).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_embeddings() {
        let [mut a, mut b] = [[0.0f32; DIMENSIONS]; 2];
        (a[0], a[5], b[5], b[127]) = (0.3, -0.1, 0.2, -0.25);
        let [from, to] = [a, b].map(|embedding| point(&embedding).unwrap());
        let expected = 0.09f64 + 0.09 + 0.0625;
        assert!((squared_units(f64::from(squared_distance(&from, &to))) - expected).abs() < 1e-3);
        assert!((squared_units(f64::from(squared_steps(0.4))) - 0.16).abs() < 1e-6);
        assert_eq!(point(&[0.0; 5]), None);
    }

    #[test]
    fn the_largest_distance_fits() {
        let [low, high] = [-9.0, 9.0].map(|value| point(&[value; DIMENSIONS]).unwrap());
        assert_eq!(squared_distance(&low, &high), 128 * 4094 * 4094);
    }

    #[test]
    fn means_are_rounded() {
        let mut sum = [0; DIMENSIONS];
        (sum[0], sum[1]) = (5, -7);
        assert_eq!(mean(&sum, 2)[..3], [3, -4, 0]);
    }
}
