//! The candidate query: photos with exactly one labelled face, latest face first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;

use super::error::SourceError;
use super::mapping::{Role, SourceRow};
use super::spool::RowSpool;
use super::timestamp::Timestamp;
use crate::domain::{Candidate, Id};

/// A compact id. Numbers sort numerically and before texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdKey {
    Number(i64),
    Text(Box<str>),
}

impl IdKey {
    pub fn new(text: &str) -> Self {
        let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
        let plain = matches!(digits, [b'1'..=b'9', ..] | [b'0']) && text != "-0";
        match text.parse() {
            Ok(number) if plain => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

impl From<&IdKey> for Id {
    fn from(key: &IdKey) -> Self {
        match key {
            IdKey::Number(number) => Id::from(*number),
            IdKey::Text(text) => Id::new(text.clone()),
        }
    }
}

struct LabelledFace {
    id: IdKey,
    photo: IdKey,
    label: IdKey,
    updated: Timestamp,
}

/// Collects the rows of the three tables in any order and runs the query. Labelled faces and labels are kept as they
/// are; photos are compressed.
#[derive(Default)]
pub struct CandidateBuilder {
    faces: Vec<LabelledFace>,
    photos: RowSpool<4>,
    labels: HashMap<IdKey, Option<Box<str>>>,
}

impl CandidateBuilder {
    pub fn add(&mut self, role: Role, row: SourceRow<'_>) -> Result<(), SourceError> {
        match role {
            Role::Faces => self.add_face(&row),
            Role::Photos if row[0].is_some() => self
                .photos
                .push(&row)
                .map_err(|error| SourceError::Io { what: "cannot compress the photos".into(), error })?,
            Role::Photos => {}
            Role::Labels => self.add_label(&row)?,
        }
        Ok(())
    }

    /// Faces without an id, photo or label are ignored: they join nothing.
    fn add_face(&mut self, row: &SourceRow<'_>) {
        if let [Some(id), Some(photo), Some(label), updated] = row {
            self.faces.push(LabelledFace {
                id: IdKey::new(id),
                photo: IdKey::new(photo),
                label: IdKey::new(label),
                updated: Timestamp::parse(updated.as_deref()),
            });
        }
    }

    fn add_label(&mut self, row: &SourceRow<'_>) -> Result<(), SourceError> {
        let [Some(id), name, ..] = row else { return Ok(()) };
        match self.labels.entry(IdKey::new(id)) {
            Entry::Occupied(_) => Err(SourceError::Contradiction(format!("the dump contains label {id} twice"))),
            Entry::Vacant(free) => {
                free.insert(name.as_deref().map(Into::into));
                Ok(())
            }
        }
    }

    /// Returns the candidates by `faces.updated_at` descending (NULL first, as in PostgreSQL), then `faces.id`.
    pub fn finish(self) -> Result<Vec<Candidate>, SourceError> {
        let Self { faces, photos, labels } = self;
        let mut only: HashMap<&IdKey, Option<&LabelledFace>> = HashMap::new();
        for face in &faces {
            only.entry(&face.photo).and_modify(|only| *only = None).or_insert(Some(face));
        }
        only.retain(|_, face| face.is_some());

        let mut found: HashSet<&IdKey> = HashSet::new();
        let mut rows: Vec<(&LabelledFace, Candidate)> = Vec::with_capacity(only.len());
        photos.unpack(|[id, source_url, photo_url, posted_at]| {
            let id = IdKey::new(id.as_deref().unwrap_or_default());
            let Some((key, Some(face))) = only.get_key_value(&id) else { return Ok(()) };
            if !found.insert(key) {
                return Err(UnpackError::Duplicate(Id::from(&id)));
            }
            let Some(name) = labels.get(&face.label) else { return Ok(()) };
            let candidate = Candidate {
                photo_id: Id::from(&id),
                face_id: Id::from(&face.id),
                label_id: Id::from(&face.label),
                label_name: name.as_deref().map(str::to_owned),
                photo_url: photo_url.unwrap_or_default().into_owned(),
                source_url: source_url.map(Into::into),
                posted_at: posted_at.map(Into::into),
                source: None,
                columns: Default::default(),
            };
            rows.push((face, candidate));
            Ok(())
        })?;
        rows.sort_by(|(a, _), (b, _)| b.updated.cmp(&a.updated).then_with(|| a.id.cmp(&b.id)));
        Ok(rows.into_iter().map(|(_, candidate)| candidate).collect())
    }
}

/// Why reading the photos back failed.
enum UnpackError {
    Io(io::Error),
    Duplicate(Id),
}

impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<UnpackError> for SourceError {
    fn from(failed: UnpackError) -> Self {
        match failed {
            UnpackError::Io(error) => Self::Io { what: "cannot decompress the photos".into(), error },
            UnpackError::Duplicate(id) => Self::Contradiction(format!("the dump contains photo {id} twice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&'static str]) -> SourceRow<'static> {
        std::array::from_fn(|i| values.get(i).filter(|value| **value != "NULL").map(|value| (*value).into()))
    }

    fn add(builder: &mut CandidateBuilder, role: Role, rows: &[&[&'static str]]) {
        for values in rows {
            builder.add(role, row(values)).unwrap();
        }
    }

    fn faces_of(builder: CandidateBuilder) -> Vec<String> {
        builder.finish().unwrap().iter().map(|candidate| candidate.face_id.to_string()).collect()
    }

    /// One case of the join per row.
    #[test]
    fn query_joins_like_sql() {
        let mut builder = CandidateBuilder::default();
        let photos: Vec<[&str; 4]> =
            ["1", "2", "3", "4", "5", "6"].into_iter().map(|id| [id, "NULL", "http://x", "NULL"]).collect();
        for photo in &photos {
            builder.add(Role::Photos, row(photo)).unwrap();
        }
        add(
            &mut builder,
            Role::Faces,
            &[
                &["10", "1", "7", "2016-01-01 10:00:00"],    // one labelled face: a candidate
                &["11", "1", "NULL", "2019-01-01 00:00:00"], // an unlabelled face does not matter
                &["12", "2", "7", "2016-01-01 10:00:00"],    // two labelled faces: no candidate
                &["13", "2", "8", "2016-01-01 10:00:00"],
                &["14", "3", "9", "2016-01-01 10:00:00"], // label missing: no row
                &["15", "4", "8", "2016-01-01 10:00:00"], // two labelled faces, one label missing: both count
                &["16", "4", "9", "2016-01-01 10:00:00"],
                &["17", "99", "8", "2016-01-01 10:00:00"], // photo missing
                &["18", "NULL", "8", "2016-01-01 10:00:00"],
                &["9", "5", "8", "2016-01-01 10:00:00.0"], // same time as 10: the smaller id comes first
                &["20", "6", "8", "NULL"],
            ],
        );
        add(&mut builder, Role::Labels, &[&["7", "Ana"], &["8", "NULL"]]);
        assert_eq!(faces_of(builder), ["20", "9", "10"]);
    }

    #[test]
    fn non_numeric_ids_stay_texts() {
        let mut builder = CandidateBuilder::default();
        add(&mut builder, Role::Labels, &[&["l", "Ana"]]);
        add(&mut builder, Role::Photos, &[&["007", "NULL", "u", "NULL"], &["7", "NULL", "u", "NULL"]]);
        add(&mut builder, Role::Faces, &[&["b", "007", "l", "1"], &["a", "7", "l", "1"], &["c", "07", "l", "1"]]);
        assert_eq!(faces_of(builder), ["a", "b"]);
        assert_eq!(IdKey::new("-5"), IdKey::Number(-5));
        assert!(
            ["-0", "+5", "00", "9223372036854775808", ""].iter().all(|id| matches!(IdKey::new(id), IdKey::Text(_)))
        );
    }

    #[test]
    fn duplicate_ids_are_errors() {
        let mut builder = CandidateBuilder::default();
        add(&mut builder, Role::Labels, &[&["1", "Ana"]]);
        assert!(builder.add(Role::Labels, row(&["1", "Ana"])).is_err());
        add(&mut builder, Role::Photos, &[&["1", "NULL", "u", "NULL"], &["1", "NULL", "u", "NULL"]]);
        add(&mut builder, Role::Faces, &[&["1", "1", "1", "1"]]);
        assert!(builder.finish().is_err());
    }
}
