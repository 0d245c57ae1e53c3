//! One row of an INSERT, `(1,'a',NULL)`, and what its values mean.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::lexer::Dialect;

/// What a value is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    /// A number or a word: what is written is what it is.
    Bare,
    /// A string, without its quotes. `backslashes`: they escape.
    Text {
        quote: u8,
        backslashes: bool,
    },
    /// Hex digits.
    Hex,
    /// Something that only the database can work out.
    Expression,
}

/// One value: how it is written, and where in the text.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    kind: Kind,
    start: usize,
    end: usize,
}

/// Something wrong, `at` bytes into the text.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
    pub detail: &'static str,
}

/// How strings are to be read.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub dialect: Dialect,
    /// Whether a backslash in a plain string is an escape.
    pub backslashes: bool,
}

/// The text ends before the row does.
struct Short;

type Scan<T> = Result<T, Option<Fault>>;

impl From<Short> for Option<Fault> {
    fn from(_: Short) -> Self {
        None
    }
}

impl Rules {
    /// Finds the values of the row at the start of `text` and answers the row's length; none when the text ends
    /// within the row.
    pub fn row(self, text: &[u8], values: &mut Vec<Value>) -> Result<Option<usize>, Fault> {
        values.clear();
        match self.scan_row(text, values) {
            Ok(length) => Ok(Some(length)),
            Err(None) => Ok(None),
            Err(Some(fault)) => Err(fault),
        }
    }

    fn scan_row(self, text: &[u8], values: &mut Vec<Value>) -> Scan<usize> {
        if byte(text, 0)? != b'(' {
            return fault(0, "a row does not begin with `(`");
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

    fn value(self, text: &[u8], at: usize) -> Scan<Scanned> {
        let simple = self.simple(text, at)?;
        let next = blank(text, simple.after);
        match byte(text, next)? {
            b',' | b')' => Ok(simple),
            // A cast changes how the database keeps the value, not what is written in the dump.
            b':' if simple.value.kind != Kind::Expression => {
                Ok(Scanned { after: self.expression(text, next)?, ..simple })
            }
            _ => {
                let after = self.expression(text, at)?;
                Ok(Scanned { value: Value { kind: Kind::Expression, start: at, end: after }, after })
            }
        }
    }

    /// A word, a number or a string with what may stand before it.
    fn simple(self, text: &[u8], at: usize) -> Scan<Scanned> {
        let mysql = self.dialect == Dialect::MySql;
        let first = byte(text, at)?;
        if first == b'\'' || (mysql && first == b'"') {
            return string(text, at, first, self.backslashes);
        }
        let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-');
        let end = at + text[at..].iter().position(|byte| !is_bare(byte)).ok_or(Short)?;
        let word = &text[at..end];
        let quote = blank(text, end);
        if byte(text, quote)? == b'\'' && !word.is_empty() {
            let is = |prefix: &[u8]| word.eq_ignore_ascii_case(prefix);
            return match word {
                _ if is(b"x") => Ok(string(text, quote, b'\'', false)?.read_as(Kind::Hex)),
                _ if is(b"e") && !mysql => string(text, quote, b'\'', true),
                _ if is(b"n") || (mysql && word[0] == b'_') => string(text, quote, b'\'', self.backslashes),
                _ => Ok(string(text, quote, b'\'', self.backslashes)?.read_as(Kind::Expression)),
            };
        }
        let (kind, start) = match word {
            [] => (Kind::Expression, at),
            _ if word.eq_ignore_ascii_case(b"null") => (Kind::Null, at),
            [b'0', b'x' | b'X', digits @ ..] if mysql && digits.iter().all(u8::is_ascii_hexdigit) => {
                (Kind::Hex, at + 2)
            }
            _ => (Kind::Bare, at),
        };
        Ok(Scanned { value: Value { kind, start, end }, after: end })
    }

    /// Goes to the `,` or `)` that ends whatever begins at `at`.
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

    /// The bytes that a value stands for. Hex digits stand for bytes, or, in an id, for themselves.
    pub fn decode(self, text: &[u8], value: Value, is_id: bool) -> Result<Option<Cow<'_, [u8]>>, Fault> {
        let written = &text[value.start..value.end];
        let bytes = match value.kind {
            Kind::Null => return Ok(None),
            Kind::Bare => Cow::Borrowed(written),
            Kind::Text { quote, backslashes: true } if memchr2(quote, b'\\', written).is_some() => {
                Cow::Owned(match self.dialect {
                    Dialect::Standard => unescape_standard(written),
                    Dialect::MySql => unescape_mysql(written, quote),
                })
            }
            Kind::Text { quote, backslashes: false } if memchr(quote, written).is_some() => {
                Cow::Owned(undouble(written, quote))
            }
            Kind::Text { .. } => Cow::Borrowed(written),
            Kind::Hex if is_id => Cow::Owned(written.to_ascii_lowercase()),
            Kind::Hex => Cow::Owned(
                unhex(written).ok_or(Fault { at: value.start, detail: "a hex string has an odd or a wrong digit" })?,
            ),
            Kind::Expression => {
                return Err(Fault { at: value.start, detail: "only the database can work out this expression" });
            }
        };
        Ok(Some(bytes))
    }
}

struct Scanned {
    value: Value,
    after: usize,
}

impl Scanned {
    fn read_as(self, kind: Kind) -> Self {
        Self { value: Value { kind, ..self.value }, ..self }
    }
}

fn fault<T>(at: usize, detail: &'static str) -> Scan<T> {
    Err(Some(Fault { at, detail }))
}

fn byte(text: &[u8], at: usize) -> Result<u8, Short> {
    text.get(at).copied().ok_or(Short)
}

fn blank(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The string whose opening quote is at `at`. The byte behind it must be there: it may double the closing quote.
fn string(text: &[u8], at: usize, quote: u8, backslashes: bool) -> Scan<Scanned> {
    let mut end = at + 1;
    loop {
        let rest = text.get(end..).ok_or(Short)?;
        let stop = if backslashes { memchr2(quote, b'\\', rest) } else { memchr(quote, rest) };
        end += stop.ok_or(Short)?;
        if text[end] == quote && byte(text, end + 1)? != quote {
            let value = Value { kind: Kind::Text { quote, backslashes }, start: at + 1, end };
            return Ok(Scanned { value, after: end + 1 });
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

/// MySQL's escapes: `\%` and `\_` keep their backslash, since they matter to LIKE only.
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

/// The escapes of an `E''` string.
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

/// The character of `u` and four or `U` and eight hex digits, and how many bytes that took.
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let length = match text.first()? {
        b'u' => 5,
        b'U' => 9,
        _ => return None,
    };
    let digits = std::str::from_utf8(text.get(1..length)?).ok()?;
    Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, length))
}

/// What PostgreSQL makes of the text after a backslash, in `E''` strings and in COPY rows alike. Answers how many
/// bytes of the text it took.
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

    fn decoded(dialect: Dialect, text: &str) -> Result<Vec<Option<String>>, Fault> {
        let rules = Rules { dialect, backslashes: dialect == Dialect::MySql };
        let mut values = Vec::new();
        let length = rules.row(text.as_bytes(), &mut values)?.expect("a whole row");
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
    fn mysql_values() {
        let row = r#"(1,-2.5e-3, NULL ,'a\'b''c\\d\n\%\Z',"x\"y""z",0x4142,x'43',_binary 'D\0',_utf8mb4'E;)',true)"#;
        let row: String = row.to_owned();
        assert_eq!(
            decoded(Dialect::MySql, &row).unwrap(),
            some(&["1", "-2.5e-3", "NULL", "a'b'c\\d\n\\%\u{1a}", "x\"y\"z", "AB", "C", "D\0", "E;)", "true"])
        );
    }

    #[test]
    fn standard_values() {
        let row =
            r"(1, 'a''b\', E'c\'d\n\x41\102\\\u5B87''', NULL, X'4142', '2016-01-01'::timestamp(0), '{1,2}'::int[])";
        assert_eq!(
            decoded(Dialect::Standard, row).unwrap(),
            some(&["1", "a'b\\", "c'd\nAB\\宇'", "NULL", "AB", "2016-01-01", "{1,2}"])
        );
    }

    #[test]
    fn expressions_are_passed_but_not_guessed() {
        let row = r"(1,replace('a,\n)','\n',char(10)),ARRAY[1,2],now() + '1 day',2)";
        let rules = Rules { dialect: Dialect::Standard, backslashes: false };
        let mut values = Vec::new();
        assert_eq!(rules.row(row.as_bytes(), &mut values), Ok(Some(row.len())));
        assert_eq!(values.len(), 5);
        for value in &values[1..4] {
            assert!(rules.decode(row.as_bytes(), *value, false).is_err());
        }
        assert_eq!(rules.decode(row.as_bytes(), values[4], false).unwrap().as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn hex_in_an_id_stays_hex() {
        let rules = Rules { dialect: Dialect::MySql, backslashes: true };
        let mut values = Vec::new();
        let row = b"(0x00FF,0x0)";
        rules.row(row, &mut values).unwrap();
        assert_eq!(rules.decode(row, values[0], true).unwrap().as_deref(), Some(&b"00ff"[..]));
        assert_eq!(rules.decode(row, values[0], false).unwrap().as_deref(), Some(&b"\0\xff"[..]));
        assert!(rules.decode(row, values[1], false).is_err());
    }

    #[test]
    fn rows_that_cannot_be() {
        for row in ["1)", "(1 2;", "(1;2)"] {
            let rules = Rules { dialect: Dialect::Standard, backslashes: false };
            assert!(rules.row(row.as_bytes(), &mut Vec::new()).is_err(), "{row}");
        }
    }
}
