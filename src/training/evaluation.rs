//! How good a classifier is on judged crops, with the uncertainty of each figure.
//!
//! Intervals are bootstrap intervals over people: crops of one person are alike, so that whole people are drawn.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::{Measures, Scored};
use super::random::Random;
use facemill_domain::ContentHash;

/// A judged crop with a score.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluatedCrop {
    pub crop: ContentHash,
    pub group: String,
    pub label: String,
    pub ok: bool,
    pub p_ok: f64,
    /// Pixels. None: unknown.
    pub size: Option<u32>,
    pub mirrored: f64,
    /// Whether the crop was chosen at random for the person.
    pub random: bool,
}

/// A figure with its 95 % interval. None: it is not defined, for example without OK crops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figure {
    pub value: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// A point of the curve: at this threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    pub threshold: f64,
    pub recall: f64,
    pub precision: f64,
}

/// Crops with a P(OK) in one tenth of 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct CalibrationBin {
    pub crops: usize,
    /// Mean P(OK).
    pub p_ok: f64,
    /// Share of OK.
    pub ok: f64,
}

/// Figures of a part of the crops.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slice {
    pub name: String,
    pub crops: usize,
    pub ok: usize,
    pub accuracy: Option<f64>,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
}

/// A crop on which model and person disagree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mistake {
    pub crop: ContentHash,
    pub label: String,
    pub ok: bool,
    pub p_ok: f64,
}

/// The figures of a classifier on judged crops.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub crops: usize,
    pub ok: usize,
    pub groups: usize,
    /// Figures at the threshold, and the confusion matrix.
    pub measures: Measures,
    pub accuracy: Figure,
    pub precision: Figure,
    pub recall: Figure,
    pub f1: Figure,
    pub auc: Figure,
    /// Area under the curve of precision over recall.
    pub average_precision: Figure,
    /// Expected calibration error: the mean distance of P(OK) from the share of OK, over tenths of P(OK).
    pub calibration_error: Figure,
    /// Figures of the crops that were chosen at random: those of the collection as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Slice>,
    pub curve: Vec<CurvePoint>,
    pub calibration: Vec<CalibrationBin>,
    pub by_size: Vec<Slice>,
    pub by_mirrored: Vec<Slice>,
    /// The labels with the most mistakes.
    pub by_label: Vec<Slice>,
    /// The largest first.
    pub mistakes: Vec<Mistake>,
}

const BOOTSTRAPS: usize = 400;
const CURVE_POINTS: usize = 200;
const BINS: usize = 10;
const LABELS: usize = 20;
pub const MISTAKES: usize = 24;
/// Lower bounds of the parts by size, in pixels, and by mirrored share.
const SIZES: [u32; 5] = [0, 128, 256, 512, 1024];
const SHARES: [f64; 5] = [0.0, 1e-9, 0.1, 0.25, 0.5];

impl Evaluation {
    /// Measures at this threshold. The same crops and the same seed give the same intervals.
    pub fn of(crops: &[EvaluatedCrop], threshold: f64, seed: u64) -> Self {
        let scored: Vec<Scored> = crops.iter().map(scored).collect();
        let mut groups: BTreeMap<&str, Vec<Scored>> = BTreeMap::new();
        crops.iter().for_each(|crop| groups.entry(&crop.group).or_default().push(self::scored(crop)));
        let groups: Vec<Vec<Scored>> = groups.into_values().collect();
        let [accuracy, precision, recall, f1, auc, average_precision, calibration_error] =
            figures(&scored, &groups, threshold, seed);
        let random: Vec<&EvaluatedCrop> = crops.iter().filter(|crop| crop.random).collect();
        Self {
            crops: crops.len(),
            ok: crops.iter().filter(|crop| crop.ok).count(),
            groups: groups.len(),
            measures: Measures::of(&scored, threshold),
            accuracy,
            precision,
            recall,
            f1,
            auc,
            average_precision,
            calibration_error,
            random: (!random.is_empty()).then(|| Slice::of("chosen at random", &random, threshold)),
            curve: curve(&scored),
            calibration: calibration_bins(&scored),
            by_size: by_size(crops, threshold),
            by_mirrored: by_mirrored(crops, threshold),
            by_label: by_label(crops, threshold),
            mistakes: mistakes(crops, threshold),
        }
    }
}

fn scored(crop: &EvaluatedCrop) -> Scored {
    Scored { p_ok: crop.p_ok, ok: crop.ok }
}

const FIGURES: usize = 7;

fn values(crops: &[Scored], threshold: f64) -> [Option<f64>; FIGURES] {
    let Measures { accuracy, precision, recall, f1, auc, .. } = Measures::of(crops, threshold);
    [accuracy, precision, recall, f1, auc, average_precision(crops), calibration_error(crops)]
}

/// The figures with the 2.5 % and 97.5 % quantiles over samples of groups.
fn figures(crops: &[Scored], groups: &[Vec<Scored>], threshold: f64, seed: u64) -> [Figure; FIGURES] {
    let mut random = Random::seeded(seed);
    let mut drawn: [Vec<f64>; FIGURES] = Default::default();
    let mut sample = Vec::with_capacity(crops.len());
    for _ in 0..BOOTSTRAPS {
        sample.clear();
        for _ in 0..groups.len() {
            sample.extend_from_slice(&groups[(random.unit() * groups.len() as f64) as usize]);
        }
        for (drawn, value) in drawn.iter_mut().zip(values(&sample, threshold)) {
            drawn.extend(value);
        }
    }
    let values = values(crops, threshold);
    std::array::from_fn(|i| {
        drawn[i].sort_by(f64::total_cmp);
        let quantile = |share: f64| drawn[i].get((share * drawn[i].len() as f64) as usize).copied();
        let defined = values[i].is_some();
        Figure { value: values[i], low: quantile(0.025).filter(|_| defined), high: quantile(0.975).filter(|_| defined) }
    })
}

/// The points of precision over recall, from the highest threshold down. Crops with equal scores pass together.
fn points(crops: &[Scored]) -> Vec<CurvePoint> {
    let mut sorted = crops.to_vec();
    sorted.sort_by(|a, b| b.p_ok.total_cmp(&a.p_ok));
    let all = sorted.iter().filter(|crop| crop.ok).count() as f64;
    let (mut ok, mut passed) = (0.0, 0.0);
    let point = |tied: &[Scored]| {
        ok += tied.iter().filter(|crop| crop.ok).count() as f64;
        passed += tied.len() as f64;
        CurvePoint { threshold: tied[0].p_ok, recall: ok / all, precision: ok / passed }
    };
    if all > 0.0 { sorted.chunk_by(|a, b| a.p_ok == b.p_ok).map(point).collect() } else { Vec::new() }
}

/// The mean precision, weighted by the steps of the recall. None without OK crops.
fn average_precision(crops: &[Scored]) -> Option<f64> {
    let points = points(crops);
    let mut before = 0.0;
    let step = |point: &CurvePoint| {
        let area = (point.recall - before) * point.precision;
        before = point.recall;
        area
    };
    (!points.is_empty()).then(|| points.iter().map(step).sum())
}

fn curve(crops: &[Scored]) -> Vec<CurvePoint> {
    let points = points(crops);
    let step = points.len().div_ceil(CURVE_POINTS).max(1);
    let mut shown: Vec<CurvePoint> = points.iter().step_by(step).copied().collect();
    if let Some(last) = points.last().filter(|last| shown.last() != Some(last)) {
        shown.push(*last);
    }
    shown
}

fn calibration_bins(crops: &[Scored]) -> Vec<CalibrationBin> {
    let mut bins = [CalibrationBin::default(); BINS];
    for crop in crops {
        let bin = &mut bins[((crop.p_ok * BINS as f64) as usize).min(BINS - 1)];
        bin.crops += 1;
        bin.p_ok += crop.p_ok;
        bin.ok += f64::from(u8::from(crop.ok));
    }
    for bin in bins.iter_mut().filter(|bin| bin.crops > 0) {
        bin.p_ok /= bin.crops as f64;
        bin.ok /= bin.crops as f64;
    }
    bins.to_vec()
}

fn calibration_error(crops: &[Scored]) -> Option<f64> {
    let error = |bin: &CalibrationBin| bin.crops as f64 * (bin.p_ok - bin.ok).abs();
    (!crops.is_empty()).then(|| calibration_bins(crops).iter().map(error).sum::<f64>() / crops.len() as f64)
}

impl Slice {
    fn of(name: impl Into<String>, crops: &[&EvaluatedCrop], threshold: f64) -> Self {
        let scored: Vec<Scored> = crops.iter().map(|crop| scored(crop)).collect();
        let Measures { accuracy, precision, recall, .. } = Measures::of(&scored, threshold);
        let ok = crops.iter().filter(|crop| crop.ok).count();
        Self { name: name.into(), crops: crops.len(), ok, accuracy, precision, recall }
    }
}

/// Slices of the crops by a number; the parts without crops are left out.
fn sliced(
    crops: &[EvaluatedCrop],
    threshold: f64,
    names: &[&str],
    part: impl Fn(&EvaluatedCrop) -> Option<usize>,
) -> Vec<Slice> {
    let in_part = |i: usize| crops.iter().filter(|crop| part(crop) == Some(i)).collect::<Vec<_>>();
    let slices = names.iter().enumerate().map(|(i, name)| Slice::of(*name, &in_part(i), threshold));
    slices.filter(|slice| slice.crops > 0).collect()
}

fn by_size(crops: &[EvaluatedCrop], threshold: f64) -> Vec<Slice> {
    let names = ["below 128 pixels", "128 to 255", "256 to 511", "512 to 1023", "1024 and more"];
    sliced(crops, threshold, &names, |crop| {
        SIZES.iter().rposition(|least| crop.size.is_some_and(|size| size >= *least))
    })
}

fn by_mirrored(crops: &[EvaluatedCrop], threshold: f64) -> Vec<Slice> {
    let names = ["nothing mirrored", "up to 10 %", "10 to 25 %", "25 to 50 %", "50 % and more"];
    sliced(crops, threshold, &names, |crop| SHARES.iter().rposition(|least| crop.mirrored >= *least))
}

fn is_mistake(crop: &EvaluatedCrop, threshold: f64) -> bool {
    (crop.p_ok >= threshold) != crop.ok
}

fn by_label(crops: &[EvaluatedCrop], threshold: f64) -> Vec<Slice> {
    let mut labels: BTreeMap<&str, Vec<&EvaluatedCrop>> = BTreeMap::new();
    for crop in crops.iter().filter(|crop| !crop.label.is_empty()) {
        labels.entry(&crop.label).or_default().push(crop);
    }
    let wrong = |crops: &[&EvaluatedCrop]| crops.iter().filter(|crop| is_mistake(crop, threshold)).count();
    let mut labels: Vec<(usize, &str, Vec<&EvaluatedCrop>)> = labels
        .into_iter()
        .map(|(label, crops)| (wrong(&crops), label, crops))
        .filter(|(wrong, ..)| *wrong > 0)
        .collect();
    labels.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    labels.iter().take(LABELS).map(|(_, label, crops)| Slice::of(*label, crops, threshold)).collect()
}

fn mistakes(crops: &[EvaluatedCrop], threshold: f64) -> Vec<Mistake> {
    let mut wrong: Vec<&EvaluatedCrop> = crops.iter().filter(|crop| is_mistake(crop, threshold)).collect();
    let distance = |crop: &EvaluatedCrop| (crop.p_ok - threshold).abs();
    wrong.sort_by(|a, b| distance(b).total_cmp(&distance(a)).then(a.crop.cmp(&b.crop)));
    let mistake =
        |crop: &&EvaluatedCrop| Mistake { crop: crop.crop, label: crop.label.clone(), ok: crop.ok, p_ok: crop.p_ok };
    wrong.iter().take(MISTAKES).map(mistake).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(number: u64, ok: bool, p_ok: f64) -> EvaluatedCrop {
        EvaluatedCrop {
            crop: ContentHash::of(&number.to_le_bytes()),
            group: format!("person {}", number / 5),
            label: format!("person {}", number / 5),
            ok,
            p_ok,
            size: Some(100 * (1 + number as u32 % 12)),
            mirrored: (number % 5) as f64 / 5.0,
            random: number.is_multiple_of(2),
        }
    }

    /// P(OK) is true: so many of the crops with it are OK.
    fn calibrated(crops: u64) -> Vec<EvaluatedCrop> {
        let mut random = Random::seeded(3);
        (0..crops)
            .map(|number| {
                let p_ok = random.unit();
                crop(number, random.unit() < p_ok, p_ok)
            })
            .collect()
    }

    #[test]
    fn figures_match_a_manual_count() {
        let crops: Vec<EvaluatedCrop> = [(0.9, true), (0.8, false), (0.7, true), (0.2, false)]
            .into_iter()
            .enumerate()
            .map(|(i, (p_ok, ok))| crop(i as u64, ok, p_ok))
            .collect();
        let found = Evaluation::of(&crops, 0.75, 1);
        assert_eq!((found.crops, found.ok, found.groups), (4, 2, 1));
        assert_eq!(
            (found.accuracy.value, found.precision.value, found.recall.value),
            (Some(0.5), Some(0.5), Some(0.5))
        );
        // Precision 1 at recall 0.5, and 2/3 at recall 1.
        assert!((found.average_precision.value.unwrap() - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        // In four bins: 0.1, 0.8, 0.3 and 0.2 off.
        assert!((found.calibration_error.value.unwrap() - 0.35).abs() < 1e-12);
        let wrong: Vec<f64> = found.mistakes.iter().map(|mistake| mistake.p_ok).collect();
        assert_eq!(wrong, [0.8, 0.7]);
        assert_eq!(found.by_mirrored.iter().map(|slice| slice.crops).sum::<usize>(), 4);
        assert_eq!(found.random.unwrap().crops, 2);
    }

    #[test]
    fn the_interval_covers_the_truth_and_narrows_with_more_people() {
        let width = |crops| {
            let found = Evaluation::of(&calibrated(crops), 0.5, 1);
            let Figure { value, low, high } = found.accuracy;
            let (value, low, high) = (value.unwrap(), low.unwrap(), high.unwrap());
            assert!(low <= value && value <= high, "{low} {value} {high}");
            // At a threshold of one half, three quarters of these are right.
            assert!((low..high).contains(&0.75), "{low} {high}");
            high - low
        };
        assert!(width(4000) < width(400) / 2.0);
        let found = Evaluation::of(&calibrated(4000), 0.5, 1);
        assert!(found.calibration_error.value < Some(0.03), "{:?}", found.calibration_error);
        assert!(found.curve.len() <= CURVE_POINTS + 1);
        assert_eq!(found, Evaluation::of(&calibrated(4000), 0.5, 1));
    }

    #[test]
    fn figures_without_crops_are_none() {
        let found = Evaluation::of(&[], 0.5, 1);
        assert_eq!((found.accuracy, found.average_precision), (Figure::default(), Figure::default()));
        let found = Evaluation::of(&[crop(1, false, 0.2)], 0.5, 1);
        assert_eq!((found.accuracy.value, found.recall.value, found.auc.low), (Some(1.0), None, None));
    }
}
