//! The legacy routes, which ask for no token: what was there before the freeze, the icons of identity
//! providers, and nothing that anybody could learn of the rest (CS-FRZ, threats AU-16, AU-17).

mod common;

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use common::fake::{Received, TOKEN, respond, respond_with};
use common::http::Answer;
use common::samples::png;
use common::{FakeHomeserver, Mediary, Settings, Synapse, wait_until};
use serde_json::json;

const NOT_FOUND: &str = r#"{"errcode":"M_NOT_FOUND","error":"Frozen"}"#;

/// A file of another server that the homeserver gives to its users.
const REMOTE: &str = "other.example/remote";

/// The versions under which the legacy routes are known.
const VERSIONS: [&str; 3] = ["v3", "r0", "v1"];

/// A homeserver with media for its users, which shows to anybody what its script says; its login
/// flows name the icons that a test puts there.
struct Homeserver {
    fake: FakeHomeserver,
    icons: Arc<Mutex<Vec<String>>>,
}

impl Homeserver {
    fn start() -> Self {
        Self::showing(|_, stream| respond(stream, 404, NOT_FOUND))
    }

    fn showing(
        anybody: impl Fn(&Received, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let icons: Arc<Mutex<Vec<String>>> = Arc::default();
        let named = icons.clone();
        let fake = FakeHomeserver::with(move |request, stream| {
            let target = request.target();
            if target == "/_matrix/client/v3/login" && request.method == "GET" {
                let icon = |uri: &String| json!({"id": "a", "name": "A", "icon": uri});
                let icons: Vec<_> = named.lock().expect("the icons").iter().map(icon).collect();
                let flows = json!([{"type": "m.login.sso", "identity_providers": icons}]);
                return Some(respond(stream, 200, &json!({"flows": flows}).to_string()));
            }
            if !target.contains("/download/") {
                return None;
            }
            Some(match request.header("authorization") {
                Some("Bearer syt_admin") if target.contains("/absent") => {
                    respond(stream, 401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Gone"}"#)
                }
                Some(_) if target.contains("/absent") => respond(stream, 404, NOT_FOUND),
                Some(_) => picture(stream),
                None => anybody(request, stream),
            })
        });
        Self { fake, icons }
    }

    fn name_icons(&self, media: &[&str]) {
        *self.icons.lock().expect("the icons") =
            media.iter().map(|media| format!("mxc://{media}")).collect();
    }

    /// Returns what it was asked since so many requests.
    fn asked_since(&self, count: usize) -> Vec<Received> {
        self.fake.received().split_off(count)
    }

    fn count(&self) -> usize {
        self.fake.received().len()
    }
}

fn picture(stream: &mut TcpStream) -> bool {
    respond_with(stream, 200, &[("Content-Type", "image/png")], &png(64, 64))
}

fn download(media: &str) -> String {
    format!("/_matrix/media/v3/download/{media}")
}

fn thumbnail(media: &str) -> String {
    format!("/_matrix/media/v3/thumbnail/{media}?width=32&height=32&method=crop")
}

/// What a stranger can see of an answer.
fn seen(answer: Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| name != "date");
    (answer.status, headers, answer.text())
}

/// A way to ask: a method, a target, and header fields.
type Question = (&'static str, String, Vec<(&'static str, &'static str)>);

/// Every way to ask by the legacy routes.
fn questions(media: &str) -> Vec<Question> {
    let mut questions = Vec::new();
    for version in VERSIONS {
        let route = |kind: &str| format!("/_matrix/media/{version}/{kind}/{media}");
        let box_of = "width=32&height=32";
        for (target, fields) in [
            (route("download"), vec![]),
            (format!("{}/name.png", route("download")), vec![]),
            (format!("{}?timeout_ms=60000&allow_remote=true", route("download")), vec![]),
            (format!("{}?fi.mau.msc2246.timeout_ms=60000", route("download")), vec![]),
            (format!("{}?allow_redirect=true", route("download")), vec![]),
            (format!("{}?access_token={TOKEN}", route("download")), vec![]),
            (route("download"), vec![("Range", "bytes=0-0")]),
            (route("download"), vec![("If-None-Match", "*")]),
            (format!("{}?{box_of}&method=crop", route("thumbnail")), vec![]),
            (format!("{}?{box_of}&timeout_ms=60000", route("thumbnail")), vec![]),
            (format!("{}?{box_of}", route("thumbnail")), vec![("If-None-Match", "*")]),
        ] {
            for method in ["GET", "HEAD"] {
                questions.push((method, target.clone(), fields.clone()));
            }
        }
    }
    questions
}

/// The time of a refusal is that of the same questions to the homeserver, whatever is kept here and
/// whatever the homeserver says.
///
/// CS-FRZ-01, CS-FRZ-03, CS-DL-01, CS-TH-20
#[test]
fn what_is_frozen_and_what_is_not_there_look_and_cost_the_same() {
    for (said, body, seen) in [
        (404, NOT_FOUND, 404),
        (400, r#"{"errcode":"M_UNKNOWN","error":"No such file"}"#, 404),
        (429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Slower"}"#, 429),
        (503, "<html>", 502),
    ] {
        let homeserver = Homeserver::showing(move |_, stream| respond(stream, said, body));
        assert_nothing_is_seen(&homeserver, seen);
    }
}

fn assert_nothing_is_seen(homeserver: &Homeserver, status: u16) {
    let mediary = Mediary::in_front_of(&homeserver.fake.url);
    let user = mediary.alice();
    let [reserved, begun, filled] = [(); 3].map(|()| user.create().media());
    user.put(&filled, "image/png", &png(64, 64)).assert_stored();
    let uploaded = user.upload("image/png", Some("a.png"), &png(64, 64));
    let in_memory = user.upload("image/png", None, &png(65, 64));
    for media in [&in_memory, "fake.example/copy"] {
        assert_eq!(user.download(media).status, 200);
        assert_eq!(user.thumbnail(media).status, 200);
    }
    // An upload whose first bytes are there.
    let mut uploading = mediary.client().connect();
    let head = format!(
        "PUT /_matrix/media/v3/upload/{begun} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \
         {TOKEN}\r\nContent-Length: 10\r\n\r\nfirst"
    );
    uploading.send(head.as_bytes());
    wait_until("the upload has begun", || mediary.unfinished().len() == 1);

    // The same length, so that no target is longer than another.
    let absent = "fake.example/absent".to_owned();
    let copy = "fake.example/copy".to_owned();
    let observe = |media: &str| {
        let mut observed = Vec::new();
        for (method, target, fields) in questions(media) {
            let before = homeserver.count();
            let answer = seen(mediary.client().request(method, &target, &fields, b""));
            assert_eq!(answer.0, status, "{method} {target}");
            let asked: Vec<_> = homeserver
                .asked_since(before)
                .into_iter()
                .map(|it| (it.method.clone(), it.target().replace(media, "-"), it.headers))
                .collect();
            observed.push((answer, asked));
        }
        observed
    };
    let expected = observe(&absent);
    let target = "/_matrix/media/v3/download/-?allow_remote=false&timeout_ms=0";
    for (_, asked) in &expected {
        let [(method, asked, fields)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(method, "GET");
        assert!(asked == target || *asked == format!("{target}&allow_redirect=true"), "{asked}");
        assert!(!fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")));
    }
    for media in [&reserved, &begun, &filled, &uploaded, &in_memory, &copy] {
        assert!(observe(media) == expected, "{media}");
    }
    assert!(homeserver.fake.received().iter().all(|it| !it.target().contains(TOKEN)));
}

/// CS-FRZ-02, CS-FRZ-06, CS-DL-04, FLD-22
#[test]
fn of_other_servers_media_nothing_is_asked_on_behalf_of_anybody() {
    let homeserver = Homeserver::showing(|_, stream| picture(stream));
    let mediary = Mediary::in_front_of(&homeserver.fake.url);
    // Its copy came after the freeze.
    assert_eq!(mediary.alice().download(REMOTE).status, 200);
    let before = homeserver.count();
    let mut answers = Vec::new();
    for media in [REMOTE, "other.example/absent", "FAKE.example/absent"] {
        for (method, target, fields) in questions(media) {
            let answer = mediary.client().request(method, &target, &fields, b"");
            assert_eq!(answer.status, 404, "{method} {target}");
            if method == "GET" {
                answer.assert_error(404, "M_NOT_FOUND");
            }
            answers.push(seen(answer));
        }
    }
    assert_eq!(homeserver.count(), before, "{:?}", homeserver.asked_since(before));
    assert!(answers.iter().all(|(_, headers, _)| *headers == answers[0].1));
}

/// CS-FRZ-02
#[test]
fn a_copy_counts_from_when_it_was_made() {
    let homeserver = Homeserver::start();
    let mediary = Mediary::in_front_of(&homeserver.fake.url);
    let user = mediary.alice();
    assert_eq!(user.download(REMOTE).status, 200);
    let media = user.upload("image/png", None, &png(64, 64));
    for media in [REMOTE, &media] {
        mediary.client().get(&download(media)).assert_error(404, "M_NOT_FOUND");
    }
    // With a freeze that began later, both were there before.
    let settings = mediary.kill().with("[legacy]\nfrozen_since = 2999-01-01T00:00:00Z");
    let mediary = settings.start();
    let before = homeserver.count();
    for media in [REMOTE, &media] {
        for version in VERSIONS {
            let target = download(media).replace("/v3/", &format!("/{version}/"));
            mediary.client().get(&target).assert_whole(&png(64, 64));
            let target = thumbnail(media).replace("/v3/", &format!("/{version}/"));
            assert_eq!(mediary.client().get(&target).status, 200, "{target}");
        }
    }
    let asked = homeserver.asked_since(before);
    assert!(!asked.iter().any(|it| it.target().contains("/download/")), "{asked:?}");
}

/// CS-DL-10, CS-FRZ-03
#[test]
fn nobody_hears_of_an_upload_that_the_homeserver_expects() {
    let homeserver = Homeserver::showing(|_, stream| {
        respond(stream, 504, r#"{"errcode":"M_NOT_YET_UPLOADED","error":"Wait"}"#)
    });
    let mediary = Mediary::in_front_of(&homeserver.fake.url);
    for target in [download("fake.example/soon"), thumbnail("fake.example/soon")] {
        mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
    }
    let open = Settings::new(&homeserver.fake.url).with("[legacy]\nmode = \"open\"").start();
    let answer = open.client().get(&download("fake.example/soon"));
    answer.assert_error(504, "M_NOT_YET_UPLOADED");
}

/// CS-FRZ-01, CS-DL-01
#[test]
fn with_the_legacy_mode_off_nobody_is_asked_for_anything() {
    let homeserver = Homeserver::showing(|_, stream| picture(stream));
    let settings = "[legacy]\nmode = \"off\"";
    let mediary = Settings::new(&homeserver.fake.url).with(settings).start();
    let user = mediary.alice();
    let media = user.upload("image/png", None, &png(64, 64));
    let reserved = user.create().media();
    let before = homeserver.count();
    for media in [&media, &reserved, "fake.example/old", REMOTE] {
        for (method, target, fields) in questions(media) {
            let answer = mediary.client().request(method, &target, &fields, b"");
            assert_eq!(answer.status, 404, "{method} {target}");
        }
    }
    assert_eq!(homeserver.count(), before, "{:?}", homeserver.asked_since(before));
    assert_eq!(user.download(&media).status, 200);
}

/// What Mediary holds of a name that the homeserver shows to anybody as well is not the homeserver's.
///
/// CS-FRZ-01
#[test]
fn what_was_uploaded_here_stays_frozen_whatever_the_homeserver_says() {
    let homeserver = Homeserver::showing(|_, stream| picture(stream));
    let mediary = Mediary::in_front_of(&homeserver.fake.url);
    let media = mediary.alice().upload("text/plain", None, b"mine");
    for target in [download(&media), thumbnail(&media)] {
        mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
    }
}

// --- icons

/// CS-FRZ-04, FLD-23
#[test]
fn icons_are_shown_to_whoever_has_not_logged_in() {
    for mode in ["frozen", "off"] {
        let homeserver = Homeserver::start();
        let settings = format!("[legacy]\nmode = \"{mode}\"");
        let mediary = Settings::new(&homeserver.fake.url).with(&settings).start();
        let user = mediary.alice();
        let owned = user.upload("image/png", Some("icon.png"), &png(64, 64));
        let other = user.upload("image/png", None, &png(64, 64));
        let expected = user.create().media();
        let icons = [&owned, "fake.example/copy", REMOTE];
        for copy in &icons[1..] {
            assert_eq!(user.download(copy).status, 200);
        }
        for media in icons {
            mediary.client().get(&download(media)).assert_error(404, "M_NOT_FOUND");
        }
        homeserver.name_icons(&[&owned, "fake.example/copy", REMOTE, &expected]);
        let mediary = mediary.kill_and_restart();
        wait_until("the icons are known", || mediary.client().get(&download(&owned)).status == 200);
        for media in icons {
            let answer = mediary.client().get(&download(media));
            answer.assert_whole(&png(64, 64));
            assert!(answer.header("cache-control").is_some_and(|it| it.starts_with("public")));
            assert_eq!(mediary.client().get(&thumbnail(media)).status, 200, "{media}");
            let head = mediary.client().request("HEAD", &download(media), &[], b"");
            assert_eq!(head.status, 200, "{media}");
        }
        let waits = format!("{}?timeout_ms=0", download(&expected));
        mediary.client().get(&waits).assert_error(504, "M_NOT_YET_UPLOADED");
        mediary.client().get(&download(&other)).assert_error(404, "M_NOT_FOUND");
        mediary.client().get(&thumbnail(&other)).assert_error(404, "M_NOT_FOUND");
        // When it is no icon any more, it is frozen again.
        homeserver.name_icons(&[]);
        let mediary = mediary.kill_and_restart();
        for media in icons {
            wait_until("the icons are forgotten", || {
                mediary.client().get(&download(media)).status == 404
            });
        }
    }
}

/// CS-FRZ-04
#[test]
fn an_icon_that_is_not_held_is_fetched_for_anybody() {
    for mode in ["frozen", "off"] {
        let homeserver = Homeserver::showing(|_, stream| picture(stream));
        homeserver.name_icons(&["fake.example/icon", "other.example/icon"]);
        let settings =
            format!("[legacy]\nmode = \"{mode}\"\nreadable = [\"mxc://third.example/listed\"]");
        let mediary = Settings::new(&homeserver.fake.url).with(&settings).start();
        let icons = ["fake.example/icon", "other.example/icon", "third.example/listed"];
        for media in icons {
            for _ in 0..2 {
                assert_eq!(mediary.client().get(&thumbnail(media)).status, 200, "{media}");
                mediary.client().get(&download(media)).assert_whole(&png(64, 64));
            }
            let asked = homeserver.fake.received_for(media);
            assert_eq!(asked.len(), 1, "{asked:?}");
            assert!(asked[0].target().contains("?allow_remote=true&"), "{asked:?}");
            assert_eq!(asked[0].header("authorization"), None);
            let kept_here = format!("{}?allow_remote=false", download(media));
            assert_eq!(mediary.client().get(&kept_here).status, 200);
        }
        // The answer proves nothing for the time when they are no icons any more.
        homeserver.name_icons(&[]);
        let mediary = mediary.kill_and_restart();
        wait_until("the icons are forgotten", || {
            mediary.client().get(&download("other.example/icon")).status == 404
        });
        assert_eq!(mediary.client().get(&download("third.example/listed")).status, 200);
    }
}

/// Only an administrator's token opens what the homeserver has frozen itself, and only for icons.
///
/// CS-FRZ-04, CS-DL-04, FLD-23
#[test]
fn an_icon_that_the_homeserver_has_frozen_is_fetched_with_an_administrators_token() {
    for (has_token, status) in [(true, 200), (false, 404)] {
        let homeserver = Homeserver::start();
        homeserver.name_icons(&["fake.example/icon", "other.example/icon", "fake.example/absent"]);
        let settings = Settings::new(&homeserver.fake.url);
        let settings = if has_token { settings.with_admin_token("syt_admin") } else { settings };
        let mediary = settings.start();
        let not_remote = format!("{}?allow_remote=false", download("other.example/icon"));
        mediary.client().get(&not_remote).assert_error(404, "M_NOT_FOUND");
        for media in ["fake.example/icon", "other.example/icon"] {
            assert_eq!(mediary.client().get(&thumbnail(media)).status, status, "{media}");
            assert_eq!(mediary.client().get(&download(media)).status, status, "{media}");
        }
        for media in ["fake.example/frozen", "other.example/frozen", "fake.example/absent"] {
            mediary.client().get(&download(media)).assert_error(404, "M_NOT_FOUND");
        }
        let asked = homeserver.fake.received();
        let bearing = asked.iter().filter(|it| it.header("authorization").is_some());
        let targets: Vec<_> = bearing.map(Received::target).collect();
        let expected = ["fake.example/icon", "other.example/icon", "fake.example/absent"]
            .map(|media| format!("/_matrix/client/v1/media/download/{media}?timeout_ms=0"));
        assert_eq!(targets, if has_token { &expected[..] } else { &[] });
    }
}

/// CS-FRZ-04
#[test]
fn icons_are_asked_for_again_when_the_homeserver_did_not_name_them() {
    let answers = Mutex::new(vec![(200, "<html>"), (500, "{}"), (404, NOT_FOUND)]);
    let fake = FakeHomeserver::with(move |request, stream| {
        if request.target().contains("/download/") {
            return Some(picture(stream));
        }
        if request.target() != "/_matrix/client/v3/login" {
            return None;
        }
        let flows = r#"{"flows":[{"type":"m.login.cas","icon":"mxc://other.example/icon"}]}"#;
        let (status, body) = answers.lock().expect("the answers").pop().unwrap_or((200, flows));
        Some(respond(stream, status, body))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    mediary.wait_for_log("does not name the icons");
    wait_until("the icon is known", || {
        mediary.client().get(&download("other.example/icon")).status == 200
    });
    for asked in fake.received_for("/v3/login") {
        assert_eq!(asked.header("authorization"), None);
    }
}

/// Synapse's own media code has no exemption for icons.
///
/// CS-FRZ-04, FLD-23
#[test]
fn an_icon_that_synapse_names_is_shown_once_it_is_known() {
    let synapse = Synapse::start();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = mediary.client_of(&synapse.user());
    let [icon, other] = [64, 65].map(|width| user.upload("image/png", None, &png(width, 64)));
    // One that Synapse holds and has frozen itself.
    let older = synapse.client_of(&synapse.user()).upload("image/png", None, &png(66, 64));
    let uri = format!("mxc://{icon}");
    let cas = json!({"enabled": true, "server_url": "http://127.0.0.1:1", "idp_icon": uri});
    let settings = mediary
        .kill()
        .with_admin_token(&synapse.admin().access_token)
        .with(&format!("[legacy]\nreadable = [\"mxc://{older}\"]"));
    let synapse = synapse.restart_with(&format!("cas_config={cas}"));
    let mediary = settings.in_front_of(&synapse.url).start();
    wait_until("the icon is known", || mediary.client().get(&download(&icon)).status == 200);
    mediary.client().get(&download(&icon)).assert_whole(&png(64, 64));
    assert_eq!(mediary.client().get(&thumbnail(&icon)).status, 200);
    mediary.client().get(&download(&older)).assert_whole(&png(66, 64));
    mediary.client().get(&download(&other)).assert_error(404, "M_NOT_FOUND");
    let login = mediary.client().get("/_matrix/client/v3/login").text();
    assert!(login.contains(&icon), "{login}");
}
