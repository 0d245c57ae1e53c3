//! Types, collations, defaults and keys, as a column definition writes them.

use super::super::charset::CharacterSet;
use super::super::column::{Collation, Column, ColumnDefault, TypeClass, Years};
use super::super::value_form::ValueForm;
use super::lexer::{Dialect, Token};
use super::token_list::{closing, word_of};

/// What follows the name of a column.
#[derive(Debug, Default)]
pub struct ColumnClauses {
    pub column: Column,
    pub is_key: bool,
    /// Whether the key is the primary one.
    pub is_primary: bool,
}

/// Words that end a type and start a clause.
const CLAUSES: [&str; 27] = [
    "NOT",
    "NULL",
    "DEFAULT",
    "PRIMARY",
    "UNIQUE",
    "KEY",
    "CHECK",
    "REFERENCES",
    "CONSTRAINT",
    "COLLATE",
    "CHARSET",
    "GENERATED",
    "AS",
    "AUTO_INCREMENT",
    "AUTOINCREMENT",
    "COMMENT",
    "ON",
    "VISIBLE",
    "INVISIBLE",
    "STORED",
    "VIRTUAL",
    "COMPRESSED",
    "WITHOUT_SYSTEM",
    "SRID",
    "FIRST",
    "AFTER",
    "OPTIONS",
];

/// The table's default collation and character set, which its text columns have unless they name others.
#[derive(Debug, Clone, Default)]
pub struct TextDefaults {
    pub charset: Option<String>,
    pub collation: Option<String>,
}

/// Reads the tokens that follow a column's name.
pub fn column(dialect: Dialect, name: String, tokens: &[Token]) -> ColumnClauses {
    let mut found = ColumnClauses { column: Column { name, ..Column::default() }, is_key: false, is_primary: false };
    let mut words: Vec<String> = Vec::new();
    let mut length = 0;
    let mut at = 0;
    let (mut is_array, mut is_foreign) = (false, false);
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Word(word) if word.eq_ignore_ascii_case("CHARACTER") && is(tokens, at + 1, "SET") => break,
            Token::Word(word) if CLAUSES.iter().any(|clause| word.eq_ignore_ascii_case(clause)) => break,
            Token::Word(word) | Token::Name(word) => words.push(word.to_ascii_uppercase()),
            Token::Symbol(b'.') => {
                is_foreign = words.last().is_none_or(|schema| schema != "PG_CATALOG");
                words.clear();
            }
            Token::Symbol(b'[') => is_array = true,
            Token::Symbol(b'(') => {
                if let Some(Token::Word(digits)) = tokens.get(at + 1) {
                    // A negative scale gives numbers more digits.
                    let negative = matches!(tokens.get(at + 3), Some(Token::Symbol(b'-')));
                    length = if negative { 0 } else { digits.parse().unwrap_or(0) };
                }
                at = closing(tokens, at);
            }
            _ => {}
        }
        at += 1;
    }
    let kind = &mut found.column.kind;
    kind.defined = true;
    kind.class = class(dialect, &words);
    kind.years = match (dialect, kind.class) {
        (Dialect::MySql, TypeClass::Timestamp) if words.first().is_some_and(|word| word == "TIMESTAMP") => Years::Unix,
        (Dialect::MySql, TypeClass::Timestamp | TypeClass::Date) => Years::FourDigits,
        _ => Years::Any,
    };
    if dialect == Dialect::Postgres {
        is_array |= words.last().is_some_and(|word| word == "ARRAY");
        kind.form = match (is_array, is_foreign, words.first()) {
            (true, ..) => ValueForm::Array,
            (_, false, Some(word)) => ValueForm::of(word),
            _ => ValueForm::Any,
        };
    }
    // The length of a text type that is no CHAR is one of storage.
    let is_char = words.iter().any(|word| word.contains("CHAR"));
    kind.length = if kind.class.is_text() && !is_char { 0 } else { length };
    kind.zerofill = words.iter().any(|word| word == "ZEROFILL");
    let type_word = words.first().map(String::as_str).unwrap_or_default();
    let serial = dialect == Dialect::Postgres && type_word.contains("SERIAL");
    if serial || (dialect == Dialect::MySql && type_word == "SERIAL") {
        kind.numbered = true;
        found.column.default = ColumnDefault::Computed;
        found.is_key = dialect == Dialect::MySql;
    }
    if dialect == Dialect::Postgres && type_word == "CITEXT" {
        kind.collation = Collation::AnyCase { padded: false };
    }
    let mut charset = None;
    let mut collation = words.iter().any(|word| word == "BINARY").then(|| "_bin".to_owned());
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1);
        if token.is("NOT") && next.is_some_and(|next| next.is("NULL")) {
            found.column.not_null = true;
            at += 1;
        } else if token.is("DEFAULT") {
            found.column.default = default(dialect, &tokens[at + 1..]);
            at += 1;
            if matches!(tokens.get(at), Some(Token::Symbol(b'('))) {
                at = closing(tokens, at);
            }
        } else if token.is_any(&["AUTO_INCREMENT", "AUTOINCREMENT"]) {
            found.column.kind.numbered = true;
            found.column.default = ColumnDefault::Computed;
        } else if token.is("GENERATED") || (token.is("AS") && matches!(next, Some(Token::Symbol(b'(')))) {
            found.column.kind.numbered |= tokens.iter().any(|token| token.is("IDENTITY"));
            found.column.default = ColumnDefault::Computed;
        } else if token.is("INVISIBLE") {
            found.column.hidden = true;
        } else if token.is("PRIMARY") {
            found.is_key = true;
            found.is_primary = true;
            found.column.not_null = true;
        } else if token.is("UNIQUE") {
            found.is_key = true;
        } else if token.is("CHARSET") {
            charset = next.and_then(word_of);
        } else if token.is("CHARACTER") && next.is_some_and(|next| next.is("SET")) {
            charset = tokens.get(at + 2).and_then(word_of);
        } else if token.is("COLLATE") {
            // A schema may come before the name.
            let schema = matches!(tokens.get(at + 2), Some(Token::Symbol(b'.')));
            let name = tokens.get(at + if schema { 3 } else { 1 }).and_then(word_of);
            let foreign = schema && !next.is_some_and(|next| next.is("pg_catalog"));
            collation = if foreign { Some("?".into()) } else { name };
        } else if matches!(token, Token::Symbol(b'(')) {
            at = closing(tokens, at);
        }
        at += 1;
    }
    let kind = &mut found.column.kind;
    match dialect {
        Dialect::MySql if kind.class.is_text() => {
            kind.charset = charset.as_deref().and_then(CharacterSet::mysql);
            kind.collation = match (&collation, &charset) {
                (None, None) => Collation::Unknown,
                _ => mysql_collation(charset.as_deref(), collation.as_deref()),
            };
            // Remembers that the table's defaults do not apply.
            kind.zerofill = collation.is_some() || charset.is_some();
        }
        Dialect::Postgres if collation.as_deref() == Some("?") => kind.collation = Collation::Unknown,
        _ => {}
    }
    found
}

/// Applies the table's defaults to its text columns.
pub fn apply_defaults(dialect: Dialect, columns: &mut [Column], defaults: &TextDefaults) {
    for kind in columns.iter_mut().map(|column| &mut column.kind) {
        if dialect != Dialect::MySql || !kind.class.is_text() {
            continue;
        }
        let own = std::mem::take(&mut kind.zerofill);
        if own || (defaults.charset.is_none() && defaults.collation.is_none()) {
            continue;
        }
        kind.collation = mysql_collation(defaults.charset.as_deref(), defaults.collation.as_deref());
        kind.charset = defaults.charset.as_deref().and_then(CharacterSet::mysql);
    }
}

/// The rules of a MySQL collation, as far as ASCII is concerned.
fn mysql_collation(charset: Option<&str>, collation: Option<&str>) -> Collation {
    let name = collation.unwrap_or_default().to_ascii_lowercase();
    if charset.is_some_and(|charset| charset.eq_ignore_ascii_case("binary")) || name == "binary" {
        return Collation::Exact;
    }
    let padded = !name.contains("0900") && !name.contains("nopad");
    if name.ends_with("_bin") {
        return if padded { Collation::Padded } else { Collation::Exact };
    }
    if name.ends_with("_ci") || name.is_empty() {
        return Collation::AnyCase { padded };
    }
    Collation::Unknown
}

fn default(dialect: Dialect, tokens: &[Token]) -> ColumnDefault {
    let literal = match tokens {
        [Token::Text(text), ..] => {
            // An escape would have to be decoded, and a text may have been cut.
            let plain = !text.contains(&b'\\') && text.len() < 1000;
            plain.then(|| String::from_utf8(text.clone()).ok()).flatten()
        }
        [Token::Word(word), ..] if word.eq_ignore_ascii_case("NULL") => return ColumnDefault::Null,
        [Token::Word(word), ..] if word.bytes().all(|byte| byte.is_ascii_digit()) => Some(word.clone()),
        [Token::Symbol(b'-'), Token::Word(word), ..] if word.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(format!("-{word}"))
        }
        _ => None,
    };
    let after = tokens.iter().skip(1).find(|token| !matches!(token, Token::Word(_)));
    match (literal, after) {
        // `'x'::text`, but not `'x' || y` or `1.5`.
        (Some(text), None) => ColumnDefault::Literal(text.into()),
        (Some(text), Some(Token::Symbol(b':' | b',' | b'(' | b')'))) if dialect == Dialect::Postgres => {
            ColumnDefault::Literal(text.into())
        }
        (Some(text), Some(Token::Symbol(b'(' | b')' | b',') | Token::Text(_) | Token::Name(_))) => {
            ColumnDefault::Literal(text.into())
        }
        _ => ColumnDefault::Computed,
    }
}

fn class(dialect: Dialect, words: &[String]) -> TypeClass {
    let first = words.first().map(String::as_str).unwrap_or_default();
    let mysql = dialect == Dialect::MySql;
    match first {
        "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "INTEGER" | "BIGINT" | "INT1" | "INT2" | "INT3" | "INT4"
        | "INT8" | "SERIAL" | "SMALLSERIAL" | "BIGSERIAL" | "SERIAL2" | "SERIAL4" | "SERIAL8" | "OID" | "MIDDLEINT" => {
            TypeClass::Integer
        }
        "BOOL" | "BOOLEAN" if mysql => TypeClass::Integer,
        "NUMERIC" | "DECIMAL" | "DEC" | "FIXED" => TypeClass::Decimal,
        "REAL" | "FLOAT" | "FLOAT4" | "FLOAT8" | "DOUBLE" => TypeClass::Float,
        "CHAR" | "CHARACTER" | "BPCHAR" | "NCHAR" | "NATIONAL"
            if !mysql && words.get(1).is_none_or(|w| w != "VARYING") =>
        {
            TypeClass::Padded
        }
        "CHAR" | "CHARACTER" | "VARCHAR" | "NCHAR" | "NVARCHAR" | "NATIONAL" | "TEXT" | "TINYTEXT" | "MEDIUMTEXT"
        | "LONGTEXT" | "NAME" | "CITEXT" => TypeClass::Text,
        "ENUM" | "SET" if mysql => TypeClass::Text,
        "BINARY" if mysql => TypeClass::FixedBinary,
        "VARBINARY" | "BLOB" | "TINYBLOB" | "MEDIUMBLOB" | "LONGBLOB" if mysql => TypeClass::Binary,
        "UUID" => TypeClass::Uuid,
        "TIMESTAMP" | "TIMESTAMPTZ" | "DATETIME" => TypeClass::Timestamp,
        "DATE" => TypeClass::Date,
        _ => TypeClass::Unknown,
    }
}

fn is(tokens: &[Token], at: usize, word: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.is(word))
}

#[cfg(test)]
mod tests {
    use super::super::super::stream::{Progress, ReadMeter, Stream};
    use super::super::lexer::Lexer;
    use super::*;

    fn read(dialect: Dialect, definition: &str) -> ColumnClauses {
        let mut quiet = |_: Progress| {};
        let stream = Stream::new(Box::new(definition.as_bytes()), ReadMeter::default(), &mut quiet);
        let mut lexer = Lexer::new(stream, dialect);
        let mut tokens = Vec::new();
        loop {
            match lexer.token().unwrap() {
                Token::End => return column(dialect, "c".into(), &tokens),
                token => tokens.push(token),
            }
        }
    }

    #[test]
    fn types_have_classes() {
        use Dialect::{MySql, Postgres};
        for (dialect, definition, class) in [
            (Postgres, "bigint NOT NULL", TypeClass::Integer),
            (Postgres, "numeric(6,1)", TypeClass::Decimal),
            (Postgres, "character varying(100)", TypeClass::Text),
            (Postgres, "character(3)", TypeClass::Padded),
            (Postgres, "public.citext", TypeClass::Text),
            (Postgres, "timestamp(0) without time zone", TypeClass::Timestamp),
            (MySql, "int(11) unsigned zerofill", TypeClass::Integer),
            (MySql, "binary(16)", TypeClass::FixedBinary),
            (MySql, "char(3)", TypeClass::Text),
        ] {
            assert_eq!(read(dialect, definition).column.kind.class, class, "{definition}");
        }
    }

    #[test]
    fn types_of_postgres_have_forms() {
        for (definition, form) in [
            ("boolean NOT NULL", ValueForm::Boolean),
            ("text[] DEFAULT '{}'::text[]", ValueForm::Array),
            ("character varying(9)[]", ValueForm::Array),
            ("pg_catalog.jsonb", ValueForm::Json),
            ("public.point", ValueForm::Any),
            ("interval DAY TO SECOND", ValueForm::Interval),
            ("text", ValueForm::Any),
        ] {
            assert_eq!(read(Dialect::Postgres, definition).column.kind.form, form, "{definition}");
        }
        assert_eq!(read(Dialect::MySql, "json").column.kind.form, ValueForm::Any);
    }

    #[test]
    fn clauses_are_read() {
        let found = read(Dialect::MySql, "int(5) unsigned zerofill NOT NULL DEFAULT '7' COMMENT 'a UNIQUE one'");
        assert!(found.column.not_null && !found.is_key && found.column.kind.zerofill);
        assert_eq!((found.column.kind.length, &found.column.default), (5, &ColumnDefault::Literal("7".into())));
        let found = read(Dialect::MySql, "varchar(9) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT NULL");
        assert_eq!(found.column.kind.collation, Collation::Padded);
        assert_eq!(found.column.default, ColumnDefault::Null);
        for (dialect, definition) in [
            (Dialect::Postgres, "bigserial PRIMARY KEY"),
            (Dialect::MySql, "bigint NOT NULL AUTO_INCREMENT PRIMARY KEY"),
        ] {
            let found = read(dialect, definition);
            assert!(found.is_key && found.column.kind.numbered, "{definition}");
            assert_eq!(found.column.default, ColumnDefault::Computed, "{definition}");
        }
        for definition in
            ["text GENERATED ALWAYS AS (('a'::text || b)) STORED", "timestamp DEFAULT now()", "int DEFAULT 1.5"]
        {
            assert_eq!(read(Dialect::Postgres, definition).column.default, ColumnDefault::Computed, "{definition}");
        }
        assert_eq!(
            read(Dialect::Postgres, "text DEFAULT 'x'::character varying").column.default,
            ColumnDefault::Literal("x".into())
        );
        assert_eq!(read(Dialect::Postgres, "text COLLATE public.ci").column.kind.collation, Collation::Unknown);
    }

    #[test]
    fn tables_have_default_collations() {
        for (charset, collation, expected) in [
            (Some("utf8mb4"), None, Collation::AnyCase { padded: true }),
            (Some("utf8mb4"), Some("utf8mb4_0900_ai_ci"), Collation::AnyCase { padded: false }),
            (Some("utf8mb4"), Some("utf8mb4_bin"), Collation::Padded),
            (Some("utf8mb4"), Some("utf8mb4_0900_as_cs"), Collation::Unknown),
            (None, None, Collation::Unknown),
        ] {
            let mut columns =
                [read(Dialect::MySql, "varchar(9)").column, read(Dialect::MySql, "text COLLATE utf8_bin").column];
            let defaults =
                TextDefaults { charset: charset.map(str::to_owned), collation: collation.map(str::to_owned) };
            apply_defaults(Dialect::MySql, &mut columns, &defaults);
            assert_eq!(columns[0].kind.collation, expected, "{charset:?} {collation:?}");
            assert_eq!(columns[1].kind.collation, Collation::Padded);
        }
    }
}
