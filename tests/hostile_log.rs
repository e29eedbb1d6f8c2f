//! What of hostile input reaches the log, the metrics and the texts of errors (threats LO).

mod common;

use std::fs;

use common::fake::{SERVER_NAME, respond};
use common::{FakeHomeserver, Mediary, files_below, noise};

const UPLOAD: &str = "/_matrix/media/v3/upload";

const DOWNLOAD: &str = "/_matrix/client/v1/media/download";

/// Asserts that every line is one event with nothing in it that a terminal would obey.
fn assert_one_line_each(log: &str) {
    for line in log.lines().filter(|line| *line != "(end of the log)") {
        let time = line.split(' ').next().unwrap_or_default();
        assert!(time.starts_with("20") && time.ends_with('Z'), "not a line of its own: {line:?}");
        let is_marked = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!line.chars().any(is_marked), "{line:?}");
    }
}

/// LO-02
#[test]
fn every_event_is_one_clean_line_whatever_was_sent() {
    let evil = "\u{1b}[31m\u{202e}\r\n2026-01-01T00:00:00Z ERROR forged: line";
    let evil_json = serde_json::to_string(evil).unwrap();
    let fake = FakeHomeserver::with(move |request, stream| {
        let target = request.target();
        if target.contains("whoami") && request.header("authorization") == Some("Bearer odd") {
            return Some(respond(stream, 200, &format!("{{\"user_id\":{evil_json}}}")));
        }
        if target.contains("whoami") && request.header("authorization") == Some("Bearer none") {
            return Some(respond(stream, 500, &evil_json));
        }
        target.contains("/download/").then(|| {
            let refused = format!("{{\"errcode\":{evil_json},\"error\":{evil_json}}}");
            respond(stream, 403, &refused)
        })
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let forged = "x%0d%0a2026-01-01T00:00:00Z%20ERROR%20forged:%20line";
    client.get(&format!("/{forged}"));
    client.get(&format!("/_matrix/media/v3/download/{forged}/abc"));
    client.get(&format!("{}/{SERVER_NAME}/{forged}", DOWNLOAD));
    client.upload("text/plain", Some(forged), b"body");
    client.request("POST", UPLOAD, &[("Content-Type", "text/\u{1b}[31mplain")], b"body");
    client.download("other.example/abc");
    for token in ["odd", "none"] {
        assert_eq!(mediary.client().with_token(token).download("s/x").status, 502);
    }
    for raw in [
        &b"GET /\x1b[31mred HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET /\xff\xfe\xe2\x80\xae HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: \x1b[31mred\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\x1b[31m, \xe2\x80\xae\r\n\r\n",
        b"\x1b[31m / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GE\rT / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\x00\x01\x02\r\n\r\n",
    ] {
        let mut connection = mediary.client().connect();
        connection.send(raw);
        connection.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = connection.read_answer("GET");
        assert!(answer.status < 500, "{}: {answer:?}", raw.escape_ascii());
    }
    let log = mediary.whole_log();
    assert_one_line_each(&log);
    assert!(log.contains("forged"), "nothing was logged: {log}");
    assert!(!log.lines().any(|line| line.contains("ERROR forged")), "{log}");
}

/// LO-01
///
/// The level is trace, which writes all that any other does.
#[test]
fn no_token_is_ever_logged_nor_shown_in_metrics() {
    const SECRET: &str = "hush-dont-tell";
    let fake = FakeHomeserver::with(|request, stream| {
        // A homeserver that repeats what it was sent.
        request.target().contains("/echo").then(|| {
            let said = request.header("authorization").unwrap_or_default();
            respond(stream, 500, &format!("{{\"error\":\"{said}\"}}"))
        })
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(SECRET);
    let query = format!("access_token={SECRET}");
    for target in [
        "/_matrix/client/v3/sync",
        "/_matrix/client/v3/echo",
        "/_matrix/client/v3/logout",
        "/_matrix/client/v1/media/config",
        "/_matrix/client/v1/media/download/fake.example/abc",
        "/_matrix/client/v1/media/download/bad id/abc",
        "/_matrix/client/v1/media/nothing",
        "/_matrix/client/v1/media/preview_url",
        UPLOAD,
    ] {
        for method in ["GET", "POST", "DELETE"] {
            client.request(method, target, &[], b"");
            let target = format!("{target}?{query}");
            mediary.client().request(method, &target, &[], b"");
        }
    }
    let federation = "/_matrix/federation/v1/media/download/abc";
    let signature = format!("X-Matrix origin=a,key=\"ed25519:1\",sig=\"{SECRET}\"");
    mediary.client().get_with(federation, &[("Authorization", &signature)]);
    for malformed in [
        format!("GET /?{query} HTTP/1.1\r\nAuthorization Bearer {SECRET}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SECRET}\0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer {SECRET}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\nAuthorization: Bearer {SECRET}\r\n\r\n"),
        format!("GET /?{query} HTTP/9.9\r\nHost: a\r\n\r\n"),
        format!("GET http://a/?{query} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET a?{query} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /?{query}"),
        format!("GET /? {query} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("POST /?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"),
        format!("POST {UPLOAD}?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"),
        format!(
            "POST {UPLOAD}?{query} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}"
        ),
        format!("POST /login?{query} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {SECRET}\r\n\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SECRET}"),
    ] {
        for client in [mediary.client(), mediary.admin_client()] {
            let mut connection = client.connect();
            connection.send(malformed.as_bytes());
            let _ = connection.stream.shutdown(std::net::Shutdown::Write);
            connection.read_answer("GET");
        }
    }
    let metrics = mediary.admin_client().get("/metrics").text();
    assert!(!metrics.contains(SECRET));
    let log = mediary.whole_log();
    assert!(log.contains("/_matrix/client/v1/media/config"), "nothing was logged: {log}");
    for line in log.lines() {
        assert!(!line.contains(SECRET), "{line}");
        assert!(!line.contains("access_token"), "{line}");
    }
}

/// LO-05
#[test]
fn errors_say_nothing_of_the_inside() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let body = noise(500, 1);
    let media = client.upload("text/plain", None, &body);
    let settings = mediary.kill();
    for file in files_below(&settings.store().join("blobs")) {
        fs::write(file, b"rotten").unwrap();
    }
    let mediary = settings.start();
    let client = mediary.alice();
    let rotten = client.download(&media);
    rotten.assert_error(500, "M_UNKNOWN");
    let store = mediary.store();
    let inside = [store.to_str().unwrap(), &fake.address.to_string(), "sqlite", "blob", ".rs"];
    for word in inside {
        assert!(!rotten.text().contains(word), "{word:?} in {}", rotten.text());
    }
}
