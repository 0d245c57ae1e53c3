//! Parts of a list of tokens: what parentheses enclose, what commas part, names and numbers.

use super::lexer::Token;

/// The position of the parenthesis that closes the one at `at`.
pub fn closing(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0usize;
    for (end, token) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Symbol(b'(') => depth += 1,
            Token::Symbol(b')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return end;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Splits tokens at the commas outside parentheses.
pub fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Symbol(b'(') => depth += 1,
            Token::Symbol(b')') => depth = depth.saturating_sub(1),
            Token::Symbol(b',') if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    parts
}

/// The content of a word, a name or a text.
pub fn word_of(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) | Token::Name(word) => Some(word.clone()),
        Token::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// The parts of a name in a text, such as `public."a ""b"""`: quotes and the doubling of quotes are undone.
pub fn parts_of_name(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => {}
            '"' => {
                is_quoted = !is_quoted;
                continue;
            }
            '.' if !is_quoted => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// Whether a word is a number without a sign: `12`, `0x1f`, `1e5`.
pub fn is_number(word: &str) -> bool {
    let digits = word.as_bytes();
    let hex = word.strip_prefix("0x").or(word.strip_prefix("0X"));
    if let Some(hex) = hex {
        return !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let mut parts = word.splitn(2, ['e', 'E']);
    let whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    digits.first().is_some_and(u8::is_ascii_digit) && parts.all(whole)
}

pub fn starts_like_number(word: &str) -> bool {
    word.as_bytes().first().is_some_and(u8::is_ascii_digit)
}

/// Whether a token can be a name.
pub fn is_identifier(token: &Token) -> bool {
    match token {
        Token::Word(word) => !starts_like_number(word),
        Token::Name(name) => !name.is_empty(),
        _ => false,
    }
}

/// The end of a number such as `-1.5e-3`.
pub fn number_end(tokens: &[Token], at: usize) -> Option<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_texts_have_parts() {
        assert_eq!(parts_of_name("public.faces_seq"), ["public", "faces_seq"]);
        assert_eq!(parts_of_name(r#""a.b"."faces_a""b_seq""#), ["a.b", "faces_a\"b_seq"]);
        assert_eq!(parts_of_name("s"), ["s"]);
        assert_eq!(parts_of_name(r#""""#), [""]);
    }
}
