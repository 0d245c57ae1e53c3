//! Columns of the source database: their types, and how a type stores and compares values.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::charset::CharacterSet;
use super::value_form::ValueForm;
use facemill_domain::Printable;

/// A column of a table.
#[derive(Debug, Clone, Default)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub default: ColumnDefault,
    pub not_null: bool,
    /// Whether rows without a list of columns leave it out.
    pub hidden: bool,
}

/// The value of a column that an INSERT leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ColumnDefault {
    #[default]
    Null,
    Literal(Box<str>),
    /// Only the database can compute it: a function, a sequence, a generated column.
    Computed,
}

/// A type, as far as it matters for storing and comparing ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnType {
    pub class: TypeClass,
    pub collation: Collation,
    /// The character set of the column, where the dump names one.
    pub charset: Option<CharacterSet>,
    /// The length in parentheses, or 0.
    pub length: usize,
    /// MySQL's ZEROFILL.
    pub zerofill: bool,
    /// Whether the dump defines the column.
    pub defined: bool,
    /// The database numbers the rows: AUTO_INCREMENT, serial, IDENTITY, SQLite's rowid.
    pub numbered: bool,
    /// The form of the values of PostgreSQL's other types.
    pub form: ValueForm,
    pub years: Years,
}

/// The years that a type of dates or times has. MySQL stores other ones as zero, or refuses them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Years {
    #[default]
    Any,
    /// Those of MySQL's `datetime` and `date`.
    FourDigits,
    /// Those of MySQL's `timestamp`, seconds since 1970 in 32 bits, and zero.
    Unix,
}

impl Years {
    fn has_year_of(self, text: &str) -> bool {
        let year = text.split('-').next().unwrap_or_default();
        match self {
            Self::Any => true,
            Self::FourDigits => year.len() == 4,
            Self::Unix => year.len() == 4 && (year == "0000" || ("1970"..="2106").contains(&year)),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TypeClass {
    /// No definition, or a type without rules of its own.
    #[default]
    Unknown,
    Integer,
    Decimal,
    Float,
    Text,
    /// PostgreSQL's `char(n)`: trailing blanks do not count.
    Padded,
    Binary,
    /// MySQL's `binary(n)`, filled up with zeros.
    FixedBinary,
    Uuid,
    Timestamp,
    Date,
}

/// How texts are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Collation {
    /// Byte by byte.
    #[default]
    Exact,
    /// Byte by byte, without trailing blanks.
    Padded,
    /// Without regard to case, here for ASCII only, and with or without trailing blanks.
    AnyCase { padded: bool },
    /// Not implemented.
    Unknown,
}

impl TypeClass {
    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Decimal | Self::Float)
    }

    pub fn is_binary(self) -> bool {
        matches!(self, Self::Binary | Self::FixedBinary)
    }

    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Padded)
    }
}

/// The rules by which a database stores values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A value must fit its column's type.
    Strict,
    /// As [`Storage::Strict`], but a fraction is rounded to an integer.
    Rounding,
}

impl ColumnType {
    /// Whether PostgreSQL takes a text for a value of this type, as far as that is known.
    fn accepts(&self, text: &str) -> bool {
        match self.form {
            ValueForm::Any => self.stored(Cow::Borrowed(text), Storage::Strict).is_some(),
            form => form.accepts(text),
        }
    }

    /// Checks a value of a column that the query does not read.
    pub fn check_unread(&self, value: &[u8]) -> Result<(), String> {
        match std::str::from_utf8(value) {
            Ok(text) if !self.accepts(text) => Err(format!(
                "`{}` has not the form in which databases write a column that the query does not read: only the \
                 database can tell whether it takes it; --lenient reads the row",
                text.chars().take(40).collect::<String>().printable()
            )),
            _ => Ok(()),
        }
    }

    /// Whether [`ColumnType::accepts`] may refuse a text.
    pub fn has_rules(&self) -> bool {
        match self.class {
            TypeClass::Text | TypeClass::Padded => self.form != ValueForm::Any || self.length > 0,
            TypeClass::Unknown | TypeClass::Binary | TypeClass::FixedBinary => self.form != ValueForm::Any,
            _ => true,
        }
    }

    /// The text that the database shows for `text` once it is stored. None: the value does not have the form of the
    /// column's type, and only the database can tell how it reads it.
    pub fn stored<'t>(&self, text: Cow<'t, str>, storage: Storage) -> Option<Cow<'t, str>> {
        match self.class {
            TypeClass::Timestamp | TypeClass::Date if !self.years.has_year_of(&text) => None,
            TypeClass::Integer => {
                let text = match is_plain_integer(&text) {
                    true => text,
                    false if storage == Storage::Strict && text.contains(['.', 'e', 'E']) => return None,
                    false => integer(&text)?.into(),
                };
                Some(if self.zerofill { zero_filled(text, self.length) } else { text })
            }
            TypeClass::Decimal | TypeClass::Float => {
                let special = matches!(text.to_ascii_lowercase().as_str(), "nan" | "infinity" | "-infinity");
                let fits = special
                    || number(&text).is_some_and(|plain| {
                        let whole = plain.trim_start_matches('-').split('.').next().unwrap_or_default();
                        self.class == TypeClass::Float || self.length == 0 || whole.len() <= self.length.max(1)
                    });
                fits.then_some(text)
            }
            TypeClass::Text | TypeClass::Padded if self.length > 0 && text.len() > self.length => {
                (text.trim_end_matches(' ').chars().count() <= self.length).then_some(text)
            }
            TypeClass::Uuid => uuid(text),
            TypeClass::Timestamp => {
                // Without a precision, PostgreSQL keeps six digits and MySQL none.
                let fraction = match (self.length, storage) {
                    (0, Storage::Strict) => 6,
                    (length, _) => length,
                };
                time::timestamp(text, fraction)
            }
            TypeClass::Date => time::is_date(&text).then_some(text),
            _ => Some(text),
        }
    }
}

/// A UUID in its usual form, or without its hyphens.
fn uuid(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let usual = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
        });
    if usual {
        return Some(text);
    }
    let mut digits = text.to_ascii_lowercase();
    if digits.len() == 36 {
        for at in [23, 18, 13, 8] {
            (digits.as_bytes()[at] == b'-').then(|| digits.remove(at))?;
        }
    }
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for at in [20, 16, 12, 8] {
        digits.insert(at, '-');
    }
    Some(digits.into())
}

mod time {
    //! The forms in which databases write dates and times.

    use std::borrow::Cow;

    /// Splits a date from the start of a text. None: there is none.
    fn date(text: &str) -> Option<&str> {
        let year = text.bytes().position(|byte| !byte.is_ascii_digit()).filter(|year| (4..=6).contains(year))?;
        let number = |from: usize| text.get(from..from + 2).filter(|two| two.bytes().all(|b| b.is_ascii_digit()));
        let bytes = text.as_bytes();
        if bytes.get(year + 3) != Some(&b'-') || bytes[year] != b'-' {
            return None;
        }
        let (month, day): (u32, u32) = (number(year + 1)?.parse().ok()?, number(year + 4)?.parse().ok()?);
        let years: u32 = text[..year].parse().ok()?;
        let leap = years.is_multiple_of(4) && (!years.is_multiple_of(100) || years.is_multiple_of(400));
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => 31,
        };
        // MySQL has zeros for what is not known.
        (month <= 12 && day <= days).then(|| &text[year + 6..])
    }

    pub fn is_date(text: &str) -> bool {
        matches!(text, "infinity" | "-infinity") || matches!(date(text), Some("" | " BC"))
    }

    /// `2016-11-24 14:02:29.25+09:30`: the fraction and the zone may be missing, and `T` may be the blank. Seconds or
    /// the time that are missing are zero.
    pub fn timestamp(text: Cow<'_, str>, fraction: usize) -> Option<Cow<'_, str>> {
        if matches!(&*text, "infinity" | "-infinity") {
            return Some(text);
        }
        let rest = date(&text)?;
        let date_length = text.len() - rest.len();
        if rest.is_empty() {
            return Some(format!("{text} 00:00:00").into());
        }
        if rest == " BC" {
            return Some(format!("{} 00:00:00 BC", &text[..date_length]).into());
        }
        let clock = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('T'))?;
        let two = |from: usize, limit: u32| {
            let digits = clock.get(from..from + 2).filter(|two| two.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse::<u32>().ok().filter(|number| *number < limit)
        };
        two(0, 24)?;
        let bytes = clock.as_bytes();
        (bytes.get(2) == Some(&b':')).then_some(())?;
        two(3, 60)?;
        if bytes.get(5) != Some(&b':') {
            return clock[5..].is_empty().then(|| format!("{} {clock}:00", &text[..date_length]).into());
        }
        two(6, 60)?;
        let mut rest = &clock[8..];
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            (1..=fraction).contains(&digits).then_some(())?;
            rest = &after[digits..];
        }
        let zone = rest.strip_suffix(" BC").unwrap_or(rest);
        let valid = zone.is_empty()
            || zone == "Z"
            || zone.strip_prefix(['+', '-']).is_some_and(|zone| {
                matches!(zone.len(), 2 | 4 | 5 | 8)
                    && zone.bytes().enumerate().all(|(at, byte)| byte.is_ascii_digit() || (byte == b':' && at % 3 == 2))
            });
        if !valid {
            return None;
        }
        let blank = text.as_bytes()[date_length] == b' ';
        Some(if blank { text } else { format!("{} {clock}", &text[..date_length]).into() })
    }
}

fn is_plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    digits.len() < 19
        && match digits {
            [b'0'] => text.len() == 1,
            [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

fn zero_filled(text: Cow<'_, str>, length: usize) -> Cow<'_, str> {
    if text.len() >= length { text } else { format!("{text:0>length$}").into() }
}

/// Rounds a number to an integer. None: not a number.
fn integer(text: &str) -> Option<String> {
    let number = number(text)?;
    match number.split_once('.') {
        None => Some(number),
        Some((whole, fraction)) => {
            let up = fraction.as_bytes().first().is_some_and(|digit| *digit >= b'5');
            if !up {
                return Some(if whole == "-0" { "0".into() } else { whole.into() });
            }
            let whole: i128 = whole.parse().ok()?;
            Some((if number.starts_with('-') { whole - 1 } else { whole + 1 }).to_string())
        }
    }
}

/// Longest number that is brought to its plain form, in digits.
const MAX_DIGITS: usize = 400;

/// Returns a number in its plain form: without blanks around it, leading zeros, a trailing fraction of zeros, or an
/// exponent. None: not a number.
pub fn number(text: &str) -> Option<String> {
    let text = text.trim_ascii();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    if whole.len() + fraction.len() + exponent.unsigned_abs() as usize > MAX_DIGITS {
        return None;
    }
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i32 + exponent;
    if point < 0 {
        digits.insert_str(0, &"0".repeat(point.unsigned_abs() as usize));
        point = 0;
    }
    let point = point as usize;
    if digits.len() < point {
        digits.push_str(&"0".repeat(point - digits.len()));
    }
    let (whole, fraction) = digits.split_at(point);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// Compares two numbers in their plain form, of any length.
pub fn compare_numbers(a: &str, b: &str) -> Ordering {
    match (a.strip_prefix('-'), b.strip_prefix('-')) {
        (None, None) => compare_magnitudes(a, b),
        (Some(a), Some(b)) => compare_magnitudes(b, a),
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
    }
}

fn compare_magnitudes(a: &str, b: &str) -> Ordering {
    let parts = |text| str::split_once(text, '.').unwrap_or((text, ""));
    let ((a, a_fraction), (b, b_fraction)) = (parts(a), parts(b));
    (a.len(), a, a_fraction).cmp(&(b.len(), b, b_fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_value() {
        let ordered = ["-18", "-4.5", "-4", "0", "0.05", "0.5", "4", "4.25", "4.3", "18", "18446744073709551616"];
        for (at, a) in ordered.iter().enumerate() {
            for (bt, b) in ordered.iter().enumerate() {
                assert_eq!(compare_numbers(a, b), at.cmp(&bt), "{a} {b}");
            }
        }
    }

    #[test]
    fn numbers_have_one_plain_form() {
        for (written, plain) in [
            ("007", "7"),
            (" -1.50 ", "-1.5"),
            ("+.5", "0.5"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("1.25E1", "12.5"),
            ("5e-3", "0.005"),
            ("18446744073709551616", "18446744073709551616"),
        ] {
            assert_eq!(number(written).as_deref(), Some(plain), "{written}");
        }
        for odd in ["", ".", "-", "1x", "1e", "0x1", "1e999999999", "1 2", "--1"] {
            assert_eq!(number(odd), None, "{odd}");
        }
    }

    #[test]
    fn types_store_values() {
        let stored = |class, storage, text: &'static str| {
            let kind = ColumnType { class, ..ColumnType::default() };
            kind.stored(text.into(), storage).map(Cow::into_owned)
        };
        use Storage::{Rounding, Strict};
        assert_eq!(stored(TypeClass::Integer, Strict, "07").as_deref(), Some("7"));
        assert_eq!(stored(TypeClass::Integer, Rounding, "-2.5").as_deref(), Some("-3"));
        assert_eq!(stored(TypeClass::Integer, Strict, "1.00"), None);
        for (written, shown) in [
            ("2016-02-29", Some("2016-02-29 00:00:00")),
            ("2016-02-30 10:00:00", None),
            ("0000-00-00 00:00:00", Some("0000-00-00 00:00:00")),
            ("2016-02-29T10:00:01.5Z", Some("2016-02-29 10:00:01.5Z")),
            ("2016-02-29 10:00", Some("2016-02-29 10:00:00")),
            ("0044-03-15 12:00:00+00 BC", Some("0044-03-15 12:00:00+00 BC")),
            ("2016-11-24 14:02:2", None),
            ("2016-11-24 14:02:29.1234567", None),
            ("2016-11-24 14::03.2+00", None),
            ("1988-02-20 07:54:5 9", None),
            ("20160-11-24 00:00:00-09:30", Some("20160-11-24 00:00:00-09:30")),
            ("yesterday", None),
        ] {
            assert_eq!(stored(TypeClass::Timestamp, Strict, written).as_deref(), shown, "{written}");
        }
        let of_years = |years, text: &'static str| {
            let kind = ColumnType { class: TypeClass::Timestamp, years, ..ColumnType::default() };
            kind.stored(text.into(), Rounding).is_some()
        };
        for (text, has_four_digits, is_unix) in [
            ("2016-11-24 14:02:29", true, true),
            ("0000-00-00 00:00:00", true, true),
            ("1969-12-31 23:59:59", true, false),
            ("20160-11-24 00:00:00", false, false),
            ("infinity", false, false),
        ] {
            let found = [of_years(Years::FourDigits, text), of_years(Years::Unix, text)];
            assert_eq!(found, [has_four_digits, is_unix], "{text}");
        }
        assert_eq!(stored(TypeClass::Date, Strict, "2016-11-24 BC").as_deref(), Some("2016-11-24 BC"));
        assert_eq!(stored(TypeClass::Date, Strict, "2016-11-24 10:00:00"), None);
        let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        assert_eq!(stored(TypeClass::Uuid, Strict, "A0EEBC999C0B4EF8BB6D6BB9BD380A11").as_deref(), Some(id));
        assert_eq!(stored(TypeClass::Uuid, Strict, "5820ce10--31b53466-1a40-eb0fbbde9b50"), None);
        let short = ColumnType { class: TypeClass::Text, length: 2, ..ColumnType::default() };
        assert_eq!(short.stored("\u{e9}\u{e9} ".into(), Strict).as_deref(), Some("\u{e9}\u{e9} "));
        assert_eq!(short.stored("abc".into(), Strict), None);
        assert_eq!(stored(TypeClass::Integer, Strict, "x"), None);
        assert_eq!(stored(TypeClass::Decimal, Strict, "1.00").as_deref(), Some("1.00"));
        let three = ColumnType { class: TypeClass::Decimal, length: 3, ..ColumnType::default() };
        assert_eq!(three.stored("-123.45".into(), Strict).as_deref(), Some("-123.45"));
        assert_eq!(three.stored("1234".into(), Strict), None);
        assert_eq!(stored(TypeClass::Text, Strict, "007").as_deref(), Some("007"));
        let zip = ColumnType { class: TypeClass::Integer, zerofill: true, length: 5, ..ColumnType::default() };
        assert_eq!(zip.stored("42".into(), Strict).as_deref(), Some("00042"));
    }
}
