//! The body of a request, read from Pingora's session.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Version, header};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use crate::connection::{self, Guarded};
use crate::types::{Announced, BodyError, BodyReader};

/// A request without a body.
pub(super) struct NoBody;

#[async_trait]
impl BodyReader for NoBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(None)
    }
}

/// A request's body. A client that waits to be told (`Expect: 100-continue`) is told at the first
/// read, not before: a refusal may come first.
pub(super) struct RequestBody<'s> {
    session: &'s mut Session,
    awaits_continue: bool,
    announced: Announced,
}

impl<'s> RequestBody<'s> {
    pub(super) fn new(session: &'s mut Session) -> Self {
        let head = session.req_header();
        let headers = &head.headers;
        // What an older client expects is to be ignored (RFC 9110, section 10.1.1).
        let awaits_continue = head.version == Version::HTTP_11
            && headers
                .get(header::EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let announced = Announced::by(headers);
        Self { session, awaits_continue, announced }
    }

    async fn send_continue(&mut self) -> Result<(), BodyError> {
        let keepalive = self.session.get_keepalive();
        self.session.write_continue_response().await.map_err(|_| BodyError::Gone)?;
        // Pingora switches keep-alive off with any 1xx.
        self.session.set_keepalive(keepalive);
        Ok(())
    }
}

#[async_trait]
impl BodyReader for RequestBody<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if std::mem::take(&mut self.awaits_continue) {
            self.send_continue().await?;
        }
        loop {
            match self.session.read_request_body().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.announced.arrived(&chunk);
                    return Ok(Some(chunk));
                }
                Ok(None) => {
                    if let Some(connection) = connection::of(self.session) {
                        connection.end_body();
                    }
                    return self.announced.ended().map(|()| None);
                }
                Err(error) => {
                    let is_too_slow =
                        connection::of(self.session).is_some_and(Guarded::sent_too_slowly);
                    return Err(if is_too_slow { BodyError::TimedOut } else { classify(&error) });
                }
            }
        }
    }
}

fn classify(error: &Error) -> BodyError {
    match error.etype() {
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => {
            BodyError::Gone
        }
        other => BodyError::Malformed(other.as_str().to_owned()),
    }
}
