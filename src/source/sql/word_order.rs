//! The order of words, values and operators in an expression, a list or a query.

use super::lexer::{Dialect, Token};
use super::token_list::{is_number, starts_like_number};

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
                if words && keyword && token.is("WITH") && before == Before::Operand {
                    const AFTER: [&str; 9] =
                        ["TIME", "ORDINALITY", "TIES", "CASCADED", "LOCAL", "CHECK", "ROLLUP", "QUERY", "PARSER"];
                    if !tokens.get(at).is_some_and(|next| next.is_any(&AFTER)) {
                        return false;
                    }
                }
                if words && keyword && token.is("SELECT") {
                    let after = last.is_any(&["UNION", "ALL", "EXCEPT", "INTERSECT", "DISTINCT", "AS", "RETURN"]);
                    if before == Before::Operand && !after {
                        return false;
                    }
                    if let Some(from) = from.last_mut() {
                        *from = false;
                    }
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
        (Token::Word(_), Token::Word(_)) if breaks_case(last, token) => false,
        (Token::Word(one), Token::Word(other)) => !(one.eq_ignore_ascii_case(other) && is_keyword(one)),
        _ => true,
    }
}

/// Whether a word of CASE lacks what must be between it and the next one.
fn breaks_case(last: &Token, token: &Token) -> bool {
    (last.is("CASE") && token.is_any(&["ELSE", "END", "THEN"]))
        || (last.is_any(&["WHEN", "THEN", "ELSE"]) && token.is_any(&["WHEN", "THEN", "ELSE", "END"]))
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
