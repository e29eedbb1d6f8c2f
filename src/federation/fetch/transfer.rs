//! A body that comes from another server: held to its size and to a pace.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::resume::Resumable;
use crate::egress::ResponseBody;
use crate::federation::multipart::SecondPart;
use crate::federation::server_backoff::FetchPlace;
use crate::types::{BodyError, BodyReader, Pace};

/// Where the bytes are.
pub(super) enum MediaBytes {
    /// In the second part of an answer, which cannot be resumed (FM-S-15).
    Part(Box<SecondPart<ResponseBody>>),
    /// In an answer of their own.
    Plain(Box<Resumable>),
}

impl MediaBytes {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self {
            Self::Part(part) => part.next().await,
            Self::Plain(body) => body.next().await,
        }
    }
}

/// A body that comes from another server, resumed where that is possible.
///
/// It breaks off if it is larger than allowed, and if it comes more slowly than the least rate for too
/// long. Only the time counts in which somebody waits for it. Until its end, or until it is dropped,
/// it holds a place of its server.
pub struct Transfer {
    state: State,
    pace: Pace,
    left: u64,
    limit: u64,
}

enum State {
    Flowing { bytes: MediaBytes, _place: FetchPlace },
    Whole,
    Broken,
}

impl Transfer {
    /// Takes a body of at most `limit` bytes.
    pub(super) fn new(bytes: MediaBytes, place: FetchPlace, pace: Pace, limit: u64) -> Self {
        Self { state: State::Flowing { bytes, _place: place }, pace, left: limit, limit }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, BodyError> {
        let bytes = match &mut self.state {
            State::Flowing { bytes, .. } => bytes,
            State::Whole => return Ok(None),
            State::Broken => return Err(BodyError::Gone),
        };
        let too_slow = self.pace.waits(Instant::now());
        let outcome = timeout_at(too_slow, bytes.next()).await;
        let Some(chunk) = outcome.map_err(|_| BodyError::TimedOut)?? else { return Ok(None) };
        let size = chunk.len() as u64;
        self.pace.moved(size, Instant::now);
        self.left = self.left.checked_sub(size).ok_or(BodyError::TooLarge { limit: self.limit })?;
        Ok(Some(chunk))
    }
}

#[async_trait]
impl BodyReader for Transfer {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let outcome = self.read().await;
        // The connection and the place are given up at once, not when the reader goes.
        match outcome {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Whole,
            Err(_) => self.state = State::Broken,
        }
        outcome
    }
}
