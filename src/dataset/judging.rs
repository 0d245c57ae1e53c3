//! What a page for judging asks of the index: sets of faces and their orders, counts by status and size, pictures.

use rusqlite::{OptionalExtension, Row};

use super::columns::Rows;
use super::face::{Face, FaceStatus, Number};
use super::index::{Index, IndexError};
use super::page::{self, Cursor, Order};
use super::query::Query;
use super::rows;
use super::suggested::Rest;
use crate::domain::{ContentHash, Id, ImageFormat};

/// Numbers of faces by status, in the order of [`FaceStatus::ALL`].
pub type ByStatus = [u64; FaceStatus::ALL.len()];

/// Numbers of faces by status, and the same of those that are large enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusCounts {
    pub all: ByStatus,
    /// Of the faces with at least so many pixels: see [`StatusCounts::SIZES`].
    pub by_size: [ByStatus; Self::SIZES.len()],
}

impl StatusCounts {
    /// Widths of crops in pixels.
    pub const SIZES: [u32; 3] = [256, 512, 1024];

    pub fn total(&self) -> u64 {
        self.all.iter().sum()
    }
}

impl Index {
    /// Changes when rows have other numbers than before.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The faces that fulfil the query, as a set of rows of this generation.
    pub fn rows(&self, query: &Query, threshold: f64) -> Rows {
        self.columns.matching(query, threshold)
    }

    /// Those of the rows that are still there and that nobody has judged.
    pub fn unjudged(&self, within: &Rows) -> Rows {
        let present = within.clone().and(self.columns.present());
        let judged = self.columns.judged(&present);
        present.minus(&judged)
    }

    /// All faces that nobody has judged.
    pub fn all_unjudged(&self) -> Rows {
        self.unjudged(self.columns.present())
    }

    /// Those of the rows that are still there.
    pub fn present(&self, within: &Rows) -> Rows {
        within.clone().and(self.columns.present())
    }

    /// Those of the rows whose last verdict is another person's.
    pub fn judged_by_others(&self, within: &Rows, person: &str) -> Rows {
        self.columns.judged_by_others(within, person)
    }

    /// The row of the face with this key, if it is still there.
    pub fn row(&self, key: i64) -> Option<usize> {
        self.columns.row(key)
    }

    /// The row of a photo's face.
    pub fn row_of(&self, photo: &Id) -> Option<usize> {
        self.columns.row_of(photo)
    }

    /// The key of a row: it names the face for the life of the file.
    pub fn key(&self, row: usize) -> i64 {
        self.columns.key(row)
    }

    /// The first `limit` of the rows after `after`, in order.
    pub fn first(&self, rows: &Rows, order: Order, threshold: f64, after: Option<&Cursor>, limit: usize) -> Vec<usize> {
        page::select(&self.columns, rows, order, threshold, after, limit).0
    }

    /// Adds a suggested order of faces by their keys, and returns its number for [`super::Sort::Suggested`].
    pub fn add_suggested(&mut self, keys: &[i64], rest: Rest) -> u64 {
        self.columns.suggested.add(keys, rest)
    }

    /// The number of the last suggested order; 0 if there is none.
    pub fn suggested(&self) -> u64 {
        self.columns.suggested.latest()
    }

    /// How many faces the last suggested order names, and how many of them nobody has judged.
    pub fn suggested_left(&self) -> (u64, u64) {
        let unjudged = self.all_unjudged();
        let (mut all, mut left) = (0, 0);
        for key in self.columns.suggested.keys() {
            all += 1;
            left += u64::from(self.row(key).is_some_and(|row| unjudged.contains(row)));
        }
        (all, left)
    }

    /// The place of a row in an order.
    pub fn cursor(&self, order: Order, threshold: f64, row: usize) -> Cursor {
        page::cursor(&self.columns, order, threshold, row)
    }

    /// The face of a row; none if another process has just removed it.
    pub fn face_of(&self, row: usize) -> Result<Option<Face>, IndexError> {
        self.reader()?(row)
    }

    /// The keys of the faces with this crop, ascending.
    pub fn keys_of_crop(&self, crop: ContentHash) -> Result<Vec<i64>, IndexError> {
        let read = || {
            let mut read = self.connection.prepare_cached("SELECT key FROM faces WHERE crop = ?1 ORDER BY key")?;
            read.query_map([crop.as_bytes()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    /// The format of a crop, and its width in pixels; none if no face has it.
    pub fn crop_picture(&self, crop: ContentHash) -> Result<Option<(ImageFormat, u32)>, IndexError> {
        let read = || {
            let mut read = self.connection.prepare_cached("SELECT format, size FROM faces WHERE crop = ?1 LIMIT 1")?;
            read.query_row([crop.as_bytes()], |row| Ok((rows::word(row, 0)?, row.get(1)?))).optional()
        };
        read().map_err(|error| self.failed(error))
    }

    /// The format of an original, and its size in bytes; none if no face has it.
    pub fn original_picture(&self, original: ContentHash) -> Result<Option<(ImageFormat, u64)>, IndexError> {
        let read = || {
            let sql = "SELECT original_format, original_bytes FROM faces WHERE original = ?1 LIMIT 1";
            let mut read = self.connection.prepare_cached(sql)?;
            let picture = |row: &Row<'_>| Ok((rows::word(row, 0)?, row.get::<_, i64>(1)? as u64));
            read.query_row([original.as_bytes()], picture).optional()
        };
        read().map_err(|error| self.failed(error))
    }

    /// How the faces that fulfil the query divide by status and size.
    pub fn status_counts(&self, query: &Query, threshold: f64) -> StatusCounts {
        let mut counts = StatusCounts::default();
        let rows = self.columns.matching(query, threshold);
        self.columns.each_status(&rows, threshold as f32, |row, status| {
            counts.all[status as usize] += 1;
            let size = self.columns.number(Number::Size, row);
            for (least, by_status) in StatusCounts::SIZES.iter().zip(&mut counts.by_size) {
                by_status[status as usize] += u64::from(size >= *least as f32);
            }
        });
        counts
    }

    /// How many of the rows have a P(OK) in each of `bins` equal parts of 0 to 1, and how many of them have one at or
    /// above `p_ok` or below it.
    pub fn p_ok_histogram(&self, rows: &Rows, p_ok: f64, bins: usize) -> (Vec<u64>, u64, u64) {
        let (mut counts, mut above, mut below) = (vec![0; bins.max(1)], 0, 0);
        let last = counts.len() - 1;
        rows.each(|row| {
            let value = self.columns.number(Number::POk, row);
            if value.is_nan() {
                return;
            }
            counts[((value * (last + 1) as f32) as usize).min(last)] += 1;
            match value >= p_ok as f32 {
                true => above += 1,
                false => below += 1,
            }
        });
        (counts, above, below)
    }
}
