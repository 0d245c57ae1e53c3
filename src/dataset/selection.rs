//! Selections: which faces of a run make a dataset.

use std::collections::{BTreeSet, HashSet};

use rusqlite::OptionalExtension;

use super::caps::{Beyond, CappedFaces, Caps};
use super::export_filter::export_filter;
use super::face::{FIELDS, Face, Number};
use super::page::{Order, sorted};
use super::rows;
use super::{Index, IndexError, Query, QueryError};
use crate::archive::versions::{LeftOut, VersionSelection};
use crate::domain::{ContentHash, Id, ImageFormat};

/// Which faces are selected.
#[derive(Debug, Clone)]
pub struct SelectionSettings {
    pub query: Query,
    /// Which faces come first, if there are more than wanted.
    pub order: Order,
    /// The order as the user gave it.
    pub sort: String,
    /// The most faces; none: all.
    pub number: Option<usize>,
    /// Width and height of the pictures to be made of the crops, pixels.
    pub size: u32,
    /// Whether smaller crops are selected, too.
    pub upscale: bool,
    /// Labels are told apart by name, or by id without one.
    pub caps: Caps,
    /// Whether placeholders are selected.
    pub placeholders: bool,
    /// Whether all faces of a group of duplicates are selected, and not only the best one of those that fulfil the query.
    pub duplicates: bool,
}

impl SelectionSettings {
    pub fn stored(&self) -> VersionSelection {
        VersionSelection {
            query: self.query.to_string(),
            sort: self.sort.clone(),
            number: self.number,
            size: self.size,
            upscale: self.upscale,
            per_label: self.caps.per_label,
            per_identity: self.caps.per_identity,
            placeholders: self.placeholders,
            duplicates: self.duplicates,
        }
    }
}

/// A face that is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedFace {
    pub photo_id: Id,
    pub crop: ContentHash,
    pub format: ImageFormat,
    pub label: String,
    /// Whether it has quality numbers, which its metadata then have.
    pub is_measured: bool,
}

impl SelectedFace {
    pub fn of(face: &Face) -> Self {
        let label = label_of(face).to_owned();
        let is_measured = face.quality.is_some();
        Self { photo_id: face.photo_id.clone(), crop: face.crop, format: face.format, label, is_measured }
    }
}

/// The selected faces in the order of their photo ids, and how many were left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub faces: Vec<SelectedFace>,
    /// Faces that fulfil the query, whatever their size.
    pub matching: u64,
    pub left_out: LeftOut,
}

#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("--max-per-identity: nobody has looked for identities in this run: `facemill identities` finds them")]
    NoIdentities,
    #[error("no face fulfils the query `{0}`: judge faces with `facemill curate`, or give another --where")]
    NoFaces(String),
    #[error(
        "all faces that fulfil the query are placeholders ({0}): pictures that several labels or very many photos share; \
         --placeholders takes them"
    )]
    OnlyPlaceholders(u64),
    #[error(
        "all faces that fulfil the query ({count}) are smaller than {size} pixels: give a smaller --size, or --upscale"
    )]
    TooSmall { count: u64, size: u32 },
}

impl Selection {
    /// Faces that were taken or left out.
    fn seen(&self) -> u64 {
        let LeftOut { too_small, copies, duplicates, beyond_label_limit, beyond_identity_limit, .. } = self.left_out;
        self.faces.len() as u64 + too_small + copies + duplicates + beyond_label_limit + beyond_identity_limit
    }

    /// The names of the labels, sorted: the position of a name is its class. Faces without a label share the empty name.
    pub fn labels(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.faces.iter().map(|face| face.label.as_str()).collect();
        names.into_iter().collect()
    }

    /// How many labels the faces have.
    pub fn label_count(&self) -> usize {
        self.labels().into_iter().filter(|name| !name.is_empty()).count()
    }
}

/// The name of a face's label, or its id without one.
pub fn label_of(face: &Face) -> &str {
    face.label_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(face.label_id.as_str())
}

impl Index {
    /// The faces that fulfil the query, in order, each with the number of its identity. A face that another process has just
    /// removed is left out.
    fn selectable(
        &self,
        query: &Query,
        order: Order,
        threshold: f64,
    ) -> Result<impl Iterator<Item = Result<(SelectedFace, Option<u32>), IndexError>>, IndexError> {
        let columns = &self.columns;
        let by_key = "SELECT crop, format FROM faces WHERE key = ?1";
        let mut by_key = self.connection.prepare_cached(by_key).map_err(|error| self.failed(error))?;
        // Without it, each face takes and releases the locks of the file.
        let reading = self.connection.unchecked_transaction().map_err(|error| self.failed(error))?;
        let rows = sorted(columns, &columns.matching(query, threshold), order, threshold);
        Ok(rows.into_iter().filter_map(move |row| {
            let _ = &reading;
            let read = |row: &rusqlite::Row<'_>| Ok((rows::hash(row, 0)?, rows::word(row, 1)?));
            let found = by_key.query_row([columns.key(row)], read).optional().map_err(|error| self.failed(error));
            let face = |(crop, format)| {
                let label = columns.label_name(columns.label(row)).to_owned();
                let (photo_id, is_measured) = (columns.id(row).clone(), columns.is_measured(row));
                let identity = Some(columns.number(Number::Identity, row)).filter(|identity| !identity.is_nan());
                (SelectedFace { photo_id, crop, format, label, is_measured }, identity.map(|identity| identity as u32))
            };
            found.map(|found| found.map(face)).transpose()
        }))
    }
}

/// Selects the first faces in the order of the settings, each crop once.
///
/// # Errors
/// The index cannot be read, or no face is left.
pub fn select(index: &Index, settings: &SelectionSettings) -> Result<Selection, SelectionError> {
    if settings.caps.per_identity.is_some() && index.identities_version()?.is_none() {
        return Err(SelectionError::NoIdentities);
    }
    let threshold = index.threshold();
    let wanted = match settings.placeholders {
        true => settings.query.clone(),
        false => Query::And(vec![settings.query.clone(), export_filter()?]),
    };
    let large_enough = Query::parse(&format!("size>={}", settings.size), FIELDS)?;
    let sized = if settings.upscale { wanted.clone() } else { Query::And(vec![wanted.clone(), large_enough]) };
    let matching = index.count(&wanted, threshold);
    let mut selection = Selection { matching, ..Selection::default() };
    selection.left_out.too_small = matching - index.count(&sized, threshold);
    let duplicates = match settings.duplicates {
        true => HashSet::new(),
        false => index.photos_of(&index.duplicates_among(&index.rows(&sized, threshold))),
    };
    let (mut crops, mut capped) = (HashSet::new(), CappedFaces::new(settings.caps));
    let most = settings.number.unwrap_or(usize::MAX);
    for found in index.selectable(&sized, settings.order, threshold)? {
        if selection.faces.len() >= most {
            selection.left_out.beyond_number = matching.saturating_sub(selection.seen());
            break;
        }
        let (face, identity) = found?;
        if crops.contains(&face.crop) {
            selection.left_out.copies += 1;
        } else if duplicates.contains(&face.photo_id) {
            selection.left_out.duplicates += 1;
        } else {
            match capped.take(face.label.clone(), identity) {
                Ok(()) => {
                    crops.insert(face.crop);
                    selection.faces.push(face);
                }
                Err(Beyond::Label) => selection.left_out.beyond_label_limit += 1,
                Err(Beyond::Identity) => selection.left_out.beyond_identity_limit += 1,
            }
        }
    }
    match selection.left_out.too_small {
        _ if !selection.faces.is_empty() => {}
        0 => {
            let count = index.count(&settings.query, threshold);
            return Err(match matching == 0 && count > 0 {
                true => SelectionError::OnlyPlaceholders(count),
                false => SelectionError::NoFaces(settings.query.to_string()),
            });
        }
        count => return Err(SelectionError::TooSmall { count, size: settings.size }),
    }
    selection.faces.sort_by(|a, b| a.photo_id.cmp(&b.photo_id));
    Ok(selection)
}
