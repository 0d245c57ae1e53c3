//! Parses one row of an INSERT, such as `(1,'a',NULL)`, and decodes its values.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memmem};

use super::super::charset::CharacterSet;
use super::escapes::{undouble, unescape_mysql, unescape_standard, unhex};
use super::lexer::{Dialect, Syntax, is_word};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Null,
    /// A number, which stands for itself.
    Number,
    Boolean(bool),
    /// A string, without its quotes. `backslashes`: backslashes are escapes.
    Text {
        quote: u8,
        backslashes: bool,
    },
    /// A string between dollar quotes, without them.
    Dollar,
    /// Hex digits.
    Hex,
    /// A word for a value that only the database knows, such as DEFAULT.
    Computed,
    /// Anything longer.
    Expression,
}

/// One value: its kind, and its range in the text.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    kind: ValueKind,
    pub start: usize,
    pub end: usize,
}

impl Value {
    /// Whether it is a string between quotes.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, ValueKind::Text { .. })
    }

    /// Whether it is an expression, which `evaluate` of the module `expression` decodes.
    pub fn is_expression(&self) -> bool {
        self.kind == ValueKind::Expression
    }
}

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar<'t> {
    Null,
    Number(Cow<'t, [u8]>),
    /// A text in UTF-8, or in the column's character set where the script's is binary.
    Text(Cow<'t, [u8]>),
    Bytes(Cow<'t, [u8]>),
}

/// A syntax error, `at` bytes into the text.
#[derive(Debug, PartialEq, Eq)]
pub struct RowError {
    pub at: usize,
    pub detail: Cow<'static, str>,
}

/// Parses rows by the syntax of a script.
#[derive(Debug, Clone, Copy)]
pub struct RowScanner {
    pub syntax: Syntax,
    /// Whether texts are bytes without a character set.
    pub raw: bool,
}

/// The text ends within the row.
pub struct Incomplete;

pub type Scan<T> = Result<T, Option<RowError>>;

impl From<Incomplete> for Option<RowError> {
    fn from(_: Incomplete) -> Self {
        None
    }
}

/// Turns an error into a result, and an incomplete text into None.
fn complete<T>(scan: Scan<T>) -> Result<Option<T>, RowError> {
    match scan {
        Ok(found) => Ok(Some(found)),
        Err(None) => Ok(None),
        Err(Some(fault)) => Err(fault),
    }
}

/// Values in a row. MySQL allows 4096 columns, the others fewer.
pub const MAX_VALUES: usize = 4096;

/// Words that stand for a value that only the database knows.
const COMPUTED: [&str; 12] = [
    "DEFAULT",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "CURRENT_USER",
    "SESSION_USER",
    "USER",
    "UTC_DATE",
    "UTC_TIME",
    "UTC_TIMESTAMP",
];

impl RowScanner {
    /// Finds the values of the row at the start of `text` and returns the row's length in bytes. None: the text ends
    /// within the row.
    pub fn row(self, text: &[u8], values: &mut Vec<Value>) -> Result<Option<usize>, RowError> {
        values.clear();
        complete(self.scan_row(text, values))
    }

    fn scan_row(self, text: &[u8], values: &mut Vec<Value>) -> Scan<usize> {
        if byte(text, 0)? != b'(' {
            return fault(0, "a row does not start with `(`");
        }
        let mut at = 1;
        loop {
            at = self.blank(text, at)?;
            let value = self.value(text, at)?;
            at = self.blank(text, value.after)?;
            if values.len() == MAX_VALUES {
                return fault(at, format!("a row has more than {MAX_VALUES} values"));
            }
            values.push(value.value);
            match byte(text, at)? {
                b',' => at += 1,
                b')' => return Ok(at + 1),
                _ => return fault(at, "a value is followed by neither `,` nor `)`"),
            }
        }
    }

    /// Scans the value at the start of `text`, as in `SET a = 1, b = 2`, up to a `,` or `;` outside parentheses, and
    /// returns its length, too. None: the text ends within it.
    pub fn assigned(self, text: &[u8]) -> Result<Option<(Value, usize)>, RowError> {
        let end = complete(self.expression(text, 0, true))?;
        Ok(end.map(|end| {
            let trimmed = text[..end].trim_ascii_end().len();
            (Value { kind: ValueKind::Expression, start: 0, end: trimmed }, end)
        }))
    }

    fn value(self, text: &[u8], at: usize) -> Scan<ScannedValue> {
        let simple = self.simple(text, at)?;
        if let Some(simple) = &simple {
            let next = self.blank(text, simple.after)?;
            if matches!(byte(text, next)?, b',' | b')') {
                return Ok(*simple);
            }
            if simple.value.kind == ValueKind::Number && is_word(byte(text, simple.after)?) {
                return fault(at, "a number is followed by letters");
            }
        }
        let after = self.expression(text, at, false)?;
        let word = text[at..after].trim_ascii();
        if simple.is_none() && word.iter().all(|byte| is_word(*byte)) && !is_hex_number(word) {
            let word = String::from_utf8_lossy(&word[..word.len().min(60)]);
            return fault(at, format!("`{word}` is no value: a text is in quotes"));
        }
        Ok(ScannedValue { value: Value { kind: ValueKind::Expression, start: at, end: after }, after })
    }

    /// Scans a word, a number, or a string with its prefix. None: something else.
    fn simple(self, text: &[u8], at: usize) -> Scan<Option<ScannedValue>> {
        let Syntax { dialect, backslashes, .. } = self.syntax;
        let mysql = dialect == Dialect::MySql;
        let first = byte(text, at)?;
        if self.syntax.quotes_string(first) {
            return string(text, at, first, backslashes, self.syntax).map(Some);
        }
        if first == b'$' && dialect == Dialect::Postgres {
            return dollar_string(text, at).map(Some);
        }
        let found = |kind, start, end| Ok(Some(ScannedValue { value: Value { kind, start, end }, after: end }));
        if first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.') {
            if first == b'0' && matches!(byte(text, at + 1)?, b'x' | b'X') {
                let end = word_end(text, at)?;
                return if mysql && is_hex_number(&text[at..end]) {
                    found(ValueKind::Hex, at + 2, end)
                } else {
                    Ok(None)
                };
            }
            return match number_end(text, at)? {
                Some(end) => found(ValueKind::Number, at, end),
                None => Ok(None),
            };
        }
        if !is_word(first) {
            return Ok(None);
        }
        let end = word_end(text, at)?;
        let word = &text[at..end];
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        let quote = self.blank(text, end)?;
        if byte(text, quote)? == b'\'' {
            return match word {
                _ if is("x") => Ok(Some(string(text, quote, b'\'', false, self.syntax)?.read_as(ValueKind::Hex))),
                _ if is("e") && dialect == Dialect::Postgres => string(text, quote, b'\'', true, self.syntax).map(Some),
                _ if is("n") || (mysql && (is("_binary") || is("_utf8") || is("_utf8mb4") || is("_utf8mb3"))) => {
                    string(text, quote, b'\'', backslashes, self.syntax).map(Some)
                }
                _ => Ok(None),
            };
        }
        match word.len() {
            4 if is("null") => found(ValueKind::Null, at, end),
            4 if is("true") => found(ValueKind::Boolean(true), at, end),
            5 if is("false") => found(ValueKind::Boolean(false), at, end),
            _ if COMPUTED.iter().any(|known| is(known)) => found(ValueKind::Computed, at, end),
            _ => Ok(None),
        }
    }

    /// Skips white space and comments.
    pub fn blank(self, text: &[u8], mut at: usize) -> Scan<usize> {
        loop {
            match text.get(at) {
                Some(b' ' | b'\t' | b'\r' | b'\n' | 0x0c) => at += 1,
                Some(b'-' | b'/' | b'#') => match self.comment(text, at)? {
                    Some(end) => at = end,
                    None => return Ok(at),
                },
                _ => return Ok(at),
            }
        }
    }

    /// Returns the end of the comment at `at`, if there is one.
    fn comment(self, text: &[u8], at: usize) -> Scan<Option<usize>> {
        let mysql = self.syntax.dialect == Dialect::MySql;
        let line = match text[at] {
            b'#' => mysql,
            first => {
                let second = byte(text, at + 1)?;
                if first == b'/' && second == b'*' {
                    return self.block_comment(text, at).map(Some);
                }
                first == b'-' && second == b'-' && (!mysql || byte(text, at + 2)? <= b' ')
            }
        };
        if !line {
            return Ok(None);
        }
        Ok(Some(at + memchr(b'\n', &text[at..]).ok_or(Incomplete)? + 1))
    }

    fn block_comment(self, text: &[u8], at: usize) -> Scan<usize> {
        if self.syntax.dialect != Dialect::Postgres {
            if self.syntax.dialect == Dialect::MySql && matches!(byte(text, at + 2)?, b'!' | b'M') {
                return fault(at, "a conditional comment within a row cannot be read");
            }
            return Ok(at + 2 + memmem::find(&text[at + 2..], b"*/").ok_or(Incomplete)? + 2);
        }
        let (mut depth, mut end) = (1, at + 2);
        while depth > 0 {
            end += memchr2(b'*', b'/', text.get(end..).ok_or(Incomplete)?).ok_or(Incomplete)?;
            match (text[end], byte(text, end + 1)?) {
                (b'*', b'/') => (depth, end) = (depth - 1, end + 2),
                (b'/', b'*') => (depth, end) = (depth + 1, end + 2),
                _ => end += 1,
            }
        }
        Ok(end)
    }

    /// Skips to the `,` or `)` that ends the expression at `at`; with `statement`, to the `,` or `;`.
    fn expression(self, text: &[u8], mut at: usize, statement: bool) -> Scan<usize> {
        let mut depth = 0usize;
        loop {
            match byte(text, at)? {
                b',' if depth == 0 => return Ok(at),
                b')' if depth == 0 && !statement => return Ok(at),
                b';' if depth == 0 && statement => return Ok(at),
                b';' => return fault(at, "the row is not closed"),
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' if depth == 0 => return fault(at, "a bracket closes that was not opened"),
                b')' | b']' | b'}' => depth -= 1,
                b'$' if self.syntax.dialect == Dialect::Postgres => {
                    at = dollar_string(text, at)?.after;
                    continue;
                }
                b'-' | b'/' | b'#' => {
                    if let Some(end) = self.comment(text, at)? {
                        at = end;
                        continue;
                    }
                }
                quote @ (b'\'' | b'"' | b'`') => {
                    let prefixed = at > 0
                        && matches!(text[at - 1], b'e' | b'E')
                        && (at == 1 || !is_word(text[at - 2]))
                        && self.syntax.dialect == Dialect::Postgres;
                    let escapes = prefixed || (self.syntax.backslashes && self.syntax.quotes_string(quote));
                    at = string(text, at, quote, escapes, self.syntax)?.after;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Whether a value is the word NULL.
    pub fn is_null(self, value: Value) -> bool {
        value.kind == ValueKind::Null
    }

    /// Decodes a value that is no expression.
    pub fn decode<'t>(self, text: &'t [u8], value: Value) -> Result<Scalar<'t>, RowError> {
        let written = &text[value.start..value.end];
        let error = |detail: String| RowError { at: value.start, detail: detail.into() };
        Ok(match value.kind {
            ValueKind::Null => Scalar::Null,
            ValueKind::Number => Scalar::Number(Cow::Borrowed(written)),
            ValueKind::Boolean(value) => Scalar::Number(Cow::Borrowed(match (self.syntax.dialect, value) {
                (Dialect::Postgres, true) => b"true",
                (Dialect::Postgres, false) => b"false",
                (_, true) => b"1",
                (_, false) => b"0",
            })),
            ValueKind::Text { quote, backslashes } => {
                Scalar::Text(self.charset().decode(self.unescape(written, quote, backslashes)).map_err(error)?)
            }
            ValueKind::Dollar => Scalar::Text(self.charset().decode(written.into()).map_err(error)?),
            // MySQL completes an odd number of digits after 0x.
            ValueKind::Hex if written.len() % 2 == 1 && text[..value.start].ends_with(b"x") => {
                Scalar::Bytes(Cow::Owned(unhex(&[b"0", written].concat()).unwrap_or_default()))
            }
            ValueKind::Hex => Scalar::Bytes(Cow::Owned(
                unhex(written)
                    .ok_or_else(|| error("a hex string has an odd number of digits or an invalid digit".into()))?,
            )),
            ValueKind::Computed | ValueKind::Expression => {
                let word = String::from_utf8_lossy(written);
                return Err(error(format!("{word} is a value that only the database knows")));
            }
        })
    }

    /// The character set of texts.
    fn charset(self) -> CharacterSet {
        if self.raw { CharacterSet::Binary } else { self.syntax.charset }
    }

    /// Undoes the escapes of a string.
    fn unescape<'t>(self, written: &'t [u8], quote: u8, backslashes: bool) -> Cow<'t, [u8]> {
        if backslashes && memchr2(quote, b'\\', written).is_some() {
            Cow::Owned(match self.syntax.dialect {
                Dialect::MySql => unescape_mysql(written, quote, self.syntax.charset),
                _ => unescape_standard(written, self.syntax.charset),
            })
        } else if memchr(quote, written).is_some() {
            Cow::Owned(undouble(written, quote))
        } else {
            Cow::Borrowed(written)
        }
    }

    /// Scans a value that is no expression, at `at` of a text, and returns the end of it, too. None: there is none.
    pub fn simple_value(self, text: &[u8], at: usize) -> Result<Option<(Value, usize)>, RowError> {
        let found = complete(self.simple(text, at))?.flatten();
        Ok(found.map(|found| (found.value, found.after)))
    }
}

#[derive(Debug, Clone, Copy)]
struct ScannedValue {
    value: Value,
    after: usize,
}

impl ScannedValue {
    fn read_as(self, kind: ValueKind) -> Self {
        Self { value: Value { kind, ..self.value }, ..self }
    }
}

fn fault<T>(at: usize, detail: impl Into<Cow<'static, str>>) -> Scan<T> {
    Err(Some(RowError { at, detail: detail.into() }))
}

fn byte(text: &[u8], at: usize) -> Result<u8, Incomplete> {
    text.get(at).copied().ok_or(Incomplete)
}

fn word_end(text: &[u8], at: usize) -> Result<usize, Incomplete> {
    Ok(at + text[at..].iter().position(|byte| !is_word(*byte)).ok_or(Incomplete)?)
}

fn is_hex_number(word: &[u8]) -> bool {
    matches!(word, [b'0', b'x' | b'X', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Returns the end of the number at `at`. None: there is none.
fn number_end(text: &[u8], at: usize) -> Result<Option<usize>, Incomplete> {
    let digits = |mut at: usize| {
        while byte(text, at)?.is_ascii_digit() {
            at += 1;
        }
        Ok::<usize, Incomplete>(at)
    };
    let start = at + usize::from(matches!(text[at], b'+' | b'-'));
    let whole = digits(start)?;
    let mut end = whole;
    let mut count = whole - start;
    if byte(text, end)? == b'.' {
        end = digits(end + 1)?;
        count += end - whole - 1;
    }
    if count == 0 {
        return Ok(None);
    }
    if matches!(byte(text, end)?, b'e' | b'E') {
        let sign = usize::from(matches!(byte(text, end + 1)?, b'+' | b'-'));
        let exponent = digits(end + 1 + sign)?;
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    Ok(Some(end))
}

/// Scans the string whose opening quote is at `at`. One byte after it is needed, since a quote may be doubled.
fn string(text: &[u8], at: usize, quote: u8, backslashes: bool, syntax: Syntax) -> Scan<ScannedValue> {
    let Syntax { dialect, charset, .. } = syntax;
    let hides = charset.hides_ascii();
    let special = |byte: &u8| *byte == quote || *byte >= 0x80 || (backslashes && *byte == b'\\');
    let mut end = at + 1;
    loop {
        let rest = text.get(end..).ok_or(Incomplete)?;
        let stop = match (hides, backslashes) {
            (true, _) => rest.iter().position(special),
            (false, true) => memchr2(quote, b'\\', rest),
            (false, false) => memchr(quote, rest),
        };
        end += stop.ok_or(Incomplete)?;
        let first = text[end];
        if hides && first >= 0x80 {
            end += 1 + usize::from(charset.is_pair(first, byte(text, end + 1)?));
            continue;
        }
        if first == quote && byte(text, end + 1)? != quote {
            let value = Value { kind: ValueKind::Text { quote, backslashes }, start: at + 1, end };
            return Ok(ScannedValue { value, after: end + 1 });
        }
        // PostgreSQL escapes a character, MySQL a byte.
        let escapes_pair = hides && dialect == Dialect::Postgres && first == b'\\' && byte(text, end + 1)? >= 0x80;
        end += 2 + usize::from(escapes_pair && charset.is_pair(text[end + 1], byte(text, end + 2)?));
    }
}

/// Scans `$tag$ ... $tag$`.
fn dollar_string(text: &[u8], at: usize) -> Scan<ScannedValue> {
    let length = memchr(b'$', &text[at + 1..]).ok_or(Incomplete)? + 2;
    let tag = &text[at..at + length];
    let name = &tag[1..length - 1];
    if name.len() > 63 || name.iter().any(|byte| !is_word(*byte)) || name.first().is_some_and(u8::is_ascii_digit) {
        return fault(at, "a `$` opens no string");
    }
    let start = at + length;
    let end = start + memmem::find(&text[start..], tag).ok_or(Incomplete)?;
    Ok(ScannedValue { value: Value { kind: ValueKind::Dollar, start, end }, after: end + length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner(dialect: Dialect) -> RowScanner {
        RowScanner { syntax: Syntax::new(dialect), raw: false }
    }

    fn decoded(dialect: Dialect, text: &str) -> Result<Vec<Option<String>>, RowError> {
        let rules = scanner(dialect);
        let mut values = Vec::new();
        let length = rules.row(text.as_bytes(), &mut values)?.expect("a complete row");
        assert_eq!(length, text.len());
        for cut in 0..text.len() {
            assert_eq!(rules.row(&text.as_bytes()[..cut], &mut Vec::new())?, None, "{}", &text[..cut]);
        }
        values
            .into_iter()
            .map(|value| {
                Ok(match rules.decode(text.as_bytes(), value)? {
                    Scalar::Null => None,
                    Scalar::Number(bytes) | Scalar::Text(bytes) | Scalar::Bytes(bytes) => {
                        Some(String::from_utf8_lossy(&bytes).into_owned())
                    }
                })
            })
            .collect()
    }

    fn some(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| (*value != "NULL").then(|| (*value).to_owned())).collect()
    }

    #[test]
    fn mysql_values_are_decoded() {
        let row = r#"(1,-2.5e-3, NULL ,'a\'b''c\\d\n\%\Z',"x\"y""z",0x4142,x'43',_binary 'D\0',_utf8mb4'E;)',true)"#;
        assert_eq!(
            decoded(Dialect::MySql, row).unwrap(),
            some(&["1", "-2.5e-3", "NULL", "a'b'c\\d\n\\%\u{1a}", "x\"y\"z", "AB", "C", "D\0", "E;)", "1"])
        );
    }

    #[test]
    fn standard_values_are_decoded() {
        let row = r"(1, 'a''b\', E'c\'d\n\x41\102\\\u5B87''', NULL, X'4142', $a$it's $$$a$, .5)";
        assert_eq!(
            decoded(Dialect::Postgres, row).unwrap(),
            some(&["1", "a'b\\", "c'd\nAB\\宇'", "NULL", "AB", "it's $$", ".5"])
        );
    }

    #[test]
    fn comments_are_blanks() {
        let row = "(1 /* it's */, -- ' \n 'a' /* /* x */ y */)";
        assert_eq!(decoded(Dialect::Postgres, row).unwrap(), some(&["1", "a"]));
        assert_eq!(decoded(Dialect::MySql, "(1,#'\n2,/* ' */3,-- '\n-1)").unwrap(), some(&["1", "2", "3", "-1"]));
    }

    #[test]
    fn expressions_are_skipped_but_not_decoded() {
        let row = r"(1,f('a,\n)','\n',g(10)),ARRAY[1,2],now() + '1 day',DEFAULT,2)";
        let rules = scanner(Dialect::Postgres);
        let mut values = Vec::new();
        assert_eq!(rules.row(row.as_bytes(), &mut values), Ok(Some(row.len())));
        assert_eq!(values.iter().map(Value::is_expression).filter(|is| *is).count(), 3);
        for value in &values[1..5] {
            assert!(rules.decode(row.as_bytes(), *value).is_err());
        }
        assert_eq!(rules.decode(row.as_bytes(), values[5]), Ok(Scalar::Number(b"2"[..].into())));
    }

    #[test]
    fn malformed_rows_are_errors() {
        for row in ["1)", "(1 2;", "(1;2)", "(1x2,3)", "(abc)", "(1,NUL,2)", "(a b;", "(1])", "(1,)"] {
            assert!(scanner(Dialect::Postgres).row(row.as_bytes(), &mut Vec::new()).is_err(), "{row}");
        }
        let many = format!("(1{})", ",1".repeat(MAX_VALUES));
        assert!(scanner(Dialect::Postgres).row(many.as_bytes(), &mut Vec::new()).is_err());
    }

    #[test]
    fn second_bytes_of_characters_are_no_escapes() {
        let mut rules = scanner(Dialect::MySql);
        rules.syntax.charset = CharacterSet::mysql("cp932").unwrap();
        let row = b"('\x95\\','it\\'s')";
        let mut values = Vec::new();
        assert_eq!(rules.row(row, &mut values), Ok(Some(row.len())));
        assert_eq!(rules.decode(row, values[0]), Ok(Scalar::Text("表".as_bytes().into())));
        assert_eq!(rules.decode(row, values[1]), Ok(Scalar::Text(b"it's"[..].into())));
    }
}
