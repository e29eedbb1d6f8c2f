//! The keys of other servers, fetched over TLS as in the field, and what is signed with them.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;

use common::fake::{respond, respond_with};
use common::origin::{ServerKey, TlsStream};
use common::{Authority, DnsServer, Origin, egress};
use http::{HeaderMap, HeaderValue, Method, header};
use mediary::auth::{OriginAuthenticator, OriginClaim, OriginError};
use mediary::federation::{KeyError, KeyId, RemoteKeys, Servers};
use mediary::metrics::Metrics;
use mediary::types::ServerName;
use serde_json::json;

const TARGET: &str = "/_matrix/federation/v1/media/download/abc?timeout_ms=20000";
const HOUR: i64 = 60 * 60 * 1000;

fn servers(authority: &Authority) -> Servers {
    Servers::new(egress(authority, &DnsServer::start()))
}

fn keys(authority: &Authority, notaries: &[&str]) -> RemoteKeys {
    let notaries = notaries.iter().map(|notary| name(notary)).collect();
    RemoteKeys::new(servers(authority), notaries)
}

fn name(text: &str) -> ServerName {
    text.parse().expect("a server name")
}

fn id(key: &ServerKey) -> KeyId {
    key.id.parse().expect("a key id")
}

/// A server on an address of its own, which needs no names.
fn server(
    authority: &Authority,
    script: impl Fn(&str, &mut TlsStream) -> Option<bool> + Send + Sync + 'static,
) -> Origin {
    let origin = Origin::with(authority, move |request, stream| script(&request.target(), stream));
    let name = format!("127.0.0.1:{}", origin.port());
    origin.named(&name)
}

async fn key_of(keys: &RemoteKeys, origin: &Origin) -> Result<(), KeyError> {
    keys.key(&name(&origin.server_name()), &id(&origin.key), None).await.map(drop)
}

/// FM-S-01, KEY-01, XM-01 to XM-04: the other side signs with code that is not Mediary's.
#[tokio::test]
async fn a_request_is_checked_with_the_key_that_its_server_publishes() {
    let authority = Authority::new();
    let origin = server(&authority, |_, _| None);
    let metrics = Arc::new(Metrics::new().unwrap());
    let authenticator = OriginAuthenticator::new(keys(&authority, &[]), metrics);
    let us = name("us.example");
    let check = async |field: String, target: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(field).unwrap());
        let claim = OriginClaim::read(&us, &headers)?;
        authenticator.verify(claim, &Method::GET, target.as_bytes(), None).await
    };
    let signed = origin.authorization("us.example", "GET", TARGET);
    for _ in 0..3 {
        let found = check(signed.clone(), TARGET).await.unwrap();
        assert_eq!(found.server_name().as_str(), origin.server_name());
    }
    let other = check(signed.clone(), "/_matrix/federation/v1/media/download/abc").await;
    assert_eq!(other, Err(OriginError::BadSignature));
    let stranger = ServerKey::new("test");
    let forged = stranger.authorization(&origin.server_name(), "us.example", "GET", TARGET);
    assert_eq!(check(forged, TARGET).await, Err(OriginError::BadSignature));
    let elsewhere = origin.authorization("other.example", "GET", TARGET);
    let refused = check(elsewhere, TARGET).await;
    assert!(matches!(refused, Err(OriginError::WrongDestination { .. })), "{refused:?}");

    let asked = origin.received_for("/_matrix/key/v2/server");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target(), "/_matrix/key/v2/server");
    assert_eq!(asked[0].header("authorization"), None);
}

/// KEY-03, threats FE-09
#[tokio::test]
async fn answers_that_are_no_list_of_keys_are_refused_whatever_their_size() {
    let authority = Authority::new();
    let endless = |stream: &mut TlsStream| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
        // Until the other side has had enough.
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(chunk.as_bytes()).is_ok() {}
        Some(false)
    };
    let large = |stream: &mut TlsStream| {
        Some(respond_with(stream, 200, &[], &vec![b' '; 100 * 1024 * 1024]))
    };
    let other_server = |stream: &mut TlsStream| {
        let published = ServerKey::new("test").published("other.example", HOUR);
        Some(respond(stream, 200, &published.to_string()))
    };
    let no_json = |stream: &mut TlsStream| Some(respond(stream, 200, "<html>"));
    let not_found = |stream: &mut TlsStream| Some(respond(stream, 404, "{}"));
    let moved = |stream: &mut TlsStream| {
        let location = [("Location", "https://127.0.0.1/")];
        Some(respond_with(stream, 301, &location, b""))
    };
    type Script = Box<dyn Fn(&mut TlsStream) -> Option<bool> + Send + Sync>;
    let scripts: [(Script, &str); 6] = [
        (Box::new(endless), "larger than 65536 bytes"),
        (Box::new(large), "larger than 65536 bytes"),
        (Box::new(other_server), "of another server"),
        (Box::new(no_json), "not a strict JSON object"),
        (Box::new(not_found), "answers 404"),
        (Box::new(moved), "answers 301"),
    ];
    for (script, reason) in scripts {
        let origin = server(&authority, move |_, stream| script(stream));
        let keys = keys(&authority, &[]);
        for _ in 0..3 {
            let refused = key_of(&keys, &origin).await.unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
        assert_eq!(origin.received().len(), 1, "{reason}: asked once");
    }
}

/// XM-11, TLS-01
#[tokio::test]
async fn a_server_that_cannot_show_who_it_is_has_no_keys() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = server(&stranger, |_, _| None);
    let refused = key_of(&keys(&authority, &[]), &origin).await.unwrap_err();
    assert!(matches!(refused, KeyError::Server(_)), "{refused}");
    assert_eq!(origin.received().len(), 0);
}

/// Threats FE-08
#[tokio::test]
async fn a_server_that_stalls_in_its_answer_has_no_keys_and_is_not_asked_again() {
    let authority = Authority::new();
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let origin = server(&authority, move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{");
        let _ = stream.flush();
        begun.send(()).expect("the test waits");
        // Until the other side has had enough.
        let _ = stream.read(&mut [0]);
        Some(false)
    });
    let keys = keys(&authority, &[]);
    let failed = async {
        let failed = key_of(&keys, &origin).await;
        (failed, key_of(&keys, &origin).await)
    };
    let stalled = async {
        has_begun.recv().await.expect("the server is asked");
        // Nothing moves any more but the clock.
        tokio::time::pause();
    };
    let ((first, second), ()) = tokio::join!(failed, stalled);
    assert!(first.is_err());
    assert_eq!(first, second);
    assert_eq!(origin.received().len(), 1);
}

/// KEY-07, KEY-08, KEY-10
#[tokio::test]
async fn a_notary_knows_the_keys_of_a_server_that_is_gone() {
    let authority = Authority::new();
    let gone = ServerKey::new("gone");
    // Nobody listens at the port 1.
    let gone_name = "127.0.0.1:1";
    let published = gone.published(gone_name, HOUR);
    let notary_key = ServerKey::of_seed("notary", [7; 32]);
    let mut notarised = published.clone();
    let certificate = authority.certificate(&["127.0.0.1"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let notary_name = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    notary_key.sign(&mut notarised, &notary_name);
    let answer = json!({"server_keys": [notarised]}).to_string();
    let notary = Origin::on(listener, &certificate, notary_key, move |request, stream| {
        let is_query = request.target().starts_with("/_matrix/key/v2/query/");
        is_query.then(|| respond(stream, 200, &answer))
    })
    .named(&notary_name);

    let with_notary = keys(&authority, &[&notary_name]);
    let found = with_notary.key(&name(gone_name), &id(&gone), None).await.unwrap();
    let signature = gone.signature(&json!({}));
    let bytes = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD_NO_PAD,
        signature.as_bytes(),
    );
    assert!(found.verify(b"{}", &bytes.unwrap()).is_ok());
    let asked: Vec<_> = notary.received().iter().map(|request| request.target()).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let query = format!("/_matrix/key/v2/query/{gone_name}?minimum_valid_until_ts=");
    assert!(asked[0].starts_with(&query) && asked[1] == "/_matrix/key/v2/server", "{asked:?}");

    let without = keys(&authority, &[]).key(&name(gone_name), &id(&gone), None).await;
    assert!(matches!(without, Err(KeyError::Server(_))), "{without:?}");
}
