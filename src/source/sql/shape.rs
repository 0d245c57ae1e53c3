//! Shapes of statements that are skipped: a small grammar, and what it is matched against. A statement that has none of
//! the shapes of its kind may be damaged, and only the database can tell what it makes of it.
//!
//! A shape is a text of words between blanks:
//!
//! ```text
//! WORD        this keyword                    [ a b ]      nothing, or a b
//! ( ) , =     this symbol                     { a b }      any number of a b
//! ident       a name                          < a | b >    one of them
//! name        a name with its schema          num, text    a number, a string
//! type        a type                          value        a word, number or string
//! parens      a list in parentheses           args         the same, or ()
//! condition   an expression in parentheses    query        a query, up to the end
//! expr        an expression                   rest         what is left, if it is well formed
//! ```

use super::lexer::{Dialect, Token};
use super::types::closing;

/// Steps of one match. No statement of a dump needs more than a few thousand.
const MAX_STEPS: usize = 200_000;

/// Whether tokens have one of the shapes.
pub fn has_shape(dialect: Dialect, tokens: &[Token], shapes: &[&str]) -> bool {
    let mut steps = MAX_STEPS;
    shapes.iter().any(|shape| {
        let items: Vec<&str> = shape.split_ascii_whitespace().collect();
        let mut matcher = Matcher { dialect, tokens, steps: &mut steps };
        matcher.sequence(&items, 0, &mut |_, at| at == tokens.len())
    })
}

struct Matcher<'m> {
    dialect: Dialect,
    tokens: &'m [Token],
    steps: &'m mut usize,
}

/// What must follow: called with the place in the tokens.
type Then<'t, 'm> = &'t mut dyn FnMut(&mut Matcher<'m>, usize) -> bool;

impl<'m> Matcher<'m> {
    fn sequence(&mut self, items: &[&str], at: usize, then: Then<'_, 'm>) -> bool {
        let Some(left) = self.steps.checked_sub(1) else { return false };
        *self.steps = left;
        let Some(item) = items.first() else { return then(self, at) };
        match *item {
            "[" => {
                let end = closing_item(items);
                let (inner, after) = (&items[1..end], &items[end + 1..]);
                self.sequence(inner, at, &mut |this, at| this.sequence(after, at, then))
                    || self.sequence(after, at, then)
            }
            "{" => {
                let end = closing_item(items);
                let (inner, after) = (&items[1..end], &items[end + 1..]);
                self.sequence(inner, at, &mut |this, next| next > at && this.sequence(items, next, then))
                    || self.sequence(after, at, then)
            }
            "<" => {
                let end = closing_item(items);
                let after = &items[end + 1..];
                alternatives(&items[1..end])
                    .into_iter()
                    .any(|inner| self.sequence(inner, at, &mut |this, at| this.sequence(after, at, then)))
            }
            "expr" => {
                let dialect = self.dialect;
                let after = &items[1..];
                let mut end = at;
                while let Some(token) = self.tokens.get(end) {
                    end = match token {
                        Token::Symbol(b'(') => closing(self.tokens, end) + 1,
                        Token::Symbol(b'[') => {
                            let close = self.tokens[end..].iter().position(|token| *token == Token::Symbol(b']'));
                            close.map_or(self.tokens.len(), |close| end + close) + 1
                        }
                        Token::Symbol(b',') => return false,
                        _ => end + 1,
                    };
                    if end > self.tokens.len() {
                        return false;
                    }
                    if is_expression(dialect, &self.tokens[at..end]) && self.sequence(after, end, then) {
                        return true;
                    }
                }
                false
            }
            item => self.one(item, at).is_some_and(|at| self.sequence(&items[1..], at, then)),
        }
    }

    /// Matches a single item. Returns what follows it.
    fn one(&mut self, item: &str, at: usize) -> Option<usize> {
        let tokens = self.tokens;
        let token = tokens.get(at);
        match item {
            "rest" => {
                let found = at < tokens.len() && is_well_formed(self.dialect, &tokens[at..], false);
                return found.then_some(tokens.len());
            }
            "query" => {
                let query = &tokens[at..];
                // A query may be in parentheses.
                let first = query.iter().find(|token| **token != Token::Symbol(b'('));
                let starts = first.is_some_and(|first| first.is_any(&["SELECT", "WITH", "VALUES", "TABLE"]));
                return (starts && is_well_formed(self.dialect, query, true)).then_some(tokens.len());
            }
            "ident" => return is_identifier(token?).then_some(at + 1),
            "name" => {
                let mut end = at;
                loop {
                    if !is_identifier(tokens.get(end)?) {
                        return None;
                    }
                    end += 1;
                    if tokens.get(end) != Some(&Token::Symbol(b'.')) {
                        return Some(end);
                    }
                    end += 1;
                }
            }
            "text" => return matches!(token?, Token::Text(_)).then_some(at + 1),
            "num" => return number_end(tokens, at),
            "value" => {
                return match token? {
                    Token::Text(_) => Some(at + 1),
                    token if is_identifier(token) => Some(at + 1),
                    _ => number_end(tokens, at),
                };
            }
            "condition" => {
                if token? != &Token::Symbol(b'(') {
                    return None;
                }
                let end = closing(tokens, at);
                let fits = end < tokens.len() && is_expression(self.dialect, &tokens[at + 1..end]);
                return fits.then_some(end + 1);
            }
            "parens" | "args" => {
                if token? != &Token::Symbol(b'(') {
                    return None;
                }
                let end = closing(tokens, at);
                let inner = tokens.get(at + 1..end)?;
                let fits = if inner.is_empty() { item == "args" } else { is_well_formed(self.dialect, inner, true) };
                return (fits && end < tokens.len()).then_some(end + 1);
            }
            "type" => return type_end(self.dialect, tokens, at),
            _ => {}
        }
        let found = match item.as_bytes() {
            [symbol] if !symbol.is_ascii_alphanumeric() => token? == &Token::Symbol(*symbol),
            _ => token?.is(item),
        };
        found.then_some(at + 1)
    }
}

/// The position of the item that closes the one at the start.
fn closing_item(items: &[&str]) -> usize {
    let mut depth = 0usize;
    for (at, item) in items.iter().enumerate() {
        match *item {
            "[" | "{" | "<" => depth += 1,
            "]" | "}" | ">" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    unreachable!("a shape is not closed: {items:?}")
}

fn alternatives<'i, 's>(items: &'i [&'s str]) -> Vec<&'i [&'s str]> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, item) in items.iter().enumerate() {
        match *item {
            "[" | "{" | "<" => depth += 1,
            "]" | "}" | ">" => depth -= 1,
            "|" if depth == 0 => {
                found.push(&items[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&items[start..]);
    found
}

fn is_number(word: &str) -> bool {
    let digits = word.as_bytes();
    let hex = word.strip_prefix("0x").or(word.strip_prefix("0X"));
    if let Some(hex) = hex {
        return !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let mut parts = word.splitn(2, ['e', 'E']);
    let whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    digits.first().is_some_and(u8::is_ascii_digit) && parts.all(whole)
}

fn starts_like_number(word: &str) -> bool {
    word.as_bytes().first().is_some_and(u8::is_ascii_digit)
}

fn is_identifier(token: &Token) -> bool {
    match token {
        Token::Word(word) => !starts_like_number(word),
        Token::Name(name) => !name.is_empty(),
        _ => false,
    }
}

/// The end of a number such as `-1.5e-3`.
fn number_end(tokens: &[Token], at: usize) -> Option<usize> {
    let signed = matches!(tokens.get(at)?, Token::Symbol(b'-' | b'+'));
    let mut end = at + usize::from(signed);
    let is_digits = |at: usize| matches!(tokens.get(at), Some(Token::Word(word)) if is_number(word));
    let whole = is_digits(end);
    end += usize::from(whole);
    if tokens.get(end) == Some(&Token::Symbol(b'.')) {
        end += 1;
        let fraction = is_digits(end);
        end += usize::from(fraction);
        return (whole || fraction).then_some(end);
    }
    whole.then_some(end)
}

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
                        let parts = super::settings::split(inner);
                        parts.len() <= 2 && parts.into_iter().all(is_size)
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
        "time" => matches!(last, "with" | "without"),
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
pub const POSTGRES_TYPES: [&str; 82] = [
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
];

/// Words of queries and expressions. Others are names.
const KEYWORDS: [&str; 127] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "at",
    "between",
    "bigint",
    "binary",
    "bit",
    "both",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "collate",
    "convert",
    "cross",
    "current",
    "current_date",
    "current_timestamp",
    "date",
    "day",
    "default",
    "delete",
    "desc",
    "distinct",
    "div",
    "double",
    "else",
    "end",
    "escape",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "filter",
    "first",
    "following",
    "for",
    "from",
    "full",
    "group",
    "grouping",
    "having",
    "hour",
    "ilike",
    "in",
    "inner",
    "insert",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "last",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "local",
    "minute",
    "mod",
    "month",
    "natural",
    "next",
    "not",
    "notnull",
    "null",
    "nulls",
    "numeric",
    "of",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "ordinality",
    "outer",
    "over",
    "overlaps",
    "partition",
    "preceding",
    "precision",
    "range",
    "regexp",
    "returning",
    "right",
    "rlike",
    "row",
    "rows",
    "second",
    "select",
    "separator",
    "set",
    "similar",
    "some",
    "straight_join",
    "symmetric",
    "table",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "true",
    "unbounded",
    "union",
    "unique",
    "unsigned",
    "update",
    "using",
    "values",
    "varying",
    "when",
    "where",
    "window",
    "with",
    "without",
    "zone",
];

fn is_keyword(word: &str) -> bool {
    KEYWORDS.binary_search(&word.to_ascii_lowercase().as_str()).is_ok()
}

/// Operators of more than one symbol. A sign may follow any of them.
const OPERATORS: [&str; 44] = [
    "||", "::", ":=", "<=", ">=", "<>", "!=", "<=>", "->", "->>", "#>", "#>>", "#-", "@>", "<@", "&&", "<<", ">>",
    "~~", "!~~", "~~*", "!~~*", "~*", "!~", "!~*", "@@", "@?", "?|", "?&", "=>", "<->", "<#>", "<%", "%>", "|/", "||/",
    "@-@", "##", "<<|", "|>>", "&<", "&>", "-|-", "^@",
];

const SYMBOLS: &[u8] = b"+-*/<>=~!@#%^&|?:$";

/// Whether tokens could be an expression: see [`is_well_formed`].
pub fn is_expression(dialect: Dialect, tokens: &[Token]) -> bool {
    const NO_VALUES: [&str; 7] = ["SET", "INSERT", "UPDATE", "DELETE", "INTO", "CREATE", "DROP"];
    let adjacent = tokens.windows(2).any(|pair| {
        let is_name = |token: &Token| match token {
            Token::Word(word) => !is_keyword(word) && !starts_like_number(word),
            Token::Name(_) => true,
            _ => false,
        };
        is_name(&pair[0]) && is_name(&pair[1])
    });
    !adjacent && !tokens.iter().any(|token| token.is_any(&NO_VALUES)) && is_well_formed(dialect, tokens, true)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The start, an opening bracket, a comma or an operator: a value must follow.
    Open,
    Operand,
    Operator,
    Dot,
}

/// Whether tokens could be an expression, a list or a query: brackets are closed, and operators and commas are between
/// values. `words`: names stand where names may stand, as in a query.
pub fn is_well_formed(dialect: Dialect, tokens: &[Token], words: bool) -> bool {
    let mut brackets = Vec::new();
    let mut before = Before::Open;
    let mut at = 0;
    // Names in a row that are no keywords, with the value before them.
    let mut names = 0;
    let mut last: &Token = &Token::Stop;
    // Whether FROM came since the last SELECT, for each level of parentheses.
    let mut from = vec![false];
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::End => return false,
            Token::Stop => {
                if before != Before::Operand {
                    return false;
                }
                before = Before::Open;
                names = 0;
            }
            Token::Name(name) if name.is_empty() => return false,
            Token::Word(_) | Token::Name(_) | Token::Text(_) => {
                let number = matches!(token, Token::Word(word) if starts_like_number(word));
                if matches!(token, Token::Word(word) if number && !is_number(word)) {
                    return false;
                }
                if before == Before::Operand && !fits_after(dialect, last, token, number) {
                    return false;
                }
                let keyword = matches!(token, Token::Word(word) if is_keyword(word));
                let names_before = matches!(last, Token::Word(_) | Token::Name(_)) && before == Before::Operand;
                if words && number && names_before && !matches!(last, Token::Word(word) if is_keyword(word)) {
                    return false;
                }
                if words && keyword && token.is("SELECT") {
                    let after = last.is_any(&["UNION", "ALL", "EXCEPT", "INTERSECT", "DISTINCT", "AS", "RETURN"]);
                    if before == Before::Operand && !after {
                        return false;
                    }
                    from.last_mut().map(|from| *from = false);
                }
                if words && keyword && token.is("FROM") && !last.is("DISTINCT") {
                    match from.last_mut() {
                        Some(seen) if *seen => return false,
                        Some(seen) => *seen = true,
                        None => {}
                    }
                }
                let joined = before == Before::Dot;
                names = match (keyword, joined) {
                    (true, _) => 0,
                    (false, true) => names,
                    // An alias is one name.
                    (false, false) if last.is("AS") => 2,
                    (false, false) => names + 1,
                };
                if words && names > 2 {
                    return false;
                }
                before = Before::Operand;
            }
            Token::Symbol(open @ (b'(' | b'[' | b'{')) => {
                brackets.push((*open, names));
                from.push(false);
                before = Before::Open;
                names = 0;
            }
            Token::Symbol(close @ (b')' | b']' | b'}')) => {
                let Some((open, outer)) = brackets.pop() else { return false };
                let pairs = matches!((open, close), (b'(', b')') | (b'[', b']') | (b'{', b'}'));
                let empty = matches!(last, Token::Symbol(symbol) if *symbol == open) || *last == Token::Stop;
                if !pairs || !(before == Before::Operand || empty) {
                    return false;
                }
                from.pop();
                // Parentheses are a value, or the arguments of the name before them.
                names = if outer == 0 { 1 } else { outer };
                before = Before::Operand;
            }
            Token::Symbol(b',') => {
                if before != Before::Operand {
                    return false;
                }
                before = Before::Open;
                names = 0;
            }
            Token::Symbol(b'.') => {
                let digits = matches!(tokens.get(at), Some(Token::Word(word)) if starts_like_number(word));
                if before == Before::Dot || (before != Before::Operand && !digits) {
                    return false;
                }
                before = Before::Dot;
            }
            Token::Symbol(symbol) if SYMBOLS.contains(symbol) => {
                let mut run = String::from(char::from(*symbol));
                while let Some(Token::Symbol(more)) = tokens.get(at)
                    && SYMBOLS.contains(more)
                {
                    run.push(char::from(*more));
                    at += 1;
                }
                let last_token = &tokens[at - 1];
                let selects = before != Before::Operand || matches!(last, Token::Word(word) if is_keyword(word));
                if run == "*" && selects {
                    (before, last) = (Before::Operand, last_token);
                    continue;
                }
                if !is_operator(dialect, &run, before == Before::Operand || before == Before::Dot) {
                    return false;
                }
                before = Before::Operator;
                names = 0;
                last = last_token;
                continue;
            }
            Token::Symbol(_) => return false,
        }
        last = token;
    }
    brackets.is_empty() && before == Before::Operand
}

/// Whether a value may follow another without a symbol between them.
fn fits_after(dialect: Dialect, last: &Token, token: &Token, number: bool) -> bool {
    let last_number = matches!(last, Token::Word(word) if starts_like_number(word));
    match (last, token) {
        (Token::Text(_), Token::Text(_)) => true,
        (Token::Text(_) | Token::Symbol(b')' | b']'), _) if number => false,
        _ if last_number && (number || matches!(token, Token::Text(_))) => false,
        (Token::Name(_), Token::Text(_)) => dialect == Dialect::Postgres,
        (Token::Word(one), Token::Word(other)) => !(one.eq_ignore_ascii_case(other) && is_keyword(one)),
        _ => true,
    }
}

/// Whether symbols in a row are an operator, with a value before it or not.
fn is_operator(dialect: Dialect, run: &str, binary: bool) -> bool {
    let signs = |rest: &str| rest.chars().all(|sign| "-+~!@$*".contains(sign)) && rest.len() <= 2;
    if !binary {
        return signs(run) || (dialect == Dialect::MySql && run == "@@");
    }
    if run == "@" {
        return dialect == Dialect::MySql;
    }
    let known = |length: usize| {
        let operator = &run[..length];
        (length == 1 && "+-*/<>=%^&|#~:@$!?".contains(operator)) || OPERATORS.contains(&operator)
    };
    (1..=run.len()).any(|length| known(length) && signs(&run[length..]))
}
