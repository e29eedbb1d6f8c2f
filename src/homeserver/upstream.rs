//! Where the homeserver is: its address, looked up anew from time to time.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::RwLock;
use std::time::Duration;

use pingora::prelude::HttpPeer;

use crate::config::{HomeserverUrl, Scheme};

/// How long a connection without a request is kept; below what homeservers allow, so that a pooled
/// connection is rarely a dead one (Synapse closes after 60 s or more).
pub(super) const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The homeserver's address. A name is resolved by [`resolve`](Self::resolve), which is called at
/// start and now and then, so that a homeserver that moves (a container, say) is found again.
pub struct Upstream {
    url: HomeserverUrl,
    authority: String,
    connect_timeout: Duration,
    peer: RwLock<Option<Box<HttpPeer>>>,
}

impl Upstream {
    /// Takes the address; nothing is looked up yet unless it is a literal.
    pub fn new(url: HomeserverUrl, connect_timeout: Duration) -> Self {
        let authority = url.authority();
        let upstream = Self { url, authority, connect_timeout, peer: RwLock::new(None) };
        match &upstream.url {
            HomeserverUrl::Unix(path) => upstream.set_peer(unix_peer(path)),
            HomeserverUrl::Tcp { host, port, .. } => {
                if let Ok(address) = host.parse() {
                    upstream.set_peer(Some(upstream.tcp_peer(SocketAddr::new(address, *port))));
                }
            }
        }
        upstream
    }

    /// Returns the `Host` for requests of our own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the peer to connect to, or `None` while the name has never resolved.
    pub fn peer(&self) -> Option<Box<HttpPeer>> {
        self.peer.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Looks the name up again; of several addresses the first that takes a connection counts. The
    /// last known address stays if the name does not resolve.
    ///
    /// # Errors
    ///
    /// The resolver's error, or one of kind `NotFound` if the name has no address.
    pub async fn resolve(&self) -> std::io::Result<()> {
        let HomeserverUrl::Tcp { host, port, .. } = &self.url else { return Ok(()) };
        let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), *port)).await?.collect();
        let first = addresses.first().ok_or(std::io::Error::from(std::io::ErrorKind::NotFound))?;
        let mut chosen = first;
        // `localhost` is often `::1` first, where few homeservers listen.
        for address in addresses.iter().filter(|_| addresses.len() > 1) {
            let connection = tokio::net::TcpStream::connect(address);
            if let Ok(Ok(_)) = tokio::time::timeout(self.connect_timeout, connection).await {
                chosen = address;
                break;
            }
        }
        self.set_peer(Some(self.tcp_peer(*chosen)));
        Ok(())
    }

    fn set_peer(&self, peer: Option<Box<HttpPeer>>) {
        let peer = peer.map(|mut peer| {
            peer.options.connection_timeout = Some(self.connect_timeout);
            peer.options.total_connection_timeout = Some(self.connect_timeout);
            peer.options.idle_timeout = Some(POOL_IDLE_TIMEOUT);
            peer
        });
        *self.peer.write().unwrap_or_else(std::sync::PoisonError::into_inner) = peer;
    }

    fn tcp_peer(&self, address: SocketAddr) -> Box<HttpPeer> {
        let (tls, name) = match &self.url {
            HomeserverUrl::Tcp { host, scheme, .. } => (*scheme == Scheme::Https, host.clone()),
            HomeserverUrl::Unix(_) => (false, String::new()),
        };
        Box::new(HttpPeer::new(address, tls, name))
    }
}

fn unix_peer(path: &Path) -> Option<Box<HttpPeer>> {
    // The configuration has checked that the path fits a socket address.
    HttpPeer::new_uds(path.to_str()?, false, String::new()).ok().map(Box::new)
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}
