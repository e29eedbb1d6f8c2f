//! Limits on how often and how much, what may be uploaded and by whom, and what clients are told of it
//! (CS-RL, CS-UP, CS-CFG, CS-GST, threats AU-07, RX-08).

mod common;

use common::fake::{Received, TOKEN, respond, respond_with};
use common::http::{Answer, Connection};
use common::{Client, FakeHomeserver, Mediary, Settings, Synapse, noise, wait_until};

const CONFIG: &str = "/_matrix/client/v1/media/config";
const CREATE: &str = "/_matrix/media/v1/create";
const UPLOAD: &str = "/_matrix/media/v3/upload";

/// So slow that no test sees a place come back.
const NEVER: &str = "[limits]
    user_bytes_per_second = \"1 B\"
    address_bytes_per_second = \"1 B\"
    user_requests_per_second = 0
    address_requests_per_second = 0\n";

fn start(homeserver: &FakeHomeserver, settings: &str) -> Mediary {
    Settings::new(&homeserver.url).with(settings).start()
}

fn post(client: &Client, content_type: &str, body: &[u8]) -> Answer {
    client.request("POST", UPLOAD, &[("Content-Type", content_type)], body)
}

fn refusals(mediary: &Mediary, kind: &str) -> f64 {
    mediary.metric(&format!("mediary_refusals_total{{kind=\"{kind}\"}}"))
}

/// Asks as somebody behind a proxy, who has the given address.
fn get_from(client: &Client, address: &str, target: &str) -> Answer {
    client.get_with(target, &[("X-Forwarded-For", address)])
}

/// Sends the head of an upload of Alice's, who waits to be told to go on.
fn announce(mediary: &Mediary, method: &str, target: &str, fields: &str) -> Connection {
    let mut connection = mediary.client().connect();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Expect: 100-continue\r\n{fields}\r\n"
    );
    connection.send(head.as_bytes());
    connection
}

/// CS-RL-01, CS-RL-02, CS-RL-03, CS-DL-14, CS-UP-07, CS-PUT-07
#[test]
fn a_user_who_asks_too_often_is_told_when_to_try_again_on_every_route() {
    let homeserver = FakeHomeserver::start();
    let limits = "[limits]\nuser_requests_per_second = 1\nuser_requests_burst = 100";
    let mediary = start(&homeserver, limits);
    let client = mediary.alice();
    let media = post(&client, "text/plain", b"text").media();
    let refused = (0..1000).find(|_| client.get(CONFIG).status == 429);
    assert!(refused.is_some_and(|number| number >= 99), "{refused:?}");
    let requests: [(&str, String); 7] = [
        ("GET", CONFIG.to_owned()),
        ("GET", "/_matrix/media/v3/config".to_owned()),
        ("GET", format!("/_matrix/client/v1/media/download/{media}")),
        ("GET", format!("/_matrix/client/v1/media/thumbnail/{media}?width=1&height=1")),
        ("POST", UPLOAD.to_owned()),
        ("PUT", format!("{UPLOAD}/{media}")),
        ("POST", CREATE.to_owned()),
    ];
    // A place comes back each second, and is taken again at once.
    for (method, target) in &requests {
        let ask = |_| client.request(method, target, &[], b"");
        let refused = (0..1000).map(ask).find(|answer| answer.status == 429);
        assert_eq!(refused.expect("a refusal").assert_limited(), 1, "{method} {target}");
    }
    assert_eq!(mediary.bob().get(CONFIG).status, 200, "the limit is each user's own");
    let frozen = mediary.client().get(&format!("/_matrix/media/v3/download/{media}"));
    assert_eq!(frozen.status, 404, "nobody asks by the legacy routes");
    assert!(refusals(&mediary, "user_requests") >= 8.0);
    wait_until("there is a place again", || client.get(CONFIG).status == 200);
}

/// CS-CORS-03
#[test]
fn preflights_and_what_passes_through_are_not_counted() {
    let homeserver = FakeHomeserver::start();
    let limits = "[limits]
        user_requests_per_second = 1
        user_requests_burst = 3
        address_requests_per_second = 1
        address_requests_burst = 3";
    let mediary = start(&homeserver, limits);
    let address = [("X-Forwarded-For", "198.51.100.7")];
    for _ in 0..50 {
        for path in [CONFIG, UPLOAD, CREATE] {
            assert_eq!(mediary.alice().request("OPTIONS", path, &address, b"").status, 204);
        }
        let versions = mediary.alice().get_with("/_matrix/client/versions", &address);
        assert_eq!(versions.status, 200);
    }
    let answers = [(); 3].map(|()| mediary.alice().get_with(CONFIG, &address).status);
    assert_eq!(answers, [200; 3]);
    let refused = (0..100).find(|_| mediary.alice().get_with(CONFIG, &address).status == 429);
    assert!(refused.is_some());
    let passed = mediary.alice().get_with("/_matrix/client/versions", &address);
    assert_eq!(passed.status, 200);
    assert_eq!(mediary.alice().request("OPTIONS", CONFIG, &address, b"").status, 204);
}

/// CS-RL-01
#[test]
fn whoever_guesses_tokens_is_stopped_at_their_address_before_the_homeserver_is_asked() {
    let homeserver = FakeHomeserver::start();
    let limits = "[limits]\naddress_requests_per_second = 1\naddress_requests_burst = 20";
    let mediary = start(&homeserver, limits);
    let before = homeserver.received_for("whoami").len();
    let mut asked = 0;
    for number in 0..300 {
        let client = mediary.client().with_token(&format!("guess-{number}"));
        let answer = get_from(&client, "203.0.113.9", CONFIG);
        if answer.status == 429 {
            answer.assert_limited();
        } else {
            assert_eq!((answer.status, answer.errcode().as_str()), (401, "M_UNKNOWN_TOKEN"));
            asked += 1;
        }
    }
    assert!((20..300).contains(&asked), "{asked}");
    assert_eq!(homeserver.received_for("whoami").len() - before, asked);
    assert_eq!(refusals(&mediary, "address_requests"), f64::from(300 - asked as u32));
    assert_eq!(get_from(&mediary.alice(), "203.0.113.10", CONFIG).status, 200);
}

/// CS-RL-01
#[test]
fn an_ipv6_network_is_one_address_and_mapped_addresses_are_none_of_their_own() {
    let homeserver = FakeHomeserver::start();
    let limits = "[limits]\naddress_bytes_per_second = \"1 B\"\naddress_bytes_burst = \"1000 B\"";
    let mediary = start(&homeserver, limits);
    let media = post(&mediary.alice(), "text/plain", &noise(2000, 1)).media();
    let target = format!("/_matrix/client/v1/media/download/{media}");
    for (one, same, other) in [
        ("2001:db8:1:2::1", "[2001:db8:1:2:9:9:9:9]:4000", "2001:db8:1:3::1"),
        ("198.51.100.7", "::ffff:198.51.100.7", "198.51.100.8"),
    ] {
        assert_eq!(get_from(&mediary.alice(), one, &target).status, 200);
        get_from(&mediary.bob(), same, &target).assert_limited();
        assert_eq!(get_from(&mediary.alice(), other, &target).status, 200);
    }
    assert_eq!(refusals(&mediary, "address_bytes"), 2.0);
}

/// CS-RL-01
#[test]
fn an_address_is_believed_from_trusted_proxies_alone_and_their_own_has_no_limit() {
    let homeserver = FakeHomeserver::start();
    let limits = "[limits]\naddress_requests_per_second = 1\naddress_requests_burst = 10\n";
    let mediary = start(&homeserver, limits);
    for _ in 0..50 {
        assert_eq!(mediary.alice().get(CONFIG).status, 200, "the proxy names no client");
    }
    let mediary = start(&homeserver, &format!("[server]\ntrusted_proxies = []\n{limits}"));
    let forged = |number: u32| {
        let address = format!("198.51.100.{}", number % 250);
        get_from(&mediary.alice(), &address, CONFIG).status
    };
    let refused = (0..250).find(|number| forged(*number) == 429);
    assert!(refused.is_some_and(|number| number >= 10), "{refused:?}");
    mediary.wait_for_log("if it is a proxy of yours, name it in server.trusted_proxies");
}

/// CS-RL-01
#[test]
fn other_servers_and_strangers_are_limited_by_their_address() {
    let homeserver = FakeHomeserver::start();
    let limits = "[limits]\naddress_requests_per_second = 1\naddress_requests_burst = 5";
    let mediary = start(&homeserver, limits);
    let signed = ("Authorization", "X-Matrix a=b");
    for (address, target, field) in [
        ("203.0.113.1", "/_matrix/federation/v1/media/download/signed", signed),
        ("203.0.113.2", "/_matrix/federation/v1/media/download/unsigned", ("X-Nothing", "")),
        ("203.0.113.3", "/_matrix/media/v3/download/other.example/legacy", ("X-Nothing", "")),
    ] {
        let fields = [("X-Forwarded-For", address), field];
        let ask = || mediary.client().get_with(target, &fields);
        let answers: Vec<Answer> = (0..50).map(|_| ask()).collect();
        let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
        assert!((1..=45).contains(&refused.len()), "{} of {target}", refused.len());
        refused[0].assert_limited();
        let asked = homeserver.received_for(target).len();
        assert!(asked <= 50 - refused.len(), "what is refused is asked of nobody");
    }
}

/// CS-DL-14, CS-RL-01, CS-RL-02
#[test]
fn bytes_are_charged_before_they_are_sent_and_refused_while_there_is_a_debt() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, &format!("{NEVER}user_bytes_burst = \"10000 B\""));
    let body = noise(8000, 1);
    let media = post(&mediary.bob(), "text/plain", &body).media();
    let target = format!("/_matrix/client/v1/media/download/{media}");
    let client = mediary.alice();
    // None of these sends anything of the body.
    let etag = mediary.bob().request("HEAD", &target, &[], b"");
    let etag = etag.header("etag").expect("an ETag").to_owned();
    for _ in 0..10 {
        assert_eq!(client.request("HEAD", &target, &[], b"").status, 200);
        assert_eq!(client.get_with(&target, &[("If-None-Match", &etag)]).status, 304);
    }
    for _ in 0..7 {
        assert_eq!(client.get_with(&target, &[("Range", "bytes=0-999")]).status, 206);
    }
    client.download(&media).assert_whole(&body);
    let wait = client.download(&media).assert_limited();
    assert!((4000..=5000).contains(&wait), "{wait} s for a debt of 5000 bytes at one a second");
    client.get(CONFIG).assert_limited();
    client.create().assert_limited();
    assert_eq!(refusals(&mediary, "user_bytes"), 3.0);
    assert_eq!(mediary.bob().get(CONFIG).status, 200, "the limit is each user's own");
}

/// CS-UP-07, CS-PUT-07
#[test]
fn uploads_are_charged_by_what_they_announce_before_it_is_read() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, &format!("{NEVER}user_bytes_burst = \"1000 B\""));
    let client = mediary.alice();
    let media = client.create().media();
    let mut first = announce(&mediary, "POST", UPLOAD, "Content-Length: 1500\r\n");
    assert_eq!(first.read_any_answer("POST").status, 100);
    // The first has sent nothing yet, and the debt is there.
    for (method, target) in [("POST", UPLOAD.to_owned()), ("PUT", format!("{UPLOAD}/{media}"))] {
        let mut second = announce(&mediary, method, &target, "Content-Length: 10\r\n");
        second.read_any_answer(method).assert_limited();
    }
    first.send(&noise(1500, 1));
    first.read_answer("POST").media();
    client.get(CONFIG).assert_limited();
}

/// CS-UP-07
#[test]
fn an_upload_that_breaks_off_is_charged_what_it_sent() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, &format!("{NEVER}user_bytes_burst = \"10000 B\""));
    let client = mediary.alice();
    let ended = || mediary.metric("mediary_requests_total{route=\"upload\",status=\"4xx\"}");
    for number in 1..=5 {
        let mut gone = announce(&mediary, "POST", UPLOAD, "Content-Length: 1000000\r\n");
        assert_eq!(gone.read_any_answer("POST").status, 100);
        gone.send(&noise(1000, number));
        client.get(CONFIG).assert_limited();
        gone.stream.shutdown(std::net::Shutdown::Write).unwrap();
        gone.read_answer("POST");
        drop(gone);
        wait_until("it has ended", || ended() >= number as f64);
        wait_until("it is settled", || client.get(CONFIG).status == 200);
    }
    // Without a length it is charged at its end.
    let mut chunked = announce(&mediary, "POST", UPLOAD, "Transfer-Encoding: chunked\r\n");
    assert_eq!(chunked.read_any_answer("POST").status, 100);
    assert_eq!(client.get(CONFIG).status, 200);
    chunked.send(&common::http::chunk(&noise(7000, 1)));
    chunked.send(b"0\r\n\r\n");
    chunked.read_answer("POST").media();
    wait_until("it is settled", || client.get(CONFIG).status == 429);
}

/// CS-DL-14
#[test]
fn a_player_that_seeks_and_hangs_up_pays_for_what_it_was_sent() {
    let homeserver = FakeHomeserver::start();
    let settings =
        format!("{NEVER}user_bytes_burst = \"40 MiB\"\n[uploads]\nmax_size = \"80 MiB\"");
    let mediary = start(&homeserver, &settings);
    let media = post(&mediary.bob(), "video/mp4", &noise(80 << 20, 1)).media();
    let client = mediary.alice();
    let target = format!("/_matrix/client/v1/media/download/{media}");
    let ended = || mediary.metric("mediary_request_duration_seconds_count{route=\"download\"}");
    // Twice what the sockets take of it does not come to the burst.
    for number in 1..=2 {
        let mut player = client.connect();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
             Range: bytes={number}-\r\n\r\n"
        );
        player.send(head.as_bytes());
        assert_eq!(player.read_head().status, 206);
        client.get(CONFIG).assert_limited();
        drop(player);
        wait_until("it has ended", || ended() >= f64::from(number));
        wait_until("it is settled", || client.get(CONFIG).status == 200);
    }
}

/// CS-RL-01
#[test]
fn being_refused_costs_nothing() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, &format!("{NEVER}user_bytes_burst = \"1000 B\""));
    let client = mediary.alice();
    let media = post(&client, "text/plain", &noise(2000, 1)).media();
    wait_until("the upload is settled", || client.get(CONFIG).status == 429);
    let first = client.download(&media).assert_limited();
    for _ in 0..50 {
        client.download(&media).assert_limited();
        post(&client, "text/plain", &noise(5000, 1)).assert_limited();
    }
    assert!(client.download(&media).assert_limited() <= first);
}

/// CS-AS-04
#[test]
fn users_of_an_application_service_can_be_freed_from_every_rate() {
    let synapse = Synapse::get();
    let name = &synapse.server_name;
    let settings = format!(
        "[server]
         trusted_proxies = []
         [limits]
         user_requests_per_second = 1
         user_requests_burst = 5
         user_bytes_per_second = \"1 B\"
         user_bytes_burst = \"100 B\"
         address_requests_per_second = 1
         address_requests_burst = 5
         address_bytes_per_second = \"1 B\"
         address_bytes_burst = \"100 B\"
         [uploads]
         max_pending = 1
         create_per_second = 1
         create_burst = 1
         [[rules]]
         users = [\"@bridge_*:{name}\"]
         rate_limits = false
         max_pending = 1000"
    );
    let mediary = Settings::new(&synapse.url).with(&settings).start();
    let as_token = synapse.as_token.as_deref().expect("an application service");
    let bridge = mediary.client().with_token(as_token);
    let localpart = format!("bridge_{}", common::synapse::unique_name());
    let register =
        format!("{{\"type\":\"m.login.application_service\",\"username\":\"{localpart}\"}}");
    let synapse_client = synapse.client().with_token(as_token);
    let registered =
        synapse_client.request("POST", "/_matrix/client/v3/register", &[], register.as_bytes());
    assert_eq!(registered.status, 200, "{registered:?}");
    let ghost = format!("user_id=%40{localpart}%3A{}", name.replace(':', "%3A"));
    for number in 0..20 {
        let created = bridge.request("POST", &format!("{CREATE}?{ghost}"), &[], b"{}").media();
        let target = format!("{UPLOAD}/{created}?{ghost}");
        bridge.request("PUT", &target, &[], &noise(1000, number)).assert_stored();
        let config = bridge.get(&format!("{CONFIG}?{ghost}"));
        assert_eq!(config.status, 200, "request {number}");
    }
    let client = mediary.client_of(&synapse.user());
    client.create().media();
    let refused = (0..50).find(|_| client.get(CONFIG).status == 429);
    assert!(refused.is_some(), "everybody else is bound");
}

/// CS-UP-05, CS-PUT-07, FLD-16
#[test]
fn types_that_are_not_taken_are_refused_before_the_body_is_sent() {
    let homeserver = FakeHomeserver::start();
    let settings = "[uploads]
        allow_types = [\"image/*\", \"text/plain\"]
        deny_types = [\"image/svg+xml\"]";
    let mediary = start(&homeserver, settings);
    let client = mediary.alice();
    let media = client.create().media();
    for (method, target) in [("POST", UPLOAD.to_owned()), ("PUT", format!("{UPLOAD}/{media}"))] {
        for content_type in [
            "Content-Type: image/svg+xml\r\n",
            "Content-Type: Image/SVG+XML; charset=utf-8\r\n",
            "Content-Type: text/html\r\n",
            "Content-Type: image\r\n",
            "Content-Type: image/png\r\nContent-Type: image/svg+xml\r\n",
            "",
        ] {
            let fields = format!("Content-Length: 10\r\n{content_type}");
            let mut connection = announce(&mediary, method, &target, &fields);
            connection.read_any_answer(method).assert_error(403, "M_FORBIDDEN");
        }
    }
    assert_eq!(refusals(&mediary, "type"), 12.0);
    mediary.assert_nothing_kept();
    for content_type in ["img/png", "IMAGE/png; x=y", "text/plain;charset=utf-8"] {
        let answer = post(&client, content_type, b"body");
        if content_type == "img/png" {
            answer.assert_error(403, "M_FORBIDDEN");
        } else {
            let kept = client.download(&answer.media());
            assert_eq!(kept.header("content-type"), Some(content_type), "as it was written");
        }
    }
}

/// CS-CFG-01, CS-CFG-02, CS-CFG-03
#[test]
fn each_user_is_told_the_limit_that_they_meet() {
    let homeserver = FakeHomeserver::start();
    let settings = "[uploads]
        max_size = \"1000 B\"
        front_max_size = \"600 B\"
        [[rules]]
        users = [\"@bob:*\"]
        max_size = \"500 B\"";
    let mediary = start(&homeserver, settings);
    for path in [CONFIG, "/_matrix/media/v3/config", "/_matrix/media/r0/config"] {
        mediary.client().get(path).assert_error(401, "M_MISSING_TOKEN");
        assert_eq!(mediary.alice().get(path).json()["m.upload.size"], 600);
        assert_eq!(mediary.bob().get(path).json()["m.upload.size"], 500);
    }
    assert_eq!(post(&mediary.alice(), "a/b", &noise(1000, 1)).status, 200, "if it gets through");
    post(&mediary.alice(), "a/b", &noise(1001, 1)).assert_error(413, "M_TOO_LARGE");
    assert_eq!(post(&mediary.bob(), "a/b", &noise(500, 1)).status, 200);
    post(&mediary.bob(), "a/b", &noise(501, 1)).assert_error(413, "M_TOO_LARGE");
    assert_eq!(refusals(&mediary, "size"), 2.0);
}

/// CS-UP-05, CS-CRE-06
#[test]
fn whoever_may_not_upload_may_still_read() {
    let homeserver = FakeHomeserver::start();
    let settings = "[[rules]]\nusers = [\"@alice:*\"]\nmay_upload = false";
    let mediary = start(&homeserver, settings);
    let media = post(&mediary.bob(), "text/plain", b"text").media();
    let client = mediary.alice();
    client.create().assert_error(403, "M_FORBIDDEN");
    post(&client, "text/plain", b"text").assert_error(403, "M_FORBIDDEN");
    let target = format!("{UPLOAD}/{media}");
    client.request("PUT", &target, &[], b"x").assert_error(403, "M_FORBIDDEN");
    client.download(&media).assert_whole(b"text");
    assert_eq!(client.get(CONFIG).status, 200);
    assert_eq!(refusals(&mediary, "upload"), 3.0);
}

/// Asks for everything that guests may not do.
fn refused_to_guests(client: &Client, media: &str) -> Vec<Answer> {
    let body: &[u8] = b"body";
    [
        ("POST", UPLOAD.to_owned(), body),
        ("POST", CREATE.to_owned(), b"{}"),
        ("PUT", format!("{UPLOAD}/{media}"), body),
        ("GET", CONFIG.to_owned(), b""),
        ("GET", "/_matrix/media/v3/config".to_owned(), b""),
        ("GET", "/_matrix/client/v1/media/preview_url?url=http%3A%2F%2Fa%2F".to_owned(), b""),
        ("GET", "/_matrix/media/v3/preview_url?url=http%3A%2F%2Fa%2F".to_owned(), b""),
    ]
    .map(|(method, target, body)| client.request(method, &target, &[], body))
    .into()
}

/// CS-GST-01, CS-GST-02
#[test]
fn guests_of_a_real_homeserver_may_download_and_no_more() {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with("[auth]\ntrust_is_guest = true").start();
    let registered =
        synapse.client().request("POST", "/_matrix/client/v3/register?kind=guest", &[], b"{}");
    assert_eq!(registered.status, 200, "allow_guest_access is set for these tests: {registered:?}");
    let token = registered.json()["access_token"].as_str().expect("a token").to_owned();
    let guest = mediary.client().with_token(&token);
    let user = mediary.client_of(&synapse.user());
    let picture = user.upload("image/png", None, &common::samples::png(64, 48));
    assert_eq!(user.get(CONFIG).status, 200);
    assert_eq!(guest.download(&picture).status, 200);
    assert_eq!(guest.thumbnail(&picture).status, 200);
    for refused in refused_to_guests(&guest, &picture) {
        refused.assert_error(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
    assert_eq!(refusals(&mediary, "guest"), 7.0);
    assert_eq!(mediary.blobs().len(), 2, "the picture and its thumbnail");
}

/// FLD-20
#[test]
fn a_homeserver_that_calls_users_guests_is_not_believed_unless_it_is_trusted() {
    let is_guest = |request: &Received| request.target().contains("whoami");
    let homeserver = FakeHomeserver::with(move |request, stream| {
        is_guest(request)
            .then(|| respond(stream, 200, r#"{"user_id":"@alice:fake.example","is_guest":true}"#))
    });
    let mediary = start(&homeserver, "");
    let client = mediary.alice();
    let media = post(&client, "text/plain", b"text").media();
    assert_eq!(client.get(CONFIG).status, 200);
    client.create().media();
    let trusting = start(&homeserver, "[auth]\ntrust_is_guest = true");
    for refused in refused_to_guests(&trusting.alice(), &media) {
        refused.assert_error(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
}

/// CS-GEN-08
#[test]
fn a_homeserver_that_is_at_a_limit_says_so_in_its_own_words() {
    let words =
        r#"{"errcode":"M_RESOURCE_LIMIT_EXCEEDED","error":"Full","admin_contact":"mailto:a@b"}"#;
    let homeserver = FakeHomeserver::with(move |request, stream| {
        request.target().contains("whoami").then(|| respond(stream, 403, words))
    });
    let mediary = start(&homeserver, "");
    let answer = mediary.alice().get(CONFIG);
    answer.assert_error(403, "M_RESOURCE_LIMIT_EXCEEDED");
    assert_eq!(answer.json()["admin_contact"], "mailto:a@b");
}

/// CS-LIM-01, CS-LIM-03, CS-DL-13, CS-UP-06, CS-PUT-07
#[test]
fn what_is_too_large_is_neither_stored_nor_served() {
    let homeserver = FakeHomeserver::with(|request, stream| {
        let length = request.target().split("bytes-").nth(1)?.split('?').next()?.parse().ok()?;
        Some(respond_with(stream, 200, &[("Content-Type", "text/plain")], &noise(length, 1)))
    });
    let settings = "[uploads]\nmax_size = \"1000 B\"\n[remote]\nmax_size = \"2000 B\"";
    let mediary = start(&homeserver, settings);
    let client = mediary.alice();
    let media = client.create().media();
    for (method, target) in [("POST", UPLOAD.to_owned()), ("PUT", format!("{UPLOAD}/{media}"))] {
        let refused = client.request(method, &target, &[], &noise(1001, 1));
        refused.assert_error(413, "M_TOO_LARGE");
    }
    client.download("other.example/bytes-2001").assert_error(502, "M_TOO_LARGE");
    client.thumbnail("other.example/bytes-2001").assert_error(502, "M_TOO_LARGE");
    mediary.assert_nothing_kept();
    client.download("other.example/bytes-2000").assert_whole(&noise(2000, 1));
    // The homeserver has let its own users' files in.
    client.download("fake.example/bytes-5000").assert_whole(&noise(5000, 1));
}

/// CS-LIM-05, CS-LIM-07
#[test]
fn remote_files_are_kept_up_to_a_size_and_uploads_always() {
    let homeserver = FakeHomeserver::with(|request, stream| {
        let number = request.target().split("remote-").nth(1)?.split('?').next()?.parse().ok()?;
        Some(respond_with(stream, 200, &[("Content-Type", "text/plain")], &noise(20_000, number)))
    });
    let settings = "[storage]\ncache_size = \"100 kB\"\n[remote]\nmax_size = \"50 kB\"";
    let mediary = start(&homeserver, settings);
    let client = mediary.alice();
    // To the server an encrypted file, a bundle of keys among them, is bytes that no event names.
    let body = |number: u64| noise(60_000, 100 + number);
    let upload = |number| post(&client, "application/octet-stream", &body(number)).media();
    let uploads: Vec<String> = (0..3).map(upload).collect();
    for number in 0..20 {
        let remote = format!("other.example/remote-{number}");
        client.download(&remote).assert_whole(&noise(20_000, number));
    }
    wait_until("the cache has its size", || {
        let evicted = mediary.metric("mediary_evictions_total");
        evicted >= 15.0 && mediary.metric("mediary_cache_bytes") <= 100_000.0
    });
    assert!(mediary.blobs().len() <= 3 + 5, "{}", mediary.blobs().len());
    for (number, media) in (0..).zip(&uploads) {
        client.download(media).assert_whole(&body(number));
    }
}

/// CS-LIM-02, CS-TH-13
#[test]
fn pictures_with_too_many_pixels_are_not_decoded() {
    let homeserver = FakeHomeserver::with(|request, stream| {
        let picture = common::samples::png(41, 40);
        let is_media = request.target().contains("/remote");
        is_media.then(|| respond_with(stream, 200, &[("Content-Type", "image/png")], &picture))
    });
    let mediary = start(&homeserver, "[thumbnails]\nmax_pixels = 1600");
    let client = mediary.alice();
    let most = post(&client, "image/png", &common::samples::png(40, 40)).media();
    let local = post(&client, "image/png", &common::samples::png(41, 40)).media();
    assert_eq!(client.thumbnail(&most).status, 200);
    client.thumbnail(&local).assert_error(413, "M_TOO_LARGE");
    client.thumbnail("other.example/remote").assert_error(502, "M_TOO_LARGE");
    assert_eq!(client.download(&local).status, 200, "the picture itself is served");
    assert_eq!(client.download("other.example/remote").status, 200);
}

#[test]
fn a_thousand_pictures_at_once_are_within_the_defaults() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "[limits]");
    let client = mediary.alice();
    let media = post(&client, "text/plain", b"text").media();
    let target = format!("/_matrix/client/v1/media/download/{media}");
    for _ in 0..1000 {
        assert_eq!(get_from(&client, "198.51.100.7", &target).status, 200);
    }
}
