//! Hot bodies and records, kept in memory under a budget of bytes.

use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache;

use crate::store::{MediaRecord, ThumbnailRecord};
use crate::types::{ContentHash, Mxc, ThumbnailSpec};

/// Bodies up to this size are kept: thumbnails and most pictures of a timeline.
const MAX_BODY: u64 = 256 * 1024;

/// The part of the budget that goes to records: one in so many.
const RECORDS_SHARE: u64 = 8;

/// What one entry costs beside its own bytes: the cache's bookkeeping and allocations.
const ENTRY_OVERHEAD: usize = 256;

/// What is kept in memory. Bodies go by their hash and are never out of date; records are forgotten
/// by whoever changes them.
pub(super) struct Memory {
    bodies: Cache<ContentHash, Bytes>,
    records: Cache<Mxc, Arc<MediaRecord>>,
    thumbnails: Cache<(ContentHash, ThumbnailSpec), Arc<ThumbnailRecord>>,
    enabled: bool,
}

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
        }
    }

    pub(super) fn has_room_for(&self, size: u64) -> bool {
        self.enabled && size <= MAX_BODY
    }

    pub(super) fn body(&self, content_hash: &ContentHash) -> Option<Bytes> {
        self.bodies.get(content_hash)
    }

    pub(super) fn keep_body(&self, content_hash: ContentHash, body: Bytes) {
        self.bodies.insert(content_hash, body);
    }

    pub(super) fn record(&self, mxc: &Mxc) -> Option<Arc<MediaRecord>> {
        self.records.get(mxc)
    }

    pub(super) fn keep_record(&self, record: Arc<MediaRecord>) {
        if self.enabled {
            self.records.insert(record.mxc.clone(), record);
        }
    }

    pub(super) fn forget_record(&self, mxc: &Mxc) {
        self.records.invalidate(mxc);
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
        source: ContentHash,
        spec: ThumbnailSpec,
        record: Arc<ThumbnailRecord>,
    ) {
        if self.enabled {
            self.thumbnails.insert((source, spec), record);
        }
    }

    pub(super) fn forget_everything(&self) {
        self.bodies.invalidate_all();
        self.records.invalidate_all();
        self.thumbnails.invalidate_all();
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_stay_within_the_budget() {
        let memory = Memory::new(1024 * 1024);
        for number in 0..=255_u8 {
            memory.keep_body(ContentHash([number; 32]), Bytes::from(vec![number; 64 * 1024]));
        }
        memory.bodies.run_pending_tasks();
        assert!(memory.bodies.weighted_size() <= 1024 * 1024);
        assert!(memory.bodies.entry_count() > 0);
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
