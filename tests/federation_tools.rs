//! What operators are told about other servers: `mediary federation-test`, and what `mediary check`
//! says of federation.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::dns::Reply;
use common::fake::{Received, SERVER_NAME, respond};
use common::origin::ServerKey;
use common::samples::png;
use common::world::in_a_world;
use common::{Authority, DnsServer, FakeHomeserver, Origin, Synapse, TlsFront};
use serde_json::json;
use tempfile::TempDir;

const US: &str = "us.example";
const PROBE: &str = "/_matrix/federation/v1/media/download/mediaryfederationtest?timeout_ms=0";

/// A configuration file in a directory of its own.
struct Tool {
    directory: TempDir,
    federation: String,
    upstream: String,
}

impl Tool {
    fn new(upstream: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let federation = "allow_networks = [\"127.0.0.0/8\"]\n".to_owned();
        Self { directory, federation, upstream: upstream.to_owned() }
    }

    fn believing(self, authority: &Authority) -> Self {
        let file = self.file("authority.pem", &authority.pem(), 0o644);
        self.with(&format!("ca_file = {file:?}"))
    }

    fn signing(self, line: &str) -> Self {
        let file = self.file("signing.key", line, 0o600);
        self.with(&format!("signing_key = {file:?}"))
    }

    fn with(mut self, line: &str) -> Self {
        self.federation.push_str(line);
        self.federation.push('\n');
        self
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, content).expect("it can be written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Returns the exit code and what was printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let federation = format!("[federation]\n{}", self.federation);
        let config = self.file("mediary.toml", &federation, 0o644);
        let output = Command::new(env!("CARGO_BIN_EXE_mediary"))
            .args(arguments)
            .args(["--config", &config, "--upstream", &self.upstream])
            .env_clear()
            .output()
            .expect("the binary can be started");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().expect("an exit code"), String::from_utf8(said).expect("text"))
    }

    fn visit(&self, server: &str, more: &[&str]) -> (i32, String) {
        self.run(&[&["federation-test", "--server-name", US, server], more].concat())
    }

    fn check(&self) -> (i32, String) {
        let store = self.directory.path().join("store");
        let store = store.to_str().expect("a path in UTF-8");
        self.run(&["check", "--listen", "127.0.0.1:0", "--data-dir", store])
    }
}

/// Asserts that the lines that begin so and go on so are there, in this order.
#[track_caller]
fn assert_says(said: &str, expected: &[(&str, &str)]) {
    let mut lines = said.lines();
    for (mark, text) in expected {
        let is_it = |line: &str| line.starts_with(mark) && line.contains(text);
        assert!(lines.by_ref().any(is_it), "no {mark} {text:?} in its place in\n{said}");
    }
}

// --- mediary federation-test

/// DISC-02, TLS-01, XM-01, XM-03, KEY-03
#[test]
fn a_server_that_works_is_said_to_and_media_is_fetched() {
    let authority = Authority::new();
    let origin = Origin::start(&authority);
    let media = format!("mxc://{}", origin.keep("there", "image/png", None, &png(7, 5)));
    let server = origin.server_name();
    let key = ServerKey::new("ours");
    let tool = Tool::new("http://127.0.0.1:1").believing(&authority).signing(&key.line());
    let (code, said) = tool.visit(&server, &["--media", &media]);
    let size = png(7, 5).len();
    let expected = [
        ("-   ", "the name says itself where the server is"),
        ("ok  ", "localhost has the addresses "),
        ("ok  ", &format!("{server} shows a valid certificate for localhost and answers 200")),
        ("ok  ", "it is Origin 1"),
        ("ok  ", &format!("believed with: {}", origin.key.id)),
        ("ok  ", "it believes that we are us.example, signing with ed25519:ours"),
        ("ok  ", &format!("{media} has {size} bytes of image/png")),
        ("Everything works.", ""),
    ];
    assert_says(&said, &expected);
    assert_eq!(code, 0, "{said}");
    let [probe] = &origin.received_for(PROBE)[..] else { panic!("one signed request") };
    let authorization = key.authorization(US, &server, "GET", PROBE);
    assert_eq!(probe.header("authorization"), Some(&*authorization));
    assert!(!said.contains("X-Matrix") && !said.contains("sig="), "{said}");
}

/// DISC-03, DISC-09, DISC-16, TLS-03, XM-03
#[test]
fn each_step_of_discovery_is_said() {
    in_a_world(async |world| {
        let homeserver = world.homeserver("m.example");
        world.dns.set_addresses("target.example", &["127.0.0.1", "10.0.0.1"]);
        let targets = [(1, 0, 1, "nowhere.example"), (2, 0, homeserver.port(), "target.example")];
        world.dns.set_srv("_matrix-fed._tcp.m.example", &targets);
        let _website = world.delegate("a.example", "m.example");
        let homeserver = homeserver.named("a.example");
        let tool = Tool::new("http://127.0.0.1:1").believing(&world.authority);
        let key = ServerKey::new("ours");
        let tool = tool.with(&world.dns.setting()).signing(&key.line());
        let (code, said) = tool.visit("a.example", &[]);
        let place = format!("target.example:{}", homeserver.port());
        let expected = [
            (
                "ok  ",
                "https://a.example/.well-known/matrix/server names m.example; that is remembered for 1day",
            ),
            ("ok  ", &*format!("_matrix-fed._tcp.m.example leads to nowhere.example:1, {place}")),
            (
                "ok  ",
                "target.example has the addresses 127.0.0.1, 10.0.0.1 (not public, so not contacted)",
            ),
            ("look", "nowhere.example:1: nowhere.example does not resolve"),
            ("ok  ", &*format!("{place} shows a valid certificate for m.example and answers 200")),
            ("ok  ", "it is Origin 1"),
            ("ok  ", "believed with: ed25519:h"),
            ("ok  ", "it believes that we are us.example"),
            ("It works; look at what is marked.", ""),
        ];
        assert_says(&said, &expected);
        assert_eq!(code, 0, "{said}");
        let [probe] = &homeserver.received_for(PROBE)[..] else { panic!("one signed request") };
        let authorization = key.authorization(US, "a.example", "GET", PROBE);
        assert_eq!(probe.header("authorization"), Some(&*authorization));
        assert_eq!(probe.header("host"), Some("m.example"));
    });
}

/// DISC-05, DISC-14
#[test]
fn where_it_ends_is_said_and_what_helps() {
    in_a_world(async |world| {
        let homeserver = world.homeserver_at_8448("a.example");
        homeserver.show(&world.authority.certificate(&["b.example"]));
        let _website = world.website("a.example", |_, stream| Some(respond(stream, 200, "{}")));
        let tool = Tool::new("http://127.0.0.1:1").believing(&world.authority);
        let tool = tool.with(&world.dns.setting());
        for (server, expected) in [
            (
                "a.example",
                &[
                    ("look", "matrix/server is not valid: the JSON has no text called m.server"),
                    ("-   ", "no SRV record _matrix-fed._tcp.a.example"),
                    ("-   ", "no SRV record _matrix._tcp.a.example"),
                    ("ok  ", "a.example has the addresses"),
                    ("FAIL", "federation.ca_file"),
                ][..],
            ),
            ("nowhere.example", &[("FAIL", "federation.dns_servers")]),
            ("10.0.0.1", &[("FAIL", "federation.allow_networks can allow it")]),
            ("127.0.0.1:1", &[("FAIL", "is the server up, and may this machine")]),
        ] {
            let (code, said) = tool.visit(server, &[]);
            assert_says(&said, expected);
            assert_says(&said, &[("Something does not work", "")]);
            assert_eq!(code, 1, "{said}");
        }
    });
}

/// FM-C-03, FLD-24
#[test]
fn what_a_server_makes_of_our_signature_is_said() {
    let authority = Authority::new();
    for (status, body, code, mark, text) in [
        (401, r#"{"errcode":"M_UNAUTHORIZED"}"#, 1, "FAIL", "does not believe that we are us.ex"),
        (403, r#"{"errcode":"M_FORBIDDEN"}"#, 1, "FAIL", "does not believe that we are us.ex"),
        (404, r#"{"errcode":"M_UNRECOGNIZED"}"#, 0, "look", "does not serve authenticated media"),
        (404, "nothing here", 0, "look", "does not serve authenticated media"),
        (429, r#"{"errcode":"M_LIMIT_EXCEEDED"}"#, 0, "look", "too many requests"),
        (502, "<html>", 1, "FAIL", "it answers 502 to a signed request"),
        (418, r#"{"errcode":"M_\u001b[2J"}"#, 1, "FAIL", r"418 M_\u{1b}[2J"),
    ] {
        let origin = Origin::with(&authority, move |request, stream| {
            request
                .target()
                .contains("mediaryfederationtest")
                .then(|| respond(stream, status, body))
        });
        let tool = Tool::new("http://127.0.0.1:1").believing(&authority);
        let tool = tool.signing(&ServerKey::new("1").line());
        let (exit, said) = tool.visit(&origin.server_name(), &[]);
        assert_says(&said, &[(mark, text)]);
        assert_eq!(exit, code, "{said}");
    }
}

/// KEY-03; threat FE-09
#[test]
fn keys_that_cannot_be_believed_and_servers_that_are_none_are_said() {
    let authority = Authority::new();
    let other = ServerKey::new("other").published("other.example", 1_000_000);
    for (answer, text) in [
        (other.to_string(), "it is of another server"),
        ("<html>".to_owned(), "it is not a strict JSON object"),
    ] {
        let origin = Origin::with(&authority, move |request, stream| {
            match request.target().contains("/_matrix/key/") {
                true => Some(respond(stream, 200, &answer)),
                false => Some(respond(stream, 200, r#"{"server":{"name":"\u001b[2Jx"}}"#)),
            }
        });
        let tool = Tool::new("http://127.0.0.1:1").believing(&authority);
        let (exit, said) = tool.visit(&origin.server_name(), &[]);
        assert_says(&said, &[("look", "nothing signed is sent, since there is no")]);
        assert_says(&said, &[("ok  ", r"it is \u{1b}[2Jx"), ("FAIL", text)]);
        assert_eq!(exit, 1, "{said}");
    }
}

#[test]
fn media_of_another_server_and_a_denied_server_are_said() {
    let authority = Authority::new();
    let origin = Origin::start(&authority);
    let tool = Tool::new("http://127.0.0.1:1").believing(&authority);
    let tool = tool.signing(&ServerKey::new("1").line()).with("deny_servers = [\"localhost\"]");
    let (exit, said) = tool.visit(&origin.server_name(), &["--media", "mxc://b.example/x"]);
    let expected = [("look", "Mediary exchanges no media"), ("FAIL", "run the test for b.example")];
    assert_says(&said, &expected);
    assert_eq!(exit, 1, "{said}");
    let gone = format!("mxc://{}/gone", origin.server_name());
    let (exit, said) = tool.visit(&origin.server_name(), &["--media", &gone]);
    assert_says(&said, &[("FAIL", "the server has no such media")]);
    assert_eq!(exit, 1, "{said}");
}

/// FM-C-11, XM-01, KEY-01
#[test]
fn a_real_homeserver_believes_the_key_of_another_and_no_other_key() {
    let authority = Authority::new();
    let start = || {
        let tls = TlsFront::new(&authority.certificate(&["localhost"]));
        let synapse = Synapse::start_as(&tls.server_name(), &authority, &[]);
        tls.lead_to(synapse.address());
        (synapse, tls)
    };
    let (ours, _our_tls) = start();
    let (theirs, _their_tls) = start();
    let line = ours.signing_key().unwrap();
    let media = theirs.client_of(&theirs.user()).upload("image/png", None, &png(3, 3));
    let tool = Tool::new(&ours.url).believing(&authority);

    let media = format!("mxc://{media}");
    let signing = tool.signing(&line);
    let test = ["federation-test", &theirs.server_name, "--media", &media];
    let (exit, said) = signing.run(&test);
    let expected = [
        ("ok  ", "it is Synapse"),
        ("ok  ", &*format!("it believes that we are {}", ours.server_name)),
        ("ok  ", &*format!("{media} has {} bytes of image/png", png(3, 3).len())),
    ];
    assert_says(&said, &expected);
    assert_eq!(exit, 0, "{said}");
    let (exit, said) = signing.check();
    assert_says(&said, &[("ok  ", "the key in federation.signing_key, so other servers believe")]);
    assert_eq!(exit, 0, "{said}");

    let stranger = Tool::new(&ours.url).believing(&authority);
    let stranger = stranger.signing(&ServerKey::new("stranger").line());
    let (exit, said) = stranger.run(&["federation-test", &theirs.server_name]);
    assert_says(&said, &[("FAIL", "does not believe that we are")]);
    assert_eq!(exit, 1, "{said}");
    let (exit, said) = stranger.check();
    assert_says(&said, &[("FAIL", "it does not publish ed25519:stranger")]);
    assert_eq!(exit, 1, "{said}");
}

// --- mediary check

#[test]
fn without_a_key_check_says_who_does_it_and_how_to_change_that() {
    let homeserver = FakeHomeserver::start();
    let (exit, said) = Tool::new(&homeserver.url).check();
    let asks_name = |request: &Received| request.target().starts_with("/_matrix/key/");
    let questions = homeserver.received().iter().filter(|request| asks_name(request)).count();
    assert_eq!(questions, 1, "it is asked for its name once");
    assert_says(&said, &[("ok  ", "federation goes through the homeserver")]);
    assert!(said.contains("`mediary key --help`") && !said.contains("name servers"), "{said}");
    assert_eq!(exit, 0, "{said}");
}

/// FM-C-11, XM-10
#[test]
fn check_says_how_the_homeserver_publishes_the_key_and_what_to_do() {
    let key = ServerKey::new("1");
    let other = ServerKey::new("1");
    for (verify_keys, old_verify_keys, code, text) in [
        (json!({"ed25519:1": {"key": key.public()}}), json!({}), 0, "so other servers believe"),
        (json!({"ed25519:1": {"key": other.public()}}), json!({}), 1, "it publishes another key"),
        (json!({}), json!({"ed25519:1": {"key": key.public()}}), 1, "only among its old keys"),
        (
            json!({"ed25519:2": {"key": "x"}}),
            json!({}),
            1,
            "in federation.signing_key, but ed25519:2",
        ),
    ] {
        let published = json!({
            "server_name": SERVER_NAME,
            "verify_keys": verify_keys,
            "old_verify_keys": old_verify_keys,
        });
        let homeserver = FakeHomeserver::with(move |request, stream| {
            let is_keys = request.target().contains("/_matrix/key/");
            is_keys.then(|| respond(stream, 200, &published.to_string()))
        });
        let dns = DnsServer::start();
        let tool = Tool::new(&homeserver.url).signing(&key.line()).with(&dns.setting());
        let (exit, said) = tool.check();
        let mark = if code == 0 { "ok  " } else { "FAIL" };
        let expected =
            [(mark, text), ("ok  ", "the name servers answer"), ("ok  ", "from those servers")];
        assert_says(&said, &expected);
        assert_eq!(exit, code, "{said}");
        assert_eq!(code == 0, !said.contains("signing_key_path"), "{said}");
    }
}

#[test]
fn check_finds_what_is_wrong_with_the_files_and_the_name_servers() {
    let homeserver = FakeHomeserver::start();
    let line = ServerKey::new("1").line();
    let (dns, failing) = (DnsServer::start(), DnsServer::start());
    failing.set_all("_matrix-fed._tcp.fake.example", &Reply::Refused);
    let tool_asking = |dns: &DnsServer| Tool::new(&homeserver.url).with(&dns.setting());
    let tool = || tool_asking(&dns);
    let readable = tool();
    let path = readable.file("readable.key", &line, 0o644);
    let readable = readable.with(&format!("signing_key = {path:?}"));
    let empty = tool().signing(&line);
    let path = empty.file("empty.pem", "", 0o644);
    let empty = empty.with(&format!("ca_file = {path:?}"));
    for (tool, mark, text) in [
        (readable, "FAIL", "chmod o-rwx"),
        (tool().with("signing_key = \"/nowhere/signing.key\""), "FAIL", "/nowhere/signing.key"),
        (tool().signing("no key"), "FAIL", "each line has to be"),
        (empty, "FAIL", "federation.ca_file"),
        (tool().signing(&line).with("ca_file = \"/nowhere/ca.pem\""), "FAIL", "/nowhere/ca.pem"),
        (tool_asking(&failing).signing(&line), "look", "see federation.dns_servers"),
    ] {
        let (exit, said) = tool.check();
        assert_says(&said, &[(mark, text)]);
        assert_eq!(exit, i32::from(mark == "FAIL"), "{said}");
        let seed = line.split_whitespace().last().unwrap();
        assert!(!said.contains(seed), "{said}");
    }
}
