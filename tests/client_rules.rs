//! Rules of the client-server API that hold for every route alike, and a few that no other file has
//! for its subject (checklist sections 2, 5, 9 and 10).

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::fake::{OTHER_TOKEN, TOKEN, respond, respond_with};
use common::http::Answer;
use common::samples::png;
use common::{Client, FakeHomeserver, Mediary, Settings, files_below, noise};

/// How often a thumbnail was made since the start.
const THUMBNAILS_MADE: &str = "mediary_thumbnail_duration_seconds_count";

/// Every route and what it serves, for some media.
fn routes(media: &str) -> Vec<(&'static str, String)> {
    let id = media.split_once('/').expect("a server name and an id").1;
    let mut routes = vec![
        ("POST", "/_matrix/media/v1/create".to_owned()),
        ("POST", "/_matrix/media/unstable/fi.mau.msc2246/create".to_owned()),
        ("PUT", format!("/_matrix/media/v3/upload/{media}")),
        ("PUT", format!("/_matrix/media/unstable/fi.mau.msc2246/upload/{media}")),
    ];
    let old = ["v3", "r0", "v1"].map(|version| format!("/_matrix/media/{version}"));
    routes.extend(old.iter().map(|prefix| ("POST", format!("{prefix}/upload?filename=a"))));
    let authenticated =
        ["/_matrix/client/v1/media", "/_matrix/client/unstable/org.matrix.msc3916/media"];
    for prefix in old.iter().map(String::as_str).chain(authenticated) {
        for target in [
            format!("download/{media}"),
            format!("download/{media}/name.png"),
            format!("thumbnail/{media}?width=16&height=16&method=crop"),
            "preview_url?url=https%3A%2F%2Fa.example".to_owned(),
            "config".to_owned(),
        ] {
            routes.push(("GET", format!("{prefix}/{target}")));
        }
    }
    let federation = [
        "/_matrix/federation/v1/media",
        "/_matrix/federation/unstable/org.matrix.msc3916.v2/media",
    ];
    for prefix in federation {
        routes.push(("GET", format!("{prefix}/download/{id}")));
        routes.push(("GET", format!("{prefix}/thumbnail/{id}?width=16&height=16")));
    }
    routes
}

fn create(client: &Client) -> Answer {
    client.request("POST", "/_matrix/media/v1/create", &[], b"{}")
}

fn put(client: &Client, media: &str, body: &[u8]) -> Answer {
    client.request("PUT", &format!("/_matrix/media/v3/upload/{media}"), &[], body)
}

#[track_caller]
fn assert_cors(answer: &Answer) {
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("access-control-allow-headers", "X-Requested-With, Content-Type, Authorization"),
    ] {
        let field = answer.header(name).unwrap_or_else(|| panic!("no {name} in {answer:?}"));
        let said: BTreeSet<_> = field.split(", ").collect();
        assert!(value.split(", ").all(|word| said.contains(word)), "{name}: {field}");
    }
}

/// CS-CORS-02, CS-CORS-03, CS-CORS-04, CS-CORS-05
#[test]
fn a_preflight_of_any_route_runs_nothing_of_it() {
    let homeserver = FakeHomeserver::start();
    let settings = "[legacy]\nmode = \"open\"\n[uploads]\nmax_pending = 2";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let user = mediary.client().with_token(TOKEN);
    let here = user.upload("image/png", None, &png(64, 64));
    let reserved = create(&user).media();
    let (asked, kept) = (homeserver.received().len(), files_below(&mediary.store()));
    for media in [&here, &reserved, "other.example/remote", "fake.example/-"] {
        for (method, target) in routes(media) {
            let headers = [
                ("Origin", "https://app.example"),
                ("Access-Control-Request-Method", method),
                ("Access-Control-Request-Headers", "authorization,content-type"),
            ];
            for client in [&user, &mediary.client(), &mediary.client().with_token("wrong")] {
                let answer = client.request("OPTIONS", &target, &headers, b"");
                assert_eq!((answer.status, answer.body.len()), (204, 0), "{target}");
                assert_cors(&answer);
            }
        }
    }
    assert_eq!(homeserver.received().len(), asked, "{:?}", homeserver.received());
    assert_eq!(files_below(&mediary.store()), kept);
    assert_eq!(mediary.metric(THUMBNAILS_MADE), 0.0);
    assert_eq!(create(&user).status, 200, "no preflight has taken the last place");
    put(&user, &reserved, b"body").assert_stored();
}

/// Answers for media by its id: a number is the status, and 307 and 308 lead elsewhere.
fn homeserver_of_every_kind() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let (_, id) = target.split('?').next()?.split_once("/download/other.example/")?;
        let status = id.parse().ok()?;
        let elsewhere = [("Location", "https://cdn.example/file")];
        Some(match status {
            307 | 308 => respond_with(stream, status, &elsewhere, b""),
            _ => respond(stream, status, "{}"),
        })
    })
}

/// CS-CORS-01, CS-CORS-04, CS-GEN-01, CS-GEN-03
#[test]
fn every_answer_has_cors_and_every_failure_is_an_error_object() {
    let homeserver = homeserver_of_every_kind();
    let settings = "[uploads]\nmax_size = \"100 KiB\"\nmax_pending = 2";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let (alice, bob) =
        (mediary.client().with_token(TOKEN), mediary.client().with_token(OTHER_TOKEN));
    let here = alice.upload("image/png", None, &png(64, 64));
    let [first, second] = [create(&alice), create(&alice)];
    let (first_id, second_id) = (first.media(), second.media());
    let path = format!("/_matrix/client/v1/media/download/{here}");
    let stored = put(&alice, &first_id, b"body");
    let third = create(&alice);
    let answers = [
        (200, "", first),
        (200, "", third),
        (200, "", stored),
        (200, "", alice.request("POST", "/_matrix/media/v3/upload", &[], b"x")),
        (200, "", alice.get("/_matrix/client/v1/media/config")),
        (200, "", alice.thumbnail(&here)),
        (200, "", alice.download(&here)),
        (200, "", alice.request("HEAD", &path, &[], b"")),
        (206, "", alice.get_with(&path, &[("Range", "bytes=0-3")])),
        (304, "", alice.get_with(&path, &[("If-None-Match", "*")])),
        (307, "", alice.download("other.example/307")),
        (308, "", alice.download("other.example/308")),
        (400, "M_INVALID_PARAM", alice.download("fake.example/%2e%2e")),
        (400, "M_UNKNOWN", alice.thumbnail(&first_id)),
        (401, "M_MISSING_TOKEN", mediary.client().download(&here)),
        (401, "M_UNKNOWN_TOKEN", mediary.client().with_token("wrong").download(&here)),
        (403, "M_FORBIDDEN", put(&bob, &second_id, b"his")),
        (404, "M_NOT_FOUND", alice.download("fake.example/nothing")),
        (404, "M_UNRECOGNIZED", alice.get("/_matrix/client/v1/media/nonsense")),
        (405, "M_UNRECOGNIZED", alice.request("DELETE", &path, &[], b"")),
        (409, "M_CANNOT_OVERWRITE_MEDIA", put(&alice, &first_id, b"again")),
        (413, "M_TOO_LARGE", put(&alice, &second_id, &noise(200_000, 1))),
        (416, "M_UNKNOWN", alice.get_with(&path, &[("Range", "bytes=9999999-")])),
        (429, "M_LIMIT_EXCEEDED", create(&alice)),
        (502, "M_UNKNOWN", alice.download("other.example/500")),
        (504, "M_NOT_YET_UPLOADED", alice.download(&format!("{second_id}?timeout_ms=0"))),
    ];
    for (status, errcode, answer) in answers {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_cors(&answer);
        if status >= 400 {
            answer.assert_error(status, errcode);
        }
    }
}

/// The codes of the specification (client-server API, "Standard error response", and the endpoints
/// that Mediary serves or listens to).
const CODES: &[&str] = &[
    "M_BAD_JSON",
    "M_CANNOT_OVERWRITE_MEDIA",
    "M_FORBIDDEN",
    "M_GUEST_ACCESS_FORBIDDEN",
    "M_INVALID_PARAM",
    "M_LIMIT_EXCEEDED",
    "M_MISSING_PARAM",
    "M_MISSING_TOKEN",
    "M_NOT_FOUND",
    "M_NOT_JSON",
    "M_NOT_YET_UPLOADED",
    "M_RESOURCE_LIMIT_EXCEEDED",
    "M_TOO_LARGE",
    "M_UNAUTHORIZED",
    "M_UNKNOWN",
    "M_UNKNOWN_DEVICE",
    "M_UNKNOWN_TOKEN",
    "M_UNRECOGNIZED",
    "M_USER_DEACTIVATED",
    "M_USER_LIMIT_EXCEEDED",
    "M_USER_LOCKED",
    "M_USER_SUSPENDED",
];

/// CS-GEN-10
#[test]
fn no_code_of_our_own_begins_with_the_letter_that_is_reserved() {
    let mut codes = BTreeSet::new();
    for path in files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let source = fs::read_to_string(&path).expect("sources can be read");
        let words = source.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let begins = |word: &&str| word.starts_with("M_") && word.len() > 2;
        codes.extend(words.filter(begins).map(str::to_owned));
    }
    assert!(codes.contains("M_TOO_LARGE"), "{codes:?}");
    let invented: Vec<_> = codes.iter().filter(|code| !CODES.contains(&code.as_str())).collect();
    assert!(invented.is_empty(), "{invented:?}");
}

/// CS-UP-02, CS-PUT-07
#[test]
fn what_is_put_without_a_type_is_an_octet_stream_without_a_name() {
    let homeserver = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.client().with_token(TOKEN);
    let media = create(&client).media();
    put(&client, &media, b"whatever").assert_stored();
    let answer = client.download(&media);
    answer.assert_whole(b"whatever");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
}

/// CS-UP-09, CS-HDR-01, CS-TH-12, CS-TH-21
#[test]
fn an_encrypted_file_comes_back_as_it_is_and_has_no_thumbnail() {
    let homeserver = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.client().with_token(TOKEN);
    // Clients give the type of what is inside, or none that says anything.
    for (number, content_type) in ["application/octet-stream", "image/jpeg"].iter().enumerate() {
        let encrypted = noise(100_000, number as u64);
        let media = client.upload(content_type, None, &encrypted);
        let answer = client.download(&media);
        answer.assert_whole(&encrypted);
        assert_eq!(answer.header("content-type"), Some(*content_type));
        client.thumbnail(&media).assert_error(400, "M_UNKNOWN");
    }
}

/// CS-TH-17
#[test]
fn of_a_picture_that_cannot_move_a_moving_thumbnail_is_a_still_one() {
    let homeserver = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.client().with_token(TOKEN);
    let picture = image::load_from_memory(&png(300, 200)).expect("a picture");
    for format in [image::ImageFormat::Png, image::ImageFormat::Jpeg, image::ImageFormat::WebP] {
        let mut source = std::io::Cursor::new(Vec::new());
        picture.to_rgb8().write_to(&mut source, format).expect("samples can be encoded");
        let media = client.upload(format.to_mime_type(), None, source.get_ref());
        // Smaller than the picture, and larger.
        for side in [32, 1000] {
            let path = format!("/_matrix/client/v1/media/thumbnail/{media}?width={side}&height=32");
            let [moving, still, unnamed] = ["&animated=true", "&animated=false", ""]
                .map(|animated| client.get(&format!("{path}{animated}")));
            still.assert_whole(&unnamed.body);
            moving.assert_whole(&still.body);
            assert_eq!(moving.header("content-type"), still.header("content-type"), "{format:?}");
        }
    }
}

/// CS-PV-04, CS-PV-05
#[test]
fn the_image_of_a_preview_is_as_frozen_as_its_homeserver_keeps_it() {
    let homeserver = FakeHomeserver::with(|request, stream| {
        let target = request.target();
        if target.contains("/media/preview_url") {
            let preview = r#"{"og:image":"mxc://fake.example/shown","matrix:image:size":5}"#;
            return Some(respond(stream, 200, preview));
        }
        let is_user = request.header("authorization").is_some();
        let is_image = target.contains("/download/fake.example/shown") && is_user;
        is_image.then(|| respond_with(stream, 200, &[("Content-Type", "image/png")], &png(64, 64)))
    });
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.client().with_token(TOKEN);
    let preview = client.get("/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fa.example");
    assert_eq!((preview.status, &preview.json()["matrix:image:size"]), (200, &5.into()));
    let image = preview.json()["og:image"].as_str().expect("an image").to_owned();
    let image = image.strip_prefix("mxc://").expect("an mxc URI");
    client.download(image).assert_whole(&png(64, 64));
    for kind in ["download", "thumbnail"] {
        let target = format!("/_matrix/media/v3/{kind}/{image}?width=32&height=32");
        mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
    }
}
