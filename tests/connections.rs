//! Connections whose clients are too slow, too many, or do not speak HTTP: what they are told, and
//! that others are left alone (threats RX-01 to RX-03, SM-01 to SM-09).

mod common;

use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex};

use common::fake::{SERVER_NAME, TOKEN, respond};
use common::http::{Answer, Connection};
use common::{FakeHomeserver, Mediary, Settings, noise, wait_until};

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// Limits that a test can wait for.
const IMPATIENT: &str = "[connections]\nheader_timeout = \"1s\"\nslow_timeout = \"1s\"";

fn impatient(fake: &FakeHomeserver) -> Settings {
    Settings::new(&fake.url).with(IMPATIENT)
}

fn ended(mediary: &Mediary, reason: &str) -> f64 {
    mediary.metric(&format!("mediary_connections_ended_total{{reason=\"{reason}\"}}"))
}

/// Sends the beginning of a request and reads what is said although the rest never comes.
fn answer_to_beginning(mediary: &Mediary, beginning: &[u8]) -> Answer {
    let mut connection = mediary.client().connect();
    connection.send(beginning);
    let answer = connection.read_answer("GET");
    assert!(connection.is_closed());
    answer
}

// --- too slow

/// RX-01, CS-GEN-01, CS-GEN-03, CS-CORS-01
#[test]
fn a_head_that_does_not_come_to_its_end_is_answered_and_the_connection_closed() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    for beginning in ["G", "GET /_matrix/media/v3/config HTTP/1.1\r\nHost: a\r\nX: y", "\r\n"] {
        let answer = answer_to_beginning(&mediary, beginning.as_bytes());
        answer.assert_error(408, "M_UNKNOWN");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(ended(&mediary, "head_too_slow"), 3.0);
    assert_eq!(mediary.metric("mediary_requests_total{route=\"refused\",status=\"4xx\"}"), 3.0);
}

/// RX-01
#[test]
fn a_new_connection_that_says_nothing_is_closed() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    let mut connection = mediary.client().connect();
    assert!(connection.is_closed());
    assert_eq!(ended(&mediary, "head_too_slow"), 1.0);
}

/// RX-01, SM-08, SM-09, CS-GEN-03, CS-CORS-01
#[test]
fn every_request_of_a_connection_is_bound_as_its_first() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    let endless = [b"GET /".as_slice(), &[b'a'; 200 << 10]].concat();
    for (head, status, errcode) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\nX: "[..], 408, "M_UNKNOWN"),
        (b"what?\r\n\r\n", 400, "M_UNKNOWN"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "M_UNRECOGNIZED"),
        (&endless, 431, "M_TOO_LARGE"),
    ] {
        let mut connection = mediary.client().connect();
        for _ in 0..2 {
            connection.send(&get("/_matrix/client/versions"));
            assert_eq!(connection.read_answer("GET").status, 200);
        }
        // The refusal may come before all is written.
        let _ = connection.stream.write_all(head);
        connection.read_answer("GET").assert_error(status, errcode);
        assert!(connection.is_closed());
    }
}

#[test]
fn what_is_left_unread_of_a_refused_body_does_not_count_against_the_next_request() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    let mut connection = mediary.client().connect();
    let refused = format!("POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    connection.send(refused.as_bytes());
    connection.read_answer("POST").assert_error(401, "M_MISSING_TOKEN");
    outlast_the_limits(&mediary);
    connection.send(&get("/_matrix/client/versions"));
    assert_eq!(connection.read_answer("GET").status, 200);
    assert_eq!(ended(&mediary, "body_too_slow"), 0.0);
}

/// RX-02, RX-06
#[test]
fn an_upload_that_stops_arriving_is_refused_and_leaves_nothing() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let body = if framing.starts_with("Content") { "some" } else { "4\r\nsome\r\n" };
        let beginning = format!(
            "POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n{framing}\r\n\r\n{body}"
        );
        let answer = answer_to_beginning(&mediary, beginning.as_bytes());
        answer.assert_error(408, "M_UNKNOWN");
    }
    mediary.assert_nothing_kept();
    assert_eq!(ended(&mediary, "body_too_slow"), 2.0);
}

/// RX-02
#[test]
fn a_body_that_is_passed_through_and_stops_arriving_is_refused() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    let beginning =
        b"PUT /_matrix/client/v3/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{";
    answer_to_beginning(&mediary, beginning).assert_error(408, "M_UNKNOWN");
    assert_eq!(ended(&mediary, "body_too_slow"), 1.0);
}

/// RX-02
#[test]
fn a_body_that_stops_arriving_behind_100_continue_is_refused_too() {
    let fake = FakeHomeserver::with_heads(|request, reader| {
        request.header("expect").is_some().then(|| {
            let _ = reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            let _ = reader.read(&mut [0; 64]);
            let _ = reader.read(&mut [0; 64]);
            false
        })
    });
    let mediary = impatient(&fake).start();
    let mut connection = mediary.client().connect();
    connection.send(
        b"PUT /_matrix/client/v3/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
          Content-Length: 1000\r\n\r\n",
    );
    assert_eq!(connection.read_any_answer("PUT").status, 100);
    connection.send(b"{");
    connection.read_answer("PUT").assert_error(408, "M_UNKNOWN");
}

/// RX-03
#[test]
fn a_reader_that_stops_taking_is_cut_off_and_others_get_the_whole() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    let client = mediary.client().with_token(TOKEN);
    let body = noise(40 << 20, 1);
    let media = client.upload("application/octet-stream", None, &body);
    let mut connection = mediary.client().connect();
    connection.send(&get(&format!("/_matrix/client/v1/media/download/{media}")));
    wait_until("the reader is cut off", || ended(&mediary, "reader_too_slow") == 1.0);
    client.download(&media).assert_whole(&body);
    let mut answer = connection.read_head();
    connection.read_rest("GET", &mut answer);
    assert!(!answer.complete, "{} bytes", answer.body.len());
}

/// RX-03
#[test]
fn a_reader_of_what_is_passed_through_is_cut_off_too() {
    let fake = FakeHomeserver::with(|request, stream| {
        (request.target() == "/large").then(|| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            // Fails when Mediary has had enough.
            while stream.write_all(&[0; 65536]).is_ok() {}
            false
        })
    });
    let mediary = impatient(&fake).start();
    let mut connection = mediary.client().connect();
    connection.send(&get("/large"));
    wait_until("the reader is cut off", || ended(&mediary, "reader_too_slow") == 1.0);
    let mut answer = connection.read_head();
    connection.read_rest("GET", &mut answer);
    assert!(!answer.complete);
}

// --- left alone

/// Opens when the test says so.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().expect("the gate") = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.lock().expect("the gate");
        let _open = self.1.wait_while(closed, |open| !*open).expect("the gate");
    }
}

/// Waits until somebody else has been cut off for as long a silence.
fn outlast_the_limits(mediary: &Mediary) {
    for _ in 0..2 {
        assert!(mediary.client().connect().is_closed());
    }
}

#[test]
fn long_polls_are_left_alone_with_and_without_a_body() {
    let gate = Arc::new(Gate::default());
    let at_homeserver = gate.clone();
    let fake = FakeHomeserver::with(move |request, stream| {
        request.target().contains("/sync").then(|| {
            at_homeserver.pass();
            respond(stream, 200, "{}")
        })
    });
    let mediary = impatient(&fake).start();
    let mut polls = [mediary.client().connect(), mediary.client().connect()];
    polls[0].send(&get("/_matrix/client/v3/sync?timeout=30000"));
    polls[1]
        .send(b"POST /_matrix/client/v4/sync HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    wait_until("both are there", || fake.received_for("/sync").len() == 2);
    outlast_the_limits(&mediary);
    gate.open();
    for poll in &mut polls {
        assert_eq!(poll.read_answer("GET").status, 200);
    }
    assert_eq!(ended(&mediary, "body_too_slow"), 0.0);
}

#[test]
fn a_websocket_may_be_silent() {
    let fake = FakeHomeserver::with(|request, stream| {
        (request.target() == "/socket").then(|| {
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            let mut frame = [0; 5];
            stream.read_exact(&mut frame).and_then(|()| stream.write_all(&frame)).is_ok()
        })
    });
    let mediary = impatient(&fake).start();
    let mut socket = mediary.client().connect();
    socket.send(
        b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    assert_eq!(socket.read_answer("GET").status, 101);
    outlast_the_limits(&mediary);
    socket.send(b"hello");
    assert_eq!(socket.read_bytes(5), b"hello");
}

#[test]
fn a_connection_between_two_requests_is_left_alone() {
    let fake = FakeHomeserver::start();
    let mediary = impatient(&fake).start();
    let mut connection = mediary.client().connect();
    for _ in 0..2 {
        connection.send(&get("/_matrix/client/versions"));
        assert_eq!(connection.read_answer("GET").status, 200);
        outlast_the_limits(&mediary);
    }
}

#[test]
fn an_upload_that_waits_for_the_homeserver_is_not_blamed_for_it() {
    let gate = Arc::new(Gate::default());
    let at_homeserver = gate.clone();
    let fake = FakeHomeserver::with(move |request, _| {
        if request.target().contains("whoami") {
            at_homeserver.pass();
        }
        None
    });
    let mediary = impatient(&fake).start();
    let mut connection = mediary.client().connect();
    let head = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: 4\r\n\r\n"
    );
    connection.send(head.as_bytes());
    wait_until("the token is checked", || !fake.received_for("whoami").is_empty());
    outlast_the_limits(&mediary);
    gate.open();
    connection.send(b"body");
    let media = connection.read_answer("POST").media();
    mediary.client().with_token(TOKEN).download(&media).assert_whole(b"body");
}

// --- not HTTP

/// SM-02, SM-03, SM-08, SM-09, LO-01, CS-GEN-01, CS-GEN-03, CS-CORS-01
#[test]
fn what_is_no_request_is_refused_in_matrix_words_wherever_it_goes() {
    const SECRET: &str = "syt_secret_of_alice";
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let before = fake.received().len();
    let target = format!("/_matrix/media/v3/config?access_token={SECRET}");
    let with = |fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let many = "X: y\r\n".repeat(300);
    let heads = [
        "what?\r\n\r\n".to_owned(),
        format!("GET {target}\r\n\r\n"),
        format!("GET {target} HTTP/9.9\r\nHost: a\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        format!("GET /<{SECRET}> HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("{SECRET} \u{0}/ HTTP/1.1\r\n\r\n"),
        with(&format!("Authorization: Bearer {SECRET}\0")),
        with(&format!("Authorization : Bearer {SECRET}")),
        with(&format!("Authorization Bearer {SECRET}")),
        with(&format!(": {SECRET}")),
        with(&format!("X: y\r\n folded {SECRET}")),
        with("Content-Length: 1\r\nContent-Length: 2"),
        with("Content-Length: +5"),
        with("Content-Length: 99999999999999999999999"),
        with("Transfer-Encoding: xchunked"),
        with("Transfer-Encoding: chunked, identity"),
        format!("POST {target} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        with(many.trim_end()),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(),
    ];
    for head in &heads {
        let mut connection = mediary.client().connect();
        connection.send(head.as_bytes());
        let answer = connection.read_answer("GET");
        assert_eq!(answer.status, 400, "{head:?} {answer:?}");
        answer.assert_error(400, "M_UNKNOWN");
        assert!(connection.is_closed(), "{head:?}");
    }
    assert_eq!(fake.received().len(), before, "nothing of it reaches the homeserver");
    assert!(!mediary.log().contains(SECRET));
    assert!(!mediary.log().contains("panicked"));
}

/// AU-15, CS-GEN-06
#[test]
fn connect_is_refused_in_matrix_words() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let answer = mediary.client().raw(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    answer.assert_error(405, "M_UNRECOGNIZED");
    let allowed = answer.header("allow").expect("other methods");
    assert!(["PUT", "DELETE"].iter().all(|method| allowed.contains(method)), "{allowed}");
}

// --- too many

/// Opens connections that hold their places.
fn hold(mediary: &Mediary, count: usize) -> Vec<Connection> {
    let mut held: Vec<_> = (0..count).map(|_| mediary.client().connect()).collect();
    for connection in &mut held {
        connection.send(&get("/_matrix/client/versions"));
        assert_eq!(connection.read_answer("GET").status, 200);
    }
    held
}

/// CS-RL-01, CS-RL-02, CS-RL-03
#[test]
fn an_address_has_so_many_connections_and_the_next_is_told_why_not() {
    let fake = FakeHomeserver::start();
    let settings = Settings::new(&fake.url)
        .with("[server]\ntrusted_proxies = []\n[connections]\nmax_per_address = 3");
    let mediary = settings.start();
    let mut held = hold(&mediary, 3);
    let mut refused = mediary.client().connect();
    refused.send(&get("/_matrix/client/versions"));
    refused.read_answer("GET").assert_limited();
    assert!(refused.is_closed());
    assert_eq!(ended(&mediary, "too_many"), 1.0);
    held.pop();
    wait_until("the place is free", || {
        mediary.client().get("/_matrix/client/versions").status == 200
    });
}

#[test]
fn a_trusted_proxy_has_any_number_of_connections() {
    let fake = FakeHomeserver::start();
    let mediary = Settings::new(&fake.url).with("[connections]\nmax_per_address = 3").start();
    hold(&mediary, 10);
}

/// AU-18, CS-RL-01
#[test]
fn clients_of_a_trusted_proxy_are_counted_by_their_requests() {
    let gate = Arc::new(Gate::default());
    let at_homeserver = gate.clone();
    let fake = FakeHomeserver::with(move |request, stream| {
        request.target().contains("/held").then(|| {
            at_homeserver.pass();
            respond(stream, 200, "{}")
        })
    });
    let mediary = Settings::new(&fake.url).with("[connections]\nmax_per_address = 2").start();
    let from = |client: &str, target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")
    };
    let mut held = [mediary.client().connect(), mediary.client().connect()];
    for connection in &mut held {
        connection.send(from("6.6.6.6, 192.0.2.1", "/held").as_bytes());
    }
    wait_until("both are there", || fake.received_for("/held").len() == 2);
    let media = format!("/_matrix/client/v1/media/download/{SERVER_NAME}/abc");
    for target in ["/_matrix/client/versions", &media] {
        let ask = |client: &str| mediary.client().raw(from(client, target).as_bytes());
        ask("192.0.2.1").assert_limited();
        assert_ne!(ask("192.0.2.2").status, 429);
        assert_ne!(mediary.client().get(target).status, 429, "nobody's client");
    }
    gate.open();
    for connection in &mut held {
        assert_eq!(connection.read_answer("GET").status, 200);
    }
    let again = || mediary.client().raw(from("192.0.2.1", "/_matrix/client/versions").as_bytes());
    wait_until("the places are free", || again().status == 200);
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
        .into_bytes()
}
