//! The forms in which PostgreSQL writes values of types that have no rules of their own for ids.

/// The form of a type's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ValueForm {
    /// Any text, or a form that the type's class knows.
    #[default]
    Any,
    Boolean,
    Json,
    Bytes,
    Point,
    Interval,
    /// An array of any type.
    Array,
}

/// The most dimensions of an array.
const MAX_DIMENSIONS: usize = 6;

impl ValueForm {
    /// The form of the values of a type of PostgreSQL, by its first word in upper case.
    pub fn of(word: &str) -> Self {
        match word {
            "BOOL" | "BOOLEAN" => Self::Boolean,
            "JSON" | "JSONB" => Self::Json,
            "BYTEA" => Self::Bytes,
            "POINT" => Self::Point,
            "INTERVAL" => Self::Interval,
            _ => Self::Any,
        }
    }

    /// Whether a text has this form.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Boolean => is_boolean(text.trim_ascii()),
            Self::Json => is_json(text),
            Self::Bytes => is_bytes(text),
            Self::Point => is_point(text.trim_ascii()),
            Self::Interval => is_interval(text),
            Self::Array => is_array(text.trim_ascii()),
        }
    }
}

fn is_boolean(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let starts = ["true", "false", "yes", "no"].iter().any(|word| word.starts_with(&lower));
    !lower.is_empty() && (starts || ["on", "of", "off", "1", "0"].contains(&lower.as_str()))
}

fn is_json(text: &str) -> bool {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => true,
        // PostgreSQL allows deeper ones.
        Err(error) => error.to_string().starts_with("recursion limit"),
    }
}

/// `\x` and pairs of hex digits, or a text with octal escapes.
fn is_bytes(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("\\x") {
        let mut pairs = digits.split_ascii_whitespace();
        return pairs.all(|run| run.len() % 2 == 0 && run.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr(b'\\', rest) {
        rest = match &rest[at + 1..] {
            [b'\\', after @ ..] | [b'0'..=b'3', b'0'..=b'7', b'0'..=b'7', after @ ..] => after,
            _ => return false,
        };
    }
    true
}

/// `(1,2)` or `1,2`.
fn is_point(text: &str) -> bool {
    let inner = match text.strip_prefix('(') {
        Some(rest) => match rest.strip_suffix(')') {
            Some(inner) => inner,
            None => return false,
        },
        None => text,
    };
    let is_number = |text: &str| text.trim_ascii().parse::<f64>().is_ok();
    inner.split_once(',').is_some_and(|(x, y)| is_number(x) && is_number(y))
}

/// `1 year 2 mons -3 days 04:05:06.7`, and the like in other styles.
fn is_interval(text: &str) -> bool {
    const UNITS: [&str; 12] =
        ["year", "mon", "month", "week", "day", "hour", "hr", "h", "minute", "min", "second", "sec"];
    let is_unit = |word: &str| {
        let lower = word.to_ascii_lowercase();
        let one = lower.strip_suffix('s').unwrap_or(&lower);
        UNITS.contains(&one) || ["y", "d", "m", "w", "ago", "s", "decade", "century", "millennium"].contains(&one)
    };
    let fits = |word: &str| {
        let unsigned = word.trim_start_matches(['+', '-', '@']);
        let digits = unsigned.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        match digits.strip_prefix(':') {
            Some(rest) => rest.split(':').all(|part| {
                let (whole, fraction) = part.split_once('.').unwrap_or((part, "0"));
                let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                (1..=2).contains(&whole.len()) && is_digits(whole) && is_digits(fraction)
            }),
            None => digits.is_empty() || is_unit(digits) || digits.starts_with('-'),
        }
    };
    let mut words = text.split_ascii_whitespace().peekable();
    let iso = text.trim_ascii_start().starts_with(['P', 'p']);
    words.peek().is_some() && (iso || words.all(fits))
}

/// `{a,"b c",NULL}`, nested, with or without bounds before it.
fn is_array(text: &str) -> bool {
    let text = match text.strip_prefix('[').and(text.split_once('=')) {
        Some((bounds, rest)) => {
            let inside = bounds.trim_start_matches('[').trim_end().trim_end_matches(']');
            if inside.bytes().any(|byte| !(byte.is_ascii_digit() || b"[]:+-".contains(&byte))) {
                return false;
            }
            rest.trim_ascii_start()
        }
        None => text,
    };
    let mut array = ArrayText { rest: text.as_bytes(), counts: Vec::new() };
    text == "{}" || (array.level(0) && array.rest.trim_ascii().is_empty())
}

struct ArrayText<'t> {
    rest: &'t [u8],
    /// The number of elements of each dimension so far.
    counts: Vec<usize>,
}

impl ArrayText<'_> {
    fn skip_blank(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_blank();
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads a list in braces. All lists of a dimension have the same length, and either lists or values in them.
    fn level(&mut self, depth: usize) -> bool {
        if depth == MAX_DIMENSIONS || !self.take(b'{') {
            return false;
        }
        let mut count = 0;
        let mut nested = None;
        loop {
            self.skip_blank();
            let opens = self.rest.first() == Some(&b'{');
            if *nested.get_or_insert(opens) != opens || !(if opens { self.level(depth + 1) } else { self.value() }) {
                return false;
            }
            count += 1;
            if self.take(b',') {
                continue;
            }
            if !self.take(b'}') {
                return false;
            }
            // Inner dimensions are counted first.
            while self.counts.len() <= depth {
                self.counts.push(0);
            }
            let known = std::mem::replace(&mut self.counts[depth], count);
            return known == 0 || known == count;
        }
    }

    fn value(&mut self) -> bool {
        if self.take(b'"') {
            loop {
                let Some(at) = memchr::memchr2(b'"', b'\\', self.rest) else { return false };
                let escaped = self.rest[at] == b'\\';
                self.rest = self.rest.get(at + 1 + usize::from(escaped)..).unwrap_or_default();
                if !escaped {
                    self.skip_blank();
                    return matches!(self.rest.first(), Some(b',' | b'}'));
                }
            }
        }
        let mut at = 0;
        loop {
            match self.rest.get(at) {
                Some(b'\\') => at += 2,
                Some(b',' | b'}') => break,
                None | Some(b'{' | b'"') => return false,
                Some(_) => at += 1,
            }
        }
        let blank = self.rest[..at].trim_ascii().is_empty();
        self.rest = &self.rest[at..];
        !blank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_form_of_their_type() {
        use ValueForm::{Array, Boolean, Bytes, Interval, Json, Point};
        for (form, right, wrong) in [
            (Boolean, &["t", "false", "YES", "off", "1", " f "][..], &["", "o", "2", "truee", "t f"][..]),
            (
                Json,
                &[r#"{"a;": "\"'\u597d"}"#, "[1, 2e5, null]", r#""\ud83d""#],
                &["", "{", r#"{"a": 1,}"#, "{'a': 1}"],
            ),
            (Bytes, &["", "\\x", "\\x0aFF", "\\x0a ff", "a\\\\b\\012"], &["\\x0", "\\xzz", "a\\b", "\\400"]),
            (Point, &["(1,2)", "1.5,-2e3", " ( 1 , 2 ) "], &["(1,2))", "((1,2)", "(12)", "(,2)", "1,(2)", ""]),
            (
                Interval,
                &["1 day 02:00:00", "-3 days -04:05:06.789", "1 year 2 mons", "@ 1 hour ago", "P1DT2H", "02:00", "1-2"],
                &["", "1 day 02::00:00", "1 dya", "1 day 02:00:000"],
            ),
            (
                Array,
                &[
                    "{}",
                    r#"{a,"b,c","d\"e",NULL,"f\\g"}"#,
                    "{{1,2},{3,4}}",
                    "[0:1]={1,2}",
                    "{a\\,b, c d}",
                    r#"{"",""}"#,
                ],
                &[
                    "",
                    "{",
                    "{a,}",
                    "{,a}",
                    "{a,,b}",
                    "{{a},b}",
                    "{a,{b}}",
                    "{{1,2},{3}}",
                    "{a}b",
                    r#"{a,"b"c}"#,
                    r#"{a"b"}"#,
                    r#"{"a}"#,
                    "{a}}",
                    "a,b}",
                ],
            ),
        ] {
            for text in right {
                assert!(form.accepts(text), "{form:?} {text}");
            }
            for text in wrong {
                assert!(!form.accepts(text), "{form:?} {text}");
            }
        }
    }
}
