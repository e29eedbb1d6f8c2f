//! Pass-through: whatever is no media request reaches the homeserver as it came, and its answer the
//! client. No spelling of a media request does, and no request hidden in another.

mod common;

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use common::fake::{Received, TOKEN, read_body, respond, respond_with};
use common::http::Answer;
use common::{Client, FakeHomeserver, Mediary, PATIENCE, Settings, Synapse, User, noise};
use serde_json::{Value, json};

/// A homeserver that has an empty object for everybody.
fn recorder() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        (!request.is_mediarys_own()).then(|| respond(stream, 200, "{}"))
    })
}

/// A signal that a script of the fake waits for, or that it gives.
fn signal() -> (Sender<()>, Mutex<Receiver<()>>) {
    let (sender, receiver) = mpsc::channel();
    (sender, Mutex::new(receiver))
}

fn wait_for(signal: &Mutex<Receiver<()>>) {
    signal.lock().expect("the signal").recv_timeout(PATIENCE).expect("the signal in time");
}

// --- What goes up ------------------------------------------------------------------------------

/// FLD-25
#[test]
fn a_target_arrives_byte_for_byte() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let long = format!("/_matrix/client/v3/sync?filter={}", "%7B".repeat(20_000));
    for target in [
        "/",
        "/_matrix/client/v3/rooms/%21a%3Aexample.org/state/m.room.member/%40b%3Ac",
        "/_matrix/client/v3/rooms/!a:example.org/event/$c",
        "/_matrix/federation/v1/event/%24e%2Ff%252F?origin=a%20b+c",
        "/_matrix/client/v3/profile/@a:b%2F..",
        "//",
        "/_matrix//client/v3///sync/",
        "/_matrix/./client/../client/v3/sync",
        "/_matrix/client;a=b;/v3/sync;c",
        "/a?",
        "/a??b=c?d=/e//f",
        "/a?b=c&b=c&&=",
        "/%zz%?%zz%",
        "/~-._!$&'()*+,;=:@",
        "/{}|\\^[]\"",
        "/?{}|\\^[]`",
        "/caf\u{e9}?\u{1f408}",
        &long,
    ] {
        let answer = mediary.client().get(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let passed_on = fake.passed_on();
        assert_eq!(passed_on.last().expect("a request").target(), target);
    }
}

/// All but the fragments are refused by Pingora itself, which gives no reason.
#[test]
fn a_target_that_cannot_go_on_byte_for_byte_is_400() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let targets: [&[u8]; 11] = [
        b"/a#b",
        b"/a?b#c",
        b"/_matrix/media/v3/config#x",
        b" /a",
        b"/a<b",
        b"/a>b",
        b"/a`b",
        b"/a?b\"",
        b"/a?b<",
        b"/\xff",
        b"/a?\xff",
    ];
    for target in targets {
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        let answer = mediary.client().raw(&request);
        assert_eq!(answer.status, 400, "{}: {answer:?}", target.escape_ascii());
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

/// Pingora encodes them before anybody else sees them.
#[test]
fn only_what_no_client_may_send_in_a_target_is_encoded() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for (target, arrives) in [
        ("/a b?c d", "/a%20b?c%20d"),
        ("/a\tb", "/a%09b"),
        ("/a\u{1}b", "/a%01b"),
        ("/a\u{7f}b", "/a%7Fb"),
    ] {
        assert_eq!(mediary.client().get(target).status, 200, "{target:?}");
        assert_eq!(fake.passed_on().last().expect("a request").target(), arrives);
    }
}

#[test]
fn header_fields_keep_their_case_and_their_order() {
    let fake = FakeHomeserver::with(|request, stream| {
        let headers = [
            ("X-ReQuEsT-Id", "7"),
            ("Set-Cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("SET-COOKIE", "c=3"),
        ];
        (request.target() == "/a").then(|| respond_with(stream, 200, &headers, b"{}"))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let mut connection = mediary.client().connect();
    let fields = "Host: Example.ORG:8448\r\n\
                  uSeR-aGeNt: a browser\r\n\
                  X-Twice: one\r\n\
                  x-twice: two\r\n\
                  X-TWICE: three\r\n\
                  Authorization: X-Matrix origin=\"a\",key=\"ed25519:b\",sig=\"c+/==\"\r\n\
                  x-empty: \r\n";
    connection.send(format!("GET /a HTTP/1.1\r\n{fields}\r\n").as_bytes());

    assert_eq!(connection.read_line(), "HTTP/1.1 200 Answer");
    let lines = std::iter::repeat_with(|| connection.read_line());
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    assert!(lines.contains(&"X-ReQuEsT-Id: 7".to_owned()), "{lines:?}");
    let cookies: Vec<_> =
        lines.iter().filter(|line| line.to_lowercase().starts_with("set-cookie")).collect();
    assert_eq!(cookies, ["Set-Cookie: a=1", "set-cookie: b=2", "SET-COOKIE: c=3"]);

    let received = &fake.received_for("/a")[0];
    let ours = received.headers.iter().filter(|(name, _)| !name.starts_with("x-forwarded-"));
    let ours: String = ours.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    assert_eq!(ours, fields);
}

#[test]
fn connection_may_name_only_what_is_hop_by_hop() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let headers = [("Connection", "x-hop, Keep-Alive"), ("X-Hop", "1"), ("X-End", "2")];
    assert_eq!(mediary.client().get_with("/a", &headers).status, 200);
    let passed_on = fake.passed_on();
    assert_eq!((passed_on[0].header("x-hop"), passed_on[0].header("x-end")), (None, Some("2")));

    for named in [
        "Authorization",
        "Host, Content-Length",
        "close, AUTHORIZATION",
        "content-type",
        "X-Forwarded-For",
        "keep-alive ,\tx-forwarded-proto\t",
    ] {
        for target in ["/a", "/_matrix/client/v1/media/config"] {
            let headers = [("Connection", named), ("Authorization", "Bearer a")];
            let answer = mediary.client().get_with(target, &headers);
            answer.assert_error(400, "M_UNKNOWN");
        }
    }
    assert_eq!(fake.passed_on().len(), passed_on.len(), "{:?}", fake.received());
    assert!(fake.received_for("/whoami").is_empty());
}

#[test]
fn forwarded_fields_of_strangers_are_replaced() {
    let fake = recorder();
    let settings = Settings::new(&fake.url).with("[server]\ntrusted_proxies = []");
    let received = claim_to_be_another(&settings.start(), &fake);
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"] {
        let fields = received.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        assert!(fields.count() <= 1, "{received:?}");
    }
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    for name in ["x-forwarded-host", "x-real-ip", "forwarded"] {
        assert_eq!(received.header(name), None, "{name}");
    }
    assert_eq!(received.header("host"), Some("example.org"));
}

#[test]
fn forwarded_fields_of_a_trusted_proxy_are_kept() {
    let fake = recorder();
    let received = claim_to_be_another(&Mediary::in_front_of(&fake.url), &fake);
    let hops = Some("198.51.100.7, 10.0.0.1, 203.0.113.9, 127.0.0.1");
    assert_eq!(received.header("x-forwarded-for"), hops);
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("x-forwarded-host"), Some("public.example"));
    assert_eq!(received.header("host"), Some("example.org"));
}

fn claim_to_be_another(mediary: &Mediary, fake: &FakeHomeserver) -> Received {
    let request = "GET /a HTTP/1.1\r\nHost: example.org\r\n\
                   X-Forwarded-For: 198.51.100.7, 10.0.0.1\r\n\
                   x-forwarded-for: 203.0.113.9\r\n\
                   X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n\
                   X-Real-IP: 198.51.100.7\r\nForwarded: for=198.51.100.7\r\n\r\n";
    assert_eq!(mediary.client().raw(request.as_bytes()).status, 200);
    fake.passed_on().remove(0)
}

/// CS-CORS-02
#[test]
fn a_preflight_outside_the_media_routes_is_the_homeservers() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let answer = mediary.client().request("OPTIONS", "/_matrix/client/v3/sync", &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    assert_eq!(fake.passed_on()[0].method, "OPTIONS");
}

// --- Bodies ------------------------------------------------------------------------------------

/// A homeserver that sends every body back, in chunks if that is asked for.
fn echo() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| match request.target().as_str() {
        "/length" => Some(respond_with(stream, 200, &[], &request.body)),
        "/chunks" => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            Some(stream.write_all(head).and_then(|()| write_chunks(stream, &request.body)).is_ok())
        }
        _ => None,
    })
}

fn write_chunks(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    for chunk in body.chunks(100_003) {
        write!(stream, "{:X}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")
}

fn post_chunks(client: &Client, target: &str, body: &[u8]) -> Answer {
    let mut connection = client.connect();
    let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(head.as_bytes());
    write_chunks(&mut connection.stream, body).expect("the connection takes bytes");
    connection.read_answer("POST")
}

#[test]
fn bodies_of_any_size_pass_unchanged_in_both_directions() {
    let fake = echo();
    let mediary = Mediary::in_front_of(&fake.url);
    for size in [0, 1, 65_535, 65_536, 1_000_003, 50_000_000] {
        let body = noise(size, 1);
        for target in ["/length", "/chunks"] {
            let answer = mediary.client().request("POST", target, &[], &body);
            assert_eq!((answer.status, answer.complete), (200, true), "{target} {size}");
            assert!(answer.body == body, "{target}: {size} bytes came back different");
            let answer = post_chunks(&mediary.client(), target, &body);
            assert_eq!((answer.status, answer.complete), (200, true), "{target} {size} chunked");
            assert!(answer.body == body, "{target}: {size} bytes in chunks came back different");
        }
    }
}

#[test]
fn a_body_keeps_its_framing() {
    let fake = echo();
    let mediary = Mediary::in_front_of(&fake.url);
    let of_length = mediary.client().request("POST", "/length", &[], b"hello");
    assert_eq!(of_length.header("content-length"), Some("5"));
    assert_eq!(of_length.header("transfer-encoding"), None);
    let in_chunks = post_chunks(&mediary.client(), "/chunks", b"hello");
    assert_eq!(in_chunks.header("content-length"), None);
    assert_eq!(in_chunks.header("transfer-encoding"), Some("chunked"));

    let [of_length, in_chunks] = &fake.passed_on()[..] else { panic!("two requests") };
    assert_eq!(of_length.header("content-length"), Some("5"));
    assert_eq!(of_length.header("transfer-encoding"), None);
    assert_eq!(in_chunks.header("content-length"), None);
    assert_eq!(in_chunks.header("transfer-encoding"), Some("chunked"));
}

/// An event stream, say: every chunk counts.
#[test]
fn a_chunk_arrives_before_the_next_was_written() {
    let (release, released) = signal();
    let fake = FakeHomeserver::with(move |request, stream| {
        if request.target() != "/chunks" {
            return None;
        }
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).expect("it reads");
        for chunk in ["5\r\nfirst\r\n", "6\r\nsecond\r\n", "0\r\n\r\n"] {
            wait_for(&released);
            stream.write_all(chunk.as_bytes()).expect("it reads");
        }
        Some(true)
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let mut connection = mediary.client().connect();
    connection.send(b"GET /chunks HTTP/1.1\r\nHost: h\r\n\r\n");
    while !connection.read_line().is_empty() {}
    for chunk in ["5\r\nfirst\r\n", "6\r\nsecond\r\n", "0\r\n\r\n"] {
        release.send(()).expect("the fake waits");
        assert_eq!(connection.read_bytes(chunk.len()), chunk.as_bytes());
    }
}

/// Of an answer whose length is known, no more than a buffer is held back.
#[test]
fn a_large_answer_arrives_while_the_homeserver_is_still_writing_it() {
    const SENT: usize = 1_000_000;
    const HELD_BACK: usize = 16 * 1024;
    let (release, released) = signal();
    let fake = FakeHomeserver::with(move |request, stream| {
        if request.target() != "/length" {
            return None;
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", SENT + 4)
            .expect("it reads");
        stream.write_all(&noise(SENT, 3)).expect("it reads");
        wait_for(&released);
        Some(stream.write_all(b"last").is_ok())
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let mut connection = mediary.client().connect();
    connection.send(b"GET /length HTTP/1.1\r\nHost: h\r\n\r\n");
    while !connection.read_line().is_empty() {}
    let early = connection.read_bytes(SENT - HELD_BACK);
    assert!(early == noise(SENT, 3)[..SENT - HELD_BACK]);
    release.send(()).expect("the fake waits");
    assert!(connection.read_bytes(HELD_BACK + 4).ends_with(b"last"));
}

#[test]
fn the_beginning_of_a_body_arrives_before_its_end_was_sent() {
    let (tell, arrived) = signal();
    let tell = Mutex::new(tell);
    let fake = FakeHomeserver::with_heads(move |request, reader| {
        let is_chunked = match request.target().as_str() {
            "/chunks" => true,
            "/length" => false,
            _ => return None,
        };
        let mut body = Vec::new();
        while body.len() < 10 {
            let mut part = [0; 5];
            if is_chunked {
                reader.read_until(b'\n', &mut Vec::new()).expect("the size of a chunk");
            }
            reader.read_exact(&mut part).expect("a half of the body");
            if is_chunked {
                reader.read_until(b'\n', &mut Vec::new()).expect("the end of a chunk");
            }
            body.extend(part);
            tell.lock().expect("the signal").send(()).expect("the test waits");
        }
        assert_eq!(body, b"helloworld");
        // Or the next request might go to a connection that is about to close.
        respond_with(reader.get_mut(), 200, &[("Connection", "close")], b"{}");
        Some(false)
    });
    let mediary = Mediary::in_front_of(&fake.url);
    for (target, framing, first, rest) in [
        ("/length", "Content-Length: 10", "hello", "world"),
        ("/chunks", "Transfer-Encoding: chunked", "5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"),
    ] {
        let mut connection = mediary.client().connect();
        let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{first}");
        connection.send(head.as_bytes());
        wait_for(&arrived);
        connection.send(rest.as_bytes());
        wait_for(&arrived);
        assert_eq!(connection.read_answer("POST").status, 200, "{target}");
    }
}

#[test]
fn a_client_that_expects_100_waits_for_the_homeservers_word() {
    let fake = FakeHomeserver::with_heads(|request, reader| {
        match request.target().as_str() {
            "/welcome" => {
                let mut request = request.clone();
                assert_eq!(request.header("expect"), Some("100-continue"));
                reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("it reads");
                read_body(&mut request, reader).expect("a body");
                respond_with(reader.get_mut(), 200, &[], &request.body);
            }
            "/refused" => {
                respond(reader.get_mut(), 413, r#"{"errcode":"M_TOO_LARGE","error":"No"}"#);
            }
            _ => return None,
        }
        Some(false)
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let ask = |target: &str| {
        let mut connection = mediary.client().connect();
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        );
        connection.send(head.as_bytes());
        connection
    };
    let mut connection = ask("/welcome");
    assert_eq!(connection.read_any_answer("PUT").status, 100);
    connection.send(b"hello");
    let answer = connection.read_any_answer("PUT");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));

    let answer = ask("/refused").read_any_answer("PUT");
    assert_eq!((answer.status, answer.errcode().as_str()), (413, "M_TOO_LARGE"));
}

#[test]
fn a_web_socket_is_opened_and_carries_bytes_both_ways() {
    let fake = FakeHomeserver::with(|request, stream| {
        if request.target() != "/socket" {
            return None;
        }
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9k\r\n\r\nwelcome";
        stream.write_all(switch).expect("it reads");
        let mut bytes = [0; 5];
        while stream.read_exact(&mut bytes).is_ok() {
            bytes.reverse();
            stream.write_all(&bytes).expect("it reads");
        }
        Some(false)
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let mut connection = mediary.client().connect();
    connection.send(
        b"GET /socket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = connection.read_any_answer("GET");
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9k"));
    assert_eq!(connection.read_bytes(7), b"welcome");
    for (sent, expected) in [(b"hello", b"olleh"), (b"\0\xff\r\n\x01", b"\x01\n\r\xff\0")] {
        connection.send(sent);
        assert_eq!(connection.read_bytes(5), expected);
    }
}

// --- The homeserver's end ----------------------------------------------------------------------

/// The time-out ends a question of Mediary's own while the client's is still waited for.
#[test]
fn a_long_poll_outlasts_every_time_out() {
    let (release, released) = signal();
    let fake = FakeHomeserver::with(move |request, stream| {
        if request.target().ends_with("/whoami") {
            // Until the other side closes.
            let _ = stream.read(&mut [0]);
            return Some(false);
        }
        request.target().starts_with("/_matrix/client/v3/sync").then(|| {
            wait_for(&released);
            respond(stream, 200, r#"{"next_batch":"s1"}"#)
        })
    });
    let settings = Settings::new(&fake.url).with("[homeserver]\ntimeout = \"200ms\"");
    let mediary = settings.start();
    let mut poll = mediary.client().connect();
    poll.send(b"GET /_matrix/client/v3/sync?timeout=30000 HTTP/1.1\r\nHost: h\r\n\r\n");
    common::wait_until("the poll has arrived", || !fake.received_for("/sync").is_empty());

    let other = mediary.client().with_token(TOKEN).get("/_matrix/client/v1/media/config");
    assert_eq!(other.status, 504, "{other:?}");
    release.send(()).expect("the fake waits");
    let answer = poll.read_answer("GET");
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"next_batch":"s1"}"#));
}

/// Now and then Pingora makes a new one, when it takes one up that another thread just put away.
#[test]
fn connections_to_the_homeserver_are_used_again() {
    const REQUESTS: usize = 50;
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let mut connection = mediary.client().connect();
    for _ in 0..REQUESTS {
        connection.send(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(connection.read_answer("GET").status, 200);
    }
    assert!(fake.connections() < REQUESTS / 2, "{} connections", fake.connections());
}

/// Carries bytes between a Unix socket and the fake, as a homeserver on a Unix socket would.
fn listen_on_unix_socket(listener: UnixListener, fake: &FakeHomeserver) {
    let address = fake.address;
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a connection");
            let mut server = TcpStream::connect(address).expect("the fake listens");
            let mut client_reads = client.try_clone().expect("a clone of the socket");
            let mut server_reads = server.try_clone().expect("a clone of the socket");
            thread::spawn(move || {
                let _ = std::io::copy(&mut client_reads, &mut server);
                let _ = server.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = std::io::copy(&mut server_reads, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
}

#[test]
fn a_homeserver_on_a_unix_socket_is_reached() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("homeserver.sock");
    let fake = echo();
    listen_on_unix_socket(UnixListener::bind(&socket).expect("a Unix socket"), &fake);
    let mediary = Mediary::in_front_of(&format!("unix:{}", socket.display()));
    let body = noise(1_000_000, 2);
    let answer = mediary.client().request("POST", "/length", &[], &body);
    assert!(answer.status == 200 && answer.body == body);
    assert_eq!(fake.passed_on()[0].header("host"), Some(mediary.address.to_string().as_str()));

    let config = mediary.client().with_token(TOKEN).get("/_matrix/client/v1/media/config");
    assert_eq!(config.status, 200, "{config:?}");
}

#[test]
fn a_homeserver_that_is_down_is_502_until_it_is_up_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("homeserver.sock");
    let settings = Settings::new(&format!("unix:{}", socket.display())).without_waiting();
    let mediary = settings.with("[homeserver]\nserver_name = \"fake.example\"").start();
    for (method, target) in [
        ("GET", "/_matrix/client/v3/sync"),
        ("POST", "/_matrix/client/v3/login"),
        ("PUT", "/_matrix/federation/v1/send/1"),
    ] {
        let body: &[u8] = if method == "GET" { b"" } else { b"{}" };
        let answer = mediary.client().request(method, target, &[], body);
        answer.assert_error(502, "M_UNKNOWN");
        assert!(answer.complete);
    }

    let fake = recorder();
    listen_on_unix_socket(UnixListener::bind(&socket).expect("a Unix socket"), &fake);
    assert_eq!(mediary.client().get("/_matrix/client/v3/sync").status, 200);
}

#[test]
fn a_homeserver_whose_port_is_closed_is_502() {
    let settings = Settings::new("http://127.0.0.1:1").without_waiting();
    let answer = settings.start().client().get("/_matrix/client/v3/sync");
    answer.assert_error(502, "M_UNKNOWN");
}

#[test]
fn a_homeserver_that_closes_without_an_answer_is_502() {
    let fake = FakeHomeserver::with(|request, _| (!request.is_mediarys_own()).then_some(false));
    let mediary = Mediary::in_front_of(&fake.url);
    mediary.client().get("/get").assert_error(502, "M_UNKNOWN");
    mediary.client().request("POST", "/post", &[], b"{}").assert_error(502, "M_UNKNOWN");
    assert_eq!(fake.received_for("/post").len(), 1, "it may have done its work");
}

#[test]
fn a_homeserver_that_answers_nonsense_is_502() {
    let fake = FakeHomeserver::with(|request, stream| {
        (!request.is_mediarys_own()).then(|| {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
            false
        })
    });
    let mediary = Mediary::in_front_of(&fake.url);
    mediary.client().request("POST", "/a", &[], b"{}").assert_error(502, "M_UNKNOWN");
}

#[test]
fn an_answer_that_breaks_off_does_not_look_complete() {
    let fake = FakeHomeserver::with(|request, stream| {
        let part: &[u8] = match request.target().as_str() {
            "/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst",
            _ => return None,
        };
        let _ = stream.write_all(part);
        Some(false)
    });
    let mediary = Mediary::in_front_of(&fake.url);
    for target in ["/chunks", "/length"] {
        let answer = mediary.client().get(target);
        assert_eq!((answer.status, answer.complete), (200, false), "{target}: {answer:?}");
    }
}

// --- What never goes up ------------------------------------------------------------------------

#[test]
fn no_spelling_of_a_media_path_reaches_the_homeserver() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for path in [
        // AU-11
        "//_matrix/client/v1/media/download/s/m",
        "/_matrix//media/v3/download/s/m",
        "/./_matrix/media/v3/download/s/m",
        "/_matrix/x/../media/v3/download/s/m",
        "/_matrix/client/v1/../v1/media/config",
        "/_matrix/client/v1//media/config",
        "/x/../_matrix/media/v3/config",
        "/../_matrix/media/v3/config",
        // AU-12
        "/%5fmatrix/media/v3/config",
        "/_matrix%2fmedia/v3/config",
        "/_matrix%2Fmedia%2Fv3%2Fupload",
        "/%5Fmatrix%2f%6dedia/v3/upload",
        "/_matrix/med%69a/v3/upload",
        "/_matrix/%2e%2e/_matrix/media/v3/upload",
        "/_MATRIX/media/v3/upload",
        "/_matrix/Media/v3/upload",
        "/_matrix/client/V1/media/config",
        "/_matrix\\media\\v3\\upload",
        "/_matrix/federation/%761/media/download/x",
        // AU-13
        "/_matrix/media/v3/download/s/m;x=y",
        "/_matrix/media/v3/download/s/m/",
        "/_matrix/media/v3/download/s/m/n/o",
        "/_matrix/media/v3/upload/",
        "/_matrix/media/v3/upload;x",
        "/_matrix/media/v1/createX",
        "/_matrix;a=b/media/v3/upload",
        "/_matrix/media;a/v3/upload",
        // AU-14
        "/_matrix/media",
        "/_matrix/media/",
        "/_matrix/media/v9/x",
        "/_matrix/media/v3",
        "/_matrix/media/unstable/x",
        "/_matrix/media/unstable/fi.mau.msc2246/create",
        "/_matrix/client/v1/media",
        "/_matrix/client/v1/media/upload",
        "/_matrix/client/unstable/org.matrix.msc3916/media/x",
        "/_matrix/federation/v1/media",
        "/_matrix/federation/v1/media/x",
        "/_matrix/federation/unstable/org.matrix.msc3916.v2/media/x",
    ] {
        for method in ["GET", "HEAD", "POST", "PUT"] {
            let answer = mediary.client().request(method, &format!("{path}?a=b"), &[], b"");
            assert!((400..=405).contains(&answer.status), "{method} {path}: {answer:?}");
            if method != "HEAD" {
                assert!(answer.errcode().starts_with("M_"), "{method} {path}: {answer:?}");
            }
        }
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

/// CS-GEN-05, CS-GEN-06, CS-CORS-02, CS-CORS-03, FLD-32
#[test]
fn unknown_routes_and_methods_and_preflights_are_answered_without_the_homeserver() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    for path in ["/_matrix/media/v3/nonsense", "/_matrix/client/v1/media/nonsense"] {
        client.get(path).assert_error(404, "M_UNRECOGNIZED");
    }
    for (path, methods, allow) in [
        ("/_matrix/media/v3/upload", ["GET", "PUT", "DELETE", "post"], "POST, OPTIONS"),
        (
            "/_matrix/client/v1/media/download/a/b",
            ["POST", "DELETE", "TRACE", "get"],
            "GET, HEAD, OPTIONS",
        ),
        ("/_matrix/media/v3/config", ["POST", "PATCH", "BREW", "Get"], "GET, HEAD, OPTIONS"),
    ] {
        for method in methods {
            let answer = client.request(method, path, &[], b"");
            answer.assert_error(405, "M_UNRECOGNIZED");
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        }
        for headers in [&[][..], &[("Origin", "https://app.example")]] {
            let answer = client.request("OPTIONS", path, headers, b"");
            assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        }
    }
    let connect = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n";
    assert!((400..=405).contains(&client.raw(connect).status));
    assert_eq!(fake.received_for("whoami").len(), 0, "{:?}", fake.received());
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

#[test]
fn a_request_for_no_host_or_two_or_another_is_400() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for path in ["/_matrix/client/v3/sync", "/_matrix/client/v1/media/config"] {
        for request in [
            format!("GET {path} HTTP/1.1\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
            format!("GET http://other{path} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET http://a{path} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET //other{path} HTTP/2.0\r\nHost: a\r\n\r\n"),
            format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", path.trim_start_matches('/')),
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        ] {
            assert_eq!(mediary.client().raw(request.as_bytes()).status, 400, "{request}");
        }
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

/// A second request that hides behind the end of the first.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// Sends a POST with these header lines and this body, and [`HIDDEN`] right behind it; returns the
/// answer after the connection was closed.
fn smuggle(mediary: &Mediary, target: &str, headers: &str, body: &str) -> Answer {
    let mut connection = mediary.client().connect();
    let request = format!("POST {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}{HIDDEN}");
    // Whoever refuses early may close before all is written.
    let _ = connection.stream.write_all(request.as_bytes());
    let answer = connection.read_answer("POST");
    assert!(connection.is_closed(), "the connection stays open after {headers:?} {body:?}");
    answer
}

#[test]
fn a_length_that_is_not_one_number_is_400_and_hides_no_request() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "content-length: 6\r\nCONTENT-LENGTH: 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5,5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length: \r\n",
    ] {
        for target in ["/outer", "/_matrix/media/v3/upload"] {
            let answer = smuggle(&mediary, target, lengths, "hello");
            assert_eq!(answer.status, 400, "{target} {lengths:?}: {answer:?}");
        }
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

#[test]
fn a_transfer_coding_other_than_chunked_is_400_and_hides_no_request() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for codings in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        for target in ["/outer", "/_matrix/media/v3/upload"] {
            let answer = smuggle(&mediary, target, codings, "0\r\n\r\n");
            assert_eq!(answer.status, 400, "{target} {codings:?}: {answer:?}");
        }
    }
    for keep in ["", "Connection: keep-alive\r\n"] {
        let request = format!(
            "POST /outer HTTP/1.0\r\nHost: h\r\n{keep}Transfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\n{HIDDEN}"
        );
        assert_eq!(mediary.client().raw(request.as_bytes()).status, 400, "{keep:?}");
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

#[test]
fn chunks_beside_a_length_win_and_hide_no_request() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let framings = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "tRANSFER-eNCODING: CHUNKED\r\ncONTENT-lENGTH: 3\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ];
    for framing in framings {
        let answer = smuggle(&mediary, "/outer", framing, "5\r\nhello\r\n0\r\n\r\n");
        assert!(matches!(answer.status, 200 | 400), "{framing:?}: {answer:?}");
        let answer =
            smuggle(&mediary, "/_matrix/media/v3/upload", framing, "5\r\nhello\r\n0\r\n\r\n");
        assert!(matches!(answer.status, 400 | 401), "{framing:?}: {answer:?}");
    }
    for request in fake.passed_on() {
        assert_eq!((request.target().as_str(), &request.body[..]), ("/outer", &b"hello"[..]));
        assert_eq!(request.header("content-length"), None, "{request:?}");
        let codings = request
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
        assert_eq!(codings.count(), 1, "{request:?}");
    }
}

#[test]
fn broken_chunks_are_400_and_hide_no_request() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let long_extension = format!("5;ext={}\r\nhello\r\n0\r\n\r\n", "a".repeat(1 << 20));
    for chunks in [
        "-1\r\nab\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nab\r\n0\r\n\r\n",
        "fffffffffffffffff0\r\nab\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhelloXX0\r\n\r\n",
        &long_extension,
    ] {
        let answer = smuggle(&mediary, "/outer", "Transfer-Encoding: chunked\r\n", chunks);
        let shown = &chunks[..chunks.len().min(40)];
        assert_eq!(answer.status, 400, "{shown:?}: {answer:?}");
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

/// Pingora takes an empty line for the last chunk, and lets a trailer section hold anything.
#[test]
fn what_follows_the_last_chunk_is_dropped() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for (chunks, body) in [
        ("5\r\nhello\r\n0\r\nX-Trailer: a\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0\r\nabc\r\n\r\n", "hello"),
        ("5\r\nhello\r\n\r\n5\r\nworld\r\n0\r\n\r\n", "hello"),
        ("\r\n5\r\nhello\r\n0\r\n\r\n", ""),
    ] {
        let answer = smuggle(&mediary, "/outer", "Transfer-Encoding: chunked\r\n", chunks);
        assert_eq!(answer.status, 200, "{chunks:?}: {answer:?}");
        let passed_on = fake.passed_on();
        let received = passed_on.last().expect("a request");
        assert_eq!(String::from_utf8_lossy(&received.body), body, "{chunks:?}");
        assert_eq!((received.header("x-trailer"), received.header("content-length")), (None, None));
    }
    assert!(fake.passed_on().iter().all(|request| request.target() == "/outer"));
}

#[test]
fn nothing_is_forwarded_behind_an_upgrade_that_was_not_granted() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for (target, upgrade) in [
        ("/outer", "Upgrade: x\r\n"),
        ("/outer", "Upgrade: x\r\nConnection: Upgrade\r\n"),
        ("/outer", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        ("/outer", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"),
        ("/_matrix/media/v3/upload", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    ] {
        let answer = smuggle(&mediary, target, upgrade, "");
        let expected = if target == "/outer" { 200 } else { 401 };
        assert_eq!(answer.status, expected, "{upgrade:?}: {answer:?}");
    }
    assert!(fake.passed_on().iter().all(|request| request.target() == "/outer"));
}

#[test]
fn a_request_in_the_body_of_another_is_never_answered() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    let headers = format!("Content-Length: {}\r\n", HIDDEN.len());
    for (method, target, status) in [
        ("GET", "/_matrix/client/v1/media/config", 401),
        ("HEAD", "/_matrix/client/v1/media/config", 401),
        ("OPTIONS", "/_matrix/client/v1/media/config", 204),
        ("POST", "/_matrix/client/v1/media/config", 405),
        ("GET", "/_matrix/media/v3/nonsense", 404),
        ("GET", "/outer", 200),
        ("HEAD", "/outer", 200),
    ] {
        let mut connection = mediary.client().connect();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        connection.send(format!("{head}{HIDDEN}").as_bytes());
        let answer = connection.read_answer(method);
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        // The next request on the connection gets its own answer, or there is none.
        let _ = connection.stream.write_all(b"GET /_matrix/media/next HTTP/1.1\r\nHost: h\r\n\r\n");
        let next = connection.read_answer("GET");
        assert!(matches!(next.status, 0 | 404), "{method} {target}: {next:?}");
    }
    assert!(fake.passed_on().iter().all(|request| request.target() == "/outer"));
}

#[test]
fn malformed_header_fields_are_400() {
    let fake = recorder();
    let mediary = Mediary::in_front_of(&fake.url);
    for field in [
        "A: b\0c\r\n",
        "A: b\rc\r\n",
        "A: b\rX-Hidden: c\r\n",
        "A: b\r\n c\r\n",
        "A: b\r\n\tc\r\n",
        "A : b\r\n",
        "A\t: b\r\n",
        ": b\r\n",
        "A\r\n",
        "A b: c\r\n",
        "A(: c\r\n",
    ] {
        for target in ["/outer", "/_matrix/media/v3/upload"] {
            let answer = smuggle(&mediary, target, field, "");
            assert_eq!(answer.status, 400, "{target} {field:?}: {answer:?}");
        }
    }
    assert!(fake.passed_on().is_empty(), "{:?}", fake.passed_on());
}

// --- In front of a real homeserver -------------------------------------------------------------

fn call(client: &Client, method: &str, target: &str, body: &Value) -> Value {
    let body = if method == "GET" { String::new() } else { body.to_string() };
    let answer =
        client.request(method, target, &[("Content-Type", "application/json")], body.as_bytes());
    assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
    answer.json()
}

fn log_in(mediary: &Mediary, user: &User) -> Client {
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": user.password,
    });
    let session = call(&mediary.client(), "POST", "/_matrix/client/v3/login", &login);
    mediary.client().with_token(session["access_token"].as_str().expect("a token"))
}

fn next_batch(sync: &Value) -> &str {
    sync["next_batch"].as_str().expect("a next_batch")
}

#[test]
fn a_client_of_the_homeserver_notices_nothing() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let alice = log_in(&mediary, &synapse.user());
    let bob_user = synapse.user();
    let bob = log_in(&mediary, &bob_user);

    let room = json!({"preset": "private_chat", "invite": [bob_user.user_id]});
    let room = call(&alice, "POST", "/_matrix/client/v3/createRoom", &room);
    let room = room["room_id"].as_str().expect("a room id").replace('!', "%21");
    let sync = call(&bob, "GET", "/_matrix/client/v3/sync", &json!({}));
    assert_eq!(sync["rooms"]["invite"].as_object().expect("invites").len(), 1, "{sync}");
    call(&bob, "POST", &format!("/_matrix/client/v3/join/{room}"), &json!({}));

    // Bob waits for what comes next before it was sent.
    let joined = room.replace("%21", "!");
    let waiting = thread::spawn(move || next_message(&bob, &joined, next_batch(&sync)));
    common::wait_until("bob waits", || mediary.metric("mediary_requests_in_flight") > 0.0);
    let message =
        json!({"msgtype": "m.text", "body": "Hyv\u{e4}\u{e4} p\u{e4}iv\u{e4}\u{e4} \u{1f408}"});
    let target = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/%24txn%2F1");
    let sent = call(&alice, "PUT", &target, &message);

    let event = waiting.join().expect("bob's message");
    assert_eq!((&event["event_id"], &event["content"]), (&sent["event_id"], &message));
}

/// Polls until a message arrives in a room, as clients do.
fn next_message(client: &Client, room: &str, since: &str) -> Value {
    let mut since = since.to_owned();
    loop {
        let target = format!("/_matrix/client/v3/sync?timeout=30000&since={since}");
        let sync = call(client, "GET", &target, &json!({}));
        let events = sync["rooms"]["join"][room]["timeline"]["events"].as_array();
        let mut messages = events.into_iter().flatten().filter(|e| e["type"] == "m.room.message");
        if let Some(message) = messages.next() {
            return message.clone();
        }
        assert_ne!(next_batch(&sync), since, "nothing came");
        since = next_batch(&sync).to_owned();
    }
}

/// CS-VER-01, CS-VER-02, CS-VER-04
#[test]
fn versions_and_errors_are_the_homeservers_own() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    for (through, direct) in
        [(mediary.client(), synapse.client()), (mediary.client_of(&user), synapse.client_of(&user))]
    {
        for target in [
            "/_matrix/client/versions",
            "/_matrix/client/v3/account/whoami",
            "/_matrix/client/v3/capabilities",
            "/_matrix/client/v3/profile/%40nobody%3A",
            "/_matrix/client/v3/nonsense",
            "/nonsense",
        ] {
            let [through, direct] = [&through, &direct].map(|client| {
                let mut answer = client.get_with(target, &[("Origin", "https://app.example")]);
                answer.headers.retain(|(name, _)| !matches!(name.as_str(), "date" | "connection"));
                answer.headers.sort();
                (answer.status, answer.headers, String::from_utf8_lossy(&answer.body).into_owned())
            });
            assert_eq!(through, direct, "{target}");
        }
    }
}
