//! Keeping a thumbnail that was made, as long as there are not too many of its content.

use std::sync::Arc;

use bytes::Bytes;

use crate::media::{MediaError, MediaService};
use crate::store::{NewThumbnail, StoreError, ThumbnailRecord};
use crate::thumbnail::Rendered;
use crate::types::{ContentHash, ContentType, ThumbnailSpec};

/// Why there is no kept thumbnail, for everybody who waited for it.
#[derive(Debug)]
pub(super) enum Unkept {
    /// It was made, but is one variant too many to keep.
    OneTooMany(Bytes, ContentType),
    /// It is the original, under its real type, and one variant too many.
    OriginalOneTooMany(ContentType),
    /// It was not made, or the store failed.
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
        let max_variants = self.thumbnails.max_variants;
        let new = |content_type| NewThumbnail { source, spec, content_type, max_variants };
        match rendered {
            Rendered::Original { content_type } => {
                let content_type = ContentType::from_header(Some(content_type.as_bytes()));
                let recorded = self.store.record_original_as_thumbnail(new(content_type.clone()));
                self.kept(recorded.await, || Unkept::OriginalOneTooMany(content_type))
            }
            Rendered::Encoded { bytes, content_type, .. } => {
                let body = Bytes::from(bytes);
                let content_type = ContentType::from_header(Some(content_type.as_bytes()));
                let committed = self.commit(&body, new(content_type.clone())).await;
                self.kept(committed, || Unkept::OneTooMany(body, content_type))
            }
        }
    }

    async fn commit(
        &self,
        body: &Bytes,
        thumbnail: NewThumbnail,
    ) -> Result<ThumbnailRecord, StoreError> {
        // Nothing is written for what will most likely not be kept.
        if self.store.thumbnail_count(&thumbnail.source)? >= thumbnail.max_variants {
            return Err(StoreError::TooManyVariants);
        }
        let mut staging = self.store.stage().await?;
        staging.write(body).await?;
        self.store.commit_thumbnail(staging, thumbnail).await
    }

    fn kept(
        &self,
        outcome: Result<ThumbnailRecord, StoreError>,
        one_too_many: impl FnOnce() -> Unkept,
    ) -> Result<Arc<ThumbnailRecord>, Unkept> {
        match outcome {
            Ok(record) => Ok(Arc::new(record)),
            Err(StoreError::TooManyVariants) => {
                self.metrics.thumbnails_not_kept.inc();
                Err(one_too_many())
            }
            Err(error) => Err(error.into()),
        }
    }
}
