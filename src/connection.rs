//! A client's connection below Pingora: how long it may take to say what it wants, how slow it may
//! be, and how many of them one address may have.
//!
//! Pingora bounds each read and nothing else, so that a client that sends or takes a byte now and
//! then keeps its place for ever (threats RX-01 to RX-03). And what Pingora cannot read it refuses
//! with an empty answer, before anybody else hears of the request. Both are mended where the bytes
//! pass: every connection is wrapped in a [`Guarded`] stream.

mod farewell;
mod peer;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{SocketDigest, Stream};
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;

use tokio::sync::Semaphore;

use crate::config::TrustedProxies;
use crate::error::ApiError;
use crate::limit::{Place, Places};
use crate::metrics::{ConnectionEnd, Metrics};
use crate::types::ClientNetwork;

pub use peer::Peer;
pub use stream::Guarded;

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How long the head of a request may take in all, and a new connection until its first.
    pub header_timeout: Duration,
    /// How many bytes a second a client sends or takes at least while we wait for it.
    pub min_rate: u64,
    /// How long a client may be slower than that, or silent.
    pub slow_timeout: Duration,
}

/// What all connections share.
pub struct Guard {
    limits: ConnectionLimits,
    places: Arc<Places<ClientNetwork>>,
    trusted_proxies: TrustedProxies,
    metrics: Arc<Metrics>,
    log_requests: bool,
    /// Places for telling those who have none why they are refused.
    refusals: Semaphore,
}

/// How many connections at once are told why they are refused.
const MAX_REFUSALS: usize = 256;

impl Guard {
    /// Makes a guard. A trusted proxy may have any number of connections; its clients are counted
    /// by their requests. `log_requests` gives what is refused here a line in the log.
    pub fn new(
        limits: ConnectionLimits,
        places: Arc<Places<ClientNetwork>>,
        trusted_proxies: TrustedProxies,
        metrics: Arc<Metrics>,
        log_requests: bool,
    ) -> Self {
        let refusals = Semaphore::new(MAX_REFUSALS);
        Self { limits, places, trusted_proxies, metrics, log_requests, refusals }
    }

    /// Takes a place for a new connection, unless its peer needs none.
    fn take_place(&self, peer: Peer) -> Result<Option<Place<ClientNetwork>>, ApiError> {
        match peer.address().filter(|_| !peer.is_trusted(&self.trusted_proxies)) {
            Some(address) => self
                .places
                .take(ClientNetwork::of(address))
                .map(Some)
                .ok_or(ApiError::TooManyConnections),
            None => Ok(None),
        }
    }

    /// Counts a connection that was ended, and logs it if the request could not be: there was none
    /// yet.
    fn ended(&self, end: ConnectionEnd, peer: Peer, refusal: Option<&ApiError>) {
        self.metrics.connections.ended(end);
        let Some(error) = refusal else { return };
        let status = error.answer().status;
        self.metrics.request("refused", Some(status), Duration::ZERO, 0, 0);
        if self.log_requests {
            let client = peer.to_string();
            let (route, status, error) = ("refused", status.as_u16(), error.to_string());
            tracing::info!(route, status, client, error, "request");
        }
    }
}

/// A Pingora application whose connections are guarded.
pub struct Guarding<A> {
    app: Arc<EachRequest<A>>,
    guard: Arc<Guard>,
}

impl<A> Guarding<A> {
    /// Puts a guard before an application.
    pub fn new(app: A, guard: Arc<Guard>) -> Self {
        Self { app: Arc::new(EachRequest(Arc::new(app))), guard }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Guarding<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let digest = stream.get_socket_digest();
        let peer = Peer::of(digest.as_deref().and_then(SocketDigest::peer_addr));
        match self.guard.take_place(peer) {
            Ok(place) => {
                let guarded = Guarded::new(stream, self.guard.clone(), peer, place);
                self.app.process_new(Box::new(guarded), shutdown).await
            }
            Err(error) => {
                // Those who are told take room as well; past so many the rest are dropped unheard.
                if let Ok(_permit) = self.guard.refusals.try_acquire() {
                    let mut guarded = Guarded::new(stream, self.guard.clone(), peer, None);
                    guarded.refuse(ConnectionEnd::TooMany, &error).await;
                } else {
                    self.guard.ended(ConnectionEnd::TooMany, peer, None);
                }
                None
            }
        }
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}

/// Tells a connection when its next request begins. Pingora keeps a connection to itself from its
/// first request to its last, and hands out a new session for each.
struct EachRequest<A>(Arc<A>);

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for EachRequest<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if let Some(connection) = session.stream().and_then(guarded) {
            connection.await_request();
        }
        self.0.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.0.server_options()
    }

    async fn http_cleanup(&self) {
        self.0.http_cleanup().await;
    }
}

/// Returns the connection that a request came on.
pub fn of(session: &Session) -> Option<&Guarded> {
    session.as_downstream().stream().and_then(guarded)
}

fn guarded(stream: &Stream) -> Option<&Guarded> {
    (**stream).as_any().downcast_ref()
}
