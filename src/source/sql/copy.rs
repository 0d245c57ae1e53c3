//! PostgreSQL's COPY and its rows.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2_iter, memmem};

use super::super::candidates::RowOrigin;
use super::super::charset::CharacterSet;
use super::super::column::Storage;
use super::super::error::SourceError;
use super::super::mapping::{ColumnMap, SourceRow, WIDTH};
use super::super::stream::Stream;
use super::catalog::{RowPlan, TableUse};
use super::double::PendingRows;
use super::escapes::unescape_one;
use super::insert::{omitted, unlike_type, utf8, wrong_width};
use super::lexer::Token;
use super::script::{DUMP_ANEW, Script, not_utf8, show};

/// The options of COPY's text format.
#[derive(Debug, Clone)]
struct CopyFormat {
    delimiter: u8,
    null: Vec<u8>,
    charset: CharacterSet,
    header: bool,
    /// Whether it is the text format, and not CSV or binary.
    text: bool,
}

impl Script<'_, '_> {
    pub fn copy(&mut self) -> Result<(), SourceError> {
        if *self.lexer.peek()? == Token::Symbol(b'(') {
            // COPY (SELECT ...) TO stdout.
            return self.skip_plain();
        }
        let Some(table) = self.table_name()? else { return Err(self.no_table_name("COPY")) };
        let columns = self.column_list()?;
        if self.lexer.take_word("TO")? {
            return self.skip_plain();
        }
        if !self.lexer.take_word("FROM")? {
            let found = self.shown_token()?;
            return Err(self.lexer.broken(format!("COPY `{table}` is followed by {found}, not by FROM")));
        }
        let used = self.catalog.role(&table).is_some();
        if !self.lexer.take_word("STDIN")? {
            let archive = matches!(self.lexer.peek()?, Token::Text(path) if path.starts_with(b"$$PATH$$"));
            let remedy = if archive {
                "this is restore.sql of a pg_dump in tar format: give the .tar as it is"
            } else {
                DUMP_ANEW
            };
            if used {
                return Err(self.refused(format!("the rows of COPY `{table}` are in another file; {remedy}")));
            }
            return self.skip_plain();
        }
        let format = self.copy_format()?;
        self.check_created(&table)?;
        self.check_triggers(&table)?;
        let table_use = self.catalog.look_up(&table, columns);
        self.lexer.skip_line()?;
        match table_use {
            TableUse::Read(plan) if format.text => {
                self.set_types(plan.columns.role);
                self.copied_rows(&plan, &format)
            }
            TableUse::Read(_) => Err(self.refused("only the text format of COPY is supported")),
            TableUse::Skip(width) => self.skip_copied_rows(width.filter(|_| format.text), format.delimiter),
            TableUse::NoColumns => Err(self.no_columns(&table)),
            TableUse::Wrong(detail) => Err(self.lexer.broken(detail)),
        }
    }

    /// Reads the options of COPY in both their forms: `WITH (FORMAT text, NULL '')` and `WITH NULL AS ''`.
    fn copy_format(&mut self) -> Result<CopyFormat, SourceError> {
        let mut format = CopyFormat {
            delimiter: b'\t',
            null: b"\\N".to_vec(),
            charset: self.lexer.syntax.charset,
            header: false,
            text: true,
        };
        let tokens = self.collect_statement()?;
        let mut rest = tokens.iter().filter(|token| !matches!(token, Token::Symbol(b'(' | b')' | b','))).peekable();
        while let Some(token) = rest.next() {
            rest.next_if(|next| next.is("AS"));
            match token {
                token if token.is("WITH") => {}
                token if token.is_any(&["FORMAT"]) => {
                    format.text = rest.next().is_some_and(|value| value.is("text") || matches!(value, Token::Text(_)));
                }
                token if token.is_any(&["CSV", "BINARY"]) => format.text = false,
                token if token.is("NULL") => match rest.next() {
                    Some(Token::Text(text)) => format.null.clone_from(text),
                    _ => return Err(self.lexer.broken("COPY has NULL without a text")),
                },
                token if token.is_any(&["DELIMITER", "DELIMITERS"]) => match rest.next() {
                    Some(Token::Text(text)) if matches!(text.as_slice(), [_]) => format.delimiter = text[0],
                    Some(Token::Text(text)) if text == b"\\t" => {}
                    _ => return Err(self.lexer.broken("COPY has a delimiter that is no single byte")),
                },
                token if token.is("ENCODING") => {
                    let name = match rest.next() {
                        Some(Token::Text(text)) => String::from_utf8_lossy(text).into_owned(),
                        _ => String::new(),
                    };
                    format.charset = CharacterSet::postgres(&name)
                        .ok_or_else(|| self.refused("COPY names an encoding that is not known"))?;
                }
                token if token.is("HEADER") => {
                    let off = rest.next_if(|next| next.is_any(&["true", "on", "false", "off", "match"]));
                    format.header = !off.is_some_and(|value| value.is_any(&["false", "off"]));
                }
                token if token.is("FREEZE") => drop(rest.next_if(|next| next.is_any(&["true", "on", "false", "off"]))),
                // These belong to CSV.
                token if token.is_any(&["QUOTE", "ESCAPE"]) => drop(rest.next()),
                token if token.is_any(&["FORCE", "FORCE_NULL", "FORCE_NOT_NULL", "FORCE_QUOTE"]) => format.text = false,
                other => {
                    return Err(self.refused(format!("COPY has {}, which is not supported", show(other))));
                }
            }
        }
        Ok(format)
    }

    /// Reads the lines after `COPY ... FROM stdin;` up to and including `\.`.
    fn copied_rows(&mut self, plan: &RowPlan, format: &CopyFormat) -> Result<(), SourceError> {
        let column_map = &plan.columns;
        let role = column_map.role;
        let mut header = format.header;
        loop {
            let stream = &mut self.lexer.stream;
            let mut seen = 0;
            let end = loop {
                match memchr(b'\n', &stream.window()[seen..]) {
                    Some(end) => break seen + end,
                    None => seen = stream.window().len(),
                }
                if !stream.grow()? {
                    // The last `\.` may lack its newline; a row may not.
                    if matches!(stream.window(), b"\\." | b"\\.\r") {
                        let rest = stream.window().len();
                        stream.consume(rest);
                        return Ok(());
                    }
                    return Err(stream.truncated(r"the dump ends before the `\.` that closes a COPY"));
                }
            };
            let line = &stream.window()[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line == b"\\." {
                stream.consume(end + 1);
                return Ok(());
            }
            if std::mem::take(&mut header) {
                stream.consume(end + 1);
                continue;
            }
            if is_open(line, format.charset) {
                return Err(stream.broken(0, "a line of COPY ends with a backslash: the row goes on in the next line"));
            }
            let fields = split(line, column_map, format.delimiter, format.charset)
                .map_err(|found| stream.broken(0, wrong_width(column_map, found)))?;
            if !self.lenient {
                check_others(line, plan, format).map_err(|detail| stream.refused(0, detail))?;
            }
            let mut row = SourceRow::default();
            for (slot, field) in fields.into_iter().enumerate().take(role.columns().len()) {
                if column_map.indices[slot].is_none() {
                    row[slot] = omitted(plan, slot).map_err(|detail| stream.broken(0, detail))?;
                    continue;
                }
                let Some(field) = field.filter(|field| *field != format.null) else {
                    if plan.slots[slot].not_null {
                        let detail = format!("{role}.{} is NULL, but is NOT NULL", role.columns()[slot]);
                        return Err(stream.broken(0, detail));
                    }
                    continue;
                };
                let bytes = format
                    .charset
                    .decode(unescape_text(field, format.charset))
                    .map_err(|detail| stream.broken(0, detail))?;
                let text = utf8(bytes).map_err(|_| stream.broken(0, not_utf8(role, slot)))?;
                let kind = &plan.slots[slot].kind;
                row[slot] = Some(match kind.stored(Cow::Borrowed(&*text), Storage::Strict) {
                    Some(Cow::Borrowed(_)) => text,
                    Some(Cow::Owned(stored)) => stored.into(),
                    None => {
                        let shown = text.chars().take(40).collect::<String>();
                        return Err(stream.refused(0, unlike_type(role, slot, &shown)));
                    }
                });
            }
            let origin = RowOrigin { part: plan.part, keyed: plan.keyed, offset: stream.offset() };
            if let Some(place) = self.builder.add(role, &row, origin)? {
                let mut pending = PendingRows::default();
                pending.push(stream, place, &row, origin)?;
                return pending.refuse_all(role);
            }
            self.session.uncommitted = true;
            self.lexer.stream.consume(end + 1);
            self.count_row()?;
        }
    }

    /// Skips the lines of a COPY. No row starts with `\.`: COPY doubles the backslash. That all rows have `width`
    /// fields shows that the end was not missed.
    fn skip_copied_rows(&mut self, width: Option<usize>, delimiter: u8) -> Result<(), SourceError> {
        let finder = memmem::Finder::new(b"\n\\.");
        let stream = &mut self.lexer.stream;
        let mut delimiters = 0usize;
        // Returns the place of a line with another number of fields.
        let mut check = |text: &[u8]| {
            let width = width?;
            for at in memchr2_iter(b'\n', delimiter, text) {
                if text[at] != b'\n' {
                    delimiters += 1;
                } else if std::mem::take(&mut delimiters) + 1 != width.max(1) {
                    return Some((at, width));
                }
            }
            None
        };
        let wrong = |stream: &Stream<'_>, (at, width): (usize, usize)| {
            stream.broken(at, format!("a row of a COPY that ends here does not have {width} values"))
        };
        if !stream.fill(2)?.starts_with(b"\\.") {
            loop {
                let window = stream.fill(4)?;
                let length = window.len();
                let end = finder.find(window);
                if end.is_none() && length < 4 {
                    return Err(stream.truncated(r"the dump ends before the `\.` that closes a COPY"));
                }
                let passed = end.map_or(length.saturating_sub(3), |at| at + 1);
                if let Some(found) = check(&window[..passed]) {
                    return Err(wrong(stream, found));
                }
                stream.consume(passed);
                if end.is_some() {
                    break;
                }
            }
        }
        if self.lexer.rest_of_line()? != "\\." {
            return Err(self.lexer.broken(r"a row of a COPY starts with `\.`"));
        }
        Ok(())
    }
}

/// Checks the fields of a COPY line that the query does not read.
fn check_others(line: &[u8], plan: &RowPlan, format: &CopyFormat) -> Result<(), String> {
    if plan.others.is_empty() {
        return Ok(());
    }
    let mut others = plan.others.iter().peekable();
    let mut start = 0;
    for (count, end) in field_ends(line, format.delimiter, format.charset).enumerate() {
        if let Some((_, kind)) = others.next_if(|(at, _)| *at == count) {
            let field = &line[start..end];
            if field != format.null {
                kind.check_unread(&format.charset.decode(unescape_text(field, format.charset))?)?;
            }
        }
        start = end + 1;
    }
    Ok(())
}

/// Returns the fields of a COPY line that the query reads. The error is the wrong number of fields.
fn split<'l>(
    line: &'l [u8],
    column_map: &ColumnMap,
    delimiter: u8,
    charset: CharacterSet,
) -> Result<[Option<&'l [u8]>; WIDTH], usize> {
    let mut fields = [None; WIDTH];
    let mut count = 0;
    let mut start = 0;
    for end in field_ends(line, delimiter, charset) {
        for (slot, index) in column_map.indices.iter().enumerate() {
            if *index == Some(count) {
                fields[slot] = Some(&line[start..end]);
            }
        }
        count += 1;
        start = end + 1;
    }
    // A table without columns has empty lines.
    if count == column_map.width || (column_map.width == 0 && line.is_empty()) { Ok(fields) } else { Err(count) }
}

/// Where the fields of a line end. A delimiter behind a backslash belongs to its field.
fn field_ends(line: &[u8], delimiter: u8, charset: CharacterSet) -> impl Iterator<Item = usize> {
    let hides = charset.hides_ascii() && memchr(b'\\', line).is_some();
    let slow = if hides { slow_ends(line, delimiter, charset) } else { Vec::new() };
    let plain = move |at: &usize| line[..*at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0;
    let fast = (!hides).then(|| memchr_iter(delimiter, line).filter(plain));
    fast.into_iter().flatten().chain(slow).chain([line.len()])
}

/// The delimiters of a line in a character set whose second bytes may be backslashes.
fn slow_ends(line: &[u8], delimiter: u8, charset: CharacterSet) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < line.len() {
        at += match line[at] {
            b'\\' => 2,
            first if line.get(at + 1).is_some_and(|second| charset.is_pair(first, *second)) => 2,
            byte => {
                if byte == delimiter {
                    ends.push(at);
                }
                1
            }
        };
    }
    ends
}

/// Whether a line ends with a backslash that is an escape.
fn is_open(line: &[u8], charset: CharacterSet) -> bool {
    if line.last() != Some(&b'\\') {
        return false;
    }
    if !charset.hides_ascii() {
        return line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
    }
    let mut at = 0;
    while at < line.len() {
        let pair = line[at] == b'\\' || line.get(at + 1).is_some_and(|second| charset.is_pair(line[at], *second));
        at += 1 + usize::from(pair);
    }
    at > line.len()
}

/// Decodes a field of COPY's text format in UTF-8.
pub fn unescape(field: &[u8]) -> Option<Cow<'_, [u8]>> {
    (field != b"\\N").then(|| unescape_text(field, CharacterSet::Utf8))
}

fn unescape_text(field: &[u8], charset: CharacterSet) -> Cow<'_, [u8]> {
    let Some(first) = memchr(b'\\', field) else { return Cow::Borrowed(field) };
    let hides = charset.hides_ascii();
    let first = if hides { 0 } else { first };
    let mut bytes = field[..first].to_vec();
    let mut rest = &field[first..];
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'\\' {
            rest = &rest[unescape_one(rest, &mut bytes)..];
            continue;
        }
        bytes.push(*byte);
        if hides
            && let Some((second, after)) = rest.split_first()
            && charset.is_pair(*byte, *second)
        {
            bytes.push(*second);
            rest = after;
        }
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Role;

    #[test]
    fn copy_fields_are_unescaped() {
        let text = |field: &[u8]| unescape(field).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(text(b"\\N"), None);
        assert_eq!(text(b""), Some("".into()));
        assert_eq!(text("宇佐美".as_bytes()), Some("宇佐美".into()));
        assert_eq!(text(br"a\tb\\N\n\r\x41\102\q\'\"), Some("a\tb\\N\n\rABq'".into()));
        let sjis = CharacterSet::postgres("SJIS").unwrap();
        assert_eq!(&*unescape_text(b"\x95\\\\tx", sjis), b"\x95\\\tx");
    }

    #[test]
    fn split_counts_the_fields() {
        let column_map = ColumnMap { role: Role::Labels, indices: [Some(2), Some(0), None, None], width: 3 };
        let (utf8, gbk) = (CharacterSet::Utf8, CharacterSet::postgres("GBK").unwrap());
        for (charset, line, ends, open) in [
            (utf8, &b"a\\\tb\tc"[..], &[4, 6][..], false),
            (utf8, b"a\\\\\tb\\\\\\", &[3, 8], true),
            (gbk, b"\xd5\\\ta\\\tb", &[2, 7], false),
            (gbk, b"\xd5\\\\", &[3], true),
            (gbk, b"\\\xd5\\", &[3], true),
        ] {
            assert_eq!(field_ends(line, b'\t', charset).collect::<Vec<_>>(), ends, "{line:?}");
            assert_eq!(is_open(line, charset), open, "{line:?}");
        }
        assert_eq!(split(b"a\t\tb", &column_map, b'\t', utf8), Ok([Some(&b"b"[..]), Some(&b"a"[..]), None, None]));
        assert_eq!(split(b"a\tb", &column_map, b'\t', utf8), Err(2));
        assert_eq!(split(b"a|b|c|d", &column_map, b'|', utf8), Err(4));
    }
}
