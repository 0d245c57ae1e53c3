//! From the score of the head to a probability: among the crops with P(OK) = 0.8, 8 of 10 are OK.
//!
//! With few verdicts a sigmoid (Platt, 1999) that knows slips; with many a piecewise linear, increasing function
//! through the means of isotonic regression (Oron and Flournoy, Statistics in Biopharmaceutical Research 9, 2017).

use super::head::sigmoid;

/// From so many scores on, the calibration is isotonic.
pub const MIN_ISOTONIC: usize = 1000;
/// The most points of an isotonic calibration.
const KNOTS: usize = 40;
/// The fewest scores whose mean is a point.
const MIN_BIN: usize = 20;
/// The least distance of two points. Slopes stay small enough for 32-bit floats.
const MIN_DISTANCE: f64 = 0.02;
/// The share of the sigmoid in an isotonic calibration: scores keep their order where the function is flat.
pub const SIGMOID_SHARE: f64 = 0.02;

/// P = `slips` + (1 - 2 `slips`) sigmoid(`slope` score + `offset`), with a positive slope.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Platt {
    pub slope: f64,
    pub offset: f64,
    /// The share of verdicts that are wrong whatever the crop shows: without it, a few slips make all probabilities
    /// less certain (the lapses of Wichmann and Hill, Perception & Psychophysics 63, 2001).
    pub slips: f64,
}

impl Platt {
    /// The most slips: who is wrong more often cannot be told from crops that are hard to judge.
    const MOST_SLIPS: f64 = 0.1;

    /// Maximises the likelihood of slope, offset and slips by expectation maximisation. `weights`: how much each score
    /// counts, 1 in the mean.
    pub fn fit(scores: &[f64], ok: &[bool], weights: &[f64]) -> Self {
        const ROUNDS: usize = 30;
        /// So many verdicts without a slip are taken for granted.
        const WITHOUT_SLIPS: f64 = 30.0;
        const AT_FIRST: f64 = 0.02;
        let share = |ok: &bool| f64::from(u8::from(*ok));
        let mut meant: Vec<f64> = ok.iter().map(share).collect();
        let (mut slope, mut offset) = Self::fit_sigmoid(scores, &meant, weights, (1.0, 0.0));
        let mut slips = AT_FIRST;
        for _ in 0..ROUNDS {
            let mut slipped = 0.0;
            for (((meant, score), ok), weight) in meant.iter_mut().zip(scores).zip(ok).zip(weights) {
                let p = sigmoid(slope * score + offset);
                let right = if *ok { p } else { 1.0 - p };
                let slip = slips * (1.0 - right) / (slips * (1.0 - right) + (1.0 - slips) * right);
                *meant = if *ok { 1.0 - slip } else { slip };
                slipped += weight * slip;
            }
            slips = (slipped / (ok.len() as f64 + WITHOUT_SLIPS)).min(Self::MOST_SLIPS);
            (slope, offset) = Self::fit_sigmoid(scores, &meant, weights, (slope, offset));
        }
        Self { slope, offset, slips }
    }

    /// Slope and offset of the sigmoid that minimises the log loss against the smoothed targets of Platt, by Newton's
    /// method. `ok`: the probability that each crop is OK. `start`: slope and offset to begin with.
    fn fit_sigmoid(scores: &[f64], ok: &[f64], weights: &[f64], start: (f64, f64)) -> (f64, f64) {
        const STEPS: usize = 100;
        const MIN_SLOPE: f64 = 1e-3;
        let positive = ok.iter().zip(weights).map(|(ok, weight)| ok * weight).sum::<f64>();
        let negative = weights.iter().sum::<f64>() - positive;
        let (least, most) = (1.0 / (negative + 2.0), (positive + 1.0) / (positive + 2.0));
        let target = |ok: &f64| least + (most - least) * ok;
        let loss = |slope: f64, offset: f64| -> f64 {
            let one = |((score, ok), weight): ((&f64, &f64), &f64)| {
                let z = slope * score + offset;
                // log(1 + e^z) - target z, without overflow.
                weight * (z.max(0.0) + (-z.abs()).exp().ln_1p() - target(ok) * z)
            };
            scores.iter().zip(ok).zip(weights).map(one).sum()
        };
        let (mut slope, mut offset) = start;
        let mut best = loss(slope, offset);
        for _ in 0..STEPS {
            let (mut gradient, mut hessian) = ([0.0; 2], [1e-9, 0.0, 1e-9]);
            for ((score, ok), weight) in scores.iter().zip(ok).zip(weights) {
                let p = sigmoid(slope * score + offset);
                let (error, curvature) = (weight * (p - target(ok)), weight * p * (1.0 - p));
                gradient[0] += error * score;
                gradient[1] += error;
                hessian[0] += curvature * score * score;
                hessian[1] += curvature * score;
                hessian[2] += curvature;
            }
            let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
            if !determinant.is_finite() || determinant <= 0.0 {
                break;
            }
            let step = [
                (hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant,
                (hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant,
            ];
            let mut length = 1.0;
            let improved = loop {
                let next = (slope - length * step[0], offset - length * step[1]);
                let value = loss(next.0, next.1);
                if value < best - 1e-10 {
                    (slope, offset) = next;
                    best = value;
                    break true;
                }
                length /= 2.0;
                if length < 1e-6 {
                    break false;
                }
            };
            if !improved {
                break;
            }
        }
        (slope.max(MIN_SLOPE), offset)
    }

    pub fn p_ok(&self, score: f64) -> f64 {
        self.slips + (1.0 - 2.0 * self.slips) * sigmoid(self.slope * score + self.offset)
    }
}

/// From the score of a head to P(OK). It keeps the order of scores.
#[derive(Debug, Clone, PartialEq)]
pub enum Calibration {
    Platt(Platt),
    /// The points (score, P) of the piecewise linear function, ascending; it is constant beyond them.
    Isotonic {
        knots: Vec<(f64, f64)>,
        platt: Platt,
    },
}

impl Calibration {
    /// Fits the calibration to scores of crops that the head was not trained on. `weights`: how much each counts, 1 in the
    /// mean.
    pub fn fit(scores: &[f64], ok: &[bool], weights: &[f64]) -> Self {
        let platt = Platt::fit(scores, ok, weights);
        if scores.len() < MIN_ISOTONIC {
            return Self::Platt(platt);
        }
        Self::Isotonic { knots: knots(scores, ok, weights), platt }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Platt(_) => "platt",
            Self::Isotonic { .. } => "isotonic",
        }
    }

    pub fn p_ok(&self, score: f64) -> f64 {
        match self {
            Self::Platt(platt) => platt.p_ok(score),
            Self::Isotonic { knots, platt } => {
                (1.0 - SIGMOID_SHARE) * linear(knots, score) + SIGMOID_SHARE * platt.p_ok(score)
            }
        }
    }
}

/// The value at `x` of the piecewise linear function through the points.
fn linear(knots: &[(f64, f64)], x: f64) -> f64 {
    let at = knots.partition_point(|knot| knot.0 <= x);
    match (at.checked_sub(1).map(|before| knots[before]), knots.get(at)) {
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        (Some((_, y)), None) | (None, Some(&(_, y))) => y,
        (None, None) => 0.5,
    }
}

/// Neighbouring scores that share a mean.
#[derive(Clone, Copy)]
struct Block {
    scores: f64,
    ok: f64,
    weight: f64,
}

impl Block {
    fn score(&self) -> f64 {
        self.scores / self.weight
    }

    fn share(&self) -> f64 {
        self.ok / self.weight
    }

    fn merge(&mut self, other: Self) {
        self.scores += other.scores;
        self.ok += other.ok;
        self.weight += other.weight;
    }
}

fn knots(scores: &[f64], ok: &[bool], weights: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted: Vec<(f64, bool, f64)> =
        scores.iter().zip(ok).zip(weights).map(|((&score, &ok), &weight)| (score, ok, weight)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let size = MIN_BIN.max(sorted.len().div_ceil(KNOTS));
    let mut blocks: Vec<Block> = Vec::new();
    for bin in sorted.chunks(size) {
        let mut block = Block { scores: 0.0, ok: 0.0, weight: 0.0 };
        for &(score, ok, weight) in bin {
            block.merge(Block { scores: weight * score, ok: weight * f64::from(u8::from(ok)), weight });
        }
        // A block that is not above the one before it, or too close to it, is joined with it.
        while let Some(before) = blocks.last()
            && (before.share() >= block.share() || block.score() - before.score() < MIN_DISTANCE)
        {
            let mut joined = *before;
            joined.merge(block);
            block = joined;
            blocks.pop();
        }
        blocks.push(block);
    }
    blocks.iter().map(|block| (block.score(), block.share())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Scores whose probability of OK is `p`.
    fn drawn(count: usize, p: impl Fn(f64) -> f64) -> (Vec<f64>, Vec<bool>) {
        let mut random = Random::seeded(11);
        (0..count)
            .map(|_| {
                let score = random.between(-6.0, 6.0);
                (score, random.unit() < p(score))
            })
            .unzip()
    }

    #[test]
    fn platt_finds_the_slope_and_the_offset() {
        let (scores, ok) = drawn(900, |score| sigmoid(0.5 * score - 1.0));
        let calibration = Calibration::fit(&scores, &ok, &vec![1.0; ok.len()]);
        let Calibration::Platt(platt) = &calibration else { panic!("{calibration:?}") };
        assert!((platt.slope - 0.5).abs() < 0.1 && (platt.offset + 1.0).abs() < 0.25, "{platt:?}");
    }

    #[test]
    fn slips_do_not_make_the_other_verdicts_less_certain() {
        let mut random = Random::seeded(12);
        let (scores, meant) = drawn(900, |score| sigmoid(3.0 * score));
        let said: Vec<bool> = meant.iter().map(|ok| ok ^ (random.unit() < 0.04)).collect();
        let Calibration::Platt(platt) = Calibration::fit(&scores, &said, &vec![1.0; said.len()]) else {
            panic!("few scores")
        };
        assert!((platt.slips - 0.04).abs() < 0.015 && (platt.slope - 3.0).abs() < 1.0, "{platt:?}");
        let without = Platt::fit(&scores, &meant, &vec![1.0; meant.len()]);
        assert!(without.slips < 0.01, "{without:?}");
        let (slope, _) = Platt::fit_sigmoid(
            &scores,
            &said.iter().map(|ok| f64::from(u8::from(*ok))).collect::<Vec<_>>(),
            &vec![1.0; said.len()],
            (1.0, 0.0),
        );
        assert!(slope < 2.0, "a sigmoid alone is less certain: {slope}");
    }

    #[test]
    fn separable_scores_give_finite_probabilities_in_order() {
        let scores = [-3.0, -2.0, 2.0, 3.0];
        for ok in [[false, false, true, true], [true, true, false, false], [true; 4], [false; 4]] {
            let calibration = Calibration::fit(&scores, &ok, &vec![1.0; ok.len()]);
            let p: Vec<f64> = scores.iter().map(|score| calibration.p_ok(*score)).collect();
            assert!(p.windows(2).all(|pair| pair[0] < pair[1]) && p.iter().all(|p| (0.0..=1.0).contains(p)), "{p:?}");
        }
    }

    #[test]
    fn isotonic_follows_a_curve_that_is_no_sigmoid_and_keeps_the_order() {
        let truth = |score: f64| if score < 0.0 { 0.1 } else { 0.1 + 0.13 * score };
        let (scores, ok) = drawn(20_000, truth);
        let calibration = Calibration::fit(&scores, &ok, &vec![1.0; ok.len()]);
        assert_eq!(calibration.name(), "isotonic");
        let Calibration::Isotonic { knots, platt } = &calibration else { unreachable!() };
        assert!(knots.len() <= KNOTS && knots.windows(2).all(|pair| pair[0].1 < pair[1].1), "{knots:?}");
        let grid: Vec<f64> = (0..120).map(|i| f64::from(i) / 10.0 - 6.0).collect();
        let error = |p: &dyn Fn(f64) -> f64| {
            grid.iter().map(|score| (p(*score) - truth(*score)).abs()).sum::<f64>() / grid.len() as f64
        };
        let (isotonic, sigmoid) = (error(&|score| calibration.p_ok(score)), error(&|score| platt.p_ok(score)));
        assert!(isotonic < 0.02 && isotonic < sigmoid, "{isotonic} against {sigmoid}");
        let p: Vec<f64> = grid.iter().map(|score| calibration.p_ok(*score)).collect();
        assert!(p.windows(2).all(|pair| pair[0] < pair[1]), "{p:?}");
    }
}
