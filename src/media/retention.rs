//! The cache has a size: what can be had again goes when room is needed, the longest unread first.

use std::sync::{Mutex, MutexGuard};

use super::{MediaBody, MediaError, MediaService};
use crate::store::{BlobRecord, MediaRecord, MediaSource, StoreError, ThumbnailRecord};
use crate::types::{Mxc, ThumbnailSpec, UnixMillis};

/// A round makes room for a little more than is missing, one part in so many of the cache, so that not
/// every commit to a full cache needs a round of its own.
const HEADROOM: u64 = 128;

/// For how many rounds space that was evicted may take to become free before more is evicted for it: a
/// file system may free it later, and a body that is being read keeps its own until its reader is done.
const PATIENCE: u32 = 12;

/// Bounds on what is kept although it can be had again, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct CacheLimits {
    /// How large it may be together.
    pub max_bytes: u64,
    /// How much of the file system it leaves free; zero for no such bound.
    pub min_free_bytes: u64,
}

impl CacheLimits {
    /// Returns how many bytes have to go from a cache of this size.
    fn excess(self, cached: u64) -> u64 {
        let low = self.max_bytes - self.max_bytes / HEADROOM;
        if cached > self.max_bytes { cached - low } else { 0 }
    }
}

/// The limits, and what is known of a disk that is too full.
pub(super) struct Retention {
    limits: CacheLimits,
    scarcity: Mutex<Scarcity>,
}

impl Retention {
    pub(super) fn new(limits: CacheLimits) -> Self {
        Self { limits, scarcity: Mutex::default() }
    }

    fn scarcity(&self) -> MutexGuard<'_, Scarcity> {
        self.scarcity.lock().expect("nothing panics while it is locked")
    }
}

impl MediaService {
    /// Returns once the cache is larger than it may be.
    pub async fn cache_overflows(&self) {
        self.store.cached_exceeds(self.retention.limits.max_bytes).await;
    }

    /// Does what has to be done now and then: keeps access times, makes room, counts.
    ///
    /// Returns how many bytes were evicted. Asks `stop` between short steps and ends early once it says
    /// `true`.
    ///
    /// # Errors
    ///
    /// The store's; what was evicted until then stays evicted.
    pub async fn tend(&self, stop: impl Fn() -> bool + Send) -> Result<u64, StoreError> {
        let kept = self.store.keep_touches().await;
        let limits = self.retention.limits;
        let free = self.store.free_bytes().await?;
        let lacking = self.retention.scarcity().lacking(free, limits.min_free_bytes);
        let goal = limits.excess(self.store.cached().bytes).max(lacking);
        let evicted = self.evict(goal, stop).await;
        let free_now = self.store.free_bytes().await?;
        self.metrics.cache.bytes.set(gauge(self.store.cached().bytes));
        self.metrics.cache.limit.set(gauge(limits.max_bytes));
        self.metrics.cache.free.set(gauge(free_now));
        let evicted = evicted?;
        if lacking > 0 {
            let is_all = self.store.cached().count == 0;
            self.retention.scarcity().judge(free, evicted, free_now, is_all);
        }
        // On a full disk they can only be kept once something was evicted, which does that too.
        if evicted == 0 { kept.map(|()| 0) } else { Ok(evicted) }
    }

    /// Evicts at least so many bytes if there are as many, and returns how many it were.
    async fn evict(&self, bytes: u64, stop: impl Fn() -> bool + Send) -> Result<u64, StoreError> {
        let mut evicted = 0;
        while evicted < bytes && !stop() {
            let removed = self.store.evict(bytes - evicted).await?;
            self.memory.forget(&removed);
            if removed.contents.is_empty() {
                break;
            }
            evicted += removed.bytes;
            self.metrics.cache.evictions.inc_by(removed.contents.len() as u64);
            self.metrics.cache.evicted_bytes.inc_by(removed.bytes);
            tracing::debug!(
                bodies = removed.contents.len(),
                bytes = removed.bytes,
                "evicted what was not read for the longest time"
            );
        }
        Ok(evicted)
    }

    /// Notes that media is read, also if it is read from memory: what is hot there must not be old here.
    pub(super) fn touch(&self, record: &MediaRecord) {
        if record.source != MediaSource::Owned {
            self.store.touch(&record.blob.content_hash, UnixMillis::now());
        }
    }

    /// Opens the body of media. `None` if it was evicted since its record was looked up.
    pub(super) async fn open_media(
        &self,
        record: &MediaRecord,
    ) -> Result<Option<MediaBody>, StoreError> {
        self.touch(record);
        let opened = self.open_unless_evicted(&record.blob).await;
        // If it is not what is wrong, it is had again at little cost.
        if !matches!(opened, Ok(Some(_))) {
            self.memory.forget_record(&record.mxc);
        }
        opened
    }

    /// Opens the body of a thumbnail. `None` as [`open_media`](Self::open_media).
    pub(super) async fn open_thumbnail(
        &self,
        source: &MediaRecord,
        spec: ThumbnailSpec,
        thumbnail: &ThumbnailRecord,
    ) -> Result<Option<MediaBody>, StoreError> {
        self.store.touch(&thumbnail.blob.content_hash, UnixMillis::now());
        let opened = self.open_unless_evicted(&thumbnail.blob).await;
        if !matches!(opened, Ok(Some(_))) {
            self.memory.forget_thumbnail(source.blob.content_hash, spec);
        }
        opened
    }

    async fn open_unless_evicted(
        &self,
        blob: &BlobRecord,
    ) -> Result<Option<MediaBody>, StoreError> {
        match self.open_blob(blob).await {
            Err(error) if self.is_evicted(&error) => Ok(None),
            // It was evicted, and has come back since.
            Err(StoreError::Missing { .. }) => self.open_blob(blob).await.map(Some),
            outcome => outcome.map(Some),
        }
    }

    /// Whether a body is missing because it was evicted since its record was looked up, which is no
    /// damage.
    pub(super) fn is_evicted(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Missing { content_hash } => {
                self.store.holds(content_hash).is_ok_and(|is_held| !is_held)
            }
            _ => false,
        }
    }

    /// Whether an operation on media failed because something was evicted under it. If so, its record is
    /// forgotten, and the operation is worth another try.
    pub(super) fn lost_to_eviction(&self, mxc: &Mxc, error: &MediaError) -> bool {
        match error {
            MediaError::Shared(error) => self.lost_to_eviction(mxc, error),
            MediaError::Store(error) if self.is_evicted(error) => {
                self.memory.forget_record(mxc);
                true
            }
            _ => false,
        }
    }
}

/// What is known of a file system that has less free than it should.
#[derive(Default)]
struct Scarcity {
    /// What was said of it, so that it is said once.
    told: Option<Trouble>,
    /// What is to become free of what was evicted, and for how many rounds that is waited for.
    awaited: Option<(u64, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    NothingLeft,
    NotFreed,
}

impl Scarcity {
    /// Returns how many bytes should be evicted for the sake of the file system.
    fn lacking(&mut self, free: u64, min_free: u64) -> u64 {
        if free >= min_free {
            if self.told.is_some() {
                tracing::info!(
                    free_bytes = free,
                    "there is as much free space as storage.min_free again"
                );
            }
            *self = Self::default();
            return 0;
        }
        if let Some((hoped_for, rounds)) = &mut self.awaited
            && free < *hoped_for
            && *rounds > 0
        {
            *rounds -= 1;
            return 0;
        }
        min_free - free
    }

    /// Looks what came of an eviction.
    fn judge(&mut self, before: u64, evicted: u64, after: u64, is_all: bool) {
        let hoped_for = before.saturating_add(evicted / 2);
        let is_freed = after >= hoped_for;
        self.awaited = (!is_freed).then_some((hoped_for, PATIENCE));
        if is_all {
            self.tell(Trouble::NothingLeft, after);
        } else if !is_freed {
            self.tell(Trouble::NotFreed, after);
        }
    }

    fn tell(&mut self, trouble: Trouble, free: u64) {
        if self.told.replace(trouble) == Some(trouble) {
            return;
        }
        match trouble {
            Trouble::NothingLeft => tracing::warn!(
                free_bytes = free,
                "there is less free space than storage.min_free, and nothing is left to evict; make \
                 room, or lower storage.min_free"
            ),
            Trouble::NotFreed => tracing::warn!(
                free_bytes = free,
                "there is less free space than storage.min_free, and what was evicted has not become \
                 free; it may be still in use"
            ),
        }
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homeserver::{Homeserver, Upstream};
    use crate::media::{
        Clock, FetchLimits, Freeze, Limits, MediaItem, OtherServers, Parts, Reader, Search,
        ThumbnailRequest, ThumbnailRules,
    };
    use crate::metrics::Metrics;
    use crate::store::{NewMedia, Store};
    use crate::thumbnail::{self, Ladder, ThumbnailEngine};
    use crate::types::{ContentType, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize};
    use std::sync::Arc;
    use std::time::Duration;
    use tempfile::TempDir;

    /// A service whose homeserver nobody can reach, so that a miss is an error that is not damage.
    fn service(cache: CacheLimits) -> (TempDir, MediaService) {
        let directory = TempDir::new().unwrap();
        let url = "http://127.0.0.1:1".parse().unwrap();
        let upstream = Arc::new(Upstream::new(url, Duration::from_secs(1)));
        let homeserver = Homeserver::new(upstream, Duration::from_secs(1));
        homeserver.set_name("example.org".parse().unwrap());
        let service = MediaService::new(Parts {
            store: Store::open(directory.path()).unwrap(),
            homeserver,
            servers: OtherServers::default(),
            engine: ThumbnailEngine::new(thumbnail::EngineSettings::in_threads(
                thumbnail::Capacity { workers: 1, queue: 1 },
                thumbnail::Limits { max_pixels: 1_000_000, ..thumbnail::Limits::default() },
            ))
            .unwrap(),
            thumbnails: ThumbnailRules {
                ladder: Ladder::new(vec!["32x32 crop".parse().unwrap()]),
                max_variants: 64,
                on_upload: false,
                webp: false,
            },
            memory_bytes: 1 << 20,
            cache,
            limits: Limits {
                unused_expiry: Duration::from_secs(1),
                fetches: FetchLimits {
                    max_size: 1 << 20,
                    max_fetches: 1,
                    max_per_server: 1,
                    max_unfinished: 1 << 20,
                    max_duration: Duration::MAX,
                },
            },
            clock: Clock::system(),
            freeze: Freeze::open(),
            admin_token: None,
            metrics: Arc::new(Metrics::new().unwrap()),
        });
        (directory, service)
    }

    fn mxc(media_id: &str) -> Mxc {
        Mxc { server_name: "other.example".parse().unwrap(), media_id: media_id.parse().unwrap() }
    }

    async fn put(service: &MediaService, media_id: &str, body: &[u8]) -> Mxc {
        let mut staging = service.store.stage().await.unwrap();
        staging.write(body).await.unwrap();
        let media = NewMedia {
            mxc: mxc(media_id),
            content_type: ContentType::from_header(Some(b"image/png")),
            filename: None,
            uploader: None,
            source: MediaSource::Remote,
            created_at: UnixMillis(0),
            legacy_readable: false,
        };
        service.store.commit_media(staging, media).await.unwrap().mxc
    }

    /// Whether the homeserver was asked, which cannot be reached.
    fn is_miss(read: Result<MediaItem, MediaError>) -> bool {
        let Err(MediaError::Shared(error)) = read else { return false };
        matches!(*error, MediaError::Homeserver(_))
    }

    const SEARCH: Search =
        Search { wait: Duration::ZERO, allow_remote: true, allow_redirect: false };
    const UNBOUNDED: CacheLimits = CacheLimits { max_bytes: 1 << 40, min_free_bytes: 0 };

    #[tokio::test]
    async fn what_was_evicted_under_its_reader_is_a_miss_and_no_damage() {
        let (_directory, service) = service(UNBOUNDED);
        // Too large to be kept in memory whole, so that the body is looked for on disk.
        let mxc = put(&service, "media", &[7; 300_000]).await;
        let item = service.download(Reader::Anybody, &mxc, SEARCH).await.unwrap();
        assert_eq!(item.body.size(), Some(300_000));
        assert!(service.memory.record(&mxc).is_some());
        // As if it was evicted after the look-up: memory was not told.
        service.store.evict(1).await.unwrap();
        let missed = service.download(Reader::Anybody, &mxc, SEARCH).await;
        assert!(is_miss(missed), "it asks the homeserver");
        assert!(service.memory.record(&mxc).is_none());
        let request = ThumbnailRequest {
            size: ThumbnailSize { width: 32, height: 32 },
            method: ThumbnailMethod::Crop,
            animated: false,
            encoding: ThumbnailEncoding::Universal,
        };
        let thumbnail = service.thumbnail(Reader::Anybody, &mxc, request, SEARCH).await;
        assert!(is_miss(thumbnail));
        assert_eq!(service.metrics.corrupt_blobs.get(), 0);
    }

    #[tokio::test]
    async fn a_thumbnail_whose_source_was_evicted_under_it_asks_for_it_again() {
        let (_directory, service) = service(UNBOUNDED);
        let mxc = put(&service, "media", &[7; 300_000]).await;
        service.download(Reader::Anybody, &mxc, SEARCH).await.unwrap();
        service.store.evict(1).await.unwrap();
        let size = ThumbnailSize { width: 32, height: 32 };
        let (method, encoding) = (ThumbnailMethod::Crop, ThumbnailEncoding::Universal);
        let request = ThumbnailRequest { size, method, animated: false, encoding };
        let thumbnail = service.thumbnail(Reader::Anybody, &mxc, request, SEARCH).await;
        assert!(is_miss(thumbnail));
        assert_eq!(service.metrics.corrupt_blobs.get(), 0);
    }

    #[tokio::test]
    async fn a_body_that_is_gone_while_its_record_stands_is_damage() {
        let (directory, service) = service(UNBOUNDED);
        let mxc = put(&service, "media", &[7; 300_000]).await;
        std::fs::remove_dir_all(directory.path().join("blobs")).unwrap();
        let missed = service.download(Reader::Anybody, &mxc, SEARCH).await;
        assert!(is_miss(missed), "it is fetched anew");
        assert_eq!(service.metrics.corrupt_blobs.get(), 1);
    }

    #[tokio::test]
    async fn a_round_brings_the_cache_within_its_size_and_memory_forgets_what_went() {
        let (_directory, service) = service(CacheLimits { max_bytes: 2500, min_free_bytes: 0 });
        let mut all = Vec::new();
        for number in 0..4_u8 {
            let mxc = put(&service, &format!("m{number}"), &[number; 1000]).await;
            service.download(Reader::Anybody, &mxc, SEARCH).await.unwrap();
            all.push(mxc);
        }
        let hash = service.store.media(&all[0]).unwrap().unwrap().blob.content_hash;
        assert!(service.memory.body(&hash).is_some());
        service.cache_overflows().await;
        assert_eq!(service.tend(|| true).await.unwrap(), 0, "it was told to stop");
        assert_eq!(service.tend(|| false).await.unwrap(), 2000);
        assert_eq!(service.metrics.cache.evictions.get(), 2);
        assert_eq!(service.metrics.cache.bytes.get(), 2000);
        for mxc in &all {
            let is_held = service.store.media(mxc).unwrap().is_some();
            assert_eq!(service.memory.record(mxc).is_some(), is_held);
        }
        let is_held = service.store.holds(&hash).unwrap();
        assert_eq!(service.memory.body(&hash).is_some(), is_held);
        assert_eq!(service.tend(|| false).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_disk_that_is_too_full_loses_the_cache_and_not_more() {
        let limits = CacheLimits { min_free_bytes: u64::MAX, ..UNBOUNDED };
        let (_directory, service) = service(limits);
        put(&service, "media", b"body").await;
        assert_eq!(service.tend(|| false).await.unwrap(), 4);
        assert_eq!(service.tend(|| false).await.unwrap(), 0);
        assert_eq!(service.store.usage().await.unwrap().blobs.count, 0);
    }

    #[test]
    fn a_cache_within_its_size_loses_nothing_and_a_larger_one_a_little_more_than_its_excess() {
        let limits = CacheLimits { max_bytes: 12_800, min_free_bytes: 0 };
        assert_eq!(limits.excess(0), 0);
        assert_eq!(limits.excess(12_800), 0);
        assert_eq!(limits.excess(12_801), 101);
        let tiny = CacheLimits { max_bytes: 1, min_free_bytes: 0 };
        assert_eq!(tiny.excess(2), 1);
    }

    #[test]
    fn a_disk_with_enough_free_space_lacks_nothing() {
        let mut scarcity = Scarcity::default();
        assert_eq!(scarcity.lacking(10, 10), 0);
        assert_eq!(scarcity.lacking(0, 0), 0);
        assert_eq!(scarcity.lacking(7, 10), 3);
    }

    #[test]
    fn space_that_becomes_free_at_once_is_evicted_round_after_round() {
        let mut scarcity = Scarcity::default();
        for _ in 0..3 {
            assert_eq!(scarcity.lacking(60, 100), 40);
            scarcity.judge(60, 40, 100, false);
            assert_eq!(scarcity.told, None);
        }
    }

    #[test]
    fn space_that_does_not_become_free_is_waited_for_and_said_once() {
        let mut scarcity = Scarcity::default();
        assert_eq!(scarcity.lacking(60, 100), 40);
        scarcity.judge(60, 40, 60, false);
        assert_eq!(scarcity.told, Some(Trouble::NotFreed));
        for _ in 0..PATIENCE {
            assert_eq!(scarcity.lacking(60, 100), 0);
        }
        assert_eq!(scarcity.lacking(60, 100), 40, "it may never come");
        scarcity.judge(60, 40, 60, false);
        assert_eq!(scarcity.lacking(85, 100), 15, "it has come");
        assert_eq!(scarcity.lacking(100, 100), 0);
        assert_eq!(scarcity.told, None);
    }

    #[test]
    fn that_nothing_is_left_is_said_once_until_there_is_enough_again() {
        let mut scarcity = Scarcity::default();
        for _ in 0..3 {
            assert_eq!(scarcity.lacking(60, 100), 40);
            scarcity.judge(60, 0, 60, true);
            assert_eq!(scarcity.told, Some(Trouble::NothingLeft));
        }
        scarcity.lacking(100, 100);
        assert_eq!(scarcity.told, None);
    }
}
