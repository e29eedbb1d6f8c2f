//! The product's operations: store what is uploaded, find what is asked for.
//!
//! A read takes one road: the record, whether this reader may see it, the body from memory or from
//! disk; and if there is no record, what is arriving: an upload to the id (`board`) or a fetch (`fetch`)
//! from the homeserver or from the server that made it (`source`), both followed while they come in
//! (`incoming`). Nothing here knows HTTP.

mod board;
mod clock;
mod download;
mod error;
mod expected;
mod failure;
mod fetch;
mod incoming;
mod memory;
mod places;
mod quota;
mod reserve;
mod retention;
mod share;
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
use crate::federation::ServerRules;
use crate::homeserver::{Homeserver, HomeserverError};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::thumbnail::ThumbnailEngine;
use crate::types::{AccessToken, BodyError, BodyReader, ContentHash, ContentType, FileName};

pub use clock::Clock;
pub use error::MediaError;
pub use fetch::FetchLimits;
pub use incoming::ArrivingBody;
pub use quota::{Quota, QuotaInfo};
pub use reserve::Created;
pub use retention::CacheLimits;
pub use source::{Direct, OtherServers, SignedRequest, Signer};
pub use stored::StoredBody;
pub use thumbnail::{ThumbnailRequest, ThumbnailRules};
pub use upload::NewUpload;
pub use visibility::{Freeze, Provenance};

use board::Board;
use fetch::Fetcher;
use memory::Memory;
use quota::Quotas;
use retention::Retention;
use source::Source;
use stored::Damage;
use thumbnail::Ahead;

/// Bounds on what is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a media id without content is kept (CS-CRE-04).
    pub unused_expiry: Duration,
    /// What may be fetched.
    pub fetches: FetchLimits,
}

/// How much one user may upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// The largest upload (CS-UP-06).
    pub max_bytes: u64,
    /// What they may keep here (CS-LIM-04).
    pub quota: Quota,
    /// How many media ids without content they may have (CS-CRE-05).
    pub max_pending: u64,
}

/// On whose behalf media is read.
#[derive(Clone, Copy)]
pub enum Reader<'a> {
    /// Somebody whom the homeserver vouches for.
    Requester(&'a Requester),
    /// Anybody, by the legacy routes (CS-DL-01).
    Anybody,
    /// Another homeserver, for our own media only (FM-S-02). With a request, its signature was found good
    /// here; without one the homeserver has judged it, and has no such media.
    Origin(Option<&'a SignedRequest>),
}

/// What a reader says of how media may be looked for.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// How long to wait for media that is not uploaded yet (CS-DL-08).
    pub wait: Duration,
    /// Whether other servers may be asked (CS-DL-04).
    pub allow_remote: bool,
    /// Whether the reader may be sent elsewhere (CS-DL-06, CS-DL-07).
    pub allow_redirect: bool,
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
    quotas: Arc<Quotas>,
    engine: ThumbnailEngine,
    thumbnails: ThumbnailRules,
    ahead: Ahead,
    memory: Arc<Memory>,
    damage: Damage,
    renders: thumbnail::Renders,
    clock: Clock,
    retention: Retention,
    limits: Limits,
    freeze: Freeze,
    rules: ServerRules,
    metrics: Arc<Metrics>,
}

/// What a [`MediaService`] is made of.
pub struct Parts {
    /// Where media is kept.
    pub store: Store,
    /// Whom to ask for what is not kept.
    pub homeserver: Homeserver,
    /// Whom to ask for media of other servers, and for whose not.
    pub servers: OtherServers,
    /// What makes thumbnails.
    pub engine: ThumbnailEngine,
    /// Which of them are made and kept.
    pub thumbnails: ThumbnailRules,
    /// How many bytes of hot bodies and records may be kept in memory.
    pub memory_bytes: u64,
    /// Bounds on what is kept although it can be had again.
    pub cache: CacheLimits,
    /// Bounds on what is taken in.
    pub limits: Limits,
    /// What the legacy routes may serve.
    pub freeze: Freeze,
    /// An administrator's token, for icons that the homeserver itself has frozen.
    pub admin_token: Option<AccessToken>,
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
        let rules = parts.servers.rules.clone();
        let source = Source::new(
            parts.homeserver.clone(),
            parts.servers,
            parts.freeze.clone(),
            parts.admin_token,
        );
        let fetcher = Fetcher::new(
            parts.store.clone(),
            source,
            parts.limits.fetches,
            memory.clone(),
            parts.metrics.clone(),
        );
        Self {
            quotas: Quotas::new(parts.store.clone(), parts.clock.clone()),
            store: parts.store,
            homeserver: parts.homeserver,
            fetcher: Arc::new(fetcher),
            board: Board::new(parts.metrics.waiting_readers.clone()),
            engine: parts.engine,
            ahead: Ahead::new(parts.thumbnails.on_upload),
            renders: thumbnail::Renders::new(&parts.thumbnails),
            thumbnails: parts.thumbnails,
            memory,
            damage,
            clock: parts.clock,
            retention: Retention::new(parts.cache),
            limits: parts.limits,
            freeze: parts.freeze,
            rules,
            metrics: parts.metrics,
        }
    }

    /// Asks the homeserver for the icons that are shown to whoever has not logged in yet (CS-FRZ-04).
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if it does not say; what it said before stays.
    pub async fn learn_icons(&self) -> Result<(), HomeserverError> {
        self.freeze.exempt().learn(self.homeserver.login_icons().await?);
        Ok(())
    }
}
