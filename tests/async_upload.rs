//! Asynchronous uploads: a media id first, its content later (checklist CS-CRE and CS-PUT, FLD-18,
//! FLD-19). None of it reaches the homeserver.

mod common;

use std::net::TcpStream;

use common::fake::{Received, SERVER_NAME, TOKEN, respond};
use common::http::{Answer, Connection};
use common::{FakeHomeserver, Mediary, Settings, Synapse, noise, wait_until};

const CREATE: &str = "/_matrix/media/v1/create";
const UPLOAD: &str = "/_matrix/media/v3/upload";

const UNSTABLE_CREATE: &str = "/_matrix/media/unstable/fi.mau.msc2246/create";
const UNSTABLE_UPLOAD: &str = "/_matrix/media/unstable/fi.mau.msc2246/upload";

/// A homeserver that, like Conduit, knows no asynchronous uploads (FLD-19).
fn homeserver() -> FakeHomeserver {
    fn script(request: &Received, stream: &mut TcpStream) -> Option<bool> {
        let is_upload = ["POST", "PUT"].contains(&request.method.as_str());
        (is_upload && request.target().contains("/media/")).then(|| {
            let unknown = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized"}"#;
            respond(stream, 404, unknown)
        })
    }
    FakeHomeserver::with(script)
}

/// Asserts that no part of an upload was passed on or asked about.
fn assert_nothing_reached(homeserver: &FakeHomeserver) {
    assert!(homeserver.received_for("/media/").is_empty(), "{:?}", homeserver.received());
    assert!(homeserver.passed_on().is_empty(), "{:?}", homeserver.passed_on());
}

/// Begins to upload to a media id and sends so much of the announced length.
fn begin_put(mediary: &Mediary, media: &str, length: usize, sent: &[u8]) -> Connection {
    let mut connection = mediary.client().connect();
    let head = format!(
        "PUT {UPLOAD}/{media} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    connection.send(head.as_bytes());
    connection.send(sent);
    connection
}

fn unix_millis() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("a time after 1970").as_millis()).expect("a time before the end")
}

/// CS-CRE-02, CS-CRE-03, CS-CRE-04, CS-PUT-01, CS-PUT-07, CS-UP-03, FLD-18
#[test]
fn what_is_put_to_a_created_id_is_read_back_with_its_type_and_name() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let body = noise(700_001, 1);

    let before = unix_millis();
    let created = client.create();
    let after = unix_millis();
    let media = created.media();
    assert!(media.starts_with(&format!("{}/", synapse.server_name)), "{media}");
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert_eq!(created.header("access-control-allow-origin"), Some("*"));
    let day = 24 * 60 * 60 * 1000;
    let expires = created.json()["unused_expires_at"].as_i64().expect("a moment");
    assert!((before + day..=after + day).contains(&expires), "{expires}");

    let target = format!("{UPLOAD}/{media}?filename=my%20cat.png");
    client.request("PUT", &target, &[("Content-Type", "image/png")], &body).assert_stored();
    let other = mediary.client_of(&synapse.user()).download(&media);
    assert_eq!(other.status, 200);
    assert!(other.complete && other.body == body);
    assert_eq!(other.header("content-type"), Some("image/png"));
    assert_eq!(other.header("content-disposition"), Some("inline; filename*=utf-8''my%20cat.png"));
}

/// CS-PUT-02, CS-PUT-04, CS-PUT-05, FLD-32
#[test]
fn two_users_of_a_homeserver_cannot_touch_each_others_ids() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let [alice, bob] = [(); 2].map(|()| mediary.client_of(&synapse.user()));
    let media = alice.create().media();
    bob.put(&media, "text/plain", b"his").assert_error(403, "M_FORBIDDEN");
    alice.put(&media, "text/plain", b"hers").assert_stored();
    bob.put(&media, "text/plain", b"his").assert_error(403, "M_FORBIDDEN");
    alice.put(&media, "text/plain", b"again").assert_error(409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(bob.download(&media).text(), "hers");
}

/// FLD-19
#[test]
fn asynchronous_uploads_never_reach_a_homeserver_that_has_none() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let media = client.create().media();
    assert!(media.starts_with(&format!("{SERVER_NAME}/")), "{media}");
    client.put(&media, "text/plain", b"body").assert_stored();
    assert_eq!(client.download(&media).text(), "body");
    client.put(&media, "text/plain", b"again").assert_error(409, "M_CANNOT_OVERWRITE_MEDIA");
    client.put("fake.example/unknown", "text/plain", b"x").assert_error(404, "M_NOT_FOUND");
    mediary.client().create().assert_error(401, "M_MISSING_TOKEN");
    assert_nothing_reached(&homeserver);
    for route in ["create", "upload_to"] {
        let series =
            |status| format!("mediary_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        // A request is counted after its answer.
        wait_until("all are counted", || mediary.metric(&series("4xx")) >= 1.0);
        assert_eq!(mediary.metric(&series("2xx")), 1.0, "{route}");
    }
}

/// CS-CRE-01, CS-GEN-02
#[test]
fn whatever_the_body_of_create_holds_is_taken_but_not_without_end() {
    let homeserver = homeserver();
    let mediary = Settings::new(&homeserver.url).with("[uploads]\nmax_pending = 100").start();
    let client = mediary.alice();
    for body in [&b""[..], b"{}", b"{\"org.example.later\": [1, 2]}", b"[]", b"{", b"\xff\x00"] {
        for fields in [&[][..], &[("Content-Type", "text/plain")]] {
            let created = client.request("POST", CREATE, fields, body);
            assert_eq!(created.status, 200, "{}: {created:?}", body.escape_ascii());
        }
    }
    let large = client.request("POST", CREATE, &[], &noise(100_000, 1));
    large.assert_error(413, "M_TOO_LARGE");
    assert_eq!(client.create().status, 200);
}

/// CS-PUT-03, MXC-09
#[test]
fn ids_that_are_unknown_or_of_another_server_are_not_found() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let media = client.create().media();
    let id = media.split('/').nth(1).expect("a media id");
    for other in ["fake.example/unknown", &format!("other.example/{id}")] {
        client.put(other, "text/plain", b"body").assert_error(404, "M_NOT_FOUND");
    }
    client
        .put("fake.example/not%20valid", "text/plain", b"body")
        .assert_error(400, "M_INVALID_PARAM");
    client.put(&media, "text/plain", b"body").assert_stored();
    assert_nothing_reached(&homeserver);
}

/// CS-PUT-03, CS-CRE-04
#[test]
fn an_id_that_has_expired_is_not_found_and_its_place_is_free() {
    let homeserver = homeserver();
    let settings = "[uploads]\nmax_pending = 1\nunused_expiry = \"1s\"\nmax_size = \"10 B\"";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let client = mediary.alice();
    let media = client.create().media();
    // Too large to be taken, so that asking does not use the id up.
    let ask = || client.put(&media, "text/plain", &[0; 11]).status;
    wait_until("the id has expired", || match ask() {
        413 => false,
        404 => true,
        other => panic!("{other}"),
    });
    client.put(&media, "text/plain", b"body").assert_error(404, "M_NOT_FOUND");
    assert_eq!(client.create().status, 200, "an expired id counts for nothing");
}

/// CS-PUT-04, CS-PUT-05
#[test]
fn of_two_uploads_to_one_id_at_once_the_first_wins() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let bob = mediary.bob();
    let media = client.create().media();
    let body = noise(300_000, 1);
    let (half, rest) = body.split_at(150_000);
    let mut first = begin_put(&mediary, &media, body.len(), half);
    wait_until("the first upload is under way", || !mediary.unfinished().is_empty());
    client.put(&media, "text/plain", b"second").assert_error(409, "M_CANNOT_OVERWRITE_MEDIA");
    bob.put(&media, "text/plain", b"his").assert_error(403, "M_FORBIDDEN");
    first.send(rest);
    first.read_answer("PUT").assert_stored();
    assert!(client.download(&media).body == body);
}

#[test]
fn an_upload_that_broke_off_may_be_repeated() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let media = client.create().media();
    let broken = begin_put(&mediary, &media, 300_000, &noise(150_000, 1));
    wait_until("the upload is under way", || !mediary.unfinished().is_empty());
    drop(broken);
    wait_until("the id is free again", || {
        match client.put(&media, "text/plain", b"whole").status {
            409 => false,
            200 => true,
            other => panic!("{other}"),
        }
    });
    assert_eq!(client.download(&media).text(), "whole");
    assert_eq!(mediary.blobs().len(), 1);
    wait_until("nothing stays of the first", || mediary.unfinished().is_empty());
}

/// CS-UP-06, CS-PUT-07, CS-LIM-01
#[test]
fn an_upload_over_the_limit_is_refused_and_may_be_repeated() {
    let homeserver = homeserver();
    let mediary = Settings::new(&homeserver.url).with("[uploads]\nmax_size = \"1000 B\"").start();
    let client = mediary.alice();
    let media = client.create().media();
    client.put(&media, "text/plain", &noise(1001, 1)).assert_error(413, "M_TOO_LARGE");
    let mut chunked = mediary.client().connect();
    let head = format!(
        "PUT {UPLOAD}/{media} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Transfer-Encoding: chunked\r\n\r\n3e9\r\n"
    );
    chunked.send(head.as_bytes());
    chunked.send(&noise(1001, 1));
    chunked.send(b"\r\n0\r\n\r\n");
    chunked.read_answer("PUT").assert_error(413, "M_TOO_LARGE");
    let body = noise(1000, 1);
    client.put(&media, "text/plain", &body).assert_stored();
    assert!(client.download(&media).body == body);
}

/// CS-CRE-05, CS-RL-02, CS-RL-03, FLD-18
#[test]
fn too_many_pending_uploads_are_refused_until_one_is_finished() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let created: Vec<String> = (0..5).map(|_| client.create().media()).collect();
    let refused = client.create();
    assert!(refused.text().contains("pending"), "{}", refused.text());
    assert_eq!(refused.assert_limited(), 60, "a day is longer than anybody would wait");
    let bob = mediary.bob();
    assert_eq!(bob.create().status, 200, "the limit is each user's own");
    client.put(&created[2], "text/plain", b"body").assert_stored();
    assert_eq!(client.create().status, 200);
    client.create().assert_limited();
}

#[test]
fn a_pending_upload_that_expires_soon_is_told_as_the_time_to_wait() {
    let homeserver = homeserver();
    let settings = "[uploads]\nmax_pending = 1\nunused_expiry = \"20s\"";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let client = mediary.alice();
    client.create().media();
    assert!(client.create().assert_limited() <= 20);
}

/// CS-CRE-05, CS-RL-02, CS-RL-03
#[test]
fn a_user_that_creates_too_often_is_refused_for_a_while() {
    let homeserver = homeserver();
    let settings = "[uploads]\nmax_pending = 1000\ncreate_per_second = 1\ncreate_burst = 3";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let client = mediary.alice();
    let answers: Vec<Answer> = (0..100).map(|_| client.create()).collect();
    let taken = answers.iter().take_while(|answer| answer.status == 200).count();
    assert!((3..100).contains(&taken), "{taken} were let in");
    assert_eq!(answers[taken].assert_limited(), 1);
    let bob = mediary.bob();
    assert_eq!(bob.create().status, 200, "the limit is each user's own");
    wait_until("there is a place again", || client.create().status == 200);
}

#[test]
fn an_id_survives_a_kill() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let media = mediary.alice().create().media();
    let mediary = mediary.kill_and_restart();
    wait_until("it is counted", || mediary.metric("mediary_uploads_pending") == 1.0);
    let bob = mediary.bob();
    bob.put(&media, "text/plain", b"his").assert_error(403, "M_FORBIDDEN");
    let client = mediary.alice();
    client.put(&media, "text/plain", b"after the kill").assert_stored();
    let mediary = mediary.kill_and_restart();
    let client = mediary.alice();
    assert_eq!(client.download(&media).text(), "after the kill");
    client.put(&media, "text/plain", b"again").assert_error(409, "M_CANNOT_OVERWRITE_MEDIA");
}

#[test]
fn an_upload_cut_off_by_a_kill_may_be_repeated() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let media = mediary.alice().create().media();
    let _cut_off = begin_put(&mediary, &media, 300_000, &noise(150_000, 1));
    wait_until("the upload is under way", || !mediary.unfinished().is_empty());
    let mediary = mediary.kill_and_restart();
    let client = mediary.alice();
    client.put(&media, "text/plain", b"whole").assert_stored();
    assert_eq!(client.download(&media).text(), "whole");
}

/// CS-PATH-07
#[test]
fn the_unstable_names_work_and_have_their_own_error_codes() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let media = client.request("POST", UNSTABLE_CREATE, &[], b"").media();
    let unstable = format!("{UNSTABLE_UPLOAD}/{media}");
    client.request("PUT", &unstable, &[], b"body").assert_stored();
    client
        .request("PUT", &unstable, &[], b"again")
        .assert_error(409, "FI.MAU.MSC2246_CANNOT_OVERWRITE_MEDIA");
    client.put(&media, "text/plain", b"again").assert_error(409, "M_CANNOT_OVERWRITE_MEDIA");
    let unknown = format!("{UNSTABLE_UPLOAD}/fake.example/unknown");
    client.request("PUT", &unknown, &[], b"body").assert_error(404, "M_NOT_FOUND");
    assert_eq!(client.download(&media).text(), "body");
    assert_nothing_reached(&homeserver);
}

/// CS-CRE-01, CS-PUT-01, CS-AUTH-04, CS-AUTH-05
#[test]
fn without_a_token_nothing_is_created_or_stored() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let media = mediary.alice().create().media();
    let (stranger, liar) = (mediary.client(), mediary.client().with_token("unheard-of"));
    for path in [CREATE, UNSTABLE_CREATE] {
        stranger.request("POST", path, &[], b"{}").assert_error(401, "M_MISSING_TOKEN");
        assert_eq!(liar.request("POST", path, &[], b"{}").errcode(), "M_UNKNOWN_TOKEN");
    }
    for path in [UPLOAD, UNSTABLE_UPLOAD] {
        for media in [media.as_str(), "fake.example/unknown"] {
            let target = format!("{path}/{media}");
            stranger.request("PUT", &target, &[], b"x").assert_error(401, "M_MISSING_TOKEN");
            assert_eq!(liar.request("PUT", &target, &[], b"x").errcode(), "M_UNKNOWN_TOKEN");
        }
    }
    assert!(mediary.blobs().is_empty());
}

/// CS-PATH-04, CS-PATH-05, CS-GEN-05, CS-GEN-06, CS-CORS-02
#[test]
fn the_new_routes_have_their_methods_and_preflights() {
    let homeserver = homeserver();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let uploads = [UPLOAD, UNSTABLE_UPLOAD].map(|path| format!("{path}/fake.example/abc"));
    for (path, right, wrong) in [
        (CREATE, "POST", ["GET", "PUT", "DELETE"]),
        (UNSTABLE_CREATE, "POST", ["GET", "PUT", "DELETE"]),
        (&uploads[0], "PUT", ["GET", "POST", "DELETE"]),
        (&uploads[1], "PUT", ["GET", "POST", "DELETE"]),
    ] {
        let preflight = mediary.client().request("OPTIONS", path, &[], b"");
        assert!(matches!(preflight.status, 200 | 204), "{preflight:?}");
        assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
        let methods = preflight.header("access-control-allow-methods").expect("methods");
        assert!(methods.split(", ").any(|method| method == right), "{methods}");
        for method in wrong {
            let refused = client.request(method, path, &[], b"");
            refused.assert_error(405, "M_UNRECOGNIZED");
            assert_eq!(refused.header("allow"), Some(format!("{right}, OPTIONS").as_str()));
        }
    }
    for (method, path) in [
        ("POST", "/_matrix/media/v3/create"),
        ("PUT", "/_matrix/media/v1/upload/fake.example/abc"),
        ("POST", "/_matrix/client/v1/media/create"),
    ] {
        client.request(method, path, &[], b"").assert_error(404, "M_UNRECOGNIZED");
    }
    assert_nothing_reached(&homeserver);
}
