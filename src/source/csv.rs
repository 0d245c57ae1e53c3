//! The fields of CSV lines.

use std::borrow::Cow;

use memchr::memchr2;

/// Fields of a row, and columns of a table.
pub const MAX_FIELDS: usize = 4096;

/// The fields of a line.
pub struct Fields<'l> {
    pub values: Vec<Option<Cow<'l, str>>>,
    /// Whether a quote is within an unquoted field.
    pub quote_within: bool,
}

/// Why a line has no fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFault {
    TooMany,
    AfterQuote,
}

impl FieldFault {
    pub fn detail(self) -> String {
        match self {
            Self::TooMany => format!("a row has more than {MAX_FIELDS} fields"),
            Self::AfterQuote => "a quoted field goes on after its closing quote: a quote within it is doubled, and a \
                                 backslash does not escape it"
                .into(),
        }
    }
}

/// Splits a line without its line end. `strict`: text after a closing quote is an error, and not read as PostgreSQL does.
pub fn fields(line: &str, delimiter: u8, strict: bool) -> Result<Fields<'_>, FieldFault> {
    let mut found = Fields { values: Vec::new(), quote_within: false };
    let mut rest = Some(line);
    while let Some(text) = rest {
        if found.values.len() == MAX_FIELDS {
            return Err(FieldFault::TooMany);
        }
        let (field, after, quoting) = field(text, delimiter);
        match quoting {
            Quoting::Plain => {}
            Quoting::Within => found.quote_within = true,
            Quoting::GoesOn if strict => return Err(FieldFault::AfterQuote),
            Quoting::GoesOn => found.quote_within = true,
        }
        found.values.push(field);
        rest = after;
    }
    Ok(found)
}

/// How a field is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// Not at all, or as a whole.
    Plain,
    /// A quote is within an unquoted field.
    Within,
    /// A quoted field goes on after its closing quote.
    GoesOn,
}

/// Splits off the first field at its delimiter. Quotes may open and close anywhere in a field, as in PostgreSQL.
fn field(text: &str, delimiter: u8) -> (Option<Cow<'_, str>>, Option<&str>, Quoting) {
    let bytes = text.as_bytes();
    let end = memchr2(delimiter, b'"', bytes).unwrap_or(text.len());
    if bytes.get(end) != Some(&b'"') {
        let field = &text[..end];
        let null = field.is_empty() || field == "\\N";
        return ((!null).then_some(Cow::Borrowed(field)), text.get(end + 1..), Quoting::Plain);
    }
    let mut quoting = if end > 0 { Quoting::Within } else { Quoting::Plain };
    let mut field = text[..end].to_owned();
    let mut quoted = false;
    let mut closed = false;
    let mut characters = text[end..].char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if quoted && characters.next_if(|(_, next)| *next == '"').is_some() => field.push('"'),
            '"' if quoted => (quoted, closed) = (false, true),
            '"' => quoted = true,
            _ if !quoted && character == char::from(delimiter) => {
                return (Some(Cow::Owned(field)), text.get(end + at + 1..), quoting);
            }
            _ => field.push(character),
        }
        if closed && quoting == Quoting::Plain && (quoted || character != '"') {
            quoting = Quoting::GoesOn;
        }
    }
    (Some(Cow::Owned(field)), None, quoting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, delimiter: u8, strict: bool) -> Result<(String, bool), FieldFault> {
        let found = fields(line, delimiter, strict)?;
        let values: Vec<_> = found.values.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
        Ok((values.join("|"), found.quote_within))
    }

    #[test]
    fn fields_are_split_as_in_postgresql() {
        assert_eq!(
            shown("a,,\"\",\"b,\"\"c\"\"\",\\N,\"\\N\"", b',', true),
            Ok(("a|NULL||b,\"c\"|NULL|\\N".into(), false))
        );
        assert_eq!(shown("a,b;c", b';', true), Ok(("a,b|c".into(), false)));
        assert_eq!(shown("5\" tall,6\" small", b',', true), Ok(("5 tall,6 small".into(), true)));
        assert_eq!(shown("\"a\"b,c", b',', true), Err(FieldFault::AfterQuote));
        assert_eq!(shown("\"a\"b,c", b',', false), Ok(("ab|c".into(), true)));
        assert_eq!(shown(&",".repeat(MAX_FIELDS), b',', true), Err(FieldFault::TooMany));
    }
}
