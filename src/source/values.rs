//! Parses one row of an INSERT, such as `(1,'a',NULL)`, and decodes its values.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::lexer::Dialect;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Null,
    /// A number or a word, which stands for itself.
    Bare,
    /// A string, without its quotes. `backslashes`: backslashes are escapes.
    Text {
        quote: u8,
        backslashes: bool,
    },
    /// Hex digits.
    Hex,
    /// An expression that only the database can evaluate.
    Expression,
}

/// One value: its kind, and its range in the text.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    kind: ValueKind,
    start: usize,
    end: usize,
}

/// A syntax error, `at` bytes into the text.
#[derive(Debug, PartialEq, Eq)]
pub struct RowError {
    pub at: usize,
    pub detail: &'static str,
}

/// Parses rows by the rules of a dialect.
#[derive(Debug, Clone, Copy)]
pub struct RowScanner {
    pub dialect: Dialect,
    /// Whether a backslash in a plain string is an escape.
    pub backslashes: bool,
}

/// The text ends within the row.
struct Incomplete;

type Scan<T> = Result<T, Option<RowError>>;

impl From<Incomplete> for Option<RowError> {
    fn from(_: Incomplete) -> Self {
        None
    }
}

impl RowScanner {
    /// Finds the values of the row at the start of `text` and returns the row's length in bytes. None: the text ends
    /// within the row.
    pub fn row(self, text: &[u8], values: &mut Vec<Value>) -> Result<Option<usize>, RowError> {
        values.clear();
        match self.scan_row(text, values) {
            Ok(length) => Ok(Some(length)),
            Err(None) => Ok(None),
            Err(Some(fault)) => Err(fault),
        }
    }

    fn scan_row(self, text: &[u8], values: &mut Vec<Value>) -> Scan<usize> {
        if byte(text, 0)? != b'(' {
            return fault(0, "a row does not start with `(`");
        }
        let mut at = 1;
        loop {
            at = blank(text, at);
            let value = self.value(text, at)?;
            at = blank(text, value.after);
            values.push(value.value);
            match byte(text, at)? {
                b',' => at += 1,
                b')' => return Ok(at + 1),
                _ => return fault(at, "a value is followed by neither `,` nor `)`"),
            }
        }
    }

    fn value(self, text: &[u8], at: usize) -> Scan<ScannedValue> {
        let simple = self.simple(text, at)?;
        let next = blank(text, simple.after);
        match byte(text, next)? {
            b',' | b')' => Ok(simple),
            // A cast changes how the database stores the value, not the text in the dump.
            b':' if simple.value.kind != ValueKind::Expression => {
                Ok(ScannedValue { after: self.expression(text, next)?, ..simple })
            }
            _ => {
                let after = self.expression(text, at)?;
                Ok(ScannedValue { value: Value { kind: ValueKind::Expression, start: at, end: after }, after })
            }
        }
    }

    /// Scans a word, a number, or a string with its prefix.
    fn simple(self, text: &[u8], at: usize) -> Scan<ScannedValue> {
        let mysql = self.dialect == Dialect::MySql;
        let first = byte(text, at)?;
        if first == b'\'' || (mysql && first == b'"') {
            return string(text, at, first, self.backslashes);
        }
        let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-');
        let end = at + text[at..].iter().position(|byte| !is_bare(byte)).ok_or(Incomplete)?;
        let word = &text[at..end];
        let quote = blank(text, end);
        if byte(text, quote)? == b'\'' && !word.is_empty() {
            let is = |prefix: &[u8]| word.eq_ignore_ascii_case(prefix);
            return match word {
                _ if is(b"x") => Ok(string(text, quote, b'\'', false)?.read_as(ValueKind::Hex)),
                _ if is(b"e") && !mysql => string(text, quote, b'\'', true),
                _ if is(b"n") || (mysql && word[0] == b'_') => string(text, quote, b'\'', self.backslashes),
                _ => Ok(string(text, quote, b'\'', self.backslashes)?.read_as(ValueKind::Expression)),
            };
        }
        let (kind, start) = match word {
            [] => (ValueKind::Expression, at),
            _ if word.eq_ignore_ascii_case(b"null") => (ValueKind::Null, at),
            [b'0', b'x' | b'X', digits @ ..] if mysql && digits.iter().all(u8::is_ascii_hexdigit) => {
                (ValueKind::Hex, at + 2)
            }
            _ => (ValueKind::Bare, at),
        };
        Ok(ScannedValue { value: Value { kind, start, end }, after: end })
    }

    /// Skips to the `,` or `)` that ends the expression at `at`.
    fn expression(self, text: &[u8], mut at: usize) -> Scan<usize> {
        let mut depth = 0usize;
        loop {
            match byte(text, at)? {
                b',' | b')' if depth == 0 => return Ok(at),
                b';' if depth == 0 => return fault(at, "the row is not closed"),
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.saturating_sub(1),
                quote @ (b'\'' | b'"') => {
                    let escaped = self.backslashes || (at > 0 && matches!(text[at - 1], b'e' | b'E'));
                    at = string(text, at, quote, escaped)?.after;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Decodes a value to bytes. Hex digits are decoded, except in an id, which keeps them as text.
    pub fn decode(self, text: &[u8], value: Value, is_id: bool) -> Result<Option<Cow<'_, [u8]>>, RowError> {
        let written = &text[value.start..value.end];
        let bytes = match value.kind {
            ValueKind::Null => return Ok(None),
            ValueKind::Bare => Cow::Borrowed(written),
            ValueKind::Text { quote, backslashes: true } if memchr2(quote, b'\\', written).is_some() => {
                Cow::Owned(match self.dialect {
                    Dialect::Standard => unescape_standard(written),
                    Dialect::MySql => unescape_mysql(written, quote),
                })
            }
            ValueKind::Text { quote, backslashes: false } if memchr(quote, written).is_some() => {
                Cow::Owned(undouble(written, quote))
            }
            ValueKind::Text { .. } => Cow::Borrowed(written),
            ValueKind::Hex if is_id => Cow::Owned(written.to_ascii_lowercase()),
            ValueKind::Hex => Cow::Owned(unhex(written).ok_or(RowError {
                at: value.start,
                detail: "a hex string has an odd number of digits or an invalid digit",
            })?),
            ValueKind::Expression => {
                return Err(RowError {
                    at: value.start,
                    detail: "this expression cannot be evaluated without the database",
                });
            }
        };
        Ok(Some(bytes))
    }
}

struct ScannedValue {
    value: Value,
    after: usize,
}

impl ScannedValue {
    fn read_as(self, kind: ValueKind) -> Self {
        Self { value: Value { kind, ..self.value }, ..self }
    }
}

fn fault<T>(at: usize, detail: &'static str) -> Scan<T> {
    Err(Some(RowError { at, detail }))
}

fn byte(text: &[u8], at: usize) -> Result<u8, Incomplete> {
    text.get(at).copied().ok_or(Incomplete)
}

fn blank(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Scans the string whose opening quote is at `at`. One byte after it is needed, since a quote may be doubled.
fn string(text: &[u8], at: usize, quote: u8, backslashes: bool) -> Scan<ScannedValue> {
    let mut end = at + 1;
    loop {
        let rest = text.get(end..).ok_or(Incomplete)?;
        let stop = if backslashes { memchr2(quote, b'\\', rest) } else { memchr(quote, rest) };
        end += stop.ok_or(Incomplete)?;
        if text[end] == quote && byte(text, end + 1)? != quote {
            let value = Value { kind: ValueKind::Text { quote, backslashes }, start: at + 1, end };
            return Ok(ScannedValue { value, after: end + 1 });
        }
        end += 2;
    }
}

fn undouble(written: &[u8], quote: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = memchr(quote, rest) {
        bytes.extend_from_slice(&rest[..=at]);
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// Decodes MySQL's escapes. `\%` and `\_` keep their backslash, as in MySQL outside LIKE.
fn unescape_mysql(written: &[u8], quote: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == quote {
            rest.next();
        }
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'0') => bytes.push(0),
            Some(b'b') => bytes.push(8),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'Z') => bytes.push(26),
            Some(like @ (b'%' | b'_')) => bytes.extend([b'\\', like]),
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    bytes
}

/// Decodes the escapes of an `E''` string.
fn unescape_standard(written: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut at = 0;
    while let Some(&byte) = written.get(at) {
        at += 1;
        match byte {
            b'\'' => {
                bytes.push(byte);
                at += 1;
            }
            b'\\' => {
                at += match unicode_escape(&written[at..]) {
                    Some((character, length)) => {
                        bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                        length
                    }
                    None => unescape_one(&written[at..], &mut bytes),
                }
            }
            _ => bytes.push(byte),
        }
    }
    bytes
}

/// Decodes `u` and four, or `U` and eight hex digits. Returns the character and the number of bytes read.
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let length = match text.first()? {
        b'u' => 5,
        b'U' => 9,
        _ => return None,
    };
    let digits = std::str::from_utf8(text.get(1..length)?).ok()?;
    Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, length))
}

/// Decodes the text after a backslash as PostgreSQL does in `E''` strings and in COPY rows. Returns the number of
/// bytes read.
pub fn unescape_one(text: &[u8], bytes: &mut Vec<u8>) -> usize {
    let Some(&first) = text.first() else { return 0 };
    let digits = |from: usize, most: usize, radix: u32| {
        let digits = text[from..].iter().take(most);
        digits.take_while(|byte| char::from(**byte).is_digit(radix)).count()
    };
    let number = |from: usize, length: usize, radix: u32| {
        text[from..from + length]
            .iter()
            .fold(0u32, |number, byte| number * radix + char::from(*byte).to_digit(radix).unwrap_or(0))
    };
    match first {
        b'b' => bytes.push(8),
        b'f' => bytes.push(12),
        b'n' => bytes.push(b'\n'),
        b'r' => bytes.push(b'\r'),
        b't' => bytes.push(b'\t'),
        b'v' => bytes.push(11),
        b'0'..=b'7' => {
            let length = digits(0, 3, 8);
            bytes.push(number(0, length, 8) as u8);
            return length;
        }
        b'x' if digits(1, 2, 16) > 0 => {
            let length = digits(1, 2, 16);
            bytes.push(number(1, length, 16) as u8);
            return 1 + length;
        }
        _ => bytes.push(first),
    }
    1
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(dialect: Dialect, text: &str) -> Result<Vec<Option<String>>, RowError> {
        let rules = RowScanner { dialect, backslashes: dialect == Dialect::MySql };
        let mut values = Vec::new();
        let length = rules.row(text.as_bytes(), &mut values)?.expect("a complete row");
        assert_eq!(length, text.len());
        for cut in 0..text.len() {
            assert_eq!(rules.row(&text.as_bytes()[..cut], &mut Vec::new())?, None, "{}", &text[..cut]);
        }
        values
            .into_iter()
            .map(|value| {
                let bytes = rules.decode(text.as_bytes(), value, false)?;
                Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
            })
            .collect()
    }

    fn some(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| (*value != "NULL").then(|| (*value).to_owned())).collect()
    }

    #[test]
    fn mysql_values_are_decoded() {
        let row = r#"(1,-2.5e-3, NULL ,'a\'b''c\\d\n\%\Z',"x\"y""z",0x4142,x'43',_binary 'D\0',_utf8mb4'E;)',true)"#;
        let row: String = row.to_owned();
        assert_eq!(
            decoded(Dialect::MySql, &row).unwrap(),
            some(&["1", "-2.5e-3", "NULL", "a'b'c\\d\n\\%\u{1a}", "x\"y\"z", "AB", "C", "D\0", "E;)", "true"])
        );
    }

    #[test]
    fn standard_values_are_decoded() {
        let row =
            r"(1, 'a''b\', E'c\'d\n\x41\102\\\u5B87''', NULL, X'4142', '2016-01-01'::timestamp(0), '{1,2}'::int[])";
        assert_eq!(
            decoded(Dialect::Standard, row).unwrap(),
            some(&["1", "a'b\\", "c'd\nAB\\宇'", "NULL", "AB", "2016-01-01", "{1,2}"])
        );
    }

    #[test]
    fn expressions_are_skipped_but_not_decoded() {
        let row = r"(1,replace('a,\n)','\n',char(10)),ARRAY[1,2],now() + '1 day',2)";
        let rules = RowScanner { dialect: Dialect::Standard, backslashes: false };
        let mut values = Vec::new();
        assert_eq!(rules.row(row.as_bytes(), &mut values), Ok(Some(row.len())));
        assert_eq!(values.len(), 5);
        for value in &values[1..4] {
            assert!(rules.decode(row.as_bytes(), *value, false).is_err());
        }
        assert_eq!(rules.decode(row.as_bytes(), values[4], false).unwrap().as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn hex_ids_stay_hex() {
        let rules = RowScanner { dialect: Dialect::MySql, backslashes: true };
        let mut values = Vec::new();
        let row = b"(0x00FF,0x0)";
        rules.row(row, &mut values).unwrap();
        assert_eq!(rules.decode(row, values[0], true).unwrap().as_deref(), Some(&b"00ff"[..]));
        assert_eq!(rules.decode(row, values[0], false).unwrap().as_deref(), Some(&b"\0\xff"[..]));
        assert!(rules.decode(row, values[1], false).is_err());
    }

    #[test]
    fn malformed_rows_are_errors() {
        for row in ["1)", "(1 2;", "(1;2)"] {
            let rules = RowScanner { dialect: Dialect::Standard, backslashes: false };
            assert!(rules.row(row.as_bytes(), &mut Vec::new()).is_err(), "{row}");
        }
    }
}
