//! What failed lately, so that it is not tried again soon.
//!
//! A file that is no whole picture fails in every size, so it is remembered by its content. What fails by
//! its cost may have failed because of what was asked for: were that remembered by content alone, the
//! dearest request that a stranger can think of would take everybody the smallest thumbnail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use super::{REMEMBERED, RenderKey};
use crate::thumbnail::ThumbnailError;
use crate::types::ContentHash;

/// How long it is remembered that a thumbnail cannot be made.
const LIFETIME: Duration = Duration::from_secs(60);

/// The same of one that cost a worker: it is the dearest request that a stranger can make.
const COSTLY_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// What would fail again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Every thumbnail of the content.
    Content(Duration),
    /// That thumbnail of it.
    Rendering(Duration),
    /// Perhaps nothing.
    Nothing,
}

impl Again {
    fn of(error: &ThumbnailError) -> Self {
        match error {
            ThumbnailError::Unsupported
            | ThumbnailError::Damaged(_)
            | ThumbnailError::Panicked(_) => Self::Content(LIFETIME),
            // Of a header that asks for too much, too: that is cheap to find again.
            ThumbnailError::TooLarge(_) => Self::Rendering(LIFETIME),
            ThumbnailError::Crashed(_) | ThumbnailError::TimedOut | ThumbnailError::OutOfMemory => {
                Self::Rendering(COSTLY_LIFETIME)
            }
            ThumbnailError::Busy | ThumbnailError::Unavailable | ThumbnailError::Io(_) => {
                Self::Nothing
            }
        }
    }
}

/// What failed lately, and how.
pub(super) struct Failures {
    of_contents: Cache<ContentHash, Arc<ThumbnailError>>,
    of_renderings: Cache<RenderKey, Arc<ThumbnailError>>,
}

impl Failures {
    pub(super) fn new() -> Self {
        Self {
            of_contents: Cache::builder()
                .max_capacity(REMEMBERED)
                .expire_after(AsLongAsItLasts)
                .build(),
            of_renderings: Cache::builder()
                .max_capacity(REMEMBERED)
                .expire_after(AsLongAsItLasts)
                .build(),
        }
    }

    /// Returns why a thumbnail could not be made lately.
    pub(super) async fn find(&self, key: &RenderKey) -> Option<Arc<ThumbnailError>> {
        match self.find_of_content(&key.0).await {
            Some(error) => Some(error),
            None => self.of_renderings.get(key).await,
        }
    }

    /// Returns why no thumbnail of a content could be made lately.
    pub(super) async fn find_of_content(
        &self,
        content_hash: &ContentHash,
    ) -> Option<Arc<ThumbnailError>> {
        self.of_contents.get(content_hash).await
    }

    /// Remembers why a thumbnail could not be made, for as long as it is worth.
    pub(super) async fn note(&self, key: RenderKey, error: &Arc<ThumbnailError>) {
        match Again::of(error) {
            Again::Content(_) => self.of_contents.insert(key.0, error.clone()).await,
            Again::Rendering(_) => self.of_renderings.insert(key, error.clone()).await,
            Again::Nothing => {}
        }
    }

    /// Remembers why several thumbnails could not be made at once, if that is because of the content: what
    /// they cost together says nothing of any one of them.
    pub(super) async fn note_of_several(
        &self,
        content_hash: ContentHash,
        error: &Arc<ThumbnailError>,
    ) {
        if let Again::Content(_) = Again::of(error) {
            self.of_contents.insert(content_hash, error.clone()).await;
        }
    }
}

/// A failure is remembered for as long as its kind is.
struct AsLongAsItLasts;

impl<K> Expiry<K, Arc<ThumbnailError>> for AsLongAsItLasts {
    fn expire_after_create(
        &self,
        _: &K,
        error: &Arc<ThumbnailError>,
        _: Instant,
    ) -> Option<Duration> {
        match Again::of(error) {
            Again::Content(lifetime) | Again::Rendering(lifetime) => Some(lifetime),
            Again::Nothing => Some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec};

    const CONTENT: ContentHash = ContentHash([7; 32]);

    fn key(side: u32, animated: bool) -> RenderKey {
        let spec = ThumbnailSpec {
            size: ThumbnailSize { width: side, height: side },
            method: ThumbnailMethod::Crop,
            animated,
            encoding: ThumbnailEncoding::Universal,
        };
        (CONTENT, spec)
    }

    fn costly() -> [ThumbnailError; 4] {
        [
            ThumbnailError::TimedOut,
            ThumbnailError::OutOfMemory,
            ThumbnailError::Crashed(String::new()),
            ThumbnailError::TooLarge("33 thumbnails at once".to_owned()),
        ]
    }

    fn of_content() -> [ThumbnailError; 3] {
        [
            ThumbnailError::Unsupported,
            ThumbnailError::Damaged(String::new()),
            ThumbnailError::Panicked(String::new()),
        ]
    }

    #[tokio::test]
    async fn what_is_asked_for_at_great_cost_takes_nobody_the_small_one() {
        for error in costly() {
            let failures = Failures::new();
            failures.note(key(4096, true), &Arc::new(error)).await;
            assert!(failures.find(&key(4096, true)).await.is_some());
            for other in [key(32, false), key(4096, false), key(32, true)] {
                assert!(failures.find(&other).await.is_none());
            }
            assert!(failures.find_of_content(&CONTENT).await.is_none());
        }
    }

    #[tokio::test]
    async fn what_is_no_picture_is_none_in_any_size() {
        for error in of_content() {
            let failures = Failures::new();
            failures.note(key(4096, true), &Arc::new(error)).await;
            assert!(failures.find(&key(32, false)).await.is_some());
        }
    }

    #[tokio::test]
    async fn of_several_at_once_only_what_is_the_contents_fault_is_remembered() {
        for (errors, is_remembered) in
            [(Vec::from(costly()), false), (Vec::from(of_content()), true)]
        {
            for error in errors {
                let failures = Failures::new();
                failures.note_of_several(CONTENT, &Arc::new(error)).await;
                assert_eq!(failures.find(&key(32, false)).await.is_some(), is_remembered);
            }
        }
    }

    #[tokio::test]
    async fn what_may_go_well_the_next_time_is_not_remembered() {
        for error in [ThumbnailError::Busy, ThumbnailError::Unavailable] {
            let failures = Failures::new();
            failures.note(key(32, false), &Arc::new(error)).await;
            assert!(failures.find(&key(32, false)).await.is_none());
        }
    }
}
