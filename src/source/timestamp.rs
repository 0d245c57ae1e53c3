//! Timestamps of rows, comparable across the formats in which databases write them.

use super::column::{Collation, ColumnType};

/// A value of `faces.updated_at`. Sorts as PostgreSQL sorts timestamps: NULL is the greatest value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timestamp {
    /// `-infinity`.
    NegInfinity,
    /// Seconds and nanoseconds since 1970, UTC (local time where no zone is written), or a plain number.
    At(i64, u32),
    /// `infinity`.
    PosInfinity,
    /// Neither a timestamp nor a number, or a value of a text column. Sorts by bytes.
    Text(Box<str>),
    Null,
}

impl Timestamp {
    /// The value of a column, which sorts as the database sorts it: texts are no times, even where they look like them.
    pub fn of(kind: &ColumnType, text: Option<&str>) -> Self {
        match text {
            Some(text) if kind.defined && kind.class.is_text() => {
                let padded = matches!(kind.collation, Collation::Padded | Collation::AnyCase { padded: true });
                let text = if padded { text.trim_end_matches(' ') } else { text };
                let any_case = matches!(kind.collation, Collation::AnyCase { .. });
                Self::Text(if any_case { text.to_ascii_lowercase().into() } else { text.into() })
            }
            _ => Self::parse(text),
        }
    }

    /// Parses `2016-11-24 14:02:29.25+09:30`, with `T` or a space, with or without fraction and zone, a date alone,
    /// a number such as seconds since 1970, and PostgreSQL's `infinity` and ` BC`.
    pub fn parse(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Null };
        match text {
            "infinity" => Self::PosInfinity,
            "-infinity" => Self::NegInfinity,
            _ => parse_timestamp(text).or_else(|| parse_number(text)).unwrap_or_else(|| Self::Text(text.into())),
        }
    }
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (date, time) = match text.find([' ', 'T']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "00:00:00"),
    };
    let mut parts = date.split('-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || year > 999_999 || month > 12 || day > 31 {
        return None;
    }
    let year = if before_christ { 1 - year } else { year };
    let (clock, zone) = time.split_at(time.find(['+', '-', 'Z', ' ']).unwrap_or(time.len()));
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let seconds = clock_seconds(clock)? - zone_seconds(zone.trim())?;
    // MySQL's zero dates have month and day 0.
    let days = days_since_1970(year, month.max(1), day.max(1));
    Some(Timestamp::At(days * 86_400 + seconds, nanoseconds(fraction)?))
}

/// Parses `14`, `14:02` or `14:02:29`. MySQL takes `14:02:`, too.
fn clock_seconds(clock: &str) -> Option<i64> {
    let clock = clock.strip_suffix(':').unwrap_or(clock);
    let mut seconds = 0;
    let mut unit = 3600;
    for part in clock.split(':') {
        seconds += digits(part).filter(|part| unit > 0 && *part < 100)? * unit;
        unit /= 60;
    }
    Some(seconds)
}

/// Parses nothing, `Z`, `UTC`, `+09`, `-09:30`, `+0930` or `+09:30:15`.
fn zone_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first() {
        None => return Some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return matches!(zone, "Z" | "UTC" | "GMT").then_some(0),
    };
    let zone = &zone[1..];
    match zone.len() {
        4 if zone.is_ascii() && !zone.contains(':') => {
            Some(sign * (digits(&zone[..2])? * 3600 + digits(&zone[2..])? * 60))
        }
        _ => Some(sign * clock_seconds(zone)?),
    }
}

fn parse_number(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, whole) = match whole.strip_prefix('-') {
        Some(whole) => (true, whole),
        None => (false, whole),
    };
    let (whole, nanoseconds) = (digits(whole)?, nanoseconds(fraction)?);
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp::At(whole, nanoseconds),
        (true, 0) => Timestamp::At(-whole, 0),
        (true, _) => Timestamp::At(-whole - 1, 1_000_000_000 - nanoseconds),
    })
}

/// Parses the digits after the point; those beyond nanoseconds are cut.
fn nanoseconds(fraction: &str) -> Option<u32> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digit = |i: usize| fraction.as_bytes().get(i).map_or(0, |byte| u32::from(byte - b'0'));
    Some((0..9).fold(0, |nanoseconds, i| 10 * nanoseconds + digit(i)))
}

fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years start in March here, so that the leap day is the
/// last day of its year. 400 years have 146,097 days; the first five months from March have 153.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::super::column::TypeClass;
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(Some(text))
    }

    #[test]
    fn timestamps_sort_by_time() {
        let order = [
            "-infinity",
            "0044-03-15 12:00:00 BC",
            "0000-00-00 00:00:00",
            "1969-12-31 23:59:59",
            "2016-02-28 23:59:59.999999",
            "2016-02-29",
            "2016-02-29 10:00:00+09:30",
            "2016-02-29 01:00:00+00",
            "2016-02-29 10:00:00",
            "2016-02-29 10:00:00.5",
            "2016-02-29 10:00:00.50001",
            "2016-02-29T10:00:01Z",
            "2016-02-29 10:00:00-03",
            "10000-01-01 00:00:00",
            "infinity",
        ];
        for pair in order.windows(2) {
            assert!(at(pair[0]) < at(pair[1]), "{pair:?}");
            assert!(!matches!(at(pair[0]), Timestamp::Text(_)), "{pair:?}");
        }
        assert!(at("infinity") < Timestamp::parse(None));
        assert_eq!(at("2016-11-24 14:02:29"), Timestamp::At(1_479_996_149, 0));
        assert_eq!(at("2016-11-24 14:02:"), at("2016-11-24 14:02:00"));
        assert_eq!(at("2016-11-24 14:02:29.500"), at("2016-11-24T14:02:29.5Z"));
        assert_eq!(at("2016-11-24 14:02:29+0130"), at("2016-11-24 12:32:29+00"));
    }

    #[test]
    fn texts_sort_as_texts() {
        let text = |collation| ColumnType { class: TypeClass::Text, collation, defined: true, ..ColumnType::default() };
        let (exact, any_case) = (text(Collation::Exact), text(Collation::AnyCase { padded: true }));
        let of = |kind: &ColumnType, text: &str| Timestamp::of(kind, Some(text));
        assert!(of(&exact, "2027--04-17 07:07:31") < of(&exact, "2027-04-17 07:07:31"), "`-` is below `0`");
        assert!(of(&exact, "2016-02-29 10:00:00+09:30") > of(&exact, "2016-02-29 01:00:00+00"));
        assert!(of(&exact, "9") > of(&exact, "10") && of(&exact, "Z") < of(&exact, "a"));
        assert!(of(&any_case, "Z") > of(&any_case, "a"));
        assert_eq!(of(&any_case, "A "), of(&any_case, "a"));
        assert_eq!(Timestamp::of(&exact, None), Timestamp::Null);
        let times = ColumnType { class: TypeClass::Timestamp, ..exact };
        assert_eq!(of(&times, "2016-02-29"), at("2016-02-29"));
        assert_eq!(of(&ColumnType::default(), "2016-02-29"), at("2016-02-29"));
    }

    #[test]
    fn numbers_are_seconds_and_the_rest_is_text() {
        assert_eq!(at("1479996149"), Timestamp::At(1_479_996_149, 0));
        assert!(at("-1.5") < at("-1.25") && at("-1") < at("0.5"));
        for odd in [
            "",
            "yesterday",
            "2016-13-01",
            "2016-01-01 1:2:3:4",
            "2016-01-01 10:00:00 CET",
            "2016-01-01 10:00:00+aéb",
            "1.2.3",
            "2016-01",
        ] {
            assert_eq!(at(odd), Timestamp::Text(odd.into()));
        }
    }
}
