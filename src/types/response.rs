//! The head of an answer that somebody else gives us.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{announced_length, is_delimited};

/// The head of an answer, with its body still to be read.
pub struct Response<B> {
    /// The status.
    pub status: StatusCode,
    /// All header fields.
    pub headers: HeaderMap,
    /// The body as it comes in.
    pub body: B,
}

impl<B> Response<B> {
    /// Returns how many bytes the body has, if the head says so.
    pub fn content_length(&self) -> Option<u64> {
        announced_length(&self.headers)
    }

    /// Returns the value of a header field, as it came.
    pub fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    /// Whether the head says where the body ends. Otherwise the end of the connection is its end, and
    /// a body that broke off looks whole.
    pub fn is_delimited(&self) -> bool {
        is_delimited(&self.headers)
    }
}

impl<B> fmt::Debug for Response<B> {
    /// Writes the status alone: fields and body are a stranger's, or may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
