//! Replies: values that handlers return, and the one writer that sends them.
//!
//! Every reply carries the CORS fields (CS-CORS-01); every reply with somebody's bytes also those
//! that keep a browser from running them (CS-HDR-08, CS-HDR-09, threats HI-08).

mod conditions;
mod writer;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::{ApiError, ErrorContent};
use crate::media::{MediaBody, MediaItem};
use crate::route::Access;
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
                    &ErrorBody { errcode: "M_UNKNOWN", error: "The range lies past the end" },
                );
                let size = format!("bytes */{}", size.unwrap_or_default());
                insert_text(&mut reply.headers, header::CONTENT_RANGE, &size);
                reply
            }
        }
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

#[derive(Serialize)]
struct ErrorBody<'a> {
    errcode: &'a str,
    error: &'a str,
}

impl From<&ApiError> for Reply {
    fn from(error: &ApiError) -> Self {
        let answer = error.answer();
        let mut reply = match answer.content {
            ErrorContent::Own { errcode, message } => {
                Self::json(answer.status, &ErrorBody { errcode, error: &message })
            }
            ErrorContent::Relayed(refusal) => {
                let mut reply = Self::json_bytes(answer.status, refusal.body);
                if let Some(retry_after) = refusal.retry_after {
                    reply.headers.insert(header::RETRY_AFTER, retry_after);
                }
                reply
            }
        };
        match error {
            ApiError::MethodNotAllowed { allow } => {
                insert(&mut reply.headers, header::ALLOW, allow);
            }
            _ if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                insert(&mut reply.headers, header::RETRY_AFTER, "5");
            }
            _ => {}
        }
        reply
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
