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
//! plain       a word or string, but not DEFAULT, NOT or NULL
//! condition   an expression in parentheses    query        a query, up to the end
//! expr        an expression                   rest         what is left, if it is well formed
//! default     one that does not start with NOT
//! ```

use super::lexer::{Dialect, Token};
use super::token_list::{closing, is_identifier, number_end};
use super::type_name::type_end;
use super::word_order::{is_expression, is_well_formed};

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
            "expr" | "default" => {
                if *item == "default" && self.tokens.get(at).is_some_and(|token| token.is("NOT")) {
                    return false;
                }
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
            "plain" => {
                return match token? {
                    Token::Text(_) => Some(at + 1),
                    token if is_identifier(token) && !token.is_any(&["DEFAULT", "NOT", "NULL"]) => Some(at + 1),
                    _ => None,
                };
            }
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

#[cfg(test)]
pub mod tests {
    use super::super::super::stream::{Progress, ReadMeter, Stream};
    use super::super::lexer::Lexer;
    use super::*;

    pub fn tokens(dialect: Dialect, text: &str) -> Vec<Token> {
        let mut quiet = |_: Progress| {};
        let stream = Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet);
        let mut lexer = Lexer::new(stream, dialect);
        std::iter::from_fn(|| Some(lexer.token().unwrap()).filter(|token| *token != Token::End)).collect()
    }

    /// Checks that some texts are what `is` accepts, and others are not.
    pub fn check(dialect: Dialect, is: fn(Dialect, &[Token]) -> bool, right: &[&str], wrong: &[&str]) {
        for text in right {
            assert!(is(dialect, &tokens(dialect, text)), "{text}");
        }
        for text in wrong {
            assert!(!is(dialect, &tokens(dialect, text)), "{text}");
        }
    }
}
