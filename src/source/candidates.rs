//! The candidate query: photos with exactly one labelled face, the latest face first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;

use super::error::SourceError;
use super::mapping::{Role, Row};
use super::moment::Moment;
use super::spool::RowSpool;
use crate::domain::{Candidate, Id};

/// An id, kept small. Numbers order as numbers, and before everything else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Number(i64),
    Text(Box<str>),
}

impl Key {
    pub fn new(text: &str) -> Self {
        let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
        let plain = matches!(digits, [b'1'..=b'9', ..] | [b'0']) && text != "-0";
        match text.parse() {
            Ok(number) if plain => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

impl From<&Key> for Id {
    fn from(key: &Key) -> Self {
        match key {
            Key::Number(number) => Id::from(*number),
            Key::Text(text) => Id::new(text.clone()),
        }
    }
}

struct LabelledFace {
    id: Key,
    photo: Key,
    label: Key,
    updated: Moment,
}

/// Takes the rows of the three tables in any order and answers the query. Keeps labelled faces and labels as they
/// are, and photos packed.
#[derive(Default)]
pub struct Gatherer {
    faces: Vec<LabelledFace>,
    photos: RowSpool<4>,
    labels: HashMap<Key, Option<Box<str>>>,
}

impl Gatherer {
    pub fn add(&mut self, role: Role, row: Row<'_>) -> Result<(), SourceError> {
        match role {
            Role::Faces => self.add_face(&row),
            Role::Photos if row[0].is_some() => self
                .photos
                .push(&row)
                .map_err(|error| SourceError::Io { what: "photos cannot be packed".into(), error })?,
            Role::Photos => {}
            Role::Labels => self.add_label(&row)?,
        }
        Ok(())
    }

    /// A face without label or photo joins nothing; one without id does not count.
    fn add_face(&mut self, row: &Row<'_>) {
        if let [Some(id), Some(photo), Some(label), updated] = row {
            self.faces.push(LabelledFace {
                id: Key::new(id),
                photo: Key::new(photo),
                label: Key::new(label),
                updated: Moment::parse(updated.as_deref()),
            });
        }
    }

    fn add_label(&mut self, row: &Row<'_>) -> Result<(), SourceError> {
        let [Some(id), name, ..] = row else { return Ok(()) };
        match self.labels.entry(Key::new(id)) {
            Entry::Occupied(_) => Err(SourceError::Contradiction(format!("the dump has label {id} twice"))),
            Entry::Vacant(free) => {
                free.insert(name.as_deref().map(Into::into));
                Ok(())
            }
        }
    }

    /// The candidates by `faces.updated_at` descending (NULL first, as in PostgreSQL), then `faces.id` ascending.
    pub fn finish(self) -> Result<Vec<Candidate>, SourceError> {
        let Self { faces, photos, labels } = self;
        let mut only: HashMap<&Key, Option<&LabelledFace>> = HashMap::new();
        for face in &faces {
            only.entry(&face.photo).and_modify(|only| *only = None).or_insert(Some(face));
        }
        only.retain(|_, face| face.is_some());

        let mut found: HashSet<&Key> = HashSet::new();
        let mut rows: Vec<(&LabelledFace, Candidate)> = Vec::with_capacity(only.len());
        photos.unpack(|[id, source_url, photo_url, posted_at]| {
            let id = Key::new(id.as_deref().unwrap_or_default());
            let Some((key, Some(face))) = only.get_key_value(&id) else { return Ok(()) };
            if !found.insert(key) {
                return Err(Failed::Twice(Id::from(&id)));
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
            };
            rows.push((face, candidate));
            Ok(())
        })?;
        rows.sort_by(|(a, _), (b, _)| b.updated.cmp(&a.updated).then_with(|| a.id.cmp(&b.id)));
        Ok(rows.into_iter().map(|(_, candidate)| candidate).collect())
    }
}

/// Why the photos could not all be looked at.
enum Failed {
    Io(io::Error),
    Twice(Id),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Failed> for SourceError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Io(error) => Self::Io { what: "photos cannot be unpacked".into(), error },
            Failed::Twice(id) => Self::Contradiction(format!("the dump has photo {id} twice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&'static str]) -> Row<'static> {
        std::array::from_fn(|i| values.get(i).filter(|value| **value != "NULL").map(|value| (*value).into()))
    }

    fn add(gatherer: &mut Gatherer, role: Role, rows: &[&[&'static str]]) {
        for values in rows {
            gatherer.add(role, row(values)).unwrap();
        }
    }

    fn faces_of(gatherer: Gatherer) -> Vec<String> {
        gatherer.finish().unwrap().iter().map(|candidate| candidate.face_id.to_string()).collect()
    }

    /// The same join as the query's, case by case.
    #[test]
    fn the_query() {
        let mut gatherer = Gatherer::default();
        let photos: Vec<[&str; 4]> =
            ["1", "2", "3", "4", "5", "6"].into_iter().map(|id| [id, "NULL", "http://x", "NULL"]).collect();
        for photo in &photos {
            gatherer.add(Role::Photos, row(photo)).unwrap();
        }
        add(
            &mut gatherer,
            Role::Faces,
            &[
                &["10", "1", "7", "2016-01-01 10:00:00"],    // one labelled
                &["11", "1", "NULL", "2019-01-01 00:00:00"], // and one that is not: still a candidate
                &["12", "2", "7", "2016-01-01 10:00:00"],    // two labelled: none
                &["13", "2", "8", "2016-01-01 10:00:00"],
                &["14", "3", "9", "2016-01-01 10:00:00"], // its label is not there: no row
                &["15", "4", "8", "2016-01-01 10:00:00"], // two labelled, one without a label's row: both count
                &["16", "4", "9", "2016-01-01 10:00:00"],
                &["17", "99", "8", "2016-01-01 10:00:00"], // no such photo
                &["18", "NULL", "8", "2016-01-01 10:00:00"],
                &["9", "5", "8", "2016-01-01 10:00:00.0"], // a tie with 10: the smaller number first
                &["20", "6", "8", "NULL"],
            ],
        );
        add(&mut gatherer, Role::Labels, &[&["7", "Ana"], &["8", "NULL"]]);
        assert_eq!(faces_of(gatherer), ["20", "9", "10"]);
    }

    #[test]
    fn ids_that_are_no_numbers() {
        let mut gatherer = Gatherer::default();
        add(&mut gatherer, Role::Labels, &[&["l", "Ana"]]);
        add(&mut gatherer, Role::Photos, &[&["007", "NULL", "u", "NULL"], &["7", "NULL", "u", "NULL"]]);
        add(&mut gatherer, Role::Faces, &[&["b", "007", "l", "1"], &["a", "7", "l", "1"], &["c", "07", "l", "1"]]);
        assert_eq!(faces_of(gatherer), ["a", "b"]);
        assert_eq!(Key::new("-5"), Key::Number(-5));
        assert!(["-0", "+5", "00", "9223372036854775808", ""].iter().all(|id| matches!(Key::new(id), Key::Text(_))));
    }

    #[test]
    fn doubled_ids_are_contradictions() {
        let mut gatherer = Gatherer::default();
        add(&mut gatherer, Role::Labels, &[&["1", "Ana"]]);
        assert!(gatherer.add(Role::Labels, row(&["1", "Ana"])).is_err());
        add(&mut gatherer, Role::Photos, &[&["1", "NULL", "u", "NULL"], &["1", "NULL", "u", "NULL"]]);
        add(&mut gatherer, Role::Faces, &[&["1", "1", "1", "1"]]);
        assert!(gatherer.finish().is_err());
    }
}
