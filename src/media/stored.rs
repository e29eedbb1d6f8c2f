//! Bodies read from the store, and what is done when one of them is found damaged.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::memory::Memory;
use crate::metrics::Metrics;
use crate::store::{BlobReader, Store, StoreError};
use crate::types::{BodyError, BodyReader, ContentHash};

/// Sets damaged blobs aside, so that what can be had again is fetched or made anew.
#[derive(Clone)]
pub(super) struct Damage {
    pub(super) store: Store,
    pub(super) memory: Arc<Memory>,
    pub(super) metrics: Arc<Metrics>,
}

impl Damage {
    /// Whether an error says that a blob itself is damaged or gone. If so it is counted, logged and
    /// set aside (threats DU-06); records of owned media stay, and reading them goes on failing.
    pub(super) async fn is_found(&self, content_hash: &ContentHash, error: &StoreError) -> bool {
        if !matches!(error, StoreError::Corrupt { .. } | StoreError::Missing { .. }) {
            return false;
        }
        self.metrics.corrupt_blobs.inc();
        tracing::error!(%content_hash, %error, "a stored body is damaged");
        match self.store.set_aside(content_hash).await {
            Ok(Some(removed)) => {
                self.memory.forget(&removed);
                // Owned media keeps its records, but is not to be served from memory alone.
                self.memory.forget_body(content_hash);
            }
            // Nothing has changed.
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%content_hash, %error, "a damaged body cannot be set aside");
            }
        }
        true
    }
}

/// A body that is read from the store while it is sent.
pub struct StoredBody {
    pub(super) reader: BlobReader,
    pub(super) damage: Damage,
}

impl StoredBody {
    /// Limits the reading to `length` bytes from position `first`.
    #[must_use]
    pub fn range(self, first: u64, length: u64) -> Self {
        Self { reader: self.reader.range(first, length), ..self }
    }

    /// Returns the size of the whole body in bytes.
    pub fn size(&self) -> u64 {
        self.reader.blob().size
    }
}

#[async_trait]
impl BodyReader for StoredBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self.reader.next_chunk().await {
            Ok(chunk) => Ok(chunk),
            Err(error) => {
                let content_hash = self.reader.blob().content_hash;
                self.damage.is_found(&content_hash, &error).await;
                Err(BodyError::Storage(error.to_string()))
            }
        }
    }
}
