//! HTTP over connections to checked addresses.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::prelude::HttpPeer;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{Error, ErrorType};
use tokio::time::{Instant, timeout_at};

use super::authorities::Authorities;
use super::failure::{Unconnected, unconnected};
use super::guard::AddressGuard;
use super::resolver::Resolver;
use super::response::{Response, ResponseBody};
use super::{EgressError, EgressSettings, Endpoint, Host};

/// How many connections without a request are kept, of all destinations together.
const POOL_SIZE: usize = 256;

/// The most bytes of an answer's head. Pingora reads a megabyte before it gives up; what is kept of it
/// is no more than this.
const MAX_HEAD: usize = 64 * 1024;

/// How many interim answers (100, 103) are skipped.
const MAX_INTERIM: usize = 16;

/// How often a request is tried again after a pooled connection turned out to be closed.
const STALE_CONNECTION_RETRIES: usize = 3;

const USER_AGENT: &str = concat!("mediary/", env!("CARGO_PKG_VERSION"));

/// Sends requests over TLS, to addresses that were checked, and keeps connections for others to come.
pub(super) struct HttpClient {
    connector: Arc<Connector>,
    pub(super) resolver: Resolver,
    guard: AddressGuard,
    connect_timeout: Duration,
    /// Tells pooled connections apart in a way that nobody outside can compute.
    pool_keys: RandomState,
}

/// Until when a request is waited for.
#[derive(Clone, Copy)]
pub(super) struct Deadlines {
    /// The connection.
    pub(super) connect_by: Instant,
    /// The head of the answer.
    pub(super) deadline: Instant,
}

impl HttpClient {
    pub(super) fn new(settings: EgressSettings) -> anyhow::Result<Self> {
        let authorities = Authorities::gather(settings.ca_file.as_deref())?;
        let mut options = ConnectorOptions::new(POOL_SIZE);
        options.ca_file = Some(authorities.path());
        Ok(Self {
            connector: Arc::new(Connector::new(Some(options))),
            resolver: Resolver::new(&settings.dns_servers)?,
            guard: AddressGuard::allowing(settings.allow_networks),
            connect_timeout: settings.connect_timeout,
            pool_keys: RandomState::new(),
        })
    }

    /// Returns the addresses of a host, each with whether it may be contacted.
    pub(super) async fn addresses(
        &self,
        host: &Host,
        deadline: Instant,
    ) -> Result<Vec<(IpAddr, bool)>, EgressError> {
        let addresses = self.resolve(host, deadline).await?;
        Ok(addresses.iter().map(|address| (*address, self.guard.permits(*address))).collect())
    }

    async fn resolve(&self, host: &Host, deadline: Instant) -> Result<Arc<[IpAddr]>, EgressError> {
        match host {
            Host::Address(address) => Ok([*address].into()),
            Host::Name(name) => self.resolver.addresses(name, deadline).await,
        }
    }

    /// Sends a GET and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        target: &str,
        fields: &[(HeaderName, HeaderValue)],
        deadlines: Deadlines,
    ) -> Result<Response, EgressError> {
        let Deadlines { connect_by, deadline } = deadlines;
        if endpoint.port == 0 {
            return Err(EgressError::Connect {
                endpoint: format!("{}:0", endpoint.connect_to),
                reason: "there is no port 0".to_owned(),
            });
        }
        let request = build(&endpoint.authority, target, fields)?;
        let peers = self.peers(endpoint, connect_by).await?;
        let mut tries = 0;
        loop {
            let (mut session, peer, reused) = self.connect(endpoint, &peers, connect_by).await?;
            let exchanged = timeout_at(deadline, exchange(&mut session, request.clone()))
                .await
                .map_err(|_| EgressError::TimedOut("the answer"))?;
            match exchanged {
                Ok((status, headers)) => {
                    let connector = self.connector.clone();
                    let body = ResponseBody::new(session, connector, peer, &headers);
                    return Ok(Response { status, headers, body });
                }
                Err(Failed::Connection(_)) if reused && tries < STALE_CONNECTION_RETRIES => {
                    tries += 1;
                }
                Err(Failed::Connection(reason) | Failed::Answer(reason)) => {
                    return Err(EgressError::Misbehaved(reason));
                }
            }
        }
    }

    /// Resolves and checks: the addresses that come out are the ones that are connected to.
    async fn peers(
        &self,
        endpoint: &Endpoint,
        connect_by: Instant,
    ) -> Result<Vec<HttpPeer>, EgressError> {
        let name = verified_name(endpoint)?;
        let resolved = self.resolve(&endpoint.connect_to, connect_by).await;
        let addresses = resolved.map_err(|error| match error {
            EgressError::TimedOut(what) => EgressError::Unreached(what),
            error => error,
        })?;
        let permitted = addresses.iter().filter(|address| self.guard.permits(**address));
        let peers: Vec<_> = permitted.map(|address| self.peer(*address, endpoint, &name)).collect();
        match addresses.first() {
            Some(&address) if peers.is_empty() => {
                Err(EgressError::Forbidden { name: endpoint.connect_to.to_string(), address })
            }
            _ => Ok(peers),
        }
    }

    fn peer(&self, address: IpAddr, endpoint: &Endpoint, name: &str) -> HttpPeer {
        let address = SocketAddr::new(address.to_canonical(), endpoint.port);
        let mut peer = HttpPeer::new(address, true, name.to_owned());
        peer.group_key = self.pool_keys.hash_one((address, name));
        peer
    }

    /// Returns a connection to one of the peers: one that is there already, or else the first that
    /// comes about. Each address has its share of the time that is left.
    async fn connect(
        &self,
        endpoint: &Endpoint,
        peers: &[HttpPeer],
        connect_by: Instant,
    ) -> Result<(HttpSession, HttpPeer, bool), EgressError> {
        for peer in peers {
            if let Some(session) = self.connector.reused_http_session(peer).await {
                return Ok((session, peer.clone(), true));
            }
        }
        let mut attempts = Vec::new();
        for (peer, left) in peers.iter().zip((1..=peers.len()).rev()) {
            let share = connect_by.saturating_duration_since(Instant::now()) / left as u32;
            let mut peer = peer.clone();
            let patience = share.min(self.connect_timeout);
            peer.options.total_connection_timeout = Some(patience);
            let end = Instant::now() + patience;
            let failure = match timeout_at(end, self.connector.get_http_session(&peer)).await {
                Ok(Ok((session, reused))) => return Ok((session, peer, reused)),
                Ok(Err(error)) => Unconnected::by(&error),
                Err(_) => Unconnected::TimedOut,
            };
            attempts.push((peer._address.to_string(), failure));
        }
        Err(unconnected(format!("{}:{}", endpoint.connect_to, endpoint.port), attempts))
    }
}

/// Returns the name that the certificate is checked for and that is sent as SNI; an address is only
/// checked for. It is never empty: that would switch the check off.
fn verified_name(endpoint: &Endpoint) -> Result<String, EgressError> {
    let host = &endpoint.certificate_for;
    let name = host.to_string();
    let refused = |reason: &str| EgressError::Tls {
        endpoint: format!("{}:{}", endpoint.connect_to, endpoint.port),
        reason: reason.to_owned(),
    };
    match host {
        Host::Address(_) => Ok(name),
        Host::Name(_) if name.is_empty() || name.starts_with('.') => {
            Err(refused("there is no name that a certificate could be for"))
        }
        // The connector would write a hyphen instead, and believe a certificate for that other name.
        Host::Name(_) if name.contains('_') => {
            Err(refused("no certificate is for a name with an underscore"))
        }
        Host::Name(_) => Ok(name),
    }
}

fn build(
    authority: &str,
    target: &str,
    fields: &[(HeaderName, HeaderValue)],
) -> Result<Box<RequestHeader>, EgressError> {
    // Anything else would be another form of target, with a host of its own (RFC 9112, section 3.2).
    if !target.starts_with('/') {
        return Err(EgressError::Unsendable("its target is no path"));
    }
    // What Pingora says of it quotes it.
    let unusable = |_| EgressError::Unsendable("one of its header fields is none");
    let mut request = RequestHeader::build("GET", target.as_bytes(), Some(fields.len() + 3))
        .map_err(|_| EgressError::Unsendable("its target holds what no path does"))?;
    request.insert_header(header::HOST, authority).map_err(unusable)?;
    request.insert_header(header::USER_AGENT, USER_AGENT).map_err(unusable)?;
    // Bodies are kept as they come, so a coded one would be kept coded.
    request.insert_header(header::ACCEPT_ENCODING, "identity").map_err(unusable)?;
    for (name, value) in fields {
        request.append_header(name.clone(), value.clone()).map_err(unusable)?;
    }
    Ok(Box::new(request))
}

/// Why there is no head of an answer.
enum Failed {
    /// The connection broke, which pooled ones do.
    Connection(String),
    /// Something came, but no answer.
    Answer(String),
}

/// Sends a request without a body and reads the head of the final answer.
async fn exchange(
    session: &mut HttpSession,
    request: Box<RequestHeader>,
) -> Result<(StatusCode, HeaderMap), Failed> {
    session.write_request_header(request).await.map_err(|error| broken(&error))?;
    session.finish_body().await.map_err(|error| broken(&error))?;
    for _ in 0..MAX_INTERIM {
        session.read_response().await.map_err(|error| broken(&error))?;
        if session.get_headers_raw_bytes().len() > MAX_HEAD {
            return Err(Failed::Answer(format!("its head is larger than {MAX_HEAD} bytes")));
        }
        match session.resp_header() {
            Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => break,
            Some(head) if !head.status.is_informational() => {
                return Ok((head.status, head.headers.clone()));
            }
            _ => {}
        }
    }
    Err(Failed::Answer("it begins and never comes".to_owned()))
}

fn broken(error: &Error) -> Failed {
    match error.etype() {
        // Not the cause: it quotes what came.
        ErrorType::InvalidHTTPHeader => Failed::Answer("its head is not HTTP".to_owned()),
        ErrorType::ConnectionClosed => Failed::Connection("the connection was closed".to_owned()),
        other => Failed::Connection(match error.root_cause().to_string() {
            cause if cause.is_empty() => other.as_str().to_owned(),
            cause => cause,
        }),
    }
}
