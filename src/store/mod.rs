//! The store: media on disk, whole or not at all.
//!
//! A body comes in through [`Staging`], is committed together with its record, and goes out through
//! [`BlobReader`]. Three ideas carry it:
//!
//! - Bodies are immutable files named by their SHA-256, shared by every record with that content.
//!   Records are rows in a database.
//! - Blob before record when storing, record before blob when deleting: a crash leaves litter that
//!   [`Store::sweep_orphans`] finds, never a record without its blob.
//! - A commit returns when everything survives a power cut: the file is synced, renamed, its
//!   directories are synced, and then its record is. What fails on that way is not tried again.
//!
//! What another server has too, or what can be made again, is a cache: counted by blob, in the order of
//! the last access, and removed from its old end by [`Store::evict`].
//!
//! Looking up and reading what the system has in memory happens in place. Whatever waits for the
//! disk does so on the runtime's blocking pool or on the database's own writer thread.

mod blob;
mod checksum;
mod commit;
mod corrupt;
mod error;
mod evict;
mod follow;
mod lent;
mod metadata;
mod orphans;
mod publishing;
mod reader;
mod record;
mod reserve;
mod root;
mod staging;
#[cfg(test)]
mod tests;
mod touches;

use std::fmt;
use std::io::ErrorKind;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};

pub use error::{OpenError, StoreError};
pub use evict::Removed;
pub use follow::{Follower, Growing};
pub use orphans::Swept;
pub use reader::BlobReader;
pub use record::{
    BlobRecord, Holdings, MediaRecord, MediaSource, NewMedia, NewThumbnail, Presence, Reservation,
    Tally, ThumbnailRecord, Usage,
};
pub use staging::Staging;

use crate::types::{ContentHash, Mxc, ThumbnailSpec, UnixMillis, UserId};
use blob::Blobs;
use metadata::Metadata;
use publishing::Publishing;
use reserve::Reserve;
use root::Root;
use touches::Touches;

/// All media on this machine's disk. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What the store is made of; the directory's lock goes last.
struct Inner {
    metadata: Metadata,
    blobs: Blobs,
    publishing: Publishing,
    /// Shared by the bodies that are arriving.
    arriving: Arc<()>,
    touches: Touches,
    reserve: Reserve,
    /// How much may be evicted, as of the last change.
    cache: watch::Sender<Tally>,
    root: Root,
}

impl Store {
    /// Opens the store in a directory, or makes one if the directory is missing or empty.
    ///
    /// Migrates the database to the present schema and removes what a crash left half-written. The
    /// directory is locked until the last clone of the store is gone.
    ///
    /// # Errors
    ///
    /// An [`OpenError`] whose message says what to do. Nothing is ever repaired or begun afresh by
    /// guessing.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let root = Root::open(path)?;
        let blobs = Blobs::open(&root)?;
        let has_blobs = !blobs.is_empty().map_err(OpenError::io(path))?;
        let metadata = Metadata::open(&root.database(), has_blobs)?;
        root.sync()?;
        let inner = Inner {
            metadata,
            blobs,
            publishing: Publishing::default(),
            arriving: Arc::default(),
            touches: Touches::default(),
            reserve: Reserve::new(root.reserve()),
            cache: watch::Sender::default(),
            root,
        };
        inner.reserve.hold();
        inner.tally_cache();
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns when this store was first opened.
    pub fn first_started_at(&self) -> UnixMillis {
        self.inner.metadata.first_started_at()
    }

    /// Returns a setting that was kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.inner.metadata.setting(key)
    }

    /// Keeps a setting across restarts, in place of any earlier value.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Busy`] or [`StoreError::Database`].
    pub async fn set_setting(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.blocking(move |inner| inner.metadata.set_setting(key, value)).await
    }

    /// Returns the record of a piece of media, if it is stored. Takes microseconds, in place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub fn media(&self, mxc: &Mxc) -> Result<Option<MediaRecord>, StoreError> {
        self.inner.metadata.media(mxc)
    }

    /// Returns the thumbnail of a content, if it is stored. Takes microseconds, in place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub fn thumbnail(
        &self,
        source: &ContentHash,
        spec: &ThumbnailSpec,
    ) -> Result<Option<ThumbnailRecord>, StoreError> {
        self.inner.metadata.thumbnail(source, spec)
    }

    /// Returns whether any record names a content. Takes microseconds, in place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub fn holds(&self, content_hash: &ContentHash) -> Result<bool, StoreError> {
        self.inner.metadata.has_blob(content_hash)
    }

    /// Returns whether a thumbnail would be kept as things stand, or be one too many.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub fn has_room_for(&self, thumbnail: &NewThumbnail) -> Result<bool, StoreError> {
        self.inner.metadata.has_room_for(thumbnail)
    }

    /// Returns the name that a body would have here, computed where no other task waits for it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Stopped`].
    pub async fn name_of(&self, body: Bytes) -> Result<ContentHash, StoreError> {
        on_blocking_pool(move || Ok(reader::hash_of(&body))).await
    }

    /// Begins a new body.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] or [`StoreError::Io`].
    pub async fn stage(&self) -> Result<Staging, StoreError> {
        self.blocking(|inner| {
            let (temp, file) = inner.blobs.create_temp().map_err(StoreError::io("stage a body"))?;
            Ok(Staging::new(temp, file, Arc::clone(&inner.arriving)))
        })
        .await
    }

    /// Reserves a media id for its uploader, who may have at most `max_pending` reservations that
    /// have not expired when this one begins. It survives a power cut once this returns.
    ///
    /// Goes on to its end, one way or the other, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooManyReserved`] if there are that many. [`StoreError::AlreadyExists`] if the
    /// id has content and [`StoreError::Database`] if it is reserved, which no id drawn at random
    /// is; otherwise [`StoreError::Full`], [`StoreError::Busy`] or [`StoreError::Database`].
    pub async fn reserve(
        &self,
        reservation: Reservation,
        max_pending: u64,
    ) -> Result<(), StoreError> {
        self.reserve_with(reservation, max_pending, ()).await
    }

    /// As [`reserve`](Self::reserve); `hold` is kept until it is certain what became of it.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    pub async fn reserve_with(
        &self,
        reservation: Reservation,
        max_pending: u64,
        hold: impl Send + 'static,
    ) -> Result<(), StoreError> {
        self.blocking(move |inner| {
            let _hold = hold;
            inner.metadata.reserve(reservation, max_pending)
        })
        .await
    }

    /// Returns what a user has here, and how some media ids stand at the same moment. Takes
    /// microseconds, in place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub fn holdings(
        &self,
        uploader: &UserId,
        now: UnixMillis,
        ids: &[Mxc],
    ) -> Result<Holdings, StoreError> {
        self.inner.metadata.holdings(uploader, now, ids)
    }

    /// Returns the reservation of a media id, whether expired or not; `None` if there is none or
    /// the media has been stored. Takes microseconds, in place.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub fn reservation(&self, mxc: &Mxc) -> Result<Option<Reservation>, StoreError> {
        self.inner.metadata.reservation(mxc)
    }

    /// Removes the reservations that have expired, and returns how many that were.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Busy`] or [`StoreError::Database`].
    pub async fn remove_expired_reservations(&self, now: UnixMillis) -> Result<u64, StoreError> {
        self.blocking(move |inner| inner.metadata.remove_expired_reservations(now)).await
    }

    /// Stores a body and its record, and removes the reservation of its media id; all survives a
    /// power cut once this returns.
    ///
    /// Goes on to its end, one way or the other, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::AlreadyExists`] with the present record if the media has one: the first one
    /// wins. On any error the body is lost.
    pub async fn commit_media(
        &self,
        staged: Staging,
        media: NewMedia,
    ) -> Result<MediaRecord, StoreError> {
        self.commit_media_with(staged, media, ()).await
    }

    /// As [`commit_media`](Self::commit_media); `hold` is kept until it is certain whether the record
    /// is there.
    ///
    /// # Errors
    ///
    /// As [`commit_media`](Self::commit_media).
    pub async fn commit_media_with(
        &self,
        staged: Staging,
        media: NewMedia,
        hold: impl Send + 'static,
    ) -> Result<MediaRecord, StoreError> {
        let settled = staged.settle().await?;
        self.blocking(move |inner| {
            let _hold = hold;
            inner.commit_media(settled, media)
        })
        .await
    }

    /// Stores a thumbnail, with the same care as [`commit_media`](Self::commit_media).
    ///
    /// If there is one already, it is kept and returned.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooManyVariants`] if there are as many of its content as may be, however many are
    /// stored at the same time; otherwise [`StoreError::Full`], [`StoreError::Busy`], [`StoreError::Io`]
    /// or [`StoreError::Database`].
    pub async fn commit_thumbnail(
        &self,
        staged: Staging,
        thumbnail: NewThumbnail,
    ) -> Result<ThumbnailRecord, StoreError> {
        let settled = staged.settle().await?;
        self.blocking(move |inner| inner.commit_thumbnail(settled, thumbnail)).await
    }

    /// Records that the best thumbnail of a content is the content itself.
    ///
    /// If there is a thumbnail already, it is kept and returned.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if the content is no longer stored; otherwise as
    /// [`commit_thumbnail`](Self::commit_thumbnail).
    pub async fn record_original_as_thumbnail(
        &self,
        thumbnail: NewThumbnail,
    ) -> Result<ThumbnailRecord, StoreError> {
        self.blocking(move |inner| inner.metadata.link_thumbnail(thumbnail)).await
    }

    /// Lets media be read without a token although it arrived after the freeze. Does nothing to
    /// media that is not stored.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Busy`] or [`StoreError::Database`].
    pub async fn mark_legacy_readable(&self, mxc: &Mxc) -> Result<(), StoreError> {
        let mxc = mxc.clone();
        self.blocking(move |inner| inner.metadata.mark_legacy_readable(mxc)).await
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if it is not there, [`StoreError::Corrupt`] if its size is wrong,
    /// [`StoreError::Io`] if the system does not let it be opened.
    pub fn open_blob(&self, blob: &BlobRecord) -> Result<BlobReader, StoreError> {
        let content_hash = blob.content_hash;
        let file =
            self.inner.blobs.open_blob(&content_hash).map_err(|error| match error.kind() {
                ErrorKind::NotFound => StoreError::Missing { content_hash },
                _ => StoreError::io("open a blob")(error),
            })?;
        BlobReader::new(file, blob.clone())
    }

    /// Takes a blob that was found corrupt or missing out of service, so that what can be fetched or
    /// made again is.
    ///
    /// The file is moved to `corrupt`. The records of media that another server has, and of
    /// thumbnails, are removed. Those of media owned here stay: reading them fails until somebody
    /// uploads the same content again.
    ///
    /// Returns the records that are gone; `None`, having done nothing, if the blob is sound or is being
    /// replaced at this moment.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Busy`], [`StoreError::Io`] or [`StoreError::Database`].
    pub async fn set_aside(
        &self,
        content_hash: &ContentHash,
    ) -> Result<Option<Removed>, StoreError> {
        let content_hash = *content_hash;
        self.blocking(move |inner| inner.set_aside(&content_hash)).await
    }

    /// Notes that a content was read at a time, so that it is not the next to be evicted. Takes some ten
    /// nanoseconds; the time is kept by [`keep_touches`](Self::keep_touches).
    pub fn touch(&self, content_hash: &ContentHash, now: UnixMillis) {
        self.inner.touches.note(content_hash, now);
    }

    /// Keeps the access times that were noted since the last time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Busy`] or [`StoreError::Database`]; the times stay noted then.
    pub async fn keep_touches(&self) -> Result<(), StoreError> {
        self.blocking(Inner::keep_touches).await
    }

    /// Returns how much may be evicted: the bodies that records name, but none of media owned here.
    pub fn cached(&self) -> Tally {
        *self.inner.cache.borrow()
    }

    /// Returns once more than so many bytes may be evicted.
    pub async fn cached_exceeds(&self, bytes: u64) {
        let mut cache = self.inner.cache.subscribe();
        // The sender lives as long as `self`.
        let _ = cache.wait_for(|tally| tally.bytes > bytes).await;
    }

    /// Evicts what was not read for the longest time: at least so many bytes if there are as many, but
    /// no more than some dozens of contents at once, so that it has to be called again until nothing is
    /// removed or enough is.
    ///
    /// A content goes with every record that names it, and with the thumbnails made of it. Media owned
    /// here never goes. Whoever is reading a body reads on; one that is being published stays.
    ///
    /// Costs as much as what is removed, whatever the store holds.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`], [`StoreError::Busy`] or [`StoreError::Database`]; nothing is removed then.
    pub async fn evict(&self, bytes: u64) -> Result<Removed, StoreError> {
        self.blocking(move |inner| inner.evict(bytes)).await
    }

    /// Returns how many bytes of the file system this process may still fill.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub async fn free_bytes(&self) -> Result<u64, StoreError> {
        self.blocking(|inner| {
            inner.root.free_bytes().map_err(StoreError::io("look how full the disk is"))
        })
        .await
    }

    /// Returns what the store holds; reads every record, so not for every request.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Database`].
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        self.blocking(|inner| inner.metadata.usage()).await
    }

    /// Removes the blobs that no record names and that nobody is publishing: what a crash between a
    /// blob and its record has left.
    ///
    /// Asks `stop` between short steps and ends early once it says `true`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::Io`] or [`StoreError::Database`]; what was removed until
    /// then stays removed.
    pub async fn sweep_orphans(&self, stop: impl Fn() -> bool + Send) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        for first in 0..=u8::MAX {
            if stop() {
                return Ok(swept);
            }
            swept += self.blocking(move |inner| inner.sweep(first)).await?;
        }
        swept.complete = true;
        Ok(swept)
    }

    /// Does work that waits for the disk; it goes on to its end even if the future is dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        on_blocking_pool(move || work(&inner)).await
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.root.path()).finish_non_exhaustive()
    }
}

/// Does work that waits for the disk where no other task waits for it.
async fn on_blocking_pool<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    outcome(spawn_blocking(work).await)
}

/// Returns what the blocking pool has made of some work; a panic there is a panic here.
fn outcome<T>(joined: Result<Result<T, StoreError>, JoinError>) -> Result<T, StoreError> {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => Err(StoreError::Stopped),
    })
}
