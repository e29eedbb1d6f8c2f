//! Answers of the homeserver, read to their end: what of them is believed and what is relayed.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::HomeserverError;
use super::client::Response;
use crate::types::{BodyError, collect};

/// The largest structured answer that is read; real ones are a few KiB.
pub(super) const MAX_JSON: u64 = 256 * 1024;

/// An error answer of the homeserver that goes to the client unchanged (CS-AUTH-06).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The homeserver's status.
    pub status: StatusCode,
    /// Its `Retry-After`, if it sent one (CS-RL-02).
    pub retry_after: Option<HeaderValue>,
    /// Where the client finds what it asked for, if it is sent elsewhere (CS-HDR-10).
    pub location: Option<HeaderValue>,
    /// Its JSON body.
    pub body: Bytes,
}

/// An answer that was read to its end.
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<HeaderValue>,
    pub(super) body: Bytes,
}

impl Whole {
    fn into_refusal(self) -> Refusal {
        let Self { status, retry_after, body } = self;
        Refusal { status, retry_after, location: None, body }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    errcode: String,
}

/// Reads the body of an answer that may have at most `limit` bytes.
pub(super) async fn whole(mut response: Response, limit: u64) -> Result<Whole, HomeserverError> {
    let body = collect(&mut response.body, limit).await.map_err(|error| match error {
        BodyError::TimedOut => HomeserverError::TooSlow,
        error => HomeserverError::Misbehaved(error.to_string()),
    })?;
    let retry_after = response.headers.remove(header::RETRY_AFTER);
    Ok(Whole { status: response.status, retry_after, body })
}

/// Reads the rest of an error answer about media, to be relayed.
///
/// Of the 5xx only those are relayed that speak of the media, not of the homeserver: not uploaded
/// yet (CS-DL-10) and too large (CS-DL-13).
///
/// # Errors
///
/// [`HomeserverError`] for what may not be relayed: any other 5xx says nothing about the caller, and
/// a body that is no Matrix error may hold anything.
pub async fn read_refusal(response: Response) -> Result<Refusal, HomeserverError> {
    let answer = whole(response, MAX_JSON).await?;
    match (answer.status, errcode(&answer.body).as_deref()) {
        (StatusCode::GATEWAY_TIMEOUT, Some("M_NOT_YET_UPLOADED"))
        | (StatusCode::BAD_GATEWAY, Some("M_TOO_LARGE")) => Ok(answer.into_refusal()),
        (StatusCode::GATEWAY_TIMEOUT, _) => Err(HomeserverError::TooSlow),
        _ => refusal(answer),
    }
}

/// Takes an error of the client's own making, to be relayed.
pub(super) fn refusal(answer: Whole) -> Result<Refusal, HomeserverError> {
    if !answer.status.is_client_error() {
        return Err(HomeserverError::Misbehaved(format!("status {}", answer.status)));
    }
    parse::<ErrorBody>(&answer.body)?;
    Ok(answer.into_refusal())
}

impl Refusal {
    /// Takes an answer that sends the client elsewhere; `None` if it is none that the specification
    /// allows (CS-DL-07).
    pub fn elsewhere(response: &Response) -> Option<Self> {
        let is_redirect = matches!(
            response.status,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let location = response.headers.get(header::LOCATION).filter(|_| is_redirect)?;
        let is_url = ["https://", "http://"]
            .iter()
            .any(|scheme| location.as_bytes().starts_with(scheme.as_bytes()));
        is_url.then(|| Self {
            status: response.status,
            retry_after: None,
            location: Some(location.clone()),
            body: Bytes::from_static(b"{}"),
        })
    }

    /// Returns the `errcode` of the body.
    pub fn errcode(&self) -> Option<String> {
        errcode(&self.body)
    }

    /// Whether this is how servers say that they do not know a route (CS-GEN-05, FLD-08).
    pub fn is_unrecognized(&self) -> bool {
        is_unrecognized(self.status, &self.body)
    }
}

/// Whether this is how servers say that they do not know a route.
pub(super) fn is_unrecognized(status: StatusCode, body: &[u8]) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST
    ) && errcode(body).as_deref() == Some("M_UNRECOGNIZED")
}

/// Returns the `errcode` of an error object.
pub(super) fn errcode(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.errcode)
}

/// Reads the JSON that was expected.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, HomeserverError> {
    serde_json::from_slice(body).map_err(|error| {
        // Not the error itself, which quotes what it found: an answer may repeat a token.
        let (kind, line, column) = (error.classify(), error.line(), error.column());
        HomeserverError::Misbehaved(format!("not the JSON expected: {kind:?} at {line}:{column}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Whole {
        Whole {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// CS-GEN-07
    #[test]
    fn a_client_error_with_a_matrix_body_is_relayed() {
        let body = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"gone","soft_logout":true}"#;
        let refusal = refusal(answer(401, body)).unwrap();
        assert_eq!(refusal.body, body);
        assert_eq!(refusal.errcode().as_deref(), Some("M_UNKNOWN_TOKEN"));
    }

    #[test]
    fn nothing_else_is_relayed() {
        for (status, body) in [
            (500, r#"{"errcode":"M_UNKNOWN_TOKEN","error":""}"#),
            (502, "<html>"),
            (401, "<html>"),
            (401, "{}"),
            (401, ""),
            (302, r#"{"errcode":"M_UNKNOWN"}"#),
        ] {
            assert!(refusal(answer(status, body)).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn unknown_routes_are_told_by_their_errcode() {
        assert!(is_unrecognized(StatusCode::NOT_FOUND, br#"{"errcode":"M_UNRECOGNIZED"}"#));
        assert!(!is_unrecognized(StatusCode::NOT_FOUND, br#"{"errcode":"M_NOT_FOUND"}"#));
        assert!(!is_unrecognized(StatusCode::OK, br#"{"errcode":"M_UNRECOGNIZED"}"#));
    }
}
