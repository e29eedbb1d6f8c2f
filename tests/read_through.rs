//! What Mediary does not hold is read through from the homeserver with the reader's own token, and
//! kept (checklist sections 6 and 9, CS-LIM-03).

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use common::fake::{Received, TOKEN, respond, respond_with};
use common::http::chunk;
use common::samples::{bytes, etag, png};
use common::{Client, FakeHomeserver, Mediary, Settings, Synapse, wait_until};
use image::GenericImageView;

/// A file of the homeserver's own users, one of another server's, and both.
const LOCAL: &str = "fake.example/local";
const REMOTE: &str = "other.example/remote";
const BOTH: [&str; 2] = [LOCAL, REMOTE];

/// A size that is kept in memory later on, and one that is read from disk.
const SIZES: [usize; 2] = [10_000, 700_001];

/// A homeserver that answers requests for media as the script says, and all others as ever.
fn homeserver(
    script: impl Fn(&Received, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| {
        request.target().contains("/media/").then(|| script(request, stream))
    })
}

fn serving(bytes: Vec<u8>) -> FakeHomeserver {
    homeserver(move |_, stream| respond_with(stream, 200, &[("Content-Type", "image/png")], &bytes))
}

fn answering(status: u16, headers: &'static [(&str, &str)], body: &'static str) -> FakeHomeserver {
    homeserver(move |_, stream| respond_with(stream, status, headers, body.as_bytes()))
}

/// Begins an answer whose body the test writes itself.
fn begin(stream: &mut TcpStream, framing: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("Mediary reads the head");
}

/// Mediary in front of a fake homeserver, and a client with the token that it knows.
fn start(homeserver: &FakeHomeserver) -> (Mediary, Client) {
    start_with(homeserver, "")
}

fn start_with(homeserver: &FakeHomeserver, settings: &str) -> (Mediary, Client) {
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let client = mediary.client().with_token(TOKEN);
    (mediary, client)
}

/// CS-DL-03, CS-HDR-01, CS-HDR-04
#[test]
fn media_of_synapse_is_served_byte_for_byte_with_its_type_and_name() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    for size in [0].into_iter().chain(SIZES) {
        for (content_type, name, disposition) in [
            ("video/mp4", Some("plain.mp4"), "inline; filename=plain.mp4"),
            ("image/png", Some("my%20%D0%BA.png"), "inline; filename*=utf-8''my%20%D0%BA.png"),
            ("application/pdf", None, "attachment"),
        ] {
            let media = synapse.client_of(&user).upload(content_type, name, &bytes(size));
            for time in ["first", "second"] {
                let answer = client.download(&media);
                assert_eq!((answer.status, answer.complete), (200, true), "{size} {time}");
                assert!(answer.body == bytes(size), "{size} {time}");
                assert_eq!(answer.header("content-type"), Some(content_type), "{time}");
                assert_eq!(answer.header("content-disposition"), Some(disposition), "{time}");
            }
            let etag = etag(&bytes(size));
            assert_eq!(client.download(&media).header("etag"), Some(etag.as_str()), "{size}");
        }
    }
}

#[test]
fn media_of_synapse_has_thumbnails() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let source = png(400, 300);
    let media = synapse.client_of(&user).upload("image/png", None, &source);
    let answer = mediary.client_of(&user).thumbnail(&media);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let image = image::load_from_memory(&answer.body).expect("thumbnails can be decoded");
    assert_eq!(image.dimensions(), (32, 32));
    assert!(mediary.client_of(&user).download(&media).body == source);
}

/// CS-DL-03, CS-HDR-05, FLD-30
#[test]
fn what_was_read_through_is_kept_and_served_when_the_homeserver_is_gone() {
    for size in SIZES {
        let gone = Arc::new(AtomicBool::new(false));
        let is_gone = gone.clone();
        let homeserver = FakeHomeserver::with(move |request, stream| {
            if is_gone.load(Ordering::SeqCst) {
                return Some(false);
            }
            let headers = [
                ("Content-Type", "text/html"),
                ("Content-Disposition", "inline; filename=\"a b\\\".html\""),
            ];
            let is_download = request.target().contains("/download/");
            is_download.then(|| respond_with(stream, 200, &headers, &bytes(size)))
        });
        let (mediary, client) = start(&homeserver);
        for media in BOTH {
            assert!(client.download(media).body == bytes(size), "{media}");
        }
        gone.store(true, Ordering::SeqCst);
        for media in BOTH {
            let answer = client.download(media);
            assert_eq!(answer.status, 200, "{media}");
            assert!(answer.body == bytes(size), "{media}");
            let etag = etag(&bytes(size));
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
            assert_eq!(answer.header("content-type"), Some("text/html"));
            let disposition = "attachment; filename*=utf-8''a%20b%22.html";
            assert_eq!(answer.header("content-disposition"), Some(disposition));
            let path = format!("/_matrix/client/v1/media/download/{media}");
            let part = client.get_with(&path, &[("Range", "bytes=5-9")]);
            assert_eq!((part.status, &part.body[..]), (206, &bytes(size)[5..10]));
            assert_eq!(client.get_with(&path, &[("If-None-Match", &etag)]).status, 304);
            assert_eq!(homeserver.received_for(media).len(), 1, "{media}");
        }
        let not_kept = client.download("fake.example/another");
        not_kept.assert_error(502, "M_UNKNOWN");
        assert_eq!(mediary.metric("mediary_media_reads_total{source=\"homeserver\"}"), 2.0);
    }
}

#[test]
fn what_was_read_through_survives_a_crash() {
    let homeserver = serving(bytes(SIZES[1]));
    let (mediary, client) = start(&homeserver);
    assert!(client.download(REMOTE).complete);
    let mediary = mediary.kill_and_restart();
    let client = mediary.client().with_token(TOKEN);
    assert!(client.download(REMOTE).body == bytes(SIZES[1]));
    assert_eq!(homeserver.received_for(REMOTE).len(), 1);
}

/// CS-HDR-08, CS-HDR-09
#[test]
fn the_first_answer_has_the_headers_that_keep_browsers_safe() {
    let homeserver = answering(200, &[("Content-Type", "text/html")], "<script>");
    let (_mediary, client) = start(&homeserver);
    let answer = client.download(REMOTE);
    assert_eq!((answer.status, answer.text().as_str()), (200, "<script>"));
    for (name, value) in [
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("access-control-allow-origin", "*"),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("content-length", "8"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("content-security-policy").is_some());
}

/// CS-HDR-01
#[test]
fn a_type_that_fits_no_header_or_none_becomes_an_octet_stream() {
    for headers in [&[][..], &[("Content-Type", "")], &[("Content-Type", "png")]] {
        let homeserver = answering(200, headers, "x");
        let (_mediary, client) = start(&homeserver);
        let answer = client.download(LOCAL);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("content-disposition"), Some("attachment"));
    }
}

#[test]
fn a_body_of_unknown_length_is_served_and_kept() {
    for size in [0].into_iter().chain(SIZES) {
        let homeserver = homeserver(move |_, stream| {
            begin(stream, "Transfer-Encoding: chunked");
            let chunks: Vec<u8> = bytes(size).chunks(5_000).flat_map(chunk).collect();
            stream.write_all(&[&chunks[..], b"0\r\n\r\n"].concat()).is_ok()
        });
        let (_mediary, client) = start(&homeserver);
        for _ in 0..2 {
            let answer = client.download(REMOTE);
            assert_eq!((answer.status, answer.complete), (200, true), "{size}");
            assert!(answer.body == bytes(size), "{size}");
        }
        assert_eq!(homeserver.received_for(REMOTE).len(), 1, "{size}");
        let etag = etag(&bytes(size));
        assert_eq!(client.download(REMOTE).header("etag"), Some(etag.as_str()));
    }
}

/// FLD-27
#[test]
fn head_of_what_is_not_held_has_no_body_and_sends_for_it() {
    let homeserver = serving(bytes(SIZES[1]));
    let (mediary, client) = start(&homeserver);
    let path = format!("/_matrix/client/v1/media/download/{REMOTE}");
    let head = client.request("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("700001"));
    assert_eq!(head.header("content-type"), Some("image/png"));
    wait_until("it is kept", || mediary.blobs().len() == 1);
    assert!(client.download(REMOTE).body == bytes(SIZES[1]));
    assert_eq!(homeserver.received_for(REMOTE).len(), 1);
}

/// CS-DL-05, FLD-21, FLD-30
#[test]
fn the_token_goes_up_in_the_header_and_never_in_a_query() {
    let homeserver = serving(b"x".to_vec());
    let (mediary, _) = start(&homeserver);
    let paths = BOTH.map(|media| format!("/_matrix/client/v1/media/download/{media}"));
    let anybody = mediary.client();
    for path in &paths {
        let target = format!("{path}?access_token={TOKEN}&allow_remote=false&user_id=%40a%3Ab");
        assert_eq!(anybody.get(&target).status, 200);
    }
    let asked = homeserver.received_for("/media/");
    let targets: Vec<_> = asked.iter().map(Received::target).collect();
    assert_eq!(targets, paths.map(|path| format!("{path}?timeout_ms=20000&user_id=%40a%3Ab")));
    for request in &asked {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
    }
    assert!(homeserver.received().iter().all(|request| !request.target().contains(TOKEN)));
}

/// CS-DL-02
#[test]
fn nobody_without_a_good_token_makes_the_homeserver_fetch() {
    let homeserver = serving(b"x".to_vec());
    let (mediary, _) = start(&homeserver);
    for media in BOTH {
        mediary.client().download(media).assert_error(401, "M_MISSING_TOKEN");
        let stranger = mediary.client().with_token("another");
        stranger.download(media).assert_error(401, "M_UNKNOWN_TOKEN");
        assert_eq!(stranger.thumbnail(media).status, 401);
    }
    assert!(homeserver.received_for("/media/").is_empty());
}

/// CS-DL-08, CS-DL-09, FLD-18
#[test]
fn a_wait_is_passed_on_and_capped_at_a_minute() {
    let homeserver = serving(b"x".to_vec());
    let (_mediary, client) = start(&homeserver);
    for (number, (query, passed_on)) in [
        ("", 20_000),
        ("?timeout_ms=0", 0),
        ("?timeout_ms=1234", 1_234),
        ("?timeout_ms=60001", 60_000),
        ("?timeout_ms=18446744073709551615", 60_000),
        ("?timeout_ms=-5", 20_000),
        ("?timeout_ms=soon", 20_000),
        ("?fi.mau.msc2246.timeout_ms=77", 77),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/_matrix/client/v1/media/download/other.example/m{number}");
        assert_eq!(client.get(&format!("{path}{query}")).status, 200, "{query}");
        let asked = homeserver.received_for(&path);
        assert_eq!(asked[0].target(), format!("{path}?timeout_ms={passed_on}"), "{query}");
    }
}

/// CS-DL-12, CS-DL-17
#[test]
fn what_the_homeserver_does_not_have_is_not_found() {
    for (status, body) in [
        (404, r#"{"errcode":"M_NOT_FOUND","error":"M_NOT_FOUND: Media not found."}"#),
        (404, r#"{"errcode":"M_UNKNOWN","error":"Answer from other.example: [404]"}"#),
        // So says the client endpoint of continuwuity.
        (400, r#"{"errcode":"M_UNKNOWN","error":"M_UNKNOWN: Unknown error when fetching file."}"#),
    ] {
        let homeserver = answering(status, &[], body);
        let (mediary, client) = start(&homeserver);
        for media in BOTH {
            client.download(media).assert_error(404, "M_NOT_FOUND");
            client.thumbnail(media).assert_error(404, "M_NOT_FOUND");
        }
        mediary.assert_nothing_kept();
    }
}

/// CS-DL-10, CS-DL-13, CS-DL-14, CS-GEN-07, CS-TH-20
#[test]
fn what_the_homeserver_says_to_the_caller_is_relayed() {
    for (status, errcode, body) in [
        (401, "M_UNKNOWN_TOKEN", r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x","soft_logout":true}"#),
        (403, "M_FORBIDDEN", r#"{"errcode":"M_FORBIDDEN","error":"blocked"}"#),
        (
            429,
            "M_LIMIT_EXCEEDED",
            r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":7000}"#,
        ),
        (413, "M_TOO_LARGE", r#"{"errcode":"M_TOO_LARGE","error":"x"}"#),
        (502, "M_TOO_LARGE", r#"{"errcode":"M_TOO_LARGE","error":"x"}"#),
        (504, "M_NOT_YET_UPLOADED", r#"{"errcode":"M_NOT_YET_UPLOADED","error":"x"}"#),
    ] {
        let homeserver = answering(status, &[("Retry-After", "7")], body);
        let (_mediary, client) = start(&homeserver);
        for media in BOTH {
            for answer in [client.download(media), client.thumbnail(media)] {
                answer.assert_error(status, errcode);
                assert_eq!(answer.text(), body);
                assert_eq!(answer.header("retry-after"), Some("7"));
                assert_eq!(answer.header("cache-control"), Some("no-store"));
            }
        }
        // A refusal is not remembered: the next one to ask may be told otherwise.
        assert_eq!(homeserver.received_for(LOCAL).len(), 2, "{status}");
    }
}

#[test]
fn what_came_in_a_coding_of_its_own_is_not_kept_for_what_it_is_not() {
    for (coding, status) in [("gzip", 502), ("br", 502), ("Identity", 200)] {
        let homeserver = homeserver(move |request, stream| {
            if request.target().contains(LOCAL) {
                return respond_with(stream, 200, &[], b"not coded");
            }
            respond_with(stream, 200, &[("Content-Encoding", coding)], b"perhaps coded")
        });
        let (mediary, client) = start(&homeserver);
        assert_eq!(client.download(REMOTE).status, status, "{coding}");
        let asked = homeserver.received_for(REMOTE);
        assert_eq!(asked[0].header("accept-encoding"), Some("identity"));
        // What was asked for first is settled when what came after it is kept.
        assert_eq!(client.download(LOCAL).text(), "not coded");
        wait_until("the other is kept", || mediary.copies_of(b"not coded") == 1);
        wait_until("no temporary file is left", || mediary.unfinished().is_empty());
        let copies = mediary.copies_of(b"perhaps coded");
        assert_eq!(copies, usize::from(status == 200), "{coding}");
    }
}

/// CS-DL-06, CS-DL-07, CS-HDR-10, CS-CORS-01
#[test]
fn a_reader_is_sent_elsewhere_only_where_that_is_allowed() {
    const ELSEWHERE: &str = "https://cdn.example/signed?for=a%20while";
    for (status, location) in [
        (307, ELSEWHERE),
        (308, ELSEWHERE),
        (302, ELSEWHERE),
        (307, "/local"),
        (307, "javascript:alert(1)"),
    ] {
        let homeserver = homeserver(move |_, stream| {
            respond_with(stream, status, &[("Location", location)], b"ignored")
        });
        let (mediary, client) = start_with(&homeserver, "[legacy]\nmode = \"open\"");
        let is_good = status != 302 && location == ELSEWHERE;
        let legacy = format!("/_matrix/media/v3/download/{REMOTE}");
        let asked_for = format!("{legacy}?allow_redirect=true");
        for answer in [client.download(REMOTE), mediary.client().get(&asked_for)] {
            if is_good {
                assert_eq!(answer.status, status);
                assert_eq!(answer.header("location"), Some(ELSEWHERE));
                assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            } else {
                answer.assert_error(502, "M_UNKNOWN");
                assert_eq!(answer.header("location"), None);
            }
        }
        assert_eq!(homeserver.received_for("allow_redirect=true").len(), 1);
        for query in ["", "?allow_redirect=false", "?allow_redirect=True", "?allow_redirect"] {
            mediary.client().get(&format!("{legacy}{query}")).assert_error(502, "M_UNKNOWN");
        }
        assert_eq!(homeserver.received_for("allow_redirect").len(), 1);
        // Elsewhere there is no thumbnail.
        client.thumbnail(REMOTE).assert_error(502, "M_UNKNOWN");
    }
}

/// CS-DL-17, CS-CORS-01, CS-GEN-03
#[test]
fn a_homeserver_that_fails_is_502_or_504_and_its_words_stay_here() {
    for (status, answer, body) in [
        // So ends a handler of Conduit that panics.
        (500, 502, ""),
        (500, 502, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"secret"}"#),
        (502, 502, "<html>secret"),
        (502, 502, r#"{"errcode":"M_UNKNOWN","error":"secret"}"#),
        (503, 502, "secret"),
        (504, 504, "<html>secret"),
        (504, 504, r#"{"errcode":"M_UNKNOWN","error":"secret"}"#),
        (403, 502, "<html>secret"),
        (302, 502, "secret"),
        (204, 502, ""),
        (206, 502, "secret"),
    ] {
        let homeserver = answering(status, &[], body);
        let (mediary, client) = start(&homeserver);
        for failed in [client.download(LOCAL), client.thumbnail(REMOTE)] {
            failed.assert_error(answer, "M_UNKNOWN");
            assert!(!failed.text().contains("secret"), "{status} {body}");
        }
        mediary.assert_nothing_kept();
    }
}

#[test]
fn an_old_homeserver_is_asked_on_its_old_route_with_the_token() {
    let homeserver = homeserver(|request, stream| {
        if request.target().starts_with("/_matrix/client/v1/") {
            return respond(stream, 404, r#"{"errcode":"M_UNRECOGNIZED","error":"?"}"#);
        }
        respond_with(stream, 200, &[("Content-Type", "image/png")], b"hello")
    });
    let (_mediary, client) = start(&homeserver);
    for media in BOTH {
        assert_eq!(
            client.get(&format!("/_matrix/client/v1/media/download/{media}?timeout_ms=5")).text(),
            "hello"
        );
        let asked = homeserver.received_for(media);
        let targets: Vec<_> = asked.iter().map(Received::target).collect();
        let current = format!("/_matrix/client/v1/media/download/{media}?timeout_ms=5");
        let old = format!("/_matrix/media/v3/download/{media}?timeout_ms=5");
        assert_eq!(targets, [current, old]);
        let bearer = format!("Bearer {TOKEN}");
        assert!(asked.iter().all(|request| request.header("authorization") == Some(&bearer)));
    }
}

/// Answers the first request for each target by breaking off, the next ones in full.
fn breaking_off(
    broken: impl Fn(&mut TcpStream) + Send + Sync + 'static,
    whole: Vec<u8>,
) -> FakeHomeserver {
    let times: Mutex<HashMap<String, usize>> = Mutex::default();
    homeserver(move |request, stream| {
        let mut times = times.lock().expect("the count");
        let time = times.entry(request.target()).or_default();
        *time += 1;
        if *time > 1 {
            return respond_with(stream, 200, &[("Content-Type", "text/plain")], &whole);
        }
        broken(stream);
        false
    })
}

#[test]
fn a_body_that_breaks_off_looks_incomplete_and_is_fetched_again() {
    for size in [1_000, 600_000] {
        let short: Box<dyn Fn(&mut TcpStream) + Send + Sync> = Box::new(move |stream| {
            begin(stream, &format!("Content-Length: {size}"));
            stream.write_all(&bytes(size - 1)).expect("Mediary reads the body");
        });
        let chunked: Box<dyn Fn(&mut TcpStream) + Send + Sync> = Box::new(move |stream| {
            begin(stream, "Transfer-Encoding: chunked");
            stream.write_all(&chunk(&bytes(size))).expect("Mediary reads the body");
        });
        let torn: Box<dyn Fn(&mut TcpStream) + Send + Sync> = Box::new(move |stream| {
            begin(stream, "Transfer-Encoding: chunked");
            let chunk = chunk(&bytes(size));
            stream.write_all(&chunk[..chunk.len() / 2]).expect("Mediary reads the body");
        });
        for (how, broken) in [("short", short), ("no last chunk", chunked), ("torn", torn)] {
            let homeserver = breaking_off(broken, bytes(size));
            let (mediary, client) = start(&homeserver);
            let answer = client.download(REMOTE);
            // Whoever has not seen the head when it breaks off is told so.
            if answer.status == 502 {
                answer.assert_error(502, "M_UNKNOWN");
            } else {
                assert_eq!((answer.status, answer.complete), (200, false), "{how} of {size}");
                assert!(bytes(size).starts_with(&answer.body), "{how} of {size}");
            }
            mediary.assert_nothing_kept();
            // For a moment nobody may send for it again.
            client.download(REMOTE).assert_error(502, "M_UNKNOWN");
            assert_eq!(homeserver.received_for(REMOTE).len(), 1, "{how} of {size}");
            wait_until("it may be fetched again", || client.download(REMOTE).status == 200);
            let again = client.download(REMOTE);
            assert_eq!((again.status, again.complete), (200, true), "{how} of {size}");
            assert!(again.body == bytes(size), "{how} of {size}");
            assert_eq!(homeserver.received_for(REMOTE).len(), 2, "{how} of {size}");
        }
    }
}

#[test]
fn there_is_no_thumbnail_of_a_body_that_breaks_off() {
    let whole = png(300, 300);
    let part = whole[..whole.len() / 2].to_vec();
    let length = whole.len();
    let broken = move |stream: &mut TcpStream| {
        begin(stream, &format!("Content-Length: {length}"));
        stream.write_all(&part).expect("Mediary reads the body");
    };
    let homeserver = breaking_off(broken, whole);
    let (mediary, client) = start(&homeserver);
    client.thumbnail(REMOTE).assert_error(502, "M_UNKNOWN");
    mediary.assert_nothing_kept();
    wait_until("it may be fetched again", || client.thumbnail(REMOTE).status == 200);
}

/// CS-TH-10, FLD-30
#[test]
fn thumbnails_of_what_is_not_held_fetch_it_once() {
    let homeserver = serving(png(400, 300));
    let (_mediary, client) = start(&homeserver);
    for media in BOTH {
        let answer = client.thumbnail(media);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let image = image::load_from_memory(&answer.body).expect("thumbnails can be decoded");
        assert_eq!(image.dimensions(), (32, 32));
        let larger = format!("/_matrix/client/v1/media/thumbnail/{media}?width=320&height=240");
        assert_eq!(client.get(&larger).status, 200);
        assert!(client.download(media).body == png(400, 300));
        // Thumbnails are made here, never fetched.
        assert_eq!(homeserver.received_for(media).len(), 1);
    }
    assert!(homeserver.received_for("/thumbnail/").is_empty());
}

/// CS-TH-13, CS-LIM-02
#[test]
fn a_picture_with_too_many_pixels_is_413_of_ours_and_502_of_another_server() {
    let homeserver = serving(png(200, 200));
    let (_mediary, client) = start_with(&homeserver, "[thumbnails]\nmax_pixels = 10_000");
    for _ in 0..2 {
        client.thumbnail(LOCAL).assert_error(413, "M_TOO_LARGE");
        client.thumbnail(REMOTE).assert_error(502, "M_TOO_LARGE");
    }
    assert!(client.download(REMOTE).body == png(200, 200));
}

const SMALL: &str = "[remote]\nmax_size = \"1 KiB\"";

/// CS-DL-13, CS-LIM-03
#[test]
fn a_remote_file_that_says_it_is_too_large_is_502() {
    for (size, status) in [(1_024, 200), (1_025, 502)] {
        let homeserver = serving(bytes(size));
        let (mediary, client) = start_with(&homeserver, SMALL);
        // What our own users have uploaded was let in by the homeserver's limit.
        assert_eq!(client.download(LOCAL).body.len(), size);
        let answer = client.download(REMOTE);
        assert_eq!(answer.status, status, "{size}");
        if status == 502 {
            answer.assert_error(502, "M_TOO_LARGE");
            client.thumbnail(REMOTE).assert_error(502, "M_TOO_LARGE");
            wait_until("no temporary file is left", || mediary.unfinished().is_empty());
            assert_eq!(mediary.blobs().len(), 1);
        }
    }
}

/// CS-LIM-03
#[test]
fn a_remote_file_that_turns_out_too_large_breaks_off() {
    let homeserver = homeserver(|_, stream| {
        begin(stream, "Transfer-Encoding: chunked");
        // Mediary may have hung up before it has read everything.
        let _ = stream.write_all(&[&chunk(&bytes(1_025))[..], b"0\r\n\r\n"].concat());
        true
    });
    let (mediary, client) = start_with(&homeserver, SMALL);
    let answer = client.download(REMOTE);
    // Whoever has not seen the head when it breaks off is told so.
    if answer.status == 502 {
        answer.assert_error(502, "M_TOO_LARGE");
    } else {
        assert_eq!((answer.status, answer.complete), (200, false));
        assert!(answer.body.len() <= 1_024);
    }
    client.thumbnail(REMOTE).assert_error(502, "M_TOO_LARGE");
    mediary.assert_nothing_kept();
}

/// Sends a request for media and returns the connection when this has arrived on it.
fn read_until(client: &Client, media: &str, wanted: &[u8]) -> TcpStream {
    let mut stream = client.connect().stream;
    let request = format!(
        "GET /_matrix/client/v1/media/download/{media} HTTP/1.1\r\nHost: a\r\nAuthorization: \
         Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the connection takes bytes");
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !read.windows(wanted.len()).any(|window| window == wanted) {
        let count = stream.read(&mut buffer).expect("bytes arrive");
        assert!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..count]);
    }
    stream
}

#[test]
fn the_first_bytes_arrive_before_the_homeserver_has_sent_the_last() {
    let large = bytes(65_536);
    for (framing, first, later, wanted) in [
        ("Content-Length: 10", b"first".to_vec(), &b"later"[..], &b"first"[..]),
        ("Content-Length: 65541", large.clone(), &b"later"[..], &large[65_000..]),
        ("Transfer-Encoding: chunked", chunk(b"first"), b"5\r\nlater\r\n0\r\n\r\n", b"first"),
    ] {
        let (go_on, gone_on) = channel();
        let gone_on = Mutex::new(gone_on);
        let homeserver = homeserver(move |_, stream| {
            begin(stream, framing);
            stream.write_all(&first).expect("Mediary reads the body");
            let gone_on = gone_on.lock().expect("one request at a time");
            gone_on.recv().expect("the client has read the first bytes");
            stream.write_all(later).is_ok()
        });
        let (_mediary, client) = start(&homeserver);
        let mut stream = read_until(&client, REMOTE, wanted);
        go_on.send(()).expect("the homeserver waits");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the rest arrives");
        let kept = client.download(REMOTE);
        assert!(kept.complete && kept.text().ends_with("later"), "{framing}");
    }
}

#[test]
fn many_who_ask_at_once_all_get_the_whole_body() {
    let homeserver = serving(bytes(SIZES[1]));
    let (mediary, client) = start(&homeserver);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let answer = client.download(REMOTE);
                assert!(answer.status == 200 && answer.body == bytes(SIZES[1]));
                served.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(served.into_inner(), 8);
    assert_eq!(homeserver.received_for(REMOTE).len(), 1);
    wait_until("no temporary file is left", || mediary.unfinished().is_empty());
    assert_eq!(mediary.blobs().len(), 1);
    let before = homeserver.received_for(REMOTE).len();
    assert!(client.download(REMOTE).body == bytes(SIZES[1]));
    assert_eq!(homeserver.received_for(REMOTE).len(), before);
}

#[test]
fn a_body_that_only_the_end_of_the_connection_ends_is_not_kept() {
    let homeserver = homeserver(|_, stream| {
        begin(stream, "Connection: close");
        let _ = stream.write_all(b"perhaps not all of it");
        false
    });
    let (mediary, client) = start(&homeserver);
    // It is known only then that it must be asked for by each reader alone.
    for requests in [2, 3] {
        let answer = client.download("fake.example/endless");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"perhaps not all of it"[..]));
        let received = homeserver.received_for("/download/fake.example/endless");
        assert_eq!(received.len(), requests);
    }
    mediary.assert_nothing_kept();
}
