//! From a server name to where it is served (section 13 of the checklist): which step comes next.
//!
//! Nothing is asked here; `locate` asks. A host counts in lower case and without a dot at its end, so
//! that one server is one, however its name is spelled. Who is contacted changes with delegation, and
//! so do `Host` and certificate; who we say to be talking to (`destination`) does not (TLS-03).

use crate::egress::{Endpoint, Host, SrvTarget};
use crate::types::ServerName;

/// Where servers are that say nothing else.
const DEFAULT_PORT: u16 = 8448;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The server is at this endpoint.
    Connect(Endpoint),
    /// Ask this host for its `/.well-known/matrix/server`.
    WellKnown(Box<str>),
    /// Look the SRV records of this host up.
    Srv(Box<str>),
}

/// Begins with a server's name: steps 1 to 3 (DISC-01 to DISC-03).
pub(super) fn begin(server: &ServerName) -> Step {
    match named_endpoint(server) {
        Ok(endpoint) => Step::Connect(endpoint),
        Err(host) => Step::WellKnown(host),
    }
}

/// Goes on once it is known whom a host's well-known file names: steps 3.1 to 3.3, or 4 if there is no
/// valid file (DISC-05, DISC-07 to DISC-09, DISC-12). A delegated host is asked for no file of its own,
/// so there are no loops.
pub(super) fn after_well_known(host: &str, delegated: Option<&ServerName>) -> Step {
    match delegated.map(named_endpoint) {
        Some(Ok(endpoint)) => Step::Connect(endpoint),
        Some(Err(delegated)) => Step::Srv(delegated),
        None => Step::Srv(host.into()),
    }
}

/// Returns the names of a host's SRV records in the order of the steps; the second is deprecated and
/// still one (DISC-09, DISC-10, DISC-12, DISC-13).
pub(super) fn services(host: &str) -> [String; 2] {
    [format!("_matrix-fed._tcp.{host}"), format!("_matrix._tcp.{host}")]
}

/// Returns the endpoints that a host's SRV record names. The certificate and `Host` are the host's, and
/// no port is in it (DISC-09, DISC-16).
pub(super) fn by_targets(host: &str, targets: &[SrvTarget]) -> Vec<Endpoint> {
    let endpoint = |target: &SrvTarget| Endpoint {
        connect_to: Host::Name(normal(&target.host).into()),
        port: target.port,
        certificate_for: Host::Name(host.into()),
        authority: host.into(),
    };
    targets.iter().map(endpoint).collect()
}

/// Returns the endpoint of a host that has no SRV record: steps 3.5 and 6 (DISC-11, DISC-14).
pub(super) fn by_address(host: &str) -> Endpoint {
    Endpoint {
        connect_to: Host::Name(host.into()),
        port: DEFAULT_PORT,
        certificate_for: Host::Name(host.into()),
        authority: host.into(),
    }
}

/// Returns the endpoint that a name says itself, being an address or having a port; of other names the
/// host.
fn named_endpoint(server: &ServerName) -> Result<Endpoint, Box<str>> {
    let name = normal(server.host());
    let host = match (server.address(), server.port()) {
        (Some(address), _) => Host::Address(address),
        (None, Some(_)) => Host::Name(name.as_str().into()),
        (None, None) => return Err(name.into()),
    };
    Ok(Endpoint {
        connect_to: host.clone(),
        port: server.port().unwrap_or(DEFAULT_PORT),
        certificate_for: host,
        authority: match server.port() {
            Some(port) => format!("{name}:{port}").into(),
            None => name.into(),
        },
    })
}

/// Writes a host as it is compared.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn host(text: &str) -> Host {
        text.parse().map_or_else(|_| Host::Name(text.into()), Host::Address)
    }

    fn endpoint(connect_to: &str, port: u16, certificate_for: &str, authority: &str) -> Endpoint {
        Endpoint {
            connect_to: host(connect_to),
            port,
            certificate_for: host(certificate_for),
            authority: authority.into(),
        }
    }

    /// DISC-01
    #[test]
    fn an_address_is_contacted_at_its_port_or_8448() {
        for (server, address, port) in [
            ("192.0.2.1", "192.0.2.1", 8448),
            ("192.0.2.1:443", "192.0.2.1", 443),
            ("[2001:db8::1]", "2001:db8::1", 8448),
            ("[2001:db8::1]:443", "2001:db8::1", 443),
        ] {
            let expected = endpoint(address, port, address, server);
            assert_eq!(begin(&name(server)), Step::Connect(expected), "{server}");
        }
    }

    /// DISC-02
    #[test]
    fn a_name_with_a_port_is_asked_for_nothing() {
        let expected = endpoint("a.example", 8448, "a.example", "a.example:8448");
        assert_eq!(begin(&name("a.example:8448")), Step::Connect(expected));
    }

    /// DISC-03
    #[test]
    fn any_other_name_is_asked_for_its_well_known_file() {
        for server in ["a.example", "A.Example", "a.example.", "localhost", "1.2.3", "127.1"] {
            let host = server.trim_end_matches('.').to_lowercase();
            assert_eq!(begin(&name(server)), Step::WellKnown(host.into()), "{server}");
        }
    }

    /// MXC-06, DISC-02
    #[test]
    fn one_server_is_one_however_its_name_is_spelled() {
        assert_eq!(begin(&name("A.Example.:8448")), begin(&name("a.example:8448")));
        assert_eq!(begin(&name("[2001:DB8::A]")), begin(&name("[2001:db8::a]")));
    }

    /// DISC-07, DISC-08, TLS-03
    #[test]
    fn a_delegated_address_or_port_is_the_endpoint() {
        for (delegated, expected) in [
            ("192.0.2.1", endpoint("192.0.2.1", 8448, "192.0.2.1", "192.0.2.1")),
            ("192.0.2.1:443", endpoint("192.0.2.1", 443, "192.0.2.1", "192.0.2.1:443")),
            ("[::1]:443", endpoint("::1", 443, "::1", "[::1]:443")),
            ("m.example:443", endpoint("m.example", 443, "m.example", "m.example:443")),
        ] {
            let step = after_well_known("a.example", Some(&name(delegated)));
            assert_eq!(step, Step::Connect(expected), "{delegated}");
        }
    }

    /// DISC-09, DISC-12
    #[test]
    fn records_are_those_of_the_delegated_host_or_else_of_the_host() {
        let delegated = after_well_known("a.example", Some(&name("M.example")));
        assert_eq!(delegated, Step::Srv("m.example".into()));
        assert_eq!(after_well_known("a.example", None), Step::Srv("a.example".into()));
        let itself = after_well_known("a.example", Some(&name("a.example")));
        assert_eq!(itself, Step::Srv("a.example".into()));
    }

    /// DISC-09, DISC-10, DISC-12, DISC-13
    #[test]
    fn the_present_record_comes_before_the_deprecated_one() {
        assert_eq!(services("a.example"), ["_matrix-fed._tcp.a.example", "_matrix._tcp.a.example"]);
    }

    /// DISC-09, DISC-15, DISC-16, TLS-02
    #[test]
    fn targets_are_contacted_in_order_and_speak_for_the_host() {
        let target = |host: &str, port| SrvTarget { host: host.into(), port };
        let targets = [target("T1.example.", 443), target("t2.example", 8448)];
        let endpoints = by_targets("a.example", &targets);
        let expected = [
            endpoint("t1.example", 443, "a.example", "a.example"),
            endpoint("t2.example", 8448, "a.example", "a.example"),
        ];
        assert_eq!(endpoints, expected);
    }

    /// DISC-11, DISC-14
    #[test]
    fn without_records_it_is_the_host_at_8448() {
        let expected = endpoint("a.example", 8448, "a.example", "a.example");
        assert_eq!(by_address("a.example"), expected);
    }

    proptest! {
        /// DISC-01, DISC-02, DISC-03, DISC-16
        #[test]
        fn a_port_is_kept_and_what_has_none_gets_none(
            host in "[a-zA-Z][a-zA-Z0-9-]{0,9}(\\.[a-z][a-z0-9]{0,5}){0,3}\\.?", port in 1_u16..,
        ) {
            let Step::Connect(expected) = begin(&name(&format!("{host}:{port}"))) else {
                panic!("a name with a port is asked");
            };
            prop_assert_eq!(expected.port, port);
            let suffix = format!(":{port}");
            prop_assert_eq!(expected.authority.strip_suffix(&*suffix), Some(&*normal(&host)));
            prop_assert_eq!(begin(&name(&host)), Step::WellKnown(normal(&host).into()));
        }
    }
}
