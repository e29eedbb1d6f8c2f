//! The product's operations: store what is uploaded, find what is asked for.
//!
//! A read takes one road: the record, whether this reader may see it, the body from memory or from
//! disk; and if there is no record, what is arriving: an upload to the id (`board`) or a fetch from
//! the homeserver (`fetch`), both followed while they come in (`incoming`). Nothing here knows HTTP.

mod board;
mod clock;
mod error;
mod expected;
mod fetch;
mod incoming;
mod memory;
mod reserve;
mod source;
mod stored;
mod thumbnail;
mod upload;
mod visibility;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::auth::Requester;
use crate::homeserver::Homeserver;
use crate::metrics::Metrics;
use crate::store::{BlobRecord, MediaRecord, MediaSource, Store, StoreError};
use crate::thumbnail::{Ladder, ThumbnailEngine};
use crate::types::{BodyError, BodyReader, ContentHash, ContentType, FileName, Mxc};

pub use clock::Clock;
pub use error::MediaError;
pub use fetch::FetchLimits;
pub use incoming::ArrivingBody;
pub use reserve::Created;
pub use stored::StoredBody;
pub use thumbnail::ThumbnailRequest;
pub use upload::NewUpload;
pub use visibility::{Freeze, Provenance};

use board::Board;
use fetch::{Fetcher, Found};
use incoming::Arrival;
use memory::Memory;
use source::{Asker, Source};
use stored::Damage;

/// Bounds on what is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest upload.
    pub max_upload_bytes: u64,
    /// How many media ids without content a user may have (CS-CRE-05).
    pub max_pending: u64,
    /// How long a media id without content is kept (CS-CRE-04).
    pub unused_expiry: Duration,
    /// What may be fetched.
    pub fetches: FetchLimits,
}

/// On whose behalf media is read.
#[derive(Clone, Copy)]
pub enum Reader<'a> {
    /// Somebody whom the homeserver vouches for.
    Requester(&'a Requester),
    /// Anybody, by the legacy routes (CS-DL-01).
    Anybody,
    /// Another homeserver, for our own media only (FM-S-02).
    Origin,
}

/// What a reader says of how media may be looked for.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// How long to wait for media that is not uploaded yet (CS-DL-08).
    pub wait: Duration,
    /// Whether other servers may be asked (CS-DL-04).
    pub allow_remote: bool,
}

/// Media that was found, its body ready to be read.
pub struct MediaItem {
    /// Its type as it is to be served.
    pub content_type: ContentType,
    /// Its stored name.
    pub filename: Option<FileName>,
    /// The SHA-256 of its body; not known while the body is still arriving.
    pub content_hash: Option<ContentHash>,
    /// The body.
    pub body: MediaBody,
}

/// The body of media.
pub enum MediaBody {
    /// Held in memory, checked when it was put there.
    Memory(Bytes),
    /// Read from disk, every block checked.
    Stored(StoredBody),
    /// Still arriving, and followed as it comes in.
    Arriving(ArrivingBody),
    /// Passed on as it comes, once.
    Relayed {
        /// Reads what comes.
        body: Box<dyn BodyReader>,
        /// Its size in bytes, if it was announced.
        size: Option<u64>,
    },
}

impl MediaBody {
    /// Returns its size in bytes, if that is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::Stored(body) => Some(body.size()),
            Self::Arriving(body) => body.size(),
            Self::Relayed { size, .. } => *size,
        }
    }

    /// Returns a reader of the whole body.
    pub fn into_reader(self) -> Box<dyn BodyReader> {
        match self {
            Self::Memory(bytes) => Box::new(Once(Some(bytes))),
            Self::Stored(body) => Box::new(body),
            Self::Arriving(body) => Box::new(body),
            Self::Relayed { body, .. } => body,
        }
    }
}

/// A body of one chunk.
struct Once(Option<Bytes>);

#[async_trait]
impl BodyReader for Once {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

/// The operations of the media repository.
pub struct MediaService {
    store: Store,
    homeserver: Homeserver,
    fetcher: Arc<Fetcher>,
    board: Arc<Board>,
    engine: ThumbnailEngine,
    ladder: Ladder,
    memory: Arc<Memory>,
    damage: Damage,
    renders: thumbnail::Renders,
    clock: Clock,
    limits: Limits,
    freeze: Freeze,
    metrics: Arc<Metrics>,
}

/// What a [`MediaService`] is made of.
pub struct Parts {
    /// Where media is kept.
    pub store: Store,
    /// Whom to ask for what is not kept.
    pub homeserver: Homeserver,
    /// What makes thumbnails.
    pub engine: ThumbnailEngine,
    /// The sizes that they are made in.
    pub ladder: Ladder,
    /// How many bytes of hot bodies and records may be kept in memory.
    pub memory_bytes: u64,
    /// Bounds on what is taken in.
    pub limits: Limits,
    /// What the legacy routes may serve.
    pub freeze: Freeze,
    /// What tells whether a media id has expired.
    pub clock: Clock,
    /// Where reads are counted.
    pub metrics: Arc<Metrics>,
}

impl MediaService {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let memory = Arc::new(Memory::new(parts.memory_bytes));
        let damage = Damage {
            store: parts.store.clone(),
            memory: memory.clone(),
            metrics: parts.metrics.clone(),
        };
        let source = Source::new(parts.homeserver.clone(), parts.freeze);
        let fetcher =
            Fetcher::new(parts.store.clone(), source, parts.limits.fetches, parts.metrics.clone());
        Self {
            store: parts.store,
            homeserver: parts.homeserver,
            fetcher: Arc::new(fetcher),
            board: Board::new(parts.metrics.waiting_readers.clone()),
            engine: parts.engine,
            ladder: parts.ladder,
            memory,
            damage,
            renders: thumbnail::Renders::new(),
            clock: parts.clock,
            limits: parts.limits,
            freeze: parts.freeze,
            metrics: parts.metrics,
        }
    }

    /// Returns the bounds on what is taken in.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Finds media and opens its body (CS-DL-03).
    ///
    /// # Errors
    ///
    /// [`MediaError::NotFound`] also for what this reader may not see (CS-FRZ-03).
    pub async fn download(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<MediaItem, MediaError> {
        if let Some(record) = self.readable_record(reader, mxc).await?
            && let Some(item) = self.open_media(&record).await?
        {
            return Ok(item);
        }
        match self.find(reader, mxc, search).await? {
            Found::Kept(record) => self.open_kept(&record).await,
            // Its head alone says that it is whole, so it may only be sent when that is true.
            Found::Arriving(arrival) if arrival.size == Some(0) => {
                self.open_kept(&*arrival.kept().await?).await
            }
            Found::Arriving(arrival) => Ok(arriving_item(&arrival)),
            Found::Unkept => {
                let asker = asker(reader).ok_or(MediaError::NotFound)?;
                let limit = self.limits.fetches.max_size;
                self.fetcher.source().relay(&asker, mxc, search, limit).await
            }
        }
    }

    async fn open_kept(&self, record: &MediaRecord) -> Result<MediaItem, MediaError> {
        self.open_media(record).await?.ok_or(MediaError::NotFound)
    }

    /// Opens the body of media that is kept; `None` if it is damaged and can be had again.
    async fn open_media(&self, record: &MediaRecord) -> Result<Option<MediaItem>, MediaError> {
        match self.open_blob(&record.blob).await {
            Ok(body) => Ok(Some(MediaItem {
                content_type: record.content_type.clone(),
                filename: record.filename.clone(),
                content_hash: Some(record.blob.content_hash),
                body,
            })),
            Err(error) => {
                let is_damaged = self.damage.is_found(&record.blob.content_hash, &error).await;
                // Owned media is nowhere else; the rest is fetched anew.
                if is_damaged && record.source != MediaSource::Owned {
                    return Ok(None);
                }
                Err(error.into())
            }
        }
    }

    /// Looks for media that is not kept.
    async fn find(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Found, MediaError> {
        if let Some(found) = self.find_expected(reader, mxc, search).await? {
            return Ok(found);
        }
        if let Some(asker) = asker(reader)
            && let found @ (Found::Arriving(_) | Found::Unkept) =
                self.fetcher.find(&asker, mxc, search).await?
        {
            return Ok(found);
        }
        // It may have been stored since the first look, and for somebody who may see more.
        let record = self.readable_record(reader, mxc).await?;
        record.map(Found::Kept).ok_or(MediaError::NotFound)
    }

    /// Returns the record of media that is kept and that this reader may see.
    async fn readable_record(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
    ) -> Result<Option<Arc<MediaRecord>>, MediaError> {
        let Some(record) = self.record(mxc)? else { return Ok(None) };
        if self.freeze.shows(&*record, reader) {
            return Ok(Some(record));
        }
        // The homeserver may know that its own media is older than our copy of it.
        let is_open = record.source != MediaSource::Owned
            && matches!(reader, Reader::Anybody)
            && self.fetcher.source().is_open_to_anybody(mxc).await?;
        if !is_open {
            return Err(MediaError::NotFound);
        }
        self.store.mark_legacy_readable(mxc).await?;
        self.memory.forget_record(mxc);
        Ok(Some(record))
    }

    fn record(&self, mxc: &Mxc) -> Result<Option<Arc<MediaRecord>>, MediaError> {
        if let Some(record) = self.memory.record(mxc) {
            return Ok(Some(record));
        }
        let Some(record) = self.store.media(mxc)? else { return Ok(None) };
        let record = Arc::new(record);
        self.memory.keep_record(record.clone());
        Ok(Some(record))
    }

    /// Opens a blob: from memory, into memory if it is small, otherwise to be read as it is sent.
    async fn open_blob(&self, blob: &BlobRecord) -> Result<MediaBody, StoreError> {
        if let Some(body) = self.memory.body(&blob.content_hash) {
            self.metrics.media_sources.memory.inc();
            return Ok(MediaBody::Memory(body));
        }
        self.metrics.media_sources.store.inc();
        let reader = self.store.open_blob(blob)?;
        if self.memory.has_room_for(blob.size) {
            let body = reader.read_all().await?;
            self.memory.keep_body(blob.content_hash, body.clone());
            return Ok(MediaBody::Memory(body));
        }
        Ok(MediaBody::Stored(StoredBody { reader, damage: self.damage.clone() }))
    }
}

/// Returns in whose name the homeserver is asked; other servers get nothing that is not our own.
fn asker(reader: Reader<'_>) -> Option<Asker> {
    match reader {
        Reader::Requester(requester) => Some(Asker::Requester(requester.clone())),
        Reader::Anybody => Some(Asker::Anybody),
        Reader::Origin => None,
    }
}

fn arriving_item(arrival: &Arc<Arrival>) -> MediaItem {
    MediaItem {
        content_type: arrival.media.content_type.clone(),
        filename: arrival.media.filename.clone(),
        content_hash: None,
        body: MediaBody::Arriving(arrival.follow()),
    }
}
