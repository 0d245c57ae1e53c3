//! Histograms of the quality numbers, of the faces of an index or of those of a dataset.

use super::face::{Face, Number};
use super::histogram_part::part;
use super::index::Index;
use super::query::Query;

/// How faces are spread over the values of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualityHistogram {
    pub name: &'static str,
    pub meaning: &'static str,
    /// The ends of the first and the last part, which also have the faces below and above.
    pub ends: (&'static str, &'static str),
    /// Number of faces in each of [`QualityHistogram::BINS`] equal parts.
    pub counts: Vec<u64>,
    number: Number,
}

impl QualityHistogram {
    const BINS: usize = 30;
    const NUMBERS: [(Number, &'static str, &'static str); 15] = [
        (Number::Size, "0", "1500"),
        (Number::Mirrored, "0", "1"),
        (Number::Blur, "0", "1500"),
        (Number::FaceBlur, "0", "1500"),
        (Number::Exposure, "0", "1"),
        (Number::Contrast, "0", "0.5"),
        (Number::Saturation, "0", "1"),
        (Number::JpegQuality, "0", "100"),
        (Number::Yaw, "-1", "1"),
        (Number::Pitch, "0", "1"),
        (Number::EyesOpen, "0", "0.6"),
        (Number::MouthOpen, "0", "1"),
        (Number::Outlier, "0", "6"),
        (Number::Score, "0", "4"),
        (Number::Angle, "-60", "60"),
    ];

    /// One of each number, without faces.
    pub fn none() -> Vec<Self> {
        let empty = |(number, low, high): (Number, &'static str, &'static str)| {
            let field = number.field();
            Self { name: field.name, meaning: field.meaning, ends: (low, high), counts: vec![0; Self::BINS], number }
        };
        Self::NUMBERS.into_iter().map(empty).collect()
    }

    /// One of each number, of all faces.
    pub fn of_index(index: &Index, threshold: f64) -> Vec<Self> {
        let mut histograms = Self::none();
        for one in &mut histograms {
            one.counts = index.histogram(one.number, one.range(), Self::BINS, &Query::ALL, threshold);
        }
        histograms
    }

    /// Counts a face, if it has the number.
    pub fn add(&mut self, face: &Face) {
        if let Some(part) = part(self.number.of(face).into(), self.range(), Self::BINS) {
            self.counts[part] += 1;
        }
    }

    pub fn faces(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn range(&self) -> (f64, f64) {
        let (low, high) = self.ends;
        (low.parse().unwrap_or_default(), high.parse().unwrap_or(1.0))
    }
}
