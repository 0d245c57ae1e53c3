//! The escapes of strings.

use memchr::memchr;

use super::super::charset::CharacterSet;

/// Halves doubled quotes.
pub fn undouble(written: &[u8], quote: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some(at) = memchr(quote, rest) {
        bytes.extend_from_slice(&rest[..=at]);
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// Decodes MySQL's escapes. `\%` and `\_` keep their backslash, as in MySQL outside LIKE.
pub fn unescape_mysql(written: &[u8], quote: u8, charset: CharacterSet) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len());
    let hides = charset.hides_ascii();
    let mut rest = written.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if hides && byte >= 0x80 {
            bytes.push(byte);
            bytes.extend(rest.next_if(|second| charset.is_pair(byte, *second)));
            continue;
        }
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

/// Decodes the escapes of an `E''` string.
pub fn unescape_standard(written: &[u8], charset: CharacterSet) -> Vec<u8> {
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
                    None => match &written[at..] {
                        [first, second, ..] if charset.is_pair(*first, *second) => {
                            bytes.extend([*first, *second]);
                            2
                        }
                        escaped => unescape_one(escaped, &mut bytes),
                    },
                }
            }
            _ => {
                bytes.push(byte);
                if let Some(second) = written.get(at).filter(|second| charset.is_pair(byte, **second)) {
                    bytes.push(*second);
                    at += 1;
                }
            }
        }
    }
    bytes
}

/// Decodes `u` and four, or `U` and eight hex digits. Returns the character and the number of bytes read.
fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let length = match text.first()? {
        b'u' => 5,
        b'U' => 9,
        _ => return None,
    };
    let digits = std::str::from_utf8(text.get(1..length)?).ok()?;
    Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, length))
}

/// Decodes the text after a backslash as PostgreSQL does in `E''` strings and in COPY rows. Returns the number of
/// bytes read.
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

/// Decodes pairs of hex digits. None: they are no such pairs.
pub fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(undouble(b"it''s ''", b'\''), b"it's '");
        assert_eq!(unescape_mysql(br"a\'b\%\n", b'\'', CharacterSet::Utf8), b"a'b\\%\n");
        assert_eq!(unescape_standard(br"\x41\102\u00e9\q", CharacterSet::Utf8), "AB\u{e9}q".as_bytes());
        assert_eq!(unhex(b"00fF").as_deref(), Some(&[0, 255][..]));
        assert_eq!(unhex(b"0"), None);
        assert_eq!(unhex(b"0g"), None);
    }
}
