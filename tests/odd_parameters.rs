//! Odd corners of parameters: queries that are too long, names that are encoded twice, and every way to
//! write a file's name (checklist MXC, CS-HDR).

mod common;

use common::fake::respond_with;
use common::samples::png;
use common::{FakeHomeserver, Mediary, Settings, Synapse};

const CONFIG: &str = "/_matrix/client/v1/media/config";

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// What is too long for a homeserver to read is refused here, in clear words; the rest is read.
#[test]
fn a_query_of_sixty_kilobytes_is_answered_or_refused_on_every_route_but_never_fails() {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with("[legacy]\nmode = \"open\"").start();
    let client = mediary.client_of(&synapse.user());
    let media = client.upload("image/png", None, &png(64, 64));
    let id = media.split_once('/').expect("an id").1;
    let [current, legacy] = ["/_matrix/client/v1/media", "/_matrix/media/v3"];
    let picture = "width=32&height=32";
    let routes = [
        ("POST", format!("{UPLOAD}?"), 200),
        ("POST", "/_matrix/media/v1/create?".to_owned(), 200),
        ("PUT", format!("{UPLOAD}/{media}?"), 409),
        ("GET", format!("{current}/download/{media}?"), 200),
        ("GET", format!("{current}/download/{media}/name?"), 200),
        ("GET", format!("{current}/thumbnail/{media}?{picture}&"), 200),
        ("GET", format!("{current}/config?"), 200),
        ("GET", format!("{current}/preview_url?"), 400),
        ("GET", format!("{current}/preview_url?url="), 400),
        ("GET", format!("{legacy}/download/{media}?"), 200),
        ("GET", format!("{legacy}/thumbnail/{media}?{picture}&"), 200),
        ("GET", format!("/_matrix/federation/v1/media/download/{id}?"), 414),
        ("GET", format!("/_matrix/federation/v1/media/thumbnail/{id}?{picture}&"), 414),
    ];
    let signed = [("Authorization", "X-Matrix origin=\"a.example\",key=\"ed25519:1\",sig=\"x\"")];
    let ask = |method: &str, target: &str| {
        if target.contains("/federation/") {
            mediary.client().request(method, target, &signed, b"")
        } else {
            client.request(method, target, &[], b"")
        }
    };
    let many = (0..5_000).fold("x".to_owned(), |many, n| format!("{many}&method={n}"));
    for query in ["y".repeat(60_000), "&".repeat(60_000), format!("x&filename={many}")] {
        for (method, path, status) in &routes {
            // The first of the parameters is one that makes no sense.
            let is_odd = path.contains("/thumbnail/") && query.contains("method=0");
            let expected = if is_odd && *status == 200 { 400 } else { *status };
            let answer = ask(method, &format!("{path}{query}"));
            // What is short enough for it is the homeserver's to judge.
            let is_short_url = path.ends_with("url=") && query.as_bytes()[1] != b'y';
            let is_expected = answer.status == expected || (is_short_url && answer.status < 500);
            assert!(is_expected, "{method} {path}{query:.9}: {}", answer.status);
        }
        for name in ["user_id", "device_id"] {
            let answer = client.get(&format!("{CONFIG}?{name}=z{query}"));
            assert!([200, 400].contains(&answer.status), "{name}={query:.9}: {answer:?}");
        }
    }
    // What just fits goes up to the homeserver, and back comes an answer.
    for padding in ["y".repeat(7_900), "%22".repeat(2_600), "@".repeat(7_900)] {
        for (method, path, _) in &routes {
            let answer = ask(method, &format!("{path}{padding}"));
            assert!(answer.status < 500, "{method} {path}{padding:.9}: {answer:?}");
        }
        for name in ["user_id", "device_id", "ts"] {
            let target = format!("{current}/preview_url?url=x&{name}={padding}");
            assert_eq!(client.get(&target).status, 400, "{name}");
        }
        let longest = &padding[..510];
        for query in [
            format!("url={}&ts=1", &padding[..4_095]),
            format!("url=x&user_id={longest}&device_id={longest}"),
        ] {
            let answer = client.get(&format!("{current}/preview_url?{query}"));
            assert!(answer.status < 500, "{query:.30}: {answer:?}");
        }
    }
}

/// MXC-01, MXC-03, MXC-05, MXC-08
#[test]
fn names_with_ports_and_addresses_are_decoded_once() {
    let fake = FakeHomeserver::with(|request, stream| {
        request
            .target()
            .contains("/download/")
            .then(|| respond_with(stream, 200, &[("Content-Type", "text/plain")], b"hello"))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let id = "a".repeat(255);
    for (sent, asked) in [
        ("other.example:8448", "other.example:8448"),
        ("other.example%3A8449", "other.example:8449"),
        ("1.2.3.4", "1.2.3.4"),
        ("[::1]:8448", "[::1]:8448"),
        ("%5B2001:db8::1%5D", "[2001:db8::1]"),
    ] {
        for _ in 0..2 {
            assert_eq!(client.download(&format!("{sent}/{id}")).text(), "hello", "{sent}");
        }
        let path = format!("/_matrix/client/v1/media/download/{asked}/{id}");
        assert_eq!(fake.received_for(&path).len(), 1, "{sent}");
        client.download(&format!("{sent}/{id}a")).assert_error(400, "M_INVALID_PARAM");
        client.download(&format!("{sent}/%2561")).assert_error(400, "M_INVALID_PARAM");
    }
}

/// What other servers and old homeservers write, and the name that is told to the client.
///
/// CS-HDR-04, CS-HDR-05, FLD-15
#[test]
fn names_are_read_from_every_form_of_disposition_and_written_in_one() {
    const FORMS: [(&[u8], &str); 16] = [
        (b"attachment; filename=cat.jpg", "filename=cat.jpg"),
        (b"inline;FILENAME=\"cat.jpg\"", "filename=cat.jpg"),
        (b"inline; filename=\"my cat.jpg\"", "filename*=utf-8''my%20cat.jpg"),
        (b"inline; filename=\"a \\\"b\\\" \\\\ c\"", "filename*=utf-8''a%20%22b%22%20%20c"),
        (b"inline; filename=\"a; filename=b\"", "filename*=utf-8''a%3B%20filename%3Db"),
        (b"inline; filename=\"\xc3\xa9t\xc3\xa9\"", "filename*=utf-8''%C3%A9t%C3%A9"),
        (b"inline; filename=\"\xe9t\xe9\"", "filename*=utf-8''%C3%A9t%C3%A9"),
        (b"inline; filename*=UTF-8''%D0%BA.png", "filename*=utf-8''%D0%BA.png"),
        (b"inline; filename*=iso-8859-1'fr'%E9t%E9", "filename*=utf-8''%C3%A9t%C3%A9"),
        (b"inline; filename=\"?.png\"; filename*=utf-8''%D0%BA.png", "filename*=utf-8''%D0%BA.png"),
        (b"inline; filename*=utf-8''%D0%BA.png; filename=x.png", "filename*=utf-8''%D0%BA.png"),
        (b"inline; filename*=koi8-r''%CB; filename=x.png", "filename=x.png"),
        (b"inline; filename*=utf-8''%FF%FE; filename=x.png", "filename=x.png"),
        (b"inline; filename*=utf-8''; filename=x.png", "filename=x.png"),
        (
            b"inline; filename*=utf-8''%F0%9F%90%88%E2%80%AE.png",
            "filename*=utf-8''%F0%9F%90%88.png",
        ),
        (b"inline; filename=\"\"", ""),
    ];
    let fake = FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let number = target.split("/media/download/fake.example/").nth(1)?;
        let number: usize = number.split('?').next()?.parse().ok()?;
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1\r\n\
                     Content-Disposition: ";
        let answer = [&head[..], FORMS[number].0, b"\r\n\r\nx"].concat();
        Some(std::io::Write::write_all(stream, &answer).is_ok())
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    for (number, (_, name)) in FORMS.iter().enumerate() {
        let expected = format!("inline; {name}");
        let expected = expected.trim_end_matches("; ");
        for time in ["arriving", "kept"] {
            let answer = client.download(&format!("fake.example/{number}"));
            assert_eq!(answer.status, 200, "{expected}");
            assert_eq!(answer.header("content-disposition"), Some(expected), "{time}");
        }
        // The name in the path takes its place.
        let named = client.download(&format!("fake.example/{number}/%D0%B0%20b"));
        let in_path = Some("inline; filename*=utf-8''%D0%B0%20b");
        assert_eq!(named.header("content-disposition"), in_path);
    }
}
