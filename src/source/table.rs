//! Reads candidates that are already selected: CSV, TSV or JSON lines with the columns of the query's result.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::{memchr, memchr2};
use serde_json::value::RawValue;

use super::csv::{self, FieldFault, Fields, MAX_FIELDS};
use super::error::SourceError;
use super::mapping::Mapping;
use super::sql::unescape;
use super::stream::{BOM, Stream};
use super::table_columns::{self, PhotoRows, RowValues, TableColumns};
use super::warnings::Warnings;
use facemill_domain::Candidate;

/// The format of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// RFC 4180. An empty unquoted field is NULL, and so is an unquoted `\N`.
    Csv {
        delimiter: u8,
    },
    /// PostgreSQL's COPY text format: `\N`, `\t`, `\n`, `\\`.
    Tsv,
    JsonLines,
}

/// How a table is read.
#[derive(Clone, Copy)]
pub struct TableReading<'r> {
    pub warnings: &'r Warnings,
    /// Whether refusals that need not concern the candidates become warnings.
    pub lenient: bool,
}

/// Delimiters that other programs use in CSV files.
const OTHER_DELIMITERS: [u8; 3] = [b';', b'|', b':'];

/// Detects the format from the start of the file. None: it is not a table of candidates. `delimiter`: that of a CSV
/// file, if it is given.
///
/// # Errors
/// The file is a table with a delimiter that must be given.
pub fn sniff(head: &[u8], mapping: &Mapping, delimiter: Option<u8>) -> Result<Option<TableFormat>, SourceError> {
    let sniff_as = |delimiter| sniff_named(head, delimiter, |name| table_columns::is_known(mapping, name));
    let found = sniff_as(delimiter);
    let is_other = |other: &u8| found.is_none() && delimiter.is_none() && sniff_as(Some(*other)).is_some();
    match OTHER_DELIMITERS.into_iter().find(is_other) {
        Some(other) => Err(SourceError::Unknown(format!(
            "the file looks like a table with the delimiter `{0}`: read it with --delimiter '{0}'",
            char::from(other)
        ))),
        None => Ok(found),
    }
}

/// As [`sniff`], for a table with other columns.
pub fn sniff_named(head: &[u8], delimiter: Option<u8>, is_known: impl Fn(&str) -> bool) -> Option<TableFormat> {
    let head = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    if head.first() == Some(&b'{') {
        return Some(TableFormat::JsonLines);
    }
    let line = &head[..memchr2(b'\n', b'\r', head).unwrap_or(head.len())];
    // SQL statements also have column names between commas.
    let is_sql =
        |word: &[u8]| [&b"COPY"[..], b"INSERT", b"CREATE", b"SELECT"].iter().any(|w| w.eq_ignore_ascii_case(word));
    if line.split(|byte| *byte == b' ').next().is_some_and(is_sql) {
        return None;
    }
    let format = match delimiter {
        Some(delimiter) => TableFormat::Csv { delimiter },
        None if memchr(b'\t', line).is_some() => TableFormat::Tsv,
        None => TableFormat::Csv { delimiter: b',' },
    };
    let separator = match format {
        TableFormat::Csv { delimiter } => delimiter,
        _ => b'\t',
    };
    let is_known_field = |field: &[u8]| {
        let field = field.trim_ascii();
        let field = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\"")).unwrap_or(field);
        str::from_utf8(field).is_ok_and(&is_known)
    };
    line.split(|byte| *byte == separator).any(is_known_field).then_some(format)
}

/// Reads the rows in order. The URL is required; ids are made from the URLs where the table has none.
pub fn read(
    stream: Stream<'_>,
    format: TableFormat,
    mapping: &Mapping,
    reading: TableReading<'_>,
) -> Result<Vec<Candidate>, SourceError> {
    let mut rows = PhotoRows::default();
    let optional: Vec<String> = table_columns::optional_names(mapping).map(str::to_owned).collect();
    let find = |header: &[&str]| TableColumns::find(header, mapping);
    each_row(stream, format, reading, &optional, find, |columns, row| rows.add(columns, row))?;
    Ok(rows.finish())
}

/// Passes each row to `add`. `find` chooses among the columns of the table. `optional`: members that the first of the
/// JSON lines may lack.
pub fn each_row(
    mut stream: Stream<'_>,
    format: TableFormat,
    reading: TableReading<'_>,
    optional: &[String],
    find: impl Fn(&[&str]) -> Result<TableColumns, SourceError>,
    mut add: impl FnMut(&TableColumns, RowValues<'_>) -> Result<(), String>,
) -> Result<(), SourceError> {
    if stream.fill(BOM.len())?.starts_with(BOM) {
        stream.consume(BOM.len());
    }
    let mut columns = None;
    while let Some(length) = record(&mut stream, format)? {
        let text = &stream.window()[..length];
        if text.iter().all(u8::is_ascii_whitespace) {
            stream.consume(length);
            continue;
        }
        let text = std::str::from_utf8(text).map_err(|error| stream.broken(error.valid_up_to(), "invalid UTF-8"))?;
        let broken = |detail: String| stream.broken(0, detail);
        let (columns, row) = match (format, &mut columns) {
            (TableFormat::JsonLines, columns) => {
                let object = members(text).map_err(broken)?;
                let columns = match columns {
                    Some(columns) => columns,
                    None => columns.insert(NamedColumns::of(&object, optional, &find)?),
                };
                let row = columns.row(&object).map_err(broken)?;
                (&columns.columns, row)
            }
            (_, None) => {
                let header = fields(text, format, true).map_err(|fault| broken(fault.detail()))?.values;
                let header: Vec<&str> = header.iter().map(|name| name.as_deref().unwrap_or_default().trim()).collect();
                columns = Some(NamedColumns::find(&header, &find)?);
                stream.consume(length);
                continue;
            }
            (_, Some(columns)) => {
                let fields = match fields(text, format, true) {
                    Err(fault) if reading.lenient && fault == FieldFault::AfterQuote => {
                        reading.warnings.overrule(stream.broken(0, fault.detail()).to_string());
                        fields(text, format, false)
                    }
                    found => found,
                };
                let Fields { values: fields, quote_within } = fields.map_err(|fault| broken(fault.detail()))?;
                if quote_within {
                    reading.warnings.add(format!(
                        "line {}: a quote within an unquoted field opens a quoted part, as in PostgreSQL; if it is a \
                         character, put the field in quotes and double it",
                        stream.position(0).line
                    ));
                }
                if fields.len() != columns.names.len() {
                    let detail = format!("a row has {} fields for {} columns", fields.len(), columns.names.len());
                    return Err(broken(detail));
                }
                (&columns.columns, columns.columns.pick(|index| fields[index].clone()))
            }
        };
        add(columns, row).map_err(broken)?;
        stream.rows += 1;
        stream.consume(length);
    }
    Ok(())
}

/// The names of a table's columns, and those that are read.
struct NamedColumns {
    names: Vec<String>,
    columns: TableColumns,
}

/// A JSON object, not yet parsed below its members.
type JsonObject<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

impl NamedColumns {
    fn find(
        header: &[&str],
        find: &impl Fn(&[&str]) -> Result<TableColumns, SourceError>,
    ) -> Result<Self, SourceError> {
        let columns = find(header)?;
        Ok(Self { names: header.iter().map(|name| (*name).to_owned()).collect(), columns })
    }

    /// The columns of JSON lines, from the first of them.
    fn of(
        first: &JsonObject<'_>,
        optional: &[String],
        find: &impl Fn(&[&str]) -> Result<TableColumns, SourceError>,
    ) -> Result<Self, SourceError> {
        let mut names: Vec<&str> = first.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        let absent = optional.iter().map(String::as_str).filter(|name| !first.contains_key(*name));
        let all: Vec<&str> = names.iter().copied().chain(absent).collect();
        // An error lists only what is there.
        Self::find(&all, find).or_else(|error| Self::find(&names, find).and(Err(error)))
    }

    /// The values of the members that are read.
    fn row<'a>(&self, object: &JsonObject<'a>) -> Result<RowValues<'a>, String> {
        if let Some(id) = self.columns.late_id().filter(|id| object.contains_key(*id)) {
            return Err(format!("a row has a `{id}`, and the first row has none"));
        }
        let mut fault = None;
        let row = self.columns.pick(|index| {
            let name = self.names[index].as_str();
            let value = object.get(name).map(|raw| json_text(name, raw.get()));
            value.and_then(|value| value.unwrap_or_else(|error| fault.replace(error).and(None)))
        });
        fault.map_or(Ok(row), Err)
    }
}

/// Returns the length of the next record, including its line end. None at the end of the file.
fn record(stream: &mut Stream<'_>, format: TableFormat) -> Result<Option<usize>, SourceError> {
    loop {
        let window = stream.window();
        let end = if matches!(format, TableFormat::Csv { .. }) { csv_end(window) } else { memchr(b'\n', window) };
        if let Some(end) = end {
            return Ok(Some(end + 1));
        }
        if stream.grow()? {
            continue;
        }
        let window = stream.window();
        if matches!(format, TableFormat::Csv { .. }) && memchr::memchr_iter(b'"', window).count() % 2 == 1 {
            return Err(stream.truncated("the file ends within a quoted field"));
        }
        return Ok((!window.is_empty()).then_some(window.len()));
    }
}

/// Returns the position of the first newline outside quotes.
fn csv_end(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for at in memchr::memchr2_iter(b'"', b'\n', text) {
        match text[at] {
            b'"' => quoted = !quoted,
            _ if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn fields(line: &str, format: TableFormat, strict: bool) -> Result<Fields<'_>, FieldFault> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if let TableFormat::Csv { delimiter } = format {
        return csv::fields(line, delimiter, strict);
    }
    let values: Vec<_> = line.split('\t').take(MAX_FIELDS + 1).map(tsv_field).collect();
    if values.len() > MAX_FIELDS {
        return Err(FieldFault::TooMany);
    }
    Ok(Fields { values, quote_within: false })
}

fn tsv_field(field: &str) -> Option<Cow<'_, str>> {
    match unescape(field.as_bytes())? {
        Cow::Borrowed(_) => Some(Cow::Borrowed(field)),
        Cow::Owned(bytes) => Some(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

fn members(line: &str) -> Result<JsonObject<'_>, String> {
    serde_json::from_str(line).map_err(|error| format!("not a JSON object ({error})"))
}

/// The text of a JSON value. Numbers are kept as written.
fn json_text<'a>(name: &str, raw: &'a str) -> Result<Option<Cow<'a, str>>, String> {
    Ok(match raw.as_bytes()[0] {
        b'n' => None,
        b'"' => Some(serde_json::from_str::<String>(raw).map_err(|error| error.to_string())?.into()),
        b'{' | b'[' => return Err(format!("`{name}` is neither a string nor a number")),
        _ => Some(raw.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Progress, ReadMeter};

    fn read_text(text: &str, map: &[&str]) -> Result<Vec<Candidate>, SourceError> {
        let mut quiet = |_: Progress| {};
        let mapping = Mapping::parse(map).unwrap();
        let format = sniff(text.as_bytes(), &mapping, None).unwrap().expect("a table");
        let stream = Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet);
        let warnings = Warnings::default();
        read(stream, format, &mapping, TableReading { warnings: &warnings, lenient: false })
    }

    fn expected() -> Candidate {
        Candidate {
            photo_id: "7".into(),
            face_id: "3".into(),
            label_id: "2".into(),
            label_name: Some("Ana \"A\",\nB\\".into()),
            photo_url: "http://x/宇.jpg".into(),
            source_url: None,
            posted_at: Some("".into()),
            source: None,
            columns: Default::default(),
        }
    }

    #[test]
    fn all_formats_give_the_same_rows() {
        let csv = "face_id,photo_id,source_url,photo_url,posted_at,label_id,label_name\r\n\
            3,7,,http://x/宇.jpg,\"\",2,\"Ana \"\"A\"\",\nB\\\"\r\n";
        let tsv = "label_name\tother\tface_id\tphoto_id\tsource_url\tphoto_url\tposted_at\tlabel_id\n\
            Ana \"A\",\\nB\\\\\tx\t3\t7\t\\N\thttp://x/宇.jpg\t\t2";
        let json = "{\"photo_id\":7,\"face_id\":\"3\",\"x\":[{}],\"source_url\":null,\
            \"photo_url\":\"http://x/\\u5b87.jpg\",\
            \"posted_at\":\"\",\"label_id\":2,\"label_name\":\"Ana \\\"A\\\",\\nB\\\\\"}\n\n";
        for text in [csv, &format!("\u{feff}{csv}"), tsv, json] {
            assert_eq!(read_text(text, &[]).unwrap(), [expected()], "{text}");
        }
    }

    #[test]
    fn sql_statements_are_not_tables() {
        let mapping = Mapping::default();
        let sniff = |head: &[u8]| sniff(head, &mapping, None).unwrap();
        assert_eq!(sniff(b"photo_id,photo_url\n5,a\n"), Some(TableFormat::Csv { delimiter: b',' }));
        for statement in [
            "COPY public.photos (id, photo_id, photo_url, posted_at) FROM stdin;\n",
            "insert into photos (id, photo_id, photo_url) values (1, 2, 'x');\n",
            "CREATE TABLE photos (id, photo_id, photo_url);\n",
        ] {
            assert_eq!(sniff(statement.as_bytes()), None, "{statement}");
        }
    }

    #[test]
    fn photo_id_and_url_suffice() {
        let found = read_text("photo_id,photo_url\n5,http://x\n", &[]).unwrap();
        assert_eq!((found[0].face_id.as_str(), found[0].label_id.as_str()), ("5", ""));
        let found = read_text("url,photo_id,label_name\nhttp://x,5,Ana\n", &["photos.photo_url=url"]).unwrap();
        assert_eq!((found[0].photo_url.as_str(), found[0].label_id.as_str()), ("http://x", "Ana"));
    }

    #[test]
    fn a_url_column_suffices_in_every_format() {
        let texts = [
            "URL,TEXT,LICENSE\nhttp://x/1,\"a, b\",by\nhttp://x/2,,\n",
            "TEXT\tLICENSE\turl\na, b\tby\thttp://x/1\n\\N\t\\N\thttp://x/2\n",
            "{\"key\":\"0001\",\"url\":\"http://x/1\",\"TEXT\":\"a, b\",\"LICENSE\":\"by\"}\n{\"url\":\"http://x/2\"}\n",
        ];
        for text in texts {
            let mapping = Mapping::parse(&["labels.name=TEXT"]).unwrap().keep(&["LICENSE"]).unwrap();
            let format = sniff(text.as_bytes(), &mapping, None).unwrap().expect("a table");
            let mut quiet = |_: Progress| {};
            let stream = Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet);
            let warnings = Warnings::default();
            let reading = TableReading { warnings: &warnings, lenient: false };
            let photos = read(stream, format, &mapping, reading).unwrap();
            let [one, two] = &photos[..] else { panic!("{photos:?}") };
            assert_eq!((one.photo_url.as_str(), one.label_name.as_deref()), ("http://x/1", Some("a, b")), "{text}");
            assert_eq!(one.columns.get("LICENSE").map(String::as_str), Some("by"), "{text}");
            assert!(two.columns.is_empty() && one.photo_id != two.photo_id, "{text}");
        }
        let sole = read_text("url\nhttp://x/1\n", &[]).unwrap();
        assert_eq!(sole[0].photo_id, read_text("caption,url\nx,http://x/1\n", &[]).unwrap()[0].photo_id);
    }

    #[test]
    fn errors_have_positions() {
        for (text, position) in [
            ("photo_id,photo_url\n5,a\n6,b,c\n", "line 3, byte 23"),
            ("photo_id,photo_url\n5,a\n5,b\n", "line 3, byte 23"),
            ("photo_id,photo_url\n5,a\n,b\n", "line 3, byte 23"),
            ("photo_id,photo_url\n5,\"a\n", "line 3, byte 24"),
            ("{\"photo_id\":1,\"photo_url\":\"a\"}\n{\"photo_id\":2,", "line 2, byte 31"),
            ("{\"photo_id\":{},\"photo_url\":\"a\"}", "line 1, byte 0"),
            ("{\"url\":\"a\"}\n{\"url\":\"b\",\"photo_id\":1}", "line 2, byte 12"),
        ] {
            let error = read_text(text, &[]).unwrap_err().to_string();
            assert!(error.contains(position), "{text:?}: {error}");
        }
        let error = read_text("{\"photo_id\":1,\"link\":\"a\"}", &[]).unwrap_err().to_string();
        assert!(error.contains("`photo_url` is missing, found link, photo_id: name it"), "{error}");
        let error = read_text("photo_id,link\n", &[]).unwrap_err().to_string();
        assert!(error.contains("`photo_url` is missing, found photo_id, link"), "{error}");
    }
}
