//! Replies: values that handlers return, and the one writer that sends them.
//!
//! Every reply carries the CORS fields (CS-CORS-01); every reply with somebody's bytes also those
//! that keep a browser from running them (CS-HDR-08, CS-HDR-09, threats HI-08).

mod conditions;
mod writer;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::{ApiError, ErrorAnswer, ErrorContent};
use crate::media::{MediaBody, MediaItem};
use crate::route::{Access, Dialect};
use crate::types::{ContentRange, Disposition, FileName, RangeOutcome};

pub use conditions::{Conditions, Extent};
pub use writer::write;

/// The policy that CS-HDR-08 recommends.
const CONTENT_SECURITY_POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; \
     plugin-types application/pdf; style-src 'unsafe-inline'; media-src 'self'; object-src 'self';";

/// Content never changes under its URI, but only whoever has shown a token may keep it (CA-03).
const CACHE_AUTHENTICATED: &str = "private, max-age=31536000, immutable";

/// Legacy media may be frozen or deleted one day, so shared caches have to come back (FLD-26).
const CACHE_LEGACY: &str = "public, max-age=86400, s-maxage=0, proxy-revalidate";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

/// A reply before it is sent.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: ReplyBody,
}

/// What follows the head of a reply.
pub enum ReplyBody {
    /// Bytes that are there already.
    Whole(Bytes),
    /// Media; `range` is a part of it.
    Media {
        /// Where the bytes come from.
        body: MediaBody,
        /// Which of them are sent; all if absent.
        range: Option<ContentRange>,
    },
}

impl Reply {
    /// Makes a JSON reply.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("replies hold nothing that JSON cannot");
        Self::json_bytes(status, body.into())
    }

    /// Makes a JSON reply of bytes that are JSON already.
    pub fn json_bytes(status: StatusCode, body: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        insert_cors(&mut headers);
        insert(&mut headers, header::CONTENT_TYPE, "application/json");
        insert(&mut headers, header::CACHE_CONTROL, "no-store");
        insert(&mut headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        Self { status, headers, body: ReplyBody::Whole(body) }
    }

    /// Answers a CORS pre-flight (CS-CORS-02).
    pub fn preflight() -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        insert_cors(&mut headers);
        insert(&mut headers, header::ACCESS_CONTROL_MAX_AGE, "86400");
        Self { status: StatusCode::NO_CONTENT, headers, body: ReplyBody::Whole(Bytes::new()) }
    }

    /// Makes the reply to a download or thumbnail.
    ///
    /// `filename` takes the place of the stored name (CS-DL-15). Disposition and type come from the
    /// same declared type, for every route alike (CS-INL-02).
    pub fn media(
        item: MediaItem,
        filename: Option<&FileName>,
        access: Access,
        conditions: &Conditions,
    ) -> Self {
        let mut headers = HeaderMap::with_capacity(20);
        insert_cors(&mut headers);
        let cache = match access {
            Access::Authenticated => CACHE_AUTHENTICATED,
            Access::Legacy => CACHE_LEGACY,
        };
        insert(&mut headers, header::CACHE_CONTROL, cache);
        if access == Access::Authenticated {
            // Two accounts may share a browser: what one has kept the other has to ask for.
            insert(&mut headers, header::VARY, "Authorization");
        }
        insert(&mut headers, header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
        insert(&mut headers, CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin");
        insert(&mut headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        insert(&mut headers, header::REFERRER_POLICY, "no-referrer");
        insert(&mut headers, ROBOTS, "noindex, nofollow, noarchive, noimageindex");

        let etag = item.content_hash.map(|hash| format!("\"{hash}\""));
        if let Some(etag) = &etag {
            insert_text(&mut headers, header::ETAG, etag);
            if conditions.is_not_modified(etag) {
                let body = ReplyBody::Whole(Bytes::new());
                return Self { status: StatusCode::NOT_MODIFIED, headers, body };
            }
        }
        let disposition = item.content_type.disposition();
        insert_disposition(&mut headers, disposition, filename.or(item.filename.as_ref()));
        insert_text(&mut headers, header::CONTENT_TYPE, item.content_type.as_str());

        let size = item.body.size();
        let extent = match (&item.body, size) {
            (MediaBody::Relayed { .. }, _) => None,
            (_, Some(size)) => Some(Extent::Whole(size)),
            (MediaBody::Arriving(body), None) => Some(Extent::AtLeast(body.written())),
            (MediaBody::Memory(_) | MediaBody::Stored(_), None) => None,
        };
        let range = extent.and_then(|extent| {
            insert(&mut headers, header::ACCEPT_RANGES, "bytes");
            conditions.range(etag.as_deref(), extent)
        });
        match range {
            None => {
                if let Some(size) = size {
                    headers.insert(header::CONTENT_LENGTH, size.into());
                }
                let body = ReplyBody::Media { body: item.body, range: None };
                Self { status: StatusCode::OK, headers, body }
            }
            Some(RangeOutcome::Partial(range)) => {
                headers.insert(header::CONTENT_LENGTH, range.length().into());
                insert_text(&mut headers, header::CONTENT_RANGE, &range.header_value());
                let body = ReplyBody::Media { body: item.body, range: Some(range) };
                Self { status: StatusCode::PARTIAL_CONTENT, headers, body }
            }
            Some(RangeOutcome::NotSatisfiable) => {
                let mut reply = Self::json(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    &ErrorBody {
                        errcode: "M_UNKNOWN",
                        error: "The range lies past the end",
                        retry_after_ms: None,
                    },
                );
                let size = format!("bytes */{}", size.unwrap_or_default());
                insert_text(&mut reply.headers, header::CONTENT_RANGE, &size);
                reply
            }
        }
    }

    /// Says that what is sent depends on what the request accepts (RFC 9110, section 12.5.5).
    #[must_use]
    pub fn varying_by_accept(mut self) -> Self {
        // In one field: not every cache reads a second one.
        let is_private = self.headers.contains_key(header::VARY);
        let fields = if is_private { "Authorization, Accept" } else { "Accept" };
        insert(&mut self.headers, header::VARY, fields);
        self
    }

    /// Returns how many bytes of media are about to be sent, if that is known. What else there is to
    /// send is little.
    pub fn media_length(&self) -> Option<u64> {
        match &self.body {
            ReplyBody::Whole(_) => None,
            ReplyBody::Media { .. } => {
                self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
            }
        }
    }

    /// Makes the reply to a request that failed, in the words of its client.
    pub fn error(error: &ApiError, dialect: Dialect) -> Self {
        let answer = error.answer();
        let mut reply = match &answer.content {
            ErrorContent::Own { errcode, message } => {
                error_reply(&answer, errcode_in(dialect, errcode), message)
            }
            ErrorContent::UserLimit { message, info } => Self::json(
                answer.status,
                &UserLimitBody {
                    errcode: "M_USER_LIMIT_EXCEEDED",
                    error: message,
                    info_uri: &info.uri,
                    can_upgrade: info.can_upgrade,
                },
            ),
            ErrorContent::Relayed(refusal) => {
                let mut reply = Self::json_bytes(answer.status, refusal.body.clone());
                if let Some(retry_after) = &refusal.retry_after {
                    reply.headers.insert(header::RETRY_AFTER, retry_after.clone());
                }
                if let Some(location) = &refusal.location {
                    reply.headers.insert(header::LOCATION, location.clone());
                }
                reply
            }
        };
        if let ApiError::MethodNotAllowed { allow } = error {
            insert(&mut reply.headers, header::ALLOW, allow);
        }
        reply
    }

    /// Makes a reply of several parts for another server (FM-S-03).
    pub fn multipart(content_type: HeaderValue, size: Option<u64>, body: MediaBody) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, content_type);
        insert(&mut headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        insert(&mut headers, header::CACHE_CONTROL, "no-store");
        if let Some(size) = size {
            headers.insert(header::CONTENT_LENGTH, size.into());
        }
        let body = ReplyBody::Media { body, range: None };
        Self { status: StatusCode::OK, headers, body }
    }
}

/// Returns the whole message that ends a connection on which no request was taken. `has_body` is false
/// in answer to HEAD.
pub fn closing_message(error: &ApiError, has_body: bool) -> Bytes {
    let Reply { status, headers, body } = Reply::error(error, Dialect::Stable);
    let ReplyBody::Whole(body) = body else { unreachable!("errors are whole") };
    let reason = status.canonical_reason().unwrap_or_default();
    let mut message = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        message.extend_from_slice(name.as_str().as_bytes());
        message.extend_from_slice(b": ");
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"connection: close\r\n\r\n");
    if has_body {
        message.extend_from_slice(&body);
    }
    message.into()
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    errcode: &'a str,
    error: &'a str,
    /// Deprecated, and all that old clients know (CS-RL-03).
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// An error with what CS-GEN-09 asks for beside.
#[derive(Serialize)]
struct UserLimitBody<'a> {
    errcode: &'a str,
    error: &'a str,
    info_uri: &'a str,
    can_upgrade: bool,
}

/// Makes the body of an error of our own.
fn error_reply(answer: &ErrorAnswer, errcode: &str, error: &str) -> Reply {
    let is_limit = answer.status == StatusCode::TOO_MANY_REQUESTS;
    let retry_after_ms = answer.retry_after.filter(|_| is_limit).map(whole_millis);
    let mut reply = Reply::json(answer.status, &ErrorBody { errcode, error, retry_after_ms });
    if let Some(retry_after) = answer.retry_after {
        reply.headers.insert(header::RETRY_AFTER, whole_seconds(retry_after).into());
    }
    reply
}

/// Rounds up: who comes back when told so is let in. Never 0, which would be no wait (CS-RL-02).
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000_000).try_into().unwrap_or(u64::MAX).max(1)
}

fn whole_millis(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX).max(1)
}

/// Says an error code as its client knows it: who uses the names of MSC2246 from before its
/// release knows only its codes from then (CS-PATH-07).
fn errcode_in(dialect: Dialect, errcode: &'static str) -> &'static str {
    match (dialect, errcode) {
        (Dialect::Unstable, "M_NOT_YET_UPLOADED") => "FI.MAU.MSC2246_NOT_YET_UPLOADED",
        (Dialect::Unstable, "M_CANNOT_OVERWRITE_MEDIA") => "FI.MAU.MSC2246_CANNOT_OVERWRITE_MEDIA",
        (Dialect::Stable | Dialect::Unstable, errcode) => errcode,
    }
}

/// Writes the CORS fields that CS-CORS-04 recommends, with HEAD added (CS-CORS-05).
pub fn insert_cors(headers: &mut HeaderMap) {
    insert(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS");
    insert(
        headers,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "X-Requested-With, Content-Type, Authorization, Range",
    );
    insert(
        headers,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "Content-Disposition, Content-Length, Content-Range, ETag, Retry-After",
    );
}

fn insert_disposition(
    headers: &mut HeaderMap,
    disposition: Disposition,
    filename: Option<&FileName>,
) {
    insert_text(headers, header::CONTENT_DISPOSITION, &disposition.header_value(filename));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("types hold only what fits a header");
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Limit;
    use crate::media::{MediaError, QuotaInfo};
    use std::sync::Arc;

    fn body(reply: &Reply) -> serde_json::Value {
        let ReplyBody::Whole(body) = &reply.body else { panic!("errors are whole") };
        serde_json::from_slice(body).unwrap()
    }

    /// CS-RL-02, CS-RL-03
    #[test]
    fn a_limit_tells_when_to_try_again_rounded_up_and_never_at_once() {
        for (millis, seconds, told_millis) in
            [(0, "1", 1), (1, "1", 1), (999, "1", 999), (1001, "2", 1001), (60_000, "60", 60_000)]
        {
            let retry_after = Duration::from_millis(millis);
            for error in [
                Limit::UserRequests.exceeded(retry_after).into(),
                MediaError::TooManyPending { retry_after }.into(),
            ] {
                let reply = Reply::error(&error, Dialect::Stable);
                assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
                assert_eq!(reply.headers[header::RETRY_AFTER], seconds, "{millis} ms");
                assert_eq!(body(&reply)["errcode"], "M_LIMIT_EXCEEDED");
                assert_eq!(body(&reply)["retry_after_ms"], told_millis, "{millis} ms");
            }
        }
    }

    /// CS-GEN-09
    #[test]
    fn a_quota_says_where_to_learn_more_if_there_is_such_a_place() {
        let plain = Reply::error(&MediaError::OverQuota { info: None }.into(), Dialect::Stable);
        assert_eq!(
            (plain.status, &body(&plain)["errcode"]),
            (StatusCode::FORBIDDEN, &"M_FORBIDDEN".into())
        );
        assert!(body(&plain).get("info_uri").is_none());
        let info = QuotaInfo { uri: "https://example.org/".into(), can_upgrade: true };
        let error = MediaError::OverQuota { info: Some(Arc::new(info)) };
        let told = Reply::error(&MediaError::Shared(Arc::new(error)).into(), Dialect::Stable);
        assert_eq!(told.status, StatusCode::FORBIDDEN);
        let told = body(&told);
        assert_eq!(told["errcode"], "M_USER_LIMIT_EXCEEDED");
        assert_eq!(told["info_uri"], "https://example.org/");
        assert_eq!(told["can_upgrade"], true);
        assert!(!told["error"].as_str().unwrap().is_empty());
    }

    #[test]
    fn limits_without_a_known_end_tell_a_time_too() {
        for error in [MediaError::TooManyWaiting, MediaError::TooManyFetches] {
            let reply = Reply::error(&error.into(), Dialect::Stable);
            assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
            assert!(reply.headers.contains_key(header::RETRY_AFTER));
        }
    }

    /// CS-GEN-10, CS-PATH-07
    #[test]
    fn error_codes_are_those_of_the_clients_dialect() {
        for (error, status, stable, unstable) in [
            (
                MediaError::CannotOverwrite,
                409,
                "M_CANNOT_OVERWRITE_MEDIA",
                "FI.MAU.MSC2246_CANNOT_OVERWRITE_MEDIA",
            ),
            (
                MediaError::NotYetUploaded,
                504,
                "M_NOT_YET_UPLOADED",
                "FI.MAU.MSC2246_NOT_YET_UPLOADED",
            ),
            (MediaError::NotTheCreator, 403, "M_FORBIDDEN", "M_FORBIDDEN"),
            (MediaError::NotFound, 404, "M_NOT_FOUND", "M_NOT_FOUND"),
        ] {
            let error = ApiError::from(error);
            for (dialect, errcode) in [(Dialect::Stable, stable), (Dialect::Unstable, unstable)] {
                let reply = Reply::error(&error, dialect);
                assert_eq!(reply.status.as_u16(), status);
                assert_eq!(body(&reply)["errcode"], errcode);
                assert_eq!(body(&reply).get("retry_after_ms"), None);
            }
        }
    }
}
