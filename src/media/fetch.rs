//! The miss path: what Mediary does not hold is fetched from the homeserver, kept, and followed by
//! whoever asks for it meanwhile.
//!
//! All who ask for the same media at the same time share one request to the homeserver. It is made
//! with the token of the first of them and goes on when that one leaves, under limits on how many
//! fetches there are and on how much of them may be unfinished. What the homeserver says about the
//! media counts for all; what it says about a token counts for its owner only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use moka::sync::Cache;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::incoming::{Arrival, Cap, Incoming};
use super::memory::Memory;
use super::share::{Share, Shares};
use super::source::{Answer, Asker, Source};
use super::{MediaBody, MediaError, MediaItem, Search};
use crate::homeserver::{HomeserverError, Response, ResponseBody};
use crate::metrics::Metrics;
use crate::store::{MediaRecord, MediaSource, NewMedia, Store, StoreError};
use crate::types::{BodyError, BodyReader, ContentType, FileName, Mxc, UnixMillis};

/// How long it is remembered that the body of some media broke off, is too large or cannot be kept,
/// so that a crowd that waited for it does not ask again at once.
const FAILURE_LIFETIME: Duration = Duration::from_secs(2);

/// How many such failures are remembered at once, at most.
const REMEMBERED_FAILURES: u64 = 10_000;

/// How long a fetch waits for others to end where there are too many.
const PLACE_PATIENCE: Duration = Duration::from_secs(10);

/// Into how many shares the places are divided, so that no user can take all of them, nor all those
/// without a token together.
const SHARES: usize = 4;

/// How long a fetch goes on although nobody follows it any more.
const UNFOLLOWED_TIME: Duration = Duration::from_secs(5 * 60);

/// How long a fetch may take in all; one that takes longer drips on purpose.
const LONGEST_FETCH: Duration = Duration::from_secs(60 * 60);

/// How much space there must be for a body of unknown size: a disk with less is as good as full.
const LEAST_SPACE: u64 = 1024 * 1024;

/// The unit that unfinished bytes are counted in.
const SPACE_UNIT: u64 = 64 * 1024;

/// Bounds on what is fetched.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// The largest file of another server, in bytes.
    pub max_size: u64,
    /// How many fetches there may be at once.
    pub max_fetches: usize,
    /// How many bytes unfinished bodies may come to; one of unknown size counts as `max_size`.
    pub max_unfinished: u64,
}

/// What came of looking for media that is not kept.
pub(super) enum Found {
    /// It is kept after all.
    Kept(Arc<MediaRecord>),
    /// It is on its way.
    Arriving(Arc<Arrival>),
    /// It can be had, but not kept.
    Unkept,
}

/// Fetches media, each one once at a time.
pub(super) struct Fetcher {
    store: Store,
    source: Source,
    limits: FetchLimits,
    flights: Mutex<HashMap<Key, watch::Receiver<Stage>>>,
    failures: Cache<Key, Arc<MediaError>>,
    shares: Arc<Shares>,
    places: Arc<Semaphore>,
    space: Arc<Semaphore>,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
}

/// What is asked for and in what role: the homeserver answers differently to those.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    mxc: Mxc,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Requester,
    Anybody { allow_remote: bool, allow_redirect: bool },
}

/// How far a fetch has come.
#[derive(Clone)]
enum Stage {
    /// The homeserver has been asked.
    Asked,
    /// The head of the answer is there.
    Arriving(Arc<Arrival>),
    /// The homeserver shows to the asker what is kept already.
    Kept(Arc<MediaRecord>),
    /// There will be no body.
    Failed(Arc<MediaError>),
}

impl Fetcher {
    pub(super) fn new(
        store: Store,
        source: Source,
        limits: FetchLimits,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let failures = Cache::builder().max_capacity(REMEMBERED_FAILURES);
        Self {
            store,
            source,
            limits,
            flights: Mutex::default(),
            failures: failures.time_to_live(FAILURE_LIFETIME).build(),
            shares: Shares::new(limits.max_fetches.div_ceil(SHARES)),
            places: Arc::new(Semaphore::new(limits.max_fetches)),
            space: Arc::new(Semaphore::new(units(limits.max_unfinished) as usize)),
            memory,
            metrics,
        }
    }

    /// Finds media on its way, or sends for it.
    ///
    /// # Errors
    ///
    /// What the homeserver says of the media or of this caller, or a failure that is remembered.
    pub(super) async fn find(
        self: &Arc<Self>,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Found, MediaError> {
        if !self.source.answers(asker, mxc)? {
            return Err(MediaError::NotFound);
        }
        let search = self.source.asked_for(asker, mxc, search);
        let Search { allow_remote, allow_redirect, .. } = search;
        let role = match asker {
            Asker::Requester(_) => Role::Requester,
            Asker::Anybody => Role::Anybody { allow_remote, allow_redirect },
        };
        let key = Key { mxc: mxc.clone(), role };
        let deadline = Instant::now() + search.wait;
        let mut wait = search.wait;
        loop {
            let search = Search { wait, ..search };
            if let Some(failure) = self.failures.get(&key) {
                return refused(failure);
            }
            let (mut stage, lead) = self.join(&key);
            let leads = lead.is_some();
            if let Some(lead) = lead {
                // It may have become whole between the caller's look and ours.
                let record = self.store.media(mxc)?;
                if let Some(record) = record.filter(|record| self.source.shows(asker, record)) {
                    return Ok(Found::Kept(Arc::new(record)));
                }
                tokio::spawn(lead.fetch(asker.clone(), search));
            }
            let patience = wait + self.source.patience(leads);
            let answered = stage.wait_for(|stage| !matches!(stage, Stage::Asked));
            match timeout(patience, answered).await.map(|stage| stage.map(|s| s.clone())) {
                Err(_) => return Err(HomeserverError::TooSlow.into()),
                Ok(Ok(Stage::Arriving(arrival))) => return arriving(arrival, leads, &self.metrics),
                Ok(Ok(Stage::Kept(record))) => return Ok(Found::Kept(record)),
                Ok(Ok(Stage::Failed(error))) if leads || concerns_all(&error) => {
                    return refused(error);
                }
                Ok(Ok(Stage::Failed(error)))
                    if is_not_yet_uploaded(&error) && Instant::now() >= deadline =>
                {
                    return refused(error);
                }
                // It ended without a word, which only a fault of ours explains: not again.
                Ok(Err(_)) if leads => {
                    return Err(
                        HomeserverError::Unreachable("the fetch was given up".into()).into()
                    );
                }
                // That was about somebody else's token, or was found to be kept: look again.
                Ok(Ok(Stage::Asked | Stage::Failed(_)) | Err(_)) => {}
            }
            wait = deadline.saturating_duration_since(Instant::now());
        }
    }

    /// Reads media that cannot be kept through for one reader alone, under the same limit on how many
    /// there are.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn relay(
        &self,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
    ) -> Result<MediaItem, MediaError> {
        let places = self.enter(asker).await?;
        let item = self.source.relay(asker, mxc, search, self.limits.max_size).await?;
        let size = item.body.size();
        let body = Box::new(Placed { body: item.body.into_reader(), _places: places });
        Ok(MediaItem { body: MediaBody::Relayed { body, size }, ..item })
    }

    /// Takes one of the asker's own places and one of all.
    async fn enter(&self, asker: &Asker) -> Result<Places, MediaError> {
        let own = timeout(PLACE_PATIENCE, self.shares.take(asker.sharer())).await;
        let own = own.map_err(|_| MediaError::TooManyFetches)?;
        Ok(Places { _own: own, _of_all: place(&self.places, 1).await? })
    }

    /// Joins a fetch under way, or becomes the one who makes it.
    fn join(self: &Arc<Self>, key: &Key) -> (watch::Receiver<Stage>, Option<Lead>) {
        let mut flights = self.flights();
        if let Some(stage) = flights.get(key) {
            return (stage.clone(), None);
        }
        let (sender, stage) = watch::channel(Stage::Asked);
        flights.insert(key.clone(), stage.clone());
        let lead = Lead { fetcher: Arc::clone(self), key: key.clone(), stage: sender };
        (stage, Some(lead))
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Stage>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a body that is to be unfinished for a while.
    async fn room(&self, size: Option<u64>) -> Result<OwnedSemaphorePermit, MediaError> {
        let size = size.unwrap_or(self.limits.max_size).min(self.limits.max_unfinished);
        place(&self.space, units(size)).await
    }
}

/// The one who makes a fetch; when it is dropped, the fetch is over.
struct Lead {
    fetcher: Arc<Fetcher>,
    key: Key,
    stage: watch::Sender<Stage>,
}

impl Lead {
    /// Fetches the media to its end.
    async fn fetch(self, asker: Asker, search: Search) {
        if let Err(error) = self.try_fetch(asker, search).await {
            if let MediaError::RemoteTooLarge { .. } | MediaError::NotKept = error {
                self.remember(Arc::new(error));
            } else {
                self.stage.send_replace(Stage::Failed(Arc::new(error)));
            }
        }
    }

    async fn try_fetch(&self, asker: Asker, search: Search) -> Result<(), MediaError> {
        let fetcher = &self.fetcher;
        let _places = fetcher.enter(&asker).await?;
        let Answer { response: answer, proves_legacy_readable } =
            fetcher.source.ask(&asker, &self.key.mxc, search).await?;
        if let Some(record) = fetcher.store.media(&self.key.mxc)? {
            return self.open(record, &asker, proves_legacy_readable).await;
        }
        let limit = fetcher.source.limit(&self.key.mxc, fetcher.limits.max_size)?;
        let size = answer.content_length();
        if size.is_some_and(|size| size > limit) {
            return Err(MediaError::RemoteTooLarge { limit });
        }
        if !answer.is_delimited() {
            // Nobody could tell a body that broke off from a whole one.
            let mxc = &self.key.mxc;
            tracing::warn!(%mxc, "the homeserver does not say where media ends; it is not kept");
            return Err(MediaError::NotKept);
        }
        let _room = fetcher.room(size).await?;
        let media = self.describe(&answer, proves_legacy_readable)?;
        let incoming = self.begin(media, size).await?;
        fetcher.metrics.media_sources.homeserver.inc();
        let _counted = InFlight::begin(&fetcher.metrics.fetches);
        self.stage.send_replace(Stage::Arriving(Arc::clone(incoming.arrival())));
        self.take(incoming, answer.body, limit).await;
        Ok(())
    }

    /// Lets an asker see what is kept, on the homeserver's word: it knows that its own media is older
    /// than our copy of it.
    async fn open(
        &self,
        record: MediaRecord,
        asker: &Asker,
        is_proven: bool,
    ) -> Result<(), MediaError> {
        let Fetcher { store, source, memory, .. } = &*self.fetcher;
        // What was uploaded here is none of its own.
        if record.source == MediaSource::Owned && !source.shows(asker, &record) {
            return Err(MediaError::NotFound);
        }
        if is_proven {
            // Whether that can be remembered does not matter to this reader.
            if let Err(error) = store.mark_legacy_readable(&record.mxc).await {
                let mxc = &record.mxc;
                tracing::warn!(%mxc, %error, "it cannot be kept that media is open to anybody");
            }
            memory.forget_record(&record.mxc);
        }
        self.stage.send_replace(Stage::Kept(Arc::new(record)));
        Ok(())
    }

    fn describe(&self, answer: &Response, legacy_readable: bool) -> Result<NewMedia, MediaError> {
        let fetcher = &self.fetcher;
        let is_local = fetcher.source.is_local(&self.key.mxc)?;
        Ok(NewMedia {
            mxc: self.key.mxc.clone(),
            content_type: ContentType::from_header(answer.field(&http::header::CONTENT_TYPE)),
            filename: answer
                .field(&http::header::CONTENT_DISPOSITION)
                .and_then(FileName::from_content_disposition),
            uploader: None,
            source: if is_local { MediaSource::Upstream } else { MediaSource::Remote },
            created_at: UnixMillis::now(),
            legacy_readable,
        })
    }

    async fn begin(&self, media: NewMedia, size: Option<u64>) -> Result<Incoming, MediaError> {
        let staged = async {
            let staging = self.fetcher.store.stage().await?;
            match size {
                Some(size) => staging.set_apart(size).await?,
                None if self.fetcher.store.free_bytes().await? < LEAST_SPACE => {
                    return Err(StoreError::Full);
                }
                None => {}
            }
            Ok(staging)
        };
        match staged.await {
            Ok(staging) => Ok(Incoming::new(staging, media, size)),
            Err(error) => {
                not_kept(&self.key.mxc, &error);
                Err(MediaError::NotKept)
            }
        }
    }

    /// Takes the body to its end; a fetch that nobody wants any more, or that never ends, is given
    /// up.
    async fn take(&self, incoming: Incoming, mut body: ResponseBody, limit: u64) {
        let arrival = Arc::clone(incoming.arrival());
        let store = &self.fetcher.store;
        let end = tokio::select! {
            end = incoming.take(&mut body, Cap::of(limit), store, || {}) => end.err(),
            () = arrival.abandoned(UNFOLLOWED_TIME) => {
                tracing::debug!(mxc = %self.key.mxc, "gave up a fetch that nobody follows");
                None
            }
            () = tokio::time::sleep(LONGEST_FETCH) => Some(Arc::new(BodyError::TimedOut.into())),
        };
        if let Some(error) = end {
            tracing::warn!(mxc = %self.key.mxc, %error, "a body that was being fetched is not kept");
            self.remember(Arc::new(in_its_own_words(&error)));
        }
    }

    /// Lets nobody ask again for a while.
    fn remember(&self, error: Arc<MediaError>) {
        self.fetcher.failures.insert(self.key.clone(), Arc::clone(&error));
        self.stage.send_if_modified(|stage| {
            let is_asked = matches!(stage, Stage::Asked);
            if is_asked {
                *stage = Stage::Failed(error);
            }
            is_asked
        });
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.fetcher.flights().remove(&self.key);
    }
}

/// What a fetch takes of what there is for all.
struct Places {
    _own: Share,
    _of_all: OwnedSemaphorePermit,
}

/// A body that holds its places until it is dropped.
struct Placed {
    body: Box<dyn BodyReader>,
    _places: Places,
}

#[async_trait]
impl BodyReader for Placed {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.body.next().await
    }
}

/// Counts a fetch as long as it lasts.
struct InFlight<'m>(&'m IntGauge);

impl<'m> InFlight<'m> {
    fn begin(gauge: &'m IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Waits for a place, but not for ever.
async fn place(places: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, MediaError> {
    match timeout(PLACE_PATIENCE, Arc::clone(places).acquire_many_owned(count)).await {
        Ok(Ok(permit)) => Ok(permit),
        // They are never closed.
        Ok(Err(_)) | Err(_) => Err(MediaError::TooManyFetches),
    }
}

fn units(bytes: u64) -> u32 {
    let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
    u32::try_from(bytes.div_ceil(SPACE_UNIT)).unwrap_or(u32::MAX).clamp(1, most)
}

fn arriving(arrival: Arc<Arrival>, leads: bool, metrics: &Metrics) -> Result<Found, MediaError> {
    if let Some(failure) = arrival.failure() {
        return match in_its_own_words(&failure) {
            MediaError::NotKept => Ok(Found::Unkept),
            failure => Err(failure),
        };
    }
    if !leads {
        metrics.media_sources.arriving.inc();
    }
    Ok(Found::Arriving(arrival))
}

fn refused(error: Arc<MediaError>) -> Result<Found, MediaError> {
    match &*error {
        MediaError::NotKept => Ok(Found::Unkept),
        _ => Err(MediaError::Shared(error)),
    }
}

/// Whether a failure is the media's or the homeserver's own, and not that of one caller's token,
/// rate or patience.
fn concerns_all(error: &MediaError) -> bool {
    match error {
        MediaError::Refused(refusal) => refusal.status == http::StatusCode::BAD_GATEWAY,
        _ => true,
    }
}

/// Whether the homeserver has waited for an upload in vain; whoever has more time may ask again.
fn is_not_yet_uploaded(error: &MediaError) -> bool {
    matches!(error, MediaError::Refused(refusal)
        if refusal.status == http::StatusCode::GATEWAY_TIMEOUT)
}

/// Says of a body from the homeserver why it did not come.
pub(super) fn in_its_own_words(error: &MediaError) -> MediaError {
    match error {
        MediaError::Body(BodyError::TooLarge { limit }) => {
            MediaError::RemoteTooLarge { limit: *limit }
        }
        MediaError::Body(BodyError::TimedOut) => HomeserverError::TooSlow.into(),
        MediaError::Body(error) => HomeserverError::Unreachable(error.to_string()).into(),
        MediaError::Store(StoreError::Full) => MediaError::NotKept,
        MediaError::Store(error) => error.clone().into(),
        MediaError::Shared(error) => in_its_own_words(error),
        _ => HomeserverError::Unreachable("the body did not come".to_owned()).into(),
    }
}

fn not_kept(mxc: &Mxc, error: &StoreError) {
    tracing::warn!(%mxc, %error, "media passes through without being kept");
}
