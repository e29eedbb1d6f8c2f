//! Answers that are no media: what they mean.

use std::time::Duration;

use http::header;
use serde::Deserialize;

use super::{FetchError, Question, late, misbehaved};
use crate::egress::{EgressError, Response};

/// The largest error answer that is read; real ones are some hundred bytes.
const MAX_BODY: u64 = 64 * 1024;

/// The longest error code that is repeated in a log.
const MAX_ERRCODE: usize = 64;

/// How long a server is left alone that asks for it and does not say how long.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// An answer with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    /// Whether the body is a JSON object, as the errors of every server that speaks Matrix are.
    is_object: bool,
    errcode: String,
    retry_after: Option<Duration>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    errcode: serde_json::Value,
    retry_after_ms: serde_json::Value,
}

impl Refusal {
    /// Reads the rest of an answer.
    ///
    /// # Errors
    ///
    /// [`FetchError::Server`] if it does not come in time, [`FetchError::Misbehaved`] if it breaks off.
    pub(super) async fn read(
        response: Response,
        question: &Question<'_>,
    ) -> Result<Self, FetchError> {
        let status = response.status.as_u16();
        let retry_after = response.field(&header::RETRY_AFTER).and_then(seconds);
        match response.whole(MAX_BODY, question.deadline).await {
            Ok(body) => Ok(Self::new(status, retry_after, &body)),
            // No error of a homeserver: the page of something else.
            Err(EgressError::TooLarge { .. }) => Ok(Self::new(status, retry_after, b"")),
            Err(EgressError::TimedOut(_)) => Err(late(question)),
            Err(error) => Err(misbehaved(format!("status {status}, and {error}"))),
        }
    }

    fn new(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let is_object = body.trim_ascii_start().first() == Some(&b'{');
        let object = serde_json::from_slice::<ErrorBody>(body).ok().filter(|_| is_object);
        let is_object = object.is_some();
        let ErrorBody { errcode, retry_after_ms } = object.unwrap_or_default();
        let errcode = errcode.as_str().filter(|code| is_errcode(code)).unwrap_or_default();
        let in_body = retry_after_ms.as_u64().map(Duration::from_millis);
        Self {
            status,
            is_object,
            errcode: errcode.to_owned(),
            retry_after: retry_after.or(in_body),
        }
    }

    /// Whether this is how servers say that they do not know a route. The specification says
    /// 404 `M_UNRECOGNIZED` alone; older servers say it in other ways (FLD-08, FM-C-03). Nothing
    /// else leads to an unsigned request (threats FE-13).
    pub(super) fn is_unknown_route(&self) -> bool {
        let is_unrecognized = self.errcode == "M_UNRECOGNIZED";
        match self.status {
            404 | 405 => is_unrecognized || !self.is_object,
            400 => is_unrecognized,
            _ => false,
        }
    }

    /// Whether the request has to be signed, or to bear a token.
    pub(super) fn is_for_nobody(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// Returns the status and the error code.
    pub(super) fn in_short(&self) -> String {
        format!("{} {}", self.status, self.errcode).trim_end().to_owned()
    }

    /// Returns what it means for whoever wants media of at most `limit` bytes.
    pub(super) fn meaning(self, limit: u64) -> FetchError {
        match (self.status, self.errcode.as_str()) {
            // Some of the Conduit family say the second.
            (404, _) | (400, "M_UNKNOWN") => FetchError::NotFound,
            (504, "M_NOT_YET_UPLOADED") => FetchError::NotYetUploaded,
            (502 | 413, "M_TOO_LARGE") => FetchError::TooLarge { limit },
            (429, _) => {
                let retry_after = self.retry_after.unwrap_or(DEFAULT_PATIENCE);
                FetchError::BackedOff { retry_after }
            }
            (status, _) => match self.retry_after {
                Some(retry_after) if status == 503 => FetchError::BackedOff { retry_after },
                _ => FetchError::Refused { status, errcode: self.errcode },
            },
        }
    }
}

/// Reads the seconds of a `Retry-After`; a date is not read (CS-RL-02).
fn seconds(value: &[u8]) -> Option<Duration> {
    let digits = value.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    // What does not fit is more than anybody waits for.
    Some(Duration::from_secs(number.parse().unwrap_or(u64::MAX)))
}

fn is_errcode(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    text.len() <= MAX_ERRCODE && text.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::new(status, None, body.as_bytes())
    }

    fn code(errcode: &str) -> String {
        format!(r#"{{"errcode":"{errcode}","error":"in words"}}"#)
    }

    /// FLD-08, FM-C-03
    #[test]
    fn an_unknown_route_is_told_as_synapse_tells_it() {
        for (status, body) in [
            (404, &*code("M_UNRECOGNIZED")),
            (405, &code("M_UNRECOGNIZED")),
            (400, &code("M_UNRECOGNIZED")),
            (404, ""),
            (404, "404 page not found"),
            (404, "<html>{}"),
            (404, "{ not JSON"),
            (404, "[]"),
            (405, "Method Not Allowed"),
        ] {
            assert!(refusal(status, body).is_unknown_route(), "{status} {body}");
        }
    }

    /// FE-13
    #[test]
    fn nothing_else_is_an_unknown_route() {
        for (status, body) in [
            (404, &*code("M_NOT_FOUND")),
            (404, &code("M_FORBIDDEN")),
            (404, "{}"),
            (400, ""),
            (400, &code("M_UNKNOWN")),
            (401, &code("M_UNRECOGNIZED")),
            (403, &code("M_UNRECOGNIZED")),
            (401, ""),
            (403, "<html>"),
            (500, &code("M_UNRECOGNIZED")),
            (501, ""),
            (502, "<html>"),
            (504, ""),
            (429, &code("M_LIMIT_EXCEEDED")),
        ] {
            assert!(!refusal(status, body).is_unknown_route(), "{status} {body}");
        }
    }

    /// FM-S-08
    #[test]
    fn each_refusal_has_its_meaning() {
        let of = |status, errcode: &str| refusal(status, &code(errcode)).meaning(7);
        assert_eq!(of(404, "M_NOT_FOUND"), FetchError::NotFound);
        assert_eq!(of(504, "M_NOT_YET_UPLOADED"), FetchError::NotYetUploaded);
        assert_eq!(of(502, "M_TOO_LARGE"), FetchError::TooLarge { limit: 7 });
        assert_eq!(of(413, "M_TOO_LARGE"), FetchError::TooLarge { limit: 7 });
        for status in [400, 401, 403, 413, 500, 502, 503, 504] {
            let errcode = "M_USER_LOCKED".to_owned();
            assert_eq!(of(status, "M_USER_LOCKED"), FetchError::Refused { status, errcode });
        }
    }

    #[test]
    fn only_error_codes_of_the_grammar_are_repeated() {
        for strange in ["a b", "<script>", "é", &"M".repeat(65), "M\\n"] {
            let said = refusal(403, &code(strange));
            assert_eq!(said.in_short(), "403", "{strange}");
        }
        assert_eq!(refusal(403, &code("ORG.EXAMPLE_X-1")).in_short(), "403 ORG.EXAMPLE_X-1");
        assert_eq!(refusal(403, r#"{"errcode":5}"#).in_short(), "403");
    }

    /// FE-15
    #[test]
    fn patience_is_read_from_the_field_and_else_from_the_body() {
        let patience = |field: Option<&str>, body: &str| {
            let field = field.and_then(|value| seconds(value.as_bytes()));
            match Refusal::new(429, field, body.as_bytes()).meaning(0) {
                FetchError::BackedOff { retry_after } => retry_after.as_millis(),
                other => panic!("{other}"),
            }
        };
        let body = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#;
        assert_eq!(patience(Some("7"), body), 7000);
        assert_eq!(patience(None, body), 1500);
        assert_eq!(patience(Some("Wed, 21 Oct 2026 07:28:00 GMT"), body), 1500);
        assert_eq!(patience(None, "{}"), DEFAULT_PATIENCE.as_millis());
        assert_eq!(patience(Some("-1"), r#"{"retry_after_ms":-5}"#), DEFAULT_PATIENCE.as_millis());
        let endless = "9".repeat(40);
        assert_eq!(patience(Some(&endless), ""), Duration::from_secs(u64::MAX).as_millis());
    }
}
