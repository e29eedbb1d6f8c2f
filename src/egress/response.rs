//! Answers from outside.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::connectors::http::v1::Connector;
use pingora::prelude::HttpPeer;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{Error, ErrorType};
use tokio::time::{Instant, timeout_at};

use super::EgressError;
use crate::types::{self, Announced, BodyError, BodyReader, collect};

/// How long a connection without a request is kept. Web servers close theirs after some seconds up to
/// some minutes.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the next bytes of a body may take.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The head of an answer, with its body still to be read. Over TLS a body that broke off is told from one
/// that was closed properly, also where the head does not say where it ends.
pub type Response = types::Response<ResponseBody>;

impl Response {
    /// Reads the whole body. For small structured answers only.
    ///
    /// # Errors
    ///
    /// [`EgressError::TooLarge`] as soon as it is known that there are more than `limit` bytes,
    /// [`EgressError::TimedOut`] at the deadline or after a long silence, and
    /// [`EgressError::Misbehaved`] if the body breaks off.
    pub async fn whole(mut self, limit: u64, deadline: Instant) -> Result<Bytes, EgressError> {
        if self.content_length().is_some_and(|length| length > limit) {
            return Err(EgressError::TooLarge { limit });
        }
        match timeout_at(deadline, collect(&mut self.body, limit)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(BodyError::TooLarge { limit })) => Err(EgressError::TooLarge { limit }),
            Ok(Err(BodyError::TimedOut)) | Err(_) => Err(EgressError::TimedOut("the body")),
            Ok(Err(error)) => Err(EgressError::Misbehaved(error.to_string())),
        }
    }
}

/// The body of an answer. A connection whose body was read to the end goes back to the pool; any
/// other is closed.
pub struct ResponseBody {
    state: State,
    connector: Arc<Connector>,
    peer: HttpPeer,
    announced: Announced,
}

enum State {
    Open(Box<HttpSession>),
    Whole,
    Broken,
}

impl ResponseBody {
    pub(super) fn new(
        mut session: HttpSession,
        connector: Arc<Connector>,
        peer: HttpPeer,
        headers: &HeaderMap,
    ) -> Self {
        session.read_timeout = Some(BODY_IDLE_TIMEOUT);
        let state = State::Open(Box::new(session));
        Self { state, connector, peer, announced: Announced::by(headers) }
    }

    async fn release(&mut self) {
        if let State::Open(session) = std::mem::replace(&mut self.state, State::Whole) {
            self.connector
                .release_http_session(*session, &self.peer, Some(POOL_IDLE_TIMEOUT))
                .await;
        }
    }
}

#[async_trait]
impl BodyReader for ResponseBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let session = match &mut self.state {
            State::Open(session) => session,
            State::Whole => return Ok(None),
            State::Broken => return Err(BodyError::Gone),
        };
        let outcome = loop {
            match session.read_body_bytes().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.announced.arrived(&chunk);
                    return Ok(Some(chunk));
                }
                Ok(None) => break self.announced.ended(),
                Err(error) => break Err(classify(&error)),
            }
        };
        match outcome {
            Ok(()) => {
                self.release().await;
                Ok(None)
            }
            Err(error) => {
                self.state = State::Broken;
                Err(error)
            }
        }
    }
}

fn classify(error: &Error) -> BodyError {
    match error.etype() {
        ErrorType::ReadTimedout => BodyError::TimedOut,
        ErrorType::InvalidHTTPHeader => BodyError::Malformed("a chunk is not one".to_owned()),
        _ => BodyError::Gone,
    }
}
