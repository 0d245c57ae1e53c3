//! The candidate query: photos with exactly one labelled face, latest face first.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;

use super::asked::{AskedPhoto, AskedRows, FoundFace};
use super::column::ColumnType;
use super::compare::{Comparer, Comparison, IdKey};
use super::error::SourceError;
use super::join::{Join, Refused, check_reference};
use super::key_index::{KeyIndex, RowPlace};
use super::mapping::{Mapping, Role, SourceRow, UPDATED, WIDTH};
use super::spool::{RowSpool, SpooledRow};
use super::timestamp::Timestamp;
use super::warnings::Warnings;
use facemill_domain::{Candidate, Id};

struct LabelledFace {
    /// The number of the row among all rows of faces.
    row: u64,
    id: IdKey,
    photo: IdKey,
    label: IdKey,
    updated: Timestamp,
    /// The text of `updated`, if the candidates carry it.
    updated_text: Option<Box<str>>,
}

struct Label {
    id: IdKey,
    name: Option<Box<str>>,
}

/// New values of a row's columns. None: the column stays as it is.
pub type RowChanges = [Option<Option<String>>; WIDTH];

/// Where a row comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowOrigin {
    /// The number of the table among those whose rows belong to the same role: 0, or that of a child table.
    pub part: u32,
    /// Whether the table has a key on its id, so that no id may come twice.
    pub keyed: bool,
    /// The row's byte in the dump.
    pub offset: u64,
}

/// Collects the rows of the three tables in any order and runs the query. Labelled faces and labels are kept as they
/// are; photos are compressed.
#[derive(Default)]
pub struct CandidateBuilder {
    faces: Vec<LabelledFace>,
    photos: RowSpool<4>,
    labels: Vec<Label>,
    columns: [[ColumnType; WIDTH]; 3],
    keys: [KeyIndex; 3],
    /// Roles whose table has a key on its id, declared at any time.
    keyed: [bool; 3],
    /// Whether a foreign key on the photo and on the label of faces is enforced.
    references: [bool; 2],
    /// Rows that a later one replaced.
    dead: [HashSet<u64>; 3],
    photo_changes: HashMap<u64, RowChanges>,
    /// Hashes of the values of keys other than those on ids.
    other_keys: HashSet<u64>,
    hasher: RandomState,
    /// Whether the candidates carry the text of `faces.updated_at`.
    carries_updated: bool,
    /// Whether there is no table of labels: each label of a face is one without a name.
    without_labels: bool,
    /// Bytes of texts on the heap.
    texts: usize,
    /// The photo that somebody asks about.
    asked: Option<AskedPhoto>,
}

impl CandidateBuilder {
    pub fn new(mapping: &Mapping, asked: Option<AskedPhoto>) -> Self {
        let (carries_updated, without_labels) = (mapping.carries_updated(), mapping.is_left_out(Role::Labels));
        Self { carries_updated, without_labels, asked, ..Self::default() }
    }

    /// Sets the types of a role's columns, which decide how ids are compared.
    pub fn set_columns(&mut self, role: Role, columns: [ColumnType; WIDTH]) {
        self.columns[role as usize] = columns;
    }

    /// Declares that the role's id is a key.
    pub fn set_keyed(&mut self, role: Role) {
        self.keyed[role as usize] = true;
    }

    /// Declares that the database refuses faces without their photo (slot 1) or their label (slot 2).
    pub fn set_reference(&mut self, slot: usize) {
        if let Some(reference) = slot.checked_sub(1).and_then(|at| self.references.get_mut(at)) {
            *reference = true;
        }
    }

    /// Whether no row of the role was added since the start or the last [`CandidateBuilder::clear`].
    pub fn is_empty(&self, role: Role) -> bool {
        self.keys[role as usize].rows() == 0
    }

    /// Removes all rows of a role.
    pub fn clear(&mut self, role: Role) {
        match role {
            Role::Faces => self.faces.clear(),
            Role::Photos => {
                self.photos = RowSpool::default();
                self.photo_changes.clear();
            }
            Role::Labels => self.labels.clear(),
        }
        self.keys[role as usize] = KeyIndex::default();
        self.dead[role as usize].clear();
    }

    /// Bytes in memory, about.
    pub fn size(&self) -> usize {
        let keys: usize = self.keys.iter().map(KeyIndex::size).sum();
        let dead: usize = self.dead.iter().map(|dead| dead.capacity() * 16).sum();
        self.faces.capacity() * size_of::<LabelledFace>()
            + self.labels.capacity() * size_of::<Label>()
            + self.photo_changes.capacity() * size_of::<RowChanges>()
            + self.photos.size()
            + self.texts
            + self.other_keys.capacity() * 16
            + keys
            + dead
    }

    /// Adds a row. If the table has a key and its id is taken, the row is not added, and the place of the other row is
    /// returned.
    pub fn add(&mut self, role: Role, row: &SourceRow<'_>, origin: RowOrigin) -> Result<Option<RowPlace>, SourceError> {
        let Some(id) = row[0].as_deref().map(IdKey::new) else {
            return match (role, row) {
                (Role::Faces, [_, Some(_), Some(_), _]) => {
                    Err(SourceError::Contradiction("a labelled face has no id: give every face one".into()))
                }
                // Without an id the row joins nothing.
                _ => Ok(None),
            };
        };
        let comparison =
            Comparison::of(Comparer::MySql, &self.columns[role as usize][0], &self.columns[role as usize][0]);
        let key = comparison.key(&id);
        if origin.keyed {
            self.keyed[role as usize] = true;
            if let Some(place) = self.keys[role as usize].find(origin.part, &key) {
                return Ok(Some(place));
            }
        }
        let number = self.keys[role as usize].rows();
        self.keys[role as usize].push(origin.part, &key, origin.offset);
        drop(key);
        match role {
            Role::Faces => {
                if let [_, Some(photo), Some(label), updated] = row {
                    let face = LabelledFace {
                        row: number,
                        id,
                        photo: IdKey::new(photo),
                        label: IdKey::new(label),
                        updated: Timestamp::of(&self.columns[Role::Faces as usize][3], updated.as_deref()),
                        updated_text: updated.as_deref().filter(|_| self.carries_updated).map(Into::into),
                    };
                    self.texts += face.updated_text.as_ref().map_or(0, |text| text.len());
                    self.texts += face.id.heap_size() + face.photo.heap_size() + face.label.heap_size();
                    self.faces.push(face);
                }
            }
            Role::Photos => self
                .photos
                .push(row)
                .map_err(|error| SourceError::Io { what: "cannot compress the photos".into(), error })?,
            Role::Labels => {
                let name: Option<Box<str>> = row[1].as_deref().map(Into::into);
                self.texts += id.heap_size() + name.as_ref().map_or(0, |name| name.len());
                self.labels.push(Label { id, name });
            }
        }
        Ok(None)
    }

    /// Puts a row in the place of an earlier one with the same id.
    pub fn replace(
        &mut self,
        role: Role,
        place: RowPlace,
        row: &SourceRow<'_>,
        origin: RowOrigin,
    ) -> Result<(), SourceError> {
        self.dead[role as usize].insert(place.row);
        self.add(role, row, RowOrigin { keyed: false, ..origin }).map(drop)
    }

    /// Changes columns of an earlier row. False: the row was not kept, and only the database knows its values.
    pub fn update(&mut self, role: Role, place: RowPlace, changes: RowChanges) -> bool {
        match role {
            Role::Photos => {
                let known = self.photo_changes.entry(place.row).or_default();
                for (known, change) in known.iter_mut().zip(changes) {
                    *known = change.or(known.take());
                }
            }
            Role::Labels => {
                let Some(label) = self.labels.get_mut(place.row as usize) else { return false };
                if let Some(name) = &changes[1] {
                    label.name = name.as_deref().map(Into::into);
                }
            }
            Role::Faces => {
                let Ok(at) = self.faces.binary_search_by_key(&place.row, |face| face.row) else {
                    // A face that is not labelled stays so unless it gets a label.
                    return changes[2].as_ref().is_none_or(Option::is_none) && changes[1].is_none();
                };
                let gone = [1, 2].into_iter().any(|slot: usize| changes[slot] == Some(None));
                if gone {
                    self.dead[role as usize].insert(place.row);
                    return true;
                }
                let face = &mut self.faces[at];
                let [_, photo, label, updated] = changes;
                if let Some(Some(photo)) = photo {
                    face.photo = IdKey::new(&photo);
                }
                if let Some(Some(label)) = label {
                    face.label = IdKey::new(&label);
                }
                if let Some(updated) = updated {
                    face.updated = Timestamp::of(&self.columns[Role::Faces as usize][3], updated.as_deref());
                    face.updated_text = updated.filter(|_| self.carries_updated).map(Into::into);
                }
            }
        }
        true
    }

    /// Notes the value of a key other than that on the id. False: it is taken.
    pub fn note_key(&mut self, role: Role, key: (usize, bool), value: &[u8]) -> bool {
        let hash = self.hasher.hash_one((role as usize, key, value));
        self.other_keys.insert(hash)
    }

    /// Checks that no id of a table with a key comes twice.
    fn check_keys(&self) -> Result<(), SourceError> {
        for role in Role::ALL {
            let dead = &self.dead[role as usize];
            if self.keyed[role as usize]
                && let Some((first, second)) = self.keys[role as usize].first_double(|row| dead.contains(&row))
            {
                return Err(SourceError::Contradiction(format!(
                    "two rows of {role} have the same id, at byte {first} and at byte {second}, but the id is a key: \
                     the dump is damaged, or two dumps were joined"
                )));
            }
        }
        Ok(())
    }

    /// Returns the candidates by `faces.updated_at` descending (NULL first, as in PostgreSQL), then `faces.id`.
    pub fn finish(
        mut self,
        comparer: Comparer,
        lenient: bool,
        warnings: &Warnings,
    ) -> Result<Vec<Candidate>, SourceError> {
        self.check_keys()?;
        let dead_faces = std::mem::take(&mut self.dead[Role::Faces as usize]);
        if !dead_faces.is_empty() {
            self.faces.retain(|face| !dead_faces.contains(&face.row));
        }
        self.keys = Default::default();
        let refuse = |refused: Refused| {
            if !lenient {
                return Err(SourceError::Contradiction(refused.0));
            }
            warnings.overrule(refused.0);
            Ok(())
        };
        let columns = |role: Role, slot: usize| &self.columns[role as usize][slot];
        let photo_rule = Comparison::of(comparer, columns(Role::Faces, 1), columns(Role::Photos, 0));
        let label_rule = Comparison::of(comparer, columns(Role::Faces, 2), columns(Role::Labels, 0));
        let defined = |slot: usize, role: Role| columns(Role::Faces, slot).defined && columns(role, 0).defined;
        let face_kind = columns(Role::Faces, 0).clone();
        let face_rule = Comparison::of(comparer, &face_kind, &face_kind);
        let (photo_defined, label_defined) = (defined(1, Role::Photos), defined(2, Role::Labels));
        let (references, without_labels) = (self.references, self.without_labels);
        let Self { faces, photos, labels, dead, photo_changes, asked, .. } = self;
        let mut asked = asked.map(|asked| AskedRows::new(asked, photo_rule));

        let mut join = Join::new(photo_rule, "faces.photo_id", "photos.id", photo_defined);
        for face in &faces {
            join.expect(&face.photo);
        }
        let mut only: HashMap<Cow<'_, IdKey>, PhotoState<'_>> = HashMap::new();
        for face in &faces {
            only.entry(photo_rule.key(&face.photo))
                .and_modify(|state| *state = PhotoState::MissingSeveral(face))
                .or_insert(PhotoState::Missing(face));
        }
        let mut rows: Vec<Option<(&LabelledFace, SpooledPhoto)>> = Vec::new();
        let mut number = 0;
        photos
            .unpack::<io::Error>(|mut row| {
                let this = number;
                number += 1;
                if dead[Role::Photos as usize].contains(&this) {
                    return Ok(());
                }
                if let Some(changes) = photo_changes.get(&this) {
                    for (value, change) in row.iter_mut().zip(changes) {
                        if let Some(new) = change {
                            *value = new.clone().map(Cow::Owned);
                        }
                    }
                }
                let id = IdKey::new(row[0].as_deref().unwrap_or_default());
                join.note(&id);
                if let Some(asked) = &mut asked {
                    asked.note(&id, row[2].as_deref());
                }
                let Some(state) = only.get_mut(&*photo_rule.key(&id)) else { return Ok(()) };
                join.hits += 1;
                *state = match std::mem::replace(state, PhotoState::Several) {
                    PhotoState::MissingSeveral(_) => PhotoState::Several,
                    PhotoState::Missing(face) => {
                        rows.push(Some((face, SpooledPhoto::new(row))));
                        PhotoState::Found(rows.len() - 1)
                    }
                    // Two rows of photos have this id, and the face joins both.
                    PhotoState::Found(at) => {
                        rows[at] = None;
                        PhotoState::Several
                    }
                    PhotoState::Several => PhotoState::Several,
                };
                Ok(())
            })
            .map_err(|error| SourceError::Io { what: "cannot decompress the photos".into(), error })?;
        let unjoined = || {
            only.values().filter_map(|state| match state {
                PhotoState::Missing(face) | PhotoState::MissingSeveral(face) => Some(&face.photo),
                _ => None,
            })
        };
        check_reference(references[0], "photo", unjoined().next())?;
        join.check(unjoined(), faces.len()).map_or(Ok(()), refuse)?;
        drop(only);

        let mut join = Join::new(label_rule, "faces.label_id", "labels.id", label_defined);
        for face in &faces {
            join.expect(&face.label);
        }
        let wanted: HashSet<Cow<'_, IdKey>> = faces.iter().map(|face| label_rule.key(&face.label)).collect();
        let mut names: HashMap<Cow<'_, IdKey>, Vec<&Label>> = HashMap::new();
        for (row, label) in (0u64..).zip(&labels) {
            if dead[Role::Labels as usize].contains(&row) {
                continue;
            }
            join.note(&label.id);
            let key = label_rule.key(&label.id);
            if wanted.contains(&key) {
                join.hits += 1;
                names.entry(key).or_default().push(label);
            }
        }
        if !without_labels {
            let unjoined =
                || faces.iter().map(|face| &face.label).filter(|label| !names.contains_key(&label_rule.key(label)));
            check_reference(references[1], "label", unjoined().next())?;
            join.check(unjoined(), faces.len()).map_or(Ok(()), refuse)?;
        }

        if let Some(asked) = asked {
            let of_photo = faces.iter().filter(|face| asked.has_face_of(&face.photo));
            let found = of_photo.map(|face| FoundFace {
                id: Id::from(&face.id),
                label: Id::from(&face.label),
                label_exists: without_labels || names.contains_key(&label_rule.key(&face.label)),
            });
            let found: Vec<FoundFace> = found.collect();
            asked.answer(found);
        }
        let mut rows: Vec<(&LabelledFace, SpooledPhoto)> = rows.into_iter().flatten().collect();
        rows.sort_by(|(a, _), (b, _)| {
            b.updated.cmp(&a.updated).then_with(|| face_rule.order(&a.id, &b.id, &face_kind))
        });
        let mut candidates = Vec::with_capacity(rows.len());
        for (face, photo) in rows {
            if without_labels {
                candidates.push(photo.candidate(face, &Label { id: face.label.clone(), name: None }));
                continue;
            }
            let joined = names.get(&label_rule.key(&face.label)).map(Vec::as_slice).unwrap_or_default();
            candidates.extend(joined.iter().map(|label| photo.candidate(face, label)));
        }
        Ok(candidates)
    }
}

/// What is known about a photo id of labelled faces.
enum PhotoState<'f> {
    /// No photo has it so far; one face does.
    Missing(&'f LabelledFace),
    /// No photo has it so far; several faces do.
    MissingSeveral(&'f LabelledFace),
    /// One photo and one face: a candidate, if the label exists.
    Found(usize),
    /// No candidate: several faces, or several photos.
    Several,
}

struct SpooledPhoto {
    id: Id,
    source_url: Option<String>,
    photo_url: String,
    posted_at: Option<String>,
}

impl SpooledPhoto {
    fn new([id, source_url, photo_url, posted_at]: SpooledRow<'_, 4>) -> Self {
        Self {
            id: Id::new(id.unwrap_or_default()),
            source_url: source_url.map(Into::into),
            photo_url: photo_url.unwrap_or_default().into_owned(),
            posted_at: posted_at.map(Into::into),
        }
    }

    fn candidate(&self, face: &LabelledFace, label: &Label) -> Candidate {
        Candidate {
            photo_id: self.id.clone(),
            face_id: Id::from(&face.id),
            label_id: Id::from(&label.id),
            label_name: label.name.as_deref().map(str::to_owned),
            photo_url: self.photo_url.clone(),
            source_url: self.source_url.clone(),
            posted_at: self.posted_at.clone(),
            source: None,
            columns: face.updated_text.iter().map(|text| (UPDATED.to_owned(), text.to_string())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::{Collation, TypeClass};

    fn row(values: &[&'static str]) -> SourceRow<'static> {
        std::array::from_fn(|i| values.get(i).filter(|value| **value != "NULL").map(|value| (*value).into()))
    }

    fn add(builder: &mut CandidateBuilder, role: Role, rows: &[&[&'static str]]) {
        for values in rows {
            assert_eq!(builder.add(role, &row(values), RowOrigin::default()).unwrap(), None);
        }
    }

    fn faces_of(builder: CandidateBuilder) -> Vec<String> {
        let found = builder.finish(Comparer::Postgres, false, &Warnings::default()).unwrap();
        found.iter().map(|candidate| candidate.face_id.to_string()).collect()
    }

    fn refusal(builder: CandidateBuilder, comparer: Comparer) -> String {
        builder.finish(comparer, false, &Warnings::default()).unwrap_err().to_string()
    }

    /// One case of the join per row.
    #[test]
    fn query_joins_like_sql() {
        let mut builder = CandidateBuilder::default();
        let photos: Vec<[&str; 4]> =
            ["1", "2", "3", "4", "5", "6"].into_iter().map(|id| [id, "NULL", "http://x", "NULL"]).collect();
        for photo in &photos {
            add(&mut builder, Role::Photos, &[photo]);
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
        let mut builder = with_texts(Collation::Exact);
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
    fn rows_without_a_key_may_come_twice() {
        let mut builder = CandidateBuilder::default();
        add(&mut builder, Role::Photos, &[&["1", "NULL", "u", "NULL"], &["2", "NULL", "u", "NULL"]]);
        add(&mut builder, Role::Photos, &[&["1", "NULL", "u", "NULL"]]);
        add(&mut builder, Role::Faces, &[&["1", "1", "1", "1"], &["2", "2", "1", "1"]]);
        add(&mut builder, Role::Labels, &[&["1", "Ana"], &["1", "Bo"]]);
        assert_eq!(faces_of(builder), ["2", "2"], "photo 1 is joined twice, and label 1 gives two rows");
    }

    #[test]
    fn doubles_of_a_key_are_errors_whenever_it_is_declared() {
        let mut builder = CandidateBuilder::default();
        add(&mut builder, Role::Labels, &[&["1", "Ana"]]);
        let keyed = RowOrigin { keyed: true, ..RowOrigin::default() };
        assert!(builder.add(Role::Labels, &row(&["1", "Ana"]), keyed).unwrap().is_some());
        let later = RowOrigin { offset: 70, ..RowOrigin::default() };
        assert_eq!(builder.add(Role::Photos, &row(&["1", "NULL", "u"]), later).unwrap(), None);
        add(&mut builder, Role::Photos, &[&["1", "NULL", "u", "NULL"]]);
        builder.set_keyed(Role::Photos);
        let error = refusal(builder, Comparer::Postgres);
        assert!(error.contains("two rows of photos have the same id, at byte 0 and at byte 70"), "{error}");
    }

    #[test]
    fn rows_are_replaced_and_changed() {
        let mut builder = CandidateBuilder::default();
        let keyed = RowOrigin { keyed: true, ..RowOrigin::default() };
        add(&mut builder, Role::Photos, &[&["1", "NULL", "old", "NULL"], &["2", "NULL", "old", "NULL"]]);
        add(&mut builder, Role::Labels, &[&["1", "Ana"]]);
        add(&mut builder, Role::Faces, &[&["1", "1", "1", "1"], &["2", "2", "1", "2"], &["3", "2", "NULL", "3"]]);
        let place = |builder: &mut CandidateBuilder, role, id| {
            builder.add(role, &row(&[id, "2", "1"]), keyed).unwrap().expect("taken")
        };
        let found = place(&mut builder, Role::Photos, "1");
        builder.replace(Role::Photos, found, &row(&["1", "NULL", "new"]), keyed).unwrap();
        let found = place(&mut builder, Role::Photos, "2");
        assert!(builder.update(Role::Photos, found, [None, None, Some(Some("changed".into())), None]));
        let found = place(&mut builder, Role::Labels, "1");
        assert!(builder.update(Role::Labels, found, [None, Some(Some("Bo".into())), None, None]));
        let found = place(&mut builder, Role::Faces, "1");
        assert!(builder.update(Role::Faces, found, [None, None, None, Some(Some("9".into()))]));
        let found = place(&mut builder, Role::Faces, "3");
        assert!(!builder.update(Role::Faces, found, [None, None, Some(Some("1".into())), None]));
        assert!(builder.update(Role::Faces, found, [None, None, None, Some(None)]));
        let found = builder.finish(Comparer::MySql, false, &Warnings::default()).unwrap();
        let shown: Vec<_> = found.iter().map(|found| (found.face_id.as_str(), found.photo_url.as_str())).collect();
        assert_eq!(shown, [("1", "new"), ("2", "changed")]);
        assert!(found.iter().all(|found| found.label_name.as_deref() == Some("Bo")));
    }

    fn with_texts(collation: Collation) -> CandidateBuilder {
        let mut builder = CandidateBuilder::default();
        let text = ColumnType { class: TypeClass::Text, collation, defined: true, ..ColumnType::default() };
        for role in Role::ALL {
            builder.set_columns(role, std::array::from_fn(|_| text.clone()));
        }
        builder
    }

    fn with_ids(photo: &'static str, labels: &[&[&'static str]], collation: Collation) -> CandidateBuilder {
        let mut builder = with_texts(collation);
        add(&mut builder, Role::Photos, &[&[photo, "NULL", "u", "NULL"]]);
        add(&mut builder, Role::Labels, labels);
        add(&mut builder, Role::Faces, &[&["1", "p", "a", "1"]]);
        builder
    }

    #[test]
    fn faces_that_join_nothing_are_refused() {
        let error = refusal(with_ids("q", &[&["a", "Ana"]], Collation::Exact), Comparer::Postgres);
        assert!(
            error.contains("join nothing: none of 1 values of faces.photo_id is the photos.id of a row"),
            "{error}"
        );
        let error = refusal(with_ids("p", &[&["b", "Bo"]], Collation::Exact), Comparer::Postgres);
        assert!(error.contains("faces.label_id"), "{error}");
        let warnings = Warnings::default();
        let found = with_ids("q", &[&["a", "Ana"]], Collation::Exact).finish(Comparer::Postgres, true, &warnings);
        assert!(found.unwrap().is_empty());
        assert_eq!(warnings.lines().len(), 2);
    }

    #[test]
    fn ids_that_only_an_unknown_collation_joins_are_refused() {
        let any = Collation::AnyCase { padded: true };
        assert_eq!(faces_of(with_ids("P ", &[&["A", "Ana"], &["\u{e9}", "E"]], any)), ["1"]);
        for (photo, labels, collation) in [
            ("P", [&["a", "Ana"]], Collation::Unknown),
            ("p", [&["A ", "Ana"]], Collation::Unknown),
            ("p", [&["\u{e4}", "Ana"]], any),
        ] {
            let error = refusal(with_ids(photo, &labels.map(|label| &label[..]), collation), Comparer::Postgres);
            assert!(error.contains("is not implemented"), "{error}");
        }
    }
}
