//! Identifiers: server names, media ids, `mxc://` URIs and user ids.
//!
//! The grammars are allow lists over the decoded text (MXC-02, MXC-03, MXC-05); what does not fit
//! never becomes a value.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest media id that is accepted. The specification names none (MXC-08); every known
/// server stays far below.
pub const MAX_MEDIA_ID_LENGTH: usize = 255;

/// The longest server name: a DNS name of 255 octets, a colon and a port (MXC-05).
const MAX_SERVER_NAME_LENGTH: usize = 261;

/// The longest user id (Matrix specification, appendices, "User Identifiers").
const MAX_USER_ID_LENGTH: usize = 255;

/// An identifier that does not fit the specification's grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentifier {
    /// Not a `hostname [":" port]`.
    #[error("the server name is not valid")]
    ServerName,
    /// Not one or more of `A-Z a-z 0-9 _ -`, or too long.
    #[error("the media id is not valid")]
    MediaId,
    /// Not `@localpart:server`.
    #[error("the user id is not valid")]
    UserId,
    /// Not `mxc://server/media-id`.
    #[error("not an mxc URI, as in mxc://example.org/abc")]
    Mxc,
}

/// The name of a homeserver (MXC-05), compared byte by byte (MXC-06).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(Box<str>);

impl ServerName {
    /// Returns the name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns it without the port; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.port_colon().map_or(&self.0, |colon| &self.0[..colon])
    }

    /// Returns the port, if it names one.
    pub fn port(&self) -> Option<u16> {
        self.port_colon().and_then(|colon| self.0[colon + 1..].parse().ok())
    }

    /// Returns the address that the name is, if it is one: it stands in the name, and nobody is asked for
    /// it.
    pub fn address(&self) -> Option<IpAddr> {
        let host = self.host();
        match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(literal) => literal.parse().ok().map(IpAddr::V6),
            None => host.strip_suffix('.').unwrap_or(host).parse().ok().map(IpAddr::V4),
        }
    }

    /// Returns the host in the one form that all its spellings have in common: a name in lower case
    /// without a dot at its end, an address as it is written most shortly, and one of IPv4 that stands
    /// inside one of IPv6 by itself.
    pub fn canonical_host(&self) -> String {
        match self.address().map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            None => {
                let host = self.host();
                host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
            }
        }
    }

    /// Only behind the bracket does a colon lead to a port.
    fn port_colon(&self) -> Option<usize> {
        let bracket = self.0.find(']').unwrap_or(0);
        self.0[bracket..].find(':').map(|colon| bracket + colon)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServerName {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_server_name(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIdentifier::ServerName)
        }
    }
}

fn is_server_name(text: &str) -> bool {
    if text.is_empty() || text.len() > MAX_SERVER_NAME_LENGTH {
        return false;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((literal, port)) = rest.split_once(']') else {
            return false;
        };
        return Ipv6Addr::from_str(literal).is_ok() && is_port_suffix(port);
    }
    let (hostname, port) = match text.find(':') {
        Some(colon) => text.split_at(colon),
        None => (text, ""),
    };
    is_hostname(hostname) && is_port_suffix(port)
}

/// An empty suffix, or a colon and a port from 1 to 65535.
fn is_port_suffix(suffix: &str) -> bool {
    if suffix.is_empty() {
        return true;
    }
    let Some(digits) = suffix.strip_prefix(':') else {
        return false;
    };
    (1..=5).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && digits.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_hostname(hostname: &str) -> bool {
    if hostname.is_empty() || hostname.len() > 255 {
        return false;
    }
    if !hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
        return false;
    }
    // The grammar alone would let `.`, `..` and `.x` pass; no such name resolves (threats PT-03).
    if hostname.starts_with('.') || hostname.contains("..") {
        return false;
    }
    // What looks like an IPv4 address has to be one.
    let dotted_quad = hostname.split('.').count() == 4
        && hostname
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    !dotted_quad || Ipv4Addr::from_str(hostname).is_ok()
}

/// The opaque part of an `mxc://` URI (MXC-02); always safe as a single path segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaId(Box<str>);

impl MediaId {
    /// Returns the id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MediaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MediaId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=MAX_MEDIA_ID_LENGTH).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits { Ok(Self(text.into())) } else { Err(InvalidIdentifier::MediaId) }
    }
}

/// An `mxc://` URI: which server made the media and what it calls it (MXC-01).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mxc {
    /// The server of origin.
    pub server_name: ServerName,
    /// The origin's name for the media.
    pub media_id: MediaId,
}

impl fmt::Display for Mxc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mxc://{}/{}", self.server_name, self.media_id)
    }
}

impl FromStr for Mxc {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (server_name, media_id) = text
            .strip_prefix("mxc://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(InvalidIdentifier::Mxc)?;
        Ok(Self { server_name: server_name.parse()?, media_id: media_id.parse()? })
    }
}

/// A fully qualified Matrix user id, as the homeserver gave it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserId(Box<str>);

impl UserId {
    /// Returns the id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text behind the first colon: the server that the user lives on.
    pub fn server_name(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, server)| server)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = text.len() <= MAX_USER_ID_LENGTH
            && !text.chars().any(char::is_control)
            && text
                .strip_prefix('@')
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(_, server)| is_server_name(server));
        if fits { Ok(Self(text.into())) } else { Err(InvalidIdentifier::UserId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MXC-04, MXC-05
    #[test]
    fn server_names_of_the_grammar_are_accepted() {
        for name in [
            "matrix.org",
            "matrix.org:8888",
            "1.2.3.4",
            "1.2.3.4:1234",
            "[1234:5678::abcd]",
            "[1234:5678::abcd]:5678",
            "[::ffff:1.2.3.4]",
            "localhost",
            "MATRIX.ORG",
            "a-b.c",
            "example.org.",
        ] {
            assert!(name.parse::<ServerName>().is_ok(), "{name}");
        }
    }

    /// MXC-05
    #[test]
    fn a_server_name_is_a_host_and_maybe_a_port() {
        for (name, host, port) in [
            ("a.example", "a.example", None),
            ("a.example:8448", "a.example", Some(8448)),
            ("1.2.3.4:1", "1.2.3.4", Some(1)),
            ("[::1]", "[::1]", None),
            ("[1234:5678::abcd]:5678", "[1234:5678::abcd]", Some(5678)),
        ] {
            let name: ServerName = name.parse().unwrap();
            assert_eq!((name.host(), name.port()), (host, port));
        }
    }

    /// DISC-01
    #[test]
    fn an_address_is_told_from_a_name() {
        let address = |name: &str| name.parse::<ServerName>().unwrap().address();
        for (name, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("192.0.2.1.", "192.0.2.1"),
            ("[2001:DB8:0::1]:443", "2001:db8::1"),
            ("[::ffff:192.0.2.1]", "::ffff:192.0.2.1"),
        ] {
            assert_eq!(address(name), Some(expected.parse().unwrap()), "{name}");
        }
        for name in ["a.example", "1.2.3", "127.1", "2130706433", "0x7f.1", "1.2.3.4.example"] {
            assert_eq!(address(name), None, "{name}");
        }
    }

    #[test]
    fn a_host_has_one_canonical_form() {
        for (names, canonical) in [
            (&["a.example", "A.Example.", "a.EXAMPLE.:8448"][..], "a.example"),
            (
                &["192.0.2.1", "192.0.2.1.:1", "[::ffff:192.0.2.1]", "[::FFFF:c000:201]"],
                "192.0.2.1",
            ),
            (&["[2001:db8::1]", "[2001:DB8:0:0::1]:443", "[2001:db8::0.0.0.1]"], "[2001:db8::1]"),
        ] {
            for name in names {
                let name: ServerName = name.parse().unwrap();
                assert_eq!(name.canonical_host(), canonical, "{name}");
            }
        }
    }

    /// MXC-03, MXC-05
    #[test]
    fn other_server_names_are_refused() {
        for name in [
            "",
            ".",
            "..",
            ".example.org",
            "a..b",
            "exa_mple.org",
            "example.org:",
            "example.org:0",
            "example.org:65536",
            "example.org:123456",
            "example.org:80:80",
            "[::1",
            "[zz]",
            "[::1]x",
            "::1",
            "999.1.1.1",
            "ex/ample",
            "ex ample",
            "exämple",
            "a\0b",
        ] {
            assert!(name.parse::<ServerName>().is_err(), "{name:?}");
        }
        assert!("a".repeat(256).parse::<ServerName>().is_err());
    }

    /// MXC-07
    #[test]
    fn names_that_nobody_should_have_are_taken_all_the_same() {
        for name in ["MATRIX.ORG".to_owned(), "a".repeat(231), "a".repeat(255)] {
            assert!(name.parse::<ServerName>().is_ok(), "{name}");
        }
    }

    /// MXC-06
    #[test]
    fn server_names_differ_by_case() {
        let lower: ServerName = "matrix.org".parse().unwrap();
        let upper: ServerName = "MATRIX.ORG".parse().unwrap();
        assert_ne!(lower, upper);
    }

    /// MXC-02, MXC-08
    #[test]
    fn media_ids_hold_only_their_alphabet() {
        for id in ["a", "GCmhgzMPRjqgpODLsNQzVuHZ", "-rf", "_", "--", "tmp"] {
            assert!(id.parse::<MediaId>().is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a.b", "a b", "a\n", "a%41", "é", "／"] {
            assert!(id.parse::<MediaId>().is_err(), "{id:?}");
        }
        assert!("a".repeat(255).parse::<MediaId>().is_ok());
        assert!("a".repeat(256).parse::<MediaId>().is_err());
    }

    #[test]
    fn user_ids_need_a_localpart_mark_and_a_server() {
        assert!("@alice:example.org".parse::<UserId>().is_ok());
        assert!("@:example.org".parse::<UserId>().is_ok(), "historical ids may be empty");
        for id in ["alice:example.org", "@alice", "@alice:", "@a\nb:example.org", ""] {
            assert!(id.parse::<UserId>().is_err(), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,300}") {
            if let Ok(name) = text.parse::<ServerName>() {
                prop_assert_eq!(name.as_str(), text.as_str());
                prop_assert!(!text.contains('/') && !text.contains('\\'));
            }
            if let Ok(id) = text.parse::<MediaId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(!text.contains('/') && !text.contains('.'));
            }
        }
    }
}
