//! The columns of a table of photos, by name, and the candidates that its rows are.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::error::SourceError;
use super::mapping::{Mapping, Role};
use facemill_domain::{Candidate, ContentHash, Id, hash};

/// The columns of the query's result, in order.
pub const COLUMNS: [&str; 7] =
    ["face_id", "photo_id", "source_url", "photo_url", "posted_at", "label_id", "label_name"];

/// The same columns in the source database.
pub const ORIGINS: [(Role, usize); 7] = [
    (Role::Faces, 0),
    (Role::Photos, 0),
    (Role::Photos, 1),
    (Role::Photos, 2),
    (Role::Photos, 3),
    (Role::Labels, 0),
    (Role::Labels, 1),
];

const PHOTO_ID: usize = 1;
const PHOTO_URL: usize = 3;

/// The URL's column in collections of images and texts, in upper or lower case.
const URL: &str = "url";

/// The name of a column of the result: mapped or usual. None: the mapping leaves the column out.
fn name(mapping: &Mapping, column: usize) -> Option<&str> {
    let (role, slot) = ORIGINS[column];
    mapping.renamed(role, slot).or_else(|| mapping.column(role, slot).map(|_| COLUMNS[column]))
}

/// Whether a table with a column of this name may be one of photos.
pub fn is_known(mapping: &Mapping, column: &str) -> bool {
    (0..COLUMNS.len()).any(|i| name(mapping, i) == Some(column)) || column.eq_ignore_ascii_case(URL)
}

/// The names of the columns that a row may lack.
pub fn optional_names(mapping: &Mapping) -> impl Iterator<Item = &str> {
    let optional = (0..COLUMNS.len()).filter(|column| ![PHOTO_ID, PHOTO_URL].contains(column));
    optional.filter_map(|column| name(mapping, column)).chain(mapping.kept().iter().map(|kept| kept.column.as_str()))
}

/// The values of a row: the columns of the result, then the columns that are kept.
#[derive(Debug, Default)]
pub struct RowValues<'a> {
    pub result: [Option<Cow<'a, str>>; COLUMNS.len()],
    pub kept: Vec<Option<Cow<'a, str>>>,
}

/// Where the columns are in the rows of a table.
#[derive(Debug, Clone, Default)]
pub struct TableColumns {
    result: [Option<usize>; COLUMNS.len()],
    kept: Vec<Option<usize>>,
    kept_names: Vec<String>,
    late_id: Option<String>,
    /// The table has no column with ids: they are made from the URLs.
    ids_from_urls: bool,
}

impl TableColumns {
    /// Finds the columns among those of a table.
    ///
    /// # Errors
    /// Columns are missing: one line each, with the remedy.
    pub fn find(header: &[&str], mapping: &Mapping) -> Result<Self, SourceError> {
        let position = |wanted: &str| header.iter().position(|name| *name == wanted);
        let mut result: [_; COLUMNS.len()] = std::array::from_fn(|i| name(mapping, i).and_then(position));
        let is_renamed = |column: usize| mapping.renamed(ORIGINS[column].0, ORIGINS[column].1).is_some();
        if result[PHOTO_URL].is_none() && !is_renamed(PHOTO_URL) {
            result[PHOTO_URL] = header.iter().position(|name| name.eq_ignore_ascii_case(URL));
        }
        let has_other_ids = header.iter().any(|name| name.eq_ignore_ascii_case("id"));
        let ids_from_urls = result[PHOTO_ID].is_none()
            && !is_renamed(PHOTO_ID)
            && (name(mapping, PHOTO_ID).is_none() || !has_other_ids);
        let mut missing = Vec::new();
        for column in [PHOTO_ID, PHOTO_URL] {
            if result[column].is_some() || (column == PHOTO_ID && ids_from_urls) {
                continue;
            }
            let (role, slot) = ORIGINS[column];
            let option = format!("{role}.{}", role.columns()[slot]);
            let or_none = match column {
                PHOTO_ID => format!(", or use --map {option}= to make ids from the URLs"),
                _ => String::new(),
            };
            let wanted = name(mapping, column).unwrap_or(COLUMNS[column]);
            let found = header.join(", ");
            missing.push(format!(
                "column `{wanted}` is missing, found {found}: name it with --map {option}=COLUMN{or_none}"
            ));
        }
        let mut kept = Vec::new();
        for column in mapping.kept() {
            match position(&column.column) {
                Some(index) => kept.push(Some(index)),
                None => missing.push(format!(
                    "--keep {}: there is no column `{}`, found {}",
                    column.entry,
                    column.column,
                    header.join(", ")
                )),
            }
        }
        let kept_names = mapping.kept().iter().map(|column| column.name.clone()).collect();
        let late_id = name(mapping, PHOTO_ID).filter(|_| ids_from_urls).map(str::to_owned);
        if missing.is_empty() {
            Ok(Self { result, kept, kept_names, late_id, ids_from_urls })
        } else {
            Err(SourceError::Unfit(missing))
        }
    }

    /// Columns of a table that is not one of photos, by their positions; none: it lacks the column.
    pub fn of(kept: &[Option<usize>]) -> Self {
        Self { kept: kept.to_vec(), ..Self::default() }
    }

    /// The name of the column with the photos' ids, if the table has none: it must not come later.
    pub fn late_id(&self) -> Option<&str> {
        self.late_id.as_deref()
    }

    /// The positions of all columns that are read.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.result.iter().chain(&self.kept).copied().flatten()
    }

    /// Picks the values of a row. `value` returns that of a column of the table.
    pub fn pick<'a>(&self, mut value: impl FnMut(usize) -> Option<Cow<'a, str>>) -> RowValues<'a> {
        RowValues {
            result: self.result.map(|index| index.and_then(&mut value)),
            kept: self.kept.iter().map(|index| index.and_then(&mut value)).collect(),
        }
    }
}

/// The photos of a table or list, in order.
#[derive(Debug, Default)]
pub struct PhotoRows {
    seen: HashSet<Id>,
    candidates: Vec<Candidate>,
    /// Rows whose URL, and so whose photo, came before.
    repeated: u64,
}

impl PhotoRows {
    /// Adds a row. A missing `face_id` is replaced by the photo's id; a missing `label_id` by the label's name, or by
    /// an empty id if that is missing, too.
    pub fn add(&mut self, columns: &TableColumns, row: RowValues<'_>) -> Result<(), String> {
        let [face_id, photo_id, source_url, photo_url, posted_at, label_id, label_name] = row.result;
        let photo_url = photo_url.unwrap_or_default().into_owned();
        let photo_id = match columns.ids_from_urls {
            true if photo_url.trim().is_empty() => return Err("a row has no URL, and so no id".into()),
            true => id_of_url(photo_url.trim()),
            false => Id::new(photo_id.filter(|id| !id.is_empty()).ok_or("a row has no photo_id")?),
        };
        if !self.seen.insert(photo_id.clone()) {
            if columns.ids_from_urls {
                self.repeated += 1;
                return Ok(());
            }
            return Err(format!("photo {photo_id} exists twice"));
        }
        let names = columns.kept_names.iter().cloned();
        let kept = names.zip(row.kept).filter_map(|(name, value)| Some((name, value?.into_owned())));
        self.candidates.push(Candidate {
            face_id: face_id.map_or_else(|| photo_id.clone(), Id::new),
            label_id: Id::new(label_id.or_else(|| label_name.clone()).unwrap_or_default()),
            label_name: label_name.map(Into::into),
            source_url: source_url.map(Into::into),
            posted_at: posted_at.map(Into::into),
            columns: kept.collect::<BTreeMap<_, _>>(),
            ..Candidate::new(photo_id, photo_url)
        });
        Ok(())
    }

    /// Adds a photo of which only the URL is known.
    pub fn add_url(&mut self, url: &str) {
        let id = id_of_url(url);
        match self.seen.insert(id.clone()) {
            true => self.candidates.push(Candidate::new(id, url.to_owned())),
            false => self.repeated += 1,
        }
    }

    pub fn finish(self) -> Vec<Candidate> {
        match self.repeated {
            0 => {}
            1 => tracing::warn!("1 row repeats a URL and was left out: it is the same photo"),
            several => tracing::warn!("{several} rows repeat a URL and were left out: they are the same photos"),
        }
        self.candidates
    }
}

/// The id of a photo that has none: 32 hex digits of the hash of its URL as it is written. It is stable over runs.
fn id_of_url(url: &str) -> Id {
    Id::new(hash::hex(&ContentHash::of(url.as_bytes()).as_bytes()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(header: &[&str], map: &[&str]) -> Result<TableColumns, SourceError> {
        TableColumns::find(header, &Mapping::parse(map).unwrap())
    }

    #[test]
    fn a_table_without_ids_gets_them_from_its_urls() {
        for (header, map) in [
            (&["URL", "TEXT", "LICENSE"][..], &[][..]),
            (&["caption", "url"], &[]),
            (&["caption", "link"], &["photos.photo_url=link"]),
            (&["id", "url"], &["photos.id="]),
        ] {
            assert!(find(header, map).unwrap().ids_from_urls, "{header:?}");
        }
        assert!(!find(&["photo_id", "url"], &[]).unwrap().ids_from_urls);
        assert!(!find(&["id", "url"], &["photos.id=id"]).unwrap().ids_from_urls);
    }

    #[test]
    fn missing_columns_are_named_with_their_remedies() {
        let error = find(&["id", "url"], &[]).unwrap_err().to_string();
        assert!(error.contains("`photo_id` is missing, found id, url: name it with --map photos.id=COLUMN"), "{error}");
        assert!(error.contains("or use --map photos.id= to make ids from the URLs"), "{error}");
        let error = find(&["photo_id", "link"], &[]).unwrap_err().to_string();
        assert!(error.contains("`photo_url` is missing"), "{error}");
        let error = find(&["photo_id", "url"], &["photos.photo_url=link"]).unwrap_err().to_string();
        assert!(error.contains("`link` is missing"), "a column that was named is not guessed: {error}");
        let mapping = Mapping::default().keep(&["photos.licence"]).unwrap();
        let error = TableColumns::find(&["url", "license"], &mapping).unwrap_err().to_string();
        assert!(error.contains("--keep photos.licence: there is no column `licence`, found url, license"), "{error}");
    }

    #[test]
    fn a_repeated_url_is_one_photo_and_a_repeated_id_an_error() {
        let columns = find(&["url"], &[]).unwrap();
        let mut rows = PhotoRows::default();
        for url in ["http://a", "http://b", " http://a "] {
            rows.add(&columns, columns.pick(|_| Some(url.into()))).unwrap();
        }
        assert_eq!((rows.repeated, rows.finish().len()), (1, 2));
        let columns = find(&["photo_id", "url"], &[]).unwrap();
        let mut rows = PhotoRows::default();
        rows.add(&columns, columns.pick(|_| Some("1".into()))).unwrap();
        assert!(rows.add(&columns, columns.pick(|_| Some("1".into()))).unwrap_err().contains("exists twice"));
        assert!(rows.add(&columns, columns.pick(|_| None)).unwrap_err().contains("no photo_id"));
    }
}
