//! Thousands of generated requests, and what must be true whatever was sent: no panic, no needless
//! 5xx, no file outside the store, no token in the log, no answer that is somebody else's.
//!
//! The same requests every time, but for the media ids that Mediary makes. `MEDIARY_TEST_SEED` chooses others and `MEDIARY_TEST_REQUESTS` how
//! many; a failure names its seed and number, and `MEDIARY_TEST_ONLY` repeats that request alone.

#[path = "hostile/answers.rs"]
mod answers;
mod common;
#[path = "hostile/homeserver.rs"]
mod homeserver;
#[path = "hostile/requests.rs"]
mod requests;
#[path = "hostile/trace.rs"]
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::fake::{Received, SERVER_NAME, TOKEN, respond_with};
use common::http::Answer;
use common::{FakeHomeserver, Mediary, PATIENCE, Settings, samples, wait_until};
use requests::{Framing, HIDDEN, Hostile, INJECTED, SECRET, World};
use trace::Trace;

/// How many requests are sent unless the environment says otherwise.
const REQUESTS: u64 = 3000;

/// How many of them the listener for metrics and health gets as well.
const ADMIN: u64 = 300;

/// How many are sent at once.
const SENDERS: usize = 4;

/// Where the request behind a hostile one leads.
const NEXT: &str = "/next";

// --- What is sent ------------------------------------------------------------------------------

/// A homeserver that marks its answers, and has odd media of another server.
fn marking() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        let target = request.target();
        if !is_passed_on(request) {
            if is_too_long_for_synapse(request) {
                return Some(false);
            }
            let is_of_others = target.contains("/media/download/other.example");
            let is_preview = target.contains("/media/preview_url");
            return if is_of_others {
                let fields = [
                    ("Content-Type", "text/html"),
                    ("Content-Disposition", "inline; filename=\"a\\\"; x-injected=\\\"\""),
                    ("X-Injected", "1"),
                    ("Set-Cookie", "a=b"),
                ];
                Some(respond_with(stream, 200, &fields, b"<script>alert(1)</script>"))
            } else if is_preview {
                let preview = br#"{"og:title":"<script>\r\nX-Injected: 1</script>"}"#;
                Some(respond_with(stream, 200, &[("Content-Type", "text/html")], preview))
            } else {
                None
            };
        }
        let number = request.header("x-number").unwrap_or("none");
        if request.method == "HEAD" {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Fake: {number}\r\n\r\n");
            return Some(stream.write_all(head.as_bytes()).is_ok());
        }
        Some(respond_with(stream, 200, &[("X-Fake", number)], target.as_bytes()))
    })
}

/// Whether Synapse would close the connection at this without a word.
fn is_too_long_for_synapse(request: &Received) -> bool {
    let fields = request.headers.iter().map(|(name, value)| name.len() + value.len() + 4);
    request.target.len() > 16_300 || fields.sum::<usize>() > 16_384
}

/// Whether Mediary passed this on; its own questions do not say by which protocol somebody came.
fn is_passed_on(request: &Received) -> bool {
    request.header("x-forwarded-proto").is_some()
}

fn settings(url: &str) -> Settings {
    Settings::new(url).with(
        "[legacy]\nmode = \"open\"\n[uploads]\nmax_size = \"64 KiB\"\nmax_pending = 1000\n\
         create_per_second = 1000\ncreate_burst = 1000",
    )
}

/// Stores what the requests are about.
fn world(mediary: &Mediary) -> World {
    let client = mediary.alice();
    let mut media = vec![
        client.upload("text/html", Some("page.html"), b"<h1>page</h1>"),
        client.upload("image/png", None, &samples::png(100, 80)),
        client.upload("application/octet-stream", None, b""),
        format!("{SERVER_NAME}/absent"),
        "other.example/abc".to_owned(),
    ];
    for _ in 0..3 {
        media.push(client.create().media());
    }
    World { media, token: TOKEN }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(format!("MEDIARY_TEST_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("MEDIARY_TEST_{name} is not a number: {text}")))
}

/// Sends the requests of a seed, several at once, and judges each by its answers.
fn send_all(seed: u64, count: u64, mediary: &Mediary, world: &World, judge: &Judge) {
    let (first, last) = match variable("ONLY") {
        Some(only) => (only, only + 1),
        None => (0, variable("REQUESTS").unwrap_or(count)),
    };
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= last {
                        break;
                    }
                    let request = requests::request(seed, number, world);
                    let context = Context { seed, number, request: &request };
                    let bytes = exchange(mediary.address, &context);
                    judge.judge(&context, &bytes);
                }
            });
        }
    });
}

/// A request, for messages about it.
struct Context<'a> {
    seed: u64,
    number: u64,
    request: &'a Hostile,
}

impl Context<'_> {
    #[track_caller]
    fn fail(&self, what: &str, answer: &[u8]) -> ! {
        let Self { seed, number, request } = self;
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(4000)].escape_ascii().to_string();
        panic!(
            "{what}\nrequest {number} of seed {seed} \
             (MEDIARY_TEST_SEED={seed} MEDIARY_TEST_ONLY={number}), {:?}, {} bytes:\n{}\n\
             answered with {} bytes:\n{}",
            request.framing,
            request.bytes.len(),
            cut(&request.bytes),
            answer.len(),
            cut(answer)
        )
    }
}

/// Sends a request on a connection of its own, and another that is well-formed after the answer to
/// a sound one; returns all that comes back.
fn exchange(address: SocketAddr, context: &Context<'_>) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    let Hostile { bytes, framing, is_head } = context.request;
    // Whoever refuses early may close before all is written.
    let _ = stream.write_all(bytes);
    let mut received = Vec::new();
    if *framing == Framing::Sound {
        read_until(&mut stream, context, &mut received, |bytes| {
            let answers = answers::read(bytes, *is_head).unwrap_or_default();
            answers.first().is_some_and(|answer| answer.complete)
        });
        let number = context.number;
        let next = format!(
            "GET {NEXT} HTTP/1.1\r\nHost: h\r\nX-Number: next-{number}\r\nConnection: close\r\n\r\n"
        );
        let _ = stream.write_all(next.as_bytes());
    } else {
        let _ = stream.shutdown(Shutdown::Write);
    }
    read_until(&mut stream, context, &mut received, |_| false);
    received
}

/// Reads on until a condition holds of all that came or the other side has closed.
fn read_until(
    stream: &mut TcpStream,
    context: &Context<'_>,
    received: &mut Vec<u8>,
    is_enough: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = [0; 16 * 1024];
    while !is_enough(received) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => received.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => context.fail(&format!("neither answered nor closed: {error}"), received),
        }
    }
}

// --- What is asked of the answers --------------------------------------------------------------

/// What an answer is held against.
struct Judge {
    /// What only an error that says too much holds.
    inside: Vec<String>,
    /// What kind of answers the homeserver gives.
    homeserver: Kind,
    /// How often each status was seen, and how often a connection could be used again.
    seen: Mutex<BTreeMap<u16, u64>>,
    used_again: AtomicU64,
}

/// What kind of answers a homeserver gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Those of the specification.
    Sane,
    /// None.
    Down,
    /// Any.
    Mad,
}

impl Judge {
    fn of(mediary: &Mediary, upstream: &str) -> Self {
        let store = mediary.store().to_string_lossy().into_owned();
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let words = ["sqlite", "panicked", ".rs:", "os error", "/proc/"].map(str::to_owned);
        Self {
            inside: [vec![store, upstream], words.to_vec()].concat(),
            homeserver: Kind::Sane,
            seen: Mutex::default(),
            used_again: AtomicU64::new(0),
        }
    }

    /// Asserts that the requests were not all refused for one reason: each of these statuses was seen,
    /// and many connections were used again.
    fn assert_has_seen(&self, statuses: &[u16]) {
        let seen = self.seen.lock().expect("the statuses");
        let is_seen = |status: &u16| seen.contains_key(status);
        // Of other seeds, or fewer requests, that is not known.
        if ["SEED", "ONLY", "REQUESTS"].iter().any(|name| variable(name).is_some()) {
            return;
        }
        assert!(statuses.iter().all(is_seen), "only {seen:?}");
        let used_again = self.used_again.load(Ordering::Relaxed);
        assert!(used_again > REQUESTS / 8, "only {used_again} connections were used again");
    }

    fn judge(&self, context: &Context<'_>, bytes: &[u8]) {
        let fail = |what: &str| context.fail(what, bytes);
        let request = context.request;
        let answers = match answers::read(bytes, request.is_head) {
            Ok(answers) => answers,
            Err(what) => fail(&what),
        };
        let next = format!("next-{}", context.number);
        let is_next = |answer: &Answer| answer.header("x-fake") == Some(&next);
        match request.framing {
            Framing::Sound => {
                if answers.iter().any(|answer| !answer.complete) {
                    fail("an answer that is cut short");
                }
                if answers.is_empty() || answers.len() > 2 {
                    fail(&format!("{} answers", answers.len()));
                }
                let mine = context.number.to_string();
                if answers[0].header("x-fake").is_some_and(|number| number != mine) {
                    fail("another request's answer");
                }
                if self.homeserver == Kind::Sane
                    && answers.get(1).is_some_and(|answer| !is_next(answer))
                {
                    fail("the next request did not get its own answer");
                }
            }
            // Whoever has hung up may get a part of the answer.
            Framing::Doubtful => {}
        }
        self.used_again.fetch_add(u64::from(answers.len() == 2), Ordering::Relaxed);
        for answer in &answers {
            *self.seen.lock().expect("the statuses").entry(answer.status).or_default() += 1;
            if let Err(what) = self.judge_answer(context, answer) {
                fail(&format!("{what}: {answer:?}"));
            }
        }
    }

    fn judge_answer(&self, context: &Context<'_>, answer: &Answer) -> Result<(), String> {
        let has = |name: &str| answer.headers.iter().any(|(key, _)| key.starts_with(name));
        if has(INJECTED) || has("set-cookie") {
            return Err("a field that nobody should have added".to_owned());
        }
        if has("content-length") && has("transfer-encoding") {
            return Err("two ways to tell the length".to_owned());
        }
        if answer.header("x-fake").is_some() || !answer.complete {
            return Ok(());
        }
        if answer.status >= 400 { self.judge_error(context, answer) } else { judge_success(answer) }
    }

    fn judge_error(&self, context: &Context<'_>, answer: &Answer) -> Result<(), String> {
        let is_head = context.request.is_head && answer.body.is_empty();
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let (errcode, error) = (json["errcode"].as_str(), json["error"].as_str());
        let is_sane = self.homeserver == Kind::Sane;
        let is_asked_for = match (answer.status, errcode) {
            (504, Some("M_NOT_YET_UPLOADED")) => true,
            (502 | 504, Some("M_UNKNOWN")) => !is_sane,
            // Media whose end nobody can tell is not kept, and a thumbnail is made of what is kept.
            (507, Some("M_UNKNOWN")) => !is_sane && context.request.asks_for("/thumbnail/"),
            (504, None) => is_head,
            (502, None) => is_head && !is_sane,
            (status, _) => status < 500,
        };
        if !is_asked_for {
            return Err("a 5xx that nobody asked for".to_owned());
        }
        if self.homeserver == Kind::Down && errcode == Some("M_UNKNOWN_TOKEN") {
            return Err("somebody is logged out by a homeserver that is down".to_owned());
        }
        let is_matrix = is_head
            || errcode.is_some_and(|code| code.starts_with("M_") || code.starts_with("FI.MAU."));
        if !is_matrix || !(is_head || error.is_some_and(|error| !error.is_empty())) {
            return Err("no Matrix error".to_owned());
        }
        if answer.header("content-type") != Some("application/json")
            || answer.header("access-control-allow-origin") != Some("*")
            || answer.header("cache-control") != Some("no-store")
        {
            return Err("an error without its fields".to_owned());
        }
        let text = answer.text();
        let said = self.inside.iter().find(|word| text.contains(word.as_str()));
        said.map_or(Ok(()), |word| Err(format!("an error that says {word:?}")))
    }
}

/// Judges a good answer of Mediary's own: somebody's bytes are never without the fields that keep a
/// browser from running them.
fn judge_success(answer: &Answer) -> Result<(), String> {
    let content_type = answer.header("content-type").unwrap_or_default();
    if content_type.starts_with("multipart/mixed") {
        return Ok(());
    }
    if answer.header("access-control-allow-origin") != Some("*") {
        return Err("no CORS".to_owned());
    }
    let is_nosniff = answer.header("x-content-type-options") == Some("nosniff");
    let policy = answer.header("content-security-policy").unwrap_or_default();
    let is_media = answer.header("x-robots-tag").is_some();
    match answer.status {
        204 if answer.body.is_empty() => Ok(()),
        200 | 206 | 304 if is_media && is_nosniff && policy.starts_with("sandbox;") => Ok(()),
        200 if !is_media && is_nosniff && content_type == "application/json" => Ok(()),
        _ => Err("a good answer without its fields".to_owned()),
    }
}

// --- What is asked of the rest -----------------------------------------------------------------

/// Asserts that what arrived was either passed on and is no media, or is a question of Mediary's.
fn assert_only_own_questions_about_media(fake: &FakeHomeserver, seed: u64, world: &World) {
    const OWN: [&str; 10] = [
        "/_matrix/client/v3/account/whoami",
        "/_matrix/key/v2/server",
        "/_matrix/client/versions",
        "/_matrix/client/v1/media/download/",
        "/_matrix/media/v3/download/",
        "/_matrix/client/v3/login",
        "/_matrix/client/v1/media/preview_url?",
        "/_matrix/media/v3/preview_url?",
        "/_matrix/federation/v1/media/",
        "/_matrix/federation/unstable/org.matrix.msc3916.v2/media/",
    ];
    for request in fake.received() {
        let target = request.target();
        let has = |name: &str| {
            request.headers.iter().any(|(key, _)| key.to_ascii_lowercase().starts_with(name))
        };
        if let Some(number) = target.strip_prefix(HIDDEN) {
            let number = number.trim_start_matches('-').parse().expect("a number");
            let request = &requests::request(seed, number, world);
            Context { seed, number, request }.fail("what it hides was found", b"");
        }
        assert!(!has(INJECTED) || is_passed_on(&request), "{request:?}");
        if is_passed_on(&request) {
            assert!(!reads_as_media(&request.target), "{target} was passed on");
            continue;
        }
        assert!(OWN.iter().any(|own| target.starts_with(own)), "{request:?}");
        assert!(request.method == "GET" && request.body.is_empty(), "{request:?}");
        let path = target.split('?').next().unwrap_or_default();
        if target.contains("/download/") && !target.contains("/federation/") {
            assert!(!path.contains('%') && !path.contains("..") && path.is_ascii(), "{target}");
        }
        let is_signed = target.starts_with("/_matrix/federation/");
        assert!(is_signed || !target.contains(SECRET), "a token in a query: {target}");
    }
}

/// Whether some server might read a target as one of the media API: decoded once, whatever the case,
/// with dots resolved and parameters dropped.
fn reads_as_media(target: &[u8]) -> bool {
    let path = target.split(|&b| b == b'?').next().unwrap_or_default();
    let path: Vec<u8> = percent_encoding::percent_decode(path).collect();
    let path = String::from_utf8_lossy(&path).to_lowercase().replace('\\', "/");
    let mut segments = Vec::new();
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    [
        &["_matrix", "media"][..],
        &["_matrix", "client", "v1", "media"],
        &["_matrix", "client", "unstable", "org.matrix.msc3916", "media"],
        &["_matrix", "federation", "v1", "media"],
        &["_matrix", "federation", "unstable", "org.matrix.msc3916", "media"],
        &["_matrix", "federation", "unstable", "org.matrix.msc3916.v2", "media"],
    ]
    .iter()
    .any(|prefix| segments.starts_with(prefix))
}

/// Returns how many series there are.
fn series(mediary: &Mediary) -> BTreeSet<String> {
    let text = mediary.admin_client().get("/metrics").text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// Asserts that the process is as well as before, ends it and looks through its log.
fn assert_unharmed(mediary: Mediary) {
    assert_eq!(mediary.admin_client().get("/health").status, 200);
    wait_until("no temporary file is left", || mediary.unfinished().is_empty());
    assert_round_trip(&mediary);
    assert_log_is_clean(mediary);
}

/// Ends the process and looks through all that it has logged.
fn assert_log_is_clean(mediary: Mediary) {
    let log = mediary.whole_log();
    assert!(log.contains("mediary::proxy"), "nothing was logged");
    for line in log.lines() {
        assert!(!line.contains("panicked"), "{line}");
        assert!(!line.contains(SECRET) && !line.contains(TOKEN), "a token in the log: {line}");
        assert!(line.len() < 4096, "a line of {} bytes: {line:.500}", line.len());
    }
}

fn assert_round_trip(mediary: &Mediary) {
    let client = mediary.client().with_token(TOKEN);
    let media = client.upload("text/plain", Some("last.txt"), b"still here");
    client.download(&media).assert_whole(b"still here");
}

/// Names of the files and directories right in the store.
fn top(store: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(store).expect("the store can be listed");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Sends requests to the listener for metrics and health, which tells strangers nothing either.
fn send_to_admin(seed: u64, mediary: &Mediary, world: &World) {
    for number in 0..ADMIN {
        let request = requests::request(seed, number, world);
        let context = Context { seed, number, request: &request };
        let bytes = exchange(mediary.admin, &context);
        match answers::read(&bytes, request.is_head) {
            Ok(answers) if answers.iter().all(|answer| answer.status < 500) => {}
            Ok(_) => context.fail("a 5xx that nobody asked for", &bytes),
            Err(what) => context.fail(&what, &bytes),
        }
    }
}

/// PT-01, PT-02, PT-03, PT-04, HI-01, HI-08, AU-05, AU-11, AU-12, AU-13, AU-14, SM-01, SM-02, SM-03,
/// SM-05, SM-06, SM-08, LO-01, LO-03, LO-05
#[test]
fn whatever_is_sent_is_answered_or_refused_and_changes_nothing_else() {
    let fake = marking();
    let mediary = settings(&fake.url).start();
    wait_until("the store was counted", || {
        mediary.admin_client().get("/metrics").text().contains("mediary_store_items")
    });
    let (world, judge) = (world(&mediary), Judge::of(&mediary, &fake.url));
    let (series_before, top_before) = (series(&mediary), top(&mediary.store()));
    let seed = variable("SEED").unwrap_or(1);
    send_all(seed, REQUESTS, &mediary, &world, &judge);
    judge.assert_has_seen(&[200, 204, 206, 304, 400, 401, 404, 405, 409, 413, 416, 504]);
    send_to_admin(seed, &mediary, &world);
    assert_eq!(series(&mediary), series_before);
    assert_eq!(top(&mediary.store()), top_before);
    assert_only_own_questions_about_media(&fake, seed, &world);
    assert_unharmed(mediary);
}

/// AU-05, LO-05
#[test]
fn whatever_is_sent_while_the_homeserver_is_down_is_502_at_worst() {
    let settings = settings("http://127.0.0.1:1").without_waiting();
    let mediary = settings.with("[homeserver]\nserver_name = \"fake.example\"").start();
    let world = World { media: vec![format!("{SERVER_NAME}/absent")], token: TOKEN };
    let mut judge = Judge::of(&mediary, "127.0.0.1:1");
    judge.homeserver = Kind::Down;
    send_all(variable("SEED").unwrap_or(2), REQUESTS / 4, &mediary, &world, &judge);
    assert_eq!(mediary.admin_client().get("/health").status, 200);
    assert!(mediary.blobs().is_empty());
    assert_log_is_clean(mediary);
}

// --- Under a trace -----------------------------------------------------------------------------

/// How many requests are sent to a process whose every call is written down.
const TRACED: u64 = 600;

/// What the process may name outside its store once it runs: how many processors there are, which the
/// cache of tokens asks when the first is forgotten.
const OUTSIDE: [&str; 2] = ["/proc/self/cgroup", "/sys/fs/cgroup"];

/// Pictures that name files, addresses and programs, for a renderer that would follow them.
const LURES: [(&str, &[u8]); 4] = [
    (
        "image/svg+xml",
        b"<?xml version=\"1.0\"?><!DOCTYPE svg [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>\
          <svg xmlns=\"http://www.w3.org/2000/svg\"><text>&x;</text>\
          <image href=\"http://127.0.0.1:1/\"/></svg>",
    ),
    ("image/png", b"push graphic-context\nviewbox 0 0 9 9\nimage over 0,0 0,0 'msl:/etc/passwd'\n"),
    ("image/jpeg", b"%!PS\n(/etc/passwd) (r) file\n"),
    ("video/mp4", b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n"),
];

/// PT-01, PT-02, PT-09, IM-06, IM-07
#[test]
fn no_file_outside_the_store_is_named_whatever_is_sent() {
    let fake = marking();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("trace");
    let (settings, trace) = Trace::of(settings(&fake.url), &file);
    let mediary = settings.start();
    let (world, judge) = (world(&mediary), Judge::of(&mediary, &fake.url));
    let begun = trace::now();
    send_all(variable("SEED").unwrap_or(3), TRACED, &mediary, &world, &judge);
    let client = mediary.client().with_token(TOKEN);
    for (content_type, lure) in LURES {
        let media = client.upload(content_type, Some("..%2f..%2flure"), lure);
        let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{media}?width=9&height=9");
        client.get(&thumbnail).assert_error(400, "M_UNKNOWN");
        client.download(&media).assert_whole(lure);
    }
    assert_round_trip(&mediary);
    let (store, upstream) = (mediary.store(), fake.address);
    let calls = trace.calls_since(begun, mediary);
    let named = calls.iter().filter(|call| !call.paths.is_empty()).count();
    assert!(named > 30, "only {named} calls name a file");
    for call in &calls {
        assert!(!call.name.starts_with("exec"), "a program was started: {}", call.line);
        for path in &call.paths {
            let is_allowed = OUTSIDE.iter().any(|allowed| path.starts_with(allowed));
            // SQLite looks for links on the way to its file.
            let is_way = store.starts_with(path) && call.name.contains("stat");
            let is_inside = path.starts_with(&store);
            assert!(is_inside || is_way || is_allowed, "{path:?} in {}", call.line);
        }
        if call.name == "connect" {
            let port = format!("htons({})", upstream.port());
            let is_upstream = call.line.contains(&port) && call.line.contains("127.0.0.1");
            assert!(is_upstream, "a connection to elsewhere: {}", call.line);
        }
    }
}

// --- Behind a homeserver that is out of its mind -----------------------------------------------

/// How many answers it gives.
const MAD: u64 = 1500;

/// Returns the number that a request of Mediary's bears somewhere.
fn number_of(request: &Received) -> Option<u64> {
    let text = format!("{} {}", request.target(), request.header("authorization").unwrap_or(""));
    let (_, rest) = text.split_once("number-")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Asks for something whose answer is a mad one.
fn ask_the_mad(number: u64) -> String {
    let (good, mad) = (TOKEN, format!("{SECRET}number-{number}"));
    let media = "/_matrix/client/v1/media";
    let id = format!("number-{number}");
    let (line, token, fields) = match number % 11 {
        0 => (format!("GET {media}/config"), mad.as_str(), ""),
        1 => ("POST /_matrix/media/v3/upload".to_owned(), mad.as_str(), "Content-Length: 0\r\n"),
        2 => (format!("GET {media}/preview_url?url={id}"), good, ""),
        3 => (format!("HEAD {media}/download/other.example/{id}"), good, ""),
        4 => (format!("GET {media}/download/other.example/{id}"), good, "Range: bytes=1-2\r\n"),
        5 => (format!("GET {media}/thumbnail/other.example/{id}?width=9&height=9"), good, ""),
        6 => (format!("GET /_matrix/media/v3/download/other.example/{id}"), good, ""),
        7 => (
            format!("GET /_matrix/media/v3/download/{SERVER_NAME}/{id}?allow_redirect=true"),
            good,
            "",
        ),
        8 => (format!("GET /_matrix/federation/v1/media/download/{id}"), mad.as_str(), ""),
        _ => (format!("GET {media}/download/other.example/{id}"), good, ""),
    };
    format!(
        "{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{fields}\r\n"
    )
}

/// Judges the answer to a question whose answer was mad: somebody's bytes, the homeserver's refusal,
/// or that it cannot be understood.
fn judge_mad(judge: &Judge, context: &Context<'_>, bytes: &[u8]) {
    let number = context.number;
    let fail = |what: &str| -> ! { context.fail(what, bytes) };
    let answers = match answers::read(bytes, context.request.is_head) {
        Ok(answers) => answers,
        Err(what) => fail(&what),
    };
    let [answer] = &answers[..] else {
        // What breaks off before there is a head has no answer.
        fail(if answers.is_empty() { "no answer" } else { "several answers" });
    };
    let text = answer.text();
    let marks = text.split(homeserver::MARK).skip(1);
    for mark in marks.filter_map(|rest| rest.split_once('.')).map(|(mark, _)| mark) {
        if mark != number.to_string() {
            fail("the answer to another question");
        }
    }
    let verdict = match answer.status {
        307 | 308 => match answer.header("location") {
            Some(location) if location.starts_with("https://") => Ok(()),
            _ => Err("sent elsewhere".to_owned()),
        },
        _ if !answer.complete => Ok(()),
        _ => judge.judge_answer(context, answer),
    };
    if let Err(what) = verdict {
        fail(&what);
    }
}

/// AU-05, AU-06, HI-05, HI-06, FE-10, FE-11, LO-01, LO-05
#[test]
fn whatever_the_homeserver_answers_is_media_a_refusal_or_502() {
    let seed = variable("SEED").unwrap_or(4);
    let fake = FakeHomeserver::with(move |request, stream| {
        let number = number_of(request)?;
        let authorization = request.header("authorization").unwrap_or_default();
        let token = authorization.trim_start_matches("Bearer ");
        let answer = homeserver::answer(seed, number, token);
        let _ = stream.write_all(&answer.bytes);
        Some(answer.stays)
    });
    let mediary = settings(&fake.url).with("[homeserver]\ntimeout = \"1s\"").start();
    let mut judge = Judge::of(&mediary, &fake.url);
    judge.homeserver = Kind::Mad;
    let last = variable("REQUESTS").unwrap_or(MAD);
    let next = AtomicU64::new(variable("ONLY").unwrap_or(0));
    let last = variable("ONLY").map_or(last, |only| only + 1);
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= last {
                        break;
                    }
                    let bytes = ask_the_mad(number).into_bytes();
                    let is_head = bytes.starts_with(b"HEAD ");
                    let request = Hostile { bytes, is_head, framing: Framing::Sound };
                    let context = Context { seed, number, request: &request };
                    let mut received = Vec::new();
                    let mut stream = TcpStream::connect(mediary.address).expect("a connection");
                    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
                    stream.write_all(&request.bytes).expect("Mediary takes bytes");
                    read_until(&mut stream, &context, &mut received, |_| false);
                    judge_mad(&judge, &context, &received);
                }
            });
        }
    });
    assert_unharmed(mediary);
}
