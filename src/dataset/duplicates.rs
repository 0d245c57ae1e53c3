//! Groups of duplicates in the index, and what a search for duplicates compares.
//!
//! A group is known by crops: faces with the same crop are in the same group. The best face of a group is the first one
//! of its best crop that is there: when its photo ends again without a face, the next one takes its place.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use super::columns::Rows;
use super::group_place::{GroupPlace, group_place};
use super::index::{Index, IndexError};
use super::query::Query;
use super::rows;
use crate::archive::crop_groups::CropGroup;
use crate::domain::{ContentHash, Fingerprint, Id, ImageFormat};

/// What is compared of a crop, and what makes one better than another.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedCrop {
    pub crop: ContentHash,
    pub format: ImageFormat,
    /// Pixels.
    pub size: u32,
    pub mirrored_head: f64,
    /// None: the crop is not measured.
    pub fingerprint: Option<Fingerprint>,
    pub saturation: f64,
    pub face_blur: f64,
    /// 100 for originals that are no JPEG.
    pub jpeg_quality: u8,
}

impl Index {
    /// The groups that the index has, by their hash; none before the first search.
    pub fn duplicates_version(&self) -> Result<Option<ContentHash>, IndexError> {
        Ok(self.meta("duplicates")?.and_then(|version| version.parse().ok()))
    }

    /// Replaces the groups of duplicates.
    pub fn set_duplicates(&mut self, version: ContentHash, groups: &[CropGroup]) -> Result<(), IndexError> {
        let (places, before) = self.write(|transaction| {
            transaction.execute("DELETE FROM duplicates", [])?;
            let mut add = transaction.prepare_cached("INSERT OR IGNORE INTO duplicates VALUES (?1, ?2, ?3)")?;
            for (number, group) in groups.iter().enumerate() {
                for (place, crop) in group.crops.iter().enumerate() {
                    add.execute(params![crop.as_bytes(), number as i64, place as i64])?;
                }
            }
            let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('duplicates', ?1)")?;
            set.execute([version.to_string()])?;
            let sql = "SELECT key, of_group, place FROM duplicates JOIN faces USING (crop)";
            let mut read = transaction.prepare_cached(sql)?;
            let place = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, group_place(row, 1)?));
            read.query_map([], place)?.collect::<rusqlite::Result<Vec<(i64, Option<GroupPlace>)>>>()
        })?;
        self.columns.set_groups(&places);
        self.catch_up(before)
    }

    /// Those of the rows that are not the best of their group among the rows.
    pub fn duplicates_among(&self, rows: &Rows) -> Rows {
        self.columns.duplicates_among(&self.present(rows))
    }

    /// The photo of a row.
    pub fn photo_of(&self, row: usize) -> &Id {
        self.columns.id(row)
    }

    /// The photos of rows.
    pub fn photos_of(&self, rows: &Rows) -> HashSet<Id> {
        rows.iter().map(|row| self.columns.id(row).clone()).collect()
    }

    /// The number of the group that a row is in. Groups are numbered anew by each search.
    pub fn duplicates_number(&self, row: usize) -> Option<u32> {
        self.columns.group(row).map(|place| place.group)
    }

    /// The faces of the group that a row is in, as rows, the best first; only the row itself if it is in none.
    pub fn group_of(&self, row: usize) -> Result<Vec<usize>, IndexError> {
        let Some(GroupPlace { group, .. }) = self.columns.group(row) else { return Ok(vec![row]) };
        let read = || {
            let sql = "SELECT key FROM duplicates JOIN faces USING (crop) WHERE of_group = ?1 ORDER BY place, key";
            let mut read = self.connection.prepare_cached(sql)?;
            read.query_map([group], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()
        };
        let keys = read().map_err(|error| self.failed(error))?;
        Ok(keys.into_iter().filter_map(|key| self.row(key)).collect())
    }

    /// The crops of the faces that fulfil a query.
    pub fn crops_of(&self, query: &Query) -> Result<HashSet<ContentHash>, IndexError> {
        let read = || {
            let mut select = self.connection.prepare_cached("SELECT crop FROM faces WHERE key = ?1")?;
            let rows = self.columns.matching(query, self.threshold());
            let crop = |row| select.query_row([self.columns.key(row)], |row| rows::hash(row, 0)).optional();
            rows.iter().map(crop).filter_map(Result::transpose).collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| self.failed(error))
    }

    /// Visits all crops of the run once, in the order of their hashes.
    pub fn each_compared_crop(&self, mut visit: impl FnMut(ComparedCrop)) -> Result<(), IndexError> {
        let mut read = || {
            let mut select = self.connection.prepare_cached(
                "SELECT crop, format, size, mirrored_head, fingerprint, coalesce(saturation, 0),
                 coalesce(face_blur, 0), coalesce(jpeg_quality, 100) FROM faces GROUP BY crop ORDER BY crop",
            )?;
            let mut found = select.query([])?;
            while let Some(row) = found.next()? {
                visit(ComparedCrop {
                    crop: rows::hash(row, 0)?,
                    format: rows::word(row, 1)?,
                    size: row.get(2)?,
                    mirrored_head: row.get(3)?,
                    fingerprint: row.get::<_, Option<[u8; 16]>>(4)?.map(Fingerprint::from_bytes),
                    saturation: row.get(5)?,
                    face_blur: row.get(6)?,
                    jpeg_quality: row.get(7)?,
                });
            }
            Ok(())
        };
        read().map_err(|error| self.failed(error))
    }
}
