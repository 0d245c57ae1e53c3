//! What a source database has about one photo, also if it is no candidate.

use std::sync::{Arc, Mutex, PoisonError};

use super::compare::{Comparison, IdKey};
use facemill_domain::Id;

/// A photo that somebody asks about. Clones share the answer.
#[derive(Debug, Clone)]
pub struct AskedPhoto {
    id_or_url: Arc<str>,
    found: Arc<Mutex<Option<FoundPhoto>>>,
}

/// What a database has about a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPhoto {
    /// Rows of photos with its id, or its URL.
    pub rows: u64,
    /// Its faces with a label.
    pub labelled: Vec<FoundFace>,
}

/// A face with a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFace {
    pub id: Id,
    pub label: Id,
    /// Whether the table of labels has it.
    pub label_exists: bool,
}

impl AskedPhoto {
    /// The photo with this id, without a prefix, or with this URL.
    pub fn new(id_or_url: &str) -> Self {
        Self { id_or_url: id_or_url.into(), found: Arc::default() }
    }

    pub fn id_or_url(&self) -> &str {
        &self.id_or_url
    }

    /// None before the source was read, and for a source that is no database: there every row is a candidate.
    pub fn found(&self) -> Option<FoundPhoto> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn answer(&self, found: FoundPhoto) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }
}

/// Looks for the photo among the rows of a dump.
pub struct AskedRows {
    asked: AskedPhoto,
    /// How ids of photos are compared.
    rule: Comparison,
    id: IdKey,
    rows: u64,
}

impl AskedRows {
    pub fn new(asked: AskedPhoto, rule: Comparison) -> Self {
        let id = IdKey::new(asked.id_or_url());
        Self { id: rule.key(&id).into_owned(), asked, rule, rows: 0 }
    }

    /// Notes a row of photos. Where the photo is known by its URL, its id is that of the first row.
    pub fn note(&mut self, id: &IdKey, url: Option<&str>) {
        let id = self.rule.key(id);
        if *id == self.id {
            self.rows += 1;
        } else if self.rows == 0 && url == Some(self.asked.id_or_url()) {
            (self.id, self.rows) = (id.into_owned(), 1);
        }
    }

    pub fn has_face_of(&self, photo: &IdKey) -> bool {
        *self.rule.key(photo) == self.id
    }

    pub fn answer(self, labelled: Vec<FoundFace>) {
        self.asked.answer(FoundPhoto { rows: self.rows, labelled });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, candidates_from};

    /// Photo 1 is a candidate; 2 has no label, 3 has two, the label of 4 does not exist, and 5 is not there.
    const ROWS: [(&str, &str, &[&str]); 3] = [
        (
            "photos",
            "id, source_url, photo_url, posted_at",
            &[
                "1, 'p', 'http://a/1', 't'",
                "2, 'p', 'http://a/2', 't'",
                "3, 'p', 'http://a/3', 't'",
                "4, 'p', 'http://a/4', 't'",
            ],
        ),
        (
            "faces",
            "id, photo_id, label_id, updated_at",
            &[
                "11, 1, 7, '2020-01-01 00:00:00'",
                "12, 2, NULL, '2020-01-01 00:00:00'",
                "13, 3, 7, '2020-01-01 00:00:00'",
                "14, 3, 8, '2020-01-01 00:00:00'",
                "15, 4, 9, '2020-01-01 00:00:00'",
                "16, 4, NULL, '2020-01-01 00:00:00'",
            ],
        ),
        ("labels", "id, name", &["7, 'Ana'", "8, 'Bea'"]),
    ];

    const TYPES: [&str; 3] = [
        "id integer, source_url text, photo_url text, posted_at text",
        "id integer, photo_id integer, label_id integer, updated_at timestamp",
        "id integer, name text",
    ];

    /// The dump as a script, between the first and the last line of the program that wrote it.
    fn script(first: &str, last: &str) -> String {
        let mut script = format!("{first}\n");
        for ((table, columns, rows), types) in ROWS.iter().zip(TYPES) {
            script += &format!("CREATE TABLE {table} ({types});\n");
            rows.iter().for_each(|row| script += &format!("INSERT INTO {table} ({columns}) VALUES ({row});\n"));
        }
        format!("{script}{last}\n")
    }

    #[test]
    fn a_photo_is_found_with_its_labelled_faces_in_every_kind_of_database() {
        let face = |id: i64, label: i64, label_exists| FoundFace { id: id.into(), label: label.into(), label_exists };
        let expected = [
            ("1", 1, vec![face(11, 7, true)]),
            ("2", 1, vec![]),
            ("3", 1, vec![face(13, 7, true), face(14, 8, true)]),
            ("http://a/3", 1, vec![face(13, 7, true), face(14, 8, true)]),
            ("4", 1, vec![face(15, 9, false)]),
            ("5", 0, vec![]),
        ];
        for (first, last) in [
            ("-- PostgreSQL database dump", "-- PostgreSQL database dump complete"),
            ("-- MySQL dump 10.13", "-- Dump completed on 2020-01-01"),
            ("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;", "COMMIT;"),
        ] {
            for (photo, rows, labelled) in &expected {
                let asked = AskedPhoto::new(photo);
                let options = Options { asked: Some(asked.clone()), ..Options::default() };
                let dump = std::io::Cursor::new(script(first, last).into_bytes());
                let candidates = candidates_from(dump, &options, &mut |_| ()).unwrap();
                assert_eq!(candidates.len(), 1, "{first}");
                let found = FoundPhoto { rows: *rows, labelled: labelled.clone() };
                assert_eq!(asked.found(), Some(found), "{photo}: {first}");
            }
        }
        let asked = AskedPhoto::new("1");
        let options = Options { asked: Some(asked.clone()), ..Options::default() };
        let table = std::io::Cursor::new("photo_id,photo_url\n1,http://a/1\n");
        candidates_from(table, &options, &mut |_| ()).unwrap();
        assert_eq!(asked.found(), None, "a table has candidates only");
    }
}
