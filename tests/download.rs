//! Downloads: bytes, headers, ranges and conditions (checklist sections 6 to 8, 10), and what the
//! legacy routes show.

mod common;

use common::fake::{self, FakeHomeserver, respond, respond_with};
use common::http::{Answer, Connection};
use common::samples::{bytes, etag};
use common::{Client, Mediary, Settings, Synapse};

const AUTHENTICATED: &[&str] =
    &["/_matrix/client/v1/media", "/_matrix/client/unstable/org.matrix.msc3916/media"];
const LEGACY: &[&str] = &["/_matrix/media/v3", "/_matrix/media/r0", "/_matrix/media/v1"];

const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types \
                      application/pdf; style-src 'unsafe-inline'; media-src 'self'; object-src \
                      'self';";

/// A size that is served from memory, and one that is read from disk as it is sent.
const SIZES: [usize; 2] = [10_000, 700_001];

const OPEN: &str = "[legacy]\nmode = \"open\"";

fn path(media: &str) -> String {
    format!("/_matrix/client/v1/media/download/{media}")
}

/// Sends a request on a connection that stays open.
fn ask(connection: &mut Connection, method: &str, target: &str, headers: &[&str]) -> Answer {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    connection.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes());
    connection.read_answer(method)
}

/// Asserts what stands beside somebody's bytes, whatever the status (CS-HDR-08, CS-HDR-09,
/// CS-CORS-04).
fn assert_safe(answer: &Answer) {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-robots-tag", "noindex, nofollow, noarchive, noimageindex"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name} of {}", answer.status);
    }
}

/// CS-UP-01, CS-UP-09, CS-DL-03
#[test]
fn what_was_uploaded_comes_back_byte_for_byte() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    for size in [0, 1, 65_535, 65_536, 65_537, 300_000, 3_000_001] {
        let body = bytes(size);
        let media = client.upload("application/octet-stream", None, &body);
        let answer = client.download(&media);
        assert_eq!((answer.status, answer.complete), (200, true), "{size}");
        assert!(answer.body == body, "{size} bytes came back different");
    }
}

/// CS-PATH-02, CS-PATH-03, CS-PATH-06, CS-DL-01, CS-DL-15, FLD-11
#[test]
fn every_prefix_serves_media_with_and_without_a_name() {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with(OPEN).start();
    let client = mediary.client_of(&synapse.user());
    let media = client.upload("text/plain", Some("kept.txt"), b"hello");
    let authenticated = AUTHENTICATED.iter().map(|prefix| (prefix, client.clone()));
    let legacy = LEGACY.iter().map(|prefix| (prefix, mediary.client()));
    for (prefix, client) in authenticated.chain(legacy) {
        let answer = client.get(&format!("{prefix}/download/{media}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{prefix}");
        assert_eq!(answer.header("content-disposition"), Some("inline; filename=kept.txt"));
        let answer = client.get(&format!("{prefix}/download/{media}/other.txt"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{prefix}");
        assert_eq!(answer.header("content-disposition"), Some("inline; filename=other.txt"));
    }
}

/// CS-DL-02, CS-AUTH-04, CS-AUTH-05, CS-CFG-01, FLD-32
#[test]
fn authenticated_prefixes_want_a_token() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let media = mediary.client_of(&synapse.user()).upload("text/plain", None, b"secret");
    for prefix in AUTHENTICATED {
        for rest in [format!("download/{media}"), format!("download/{media}/a"), "config".into()] {
            let target = format!("{prefix}/{rest}");
            mediary.client().get(&target).assert_error(401, "M_MISSING_TOKEN");
            let stranger = mediary.client().with_token("not-a-token");
            stranger.get(&target).assert_error(401, "M_UNKNOWN_TOKEN");
        }
    }
}

/// CS-DL-15, CS-HDR-04, FLD-15
#[test]
fn the_name_in_the_path_replaces_the_stored_one_and_nothing_else() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let named = client.upload("text/html", Some("my%20page%3B.html"), b"<p>");
    let disposition = |target: &str| {
        let answer = client.get(target);
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header("content-type"), Some("text/html"), "{target}");
        answer.header("content-disposition").expect("a disposition").to_owned()
    };
    let path = path(&named);
    assert_eq!(disposition(&path), "attachment; filename*=utf-8''my%20page%3B.html");
    assert_eq!(disposition(&format!("{path}/cat.png")), "attachment; filename=cat.png");
    assert_eq!(
        disposition(&format!("{path}/%D0%BA%22%0D%0AX:%20y.png")),
        "attachment; filename*=utf-8''%D0%BA%22X%3A%20y.png"
    );
    // A slash in the name is no further segment, and leaves the name.
    assert_eq!(disposition(&format!("{path}/a%2Fb.png")), "attachment; filename=ab.png");
}

/// CS-HDR-04, FLD-32
#[test]
fn without_a_name_none_is_sent() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let media = client.upload("image/png", None, b"x");
    assert_eq!(client.download(&media).header("content-disposition"), Some("inline"));
}

/// CS-HDR-01, CS-HDR-02, CS-HDR-08, CS-HDR-09, CS-HDR-11, FLD-16, FLD-26
#[test]
fn a_whole_answer_has_every_header() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    for size in SIZES {
        let body = bytes(size);
        let media = client.upload("img/png;x=y", Some("a.png"), &body);
        let answer = client.download(&media);
        assert_safe(&answer);
        for (name, value) in [
            ("content-type", "img/png;x=y"),
            ("content-disposition", "attachment; filename=a.png"),
            ("content-length", &size.to_string()),
            ("cache-control", "private, max-age=31536000, immutable"),
            ("vary", "Authorization"),
            ("accept-ranges", "bytes"),
            ("etag", &etag(&body)),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}, {size} bytes");
        }
        assert_eq!(answer.header("content-range"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
    }
}

/// CS-DL-16, FLD-26
#[test]
fn legacy_answers_are_for_shared_caches_that_ask_again() {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with(OPEN).start();
    let media = mediary.client_of(&synapse.user()).upload("text/html", None, b"<p>");
    let answer = mediary.client().get(&format!("/_matrix/media/v3/download/{media}"));
    assert_safe(&answer);
    let cache = answer.header("cache-control");
    assert_eq!(cache, Some("public, max-age=86400, s-maxage=0, proxy-revalidate"));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
}

/// CS-HDR-01, CS-HDR-02, CS-HDR-03, CS-INL-01, CS-INL-02, FLD-16
#[test]
fn only_the_safe_types_are_inline_on_every_route_and_status() {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with(OPEN).start();
    let client = mediary.client_of(&synapse.user());
    for (content_type, disposition) in [
        ("image/png", "inline"),
        ("Text/Plain; charset=utf-8", "inline"),
        ("application/json", "inline"),
        ("video/mp4", "inline"),
        ("audio/x-flac", "inline"),
        ("image/avif", "inline"),
        ("text/html", "attachment"),
        ("TEXT/HTML;charset=utf-8", "attachment"),
        ("image/svg+xml", "attachment"),
        ("application/xhtml+xml", "attachment"),
        ("application/javascript", "attachment"),
        ("application/pdf", "attachment"),
        ("application/xml", "attachment"),
        ("application/wasm", "attachment"),
        ("img/png", "attachment"),
        ("application/octet-stream", "attachment"),
    ] {
        let media = client.upload(content_type, None, b"<script>alert(1)</script>");
        let legacy = format!("/_matrix/media/v3/download/{media}");
        for (answer, status) in [
            (client.download(&media), 200),
            (client.get(&format!("{}/", path(&media))), 200),
            (client.get_with(&path(&media), &[("Range", "bytes=0-4")]), 206),
            (mediary.client().get(&legacy), 200),
        ] {
            assert_eq!(answer.status, status, "{content_type}");
            assert_eq!(answer.header("content-type"), Some(content_type));
            assert_eq!(answer.header("content-disposition"), Some(disposition), "{content_type}");
            assert_safe(&answer);
        }
    }
}

/// CS-UP-02, CS-HDR-01
#[test]
fn an_upload_without_a_usable_type_is_an_octet_stream() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let upload = |headers: &[(&str, &str)]| {
        client.request("POST", "/_matrix/media/v3/upload", headers, b"<p>").media()
    };
    let two_types = [("Content-Type", "image/png"), ("Content-Type", "text/html")];
    for headers in [&[][..], &[("Content-Type", "png")], &two_types] {
        let answer = client.download(&upload(headers));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("content-disposition"), Some("attachment"));
    }
}

/// CS-DL-16, FLD-27
#[test]
fn head_has_the_headers_of_get_no_body_and_leaves_the_connection_usable() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let token = format!("Authorization: Bearer {}", user.access_token);
    for size in [0].into_iter().chain(SIZES) {
        let media = client.upload("text/plain", Some("a"), &bytes(size));
        let mut connection = client.connect();
        let head = ask(&mut connection, "HEAD", &path(&media), &[&token]);
        let get = ask(&mut connection, "GET", &path(&media), &[&token]);
        assert_eq!((head.status, get.status), (200, 200));
        let without_date = |answer: &Answer| {
            answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect::<Vec<_>>()
        };
        assert_eq!(without_date(&head), without_date(&get), "{size} bytes");
        assert!(get.complete && get.body == bytes(size), "{size} bytes");
    }
}

#[test]
fn two_requests_on_one_connection_are_both_answered() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let token = format!("Authorization: Bearer {}", user.access_token);
    let one = client.upload("text/plain", None, b"one");
    let two = client.upload("text/plain", None, &bytes(SIZES[1]));
    let mut connection = client.connect();
    assert_eq!(ask(&mut connection, "GET", &path(&one), &[&token]).body, b"one");
    assert!(ask(&mut connection, "GET", &path(&two), &[&token]).body == bytes(SIZES[1]));
    let missing = path(&format!("{}/nothing", synapse.server_name));
    assert_eq!(ask(&mut connection, "GET", &missing, &[&token]).status, 404);
    let unmodified = format!("If-None-Match: {}", etag(b"one"));
    assert_eq!(ask(&mut connection, "GET", &path(&one), &[&token, &unmodified]).status, 304);
    assert_eq!(ask(&mut connection, "GET", &path(&one), &[&token]).body, b"one");
}

/// CS-DL-16
#[test]
fn who_has_a_copy_gets_304() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let media = client.upload("text/html", None, b"hello");
    let tag = etag(b"hello");
    for field in [
        tag.clone(),
        format!("W/{tag}"),
        "*".to_owned(),
        format!("\"other\", {tag}"),
        format!("W/\"other\" , W/{tag}"),
    ] {
        // A condition on the whole counts before a range (RFC 9110, section 13.2.2).
        for range in [&[][..], &[("Range", "bytes=0-1")]] {
            let headers = [&[("If-None-Match", field.as_str())], range].concat();
            let answer = client.get_with(&path(&media), &headers);
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{field}");
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
            let cache = answer.header("cache-control");
            assert_eq!(cache, Some("private, max-age=31536000, immutable"));
            assert_eq!(answer.header("content-length"), None);
            assert_safe(&answer);
        }
    }
    for field in ["\"other\"", &tag.replace('"', ""), ""] {
        let answer = client.get_with(&path(&media), &[("If-None-Match", field)]);
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]), "{field}");
    }
}

/// CS-DL-16, FLD-26
#[test]
fn who_has_a_copy_but_no_token_gets_401() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let media = mediary.client_of(&synapse.user()).upload("text/plain", None, b"hello");
    let condition = [("If-None-Match", "*")];
    let answer = mediary.client().get_with(&path(&media), &condition);
    answer.assert_error(401, "M_MISSING_TOKEN");
    let stranger = mediary.client().with_token("not-a-token");
    stranger.get_with(&path(&media), &condition).assert_error(401, "M_UNKNOWN_TOKEN");
}

/// CS-DL-16
#[test]
fn a_range_is_that_part_of_the_body() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    for size in SIZES {
        let body = bytes(size);
        let media = client.upload("video/mp4", Some("a.mp4"), &body);
        for (range, first, last) in [
            ("bytes=0-0".to_owned(), 0, 0),
            ("bytes=0-4095".to_owned(), 0, 4095),
            ("bytes=5000-6999".to_owned(), 5000, 6999),
            (format!("bytes={}-", size - 1), size - 1, size - 1),
            ("bytes=9000-".to_owned(), 9000, size - 1),
            ("bytes=-1".to_owned(), size - 1, size - 1),
            ("bytes=-9000".to_owned(), size - 9000, size - 1),
            (format!("bytes=-{}", size * 2), 0, size - 1),
            (format!("bytes=1-{}", u64::MAX), 1, size - 1),
            ("BYTES=1-2".to_owned(), 1, 2),
        ] {
            let answer = client.get_with(&path(&media), &[("Range", &range)]);
            assert_eq!((answer.status, answer.complete), (206, true), "{range} of {size}");
            assert!(answer.body == body[first..=last], "{range} of {size}");
            assert_safe(&answer);
            for (name, value) in [
                ("content-range", format!("bytes {first}-{last}/{size}").as_str()),
                ("content-length", &(last - first + 1).to_string()),
                ("content-type", "video/mp4"),
                ("content-disposition", "inline; filename=a.mp4"),
                ("cache-control", "private, max-age=31536000, immutable"),
                ("vary", "Authorization"),
                ("accept-ranges", "bytes"),
                ("etag", &etag(&body)),
            ] {
                assert_eq!(answer.header(name), Some(value), "{name} for {range} of {size}");
            }
        }
    }
}

#[test]
fn any_ranges_are_slices_of_the_body() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let token = format!("Authorization: Bearer {}", user.access_token);
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    // Knuth's MMIX generator; its upper bits are the good ones.
    let mut below = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    for size in [1, 2, 999, 262_144, 262_145, 1_000_003] {
        let body = bytes(size);
        let media = client.upload("audio/ogg", None, &body);
        let mut connection = client.connect();
        for _ in 0..60 {
            let first = below(size);
            let last = first + below(size - first);
            let range = format!("Range: bytes={first}-{last}");
            let answer = ask(&mut connection, "GET", &path(&media), &[&token, &range]);
            assert_eq!(answer.status, 206, "{range} of {size}");
            assert!(answer.body == body[first..=last], "{range} of {size}");
        }
    }
}

/// CS-DL-16
#[test]
fn range_past_end_is_416_with_the_size() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    for size in SIZES {
        let media = client.upload("text/plain", None, &bytes(size));
        for range in [
            &format!("bytes={size}-"),
            &format!("bytes={size}-{}", size + 1),
            "bytes=-0",
            "bytes=18446744073709551615-",
            "bytes=99999999999999999999999-",
        ] {
            let answer = client.get_with(&path(&media), &[("Range", range)]);
            answer.assert_error(416, "M_UNKNOWN");
            let content_range = format!("bytes */{size}");
            assert_eq!(answer.header("content-range"), Some(content_range.as_str()), "{range}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{range}");
        }
    }
}

/// CS-DL-16
#[test]
fn several_ranges_or_none_that_makes_sense_give_the_whole_body() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let body = bytes(SIZES[0]);
    let media = client.upload("text/plain", None, &body);
    let ten_thousand = format!("bytes={}0-", "0-,".repeat(9_999));
    for range in [
        "bytes=0-1,4-5",
        "bytes=0-,0-,0-",
        "bytes=0-1, 99999-",
        &ten_thousand,
        "bytes=5-2",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes 1-2",
        "items=0-1",
        "",
    ] {
        let answer = client.get_with(&path(&media), &[("Range", range)]);
        assert_eq!((answer.status, answer.header("content-range")), (200, None), "{range:.40}");
        assert!(answer.body == body, "{range:.40}");
    }
    let two = [("Range", "bytes=0-1"), ("Range", "bytes=2-3")];
    assert_eq!(client.get_with(&path(&media), &two).status, 200);
}

#[test]
fn a_range_of_another_copy_gives_the_whole_body() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let media = client.upload("text/plain", None, b"hello");
    let tag = etag(b"hello");
    let ask = |condition: &str| {
        client.get_with(&path(&media), &[("Range", "bytes=1-2"), ("If-Range", condition)])
    };
    assert_eq!((ask(&tag).status, ask(&tag).body.as_slice()), (206, &b"el"[..]));
    for other in ["\"other\"", &format!("W/{tag}"), "Wed, 21 Oct 2015 07:28:00 GMT"] {
        assert_eq!((ask(other).status, ask(other).body.as_slice()), (200, &b"hello"[..]));
    }
}

#[test]
fn an_empty_file_is_served_and_has_no_ranges() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let media = client.upload("text/plain", Some("empty"), b"");
    let answer = client.download(&media);
    assert_eq!((answer.status, answer.complete), (200, true));
    assert_eq!(answer.header("content-length"), Some("0"));
    assert_eq!(answer.header("etag"), Some(etag(b"").as_str()));
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let answer = client.get_with(&path(&media), &[("Range", range)]);
        answer.assert_error(416, "M_UNKNOWN");
        assert_eq!(answer.header("content-range"), Some("bytes */0"));
    }
}

/// CS-DL-12, CS-GEN-03
#[test]
fn unknown_media_is_not_found() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    for prefix in AUTHENTICATED.iter().chain(LEGACY) {
        let target = format!("{prefix}/download/{}/nothing", synapse.server_name);
        let answer = client.get(&target);
        answer.assert_error(404, "M_NOT_FOUND");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let head = client.request("HEAD", &target, &[], b"");
        assert_eq!((head.status, head.body.len()), (404, 0));
    }
}

/// CS-CFG-01, CS-CFG-02, CS-CFG-03, CS-FRZ-05, CS-GEN-01
#[test]
fn config_tells_the_limit_of_mediary() {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with("[uploads]\nmax_size = \"3 MiB\"").start();
    let client = mediary.client_of(&synapse.user());
    for prefix in AUTHENTICATED.iter().chain(LEGACY) {
        let target = format!("{prefix}/config");
        let answer = client.get(&target);
        assert_eq!(answer.status, 200, "{prefix}");
        assert_eq!(answer.text(), r#"{"m.upload.size":3145728}"#);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        mediary.client().get(&target).assert_error(401, "M_MISSING_TOKEN");
    }
}

/// Answers every preview with this body; everything else as a homeserver.
fn previewing(content_type: &'static str, body: &'static [u8]) -> FakeHomeserver {
    FakeHomeserver::with(move |request, stream| {
        let is_preview = request.target().contains("/media/preview_url");
        let headers = [("Content-Type", content_type)];
        is_preview.then(|| respond_with(stream, 200, &headers, body))
    })
}

/// CS-PV-02, CS-PV-03, CS-PV-04, CS-FRZ-05, FLD-21
#[test]
fn previews_are_asked_for_with_the_token_in_the_header_and_relayed() {
    let preview = br#"{"og:title":"</script>","og:image":"mxc://fake.example/a"}"#;
    let homeserver = previewing("application/json", preview);
    let mediary = Mediary::in_front_of(&homeserver.url);
    for prefix in AUTHENTICATED.iter().chain(LEGACY) {
        let target = format!(
            "{prefix}/preview_url?access_token={}&url=https%3A%2F%2Fa.example%2F%3Fb%26c&ts=5",
            fake::TOKEN
        );
        let answer = mediary.client().get(&target);
        assert_eq!((answer.status, answer.body.as_slice()), (200, &preview[..]), "{prefix}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    for request in homeserver.received_for("preview_url") {
        let path = "/_matrix/client/v1/media/preview_url";
        let query = "url=https%3A%2F%2Fa.example%2F%3Fb%26c&ts=5";
        assert_eq!(request.target(), format!("{path}?{query}"));
        let bearer = format!("Bearer {}", fake::TOKEN);
        assert_eq!(request.header("authorization"), Some(bearer.as_str()));
    }
}

/// CS-PV-01, CS-PV-02
#[test]
fn previews_need_a_token_and_a_url() {
    let homeserver = previewing("application/json", b"{}");
    let mediary = Mediary::in_front_of(&homeserver.url);
    let client = mediary.client().with_token(fake::TOKEN);
    for prefix in AUTHENTICATED.iter().chain(LEGACY) {
        let target = format!("{prefix}/preview_url?url=https%3A%2F%2Fa.example");
        mediary.client().get(&target).assert_error(401, "M_MISSING_TOKEN");
        let target = format!("{prefix}/preview_url?ts=5");
        client.get(&target).assert_error(400, "M_MISSING_PARAM");
    }
    assert!(homeserver.received_for("preview_url").is_empty());
}

/// CS-PV-03
#[test]
fn a_preview_that_is_not_json_is_502() {
    for (content_type, body) in [
        ("text/html", &b"<script>alert(1)</script>"[..]),
        ("application/json", b"<script>"),
        ("application/json", b"[]"),
        ("application/json", b""),
    ] {
        let homeserver = previewing(content_type, body);
        let mediary = Mediary::in_front_of(&homeserver.url);
        let client = mediary.client().with_token(fake::TOKEN);
        let answer = client.get("/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fa.example");
        answer.assert_error(502, "M_UNKNOWN");
        assert!(!answer.text().contains("script"));
    }
}

/// CS-PV-07, FLD-31
#[test]
fn a_homeserver_without_previews_says_so_itself() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let target = "/_matrix/client/v1/media/preview_url?url=https%3A%2F%2Fa.example";
    let own = synapse.client_of(&user).get(target);
    assert_eq!(own.status, 404);
    let answer = mediary.client_of(&user).get(target);
    answer.assert_error(404, "M_UNRECOGNIZED");
    assert_eq!(answer.json(), own.json());
}

fn legacy(media: &str) -> Vec<String> {
    LEGACY.iter().map(|prefix| format!("{prefix}/download/{media}")).collect()
}

/// CS-FRZ-01, CS-FRZ-03, FLD-22
#[test]
fn new_uploads_are_not_found_on_the_legacy_routes() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let media = client.upload("text/plain", None, b"hello");
    for target in legacy(&media) {
        mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
        mediary.client().get(&format!("{target}/name")).assert_error(404, "M_NOT_FOUND");
        // A token changes nothing: the route asks for none.
        client.get(&target).assert_error(404, "M_NOT_FOUND");
        let known = [("If-None-Match", "*"), ("Range", "bytes=0-0")];
        mediary.client().get_with(&target, &known).assert_error(404, "M_NOT_FOUND");
    }
    assert_eq!(client.download(&media).status, 200);
}

#[test]
fn the_legacy_mode_open_serves_everybody_and_off_nobody() {
    let synapse = Synapse::get();
    for (mode, status) in [("open", 200), ("off", 404)] {
        let settings = format!("[legacy]\nmode = \"{mode}\"");
        let mediary = Settings::new(&synapse.url).with(&settings).start();
        let media = mediary.client_of(&synapse.user()).upload("text/plain", None, b"hello");
        for target in legacy(&media) {
            assert_eq!(mediary.client().get(&target).status, status, "{mode} {target}");
        }
    }
}

/// CS-FRZ-01
#[test]
fn media_from_before_the_freeze_stays_open() {
    let synapse = Synapse::get();
    for (frozen_since, status) in [("2999-01-01T00:00:00Z", 200), ("2001-01-01T00:00:00Z", 404)] {
        let settings = format!("[legacy]\nfrozen_since = {frozen_since}");
        let mediary = Settings::new(&synapse.url).with(&settings).start();
        let media = mediary.client_of(&synapse.user()).upload("text/plain", None, b"hello");
        for target in legacy(&media) {
            assert_eq!(mediary.client().get(&target).status, status, "{frozen_since} {target}");
        }
    }
}

/// CS-FRZ-01, CS-FRZ-03
#[test]
fn what_synapse_has_frozen_stays_frozen() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let media = synapse.client_of(&user).upload("text/plain", None, b"hello");
    let target = format!("/_matrix/media/v3/download/{media}");
    mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
    assert_eq!(mediary.client_of(&user).download(&media).text(), "hello");
    mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
}

/// Shows the media `old` to everybody, and everything else only to its user.
fn with_old_media() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        let target = request.target();
        if !target.contains("/download/") {
            return None;
        }
        let is_old = target.contains("/media/v3/download/fake.example/old");
        let is_user = request.header("authorization").is_some();
        Some(if is_old || is_user {
            respond_with(stream, 200, &[("Content-Type", "text/plain")], b"hello")
        } else {
            respond(stream, 404, r#"{"errcode":"M_NOT_FOUND","error":"Frozen"}"#)
        })
    })
}

/// Asserts that the homeserver was asked so often, each time for nobody in particular.
fn assert_asked_for_anybody(homeserver: &FakeHomeserver, media: &str, times: usize) {
    let asked =
        homeserver.received_for(&format!("/_matrix/media/v3/download/fake.example/{media}"));
    assert_eq!(asked.len(), times, "{asked:?}");
    for request in asked {
        assert!(request.target().contains("?allow_remote=false&"), "{request:?}");
        assert_eq!(request.header("authorization"), None);
    }
}

/// CS-DL-01, CS-DL-04, CS-FRZ-01, CS-FRZ-06
#[test]
fn what_the_homeserver_shows_to_anybody_is_read_through_once() {
    let homeserver = with_old_media();
    let mediary = Mediary::in_front_of(&homeserver.url);
    // Neither a token nor a wish for remote media goes up.
    let client: Client = mediary.client().with_token(fake::TOKEN);
    for target in legacy("fake.example/old") {
        let answer = client.get(&format!("{target}?allow_remote=true&access_token=x"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    }
    assert_asked_for_anybody(&homeserver, "old", 1);
    assert_eq!(client.download("fake.example/old").text(), "hello");
    assert!(homeserver.received_for("client/v1/media/download").is_empty());
}

#[test]
fn a_kept_copy_is_opened_when_the_homeserver_shows_the_media_to_anybody() {
    let homeserver = with_old_media();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let user = mediary.client().with_token(fake::TOKEN);
    assert_eq!(user.download("fake.example/old").text(), "hello");
    for target in legacy("fake.example/old") {
        assert_eq!(mediary.client().get(&target).text(), "hello");
    }
    assert_asked_for_anybody(&homeserver, "old", 1);
}

/// CS-FRZ-03, CS-FRZ-06
#[test]
fn a_kept_copy_stays_closed_when_the_homeserver_does_not_show_the_media() {
    let homeserver = with_old_media();
    let mediary = Mediary::in_front_of(&homeserver.url);
    let user = mediary.client().with_token(fake::TOKEN);
    assert_eq!(user.download("fake.example/new").text(), "hello");
    let target = "/_matrix/media/v3/download/fake.example/new";
    mediary.client().get(target).assert_error(404, "M_NOT_FOUND");
    assert_asked_for_anybody(&homeserver, "new", 1);
}

/// CS-FRZ-06, FLD-22
#[test]
fn with_the_legacy_mode_off_the_homeserver_is_not_asked() {
    let homeserver = with_old_media();
    let mediary = Settings::new(&homeserver.url).with("[legacy]\nmode = \"off\"").start();
    for target in legacy("fake.example/old") {
        mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
    }
    assert_asked_for_anybody(&homeserver, "old", 0);
}
