//! What goes on beside the requests: learning the homeserver's name, counting the store, making room
//! in it, sweeping, making thumbnails ahead, and the orderly end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use super::SERVER_NAME_SETTING;
use crate::handlers::Services;
use crate::homeserver::{Homeserver, HomeserverError};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Swept};
use crate::types::{ServerName, UnixMillis};

/// How soon the homeserver is asked for its name again, at first and at last.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// How often the homeserver's address is looked up, expired media ids are removed and the store is
/// counted.
const ROUND: Duration = Duration::from_secs(30);

/// How often the homeserver is asked for the icons of identity providers.
const ICONS_ROUND: Duration = Duration::from_secs(5 * 60);

/// How often access times are kept and the free space is looked at; what is read between two rounds and
/// a crash seems older than it is.
const TENDING_ROUND: Duration = Duration::from_secs(5);

/// How often the drain looks whether anything is still in flight.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// How long a connection that was taken just before the stop has to show its request; only then is
/// it in flight. Without this a restart would cut off who came in its moment.
const DRAIN_SETTLE: Duration = Duration::from_millis(250);

/// Learns, counts, sweeps and makes thumbnails ahead until the process ends.
pub(super) struct Housekeeping {
    store: Store,
    services: Arc<Services>,
    homeserver: Homeserver,
    metrics: Arc<Metrics>,
    stopping: AtomicBool,
}

impl Housekeeping {
    pub(super) fn new(
        store: Store,
        services: Arc<Services>,
        homeserver: Homeserver,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { store, services, homeserver, metrics, stopping: AtomicBool::new(false) }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Learns from the homeserver what is needed to serve, and then what may change.
    async fn learn(&self) {
        self.resolve().await;
        let icons = self.services.media.learn_icons().await;
        tokio::join!(self.learn_name(), self.keep_icons(icons));
    }

    /// Asks the homeserver for its name until it answers, and holds the answer against what the
    /// store holds media of.
    async fn learn_name(&self) {
        let mut retry = FIRST_RETRY;
        loop {
            self.resolve().await;
            match self.homeserver.ask_name().await {
                Ok(name) => match self.homeserver.name() {
                    Ok(known) if *known != name => {
                        tracing::error!(
                            %known, %name,
                            "the homeserver is not the one whose media this store holds; check \
                             homeserver.url, or name another storage.path"
                        );
                        std::process::exit(1);
                    }
                    Ok(_) => return self.remember(&name).await,
                    Err(_) => {
                        tracing::info!(%name, "the homeserver has said its server name");
                        self.remember(&name).await;
                        self.homeserver.set_name(name);
                        return;
                    }
                },
                // Without federation there is no such answer; a configured name is enough then.
                Err(HomeserverError::Misbehaved(_)) if self.homeserver.name().is_ok() => {
                    if let Ok(name) = self.homeserver.name() {
                        self.remember(name).await;
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        %error, retry_ms = retry.as_millis() as u64,
                        "the homeserver has not said its server name; set homeserver.server_name \
                         if it never does"
                    );
                }
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Remembers whose media the store holds, so that it is never mixed with another server's.
    async fn remember(&self, name: &ServerName) {
        match self.store.set_setting(SERVER_NAME_SETTING, name.as_str()).await {
            Ok(()) => tracing::debug!(%name, "the store remembers whose media it holds"),
            Err(error) => tracing::error!(%error, "the server name cannot be remembered"),
        }
    }

    /// Keeps the icons of identity providers as the homeserver names them (CS-FRZ-04). Where it does
    /// not say, those that it named before stay.
    async fn keep_icons(&self, mut outcome: Result<(), HomeserverError>) {
        let mut retry = FIRST_RETRY;
        loop {
            match outcome {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    tokio::time::sleep(ICONS_ROUND).await;
                }
                Err(error) => {
                    if retry == FIRST_RETRY {
                        tracing::warn!(
                            %error,
                            "the homeserver does not name the icons of identity providers"
                        );
                    }
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(ICONS_ROUND);
                }
            }
            outcome = self.services.media.learn_icons().await;
        }
    }

    /// Looks the homeserver's address up again.
    async fn resolve(&self) {
        if let Err(error) = self.homeserver.upstream().resolve().await {
            let upstream = self.homeserver.upstream();
            tracing::warn!(%upstream, %error, "the homeserver's name does not resolve");
        }
    }

    /// Removes bodies that no record names: the litter of a crash.
    async fn sweep(&self) {
        let swept = self.store.sweep_orphans(|| self.is_stopping()).await;
        match swept {
            Ok(Swept { removed, bytes, .. }) if removed > 0 => {
                tracing::info!(removed, bytes, "removed bodies that no record names");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the sweep for bodies without a record ended"),
        }
    }

    /// Keeps the cache within its bounds, every few seconds and as soon as it is too large.
    async fn tend_cache(&self) {
        let media = &self.services.media;
        let mut round = tokio::time::interval(TENDING_ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_stuck, mut is_failing) = (false, false);
        loop {
            let is_urgent = tokio::select! {
                _ = round.tick() => false,
                () = media.cache_overflows(), if !is_stuck => true,
            };
            let outcome = media.tend(|| self.is_stopping()).await;
            // What could not be mended now is not mended by trying at once again.
            is_stuck = is_urgent && !matches!(outcome, Ok(evicted) if evicted > 0);
            match outcome {
                Ok(_) => is_failing = false,
                Err(error) if is_failing => {
                    tracing::debug!(%error, "the cache is still not within storage.cache_size")
                }
                Err(error) => {
                    tracing::warn!(%error, "the cache cannot be kept within storage.cache_size");
                    is_failing = true;
                }
            }
        }
    }

    async fn keep_counting(&self) {
        let mut round = tokio::time::interval(ROUND);
        loop {
            round.tick().await;
            self.remove_expired().await;
            if let Err(error) = self.count_store().await {
                tracing::warn!(%error, "the store cannot be counted");
            }
            self.resolve().await;
        }
    }

    /// Removes the media ids that nobody has uploaded to in time (CS-CRE-04). They count for nothing
    /// from their moment on; this only makes room.
    async fn remove_expired(&self) {
        match self.store.remove_expired_reservations(UnixMillis::now()).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "removed media ids that were never uploaded"),
            Err(error) => tracing::warn!(%error, "expired media ids cannot be removed"),
        }
    }

    async fn count_store(&self) -> Result<(), StoreError> {
        let usage = self.store.usage().await?;
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.uploads_pending.set(gauge(usage.reserved));
        let store = &self.metrics.store;
        for (holdings, tally) in [
            (&store.owned, usage.owned),
            (&store.upstream, usage.upstream),
            (&store.remote, usage.remote),
            (&store.thumbnails, usage.thumbnails),
        ] {
            holdings.items.set(gauge(tally.count));
            holdings.bytes.set(gauge(tally.bytes));
        }
        Ok(())
    }
}

#[async_trait]
impl BackgroundService for Housekeeping {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // The sockets listen since before the services were started.
        notify(&[NotifyState::Ready]);
        let work = async {
            tokio::join!(
                self.learn(),
                self.sweep(),
                self.tend_cache(),
                self.keep_counting(),
                self.services.media.make_thumbnails_ahead(),
            );
        };
        tokio::select! {
            () = work => {}
            _ = shutdown.changed() => self.stopping.store(true, Ordering::Relaxed),
        }
        if let Err(error) = self.store.keep_touches().await {
            tracing::warn!(%error, "the last access times are lost");
        }
    }
}

/// Ends the process when it was told to stop and nothing is in flight, or when time is up.
pub(super) struct Drain {
    metrics: Arc<Metrics>,
    timeout: Duration,
}

impl Drain {
    pub(super) fn new(metrics: Arc<Metrics>, timeout: Duration) -> Self {
        Self { metrics, timeout }
    }
}

#[async_trait]
impl BackgroundService for Drain {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // An error means that the sender is gone, which is a shutdown too.
        let _ = shutdown.changed().await;
        notify(&[NotifyState::Stopping]);
        let in_flight = self.metrics.in_flight.get();
        tracing::info!(in_flight, "stopping; no new connections are taken");
        tokio::time::sleep(DRAIN_SETTLE.min(self.timeout)).await;
        let drained = async {
            while self.metrics.in_flight.get() > 0 {
                tokio::time::sleep(DRAIN_TICK).await;
            }
        };
        if tokio::time::timeout(self.timeout, drained).await.is_err() {
            let in_flight = self.metrics.in_flight.get();
            tracing::warn!(in_flight, "time is up; what is still in flight is cut off");
        }
        // The store needs no closing: whatever was acknowledged is on disk.
        tracing::info!("stopped");
        std::process::exit(0);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
