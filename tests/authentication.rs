//! Token checks: who is let in, whom the homeserver is asked about and how often, and what becomes
//! of a token that ended (checklist section 3, threats AU-01 to AU-10).

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use common::fake::{Received, TOKEN, respond, respond_with};
use common::synapse::unique_name;
use common::{
    Client, FakeHomeserver, Mediary, PATIENCE, Settings, Synapse, User, files_below, wait_until,
};
use serde_json::{Value, json};

/// A route that needs a token and nothing else.
const CONFIG: &str = "/_matrix/client/v1/media/config";

const ALICE: &str = r#"{"user_id":"@alice:fake.example","device_id":"D"}"#;

fn is_whoami(request: &Received) -> bool {
    request.target().starts_with("/_matrix/client/v3/account/whoami")
}

/// A homeserver that answers `whoami` by a script, and everything else as usual.
fn homeserver(
    whoami: impl Fn(&Received, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| is_whoami(request).then(|| whoami(request, stream)))
}

fn whoamis(fake: &FakeHomeserver) -> usize {
    fake.received_for("/whoami").len()
}

// --- No token, unknown tokens ------------------------------------------------------------------

/// CS-AUTH-04, CS-DL-02, CS-UP-01, CS-PV-01, CS-CFG-01
#[test]
fn without_a_token_nobody_is_let_in_and_nobody_is_asked() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let media = mediary.alice().upload("text/plain", None, b"hello");
    let asked = fake.received().len();
    let download = "/_matrix/client/v1/media/download";
    for target in [
        CONFIG.to_owned(),
        "/_matrix/media/v3/config".to_owned(),
        "/_matrix/media/r0/config".to_owned(),
        "/_matrix/media/v3/preview_url?url=http://a.example/".to_owned(),
        "/_matrix/client/v1/media/preview_url?url=http://a.example/".to_owned(),
        format!("{download}/{media}"),
        format!("{download}/{media}/name.txt"),
        format!("{download}/fake.example/absent"),
        format!("{download}/remote.example/absent"),
        format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32"),
        format!("/_matrix/client/unstable/org.matrix.msc3916/media/download/{media}"),
    ] {
        for (client, what) in
            [(mediary.client(), "no token"), (mediary.client().with_token(""), "an empty token")]
        {
            let answer = client.get(&target);
            assert_eq!(answer.status, 401, "{what}: {target}");
            answer.assert_error(401, "M_MISSING_TOKEN");
            let head = client.request("HEAD", &target, &[], b"");
            assert_eq!((head.status, head.body.len()), (401, 0), "{what}: HEAD {target}");
        }
        let basic = mediary.client().get_with(&target, &[("Authorization", "Basic YTpi")]);
        basic.assert_error(401, "M_MISSING_TOKEN");
    }
    for version in ["v3", "r0", "v1"] {
        let target = format!("/_matrix/media/{version}/upload");
        let answer = mediary.client().request("POST", &target, &[], b"hello");
        answer.assert_error(401, "M_MISSING_TOKEN");
    }
    assert_eq!(fake.received().len(), asked, "{:?}", fake.received());
    assert_eq!(mediary.blobs().len(), 1, "only what was uploaded with a token");
}

/// Whether something is there is nothing that strangers can tell.
#[test]
fn strangers_get_the_same_answer_for_what_is_there_and_what_is_not() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let media = mediary.alice().upload("text/plain", None, b"hello");
    for stranger in [mediary.client(), mediary.client().with_token("wrong")] {
        let [there, absent] = [&media, "fake.example/absent"].map(|media| {
            let mut answer = stranger.download(media);
            answer.headers.retain(|(name, _)| name != "date");
            (answer.status, answer.headers, answer.body)
        });
        assert_eq!(there.0, 401);
        assert_eq!(there, absent);
    }
}

/// CS-AUTH-05, CS-AUTH-06
#[test]
fn an_unknown_token_gets_the_homeservers_own_words() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let direct = synapse.client().with_token("wrong").get("/_matrix/client/v3/account/whoami");
    direct.assert_error(401, "M_UNKNOWN_TOKEN");
    let stranger = mediary.client().with_token("wrong");
    for answer in [
        stranger.get(CONFIG),
        stranger.download(&format!("{}/absent", synapse.server_name)),
        stranger.request("POST", "/_matrix/media/v3/upload", &[], b"hello"),
        mediary.client().get(&format!("{CONFIG}?access_token=wrong")),
    ] {
        answer.assert_error(401, "M_UNKNOWN_TOKEN");
        assert_eq!(answer.text(), direct.text());
    }
    assert!(mediary.blobs().is_empty());
}

/// CS-DL-02, CS-DL-16, CS-AUTH-05.
/// Somebody who had a token once, or found the URL, gets nothing out of what is kept (AU-03).
#[test]
fn what_is_kept_is_behind_the_token_check() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let media = client.upload("image/png", None, &png());
    let download = format!("/_matrix/client/v1/media/download/{media}");
    let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32");
    let etags = [&download, &thumbnail].map(|target| {
        assert_eq!(client.get(target).status, 200);
        let again = client.get(target);
        assert_eq!(again.status, 200);
        again.header("etag").expect("an ETag").to_owned()
    });
    assert_eq!(client.call("POST", "/_matrix/client/v3/logout", &json!({})).status, 200);
    for (target, etag) in [&download, &thumbnail].into_iter().zip(&etags) {
        for (stranger, errcode) in [
            (mediary.client(), "M_MISSING_TOKEN"),
            (mediary.client().with_token("wrong"), "M_UNKNOWN_TOKEN"),
            (client.clone(), "M_UNKNOWN_TOKEN"),
        ] {
            for field in [("Accept", "*/*"), ("If-None-Match", etag), ("Range", "bytes=0-0")] {
                stranger.get_with(target, &[field]).assert_error(401, errcode);
                let head = stranger.request("HEAD", target, &[field], b"");
                assert_eq!(head.status, 401, "{field:?}");
            }
        }
    }
}

fn png() -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8, y as u8, 99]));
    image.write_to(&mut png, image::ImageFormat::Png).expect("an image can be encoded");
    png.into_inner()
}

/// CS-CORS-03, CS-CORS-04
#[test]
fn a_preflight_needs_no_token_and_asks_nobody() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let asked = fake.received().len();
    for client in [mediary.client(), mediary.alice()] {
        for target in [CONFIG, "/_matrix/media/v3/upload?access_token=a"] {
            let headers = [
                ("Origin", "https://app.example"),
                ("Access-Control-Request-Method", "GET"),
                ("Access-Control-Request-Headers", "authorization"),
            ];
            let answer = client.request("OPTIONS", target, &headers, b"");
            assert_eq!(answer.status, 204, "{answer:?}");
            let allowed = answer.header("access-control-allow-headers").expect("a list");
            assert!(allowed.contains("Authorization"), "{allowed}");
        }
    }
    assert_eq!(fake.received().len(), asked, "{:?}", fake.received());
}

// --- Header and query --------------------------------------------------------------------------

/// CS-AUTH-02, FLD-21
#[test]
fn a_token_in_the_query_is_taken_but_goes_up_in_the_header() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let answer = mediary.client().get(&format!("{CONFIG}?access_token={TOKEN}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let whoami = &fake.received_for("/whoami")[0];
    assert_eq!(whoami.target(), "/_matrix/client/v3/account/whoami");
    assert_eq!(whoami.header("authorization"), Some("Bearer syt_alice"));

    // The same token in either place is one token.
    assert_eq!(mediary.alice().get(CONFIG).status, 200);
    assert_eq!(whoamis(&fake), 1);
}

/// FLD-21
#[test]
fn two_tokens_that_differ_are_refused_and_the_same_one_twice_is_taken() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    for other in ["wrong", "syt_bob", "", "syt_alic%C3%A9", "syt_alice%0A"] {
        for target in [
            format!("{CONFIG}?access_token={other}"),
            format!("/_matrix/client/v1/media/download/fake.example/a?access_token={other}"),
        ] {
            let answer = client.get(&target);
            answer.assert_error(401, "M_MISSING_TOKEN");
            let text = answer.json()["error"].to_string();
            assert!(text.contains("different tokens"), "{text}");
        }
    }
    let upload = "/_matrix/media/v3/upload?access_token=wrong";
    client.request("POST", upload, &[], b"hello").assert_error(401, "M_MISSING_TOKEN");
    assert_eq!(whoamis(&fake), 0);
    for same in ["syt_alice", "syt%5Falice"] {
        assert_eq!(client.get(&format!("{CONFIG}?access_token={same}")).status, 200);
    }
    assert_eq!(whoamis(&fake), 1);
    assert!(mediary.blobs().is_empty());
}

#[test]
fn two_tokens_in_headers_are_none() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    for other in ["Bearer wrong", "Bearer syt_alice", "Basic YTpi"] {
        let answer = client.get_with(CONFIG, &[("Authorization", other)]);
        answer.assert_error(401, "M_MISSING_TOKEN");
    }
    assert_eq!(whoamis(&fake), 0);
}

// --- How often the homeserver is asked ---------------------------------------------------------

#[test]
fn many_requests_with_one_fresh_token_are_one_question() {
    const REQUESTS: usize = 50;
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let fake = homeserver(move |_, stream| {
        released.lock().unwrap().recv_timeout(PATIENCE).expect("all requests are there in time");
        respond(stream, 200, ALICE)
    });
    let mediary = Mediary::in_front_of(&fake.url);
    thread::scope(|scope| {
        let requests: Vec<_> = (0..REQUESTS)
            .map(|_| scope.spawn(|| mediary.client().with_token("fresh").get(CONFIG)))
            .collect();
        wait_until("all requests are there", || {
            mediary.metric("mediary_requests_in_flight") == REQUESTS as f64
        });
        release.send(()).expect("the fake waits");
        for request in requests {
            let answer = request.join().expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    });
    assert_eq!(whoamis(&fake), 1);
}

#[test]
fn a_token_that_is_good_is_asked_about_once() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    for _ in 0..5 {
        assert_eq!(mediary.alice().get(CONFIG).status, 200);
    }
    assert_eq!(whoamis(&fake), 1);
    assert_eq!(mediary.metric(r#"mediary_token_checks_total{result="accepted"}"#), 1.0);
    assert_eq!(mediary.metric(r#"mediary_token_checks_total{result="cached"}"#), 4.0);
}

#[test]
fn without_a_token_cache_every_request_asks() {
    let fake = FakeHomeserver::start();
    let mediary = Settings::new(&fake.url).with("[auth]\ntoken_cache = \"0s\"").start();
    for asked in 1..=5 {
        assert_eq!(mediary.alice().get(CONFIG).status, 200);
        assert_eq!(whoamis(&fake), asked);
    }
    mediary.client().with_token("wrong").get(CONFIG).assert_error(401, "M_UNKNOWN_TOKEN");
    mediary.client().with_token("wrong").get(CONFIG).assert_error(401, "M_UNKNOWN_TOKEN");
    assert_eq!(whoamis(&fake), 7);
}

#[test]
fn a_failure_is_not_remembered() {
    let asked = AtomicUsize::new(0);
    let fake = homeserver(move |_, stream| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => respond(stream, 500, r#"{"errcode":"M_UNKNOWN","error":"Oh"}"#),
        _ => respond(stream, 200, ALICE),
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    client.get(CONFIG).assert_error(502, "M_UNKNOWN");
    assert_eq!(client.get(CONFIG).status, 200);
}

#[test]
fn a_refusal_is_forgotten_within_a_moment() {
    let asked = AtomicUsize::new(0);
    let fake = homeserver(move |_, stream| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => respond(stream, 401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Not yet"}"#),
        _ => respond(stream, 200, ALICE),
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    client.get(CONFIG).assert_error(401, "M_UNKNOWN_TOKEN");
    wait_until("the token is asked about again", || client.get(CONFIG).status == 200);
    assert_eq!(whoamis(&fake), 2);
}

// --- A homeserver that gives no clear answer ---------------------------------------------------

/// Does to a question what its token says.
fn misbehave(request: &Received, stream: &mut TcpStream) -> bool {
    let bearer = request.header("authorization").unwrap_or_default();
    let gone = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Gone"}"#;
    let html: &[u8] = b"<html><h1>It works!</h1></html>";
    let as_html = [("Content-Type", "text/html")];
    match bearer.strip_prefix("Bearer ").unwrap_or_default() {
        "500" => respond(stream, 500, gone),
        "502" => respond_with(stream, 502, &as_html, html),
        "503" => respond(stream, 503, r#"{"errcode":"M_UNKNOWN","error":"Busy"}"#),
        "204" => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok(),
        "302" => respond_with(stream, 302, &[("Location", "/elsewhere")], b""),
        "401-html" => respond_with(stream, 401, &as_html, html),
        "401-without-errcode" => respond(stream, 401, r#"{"error":"Gone"}"#),
        "html" => respond_with(stream, 200, &as_html, html),
        "nothing" => respond(stream, 200, ""),
        "object" => respond(stream, 200, "{}"),
        "list" => respond(stream, 200, r#"["@alice:fake.example"]"#),
        "null" => respond(stream, 200, r#"{"user_id":null}"#),
        "number" => respond(stream, 200, r#"{"user_id":7}"#),
        "no-user" => respond(stream, 200, r#"{"user_id":""}"#),
        "nonsense" => respond(stream, 200, r#"{"user_id":"alice"}"#),
        "room" => respond(stream, 200, r##"{"user_id":"#alice:fake.example"}"##),
        "elsewhere" => respond(stream, 200, r#"{"user_id":"@alice:other.example"}"#),
        "half" => respond(stream, 200, r#"{"user_id":"@alice:fake.example""#),
        "1-mib" => {
            let padding = " ".repeat(1 << 20);
            respond(stream, 200, &format!(r#"{{"user_id":"@alice:fake.example"{padding}}}"#))
        }
        "endless" => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            let mut sent = stream.write_all(head);
            while sent.is_ok() {
                sent = stream.write_all(chunk.as_bytes());
            }
            false
        }
        "breaks-off" => {
            let part = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"user_id\":";
            let _ = stream.write_all(part);
            false
        }
        "no-http" => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
            false
        }
        "closes" => false,
        "stalls" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{");
            until_closed(stream)
        }
        "silent" => until_closed(stream),
        other => panic!("no such fault: {other}"),
    }
}

fn until_closed(stream: &mut TcpStream) -> bool {
    let _ = stream.read(&mut [0]);
    false
}

/// CS-AUTH-06, CS-WHO-01
#[test]
fn a_homeserver_that_gives_no_clear_answer_lets_nobody_in_and_logs_nobody_out() {
    let fake = homeserver(misbehave);
    let mediary = Mediary::in_front_of(&fake.url);
    for fault in [
        "500",
        "502",
        "503",
        "204",
        "302",
        "401-html",
        "401-without-errcode",
        "html",
        "nothing",
        "object",
        "list",
        "null",
        "number",
        "no-user",
        "nonsense",
        "room",
        "elsewhere",
        "half",
        "1-mib",
        "endless",
        "breaks-off",
        "no-http",
        "closes",
    ] {
        let answer = mediary.client().with_token(fault).get(CONFIG);
        assert_eq!(answer.status, 502, "{fault}: {answer:?}");
        answer.assert_error(502, "M_UNKNOWN");
    }
    let upload = mediary.client().with_token("500");
    let answer = upload.request("POST", "/_matrix/media/v3/upload", &[], b"hello");
    answer.assert_error(502, "M_UNKNOWN");
    assert!(mediary.blobs().is_empty());
}

/// CS-AUTH-06
#[test]
fn a_homeserver_that_is_too_slow_lets_nobody_in_and_logs_nobody_out() {
    let fake = homeserver(misbehave);
    let mediary = Settings::new(&fake.url).with("[homeserver]\ntimeout = \"1s\"").start();
    for fault in ["silent", "stalls"] {
        let answer = mediary.client().with_token(fault).get(CONFIG);
        assert_eq!(answer.status, 504, "{fault}: {answer:?}");
        answer.assert_error(504, "M_UNKNOWN");
    }
}

/// CS-AUTH-06
#[test]
fn a_homeserver_that_is_down_lets_nobody_in_and_logs_nobody_out() {
    let settings = Settings::new("http://127.0.0.1:1").without_waiting();
    let mediary = settings.with("[homeserver]\nserver_name = \"fake.example\"").start();
    let client = mediary.alice();
    client.get(CONFIG).assert_error(502, "M_UNKNOWN");
    client.download("fake.example/a").assert_error(502, "M_UNKNOWN");
    mediary.client().get(CONFIG).assert_error(401, "M_MISSING_TOKEN");
}

/// CS-AUTH-06, CS-AUTH-07, CS-AUTH-08, CS-GEN-07, CS-WHO-02
#[test]
fn what_the_homeserver_says_to_the_caller_arrives_unchanged() {
    const WORDS: [(&str, u16, &str); 5] = [
        (
            "limited",
            429,
            r#"{ "errcode": "M_LIMIT_EXCEEDED", "error": "Slow", "retry_after_ms": 1999 }"#,
        ),
        ("forbidden", 403, r#"{"error":"No","errcode":"M_FORBIDDEN","org.example":[1,{}]}"#),
        ("suspended", 403, r#"{"errcode":"M_USER_SUSPENDED","error":"\u00e4"}"#),
        ("locked", 401, r#"{"errcode":"M_USER_LOCKED","error":"Locked","soft_logout":true}"#),
        ("expired", 401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Old","soft_logout":true}"#),
    ];
    let fake = homeserver(|request, stream| {
        let bearer = request.header("authorization").unwrap_or_default();
        let said = WORDS.iter().find(|(token, ..)| bearer.ends_with(token)).expect("known words");
        let headers =
            [("Content-Type", "application/json"), ("Retry-After", "2"), ("X-Private", "1")];
        respond_with(stream, said.1, &headers, said.2.as_bytes())
    });
    let mediary = Mediary::in_front_of(&fake.url);
    for (token, status, body) in WORDS {
        let client = mediary.client().with_token(token);
        for answer in
            [client.get(CONFIG), client.request("POST", "/_matrix/media/v3/upload", &[], b"hello")]
        {
            assert_eq!((answer.status, answer.text().as_str()), (status, body), "{token}");
            assert_eq!(answer.header("retry-after"), Some("2"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.header("x-private"), None);
        }
    }
    assert!(mediary.blobs().is_empty());
}

// --- Application services ----------------------------------------------------------------------

/// CS-AS-01, CS-AS-03, CS-WHO-01
#[test]
fn whom_an_application_service_acts_for_is_asked_and_remembered_apart() {
    let fake = homeserver(|request, stream| {
        let user = if request.target().contains("bob") { "bob" } else { "carol" };
        respond(stream, 200, &format!(r#"{{"user_id":"@{user}:fake.example"}}"#))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token("as");
    let queries = [
        "",
        "?user_id=@bob:fake.example",
        "?user_id=%40carol%3Afake.example",
        "?user_id=@bob:fake.example&device_id=D%20%26%3D1",
        "?device_id=D",
    ];
    for _ in 0..2 {
        for query in queries {
            assert_eq!(client.get(&format!("{CONFIG}{query}")).status, 200, "{query}");
        }
    }
    let asked: Vec<_> = fake.received_for("/whoami").iter().map(Received::target).collect();
    let expected = [
        "",
        "?user_id=%40bob%3Afake.example",
        "?user_id=%40carol%3Afake.example",
        "?user_id=%40bob%3Afake.example&device_id=D%20%26%3D1",
        "?device_id=D",
    ];
    assert_eq!(asked, expected.map(|query| format!("/_matrix/client/v3/account/whoami{query}")));
}

/// CS-AS-01, CS-AS-02, CS-WHO-02
#[test]
fn an_application_service_acts_for_its_users_and_nobody_else() {
    let synapse = Synapse::get();
    let as_token = synapse.as_token.as_deref().expect("MEDIARY_TEST_AS_TOKEN is set");
    let mediary = Mediary::in_front_of(&synapse.url);
    let bridge = mediary.client().with_token(as_token);
    let users = [(); 2].map(|()| {
        let register = json!({
            "type": "m.login.application_service",
            "username": format!("bridge_{}", unique_name()),
            "inhibit_login": true,
        });
        let answer = bridge.call("POST", "/_matrix/client/v3/register", &register);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["user_id"].as_str().expect("a user id").replace(':', "%3A")
    });

    let target = format!("/_matrix/media/v3/upload?user_id={}", users[0]);
    let uploaded = bridge.request("POST", &target, &[("Content-Type", "text/plain")], b"hello");
    let media = uploaded.media();
    for query in ["".to_owned(), format!("?user_id={}", users[0]), format!("?user_id={}", users[1])]
    {
        let answer = bridge.download(&format!("{media}{query}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{query}");
    }
    assert_eq!(mediary.metric(r#"mediary_token_checks_total{result="accepted"}"#), 3.0);

    let stranger = synapse.user().user_id;
    for query in [
        format!("?user_id={stranger}"),
        "?user_id=@bridge_absent:elsewhere.example".to_owned(),
        format!("?user_id={}&device_id=ABSENT", users[0]),
    ] {
        let whoami = format!("/_matrix/client/v3/account/whoami{query}");
        let direct = synapse.client().with_token(as_token).get(&whoami);
        let answer = bridge.download(&format!("{media}{query}"));
        assert_eq!(answer.status, direct.status, "{query}: {answer:?} {direct:?}");
        if direct.status != 200 {
            assert_eq!(answer.text(), direct.text(), "{query}");
        }
    }
}

// --- Sessions that end -------------------------------------------------------------------------

/// A user with two devices and another user, all of whom have just read a file.
struct Household {
    synapse: Synapse,
    mediary: Mediary,
    phone: User,
    laptop: User,
    neighbour: User,
    media: String,
}

impl Household {
    fn new() -> Self {
        let synapse = Synapse::get();
        let mediary = Mediary::in_front_of(&synapse.url);
        let phone = synapse.user();
        let (laptop, neighbour) = (synapse.log_in(&phone), synapse.user());
        let media = mediary.client_of(&phone).upload("text/plain", None, b"hello");
        let household = Self { synapse, mediary, phone, laptop, neighbour, media };
        for _ in 0..2 {
            household.assert_statuses([200, 200, 200]);
        }
        assert_eq!(household.questions(), 3.0, "the tokens are remembered");
        household
    }

    /// How often the homeserver was asked and said yes.
    fn questions(&self) -> f64 {
        self.mediary.metric(r#"mediary_token_checks_total{result="accepted"}"#)
    }

    fn client(&self, user: &User) -> Client {
        self.mediary.client_of(user)
    }

    /// What phone, laptop and neighbour get for the file.
    fn assert_statuses(&self, expected: [u16; 3]) {
        let answers = [&self.phone, &self.laptop, &self.neighbour]
            .map(|user| self.client(user).download(&self.media));
        assert_eq!(answers.each_ref().map(|answer| answer.status), expected, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status == 401) {
            answer.assert_error(401, "M_UNKNOWN_TOKEN");
        }
    }

    /// The neighbour is still remembered, so nobody asks about them.
    fn assert_neighbour_is_remembered(&self) {
        let before = self.questions();
        assert_eq!(self.client(&self.neighbour).download(&self.media).status, 200);
        assert_eq!(self.questions(), before);
    }

    /// Does what needs the password once more (CS-UIA): asks, is refused, and asks with it.
    fn with_password(&self, method: &str, target: &str, mut body: Value) {
        let client = self.client(&self.phone);
        let first = client.call(method, target, &body);
        assert_eq!(first.status, 401, "{first:?}");
        body["auth"] = json!({
            "type": "m.login.password",
            "session": first.json()["session"],
            "identifier": {"type": "m.id.user", "user": self.phone.user_id},
            "password": self.phone.password,
        });
        let done = client.call(method, target, &body);
        assert_eq!(done.status, 200, "{done:?}");
    }

    fn device_of(&self, user: &User) -> String {
        let whoami = self.synapse.client_of(user).get("/_matrix/client/v3/account/whoami");
        whoami.json()["device_id"].as_str().expect("a device").to_owned()
    }
}

/// CS-AUTH-05
#[test]
fn a_logout_counts_at_once() {
    let household = Household::new();
    let phone = household.client(&household.phone);
    assert_eq!(phone.call("POST", "/_matrix/client/v3/logout", &json!({})).status, 200);
    household.assert_statuses([401, 200, 200]);
    household.assert_neighbour_is_remembered();
}

#[test]
fn a_logout_by_an_old_client_counts_at_once() {
    let household = Household::new();
    let token = &household.phone.access_token;
    let target = format!("/_matrix/client/r0/logout?access_token={token}");
    let answer = household.mediary.client().call("POST", &target, &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}");
    household.assert_statuses([401, 200, 200]);
    household.assert_neighbour_is_remembered();
}

/// Synapse has no use for `user_id` in a user's own request, but it is part of what is remembered.
#[test]
fn a_logout_counts_for_every_way_in_which_the_token_was_used() {
    let household = Household::new();
    let phone = household.client(&household.phone);
    let others = ["?user_id=@x:example.org", "?user_id=a&device_id=b", "?device_id="];
    for query in others {
        assert_eq!(phone.download(&format!("{}{query}", household.media)).status, 200);
    }
    assert_eq!(phone.call("POST", "/_matrix/client/v3/logout", &json!({})).status, 200);
    for query in others {
        let answer = phone.download(&format!("{}{query}", household.media));
        assert_eq!(answer.status, 401, "{query}: {answer:?}");
    }
}

#[test]
fn a_logout_of_all_devices_counts_at_once() {
    let household = Household::new();
    let phone = household.client(&household.phone);
    assert_eq!(phone.call("POST", "/_matrix/client/v3/logout/all", &json!({})).status, 200);
    household.assert_statuses([401, 401, 200]);
    household.assert_neighbour_is_remembered();
}

#[test]
fn a_new_password_counts_at_once_for_the_other_devices() {
    let household = Household::new();
    let change = json!({"new_password": "another one, long enough", "logout_devices": true});
    household.with_password("POST", "/_matrix/client/v3/account/password", change);
    household.assert_statuses([200, 401, 200]);
    household.assert_neighbour_is_remembered();
}

#[test]
fn a_deleted_device_counts_at_once() {
    let household = Household::new();
    let device = household.device_of(&household.laptop);
    household.with_password("DELETE", &format!("/_matrix/client/v3/devices/{device}"), json!({}));
    household.assert_statuses([200, 401, 200]);
    household.assert_neighbour_is_remembered();
}

#[test]
fn devices_deleted_together_count_at_once() {
    let household = Household::new();
    let device = household.device_of(&household.laptop);
    household.with_password(
        "POST",
        "/_matrix/client/v3/delete_devices",
        json!({"devices": [device]}),
    );
    household.assert_statuses([200, 401, 200]);
    household.assert_neighbour_is_remembered();
}

#[test]
fn a_deactivated_account_counts_at_once() {
    let household = Household::new();
    household.with_password("POST", "/_matrix/client/v3/account/deactivate", json!({}));
    household.assert_statuses([401, 401, 200]);
    household.assert_neighbour_is_remembered();
}

#[test]
fn an_account_deactivated_by_an_administrator_counts_at_once() {
    let household = Household::new();
    let admin = household.client(&household.synapse.admin());
    let target = format!("/_synapse/admin/v1/deactivate/{}", household.phone.user_id);
    let answer = admin.call("POST", &target, &json!({"erase": false}));
    assert_eq!(answer.status, 200, "{answer:?}");
    household.assert_statuses([401, 401, 200]);
}

#[test]
fn a_refused_logout_or_deletion_makes_nobody_forgotten() {
    let household = Household::new();
    let wrong = household.mediary.client().with_token("wrong");
    for (method, target) in [
        ("POST", "/_matrix/client/v3/logout"),
        ("POST", "/_matrix/client/v3/logout/all"),
        ("DELETE", "/_matrix/client/v3/devices/ABC"),
        ("POST", "/_matrix/client/v3/account/deactivate"),
        ("POST", "/_synapse/admin/v1/deactivate/@a:b"),
    ] {
        assert_eq!(wrong.call(method, target, &json!({})).status, 401, "{target}");
    }
    household.assert_statuses([200, 200, 200]);
    assert_eq!(household.questions(), 3.0);
}

#[test]
fn a_logout_behind_our_back_counts_with_the_next_question() {
    let household = Household::new();
    let synapse = &household.synapse;
    let careful = Settings::new(&synapse.url).with("[auth]\ntoken_cache = \"0s\"").start();
    assert_eq!(careful.client_of(&household.phone).get(CONFIG).status, 200);
    let direct = synapse.client_of(&household.phone);
    assert_eq!(direct.call("POST", "/_matrix/client/v3/logout", &json!({})).status, 200);
    careful.client_of(&household.phone).get(CONFIG).assert_error(401, "M_UNKNOWN_TOKEN");
    // Within the time of the cache, as documented.
    household.assert_statuses([200, 200, 200]);
}

/// The homeserver's yes is from before the logout and arrives after it.
#[test]
fn an_answer_from_before_a_logout_is_not_believed() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let asked = AtomicUsize::new(0);
    let fake = FakeHomeserver::with(move |request, stream| {
        if request.target() == "/_matrix/client/v3/logout" {
            return Some(respond(stream, 200, "{}"));
        }
        is_whoami(request).then(|| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => {
                released.lock().unwrap().recv_timeout(PATIENCE).expect("the logout in time");
                respond(stream, 200, ALICE)
            }
            _ => respond(stream, 401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Gone"}"#),
        })
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let early = client.clone();
    let early = thread::spawn(move || early.get(CONFIG));
    wait_until("the homeserver is asked", || whoamis(&fake) == 1);
    assert_eq!(client.call("POST", "/_matrix/client/v3/logout", &json!({})).status, 200);
    release.send(()).expect("the fake waits");
    early.join().expect("an answer").assert_error(401, "M_UNKNOWN_TOKEN");
    client.get(CONFIG).assert_error(401, "M_UNKNOWN_TOKEN");
}

// --- Where tokens are not ----------------------------------------------------------------------

#[test]
fn no_token_is_logged_counted_or_stored() {
    const SECRET: &str = "syt_do_not_show_me";
    let fake = FakeHomeserver::with(|request, stream| {
        let target = request.target();
        if target.starts_with("/closes") || target.contains("user_id=broken") {
            Some(false)
        } else if target.starts_with("/nonsense") || target.contains("user_id=nonsense") {
            let _ = write!(stream, "HTTP/1.1 2OO {SECRET}\r\n{SECRET}\r\n\r\n");
            Some(false)
        } else {
            let is_known = is_whoami(request) && !target.contains("user_id=refused");
            is_known.then(|| respond(stream, 200, ALICE))
        }
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let (client, bearer) = (mediary.client(), mediary.client().with_token(SECRET));
    bearer.upload("text/plain", Some("a"), b"hello");
    for target in ["/passed", "/closes", "/nonsense", "/_matrix/client/v3/logout"] {
        client.get(&format!("{target}?access_token={SECRET}"));
        bearer.request("POST", target, &[], b"{}");
    }
    for query in ["", "&user_id=broken", "&user_id=nonsense", "&user_id=refused"] {
        client.get(&format!("{CONFIG}?access_token={SECRET}{query}"));
        bearer.get(&format!("{CONFIG}?{query}"));
    }
    let media = "/_matrix/client/v1/media";
    client.get(&format!("{media}/download/fake.example/absent?access_token={SECRET}"));
    client.get(&format!("{media}/download/-/-?access_token={SECRET}"));
    client.get(&format!("{media}/unknown?access_token={SECRET}"));
    client.get(&format!("/_matrix//media/v3/spelling?access_token={SECRET}"));
    bearer.get_with("/connection", &[("Connection", "authorization")]);
    bearer.get_with("/twice", &[("Authorization", &format!("Bearer {SECRET}2"))]);
    // What is refused before it is a request, and what breaks off.
    for request in [
        format!("GET /line\"?access_token={SECRET}< HTTP/1.1\r\nHost: h\r\n\r\n"),
        format!("GET /line?access_token={SECRET} HTTP/9.9\r\nHost: h\r\n\r\n"),
        format!("GET /field HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {SECRET}\0\r\n\r\n"),
        format!("GET /field HTTP/1.1\r\nHost: h\r\nAuthorization : Bearer {SECRET}\r\n\r\n"),
        format!(
            "POST /framing?access_token={SECRET} HTTP/1.1\r\nHost: h\r\n\
             Transfer-Encoding: chunked\r\n\r\n{SECRET}\r\n"
        ),
        format!(
            "POST /length?access_token={SECRET} HTTP/1.1\r\nHost: h\r\n\
             Content-Length: {SECRET}\r\n\r\n"
        ),
    ] {
        let answer = client.raw(request.as_bytes());
        assert_eq!(answer.status, 400, "{request}");
    }
    for target in ["/gone", "/_matrix/media/v3/upload"] {
        let mut connection = client.connect();
        let head = format!(
            "POST {target}?access_token={SECRET} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nab"
        );
        connection.send(head.as_bytes());
    }
    for path in
        ["/passed", "/closes", "/nonsense", "/unknown", "/spelling", "/framing", "/gone", "/twice"]
    {
        mediary.wait_for_log(path);
    }
    let log = mediary.log();
    assert!(!log.contains("do_not_show"), "{log}");
    let metrics = mediary.admin_client().get("/metrics").text();
    assert!(!metrics.contains("do_not_show"), "{metrics}");
    // What broke off is removed by a thread of its own.
    wait_until("no unfinished body is left", || mediary.unfinished().is_empty());
    for file in files_below(&mediary.store()) {
        let bytes = std::fs::read(&file).expect("a file of the store");
        let is_found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!is_found, "{}", file.display());
    }
}

// --- What the homeserver learns ------------------------------------------------------------------

#[test]
fn the_homeserver_learns_where_its_users_are() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let from = [("User-Agent", "Element/1.0"), ("X-Forwarded-For", "198.51.100.7")];
    client.get_with("/_matrix/client/v1/media/download/fake.example/unknown", &from);
    for question in ["/whoami", "/download/fake.example/unknown"] {
        let asked = fake.received_for(question);
        assert_eq!(asked.len(), 1, "{question}");
        assert_eq!(asked[0].header("user-agent"), Some("Element/1.0"), "{question}");
        let hops: Vec<_> = asked[0]
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(hops, ["198.51.100.7", "127.0.0.1"], "{question}");
    }
}

#[test]
fn a_stranger_who_breaks_off_a_logout_makes_nobody_forgotten() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    assert_eq!(client.get(CONFIG).status, 200);
    for target in
        ["/_matrix/client/v3/logout", "/_matrix/client/v3/logout/all", "/_synapse/admin/v1/x"]
    {
        let broken = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
        );
        mediary.client().raw(broken.as_bytes());
        let mut leaving = mediary.client().connect();
        leaving.send(
            format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{{").as_bytes(),
        );
        drop(leaving);
        wait_until("the broken requests are over", || {
            mediary.metric("mediary_requests_in_flight") == 0.0
        });
    }
    assert_eq!(client.get(CONFIG).status, 200);
    assert_eq!(whoamis(&fake), 1);
}

#[test]
fn an_answer_of_whoami_about_anything_but_the_token_is_not_relayed() {
    for status in [404, 405, 410] {
        let unrecognized = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized"}"#;
        let fake = homeserver(move |_, stream| respond(stream, status, unrecognized));
        let mediary = Mediary::in_front_of(&fake.url);
        mediary.alice().get(CONFIG).assert_error(502, "M_UNKNOWN");
    }
}
