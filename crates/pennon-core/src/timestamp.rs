//! Times as the API and the file of the embedded store write them: UTC, `YYYY-MM-DDTHH:MM:SS.mmmZ`.

use std::time::{Duration, SystemTime};

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// A time as text, always with three decimals.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (hour, minute, second, milli) = time.to_hms_milli();
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}

/// Seconds since 1970, which rules may compare with.
#[must_use]
pub fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// The time that a text names: ISO 8601 in UTC with `Z`, with seconds and up to nine decimals.
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-');
    let year: i32 = digits(date.next()?, 4)?.try_into().ok()?;
    let month = Month::try_from(u8::try_from(digits(date.next()?, 2)?).ok()?).ok()?;
    let day = u8::try_from(digits(date.next()?, 2)?).ok()?;
    let (clock, decimals) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.split(':');
    let mut next = || u8::try_from(digits(clock.next()?, 2)?).ok();
    let time = Time::from_hms(next()?, next()?, next()?).ok()?;
    if date.next().is_some() || clock.next().is_some() || decimals.len() > 9 {
        return None;
    }
    let nanoseconds = digits(&format!("{decimals:0<9}"), 9)?;
    let whole = PrimitiveDateTime::new(Date::from_calendar_date(year, month, day).ok()?, time);
    SystemTime::from(whole.assume_utc()).checked_add(Duration::from_nanos(nanoseconds.into()))
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

/// For `#[serde(with)]`, where there may be none.
pub(crate) mod optional {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "what serde calls")]
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
    fn a_timestamp_always_has_three_decimals() {
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        let later = UNIX_EPOCH + Duration::from_millis(1_709_208_000_070);
        assert_eq!(timestamp(later), "2024-02-29T12:00:00.070Z");
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let later = UNIX_EPOCH + Duration::from_millis(1_709_208_000_070);
        for text in [
            "2024-02-29T12:00:00.070Z",
            "2024-02-29T12:00:00.07Z",
            "2024-02-29T12:00:00.070000000Z",
        ] {
            assert_eq!(parse(text), Some(later), "{text}");
        }
        assert!(parse("2024-02-29T12:00:00Z").is_some());
        for text in [
            "",
            "Z",
            "2023-02-29T12:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T12:00:00",
            "2024-02-29T12:00:00+00:00",
            "2024-02-29 12:00:00Z",
            "2024-2-29T12:00:00Z",
            "2024-02-29T12:00Z",
            "2024-02-29T12:00:00.Z5Z",
            "2024-02-29T12:00:00.0123456789Z",
            "+024-02-29T12:00:00Z",
            "2024-02-29T12:00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
