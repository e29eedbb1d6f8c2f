//! What the store knows about a piece of media, a thumbnail and a blob.

use std::collections::HashSet;
use std::sync::Arc;

use crate::types::{ContentHash, ContentType, FileName, Mxc, ThumbnailSpec, UnixMillis, UserId};

/// A body on disk, as any number of records may share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// The SHA-256 of the body.
    pub content_hash: ContentHash,
    /// The body's length in bytes.
    pub size: u64,
    /// The CRC-32 of every block of 64 KiB, the last one as long as what is left.
    pub checksums: Arc<[u32]>,
}

/// Where media came from, which decides whether it may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaSource {
    /// Uploaded here; the only copy there is, never evicted.
    Owned,
    /// Read through from the homeserver, which still has it.
    Upstream,
    /// Fetched from the server of origin.
    Remote,
}

/// A piece of media that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRecord {
    /// What it is called.
    pub mxc: Mxc,
    /// Its body.
    pub blob: BlobRecord,
    /// The type that its uploader gave it.
    pub content_type: ContentType,
    /// The name that its uploader gave it.
    pub filename: Option<FileName>,
    /// Who uploaded it, where that is known.
    pub uploader: Option<UserId>,
    /// Where it came from.
    pub source: MediaSource,
    /// When it came to be, or came here.
    pub created_at: UnixMillis,
    /// Whether it may be read without a token although it arrived after the freeze.
    pub legacy_readable: bool,
}

/// What is to be recorded with a new body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMedia {
    /// What it is called.
    pub mxc: Mxc,
    /// The type that its uploader gave it.
    pub content_type: ContentType,
    /// The name that its uploader gave it.
    pub filename: Option<FileName>,
    /// Who uploaded it, where that is known.
    pub uploader: Option<UserId>,
    /// Where it came from.
    pub source: MediaSource,
    /// When it came to be, or came here.
    pub created_at: UnixMillis,
    /// Whether it may be read without a token although it arrived after the freeze.
    pub legacy_readable: bool,
}

impl NewMedia {
    /// Returns the record of this media with the given body.
    pub(super) fn with_blob(self, blob: BlobRecord) -> MediaRecord {
        MediaRecord {
            mxc: self.mxc,
            blob,
            content_type: self.content_type,
            filename: self.filename,
            uploader: self.uploader,
            source: self.source,
            created_at: self.created_at,
            legacy_readable: self.legacy_readable,
        }
    }
}

/// A media id that was given out and has no content yet (CS-CRE-04).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What the media will be called.
    pub mxc: Mxc,
    /// Who alone may upload it.
    pub uploader: UserId,
    /// When it was given out.
    pub created_at: UnixMillis,
    /// The first moment at which it is worth nothing.
    pub expires_at: UnixMillis,
}

impl Reservation {
    /// Whether it is worth nothing any more.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        now >= self.expires_at
    }
}

/// A thumbnail that is stored; one for each content and specification, whatever media show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThumbnailRecord {
    /// Its body, which is the original's own where that is the best answer.
    pub blob: BlobRecord,
    /// The type it was encoded as.
    pub content_type: ContentType,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// A thumbnail on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewThumbnail {
    /// The content that it was made of.
    pub source: ContentHash,
    /// What it was asked to be.
    pub spec: ThumbnailSpec,
    /// The type it was encoded as.
    pub content_type: ContentType,
    /// How many thumbnails of the content may be kept, this one included, without those that are exempt
    /// (threats IM-11).
    pub max_variants: u64,
    /// What is always kept and never counted: few, and known before anybody asks.
    pub exempt: Arc<HashSet<ThumbnailSpec>>,
}

/// How many there are, and how large they are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// The bytes of all their bodies; one that is shared counts each time.
    pub bytes: u64,
}

/// What a user has here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The media that they uploaded here.
    pub uploaded: Tally,
    /// Their reservations that have not expired.
    pub pending: u64,
    /// How the media ids that were asked for stood at the same moment, in their order.
    pub ids: Vec<Presence>,
}

/// What a media id leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Absent,
    /// A reservation that has not expired.
    Reserved,
    /// Media.
    Stored,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Media uploaded here.
    pub owned: Tally,
    /// Media of the homeserver.
    pub upstream: Tally,
    /// Media of other servers.
    pub remote: Tally,
    /// Thumbnails.
    pub thumbnails: Tally,
    /// Bodies on disk, each once: what the file system holds.
    pub blobs: Tally,
    /// Reservations, those that have expired and are not removed yet included.
    pub reserved: u64,
}
