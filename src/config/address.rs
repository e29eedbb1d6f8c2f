//! Where Mediary listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path of a Unix socket: `sun_path` has 108 bytes, the last of them zero (unix(7)).
const MAX_SOCKET_PATH_LENGTH: usize = 107;

/// An address that connections are accepted on.
///
/// Names are not looked up: what is open to the world should not depend on a name server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 lets the system choose one.
    Tcp(SocketAddr),
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
}

/// A text that is no [`ListenAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address to listen on; write an IP address and a port as in \"127.0.0.1:8090\" or \
     \"[::1]:8090\", or \"unix:\" and an absolute path of at most {MAX_SOCKET_PATH_LENGTH} bytes"
)]
pub struct InvalidListenAddress;

impl ListenAddress {
    /// Whether only this machine can reach the address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether both cannot be bound at once.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(ours), Self::Unix(theirs)) => ours == theirs,
            (Self::Tcp(ours), Self::Tcp(theirs)) => {
                let same_family = ours.is_ipv4() == theirs.is_ipv4();
                let anywhere = ours.ip().is_unspecified() || theirs.ip().is_unspecified();
                ours.port() == theirs.port()
                    && ours.port() != 0
                    && (ours.ip() == theirs.ip() || same_family && anywhere)
            }
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }

    /// Whether a connection that this machine makes to `ip` and `port` surely arrives here.
    pub(super) fn receives(&self, ip: IpAddr, port: u16) -> bool {
        let Self::Tcp(address) = self else {
            return false;
        };
        // Linux takes a connection to the unspecified address to the machine itself.
        let to_self = ip.is_loopback() || ip.is_unspecified();
        // A listener on `[::]` takes IPv4 too, unless the system is told otherwise.
        let everywhere = address.ip().is_unspecified() && (address.is_ipv6() || ip.is_ipv4());
        let reached = address.ip().to_canonical() == ip
            || everywhere && to_self
            || ip.is_unspecified() && address.ip().is_loopback();
        address.port() == port && reached
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => parse_socket_path(path).map(Self::Unix).ok_or(InvalidListenAddress),
            None => text.parse().map(Self::Tcp).map_err(|_| InvalidListenAddress),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Takes the path of a Unix socket, if it is one that can be bound and connected to.
pub(super) fn parse_socket_path(text: &str) -> Option<PathBuf> {
    let fits = text.len() <= MAX_SOCKET_PATH_LENGTH && !text.contains('\0');
    let is_file = Path::new(text).is_absolute() && !text.ends_with('/');
    (fits && is_file).then(|| PathBuf::from(text))
}

/// Where metrics and health are served, if at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminListen {
    /// Nowhere; written as the empty string.
    Off,
    /// On an address of its own.
    On(ListenAddress),
}

impl AdminListen {
    /// Returns the address, if there is to be a listener.
    pub fn address(&self) -> Option<&ListenAddress> {
        match self {
            Self::Off => None,
            Self::On(address) => Some(address),
        }
    }
}

impl FromStr for AdminListen {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self::Off) } else { text.parse().map(Self::On) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listen(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_survive_printing() {
        for text in ["127.0.0.1:8090", "[::1]:8090", "0.0.0.0:0", "[::]:443", "unix:/run/m.sock"] {
            assert_eq!(listen(text).to_string(), text);
        }
    }

    #[test]
    fn names_bare_ports_and_relative_paths_are_refused() {
        for text in [
            "",
            "8090",
            ":8090",
            "*:8090",
            "localhost:8090",
            "127.0.0.1",
            "127.0.0.1:65536",
            "::1:8090",
            "http://127.0.0.1:8090",
            "unix:",
            "unix:m.sock",
            "unix:/",
            "unix:/run/",
            " 127.0.0.1:8090",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidListenAddress), "{text:?}");
        }
        let longest = format!("unix:/{}", "a".repeat(MAX_SOCKET_PATH_LENGTH - 1));
        assert!(longest.parse::<ListenAddress>().is_ok());
        assert!(format!("{longest}a").parse::<ListenAddress>().is_err());
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_local() {
        for local in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/m"] {
            assert!(listen(local).is_local(), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[fe80::1]:1"] {
            assert!(!listen(open).is_local(), "{open}");
        }
    }

    #[test]
    fn addresses_overlap_when_both_cannot_be_bound() {
        for (one, other, overlap) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "[::1]:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:80", false),
        ] {
            assert_eq!(listen(one).overlaps(&listen(other)), overlap, "{one} {other}");
            assert_eq!(listen(other).overlaps(&listen(one)), overlap, "{other} {one}");
        }
    }

    #[test]
    fn an_empty_admin_address_means_off() {
        assert_eq!("".parse(), Ok(AdminListen::Off));
        assert_eq!("[::1]:9".parse(), Ok(AdminListen::On(listen("[::1]:9"))));
        assert_eq!("off".parse::<AdminListen>(), Err(InvalidListenAddress));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_printing(text in "(unix:)?[\\PC0-9:/.\\[\\]]{0,40}") {
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse::<ListenAddress>(), Ok(address));
            }
        }
    }
}
