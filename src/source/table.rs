//! Reads candidates that are already selected: CSV, TSV or JSON lines with the columns of the query's result.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::{memchr, memchr2};

use super::candidates::IdKey;
use super::error::SourceError;
use super::mapping::{Mapping, Role};
use super::postgres::unescape;
use super::stream::{BOM, Stream};
use crate::domain::{Candidate, Id};

/// The columns of the query's result, in order.
pub const COLUMNS: [&str; 7] =
    ["face_id", "photo_id", "source_url", "photo_url", "posted_at", "label_id", "label_name"];

/// The same columns in the source database.
const ORIGINS: [(Role, usize); 7] = [
    (Role::Faces, 0),
    (Role::Photos, 0),
    (Role::Photos, 1),
    (Role::Photos, 2),
    (Role::Photos, 3),
    (Role::Labels, 0),
    (Role::Labels, 1),
];

/// The format of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// RFC 4180. An empty unquoted field is NULL.
    Csv,
    /// PostgreSQL's COPY text format: `\N`, `\t`, `\n`, `\\`.
    Tsv,
    JsonLines,
}

/// Detects the format from the start of the file. None: it is not a table of candidates.
pub fn sniff(head: &[u8], mapping: &Mapping) -> Option<TableFormat> {
    let head = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    if head.first() == Some(&b'{') {
        return Some(TableFormat::JsonLines);
    }
    let line = &head[..memchr(b'\n', head).unwrap_or(head.len())];
    // SQL statements also have column names between commas.
    let is_sql =
        |word: &[u8]| [&b"COPY"[..], b"INSERT", b"CREATE", b"SELECT"].iter().any(|w| w.eq_ignore_ascii_case(word));
    if line.split(|byte| *byte == b' ').next().is_some_and(is_sql) {
        return None;
    }
    let format = if memchr(b'\t', line).is_some() { TableFormat::Tsv } else { TableFormat::Csv };
    let names = names(mapping);
    let separator = if format == TableFormat::Tsv { b'\t' } else { b',' };
    let is_known = |field: &[u8]| {
        let field = field.trim_ascii();
        let field = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\"")).unwrap_or(field);
        names.iter().any(|name| name.as_bytes() == field)
    };
    line.split(|byte| *byte == separator).any(is_known).then_some(format)
}

fn names(mapping: &Mapping) -> [&str; 7] {
    std::array::from_fn(|i| mapping.renamed(ORIGINS[i].0, ORIGINS[i].1).unwrap_or(COLUMNS[i]))
}

/// Reads the rows in order. `photo_id` and `photo_url` are required. A missing `face_id` is replaced by the photo's
/// id; a missing `label_id` by the label's name, or by an empty id if that is missing too.
pub fn read(mut stream: Stream<'_>, format: TableFormat, mapping: &Mapping) -> Result<Vec<Candidate>, SourceError> {
    if stream.fill(BOM.len())?.starts_with(BOM) {
        stream.consume(BOM.len());
    }
    let names = names(mapping);
    let mut columns = None;
    let mut seen = HashSet::new();
    let mut candidates = Vec::new();
    while let Some(length) = record(&mut stream, format)? {
        let text = &stream.window()[..length];
        if text.iter().all(u8::is_ascii_whitespace) {
            stream.consume(length);
            continue;
        }
        let text = std::str::from_utf8(text).map_err(|error| stream.broken(error.valid_up_to(), "invalid UTF-8"))?;
        let values = match (format, &columns) {
            (TableFormat::JsonLines, _) => members(text, &names).map_err(|detail| stream.broken(0, detail))?,
            (_, None) => {
                columns = Some(HeaderColumns::find(&fields(text, format), &names)?);
                stream.consume(length);
                continue;
            }
            (_, Some(columns)) => columns.pick(fields(text, format)).map_err(|detail| stream.broken(0, detail))?,
        };
        let candidate = candidate(values).map_err(|detail| stream.broken(0, detail))?;
        if !seen.insert(IdKey::new(candidate.photo_id.as_str())) {
            return Err(stream.broken(0, format!("photo {} exists twice", candidate.photo_id)));
        }
        candidates.push(candidate);
        stream.rows += 1;
        stream.consume(length);
    }
    Ok(candidates)
}

type CandidateValues<'a> = [Option<Cow<'a, str>>; 7];

fn candidate(values: CandidateValues<'_>) -> Result<Candidate, String> {
    let [face_id, photo_id, source_url, photo_url, posted_at, label_id, label_name] = values;
    let photo_id = Id::new(photo_id.filter(|id| !id.is_empty()).ok_or("a row has no photo_id")?);
    Ok(Candidate {
        face_id: face_id.map_or_else(|| photo_id.clone(), Id::new),
        label_id: Id::new(label_id.or_else(|| label_name.clone()).unwrap_or_default()),
        label_name: label_name.map(Into::into),
        photo_url: photo_url.unwrap_or_default().into(),
        source_url: source_url.map(Into::into),
        posted_at: posted_at.map(Into::into),
        photo_id,
        source: None,
        columns: Default::default(),
    })
}

/// Returns the length of the next record, including its line end. None at the end of the file.
fn record(stream: &mut Stream<'_>, format: TableFormat) -> Result<Option<usize>, SourceError> {
    loop {
        let window = stream.window();
        let end = if format == TableFormat::Csv { csv_end(window) } else { memchr(b'\n', window) };
        if let Some(end) = end {
            return Ok(Some(end + 1));
        }
        if stream.grow()? {
            continue;
        }
        let window = stream.window();
        if format == TableFormat::Csv && memchr::memchr_iter(b'"', window).count() % 2 == 1 {
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

fn fields(line: &str, format: TableFormat) -> Vec<Option<Cow<'_, str>>> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match format {
        TableFormat::Csv => csv_fields(line),
        _ => line.split('\t').map(tsv_field).collect(),
    }
}

fn tsv_field(field: &str) -> Option<Cow<'_, str>> {
    match unescape(field.as_bytes())? {
        Cow::Borrowed(_) => Some(Cow::Borrowed(field)),
        Cow::Owned(bytes) => Some(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

fn csv_fields(line: &str) -> Vec<Option<Cow<'_, str>>> {
    let mut fields = Vec::with_capacity(COLUMNS.len());
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (field, after) = csv_field(text);
        fields.push(field);
        rest = after;
    }
    fields
}

/// Splits off the first field at its comma. Quotes may open and close anywhere in a field, as in PostgreSQL.
fn csv_field(text: &str) -> (Option<Cow<'_, str>>, Option<&str>) {
    let bytes = text.as_bytes();
    let end = memchr2(b',', b'"', bytes).unwrap_or(text.len());
    if bytes.get(end) != Some(&b'"') {
        let field = (end > 0).then(|| Cow::Borrowed(&text[..end]));
        return (field, text.get(end + 1..));
    }
    let mut field = text[..end].to_owned();
    let mut quoted = false;
    let mut characters = text[end..].char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if quoted && characters.next_if(|(_, next)| *next == '"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => return (Some(Cow::Owned(field)), text.get(end + at + 1..)),
            _ => field.push(character),
        }
    }
    (Some(Cow::Owned(field)), None)
}

/// The positions of the result's columns in the header.
struct HeaderColumns {
    indices: [Option<usize>; 7],
    width: usize,
}

impl HeaderColumns {
    fn find(header: &[Option<Cow<'_, str>>], names: &[&str; 7]) -> Result<Self, SourceError> {
        let header: Vec<&str> = header.iter().map(|name| name.as_deref().unwrap_or_default().trim()).collect();
        let indices: [_; 7] = std::array::from_fn(|i| header.iter().position(|name| *name == names[i]));
        let missing: Vec<String> = [1, 3]
            .into_iter()
            .filter(|i: &usize| indices[*i].is_none())
            .map(|i| {
                let (role, slot) = ORIGINS[i];
                format!(
                    "column `{}` is missing, found {}: name it with --map {role}.{}=COLUMN",
                    names[i],
                    header.join(", "),
                    role.columns()[slot]
                )
            })
            .collect();
        if missing.is_empty() { Ok(Self { indices, width: header.len() }) } else { Err(SourceError::Unfit(missing)) }
    }

    fn pick<'a>(&self, fields: Vec<Option<Cow<'a, str>>>) -> Result<CandidateValues<'a>, String> {
        if fields.len() != self.width {
            return Err(format!("a row has {} fields for {} columns", fields.len(), self.width));
        }
        Ok(self.indices.map(|index| index.and_then(|index| fields[index].clone())))
    }
}

/// Returns the named values of a JSON object. Numbers are kept as written.
fn members<'a>(line: &'a str, names: &[&str; 7]) -> Result<CandidateValues<'a>, String> {
    let mut object: std::collections::HashMap<Cow<'a, str>, &'a serde_json::value::RawValue> =
        serde_json::from_str(line).map_err(|error| format!("not a JSON object ({error})"))?;
    let mut values = CandidateValues::default();
    for (value, name) in values.iter_mut().zip(names) {
        let Some(raw) = object.remove(*name).map(|raw| raw.get()) else { continue };
        *value = match raw.as_bytes()[0] {
            b'n' => None,
            b'"' => Some(serde_json::from_str::<String>(raw).map_err(|error| error.to_string())?.into()),
            b'{' | b'[' => return Err(format!("`{name}` is neither a string nor a number")),
            _ => Some(raw.into()),
        };
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::stream::{Progress, ReadMeter};

    fn read_text(text: &str, map: &[&str]) -> Result<Vec<Candidate>, SourceError> {
        let mut quiet = |_: Progress| {};
        let mapping = Mapping::parse(map).unwrap();
        let format = sniff(text.as_bytes(), &mapping).expect("a table");
        read(Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet), format, &mapping)
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
        assert_eq!(sniff(b"photo_id,photo_url\n5,a\n", &mapping), Some(TableFormat::Csv));
        for statement in [
            "COPY public.photos (id, photo_id, photo_url, posted_at) FROM stdin;\n",
            "insert into photos (id, photo_id, photo_url) values (1, 2, 'x');\n",
            "CREATE TABLE photos (id, photo_id, photo_url);\n",
        ] {
            assert_eq!(sniff(statement.as_bytes(), &mapping), None, "{statement}");
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
    fn errors_have_positions() {
        for (text, position) in [
            ("photo_id,photo_url\n5,a\n6,b,c\n", "line 3, byte 23"),
            ("photo_id,photo_url\n5,a\n5,b\n", "line 3, byte 23"),
            ("photo_id,photo_url\n5,a\n,b\n", "line 3, byte 23"),
            ("photo_id,photo_url\n5,\"a\n", "line 3, byte 24"),
            ("{\"photo_id\":1,\"photo_url\":\"a\"}\n{\"photo_id\":2,", "line 2, byte 31"),
            ("{\"photo_id\":{}}", "line 1, byte 0"),
        ] {
            let error = read_text(text, &[]).unwrap_err().to_string();
            assert!(error.contains(position), "{text:?}: {error}");
        }
        let error = read_text("photo_id,url\n", &[]).unwrap_err().to_string();
        assert!(error.contains("`photo_url` is missing, found photo_id, url"), "{error}");
    }
}
