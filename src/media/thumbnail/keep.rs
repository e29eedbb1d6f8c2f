//! Keeping a thumbnail that was made, as long as there are not too many of its content. One that cannot be
//! kept was made all the same, and is answered.

use std::sync::Arc;

use bytes::Bytes;

use crate::media::{MediaError, MediaService};
use crate::store::{NewThumbnail, StoreError, ThumbnailRecord};
use crate::thumbnail::Rendered;
use crate::types::{ContentHash, ContentType, ThumbnailSpec};

/// Why there is no kept thumbnail, for everybody who waited for it.
#[derive(Debug)]
pub(super) enum Unkept {
    /// It was made, but is one variant too many to keep, or the store failed.
    Made { body: Bytes, content_hash: ContentHash, content_type: ContentType },
    /// The same, and it is the original under its real type.
    Original(ContentType),
    /// It was not made, or what it was made of is gone.
    Failed(Arc<MediaError>),
}

impl<E: Into<MediaError>> From<E> for Unkept {
    fn from(error: E) -> Self {
        Self::Failed(Arc::new(error.into()))
    }
}

impl MediaService {
    /// Keeps what was made of a content. The store counts once more in the same step in which it
    /// records, so that those who come at the same time are not one too many together.
    pub(super) async fn keep_thumbnail(
        &self,
        source: ContentHash,
        spec: ThumbnailSpec,
        rendered: Rendered,
    ) -> Result<Arc<ThumbnailRecord>, Unkept> {
        let new = |content_type| NewThumbnail {
            source,
            spec,
            content_type,
            max_variants: self.thumbnails.max_variants,
            exempt: self.renders.always_kept.clone(),
        };
        match rendered {
            Rendered::Original { content_type } => {
                let content_type = ContentType::from_header(Some(content_type.as_bytes()));
                let recorded = self.store.record_original_as_thumbnail(new(content_type.clone()));
                match self.kept(source, recorded.await)? {
                    Some(record) => Ok(record),
                    None => Err(Unkept::Original(content_type)),
                }
            }
            Rendered::Encoded { bytes, content_type, .. } => {
                let body = Bytes::from(bytes);
                let content_type = ContentType::from_header(Some(content_type.as_bytes()));
                let committed = self.commit(&body, new(content_type.clone())).await;
                match self.kept(source, committed)? {
                    Some(record) => Ok(record),
                    None => {
                        let content_hash = self.store.name_of(body.clone()).await?;
                        Err(Unkept::Made { body, content_hash, content_type })
                    }
                }
            }
        }
    }

    async fn commit(
        &self,
        body: &Bytes,
        thumbnail: NewThumbnail,
    ) -> Result<ThumbnailRecord, StoreError> {
        // Nothing is written for what will most likely not be kept.
        if !self.store.has_room_for(&thumbnail)? {
            return Err(StoreError::TooManyVariants);
        }
        let mut staging = self.store.stage().await?;
        staging.write(body).await?;
        self.store.commit_thumbnail(staging, thumbnail).await
    }

    /// Returns what is kept now; `None` if nothing is, and all there is to do about it is to say so.
    fn kept(
        &self,
        source: ContentHash,
        outcome: Result<ThumbnailRecord, StoreError>,
    ) -> Result<Option<Arc<ThumbnailRecord>>, Unkept> {
        match outcome {
            Ok(record) => return Ok(Some(Arc::new(record))),
            Err(StoreError::TooManyVariants) => {}
            // What it was made of is gone: whoever asked looks for it anew.
            Err(error @ StoreError::Missing { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%source, %error, "a thumbnail is not kept");
            }
        }
        self.metrics.thumbnails_not_kept.inc();
        Ok(None)
    }
}
