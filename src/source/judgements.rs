//! Judgements that people have made elsewhere: a table with the id or the URL of a photo, a status and a date.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::error::SourceError;
use super::input::Input;
use super::stream::Stream;
use super::table::{self, TableFormat, TableReading};
use super::table_columns::{RowValues, TableColumns};
use super::timestamp::Timestamp;
use super::warnings::Warnings;
use facemill_domain::Candidate;

/// The names of the columns of a candidate that hold its judgement.
pub const COLUMNS: [&str; 2] = ["judgement", "judged_at"];

/// The names of the columns of the table.
const ID: &str = "photo_id";
const URLS: [&str; 2] = ["photo_url", "url"];
const STATUS: &str = "status";
const DATE: &str = "date";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Judgement {
    status: String,
    date: Option<String>,
}

/// The latest judgement of each photo, by its id or by its URL.
#[derive(Debug, Clone, Default)]
pub struct Judgements {
    by_id: HashMap<String, Judgement>,
    by_url: HashMap<String, Judgement>,
}

impl Judgements {
    /// Reads a table as CSV, TSV or JSON lines.
    ///
    /// # Errors
    /// The table cannot be read, or lacks a column.
    pub fn read(input: &Input) -> Result<Self, SourceError> {
        let opened = input.open(&Warnings::default())?;
        let is_known =
            |name: &str| name == ID || name == STATUS || URLS.iter().any(|url| url.eq_ignore_ascii_case(name));
        let unknown = || {
            let names = "columns photo_id or url, status, and date if there is one";
            SourceError::Unknown(format!("{input} is no table of judgements: give CSV, TSV or JSON lines with {names}"))
        };
        let format = table::sniff_named(&opened.head, None, is_known).ok_or_else(unknown)?;
        let mut quiet = |_| {};
        let stream = Stream::new(opened.reader, opened.meter, &mut quiet);
        Self::read_table(stream, format)
    }

    fn read_table(stream: Stream<'_>, format: TableFormat) -> Result<Self, SourceError> {
        let mut judgements = Self::default();
        let optional = [ID, URLS[0], URLS[1], DATE].map(str::to_owned);
        let find = |header: &[&str]| {
            let position = |wanted: &str| header.iter().position(|name| name.eq_ignore_ascii_case(wanted));
            let url = header.iter().position(|name| URLS.iter().any(|url| url.eq_ignore_ascii_case(name)));
            let status = position(STATUS).filter(|_| url.is_some() || position(ID).is_some()).ok_or_else(|| {
                let found = header.join(", ");
                let needed = "a table of judgements has columns photo_id or url, status, and date if there is one";
                SourceError::Unfit(vec![format!("{needed}; found {found}")])
            })?;
            Ok(TableColumns::of(&[position(ID), url, Some(status), position(DATE)]))
        };
        let warnings = Warnings::default();
        let reading = TableReading { warnings: &warnings, lenient: false };
        table::each_row(stream, format, reading, &optional, find, |_, row| judgements.add(row))?;
        Ok(judgements)
    }

    fn add(&mut self, row: RowValues<'_>) -> Result<(), String> {
        let mut values = row.kept.into_iter().map(|value| value.map(Cow::into_owned).filter(|text| !text.is_empty()));
        let mut next = || values.next().flatten();
        let (id, url, status, date) = (next(), next(), next(), next());
        let status = status.ok_or("a judgement has no status")?;
        let judgement = Judgement { status, date };
        match (id, url) {
            (Some(id), _) => keep_latest(&mut self.by_id, id, judgement),
            (None, Some(url)) => keep_latest(&mut self.by_url, url.trim().to_owned(), judgement),
            (None, None) => return Err("a judgement has neither photo_id nor url".into()),
        }
        Ok(())
    }

    /// Adds the judgement of each photo to its columns. Says how many judgements are of no photo.
    pub fn add_to(&self, candidates: &mut [Candidate]) {
        let mut used = HashSet::new();
        for candidate in candidates {
            let (id, url) = (candidate.photo_id.as_str(), candidate.photo_url.trim());
            let by_id = self.by_id.get_key_value(id);
            let Some((key, judgement)) = by_id.or_else(|| self.by_url.get_key_value(url)) else { continue };
            used.insert(key.as_str());
            candidate.columns.insert(COLUMNS[0].into(), judgement.status.clone());
            if let Some(date) = &judgement.date {
                candidate.columns.insert(COLUMNS[1].into(), date.clone());
            }
        }
        let unused = (self.by_id.len() + self.by_url.len()).saturating_sub(used.len());
        if unused > 0 {
            tracing::warn!("{unused} judgements are of photos that the source does not have");
        }
    }
}

/// Of several judgements of a photo the latest counts; of those without a date the last.
fn keep_latest(known: &mut HashMap<String, Judgement>, key: String, judgement: Judgement) {
    let time = |judgement: &Judgement| Timestamp::parse(judgement.date.as_deref());
    match known.get_mut(&key) {
        Some(earlier) if time(&judgement) < time(earlier) => {}
        Some(earlier) => *earlier = judgement,
        None => {
            known.insert(key, judgement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Progress, ReadMeter};

    fn read(text: &'static str, format: TableFormat) -> Result<Judgements, SourceError> {
        let mut quiet = |_: Progress| {};
        Judgements::read_table(Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet), format)
    }

    #[test]
    fn the_latest_judgement_is_a_column() {
        let csv = "date,photo_id,status,who\n2020-01-02,1,OK,me\n2020-01-01,1,NG,me\n,2,NG,me\n,9,OK,me\n";
        let mut candidates = [Candidate::example(1), Candidate::example(2), Candidate::example(3)];
        read(csv, TableFormat::Csv { delimiter: b',' }).unwrap().add_to(&mut candidates);
        let of = |at: usize, name: &str| candidates[at].columns.get(name).map(String::as_str);
        assert_eq!((of(0, "judgement"), of(0, "judged_at")), (Some("OK"), Some("2020-01-02")));
        assert_eq!((of(1, "judgement"), of(1, "judged_at")), (Some("NG"), None));
        assert!(candidates[2].columns.is_empty());
    }

    #[test]
    fn urls_and_json_lines_do_as_well() {
        let json = "{\"URL\":\"http://photos.test/1.jpg\",\"status\":\"OK\"}\n";
        let mut candidates = [Candidate::example(7)];
        read(json, TableFormat::JsonLines).unwrap().add_to(&mut candidates);
        assert_eq!(candidates[0].columns["judgement"], "OK");
    }

    #[test]
    fn faults_are_told() {
        for (csv, what) in [
            ("photo_id,verdict\n1,OK\n", "found photo_id, verdict"),
            ("status,date\nOK,\n", "columns photo_id or url"),
            ("photo_id,status\n1,\n", "line 2"),
            ("photo_id,status\n,OK\n", "neither photo_id nor url"),
        ] {
            let error = read(csv, TableFormat::Csv { delimiter: b',' }).unwrap_err().to_string();
            assert!(error.contains(what), "{csv:?}: {error}");
        }
    }
}
