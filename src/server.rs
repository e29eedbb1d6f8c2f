//! The composition root: builds the parts from the configuration, binds the sockets, starts the
//! services and lets them end in order. Nothing else constructs and spawns.

mod admin;
mod background;
mod listeners;
mod outside;
mod thumbnails;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pingora::apps::http_app::HttpServer;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::background::background_service;
use pingora::services::listening::Service as Listening;
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::Authenticator;
use crate::config::{Config, LegacyConfig, LegacyMode, LimitsConfig};
use crate::connection::{ConnectionLimits, Guard, Guarding};
use crate::handlers::Services;
use crate::homeserver::{Homeserver, Upstream};
use crate::limit::{Places, RateLimit, Rates, Traffic};
use crate::media::{CacheLimits, Clock, FetchLimits, Freeze, Limits, MediaService, Parts};
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::proxy::Proxy;
use crate::store::Store;

use admin::Admin;
use background::{Drain, Housekeeping};
use listeners::{Listener, Prebound};

use outside::Outside;

pub use outside::{egress, fetcher, rules, servers, signing_key};
pub use thumbnails::{
    engine as thumbnail_engine, ladder as thumbnail_ladder, limits as thumbnail_limits,
    worker as thumbnail_worker,
};

/// The setting under which the store remembers whose media it holds.
const SERVER_NAME_SETTING: &str = "server_name";

/// What is gathered before it is written to a socket: a head and a small body are one segment.
const WRITE_BUFFER: usize = 16 * 1024;

/// What is read from a socket at once of a request's head; bodies have a larger buffer of their own,
/// which they are read into past this one only if it is the smaller.
const READ_BUFFER: usize = 16 * 1024;

/// How many threads may wait for the disk at once, for each thread that serves.
const MAX_BLOCKING_THREADS: usize = 32;

/// Runs Mediary until it is told to stop.
///
/// # Errors
///
/// Returns an error only before the first request is taken: a store that cannot be opened, an
/// address that cannot be bound. Afterwards the process is ended from within.
pub fn run(config: &Config) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        tracing::warn!("running as root, which Mediary never needs; give it a user of its own");
    }
    let sockets = listeners::bind(config)?;
    let store = Store::open(&config.storage.path)
        .with_context(|| format!("cannot open the store in {}", config.storage.path.display()))?;
    tracing::info!(path = %config.storage.path.display(), "media is kept here");
    let metrics = Arc::new(Metrics::new().context("cannot declare the metrics")?);
    let homeserver = homeserver(config);
    settle_name(config, &store, &homeserver)?;
    let services = Arc::new(services(config, &store, &homeserver, &metrics)?);

    for socket in &sockets.proxy {
        tracing::info!(address = %socket.address(), "listening");
    }
    if let Some(socket) = &sockets.admin {
        tracing::info!(address = %socket.address(), "listening for metrics and health");
    }
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let conf = server.configuration.clone();
    let (trusted_proxies, log) = (&config.server.trusted_proxies, config.log.requests);
    let places = Arc::new(Places::new(config.connections.max_per_address));
    let guard = Guard::new(
        connection_limits(config),
        places.clone(),
        trusted_proxies.clone(),
        metrics.clone(),
        log,
    );
    let proxy = Proxy::new(services.clone(), trusted_proxies.clone(), places, metrics.clone(), log);
    let proxy = Guarding::new(http_proxy(&conf, proxy), Arc::new(guard));
    let proxy = Listening::new("proxy".to_owned(), proxy);
    server.add_service(prebound(proxy, sockets.proxy));
    if let Some(socket) = sockets.admin {
        let admin = Admin::new(metrics.clone(), homeserver.clone(), store.clone());
        let mut admin = Listening::new("admin".to_owned(), HttpServer::new_app(admin));
        admin.threads = Some(1);
        server.add_service(prebound(admin, vec![socket]));
    }
    server.add_service(background_service(
        "housekeeping",
        Housekeeping::new(store, services, homeserver, metrics.clone()),
    ));
    server.add_service(background_service(
        "drain",
        Drain::new(metrics, config.server.shutdown_timeout),
    ));
    server.run(RunArgs { shutdown_signal: Box::new(StopSignals) });
    Ok(())
}

fn connection_limits(config: &Config) -> ConnectionLimits {
    let connections = &config.connections;
    ConnectionLimits {
        header_timeout: connections.header_timeout,
        min_rate: connections.min_rate.as_u64(),
        slow_timeout: connections.slow_timeout,
    }
}

/// Makes the client of the configured homeserver.
pub fn homeserver(config: &Config) -> Homeserver {
    let settings = &config.homeserver;
    let upstream = Arc::new(Upstream::new(settings.url.clone(), settings.connect_timeout));
    Homeserver::new(upstream, settings.timeout)
}

/// Settles whose media the store holds, if that is known before the homeserver was asked.
fn settle_name(config: &Config, store: &Store, homeserver: &Homeserver) -> Result<()> {
    let stored = store.setting(SERVER_NAME_SETTING)?;
    let stored = stored.map(|name| name.parse()).transpose().context("the stored server name")?;
    match (config.homeserver.server_name.clone(), stored) {
        (Some(configured), Some(stored)) if configured != stored => bail!(
            "the store in {} holds media of {stored}, but homeserver.server_name is {configured}; \
             name another storage.path or set the name right",
            config.storage.path.display()
        ),
        (Some(name), _) | (None, Some(name)) => homeserver.set_name(name),
        (None, None) => {}
    }
    Ok(())
}

fn services(
    config: &Config,
    store: &Store,
    homeserver: &Homeserver,
    metrics: &Arc<Metrics>,
) -> Result<Services> {
    let auth = Authenticator::new(
        homeserver.clone(),
        config.auth.token_cache,
        config.auth.token_cache_entries,
        metrics.clone(),
    )
    .ok()
    .context("the system gives no random numbers")?;
    let admin_token = config.auth.read_admin_token()?;
    let auth = match admin_token.clone() {
        Some(token) => auth.with_admin_token(token),
        None => auth,
    };
    let outside = Outside::new(config, metrics)?;
    let media = MediaService::new(Parts {
        store: store.clone(),
        homeserver: homeserver.clone(),
        servers: outside.servers,
        engine: thumbnails::engine(&config.thumbnails, metrics.thumbnails.clone())?,
        thumbnails: thumbnails::rules(&config.thumbnails)?,
        memory_bytes: config.storage.memory.as_u64(),
        cache: CacheLimits {
            max_bytes: config.storage.cache_size.as_u64(),
            min_free_bytes: config.storage.min_free.as_u64(),
        },
        limits: Limits {
            unused_expiry: config.uploads.unused_expiry,
            fetches: FetchLimits {
                max_size: config.remote.max_size.as_u64(),
                max_fetches: config.remote.max_fetches,
                max_per_server: config.federation.max_fetches_per_server,
                max_unfinished: config.remote.max_unfinished.as_u64(),
                max_duration: config.remote.max_duration,
            },
        },
        freeze: freeze(&config.legacy, store),
        admin_token,
        clock: Clock::system(),
        metrics: metrics.clone(),
    });
    let uploads = &config.uploads;
    let create_limit =
        RateLimit::new(uploads.create_per_second.into(), uploads.create_burst.into());
    Ok(Services {
        auth,
        media,
        homeserver: homeserver.clone(),
        create_limit,
        traffic: traffic(&config.limits),
        policy: Policy::new(config),
        rules: outside.rules,
        judge: outside.judge,
    })
}

fn traffic(limits: &LimitsConfig) -> Traffic {
    let user = Rates {
        requests_per_second: limits.user_requests_per_second,
        requests_burst: limits.user_requests_burst,
        bytes_per_second: limits.user_bytes_per_second.as_u64(),
        bytes_burst: limits.user_bytes_burst.as_u64(),
    };
    let address = Rates {
        requests_per_second: limits.address_requests_per_second,
        requests_burst: limits.address_requests_burst,
        bytes_per_second: limits.address_bytes_per_second.as_u64(),
        bytes_burst: limits.address_bytes_burst.as_u64(),
    };
    Traffic::new(user, address)
}

fn freeze(legacy: &LegacyConfig, store: &Store) -> Freeze {
    let freeze = match legacy.mode {
        LegacyMode::Frozen => {
            Freeze::since(legacy.frozen_since.unwrap_or(store.first_started_at()))
        }
        LegacyMode::Open => Freeze::open(),
        LegacyMode::Off => Freeze::closed(),
    };
    freeze.with_readable(legacy.readable.iter().cloned())
}

fn server_conf(config: &Config) -> ServerConf {
    // Pingora sleeps through the grace period even if nothing is in flight; our own drain ends the
    // process as soon as it may, and a little before Pingora would.
    let grace = config.server.shutdown_timeout + Duration::from_secs(1);
    ServerConf {
        threads: config.server.worker_threads(),
        // Requests are many and short: a thread of one's own costs less than sharing them out.
        work_stealing: false,
        max_blocking_threads: Some(MAX_BLOCKING_THREADS),
        grace_period_seconds: Some(grace.as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

/// Gives a service the sockets that were bound for it.
fn prebound<A>(mut service: Listening<A>, sockets: Vec<Listener>) -> Prebound<Listening<A>> {
    for socket in &sockets {
        let endpoint = match socket {
            Listener::Tcp { .. } => ListenerConfig::tcp(socket.address()),
            Listener::Unix { .. } => ListenerConfig::uds(socket.address()),
        };
        let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
        service.add_listener(endpoint.l4_buffer(buffers));
    }
    Prebound::new(service, sockets)
}

/// SIGTERM and SIGINT: stop taking connections, finish what is in flight, end.
struct StopSignals;

#[async_trait::async_trait]
impl ShutdownSignalWatch for StopSignals {
    async fn recv(&self) -> ShutdownSignal {
        let watch = |kind| signal(kind).expect("signal handlers can be installed");
        let mut terminate = watch(SignalKind::terminate());
        let mut interrupt = watch(SignalKind::interrupt());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ShutdownSignal::GracefulTerminate
    }
}
