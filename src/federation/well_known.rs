//! `/.well-known/matrix/server`: its form, and how long what it says is good.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::backoff::doubled;
use crate::types::ServerName;

/// The largest body that is read (FLD-28).
pub const MAX_BODY: u64 = 50 * 1024;

/// How long an answer is good that says nothing of it (DISC-06).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an answer is good at most, whatever it says (DISC-06).
const MAX_LIFETIME: Duration = Duration::from_secs(48 * 60 * 60);

/// How long it is good at least, so that no server can have itself asked all the time (FLD-28).
const MIN_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// How long the first failure of a row is remembered.
const FIRST_FAILURE: Duration = Duration::from_secs(60);

/// How long any of them is remembered at most (DISC-06).
const MAX_FAILURE: Duration = Duration::from_secs(60 * 60);

/// How long a failure is remembered of a server that had a valid file not long ago (FLD-28).
const FAILURE_AFTER_SUCCESS: Duration = Duration::from_secs(2 * 60);

/// Why a body names no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not a JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// No member `m.server`, or one that is no text.
    #[error("the JSON has no text called m.server")]
    NoServer,
    /// It is not `HOST` or `HOST:PORT`.
    #[error("m.server is not a server name, as in matrix.example.org:443")]
    NotAName,
}

/// Reads the body of an answer, whatever its `Content-Type` (DISC-04).
///
/// # Errors
///
/// [`Invalid`]; that is not fatal to discovery (DISC-05).
pub fn parse(body: &[u8]) -> Result<ServerName, Invalid> {
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Invalid::NotJson)?;
    match body.get("m.server") {
        Some(Value::String(name)) => name.parse().map_err(|_| Invalid::NotAName),
        Some(_) | None => Err(Invalid::NoServer),
    }
}

/// Returns how long a valid answer is good, by its header fields (DISC-06, FLD-28).
///
/// `Cache-Control` goes before `Expires` (RFC 9111, section 5.3); what is there and makes no sense
/// counts as stale (section 4.2.1), which is the least lifetime here.
pub fn lifetime(headers: &HeaderMap, now: SystemTime) -> Duration {
    let fresh = cache_control(headers).or_else(|| expires(headers, now));
    let fresh = fresh.map_or(DEFAULT_LIFETIME, |fresh| fresh.saturating_sub(age(headers)));
    fresh.clamp(MIN_LIFETIME, MAX_LIFETIME)
}

/// Returns how long it is remembered that there is no valid answer. `failures` counts those in a row,
/// this one included; the time doubles with each up to an hour (DISC-06). It is short where the server
/// had a valid file not long ago (FLD-28).
pub fn failure_lifetime(failures: u32, had_valid: bool) -> Duration {
    if had_valid {
        return FAILURE_AFTER_SUCCESS;
    }
    doubled(FIRST_FAILURE, failures, MAX_FAILURE)
}

/// Reads `Cache-Control` (RFC 9111, section 5.2.2). Of several ages the least counts.
fn cache_control(headers: &HeaderMap) -> Option<Duration> {
    let mut least = None;
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',') {
            let (name, argument) = match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), argument.trim().trim_matches('"')),
                None => (directive.trim(), ""),
            };
            let fresh = match name.to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => Duration::ZERO,
                "max-age" => seconds(argument).unwrap_or_default(),
                _ => continue,
            };
            least = Some(least.map_or(fresh, |least: Duration| least.min(fresh)));
        }
    }
    least
}

/// Reads `Expires` against `Date`, or against our own clock (RFC 9111, section 4.2.1).
fn expires(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let expires = headers.get(header::EXPIRES)?;
    let moment = |text: &str| httpdate::parse_http_date(text).ok();
    let Some(expires) = expires.to_str().ok().and_then(moment) else {
        return Some(Duration::ZERO);
    };
    let date = headers.get(header::DATE).and_then(|date| moment(date.to_str().ok()?));
    Some(expires.duration_since(date.unwrap_or(now)).unwrap_or_default())
}

/// Reads how long the answer has lain in caches on its way (RFC 9111, section 5.1).
fn age(headers: &HeaderMap) -> Duration {
    let age = headers.get(header::AGE).and_then(|age| seconds(age.to_str().ok()?));
    age.unwrap_or_default()
}

/// Reads a number of seconds, of which any is understood that consists of digits (RFC 9111, section
/// 1.2.2).
fn seconds(digits: &str) -> Option<Duration> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const HOUR: u64 = 60 * 60;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    /// Returns the lifetime in seconds, at noon of the first day of 2026.
    fn lasts(fields: &[(&'static str, &str)]) -> u64 {
        let noon = httpdate::parse_http_date("Thu, 01 Jan 2026 12:00:00 GMT").unwrap();
        lifetime(&headers(fields), noon).as_secs()
    }

    /// DISC-04
    #[test]
    fn a_body_names_a_host_and_maybe_a_port() {
        for (body, name) in [
            (r#"{"m.server":"matrix.example.org"}"#, "matrix.example.org"),
            (r#" {"x": [1], "m.server": "matrix.example.org:443"} "#, "matrix.example.org:443"),
            (r#"{"m.server":"[2001:db8::1]:443"}"#, "[2001:db8::1]:443"),
            (r#"{"m.server":"192.0.2.1"}"#, "192.0.2.1"),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap().as_str(), name);
        }
    }

    /// DISC-04, DISC-05
    #[test]
    fn other_bodies_name_none_and_say_why() {
        for (body, why) in [
            ("", Invalid::NotJson),
            ("<html>", Invalid::NotJson),
            ("[]", Invalid::NotJson),
            (r#"{"m.server":"a.example"} x"#, Invalid::NotJson),
            (r#"["a.example"]"#, Invalid::NotJson),
            ("{}", Invalid::NoServer),
            (r#"{"m.homeserver":{"base_url":"https://a.example"}}"#, Invalid::NoServer),
            (r#"{"m.server":null}"#, Invalid::NoServer),
            (r#"{"m.server":["a.example"]}"#, Invalid::NoServer),
            (r#"{"m.server":""}"#, Invalid::NotAName),
            (r#"{"m.server":"https://a.example"}"#, Invalid::NotAName),
            (r#"{"m.server":"a.example/"}"#, Invalid::NotAName),
            (r#"{"m.server":"a.example:0"}"#, Invalid::NotAName),
            (r#"{"m.server":" a.example"}"#, Invalid::NotAName),
            (r#"{"m.server":"a@b.example"}"#, Invalid::NotAName),
            (r#"{"m.server":"a.example\r\nX: y"}"#, Invalid::NotAName),
        ] {
            assert_eq!(parse(body.as_bytes()), Err(why), "{body}");
        }
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(parse(format!(r#"{{"x":{deep}}}"#).as_bytes()), Err(Invalid::NotJson));
    }

    /// DISC-06, FLD-28
    #[test]
    fn it_is_good_for_as_long_as_it_says_within_bounds() {
        for (fields, seconds) in [
            (&[][..], 24 * HOUR),
            (&[("cache-control", "max-age=7200")], 7200),
            (&[("cache-control", "public, Max-Age=\"7200\"")], 7200),
            (&[("cache-control", "max-age=7200"), ("age", "3600")], 3600),
            (&[("cache-control", "max-age=7200"), ("cache-control", "max-age=600")], 600),
            (&[("cache-control", "max-age=999999999")], 48 * HOUR),
            (&[("cache-control", "max-age=99999999999999999999999")], 48 * HOUR),
            (&[("cache-control", "max-age=0")], 300),
            (&[("cache-control", "max-age=-1")], 300),
            (&[("cache-control", "no-store")], 300),
            (&[("cache-control", "max-age=7200, no-cache")], 300),
            (&[("cache-control", "public")], 24 * HOUR),
            (&[("cache-control", "s-maxage=60")], 24 * HOUR),
        ] {
            assert_eq!(lasts(fields), seconds, "{fields:?}");
        }
    }

    /// DISC-06
    #[test]
    fn expires_counts_against_the_date_and_after_cache_control() {
        let two = ("expires", "Thu, 01 Jan 2026 14:00:00 GMT");
        for (fields, seconds) in [
            (&[two][..], 2 * HOUR),
            (&[two, ("date", "Thu, 01 Jan 2026 13:00:00 GMT")], HOUR),
            (&[two, ("date", "Thu, 01 Jan 2026 15:00:00 GMT")], 300),
            (&[two, ("date", "yesterday")], 2 * HOUR),
            (&[two, ("cache-control", "max-age=900")], 900),
            (&[two, ("cache-control", "public")], 2 * HOUR),
            (&[("expires", "0")], 300),
            (&[("expires", "Tue, 01 Jan 2036 14:00:00 GMT")], 48 * HOUR),
        ] {
            assert_eq!(lasts(fields), seconds, "{fields:?}");
        }
    }

    /// DISC-06, FLD-28
    #[test]
    fn failures_are_remembered_longer_and_longer_up_to_an_hour() {
        let minutes = |failures| failure_lifetime(failures, false).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(minutes), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(minutes(u32::MAX), 60);
        assert_eq!(failure_lifetime(u32::MAX, true).as_secs(), 2 * 60);
    }

    proptest! {
        /// DISC-04
        #[test]
        fn parsing_any_bytes_never_panics(body in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = parse(&body);
        }

        /// DISC-04
        #[test]
        fn whatever_is_named_is_a_server_name(name in "\\PC{0,40}") {
            let body = serde_json::json!({ "m.server": name }).to_string();
            prop_assert_eq!(parse(body.as_bytes()).ok(), name.parse::<ServerName>().ok());
        }

        /// DISC-06, FLD-28
        #[test]
        fn any_answer_is_good_for_five_minutes_to_two_days(
            cache_control in "(max-age|no-cache|private|[a-z=]{0,5})=?[0-9]{0,25}[,; a-z\"]{0,9}",
            expires in "[ -~]{0,30}", age in "[0-9]{0,25}", now in 0_u64..1 << 40,
        ) {
            let fields = [("cache-control", &*cache_control), ("expires", &*expires), ("age", &*age)];
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            let lifetime = lifetime(&headers(&fields), now);
            prop_assert!((MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime));
        }
    }
}
