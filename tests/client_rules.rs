//! Rules of the client-server API that hold for every route alike, and a few that no other file has
//! for its subject (checklist sections 2, 5, 9 and 10).

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::fake::{self, TOKEN, respond, respond_with};
use common::http::Answer;
use common::record::Recorder;
use common::samples::png;
use common::{Client, FakeHomeserver, Mediary, Settings, files_below, noise};
use serde_json::{Value, json};

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

/// CS-CORS-02, CS-CORS-03, CS-CORS-04, CS-CORS-05, FLD-27
#[test]
fn a_preflight_of_any_route_runs_nothing_of_it() {
    let homeserver = FakeHomeserver::start();
    let settings = "[legacy]\nmode = \"open\"\n[uploads]\nmax_pending = 2";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let user = mediary.alice();
    let here = user.upload("image/png", None, &png(64, 64));
    let reserved = user.create().media();
    let asked = || ["/media/", "/whoami"].map(|it| homeserver.received_for(it).len());
    let (before, kept) = (asked(), files_below(&mediary.store()));
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
    assert_eq!(asked(), before, "{:?}", homeserver.received());
    assert_eq!(files_below(&mediary.store()), kept);
    assert_eq!(mediary.metric(THUMBNAILS_MADE), 0.0);
    assert_eq!(user.create().status, 200, "no preflight has taken the last place");
    user.put(&reserved, "text/plain", b"body").assert_stored();
}

/// What a homeserver says of media whose id is a status, and of one that another server asks for.
const WORDS: [(u16, &str); 4] = [
    (429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Slower","retry_after_ms":2000}"#),
    (500, "{}"),
    (502, r#"{"errcode":"M_TOO_LARGE","error":"Too large"}"#),
    (504, r#"{"errcode":"M_NOT_YET_UPLOADED","error":"Not yet"}"#),
];

/// Answers for media by its id: a number is the status, and 307 and 308 lead elsewhere.
fn homeserver_of_every_kind() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let path = target.split('?').next()?;
        let marks = ["/download/other.example/", "/federation/v1/media/thumbnail/"];
        let status = marks.iter().find_map(|mark| path.split_once(mark)?.1.parse().ok())?;
        let elsewhere = [("Location", "https://cdn.example/file")];
        let words = WORDS.iter().find(|(said, _)| *said == status);
        Some(match words {
            Some((_, words)) => respond(stream, status, words),
            None => respond_with(stream, status, &elsewhere, b""),
        })
    })
}

/// CS-CORS-01, CS-CORS-04, CS-GEN-01, CS-GEN-03
#[test]
fn every_answer_has_cors_and_every_failure_is_an_error_object() {
    let homeserver = homeserver_of_every_kind();
    let settings = "[uploads]\nmax_size = \"100 KiB\"\nmax_pending = 2";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let (alice, bob) = (mediary.alice(), mediary.bob());
    let here = alice.upload("image/png", None, &png(64, 64));
    let [first, second] = [alice.create(), alice.create()];
    let (first_id, second_id) = (first.media(), second.media());
    let path = format!("/_matrix/client/v1/media/download/{here}");
    let stored = alice.put(&first_id, "text/plain", b"body");
    let third = alice.create();
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
        (403, "M_FORBIDDEN", bob.put(&second_id, "text/plain", b"his")),
        (404, "M_NOT_FOUND", alice.download("fake.example/nothing")),
        (404, "M_UNRECOGNIZED", alice.get("/_matrix/client/v1/media/nonsense")),
        (405, "M_UNRECOGNIZED", alice.request("DELETE", &path, &[], b"")),
        (409, "M_CANNOT_OVERWRITE_MEDIA", alice.put(&first_id, "text/plain", b"again")),
        (413, "M_TOO_LARGE", alice.put(&second_id, "text/plain", &noise(200_000, 1))),
        (416, "M_UNKNOWN", alice.get_with(&path, &[("Range", "bytes=9999999-")])),
        (429, "M_LIMIT_EXCEEDED", alice.create()),
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

/// CS-DL-06, CS-DL-07, CS-DL-10, CS-DL-13, CS-DL-14, CS-TH-12, CS-TH-13, CS-TH-20
#[test]
fn however_media_is_asked_for_it_is_refused_alike() {
    let homeserver = homeserver_of_every_kind();
    let settings = "[legacy]\nmode = \"open\"\n[thumbnails]\nmax_pixels = 1000";
    let mediary = Settings::new(&homeserver.url).with(settings).start();
    let client = mediary.alice();
    let prefixes = ["/_matrix/client/v1/media", "/_matrix/media/v3"];
    for (status, errcode) in [
        (307, None),
        (308, None),
        (429, Some("M_LIMIT_EXCEEDED")),
        (502, Some("M_TOO_LARGE")),
        (504, Some("M_NOT_YET_UPLOADED")),
    ] {
        for prefix in prefixes {
            for name in ["", "/name.png"] {
                let target = format!("{prefix}/download/other.example/{status}{name}");
                let answer = client.get(&format!("{target}?allow_redirect=true"));
                assert_eq!(answer.status, status, "{target}: {answer:?}");
                assert_eq!(answer.header("location").is_some(), errcode.is_none());
                errcode.inspect(|errcode| answer.assert_error(status, errcode));
            }
            let thumbnail = format!("{prefix}/thumbnail/other.example/{status}?width=9&height=9");
            // Elsewhere there is no thumbnail.
            let (status, errcode) = errcode.map_or((502, "M_UNKNOWN"), |errcode| (status, errcode));
            client.get(&thumbnail).assert_error(status, errcode);
        }
    }
    let here = client.upload("image/png", None, &png(64, 64));
    let text = client.upload("text/plain", None, b"hello");
    for prefix in prefixes {
        for (media, status, errcode) in [(&here, 413, "M_TOO_LARGE"), (&text, 400, "M_UNKNOWN")] {
            let target = format!("{prefix}/thumbnail/{media}?width=9&height=9");
            client.get(&target).assert_error(status, errcode);
        }
    }
    let id = here.split_once('/').expect("a server name and an id").1;
    for (id, status, errcode) in
        [(id, 413, "M_TOO_LARGE"), ("429", 429, "M_LIMIT_EXCEEDED"), ("502", 502, "M_TOO_LARGE")]
    {
        let target = format!("/_matrix/federation/v1/media/thumbnail/{id}?width=9&height=9");
        let signed = [("Authorization", "X-Matrix origin=a.example,key=\"ed25519:1\",sig=\"abc\"")];
        mediary.client().get_with(&target, &signed).assert_error(status, errcode);
    }
}

/// CS-GEN-07, CS-WHO-02
#[test]
fn what_the_homeserver_says_of_a_token_counts_on_every_route_that_asks_for_one() {
    const OF_TOKENS: [(&str, u16, &str); 2] = [
        ("forbidden", 403, r#"{"errcode":"M_FORBIDDEN","error":"Not this user"}"#),
        ("limited", 429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Slower"}"#),
    ];
    let homeserver = FakeHomeserver::with(|request, stream| {
        let token = request.header("authorization")?.strip_prefix("Bearer ")?;
        let (_, status, words) = OF_TOKENS.iter().find(|(of, ..)| *of == token)?;
        Some(respond(stream, *status, words))
    });
    let mediary = Mediary::in_front_of(&homeserver.url);
    let asks = |method: &str, target: &str| {
        method != "GET"
            || ["/client/", "preview_url", "config"].iter().any(|it| target.contains(it))
    };
    for (token, status, words) in OF_TOKENS {
        let client = mediary.client().with_token(token);
        for (method, target) in routes("fake.example/abc") {
            if asks(method, &target) {
                let answer = client.request(method, &target, &[], b"{}");
                assert_eq!((answer.status, answer.text().as_str()), (status, words), "{target}");
            }
        }
    }
    assert!(homeserver.passed_on().is_empty(), "{:?}", homeserver.passed_on());
}

/// What so many tests stand on; openapi.py holds the answers against the specification.
#[test]
fn the_homeserver_that_tests_make_up_speaks_as_a_homeserver() {
    let homeserver = FakeHomeserver::start();
    let client = Client::new(homeserver.address).recorded_as("made up");
    let user = client.clone().with_token(TOKEN);
    let whoami = "/_matrix/client/v3/account/whoami";
    assert_eq!(user.get(whoami).json()["user_id"], "@alice:fake.example");
    assert_eq!(client.get(whoami).errcode(), "M_UNKNOWN_TOKEN");
    assert_eq!(client.get("/_matrix/client/versions").json()["versions"][0], "v1.11");
    let nothing = format!("/_matrix/client/v1/media/download/{}/nothing", fake::SERVER_NAME);
    assert_eq!(user.get(&nothing).errcode(), "M_NOT_FOUND");
}

/// Sends heads to a recorder and returns what it makes of as many answers.
fn recorded(sent: &[&[u8]], answers: &[Answer]) -> Vec<Value> {
    let mut recorder = Recorder::new("mediary");
    sent.iter().for_each(|bytes| recorder.sent(bytes));
    let lines = answers.iter().filter_map(|answer| recorder.line(answer));
    lines.map(|line| serde_json::from_str(&line).expect("a line of JSON")).collect()
}

#[test]
fn answers_are_recorded_with_their_requests_and_without_tokens() {
    let answer = |status, content_type: &str, body: &[u8]| Answer {
        status,
        headers: vec![("content-type".to_owned(), content_type.to_owned())],
        body: body.to_vec(),
        complete: true,
    };
    let sent: &[&[u8]] = &[
        b"PUT /_matrix/media/v3/upload/a/b?filename=x&access_token=in-query HTTP/1.1\r\nHost",
        b": a\r\nContent-Length: 9\r\n\r\nGET /x\r",
        b"\n\rGET /_matrix/media/v3/thumbnail/a/b?width=1&acc%65ss_token=in-query&animated",
        b"=true HTTP/1.1\r\nauthorization: Bearer in-header\r\n\r\n",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\n\r\nPOST /_matrix/media/v1/create HTTP/1.1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /media HTTP/1.1\r\n\r\n",
    ];
    let json = "application/json";
    let answers = [
        answer(200, json, b"{}"),
        answer(200, "image/png", b"in-header"),
        answer(404, json, b"{}"),
        answer(429, json, b"not in-header"),
        answer(200, json, b"{}"),
    ];
    let lines = recorded(sent, &answers);
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (line["method"].as_str(), line["target"].as_str(), line["status"].as_u64()))
        .collect();
    let expected = [
        ("PUT", "/_matrix/media/v3/upload/a/b", 200),
        ("GET", "/_matrix/media/v3/thumbnail/a/b?width=1&animated=true", 200),
        ("POST", "/_matrix/media/v1/create", 429),
    ];
    assert_eq!(seen, expected.map(|(method, target, n)| (Some(method), Some(target), Some(n))));
    assert_eq!([&lines[0]["body"], &lines[1]["body"]], [&json!("{}"), &Value::Null]);
    assert!(!serde_json::to_string(&lines).expect("JSON").contains("in-query"));
    let of_bearer = b"GET /media/in-header HTTP/1.1\r\nAuthorization: Bearer in-header\r\n\r\n";
    let lines = recorded(&[of_bearer], &[answer(200, json, b"\"in-header\"")]);
    assert_eq!(lines[0]["target"], "/media/[token]");
    assert_eq!(lines[0]["body"], "\"[token]\"");
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
    let mut sources = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    for path in sources {
        let source = fs::read_to_string(&path).expect("sources can be read");
        let words = source.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let begins = |word: &&str| word.starts_with("M_") && word.len() > 2;
        codes.extend(words.filter(begins).map(str::to_owned));
    }
    assert!(codes.contains("M_TOO_LARGE"), "{codes:?}");
    let invented: Vec<_> = codes.iter().filter(|code| !CODES.contains(&code.as_str())).collect();
    assert!(invented.is_empty(), "{invented:?}");
}

/// What may be served inline (client-server API, "Serving inline content").
const INLINE: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// CS-HDR-01, CS-HDR-02, CS-HDR-03, CS-INL-01
#[test]
fn every_type_of_the_list_is_inline_and_none_of_its_neighbours() {
    let homeserver = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let disposition = |content_type: &str| {
        let answer = client.download(&client.upload(content_type, None, b"body"));
        assert_eq!(answer.header("content-type"), Some(content_type));
        answer.header("content-disposition").expect("a disposition").to_owned()
    };
    for safe in INLINE {
        for same in [safe.to_string(), safe.to_uppercase(), format!("{safe}; charset=utf-8")] {
            assert_eq!(disposition(&same), "inline", "{same}");
        }
        for other in [format!("{safe}x"), format!("x-{safe}"), format!("{safe}+xml")] {
            assert_eq!(disposition(&other), "attachment", "{other}");
        }
    }
}

/// CS-AUTH-01, CS-AUTH-02
#[test]
fn a_token_is_any_text_and_reaches_the_homeserver_as_it_is() {
    let homeserver = FakeHomeserver::with(|request, stream| {
        let is_question = request.target().contains("/whoami");
        is_question.then(|| respond(stream, 200, r#"{"user_id":"@alice:fake.example"}"#))
    });
    let mediary = Mediary::in_front_of(&homeserver.url);
    let config = "/_matrix/client/v1/media/config";
    let long = "t".repeat(2000);
    let tokens = ["1", "mat_1.2-3_4~5+6/7==", "eyJhbGciOiJub25lIn0.e30.", "!#$%&'*^`|{}", &long];
    for token in tokens {
        assert_eq!(mediary.client().with_token(token).get(config).status, 200, "{token}");
        let asked = homeserver.received_for("/whoami");
        let bearer = format!("Bearer {token}");
        let last = asked.last().expect("a question");
        assert_eq!(last.header("authorization"), Some(bearer.as_str()));
        // In a query it is encoded, and it is the same token.
        let encoded: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = mediary.client().get(&format!("{config}?access_token={encoded}"));
        assert_eq!(answer.status, 200, "{token}");
        assert_eq!(homeserver.received_for("/whoami").len(), asked.len(), "{token}");
    }
}

/// CS-WHO-01, CS-WHO-03
#[test]
fn a_guest_without_a_device_is_known_by_whoami_as_any_user() {
    let guest = r#"{"user_id":"@7:fake.example","is_guest":true}"#;
    let homeserver = FakeHomeserver::with(move |request, stream| {
        let is_guest = request.header("authorization") == Some("Bearer of-a-guest");
        let is_question = request.target().contains("/account/whoami");
        (is_guest && is_question).then(|| respond(stream, 200, guest))
    });
    let mediary = Mediary::in_front_of(&homeserver.url);
    let media = mediary.alice().upload("image/png", None, &png(64, 64));
    let client = mediary.client().with_token("of-a-guest");
    assert_eq!(client.get("/_matrix/client/v3/account/whoami").text(), guest);
    client.download(&media).assert_whole(&png(64, 64));
    assert_eq!(client.thumbnail(&media).status, 200);
}

/// CS-UP-02, CS-PUT-07
#[test]
fn what_is_put_without_a_type_is_an_octet_stream_without_a_name() {
    let homeserver = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.alice();
    let media = client.create().media();
    let target = format!("/_matrix/media/v3/upload/{media}");
    client.request("PUT", &target, &[], b"whatever").assert_stored();
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
    let client = mediary.alice();
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
    let client = mediary.alice();
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
    let client = mediary.alice();
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
