//! The names of types, and how they are written.

use super::lexer::{Dialect, Token};
use super::token_list::{closing, is_identifier, is_number, number_end, split};
use super::word_order::is_well_formed;

/// Words that follow the name of a type and belong to it.
const TYPE_TAILS: [&str; 14] = [
    "UNSIGNED",
    "SIGNED",
    "ZEROFILL",
    "BINARY",
    "ASCII",
    "UNICODE",
    "VARYING",
    "PRECISION",
    "WITH",
    "WITHOUT",
    "TIME",
    "ZONE",
    "LARGE",
    "BYTE",
];

/// Words that no type is called by unless they are quoted.
const RESERVED: [&str; 22] = [
    "not",
    "null",
    "default",
    "check",
    "unique",
    "primary",
    "references",
    "constraint",
    "collate",
    "foreign",
    "table",
    "select",
    "from",
    "where",
    "and",
    "or",
    "as",
    "on",
    "in",
    "create",
    "using",
    "with",
];

/// The end of the type at `at`.
pub fn type_end(dialect: Dialect, tokens: &[Token], at: usize) -> Option<usize> {
    let mut end = at;
    let mut qualified = false;
    let first = loop {
        let name = tokens.get(end).filter(|token| is_identifier(token))?;
        end += 1;
        if tokens.get(end) != Some(&Token::Symbol(b'.')) {
            break name;
        }
        qualified = true;
        end += 1;
    };
    let name = match first {
        Token::Word(word) | Token::Name(word) => word.to_ascii_lowercase(),
        _ => return None,
    };
    if matches!(first, Token::Word(_)) && RESERVED.contains(&name.as_str()) {
        return None;
    }
    if dialect == Dialect::MySql && (qualified || !MYSQL_TYPES.contains(&name.as_str())) {
        return None;
    }
    let mut sized = false;
    let mut last = name;
    loop {
        match tokens.get(end) {
            Some(Token::Symbol(b'(')) if !sized => {
                let close = closing(tokens, end);
                let inner = tokens.get(end + 1..close)?;
                let is_size = |part: &[Token]| number_end(part, 0) == Some(part.len());
                let fits = match last.as_str() {
                    "enum" | "set" => {
                        inner.iter().enumerate().all(|(at, token)| match at % 2 {
                            0 => matches!(token, Token::Text(_)),
                            _ => *token == Token::Symbol(b','),
                        }) && inner.len() % 2 == 1
                    }
                    // Types of extensions have words in their parentheses: geometry(Point,4326).
                    _ if qualified || !POSTGRES_TYPES.contains(&last.as_str()) && dialect == Dialect::Postgres => {
                        is_well_formed(dialect, inner, false)
                    }
                    _ => {
                        let parts = split(inner);
                        let digits: usize = match parts.first() {
                            Some([Token::Word(digits)]) => digits.parse().unwrap_or_default(),
                            _ => 0,
                        };
                        let most = match (last.as_str(), dialect) {
                            ("numeric" | "decimal" | "dec", Dialect::Postgres) => 1000,
                            ("numeric" | "decimal" | "dec" | "fixed", Dialect::MySql) => 65,
                            _ => usize::MAX,
                        };
                        digits <= most && parts.len() <= 2 && parts.into_iter().all(is_size)
                    }
                };
                if !fits || close >= tokens.len() {
                    return None;
                }
                sized = true;
                end = close + 1;
            }
            Some(Token::Symbol(b'[')) if dialect == Dialect::Postgres => {
                end += 1;
                if matches!(tokens.get(end), Some(Token::Word(word)) if is_number(word)) {
                    end += 1;
                }
                if tokens.get(end) != Some(&Token::Symbol(b']')) {
                    return None;
                }
                end += 1;
            }
            Some(Token::Word(word)) if follows_in_type(dialect, &last, word, tokens.get(end + 1)) => {
                last = word.to_ascii_lowercase();
                end += 1;
            }
            _ => return Some(end),
        }
    }
}

/// Whether a word belongs to the type whose last word is `last`.
fn follows_in_type(dialect: Dialect, last: &str, word: &str, next: Option<&Token>) -> bool {
    if !TYPE_TAILS.iter().any(|tail| word.eq_ignore_ascii_case(tail)) {
        return false;
    }
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "unsigned" | "signed" | "zerofill" | "ascii" | "unicode" | "byte" | "binary" => dialect == Dialect::MySql,
        "varying" => matches!(last, "character" | "char" | "bit" | "national" | "nchar"),
        "precision" => last == "double",
        "with" | "without" => matches!(last, "timestamp" | "time") && next.is_some_and(|next| next.is("TIME")),
        "time" => matches!(last, "with" | "without") && next.is_some_and(|next| next.is("ZONE")),
        "zone" => last == "time",
        "large" => matches!(last, "character" | "char" | "binary"),
        _ => false,
    }
}

const MYSQL_TYPES: [&str; 67] = [
    "tinyint",
    "smallint",
    "mediumint",
    "int",
    "integer",
    "bigint",
    "int1",
    "int2",
    "int3",
    "int4",
    "int8",
    "middleint",
    "decimal",
    "dec",
    "numeric",
    "fixed",
    "number",
    "float",
    "double",
    "real",
    "float4",
    "float8",
    "bit",
    "bool",
    "boolean",
    "serial",
    "date",
    "time",
    "datetime",
    "timestamp",
    "year",
    "char",
    "character",
    "nchar",
    "national",
    "varchar",
    "varchar2",
    "nvarchar",
    "varcharacter",
    "binary",
    "varbinary",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "long",
    "json",
    "enum",
    "set",
    "uuid",
    "inet4",
    "inet6",
    "vector",
    "raw",
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
    "geomcollection",
];

/// PostgreSQL's own types, besides those of extensions and of the dump.
pub const POSTGRES_TYPES: [&str; 108] = [
    "smallint",
    "integer",
    "int",
    "bigint",
    "int2",
    "int4",
    "int8",
    "decimal",
    "numeric",
    "dec",
    "real",
    "double",
    "float",
    "float4",
    "float8",
    "money",
    "smallserial",
    "serial",
    "bigserial",
    "serial2",
    "serial4",
    "serial8",
    "char",
    "character",
    "varchar",
    "bpchar",
    "nchar",
    "national",
    "text",
    "name",
    "bytea",
    "timestamp",
    "timestamptz",
    "date",
    "time",
    "timetz",
    "interval",
    "boolean",
    "bool",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "cidr",
    "inet",
    "macaddr",
    "macaddr8",
    "bit",
    "varbit",
    "tsvector",
    "tsquery",
    "uuid",
    "xml",
    "json",
    "jsonb",
    "jsonpath",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "oid",
    "regclass",
    "regproc",
    "regtype",
    "regrole",
    "regnamespace",
    "regconfig",
    "pg_lsn",
    "pg_snapshot",
    "xid",
    "cid",
    "tid",
    "xid8",
    "regprocedure",
    "regoper",
    "regoperator",
    "regdictionary",
    "regcollation",
    "refcursor",
    "trigger",
    "event_trigger",
    "void",
    "record",
    "anyelement",
    "anyarray",
    "anycompatible",
    "cstring",
    "internal",
    "int2vector",
    "oidvector",
    "aclitem",
    "any",
    "anyenum",
    "anynonarray",
    "anyrange",
    "language_handler",
    "fdw_handler",
];
