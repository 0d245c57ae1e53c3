//! Identities in the index: groups of crops that look like one person, and what a search for them compares.
//!
//! An identity is known by crops, as a group of duplicates is. Identities are numbered from 1, the largest first, anew
//! with each search.

use std::collections::HashMap;

use rusqlite::params;
use serde::Serialize;

use super::face::Number;
use super::index::{Index, IndexError};
use super::rows;
use super::wrong_person::WrongPerson;
use crate::archive::crop_groups::CropGroup;
use crate::domain::{ContentHash, Id, ImageFormat, Landmarks};

/// A crop whose face is compared with others.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedCrop {
    pub crop: ContentHash,
    pub format: ImageFormat,
    /// Pixels.
    pub size: u32,
    pub landmarks: Landmarks,
}

/// An identity and its labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentitySummary {
    pub identity: u32,
    pub faces: u64,
    /// The most frequent label of its faces, and how many have it.
    pub label: String,
    pub of_label: u64,
    /// How many labels its faces have.
    pub labels: u64,
}

/// A face whose label is probably another person's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspect {
    pub photo_id: Id,
    pub label: String,
    /// The label of the faces that it looks like.
    pub looks_like: String,
    pub identity: u32,
}

/// The identity of a face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaceIdentity {
    pub number: u32,
    /// Faces of the run that are in it, this one included.
    pub faces: u64,
    /// The label of the faces that it looks like, if its own is probably wrong.
    pub looks_like: Option<String>,
}

/// Pairs of faces in one identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PairCounts {
    pub pairs: u64,
    /// Those whose faces have the same label.
    pub of_one_label: u64,
}

impl Index {
    /// The identities that the index has, by their hash; none before the first search.
    pub fn identities_version(&self) -> Result<Option<ContentHash>, IndexError> {
        Ok(self.meta("identities")?.and_then(|version| version.parse().ok()))
    }

    /// Replaces the identities. The first group has number 1.
    pub fn set_identities(&mut self, version: ContentHash, groups: &[CropGroup]) -> Result<(), IndexError> {
        let numbered = (1u32..).zip(groups);
        let mut identities: Vec<(ContentHash, u32)> =
            numbered.flat_map(|(number, group)| group.crops.iter().map(move |crop| (*crop, number))).collect();
        // A table grows faster in the order of its keys.
        identities.sort_unstable();
        let (of_keys, before) = self.write(|transaction| {
            transaction.execute("DELETE FROM identities", [])?;
            let mut add = transaction.prepare_cached("INSERT OR IGNORE INTO identities VALUES (?1, ?2)")?;
            for (crop, identity) in &identities {
                add.execute(params![crop.as_bytes(), identity])?;
            }
            let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('identities', ?1)")?;
            set.execute([version.to_string()])?;
            let mut read =
                transaction.prepare_cached("SELECT key, identity FROM identities JOIN faces USING (crop)")?;
            let of_key = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            read.query_map([], of_key)?.collect::<rusqlite::Result<Vec<(i64, u32)>>>()
        })?;
        self.columns.set_identities(&of_keys);
        self.catch_up(before)
    }

    /// The identity of a row; none if its face looks like no other one.
    pub fn identity_of(&self, row: usize) -> Option<FaceIdentity> {
        let number = |row| self.columns.number(Number::Identity, row);
        let own = Some(number(row)).filter(|own| !own.is_nan())?;
        let mut faces = 0;
        self.columns.present().each(|other| faces += u64::from(number(other) == own));
        let wrong = self.columns.wrong_persons().iter().find(|wrong| wrong.row == row);
        let looks_like = wrong.map(|wrong| self.columns.label_name(wrong.looks_like).to_owned());
        Some(FaceIdentity { number: own as u32, faces, looks_like })
    }

    /// The faces whose label disagrees with their look, in the order of their photo ids.
    pub fn suspects(&self) -> Vec<Suspect> {
        let suspect = |wrong: &WrongPerson| Suspect {
            photo_id: self.columns.id(wrong.row).clone(),
            label: self.columns.label_name(self.columns.label(wrong.row)).to_owned(),
            looks_like: self.columns.label_name(wrong.looks_like).to_owned(),
            identity: self.columns.number(Number::Identity, wrong.row) as u32,
        };
        let mut suspects: Vec<Suspect> = self.columns.wrong_persons().iter().map(suspect).collect();
        suspects.sort_by(|a, b| a.photo_id.cmp(&b.photo_id));
        suspects
    }

    /// The first `limit` identities, and the pairs of faces in all of them.
    pub fn identity_summaries(&self, limit: usize) -> (Vec<IdentitySummary>, PairCounts) {
        let mut labels: HashMap<(u32, u64), u64> = HashMap::new();
        for face in self.columns.labelled_faces() {
            *labels.entry((face.identity, face.label)).or_default() += 1;
        }
        let (mut pairs, mut counts) = (PairCounts::default(), HashMap::<u32, Vec<(u64, u64)>>::new());
        for ((identity, label), count) in labels {
            pairs.of_one_label += count * (count - 1) / 2;
            counts.entry(identity).or_default().push((count, label));
        }
        let mut identities: Vec<u32> = counts.keys().copied().collect();
        identities.sort_unstable();
        let mut summaries = Vec::new();
        for identity in identities {
            let of_identity = &counts[&identity];
            let faces: u64 = of_identity.iter().map(|(count, _)| count).sum();
            pairs.pairs += faces * (faces - 1) / 2;
            if summaries.len() >= limit {
                continue;
            }
            let named = of_identity.iter().map(|(count, label)| (*count, self.columns.label_name(*label)));
            let most = named.max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(a.1)));
            let (of_label, label) = most.unwrap_or_default();
            let (label, labels) = (label.to_owned(), of_identity.len() as u64);
            summaries.push(IdentitySummary { identity, faces, label, of_label, labels });
        }
        (summaries, pairs)
    }

    /// Visits all crops of the run once, in the order of their hashes.
    pub fn each_embedded_crop(&self, mut visit: impl FnMut(EmbeddedCrop)) -> Result<(), IndexError> {
        let mut read = || {
            let sql = "SELECT crop, format, size, landmarks FROM faces GROUP BY crop ORDER BY crop";
            let mut select = self.connection.prepare_cached(sql)?;
            let mut found = select.query([])?;
            while let Some(row) = found.next()? {
                visit(EmbeddedCrop {
                    crop: rows::hash(row, 0)?,
                    format: rows::word(row, 1)?,
                    size: row.get(2)?,
                    landmarks: rows::landmarks(row, 3)?,
                });
            }
            Ok(())
        };
        read().map_err(|error| self.failed(error))
    }
}
