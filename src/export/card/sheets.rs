//! Contact sheets: faces that show what a dataset looks like, and its most unusual ones.

use crate::dataset::face::Number;
use crate::domain::{ContentHash, Id, ImageFormat};
use crate::export::entry::Entry;

/// Faces of the first sheet, evenly spread over the dataset.
const SPREAD: usize = 60;
/// Faces of each of the others.
const EXTREME: usize = 12;

/// The sheets besides the first one: a title, a number, and whether its highest values count.
const EXTREMES: [(&str, Number, bool); 4] = [
    ("Least sharp", Number::FaceBlur, false),
    ("Most mirrored", Number::Mirrored, true),
    ("Most unusual landmarks", Number::Outlier, true),
    ("Lowest P(OK)", Number::POk, false),
];

/// Faces under a title.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    pub title: &'static str,
    /// The number by which they were picked.
    pub number: Option<&'static str>,
    pub faces: Vec<SheetFace>,
}

/// A face of a sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct SheetFace {
    pub photo_id: Id,
    pub label: String,
    pub crop: ContentHash,
    pub format: ImageFormat,
    /// Of the number by which it was picked; 0 if there is none.
    pub value: f32,
}

/// Picks the faces while they pass by.
pub struct SheetPicker {
    of: usize,
    seen: usize,
    spread: Vec<SheetFace>,
    extremes: [Vec<SheetFace>; EXTREMES.len()],
}

impl SheetPicker {
    /// `of`: how many faces will pass by.
    pub fn new(of: usize) -> Self {
        Self { of, seen: 0, spread: Vec::new(), extremes: Default::default() }
    }

    pub fn add(&mut self, entry: &Entry) {
        let face = &entry.face;
        let picked = |value| SheetFace {
            photo_id: face.photo_id.clone(),
            label: entry.label.clone(),
            crop: face.crop,
            format: face.format,
            value,
        };
        let wanted = self.of.min(SPREAD);
        if self.spread.len() < wanted && self.seen == self.spread.len() * self.of / wanted {
            self.spread.push(picked(0.0));
        }
        self.seen += 1;
        for ((_, number, is_highest), faces) in EXTREMES.iter().zip(&mut self.extremes) {
            let value = number.of(face);
            let goes_before = |other: &SheetFace| if *is_highest { value > other.value } else { value < other.value };
            // Of equal faces, the first one is before.
            let at = faces.partition_point(|other| !goes_before(other));
            // A share of 0 is not mirrored at all.
            if value.is_nan() || at >= EXTREME || (*is_highest && value <= 0.0) {
                continue;
            }
            faces.insert(at, picked(value));
            faces.truncate(EXTREME);
        }
    }

    /// The sheets that have faces.
    pub fn finish(self) -> Vec<Sheet> {
        let spread = Sheet { title: "Faces, evenly spread over the dataset", number: None, faces: self.spread };
        let extreme = |((title, number, _), faces): (&(&'static str, Number, bool), _)| Sheet {
            title,
            number: Some(number.field().name),
            faces,
        };
        let extremes = EXTREMES.iter().zip(self.extremes).map(extreme);
        std::iter::once(spread).chain(extremes).filter(|sheet| !sheet.faces.is_empty()).collect()
    }
}
