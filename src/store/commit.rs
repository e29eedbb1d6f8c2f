//! Blob before record: how a staged body becomes media.

use super::publishing::InPublication;
use super::staging::Settled;
use super::{BlobRecord, Inner, MediaRecord, NewMedia, NewThumbnail, StoreError, ThumbnailRecord};
use crate::types::ContentHash;

impl Inner {
    /// Stores a body and its record.
    pub(super) fn commit_media(
        &self,
        settled: Settled,
        media: NewMedia,
    ) -> Result<MediaRecord, StoreError> {
        if let Some(present) = self.metadata.media(&media.mxc)? {
            return Err(StoreError::AlreadyExists(Box::new(present)));
        }
        let (blob, published) = self.publish(settled)?;
        let content_hash = blob.content_hash;
        let recorded = self.metadata.insert_media(media.with_blob(blob));
        drop(published);
        self.tally_cache();
        // Who evicted it in the meantime had to leave the file here.
        if recorded.as_ref().err().is_none_or(leaves_no_doubt) {
            self.tidy(&content_hash);
        }
        recorded
    }

    /// Stores a thumbnail, or keeps the one that there is.
    pub(super) fn commit_thumbnail(
        &self,
        settled: Settled,
        thumbnail: NewThumbnail,
    ) -> Result<ThumbnailRecord, StoreError> {
        if let Some(present) = self.metadata.thumbnail(&thumbnail.source, &thumbnail.spec)? {
            return Ok(present);
        }
        let (blob, published) = self.publish(settled)?;
        let content_hash = blob.content_hash;
        let recorded = self.metadata.insert_thumbnail(thumbnail, blob);
        drop(published);
        self.tally_cache();
        // It may be another's that is recorded, or be evicted again.
        if recorded.as_ref().err().is_none_or(leaves_no_doubt) {
            self.tidy(&content_hash);
        }
        recorded
    }

    /// Removes a blob that has no record, or not any more; the next sweep would do so too.
    pub(super) fn tidy(&self, content_hash: &ContentHash) {
        if let Err(error) = self.remove_if_orphan(content_hash) {
            tracing::warn!(%content_hash, %error, "cannot remove a blob that no record names");
        }
    }

    /// Gives a body its name, and keeps the sweeper away from it until the guard is dropped.
    pub(super) fn publish(
        &self,
        settled: Settled,
    ) -> Result<(BlobRecord, InPublication<'_>), StoreError> {
        let (temp, blob) = settled.finish()?;
        let published = self.publishing.begin(blob.content_hash);
        self.blobs
            .publish(temp, &blob.content_hash)
            .map_err(StoreError::io("move a body to its place"))?;
        Ok((blob, published))
    }
}

/// Returns whether an error says for certain that no record was committed.
///
/// After any other, a record may turn up when the database is opened next: its blob must stay until
/// the sweep after that, which knows.
fn leaves_no_doubt(error: &StoreError) -> bool {
    use StoreError::{AlreadyExists, Busy, Full, TooManyVariants};
    matches!(error, AlreadyExists(_) | Full | Busy | TooManyVariants)
}
