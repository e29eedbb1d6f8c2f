//! What is refused wherever it is sent: requests that two servers might read in two ways.

use http::{Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::error::ApiError;

/// Fields that no client may have dropped on the way by naming them in `Connection` (threats HI-07).
const NEVER_HOP_BY_HOP: &[&str] = &[
    "authorization",
    "host",
    "content-length",
    "content-type",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// Finds what is refused wherever it is sent.
pub(super) fn find(session: &Session) -> Option<ApiError> {
    let head = session.req_header();
    if head.version == Version::HTTP_11 && !head.headers.contains_key(header::HOST) {
        return Some(ApiError::BadRequest("The Host header is missing"));
    }
    if has_doubtful_length(head) {
        return Some(ApiError::BadRequest("The Content-Length is not one number"));
    }
    if has_foreign_coding(head) {
        return Some(ApiError::BadRequest(
            "The only Transfer-Encoding that is understood is chunked",
        ));
    }
    if has_fragment(session) {
        return Some(ApiError::BadRequest("The request target has a fragment"));
    }
    let nominated = head.headers.get_all(header::CONNECTION).iter();
    let mut options = nominated.filter_map(|field| field.to_str().ok()).flat_map(|f| f.split(','));
    let is_never =
        |option: &str| NEVER_HOP_BY_HOP.iter().any(|name| option.trim().eq_ignore_ascii_case(name));
    options
        .any(is_never)
        .then_some(ApiError::BadRequest("The Connection header names a field that is end-to-end"))
}

/// Whether two servers might read different lengths; Pingora passes `5, 5` and repetitions on
/// (threats SM-02).
fn has_doubtful_length(head: &RequestHeader) -> bool {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next().map(|length| length.as_bytes().trim_ascii());
    lengths.next().is_some() || first.is_some_and(|length| !length.iter().all(u8::is_ascii_digit))
}

/// Whether the body is in more than chunks. Pingora takes `gzip, chunked` for chunks alone, and what is
/// stored or passed on would not be what was sent (threats SM-03).
fn has_foreign_coding(head: &RequestHeader) -> bool {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next().map(|coding| coding.as_bytes().trim_ascii());
    codings.next().is_some() || first.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked"))
}

/// Whether the target has a fragment. Pingora would cut it off, and what arrives would not be what
/// was signed.
fn has_fragment(session: &Session) -> bool {
    session.as_downstream().as_http1().is_some_and(|http1| {
        let head = http1.get_headers_raw_bytes();
        head.trim_ascii_start().iter().take_while(|&&b| b != b'\n').any(|&b| b == b'#')
    })
}
