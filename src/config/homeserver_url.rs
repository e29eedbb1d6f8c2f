//! Where the homeserver is reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::address::{ListenAddress, parse_socket_path};

/// The homeserver's client and federation API: a scheme, a host and a port, or a Unix socket.
///
/// It has no path: targets reach the homeserver byte for byte, and signatures depend on that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeserverUrl {
    /// HTTP or HTTPS over TCP.
    Tcp {
        /// Whether the connection is encrypted.
        scheme: Scheme,
        /// A name or an IP address, without the brackets of IPv6.
        host: String,
        /// The port, never zero.
        port: u16,
    },
    /// HTTP over a Unix socket at an absolute path.
    Unix(PathBuf),
}

/// How HTTP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// Why a text is no [`HomeserverUrl`]. The text is never repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHomeserverUrl {
    /// Neither http, nor https, nor unix.
    #[error(
        "not a homeserver's URL; write it as in \"http://127.0.0.1:8008\", \
         \"https://matrix.example.org\" or \"unix:/run/synapse/http.sock\""
    )]
    Scheme,
    /// A user name or password before the host.
    #[error("the URL must not hold a user name or a password; the homeserver takes none")]
    Credentials,
    /// Something after the host and port.
    #[error(
        "the URL must end after the host and port: every request's own path is sent to the \
         homeserver as it came"
    )]
    Path,
    /// A query or a fragment.
    #[error("the URL must not hold a query or a fragment")]
    Query,
    /// No host, or one that is neither a name nor an IP address.
    #[error(
        "the URL's host is neither a name nor an IP address; IPv6 goes in brackets, as in \"[::1]\""
    )]
    Host,
    /// A port that is none.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
    /// A path that no socket can have.
    #[error("the socket's path must be absolute, name a file and be short enough (unix(7))")]
    SocketPath,
}

impl Scheme {
    /// Returns the word before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl HomeserverUrl {
    /// Returns what a `Host` field says: the port is left out where the scheme implies it, and a
    /// Unix socket is `localhost`.
    pub fn authority(&self) -> String {
        let Self::Tcp { scheme, host, port } = self else {
            return "localhost".to_owned();
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if *port == scheme.default_port() { host } else { format!("{host}:{port}") }
    }

    /// Whether a request sent there would come in at `listener` again.
    pub(super) fn leads_to(&self, listener: &ListenAddress) -> bool {
        match self {
            Self::Tcp { host, port, .. } => {
                known_addresses(host).iter().any(|ip| listener.receives(*ip, *port))
            }
            Self::Unix(socket) => {
                matches!(listener, ListenAddress::Unix(path) if path == socket)
            }
        }
    }
}

/// The addresses of a host that are known without asking anybody.
fn known_addresses(host: &str) -> Vec<IpAddr> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse::<IpAddr>().map(|ip| vec![ip.to_canonical()]).unwrap_or_default()
}

impl FromStr for HomeserverUrl {
    type Err = InvalidHomeserverUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidHomeserverUrl::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => {
                return parse_socket_path(rest)
                    .map(Self::Unix)
                    .ok_or(InvalidHomeserverUrl::SocketPath);
            }
            _ => return Err(InvalidHomeserverUrl::Scheme),
        };
        let rest = rest.strip_prefix("//").ok_or(InvalidHomeserverUrl::Scheme)?;
        // Before anything else, so that no part of a password is taken for a path or a host.
        if rest.contains('@') {
            return Err(InvalidHomeserverUrl::Credentials);
        }
        if rest.contains(['?', '#']) {
            return Err(InvalidHomeserverUrl::Query);
        }
        // A lone slash says nothing, and is what browsers copy.
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('/') {
            return Err(InvalidHomeserverUrl::Path);
        }
        let (host, port) = split_port(authority).ok_or(InvalidHomeserverUrl::Host)?;
        let host = parse_host(host)?;
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => scheme.default_port(),
        };
        Ok(Self::Tcp { scheme, host, port })
    }
}

/// Splits at the colon before the port; the colons inside the brackets of IPv6 are none.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_length = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_length);
    if rest.is_empty() { Some((host, None)) } else { Some((host, Some(rest.strip_prefix(':')?))) }
}

fn parse_port(digits: &str) -> Result<u16, InvalidHomeserverUrl> {
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| all_digits && *port != 0);
    port.ok_or(InvalidHomeserverUrl::Port)
}

fn parse_host(text: &str) -> Result<String, InvalidHomeserverUrl> {
    if let Some(literal) = text.strip_prefix('[') {
        let address = literal.strip_suffix(']').and_then(|literal| literal.parse().ok());
        return address
            .map(|address: Ipv6Addr| address.to_string())
            .ok_or(InvalidHomeserverUrl::Host);
    }
    // Underscores are no part of a host name, but containers are often called so.
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let has_labels = !text.starts_with('.') && !text.contains("..");
    if is_name && has_labels && (1..=255).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(InvalidHomeserverUrl::Host)
    }
}

impl fmt::Display for HomeserverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { scheme, .. } => write!(f, "{}://{}", scheme.as_str(), self.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> HomeserverUrl {
        text.parse().unwrap()
    }

    fn tcp(scheme: Scheme, host: &str, port: u16) -> HomeserverUrl {
        HomeserverUrl::Tcp { scheme, host: host.to_owned(), port }
    }

    #[test]
    fn schemes_hosts_and_ports_are_read() {
        assert_eq!(url("http://127.0.0.1:8008"), tcp(Scheme::Http, "127.0.0.1", 8008));
        assert_eq!(url("http://127.0.0.1:8008/"), tcp(Scheme::Http, "127.0.0.1", 8008));
        assert_eq!(
            url("HTTPS://matrix.example.org"),
            tcp(Scheme::Https, "matrix.example.org", 443)
        );
        assert_eq!(url("http://matrix_synapse"), tcp(Scheme::Http, "matrix_synapse", 80));
        assert_eq!(url("http://[::1]:8008"), tcp(Scheme::Http, "::1", 8008));
        assert_eq!(url("https://[2001:db8::1]"), tcp(Scheme::Https, "2001:db8::1", 443));
        assert_eq!(url("unix:/run/s.sock"), HomeserverUrl::Unix("/run/s.sock".into()));
    }

    #[test]
    fn the_authority_leaves_out_the_port_that_the_scheme_implies() {
        assert_eq!(url("http://[::1]:8008").authority(), "[::1]:8008");
        assert_eq!(url("https://a.example:443").authority(), "a.example");
        assert_eq!(url("https://a.example:80").authority(), "a.example:80");
        assert_eq!(url("unix:/run/s.sock").authority(), "localhost");
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        use InvalidHomeserverUrl as Why;
        for (text, why) in [
            ("", Why::Scheme),
            ("127.0.0.1:8008", Why::Scheme),
            ("localhost", Why::Scheme),
            ("ftp://127.0.0.1", Why::Scheme),
            ("http:127.0.0.1", Why::Scheme),
            ("http://user:secret@127.0.0.1:8008", Why::Credentials),
            ("http://user:se/cr?et@127.0.0.1", Why::Credentials),
            ("http://127.0.0.1/_matrix", Why::Path),
            ("http://127.0.0.1//", Why::Path),
            ("http://127.0.0.1?x", Why::Query),
            ("http://127.0.0.1/#x", Why::Query),
            ("http://", Why::Host),
            ("http:///", Why::Host),
            ("http://:8008", Why::Host),
            ("http://ex ample", Why::Host),
            ("http://exämple", Why::Host),
            ("http://a..b", Why::Host),
            ("http://[::1", Why::Host),
            ("http://[::1]x:80", Why::Host),
            ("http://[fe80::1%25eth0]", Why::Host),
            ("http://::1", Why::Host),
            ("http://127.0.0.1:", Why::Port),
            ("http://127.0.0.1:0", Why::Port),
            ("http://127.0.0.1:65536", Why::Port),
            ("http://127.0.0.1:+80", Why::Port),
            ("http://127.0.0.1:80:80", Why::Port),
            ("unix:", Why::SocketPath),
            ("unix:s.sock", Why::SocketPath),
        ] {
            assert_eq!(text.parse::<HomeserverUrl>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_loop_is_seen_where_no_name_has_to_be_asked() {
        for (homeserver, listener, leads) in [
            ("http://127.0.0.1:8090", "127.0.0.1:8090", true),
            ("http://127.0.0.1:8090", "0.0.0.0:8090", true),
            ("http://127.0.0.1:8090", "[::]:8090", true),
            ("http://[::ffff:127.0.0.1]:8090", "127.0.0.1:8090", true),
            ("http://0.0.0.0:8090", "127.0.0.1:8090", true),
            ("http://localhost:8090", "127.0.0.1:8090", true),
            ("http://LOCALHOST.:8090", "[::1]:8090", true),
            ("http://10.0.0.1:8090", "10.0.0.1:8090", true),
            ("http://[::1]:8090", "0.0.0.0:8090", false),
            ("http://127.0.0.1:8008", "127.0.0.1:8090", false),
            ("http://10.0.0.1:8090", "127.0.0.1:8090", false),
            ("http://10.0.0.1:8090", "0.0.0.0:8090", false),
            ("http://synapse:8090", "0.0.0.0:8090", false),
            ("unix:/run/m.sock", "unix:/run/m.sock", true),
            ("unix:/run/s.sock", "unix:/run/m.sock", false),
        ] {
            let listener: ListenAddress = listener.parse().unwrap();
            assert_eq!(url(homeserver).leads_to(&listener), leads, "{homeserver} {listener}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_survives_printing(text in "(https?://|unix:/)?[\\PC0-9:/.@?#\\[\\]]{0,40}") {
            if let Ok(parsed) = text.parse::<HomeserverUrl>() {
                prop_assert_eq!(parsed.to_string().parse::<HomeserverUrl>(), Ok(parsed));
            }
        }
    }
}
