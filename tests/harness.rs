//! The servers that other tests stand on: certificates, a name server, and another homeserver.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use common::dns::{RecordType, Reply};
use common::origin::{self, ServerKey, canonical};
use common::tls::Certificate;
use common::{Authority, DnsServer, FakeHomeserver, Origin, PATIENCE, TlsFront};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

const NAMES: &[&str] = &["localhost", "127.0.0.1", "a.example"];

/// Asks once over TLS and returns all that comes before the end of the connection.
fn ask(
    authority: &Authority,
    address: SocketAddr,
    name: &str,
    request: &str,
) -> Result<String, rustls::Error> {
    let pem = authority.pem();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            let inner = error.into_inner().expect("an error of TLS");
            return Err(*inner.downcast().expect("an error of TLS"));
        }
    }
    let mut stream = StreamOwned::new(connection, stream);
    let head = format!("GET {request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    // It may end without a farewell.
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8(answer).expect("text"))
}

fn closing(certificate: &Certificate) -> Origin {
    Origin::with_key(certificate, ServerKey::new("1"), |_, stream| {
        origin::respond_multipart(stream, "text/plain", None, b"hello");
        Some(origin::close(stream))
    })
}

#[test]
fn a_certificate_is_good_for_its_names_while_it_lasts_and_with_its_authority() {
    let authority = Authority::new();
    let origin = closing(&authority.certificate(NAMES));
    for name in NAMES {
        let answer = ask(&authority, origin.address, name, "/").unwrap();
        assert!(answer.ends_with(&format!("hello\r\n--{}--\r\n", origin::BOUNDARY)), "{answer}");
    }
    let seen = [Some("localhost"), None, Some("a.example")].map(|name| name.map(str::to_owned));
    assert_eq!(origin.names(), seen);
    assert!(ask(&authority, origin.address, "b.example", "/").is_err());
    assert!(ask(&Authority::new(), origin.address, "localhost", "/").is_err());
    origin.show(&authority.expired_certificate(NAMES));
    assert!(ask(&authority, origin.address, "localhost", "/").is_err());
    origin.show(&Authority::new().certificate(NAMES));
    assert!(ask(&authority, origin.address, "localhost", "/").is_err());
    assert_eq!(origin.connections(), 7);
}

#[test]
fn a_front_leads_where_it_is_told() {
    let authority = Authority::new();
    let front = TlsFront::new(&authority.certificate(NAMES));
    let ask = || ask(&authority, front.address, "localhost", "/asked").unwrap();
    assert_eq!(ask(), "");
    let backends = [201, 202].map(|status| {
        FakeHomeserver::with(move |_, stream| {
            common::fake::respond(stream, status, "{}");
            Some(false)
        })
    });
    for (backend, status) in backends.iter().zip([201, 202]) {
        front.lead_to(backend.address);
        assert!(ask().starts_with(&format!("HTTP/1.1 {status} ")));
        assert_eq!(backend.received_for("/asked").len(), 1);
    }
    assert_eq!((front.connections(), front.names().len()), (3, 3));
}

fn resolver(dns: &DnsServer) -> TokioResolver {
    let mut connection = ConnectionConfig::udp();
    connection.port = dns.address.port();
    let server = NameServerConfig::new(dns.address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.build().expect("a resolver")
}

async fn addresses(resolver: &TokioResolver, name: &str) -> Option<Vec<IpAddr>> {
    let found = resolver.lookup_ip(format!("{name}.")).await.ok()?;
    let mut found: Vec<_> = found.iter().collect();
    found.sort();
    Some(found)
}

#[tokio::test]
async fn the_name_server_says_what_it_was_told() {
    let dns = DnsServer::start();
    dns.set_addresses("a.example", &["127.0.0.1", "::1"]);
    dns.set_alias("b.example", "a.example");
    dns.set_srv("_matrix._tcp.a.example", &[(1, 2, 8448, "c.example")]);
    dns.set_all("broken.example", &Reply::Failure);
    let (first, second) = (Reply::addresses(&["192.0.2.1"]), Reply::addresses(&["192.0.2.2"]));
    dns.set("turning.example", RecordType::A, &[first, second]);
    let resolver = resolver(&dns);
    let both = Some(["127.0.0.1", "::1"].map(|address| address.parse().unwrap()).to_vec());
    assert_eq!(addresses(&resolver, "a.example").await, both);
    assert_eq!(addresses(&resolver, "b.example").await, both);
    assert_eq!(addresses(&resolver, "broken.example").await, None);
    assert_eq!(addresses(&resolver, "unknown.example").await, None);
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.2"] {
        let one = Some(vec![address.parse().unwrap()]);
        assert_eq!(addresses(&resolver, "turning.example").await, one);
    }
    assert_eq!(dns.asked("turning.example", RecordType::A), 3);
    let found = resolver.srv_lookup("_matrix._tcp.a.example.").await.unwrap();
    assert!(format!("{found:?}").contains("c.example"), "{found:?}");
}

/// Returns whether a signature was made with a key.
fn is_signed(key: &ServerKey, text: &str, signature: &str) -> bool {
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).expect("base64");
    UnparsedPublicKey::new(&ED25519, decode(&key.public()))
        .verify(text.as_bytes(), &decode(signature))
        .is_ok()
}

/// The key, the object and the signature of the specification's appendix.
#[test]
fn another_server_signs_as_the_specification_shows() {
    let key = ServerKey::of_line("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1");
    let expected =
        "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ";
    assert_eq!(key.signature(&json!({})), expected);
    assert_eq!(
        canonical(&json!({"b": [1, null], "a": "\u{e9}\n"})),
        "{\"a\":\"\u{e9}\\n\",\"b\":[1,null]}"
    );
    assert_eq!(ServerKey::of_line(&key.line()).public(), key.public());
}

#[test]
fn another_server_publishes_the_key_that_it_signs_with() {
    let authority = Authority::new();
    let origin = Origin::start(&authority);
    let answer = ask(&authority, origin.address, "localhost", "/_matrix/key/v2/server").unwrap();
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let (name, mut unsigned) = (origin.server_name(), body.clone());
    unsigned.as_object_mut().unwrap().remove("signatures");
    assert_eq!(body["server_name"], *name);
    assert_eq!(body["verify_keys"][&origin.key.id]["key"], *origin.key.public());
    let signature = body["signatures"][&name][&origin.key.id].as_str().unwrap();
    assert!(is_signed(&origin.key, &canonical(&unsigned), signature));
    let header = origin.authorization("b.example", "GET", "/x");
    let signature = header.split("sig=\"").nth(1).unwrap().trim_end_matches('"');
    let text =
        format!(r#"{{"destination":"b.example","method":"GET","origin":"{name}","uri":"/x"}}"#);
    assert!(is_signed(&origin.key, &text, signature));
}

#[test]
fn another_server_gives_out_what_it_keeps_to_whoever_signs() {
    let authority = Authority::new();
    let origin = Origin::start(&authority);
    assert_eq!(
        origin.keep("id", "image/png", Some("a.png"), b"picture"),
        format!("{}/id", origin.server_name())
    );
    let ask = |target: &str| ask(&authority, origin.address, "localhost", target).unwrap();
    assert!(ask("/_matrix/federation/v1/media/download/id").starts_with("HTTP/1.1 401 "));
    let legacy = ask(&format!("/_matrix/media/v3/download/{}/id", origin.server_name()));
    assert!(legacy.starts_with("HTTP/1.1 200 ") && legacy.ends_with("\r\n\r\npicture"), "{legacy}");
    assert!(ask("/_matrix/media/v3/download/x/none").starts_with("HTTP/1.1 404 "));
    assert_eq!(origin.received_for("/download/").len(), 3);
}
