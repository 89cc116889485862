//! Dates and times as strings, read exactly.
//!
//! RFC 3339, with what producers in fact write: a space for the `T`, lower-case `t` and `z`, offsets without
//! the colon. Fractions have up to nine digits and are floored to microseconds. `23:59:60` UTC, the only
//! place for a leap second, is the first second of the next day, as in POSIX and PostgreSQL.

/// Microseconds per second.
const SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Microseconds since 1970 UTC of a time with an offset.
pub(super) fn timestamptz(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (seconds, micros, leap, rest) = date_time(bytes)?;
    timestamp(seconds - offset(rest)?, micros, leap)
}

/// Microseconds since 1970 of a time without an offset.
pub(super) fn timestamp_local(text: &str) -> Option<i64> {
    let (seconds, micros, leap, rest) = date_time(text.as_bytes())?;
    if !rest.is_empty() {
        return None;
    }
    timestamp(seconds, micros, leap)
}

/// Days since 1970 of `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Option<i32> {
    let (days, rest) = days(text.as_bytes())?;
    rest.is_empty().then(|| i32::try_from(days).ok())?
}

/// Microseconds since midnight of `HH:MM:SS[.f]`. The time of day of another offset needs a date, so that
/// only UTC's may follow.
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let (seconds, micros, leap, rest) = clock(text.as_bytes())?;
    let utc = rest.is_empty() || offset(rest)? == 0;
    (utc && !leap).then_some(seconds * SECOND + micros)
}

fn timestamp(seconds: i64, micros: i64, leap: bool) -> Option<i64> {
    if leap && seconds.rem_euclid(SECONDS_PER_DAY) != 0 {
        return None;
    }
    Some(seconds * SECOND + micros)
}

/// Seconds since 1970, microseconds, whether it is a leap second, and what follows.
#[inline]
fn date_time(bytes: &[u8]) -> Option<(i64, i64, bool, &[u8])> {
    let (days, rest) = days(bytes)?;
    let (b'T' | b't' | b' ', rest) = rest.split_first()? else { return None };
    let (seconds, micros, leap, rest) = clock(rest)?;
    Some((days * SECONDS_PER_DAY + seconds, micros, leap, rest))
}

fn days(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<10>()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *head else { return None };
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    let (month, day) = (two(m1, m2)?, two(d1, d2)?);
    let leap_year = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap_year => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    // Days of the civil calendar, counted in years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some((era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468, rest))
}

/// Seconds since midnight, microseconds, whether it is a leap second, and what follows.
fn clock(bytes: &[u8]) -> Option<(i64, i64, bool, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *head else { return None };
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = match rest.split_first() {
        Some((b'.', digits)) => fraction(digits)?,
        _ => (0, rest),
    };
    Some((hour * 3600 + minute * 60 + second, micros, second == 60, rest))
}

fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let (digits, rest) = bytes.split_at_checked(count)?;
    let micros =
        (0..6).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0')));
    Some((micros, rest))
}

/// Seconds east of UTC.
fn offset(bytes: &[u8]) -> Option<i64> {
    let (sign, [h1, h2, m1, m2]) = match *bytes {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => (sign, [h1, h2, m1, m2]),
        _ => return None,
    };
    let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    match sign {
        b'+' => Some(hours * 3600 + minutes * 60),
        b'-' => Some(-(hours * 3600 + minutes * 60)),
        _ => None,
    }
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use chrono::{DateTime, Datelike, Days, NaiveDate};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1970-01-01T00:00:00Z", Some(0))]
    #[case("2024-02-29t12:00:00.123456789z", Some(1_709_208_000_123_456))]
    #[case("2024-02-29 12:00:00+0200", Some(1_709_200_800_000_000))]
    #[case("1969-12-31T23:59:59.999999999Z", Some(-1))]
    #[case("1969-12-31T23:59:59.0000009Z", Some(-1_000_000))]
    #[case("2016-12-31T23:59:60Z", Some(1_483_228_800_000_000))]
    #[case("2016-12-31T15:59:60.5-08:00", Some(1_483_228_800_500_000))]
    #[case("0000-01-01T00:00:00Z", Some(-62_167_219_200_000_000))]
    #[case("9999-12-31T23:59:59Z", Some(253_402_300_799_000_000))]
    #[case("2024-06-01T00:00:00", None)]
    #[case("2016-12-31T22:59:60Z", None)]
    #[case("2023-02-29T00:00:00Z", None)]
    #[case("2024-00-10T00:00:00Z", None)]
    #[case("2024-01-32T00:00:00Z", None)]
    #[case("2024-01-01T24:00:00Z", None)]
    #[case("2024-01-01T00:60:00Z", None)]
    #[case("2024-01-01T00:00:00.Z", None)]
    #[case("2024-01-01T00:00:00.1234567890Z", None)]
    #[case("2024-01-01T00:00:00+24:00", None)]
    #[case("2024-01-01T00:00:00Zx", None)]
    #[case("2024-01-01_00:00:00Z", None)]
    #[case("+024-01-01T00:00:00Z", None)]
    #[case("", None)]
    fn timestamps_with_an_offset(#[case] text: &str, #[case] micros: Option<i64>) {
        assert_eq!(timestamptz(text), micros);
    }

    #[test]
    fn other_forms() {
        assert_eq!(timestamp_local("1970-01-02T00:00:00.5"), Some(86_400_500_000));
        assert_eq!(timestamp_local("1970-01-02T00:00:00Z"), None);
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("1970-01-02T00:00:00"), None);
        assert_eq!(date("0001-01-01"), Some(-719_162));
        assert_eq!(time_of_day("23:59:59.9999999"), Some(86_399_999_999));
        assert_eq!(time_of_day("10:00:00Z"), Some(36_000_000_000));
        assert_eq!(time_of_day("10:00:00+00:00"), Some(36_000_000_000));
        for refused in ["10:00:00+01:00", "23:59:60", "24:00:00", "10:00", "1:00:00"] {
            assert_eq!(time_of_day(refused), None, "{refused}");
        }
    }

    #[test]
    fn every_day_is_the_calendars() {
        let mut day = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        while day.year() < 2500 {
            let days = day.signed_duration_since(epoch).num_days();
            assert_eq!(date(&day.to_string()), Some(i32::try_from(days).unwrap()), "{day}");
            day = day.checked_add_days(Days::new(1)).unwrap();
        }
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(
            date in "[12][0-9]{3}-[01][0-9]-[0-3][0-9]",
            clock in "T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?",
            zone in "(Z|[+-][0-2][0-9]:[0-6][0-9])",
        ) {
            let text = format!("{date}{clock}{zone}");
            let theirs = DateTime::parse_from_rfc3339(&text).ok().map(|time| {
                time.timestamp() * SECOND + i64::from(time.timestamp_subsec_micros())
            });
            prop_assert_eq!(timestamptz(&text), theirs);
        }
    }
}
