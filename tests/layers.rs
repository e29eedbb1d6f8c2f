//! The layers of `src/lib.rs`, held against the source: which room uses which, and what is done in
//! one room alone. Change the tables here together with the design, never around it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room, and the other rooms that it may use.
struct Room {
    name: &'static str,
    uses: &'static [&'static str],
}

const fn room(name: &'static str, uses: &'static [&'static str]) -> Room {
    Room { name, uses }
}

const ROOMS: &[Room] = &[
    // Process: wires everything together.
    room(
        "main",
        &[
            "check",
            "config",
            "federation_test",
            "key_tool",
            "logging",
            "server",
            "thumbnail",
            "types",
        ],
    ),
    room("check", &["config", "federation", "homeserver", "server", "thumbnail", "types"]),
    room("federation_test", &["config", "egress", "federation", "server", "types"]),
    room("key_tool", &["federation"]),
    room("logging", &["config"]),
    room(
        "server",
        &[
            "auth",
            "config",
            "connection",
            "egress",
            "federation",
            "handlers",
            "homeserver",
            "limit",
            "media",
            "metrics",
            "policy",
            "proxy",
            "store",
            "thumbnail",
            "types",
        ],
    ),
    // Edge: HTTP in, HTTP out. `homeserver` is for what only it can answer (previews, other servers'
    // signed requests), for where requests pass through to, and for its failures.
    room(
        "proxy",
        &[
            "auth",
            "config",
            "connection",
            "error",
            "handlers",
            "homeserver",
            "limit",
            "metrics",
            "response",
            "route",
            "types",
        ],
    ),
    room("connection", &["config", "error", "limit", "metrics", "response", "types"]),
    room("route", &["types"]),
    room("limit", &["types"]),
    room("policy", &["auth", "config", "media", "types"]),
    room(
        "handlers",
        &[
            "auth",
            "error",
            "federation",
            "homeserver",
            "limit",
            "media",
            "policy",
            "response",
            "route",
            "types",
        ],
    ),
    room("response", &["error", "limit", "media", "route", "types"]),
    // The table of all failures names the failures of every room below.
    room(
        "error",
        &[
            "auth",
            "federation",
            "homeserver",
            "limit",
            "media",
            "policy",
            "store",
            "thumbnail",
            "types",
        ],
    ),
    // Application.
    room(
        "media",
        &["auth", "config", "federation", "homeserver", "metrics", "store", "thumbnail", "types"],
    ),
    // Capability: neighbours meet in `media`. Only `auth` looks sideways, for tokens and keys, and
    // `federation` goes out by `egress`.
    room("auth", &["config", "federation", "homeserver", "metrics", "types"]),
    room("federation", &["config", "egress", "metrics", "types"]),
    room("egress", &["config", "metrics", "types"]),
    room("homeserver", &["config", "metrics", "types"]),
    room("store", &["config", "metrics", "types"]),
    room("thumbnail", &["config", "metrics", "types"]),
    // Ground.
    room("types", &["config", "metrics"]),
    room("config", &["metrics", "types"]),
    room("metrics", &["config", "types"]),
    // The map: names the rooms and uses none.
    room("lib", &[]),
];

/// Something that is done in some files alone.
struct Reserved {
    /// What it looks like, each a whole word or path.
    signs: &'static [&'static str],
    /// Where it may be: rooms, or folders and files below `src`.
    only_in: &'static [&'static str],
    /// Whether tests inside `src` may do it as well.
    free_in_tests: bool,
    rule: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        signs: &["pingora"],
        only_in: &["server", "connection", "proxy", "response", "homeserver", "egress"],
        free_in_tests: false,
        rule: "Pingora's types stay in server, connection, proxy, response, and for its connector in homeserver and egress",
    },
    Reserved {
        signs: &[
            "pingora::proxy",
            "pingora::server",
            "pingora::services",
            "pingora::apps",
            "pingora::listeners",
            "pingora::protocols::http::ServerSession",
        ],
        only_in: &["server", "connection", "proxy", "response"],
        free_in_tests: false,
        rule: "Pingora's sessions and services stay in server, connection, proxy and response",
    },
    Reserved {
        signs: &["pingora::connectors", "pingora::protocols::http::client"],
        only_in: &["homeserver", "egress"],
        free_in_tests: false,
        rule: "Pingora's HTTP connector stays in homeserver and egress",
    },
    Reserved {
        signs: &["ProxyHttp for"],
        only_in: &["proxy.rs"],
        free_in_tests: false,
        rule: "there is one impl of ProxyHttp",
    },
    Reserved {
        signs: &["rusqlite"],
        only_in: &["store/metadata", "store/tests.rs", "federation/conduit.rs"],
        free_in_tests: false,
        rule: "SQL stays in store/metadata, but for a look at a Conduit's database",
    },
    Reserved {
        signs: &["\"blobs\"", "\"tmp\"", "\"corrupt\""],
        only_in: &["store/blob.rs"],
        free_in_tests: true,
        rule: "the paths of blobs are made in store/blob",
    },
    Reserved {
        signs: &["std::fs", "std::path", "tokio::fs", "rustix::fs", "OpenOptions"],
        // The configuration file, Unix sockets, a look at the store, and an open file to decode.
        only_in: &[
            "store",
            "config",
            "main",
            "check",
            "key_tool",
            "server/listeners.rs",
            "homeserver/upstream.rs",
            "thumbnail",
            // Keys and certificate authorities.
            "federation/signing_key.rs",
            "federation/key_file.rs",
            "federation/conduit.rs",
            "egress",
        ],
        free_in_tests: true,
        rule: "files are for the store; other rooms get readers",
    },
    Reserved {
        signs: &["std::net", "std::fs", "std::io", "std::env", "tokio", "async fn"],
        only_in: &[
            "main",
            "check",
            "federation_test",
            "key_tool",
            "logging",
            "server",
            "connection",
            "proxy",
            "handlers",
            "response",
            "media",
            "auth",
            "homeserver",
            "federation",
            "egress",
            "store",
            "thumbnail",
            "config",
            "metrics",
            // Addresses are words, and bodies are read by everybody, as is waited for them.
            "types/mxc.rs",
            "types/client_network.rs",
            "types/body.rs",
            "types/pace.rs",
            "types/share.rs",
            "limit/traffic.rs",
        ],
        free_in_tests: true,
        rule: "route and types do no input and no output",
    },
    Reserved {
        signs: &["tokio::spawn", "task::spawn", "thread::spawn", "background_service"],
        only_in: &["server", "media/fetch.rs"],
        free_in_tests: true,
        rule: "only server starts tasks and services, but for fetches, which outlive their first reader",
    },
    Reserved {
        signs: &["thread::Builder"],
        only_in: &[
            "server",
            "store/metadata/writer.rs",
            "thumbnail/engine/mod.rs",
            "thumbnail/sandbox/probe.rs",
        ],
        free_in_tests: true,
        rule: "only server starts threads, but for the database's own, the keepers of workers, and proof that a worker cannot",
    },
    Reserved {
        signs: &["spawn_blocking"],
        only_in: &["store", "thumbnail"],
        free_in_tests: true,
        rule: "what blocks is in store and thumbnail",
    },
    Reserved {
        signs: &[
            "Store::open",
            "Metrics::new",
            "Upstream::new",
            "Homeserver::new",
            "Authenticator::new",
            "OriginAuthenticator::new",
            "RemoteKeys::new",
            "Egress::new",
            "Servers::new",
            "RemoteFetcher::new",
            "Judge::new",
            "ThumbnailEngine::new",
            "MediaService::new",
            "Guard::new",
            "Places::new",
            "Traffic::new",
            "Policy::new",
            "Proxy::new",
        ],
        only_in: &["server"],
        free_in_tests: true,
        rule: "only server constructs",
    },
    Reserved {
        signs: &["RateLimit::new"],
        only_in: &["server", "limit/traffic.rs"],
        free_in_tests: true,
        rule: "limits are constructed by server, or together by limit/traffic",
    },
    Reserved {
        signs: &["Requester {"],
        only_in: &["auth"],
        free_in_tests: false,
        rule: "a Requester is made in auth alone",
    },
    Reserved {
        signs: &["Origin {"],
        only_in: &["auth/origin.rs"],
        free_in_tests: false,
        rule: "an Origin is made in auth alone",
    },
    Reserved {
        signs: &["process::exit"],
        only_in: &["main", "server"],
        free_in_tests: false,
        rule: "only main and server end the process",
    },
];

/// A line of code that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    rule: String,
}

/// The source of one file below `src`, without comments.
struct Source {
    /// Its path below `src`.
    file: String,
    /// Line by line; of a line of comment nothing is left.
    lines: Vec<String>,
    /// Where its tests begin, counted as `lines` are.
    tests_from: usize,
}

impl Source {
    fn new(file: &str, text: &str, is_test: bool) -> Self {
        let lines: Vec<String> = text.lines().map(without_comment).collect();
        let begins_tests = |index: &usize| {
            lines[*index].starts_with("#[cfg(test)]")
                && lines.get(index + 1).is_some_and(|next| next.ends_with('{'))
        };
        let tests_from = (0..lines.len()).find(begins_tests).unwrap_or(lines.len());
        let tests_from = if is_test { 0 } else { tests_from };
        Self { file: file.to_owned(), lines, tests_from }
    }

    /// Returns the room that the file belongs to.
    fn room(&self) -> &str {
        self.file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// Returns how many `super`s lead from the file's own module to the root of the crate.
    fn depth(&self) -> usize {
        let is_folder_itself = self.file.ends_with("/mod.rs");
        self.file.matches('/').count() + usize::from(!is_folder_itself)
    }

    /// Returns every use of a room, with the line that it begins on.
    fn uses(&self) -> Vec<(usize, String)> {
        let text = self.lines.join("\n");
        let mut uses = Vec::new();
        let to_root = "super::".repeat(self.depth());
        let to_root_from_tests = "super::".repeat(self.depth() + 1);
        for (offset, path) in paths(&text, &["crate::", "mediary::", "super::"]) {
            let line = text[..offset].matches('\n').count();
            let is_test = line >= self.tests_from;
            let up = if is_test { &to_root_from_tests } else { &to_root };
            let rest = if path.starts_with("super::") {
                match path.strip_prefix(up.as_str()) {
                    Some(rest) => rest,
                    None => continue,
                }
            } else {
                path.split_once("::").map_or("", |(_, rest)| rest)
            };
            uses.extend(first_names(rest).into_iter().map(|name| (line + 1, name)));
        }
        uses
    }

    /// Whether the file is one of these rooms, or lies in one of these folders.
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.file == *place
                || self.file.starts_with(&format!("{place}/"))
                || (!place.contains('/') && self.room() == *place)
        })
    }
}

fn without_comment(line: &str) -> String {
    let end = if line.trim_start().starts_with("//") { Some(0) } else { line.find(" // ") };
    line[..end.unwrap_or(line.len())].to_owned()
}

/// Finds the paths that begin with one of some words, each up to the end of the text.
fn paths<'t>(text: &'t str, beginnings: &[&str]) -> Vec<(usize, &'t str)> {
    let mut found: Vec<_> = beginnings
        .iter()
        .flat_map(|beginning| text.match_indices(beginning))
        .filter(|(offset, _)| {
            let before = text[..*offset].chars().next_back();
            !before.is_some_and(|c| is_word(c) || c == ':')
        })
        .map(|(offset, _)| (offset, &text[offset..]))
        .collect();
    found.sort_by_key(|(offset, _)| *offset);
    found
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the first name of a path, or of each path in a group.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = vec![name(group)];
    let mut depth = 0;
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[index + 1..])),
            _ => {}
        }
    }
    names.retain(|name: &String| !name.is_empty());
    names
}

/// Whether a line has a sign as a whole word.
fn shows(line: &str, sign: &str) -> bool {
    line.match_indices(sign).any(|(offset, _)| {
        let before = line[..offset].chars().next_back();
        let after = line[offset + sign.len()..].chars().next();
        let is_inner = |c: Option<char>| c.is_some_and(is_word);
        // Of a quoted or spaced sign the ends are not letters, so neighbours do not matter.
        let begins = !is_inner(before) || !sign.starts_with(is_word);
        let ends = !is_inner(after) || !sign.ends_with(is_word);
        begins && ends
    })
}

/// Holds one file against the tables.
fn violations(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |line, rule: String| {
        found.push(Violation { file: format!("src/{}", source.file), line, rule });
    };
    let own = source.room();
    let Some(room) = ROOMS.iter().find(|room| room.name == own) else {
        report(1, format!("the room {own} is not in the table"));
        return found;
    };
    for (line, used) in source.uses() {
        let is_room = ROOMS.iter().any(|room| room.name == used);
        if is_room && used != own && !room.uses.contains(&used.as_str()) {
            report(line, format!("{own} may not use {used}"));
        }
    }
    for reserved in RESERVED.iter().filter(|reserved| !source.is_in(reserved.only_in)) {
        let end = if reserved.free_in_tests { source.tests_from } else { source.lines.len() };
        for (index, line) in source.lines[..end].iter().enumerate() {
            if reserved.signs.iter().any(|sign| shows(line, sign)) {
                report(index + 1, reserved.rule.to_owned());
            }
        }
    }
    found
}

/// Reads all files below `src`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&root, &mut files);
    let texts: Vec<(PathBuf, String)> =
        files.into_iter().map(|path| (path.clone(), read(&path))).collect();
    let tests: BTreeSet<PathBuf> =
        texts.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    texts
        .iter()
        .map(|(path, text)| {
            let file = path.strip_prefix(&root).expect("a path below src");
            let file = file.to_str().expect("a path in UTF-8");
            Source::new(file, text, tests.contains(path))
        })
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Finds the files that are only compiled for tests: `#[cfg(test)] mod name;`.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = if path.ends_with("mod.rs") || path.ends_with("lib.rs") {
        path.parent().expect("a file in a folder").to_owned()
    } else {
        path.with_extension("")
    };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let named = |pair: &[&str]| {
        let name = pair[1].strip_prefix("mod ")?.strip_suffix(';')?;
        (pair[0] == "#[cfg(test)]").then(|| folder.join(name).with_extension("rs"))
    };
    lines.windows(2).filter_map(named).collect()
}

#[test]
fn the_source_keeps_to_the_layers() {
    let sources = sources();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    let found: Vec<_> = sources.iter().flat_map(violations).collect();
    let lines: Vec<_> =
        found.iter().map(|v| format!("{}:{}: {}", v.file, v.line, v.rule)).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn every_room_is_in_the_table_and_the_table_has_no_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(root.join("lib.rs")).unwrap();
    let declared = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let declared: BTreeSet<_> = declared.chain(["lib", "main"]).collect();
    let tabled: BTreeSet<_> = ROOMS.iter().map(|room| room.name).collect();
    assert_eq!(declared, tabled);
}

#[test]
fn no_two_rooms_below_the_edge_use_each_other() {
    let uses = |name: &str| ROOMS.iter().find(|room| room.name == name).unwrap().uses;
    let ground = ["types", "config", "metrics"];
    for room in ROOMS.iter().filter(|room| !ground.contains(&room.name)) {
        for used in room.uses {
            assert!(!uses(used).contains(&room.name), "{} and {used} use each other", room.name);
        }
    }
}

#[test]
fn what_breaks_a_rule_is_found() {
    let rules = |file: &str, text: &str| {
        let found = violations(&Source::new(file, text, false));
        found.into_iter().map(|v| (v.line, v.rule)).collect::<Vec<_>>()
    };
    for (file, text, line, rule) in [
        ("store/blob.rs", "\nuse crate::media::MediaError;", 2, "store may not use media"),
        ("types/mod.rs", "fn f() -> crate::store::Store {}", 1, "types may not use store"),
        ("route.rs", "use crate::{\n    types::Mxc,\n    auth::{A, B},\n};", 1, "may not use auth"),
        ("route.rs", "use super::auth::Requester;", 1, "route may not use auth"),
        ("route/query.rs", "use super::super::auth::A;", 1, "route may not use auth"),
        ("store/metadata/media.rs", "use super::super::super::media;", 1, "may not use media"),
        ("thumbnail/mod.rs", "use super::store::Store;", 1, "thumbnail may not use store"),
        ("logging.rs", "mediary::server::run();", 1, "logging may not use server"),
        ("utils.rs", "", 1, "the room utils is not in the table"),
        ("media/fill.rs", "use pingora::Error;", 1, "Pingora's types"),
        ("homeserver/client.rs", "use pingora::proxy::Session;", 1, "Pingora's sessions"),
        ("proxy.rs", "use pingora::connectors::http::Connector;", 1, "Pingora's HTTP connector"),
        ("store/commit.rs", "use rusqlite::Connection;", 1, "SQL stays"),
        ("media/mod.rs", "let path = root.join(\"blobs\");", 1, "the paths of blobs"),
        ("handlers/upload.rs", "use std::fs::File;", 1, "files are for the store"),
        ("route.rs", "use std::io::Read;", 1, "route and types do no input"),
        ("media/mod.rs", "tokio::spawn(work);", 1, "only server starts tasks"),
        ("media/mod.rs", "let store = Store::open(path)?;", 1, "only server constructs"),
        ("handlers/mod.rs", "Requester { identity, token }", 1, "a Requester is made in auth"),
        ("auth/mod.rs", "Ok(Origin { server_name })", 1, "an Origin is made in auth"),
        ("store/mod.rs", "std::process::exit(1)", 1, "only main and server end"),
    ] {
        let found = rules(file, text);
        let is_found = found.iter().any(|(at, said)| *at == line && said.contains(rule));
        assert!(is_found, "{file}: {text:?} gave {found:?}");
    }
}

#[test]
fn what_breaks_no_rule_is_not_found() {
    for (file, text) in [
        ("store/blob.rs", "/// See [`crate::media::MediaService`].\n//! pingora::proxy"),
        ("store/blob.rs", "let x = 1; // crate::media does this"),
        ("store/metadata/media.rs", "use super::super::record::MediaRecord;\nuse rusqlite::Row;"),
        (
            "route.rs",
            "#[cfg(test)]\nmod tests {\n    use super::*;\n    use super::query::Query;\n}",
        ),
        ("auth/mod.rs", "use crate::homeserver::{Homeserver, HomeserverError};"),
        ("media/mod.rs", "#[cfg(test)]\nmod tests {\n    let store = Store::open(path);\n}"),
        ("media/mod.rs", "use crate::{\n    store::{Store, error},\n    types::Mxc,\n};"),
        ("proxy/body.rs", "use pingora::proxy::Session;"),
        ("handlers/mod.rs", "fn answer(_: &Requester) {}\nmicrate::server::x();"),
    ] {
        let found = violations(&Source::new(file, text, false));
        assert_eq!(found, [], "{file}: {text:?}");
    }
}
