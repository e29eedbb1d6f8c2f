//! Blobs without a record: what a crash between a rename and a commit leaves.

use std::io::ErrorKind;
use std::ops::AddAssign;

use super::{Inner, StoreError};
use crate::types::ContentHash;

/// What a sweep has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many blobs were removed.
    pub removed: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// Whether the sweep came to its end.
    pub complete: bool,
}

impl AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.removed += other.removed;
        self.bytes += other.bytes;
    }
}

impl Inner {
    /// Removes the orphans among the blobs whose hash begins with a byte.
    pub(super) fn sweep(&self, first: u8) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for content_hash in self.blobs.list(first).map_err(StoreError::io("list blobs"))? {
            // Most have a record; those are passed by without holding anybody up.
            if !self.metadata.has_blob(&content_hash)?
                && let Some(bytes) = self.remove_if_orphan(&content_hash)?
            {
                tracing::info!(%content_hash, bytes, "removed a blob that no record names");
                swept += Swept { removed: 1, bytes, complete: false };
            }
        }
        Ok(swept)
    }

    /// Removes a blob unless a record names it or somebody is publishing it; returns its size.
    pub(super) fn remove_if_orphan(
        &self,
        content_hash: &ContentHash,
    ) -> Result<Option<u64>, StoreError> {
        self.publishing
            .unless_active(content_hash, || {
                if self.metadata.has_blob(content_hash)? {
                    return Ok(None);
                }
                match self.blobs.remove(content_hash) {
                    Ok(size) => Ok(Some(size)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(StoreError::io("remove an orphan")(error)),
                }
            })
            .unwrap_or(Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use crate::store::tests::{open, put, read};

    #[tokio::test]
    async fn a_blob_that_was_recorded_since_it_was_listed_stays() {
        let (_directory, store) = open();
        let blob = put(&store, "media", b"body").await.blob;
        assert_eq!(store.inner.remove_if_orphan(&blob.content_hash).unwrap(), None);
        assert_eq!(read(&store, &blob).await.unwrap(), b"body");
    }
}
