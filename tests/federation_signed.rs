//! Other servers ask for media, and their signatures are judged here: with a signing key the homeserver
//! is asked only for what Mediary does not hold (checklist sections 11 and 12, threats FE-01 to FE-09).

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::fake::{FakeHomeserver, Received, SERVER_NAME, respond, respond_with};
use common::federation::{DOWNLOAD, THUMBNAIL, id, parts, parts_of_any_length};
use common::http::Answer;
use common::origin::{BOUNDARY, multipart, respond_multipart};
use common::samples::{bytes, png};
use common::{Authority, Client, Mediary, Origin, ServerKey, Settings, free_port};
use serde_json::json;

/// A Mediary with a key, the homeserver behind it and another server that asks.
struct Scene {
    authority: Authority,
    homeserver: FakeHomeserver,
    origin: Origin,
    mediary: Mediary,
}

impl Scene {
    fn new() -> Self {
        Self::with(FakeHomeserver::start(), &[])
    }

    fn with(homeserver: FakeHomeserver, more: &[&str]) -> Self {
        let authority = Authority::new();
        let origin = Origin::start(&authority);
        let mediary = start(&homeserver, &authority, more);
        Self { authority, homeserver, origin, mediary }
    }

    /// Asks for a target with the other server's signature.
    fn ask(&self, target: &str) -> Answer {
        ask_as(&self.origin, &self.mediary.client(), target)
    }

    fn upload(&self, content_type: &str, body: &[u8]) -> String {
        id(&self.mediary.alice().upload(content_type, Some("a.png"), body)).to_owned()
    }
}

fn start(homeserver: &FakeHomeserver, authority: &Authority, more: &[&str]) -> Mediary {
    Settings::new(&homeserver.url).with_signing_key(authority, more).start()
}

fn ask_as(origin: &Origin, client: &Client, target: &str) -> Answer {
    let authorization = origin.authorization(SERVER_NAME, "GET", target);
    client.get_with(target, &[("Authorization", &authorization)])
}

/// FM-S-01, FM-S-03, XM-01, XM-02, FE-01
#[test]
fn whoever_has_signed_is_answered_without_the_homeserver() {
    let scene = Scene::new();
    for size in [0, 1, 100_000, 3_000_000] {
        let media_id = scene.upload("image/png", &bytes(size));
        for target in [
            format!("{DOWNLOAD}/{media_id}"),
            format!("{DOWNLOAD}/{media_id}?timeout_ms=20000&x=%7e~!*'()%2F"),
            format!("/_matrix/federation/unstable/org.matrix.msc3916.v2/media/download/{media_id}"),
        ] {
            assert!(parts(&scene.ask(&target)).body == bytes(size), "{target}");
        }
    }
    assert!(scene.homeserver.received_for("/federation/").is_empty());
    assert_eq!(scene.origin.received_for("/_matrix/key/v2/server").len(), 1, "one look-up of keys");
    assert_eq!(scene.mediary.metric("mediary_origin_checks_total{result=\"accepted\"}"), 12.0);
}

/// FM-S-11, FLD-10, FLD-32
#[test]
fn a_thumbnail_is_the_one_that_clients_get() {
    let scene = Scene::new();
    let media_id = scene.upload("image/png", &png(400, 300));
    for query in ["width=32&height=32&method=crop", "width=320&height=240"] {
        let part = parts(&scene.ask(&format!("{THUMBNAIL}/{media_id}?{query}"))).body;
        let path = format!("/_matrix/client/v1/media/thumbnail/{SERVER_NAME}/{media_id}?{query}");
        assert!(part == scene.mediary.alice().get(&path).body, "{query}");
    }
    scene.ask(&format!("{THUMBNAIL}/{media_id}?width=0&height=1")).assert_error(400, "M_UNKNOWN");
    assert!(scene.homeserver.received_for("/federation/").is_empty());
}

/// FM-S-01, XM-02, XM-03, XM-05, XM-08, FLD-24, FE-01, FE-02, FE-03
#[test]
fn a_signature_over_anything_else_is_401() {
    let scene = Scene::new();
    let media_id = scene.upload("text/plain", b"hello");
    let target = format!("{DOWNLOAD}/{media_id}?a=1&b=2");
    let origin = &scene.origin;
    let other = ServerKey::new("other");
    let good = origin.authorization(SERVER_NAME, "GET", &target);
    for (what, authorization) in [
        ("another method", origin.authorization(SERVER_NAME, "POST", &target)),
        (
            "another path",
            origin.authorization(SERVER_NAME, "GET", &format!("{DOWNLOAD}/x?a=1&b=2")),
        ),
        (
            "another order",
            origin.authorization(SERVER_NAME, "GET", &format!("{DOWNLOAD}/{media_id}?b=2&a=1")),
        ),
        ("no query", origin.authorization(SERVER_NAME, "GET", &format!("{DOWNLOAD}/{media_id}"))),
        ("another destination", origin.authorization("other.example", "GET", &target)),
        ("another case", origin.authorization("Fake.example", "GET", &target)),
        ("another key id", good.replace("ed25519:test", "ed25519:other")),
        ("another algorithm", good.replace("ed25519:test", "rsa:test")),
        ("an empty key id", good.replace("ed25519:test", "ed25519:")),
        (
            "another key",
            other
                .authorization(&origin.server_name(), SERVER_NAME, "GET", &target)
                .replace("ed25519:other", "ed25519:test"),
        ),
        ("no signature", good.split(",sig=").next().expect("a field").to_owned()),
        ("a parameter twice", format!("{good},key=\"ed25519:test\"")),
        ("a token", "Bearer syt_alice".to_owned()),
        ("nothing", "X-Matrix".to_owned()),
        ("empty values", r#"X-Matrix origin="",destination="",key="",sig="""#.to_owned()),
    ] {
        let answer = scene.mediary.client().get_with(&target, &[("Authorization", &authorization)]);
        assert_eq!((answer.status, answer.errcode().as_str()), (401, "M_UNAUTHORIZED"), "{what}");
    }
    scene.mediary.client().get(&target).assert_error(401, "M_UNAUTHORIZED");
    assert!(scene.homeserver.received_for("/federation/").is_empty());
    assert_eq!(parts(&scene.ask(&target)).body, b"hello");
}

/// XM-05, FE-04
#[test]
fn an_old_server_that_does_not_name_the_destination_is_believed() {
    let scene = Scene::new();
    let target = format!("{DOWNLOAD}/{}", scene.upload("text/plain", b"hello"));
    let authorization = scene.origin.authorization(SERVER_NAME, "GET", &target);
    let unnamed = authorization.replace(&format!(",destination=\"{SERVER_NAME}\""), "");
    assert_ne!(unnamed, authorization);
    let answer = scene.mediary.client().get_with(&target, &[("Authorization", &unnamed)]);
    assert_eq!(parts(&answer).body, b"hello");
}

/// XM-09
#[test]
fn of_several_signatures_one_has_to_be_good() {
    let scene = Scene::new();
    let target = format!("{DOWNLOAD}/{}", scene.upload("text/plain", b"hello"));
    let good = scene.origin.authorization(SERVER_NAME, "GET", &target);
    let unknown = good.replace("ed25519:test", "ed25519:new");
    let client = scene.mediary.client();
    let fields = [("Authorization", unknown.as_str()), ("Authorization", good.as_str())];
    assert_eq!(parts(&client.get_with(&target, &fields)).body, b"hello");
    client.get_with(&target, &fields[..1]).assert_error(401, "M_UNAUTHORIZED");
    let other = good.replace(&scene.origin.server_name(), "other.example");
    let fields = [("Authorization", other.as_str()), ("Authorization", good.as_str())];
    client.get_with(&target, &fields).assert_error(401, "M_UNAUTHORIZED");
}

/// XM-07, FE-07
#[test]
fn a_field_is_read_in_every_form_that_servers_write() {
    let scene = Scene::new();
    let target = format!("{DOWNLOAD}/{}", scene.upload("text/plain", b"hello"));
    let good = scene.origin.authorization(SERVER_NAME, "GET", &target);
    let bare: String = good.chars().filter(|&c| c != '"').collect();
    for form in [
        good.replace("X-Matrix ", "x-matrix   "),
        good.replace(',', " ,\t ").replace("origin=", "ORIGIN="),
        format!("{good},version=\"2\",x=y"),
        bare,
    ] {
        let answer = scene.mediary.client().get_with(&target, &[("Authorization", &form)]);
        assert_eq!(parts(&answer).body, b"hello", "{form}");
    }
}

/// KEY-03, KEY-04, XM-10, FE-05, FE-09
#[test]
fn keys_that_cannot_be_believed_open_nothing() {
    let homeserver = FakeHomeserver::start();
    let authority = Authority::new();
    let mediary = start(&homeserver, &authority, &[]);
    let media = mediary.alice().upload("text/plain", None, b"hello");
    let target = format!("{DOWNLOAD}/{}", id(&media));
    let certificate = authority.certificate(&["localhost"]);
    type Publish = fn(&ServerKey, &str) -> serde_json::Value;
    let cases: [(&str, Publish); 4] = [
        ("no longer valid", |key, name| key.published(name, -1000)),
        ("of another server", |key, _| key.published("other.example", 60_000)),
        ("not signed by itself", |key, name| {
            let mut answer = key.published(name, 60_000);
            answer["valid_until_ts"] = json!(common::origin::unix_millis() + 120_000);
            answer
        }),
        ("an old key", |key, name| {
            let new = ServerKey::new("new");
            let mut answer = new.published(name, 60_000);
            answer["old_verify_keys"][&key.id] =
                json!({"key": key.public(), "expired_ts": common::origin::unix_millis() + 1000});
            new.sign(&mut answer, name);
            answer
        }),
    ];
    for (what, publish) in cases {
        let key = ServerKey::new("test");
        let (line, name) = (key.line(), Arc::new(Mutex::new(String::new())));
        let published = (ServerKey::of_line(&line), name.clone());
        let origin = Origin::with_key(&certificate, key, move |request, stream| {
            let name = published.1.lock().expect("the name").clone();
            let answer = publish(&published.0, &name).to_string();
            request.target().contains("/key/v2/").then(|| respond(stream, 200, &answer))
        });
        *name.lock().expect("the name") = origin.server_name();
        let answer = ask_as(&origin, &mediary.client(), &target);
        assert_eq!((answer.status, answer.errcode().as_str()), (401, "M_UNAUTHORIZED"), "{what}");
        assert_eq!(origin.received_for("/key/v2/").len(), 1, "{what}");
    }
}

/// FE-08, SS-10
#[test]
fn a_server_whose_keys_cannot_be_had_is_401_and_learns_nothing_of_what_we_saw() {
    let homeserver = FakeHomeserver::start();
    let authority = Authority::new();
    let mediary = start(&homeserver, &authority, &[]);
    let media = mediary.alice().upload("text/plain", None, b"hello");
    let target = format!("{DOWNLOAD}/{}", id(&media));
    for server in [format!("localhost:{}", free_port()), "10.0.0.1".to_owned()] {
        let key = ServerKey::new("test");
        let signed = key.authorization(&server, SERVER_NAME, "GET", &target);
        let answer = mediary.client().get_with(&target, &[("Authorization", &signed)]);
        answer.assert_error(401, "M_UNAUTHORIZED");
        for ours in ["127.0.0.1", "public", "networks", "refused"] {
            assert!(!answer.text().contains(ours), "{}", answer.text());
        }
    }
    assert_eq!(mediary.metric("mediary_origin_checks_total{result=\"failed\"}"), 2.0);
}

/// A homeserver that has this media and shows it to whoever signs, except as the script says.
fn holding(
    body: Vec<u8>,
    script: impl Fn(&Received) -> Option<u16> + Send + Sync + 'static,
) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| {
        if !request.target().contains("/federation/v1/media/") {
            return None;
        }
        request.header("authorization")?;
        Some(match script(request) {
            None => respond_multipart(stream, "image/png", Some("old.png"), &body),
            Some(status) => respond(stream, status, r#"{"errcode":"M_FORBIDDEN","error":"x"}"#),
        })
    })
}

/// FM-S-02, FM-S-09
#[test]
fn media_that_only_the_homeserver_holds_is_had_by_the_same_request_and_kept() {
    let scene = Scene::with(holding(png(400, 300), |_| None), &[]);
    let target = format!("{DOWNLOAD}/older?timeout_ms=7&x=%41");
    assert!(parts_of_any_length(&scene.ask(&target)).body == png(400, 300));
    let asked = scene.homeserver.received_for("/federation/");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target(), target);
    let signed = scene.origin.authorization(SERVER_NAME, "GET", &target);
    assert_eq!(asked[0].header("authorization"), Some(signed.as_str()));

    let other = Origin::start(&scene.authority);
    for origin in [&scene.origin, &other] {
        let answer = ask_as(origin, &scene.mediary.client(), &format!("{DOWNLOAD}/older"));
        assert!(parts(&answer).body == png(400, 300));
    }
    scene.mediary.alice().download(&format!("{SERVER_NAME}/older")).assert_whole(&png(400, 300));
    assert_eq!(scene.homeserver.received_for("/older").len(), 1, "it is kept");
}

/// FM-S-11, FLD-32
#[test]
fn a_thumbnail_of_what_only_the_homeserver_holds_is_made_of_the_original() {
    let scene = Scene::with(holding(png(400, 300), |_| None), &[]);
    let query = "width=32&height=32&method=crop";
    let part = parts(&scene.ask(&format!("{THUMBNAIL}/older?{query}"))).body;
    let asked = scene.homeserver.received_for("/federation/");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].target().starts_with(&format!("{DOWNLOAD}/older")), "{}", asked[0].target());
    let field = asked[0].header("authorization").expect("a signature");
    assert!(field.contains(&format!("origin=\"{SERVER_NAME}\"")), "{field}");
    assert!(field.contains(&format!("destination=\"{SERVER_NAME}\"")), "{field}");
    let path = format!("/_matrix/client/v1/media/thumbnail/{SERVER_NAME}/older?{query}");
    assert!(part == scene.mediary.alice().get(&path).body);
}

#[test]
fn a_homeserver_that_does_not_take_our_signature_makes_the_thumbnail_itself() {
    let refuses_us = |request: &Received| {
        let field = request.header("authorization").unwrap_or_default();
        field.contains(&format!("origin=\"{SERVER_NAME}\"")).then_some(403)
    };
    let scene = Scene::with(holding(b"its own".to_vec(), refuses_us), &[]);
    let target = format!("{THUMBNAIL}/older?width=32&height=32");
    let answer = scene.ask(&target);
    let expected = format!("multipart/mixed; boundary={BOUNDARY}");
    assert_eq!(answer.header("content-type"), Some(expected.as_str()));
    assert_eq!(answer.body, multipart("image/png", Some("old.png"), b"its own"));
    let asked = scene.homeserver.received_for("/thumbnail/");
    let signed = scene.origin.authorization(SERVER_NAME, "GET", &target);
    assert_eq!(asked[0].header("authorization"), Some(signed.as_str()));
    scene.mediary.assert_nothing_kept();
}

/// FM-S-09, FM-S-10, FE-14
#[test]
fn what_nobody_has_is_404_not_found_in_whatever_words_the_homeserver_says_so() {
    for (status, body) in [
        (404, r#"{"errcode":"M_NOT_FOUND","error":"x"}"#),
        (404, r#"{"errcode":"M_UNRECOGNIZED","error":"x"}"#),
        (400, r#"{"errcode":"M_UNKNOWN","error":"x"}"#),
    ] {
        let homeserver = FakeHomeserver::with(move |request, stream| {
            let is_media = request.target().starts_with("/_matrix/federation/");
            is_media.then(|| respond(stream, status, body))
        });
        let scene = Scene::with(homeserver, &[]);
        scene.ask(&format!("{DOWNLOAD}/nothing")).assert_error(404, "M_NOT_FOUND");
        let thumbnail = format!("{THUMBNAIL}/nothing?width=32&height=32");
        scene.ask(&thumbnail).assert_error(404, "M_NOT_FOUND");
    }
}

/// FM-S-02, FE-14
#[test]
fn media_of_a_third_server_is_not_served_though_it_is_kept() {
    let scene = Scene::new();
    let third = Origin::start(&scene.authority);
    let media = third.keep("cached", "text/plain", None, b"hello");
    scene.mediary.alice().download(&media).assert_whole(b"hello");
    scene.ask(&format!("{DOWNLOAD}/cached")).assert_error(404, "M_NOT_FOUND");
    let thumbnail = format!("{THUMBNAIL}/cached?width=32&height=32");
    scene.ask(&thumbnail).assert_error(404, "M_NOT_FOUND");
    assert_eq!(third.received_for("/download/").len(), 1);
}

/// FM-S-10
#[test]
fn an_answer_of_the_homeserver_that_makes_no_sense_is_502_and_not_kept() {
    for (content_type, body) in [
        ("text/plain", &b"hello"[..]),
        ("multipart/mixed", b"--a\r\n"),
        ("multipart/mixed; boundary=a", b"--a\r\nContent-Type: application/json\r\n\r\n{}\r\n--a--"),
        (
            "multipart/mixed; boundary=a",
            b"--a\r\nContent-Type: application/json\r\n\r\n{}\r\n--a\r\nLocation: https://b.example/\r\n\r\n\r\n--a--",
        ),
    ] {
        let homeserver = FakeHomeserver::with(move |request, stream| {
            let is_media = request.target().starts_with("/_matrix/federation/");
            is_media.then(|| respond_with(stream, 200, &[("Content-Type", content_type)], body))
        });
        let scene = Scene::with(homeserver, &[]);
        scene.ask(&format!("{DOWNLOAD}/odd")).assert_error(502, "M_UNKNOWN");
        scene.mediary.assert_nothing_kept();
    }
}

/// FM-S-08
#[test]
fn another_server_waits_for_an_upload_as_clients_do() {
    let scene = Scene::new();
    let media = scene.mediary.alice().create().media();
    let target = format!("{DOWNLOAD}/{}?timeout_ms=0", id(&media));
    scene.ask(&target).assert_error(504, "M_NOT_YET_UPLOADED");
    scene.mediary.alice().put(&media, "text/plain", b"hello").assert_stored();
    assert_eq!(parts(&scene.ask(&target)).body, b"hello");
}

/// FM-S-13
#[test]
fn a_denied_server_is_403_and_costs_nothing() {
    let homeserver = FakeHomeserver::start();
    let authority = Authority::new();
    let origin = Origin::start(&authority);
    let denied = "deny_servers = [\"localhost\"]";
    let with_key = start(&homeserver, &authority, &[denied]);
    let without = Settings::new(&homeserver.url).with_federation(&authority, &[denied]).start();
    for mediary in [&with_key, &without] {
        let media = mediary.alice().upload("text/plain", None, b"hello");
        let target = format!("{DOWNLOAD}/{}", id(&media));
        ask_as(&origin, &mediary.client(), &target).assert_error(403, "M_FORBIDDEN");
        assert_eq!(mediary.metric("mediary_refusals_total{kind=\"server\"}"), 1.0);
    }
    assert_eq!(origin.connections(), 0);
    assert!(homeserver.received_for("/federation/").is_empty());
}

/// CS-RL-01
#[test]
fn a_server_that_asks_too_often_waits_and_others_do_not() {
    let more = ["server_requests_per_second = 1\nserver_requests_burst = 3"];
    let scene = Scene::with(FakeHomeserver::start(), &more);
    let target = format!("{DOWNLOAD}/{}", scene.upload("text/plain", b"hello"));
    for _ in 0..3 {
        assert_eq!(parts(&scene.ask(&target)).body, b"hello");
    }
    scene.ask(&target).assert_limited();
    // Nobody can use up the share of a server whose key they do not have.
    let other = Origin::start(&scene.authority);
    let key = ServerKey::new("test");
    for _ in 0..5 {
        let forged = key.authorization(&other.server_name(), SERVER_NAME, "GET", &target);
        let answer = scene.mediary.client().get_with(&target, &[("Authorization", &forged)]);
        answer.assert_error(401, "M_UNAUTHORIZED");
    }
    assert_eq!(parts(&ask_as(&other, &scene.mediary.client(), &target)).body, b"hello");
}

/// CS-RL-01
#[test]
fn a_request_past_max_requests_per_server_is_429() {
    let scene = Scene::with(FakeHomeserver::start(), &["max_requests_per_server = 2"]);
    let body = bytes(20_000_000);
    let target = format!("{DOWNLOAD}/{}", scene.upload("video/mp4", &body));
    let signed = scene.origin.authorization(SERVER_NAME, "GET", &target);
    let begin = || {
        let mut connection = scene.mediary.client().connect();
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {signed}\r\n\r\n");
        connection.stream.write_all(request.as_bytes()).expect("Mediary reads");
        let answer = connection.read_head();
        assert_eq!(answer.status, 200);
        (connection, answer)
    };
    let ((mut first, mut answer), second) = (begin(), begin());
    scene.ask(&target).assert_limited();
    first.read_rest("GET", &mut answer);
    assert!(parts(&answer).body == body);
    common::wait_until("the place is free again", || scene.ask(&target).status == 200);
    drop(second);
}

/// FLD-27
#[test]
fn head_is_signed_as_head() {
    let scene = Scene::new();
    let target = format!("{DOWNLOAD}/{}", scene.upload("text/plain", b"hello"));
    for (method, status) in [("HEAD", 200), ("GET", 401)] {
        let signed = scene.origin.authorization(SERVER_NAME, method, &target);
        let answer =
            scene.mediary.client().request("HEAD", &target, &[("Authorization", &signed)], b"");
        assert_eq!(answer.status, status, "signed as {method}");
    }
}
