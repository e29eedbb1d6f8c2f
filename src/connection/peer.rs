//! Who is at the other end of a connection.

use std::fmt;
use std::net::IpAddr;

use pingora::protocols::l4::socket::SocketAddr;

use crate::config::TrustedProxies;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Somebody with an address.
    Address(IpAddr),
    /// A process on this machine, by a Unix socket; always trusted.
    Local,
}

impl Peer {
    /// Returns who has the other end of a socket. IPv4 in the form of IPv6 is IPv4.
    pub fn of(socket: Option<&SocketAddr>) -> Self {
        match socket {
            Some(SocketAddr::Inet(address)) => Self::Address(address.ip().to_canonical()),
            Some(SocketAddr::Unix(_)) | None => Self::Local,
        }
    }

    /// Returns the address, if there is one.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Local => None,
        }
    }

    /// Whether it is believed about whom it speaks for.
    pub fn is_trusted(self, trusted: &TrustedProxies) -> bool {
        match self {
            Self::Address(address) => trusted.contains(address),
            Self::Local => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}
