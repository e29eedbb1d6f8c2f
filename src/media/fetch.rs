//! The miss path: what Mediary does not hold is fetched from the homeserver, or from the server that
//! made it, kept, and followed by whoever asks for it meanwhile.
//!
//! All who ask for the same media at the same time share one request. It is made
//! with the token of the first of them and goes on when that one leaves, under limits on how many
//! fetches there are and on how much of them may be unfinished. What the homeserver says about the
//! media counts for all; what it says about a token counts for its owner only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::Expiry;
use moka::sync::Cache;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::failure::{self, in_its_own_words};
use super::incoming::{Arrival, Cap, Incoming};
use super::memory::Memory;
use super::places::{FetchPlaces, Place};
use super::source::{Answer, Asker, Giver, Road, Source};
use super::{MediaBody, MediaError, MediaItem, Search};
use crate::homeserver::HomeserverError;
use crate::metrics::Metrics;
use crate::store::{MediaRecord, MediaSource, NewMedia, Store, StoreError};
use crate::types::{BodyError, BodyReader, Mxc, UnixMillis};

/// How many such failures are remembered at once, at most.
const REMEMBERED_FAILURES: u64 = 10_000;

/// How long a fetch goes on although nobody follows it any more.
const UNFOLLOWED_TIME: Duration = Duration::from_secs(5 * 60);

/// How much space there must be for a body of unknown size: a disk with less is as good as full.
const LEAST_SPACE: u64 = 1024 * 1024;

/// Bounds on what is fetched.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// The largest file of another server, in bytes.
    pub max_size: u64,
    /// How many fetches there may be at once.
    pub max_fetches: usize,
    /// How many of them may be of one server's media.
    pub max_per_server: usize,
    /// How many bytes unfinished bodies may come to; one of unknown size counts as `max_size`.
    pub max_unfinished: u64,
    /// How long a fetch may take in all; one that takes longer drips on purpose.
    pub max_duration: Duration,
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
    failures: Cache<Key, Failure>,
    places: FetchPlaces,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
}

/// What came of a fetch that failed, and how long it is remembered.
#[derive(Clone)]
struct Failure {
    error: Arc<MediaError>,
    lifetime: Duration,
}

/// Failures go when their time is over.
struct ItsLifetime;

impl Expiry<Key, Failure> for ItsLifetime {
    fn expire_after_create(
        &self,
        _: &Key,
        failure: &Failure,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(failure.lifetime)
    }
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
    Origin,
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
        let failures = failures.expire_after(ItsLifetime).build();
        Self {
            store,
            source,
            limits,
            flights: Mutex::default(),
            failures,
            places: FetchPlaces::new(
                limits.max_fetches,
                limits.max_per_server,
                limits.max_unfinished,
            ),
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
            Asker::Origin(_) => Role::Origin,
            Asker::Anybody => Role::Anybody { allow_remote, allow_redirect },
        };
        let key = Key { mxc: mxc.clone(), role };
        let deadline = Instant::now() + search.wait;
        let mut wait = search.wait;
        loop {
            let search = Search { wait, ..search };
            if let Some(Failure { error, .. }) = self.failures.get(&key) {
                return refused(error);
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
                Ok(Ok(Stage::Failed(error))) if leads || failure::concerns_all(&error) => {
                    return refused(error);
                }
                Ok(Ok(Stage::Failed(error)))
                    if failure::is_not_yet_uploaded(&error) && Instant::now() >= deadline =>
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
        let limit = self.source.limit(mxc, self.limits.max_size)?;
        let (answer, place) = self.ask(asker, mxc, search, limit).await?;
        let item = answer.into_item(limit)?;
        let size = item.body.size();
        let until = Instant::now() + self.limits.max_duration;
        let body = Box::new(place.held_by(item.body.into_reader(), until));
        Ok(MediaItem { body: MediaBody::Relayed { body, size }, ..item })
    }

    /// Asks for media of at most `limit` bytes and returns the answer with the place that its body
    /// takes.
    ///
    /// Another server is waited for at its own cost: a place among all fetches is taken only when it
    /// has answered, so that those which never do keep nobody from the others.
    async fn ask(
        &self,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
        limit: u64,
    ) -> Result<(Answer, Place), MediaError> {
        let is_asked_there = self.source.asks_servers() && !self.source.is_local(mxc)?;
        let server = is_asked_there.then_some(&mxc.server_name);
        let own = self.places.of_sharer(asker.sharer(), server).await?;
        let failure = match self.source.road(asker, mxc, search).await? {
            Road::Homeserver(failure) => failure,
            Road::Server(place) => {
                let asking = self.places.asking().await?;
                match self.source.ask_server(place, asker, mxc, search, limit).await? {
                    Ok(answer) => return Ok((answer, self.places.of_all(own).await?)),
                    Err(failure) => {
                        drop(asking);
                        Some(self.source.excuse(failure)?)
                    }
                }
            }
        };
        let place = self.places.of_all(own).await?;
        Ok((self.source.ask(failure, asker, mxc, search).await?, place))
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
            let error = Arc::new(error);
            match failure::of_head(&error) {
                Some(lifetime) => self.remember(error, lifetime),
                None => _ = self.stage.send_replace(Stage::Failed(error)),
            }
        }
    }

    async fn try_fetch(&self, asker: Asker, search: Search) -> Result<(), MediaError> {
        let fetcher = &self.fetcher;
        let limit = fetcher.source.limit(&self.key.mxc, fetcher.limits.max_size)?;
        let (answer, _place) = fetcher.ask(&asker, &self.key.mxc, search, limit).await?;
        if let Some(record) = fetcher.store.media(&self.key.mxc)? {
            return self.open(record, &asker, answer.proves_legacy_readable).await;
        }
        if answer.size.is_some_and(|size| size > limit) {
            return Err(MediaError::RemoteTooLarge { limit });
        }
        if !answer.is_delimited {
            // Nobody could tell a body that broke off from a whole one.
            let mxc = &self.key.mxc;
            tracing::warn!(%mxc, "the homeserver does not say where media ends; it is not kept");
            return Err(MediaError::NotKept);
        }
        let most = answer.size.or(answer.at_most).unwrap_or(fetcher.limits.max_size);
        let _room = fetcher.places.room(most).await?;
        let giver = answer.giver;
        let incoming = self.begin(self.describe(&answer)?, answer.size, giver).await?;
        let sources = &fetcher.metrics.media_sources;
        match giver {
            Giver::Homeserver => sources.homeserver.inc(),
            Giver::Server => sources.server.inc(),
        }
        let _counted = InFlight::begin(&fetcher.metrics.fetches);
        self.stage.send_replace(Stage::Arriving(Arc::clone(incoming.arrival())));
        self.take(incoming, answer.body, limit, giver).await;
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

    fn describe(&self, answer: &Answer) -> Result<NewMedia, MediaError> {
        let is_local = self.fetcher.source.is_local(&self.key.mxc)?;
        Ok(NewMedia {
            mxc: self.key.mxc.clone(),
            content_type: answer.content_type.clone(),
            filename: answer.filename.clone(),
            uploader: None,
            source: if is_local { MediaSource::Upstream } else { MediaSource::Remote },
            created_at: UnixMillis::now(),
            legacy_readable: answer.proves_legacy_readable,
        })
    }

    async fn begin(
        &self,
        media: NewMedia,
        size: Option<u64>,
        giver: Giver,
    ) -> Result<Incoming, MediaError> {
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
            Ok(staging) => Ok(Incoming::fetched(staging, media, size, giver)),
            Err(error) => {
                not_kept(&self.key.mxc, &error);
                Err(MediaError::NotKept)
            }
        }
    }

    /// Takes the body to its end; a fetch that nobody wants any more, or that never ends, is given
    /// up.
    async fn take(
        &self,
        incoming: Incoming,
        mut body: Box<dyn BodyReader>,
        limit: u64,
        giver: Giver,
    ) {
        let arrival = Arc::clone(incoming.arrival());
        let store = &self.fetcher.store;
        let end = tokio::select! {
            end = incoming.take(&mut *body, Cap::of(limit), store, || {}) => end.err(),
            () = arrival.abandoned(UNFOLLOWED_TIME) => {
                tracing::debug!(mxc = %self.key.mxc, "gave up a fetch that nobody follows");
                None
            }
            () = tokio::time::sleep(self.fetcher.limits.max_duration) => Some(Arc::new(BodyError::TimedOut.into())),
        };
        if let Some(error) = end {
            tracing::warn!(mxc = %self.key.mxc, %error, "a body that was being fetched is not kept");
            let error = in_its_own_words(&error, giver);
            let lifetime = failure::of_body(&error);
            self.remember(Arc::new(error), lifetime);
        }
    }

    /// Lets nobody ask again for a while.
    fn remember(&self, error: Arc<MediaError>, lifetime: Duration) {
        let failure = Failure { error: Arc::clone(&error), lifetime };
        self.fetcher.failures.insert(self.key.clone(), failure);
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

fn arriving(arrival: Arc<Arrival>, leads: bool, metrics: &Metrics) -> Result<Found, MediaError> {
    if let Some(failure) = arrival.failure() {
        return match arrival.refusal(&failure) {
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

fn not_kept(mxc: &Mxc, error: &StoreError) {
    tracing::warn!(%mxc, %error, "media passes through without being kept");
}
