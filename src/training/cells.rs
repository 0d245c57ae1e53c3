//! The head for many crops: the same few detectors look at every cell of the features.
//!
//! A ghost looks alike wherever it is, so the detectors share their weights over the 7x7 cells. A detector sees the
//! channels of a cell, and the mirrored shares of the place of the 4x4 grid at its centre and of that place's
//! neighbours. Behind them, 64 hidden units see what was detected where, and the mirror features.

use super::head::{Examples, Scale, sigmoid};
use super::matrix::{Matrix, add_scaled_narrow, dot, dot_narrow};
use super::random::Random;
use facemill_classifier::backbone::{CHANNELS, GRID};
use facemill_classifier::model::{MIRROR_GRID, MIRRORS};

pub const CELLS: usize = GRID * GRID;
/// A place of the grid of mirrored shares and its neighbours.
pub const NEIGHBOURS: usize = 9;
const INPUT: usize = CHANNELS + NEIGHBOURS;
pub const DETECTORS: usize = 8;
const DETECTED: usize = DETECTORS * CELLS;
pub const UNITS: usize = 64;

const BATCH: usize = 32;
pub const STEPS: usize = 4000;
/// At the start. It falls to zero along a cosine.
const RATE: f64 = 2e-3;
/// Share of the inputs of the hidden units that a step of the training does not see.
const DROPPED: f64 = 0.5;
/// Mirrored shares of neighbours are scaled to the range of the channels.
pub const SHARE_GAIN: f64 = 3.0;

/// The row, or the column, of the grid of mirrored shares at the centre of a cell's row or column.
pub const fn share_at(cell: usize) -> usize {
    (2 * cell + 1) * MIRROR_GRID / (2 * GRID)
}

/// Features and mirror features of a crop.
pub type Seen<'a> = (&'a [f32], &'a [f32; MIRRORS]);

#[derive(Debug, Clone)]
pub struct Cells {
    /// Of the channels of a cell, and of the mirror features.
    pub channels: Scale,
    pub mirrors: Scale,
    /// A row for each detector: the channels of a cell, nine mirrored shares.
    pub detectors: Matrix,
    pub detector_bias: Vec<f64>,
    /// A row for each unit: the cells of the first detector, of the second and so on, then the mirror features.
    pub hidden: Matrix,
    pub hidden_bias: Vec<f64>,
    pub top: Vec<f64>,
    pub bias: f64,
}

impl Cells {
    /// Trains in so many `steps` with Adam, decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101) and dropout.
    pub fn fit(crops: &[Seen<'_>], examples: &Examples, decay: f64, steps: usize, seed: u64, mirrors: Scale) -> Self {
        let mut random = Random::seeded(seed);
        let inputs = Inputs { channels: channel_scale(crops), mirrors };
        let mut parameters = Parameters::start(&mut random);
        let mut order: Vec<usize> = (0..crops.len()).collect();
        let mut next = order.len();
        for step in 0..steps {
            let mut gradient = vec![0.0; Parameters::LEN];
            let batch = BATCH.min(order.len());
            for _ in 0..batch {
                if next == order.len() {
                    random.shuffle(&mut order);
                    next = 0;
                }
                let i = order[next];
                next += 1;
                let error = |score: f32| {
                    let error = sigmoid(f64::from(score)) - examples.target(i);
                    (examples.weight(i) * error / batch as f64) as f32
                };
                parameters.add_gradient(&inputs.of(crops[i]), error, &mut random, &mut gradient);
            }
            let rate = RATE * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos()) / 2.0;
            parameters.step(&gradient, rate as f32, decay as f32);
        }
        parameters.into_cells(inputs)
    }

    /// The score: sigmoid(score) is P(OK) before calibration.
    pub fn score(&self, crop: Seen<'_>) -> f64 {
        let Input { cells, mirrors } = input(&self.channels, &self.mirrors, crop);
        let [cells, mirrors] = [cells, mirrors].map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
        let mut joined = vec![0.0; DETECTED + MIRRORS];
        for (cell, x) in cells.chunks(INPUT).enumerate() {
            for detector in 0..DETECTORS {
                let seen = dot(self.detectors.row(detector), x) + self.detector_bias[detector];
                joined[detector * CELLS + cell] = seen.max(0.0);
            }
        }
        joined[DETECTED..].copy_from_slice(&mirrors);
        let hidden = self.hidden.times(&joined);
        let active: Vec<f64> = hidden.iter().zip(&self.hidden_bias).map(|(h, bias)| (h + bias).max(0.0)).collect();
        dot(&self.top, &active) + self.bias
    }
}

/// Brings the channels to mean 0 and variance 1 over all cells of all crops.
fn channel_scale(crops: &[Seen<'_>]) -> Scale {
    let n = (crops.len() * CELLS) as f64;
    let moment = |channel: usize, power: &dyn Fn(f64) -> f64| {
        let of = |(features, _): &Seen<'_>| {
            features[channel * CELLS..(channel + 1) * CELLS].iter().map(|&x| power(f64::from(x))).sum::<f64>()
        };
        crops.iter().map(of).sum::<f64>() / n
    };
    let mean: Vec<f64> = (0..CHANNELS).map(|channel| moment(channel, &|x| x)).collect();
    let variance = |channel: usize| moment(channel, &|x| (x - mean[channel]).powi(2));
    let gain = (0..CHANNELS).map(variance).map(|v| if v > 1e-12 { v.sqrt().recip() } else { 0.0 }).collect();
    Scale { mean, gain }
}

/// What the head sees of a crop: [`INPUT`] numbers for each cell, and the mirror features.
struct Input {
    cells: Vec<f32>,
    mirrors: Vec<f32>,
}

fn input(channels: &Scale, mirrors: &Scale, (features, shares): Seen<'_>) -> Input {
    let mut cells = vec![0.0; CELLS * INPUT];
    for (cell, x) in cells.chunks_mut(INPUT).enumerate() {
        for channel in 0..CHANNELS {
            let value = f64::from(features[channel * CELLS + cell]);
            x[channel] = ((value - channels.mean[channel]) * channels.gain[channel]) as f32;
        }
        for (i, share) in x[CHANNELS..].iter_mut().enumerate() {
            // Beyond the crop nothing is mirrored.
            let place =
                |cell: usize, i: usize| (share_at(cell) + i).checked_sub(1).filter(|place| *place < MIRROR_GRID);
            let at = place(cell / GRID, i / 3).zip(place(cell % GRID, i % 3));
            let at = at.map(|(row, column)| MIRRORS - MIRROR_GRID * MIRROR_GRID + row * MIRROR_GRID + column);
            *share = SHARE_GAIN as f32 * at.map_or(0.0, |at| shares[at]);
        }
    }
    let shares: Vec<f64> = shares.iter().map(|&share| f64::from(share)).collect();
    Input { cells, mirrors: mirrors.apply(&shares).into_iter().map(|share| share as f32).collect() }
}

struct Inputs {
    channels: Scale,
    mirrors: Scale,
}

impl Inputs {
    fn of(&self, crop: Seen<'_>) -> Input {
        input(&self.channels, &self.mirrors, crop)
    }
}

/// All weights in one vector: a row and its bias for each detector, the same for each unit, the output weights and their
/// bias. `mean` and `square` are the moments of Adam. 32 bits are enough for all of them, and take half the time.
struct Parameters {
    values: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
}

impl Parameters {
    const DETECTOR: usize = INPUT + 1;
    const UNIT: usize = DETECTED + MIRRORS + 1;
    const HIDDEN: usize = DETECTORS * Self::DETECTOR;
    const TOP: usize = Self::HIDDEN + UNITS * Self::UNIT;
    const LEN: usize = Self::TOP + UNITS + 1;

    fn start(random: &mut Random) -> Self {
        let mut values = vec![0.0; Self::LEN];
        let mut draw = |values: &mut [f32], row: usize, variance: f64| {
            for row in values.chunks_mut(row) {
                let (_, weights) = row.split_last_mut().unwrap_or((&mut 0.0, &mut []));
                weights.iter_mut().for_each(|value| *value = (variance.sqrt() * random.normal()) as f32);
            }
        };
        draw(&mut values[..Self::HIDDEN], Self::DETECTOR, 2.0 / INPUT as f64);
        draw(&mut values[Self::HIDDEN..Self::TOP], Self::UNIT, 2.0 / (DETECTED + MIRRORS) as f64);
        draw(&mut values[Self::TOP..], UNITS + 1, 1.0 / UNITS as f64);
        Self { values, mean: vec![0.0; Self::LEN], square: vec![0.0; Self::LEN], steps: 0 }
    }

    fn detector(&self, i: usize) -> (&[f32], f32) {
        let row = &self.values[i * Self::DETECTOR..(i + 1) * Self::DETECTOR];
        (&row[..INPUT], row[INPUT])
    }

    fn unit(&self, i: usize) -> (&[f32], f32) {
        let row = &self.values[Self::HIDDEN + i * Self::UNIT..Self::HIDDEN + (i + 1) * Self::UNIT];
        (&row[..Self::UNIT - 1], row[Self::UNIT - 1])
    }

    /// Adds the gradient of the log loss of a crop. `error` is its derivative by the score.
    fn add_gradient(&self, input: &Input, error: impl Fn(f32) -> f32, random: &mut Random, gradient: &mut [f32]) {
        let mut joined = [0.0; DETECTED + MIRRORS];
        for (cell, x) in input.cells.chunks(INPUT).enumerate() {
            for i in 0..DETECTORS {
                let (weights, bias) = self.detector(i);
                joined[i * CELLS + cell] = (dot_narrow(weights, x) + bias).max(0.0);
            }
        }
        joined[DETECTED..].copy_from_slice(&input.mirrors);
        let kept = (1.0 / (1.0 - DROPPED)) as f32;
        let mask: [f32; DETECTED + MIRRORS] = std::array::from_fn(|_| if random.unit() < DROPPED { 0.0 } else { kept });
        joined.iter_mut().zip(&mask).for_each(|(value, factor)| *value *= factor);

        let mut hidden = [0.0; UNITS];
        for (i, value) in hidden.iter_mut().enumerate() {
            let (weights, bias) = self.unit(i);
            *value = (dot_narrow(weights, &joined) + bias).max(0.0);
        }
        let top = &self.values[Self::TOP..];
        let error = error(dot_narrow(&top[..UNITS], &hidden) + top[UNITS]);
        let (of_detectors, rest) = gradient.split_at_mut(Self::HIDDEN);
        let (of_units, of_top) = rest.split_at_mut(Self::TOP - Self::HIDDEN);
        add_scaled_narrow(&mut of_top[..UNITS], error, &hidden);
        of_top[UNITS] += error;
        let mut back_to_joined = [0.0; DETECTED + MIRRORS];
        for (i, row) in of_units.chunks_mut(Self::UNIT).enumerate() {
            if hidden[i] > 0.0 {
                let back = error * top[i];
                add_scaled_narrow(&mut row[..Self::UNIT - 1], back, &joined);
                row[Self::UNIT - 1] += back;
                add_scaled_narrow(&mut back_to_joined, back, self.unit(i).0);
            }
        }
        for (i, row) in of_detectors.chunks_mut(Self::DETECTOR).enumerate() {
            for (cell, x) in input.cells.chunks(INPUT).enumerate() {
                let at = i * CELLS + cell;
                if joined[at] > 0.0 {
                    let back = back_to_joined[at] * mask[at];
                    add_scaled_narrow(&mut row[..INPUT], back, x);
                    row[INPUT] += back;
                }
            }
        }
    }

    fn step(&mut self, gradient: &[f32], rate: f32, decay: f32) {
        const MEAN: f32 = 0.9;
        const SQUARE: f32 = 0.999;
        self.steps += 1;
        let (mean_left, square_left) = (1.0 - MEAN.powi(self.steps), 1.0 - SQUARE.powi(self.steps));
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((value, &slope), (mean, square)) in self.values.iter_mut().zip(gradient).zip(moments) {
            *mean = MEAN * *mean + (1.0 - MEAN) * slope;
            *square = SQUARE * *square + (1.0 - SQUARE) * slope * slope;
            let direction = (*mean / mean_left) / ((*square / square_left).sqrt() + 1e-8);
            *value -= rate * (direction + decay * *value);
        }
    }

    fn into_cells(self, Inputs { channels, mirrors }: Inputs) -> Cells {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let detectors: Vec<(&[f32], f32)> = (0..DETECTORS).map(|i| self.detector(i)).collect();
        let units: Vec<(&[f32], f32)> = (0..UNITS).map(|i| self.unit(i)).collect();
        let matrix =
            |rows: &[(&[f32], f32)]| Matrix::from_rows(&rows.iter().map(|row| wide(row.0)).collect::<Vec<_>>());
        let biases = |rows: &[(&[f32], f32)]| rows.iter().map(|row| f64::from(row.1)).collect();
        Cells {
            detectors: matrix(&detectors),
            detector_bias: biases(&detectors),
            hidden: matrix(&units),
            hidden_bias: biases(&units),
            top: wide(&self.values[Self::TOP..Self::TOP + UNITS]),
            bias: f64::from(self.values[Self::TOP + UNITS]),
            channels,
            mirrors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facemill_classifier::backbone::FEATURES;

    type Crop = (Vec<f32>, [f32; MIRRORS]);

    /// Crops with noise. A channel is higher in those that are OK.
    fn drawn(count: usize, seed: u64) -> (Vec<Crop>, Vec<bool>) {
        let mut random = Random::seeded(seed);
        let crop = |_| {
            let mut features: Vec<f32> = (0..FEATURES).map(|_| 0.3 * random.normal() as f32).collect();
            let mirrors = std::array::from_fn(|_| random.unit() as f32);
            let ok = random.unit() < 0.5;
            features[3 * CELLS..4 * CELLS].iter_mut().for_each(|value| *value += if ok { 3.0 } else { 0.0 });
            ((features, mirrors), ok)
        };
        (0..count).map(crop).unzip()
    }

    fn fit(crops: &[Crop], ok: &[bool], steps: usize) -> Cells {
        let seen: Vec<Seen<'_>> = crops.iter().map(|(features, mirrors)| (&features[..], mirrors)).collect();
        let examples = Examples::balanced(Matrix::zeros(ok.len(), 0), ok.to_vec());
        let mirrors = Scale { mean: vec![0.5; MIRRORS], gain: vec![2.0; MIRRORS] };
        Cells::fit(&seen, &examples, 0.1, steps, 7, mirrors)
    }

    #[test]
    fn a_head_is_learnt_from_crops_alone() {
        let (crops, ok) = drawn(400, 1);
        let head = fit(&crops, &ok, 200);
        let (others, truth) = drawn(200, 2);
        let right = others
            .iter()
            .zip(&truth)
            .filter(|((features, mirrors), ok)| (head.score((features, mirrors)) > 0.0) == **ok);
        let share = right.count() as f64 / 200.0;
        assert!(share > 0.9, "{share}");
        let again = fit(&crops, &ok, 200);
        assert_eq!((again.hidden, again.top), (head.hidden, head.top), "the same crops give the same weights");
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (crops, _) = drawn(1, 3);
        let mut random = Random::seeded(4);
        let mut parameters = Parameters::start(&mut random);
        let channels = Scale { mean: vec![0.0; CHANNELS], gain: vec![1.0; CHANNELS] };
        let mirrors = Scale { mean: vec![0.5; MIRRORS], gain: vec![2.0; MIRRORS] };
        let input = input(&channels, &mirrors, (&crops[0].0, &crops[0].1));
        // The same seed drops the same inputs. With an error of 1, the gradient is that of the score.
        let score = |parameters: &Parameters| {
            let seen_by = std::cell::Cell::new(0.0);
            let error = |score| {
                seen_by.set(score);
                1.0
            };
            let mut gradient = vec![0.0; Parameters::LEN];
            parameters.add_gradient(&input, error, &mut Random::seeded(5), &mut gradient);
            (seen_by.get(), gradient)
        };
        let (_, gradient) = score(&parameters);
        for i in [0, 3, INPUT, 130, Parameters::HIDDEN + 5, Parameters::HIDDEN + 140, Parameters::TOP + 1] {
            // The score is piecewise linear in a weight: the step may be large.
            const H: f32 = 1e-3;
            parameters.values[i] += H;
            let above = score(&parameters).0;
            parameters.values[i] -= 2.0 * H;
            let below = score(&parameters).0;
            parameters.values[i] += H;
            let slope = (above - below) / (2.0 * H);
            assert!((slope - gradient[i]).abs() < 5e-3 * slope.abs().max(1.0), "{i}: {slope} {}", gradient[i]);
        }
    }
}
