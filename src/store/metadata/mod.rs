//! Records: the only place with SQL.
//!
//! One thread writes, and puts all changes that wait into one transaction; whoever looks something
//! up does it in place, on a connection of their own for that moment. The functions of the files
//! beside this one take a connection, so that reading and writing share them.

mod blob;
mod cached;
mod column;
mod evict;
mod media;
mod readers;
mod reservation;
mod schema;
mod setting;
mod thumbnail;
mod uploaded;
mod usage;
mod writer;

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::{
    BlobRecord, Holdings, MediaRecord, NewThumbnail, OpenError, Removed, Reservation, StoreError,
    Tally, ThumbnailRecord, Usage,
};
use crate::types::{ContentHash, Mxc, ThumbnailSpec, UnixMillis, UserId};
use readers::Readers;
use writer::Writer;

/// The database. What waits for the disk is said so; the rest takes microseconds.
pub(super) struct Metadata {
    first_started_at: UnixMillis,
    /// Before the writer, whose connection checkpoints as the last one that closes.
    readers: Readers,
    writer: Writer,
}

impl Metadata {
    /// Opens the database, or makes one if there are no blobs that a lost one would have named.
    pub(super) fn open(path: &Path, has_blobs: bool) -> Result<Self, OpenError> {
        let connection = schema::open(path, has_blobs)?;
        let now = UnixMillis::now();
        let first_started_at =
            setting::first_started_at(&connection, now).map_err(schema::open_error(path))?;
        cached::pull_back_to(&connection, now).map_err(schema::open_error(path))?;
        let writer = Writer::start(connection).map_err(OpenError::io(path))?;
        Ok(Self { first_started_at, readers: Readers::new(path), writer })
    }

    /// Returns when the database was first opened.
    pub(super) fn first_started_at(&self) -> UnixMillis {
        self.first_started_at
    }

    /// Returns a setting.
    pub(super) fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.readers.read(|connection| setting::find(connection, key))
    }

    /// Keeps a setting; waits for the disk.
    pub(super) fn set_setting(&self, key: String, value: String) -> Result<(), StoreError> {
        self.writer.write(move |connection| Ok(setting::keep(connection, &key, &value)?))
    }

    /// Returns the record of a blob.
    pub(super) fn blob(&self, hash: &ContentHash) -> Result<Option<BlobRecord>, StoreError> {
        self.readers.read(|connection| blob::find(connection, hash))
    }

    /// Returns whether a blob has a record.
    pub(super) fn has_blob(&self, hash: &ContentHash) -> Result<bool, StoreError> {
        self.readers.read(|connection| blob::exists(connection, hash))
    }

    /// Removes what can be had again from the records of a blob, and the blob's own record unless
    /// media owned here needs it; waits for the disk.
    pub(super) fn forget_corrupt(&self, hash: ContentHash) -> Result<Removed, StoreError> {
        self.writer.write(move |connection| {
            let mut removed = Removed::default();
            evict::remove_named(connection, &hash, UnixMillis::now(), &mut removed)?;
            Ok(removed)
        })
    }

    /// Removes the records of what was not read for the longest time: of at least so many bytes if
    /// there are as many, but of no more than `limit` contents and the thumbnails made of them. Waits
    /// for the disk.
    pub(super) fn evict(&self, bytes: u64, limit: u64) -> Result<Removed, StoreError> {
        self.writer.write(move |connection| {
            let now = UnixMillis::now();
            cached::pull_back_to(connection, now)?;
            Ok(evict::evict(connection, bytes, limit, now)?)
        })
    }

    /// Keeps when contents were last read; waits for the disk.
    pub(super) fn touch(&self, touches: Vec<(ContentHash, UnixMillis)>) -> Result<(), StoreError> {
        self.writer.write(move |connection| {
            touches.iter().try_for_each(|(hash, at)| Ok(cached::touch(connection, hash, *at)?))
        })
    }

    /// Returns how much may be evicted, without adding it up.
    pub(super) fn cached(&self) -> Result<Tally, StoreError> {
        self.readers.read(cached::total)
    }

    /// Returns the record of a piece of media.
    pub(super) fn media(&self, mxc: &Mxc) -> Result<Option<MediaRecord>, StoreError> {
        self.readers.read(|connection| media::find(connection, mxc))
    }

    /// Records media whose blob is on disk, unless it has a record, and removes its reservation;
    /// waits for the disk.
    pub(super) fn insert_media(&self, media: MediaRecord) -> Result<MediaRecord, StoreError> {
        self.writer.write(move |connection| {
            if let Some(present) = media::find(connection, &media.mxc)? {
                return Err(StoreError::AlreadyExists(Box::new(present)));
            }
            blob::keep(connection, &media.blob)?;
            media::insert(connection, &media)?;
            reservation::remove(connection, &media.mxc)?;
            named(connection, &media.blob.content_hash)?;
            Ok(media)
        })
    }

    /// Returns the reservation of a media id.
    pub(super) fn reservation(&self, mxc: &Mxc) -> Result<Option<Reservation>, StoreError> {
        self.readers.read(|connection| reservation::find(connection, mxc))
    }

    /// Reserves a media id unless its user has as many already; waits for the disk.
    pub(super) fn reserve(
        &self,
        reservation: Reservation,
        max_pending: u64,
    ) -> Result<(), StoreError> {
        self.writer.write(move |connection| {
            let now = reservation.created_at;
            let (pending, earliest) = reservation::pending(connection, &reservation.uploader, now)?;
            if pending >= max_pending {
                return Err(StoreError::TooManyReserved {
                    earliest_expiry: earliest.unwrap_or(now),
                });
            }
            if let Some(present) = media::find(connection, &reservation.mxc)? {
                return Err(StoreError::AlreadyExists(Box::new(present)));
            }
            Ok(reservation::insert(connection, &reservation)?)
        })
    }

    /// Removes reservations that have expired and returns how many that were; waits for the disk.
    pub(super) fn remove_expired_reservations(&self, now: UnixMillis) -> Result<u64, StoreError> {
        self.writer
            .write(move |connection| Ok(reservation::remove_expired(connection, now)? as u64))
    }

    /// Lets media be read without a token; waits for the disk.
    pub(super) fn mark_legacy_readable(&self, mxc: Mxc) -> Result<(), StoreError> {
        self.writer.write(move |connection| Ok(media::mark_legacy_readable(connection, &mxc)?))
    }

    /// Returns the record of a thumbnail.
    pub(super) fn thumbnail(
        &self,
        source: &ContentHash,
        spec: &ThumbnailSpec,
    ) -> Result<Option<ThumbnailRecord>, StoreError> {
        self.readers.read(|connection| thumbnail::find(connection, source, spec))
    }

    /// Returns whether there is room for a thumbnail.
    pub(super) fn has_room_for(&self, thumbnail: &NewThumbnail) -> Result<bool, StoreError> {
        self.readers.read(|connection| has_room(connection, thumbnail))
    }

    /// Records a thumbnail whose blob is on disk, or returns the one there is; waits for the disk.
    pub(super) fn insert_thumbnail(
        &self,
        thumbnail: NewThumbnail,
        blob: BlobRecord,
    ) -> Result<ThumbnailRecord, StoreError> {
        self.writer.write(move |connection| {
            if let Some(present) = present_or_room(connection, &thumbnail)? {
                return Ok(present);
            }
            blob::keep(connection, &blob)?;
            record_thumbnail(connection, thumbnail, blob)
        })
    }

    /// Records that a content is its own thumbnail, or returns the one there is; waits for the disk.
    pub(super) fn link_thumbnail(
        &self,
        thumbnail: NewThumbnail,
    ) -> Result<ThumbnailRecord, StoreError> {
        self.writer.write(move |connection| {
            if let Some(present) = present_or_room(connection, &thumbnail)? {
                return Ok(present);
            }
            let content_hash = thumbnail.source;
            let blob = blob::find(connection, &content_hash)?
                .ok_or(StoreError::Missing { content_hash })?;
            record_thumbnail(connection, thumbnail, blob)
        })
    }

    /// Returns what a user has here, and how some media ids stand at the same moment.
    pub(super) fn holdings(
        &self,
        uploader: &UserId,
        now: UnixMillis,
        ids: &[Mxc],
    ) -> Result<Holdings, StoreError> {
        self.readers.read(|connection| uploaded::holdings(connection, uploader, now, ids))
    }

    /// Adds everything up; reads the whole database.
    pub(super) fn usage(&self) -> Result<Usage, StoreError> {
        self.readers.read(usage::add_up)
    }
}

/// Returns the thumbnail that there is already.
///
/// # Errors
///
/// [`StoreError::TooManyVariants`] if there is none and no more may be kept. Only one thread changes
/// records, so that nobody comes between this and the insertion.
fn present_or_room(
    connection: &Connection,
    thumbnail: &NewThumbnail,
) -> Result<Option<ThumbnailRecord>, StoreError> {
    if let Some(present) = thumbnail::find(connection, &thumbnail.source, &thumbnail.spec)? {
        return Ok(Some(present));
    }
    if has_room(connection, thumbnail)? { Ok(None) } else { Err(StoreError::TooManyVariants) }
}

fn has_room(connection: &Connection, thumbnail: &NewThumbnail) -> rusqlite::Result<bool> {
    let NewThumbnail { source, spec, max_variants, exempt, .. } = thumbnail;
    if exempt.contains(spec) {
        return Ok(true);
    }
    let kept = thumbnail::all_of(connection, source)?;
    let counted = kept.iter().filter(|kept| !exempt.contains(kept)).count();
    Ok((counted as u64) < *max_variants)
}

/// Records a thumbnail whose blob has a record.
fn record_thumbnail(
    connection: &Connection,
    thumbnail: NewThumbnail,
    blob: BlobRecord,
) -> Result<ThumbnailRecord, StoreError> {
    let NewThumbnail { source, spec, content_type, .. } = thumbnail;
    let record = ThumbnailRecord { blob, content_type, created_at: UnixMillis::now() };
    thumbnail::insert(connection, &source, &spec, &record)?;
    named(connection, &record.blob.content_hash)?;
    Ok(record)
}

/// Settles a blob that a new record names, which is a use of it too.
fn named(connection: &Connection, content_hash: &ContentHash) -> rusqlite::Result<()> {
    let now = UnixMillis::now();
    cached::settle(connection, content_hash, now)?;
    cached::touch(connection, content_hash, now)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // These two leave no doubt that nothing was committed.
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Database(error.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::tests::{new_media, open, put, stage};
    use crate::store::{MediaSource, StoreError};

    #[tokio::test]
    async fn a_blob_whose_record_does_not_fit_on_the_disk_is_removed() {
        let (_directory, store) = open();
        put(&store, "first", b"first").await;
        let limit = |pages: i64| {
            let writer = &store.inner.metadata.writer;
            writer.write(move |c| Ok(c.pragma_update(None, "max_page_count", pages)?)).unwrap();
        };
        limit(1);
        let mut number = 0;
        let refused = loop {
            let staged = stage(&store, format!("body {number}").as_bytes()).await;
            let media = new_media(&format!("m{number}"), MediaSource::Owned);
            match store.commit_media(staged, media).await {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, StoreError::Full), "{refused}");
        assert_eq!(store.sweep_orphans(|| false).await.unwrap().removed, 0);
        assert_eq!(store.usage().await.unwrap().blobs.count, number + 1);
        limit(1_000_000);
        put(&store, "last", b"last").await;
    }
}
