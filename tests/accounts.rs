//! Accounts in bad standing, application services and refreshed tokens (checklist section 3, threats
//! AU-21).

mod common;

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use common::fake::{OTHER_DEVICE_TOKEN, OTHER_TOKEN, Received, TOKEN, respond, respond_with};
use common::http::Answer;
use common::synapse::unique_name;
use common::{Client, FakeHomeserver, Mediary, PATIENCE, Settings, Synapse, User, wait_until};
use serde_json::json;

/// A route that needs a token and nothing else.
const CONFIG: &str = "/_matrix/client/v1/media/config";

const UPLOAD: &str = "/_matrix/media/v3/upload";

const ADMIN_TOKEN: &str = "syt_admin_do_not_show";

const UNRECOGNIZED: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized"}"#;

/// Where a homeserver may tell who is suspended.
const ROUTES: [&str; 3] = [
    "/_matrix/client/v1/admin/suspend/",
    "/_matrix/client/unstable/uk.timedout.msc4323/admin/suspend/",
    "/_synapse/admin/v2/users/",
];

/// Mediary that asks a homeserver who is suspended.
fn start(url: &str, token: &str) -> Mediary {
    Settings::new(url).with_admin_token(token).start()
}

/// Everything that adds something.
fn uploads(client: &Client, reserved: &str) -> [Answer; 3] {
    [
        client.request("POST", UPLOAD, &[("Content-Type", "text/plain")], b"hello"),
        client.create(),
        client.request("PUT", &format!("{UPLOAD}/{reserved}"), &[], b"hello"),
    ]
}

// --- suspended users

/// A homeserver whose one route says what the script says of a user.
fn telling(
    route: &'static str,
    tell: impl Fn(&Received, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| {
        let target = request.target();
        if target.starts_with(route) && request.method == "GET" {
            return Some(tell(request, stream));
        }
        if request.method == "PUT" && target.contains("/suspend/") {
            return Some(respond(stream, 200, "{}"));
        }
        let is_other = ROUTES.iter().any(|other| target.starts_with(other));
        is_other.then(|| respond(stream, 404, UNRECOGNIZED))
    })
}

/// CS-AUTH-09
#[test]
fn a_suspended_user_reads_but_does_not_upload() {
    for route in ROUTES {
        let suspended = Arc::new(Mutex::new(false));
        let state = suspended.clone();
        let fake = telling(route, move |request, stream| {
            let is_alice = request.target().ends_with("%40alice%3Afake.example");
            let suspended = is_alice && *state.lock().expect("the state");
            respond(stream, 200, &json!({"name": "x", "suspended": suspended}).to_string())
        });
        let mediary = start(&fake.url, ADMIN_TOKEN);
        let [alice, bob] = [TOKEN, OTHER_TOKEN].map(|token| mediary.client().with_token(token));
        let media = alice.upload("text/plain", None, b"hello");
        let reserved = alice.create().media();

        *suspended.lock().expect("the state") = true;
        // The administrator's request passes through, so the answer from before is forgotten.
        let target = "/_synapse/admin/v1/suspend/@alice:fake.example";
        let admin = mediary.client().with_token(ADMIN_TOKEN);
        assert_eq!(admin.call("PUT", target, &json!({"suspend": true})).status, 200);
        for answer in uploads(&alice, &reserved) {
            answer.assert_error(403, "M_USER_SUSPENDED");
        }
        assert_eq!(mediary.blobs().len(), 1, "{route}");
        assert_eq!(alice.download(&media).text(), "hello");
        assert_eq!(alice.get(CONFIG).status, 200);
        assert_eq!(bob.upload("text/plain", None, b"from bob").split('/').count(), 2);

        *suspended.lock().expect("the state") = false;
        assert_eq!(admin.call("PUT", target, &json!({"suspend": false})).status, 200);
        assert_eq!(alice.request("PUT", &format!("{UPLOAD}/{reserved}"), &[], b"x").status, 200);

        // The routes that are not known are asked once, and only questions bear the secret.
        let of_others =
            |asked: &Received| ROUTES.iter().any(|it| *it != route && asked.target().contains(it));
        let own: Vec<_> = fake.received().into_iter().filter(Received::is_mediarys_own).collect();
        let before = ROUTES.iter().position(|it| *it == route).expect("a route");
        assert_eq!(own.iter().filter(|asked| of_others(asked)).count(), before, "{route}");
        for asked in own {
            let bears = asked.header("authorization") == Some(&format!("Bearer {ADMIN_TOKEN}"));
            assert_eq!(bears, ROUTES.iter().any(|it| asked.target().contains(it)), "{asked:?}");
        }
        assert!(!mediary.log().contains("do_not_show"));
    }
}

#[test]
fn the_answer_about_a_user_is_remembered_for_all_their_devices() {
    let fake = telling(ROUTES[2], |_, stream| respond(stream, 200, r#"{"suspended":false}"#));
    let mediary = start(&fake.url, ADMIN_TOKEN);
    for token in [TOKEN, OTHER_DEVICE_TOKEN, TOKEN, OTHER_DEVICE_TOKEN] {
        mediary.client().with_token(token).upload("text/plain", None, b"hello");
    }
    assert_eq!(fake.received_for(ROUTES[2]).len(), 1);
    // Whoever only reads is not asked about.
    assert_eq!(mediary.bob().get(CONFIG).status, 200);
    assert_eq!(fake.received_for(ROUTES[2]).len(), 1);
}

/// The homeserver's "no" is from before the suspension and arrives after it.
///
/// CS-AUTH-09
#[test]
fn an_answer_from_before_a_suspension_is_not_remembered() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let asked = AtomicUsize::new(0);
    let fake = telling(ROUTES[0], move |_, stream| {
        let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        if is_first {
            released.lock().expect("the channel").recv_timeout(PATIENCE).expect("in time");
        }
        respond(stream, 200, &json!({"suspended": !is_first}).to_string())
    });
    let mediary = start(&fake.url, ADMIN_TOKEN);
    let client = mediary.alice();
    let early = client.clone();
    let early = thread::spawn(move || early.request("POST", UPLOAD, &[], b"hello"));
    // What arrives is on record before it is answered.
    wait_until("the homeserver is asked", || !fake.received_for(ROUTES[0]).is_empty());
    let admin = mediary.client().with_token(ADMIN_TOKEN);
    let target = "/_synapse/admin/v1/suspend/@alice:fake.example";
    assert_eq!(admin.call("PUT", target, &json!({"suspend": true})).status, 200);
    release.send(()).expect("the fake waits");
    assert_eq!(early.join().expect("an answer").status, 200);
    client.request("POST", UPLOAD, &[], b"hello").assert_error(403, "M_USER_SUSPENDED");
}

/// CS-AUTH-09
#[test]
fn nobody_uploads_while_the_homeserver_does_not_say() {
    for (status, body, told) in [
        (500, r#"{"errcode":"M_UNKNOWN","error":"Oh"}"#, 502),
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Gone"}"#, 502),
        (403, r#"{"errcode":"M_FORBIDDEN","error":"You are not a server admin"}"#, 502),
        (429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Slower"}"#, 502),
        (302, "{}", 502),
        (200, "<html>", 502),
        (200, "{}", 502),
        (200, r#"{"suspended":null}"#, 502),
        (200, r#"{"suspended":"no"}"#, 502),
        (404, UNRECOGNIZED, 502),
        (404, "<html>", 502),
        (404, r#"{"errcode":"M_NOT_FOUND","error":"User not found"}"#, 200),
        (200, r#"{"suspended":false,"more":[]}"#, 200),
    ] {
        let fake = telling(ROUTES[2], move |_, stream| respond(stream, status, body));
        let mediary = start(&fake.url, ADMIN_TOKEN);
        let client = mediary.alice();
        let answer = client.request("POST", UPLOAD, &[], b"hello");
        if told == 200 {
            let media = answer.media();
            assert_eq!(client.download(&media).text(), "hello");
        } else {
            answer.assert_error(told, "M_UNKNOWN");
            assert!(mediary.blobs().is_empty());
            // A failure is not remembered.
            let asked = fake.received_for(ROUTES[2]).len();
            assert_eq!(client.request("POST", UPLOAD, &[], b"hello").status, told);
            assert_eq!(fake.received_for(ROUTES[2]).len(), 2 * asked, "{status} {body}");
        }
        assert_eq!(client.get(CONFIG).status, 200);
    }
}

/// CS-AUTH-09
#[test]
fn a_user_whom_synapse_suspends_reads_but_does_not_upload() {
    let synapse = Synapse::get();
    let admin = synapse.admin();
    let mediary = start(&synapse.url, &admin.access_token);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let media = client.upload("text/plain", None, b"hello");
    let reserved = client.create().media();
    let suspend = |is: bool| {
        let target = format!("/_synapse/admin/v1/suspend/{}", user.user_id);
        let answer = mediary.client_of(&admin).call("PUT", &target, &json!({"suspend": is}));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    suspend(true);
    for answer in uploads(&client, &reserved) {
        answer.assert_error(403, "M_USER_SUSPENDED");
    }
    assert_eq!(client.download(&media).text(), "hello");
    // Who is asked about is the user, and not the device.
    let again = mediary.client_of(&synapse.log_in(&user));
    again.request("POST", UPLOAD, &[], b"hello").assert_error(403, "M_USER_SUSPENDED");
    suspend(false);
    assert_eq!(client.request("PUT", &format!("{UPLOAD}/{reserved}"), &[], b"x").status, 200);

    // An application service's users and its own are none that anybody suspends.
    let bridge = mediary.client().with_token(as_token(&synapse));
    bridge.upload("text/plain", None, b"bridged");
}

/// CS-AUTH-09
#[test]
fn a_token_that_is_no_administrators_lets_nobody_upload_and_says_so() {
    let synapse = Synapse::get();
    let mediary = start(&synapse.url, &synapse.user().access_token);
    let client = mediary.client_of(&synapse.user());
    client.request("POST", UPLOAD, &[], b"hello").assert_error(502, "M_UNKNOWN");
    mediary.wait_for_log("auth.admin_token_file");
    assert!(mediary.blobs().is_empty());
}

#[test]
fn a_token_file_that_everybody_may_read_is_refused_at_the_start() {
    let settings = Settings::new("http://127.0.0.1:1").with_admin_token(ADMIN_TOKEN);
    let refusal = || settings.clone().refusal();
    let file = settings.admin_token_file();
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("our own file");
    let (status, said) = refusal();
    assert!(!status.success() && said.contains("auth.admin_token_file"), "{said}");
    assert!(said.contains("chmod o-rwx") && !said.contains("do_not_show"), "{said}");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("our own file");
    std::fs::write(&file, "do_not_show do_not_show").expect("our own file");
    let (status, said) = refusal();
    assert!(!status.success() && said.contains("on one line"), "{said}");
    assert!(!said.contains("do_not_show"), "{said}");
    std::fs::remove_file(&file).expect("our own file");
    let (status, said) = refusal();
    assert!(!status.success() && said.contains("auth.admin_token_file"), "{said}");
}

#[test]
fn without_a_token_cache_the_homeserver_is_asked_before_every_upload() {
    let fake = telling(ROUTES[2], |_, stream| respond(stream, 200, r#"{"suspended":false}"#));
    let settings = Settings::new(&fake.url).with_admin_token(ADMIN_TOKEN);
    let settings = settings.with("token_cache = \"0s\"");
    let mediary = settings.start();
    let client = mediary.alice();
    for asked in 1..=3 {
        client.upload("text/plain", None, b"hello");
        assert_eq!(fake.received_for(ROUTES[2]).len(), asked);
    }
}

#[test]
fn the_check_says_whether_suspended_users_can_be_told() {
    let synapse = Synapse::get();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = directory.path().join("store").to_string_lossy().into_owned();
    for (token, is_good, finding) in [
        (synapse.admin().access_token, true, "ok    it says who is suspended"),
        (synapse.user().access_token, false, "FAIL  it does not say who is suspended"),
        ("wrong".to_owned(), false, "FAIL  the homeserver refuses the token"),
        ("no token".to_owned(), false, "FAIL  auth.admin_token_file: it has to hold"),
    ] {
        let settings = Settings::new(&synapse.url).with_admin_token(&token);
        let file = settings.admin_token_file();
        let setting = format!("[auth]\nadmin_token_file = \"{}\"", file.display());
        let config = directory.path().join("mediary.toml");
        std::fs::write(&config, setting).expect("the configuration can be written");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mediary"))
            .args(["check", "--upstream", &synapse.url, "--listen", "127.0.0.1:0"])
            .args(["--data-dir", &store, "--config"])
            .arg(config)
            .env_clear()
            .output()
            .expect("the binary can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.success(), is_good, "{said}");
        assert!(said.contains(finding), "no {finding:?} in\n{said}");
        assert!(!said.contains(&token), "{said}");
    }
}

// --- locked users

/// CS-AUTH-06, CS-AUTH-08, CS-WHO-02
#[test]
fn a_user_whom_synapse_locks_hears_it_in_synapses_words() {
    let synapse = Synapse::get();
    let (admin, user) = (synapse.admin(), synapse.user());
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&user);
    let media = client.upload("image/png", None, &common::samples::png(64, 64));
    let lock = |is: bool| {
        let target = format!("/_synapse/admin/v2/users/{}", user.user_id);
        let answer = mediary.client_of(&admin).call("PUT", &target, &json!({"locked": is}));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    lock(true);
    let direct = synapse.client_of(&user).get("/_matrix/client/v3/account/whoami");
    direct.assert_error(401, "M_USER_LOCKED");
    assert_eq!(direct.json()["soft_logout"], true);
    let [upload, create, put] = uploads(&client, &media);
    for answer in [
        client.download(&media),
        client.thumbnail(&media),
        client.get(CONFIG),
        client.get("/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fa.example"),
        upload,
        create,
        put,
    ] {
        assert_eq!((answer.status, answer.text()), (401, direct.text()));
    }
    lock(false);
    wait_until("the refusal is forgotten", || client.download(&media).status == 200);
}

/// CS-AUTH-05, CS-AUTH-06, CS-AUTH-07, CS-AUTH-08
#[test]
fn what_the_homeserver_says_of_a_session_is_relayed_to_the_byte() {
    for (status, body) in [
        (401, r#"{"errcode":"M_USER_LOCKED","error":"x","soft_logout":true}"#),
        (401, r#"{ "soft_logout" : true , "errcode":"M_USER_LOCKED" }"#),
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x","soft_logout":true}"#),
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x","soft_logout":false}"#),
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x"}"#),
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"\u2026","soft_logout":null,"x":[1]}"#),
        (401, r#"{"errcode":"ORG_EXAMPLE_CODE","error":"x","soft_logout":true}"#),
        (403, r#"{"errcode":"M_USER_SUSPENDED","error":"x"}"#),
        (403, r#"{"errcode":"M_FORBIDDEN","error":"not in its namespace"}"#),
    ] {
        let fake = FakeHomeserver::with(move |request, stream| {
            request.target().contains("/whoami").then(|| respond(stream, status, body))
        });
        let mediary = Mediary::in_front_of(&fake.url);
        let client = mediary.alice();
        let by_query = mediary.client().get(&format!("{CONFIG}?access_token={TOKEN}"));
        let [upload, create, put] = uploads(&client, "fake.example/a");
        for answer in [client.download("fake.example/a"), by_query, upload, create, put] {
            assert_eq!((answer.status, answer.text().as_str()), (status, body));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
        assert!(mediary.blobs().is_empty());
    }
}

// --- application services

fn as_token(synapse: &Synapse) -> &str {
    synapse.as_token.as_deref().expect("MEDIARY_TEST_AS_TOKEN is set")
}

/// CS-AS-01, CS-AS-02, CS-AS-03
#[test]
fn whom_an_application_service_acts_for_is_told_with_every_question() {
    let fake = FakeHomeserver::with(|request, stream| {
        let target = request.target();
        if target.contains("/whoami") {
            return Some(respond(stream, 200, r#"{"user_id":"@b:fake.example"}"#));
        }
        if target.contains("/preview_url") {
            return Some(match target.starts_with("/_matrix/client/v1/") {
                true => respond(stream, 404, UNRECOGNIZED),
                false => respond(stream, 200, r#"{"og:title":"x"}"#),
            });
        }
        target.contains("/download/").then(|| {
            match target.starts_with("/_matrix/client/v1/media/download/fake.example/old") {
                true => respond(stream, 404, UNRECOGNIZED),
                false => respond_with(stream, 200, &[("Content-Type", "text/plain")], b"hello"),
            }
        })
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let bridge = mediary.client().with_token("as");
    for (sent, received) in [
        ("user_id=@b:fake.example", "user_id=%40b%3Afake.example"),
        ("user_id=%40b%3Afake.example&device_id=D%20%26%3D1", ""),
        ("device_id=%2525+1&user_id=%40b", "user_id=%40b&device_id=%2525%201"),
        ("user_id=", "user_id="),
    ] {
        let received = if received.is_empty() { sent } else { received };
        let seen = fake.received().len();
        let id = format!("m{seen}");
        let media = "/_matrix/client/v1/media";
        for target in [
            format!("{media}/download/fake.example/{id}?{sent}"),
            format!("{media}/download/other.example/{id}?{sent}&timeout_ms=5"),
            format!("{media}/download/fake.example/old{id}?timeout_ms=5&{sent}"),
            format!("{media}/preview_url?url=http%3A%2F%2Fa.example%2F%3Fb&{sent}"),
        ] {
            assert_eq!(bridge.get(&target).status, 200, "{target}");
        }
        let asked: Vec<_> = fake.received()[seen..].iter().map(Received::target).collect();
        let expected = [
            format!("/_matrix/client/v3/account/whoami?{received}"),
            format!("{media}/download/fake.example/{id}?timeout_ms=20000&{received}"),
            format!("{media}/download/other.example/{id}?timeout_ms=5&{received}"),
            format!("{media}/download/fake.example/old{id}?timeout_ms=5&{received}"),
            format!("/_matrix/media/v3/download/fake.example/old{id}?timeout_ms=5&{received}"),
            format!("{media}/preview_url?url=http%3A%2F%2Fa.example%2F%3Fb&{received}"),
            format!("/_matrix/media/v3/preview_url?url=http%3A%2F%2Fa.example%2F%3Fb&{received}"),
        ];
        assert_eq!(asked, expected);
        assert!(
            fake.received()[seen..]
                .iter()
                .all(|it| it.header("authorization") == Some("Bearer as"))
        );
    }
}

/// CS-AS-01, CS-AS-03
#[test]
fn synapse_judges_the_user_whom_an_application_service_acts_for() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let bridge = mediary.client().with_token(as_token(&synapse));
    let register = json!({
        "type": "m.login.application_service",
        "username": format!("bridge_{}", unique_name()),
        "inhibit_login": true,
    });
    let answer = bridge.call("POST", "/_matrix/client/v3/register", &register);
    let ghost = answer.json()["user_id"].as_str().expect("a user id").replace(':', "%3A");
    let old = synapse.client_of(&synapse.user()).upload("text/plain", None, b"older");
    for query in [String::new(), format!("?user_id={ghost}")] {
        let answer = bridge.download(&format!("{old}{query}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "older"), "{query}");
    }
    let stranger = synapse.user().user_id;
    let whoami = format!("/_matrix/client/v3/account/whoami?user_id={stranger}");
    let direct = synapse.client().with_token(as_token(&synapse)).get(&whoami);
    direct.assert_error(403, "M_FORBIDDEN");
    let answer = bridge.download(&format!("{old}?user_id={stranger}"));
    assert_eq!((answer.status, answer.text()), (403, direct.text()));
    let absent = format!("{old}?user_id={ghost}&device_id=ABSENT");
    bridge.download(&absent).assert_error(400, "M_UNKNOWN_DEVICE");
}

// --- refreshed tokens

/// Logs a user in for a token that can be refreshed; returns it and what refreshes it.
fn log_in_refreshable(synapse: &Synapse, user: &User) -> (String, String) {
    let body = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": user.password,
        "refresh_token": true,
    });
    tokens(&synapse.client().call("POST", "/_matrix/client/v3/login", &body))
}

fn tokens(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let text = |key: &str| answer[key].as_str().expect("a token").to_owned();
    (text("access_token"), text("refresh_token"))
}

/// Whoever refreshes does not say which token it was, but the next one shows its device.
///
/// CS-AUTH-05, CS-AUTH-07
#[test]
fn an_older_token_of_a_device_is_asked_about_again_once_a_newer_one_is_used() {
    let used = Mutex::new(false);
    let fake = FakeHomeserver::with(move |request, stream| {
        if !request.target().contains("/whoami") {
            return None;
        }
        let (status, body) = match request.header("authorization") {
            Some("Bearer older") if *used.lock().expect("the state") => {
                (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Replaced","soft_logout":true}"#)
            }
            Some("Bearer tablet") => (200, r#"{"user_id":"@a:fake.example","device_id":"T"}"#),
            Some(token) => {
                *used.lock().expect("the state") |= token == "Bearer newer";
                (200, r#"{"user_id":"@a:fake.example","device_id":"D"}"#)
            }
            None => return None,
        };
        Some(respond(stream, status, body))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let [older, newer, tablet] =
        ["older", "newer", "tablet"].map(|token| mediary.client().with_token(token));
    for client in [&older, &tablet, &older, &tablet] {
        assert_eq!(client.get(CONFIG).status, 200);
    }
    assert_eq!(fake.received_for("/whoami").len(), 2);
    assert_eq!(newer.get(CONFIG).status, 200);
    let refused = older.get(CONFIG);
    refused.assert_error(401, "M_UNKNOWN_TOKEN");
    assert_eq!(refused.json()["soft_logout"], true);
    for client in [&newer, &tablet] {
        assert_eq!(client.get(CONFIG).status, 200);
    }
    assert_eq!(fake.received_for("/whoami").len(), 4);
}

/// CS-AUTH-07
#[test]
fn the_tokens_of_a_session_that_was_refreshed_are_what_synapse_says_they_are() {
    let synapse = Synapse::get();
    let user = synapse.user();
    let mediary = Mediary::in_front_of(&synapse.url);
    let media = mediary.client_of(&user).upload("text/plain", None, b"hello");
    let accepted = || mediary.metric(r#"mediary_token_checks_total{result="accepted"}"#);
    let (older, refreshes) = log_in_refreshable(&synapse, &user);
    assert_eq!(mediary.client().with_token(&older).download(&media).status, 200);
    let body = json!({"refresh_token": refreshes});
    let (newer, _) = tokens(&mediary.client().call("POST", "/_matrix/client/v3/refresh", &body));
    assert_eq!(mediary.client().with_token(&newer).download(&media).status, 200);
    let before = accepted();
    for token in [&older, &newer] {
        let direct = synapse.client().with_token(token).get("/_matrix/client/v3/account/whoami");
        let answer = mediary.client().with_token(token).download(&media);
        assert_eq!(answer.status, direct.status, "{answer:?}");
    }
    // The user's other device is none of it.
    let asked = accepted();
    assert!(asked > before);
    assert_eq!(mediary.client_of(&user).download(&media).status, 200);
    assert_eq!(accepted(), asked);
}

/// CS-AUTH-07
#[test]
fn a_refresh_that_bears_a_token_makes_it_forgotten_and_nobody_else() {
    let fake = FakeHomeserver::with(|request, stream| {
        request.target().contains("/refresh").then(|| respond(stream, 200, "{}"))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let [alice, bob] = [TOKEN, OTHER_TOKEN].map(|token| mediary.client().with_token(token));
    let whoamis = || fake.received_for("/whoami").len();
    for client in [&alice, &bob] {
        assert_eq!(client.get(CONFIG).status, 200);
    }
    let target = "/_matrix/client/v3/refresh";
    let body = json!({"refresh_token": "r"});
    assert_eq!(mediary.client().call("POST", target, &body).status, 200);
    for client in [&alice, &bob] {
        assert_eq!(client.get(CONFIG).status, 200);
    }
    assert_eq!(whoamis(), 2, "without a token nobody is forgotten");
    assert_eq!(alice.call("POST", target, &body).status, 200);
    for client in [&alice, &bob] {
        assert_eq!(client.get(CONFIG).status, 200);
    }
    assert_eq!(whoamis(), 3);
}
