//! The one way out: every connection that is made because a stranger said so goes through here.
//!
//! A name is resolved once, every address of it is checked, and the address that was checked is the one
//! that is connected to; at each redirect it begins anew. All of it happens within one deadline, and
//! whoever reads an answer bounds its bytes. The homeserver is asked through a connector of its own: it
//! is where the operator says it is.

mod authorities;
mod client;
mod failure;
mod follow;
mod guard;
mod resolver;
mod response;
mod srv;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;
use url::Url;

use crate::config::Network;

use client::{Deadlines, HttpClient};

pub use response::{Response, ResponseBody};

/// How the outside is reached.
#[derive(Debug, Clone)]
pub struct EgressSettings {
    /// Networks that may be contacted although they are not public.
    pub allow_networks: Vec<Network>,
    /// Certificate authorities that are believed beside the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Name servers that are asked instead of the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// How long one connection may take to come about, with TLS.
    pub connect_timeout: Duration,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            ca_file: None,
            dns_servers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// A host as the other side calls itself: a name in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, without a dot at its end.
    Name(Box<str>),
    /// An address that was written as such; it meets no resolver, and its certificate is for it.
    Address(IpAddr),
}

impl fmt::Display for Host {
    /// Writes IPv6 without brackets, as TLS and resolvers want it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Where to connect and who must be there: three things that delegation tells apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// What is resolved, unless it is an address.
    pub connect_to: Host,
    /// The port.
    pub port: u16,
    /// Whom the certificate must be for, and what is sent as SNI if it is a name (TLS-02).
    pub certificate_for: Host,
    /// The `Host` field, with the port where one belongs there (DISC-16).
    pub authority: Box<str>,
}

/// One of the targets of an SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvTarget {
    /// The host, never a name of the root.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
}

/// Why something outside could not be had. The texts are for an operator's log; nothing in them is
/// secret, and nothing in them goes to a stranger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The name has no address, or its name servers do not answer.
    #[error("{name} does not resolve: {reason}")]
    Resolution {
        /// The name.
        name: String,
        /// What the resolver says.
        reason: String,
    },
    /// All addresses are of networks that may not be contacted (threats SS-01 to SS-03).
    #[error(
        "{name} leads to {address}, which is not public; federation.allow_networks can allow it"
    )]
    Forbidden {
        /// What was to be contacted.
        name: String,
        /// The address that was refused, or one of them.
        address: IpAddr,
    },
    /// No connection came about.
    #[error("no connection to {endpoint}: {reason}")]
    Connect {
        /// Where to.
        endpoint: String,
        /// What the system says.
        reason: String,
    },
    /// The other side could not show that it is who it should be (TLS-01, XM-11).
    #[error("TLS with {endpoint} failed: {reason}")]
    Tls {
        /// Where to.
        endpoint: String,
        /// What the TLS library says.
        reason: String,
    },
    /// No connection in time, so nothing was sent.
    #[error("{0} took too long")]
    Unreached(&'static str),
    /// Not in time.
    #[error("{0} took too long")]
    TimedOut(&'static str),
    /// An answer that breaks the rules of HTTP, or breaks off.
    #[error("the answer is not understood: {0}")]
    Misbehaved(String),
    /// A request that cannot be written, for which nobody outside is to blame.
    #[error("the request cannot be sent: {0}")]
    Unsendable(&'static str),
    /// More bytes than are taken.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// How many are.
        limit: u64,
    },
    /// A URL that is not followed: another scheme, a user, no host (threats SS-06, SS-07).
    #[error("{0} is not followed: {1}")]
    Url(String, &'static str),
    /// More redirects than are followed, or a loop of them.
    #[error("too many redirects")]
    TooManyRedirects,
}

/// How a URL is fetched: over TLS, whatever it leads to.
#[derive(Debug, Clone)]
pub struct UrlRequest {
    /// Which.
    pub url: Url,
    /// Header fields beside `Host`, `User-Agent` and `Accept-Encoding`. They go to every hop, so
    /// there is no place here for a signature or a token.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// How many redirects are followed.
    pub max_redirects: u8,
}

/// The guarded way out. Clones share connections and what the resolver remembers.
#[derive(Clone)]
pub struct Egress {
    client: Arc<HttpClient>,
}

impl Egress {
    /// Prepares for connections and reads the certificate authorities.
    ///
    /// # Errors
    ///
    /// In words for the operator: a CA file that cannot be read or holds none, no name servers.
    pub fn new(settings: EgressSettings) -> anyhow::Result<Self> {
        Ok(Self { client: Arc::new(HttpClient::new(settings)?) })
    }

    /// Looks an SRV record up and returns its targets in the order in which they are to be tried
    /// (RFC 2782: by priority, and by chance according to weight). No record, or the target `.`, gives
    /// an empty list.
    ///
    /// # Errors
    ///
    /// [`EgressError::Resolution`] if the name servers fail, [`EgressError::TimedOut`].
    pub async fn srv(&self, name: &str, deadline: Instant) -> Result<Vec<SrvTarget>, EgressError> {
        self.client.resolver.srv(name, deadline).await
    }

    /// Resolves a host and returns its addresses in the order in which they are tried, each with
    /// whether it may be contacted.
    ///
    /// # Errors
    ///
    /// [`EgressError::Resolution`], [`EgressError::TimedOut`].
    pub async fn addresses(
        &self,
        host: &Host,
        deadline: Instant,
    ) -> Result<Vec<(IpAddr, bool)>, EgressError> {
        self.client.addresses(host, deadline).await
    }

    /// Sends a GET over TLS and returns the head of the final answer, whatever its status. Redirects
    /// are not followed.
    ///
    /// All addresses of the host that may be contacted are tried in turn until one takes the
    /// connection, unless there is a connection already to one of them, with the same name verified.
    ///
    /// # Errors
    ///
    /// [`EgressError`] if no head came before the deadline. With [`EgressError::Forbidden`] no packet
    /// was sent to the host, and with [`EgressError::Tls`] no request.
    pub async fn get(
        &self,
        endpoint: &Endpoint,
        target: &str,
        fields: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Response, EgressError> {
        self.get_connected_by(endpoint, target, fields, deadline, deadline).await
    }

    /// Does what [`get`](Self::get) does for who could ask elsewhere: if there is no connection at
    /// `connect_by`, nothing is sent and time is left.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_connected_by(
        &self,
        endpoint: &Endpoint,
        target: &str,
        fields: &[(HeaderName, HeaderValue)],
        connect_by: Instant,
        deadline: Instant,
    ) -> Result<Response, EgressError> {
        // Boxed, so that the states of a connection are not in the future of every request.
        let deadlines = Deadlines { connect_by, deadline };
        Box::pin(self.client.send(endpoint, target, fields, deadlines)).await
    }

    /// Fetches a URL and follows redirects (301, 302, 303, 307, 308), each of which is checked as the
    /// first was. Returns the last URL with its answer.
    ///
    /// # Errors
    ///
    /// [`EgressError`] if no head came before the deadline, or a redirect is not to be followed.
    pub async fn get_url(
        &self,
        request: UrlRequest,
        deadline: Instant,
    ) -> Result<(Url, Response), EgressError> {
        Box::pin(follow::get_url(&self.client, request, deadline)).await
    }
}
