//! Every metric that Mediary shows, declared in one place.
//!
//! Labels come from closed sets: nothing that a stranger sends becomes a time series. Handles are
//! looked up once, at start, so that counting on the way of a request is one atomic addition.

mod thumbnails;

use std::time::Duration;

use http::StatusCode;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use thumbnails::{AheadMetrics, ThumbnailMetrics, WorkerEnd};

/// What requests are counted by: the operations of the media API and what is not one.
pub const ROUTES: &[&str] = &[
    "upload",
    "create",
    "upload_to",
    "download",
    "thumbnail",
    "config",
    "preview_url",
    "federation_download",
    "federation_thumbnail",
    "preflight",
    "refused",
    "pass_through",
];

/// What requests are refused for by our own limits and rules.
pub const REFUSALS: &[&str] = &[
    "user_requests",
    "user_bytes",
    "address_requests",
    "address_bytes",
    "address_connections",
    "server_requests",
    "server_concurrency",
    "create",
    "pending",
    "quota",
    "size",
    "type",
    "server",
    "guest",
    "upload",
];

/// What comes of asking other servers for media.
pub const FETCH_RESULTS: &[&str] = &[
    "ok",
    "not_found",
    "not_yet_uploaded",
    "too_large",
    "refused",
    "server_error",
    "backed_off",
    "busy",
    "discovery",
    "forbidden",
    "unreachable",
    "tls",
    "timed_out",
    "misbehaved",
];

/// Status classes; `none` is a request whose client left before an answer.
const STATUSES: &[&str] = &["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Seconds; from a hit in memory to a long poll.
const LATENCY_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Seconds that making one thumbnail takes.
const RENDER_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The handles of one route.
struct RouteMetrics {
    requests: Vec<IntCounter>,
    duration: Histogram,
    sent: IntCounter,
    received: IntCounter,
}

/// How token checks ended.
pub struct TokenChecks {
    /// Answered from memory.
    pub cached: IntCounter,
    /// The homeserver knew the token.
    pub accepted: IntCounter,
    /// The homeserver refused it.
    pub refused: IntCounter,
    /// The homeserver could not be asked.
    pub failed: IntCounter,
}

/// How checks of other servers' signatures ended.
pub struct OriginChecks {
    /// The signature was good.
    pub accepted: IntCounter,
    /// It was not, or there was none that could be read.
    pub refused: IntCounter,
    /// The server's key could not be had.
    pub failed: IntCounter,
}

/// Where bodies came from.
pub struct MediaSources {
    /// From memory.
    pub memory: IntCounter,
    /// From the store.
    pub store: IntCounter,
    /// Fetched from the homeserver.
    pub homeserver: IntCounter,
    /// Fetched from the server that made it.
    pub server: IntCounter,
    /// Followed while somebody else fetched or uploaded it.
    pub arriving: IntCounter,
}

/// How many items of one kind the store holds, and their bytes.
pub struct Holdings {
    /// Items.
    pub items: IntGauge,
    /// Bytes.
    pub bytes: IntGauge,
}

/// What the store holds, by kind.
pub struct StoreGauges {
    /// Media uploaded here.
    pub owned: Holdings,
    /// Media of the homeserver.
    pub upstream: Holdings,
    /// Media of other servers.
    pub remote: Holdings,
    /// Thumbnails.
    pub thumbnails: Holdings,
}

/// What can be had again and so may be evicted.
pub struct CacheMetrics {
    /// Bytes that may be evicted.
    pub bytes: IntGauge,
    /// How many there may be.
    pub limit: IntGauge,
    /// Bytes that are free in the store's file system.
    pub free: IntGauge,
    /// Bodies that were evicted.
    pub evictions: IntCounter,
    /// Their bytes.
    pub evicted_bytes: IntCounter,
}

/// Why a connection was ended from our side before its client was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// Its client had as many as it may.
    TooMany,
    /// What it sent is not HTTP, or a method that is not taken.
    Malformed,
    /// The head of a request was too large.
    HeadTooLarge,
    /// The head of a request did not come in time.
    HeadTooSlow,
    /// The body of a request came too slowly.
    BodyTooSlow,
    /// A reply was taken too slowly.
    ReaderTooSlow,
}

impl ConnectionEnd {
    /// In the order of the variants.
    const NAMES: [&'static str; 6] = [
        "too_many",
        "malformed",
        "head_too_large",
        "head_too_slow",
        "body_too_slow",
        "reader_too_slow",
    ];
}

/// Clients' connections.
pub struct ConnectionMetrics {
    /// Those that are open.
    pub open: IntGauge,
    ended: [IntCounter; ConnectionEnd::NAMES.len()],
}

impl ConnectionMetrics {
    /// Counts a connection that was ended from our side.
    pub fn ended(&self, end: ConnectionEnd) {
        self.ended[end as usize].inc();
    }
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    routes: Vec<RouteMetrics>,
    refusals: Vec<IntCounter>,
    remote_fetches: Vec<IntCounter>,
    /// How checks of other servers' signatures ended.
    pub origin_checks: OriginChecks,
    /// Requests being answered right now.
    pub in_flight: IntGauge,
    /// Clients' connections.
    pub connections: ConnectionMetrics,
    /// How token checks ended.
    pub token_checks: TokenChecks,
    /// Where bodies came from.
    pub media_sources: MediaSources,
    /// Bodies being fetched right now.
    pub fetches: IntGauge,
    /// Readers that wait for an upload to begin.
    pub waiting_readers: IntGauge,
    /// What the store holds.
    pub store: StoreGauges,
    /// Media ids that were given out and have no content yet.
    pub uploads_pending: IntGauge,
    /// What may be evicted.
    pub cache: CacheMetrics,
    /// Time spent on each new thumbnail.
    pub thumbnail_duration: Histogram,
    /// Thumbnails that could not be made.
    pub thumbnail_failures: IntCounter,
    /// Thumbnail workers and who waits for them.
    pub thumbnails: ThumbnailMetrics,
    /// Thumbnails that were made and not kept: one variant too many, or the store failed.
    pub thumbnails_not_kept: IntCounter,
    /// Thumbnails that are made before anybody asks.
    pub thumbnails_ahead: AheadMetrics,
    /// Stored bodies that did not match their checksum.
    pub corrupt_blobs: IntCounter,
}

impl Metrics {
    /// Declares all metrics in a registry of their own.
    ///
    /// # Errors
    ///
    /// Fails only if two metrics have one name, which the tests rule out.
    pub fn new() -> prometheus::Result<Self> {
        let declare = Declare(Registry::new());
        let requests = declare.counters(
            "mediary_requests_total",
            "Requests by route and status class.",
            &["route", "status"],
        )?;
        let duration = declare.histograms(
            "mediary_request_duration_seconds",
            "Time from the request's head to the reply's end, by route.",
            &["route"],
            LATENCY_BUCKETS,
        )?;
        let sent = declare.counters(
            "mediary_response_bytes_total",
            "Body bytes sent to clients, by route.",
            &["route"],
        )?;
        let received = declare.counters(
            "mediary_request_bytes_total",
            "Body bytes received from clients, by route.",
            &["route"],
        )?;
        let routes = ROUTES
            .iter()
            .map(|route| RouteMetrics {
                requests: STATUSES
                    .iter()
                    .map(|status| requests.with_label_values(&[route, status]))
                    .collect(),
                duration: duration.with_label_values(&[route]),
                sent: sent.with_label_values(&[route]),
                received: received.with_label_values(&[route]),
            })
            .collect();
        let ended = declare.counters(
            "mediary_connections_ended_total",
            "Connections ended from this side, by reason: too_many, malformed, head_too_large, \
             head_too_slow, body_too_slow, reader_too_slow.",
            &["reason"],
        )?;
        let refusals = declare.counters(
            "mediary_refusals_total",
            "Requests refused by limits and rules, by which.",
            &["kind"],
        )?;
        let checks = declare.counters(
            "mediary_token_checks_total",
            "Access tokens checked, by result: cached, accepted, refused, failed.",
            &["result"],
        )?;
        let remote_fetches = declare.counters(
            "mediary_remote_fetches_total",
            "Requests to other servers for media, by what came of them.",
            &["result"],
        )?;
        let origins = declare.counters(
            "mediary_origin_checks_total",
            "Readable signatures of other servers checked, by result: accepted, refused, failed (no key).",
            &["result"],
        )?;
        let sources = declare.counters(
            "mediary_media_reads_total",
            "Media and thumbnails opened, by where they came from: memory, store, homeserver, server, \
             arriving.",
            &["source"],
        )?;
        let items = declare.int_gauges(
            "mediary_store_items",
            "Items in the store, by kind: owned, upstream, remote, thumbnail.",
            &["kind"],
        )?;
        let bytes = declare.int_gauges(
            "mediary_store_bytes",
            "Bytes in the store, by kind: owned, upstream, remote, thumbnail.",
            &["kind"],
        )?;
        let holdings = |kind| Holdings {
            items: items.with_label_values(&[kind]),
            bytes: bytes.with_label_values(&[kind]),
        };
        let start_time = declare.gauge(
            "mediary_start_time_seconds",
            "When the process started, in seconds since the Unix epoch.",
        )?;
        start_time.set(crate::types::UnixMillis::now().0 as f64 / 1000.0);
        Ok(Self {
            routes,
            refusals: REFUSALS.iter().map(|kind| refusals.with_label_values(&[kind])).collect(),
            remote_fetches: FETCH_RESULTS
                .iter()
                .map(|result| remote_fetches.with_label_values(&[result]))
                .collect(),
            origin_checks: OriginChecks {
                accepted: origins.with_label_values(&["accepted"]),
                refused: origins.with_label_values(&["refused"]),
                failed: origins.with_label_values(&["failed"]),
            },
            in_flight: declare.int_gauge(
                "mediary_requests_in_flight",
                "Requests being answered right now, long polls included.",
            )?,
            connections: ConnectionMetrics {
                open: declare.int_gauge(
                    "mediary_connections",
                    "Connections of clients, idle ones included.",
                )?,
                ended: ConnectionEnd::NAMES.map(|reason| ended.with_label_values(&[reason])),
            },
            token_checks: TokenChecks {
                cached: checks.with_label_values(&["cached"]),
                accepted: checks.with_label_values(&["accepted"]),
                refused: checks.with_label_values(&["refused"]),
                failed: checks.with_label_values(&["failed"]),
            },
            media_sources: MediaSources {
                memory: sources.with_label_values(&["memory"]),
                store: sources.with_label_values(&["store"]),
                homeserver: sources.with_label_values(&["homeserver"]),
                server: sources.with_label_values(&["server"]),
                arriving: sources.with_label_values(&["arriving"]),
            },
            fetches: declare
                .int_gauge("mediary_fetches_in_flight", "Bodies being fetched right now.")?,
            waiting_readers: declare.int_gauge(
                "mediary_waiting_readers",
                "Requests that wait for media to be uploaded.",
            )?,
            store: StoreGauges {
                owned: holdings("owned"),
                upstream: holdings("upstream"),
                remote: holdings("remote"),
                thumbnails: holdings("thumbnail"),
            },
            uploads_pending: declare.int_gauge(
                "mediary_uploads_pending",
                "Media ids that were created and not uploaded yet.",
            )?,
            cache: CacheMetrics {
                bytes: declare.int_gauge(
                    "mediary_cache_bytes",
                    "Bytes of media and thumbnails that can be had again and may be evicted.",
                )?,
                limit: declare.int_gauge(
                    "mediary_cache_limit_bytes",
                    "Above how many such bytes the longest unread are evicted.",
                )?,
                free: declare.int_gauge(
                    "mediary_storage_free_bytes",
                    "Bytes that are free in the file system of the store.",
                )?,
                evictions: declare
                    .counter("mediary_evictions_total", "Bodies evicted to make room.")?,
                evicted_bytes: declare
                    .counter("mediary_evicted_bytes_total", "Bytes of the bodies evicted.")?,
            },
            thumbnail_duration: declare.histogram(
                "mediary_thumbnail_duration_seconds",
                "Time to make one new thumbnail, waiting for a place included.",
                RENDER_BUCKETS,
            )?,
            thumbnail_failures: declare.counter(
                "mediary_thumbnail_failures_total",
                "Thumbnails that could not be made.",
            )?,
            thumbnails: ThumbnailMetrics::new(&declare)?,
            thumbnails_not_kept: declare.counter(
                "mediary_thumbnails_not_kept_total",
                "Thumbnails made and not kept: past thumbnails.max_variants, or because the store failed.",
            )?,
            thumbnails_ahead: AheadMetrics::new(&declare)?,
            corrupt_blobs: declare.counter(
                "mediary_corrupt_blobs_total",
                "Stored bodies that were damaged or gone when they were read.",
            )?,
            registry: declare.0,
        })
    }

    /// Counts a finished request. `route` is one of [`ROUTES`]; `status` is absent if the client
    /// left before an answer.
    pub fn request(
        &self,
        route: &str,
        status: Option<StatusCode>,
        duration: Duration,
        received: u64,
        sent: u64,
    ) {
        let Some(index) = ROUTES.iter().position(|known| *known == route) else { return };
        let class =
            status.map_or(STATUSES.len() - 1, |status| usize::from(status.as_u16() / 100) - 1);
        let metrics = &self.routes[index];
        if let Some(counter) = metrics.requests.get(class) {
            counter.inc();
        }
        metrics.duration.observe(duration.as_secs_f64());
        metrics.sent.inc_by(sent);
        metrics.received.inc_by(received);
    }

    /// Counts a request that was refused for one of [`REFUSALS`].
    pub fn refusal(&self, kind: &str) {
        let index = REFUSALS.iter().position(|known| *known == kind);
        if let Some(counter) = index.and_then(|index| self.refusals.get(index)) {
            counter.inc();
        }
    }

    /// Counts a request to another server for media, by one of [`FETCH_RESULTS`].
    pub fn remote_fetch(&self, result: &str) {
        let index = FETCH_RESULTS.iter().position(|known| *known == result);
        if let Some(counter) = index.and_then(|index| self.remote_fetches.get(index)) {
            counter.inc();
        }
    }

    /// Returns all metrics in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}

/// Makes metrics and registers them.
struct Declare(Registry);

impl Declare {
    fn register<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        collector: prometheus::Result<C>,
    ) -> prometheus::Result<C> {
        let collector = collector?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help))
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::new(name, help))
    }

    fn int_gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help))
    }

    fn int_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
        ))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn all_series_exist_from_the_start_and_stay_the_same() {
        let metrics = Metrics::new().unwrap();
        let series = |metrics: &Metrics| {
            String::from_utf8(metrics.render())
                .unwrap()
                .lines()
                .filter(|l| !l.starts_with('#'))
                .count()
        };
        let before = series(&metrics);
        for route in ROUTES.iter().copied().chain(["made-up", "GET /x"]) {
            for status in (100..600).filter_map(|status| StatusCode::from_u16(status).ok()) {
                metrics.request(route, Some(status), Duration::from_millis(1), 1, 1);
            }
            metrics.request(route, StatusCode::from_u16(999).ok(), Duration::ZERO, 0, 0);
            metrics.request(route, None, Duration::ZERO, 0, 0);
        }
        for kind in REFUSALS.iter().copied().chain(["made-up", ""]) {
            metrics.refusal(kind);
        }
        assert_eq!(series(&metrics), before);
    }

    #[test]
    fn the_readme_names_every_metric_and_no_other() {
        let shown = String::from_utf8(Metrics::new().unwrap().render()).unwrap();
        let types = shown.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let shown: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
        let readme = include_str!("../README.md");
        let rows = readme.lines().filter(|line| line.starts_with("| `mediary_"));
        let in_table: BTreeSet<_> = rows.flat_map(metrics_named_in).collect();
        assert_eq!(in_table, shown);
        let anywhere: BTreeSet<_> = metrics_named_in(readme).collect();
        assert_eq!(anywhere, shown);
    }

    fn metrics_named_in(text: &str) -> impl Iterator<Item = &str> {
        let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        text.split(move |c| !is_of_name(c)).filter(|word| word.starts_with("mediary_"))
    }

    #[test]
    fn requests_are_counted_by_route_and_class() {
        let metrics = Metrics::new().unwrap();
        metrics.request("download", Some(StatusCode::PARTIAL_CONTENT), Duration::ZERO, 0, 7);
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.contains(r#"mediary_requests_total{route="download",status="2xx"} 1"#));
        assert!(text.contains(r#"mediary_response_bytes_total{route="download"} 7"#));
    }
}
