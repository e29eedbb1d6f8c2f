//! What strangers can make Mediary ask of the homeserver, and what a hostile homeserver can make it
//! say (threats AU, HI, XS and CA).

mod common;

use common::fake::{SERVER_NAME, respond_with};
use common::{Client, FakeHomeserver, Mediary, Settings, Synapse};

const CONFIG: &str = "/_matrix/client/v1/media/config";

const DOWNLOAD: &str = "/_matrix/client/v1/media/download";

const PREVIEW: &str = "/_matrix/client/v1/media/preview_url";

/// Synapse gives no answer to a request line or fields of more than 16 KiB.
///
/// AU-05, AU-06, AU-22
#[test]
fn what_is_too_long_for_the_homeserver_is_no_failure_of_its() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let long = "a".repeat(20_000);
    for parameter in ["user_id", "device_id"] {
        client.get(&format!("{CONFIG}?{parameter}={long}")).assert_error(400, "M_INVALID_PARAM");
    }
    for target in [
        format!("{PREVIEW}?url=https://a.example/{long}"),
        format!("{PREVIEW}?url=https://a.example/&ts={long}"),
    ] {
        client.get(&target).assert_error(400, "M_UNKNOWN");
    }
    let signed = format!("X-Matrix origin=a.example,key=\"ed25519:1\",sig=\"{long}\"");
    let federation = "/_matrix/federation/v1/media/download/abc";
    let answer = mediary.client().get_with(federation, &[("Authorization", &signed)]);
    answer.assert_error(414, "M_TOO_LARGE");
    let answer = mediary.client().with_token(&long).get(CONFIG);
    answer.assert_error(401, "M_MISSING_TOKEN");
    // What is said beside the question is left out.
    for field in ["User-Agent", "X-Forwarded-For"] {
        let client = mediary.client_of(&synapse.user());
        assert_eq!(client.get_with(CONFIG, &[(field, &long)]).status, 200, "{field}");
    }
    let media = client.upload("text/plain", None, b"the query of a download may be long");
    let answer = client.get(&format!("{DOWNLOAD}/{media}?x={long}"));
    assert_eq!(answer.text(), "the query of a download may be long");
}

/// AU-22, CS-AS-01
#[test]
fn a_parameter_stays_one_parameter_on_its_way() {
    let fake = FakeHomeserver::with(|request, stream| {
        let is_preview = request.target().contains("/media/preview_url");
        is_preview.then(|| respond_with(stream, 200, &[], b"{}"))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    for (sent, asked) in [
        ("%0d%0aX-Injected:%201", "%0D%0AX-Injected%3A%201"),
        ("a%26access_token=b", "a%26access_token%3Db"),
        ("a%23b", "a%23b"),
        ("a%3fb/../c", "a%3Fb%2F..%2Fc"),
        ("%252e%252e", "%252e%252e"),
        ("a+b%2bc", "a%20b%2Bc"),
        ("%00", "%00"),
        ("%ff", "%EF%BF%BD"),
        ("\u{e9};b=c", "%C3%A9%3Bb%3Dc"),
        ("", ""),
    ] {
        mediary.alice().get(&format!("{PREVIEW}?url={sent}&ts={sent}"));
        let previews = fake.received_for("/preview_url");
        let received = previews.last().expect("the homeserver is asked");
        assert_eq!(received.target(), format!("{PREVIEW}?url={asked}&ts={asked}"), "{sent}");
        mediary.client().with_token("nobody").get(&format!("{CONFIG}?user_id={sent}"));
        let questions = fake.received_for("/whoami");
        let received = questions.last().expect("the homeserver is asked");
        let whoami = "/_matrix/client/v3/account/whoami";
        assert_eq!(received.target(), format!("{whoami}?user_id={asked}"), "{sent}");
        let names = received.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
        assert!(!names.collect::<Vec<_>>().contains(&"x-injected".to_owned()), "{received:?}");
    }
}

/// AU-19
#[test]
fn no_parameter_of_a_stranger_reaches_the_homeserver_with_a_question() {
    let fake = FakeHomeserver::start();
    let mediary = Settings::new(&fake.url).with("[legacy]\nmode = \"open\"").start();
    let bypass = "admin_unsafely_bypass_quarantine=true&timeout_ms=0&allow_remote=true&x=y";
    for media in [format!("{SERVER_NAME}/a"), "other.example/a".to_owned()] {
        for path in [
            format!("{DOWNLOAD}/{media}?{bypass}"),
            format!("/_matrix/media/v3/download/{media}?{bypass}"),
            format!("/_matrix/client/v1/media/thumbnail/{media}?{bypass}&width=1&height=1"),
            format!("/_matrix/media/v3/thumbnail/{media}?{bypass}&width=1&height=1"),
        ] {
            mediary.alice().get(&path).assert_error(404, "M_NOT_FOUND");
        }
    }
    let asked = fake.received_for("/media/");
    assert!(!asked.is_empty());
    for request in asked {
        let target = request.target();
        let (_, query) = target.split_once('?').expect("a query");
        let names: Vec<_> = query.split('&').filter_map(|pair| pair.split('=').next()).collect();
        assert!(matches!(names[..], ["timeout_ms"] | ["allow_remote", "timeout_ms"]), "{target}");
    }
}

/// The connection breaks off as Synapse breaks it off when a request is too long.
///
/// AU-04, AU-07
#[test]
fn a_stranger_cannot_make_anybody_forgotten() {
    let fake = FakeHomeserver::with(|request, _| {
        let is_ending = ["/logout", "/_synapse/admin/", "/delete_devices", "/devices/"]
            .iter()
            .any(|path| request.target().contains(path));
        is_ending.then_some(false)
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let questions = || fake.received_for("/whoami").len();
    let ending = [
        ("POST", "/_matrix/client/v3/logout"),
        ("POST", "/_matrix/client/v3/logout/all"),
        ("POST", "/_matrix/client/v3/delete_devices"),
        ("DELETE", "/_matrix/client/v3/devices/D"),
        ("POST", "/_synapse/admin/v1/deactivate/@alice:fake.example"),
    ];
    assert_eq!(mediary.alice().get(CONFIG).status, 200);
    assert_eq!(questions(), 1);
    for (method, target) in ending {
        for stranger in [mediary.client(), mediary.client().with_token("made-up")] {
            assert_eq!(stranger.request(method, target, &[], b"{}").status, 502, "{target}");
            assert_eq!(mediary.alice().get(CONFIG).status, 200);
            assert_eq!(questions(), 1, "{target}");
        }
    }
    // What somebody does to their own sessions, whose token is known, may have been done; what would
    // make everybody forgotten counts only when the homeserver says that it was.
    let mut expected = 1;
    for (method, target) in ending {
        assert_eq!(mediary.alice().request(method, target, &[], b"{}").status, 502, "{target}");
        assert_eq!(mediary.alice().get(CONFIG).status, 200);
        expected += usize::from(!target.starts_with("/_synapse/admin/"));
        assert_eq!(questions(), expected, "{target}");
    }
}

/// XS-08, HI-08
#[test]
fn a_preview_is_json_whatever_the_homeserver_calls_it() {
    let fake = FakeHomeserver::with(|request, stream| {
        let is_preview = request.target().contains("/media/preview_url");
        let fields = [("Content-Type", "text/html"), ("Set-Cookie", "a=b"), ("Refresh", "0")];
        let preview = br#"{"og:title":"</script><script>alert(1)</script>"}"#;
        is_preview.then(|| respond_with(stream, 200, &fields, preview))
    });
    let mediary = Mediary::in_front_of(&fake.url);
    let answer = mediary.alice().get(&format!("{PREVIEW}?url=https://a.example/"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!((answer.header("set-cookie"), answer.header("refresh")), (None, None));
}

/// CA-03, CA-04
#[test]
fn answers_do_not_depend_on_the_origin_and_are_for_one_reader() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.alice();
    let target = format!("{DOWNLOAD}/{}", client.upload("text/plain", None, b"body"));
    let seen = |client: &Client, origin: &[(&str, &str)]| {
        let mut answer = client.get_with(&target, origin);
        answer.headers.retain(|(name, _)| name != "date");
        (answer.status, answer.headers, answer.body)
    };
    let plain = seen(&client, &[]);
    let refused = seen(&mediary.client(), &[]);
    for origin in ["https://a.example", "https://b.example", "null", "x"] {
        assert_eq!(seen(&client, &[("Origin", origin)]), plain, "{origin}");
        assert_eq!(seen(&mediary.client(), &[("Origin", origin)]), refused, "{origin}");
    }
    let cache = |headers: &[(String, String)]| {
        let field = headers.iter().find(|(name, _)| name == "cache-control");
        field.map(|(_, value)| value.clone()).expect("the field")
    };
    assert!(cache(&plain.1).starts_with("private"));
    assert_eq!((refused.0, cache(&refused.1).as_str()), (401, "no-store"));
    // Not even what the client has already is confirmed without a token.
    let etag = client.get(&target).header("etag").expect("a tag").to_owned();
    let answer = mediary.client().get_with(&target, &[("If-None-Match", &etag)]);
    answer.assert_error(401, "M_MISSING_TOKEN");
}
