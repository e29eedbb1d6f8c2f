//! Bodies that flow: a source of chunks, whoever it comes from.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sender went away or its connection broke.
    #[error("the sender went away before the end of the body")]
    Gone,
    /// The sender broke the rules of HTTP message framing (RFC 9112, sections 6 and 7).
    #[error("the body is not framed as HTTP asks: {0}")]
    Malformed(String),
    /// Nothing arrived for too long.
    #[error("the sender was silent for too long")]
    TimedOut,
    /// More bytes came than are allowed.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// How many bytes were allowed.
        limit: u64,
    },
    /// What is read from our own disk failed or did not match its checksum.
    #[error("the stored body cannot be read: {0}")]
    Storage(String),
}

/// A body that is read chunk by chunk.
///
/// An error is final, and what was read before it is not a whole body.
#[async_trait]
pub trait BodyReader: Send {
    /// Returns the next chunk, which is never empty, or `None` at the proper end of the body.
    ///
    /// # Errors
    ///
    /// Says why the rest of the body will not come.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError>;
}

/// Looks whether a future is ready now, so that something else can be done before waiting for it.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// Returns how many bytes a message announces for its body: none if it is chunked, whatever its
/// `Content-Length` says (RFC 9112, section 6.3).
pub fn announced_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Whether a message says where its body ends: by a length, or by chunks if that is its last coding.
/// After any other the end of the connection is its end (RFC 9112, section 6.3).
pub fn is_delimited(headers: &HeaderMap) -> bool {
    let last = headers.get_all(header::TRANSFER_ENCODING).iter().next_back();
    let codings = last.map(HeaderValue::as_bytes).unwrap_or_default();
    let last_coding = codings.rsplit(|&b| b == b',').next().unwrap_or_default();
    announced_length(headers).is_some() || last_coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Holds what arrives of a body against its announced length.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    missing: Option<u64>,
}

impl Announced {
    /// Takes the header fields of the message.
    pub fn by(headers: &HeaderMap) -> Self {
        Self { missing: announced_length(headers) }
    }

    /// Notes a chunk that has arrived.
    pub fn arrived(&mut self, chunk: &Bytes) {
        self.missing = self.missing.map(|missing| missing.saturating_sub(chunk.len() as u64));
    }

    /// Judges the end of the body.
    ///
    /// # Errors
    ///
    /// [`BodyError::Gone`] if bytes that were announced have not come.
    pub fn ended(&self) -> Result<(), BodyError> {
        if self.missing.is_some_and(|missing| missing > 0) { Err(BodyError::Gone) } else { Ok(()) }
    }
}

/// Reads a whole body that may hold at most `limit` bytes.
///
/// For small structured answers only; media flows through [`BodyReader::next`].
///
/// # Errors
///
/// [`BodyError::TooLarge`] as soon as the limit is passed, otherwise the reader's own error.
pub async fn collect(body: &mut dyn BodyReader, limit: u64) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await? {
        if (whole.len() + chunk.len()) as u64 > limit {
            return Err(BodyError::TooLarge { limit });
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}
