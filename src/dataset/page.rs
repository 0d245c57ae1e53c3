//! Pages of faces in an order, from one key to the next.

use std::fmt;
use std::str::FromStr;

use super::columns::{Columns, Rows};
use super::face::{Face, Number};
use super::query::FieldType;
use super::suggested::Rest;
use crate::domain::Id;

/// What faces are sorted by. Equal faces are in the order of their photo ids; faces without a prediction come last in
/// both directions of a sort by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Id,
    /// When the index learned of the face's last ending.
    Updated,
    /// When the photo was published; faces without a time come first.
    Published,
    /// Distance of P(OK) from the threshold: the most uncertain first.
    Uncertainty,
    /// In an order that the seed determines; no query names it.
    Random(u64),
    /// In the suggested order of this number ([`super::suggested`]); no query names it.
    Suggested(u64),
    By(Number),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a sort: expected one of {}; `-` before the name sorts in descending order", sorts().join(", "))]
pub struct UnknownSort {
    name: String,
}

fn sorts() -> Vec<&'static str> {
    let own = ["id", "updated", "published", "uncertainty"];
    own.into_iter().chain(sortable().map(|number| number.field().name)).collect()
}

/// Flags are no sorts.
fn sortable() -> impl Iterator<Item = Number> {
    Number::ALL.into_iter().filter(|number| number.field().kind == FieldType::Number)
}

/// A sort with its direction, `p_ok` or `-p_ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub sort: Sort,
    pub direction: Direction,
}

impl FromStr for Order {
    type Err = UnknownSort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, direction) = match text.strip_prefix('-') {
            Some(name) => (name, Direction::Descending),
            None => (text, Direction::Ascending),
        };
        let sort = match name {
            "id" => Sort::Id,
            "updated" => Sort::Updated,
            "published" => Sort::Published,
            "uncertainty" => Sort::Uncertainty,
            _ => {
                let number = sortable().find(|number| number.field().name == name);
                Sort::By(number.ok_or_else(|| UnknownSort { name: text.to_owned() })?)
            }
        };
        Ok(Self { sort, direction })
    }
}

/// The place of a face in an order. As text it is opaque and safe in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    rank: u64,
    id: Id,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cursor of a page")]
pub struct BadCursor(String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.rank)?;
        self.id.as_str().bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadCursor(text.chars().take(80).collect());
        if !text.is_ascii() || text.len() < 16 || !text.len().is_multiple_of(2) {
            return Err(bad());
        }
        let (rank, id) = text.split_at(16);
        let rank = u64::from_str_radix(rank, 16).map_err(|_| bad())?;
        let bytes = (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16));
        let bytes = bytes.collect::<Result<Vec<u8>, _>>().map_err(|_| bad())?;
        Ok(Self { rank, id: Id::new(String::from_utf8(bytes).map_err(|_| bad())?) })
    }
}

/// Some faces in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub faces: Vec<Face>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

/// Numbers in the order of the floats.
fn ordered(value: f32) -> u64 {
    let bits = value.to_bits();
    u64::from(if bits >> 31 == 0 { bits | 1 << 31 } else { !bits })
}

/// The distance of P(OK) from the threshold; NaN without a P(OK).
fn uncertainty(columns: &Columns, threshold: f64, row: usize) -> f32 {
    (columns.number(Number::POk, row) - threshold as f32).abs()
}

fn rank(columns: &Columns, order: Order, threshold: f64, row: usize) -> u64 {
    let ordered = |value: f32| match (value.is_nan(), order.direction) {
        (false, _) => ordered(value),
        (true, Direction::Ascending) => u64::MAX,
        (true, Direction::Descending) => 0,
    };
    match order.sort {
        Sort::Id => columns.id_rank(row),
        Sort::Updated => columns.key(row) as u64,
        Sort::Published => (columns.published(row) as u64) ^ (1 << 63),
        Sort::Uncertainty => ordered(uncertainty(columns, threshold, row)),
        Sort::Random(seed) => scattered(columns.key(row) as u64 ^ seed),
        Sort::Suggested(number) => match columns.suggested.place(number, columns.key(row)) {
            Ok(place) => u64::from(place),
            // After all that have a place.
            Err(Rest::Uncertain) => (1 << 63) | ordered(uncertainty(columns, threshold, row)),
            Err(Rest::Random) => (1 << 63) | scattered(columns.key(row) as u64) >> 1,
        },
        Sort::By(number) => ordered(columns.number(number, row)),
    }
}

/// The place of a row in an order.
pub fn cursor(columns: &Columns, order: Order, threshold: f64, row: usize) -> Cursor {
    Cursor { rank: rank(columns, order, threshold, row), id: columns.id(row).clone() }
}

/// Numbers that look random and differ for different inputs (SplitMix64, Steele et al. 2014).
pub fn scattered(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first `limit` of the rows after `after`, in order, and the cursor of the last one if there are more.
pub fn select(
    columns: &Columns,
    rows: &Rows,
    order: Order,
    threshold: f64,
    after: Option<&Cursor>,
    limit: usize,
) -> (Vec<usize>, Option<Cursor>) {
    let ascending = order.direction == Direction::Ascending;
    let flip = |rank: u64| if ascending { rank } else { !rank };
    let start = after.map(|cursor| (flip(cursor.rank), &cursor.id));
    if limit == 0 {
        return (Vec::new(), None);
    }
    let mut kept: Vec<Candidate<'_>> = Vec::new();
    let capacity = (4 * limit).max(4096);
    // No row with a higher rank is in the page. Ranks alone decide about most rows.
    let (first, mut last) = (start.map_or(0, |(rank, _)| rank), u64::MAX);
    let mut more = false;
    rows.each(|row| {
        let rank = flip(rank(columns, order, threshold, row));
        if rank < first || rank > last {
            more |= rank > last;
            return;
        }
        let candidate = Candidate { rank, id: columns.id(row), row, ascending };
        if start.is_some_and(|(rank, id)| candidate <= Candidate { rank, id, row, ascending }) {
            return;
        }
        kept.push(candidate);
        if kept.len() == capacity {
            last = keep_least(&mut kept, limit);
            more = true;
        }
    });
    if kept.len() > limit {
        keep_least(&mut kept, limit);
        more = true;
    }
    kept.sort_unstable();
    let next = kept.last().filter(|_| more).map(|last| Cursor { rank: flip(last.rank), id: last.id.clone() });
    (kept.into_iter().map(|candidate| candidate.row).collect(), next)
}

/// Keeps the `limit` least of more candidates, and returns the highest rank of these.
fn keep_least(candidates: &mut Vec<Candidate<'_>>, limit: usize) -> u64 {
    let (_, last, _) = candidates.select_nth_unstable(limit - 1);
    let rank = last.rank;
    candidates.truncate(limit);
    rank
}

/// All of the rows in order.
pub fn sorted(columns: &Columns, rows: &Rows, order: Order, threshold: f64) -> Vec<usize> {
    let ascending = order.direction == Direction::Ascending;
    let flip = |rank: u64| if ascending { rank } else { !rank };
    let candidate = |row| {
        let rank = flip(rank(columns, order, threshold, row));
        Candidate { rank, id: columns.id(row), row, ascending }
    };
    let mut candidates: Vec<Candidate<'_>> = rows.iter().map(candidate).collect();
    candidates.sort_unstable();
    candidates.into_iter().map(|candidate| candidate.row).collect()
}

/// A row on its way into a page. Orders by rank, then by id in the page's direction.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    rank: u64,
    id: &'a Id,
    row: usize,
    ascending: bool,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let ids = || self.id.cmp(other.id);
        self.rank.cmp(&other.rank).then_with(|| if self.ascending { ids() } else { ids().reverse() })
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_order() {
        let values = [f32::NEG_INFINITY, -3.5, -0.0, 0.0, 1e-9, 0.5, 0.50001, 7.0, f32::INFINITY];
        assert!(values.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
    }

    #[test]
    fn cursors_and_orders_round_trip() {
        for id in ["", "4711", "a/b é"] {
            let cursor = Cursor { rank: 0x0123_4567_89ab_cdef, id: id.into() };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "xyz", "0123456789abcdef0", "0123456789abcdefzz", "0123456789abcdefff", "ééééééééééé"]
        {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
        assert_eq!("-p_ok".parse(), Ok(Order { sort: Sort::By(Number::POk), direction: Direction::Descending }));
        assert!("moon".parse::<Order>().unwrap_err().to_string().contains("uncertainty, p_ok, size"));
    }
}
