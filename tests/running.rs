//! Mediary as a process: start, stop, sockets, log, metrics, command line (threats LO-03, LO-04,
//! CO-01 to CO-07, DU-10).

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::fake::{SERVER_NAME, TOKEN, respond};
use common::{Client, FakeHomeserver, Mediary, PATIENCE, Settings, Synapse, noise, wait_until};
use serde_json::Value;
use tempfile::TempDir;

const VERSIONS: &str = "/_matrix/client/versions";
const UPLOAD: &str = "/_matrix/media/v3/upload";

/// More than the sockets between Mediary and a client hold.
const LARGE: usize = 40_000_000;

fn mediary(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mediary"));
    command.args(arguments).env_clear().output().expect("the binary can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns an address where nobody listens, now.
fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

// --- metrics and health

#[test]
fn every_metric_is_there_from_the_start_and_requests_are_counted() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    for name in [
        "mediary_requests_total{route=\"download\",status=\"2xx\"}",
        "mediary_requests_total{route=\"pass_through\",status=\"none\"}",
        "mediary_request_duration_seconds_count{route=\"thumbnail\"}",
        "mediary_request_bytes_total{route=\"upload\"}",
        "mediary_response_bytes_total{route=\"download\"}",
        "mediary_requests_in_flight",
        "mediary_token_checks_total{result=\"cached\"}",
        "mediary_media_reads_total{source=\"homeserver\"}",
        "mediary_thumbnail_duration_seconds_count",
        "mediary_thumbnail_failures_total",
        "mediary_corrupt_blobs_total",
    ] {
        assert_eq!(mediary.metric(name), 0.0, "{name}");
    }
    assert!(mediary.metric("mediary_start_time_seconds") > 1.7e9);

    let client = mediary.client_of(&synapse.user());
    let media = client.upload("text/plain", None, &noise(1000, 1));
    for _ in 0..3 {
        assert_eq!(client.download(&media).status, 200);
    }
    assert_eq!(client.download(&format!("{}/nothing", synapse.server_name)).status, 404);
    assert_eq!(client.get(VERSIONS).status, 200);
    assert_eq!(mediary.client().download("s/x").status, 401);
    for (name, value) in [
        ("mediary_requests_total{route=\"upload\",status=\"2xx\"}", 1.0),
        ("mediary_requests_total{route=\"download\",status=\"2xx\"}", 3.0),
        ("mediary_requests_total{route=\"download\",status=\"4xx\"}", 2.0),
        ("mediary_requests_total{route=\"pass_through\",status=\"2xx\"}", 1.0),
        ("mediary_request_duration_seconds_count{route=\"download\"}", 5.0),
        ("mediary_request_bytes_total{route=\"upload\"}", 1000.0),
        ("mediary_token_checks_total{result=\"accepted\"}", 1.0),
        ("mediary_token_checks_total{result=\"cached\"}", 4.0),
        ("mediary_media_reads_total{source=\"store\"}", 1.0),
        ("mediary_media_reads_total{source=\"memory\"}", 2.0),
    ] {
        // Counted when the answer is out, so perhaps a moment after the client has it.
        wait_until(&format!("{name} is {value}"), || mediary.metric(name) == value);
    }
    assert!(mediary.metric("mediary_response_bytes_total{route=\"download\"}") >= 3000.0);
    wait_until("nothing is in flight", || mediary.metric("mediary_requests_in_flight") == 0.0);
}

#[test]
fn what_the_store_holds_is_counted_at_the_start() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    client.upload("text/plain", None, &noise(1000, 1));
    client.upload("text/plain", None, &noise(234, 2));
    let mediary = mediary.kill_and_restart();
    // The series appear when the store was counted for the first time.
    wait_until("the store is counted", || {
        let counted = mediary.admin_client().get("/metrics").text();
        [
            "mediary_store_items{kind=\"owned\"} 2",
            "mediary_store_bytes{kind=\"owned\"} 1234",
            "mediary_store_items{kind=\"remote\"} 0",
        ]
        .iter()
        .all(|wanted| counted.lines().any(|line| line == *wanted))
    });
}

#[test]
fn ready_is_said_once_the_homeserver_has_said_its_name() {
    let is_up = Arc::new(AtomicBool::new(false));
    let switch = is_up.clone();
    let fake = FakeHomeserver::with(move |_, stream| {
        (!switch.load(Ordering::Relaxed)).then(|| respond(stream, 500, "{}"))
    });
    let mediary = Settings::new(&fake.url).without_waiting().start();
    let admin = mediary.admin_client();
    let early = admin.get("/ready");
    assert_eq!(early.status, 503);
    assert!(early.text().contains("server name"), "{}", early.text());
    assert_eq!(admin.get("/health").status, 200);
    is_up.store(true, Ordering::Relaxed);
    wait_until("Mediary is ready", || admin.get("/ready").status == 200);

    // The name is remembered: a homeserver that is down does not take a restarted Mediary out.
    is_up.store(false, Ordering::Relaxed);
    let mediary = mediary.kill_and_restart();
    assert_eq!(mediary.admin_client().get("/ready").status, 200);
}

#[test]
fn metrics_and_health_are_not_for_the_public() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    for path in ["/metrics", "/health", "/ready"] {
        let answer = mediary.client().get(path);
        // Passed on like any other path, to a homeserver that knows no such thing.
        answer_of_homeserver(&answer);
        assert_eq!(fake.received_for(path).len(), 1, "{path}");
    }
    let admin = mediary.admin_client();
    for path in ["/", "/_matrix/client/versions", "/metrics/", "//metrics"] {
        assert_eq!(admin.get(path).status, 404, "{path}");
    }
    assert_eq!(admin.request("POST", "/metrics", &[], b"").status, 405);
    let head = admin.request("HEAD", "/health", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

fn answer_of_homeserver(answer: &common::http::Answer) {
    assert_eq!((answer.status, answer.errcode().as_str()), (404, "M_UNRECOGNIZED"));
    assert!(answer.text().contains("Unrecognized"));
}

#[test]
fn admin_requests_are_answered_while_the_homeserver_hangs() {
    let fake = FakeHomeserver::with(|request, _| {
        request.target().starts_with("/_matrix/client/v3/sync").then(|| {
            loop {
                thread::park();
            }
        })
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let mut polls: Vec<_> = (0..50).map(|_| mediary.client().connect()).collect();
    for poll in &mut polls {
        poll.send(b"GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_until("the long polls are counted", || {
        mediary.metric("mediary_requests_in_flight") == 50.0
    });
    assert_eq!(mediary.admin_client().get("/health").status, 200);
    drop(polls);
    wait_until("clients that left are not counted", || {
        mediary.metric("mediary_requests_in_flight") == 0.0
    });
}

// --- the end

fn in_flight(mediary: &Mediary) -> f64 {
    mediary.metric("mediary_requests_in_flight")
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// Asks for media and leaves the answer unread.
fn begin_download(mediary: &Mediary, media: &str) -> common::http::Connection {
    let mut connection = mediary.client().connect();
    let path = format!("/_matrix/client/v1/media/download/{media}");
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    connection.send(head.as_bytes());
    wait_until("the download has begun", || in_flight(mediary) >= 1.0);
    connection
}

#[test]
fn what_is_in_flight_ends_before_the_process_does() {
    let fake = FakeHomeserver::start();
    // Far longer than the test waits: the end has to come by itself.
    let mut mediary = Settings::new(&fake.url).with("[server]\nshutdown_timeout = \"1h\"").start();
    let client = mediary.client().with_token(TOKEN);
    let body = noise(LARGE, 1);
    let media = client.upload("video/mp4", None, &body);
    wait_until("the upload is over", || in_flight(&mediary) == 0.0);
    let mut download = begin_download(&mediary, &media);
    let mut upload = mediary.client().connect();
    let head = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: 8\r\n\r\nhalf"
    );
    upload.send(head.as_bytes());
    let idle = mediary.client().connect();
    wait_until("both are in flight", || in_flight(&mediary) == 2.0);

    mediary.terminate();
    mediary.wait_for_log("stopping; no new connections are taken");
    wait_until("new connections are refused", || is_refused(mediary.address));
    upload.send(b"half");
    let uploaded = upload.read_answer("POST");
    assert_eq!(uploaded.status, 200, "{uploaded:?}");
    let answer = download.read_answer("GET");
    assert!(answer.status == 200 && answer.complete && answer.body == body);
    assert_eq!(mediary.wait().code(), Some(0));
    drop(idle);

    let mediary = mediary.kill_and_restart();
    let media = uploaded.media();
    assert_eq!(mediary.client().with_token(TOKEN).download(&media).text(), "halfhalf");
}

#[test]
fn past_the_timeout_what_is_in_flight_is_cut() {
    let fake = FakeHomeserver::start();
    let mut mediary =
        Settings::new(&fake.url).with("[server]\nshutdown_timeout = \"200ms\"").start();
    let media = mediary.client().with_token(TOKEN).upload("video/mp4", None, &noise(LARGE, 1));
    wait_until("the upload is over", || in_flight(&mediary) == 0.0);
    let mut download = begin_download(&mediary, &media);
    mediary.terminate();
    assert_eq!(mediary.wait().code(), Some(0));
    mediary.wait_for_log("time is up");
    let answer = download.read_answer("GET");
    assert!(answer.status == 200 && !answer.complete, "a cut download looked whole");
}

#[test]
fn with_nothing_in_flight_it_ends_at_once_on_either_signal() {
    let fake = FakeHomeserver::start();
    for signal in ["TERM", "INT"] {
        let mut mediary =
            Settings::new(&fake.url).with("[server]\nshutdown_timeout = \"1h\"").start();
        // A connection that is kept open without a request does not hold the process up.
        let mut idle = mediary.client().connect();
        idle.send(format!("GET {VERSIONS} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(idle.read_answer("GET").status, 200);
        let pid = mediary.pid().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success());
        assert_eq!(mediary.wait().code(), Some(0), "{signal}");
        assert!(idle.is_closed());
    }
}

// --- sockets

/// A Mediary that was handed its listening socket.
struct Activated {
    child: Child,
}

impl Activated {
    /// Starts as systemd would: the socket is file descriptor 3, and the environment says so.
    fn on(listener: &TcpListener, upstream: &str, store: &TempDir, more: &[&str]) -> Self {
        let hand_over = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        let socket = OwnedFd::from(listener.try_clone().expect("a clone of the socket"));
        let child = Command::new("/bin/sh")
            .args(["-c", hand_over, "sh", env!("CARGO_BIN_EXE_mediary"), "run"])
            .args(["--upstream", upstream, "--admin-listen", "", "--data-dir"])
            .arg(store.path().join("store"))
            .args(more)
            .env_clear()
            .stdin(socket)
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        Self { child }
    }

    /// Sends SIGTERM, waits for the end, and returns how it was and what was logged.
    fn stop(mut self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill runs").success());
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("standard error is a pipe");
        stderr.read_to_string(&mut log).expect("a log in UTF-8");
        (self.child.wait().expect("the process ends"), log)
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_inherited_socket_is_served_and_a_restart_refuses_nobody() {
    let fake = FakeHomeserver::start();
    let store = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(address);

    let first = Activated::on(&listener, &fake.url, &store, &[]);
    assert_eq!(client.get(VERSIONS).status, 200);
    let (status, log) = first.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains(&format!("listening address={address}")), "{log}");

    // Nobody is there, but the socket is.
    let mut between = client.connect();
    between.send(format!("GET {VERSIONS} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let second = Activated::on(&listener, &fake.url, &store, &[]);
    assert_eq!(between.read_answer("GET").status, 200);
    assert_eq!(second.stop().0.code(), Some(0));
}

#[test]
fn restarts_under_load_lose_no_request() {
    let fake = FakeHomeserver::start();
    let store = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(listener.local_addr().unwrap());
    let is_over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get(VERSIONS);
                    assert_eq!(answer.status, 200, "after {answered:?} requests: {answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            let running = Activated::on(&listener, &fake.url, &store, &[]);
            let before = answered.load(Ordering::Relaxed);
            wait_until("requests are answered", || answered.load(Ordering::Relaxed) > before + 50);
            assert_eq!(running.stop().0.code(), Some(0));
        }
        let _last = Activated::on(&listener, &fake.url, &store, &[]);
        is_over.store(true, Ordering::Relaxed);
        // The requests that wait are answered by the last one, which lives until here.
        let before = answered.load(Ordering::Relaxed);
        wait_until("the last requests are answered", || {
            answered.load(Ordering::Relaxed) >= before + 4
        });
    });
}

#[test]
fn a_port_in_use_ends_the_process_with_a_clear_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("store");
    for (listen, admin) in [(taken.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", taken.as_str())] {
        let store = store.to_str().unwrap();
        let output = mediary(&["--listen", listen, "--admin-listen", admin, "--data-dir", store]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let line = format!("mediary: cannot listen on {taken}; is another server");
        assert!(said.lines().last().is_some_and(|last| last.starts_with(&line)), "{said}");
    }
    assert!(!store.exists(), "a store was made although nothing can be served");
}

#[test]
fn a_unix_socket_is_served() {
    let fake = FakeHomeserver::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mediary.sock");
    let (socket, ready) = notify_socket(&directory);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mediary"))
        .args(["--upstream", &fake.url, "--admin-listen", "", "--data-dir"])
        .arg(directory.path().join("store"))
        .args(["--listen", &format!("unix:{}", path.display())])
        .env_clear()
        .env("NOTIFY_SOCKET", &ready)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(receive(&socket), "READY=1");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let request = format!("GET {VERSIONS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn notify_socket(directory: &TempDir) -> (UnixDatagram, String) {
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket on a path");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    (socket, path.to_str().expect("a path in UTF-8").to_owned())
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).expect("the service manager is told");
    text(&buffer[..length]).trim_end().to_owned()
}

#[test]
fn the_service_manager_is_told_of_the_start_and_the_stop() {
    let fake = FakeHomeserver::start();
    let directory = tempfile::tempdir().unwrap();
    let (socket, path) = notify_socket(&directory);
    let mut mediary = Settings::new(&fake.url).environment("NOTIFY_SOCKET", &path).start();
    assert_eq!(receive(&socket), "READY=1");
    assert_eq!(mediary.client().get(VERSIONS).status, 200);
    mediary.terminate();
    assert_eq!(receive(&socket), "STOPPING=1");
    assert_eq!(mediary.wait().code(), Some(0));
}

#[test]
fn a_store_that_cannot_be_opened_is_never_said_to_be_ready() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, path) = notify_socket(&directory);
    let settings = Settings::new("http://127.0.0.1:1").environment("NOTIFY_SOCKET", &path);
    fs::write(settings.store(), b"in the way").unwrap();
    assert_eq!(settings.refusal().0.code(), Some(1));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 10]).is_err());
}

// --- the log

#[test]
fn a_json_log_is_one_object_a_line_with_fields_to_search() {
    let fake = FakeHomeserver::start();
    let store = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(listener.local_addr().unwrap()).with_token(TOKEN);
    let more = ["--log-format", "json", "--log-level", "trace", "--server-name", SERVER_NAME];
    let running = Activated::on(&listener, &fake.url, &store, &more);
    let media = client.upload("text/plain", None, b"body");
    assert_eq!(client.download(&media).status, 200);
    assert_eq!(client.get("/_matrix/media/v3/download/a%0d%0ab/\u{1b}[31m%00\"").status, 400);
    assert_eq!(client.get(VERSIONS).status, 200);
    let (status, log) = running.stop();
    assert_eq!(status.code(), Some(0));

    let mut requests = BTreeMap::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(event[field].is_string(), "no {field} in {line}");
        }
        if event["message"] == "request" {
            for field in ["status", "duration_ms", "received_bytes", "sent_bytes"] {
                assert!(event[field].is_number(), "no {field} in {line}");
            }
            let route = event["route"].as_str().expect("a route").to_owned();
            requests.insert(route, event["status"].as_u64());
        }
    }
    let expected = [("download", 200), ("pass_through", 200), ("refused", 400), ("upload", 200)];
    let expected = expected.map(|(route, status)| (route.to_owned(), Some(status)));
    assert_eq!(requests, BTreeMap::from(expected), "{log}");
}

#[test]
fn requests_are_not_logged_if_nobody_wants_them() {
    let fake = FakeHomeserver::start();
    let mut mediary = Settings::new(&fake.url).with("[log]\nrequests = false").start();
    assert_eq!(mediary.client().get(VERSIONS).status, 200);
    mediary.terminate();
    assert_eq!(mediary.wait().code(), Some(0));
    mediary.wait_for_log("(end of the log)");
    assert!(!mediary.log().contains("route="), "{}", mediary.log());
}

// --- the command line

#[test]
fn check_says_what_works_and_that_mediary_can_run() {
    let synapse = Synapse::get();
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let listen = unused_address().to_string();
    let store_text = store.to_str().unwrap();
    let common = ["--upstream", &synapse.url, "--data-dir", store_text, "--listen", &listen];
    let output = mediary(&[&["check"], &common[..]].concat());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for finding in [
        "ok    the configuration is valid",
        &format!("ok    the homeserver at {}", synapse.url),
        &format!("ok    its server name is {}", synapse.server_name),
        "ok    it has authenticated media",
        "ok    it checks access tokens",
        "which will be made",
        "thumbnail workers are",
        "Mediary can run.",
    ] {
        assert!(said.contains(finding), "no {finding:?} in\n{said}");
    }
    assert!(!said.contains("FAIL"), "{said}");
    assert!(!store.exists(), "the check made a store");
}

#[test]
fn check_fails_on_what_has_to_be_mended() {
    let fake = FakeHomeserver::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    fs::write(&file, b"").unwrap();
    let store = directory.path().join("store").to_str().unwrap().to_owned();
    let nobody = format!("http://{}", unused_address());
    for (flags, finding) in [
        (["--upstream", &nobody, "--data-dir", &store], "does not answer /_matrix/client/versions"),
        (["--upstream", &fake.url, "--data-dir", file.to_str().unwrap()], "is not a directory"),
        (["--upstream", &fake.url, "--data-dir", "/nowhere/store"], "/nowhere/store"),
        (["--upstream", &fake.url, "--data-dir", "/tmp"], "can be written by everybody"),
    ] {
        let output = mediary(&[&["check", "--listen", "127.0.0.1:0"], &flags[..]].concat());
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let is_bad = |line: &str| line.starts_with("FAIL") && line.contains(finding);
        assert!(said.lines().any(is_bad), "no {finding:?} in\n{said}");
        assert!(said.contains("Mediary cannot run like this."), "{said}");
    }
}

#[test]
fn check_finds_a_wrong_server_name_and_a_homeserver_that_takes_any_token() {
    let fake = FakeHomeserver::start();
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let check = |url: &str, more: &[&str]| {
        let flags = ["check", "--upstream", url, "--listen", "127.0.0.1:0", "--data-dir", store];
        mediary(&[&flags[..], more].concat())
    };
    let output = check(&fake.url, &["--server-name", "other.example"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAIL  its server name is fake.example, but"), "{said}");

    let credulous = FakeHomeserver::with(|request, stream| {
        request
            .target()
            .contains("whoami")
            .then(|| respond(stream, 200, r#"{"user_id":"@anybody:fake.example"}"#))
    });
    let output = check(&credulous.url, &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAIL  whoami took a token that cannot exist"), "{said}");
}

#[test]
fn help_names_every_command_flag_and_variable() {
    let help = text(&mediary(&["--help"]).stdout);
    for word in [
        "run",
        "check",
        "federation-test",
        "--config",
        "--upstream",
        "--server-name",
        "--listen",
        "--admin-listen",
        "--data-dir",
        "--log-level",
        "--log-format",
        "--help",
        "--version",
        "Examples:",
    ] {
        assert!(help.contains(word), "no {word} in\n{help}");
    }
    for (variable, _) in mediary::config::ENVIRONMENT {
        assert!(help.contains(variable), "no {variable} in\n{help}");
    }
    let version = mediary(&["--version"]);
    assert_eq!(text(&version.stdout), format!("mediary {}\n", env!("CARGO_PKG_VERSION")));
    let wrong = mediary(&["--no-such-flag"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_wrong_configuration_is_refused_with_file_line_and_advice() {
    for (toml, line, words) in [
        ("[uploads]\nmax_sise = \"1 MiB\"", 2, &["max_sise", "max_size"][..]),
        ("\n[storag]\npath = \"/x\"", 2, &["storag", "storage"]),
        ("[uploads]\nmax_size = \"50 potatoes\"", 2, &["uploads.max_size"]),
        ("[uploads]\nmax_size = -1", 2, &["uploads.max_size"]),
        ("[server]\n\nshutdown_timeout = 5", 3, &["server.shutdown_timeout"]),
        ("[log]\nlevel = \"loud\"", 2, &["log.level"]),
        ("[log]\n[log]\n", 2, &["log"]),
        ("[log\n", 1, &[]),
    ] {
        let settings = Settings::new("http://127.0.0.1:1").with(toml);
        let store = settings.store();
        let (status, said) = settings.refusal();
        assert_eq!(status.code(), Some(1), "{toml}: {said}");
        assert!(said.starts_with("mediary: "), "{said}");
        let place = format!("mediary.toml:{line}:");
        for word in [&[place.as_str()], words].concat() {
            assert!(said.contains(word), "{toml}: no {word:?} in {said}");
        }
        assert!(!store.exists(), "{toml}");
    }
}

#[test]
fn a_file_that_is_not_there_and_a_broken_rule_are_refused() {
    let output = mediary(&["--config", "/nowhere/mediary.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/mediary.toml"));
    let (status, said) =
        Settings::new("http://127.0.0.1:1").with("[server]\nshutdown_timeout = \"0s\"").refusal();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("server.shutdown_timeout"), "{said}");
}

// --- the server name

#[test]
fn a_store_is_refused_to_another_server_name() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let settings = mediary.kill();
    let (status, said) = settings.with("[homeserver]\nserver_name = \"other.example\"").refusal();
    assert_eq!(status.code(), Some(1));
    for word in ["holds media of fake.example", "other.example"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_configured_server_name_is_remembered_too() {
    let fake = FakeHomeserver::start();
    let name = "MEDIARY_SERVER_NAME";
    let mediary = Settings::new(&fake.url).environment(name, "fake.example").start();
    mediary.wait_for_log("the store remembers whose media it holds");
    let (status, said) = mediary.kill().environment(name, "other.example").refusal();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("holds media of fake.example"), "{said}");
}

#[test]
fn a_homeserver_of_another_name_ends_the_process() {
    let fake = FakeHomeserver::start();
    let (status, said) =
        Settings::new(&fake.url).with("[homeserver]\nserver_name = \"other.example\"").refusal();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("not the one whose media this store holds"), "{said}");
    assert!(said.contains("fake.example"), "{said}");
}

#[test]
fn a_bad_homeserver_does_not_keep_mediary_from_starting() {
    // Nobody listens there, and the name cannot be learnt: requests fail, the process stays.
    let upstream = format!("http://{}", unused_address());
    let mediary = Settings::new(&upstream).without_waiting().start();
    mediary.client().get(VERSIONS).assert_error(502, "M_UNKNOWN");
    let client = mediary.client().with_token("t");
    client.request("POST", UPLOAD, &[], b"x").assert_error(502, "M_UNKNOWN");
    assert_eq!(mediary.admin_client().get("/ready").status, 503);
    assert_eq!(mediary.admin_client().get("/health").status, 200);
}
