//! Hot bodies and records, kept in memory under a budget of bytes.

use std::sync::{Arc, RwLock};

use bytes::Bytes;
use moka::sync::Cache;

use crate::store::{MediaRecord, Removed, ThumbnailRecord};
use crate::types::{ContentHash, Mxc, ThumbnailSpec};

/// Bodies up to this size are kept: thumbnails and most pictures of a timeline.
const MAX_BODY: u64 = 256 * 1024;

/// The part of the budget that goes to records: one in so many.
const RECORDS_SHARE: u64 = 8;

/// What one entry costs beside its own bytes: the cache's bookkeeping and allocations.
const ENTRY_OVERHEAD: usize = 256;

/// What is kept in memory. Whoever changes or removes something in the store makes this forget it in the
/// same step; what was looked up before that step and would arrive after it is not taken.
pub(super) struct Memory {
    bodies: Cache<ContentHash, Bytes>,
    records: Cache<Mxc, Arc<MediaRecord>>,
    thumbnails: Cache<(ContentHash, ThumbnailSpec), Arc<ThumbnailRecord>>,
    enabled: bool,
    /// Counts the times that something was forgotten. Held while something is put in, so that a change
    /// is either seen there or comes after and takes it out.
    epoch: RwLock<u64>,
}

/// When something was looked up, as [`Memory`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl Memory {
    pub(super) fn new(budget: u64) -> Self {
        let records_budget = budget / RECORDS_SHARE;
        Self {
            bodies: Cache::builder()
                .max_capacity(budget - records_budget)
                .weigher(|_, body: &Bytes| weight(body.len()))
                .build(),
            records: Cache::builder()
                .max_capacity(records_budget / 2)
                .weigher(|mxc: &Mxc, record: &Arc<MediaRecord>| {
                    let names = mxc.server_name.as_str().len() + mxc.media_id.as_str().len();
                    let filename = record.filename.as_ref().map_or(0, |name| name.as_str().len());
                    let uploader = record.uploader.as_ref().map_or(0, |user| user.as_str().len());
                    let texts = record.content_type.as_str().len() + filename + uploader;
                    weight(2 * names + texts + 4 * record.blob.checksums.len())
                })
                .build(),
            thumbnails: Cache::builder()
                .max_capacity(records_budget / 2)
                .weigher(|_, record: &Arc<ThumbnailRecord>| weight(4 * record.blob.checksums.len()))
                .build(),
            enabled: budget > 0,
            epoch: RwLock::default(),
        }
    }

    /// To be called before something is looked up that may then be kept.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(*self.epoch.read().expect("nothing panics while it is counted"))
    }

    /// Puts something in unless anything was forgotten since it was looked up.
    fn keep(&self, since: Epoch, put: impl FnOnce()) {
        let epoch = self.epoch.read().expect("nothing panics while it is counted");
        if self.enabled && *epoch == since.0 {
            put();
        }
    }

    fn begin_epoch(&self) {
        *self.epoch.write().expect("nothing panics while it is counted") += 1;
    }

    pub(super) fn has_room_for(&self, size: u64) -> bool {
        self.enabled && size <= MAX_BODY
    }

    pub(super) fn body(&self, content_hash: &ContentHash) -> Option<Bytes> {
        self.bodies.get(content_hash)
    }

    pub(super) fn keep_body(&self, since: Epoch, content_hash: ContentHash, body: Bytes) {
        self.keep(since, || self.bodies.insert(content_hash, body));
    }

    pub(super) fn record(&self, mxc: &Mxc) -> Option<Arc<MediaRecord>> {
        self.records.get(mxc)
    }

    pub(super) fn keep_record(&self, since: Epoch, record: Arc<MediaRecord>) {
        self.keep(since, || self.records.insert(record.mxc.clone(), record));
    }

    pub(super) fn thumbnail(
        &self,
        source: ContentHash,
        spec: ThumbnailSpec,
    ) -> Option<Arc<ThumbnailRecord>> {
        self.thumbnails.get(&(source, spec))
    }

    pub(super) fn keep_thumbnail(
        &self,
        since: Epoch,
        source: ContentHash,
        spec: ThumbnailSpec,
        record: Arc<ThumbnailRecord>,
    ) {
        self.keep(since, || self.thumbnails.insert((source, spec), record));
    }

    /// Forgets what was taken out of the store.
    pub(super) fn forget(&self, removed: &Removed) {
        self.begin_epoch();
        removed.media.iter().for_each(|mxc| self.records.invalidate(mxc));
        removed.thumbnails.iter().for_each(|thumbnail| self.thumbnails.invalidate(thumbnail));
        removed.contents.iter().for_each(|content_hash| self.bodies.invalidate(content_hash));
    }

    /// Forgets the record of media, which has changed or gone.
    pub(super) fn forget_record(&self, mxc: &Mxc) {
        self.begin_epoch();
        self.records.invalidate(mxc);
    }

    /// Forgets a thumbnail's record, which has changed or gone.
    pub(super) fn forget_thumbnail(&self, source: ContentHash, spec: ThumbnailSpec) {
        self.begin_epoch();
        self.thumbnails.invalidate(&(source, spec));
    }

    /// Forgets a body.
    pub(super) fn forget_body(&self, content_hash: &ContentHash) {
        self.begin_epoch();
        self.bodies.invalidate(content_hash);
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BlobRecord, MediaSource};
    use crate::types::{
        ContentType, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, UnixMillis,
    };

    const SPEC: ThumbnailSpec = ThumbnailSpec {
        size: ThumbnailSize { width: 320, height: 240 },
        method: ThumbnailMethod::Scale,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    };

    fn thumbnail(blob: &BlobRecord) -> Arc<ThumbnailRecord> {
        Arc::new(ThumbnailRecord {
            blob: blob.clone(),
            content_type: ContentType::from_header(None),
            created_at: UnixMillis(0),
        })
    }

    #[test]
    fn bodies_stay_within_the_budget() {
        let memory = Memory::new(1024 * 1024);
        let since = memory.epoch();
        for number in 0..=255_u8 {
            memory.keep_body(
                since,
                ContentHash([number; 32]),
                Bytes::from(vec![number; 64 * 1024]),
            );
        }
        memory.bodies.run_pending_tasks();
        assert!(memory.bodies.weighted_size() <= 1024 * 1024);
        assert!(memory.bodies.entry_count() > 0);
    }

    fn record(media_id: &str, content: u8) -> Arc<MediaRecord> {
        Arc::new(MediaRecord {
            mxc: Mxc {
                server_name: "example.org".parse().unwrap(),
                media_id: media_id.parse().unwrap(),
            },
            blob: BlobRecord {
                content_hash: ContentHash([content; 32]),
                size: 4,
                checksums: [0].into(),
            },
            content_type: ContentType::from_header(None),
            filename: None,
            uploader: None,
            source: MediaSource::Remote,
            created_at: UnixMillis(0),
            legacy_readable: false,
        })
    }

    #[test]
    fn what_was_removed_is_forgotten_and_nothing_else() {
        let memory = Memory::new(1 << 20);
        let since = memory.epoch();
        let [gone, kept] = [record("gone", 1), record("kept", 2)];
        for record in [&gone, &kept] {
            let content_hash = record.blob.content_hash;
            memory.keep_record(since, record.clone());
            memory.keep_body(since, content_hash, Bytes::from_static(b"body"));
            memory.keep_thumbnail(since, content_hash, SPEC, thumbnail(&record.blob));
        }
        memory.forget(&Removed {
            media: vec![gone.mxc.clone()],
            thumbnails: vec![(gone.blob.content_hash, SPEC)],
            contents: vec![gone.blob.content_hash],
            bytes: 4,
        });
        for (record, is_kept) in [(&gone, false), (&kept, true)] {
            let content_hash = record.blob.content_hash;
            assert_eq!(memory.record(&record.mxc).is_some(), is_kept);
            assert_eq!(memory.body(&content_hash).is_some(), is_kept);
            assert_eq!(memory.thumbnail(content_hash, SPEC).is_some(), is_kept);
        }
    }

    #[test]
    fn what_was_looked_up_before_something_was_forgotten_is_not_kept() {
        let memory = Memory::new(1 << 20);
        let late = record("late", 1);
        let hash = late.blob.content_hash;
        let forget: [&dyn Fn(); 4] = [
            &|| memory.forget(&Removed::default()),
            &|| memory.forget_record(&late.mxc),
            &|| memory.forget_thumbnail(hash, SPEC),
            &|| memory.forget_body(&hash),
        ];
        for forget in forget {
            let since = memory.epoch();
            forget();
            memory.keep_record(since, late.clone());
            memory.keep_body(since, hash, Bytes::new());
            memory.keep_thumbnail(since, hash, SPEC, thumbnail(&late.blob));
            assert!(memory.record(&late.mxc).is_none());
            assert!(memory.body(&hash).is_none());
            assert!(memory.thumbnail(hash, SPEC).is_none());
        }
        memory.keep_record(memory.epoch(), late.clone());
        assert_eq!(memory.record(&late.mxc), Some(late));
    }

    #[test]
    fn a_budget_of_zero_keeps_nothing() {
        let memory = Memory::new(0);
        assert!(!memory.has_room_for(0));
    }

    #[test]
    fn large_bodies_have_no_room() {
        let memory = Memory::new(1 << 30);
        assert!(memory.has_room_for(MAX_BODY));
        assert!(!memory.has_room_for(MAX_BODY + 1));
    }
}
