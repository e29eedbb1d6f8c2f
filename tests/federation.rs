//! Other servers: the homeserver judges who asks, Mediary answers with what is its own (checklist
//! section 11, FLD-01 to FLD-05).

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::fake::{Received, SERVER_NAME, respond, respond_with};
use common::federation::{DOWNLOAD, THUMBNAIL, id, parts};
use common::http::Answer;
use common::samples::{bytes, png};
use common::{Client, FakeHomeserver, Mediary, ServerKey, Settings, Synapse};

/// What a server writes that has signed; only the homeserver can tell whether it is true.
const SIGNED: &str =
    r#"X-Matrix origin="a.example",destination="fake.example",key="ed25519:1",sig="abc+/""#;

fn ask(client: &Client, target: &str) -> Answer {
    client.get_with(target, &[("Authorization", SIGNED)])
}

fn start(homeserver: &FakeHomeserver) -> (Mediary, Client) {
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.client();
    (mediary, client)
}

/// A homeserver that says this to every request for media of other servers.
fn judging(
    script: impl Fn(&Received, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| {
        request.target().starts_with("/_matrix/federation/").then(|| script(request, stream))
    })
}

/// FM-S-01, FLD-24
#[test]
fn an_unsigned_request_is_refused_and_goes_nowhere() {
    let homeserver = FakeHomeserver::start();
    let (mediary, client) = start(&homeserver);
    let media = mediary.alice().upload("text/plain", None, b"hello");
    for target in [
        format!("{DOWNLOAD}/{}", id(&media)),
        format!("{THUMBNAIL}/{}?width=32&height=32", id(&media)),
        format!("{THUMBNAIL}/{}", id(&media)),
        format!("{DOWNLOAD}/nothing"),
    ] {
        client.get(&target).assert_error(401, "M_UNAUTHORIZED");
    }
    assert!(homeserver.received_for("/federation/").is_empty());
}

/// XM-13
#[test]
fn routes_that_are_none_and_methods_that_are_not_theirs_are_named_so() {
    let homeserver = FakeHomeserver::start();
    let (_mediary, client) = start(&homeserver);
    for target in ["/_matrix/federation/v1/media/upload/abc", "/_matrix/federation/v1/media"] {
        ask(&client, target).assert_error(404, "M_UNRECOGNIZED");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let fields = [("Authorization", SIGNED)];
        let answer = client.request(method, &format!("{DOWNLOAD}/abc"), &fields, b"");
        answer.assert_error(405, "M_UNRECOGNIZED");
    }
    assert!(homeserver.received_for("/federation/").is_empty());
}

/// FM-S-03, FM-S-04, FM-S-05, FLD-01, FLD-02, FLD-03, FLD-04
#[test]
fn what_was_uploaded_is_served_in_two_parts() {
    let homeserver = FakeHomeserver::start();
    let (mediary, client) = start(&homeserver);
    for (content_type, name, disposition) in [
        ("image/png", Some("cat.png"), "inline; filename=cat.png"),
        ("text/html", Some("my%20%D0%BA.html"), "attachment; filename*=utf-8''my%20%D0%BA.html"),
        ("img/png;a=\"b c\"", None, "attachment"),
    ] {
        for size in [0, 1, 10_000, 700_001] {
            let media = mediary.alice().upload(content_type, name, &bytes(size));
            for prefix in [
                "/_matrix/federation/v1/media",
                "/_matrix/federation/unstable/org.matrix.msc3916.v2/media",
            ] {
                let answer = ask(&client, &format!("{prefix}/download/{}", id(&media)));
                let part = parts(&answer);
                assert_eq!(part.content_type, content_type, "{size}");
                assert_eq!(part.disposition, disposition, "{size}");
                assert!(part.body == bytes(size), "{size} bytes came back different");
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
                assert_eq!(answer.header("cache-control"), Some("no-store"));
            }
        }
    }
}

/// FM-S-03, FLD-01, FLD-02
#[test]
fn a_body_that_holds_line_ends_and_boundaries_comes_back_as_it_is() {
    let homeserver = FakeHomeserver::start();
    let (mediary, client) = start(&homeserver);
    for hostile in [&b"\r\n"[..], b"\r\n--mediary--\r\n", b"--", b"\r\n\r\n{}\r\n--"] {
        let media = mediary.alice().upload("text/plain", None, hostile);
        let part = parts(&ask(&client, &format!("{DOWNLOAD}/{}", id(&media))));
        assert_eq!(part.body, hostile);
    }
    // The boundary of an earlier answer is no boundary of the next.
    let first = mediary.alice().upload("text/plain", None, b"one");
    let answer = ask(&client, &format!("{DOWNLOAD}/{}", id(&first)));
    let second = mediary.alice().upload("text/plain", None, &answer.body);
    let part = parts(&ask(&client, &format!("{DOWNLOAD}/{}", id(&second))));
    assert_eq!(part.body, answer.body);
}

/// FM-S-11, FM-S-12, FLD-10, FLD-32
#[test]
fn a_thumbnail_is_the_one_that_clients_get() {
    let homeserver = FakeHomeserver::start();
    let (mediary, client) = start(&homeserver);
    let media = mediary.alice().upload("text/plain", Some("a.txt"), &png(400, 300));
    for query in ["width=32&height=32&method=crop", "width=320&height=240", "width=9999&height=9"] {
        let part = parts(&ask(&client, &format!("{THUMBNAIL}/{}?{query}", id(&media))));
        let path = format!("/_matrix/client/v1/media/thumbnail/{media}?{query}");
        let own = mediary.alice().get(&path);
        assert!(part.body == own.body, "{query}");
        assert_eq!(Some(part.content_type.as_str()), own.header("content-type"), "{query}");
        assert_eq!(Some(part.disposition.as_str()), own.header("content-disposition"), "{query}");
    }
}

/// FM-S-15
#[test]
fn whoever_asks_for_a_part_gets_the_whole() {
    let homeserver = FakeHomeserver::start();
    let (mediary, client) = start(&homeserver);
    for size in [10_000, 700_001] {
        let media = mediary.alice().upload("video/mp4", None, &bytes(size));
        let fields = [("Authorization", SIGNED), ("Range", "bytes=0-9"), ("If-None-Match", "*")];
        let answer = client.get_with(&format!("{DOWNLOAD}/{}", id(&media)), &fields);
        assert!(parts(&answer).body == bytes(size), "{size}");
        assert_eq!(answer.header("accept-ranges"), None);
    }
}

/// FM-S-16, CS-DL-04, CS-FRZ-01
#[test]
fn an_old_server_gets_what_is_older_than_the_freeze() {
    let homeserver = FakeHomeserver::start();
    for (frozen_since, is_shown) in
        [("2999-01-01T00:00:00Z", true), ("2001-01-01T00:00:00Z", false)]
    {
        let settings = format!("[legacy]\nfrozen_since = {frozen_since}");
        let mediary = Settings::new(&homeserver.url).with(&settings).start();
        let media = mediary.alice().upload("text/plain", None, b"hello");
        for version in ["v3", "r0"] {
            let target = format!("/_matrix/media/{version}/download/{media}?allow_remote=false");
            let answer = mediary.client().get(&target);
            match is_shown {
                true => answer.assert_whole(b"hello"),
                false => answer.assert_error(404, "M_NOT_FOUND"),
            }
        }
    }
}

/// FM-S-10, FM-S-11, CS-TH-01, CS-TH-12
#[test]
fn a_thumbnail_that_cannot_be_made_is_a_plain_error() {
    let homeserver = FakeHomeserver::start();
    let (mediary, client) = start(&homeserver);
    let picture = mediary.alice().upload("image/png", None, &png(10, 10));
    let text = mediary.alice().upload("text/plain", None, b"hello");
    for (media, query, errcode) in [
        (&text, "width=32&height=32", "M_UNKNOWN"),
        (&picture, "width=32", "M_MISSING_PARAM"),
        (&picture, "width=0&height=32", "M_UNKNOWN"),
        (&picture, "width=32&height=32&method=fit", "M_UNKNOWN"),
    ] {
        let answer = ask(&client, &format!("{THUMBNAIL}/{}?{query}", id(media)));
        answer.assert_error(400, errcode);
    }
}

/// FM-S-09, FLD-25
#[test]
fn the_target_and_the_signature_reach_the_homeserver_byte_for_byte() {
    let homeserver = FakeHomeserver::start();
    let (_mediary, client) = start(&homeserver);
    for target in [
        "/_matrix/federation/v1/media/download/abc?timeout_ms=20000",
        "/_matrix/federation/v1/media/download/%61bc?x=%7e%2F+a&&=~!*'()",
        "/_matrix/federation/v1/media/download/abc?",
        "/_matrix/federation/v1/media/thumbnail/abc?height=32&width=32&&method=cro%70",
        "/_matrix/federation/unstable/org.matrix.msc3916.v2/media/download/abc",
    ] {
        ask(&client, target).assert_error(404, "M_NOT_FOUND");
        let signed: Vec<_> = homeserver
            .received()
            .into_iter()
            .filter(|request| request.header("authorization") == Some(SIGNED))
            .collect();
        let last = signed.last().expect("the request was re-issued");
        assert_eq!((last.method.as_str(), last.target().as_str()), ("GET", target));
        assert!(last.body.is_empty());
    }
    // Whether unsigned requests are refused is asked once for each route.
    let probes = homeserver.received_for("/mediaryprobe");
    let mut routes: Vec<_> = probes.iter().map(Received::target).collect();
    routes.sort();
    routes.dedup();
    assert_eq!((probes.len(), routes.len()), (3, 3), "{routes:?}");
    assert!(probes.iter().all(|probe| probe.header("authorization").is_none()));
}

/// Fields that a homeserver may take for `evil.example`'s while another reader takes them for a permitted
/// server's or for none.
fn fields_that_are_read_in_two_ways(target: &str) -> Vec<(&'static str, Vec<String>)> {
    let key = ServerKey::new("k");
    let signed = |origin: &str| key.authorization(origin, SERVER_NAME, "GET", target);
    let (evil, good) = (signed("evil.example"), signed("good.example"));
    let (_, sig) = evil.split_once(",sig=\"").expect("a signature");
    let hidden = format!(
        "{good},x=\"y,origin=evil.example,key=ed25519:k,sig={},z=\"",
        sig.trim_end_matches('"')
    );
    vec![
        ("a token first", vec!["Bearer x".to_owned(), evil.clone()]),
        ("a token last", vec![evil.clone(), "Bearer x".to_owned()]),
        ("an odd key id", vec![evil.replace("ed25519:k", "ed25519:a-b")]),
        ("another algorithm", vec![evil.replace("ed25519:k", "rsa:k")]),
        ("nine fields", vec![evil.clone(); 9]),
        ("a long field", vec![format!("{evil},x=\"{}\"", "y".repeat(4096))]),
        ("many parameters", vec![evil.clone() + &",x=y".repeat(20)]),
        ("two origins", vec![format!("{good},origin=\"evil.example\"")]),
        ("two origins in other letters", vec![format!("{good},ORIGIN=\"evil.example\"")]),
        ("a field of each", vec![good, evil.clone()]),
        ("a broken end", vec![format!("{evil},\"x")]),
        ("hidden in quotes", vec![hidden]),
    ]
}

fn with_lists(homeserver: &FakeHomeserver, lists: &str) -> Mediary {
    Settings::new(&homeserver.url).with(&format!("[federation]\n{lists}")).start()
}

fn authorizations(request: &Received) -> Vec<&str> {
    let is_it = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("authorization");
    request.headers.iter().filter(is_it).map(|(_, value)| value.as_str()).collect()
}

/// FM-S-13
#[test]
fn a_denied_server_cannot_hide_behind_fields_that_the_homeserver_reads_otherwise() {
    let target = format!("{DOWNLOAD}/abc");
    for lists in ["deny_servers = [\"evil.*\"]", "allow_servers = [\"good.example\"]"] {
        let homeserver = FakeHomeserver::start();
        let mediary = with_lists(&homeserver, lists);
        for (what, fields) in fields_that_are_read_in_two_ways(&target) {
            let fields: Vec<_> = fields.iter().map(|it| ("Authorization", it.as_str())).collect();
            let answer = mediary.client().get_with(&target, &fields);
            let sent = homeserver.received_for(&target);
            let of_evil = |field: &&str| field.contains("evil");
            let of_evil: Vec<_> = sent.iter().flat_map(authorizations).filter(of_evil).collect();
            assert!(of_evil.is_empty(), "{lists}, {what}: {answer:?}\n{of_evil:?}");
            let is_refused = matches!(answer.status, 401 | 403);
            assert!(is_refused || what == "hidden in quotes", "{lists}, {what}: {answer:?}");
        }
    }
}

/// FM-S-13, XM-07
#[test]
fn with_lists_of_servers_the_homeserver_is_sent_what_mediary_has_read_and_nothing_else() {
    let homeserver = FakeHomeserver::start();
    let mediary = with_lists(&homeserver, "deny_servers = [\"evil.example\"]");
    let target = format!("{DOWNLOAD}/abc");
    let keys = ["1", "2"].map(ServerKey::new);
    let signed =
        keys.each_ref().map(|key| key.authorization("a.example", SERVER_NAME, "GET", &target));
    let [first, second] = &signed;
    let odd =
        first.replace("X-Matrix ", "x-MATRIX   ").replace(',', " ,\t").replace("sig=", "SIG=");
    let more = format!("{second},x=\"y,origin=b.example\",version=2");
    let fields = [("Authorization", odd.as_str()), ("Authorization", more.as_str())];
    mediary.client().get_with(&target, &fields).assert_error(404, "M_NOT_FOUND");
    let sent = homeserver.received_for(&target);
    assert_eq!(sent.len(), 1);
    assert_eq!(authorizations(&sent[0]), signed);
}

/// FM-S-01, XM-07
#[test]
fn without_lists_of_servers_every_field_reaches_the_homeserver_as_it_is() {
    let homeserver = FakeHomeserver::start();
    let (_mediary, client) = start(&homeserver);
    let target = format!("{DOWNLOAD}/abc");
    for (number, (what, fields)) in
        fields_that_are_read_in_two_ways(&target).into_iter().enumerate()
    {
        let headers: Vec<_> = fields.iter().map(|it| ("Authorization", it.as_str())).collect();
        client.get_with(&target, &headers).assert_error(404, "M_NOT_FOUND");
        let sent = homeserver.received_for(&target);
        assert_eq!(sent.len(), number + 1, "{what}");
        assert_eq!(authorizations(&sent[number]), fields, "{what}");
    }
}

#[test]
fn media_of_the_homeserver_itself_is_relayed() {
    let whole = "\r\n--abc\r\nContent-Type: application/json\r\n\r\n{}\r\n--abc\r\nContent-Type: \
                 text/plain\r\n\r\nhello\r\n--abc--\r\n";
    let homeserver = judging(move |_, stream| {
        let content_type = [("Content-Type", "multipart/mixed; boundary=abc")];
        respond_with(stream, 200, &content_type, whole.as_bytes())
    });
    let (mediary, client) = start(&homeserver);
    for target in [format!("{DOWNLOAD}/abc"), format!("{THUMBNAIL}/abc?width=1&height=1")] {
        let answer = ask(&client, &target);
        assert_eq!((answer.status, answer.text().as_str()), (200, whole));
        assert_eq!(answer.header("content-type"), Some("multipart/mixed; boundary=abc"));
        assert_eq!(answer.header("content-length"), Some(whole.len().to_string().as_str()));
    }
    assert!(mediary.blobs().is_empty());
}

#[test]
fn a_relayed_answer_that_breaks_off_looks_incomplete() {
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let homeserver = judging(move |_, stream| {
            let content_type = "Content-Type: multipart/mixed; boundary=abc";
            let head = format!("HTTP/1.1 200 OK\r\n{content_type}\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("Mediary reads the head");
            stream.write_all(b"5\r\n\r\n--a\r\n").expect("Mediary reads the body");
            false
        });
        let (_mediary, client) = start(&homeserver);
        let answer = ask(&client, &format!("{DOWNLOAD}/abc"));
        assert!(!answer.complete, "{framing}: {answer:?}");
    }
}

/// FM-S-01, FM-S-08, FM-S-10, XM-08
#[test]
fn what_the_homeserver_refuses_is_refused_in_its_words() {
    for (status, errcode, body) in [
        (
            401,
            "M_UNAUTHORIZED",
            r#"{"errcode":"M_UNAUTHORIZED","error":"Invalid signature","x":1}"#,
        ),
        (400, "M_UNAUTHORIZED", r#"{"errcode":"M_UNAUTHORIZED","error":"Malformed header"}"#),
        (403, "M_FORBIDDEN", r#"{"errcode":"M_FORBIDDEN","error":"Invalid X-Matrix signatures."}"#),
        (429, "M_LIMIT_EXCEEDED", r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x"}"#),
        (404, "M_UNRECOGNIZED", r#"{"errcode":"M_UNRECOGNIZED","error":"No federation here"}"#),
        (504, "M_NOT_YET_UPLOADED", r#"{"errcode":"M_NOT_YET_UPLOADED","error":"x"}"#),
        (502, "M_TOO_LARGE", r#"{"errcode":"M_TOO_LARGE","error":"x"}"#),
    ] {
        let homeserver = judging(move |_, stream| respond(stream, status, body));
        let (mediary, client) = start(&homeserver);
        let media = mediary.alice().upload("text/plain", None, b"hello");
        let answer = ask(&client, &format!("{DOWNLOAD}/{}", id(&media)));
        answer.assert_error(status, errcode);
        assert_eq!(answer.text(), body);
    }
}

/// FM-S-01, FM-S-07, FLD-06
#[test]
fn a_homeserver_that_cannot_judge_lets_nobody_in() {
    for (status, answer, content_type, body) in [
        (500, 502, "text/plain", ""),
        (500, 502, "application/json", r#"{"errcode":"M_NOT_FOUND","error":"x"}"#),
        (503, 502, "application/json", r#"{"errcode":"M_UNKNOWN","error":"x"}"#),
        (504, 504, "text/html", "<html>"),
        (404, 502, "text/html", "<html>"),
        (302, 502, "text/plain", ""),
        (307, 502, "text/plain", ""),
        (308, 502, "text/plain", ""),
        // Only the form that the specification asks for is taken for media (FLD-06).
        (200, 502, "image/png", "hello"),
        (200, 502, "application/json", "{}"),
    ] {
        let homeserver = judging(move |_, stream| {
            respond_with(stream, status, &[("Content-Type", content_type)], body.as_bytes())
        });
        let (mediary, client) = start(&homeserver);
        let media = mediary.alice().upload("text/plain", None, b"hello");
        let refused = ask(&client, &format!("{DOWNLOAD}/{}", id(&media)));
        refused.assert_error(answer, "M_UNKNOWN");
    }
}

#[test]
fn a_homeserver_that_finds_nothing_for_unsigned_requests_either_is_no_judge() {
    let nothing = r#"{"errcode":"M_NOT_FOUND","error":"Not found"}"#;
    let homeserver = judging(move |_, stream| respond(stream, 404, nothing));
    let (mediary, client) = start(&homeserver);
    let media = mediary.alice().upload("image/png", None, &png(10, 10));
    for _ in 0..2 {
        let answer = ask(&client, &format!("{DOWNLOAD}/{}", id(&media)));
        answer.assert_error(404, "M_NOT_FOUND");
        let thumbnail = format!("{THUMBNAIL}/{}?width=32&height=32", id(&media));
        ask(&client, &thumbnail).assert_error(404, "M_NOT_FOUND");
    }
    assert_eq!(homeserver.received_for("/download/mediaryprobe").len(), 1);
    assert_eq!(homeserver.received_for("/thumbnail/mediaryprobe").len(), 1);
}

/// FM-S-02, FM-S-09
#[test]
fn what_is_only_cached_is_never_handed_to_other_servers() {
    let homeserver = FakeHomeserver::with(|request, stream| {
        let is_download = request.target().starts_with("/_matrix/client/v1/media/download/");
        let content_type = [("Content-Type", "image/png")];
        is_download.then(|| respond_with(stream, 200, &content_type, &png(10, 10)))
    });
    let (mediary, client) = start(&homeserver);
    for media in ["fake.example/cached", "other.example/cached"] {
        assert_eq!(mediary.alice().download(media).status, 200, "{media}");
        ask(&client, &format!("{DOWNLOAD}/cached")).assert_error(404, "M_NOT_FOUND");
        let thumbnail = format!("{THUMBNAIL}/cached?width=32&height=32");
        ask(&client, &thumbnail).assert_error(404, "M_NOT_FOUND");
    }
    // Nor is anything fetched for them.
    ask(&client, &format!("{DOWNLOAD}/another")).assert_error(404, "M_NOT_FOUND");
    assert!(homeserver.received_for("another").iter().all(|r| r.target().starts_with(DOWNLOAD)));
}

/// Returns the `Authorization` with which a Synapse asks itself (XM-01, XM-04).
fn signed_by(synapse: &Synapse, target: &str) -> String {
    let line = synapse.signing_key().expect("this test has started the Synapse");
    let name = &synapse.server_name;
    ServerKey::of_line(&line).authorization(name, name, "GET", target)
}

fn ask_signed(synapse: &Synapse, mediary: &Mediary, target: &str) -> Answer {
    mediary.client().get_with(target, &[("Authorization", &signed_by(synapse, target))])
}

/// FM-S-01, XM-01
#[test]
fn synapse_judges_signatures_for_what_mediary_owns() {
    let synapse = Synapse::start();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = mediary.client_of(&synapse.user());
    let picture = png(400, 300);
    let media = user.upload("image/png", Some("a.png"), &picture);
    let download = format!("{DOWNLOAD}/{}?timeout_ms=20000", id(&media));
    let thumbnail = format!("{THUMBNAIL}/{}?width=32&height=32&method=crop", id(&media));

    let part = parts(&ask_signed(&synapse, &mediary, &download));
    assert_eq!(part.content_type, "image/png");
    assert_eq!(part.disposition, "inline; filename=a.png");
    assert!(part.body == picture);
    let part = parts(&ask_signed(&synapse, &mediary, &thumbnail));
    let path = format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&method=crop");
    assert!(part.body == user.get(&path).body);

    // A signature for another request, and one that is none: Synapse's own words.
    let other = signed_by(&synapse, &thumbnail);
    let torn = signed_by(&synapse, &download).replace("sig=\"", "sig=\"A");
    for authorization in [other, torn] {
        let headers = [("Authorization", authorization.as_str())];
        let answer = mediary.client().get_with(&download, &headers);
        let own = synapse.client().get_with(&download, &headers);
        assert_eq!(own.status, 401, "{own:?}");
        answer.assert_error(401, "M_UNAUTHORIZED");
        assert_eq!(answer.json(), own.json());
    }
    let as_a_user = user.get(&download);
    assert_eq!(as_a_user.status, synapse.client_of(&synapse.user()).get(&download).status);
    assert_ne!(as_a_user.status, 200);

    ask_signed(&synapse, &mediary, &format!("{DOWNLOAD}/nothing")).assert_error(404, "M_NOT_FOUND");
}

#[test]
fn what_synapse_holds_itself_is_relayed_from_it() {
    let synapse = Synapse::start();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let media = synapse.client_of(&user).upload("video/mp4", None, &bytes(700_001));
    let target = format!("{DOWNLOAD}/{}", id(&media));
    let answer = ask_signed(&synapse, &mediary, &target);
    assert_eq!((answer.status, answer.complete), (200, true));
    assert!(answer.body.windows(700_001).any(|window| window == bytes(700_001)));
    // Kept for our own users, it is still Synapse's to hand out.
    assert_eq!(mediary.client_of(&user).download(&media).status, 200);
    assert_eq!(ask_signed(&synapse, &mediary, &target).status, 200);
}
