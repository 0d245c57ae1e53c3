//! The head for few crops: a projection of the features, a scale, and a logistic regression.
//!
//! The coarse features are projected on their 64 principal components. The 18 mirror features are appended. Each column is
//! scaled to mean 0 and variance 1.

use super::matrix::{self, Matrix, add_scaled, dot};
use super::random::Random;

/// Principal components that the projection keeps.
pub const KEPT: usize = 64;

/// Principal component analysis: `components` times (x - `mean`).
#[derive(Debug, Clone)]
pub struct Projection {
    pub mean: Vec<f64>,
    /// One per row, orthonormal, largest variance first.
    pub components: Matrix,
}

impl Projection {
    /// Additional components during the iteration; they speed up convergence.
    const SPARE: usize = 8;
    const ROUNDS: usize = 6;

    /// Fits the components to `rows` by subspace iteration (Halko, Martinsson, Tropp, arXiv 0909.4061).
    pub fn fit(rows: &[&[f32]], seed: u64) -> Self {
        let width = rows[0].len();
        let mut mean = vec![0.0; width];
        for row in rows {
            mean.iter_mut().zip(*row).for_each(|(mean, &x)| *mean += f64::from(x) / rows.len() as f64);
        }
        let kept = KEPT.min(width);
        let mut random = Random::seeded(seed);
        let mut basis = Matrix::zeros((kept + Self::SPARE).min(width), width);
        (0..basis.rows()).for_each(|i| basis.row_mut(i).iter_mut().for_each(|value| *value = random.normal()));
        matrix::orthonormalise(&mut basis);
        for _ in 0..Self::ROUNDS {
            let mut next = Matrix::zeros(basis.rows(), width);
            for row in rows {
                let x = centred(row, &mean);
                for (i, &along) in basis.times(&x).iter().enumerate() {
                    add_scaled(next.row_mut(i), along, &x);
                }
            }
            matrix::orthonormalise(&mut next);
            basis = next;
        }
        let mut covariance = Matrix::zeros(basis.rows(), basis.rows());
        for row in rows {
            let x = basis.times(&centred(row, &mean));
            for (i, &along) in x.iter().enumerate() {
                add_scaled(covariance.row_mut(i), along / rows.len() as f64, &x);
            }
        }
        let (_, rotation) = matrix::eigen(&covariance);
        let mut components = Matrix::zeros(kept, width);
        for i in 0..kept {
            for (j, &share) in rotation.row(i).iter().enumerate() {
                add_scaled(components.row_mut(i), share, basis.row(j));
            }
        }
        Self { mean, components }
    }

    pub fn apply(&self, row: &[f32]) -> Vec<f64> {
        self.components.times(&centred(row, &self.mean))
    }
}

fn centred(row: &[f32], mean: &[f64]) -> Vec<f64> {
    row.iter().zip(mean).map(|(&x, mean)| f64::from(x) - mean).collect()
}

/// Scales each column to mean 0 and variance 1: (x - `mean`) `gain`.
#[derive(Debug, Clone)]
pub struct Scale {
    pub mean: Vec<f64>,
    pub gain: Vec<f64>,
}

impl Scale {
    pub fn fit(rows: &Matrix) -> Self {
        let n = rows.rows() as f64;
        let mut mean = vec![0.0; rows.columns()];
        let mut gain = vec![0.0; rows.columns()];
        (0..rows.rows()).for_each(|i| add_scaled(&mut mean, 1.0 / n, rows.row(i)));
        for i in 0..rows.rows() {
            for ((gain, x), mean) in gain.iter_mut().zip(rows.row(i)).zip(&mean) {
                *gain += (x - mean).powi(2) / n;
            }
        }
        // A constant column carries no information, so its gain is zero.
        gain.iter_mut().for_each(|value| *value = if *value > 1e-12 { value.sqrt().recip() } else { 0.0 });
        Self { mean, gain }
    }

    /// Limits the gain of the columns from `first` on. Without a limit, a column with little variance in training turns
    /// an unusual value into a huge one, and the score becomes arbitrary.
    #[must_use]
    pub fn limited(mut self, first: usize, gain: f64) -> Self {
        self.gain.iter_mut().skip(first).for_each(|value| *value = value.min(gain));
        self
    }

    pub fn apply(&self, row: &[f64]) -> Vec<f64> {
        row.iter().zip(&self.mean).zip(&self.gain).map(|((x, mean), gain)| (x - mean) * gain).collect()
    }

    pub fn apply_all(&self, rows: &Matrix) -> Matrix {
        Matrix::from_rows(&(0..rows.rows()).map(|i| self.apply(rows.row(i))).collect::<Vec<_>>())
    }
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One row and one label per crop.
#[derive(Debug, Clone)]
pub struct Examples {
    pub rows: Matrix,
    pub ok: Vec<bool>,
    /// How much an NG and an OK crop count.
    class_weights: [f64; 2],
}

impl Examples {
    /// Both classes count alike, however many crops they have. The mean weight is 1.
    pub fn balanced(rows: Matrix, ok: Vec<bool>) -> Self {
        let n = ok.len() as f64;
        let positive = ok.iter().filter(|ok| **ok).count() as f64;
        let weight = |count: f64| if count > 0.0 { n / (2.0 * count) } else { 1.0 };
        Self { rows, ok, class_weights: [weight(n - positive), weight(positive)] }
    }

    pub(super) fn weight(&self, i: usize) -> f64 {
        self.class_weights[usize::from(self.ok[i])]
    }

    /// Log loss of these scores, in the mean over the crops.
    pub fn loss(&self, scores: impl Iterator<Item = f64>) -> f64 {
        let loss = |(i, score): (usize, f64)| {
            // -log(p) of the label, without overflow.
            let z = if self.ok[i] { -score } else { score };
            self.weight(i) * (z.max(0.0) + (-z.abs()).exp().ln_1p())
        };
        scores.enumerate().map(loss).sum::<f64>() / self.ok.len().max(1) as f64
    }

    pub(super) fn target(&self, i: usize) -> f64 {
        f64::from(u8::from(self.ok[i]))
    }
}

/// P(OK) = sigmoid(`weights` . x + `bias`).
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    pub weights: Vec<f64>,
    pub bias: f64,
}

impl Logistic {
    /// Minimises the log loss plus `ridge` / 2 times the squared weights, by Newton's method.
    pub fn fit(examples: &Examples, ridge: f64) -> Self {
        const STEPS: usize = 30;
        let width = examples.rows.columns();
        let mut beta = vec![0.0; width + 1];
        for _ in 0..STEPS {
            let mut hessian = Matrix::zeros(width + 1, width + 1);
            let mut gradient: Vec<f64> = beta.iter().map(|weight| ridge * weight).collect();
            gradient[width] = 0.0;
            // A tiny penalty on the bias keeps the matrix positive definite.
            (0..=width).for_each(|i| hessian.row_mut(i)[i] = if i < width { ridge } else { 1e-9 });
            let mut x = vec![1.0; width + 1];
            for i in 0..examples.rows.rows() {
                x[..width].copy_from_slice(examples.rows.row(i));
                let (p, weight) = (sigmoid(dot(&beta, &x)), examples.weight(i));
                add_scaled(&mut gradient, weight * (p - examples.target(i)), &x);
                let curvature = (weight * p * (1.0 - p)).max(1e-9);
                for (j, &value) in x.iter().enumerate() {
                    add_scaled(&mut hessian.row_mut(j)[..=j], curvature * value, &x[..=j]);
                }
            }
            let Some(step) = matrix::solve(&hessian, &gradient) else { break };
            add_scaled(&mut beta, -1.0, &step);
            if dot(&step, &step) < 1e-16 {
                break;
            }
        }
        let bias = beta.pop().unwrap_or_default();
        Self { weights: beta, bias }
    }

    /// The score: sigmoid(score) is P(OK) before calibration.
    pub fn score(&self, x: &[f64]) -> f64 {
        dot(&self.weights, x) + self.bias
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random points in a square, labelled by `rule`.
    fn points(n: usize, seed: u64, rule: impl Fn(f64, f64) -> bool) -> Examples {
        let mut random = Random::seeded(seed);
        let rows: Vec<[f64; 2]> = (0..n).map(|_| [random.between(-2., 2.), random.between(-2., 2.)]).collect();
        Examples::balanced(Matrix::from_rows(&rows), rows.iter().map(|&[x, y]| rule(x, y)).collect())
    }

    fn accuracy(examples: &Examples, score: impl Fn(&[f64]) -> f64) -> f64 {
        let right = (0..examples.ok.len()).filter(|&i| (score(examples.rows.row(i)) > 0.0) == examples.ok[i]).count();
        right as f64 / examples.ok.len() as f64
    }

    #[test]
    fn logistic_regression_finds_the_line() {
        let rule = |x: f64, y: f64| 2.0 * x - y > 0.5;
        let head = Logistic::fit(&points(400, 1, rule), 0.01);
        assert!(accuracy(&points(400, 2, rule), |x| head.score(x)) > 0.97);
        assert!((head.weights[0] / head.weights[1] + 2.0).abs() < 0.2, "{head:?}");
    }

    #[test]
    fn a_rare_class_counts_as_much_as_the_other() {
        // One in twenty is OK, and the classes overlap: without weights, nothing would be predicted OK.
        let mut random = Random::seeded(4);
        let ok: Vec<bool> = (0..2000).map(|i| i % 20 == 0).collect();
        let rows: Vec<[f64; 1]> = ok.iter().map(|ok| [random.normal() + if *ok { 1.0 } else { -1.0 }]).collect();
        let examples = Examples::balanced(Matrix::from_rows(&rows), ok);
        let head = Logistic::fit(&examples, 1.0);
        assert!(head.score(&[0.0]).abs() < 0.3, "the border is between the classes: {head:?}");
        let loss = |score: f64| examples.loss(std::iter::repeat_n(score, 2000));
        assert!((loss(0.0) - 2f64.ln()).abs() < 1e-9);
        assert!((loss(3.0) - loss(-3.0)).abs() < 1e-9);
    }

    #[test]
    fn the_projection_keeps_the_directions_of_largest_variance() {
        // 100 columns that repeat three strong signals and a weak one.
        let mut random = Random::seeded(3);
        let rows: Vec<Vec<f32>> = (0..60)
            .map(|_| {
                let [a, b, c] = [8.0, 4.0, 2.0].map(|size| size * random.normal());
                let weak = 0.01 * random.normal();
                (0..100).map(|i| (5.0 + [a, b, c, weak][i % 4]) as f32).collect()
            })
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let projection = Projection::fit(&rows, 1);
        assert_eq!(projection.components.rows(), KEPT);
        for row in rows {
            let projected = projection.apply(row);
            let x = centred(row, &projection.mean);
            let (kept, all) = (dot(&projected[..3], &projected[..3]), dot(&x, &x));
            assert!((kept / all - 1.0).abs() < 1e-3, "{kept} of {all}");
        }
    }

    #[test]
    fn the_gain_of_a_column_with_little_variance_is_limited() {
        let scale = Scale::fit(&Matrix::from_rows(&[[1., 0.5], [3., 0.501]])).limited(1, 4.0);
        assert_eq!(scale.gain, [1., 4.]);
    }

    #[test]
    fn a_constant_column_is_scaled_to_zero() {
        let scale = Scale::fit(&Matrix::from_rows(&[[1., 5.], [3., 5.]]));
        assert_eq!(scale.apply(&[3., 9.]), [1., 0.]);
    }
}
