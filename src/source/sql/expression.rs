//! Evaluates the expressions that dumps and hand-written scripts use for literals: casts, typed literals, character
//! set introducers, calls of simple functions, and the like.

use std::borrow::Cow;

use super::super::charset::CharacterSet;
use super::super::column::number;
use super::escapes::unhex;
use super::lexer::{Dialect, is_word};
use super::row::{RowError, RowScanner, Scalar, Value};
use super::type_name::POSTGRES_TYPES;

/// Depth of parentheses and calls.
const MAX_DEPTH: u32 = 64;

type Evaluated = Result<Scalar<'static>, String>;

/// Decodes a value of a row, be it an expression or not.
pub fn decode(scanner: RowScanner, text: &[u8], value: Value) -> Result<Scalar<'_>, RowError> {
    if !value.is_expression() {
        return scanner.decode(text, value);
    }
    let written = &text[value.start..value.end];
    evaluate(scanner, written).map_err(|detail| {
        let shown = String::from_utf8_lossy(&written[..written.len().min(60)]);
        let detail = format!("`{shown}` cannot be evaluated without the database: {detail}");
        RowError { at: value.start, detail: detail.into() }
    })
}

/// Whether what follows a literal belongs to no expression. Other expressions are not judged.
pub fn is_damaged(scanner: RowScanner, written: &[u8]) -> bool {
    let text = [written, b")"].concat();
    let raw = RowScanner { raw: true, ..scanner };
    let mut evaluator = Evaluator { scanner: raw, text: &text, at: 0, depth: 0 };
    if evaluator.peek_word().is_ok_and(|word| word.contains(|letter: char| !letter.is_ascii())) {
        return true;
    }
    let Ok(word) = evaluator.peek_word() else { return false };
    if ["NULL", "TRUE", "FALSE"].contains(&word.as_str()) && matches!(text.get(word.len()), Some(b'\'' | b'"')) {
        return true;
    }
    let literal = matches!(raw.simple_value(&text, 0), Ok(Some(_)));
    if !literal || evaluator.expression().is_err() {
        return false;
    }
    const OPERATORS: &[u8] = b"+-*/%|&<>=!~^#@:[";
    const WORDS: [&str; 15] = [
        "AND", "OR", "IS", "IN", "LIKE", "NOT", "BETWEEN", "AT", "DIV", "MOD", "XOR", "REGEXP", "RLIKE", "ILIKE",
        "ISNULL",
    ];
    let Ok(next) = evaluator.peek() else { return false };
    evaluator.at < written.len()
        && !OPERATORS.contains(&next)
        && !evaluator.peek_word().is_ok_and(|word| WORDS.contains(&word.as_str()))
}

/// Evaluates an expression. The error says what is not understood.
pub fn evaluate(scanner: RowScanner, written: &[u8]) -> Evaluated {
    // Scanning needs a byte after each token.
    let text = [written, b")"].concat();
    let mut evaluator = Evaluator { scanner, text: &text, at: 0, depth: 0 };
    let value = evaluator.expression()?;
    evaluator.blank()?;
    if evaluator.at == written.len() { Ok(value) } else { Err(evaluator.unexpected()) }
}

struct Evaluator<'t> {
    scanner: RowScanner,
    text: &'t [u8],
    at: usize,
    depth: u32,
}

impl Evaluator<'_> {
    fn dialect(&self) -> Dialect {
        self.scanner.syntax.dialect
    }

    fn unexpected(&self) -> String {
        let rest = &self.text[self.at..self.text.len() - 1];
        match String::from_utf8_lossy(&rest[..rest.len().min(20)]) {
            rest if rest.is_empty() => "it ends too early".into(),
            rest => format!("`{rest}` is not expected"),
        }
    }

    fn blank(&mut self) -> Result<(), String> {
        self.at = self.scanner.blank(self.text, self.at).map_err(|_| "a comment is not closed".to_owned())?;
        Ok(())
    }

    fn peek(&mut self) -> Result<u8, String> {
        self.blank()?;
        self.text.get(self.at).copied().ok_or_else(|| self.unexpected())
    }

    fn take(&mut self, symbol: &[u8]) -> Result<bool, String> {
        self.blank()?;
        let found = self.text[self.at..].starts_with(symbol);
        self.at += if found { symbol.len() } else { 0 };
        Ok(found)
    }

    fn expect(&mut self, symbol: &[u8]) -> Result<(), String> {
        if self.take(symbol)? { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The word that comes next, in upper case.
    fn peek_word(&mut self) -> Result<String, String> {
        self.blank()?;
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
        Ok(String::from_utf8_lossy(&rest[..length]).to_ascii_uppercase())
    }

    fn take_word(&mut self, word: &str) -> Result<bool, String> {
        let found = self.peek_word()? == word;
        self.at += if found { word.len() } else { 0 };
        Ok(found)
    }

    fn expression(&mut self) -> Evaluated {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deeply".into());
        }
        let mut value = self.cast_value()?;
        while self.dialect() != Dialect::MySql && self.take(b"||")? {
            let next = self.cast_value()?;
            value = match (bytes_of(value), bytes_of(next)) {
                (Some(one), Some(other)) => Scalar::Text([one, other].concat().into()),
                _ => Scalar::Null,
            };
        }
        self.depth -= 1;
        Ok(value)
    }

    /// A value with any number of `::type` and COLLATE after it.
    fn cast_value(&mut self) -> Evaluated {
        let mut value = self.primary()?;
        loop {
            if self.dialect() == Dialect::Postgres && self.take(b"::")? {
                let kind = self.type_name()?;
                value = self.cast(value, &kind)?;
            } else if self.take_word("COLLATE")? {
                self.type_name()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn primary(&mut self) -> Evaluated {
        let first = self.peek()?;
        match first {
            b'(' => {
                self.at += 1;
                let value = self.expression()?;
                self.expect(b")")?;
                return Ok(value);
            }
            // ODBC's escapes: {ts '...'}, {d '...'}, {t '...'}.
            b'{' => {
                self.at += 1;
                if !["TS", "D", "T"].contains(&self.peek_word()?.as_str()) {
                    return Err(self.unexpected());
                }
                self.at += self.peek_word()?.len();
                let value = self.primary()?;
                self.expect(b"}")?;
                return Ok(value);
            }
            _ => {}
        }
        if let Some((value, after)) =
            self.scanner.simple_value(self.text, self.at).map_err(|fault| fault.detail.into_owned())?
        {
            let decoded = owned(self.scanner.decode(self.text, value).map_err(|fault| fault.detail.into_owned())?);
            self.at = after;
            return match decoded {
                Scalar::Text(text) => self.adjacent(text.into_owned()),
                other => Ok(other),
            };
        }
        if !is_word(first) || first.is_ascii_digit() {
            return self.hex_number();
        }
        let word = self.peek_word()?;
        self.at += word.len();
        if self.dialect() == Dialect::Postgres && word == "U" && self.take(b"&")? {
            return self.unicode_string();
        }
        if let Some(charset) = word.strip_prefix('_').filter(|_| self.dialect() == Dialect::MySql) {
            return self.introduced(charset);
        }
        match word.as_str() {
            "CAST" => {
                self.expect(b"(")?;
                let value = self.expression()?;
                if !self.take_word("AS")? {
                    return Err(self.unexpected());
                }
                let kind = self.type_name()?;
                self.expect(b")")?;
                self.cast(value, &kind)
            }
            "CONVERT" => self.convert(),
            _ if self.peek()? == b'(' => {
                let arguments = self.arguments()?;
                call(self.dialect(), &word, arguments)
            }
            _ => {
                // A typed literal: TIMESTAMP WITH TIME ZONE '...'.
                let is_type = match self.dialect() {
                    Dialect::Postgres => POSTGRES_TYPES.contains(&word.to_ascii_lowercase().as_str()),
                    Dialect::MySql => ["DATE", "TIME", "TIMESTAMP"].contains(&word.as_str()),
                };
                if !is_type {
                    return Err(self.unexpected());
                }
                let mut kind = word;
                while self.peek()? != b'\'' {
                    let more = self.peek_word()?;
                    if !["WITH", "WITHOUT", "TIME", "ZONE", "PRECISION", "VARYING"].contains(&more.as_str()) {
                        return Err(self.unexpected());
                    }
                    self.at += more.len();
                    kind = format!("{kind} {more}");
                }
                let value = self.primary()?;
                self.cast(value, &TypeName { name: kind, length: None })
            }
        }
    }

    /// Appends the strings that follow a string: `'a' 'b'`.
    fn adjacent(&mut self, mut text: Vec<u8>) -> Evaluated {
        loop {
            let start = self.at;
            let first = self.peek()?;
            let newline = self.text[start..self.at].contains(&b'\n');
            let joins = match self.dialect() {
                Dialect::Postgres => first == b'\'' && newline,
                Dialect::MySql => self.scanner.syntax.quotes_string(first),
            };
            if !joins {
                return Ok(Scalar::Text(text.into()));
            }
            let Some((value, after)) =
                self.scanner.simple_value(self.text, self.at).map_err(|fault| fault.detail.into_owned())?
            else {
                return Err(self.unexpected());
            };
            match self.scanner.decode(self.text, value).map_err(|fault| fault.detail.into_owned())? {
                Scalar::Text(more) => text.extend_from_slice(&more),
                _ => return Err(self.unexpected()),
            }
            self.at = after;
        }
    }

    /// `0x1F`, an integer in SQLite and PostgreSQL.
    fn hex_number(&mut self) -> Evaluated {
        let word = self.peek_word()?;
        let digits = word.strip_prefix("0X").ok_or_else(|| self.unexpected())?;
        let value = i64::from_str_radix(digits, 16).map_err(|_| self.unexpected())?;
        self.at += word.len();
        Ok(Scalar::Number(value.to_string().into_bytes().into()))
    }

    /// `U&'d\0061t\+000061' UESCAPE '!'`, after the `&`.
    fn unicode_string(&mut self) -> Evaluated {
        let Scalar::Text(text) = self.primary()? else { return Err(self.unexpected()) };
        let mut escape = '\\';
        if self.take_word("UESCAPE")? {
            let Scalar::Text(given) = self.primary()? else { return Err(self.unexpected()) };
            let given = String::from_utf8_lossy(&given).into_owned();
            let mut characters = given.chars();
            match (characters.next(), characters.next()) {
                (Some(only), None) => escape = only,
                _ => return Err("UESCAPE is not one character".into()),
            }
        }
        unistr(&text, escape, false)
    }

    /// A string or hex digits after a character set such as `_latin1`.
    fn introduced(&mut self, charset: &str) -> Evaluated {
        let charset = CharacterSet::mysql(charset).ok_or_else(|| format!("_{charset} is no character set"))?;
        let mut raw = *self;
        raw.scanner.raw = true;
        let value = raw.primary()?;
        self.at = raw.at;
        Ok(match (value, charset) {
            (Scalar::Bytes(bytes), CharacterSet::Binary) => Scalar::Bytes(bytes),
            (Scalar::Text(bytes) | Scalar::Bytes(bytes), _) => Scalar::Text(charset.decode(bytes)?),
            _ => return Err(self.unexpected()),
        })
    }

    fn arguments(&mut self) -> Result<Vec<Scalar<'static>>, String> {
        self.expect(b"(")?;
        let mut arguments = Vec::new();
        if self.take(b")")? {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression()?);
            if self.take(b")")? {
                return Ok(arguments);
            }
            self.expect(b",")?;
        }
    }

    /// MySQL's `CONVERT('a' USING utf8mb4)` and `CONVERT('a', CHAR)`, after the word.
    fn convert(&mut self) -> Evaluated {
        self.expect(b"(")?;
        let value = self.expression()?;
        let converted = if self.take_word("USING")? {
            self.type_name()?;
            match value {
                Scalar::Bytes(bytes) => Scalar::Text(bytes),
                other => other,
            }
        } else {
            self.expect(b",")?;
            let kind = self.type_name()?;
            self.cast(value, &kind)?
        };
        self.expect(b")")?;
        Ok(converted)
    }

    /// A type such as `character varying(10)`, `pg_catalog.int4` or `timestamp(0) with time zone`.
    fn type_name(&mut self) -> Result<TypeName, String> {
        let mut name = String::new();
        let mut length = None;
        loop {
            let first = self.peek()?;
            if first == b'"' || first == b'`' {
                let end = self.text[self.at + 1..].iter().position(|byte| *byte == first);
                let end = self.at + 1 + end.ok_or_else(|| self.unexpected())?;
                name = String::from_utf8_lossy(&self.text[self.at + 1..end]).to_ascii_uppercase();
                self.at = end + 1;
            } else if is_word(first) {
                let word = self.peek_word()?;
                if ["COLLATE", "AS"].contains(&word.as_str()) && !name.is_empty() {
                    break;
                }
                self.at += word.len();
                name = if name.is_empty() { word } else { format!("{name} {word}") };
            } else if first == b'.' {
                self.at += 1;
                name.clear();
            } else if first == b'(' && !name.is_empty() && length.is_none() {
                self.at += 1;
                length = self.peek_word()?.parse::<usize>().ok();
                while self.peek()? != b')' {
                    self.at += 1;
                }
                self.at += 1;
            } else {
                break;
            }
        }
        if name.is_empty() { Err(self.unexpected()) } else { Ok(TypeName { name, length }) }
    }

    fn cast(&self, value: Scalar<'static>, kind: &TypeName) -> Evaluated {
        let unclear = || format!("a conversion to {}", kind.name);
        let first = kind.name.split(' ').next().unwrap_or_default();
        if value == Scalar::Null {
            return Ok(value);
        }
        let binary = ["BINARY", "VARBINARY", "BLOB"].contains(&first);
        let text = ["CHAR", "CHARACTER", "VARCHAR", "NCHAR", "NVARCHAR", "TEXT", "CLOB", "BPCHAR"].contains(&first);
        if binary && self.dialect() != Dialect::Postgres {
            return Ok(Scalar::Bytes(bytes_of(value).unwrap_or_default().into()));
        }
        let bytes = match &value {
            Scalar::Null => return Ok(value),
            Scalar::Number(bytes) | Scalar::Text(bytes) | Scalar::Bytes(bytes) => bytes,
        };
        let content = std::str::from_utf8(bytes).map_err(|_| unclear())?;
        if text {
            return match kind.length {
                Some(length) if content.chars().count() > length => {
                    Ok(Scalar::Text(content.chars().take(length).collect::<String>().into_bytes().into()))
                }
                _ => Ok(Scalar::Text(bytes.clone())),
            };
        }
        let is_number = first.contains("INT")
            || ["SIGNED", "UNSIGNED", "NUMERIC", "DECIMAL", "REAL", "DOUBLE", "FLOAT", "FLOAT4", "FLOAT8"]
                .contains(&first);
        if is_number && kind.name != "INTERVAL" {
            let whole = first.contains("INT") || first.ends_with("SIGNED");
            let plain = number(content).filter(|plain| !whole || !plain.contains('.'));
            let plain = plain.ok_or_else(unclear)?;
            return Ok(Scalar::Number(if whole { plain.into_bytes() } else { bytes.to_vec() }.into()));
        }
        let date = content.len() == 10 && content.bytes().filter(|byte| *byte == b'-').count() == 2;
        match first {
            "TIMESTAMP" | "DATETIME" | "TIMESTAMPTZ" if date => {
                Ok(Scalar::Text(format!("{content} 00:00:00").into_bytes().into()))
            }
            "DATE" if !date => Err(unclear()),
            _ => Ok(Scalar::Text(bytes.clone())),
        }
    }
}

impl Clone for Evaluator<'_> {
    fn clone(&self) -> Self {
        *self
    }
}

impl Copy for Evaluator<'_> {}

struct TypeName {
    /// In upper case.
    name: String,
    length: Option<usize>,
}

fn owned(value: Scalar<'_>) -> Scalar<'static> {
    match value {
        Scalar::Null => Scalar::Null,
        Scalar::Number(bytes) => Scalar::Number(Cow::Owned(bytes.into_owned())),
        Scalar::Text(bytes) => Scalar::Text(Cow::Owned(bytes.into_owned())),
        Scalar::Bytes(bytes) => Scalar::Bytes(Cow::Owned(bytes.into_owned())),
    }
}

fn bytes_of(value: Scalar<'static>) -> Option<Vec<u8>> {
    match value {
        Scalar::Null => None,
        Scalar::Number(bytes) | Scalar::Text(bytes) | Scalar::Bytes(bytes) => Some(bytes.into_owned()),
    }
}

/// Calls a function of the database.
fn call(dialect: Dialect, name: &str, arguments: Vec<Scalar<'static>>) -> Evaluated {
    let unknown = || Err(format!("the function {}", name.to_ascii_lowercase()));
    if dialect == Dialect::Postgres && name == "CONCAT" {
        return Ok(Scalar::Text(arguments.into_iter().filter_map(bytes_of).collect::<Vec<_>>().concat().into()));
    }
    let Some(arguments) = arguments.into_iter().map(bytes_of).collect::<Option<Vec<_>>>() else {
        return if FUNCTIONS.contains(&name) { Ok(Scalar::Null) } else { unknown() };
    };
    let number_of = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u32>().ok());
    let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
    match (name, arguments.as_slice()) {
        ("REPLACE", [text, from, to]) => Ok(Scalar::Text(replace(text, from, to)?.into())),
        ("CHAR" | "CHR", codes) if !codes.is_empty() => {
            let mut text = String::new();
            for code in codes {
                let code = number_of(code).filter(|code| dialect != Dialect::MySql || *code < 0x80);
                text.push(code.and_then(char::from_u32).ok_or("a character that is not valid")?);
            }
            Ok(Scalar::Text(text.into_bytes().into()))
        }
        ("UNISTR", [text]) => unistr(text, '\\', true),
        ("CONCAT", parts) => Ok(Scalar::Text(parts.concat().into())),
        ("UNHEX", [digits]) => Ok(unhex(digits).map_or(Scalar::Null, |bytes| Scalar::Bytes(bytes.into()))),
        ("DECODE", [digits, b"hex"]) => Ok(Scalar::Bytes(unhex(digits).ok_or("hex digits that are not valid")?.into())),
        ("CONVERT_FROM", [bytes, charset]) => {
            let charset = CharacterSet::postgres(&String::from_utf8_lossy(charset)).ok_or("an unknown encoding")?;
            Ok(Scalar::Text(charset.decode(bytes.to_vec().into())?))
        }
        ("UUID_TO_BIN", [text]) => {
            let digits: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'-').collect();
            Ok(Scalar::Bytes(unhex(&digits).ok_or("a UUID that is not valid")?.into()))
        }
        _ => unknown(),
    }
}

/// The functions of [`call`] that give NULL where an argument is NULL.
const FUNCTIONS: [&str; 8] = ["REPLACE", "CHR", "UNISTR", "CONCAT", "UNHEX", "DECODE", "CONVERT_FROM", "UUID_TO_BIN"];

/// Longest result of a function, in bytes.
const MAX_RESULT: usize = 64 << 20;

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>, String> {
    if from.is_empty() {
        return Ok(text.to_vec());
    }
    let mut result = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, from) {
        result.extend_from_slice(&rest[..at]);
        result.extend_from_slice(to);
        rest = &rest[at + from.len()..];
        if result.len() > MAX_RESULT {
            return Err("its result is too long".into());
        }
    }
    result.extend_from_slice(rest);
    Ok(result)
}

/// Decodes `\0061`, `\+000061`, and with `letters` also `\u0061` and `\U00000061`. Pairs of surrogates count as one.
fn unistr(text: &[u8], escape: char, letters: bool) -> Evaluated {
    let invalid = || "a Unicode escape that is not valid".to_owned();
    let text = std::str::from_utf8(text).map_err(|_| invalid())?;
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        if first != escape {
            units.extend_from_slice(first.encode_utf16(&mut [0; 2]));
            continue;
        }
        if let Some(after) = rest.strip_prefix(escape) {
            units.extend_from_slice(escape.encode_utf16(&mut [0; 2]));
            rest = after;
            continue;
        }
        let (skip, length) = match rest.as_bytes().first() {
            Some(b'+') => (1, 6),
            Some(b'u') if letters => (1, 4),
            Some(b'U') if letters => (1, 8),
            _ => (0, 4),
        };
        let digits = rest.get(skip..skip + length).ok_or_else(invalid)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let code = u32::from_str_radix(digits, 16).map_err(|_| invalid())?;
        match u16::try_from(code) {
            Ok(unit) => units.push(unit),
            Err(_) => {
                let character = char::from_u32(code).ok_or_else(invalid)?;
                units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
            }
        }
        rest = &rest[skip + length..];
    }
    Ok(Scalar::Text(String::from_utf16(&units).map_err(|_| invalid())?.into_bytes().into()))
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Syntax;
    use super::*;

    fn value(dialect: Dialect, text: &str) -> Result<Option<String>, String> {
        let scanner = RowScanner { syntax: Syntax::new(dialect), raw: false };
        Ok(bytes_of(evaluate(scanner, text.as_bytes())?).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    #[test]
    fn literals_of_every_database_are_evaluated() {
        use Dialect::{MySql, Postgres};
        for (dialect, text, expected) in [
            (Postgres, "'B'\n  'o'", "Bo"),
            (Postgres, r"U&'B\006f\+00006f'", "Boo"),
            (Postgres, "U&'B!006f' UESCAPE '!'", "Bo"),
            (Postgres, "TIMESTAMP '2018-01-02 00:00:00'", "2018-01-02 00:00:00"),
            (Postgres, "timestamp with time zone '2018-01-02'", "2018-01-02 00:00:00"),
            (Postgres, "CAST('2018-01-02' AS timestamp)", "2018-01-02 00:00:00"),
            (Postgres, "'abc'::character varying(2)", "ab"),
            (Postgres, "'7'::int::text || $$x$$", "7x"),
            (Postgres, "('x'::public.\"Mood\")", "x"),
            (Postgres, r"E'a\nb' || chr(33)", "a\nb!"),
            (Postgres, "'a' COLLATE \"C\"", "a"),
            (Postgres, "convert_from(decode('c3a9', 'hex'), 'UTF8')", "\u{e9}"),
            (MySql, "{ts '2017-06-19 12:29:25'}", "2017-06-19 12:29:25"),
            (MySql, "'B' \"o\"", "Bo"),
            (MySql, "_latin1 0xE9", "\u{e9}"),
            (MySql, "_binary 0x4142", "AB"),
            (MySql, "CONVERT('a' USING utf8mb4)", "a"),
            (MySql, "concat('a', 'b', 1)", "ab1"),
            (MySql, "unhex('4142')", "AB"),
            (Postgres, r"replace(replace('a\nb\r','\n',chr(10)),'\r',chr(13))", "a\nb\r"),
            (Postgres, r"unistr('a\u000ab\\')", "a\nb\\"),
            (Postgres, "0x1F", "31"),
        ] {
            assert_eq!(value(dialect, text).as_ref().map(Option::as_deref), Ok(Some(expected)), "{text}");
        }
        assert_eq!(value(MySql, "concat('a', NULL)"), Ok(None));
    }

    #[test]
    fn everything_else_is_named() {
        use Dialect::{MySql, Postgres};
        for (dialect, text, reason) in [
            (Postgres, "now()", "the function now"),
            (Postgres, "'a' 'b'", "`'b'` is not expected"),
            (Postgres, "1 + 1", "`+ 1` is not expected"),
            (MySql, "'a' || 'b'", "`|| 'b'` is not expected"),
            (MySql, "_klingon 'a'", "_KLINGON is no character set"),
            (Postgres, r"U&'\00'", "a Unicode escape"),
            (Postgres, &format!("{}1", "(".repeat(100)), "nested too deeply"),
        ] {
            let error = value(dialect, text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
