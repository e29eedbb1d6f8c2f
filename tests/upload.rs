//! Uploads: bytes, types, names, limits, and that nothing stays of those that fail (checklist
//! section 5, threats RX-05 to RX-07).

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::http::{Answer, Connection, chunk};
use common::{Client, FakeHomeserver, Mediary, Settings, Synapse, User, noise, wait_until};

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// The limit of the tests that need a small one.
const LIMIT: usize = 1000;

fn limited(synapse: &Synapse) -> Mediary {
    Settings::new(&synapse.url).with("[uploads]\nmax_size = \"1000 B\"").start()
}

/// Opens a connection and sends the head of an upload; `fields` end in CRLF each.
fn begin(mediary: &Mediary, user: &User, fields: &str) -> Connection {
    let mut connection = mediary.client().connect();
    let token = &user.access_token;
    let head = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{fields}\r\n"
    );
    connection.send(head.as_bytes());
    connection
}

/// Uploads without a length, in pieces of some size.
fn upload_chunked(mediary: &Mediary, user: &User, body: &[u8], piece: usize) -> Answer {
    let mut connection = begin(mediary, user, "Transfer-Encoding: chunked\r\n");
    for bytes in body.chunks(piece) {
        connection.send(&chunk(bytes));
    }
    connection.send(b"0\r\n\r\n");
    connection.read_answer("POST")
}

/// How many uploads have been answered or given up.
fn ended_uploads(mediary: &Mediary) -> f64 {
    let statuses = ["2xx", "4xx", "5xx", "none"];
    let series =
        statuses.map(|s| format!("mediary_requests_total{{route=\"upload\",status=\"{s}\"}}"));
    series.iter().map(|series| mediary.metric(series)).sum()
}

/// Waits until so many uploads have ended and asserts that nothing stayed of them.
fn assert_nothing_stays(mediary: &Mediary, uploads: u32) {
    wait_until("the uploads have ended", || ended_uploads(mediary) >= f64::from(uploads));
    wait_until("the unfinished bodies are gone", || mediary.unfinished().is_empty());
    assert!(mediary.blobs().is_empty(), "{:?}", mediary.blobs());
    let database = rusqlite::Connection::open(mediary.store().join("mediary.db"));
    let database = database.expect("the database can be opened");
    for table in ["blob", "media"] {
        let count = format!("SELECT count(*) FROM {table}");
        let rows: i64 = database.query_row(&count, [], |row| row.get(0)).expect("a number");
        assert_eq!(rows, 0, "rows in {table}");
    }
}

/// CS-UP-01, CS-UP-03, CS-UP-04, CS-UP-09, CS-HDR-04, CS-GEN-01, CS-PATH-02, CS-PATH-03, FLD-11
#[test]
fn type_and_name_are_kept_under_every_prefix() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    for prefix in ["/_matrix/media/v3", "/_matrix/media/r0", "/_matrix/media/v1"] {
        let answer = client.request(
            "POST",
            &format!("{prefix}/upload?filename=my%20cat%20%F0%9F%90%88.png"),
            &[("Content-Type", "image/png; x=y")],
            b"not really a cat",
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let media = answer.media();
        assert!(media.starts_with(&format!("{}/", synapse.server_name)), "{media}");
        let answer = client.download(&media);
        assert_eq!((answer.status, answer.text().as_str()), (200, "not really a cat"));
        assert_eq!(answer.header("content-type"), Some("image/png; x=y"));
        assert_eq!(
            answer.header("content-disposition"),
            Some("inline; filename*=utf-8''my%20cat%20%F0%9F%90%88.png")
        );
    }
}

/// CS-UP-02
#[test]
fn without_a_type_it_is_octet_stream() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let media = client.request("POST", UPLOAD, &[], b"whatever").media();
    let answer = client.download(&media);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
}

/// CS-UP-08, FLD-17
#[test]
fn a_body_without_a_length_is_taken_however_it_is_cut() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    for (length, piece) in [(0, 1), (1, 1), (300, 1), (65_537, 4096), (1_500_000, 300_000)] {
        let body = noise(length, length as u64);
        let media = upload_chunked(&mediary, &user, &body, piece).media();
        let answer = mediary.client_of(&user).download(&media);
        assert!(answer.status == 200 && answer.body == body, "{length} bytes in {piece}s");
    }
    assert!(mediary.unfinished().is_empty());
}

#[test]
fn one_connection_takes_uploads_one_after_the_other() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let mut connection = begin(&mediary, &user, "Content-Length: 5\r\n");
    connection.send(b"first");
    let first = connection.read_answer("POST").media();
    let head = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n",
        user.access_token
    );
    connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
    connection.send(b"6\r\nsecond\r\n0\r\n\r\n");
    let second = connection.read_answer("POST").media();
    let client = mediary.client_of(&user);
    assert_eq!(client.download(&first).text(), "first");
    assert_eq!(client.download(&second).text(), "second");
}

#[test]
fn what_follows_the_announced_end_is_not_part_of_the_file() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let mut connection = begin(&mediary, &user, "Content-Length: 4\r\nConnection: close\r\n");
    connection.send(b"fileGET /_matrix/client/versions HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let media = connection.read_answer("POST").media();
    assert!(connection.is_closed(), "what came after the last request was answered");
    assert_eq!(mediary.client_of(&user).download(&media).text(), "file");
}

/// CS-UP-06, CS-CFG-03
#[test]
fn a_body_of_exactly_the_limit_is_taken() {
    let synapse = Synapse::get();
    let mediary = limited(&synapse);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let body = noise(LIMIT, 1);
    let announced = client.request("POST", UPLOAD, &[], &body).media();
    let chunked = upload_chunked(&mediary, &user, &body, 333).media();
    for media in [announced, chunked] {
        assert!(client.download(&media).body == body);
    }
    let config = client.get("/_matrix/client/v1/media/config");
    assert_eq!(config.json()["m.upload.size"], LIMIT);
}

/// CS-UP-06, CS-LIM-01
#[test]
fn an_announced_size_over_the_limit_is_refused_before_the_body_is_sent() {
    let synapse = Synapse::get();
    let mediary = limited(&synapse);
    let user = synapse.user();
    let ten_tib = 10_u64 << 40;
    for length in [LIMIT as u64 + 1, ten_tib, u64::MAX] {
        let mut connection = begin(&mediary, &user, &format!("Content-Length: {length}\r\n"));
        connection.read_answer("POST").assert_error(413, "M_TOO_LARGE");
    }
    assert_nothing_stays(&mediary, 3);
}

/// CS-UP-06
#[test]
fn a_client_that_waits_to_send_is_told_to_or_refused_at_once() {
    let synapse = Synapse::get();
    let mediary = limited(&synapse);
    let user = synapse.user();
    let expecting = |length| format!("Content-Length: {length}\r\nExpect: 100-continue\r\n");

    let mut refused = begin(&mediary, &user, &expecting(LIMIT + 1));
    let answer = refused.read_any_answer("POST");
    answer.assert_error(413, "M_TOO_LARGE");
    assert_eq!(answer.header("connection"), Some("close"), "the body could be the next request");
    drop(refused);
    assert_nothing_stays(&mediary, 1);

    let mut taken = begin(&mediary, &user, &expecting(4));
    assert_eq!(taken.read_any_answer("POST").status, 100);
    taken.send(b"body");
    let media = taken.read_any_answer("POST").media();
    assert_eq!(mediary.client_of(&user).download(&media).text(), "body");
}

/// CS-UP-06, CS-UP-08, CS-LIM-01
#[test]
fn a_chunked_body_is_refused_at_the_first_byte_over_the_limit() {
    let synapse = Synapse::get();
    let mediary = limited(&synapse);
    let user = synapse.user();
    // Without its end: the answer does not wait for it.
    let mut connection = begin(&mediary, &user, "Transfer-Encoding: chunked\r\n");
    connection.send(&chunk(&noise(LIMIT, 1)));
    connection.send(&chunk(b"x"));
    connection.read_answer("POST").assert_error(413, "M_TOO_LARGE");
    drop(connection);
    assert_nothing_stays(&mediary, 1);
}

#[test]
fn a_client_that_sends_all_of_a_refused_body_reads_why() {
    let synapse = Synapse::get();
    let mediary = limited(&synapse);
    let user = synapse.user();
    let body = noise(20_000_000, 1);

    let announced = format!("Content-Length: {}\r\n", body.len());
    let mut connection = begin(&mediary, &user, &announced);
    connection.stream.write_all(&body).expect("the refused body is still read");
    connection.read_answer("POST").assert_error(413, "M_TOO_LARGE");

    let mut connection = begin(&mediary, &user, "Transfer-Encoding: chunked\r\n");
    for piece in body.chunks(100_000) {
        connection.stream.write_all(&chunk(piece)).expect("the refused body is still read");
    }
    connection.send(b"0\r\n\r\n");
    connection.read_answer("POST").assert_error(413, "M_TOO_LARGE");

    // Refused for its token, not for its size: the same holds.
    let mut stranger = mediary.client().connect();
    let head = format!("POST {UPLOAD} HTTP/1.1\r\nHost: a\r\n{announced}\r\n");
    stranger.send(head.as_bytes());
    stranger.stream.write_all(&body).expect("the refused body is still read");
    stranger.read_answer("POST").assert_error(401, "M_MISSING_TOKEN");
    assert_nothing_stays(&mediary, 3);
}

#[test]
fn a_body_that_ends_early_leaves_nothing() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let half = noise(600_000, 1);
    let mut ended = 0;
    for framing in ["Content-Length: 1200000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let is_chunked = framing.starts_with("Transfer");
        let sent = if is_chunked { chunk(&half) } else { half.clone() };
        // Closed altogether, and closed for writing only.
        let mut gone = begin(&mediary, &user, framing);
        gone.send(&sent);
        drop(gone);
        let mut half_closed = begin(&mediary, &user, framing);
        half_closed.send(&sent);
        half_closed.stream.shutdown(Shutdown::Write).unwrap();
        let answer = half_closed.read_answer("POST");
        assert!(matches!(answer.status, 0 | 400), "{answer:?}");
        ended += 2;
        assert_nothing_stays(&mediary, ended);
    }
}

#[test]
fn a_broken_chunk_leaves_nothing() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let broken: [&[u8]; 5] = [
        b"zz\r\n",
        b"-1\r\nx\r\n",
        b"ffffffffffffffffff\r\nx",
        b"3\r\nfileextra",
        b"3\nabc\n0\n\n",
    ];
    for bytes in broken {
        let mut connection = begin(&mediary, &user, "Transfer-Encoding: chunked\r\n");
        connection.send(&chunk(b"a good beginning"));
        connection.send(bytes);
        connection.stream.shutdown(Shutdown::Write).unwrap();
        let answer = connection.read_answer("POST");
        assert!(matches!(answer.status, 0 | 400), "{:?}: {answer:?}", bytes.escape_ascii());
    }
    assert_nothing_stays(&mediary, broken.len() as u32);
}

/// CS-UP-09
#[test]
fn a_form_is_stored_as_it_came_in_constant_memory() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let mut form = b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n".to_vec();
    form.extend(noise(45_000_000, 1));
    form.extend_from_slice(b"\r\n--b--\r\n");
    let content_type = "multipart/form-data; boundary=b";
    let client = mediary.client_of(&user);
    client.upload("text/plain", None, b"warm");
    let before = peak_memory(&mediary);
    let media = client.upload(content_type, None, &form);
    let grown = peak_memory(&mediary) - before;
    assert!(grown < 16 << 20, "{grown} bytes for one upload");
    let answer = client.download(&media);
    assert_eq!(answer.header("content-type"), Some(content_type));
    assert!(answer.complete && answer.body == form);
    let grown = peak_memory(&mediary) - before;
    assert!(grown < 16 << 20, "{grown} bytes for one upload and one download");
}

/// Returns the most memory that the process has had, in bytes.
fn peak_memory(mediary: &Mediary) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mediary.pid()));
    let status = status.expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("a number of kB");
    number.parse::<u64>().expect("a number") * 1024
}

/// CS-UP-10
#[test]
fn the_same_bytes_of_two_users_are_one_file_and_two_uris() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let [alice, bob] = [(); 2].map(|()| mediary.client_of(&synapse.user()));
    let body = noise(100_000, 1);
    let first = alice.upload("image/png", Some("a.png"), &body);
    let second = bob.upload("text/plain", Some("b.txt"), &body);
    assert_ne!(first, second);
    assert_eq!(mediary.blobs().len(), 1);
    for client in [&alice, &bob] {
        let [one, other] = [client.download(&first), client.download(&second)];
        assert!(one.body == body && other.body == body);
        assert_eq!(one.header("content-disposition"), Some("inline; filename=a.png"));
        assert_eq!(other.header("content-disposition"), Some("inline; filename=b.txt"));
        assert_eq!(other.header("content-type"), Some("text/plain"));
    }
}

#[test]
fn twenty_uploads_at_once_all_come_back() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let body = |number: usize| noise(number * 50_000, number as u64);
    let uploads: Vec<String> = thread::scope(|scope| {
        let upload = |number| client.upload("application/octet-stream", None, &body(number));
        let threads: Vec<_> = (0..20).map(|number| scope.spawn(move || upload(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, media) in uploads.iter().enumerate() {
        let answer = client.download(media);
        assert!(answer.complete && answer.body == body(number), "upload {number}");
    }
    assert_eq!(mediary.blobs().len(), 20);
    assert!(mediary.unfinished().is_empty());
}

#[test]
fn a_known_user_can_upload_while_the_homeserver_is_down() {
    let is_down = Arc::new(AtomicBool::new(false));
    let switch = is_down.clone();
    let fake = FakeHomeserver::with(move |_, _| switch.load(Ordering::Relaxed).then_some(false));
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(common::fake::TOKEN);
    client.upload("text/plain", None, b"the token is known from here on");
    is_down.store(true, Ordering::Relaxed);
    let media = client.upload("text/plain", None, b"written in the dark");
    assert_eq!(client.download(&media).text(), "written in the dark");
    let stranger = mediary.client().with_token("unheard-of");
    stranger.request("POST", UPLOAD, &[], b"body").assert_error(502, "M_UNKNOWN");
    assert_eq!(mediary.blobs().len(), 2);
}

/// CS-GEN-06
#[test]
fn only_post_uploads() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client: Client = mediary.client().with_token(common::fake::TOKEN);
    for method in ["GET", "PUT", "DELETE", "PATCH", "post"] {
        let answer = client.request(method, UPLOAD, &[], b"");
        answer.assert_error(405, "M_UNRECOGNIZED");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"), "{method}");
    }
    let head = client.request("HEAD", UPLOAD, &[], b"");
    assert_eq!((head.status, head.body.len()), (405, 0));
    client
        .request("POST", "/_matrix/client/v1/media/upload", &[], b"x")
        .assert_error(404, "M_UNRECOGNIZED");
    assert!(fake.received_for("/media/").is_empty(), "an upload was passed on");
}
