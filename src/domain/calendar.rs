//! Moments as people read them, in UTC.

use time::UtcDateTime;

/// `2026-11-25 01:02:03`, from seconds since 1970. What is beyond the calendar's last year stays at its end.
pub fn second(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| UtcDateTime::from_unix_timestamp(seconds).ok());
    let at = at.unwrap_or(UtcDateTime::MAX);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

/// `2026-11-25`, likewise.
pub fn day(seconds: u64) -> String {
    let mut text = second(seconds);
    text.truncate(text.len() - " 00:00:00".len());
    text
}

/// `2026-11-25 01:02`, likewise.
pub fn minute(seconds: u64) -> String {
    let mut text = second(seconds);
    text.truncate(text.len() - ":00".len());
    text
}

/// The year, from seconds since 1970, which may be negative.
pub fn year(seconds: i64) -> i32 {
    let end = if seconds < 0 { UtcDateTime::MIN } else { UtcDateTime::MAX };
    UtcDateTime::from_unix_timestamp(seconds).unwrap_or(end).year()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_a_calendar_does() {
        assert_eq!(second(0), "1970-01-01 00:00:00");
        assert_eq!(second(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(second(951_868_799), "2000-02-29 23:59:59");
        assert_eq!(second(4_107_542_400), "2100-03-01 00:00:00");
        assert_eq!(minute(1_764_032_523), "2025-11-25 01:02");
        assert_eq!(day(1_764_032_523), "2025-11-25");
        assert_eq!([-1, 0, 1_764_032_523, i64::MAX].map(year), [1969, 1970, 2025, 9999]);
        assert_eq!(second(u64::MAX), "9999-12-31 23:59:59");
    }
}
