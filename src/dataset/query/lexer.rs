//! The tokens of a query.

use super::ast::{Operator, QueryError};

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A keyword, a field or a bare value: letters, digits and `_ . : / - + @ %`, not beginning with a digit, and
    /// apostrophes between letters.
    Word(String),
    Number(f64, String),
    Text(String),
    Operator(Operator),
    Open,
    Close,
    Comma,
    End,
}

/// The tokens with their positions in bytes; the last one is [`Token::End`].
pub fn tokens(text: &str) -> Result<Vec<(Token, usize)>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, at));
            return Ok(tokens);
        };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '\'' | '"' => quoted(rest, first).ok_or_else(|| {
                QueryError::new(format!("the quote is not closed: {first} within a text is doubled"), text, at)
            })?,
            '=' | '!' | '<' | '>' => {
                operator(rest).ok_or_else(|| QueryError::new("expected one of = != < <= > >=", text, at))?
            }
            _ => {
                let length = word_length(rest);
                if length == 0 {
                    return Err(QueryError::new(format!("unexpected character {first:?}"), text, at));
                }
                (word(&rest[..length]), length)
            }
        };
        tokens.push((token, at));
        rest = &rest[length..];
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-' | '+' | '@' | '%')
}

/// Bytes of the word at the beginning. An apostrophe between letters belongs to it: `O'Neill`.
fn word_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().peekable();
    let mut is_after_letter = false;
    while let Some((at, c)) = chars.next() {
        let is_between = is_after_letter && chars.peek().is_some_and(|(_, next)| next.is_alphabetic());
        if !(is_word(c) || c == '\'' && is_between) {
            return at;
        }
        is_after_letter = c.is_alphabetic();
    }
    rest.len()
}

fn word(text: &str) -> Token {
    // `inf` and `nan` are words: no field has such a value.
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        Ok(number) if is_number && number.is_finite() => Token::Number(number, text.to_owned()),
        _ => Token::Word(text.to_owned()),
    }
}

fn quoted(rest: &str, quote: char) -> Option<(Token, usize)> {
    let mut content = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            content.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Some((Token::Text(content), at + 1));
        }
    }
    None
}

fn operator(rest: &str) -> Option<(Token, usize)> {
    let fitting = Operator::ALL.iter().filter(|(_, text)| rest.starts_with(text));
    fitting.max_by_key(|(_, text)| text.len()).map(|(operator, text)| (Token::Operator(*operator), text.len()))
}
