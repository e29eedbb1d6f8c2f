//! Media of other servers, fetched from them with a signing key: kept, shared, followed while it
//! arrives, and refused in the right words (checklist section 11, threats FE and RX-09).

mod common;

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Barrier, Mutex};
use std::thread;

use common::fake::{FakeHomeserver, Received, TOKEN, respond, respond_with};
use common::http::{Answer, Connection};
use common::origin::{TlsStream, multipart, respond_multipart};
use common::samples::{bytes, png};
use common::{Authority, Mediary, Origin, ServerKey, Settings, free_port, wait_until};

const NOT_FOUND: &str = r#"{"errcode":"M_NOT_FOUND","error":"Not found"}"#;

/// Starts Mediary with a key, in front of a homeserver, with more lines of `[federation]`.
fn start(homeserver: &FakeHomeserver, authority: &Authority, more: &[&str]) -> Mediary {
    Settings::new(&homeserver.url).with_signing_key(authority, more).start()
}

/// A homeserver that has a copy of every file, and one that has none.
fn with_copies(body: &'static [u8]) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| {
        let is_media = request.target().contains("/media/download/");
        is_media.then(|| respond_with(stream, 200, &[("Content-Type", "text/plain")], body))
    })
}

fn asked_for_media(homeserver: &FakeHomeserver) -> Vec<Received> {
    homeserver.received_for("/download/")
}

/// FM-C-01, FM-C-02, FM-C-11
#[test]
fn media_is_fetched_from_the_server_that_made_it_and_kept() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let origin = Origin::start(&authority);
    let mediary = start(&homeserver, &authority, &[]);
    for (id, size) in [("empty", 0), ("one", 1), ("small", 10_000), ("large", 3_000_001)] {
        let media = origin.keep(id, "video/mp4", Some("a.mp4"), &bytes(size));
        for _ in 0..2 {
            let answer = mediary.alice().download(&media);
            answer.assert_whole(&bytes(size));
            assert_eq!(answer.header("content-type"), Some("video/mp4"));
            assert_eq!(
                answer.header("content-disposition"),
                Some("inline; filename=a.mp4"),
                "{id}"
            );
        }
        assert_eq!(origin.received_for(&format!("/download/{id}")).len(), 1, "{id}");
    }
    assert!(asked_for_media(&homeserver).is_empty());
    assert_eq!(mediary.metric("mediary_media_reads_total{source=\"server\"}"), 4.0);
    assert_eq!(mediary.metric("mediary_remote_fetches_total{result=\"ok\"}"), 4.0);
}

/// FM-C-01, FLD-10
#[test]
fn a_thumbnail_of_remote_media_is_made_of_the_original_that_is_fetched_once() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let origin = Origin::start(&authority);
    let mediary = start(&homeserver, &authority, &[]);
    let media = origin.keep("picture", "image/png", None, &png(400, 300));
    let answer = mediary.alice().thumbnail(&media);
    assert_eq!((answer.status, answer.complete), (200, true), "{answer:?}");
    mediary.alice().download(&media).assert_whole(&png(400, 300));
    assert_eq!(origin.received_for("/media/").len(), 1);
}

/// FM-C-11
#[test]
fn without_a_key_nobody_but_the_homeserver_is_contacted() {
    let authority = Authority::new();
    let homeserver = with_copies(b"copy");
    let origin = Origin::start(&authority);
    let media = origin.keep("a", "text/plain", None, b"original");
    let mediary = Settings::new(&homeserver.url).with_federation(&authority, &[]).start();
    mediary.alice().download(&media).assert_whole(b"copy");
    assert_eq!(origin.connections(), 0);
}

/// An origin whose answer the test writes piece by piece.
fn in_pieces(authority: &Authority) -> (Origin, Sender<Vec<u8>>) {
    let (pieces, taken): (_, Receiver<Vec<u8>>) = channel();
    let taken = Mutex::new(taken);
    let origin = Origin::with(authority, move |request, stream| {
        request.target().contains("/media/download/").then(|| {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=ofTwoParts\r\n\
                         Transfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head).expect("Mediary reads the head");
            for piece in taken.lock().expect("the pieces").iter() {
                let is_last = piece.is_empty();
                let _ = stream.write_all(&common::http::chunk(&piece));
                let _ = stream.flush();
                if is_last {
                    return true;
                }
            }
            false
        })
    });
    (origin, pieces)
}

/// Parts an answer before its last bytes.
fn split(body: &[u8], first: usize) -> (Vec<u8>, Vec<u8>) {
    let whole = multipart("text/plain", None, body);
    let begin = whole.windows(body.len()).position(|window| window == body).expect("the body");
    (whole[..begin + first].to_vec(), whole[begin + first..].to_vec())
}

/// Asks for media as Alice and reads the first bytes of the answer.
fn begin_download(mediary: &Mediary, media: &str) -> (Connection, Answer) {
    let mut connection = mediary.client().connect();
    let target = format!("/_matrix/client/v1/media/download/{media}");
    let token = format!("Authorization: Bearer {TOKEN}");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{token}\r\n\r\n").as_bytes());
    let mut answer = connection.read_head();
    connection.read_up_to(500, &mut answer);
    (connection, answer)
}

/// FM-C-01
#[test]
fn the_first_bytes_reach_the_reader_while_the_rest_is_still_to_come() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let (origin, pieces) = in_pieces(&authority);
    let mediary = start(&homeserver, &authority, &[]);
    let body = bytes(100_000);
    let (first, rest) = split(&body, 1_000);
    pieces.send(first).expect("the origin waits");
    let media = format!("{}/slow", origin.server_name());
    let (mut connection, mut answer) = begin_download(&mediary, &media);
    assert!(answer.body.len() >= 500 && body.starts_with(&answer.body));
    pieces.send(rest).expect("the origin waits");
    pieces.send(Vec::new()).expect("the origin waits");
    connection.read_rest("GET", &mut answer);
    answer.assert_whole(&body);
}

/// RX-09
#[test]
fn a_hundred_readers_of_one_file_are_one_request() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let (origin, pieces) = in_pieces(&authority);
    let mediary = start(&homeserver, &authority, &[]);
    let body = bytes(500_000);
    let (first, rest) = split(&body, 10);
    pieces.send(first).expect("the origin waits");
    let media = format!("{}/crowd", origin.server_name());
    let all_ask = Barrier::new(101);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                all_ask.wait();
                mediary.alice().download(&media).assert_whole(&body);
            });
        }
        all_ask.wait();
        pieces.send(rest).expect("the origin waits");
        pieces.send(Vec::new()).expect("the origin waits");
    });
    assert_eq!(origin.received_for("/download/crowd").len(), 1);
}

/// FE-11
#[test]
fn a_file_that_breaks_off_is_not_kept_and_does_not_look_whole() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let (break_off, broken): (Sender<()>, Receiver<()>) = channel();
    let broken = Mutex::new(broken);
    let origin = Origin::with(&authority, move |request, stream: &mut TlsStream| {
        if !request.target().contains("/media/download/") {
            return None;
        }
        let whole = multipart("text/plain", None, &bytes(50_000));
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=ofTwoParts\r\n\
             Content-Length: {}\r\n\r\n",
            whole.len()
        );
        // Who breaks off once does so when the reader has the beginning, and then answers well.
        let broken = broken.lock().expect("the word");
        let begin = [head.as_bytes(), &whole[..30_000]].concat();
        let _ = stream.write_all(&begin).and_then(|()| stream.flush());
        match broken.recv() {
            Ok(()) => Some(false),
            Err(_) => Some(stream.write_all(&whole[30_000..]).is_ok()),
        }
    });
    let mediary = start(&homeserver, &authority, &["ask_homeserver = false"]);
    let media = format!("{}/broken", origin.server_name());
    let (mut connection, mut answer) = begin_download(&mediary, &media);
    break_off.send(()).expect("the origin waits");
    connection.read_rest("GET", &mut answer);
    assert!(answer.status == 200 && !answer.complete, "{answer:?}");
    mediary.assert_nothing_kept();
    // It is let alone for a moment, and then asked again.
    drop(break_off);
    wait_until("it can be had again", || {
        let answer = mediary.alice().download(&media);
        answer.status == 200 && answer.complete && answer.body == bytes(50_000)
    });
}

/// CS-DL-13, CS-LIM-03, FE-11
#[test]
fn a_file_larger_than_allowed_is_502_too_large_and_nothing_stays_of_it() {
    let authority = Authority::new();
    let homeserver = with_copies(b"copy");
    let origin = Origin::start(&authority);
    let settings = Settings::new(&homeserver.url).with("[remote]\nmax_size = \"10 KiB\"");
    let mediary = settings.with_signing_key(&authority, &[]).start();
    let media = origin.keep("large", "text/plain", None, &bytes(100_000));
    mediary.alice().download(&media).assert_error(502, "M_TOO_LARGE");
    mediary.assert_nothing_kept();
    assert!(asked_for_media(&homeserver).is_empty(), "the homeserver's copy is as large");
}

/// CS-DL-10
#[test]
fn what_a_server_says_of_its_media_is_told_in_the_specifications_words() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    for (status, body, told, errcode) in [
        (404, NOT_FOUND, 404, "M_NOT_FOUND"),
        (504, r#"{"errcode":"M_NOT_YET_UPLOADED","error":"x"}"#, 504, "M_NOT_YET_UPLOADED"),
        (502, r#"{"errcode":"M_TOO_LARGE","error":"x"}"#, 502, "M_TOO_LARGE"),
        (401, r#"{"errcode":"M_UNAUTHORIZED","error":"x"}"#, 502, "M_UNKNOWN"),
        (403, r#"{"errcode":"M_FORBIDDEN","error":"x"}"#, 502, "M_UNKNOWN"),
        (500, r#"{"errcode":"M_UNKNOWN","error":"x"}"#, 502, "M_UNKNOWN"),
        (429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x"}"#, 502, "M_UNKNOWN"),
    ] {
        let origin = Origin::with(&authority, move |request, stream| {
            let is_media = request.target().contains("/media/download/");
            is_media.then(|| respond(stream, status, body))
        });
        let mediary = start(&homeserver, &authority, &[]);
        let media = format!("{}/x", origin.server_name());
        let answer = mediary.alice().download(&format!("{media}?timeout_ms=0"));
        answer.assert_error(told, errcode);
    }
}

#[test]
fn the_homeservers_copy_is_served_where_the_other_server_gives_none() {
    let authority = Authority::new();
    let homeserver = with_copies(b"copy");
    let origin = Origin::start(&authority);
    let mediary = start(&homeserver, &authority, &[]);
    // One that says that it has nothing, one that nobody listens for, one that does not resolve.
    let gone = free_port();
    for media in [
        format!("{}/nothing", origin.server_name()),
        format!("127.0.0.1:{gone}/x"),
        "no-such-server.invalid/x".to_owned(),
    ] {
        mediary.alice().download(&media).assert_whole(b"copy");
    }
    assert_eq!(asked_for_media(&homeserver).len(), 3);

    let mediary = start(&homeserver, &authority, &["ask_homeserver = false"]);
    let nothing = format!("{}/nothing", origin.server_name());
    mediary.alice().download(&nothing).assert_error(404, "M_NOT_FOUND");
    mediary.alice().download(&format!("127.0.0.1:{gone}/x")).assert_error(502, "M_UNKNOWN");
    assert_eq!(asked_for_media(&homeserver).len(), 3);
}

#[test]
fn what_is_not_there_is_remembered_for_a_moment() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let origin = Origin::start(&authority);
    let mediary = start(&homeserver, &authority, &[]);
    let media = format!("{}/nothing", origin.server_name());
    for _ in 0..5 {
        mediary.alice().download(&media).assert_error(404, "M_NOT_FOUND");
        mediary.bob().download(&media).assert_error(404, "M_NOT_FOUND");
    }
    assert_eq!(origin.received_for("/download/nothing").len(), 1);
}

/// SS-10
#[test]
fn a_server_at_an_address_that_is_not_public_is_not_contacted() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let origin = Origin::start(&authority);
    let settings = Settings::new(&homeserver.url);
    let key = settings.signing_key(&ServerKey::new("ours").line());
    let mediary = settings.with(&format!("[federation]\n{key}")).start();
    let port = origin.port();
    for server in
        [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")]
    {
        mediary.alice().download(&format!("{server}/x")).assert_error(502, "M_UNKNOWN");
    }
    assert_eq!(origin.connections(), 0);
    mediary.wait_for_log("not public");
}

/// FM-S-13
#[test]
fn media_of_a_denied_server_is_not_found_whoever_would_fetch_it() {
    let authority = Authority::new();
    let homeserver = with_copies(b"copy");
    let origin = Origin::start(&authority);
    let media = origin.keep("a", "text/plain", None, b"hello");
    for lists in [
        "deny_servers = [\"local*\"]",
        "allow_servers = [\"*.example\"]",
        "allow_servers = [\"localhost\"]\ndeny_servers = [\"LOCALHOST\"]",
    ] {
        let with_key = start(&homeserver, &authority, &[lists]);
        let without = Settings::new(&homeserver.url).with_federation(&authority, &[lists]).start();
        for mediary in [&with_key, &without] {
            mediary.alice().download(&media).assert_error(404, "M_NOT_FOUND");
            mediary.alice().thumbnail(&media).assert_error(404, "M_NOT_FOUND");
            // Our own media is ours, whatever the lists say.
            let own = mediary.alice().upload("text/plain", None, b"own");
            mediary.alice().download(&own).assert_whole(b"own");
        }
    }
    assert_eq!(origin.connections(), 0);
    assert!(asked_for_media(&homeserver).is_empty());
}

/// FM-S-13
#[test]
fn what_is_kept_of_a_server_that_is_denied_later_is_served_no_more() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let origin = Origin::start(&authority);
    let media = origin.keep("a", "text/plain", None, b"hello");
    let settings = Settings::new(&homeserver.url);
    let mediary = settings.clone().with_signing_key(&authority, &[]).start();
    mediary.alice().download(&media).assert_whole(b"hello");
    drop(mediary);
    let denied = "deny_servers = [\"localhost\"]";
    let mediary = settings.with_signing_key(&authority, &[denied]).start();
    mediary.alice().download(&media).assert_error(404, "M_NOT_FOUND");
}

/// CS-FRZ-06, AU-17
#[test]
fn nothing_is_fetched_for_whoever_bears_no_token_unless_the_legacy_routes_are_open() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let origin = Origin::start(&authority);
    let media = origin.keep("a", "text/plain", None, b"hello");
    let mediary = start(&homeserver, &authority, &[]);
    let legacy = format!("/_matrix/media/v3/download/{media}");
    mediary.client().get(&legacy).assert_error(404, "M_NOT_FOUND");
    assert_eq!(origin.connections(), 0);

    let settings = Settings::new(&homeserver.url).with("[legacy]\nmode = \"open\"");
    let mediary = settings.with_signing_key(&authority, &[]).start();
    let not_remote = format!("{legacy}?allow_remote=false");
    mediary.client().get(&not_remote).assert_error(404, "M_NOT_FOUND");
    assert_eq!(origin.connections(), 0);
    mediary.client().get(&legacy).assert_whole(b"hello");
}

/// CS-DL-08, FM-C-05
#[test]
fn a_wait_is_passed_on_and_signed_with_the_target() {
    let authority = Authority::new();
    let homeserver = FakeHomeserver::start();
    let origin = Origin::with(&authority, |request, stream| {
        let is_media = request.target().contains("/media/download/");
        is_media.then(|| respond_multipart(stream, "text/plain", None, b"hello"))
    });
    let settings = Settings::new(&homeserver.url);
    let ours = ServerKey::new("ours");
    let key = settings.signing_key(&ours.line());
    let mediary = settings.with_federation(&authority, &[&key]).start();
    let media = format!("{}/x", origin.server_name());
    mediary.alice().download(&format!("{media}?timeout_ms=1234")).assert_whole(b"hello");
    let asked = &origin.received_for("/download/x")[0];
    let target = "/_matrix/federation/v1/media/download/x?timeout_ms=1234";
    assert_eq!(asked.target(), target);
    let signed = ours.authorization("fake.example", &origin.server_name(), "GET", target);
    assert_eq!(asked.header("authorization"), Some(signed.as_str()));
}
