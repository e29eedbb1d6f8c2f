//! How single values are read from TOML: each says what it found and what it expected.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use toml::Value;
use toml::value::{Datetime, Offset};

use crate::types::UnixMillis;

/// A value that is written as a text with its own grammar.
pub(super) struct Text<T>(pub(super) T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// Parses inside the visit, so that an error gets the place of this value and not of its list.
struct TextVisitor<T>(PhantomData<T>);

impl<T> Visitor<'_> for TextVisitor<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map(Text).map_err(E::custom)
    }
}

/// Reads one such text.
pub(super) fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    Text::deserialize(deserializer).map(|Text(value)| value)
}

/// Reads one such text for a key that may be left out.
pub(super) fn optional_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    text(deserializer).map(Some)
}

/// Reads a list of such texts.
pub(super) fn texts<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    let texts = Vec::<Text<T>>::deserialize(deserializer)?;
    Ok(texts.into_iter().map(|Text(value)| value).collect())
}

/// Reads a size for a key that may be left out.
pub(super) fn optional_size<'de, D>(deserializer: D) -> Result<Option<ByteSize>, D::Error>
where
    D: Deserializer<'de>,
{
    size(deserializer).map(Some)
}

/// Reads a size: a number and a unit, or a number of bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    read(deserializer, "a size; write a number and a unit, as in \"50 MiB\"", |value| match value {
        Value::String(text) => text.parse().ok(),
        Value::Integer(bytes) => u64::try_from(*bytes).ok().map(ByteSize),
        _ => None,
    })
}

/// Reads a duration: numbers with their units.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    read(deserializer, "a duration; write a number and a unit, as in \"30s\" or \"5m\"", |value| {
        humantime::parse_duration(value.as_str()?).ok()
    })
}

/// Reads a whole number for a key that may be left out.
pub(super) fn optional_count<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    count(deserializer).map(Some)
}

/// Reads a whole number that is not negative.
pub(super) fn count<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    read(deserializer, "a whole number from 0 up", |value| {
        u64::try_from(value.as_integer()?).ok()?.try_into().ok()
    })
}

/// Reads a moment: RFC 3339 with its zone, as a TOML date-time or as a text.
pub(super) fn moment<'de, D>(deserializer: D) -> Result<Option<UnixMillis>, D::Error>
where
    D: Deserializer<'de>,
{
    let expected = "a moment after 1970 with its time zone, as in 2026-01-01T00:00:00Z";
    let read_moment = |value: &Value| match value {
        Value::Datetime(datetime) => unix_millis(*datetime),
        Value::String(text) => unix_millis(text.parse().ok()?),
        _ => None,
    };
    read(deserializer, expected, read_moment).map(Some)
}

/// Converts a date-time; `None` unless it has a date, a time and a zone.
fn unix_millis(datetime: Datetime) -> Option<UnixMillis> {
    let mut time = datetime.time?;
    time.second.get_or_insert(0);
    let ahead_of_utc_minutes = match datetime.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let as_if_utc =
        Datetime { date: Some(datetime.date?), time: Some(time), offset: Some(Offset::Z) };
    let UnixMillis(millis) = humantime::parse_rfc3339(&as_if_utc.to_string()).ok()?.into();
    Some(UnixMillis(millis - ahead_of_utc_minutes * 60_000))
}

fn read<'de, D, T>(
    deserializer: D,
    expected: &str,
    convert: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    // The only value that TOML can write and `Value` cannot hold is an integer beyond 64 bits.
    let value = Value::deserialize(deserializer)
        .map_err(|_| D::Error::custom(format!("a number this large is not {expected}")))?;
    convert(&value).ok_or_else(|| D::Error::custom(format!("{} is not {expected}", found(&value))))
}

/// Shows a value in a message; lists and tables by name, because they may be long.
fn found(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(default)]
    struct Values {
        #[serde(deserialize_with = "size")]
        size: ByteSize,
        #[serde(deserialize_with = "duration")]
        duration: Duration,
        #[serde(deserialize_with = "count")]
        count: u16,
        #[serde(deserialize_with = "moment")]
        moment: Option<UnixMillis>,
    }

    impl Default for Values {
        fn default() -> Self {
            Self { size: ByteSize(0), duration: Duration::ZERO, count: 0, moment: None }
        }
    }

    fn values(text: &str) -> Result<Values, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn sizes_are_numbers_with_units_or_bytes() {
        let size = |text: &str| values(text).map(|values| values.size.as_u64());
        assert_eq!(size("size = '50 MiB'"), Ok(50 * 1024 * 1024));
        assert_eq!(size("size = '1.5GB'"), Ok(1_500_000_000));
        assert_eq!(size("size = '0 B'"), Ok(0));
        assert_eq!(size("size = 4096"), Ok(4096));
        for refused in ["'50 potatoes'", "''", "'-1 MiB'", "-1", "1.5", "true", "[1]", "{a = 1}"] {
            let message = size(&format!("size = {refused}")).unwrap_err();
            assert!(message.contains("is not a size; write"), "{message}");
        }
    }

    #[test]
    fn durations_are_numbers_with_units() {
        let duration = |text: &str| values(text).map(|values| values.duration);
        assert_eq!(duration("duration = '60s'"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("duration = '1h 30m'"), Ok(Duration::from_secs(5400)));
        for refused in ["60", "'60'", "'-1s'", "'soon'", "''", "2026-01-01"] {
            let message = duration(&format!("duration = {refused}")).unwrap_err();
            assert!(message.contains("is not a duration; write"), "{message}");
        }
    }

    #[test]
    fn counts_are_not_negative_and_fit() {
        let count = |text: &str| values(text).map(|values| values.count);
        assert_eq!(count("count = 65_535"), Ok(65_535));
        for refused in ["-1", "65_536", "1.0", "'1'", "99999999999999999999"] {
            let message = count(&format!("count = {refused}")).unwrap_err();
            assert!(message.contains("is not a whole number"), "{message}");
        }
    }

    #[test]
    fn a_moment_may_be_a_date_time_or_a_text_and_needs_its_zone() {
        let moment = |text: &str| values(text).map(|values| values.moment);
        let new_year = Ok(Some(UnixMillis(1_767_225_600_000)));
        assert_eq!(moment("moment = 2026-01-01T00:00:00Z"), new_year);
        assert_eq!(moment("moment = '2026-01-01T00:00:00Z'"), new_year);
        assert_eq!(moment("moment = 2026-01-01T02:30:00+02:30"), new_year);
        assert_eq!(moment("moment = '2025-12-31 19:00:00-05:00'"), new_year);
        assert_eq!(
            moment("moment = 2026-01-01T00:00:00.25Z"),
            Ok(Some(UnixMillis(1_767_225_600_250)))
        );
        for refused in [
            "2026-01-01",
            "2026-01-01T00:00:00",
            "00:00:00",
            "1960-01-01T00:00:00Z",
            "1767225600",
            "'new year'",
        ] {
            let message = moment(&format!("moment = {refused}")).unwrap_err();
            assert!(message.contains("is not a moment after 1970"), "{message}");
        }
    }
}
