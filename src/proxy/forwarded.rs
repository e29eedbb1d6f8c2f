//! `X-Forwarded-For`, `-Proto` and `-Host`: who the client is, in words that nobody can forge.
//!
//! What an untrusted peer sends is thrown away (threats AU-18). Behind a trusted proxy the client
//! is the right-most address that is not itself a trusted proxy's.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};
use pingora::Error;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::config::TrustedProxies;
use crate::connection::Peer;
use crate::homeserver::Sender;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Other ways to say who the client is, never believed and never passed on from strangers.
const OTHER_CLAIMS: [HeaderName; 3] =
    [header::FORWARDED, HeaderName::from_static("x-real-ip"), FORWARDED_HOST];

/// Rewrites the fields of a request that goes to the homeserver.
pub(super) fn rewrite(
    request: &mut RequestHeader,
    peer: Peer,
    trusted: &TrustedProxies,
) -> Result<(), Box<Error>> {
    if !peer.is_trusted(trusted) {
        for claim in OTHER_CLAIMS {
            request.remove_header(&claim);
        }
        request.insert_header(FORWARDED_PROTO, "http")?;
    } else if !request.headers.contains_key(FORWARDED_PROTO) {
        request.insert_header(FORWARDED_PROTO, "http")?;
    }
    let mut hops = if peer.is_trusted(trusted) { listed(&request.headers) } else { Vec::new() };
    if let Peer::Address(address) = peer {
        hops.push(address.to_string());
    }
    if hops.is_empty() {
        request.remove_header(&FORWARDED_FOR);
        return Ok(());
    }
    request.insert_header(FORWARDED_FOR, hops.join(", "))
}

/// Returns where a request came from, for questions in its sender's name.
pub(super) fn sender(session: &Session, trusted: &TrustedProxies) -> Sender {
    let peer = Peer::of(session.client_addr());
    let headers = &session.req_header().headers;
    let hops = headers.get_all(FORWARDED_FOR).iter().cloned();
    Sender {
        hops: if peer.is_trusted(trusted) { hops.collect() } else { Vec::new() },
        address: peer.address(),
        user_agent: headers.get(header::USER_AGENT).cloned(),
    }
}

/// Returns the client's address for logs and limits.
pub(super) fn client(headers: &HeaderMap, peer: Peer, trusted: &TrustedProxies) -> Option<IpAddr> {
    let own = peer.address();
    if !peer.is_trusted(trusted) {
        return own;
    }
    let mut nearest = own;
    for hop in listed(headers).iter().rev() {
        // Garbage ends the chain: what stands left of it was written by who knows whom.
        let Some(address) = parse_hop(hop) else { return nearest };
        nearest = Some(address);
        if !trusted.contains(address) {
            return nearest;
        }
    }
    nearest
}

/// Returns the address of a client that speaks through a trusted proxy.
pub(super) fn client_behind(session: &Session, trusted: &TrustedProxies) -> Option<IpAddr> {
    Peer::of(session.client_addr())
        .is_trusted(trusted)
        .then(|| limited_address(session, trusted))
        .flatten()
}

/// Returns the address whose limits a request is bound by. Whoever the operator trusts to speak for
/// others has none: if a proxy names no client, all clients have its address.
pub(super) fn limited_address(session: &Session, trusted: &TrustedProxies) -> Option<IpAddr> {
    let client = client(&session.req_header().headers, Peer::of(session.client_addr()), trusted)?;
    (!trusted.contains(client)).then_some(client)
}

/// Returns the address of a peer that says whom it speaks for and is not believed: a stranger, or a
/// proxy that the operator forgot.
pub(super) fn unbelieved(session: &Session, trusted: &TrustedProxies) -> Option<IpAddr> {
    let is_claim = session.req_header().headers.contains_key(FORWARDED_FOR);
    let peer = Peer::of(session.client_addr());
    peer.address().filter(|_| is_claim && !peer.is_trusted(trusted))
}

/// What stands for a hop that is no text: it must not take those beside it along (RFC 7239, section
/// 6.2).
const UNKNOWN: &str = "unknown";

fn listed(headers: &HeaderMap) -> Vec<String> {
    let fields = headers.get_all(FORWARDED_FOR).iter();
    fields
        .flat_map(|field| field.as_bytes().split(|&b| b == b','))
        .map(|hop| std::str::from_utf8(hop).ok().filter(|hop| hop.is_ascii()).unwrap_or(UNKNOWN))
        .map(|hop| hop.trim().to_owned())
        .filter(|hop| !hop.is_empty())
        .collect()
}

/// Reads an address, with or without a port or brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    if let Ok(address) = hop.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = hop.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    hop.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: Peer = Peer::Address(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const STRANGER: Peer = Peer::Address(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)));

    fn rewritten(peer: Peer, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        rewrite(&mut request, peer, &TrustedProxies::loopback()).unwrap();
        request
    }

    fn field<'h>(request: &'h RequestHeader, name: &str) -> Option<&'h str> {
        assert!(request.headers.get_all(name).iter().count() <= 1, "{name} twice");
        request.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn a_strangers_claims_are_replaced() {
        let request = rewritten(
            STRANGER,
            &[
                ("X-Forwarded-For", "1.2.3.4"),
                ("X-Forwarded-For", "5.6.7.8"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "evil.example"),
                ("X-Real-IP", "1.2.3.4"),
                ("Forwarded", "for=1.2.3.4"),
            ],
        );
        assert_eq!(field(&request, "x-forwarded-for"), Some("203.0.113.9"));
        assert_eq!(field(&request, "x-forwarded-proto"), Some("http"));
        for gone in ["x-forwarded-host", "x-real-ip", "forwarded"] {
            assert_eq!(field(&request, gone), None, "{gone}");
        }
    }

    #[test]
    fn a_trusted_proxys_words_are_kept_and_its_own_address_added() {
        let request = rewritten(
            PROXY,
            &[
                ("X-Forwarded-For", "198.51.100.7, 10.0.0.1"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "example.org"),
            ],
        );
        assert_eq!(field(&request, "x-forwarded-for"), Some("198.51.100.7, 10.0.0.1, 127.0.0.1"));
        assert_eq!(field(&request, "x-forwarded-proto"), Some("https"));
        assert_eq!(field(&request, "x-forwarded-host"), Some("example.org"));
    }

    #[test]
    fn a_unix_socket_is_trusted_and_adds_no_address() {
        let request = rewritten(Peer::Local, &[("X-Forwarded-For", "198.51.100.7")]);
        assert_eq!(field(&request, "x-forwarded-for"), Some("198.51.100.7"));
        assert_eq!(field(&rewritten(Peer::Local, &[]), "x-forwarded-for"), None);
    }

    #[test]
    fn the_client_is_the_right_most_untrusted_hop() {
        let client_of = |peer, hops: &str| {
            let mut headers = HeaderMap::new();
            let hops = http::HeaderValue::from_bytes(hops.as_bytes()).unwrap();
            headers.insert(FORWARDED_FOR, hops);
            client(&headers, peer, &TrustedProxies::loopback()).map(|ip| ip.to_string())
        };
        assert_eq!(client_of(PROXY, "6.6.6.6, 198.51.100.7").as_deref(), Some("198.51.100.7"));
        assert_eq!(client_of(PROXY, "198.51.100.7, 127.0.0.1").as_deref(), Some("198.51.100.7"));
        assert_eq!(client_of(PROXY, "198.51.100.7:4444").as_deref(), Some("198.51.100.7"));
        assert_eq!(client_of(PROXY, "[2001:db8::1]:1").as_deref(), Some("2001:db8::1"));
        assert_eq!(client_of(PROXY, "nonsense").as_deref(), Some("127.0.0.1"));
        assert_eq!(client_of(PROXY, "198.51.100.7, nonsense").as_deref(), Some("127.0.0.1"));
        // A byte from the client does not hide the address that a proxy adds behind it.
        assert_eq!(client_of(PROXY, "\u{e9}, 198.51.100.7").as_deref(), Some("198.51.100.7"));
        assert_eq!(client_of(STRANGER, "198.51.100.7").as_deref(), Some("203.0.113.9"));
        assert_eq!(client_of(Peer::Local, "198.51.100.7").as_deref(), Some("198.51.100.7"));
    }
}
