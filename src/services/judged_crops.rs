//! What people have said about the crops of a run, for training and measuring.
//!
//! The verdicts that count are OK and NG of somebody who looked at the crop. Left out are verdicts in bulk, also where
//! somebody agrees, undone and contradicting ones, placeholders, and NG because of the wrong person: nothing in the
//! picture says whose face it is.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::classifier::model::{self, MIRRORS};
use crate::dataset::face::FIELDS;
use crate::dataset::page::Order;
use crate::dataset::selection::label_of;
use crate::dataset::{Direction, Face, Index, IndexError, Query, QueryError, Sort};
use crate::domain::{ContentHash, Id, ImageFormat, Judgement, NgReason, RunName, Selection, View};
use crate::training::example::{Example, Side};
use crate::training::importance;
use crate::training::labels::MAX_CROPS;
use crate::vision::geometry::Square;
use crate::vision::quality;

#[derive(Debug, thiserror::Error)]
pub enum JudgedError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// A crop with its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedCrop {
    pub example: Example,
    pub format: ImageFormat,
    pub photo_id: Id,
    /// Empty: the photo has none.
    pub label: String,
    /// Width and height of the crop in pixels.
    pub size: u32,
    /// Share of the crop that is mirrored.
    pub mirrored: f64,
    /// P(OK) of the run's current classifier.
    pub p_ok: Option<f64>,
    pub by: String,
    pub selection: Selection,
}

impl JudgedCrop {
    pub fn side(&self) -> Side {
        Side::of(&self.example.group)
    }

    fn is_chosen_by_p_ok(&self) -> bool {
        matches!(self.selection, Selection::Uncertain | Selection::BestFirst | Selection::Suggested)
    }
}

/// Numbers of judged crops that neither train nor measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub in_bulk: u64,
    pub pending: u64,
    pub placeholder: u64,
    pub wrong_person: u64,
    /// Crops of several people.
    pub ambiguous: u64,
    /// Crops for training that have a near-duplicate in the test part.
    pub near_test: u64,
    /// Beyond the bound.
    pub too_many: u64,
}

/// The judged crops of a run, in the order of their hashes.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// The run that they are of.
    pub run: Option<RunName>,
    pub crops: Vec<JudgedCrop>,
    pub left_out: LeftOut,
}

impl Judged {
    /// The number of crops that P(OK) has chosen for the person.
    pub fn chosen_by_p_ok(&self) -> usize {
        self.crops.iter().filter(|judged| judged.is_chosen_by_p_ok()).count()
    }
}

/// Reads the judged crops from an index that is up to date.
///
/// # Errors
/// The index cannot be read.
pub fn judged_crops(index: &Index) -> Result<Judged, JudgedError> {
    let query = Query::parse("verdict in ('ok', 'ng', 'pending')", FIELDS)?;
    let order = Order { sort: Sort::Updated, direction: Direction::Ascending };
    let mut left_out = LeftOut::default();
    let mut by_crop: BTreeMap<ContentHash, Option<JudgedCrop>> = BTreeMap::new();
    // By the number of the near-duplicates: a group may be large, and most of it judged.
    let mut near_test: HashMap<u32, bool> = HashMap::new();
    index.each_face(&query, order, index.threshold(), |face| {
        let verdicts = index.verdicts_on(face.crop)?;
        let Some(last) = verdicts.last() else { return Ok(()) };
        let is_wrong_person = last.reason == Some(NgReason::WrongPerson);
        let verdict = match verdicts.judgement() {
            _ if face.is_placeholder() => Err(&mut left_out.placeholder),
            _ if verdicts.verdicts().iter().any(|verdict| verdict.view == View::Bulk) => Err(&mut left_out.in_bulk),
            Some(Judgement::Ng) if is_wrong_person => Err(&mut left_out.wrong_person),
            Some(Judgement::Ok) => Ok(true),
            Some(Judgement::Ng) => Ok(false),
            _ => Err(&mut left_out.pending),
        };
        let ok = match verdict {
            Ok(ok) => ok,
            Err(count) => {
                *count += 1;
                return Ok(());
            }
        };
        let (group, row) = (group(&face), index.row_of(&face.photo_id));
        let duplicates = row.and_then(|row| index.duplicates_number(row));
        if let (Side::Training, Some(row), Some(number)) = (Side::of(&group), row, duplicates) {
            let is_near_test = match near_test.entry(number) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => *new.insert(has_near_test(index, row)?),
            };
            if is_near_test {
                left_out.near_test += 1;
                return Ok(());
            }
        }
        let judged = JudgedCrop {
            example: Example { crop: face.crop, group, duplicates, ok, mirrors: mirrors(&face), importance: 1.0 },
            format: face.format,
            photo_id: face.photo_id.clone(),
            label: label_of(&face).to_owned(),
            size: face.size,
            mirrored: face.mirrored,
            p_ok: face.p_ok,
            by: last.by.clone(),
            selection: last.selection,
        };
        match by_crop.get_mut(&face.crop) {
            None => drop(by_crop.insert(face.crop, Some(judged))),
            Some(Some(known)) if known.example.group == judged.example.group => {}
            Some(ambiguous) => {
                *ambiguous = None;
                left_out.ambiguous += 1;
            }
        }
        Ok::<_, JudgedError>(())
    })?;
    let mut crops: Vec<JudgedCrop> = by_crop.into_values().flatten().collect();
    left_out.too_many = crops.len().saturating_sub(MAX_CROPS) as u64;
    crops.truncate(MAX_CROPS);
    weigh(&mut crops, index);
    Ok(Judged { run: Some(index.run().clone()), crops, left_out })
}

/// Gives the crops their importance, if P(OK) has chosen some of them for the person.
fn weigh(crops: &mut [JudgedCrop], index: &Index) {
    if !crops.iter().any(JudgedCrop::is_chosen_by_p_ok) {
        return;
    }
    let p_ok: Vec<Option<f32>> = crops.iter().map(|judged| judged.p_ok.map(|p_ok| p_ok as f32)).collect();
    let weights = importance::weights(&index.p_ok_of_all(), &p_ok);
    crops.iter_mut().zip(weights).for_each(|(judged, weight)| judged.example.importance = weight);
}

/// Whether one of the near-duplicates of a face belongs to the test part, judged or not: a later verdict changes nothing.
fn has_near_test(index: &Index, row: usize) -> Result<bool, IndexError> {
    for other in index.group_of(row)? {
        if index.face_of(other)?.is_some_and(|face| Side::of(&group(&face)) == Side::Test) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What crops have in common: the person, or else the original.
fn group(face: &Face) -> String {
    match label_of(face) {
        "" => format!("original {}", face.original),
        label => format!("label {label}"),
    }
}

/// The mirror features of a face, from its square.
fn mirrors(face: &Face) -> [f32; MIRRORS] {
    checked_mirrors(face).unwrap_or([0.0; MIRRORS])
}

/// The mirror features of a face, from its square.
///
/// # Errors
/// A share is not between 0 and 1.
pub fn checked_mirrors(face: &Face) -> Result<[f32; MIRRORS], String> {
    let square = Square { centre: face.centre, side: face.side, angle: face.angle };
    let grid = quality::mirrored(&square, face.width, face.height).grid;
    model::mirrors(face.mirrored, face.mirrored_head, &grid)
}
