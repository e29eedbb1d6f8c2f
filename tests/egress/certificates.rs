//! Who must be there: names and addresses that certificates are for, and whom they are believed from.

use std::io::Write;
use std::net::{Shutdown, TcpListener};

use mediary::egress::{EgressError, EgressSettings};

use super::common::tls::TlsFront;
use super::*;

/// Why a server was not believed.
fn doubt<T>(outcome: Result<T, EgressError>) -> String {
    match refusal(outcome) {
        EgressError::Tls { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

/// TLS-02
#[tokio::test]
async fn the_name_of_the_certificate_is_asked_for_and_the_authority_is_the_host() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    world.dns.set_addresses("machine.example", &["127.0.0.1"]);
    let mut endpoint = site.endpoint("a.example");
    endpoint.connect_to = host("machine.example");
    endpoint.authority = "delegated.example:1234".into();
    let fields = [(http::header::ACCEPT, "text/html".parse().unwrap())];
    let egress = world.egress(&[LOOPBACK]);
    egress.get(&endpoint, "/path?query=%2F", &fields, soon()).await.unwrap();
    assert_eq!(site.front.names(), [Some("a.example".to_owned())]);
    let received = &site.backend.received()[0];
    assert_eq!(received.target(), "/path?query=%2F");
    assert_eq!(received.header("host"), Some("delegated.example:1234"));
    assert_eq!(received.header("accept"), Some("text/html"));
    assert_eq!(received.header("accept-encoding"), Some("identity"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(received.header("user-agent"), Some(&*format!("mediary/{version}")));
    assert_eq!(received.headers.len(), 4);
}

/// DISC-01, TLS-02
#[tokio::test]
async fn a_certificate_may_be_for_an_address_and_then_no_name_is_sent() {
    let world = World::new();
    let site = world.friendly(&["127.0.0.1"]);
    let response = get(&world.egress(&[LOOPBACK]), &site.endpoint("127.0.0.1")).await.unwrap();
    assert_eq!(whole(response).await, "hello");
    assert_eq!(site.front.names(), [None]);
}

/// TLS-01, XM-11
#[tokio::test]
async fn a_certificate_for_another_name_is_not_believed_and_nothing_is_sent() {
    let world = World::new();
    let site = world.friendly(&["a.example", "*.wild.example"]);
    let egress = world.egress(&[LOOPBACK]);
    for name in ["b.example", "sub.a.example", "x.y.wild.example", "wild.example", "127.0.0.1"] {
        world.dns.set_addresses(name, &["127.0.0.1"]);
        let reason = doubt(get(&egress, &site.endpoint(name)).await);
        assert!(reason.starts_with("the certificate is for another name"), "{name}: {reason}");
    }
    assert!(site.backend.received().is_empty());
    world.dns.set_addresses("x.wild.example", &["127.0.0.1"]);
    get(&egress, &site.endpoint("x.wild.example")).await.unwrap();
}

/// TLS-01, XM-11
#[tokio::test]
async fn a_certificate_of_a_name_does_not_do_for_its_address() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let mut endpoint = site.endpoint("a.example");
    endpoint.certificate_for = host("127.0.0.1");
    let reason = doubt(get(&world.egress(&[LOOPBACK]), &endpoint).await);
    assert!(reason.starts_with("the certificate is for another name"), "{reason}");
}

/// TLS-01
#[tokio::test]
async fn an_expired_certificate_is_not_believed() {
    let world = World::new();
    let front = TlsFront::new(&world.authority.expired_certificate(&["a.example"]));
    world.dns.set_addresses("a.example", &["127.0.0.1"]);
    let egress = world.egress(&[LOOPBACK]);
    let reason = doubt(get(&egress, &endpoint("a.example", front.port())).await);
    assert!(reason.starts_with("the certificate has expired"), "{reason}");
}

/// TLS-01
#[tokio::test]
async fn an_authority_that_nobody_knows_is_not_believed() {
    let world = World::new();
    let stranger = World::new();
    let site = stranger.friendly(&["a.example"]);
    world.dns.set_addresses("a.example", &["127.0.0.1"]);
    let reason = doubt(get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await);
    assert_eq!(reason, "no known authority vouches for the certificate");
}

/// A name with an underscore is turned into another one by the connector, whose certificate would be
/// believed; and no name at all would switch the check off.
#[tokio::test]
async fn names_that_would_not_be_verified_are_refused_before_a_connection() {
    let world = World::new();
    let site = world.friendly(&["a-b.sub.example", "a_b.sub.example"]);
    for name in ["", ".", "a_b.sub.example", "a_b.example", "_"] {
        let mut endpoint = site.endpoint("a-b.sub.example");
        endpoint.certificate_for = Host::Name(name.into());
        let outcome = get(&world.egress(&[LOOPBACK]), &endpoint).await;
        assert!(matches!(refusal(outcome), EgressError::Tls { .. }), "{name:?}");
    }
    assert_eq!(site.front.connections(), 0);
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_so() {
    let world = World::new();
    world.dns.set_addresses("a.example", &["127.0.0.1"]);
    let egress = world.egress(&[LOOPBACK]);
    for (greeting, told) in [
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "what is there speaks no TLS"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "what is there speaks no TLS"),
        ("", "the connection was closed in the handshake"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            // What is left unread would turn the end into a reset.
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        });
        assert_eq!(doubt(get(&egress, &endpoint("a.example", port)).await), told);
        server.join().unwrap();
    }
}

#[tokio::test]
async fn who_is_believed_and_then_says_nothing_is_told_from_who_is_not() {
    let world = World::new();
    let front = TlsFront::new(&world.authority.certificate(&["a.example"]));
    world.dns.set_addresses("a.example", &["127.0.0.1"]);
    let egress = world.egress(&[LOOPBACK]);
    let failure = refusal(get(&egress, &endpoint("a.example", front.port())).await);
    assert!(matches!(failure, EgressError::Misbehaved(_)), "{failure}");
}

#[test]
fn certificate_authorities_that_cannot_be_used_are_refused_in_words() {
    let world = World::new();
    let refusal = |content: Option<&str>| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.unwrap_or_default().as_bytes()).unwrap();
        let path = file.path().to_owned();
        if content.is_none() {
            file.close().unwrap();
        }
        let settings = EgressSettings { ca_file: Some(path), ..EgressSettings::default() };
        format!("{:#}", Egress::new(settings).err().expect("it should be refused"))
    };
    let certificate = world.authority.pem();
    let truncated = &certificate[..certificate.len() / 2];
    let broken = certificate.replace("MII", "AAA");
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n";
    for (content, told) in [
        (None, "No such file"),
        (Some(""), "there is no certificate in it"),
        (Some("hello"), "there is no certificate in it"),
        (Some(truncated), "section end \"CERTIFICATE\" missing"),
        (Some(&*broken), "invalid peer certificate: BadEncoding"),
        (Some(key), "un-loadable certificate"),
    ] {
        let refusal = refusal(content);
        assert!(refusal.contains("the certificate authorities in /"), "{refusal}");
        assert!(refusal.contains(told), "{refusal}");
    }
}
