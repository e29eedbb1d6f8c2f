//! Hostile input in paths, headers, types and names, and what of it reaches answers and disk (threats
//! PT, HI, XS).

mod common;

use std::fs;

use common::fake::{SERVER_NAME, TOKEN, respond_with};
use common::http::Answer;
use common::{FakeHomeserver, Mediary, Settings, files_below, noise};

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// Every way to ask for media, up to the server name.
const DOWNLOADS: [&str; 3] = [
    "/_matrix/client/v1/media/download",
    "/_matrix/media/v3/download",
    "/_matrix/client/unstable/org.matrix.msc3916/media/download",
];
const THUMBNAILS: [&str; 2] = ["/_matrix/client/v1/media/thumbnail", "/_matrix/media/r0/thumbnail"];

/// Opens the legacy routes, so that they show what the others show.
fn open(fake: &FakeHomeserver) -> Settings {
    Settings::new(&fake.url).with("[legacy]\nmode = \"open\"")
}

/// A homeserver that has this answer for every download.
fn holding(headers: &'static [(&str, &str)], body: &'static [u8]) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| {
        let is_download = request.target().contains("/media/") && request.method == "GET";
        let is_signed = request.target().contains("/federation/");
        (is_download && !is_signed).then(|| respond_with(stream, 200, headers, body))
    })
}

// --- PT: paths

/// A word that stands in a file that must never be served.
const CANARY: &str = "the canary sings";

/// MXC-02, MXC-03, MXC-05, MXC-09
#[test]
fn no_spelling_of_a_path_leaves_the_store_or_reaches_the_homeserver() {
    let fake = FakeHomeserver::start();
    let mediary = open(&fake).start();
    let client = mediary.alice();
    let store = mediary.store();
    for place in [&store.join("canary"), &store.join("blobs/canary"), &store.with_extension("x")] {
        fs::write(place, CANARY).unwrap();
    }
    let before = files_below(&store);
    let absolute = store.join("canary").to_str().unwrap().replace('/', "%2f");

    let ids = [
        "..%2f..%2f..%2fetc%2fpasswd",
        "..%2f..%2fcanary",
        "..%2fcanary",
        "%2e%2e%2fcanary",
        "..%5ccanary",
        "..%252fcanary",
        "canary%00",
        "canary%0a",
        "%00",
        "a%20b",
        "a b",
        "a%09b",
        "%c0%ae%c0%ae%c0%afcanary",
        "%ef%bc%8fetc%ef%bc%8fpasswd",
        "canary.txt",
        "~",
        ".",
        "..",
        "%2e",
        "",
        "a:b",
        "a+b",
        "%ff%fe",
        "%zz",
        "%",
        &absolute,
    ];
    let names = [
        "evil.example%2f..%2f..%2f..",
        ".",
        "..",
        "%2e%2e",
        "",
        "%2fetc",
        "a%2fb",
        "a%00",
        "a%0d%0ab",
        "a b",
        "user@host",
        "ex_ample.org",
        "%5b::1",
        "host:",
        "host:0",
        "host:65536",
        "host:port",
        "host:80:80",
        "256.1.1.1",
        "[::g]",
        "[::1]8448",
        "\u{ff0f}",
        ".hidden",
        "a..b",
    ];
    let pairs = ids
        .iter()
        .map(|id| (SERVER_NAME, *id))
        .chain(names.iter().map(|name| (*name, "abc")))
        .chain([("..", "..%2fcanary"), ("blobs", ".."), ("%2e%2e", "%2e%2e")]);
    for (name, id) in pairs {
        for prefix in DOWNLOADS {
            for path in [format!("{prefix}/{name}/{id}"), format!("{prefix}/{name}/{id}/x.png")] {
                assert_refused(&client.get(&path), &path);
                assert_refused(&client.get(&format!("{path}?allow_remote=true")), &path);
            }
        }
        for prefix in THUMBNAILS {
            let path = format!("{prefix}/{name}/{id}?width=1&height=1");
            assert_refused(&client.get(&path), &path);
        }
    }
    for id in ids {
        for kind in ["download", "thumbnail"] {
            let path = format!("/_matrix/federation/v1/media/{kind}/{id}");
            let signed = [("Authorization", "X-Matrix origin=a,key=\"ed25519:1\",sig=x")];
            assert_refused(&mediary.client().get_with(&path, &signed), &path);
        }
    }
    let asked = fake.received_for("/media/");
    assert!(asked.is_empty(), "the homeserver was asked for {:?}", asked[0].target());
    assert_eq!(files_below(&store), before, "something was written");
}

fn assert_refused(answer: &Answer, path: &str) {
    assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
    let errcode = answer.errcode();
    assert!(
        ["M_INVALID_PARAM", "M_UNRECOGNIZED", "M_UNKNOWN"].contains(&errcode.as_str()),
        "{path}: {errcode}"
    );
    assert!(!answer.text().contains(CANARY), "{path}");
}

/// MXC-08, MXC-09
#[test]
fn an_identifier_that_is_too_long_is_refused_as_such() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    for length in [256, 4096, 60_000] {
        let long = "a".repeat(length);
        for media in [format!("{SERVER_NAME}/{long}"), format!("{long}/abc")] {
            client.download(&media).assert_error(400, "M_INVALID_PARAM");
        }
    }
    // Beyond what any request line may hold, nothing is looked at.
    let endless = format!("{SERVER_NAME}/{}", "a".repeat(65_536));
    assert_eq!(client.download(&endless).status, 400);
    // The longest that is taken is simply not there.
    let longest = "a".repeat(255);
    client.download(&format!("{SERVER_NAME}/{longest}")).assert_error(404, "M_NOT_FOUND");
}

/// MXC-01, MXC-06
#[test]
fn only_the_exact_server_name_is_our_own() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let media = client.upload("text/plain", None, b"ours");
    let (_, id) = media.split_once('/').unwrap();
    let others = ["FAKE.EXAMPLE", "Fake.example", "fake.example.", "fake.example:443"];
    for name in others.iter().chain(&["fake.example:8448", "[2001:db8::1]:8448", "192.0.2.1"]) {
        let foreign = format!("{name}/{id}");
        client.download(&foreign).assert_error(404, "M_NOT_FOUND");
        // Asked for once, of the homeserver alone, under the name as it was written.
        let asked = fake.received_for(&format!("/download/{foreign}"));
        assert_eq!(asked.len(), 1, "{name}");
    }
    assert_eq!(client.download(&media).text(), "ours");
}

/// MXC-01
#[test]
fn ids_that_look_like_files_of_the_store_are_ordinary_ids() {
    let fake = FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let (path, _) = target.split_once('?')?;
        let id = path.strip_prefix("/_matrix/client/v1/media/download/fake.example/")?;
        let body = format!("this is {id}");
        Some(respond_with(stream, 200, &[("Content-Type", "text/plain")], body.as_bytes()))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let ids = ["tmp", "blobs", "corrupt", "lock", "mediary", "local", "remote", "-rf", "_", "--"];
    for _ in 0..2 {
        for id in ids {
            let answer = mediary.alice().download(&format!("{SERVER_NAME}/{id}"));
            assert_eq!((answer.status, answer.text()), (200, format!("this is {id}")));
        }
    }
    assert_eq!(fake.received_for("/download/").len(), ids.len(), "something was not kept");
    let mediary = mediary.kill_and_restart();
    for id in ids {
        let answer = mediary.alice().download(&format!("{SERVER_NAME}/{id}"));
        assert_eq!((answer.status, answer.text()), (200, format!("this is {id}")));
    }
}

/// CS-DL-15, FLD-15
#[test]
fn a_name_in_the_path_only_comes_back_cleaned() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let media = client.upload("text/plain", Some("stored.txt"), b"body");
    let before = files_below(&mediary.store());
    let long = format!("inline; filename={}", "n".repeat(255));
    for (name, disposition) in [
        ("..%2f..%2fx", "inline; filename=....x"),
        ("a%2fb%5cc", "inline; filename=abc"),
        ("%0d%0aSet-Cookie:%20x=1", "inline; filename*=utf-8''Set-Cookie%3A%20x%3D1"),
        ("", "inline; filename=stored.txt"),
        ("%00%01", "inline; filename=stored.txt"),
        (&"n".repeat(4096), &long),
    ] {
        let answer = client.download(&format!("{media}/{name}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "body"), "{name}");
        assert_eq!(answer.header("content-disposition"), Some(disposition), "{name}");
        assert_eq!(answer.header("set-cookie"), None, "{name}");
    }
    client.get(&format!("{}/{media}/a/b", DOWNLOADS[0])).assert_error(404, "M_UNRECOGNIZED");
    assert_eq!(files_below(&mediary.store()), before);
}

// --- HI: headers

/// The fields of a plain answer to a download, in their order.
fn names(answer: &Answer) -> Vec<&str> {
    let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

/// CS-HDR-04, FLD-15
#[test]
fn a_file_name_adds_no_field_and_no_second_name() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let plain = client.download(&client.upload("text/plain", Some("plain"), b"body"));
    let long = "n".repeat(60_000);
    let cut = format!("inline; filename={}", "n".repeat(255));
    let fishes = "%F0%9F%90%9F".repeat(63);
    let many_fishes = "%F0%9F%90%9F".repeat(100);
    let cut_fishes = format!("inline; filename*=utf-8''{fishes}");
    for (name, disposition) in [
        ("a%0d%0aSet-Cookie:%20x=1", "inline; filename*=utf-8''aSet-Cookie%3A%20x%3D1"),
        ("a%0aSet-Cookie:x", "inline; filename*=utf-8''aSet-Cookie%3Ax"),
        ("x%22;%20filename=%22y.html", "inline; filename*=utf-8''x%22%3B%20filename%3D%22y.html"),
        ("a%5cb%22c;d", "inline; filename*=utf-8''ab%22c%3Bd"),
        ("%22", "inline; filename*=utf-8''%22"),
        ("evil%E2%80%AEgpj.exe", "inline; filename=evilgpj.exe"),
        ("%F0%9F%90%9F", "inline; filename*=utf-8''%F0%9F%90%9F"),
        ("%ff%fe", "inline; filename*=utf-8''%EF%BF%BD%EF%BF%BD"),
        ("", "inline"),
        ("%20%20", "inline"),
        ("..", "inline; filename=.."),
        (&long, &cut),
        (&many_fishes, &cut_fishes),
    ] {
        let media = client.upload("text/plain", Some(name), b"body");
        let answer = client.download(&media);
        assert_eq!(answer.header("content-disposition"), Some(disposition), "{name}");
        assert_eq!(names(&answer), names(&plain), "{name}");
    }
}

#[test]
fn a_type_that_is_none_becomes_octet_stream() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let long = format!("image/{}", "x".repeat(10 * 1024));
    let refused =
        ["", "png", "image/", "/png", "image/png\u{1}", "image/p\u{e9}g", "im age/png", &long];
    for sent in refused {
        let answer = client.request("POST", UPLOAD, &[("Content-Type", sent)], b"body");
        // Refused, or stored under a type that says nothing; never served as it was sent.
        if answer.status == 400 {
            continue;
        }
        let answer = client.download(&answer.media());
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{sent}");
        assert_eq!(answer.header("content-disposition"), Some("attachment"), "{sent}");
    }
    let twice = [("Content-Type", "image/png"), ("Content-Type", "text/html")];
    let media = client.request("POST", UPLOAD, &twice, b"body").media();
    let answer = client.download(&media);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    for kept in ["text/plain; charset=\"u;tf\"", "img/png", "IMAGE/PNG"] {
        let answer = client.download(&client.upload(kept, None, b"body"));
        assert_eq!(answer.header("content-type"), Some(kept));
    }
}

#[test]
fn control_characters_in_header_fields_are_refused_and_not_passed_on() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    for field in [
        &b"Content-Type: image/png\rX-Injected: 1"[..],
        b"Content-Type: image/png\0",
        b"Content-Type: image/png\n folded",
        b"X-Bad Name: 1",
        b"X-Space : 1",
        b": empty",
        b"no colon at all",
    ] {
        for path in [UPLOAD, "/_matrix/client/v3/login"] {
            let mut request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n").into_bytes();
            request.extend_from_slice(format!("Authorization: Bearer {TOKEN}\r\n").as_bytes());
            request.extend_from_slice(field);
            request.extend_from_slice(b"\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody");
            let answer = mediary.client().raw(&request);
            assert_eq!(answer.status, 400, "{}: {answer:?}", field.escape_ascii());
        }
    }
    let passed_on = fake.passed_on();
    assert!(!passed_on.iter().any(|request| request.method == "POST"), "{passed_on:?}");
    assert!(mediary.blobs().is_empty());
}

/// What another server says of a name, and what we say of it.
const DISPOSITIONS: [(&str, &str); 6] = [
    ("attachment; filename=", "attachment"),
    (";;;=\"\"", "attachment"),
    ("inline; filename=\"a\\\"b/../c.html\"", "attachment; filename*=utf-8''a%22b..c.html"),
    (
        "inline; filename*=utf-8''%0d%0aSet-Cookie%3a%20x",
        "attachment; filename*=utf-8''Set-Cookie%3A%20x",
    ),
    ("inline; filename=\"\u{e9}t\u{e9}.txt\"", "attachment; filename*=utf-8''%C3%A9t%C3%A9.txt"),
    ("", "attachment"),
];

/// CS-HDR-05
#[test]
fn odd_fields_of_another_server_are_cleaned() {
    let homeserver = FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let (_, id) = target.split('?').next()?.split_once("/download/other.example/")?;
        let (disposition, _) = DISPOSITIONS[id.parse::<usize>().ok()?];
        let fields: &[_] = match disposition {
            "" => &[],
            _ => &[("Content-Disposition", disposition)],
        };
        Some(respond_with(stream, 200, fields, b"<script>alert(1)</script>"))
    });
    let mediary = Mediary::in_front_of(&homeserver.url);
    for (number, (sent, served)) in DISPOSITIONS.iter().enumerate() {
        // Once as it passes, once from the store.
        for _ in 0..2 {
            let answer = mediary.alice().download(&format!("other.example/{number}"));
            assert_eq!(answer.text(), "<script>alert(1)</script>");
            assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
            assert_eq!(answer.header("content-disposition"), Some(*served), "{sent}");
            assert_eq!(answer.header("set-cookie"), None);
        }
    }
    assert_eq!(homeserver.received_for("/download/").len(), DISPOSITIONS.len());
}

/// CS-HDR-05, CS-HDR-08, CS-HDR-09
#[test]
fn fields_of_the_homeservers_media_answers_do_not_leak_through() {
    let homeserver = holding(
        &[
            ("Content-Type", "text/html"),
            ("Content-Disposition", "inline; filename=page.html"),
            ("Content-Security-Policy", "default-src *"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Access-Control-Allow-Origin", "https://evil.example"),
            ("Cache-Control", "public, s-maxage=99999"),
            ("Set-Cookie", "session=1"),
            ("Link", "</x>; rel=preload"),
            ("ETag", "\"theirs\""),
        ],
        b"<h1>",
    );
    let mediary = Mediary::in_front_of(&homeserver.url);
    for _ in 0..2 {
        let answer = mediary.alice().download("other.example/abc");
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("content-disposition"), Some("attachment; filename=page.html"));
        assert_safe(&answer, "relayed media");
        for leaked in ["set-cookie", "link"] {
            assert_eq!(answer.header(leaked), None);
        }
        assert_ne!(answer.header("etag"), Some("\"theirs\""));
    }
}

/// Asserts the fields that keep a browser from running somebody's bytes.
fn assert_safe(answer: &Answer, case: &str) {
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{case}");
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("cross-origin"), "{case}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{case}");
    assert_eq!(
        answer.header("content-security-policy"),
        Some(
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
             style-src 'unsafe-inline'; media-src 'self'; object-src 'self';"
        ),
        "{case}"
    );
    let cache = answer.header("cache-control").unwrap_or_default();
    assert!(cache.contains("private"), "{case}: {cache}");
}

/// CS-GEN-01, CS-CORS-01, CS-HDR-08, CS-HDR-09, CS-HDR-11
#[test]
fn every_media_answer_has_the_safe_fields() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let media = client.upload("text/html", None, b"<h1>page</h1>");
    let target = format!("{}/{media}", DOWNLOADS[0]);

    let whole = client.get(&target);
    assert_eq!(whole.status, 200);
    assert_safe(&whole, "200");
    let etag = whole.header("etag").unwrap();
    for (status, fields) in [(206, [("Range", "bytes=0-3")]), (304, [("If-None-Match", etag)])] {
        let answer = client.get_with(&target, &fields);
        assert_eq!(answer.status, status);
        assert_safe(&answer, &status.to_string());
    }
    let head = client.request("HEAD", &target, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_safe(&head, "HEAD");
    assert_eq!(names(&head), names(&whole));

    let beyond = client.get_with(&target, &[("Range", "bytes=100-")]);
    assert_eq!(beyond.header("content-range"), Some("bytes */13"));
    beyond.assert_error(416, "M_UNKNOWN");
    for error in [
        beyond,
        client.download(&format!("{SERVER_NAME}/nothing")),
        client.download("-/-/-/-/-"),
        mediary.client().get(&target),
        client.request("DELETE", &target, &[], b""),
    ] {
        let case = error.status.to_string();
        assert!(error.status >= 400);
        assert_eq!(error.header("content-type"), Some("application/json"), "{case}");
        assert_eq!(error.header("x-content-type-options"), Some("nosniff"), "{case}");
        assert_eq!(error.header("access-control-allow-origin"), Some("*"), "{case}");
        assert_eq!(error.header("cache-control"), Some("no-store"), "{case}");
    }
}

// --- XS: scripts

/// CS-HDR-03, CS-INL-01
#[test]
fn what_a_browser_could_run_is_an_attachment_everywhere() {
    let fake = FakeHomeserver::start();
    let mediary = open(&fake).start();
    let client = mediary.alice();
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    for content_type in [
        "text/html",
        "TEXT/HTML; charset=utf-8",
        "image/svg+xml",
        "application/xhtml+xml",
        "text/xml",
        "application/pdf",
        "text/javascript",
        "application/wasm",
        "application/octet-stream",
        "multipart/mixed; boundary=a",
        "message/rfc822",
        "text/html;image/png",
        "image/png+html",
    ] {
        let media = client.upload(content_type, Some("name"), svg);
        for prefix in DOWNLOADS {
            for target in [format!("{prefix}/{media}"), format!("{prefix}/{media}/cat.png")] {
                for fields in [&[][..], &[("Range", "bytes=0-9")], &[("Accept", "image/png")]] {
                    let answer = client.get_with(&target, fields);
                    let case = format!("{content_type} at {target}");
                    assert!(matches!(answer.status, 200 | 206), "{case}: {}", answer.status);
                    let disposition = answer.header("content-disposition").unwrap();
                    assert!(disposition.starts_with("attachment"), "{case}: {disposition}");
                    assert_eq!(answer.header("content-type"), Some(content_type), "{case}");
                    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{case}");
                    let policy = answer.header("content-security-policy").unwrap();
                    assert!(policy.starts_with("sandbox; default-src 'none'"), "{case}");
                }
            }
        }
    }
}

/// CS-HDR-01, CS-INL-02, CS-UP-09
#[test]
fn a_type_is_served_as_it_was_declared_and_never_guessed() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let html = b"<!DOCTYPE html><script>alert(document.domain)</script>";
    let answer = client.download(&client.upload("image/png", None, html));
    assert_eq!(answer.header("content-type"), Some("image/png"));
    assert_eq!(answer.header("content-disposition"), Some("inline"));
    assert_safe(&answer, "html as png");
}

/// CS-HDR-06, CS-HDR-07, CS-TH-12
#[test]
fn a_thumbnail_has_the_type_of_its_encoder_and_svg_has_none() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let pixels = image::RgbImage::from_raw(200, 200, noise(200 * 200 * 3, 1)).unwrap();
    let mut png = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let thumbnail = |media: &str| {
        let target = format!("{}/{media}?width=32&height=32&method=crop", THUMBNAILS[0]);
        client.get(&target)
    };
    for claimed in ["image/png", "text/html", "image/svg+xml"] {
        let answer = thumbnail(&client.upload(claimed, Some("evil.html"), png.get_ref()));
        assert_eq!(answer.status, 200, "{claimed}: {}", answer.text());
        let served = answer.header("content-type").unwrap();
        let format = image::guess_format(&answer.body).unwrap().to_mime_type();
        assert_eq!(served, format, "{claimed}");
        let disposition = answer.header("content-disposition").unwrap();
        assert!(!disposition.contains("html"), "{claimed}: {disposition}");
        assert_safe(&answer, claimed);
    }
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    for claimed in ["image/svg+xml", "image/png"] {
        let answer = thumbnail(&client.upload(claimed, None, svg));
        answer.assert_error(400, "M_UNKNOWN");
    }
}
