//! Carries further columns of a dump through to the candidates.
//!
//! The query reads a fixed number of columns, so that a dump with billions of values is read fast. Further columns are read
//! in further passes, in the place of the columns that the query can do without, and are joined by the photo's id.

use std::collections::HashMap;

use super::error::SourceError;
use super::mapping::{KeptColumn, Mapping, Role, UPDATED};
use facemill_domain::{Candidate, Id};

/// Reads the columns that are kept, and adds them to the candidates. `read` reads the candidates once more, with another
/// mapping.
///
/// # Errors
/// The dump lacks a column, or has changed meanwhile, or those of `read`.
pub fn add(
    candidates: &mut [Candidate],
    mapping: &Mapping,
    mut read: impl FnMut(&Mapping) -> Result<Vec<Candidate>, SourceError>,
) -> Result<(), SourceError> {
    let of = |role: Role| mapping.kept().iter().filter(move |kept| kept.role == role);
    let photos: Vec<&KeptColumn> = of(Role::Photos).collect();
    let mut photos = photos.chunks(2);
    let (mut labels, mut faces) = (of(Role::Labels), of(Role::Faces));
    loop {
        let (photo, label, face) = (photos.next().unwrap_or_default(), labels.next(), faces.next());
        if photo.is_empty() && label.is_none() && face.is_none() {
            return Ok(());
        }
        let pass = mapping.with_places([photo.first().copied(), photo.get(1).copied()], label, face);
        let found = read(&pass).map_err(|error| explain(error, photo.iter().copied().chain(label).chain(face)))?;
        let mut rows: HashMap<(Id, Id), Candidate> =
            found.into_iter().map(|row| ((row.photo_id.clone(), row.face_id.clone()), row)).collect();
        for candidate in &mut *candidates {
            let key = (candidate.photo_id.clone(), candidate.face_id.clone());
            let mut row = rows.remove(&key).ok_or_else(|| {
                SourceError::Contradiction(format!("photo {} was lost while the dump was read", candidate.photo_id))
            })?;
            let values = [row.source_url, row.posted_at];
            let of_photo = photo.iter().copied().zip(values);
            let of_face = face.map(|face| (face, row.columns.remove(UPDATED)));
            for (kept, value) in of_photo.chain(label.map(|label| (label, row.label_name))).chain(of_face) {
                if let Some(value) = value {
                    candidate.columns.insert(kept.name.clone(), value);
                }
            }
        }
    }
}

/// Names the option that wants a missing column, instead of the column in whose place it was read.
fn explain<'k>(error: SourceError, kept: impl Iterator<Item = &'k KeptColumn> + Clone) -> SourceError {
    let SourceError::Unfit(lines) = error else { return error };
    let explained = lines.into_iter().map(|line| {
        let option = kept.clone().find(|kept| line.starts_with(&format!("column `{}` is missing", kept.column)));
        match (option, line.split_once(": name it with")) {
            (Some(kept), Some((what, _))) => format!("--keep {}: {what}", kept.entry),
            _ => line,
        }
    });
    SourceError::Unfit(explained.collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{Input, Options, candidates, candidates_from};

    const DUMP: &str = "
        CREATE TABLE photos (id int, source_url text, photo_url text, posted_at text, licence text, author text, w int);
        CREATE TABLE labels (id int, name text, born text);
        CREATE TABLE faces (id int, photo_id int, label_id int, updated_at text, score float);
        INSERT INTO photos VALUES (1,'http://s','http://p/1','2020-01-01','by','Ana',640), (2,NULL,'http://p/2',NULL,NULL,'Ben',1);
        INSERT INTO labels VALUES (7,'Eve','1970');
        INSERT INTO faces VALUES (10,1,7,'2021-01-01',0.5), (11,2,7,'2020-01-01',NULL);
        -- Dump completed\n";

    fn options(keep: &[&str]) -> Options {
        Options { mapping: Mapping::default().keep(keep).unwrap(), id_prefix: "x-".into(), ..Options::default() }
    }

    #[test]
    fn columns_of_photos_labels_and_faces_are_carried() {
        let keep = options(&["photos.licence", "author", "photos.w", "labels.born", "faces.score", "faces.updated_at"]);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(DUMP.as_bytes()).unwrap();
        let streamed = candidates_from(DUMP.as_bytes(), &keep, &mut |_| {}).unwrap();
        let of_file = candidates(&Input::File(file.path().into()), &keep, &mut |_| {}).unwrap();
        assert_eq!(streamed, of_file);
        let shown: Vec<String> = streamed.iter().map(|one| format!("{} {:?}", one.photo_id, one.columns)).collect();
        assert_eq!(
            shown,
            [
                "x-1 {\"author\": \"Ana\", \"born\": \"1970\", \"licence\": \"by\", \"score\": \"0.5\", \
                 \"updated_at\": \"2021-01-01\", \"w\": \"640\"}",
                "x-2 {\"author\": \"Ben\", \"born\": \"1970\", \"updated_at\": \"2020-01-01\", \"w\": \"1\"}",
            ]
        );
        assert_eq!(streamed[0].source_url.as_deref(), Some("http://s"), "the columns of the query stay");
        assert_eq!(
            (streamed[0].posted_at.as_deref(), streamed[0].label_name.as_deref()),
            (Some("2020-01-01"), Some("Eve"))
        );
    }

    #[test]
    fn columns_are_carried_from_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(DUMP).unwrap();
        let keep = options(&["licence", "labels.born", "faces.score", "faces.updated_at"]);
        let found = candidates(&Input::File(path), &keep, &mut |_| {}).unwrap();
        let shown: Vec<String> = found.iter().map(|one| format!("{} {:?}", one.photo_id, one.columns)).collect();
        assert_eq!(
            shown,
            [
                "x-1 {\"born\": \"1970\", \"licence\": \"by\", \"score\": \"0.5\", \"updated_at\": \"2021-01-01\"}",
                "x-2 {\"born\": \"1970\", \"updated_at\": \"2020-01-01\"}",
            ]
        );
    }

    #[test]
    fn a_missing_column_is_named() {
        for (keep, what) in [
            ("photos.license", "--keep photos.license: column `license` is missing in table `photos`"),
            ("labels.age", "--keep labels.age: column `age` is missing in table `labels`"),
            ("faces.age", "--keep faces.age: column `age` is missing in table `faces`"),
        ] {
            let error = candidates_from(DUMP.as_bytes(), &options(&[keep]), &mut |_| {}).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("--map"), "{error}");
        }
    }
}
