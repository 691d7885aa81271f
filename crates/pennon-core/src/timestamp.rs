//! The format of times in the API and in the files of the embedded store: UTC, `YYYY-MM-DDTHH:MM:SS.mmmZ`.

use std::time::{Duration, SystemTime};

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// Milliseconds since 1970 of the start of the year 0, the first with four digits.
const FIRST: i128 = -62_167_219_200_000;
/// Milliseconds since 1970 of the end of the year 9999, the last with four digits.
const LAST: i128 = 253_402_300_799_999;

/// Formats a time, always with three decimals. PostgreSQL can store `infinity` and years of more than four digits;
/// they become the nearest time with four digits.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    let signed = |since: Duration| i128::try_from(since.as_millis()).unwrap_or(i128::MAX);
    let milliseconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => signed(since),
        // Rounds down, to the start of the millisecond, as for times after 1970.
        Err(before) => {
            let before = before.duration();
            -signed(before) - i128::from(before.subsec_nanos() % 1_000_000 != 0)
        }
    };
    let nanoseconds = milliseconds.clamp(FIRST, LAST) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second, milli) = time.to_hms_milli();
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}

/// Formats seconds since 1970 as HTTP does (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`. Times outside of
/// the years 0 to 9999 become 1970.
#[must_use]
pub fn http_date(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .filter(|time| (0..=9999).contains(&time.year()))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (weekday, month) = (time.weekday().to_string(), time.month().to_string());
    let (hour, minute, second) = time.to_hms();
    format!(
        "{}, {:02} {} {:04} {hour:02}:{minute:02}:{second:02} GMT",
        &weekday[..3],
        time.day(),
        &month[..3],
        time.year(),
    )
}

/// The current time in seconds since 1970, as rules see it.
#[must_use]
pub fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// A time in milliseconds since 1970.
pub(crate) fn unix_millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Parses a time: ISO 8601 with `Z` or an offset (`+02:00`, `+0200`), optional seconds, and up to nine decimals.
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.split_once('T')?;
    let (clock, offset) = clock_and_offset(clock)?;
    let mut date = date.split('-');
    let year: i32 = digits(date.next()?, 4)?.try_into().ok()?;
    let month = Month::try_from(u8::try_from(digits(date.next()?, 2)?).ok()?).ok()?;
    let day = u8::try_from(digits(date.next()?, 2)?).ok()?;
    let (clock, decimals) = match clock.split_once('.') {
        Some((clock, decimals)) => (clock, Some(decimals)),
        None => (clock, None),
    };
    let mut clock = clock.split(':');
    let two_digits = |text: &str| u8::try_from(digits(text, 2)?).ok();
    let (hour, minute) = (two_digits(clock.next()?)?, two_digits(clock.next()?)?);
    let second = match (clock.next(), decimals) {
        (Some(second), _) => two_digits(second)?,
        (None, None) => 0,
        // `12:00.5` would be a fraction of a minute.
        (None, Some(_)) => return None,
    };
    let time = Time::from_hms(hour, minute, second).ok()?;
    let decimals = decimals.unwrap_or("0");
    if date.next().is_some() || clock.next().is_some() || !(1..=9).contains(&decimals.len()) {
        return None;
    }
    let nanoseconds = digits(&format!("{decimals:0<9}"), 9)?;
    let whole = PrimitiveDateTime::new(Date::from_calendar_date(year, month, day).ok()?, time);
    let utc = whole.assume_utc().checked_sub(offset)?;
    SystemTime::from(utc).checked_add(Duration::from_nanos(nanoseconds.into()))
}

/// Splits a time of day into the clock and its offset from UTC.
fn clock_and_offset(text: &str) -> Option<(&str, time::Duration)> {
    if let Some(clock) = text.strip_suffix('Z') {
        return Some((clock, time::Duration::ZERO));
    }
    let at = text.find(['+', '-'])?;
    let (clock, offset) = text.split_at(at);
    let (sign, offset) = offset.split_at(1);
    let (hours, minutes) = match offset.split_once(':') {
        Some(parts) => parts,
        None => offset.split_at_checked(2)?,
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = time::Duration::minutes(i64::from(hours * 60 + minutes));
    Some((clock, if sign == "-" { -offset } else { offset }))
}

fn digits(text: &str, length: usize) -> Option<u32> {
    let plain = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// For `#[serde(with)]`.
pub(crate) mod required {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::timestamp(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| D::Error::custom("expected YYYY-MM-DDTHH:MM:SS.mmmZ"))
    }
}

/// For `#[serde(with)]` with an `Option`.
pub(crate) mod optional {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde requires this signature")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&super::timestamp(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let time = super::parse(&text);
        time.map(Some)
            .ok_or_else(|| D::Error::custom("expected YYYY-MM-DDTHH:MM:SS.mmmZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn an_http_date_is_in_gmt_with_english_names() {
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (i64::MAX, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(seconds), text);
        }
    }

    #[test]
    fn a_timestamp_always_has_three_decimals() {
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        let later = UNIX_EPOCH + Duration::from_millis(1_709_208_000_070);
        assert_eq!(timestamp(later), "2024-02-29T12:00:00.070Z");
        let before = UNIX_EPOCH - Duration::from_micros(1_500);
        assert_eq!(timestamp(before), "1969-12-31T23:59:59.998Z");
    }

    #[test]
    fn a_year_of_more_than_four_digits_becomes_the_nearest_time() {
        let years = |years: u64| Duration::from_secs(years * 31_557_600);
        assert_eq!(
            timestamp(UNIX_EPOCH + years(290_000)),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(
            timestamp(UNIX_EPOCH - years(290_000)),
            "0000-01-01T00:00:00.000Z"
        );
        assert_eq!(
            timestamp(UNIX_EPOCH + years(8_100)),
            "9999-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn only_times_with_z_or_an_offset_are_parsed() {
        let later = UNIX_EPOCH + Duration::from_millis(1_709_208_000_070);
        for text in [
            "2024-02-29T12:00:00.070Z",
            "2024-02-29T12:00:00.07Z",
            "2024-02-29T12:00:00.070000000Z",
        ] {
            assert_eq!(parse(text), Some(later), "{text}");
        }
        let noon = UNIX_EPOCH + Duration::from_secs(1_709_208_000);
        for text in [
            "2024-02-29T12:00:00Z",
            "2024-02-29T12:00Z",
            "2024-02-29T14:00:00+02:00",
            "2024-02-29T14:00+02:00",
            "2024-02-29T14:00:00.000+0200",
            "2024-02-29T06:30-05:30",
            "2024-03-01T11:59+23:59",
            "2024-02-29T12:00:00-00:00",
        ] {
            assert_eq!(parse(text), Some(noon), "{text}");
        }
        for text in [
            "",
            "Z",
            "2023-02-29T12:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T12:00:00",
            "2024-02-29T12:00:00+",
            "2024-02-29T12:00:00+2:00",
            "2024-02-29T12:00:00+02",
            "2024-02-29T12:00:00+24:00",
            "2024-02-29T12:00:00+02:60",
            "2024-02-29T12:00:00+02:00Z",
            "2024-02-29T12:00:00+ä2:0",
            "2024-02-29T12+02:00",
            "2024-02-29T12:00.5Z",
            "2024-02-29T12:00:00 +02:00",
            "2024-02-29",
            "2024-02-29 12:00:00Z",
            "2024-2-29T12:00:00Z",
            "2024-02-29T12:00:00.Z",
            "2024-02-29T12:00:00.+02:00",
            "2024-02-29T12:00:00.Z5Z",
            "2024-02-29T12:00:00.0123456789Z",
            "+024-02-29T12:00:00Z",
            "2024-02-29T12:00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use pennon_fuzz::{for_all, text};

    use super::*;

    #[test]
    fn the_text_of_every_parsed_time_is_parsed_to_the_same_millisecond() {
        let examples = [
            "2024-02-29T12:00:00.123456789Z",
            "0000-01-01T00:00+23:59",
            "9999-12-31T23:59:59-2359",
        ];
        let words = &["T", "Z", "+", "-", ":", ".", "0", "9", "60", "ä"];
        for_all(&text(examples.map(str::to_owned), words), |text| {
            let Some(time) = parse(&text) else {
                return;
            };
            let written = timestamp(time);
            let again = parse(&written).expect("it is parsed again");
            assert_eq!(timestamp(again), written);
        });
    }
}
