//! `mediary key`: keys are made, shown and found, and none is given away.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Synapse;
use common::origin::ServerKey;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rusqlite::Connection;
use tempfile::TempDir;

/// What the command said, and whether it was content.
struct Said {
    is_good: bool,
    output: String,
    error: String,
}

fn key(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_mediary"))
        .arg("key")
        .args(arguments)
        .output()
        .expect("the binary can be started");
    Said {
        is_good: output.status.success(),
        output: String::from_utf8(output.stdout).expect("text"),
        error: String::from_utf8(output.stderr).expect("text"),
    }
}

fn good(arguments: &[&str]) -> String {
    let said = key(arguments);
    assert!(said.is_good && said.error.is_empty(), "{arguments:?}: {}", said.error);
    said.output
}

fn refused(arguments: &[&str]) -> String {
    let said = key(arguments);
    assert!(!said.is_good && said.output.is_empty(), "{arguments:?}: {}", said.output);
    said.error
}

/// A directory, and paths in it as the command line takes them.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path in UTF-8").to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).expect("it can be written");
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).expect("our own file");
        self.text(name)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// KEY-02
#[test]
fn a_new_key_is_written_for_its_owner_alone_and_its_secret_is_not_said() {
    let place = Place::new();
    let file = place.text("signing.key");
    let said = good(&["generate", &file]);
    assert_eq!(mode(&place.path("signing.key")), 0o600);
    let line = place.read("signing.key");
    let seed = line.split_whitespace().last().unwrap();
    // Read by code that is not Mediary's.
    let made = ServerKey::of_line(&line);
    assert!(said.contains(&made.id) && said.contains(&made.public()), "{said}");
    assert!(said.contains(&file) && said.contains(">> SIGNING_KEY_PATH"), "{said}");
    assert!(!said.contains(seed));

    let shown = good(&["show", &file]);
    assert_eq!(shown, format!("{}  {}  signs\n", made.id, made.public()));

    let again = refused(&["generate", &file]);
    assert!(again.contains("no key is overwritten") && !again.contains(seed), "{again}");
    assert_eq!(place.read("signing.key"), line);
    let elsewhere = refused(&["generate", &place.text("none/signing.key")]);
    assert!(elsewhere.contains("cannot be written"), "{elsewhere}");
}

/// The shell and the configuration read what is printed as the path that was meant.
#[test]
fn what_is_printed_can_be_used_whatever_characters_the_path_has() {
    let place = Place::new();
    let name = r#"a key's "file" \n $HOME `id`"#;
    let said = good(&["generate", &place.text(name)]);
    let command = said.lines().find(|line| line.contains(">> SIGNING_KEY_PATH")).unwrap();
    let command = command.replace("SIGNING_KEY_PATH", "\"$0\"");
    let added = place.write("signing.key", b"");
    assert!(Command::new("sh").args(["-ec", &command, &added]).status().unwrap().success());
    assert_eq!(place.read("signing.key").trim_start(), place.read(name));

    let (_, setting) = said.split_once("Set signing_key = ").unwrap();
    let (value, _) = setting.split_once(" in the section").unwrap();
    let table: toml::Table = format!("signing_key = {value}").parse().unwrap();
    assert_eq!(table["signing_key"].as_str(), Some(&*place.text(name)));

    fs::create_dir(place.path("it's")).unwrap();
    place.write("it's/CURRENT", b"MANIFEST-000005\n");
    let said = refused(&["conduit", &place.text("it's")]);
    let command = said.lines().find_map(|line| line.trim().strip_prefix("rocks/bin/python - "));
    let command = format!("printf %s {}", command.unwrap().replace("<<'END'", ""));
    let words = Command::new("sh").args(["-ec", &command]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(words).unwrap(), format!("{}keypair.bin", place.text("it's")));

    for name in ["two\nlines", "escape\u{1b}"] {
        let said = refused(&["generate", &place.text(name)]);
        assert!(said.contains("cannot be written in a configuration"), "{said}");
        assert!(!place.path(name).exists());
    }
}

#[test]
fn advice_needs_no_delegation_and_names_the_command_that_checks() {
    let place = Place::new();
    let made = good(&["generate", &place.text("new.key")]);
    let (value, _) = keypair("AbCd1234");
    let found = good(&["conduit", "--raw-value", &place.write("keypair.bin", &value)]);
    for said in [made, found, good(&["--help"])] {
        assert!(said.contains("`mediary check`") && !said.contains("SERVER_NAME/"), "{said}");
    }
    let empty = refused(&["show", &place.write("empty.key", b"")]);
    assert!(empty.contains("`mediary key generate`"), "{empty}");
}

#[test]
fn of_several_keys_the_first_signs() {
    let place = Place::new();
    let (first, second) = (ServerKey::new("first"), ServerKey::new("second"));
    let file = place.write("all.key", format!("{}\n{}", first.line(), second.line()).as_bytes());
    assert_eq!(
        good(&["show", &file]),
        format!(
            "{}  {}  signs\n{}  {}  does not sign\n",
            first.id,
            first.public(),
            second.id,
            second.public()
        )
    );
}

#[test]
fn a_file_that_will_not_do_is_refused_with_its_line_and_without_its_content() {
    let place = Place::new();
    let line = ServerKey::new("a_1").line();
    let seed = line.split_whitespace().last().unwrap();
    let broken = place.write("broken.key", format!("{line}{line}{seed}").as_bytes());
    let said = refused(&["show", &broken]);
    assert!(said.contains("broken.key, line 2: "), "{said}");
    assert!(!said.contains(seed), "{said}");

    let open = place.write("open.key", line.as_bytes());
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&["show", &open]).contains("chmod o-rwx"));
    assert!(refused(&["show", &place.text("none.key")]).contains("mediary key --help"));
}

/// FM-C-11, FLD-30: Synapse does what `mediary key generate` tells the administrator it does.
#[test]
fn synapse_publishes_a_key_that_was_added_to_its_file_and_signs_on_with_its_own() {
    let synapse = Synapse::start();
    let file = synapse.signing_key_file().expect("a Synapse of this test's own");
    let own = ServerKey::of_line(&synapse.signing_key().unwrap());
    let place = Place::new();
    let said = good(&["generate", &place.text("mediary.key")]);

    let advice = said.lines().find(|line| line.contains(">> SIGNING_KEY_PATH")).unwrap();
    let advice = advice.replace("SIGNING_KEY_PATH", "\"$0\"");
    let added = Command::new("sh").args(["-ec", &advice]).arg(&file).status().unwrap();
    assert!(added.success());
    let synapse = synapse.restart_with("key_refresh_interval=\"2d\"");

    let published = synapse.client().get("/_matrix/key/v2/server").json();
    let added = ServerKey::of_line(&place.read("mediary.key"));
    for key in [&own, &added] {
        assert_eq!(published["verify_keys"][&key.id]["key"], key.public());
        let signatures = &published["signatures"][&synapse.server_name];
        assert_eq!(signatures[&key.id], key.signature(&published));
    }
    assert_eq!(published["verify_keys"].as_object().unwrap().len(), 2);
    let shown = good(&["show", file.to_str().unwrap()]);
    assert!(shown.starts_with(&format!("{}  {}  signs\n", own.id, own.public())), "{shown}");
}

/// The value that Conduit keeps for a key, and the key.
fn keypair(version: &str) -> (Vec<u8>, ServerKey) {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random numbers");
    let seed: [u8; 32] = document.as_ref()[16..48].try_into().expect("32 bytes");
    let key = ServerKey::of_seed(version, seed);
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
    assert_eq!(pair.public_key().as_ref()[..4], document.as_ref()[51..55]);
    ([version.as_bytes(), b"\xff", document.as_ref()].concat(), key)
}

/// Makes a database as Conduit does, and returns the connection that its server has open.
fn conduit_database(path: &Path, keypair: &[u8]) -> Connection {
    let connection = Connection::open(path).expect("a database");
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE global (\"key\" BLOB UNIQUE, \"value\" BLOB);
             CREATE TABLE other (\"key\" BLOB UNIQUE, \"value\" BLOB);
             INSERT INTO global VALUES (CAST('version' AS BLOB), x'0d');",
        )
        .expect("SQL");
    connection
        .execute("INSERT INTO global VALUES (CAST('keypair' AS BLOB), ?1)", [keypair])
        .expect("SQL");
    connection
}

/// FLD-30
#[test]
fn the_key_of_a_conduit_is_read_while_it_runs_and_writes() {
    let place = Place::new();
    let (value, expected) = keypair("AbCd1234");
    let server = conduit_database(&place.path("conduit.db"), &value);
    server.execute_batch("BEGIN IMMEDIATE; DELETE FROM global WHERE true;").unwrap();

    let database = place.text("");
    let said = good(&["conduit", &database]);
    assert!(said.contains("ed25519:AbCd1234") && said.contains(&expected.public()), "{said}");
    assert!(said.contains("--output"), "{said}");
    let line = expected.line();
    assert!(!said.contains(line.split_whitespace().last().unwrap()));

    for (database, file) in [(&database, "a.key"), (&place.text("conduit.db"), "b.key")] {
        good(&["conduit", database, "--output", &place.text(file)]);
        assert_eq!(place.read(file), line);
        assert_eq!(mode(&place.path(file)), 0o600);
    }
    assert_eq!(good(&["conduit", &database, "--print"]), line);
    assert!(good(&["show", &place.text("a.key")]).contains(&expected.public()));

    let again = refused(&["conduit", &database, "--output", &place.text("a.key")]);
    assert!(again.contains("no key is overwritten"), "{again}");
    server.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn what_is_no_conduit_database_is_said_plainly() {
    let place = Place::new();
    let connection = Connection::open(place.path("other.db")).unwrap();
    connection.execute_batch("CREATE TABLE users (name TEXT)").unwrap();
    let no_table = refused(&["conduit", &place.text("other.db")]);
    assert!(no_table.contains("no table `global`"), "{no_table}");

    drop(conduit_database(&place.path("empty.db"), b"x"));
    let connection = Connection::open(place.path("empty.db")).unwrap();
    connection.execute_batch("DELETE FROM global WHERE length(key) = 7 AND value = x'78'").unwrap();
    let no_key = refused(&["conduit", &place.text("empty.db")]);
    assert!(no_key.contains("no `keypair`"), "{no_key}");

    let (mut value, _) = keypair("AbCd1234");
    let last = value.len() - 1;
    value[last] ^= 1;
    drop(conduit_database(&place.path("wrong.db"), &value));
    let wrong = refused(&["conduit", &place.text("wrong.db"), "--output", &place.text("x.key")]);
    assert!(wrong.contains("its key is not understood"), "{wrong}");
    assert!(!place.path("x.key").exists());

    let text = place.write("text.db", b"not a database at all");
    for path in [&place.text(""), &text] {
        let none = refused(&["conduit", path]);
        assert!(none.contains("database_path"), "{none}");
    }
    assert!(refused(&["conduit", &place.text("none")]).contains("cannot be read"));
    assert!(!key(&["conduit"]).is_good);
}

/// FLD-30
#[test]
fn with_rocksdb_the_way_is_shown_and_its_value_is_taken() {
    let place = Place::new();
    place.write("CURRENT", b"MANIFEST-000005\n");
    let said = refused(&["conduit", &place.text("")]);
    for part in ["RocksDB", "pip install rocksdict", "AccessType.read_only()", "--raw-value"] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let (value, expected) = keypair("AbCd1234");
    let raw = place.write("keypair.bin", &value);
    good(&["conduit", "--raw-value", &raw, "--output", &place.text("signing.key")]);
    assert_eq!(place.read("signing.key"), expected.line());
    let hex = place.write("hex", format!("{value:02x?}").as_bytes());
    assert!(refused(&["conduit", "--raw-value", &hex]).contains("not understood"));
}

#[test]
fn the_help_says_where_keys_come_from() {
    for arguments in [&["--help"][..], &["help"]] {
        let help = good(arguments);
        for part in ["show", "generate", "conduit", "federation.signing_key", "key/v2/server"] {
            assert!(help.contains(part), "{part}: {help}");
        }
    }
}
