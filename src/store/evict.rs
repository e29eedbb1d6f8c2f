//! Record before blob: making room by letting go of what can be had again.

use super::{Inner, StoreError};
use crate::types::{ContentHash, Mxc, ThumbnailSpec};

/// How many contents go in one transaction. Each changes some pages that no other does, as hashes are
/// spread, and commits wait behind all of them.
const BATCH: u64 = 64;

/// How many go at once when the disk is full, so that their records fit into the space held back.
const BATCH_ON_A_FULL_DISK: u64 = 4;

/// How many access times are kept in one transaction, for the same reason.
const TOUCHES: usize = 2048;

/// What was taken out of the store. Whoever remembers any of it has to forget it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Media that has no record any more.
    pub media: Vec<Mxc>,
    /// Thumbnails that have no record any more, by the content they were made of.
    pub thumbnails: Vec<(ContentHash, ThumbnailSpec)>,
    /// Contents that no record names any more.
    pub contents: Vec<ContentHash>,
    /// The bytes of these contents.
    pub bytes: u64,
}

impl Inner {
    /// Removes what was not read for the longest time, one batch of it.
    pub(super) fn evict(&self, bytes: u64) -> Result<Removed, StoreError> {
        let kept = self.keep_touches();
        let removed = match kept.and_then(|()| self.metadata.evict(bytes, BATCH)) {
            // The access times may need more room than is held back; making room matters more.
            Err(StoreError::Full) => {
                if self.reserve.release() {
                    tracing::info!("the disk is full; evicting with the space held back for it");
                }
                let removed = self.metadata.evict(bytes, BATCH_ON_A_FULL_DISK);
                removed.inspect_err(|_| self.reserve.hold())
            }
            outcome => outcome,
        }?;
        self.tally_cache();
        for content_hash in &removed.contents {
            self.tidy(content_hash);
        }
        self.reserve.hold();
        Ok(removed)
    }

    /// Keeps the access times that were noted, or leaves them noted.
    pub(super) fn keep_touches(&self) -> Result<(), StoreError> {
        let touches = self.touches.take();
        let kept = touches.chunks(TOUCHES).try_for_each(|some| self.metadata.touch(some.to_vec()));
        if kept.is_err() {
            touches.iter().for_each(|(content_hash, at)| self.touches.note(content_hash, *at));
        }
        kept
    }

    /// Tells those who watch the cache how large it is now.
    pub(super) fn tally_cache(&self) {
        self.cache.send_if_modified(|known| match self.metadata.cached() {
            // Asked while the others who would tell wait, so that the last word is the latest.
            Ok(tally) => std::mem::replace(known, tally) != tally,
            Err(error) => {
                tracing::warn!(%error, "the size of the cache cannot be read");
                false
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{
        SPEC, body, entries, new_thumbnail, open, path_of, put, put_from, put_thumbnail, read,
        stage,
    };
    use crate::store::{MediaRecord, MediaSource, Store, Swept, Tally};
    use crate::types::UnixMillis;
    use std::time::Duration;
    use tempfile::TempDir;

    async fn put_remote(store: &Store, media_id: &str, length: usize) -> MediaRecord {
        let mut body = body(length);
        body[..media_id.len()].copy_from_slice(media_id.as_bytes());
        put_from(store, media_id, &body, MediaSource::Remote).await
    }

    /// A time after everything that is stored.
    fn later(seconds: u64) -> UnixMillis {
        UnixMillis::now().plus(Duration::from_secs(10)).plus(Duration::from_secs(seconds))
    }

    fn is_held(directory: &TempDir, store: &Store, record: &MediaRecord) -> bool {
        let is_recorded = store.media(&record.mxc).unwrap().is_some();
        assert_eq!(path_of(directory, &record.blob).exists(), is_recorded);
        assert_eq!(store.holds(&record.blob.content_hash).unwrap(), is_recorded);
        is_recorded
    }

    #[tokio::test]
    async fn the_longest_unread_goes_first_and_no_more_than_is_needed() {
        let (directory, store) = open();
        let mut records = Vec::new();
        for (number, read_at) in [3, 1, 4, 2].into_iter().enumerate() {
            let record = put_remote(&store, &format!("m{number}"), 1000).await;
            store.touch(&record.blob.content_hash, later(read_at));
            records.push(record);
        }
        assert_eq!(store.cached(), Tally { count: 4, bytes: 4000 });
        let removed = store.evict(1001).await.unwrap();
        assert_eq!(removed.media, [records[1].mxc.clone(), records[3].mxc.clone()]);
        assert_eq!(removed.bytes, 2000);
        assert_eq!(store.cached(), Tally { count: 2, bytes: 2000 });
        let held: Vec<_> = records.iter().map(|r| is_held(&directory, &store, r)).collect();
        assert_eq!(held, [true, false, true, false]);
        assert_eq!(store.evict(0).await.unwrap(), Removed::default());
    }

    #[tokio::test]
    async fn access_times_survive_a_restart_once_they_are_kept() {
        let (directory, store) = open();
        let first = put_remote(&store, "first", 1000).await;
        let second = put_remote(&store, "second", 1000).await;
        let stored_at = UnixMillis::now();
        while UnixMillis::now() == stored_at {
            std::thread::yield_now();
        }
        store.touch(&first.blob.content_hash, UnixMillis::now());
        store.keep_touches().await.unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.cached(), Tally { count: 2, bytes: 2000 });
        assert_eq!(store.evict(1).await.unwrap().media, [second.mxc]);
    }

    #[tokio::test]
    async fn owned_media_never_goes_nor_what_shares_its_content() {
        let (directory, store) = open();
        let owned = put(&store, "owned", b"owned").await;
        let copy = put_from(&store, "copy", b"owned", MediaSource::Remote).await;
        let cached = put_from(&store, "cached", b"cached", MediaSource::Remote).await;
        assert_eq!(store.cached(), Tally { count: 1, bytes: 6 });
        put(&store, "uploaded-too", b"cached").await;
        assert_eq!(store.cached(), Tally::default());
        assert_eq!(store.evict(u64::MAX).await.unwrap(), Removed::default());
        for record in [&owned, &copy, &cached] {
            assert!(is_held(&directory, &store, record));
        }
    }

    #[tokio::test]
    async fn thumbnails_are_counted_and_go_with_their_media() {
        let (directory, store) = open();
        let media = put_remote(&store, "media", 1000).await;
        let source = media.blob.content_hash;
        let thumbnail = put_thumbnail(&store, &media, b"thumbnail").await;
        assert_eq!(store.cached(), Tally { count: 2, bytes: 1009 });
        store.touch(&thumbnail.blob.content_hash, later(0));
        let removed = store.evict(1).await.unwrap();
        assert_eq!(removed.media, [media.mxc]);
        assert_eq!(removed.thumbnails, [(source, SPEC)]);
        assert_eq!((removed.contents.len(), removed.bytes), (2, 1009));
        assert_eq!(store.thumbnail(&source, &SPEC).unwrap(), None);
        assert!(!path_of(&directory, &thumbnail.blob).exists());
        assert_eq!(store.cached(), Tally::default());
    }

    #[tokio::test]
    async fn a_thumbnail_of_owned_media_goes_alone() {
        let (directory, store) = open();
        let media = put(&store, "media", b"large picture").await;
        let thumbnail = put_thumbnail(&store, &media, b"small").await;
        assert_eq!(store.cached(), Tally { count: 1, bytes: 5 });
        let removed = store.evict(u64::MAX).await.unwrap();
        assert_eq!(removed.thumbnails, [(media.blob.content_hash, SPEC)]);
        assert_eq!(removed.contents, [thumbnail.blob.content_hash]);
        assert!(is_held(&directory, &store, &media));
    }

    #[tokio::test]
    async fn an_original_that_is_its_own_thumbnail_goes_once() {
        let (_directory, store) = open();
        let media = put_remote(&store, "media", 1000).await;
        let hash = media.blob.content_hash;
        store.record_original_as_thumbnail(new_thumbnail(&media, SPEC)).await.unwrap();
        assert_eq!(store.cached(), Tally { count: 1, bytes: 1000 });
        let removed = store.evict(u64::MAX).await.unwrap();
        assert_eq!((removed.contents, removed.bytes), (vec![hash], 1000));
        assert_eq!(removed.thumbnails, [(hash, SPEC)]);
    }

    #[tokio::test]
    async fn many_go_in_batches_until_nothing_is_left() {
        let (directory, store) = open();
        for number in 0..BATCH + 3 {
            put_remote(&store, &format!("m{number}"), 10).await;
        }
        assert_eq!(store.evict(u64::MAX).await.unwrap().contents.len() as u64, BATCH);
        assert_eq!(store.evict(u64::MAX).await.unwrap().contents.len(), 3);
        assert_eq!(store.evict(u64::MAX).await.unwrap(), Removed::default());
        assert_eq!(
            store.sweep_orphans(|| false).await.unwrap(),
            Swept { complete: true, ..Swept::default() }
        );
        assert_eq!(entries(&directory, "tmp"), 0);
    }

    #[tokio::test]
    async fn a_reader_that_was_there_before_reads_to_the_end() {
        let (directory, store) = open();
        let media = put_remote(&store, "media", 300_000).await;
        let mut reader = store.open_blob(&media.blob).unwrap();
        let mut length = reader.next_chunk().await.unwrap().unwrap().len();
        store.evict(1).await.unwrap();
        assert!(!is_held(&directory, &store, &media));
        while let Some(chunk) = reader.next_chunk().await.unwrap() {
            length += chunk.len();
        }
        assert_eq!(length, 300_000);
        let missing = read(&store, &media.blob).await;
        assert!(matches!(missing, Err(StoreError::Missing { .. })));
    }

    #[tokio::test]
    async fn a_body_that_is_being_published_stays() {
        let (directory, store) = open();
        let media = put_from(&store, "media", b"body", MediaSource::Remote).await;
        let settled = stage(&store, b"body").await.settle().await.unwrap();
        let (blob, published) = store.inner.publish(settled).unwrap();
        assert_eq!(store.evict(1).await.unwrap().contents, [blob.content_hash]);
        assert!(path_of(&directory, &blob).exists(), "its record may still come");
        let again = crate::store::tests::new_media("again", MediaSource::Remote);
        let again = store.inner.metadata.insert_media(again.with_blob(blob)).unwrap();
        drop(published);
        assert_eq!(store.media(&media.mxc).unwrap(), None);
        assert_eq!(read(&store, &again.blob).await.unwrap(), b"body");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_is_evicted_as_soon_as_it_is_recorded_leaves_no_file() {
        let (_directory, store) = open();
        let evicting = tokio::spawn({
            let store = store.clone();
            async move {
                let mut evicted = 0;
                while evicted < 100 {
                    evicted += store.evict(u64::MAX).await.unwrap().contents.len();
                }
            }
        });
        for number in 0..100 {
            put_remote(&store, &format!("media{number}"), 100).await;
        }
        evicting.await.unwrap();
        let swept = store.sweep_orphans(|| false).await.unwrap();
        assert_eq!(swept, Swept { complete: true, ..Swept::default() });
    }

    #[tokio::test]
    async fn that_the_cache_exceeds_its_size_is_known_at_once() {
        let (_directory, store) = open();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.cached_exceeds(1999).await }
        });
        put_remote(&store, "first", 1000).await;
        assert!(!waiting.is_finished());
        put_remote(&store, "second", 1000).await;
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
        store.cached_exceeds(1999).await;
    }

    #[tokio::test]
    async fn the_free_space_is_that_of_the_file_system() {
        let (_directory, store) = open();
        assert!(store.free_bytes().await.unwrap() > 0);
    }
}
