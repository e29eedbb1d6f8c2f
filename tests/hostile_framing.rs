//! Requests inside others, behind others, too many, too large and too old (threats SM and RX).

mod common;

use std::io::Write;
use std::net::Shutdown;

use common::fake::{TOKEN, respond};
use common::http::chunk;
use common::{FakeHomeserver, Mediary, Settings, noise, samples, wait_until};

const UPLOAD: &str = "/_matrix/media/v3/upload";

const DOWNLOAD: &str = "/_matrix/client/v1/media/download";

/// A request that stands in the body of another.
const HIDDEN: &[u8] = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// A homeserver that has an empty object for everybody.
fn recorder() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        (!request.is_mediarys_own()).then(|| respond(stream, 200, "{}"))
    })
}

/// Writes the head of a request that bears the token.
fn head(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n{fields}\r\n"
    )
    .into_bytes()
}

// --- SM: one request and another ---------------------------------------------------------------

/// SM-05
#[test]
fn a_request_in_the_body_of_a_download_is_answered_to_nobody() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let (kept, other) = (noise(100_000, 1), b"the other one");
    let target = format!("{DOWNLOAD}/{}", client.upload("text/plain", None, &kept));
    let next = format!("{DOWNLOAD}/{}", client.upload("text/plain", None, other));
    let late = [&noise(70_000, 2)[..], HIDDEN].concat();
    let chunks = [chunk(HIDDEN), chunk(HIDDEN), b"0\r\n\r\n".to_vec()].concat();
    let length = |body: &[u8]| format!("Content-Length: {}\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n".to_owned();
    for (framing, body) in [(length(HIDDEN), HIDDEN), (length(&late), &late), (chunked, &chunks)] {
        for method in ["GET", "HEAD"] {
            let mut connection = mediary.client().connect();
            connection.send(&[&head(method, &target, &framing)[..], body].concat());
            let answer = connection.read_answer(method);
            let expected: &[u8] = if method == "GET" { &kept } else { b"" };
            assert!(answer.status == 200 && answer.body == expected, "{framing}: {answer:?}");
            // The next request on the connection gets its own answer, or there is none.
            let _ = connection.stream.write_all(&head("GET", &next, ""));
            let answer = connection.read_answer("GET");
            assert!(answer.status == 0 || answer.body == other, "{framing}: {answer:?}");
            // And so does whoever comes next.
            client.get(&next).assert_whole(other);
        }
    }
    assert!(fake.received_for("/hidden").is_empty());
}

/// SM-10
#[test]
fn requests_sent_behind_each_other_are_answered_in_order_or_not_at_all() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let bodies: Vec<Vec<u8>> = (0..7).map(|seed| noise(500, seed)).collect();
    let targets: Vec<String> = bodies
        .iter()
        .map(|body| format!("{DOWNLOAD}/{}", client.upload("text/plain", None, body)))
        .collect();
    let kept = mediary.blobs().len();
    // Every tenth breaks off, and the connection with it.
    let aborted = [&head("POST", UPLOAD, "Content-Length: 1000\r\n")[..], b"part of it"].concat();
    let mut number = 0;
    while number < 1000 {
        let mut connection = mediary.client().connect();
        let until_aborted = number..(number / 10 * 10 + 10);
        for number in until_aborted.clone() {
            let request = match number % 10 {
                9 => aborted.clone(),
                _ => head("GET", &targets[number % targets.len()], ""),
            };
            // Mediary may have closed already: it takes no request behind another.
            let _ = connection.stream.write_all(&request);
        }
        let _ = connection.stream.shutdown(Shutdown::Write);
        let first = number;
        for expected in until_aborted {
            let answer = connection.read_answer("GET");
            if answer.status == 0 {
                break;
            }
            number += 1;
            match expected % 10 {
                9 => assert_eq!(answer.status, 400, "{answer:?}"),
                _ => answer.assert_whole(&bodies[expected % bodies.len()]),
            }
        }
        // Whoever hangs up in the middle of an upload may hear nothing.
        let is_aborted = first % 10 == 9;
        assert!(number > first || is_aborted, "request {first} has no answer");
        number = number.max(first + usize::from(is_aborted));
    }
    wait_until("no temporary file is left", || mediary.unfinished().is_empty());
    assert_eq!(mediary.blobs().len(), kept);
}

/// SM-03
#[test]
fn a_body_in_more_than_chunks_is_400() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for codings in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        for target in ["/outer", UPLOAD] {
            let body = [&chunk(b"hello")[..], b"0\r\n\r\n", HIDDEN].concat();
            let mut connection = mediary.client().connect();
            connection.send(&[head("POST", target, codings), body].concat());
            let answer = connection.read_answer("POST");
            assert_eq!(answer.status, 400, "{target} {codings:?}: {answer:?}");
            assert!(connection.is_closed(), "{target} {codings:?}");
        }
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
    mediary.assert_nothing_kept();
}

/// AU-20
#[test]
fn an_old_client_hears_no_100_and_its_requests_have_a_host() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let post = |target: &str| {
        format!(
            "POST {target} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 5\r\n\
             Expect: 100-continue\r\n\r\nhello"
        )
    };
    for target in ["/old", UPLOAD] {
        let mut connection = mediary.client().connect();
        connection.send(post(target).as_bytes());
        let answer = connection.read_any_answer("POST");
        assert_eq!((answer.status, answer.complete), (200, true), "{target}: {answer:?}");
        assert!(connection.is_closed(), "{target}");
    }
    let received = &fake.received_for("/old")[0];
    assert_eq!(received.header("host"), Some(fake.address.to_string().as_str()));
    assert_eq!((received.header("expect"), &received.body[..]), (None, &b"hello"[..]));
    assert_eq!(mediary.copies_of(b"hello"), 1);
}

// --- RX: too much ------------------------------------------------------------------------------

/// RX-14
#[test]
fn ranges_without_number_or_sense_cost_nothing() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let body = samples::bytes(1000);
    let target = format!("{DOWNLOAD}/{}", client.upload("text/plain", None, &body));
    let many: String = (0..10_000).map(|first| format!("{first}-,")).collect();
    let same = "0-999,".repeat(5000);
    let wide = format!("0-{}", "9".repeat(30_000));
    let whole = [
        format!("bytes={many}0-"),
        format!("bytes={same}0-"),
        "bytes=".to_owned(),
        "bytes=-".to_owned(),
        "bytes=5-2".to_owned(),
        "bytes=0-0,-1".to_owned(),
        "bytes=--1".to_owned(),
        "bytes=0x0-1".to_owned(),
        "bytes 0-1".to_owned(),
    ];
    for range in whole {
        client.get_with(&target, &[("Range", &range)]).assert_whole(&body);
    }
    for (range, status) in [
        ("bytes=-0", 416),
        ("bytes=1000-", 416),
        ("bytes=18446744073709551615-", 416),
        ("bytes=18446744073709551616-18446744073709551617", 416),
        ("bytes=0-18446744073709551615", 206),
        ("bytes=999-99999999999999999999999", 206),
        ("bytes=-18446744073709551616", 206),
    ] {
        let answer = client.get_with(&target, &[("Range", range)]);
        assert_eq!((answer.status, answer.complete), (status, true), "{range}: {answer:?}");
    }
    let answer = client.get_with(&target, &[("Range", &format!("bytes={wide}"))]);
    assert!(answer.status == 206 && answer.body == body, "{:?}", answer.headers);
}

/// RX-12
#[test]
fn without_files_to_open_nothing_is_lost_and_it_ends_with_the_flood() {
    let fake = recorder();
    let limited = ["/usr/bin/prlimit", "--nofile=256:256"];
    let mediary = Settings::new(&fake.url).through(&limited).start();
    let client = mediary.alice();
    let body = noise(100_000, 1);
    let media = client.upload("text/plain", None, &body);
    let flood: Vec<_> = (0..400).map(|_| mediary.client().connect()).collect();
    wait_until("no file can be opened", || mediary.open_files() >= 250);
    drop(flood);
    client.download(&media).assert_whole(&body);
    let again = client.upload("text/plain", None, &noise(1000, 2));
    client.download(&again).assert_whole(&noise(1000, 2));
    wait_until("the flood is over", || mediary.open_files() < 100);
    // One line for every time that it waited, not for every time that it tried.
    let log = mediary.whole_log();
    let complaints = log.lines().filter(|line| line.contains("Too many open files")).count();
    assert!((1..100).contains(&complaints), "{complaints} lines say so");
    assert!(!log.contains("panicked"), "{log}");
}

// --- Sizes of requests -------------------------------------------------------------------------

/// SM-09
#[test]
fn oversized_requests_are_refused_in_bounded_memory_and_others_are_served() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    assert_eq!(mediary.client().get("/_matrix/client/versions").status, 200);
    let peak = mediary.peak_memory();
    let get = |path: &str, fields: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n")
    };
    let many: String = (0..300).map(|number| format!("X-Field-{number}: value\r\n")).collect();
    let long_line = get(&format!("/_matrix/client/v3/sync?{}", "a".repeat(2 << 20)), "");
    let long_media = get(&format!("{}/s/{}", DOWNLOAD, "a".repeat(2 << 20)), "");
    let long_field =
        get("/_matrix/client/versions", &format!("X-Long: {}\r\n", "a".repeat(2 << 20)));
    let no_end = "GET /".to_owned() + &"a".repeat(3 << 20);
    let crowded = get("/_matrix/client/versions", &many);
    let endless_field = "GET / HTTP/1.1\r\nHost: a\r\nX: ".to_owned() + &"a".repeat(3 << 20);
    let too_large = (431, "M_TOO_LARGE");
    for (request, (status, errcode)) in [
        (long_line, too_large),
        (long_media, too_large),
        (long_field, too_large),
        (no_end, too_large),
        (endless_field, too_large),
        (crowded, (400, "M_UNKNOWN")),
    ] {
        let mut connection = mediary.client().connect();
        // The refusal may come before all is written.
        let _ = connection.stream.write_all(request.as_bytes());
        connection.read_answer("GET").assert_error(status, errcode);
        assert_eq!(mediary.client().get("/_matrix/client/versions").status, 200);
    }
    let ended = "mediary_connections_ended_total{reason=\"head_too_large\"}";
    assert_eq!(mediary.metric(ended), 5.0);
    assert!(fake.received().iter().all(|request| request.target.len() < 1000));
    let grown = mediary.peak_memory() - peak;
    assert!(grown < 32 * 1024, "{grown} KiB more were in use");
}

#[test]
fn a_long_query_is_read_and_passed_on_whole() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let query = "a".repeat(60 * 1024);
    let media = client.upload("text/plain", None, b"body");
    let answer = client.get(&format!("{}/{media}?{query}", DOWNLOAD));
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    let target = format!("/_matrix/client/v3/search?{query}");
    assert_eq!(client.get(&target).errcode(), "M_UNRECOGNIZED");
    assert_eq!(fake.received_for("/v3/search")[0].target(), target);
}
