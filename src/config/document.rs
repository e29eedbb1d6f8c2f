//! Reading the file, and saying where in it a mistake is.
//!
//! The TOML library knows the place and the reason; this file adds the key's full name and, for a
//! key that nobody knows, the one that was probably meant.

use std::path::Path;

use toml::de::{DeTable, DeValue, Error};

use super::words::{nearest, suggestion};
use super::{Config, ConfigError};

/// The sections of which there may be many.
const LISTS: [&str; 1] = ["rules"];

fn is_list(section: &str) -> bool {
    LISTS.contains(&section)
}

/// Reads a whole file's text; `file` is its name in messages.
///
/// # Errors
///
/// [`ConfigError::File`] at the first mistake.
pub(super) fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let source = Source { text, file };
    // Recovers from syntax errors, so that even a broken file has keys to name.
    let (document, _) = DeTable::parse_recoverable(text);
    source.refuse_lists_of_sections(document.get_ref())?;
    toml::from_str(text).map_err(|error| source.explain(&error, document.get_ref()))
}

#[derive(Clone, Copy)]
struct Source<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Source<'_> {
    /// Serde would take a list for a struct's fields in their order, and says nothing helpful of a
    /// section that should be a list.
    fn refuse_lists_of_sections(self, document: &DeTable<'_>) -> Result<(), ConfigError> {
        let sections = known_keys("");
        let wrong = document.iter().find(|(key, value)| {
            let (name, value) = (key.get_ref(), value.get_ref());
            if is_list(name) {
                value.is_table()
            } else {
                value.is_array() && sections.iter().any(|known| known == name)
            }
        });
        let Some((key, value)) = wrong else { return Ok(()) };
        let name = key.get_ref();
        let problem = if value.get_ref().is_table() {
            format!("there may be many of this name, each written [[{name}]]")
        } else {
            format!("there is one section of this name, written [{name}]")
        };
        Err(self.refuse(value.span().start, Some(name.to_string()), problem))
    }

    fn explain(self, error: &Error, document: &DeTable<'_>) -> ConfigError {
        // Every error of a parsed text has a span; the file's start is the honest place without.
        let span = error.span().unwrap_or_default();
        let key = path_at(document, span.start).map(|path| path.join("."));
        let problem = match UnknownKey::from_message(error.message()) {
            Some(unknown) => unknown.problem(),
            None if error.message() == "duplicate key" => {
                format!("`{}` is there twice", self.text.get(span.clone()).unwrap_or_default())
            }
            None => in_plain_words(error.message()),
        };
        self.refuse(span.start, key, problem)
    }

    fn refuse(self, offset: usize, key: Option<String>, problem: String) -> ConfigError {
        let (line, column) = position(self.text, offset);
        ConfigError::File { file: self.file.into(), line, column, key, problem }
    }
}

/// Returns the line and the character at a byte of the text, both counted from one.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Returns the names from the root to the innermost key that stands, or whose value stands, at a
/// byte of the text.
fn path_at<'a>(table: &'a DeTable<'_>, offset: usize) -> Option<Vec<&'a str>> {
    for (key, value) in table {
        let here = vec![key.get_ref().as_ref()];
        if key.span().contains(&offset) {
            return Some(here);
        }
        let inner = match value.get_ref() {
            DeValue::Table(inner) => path_at(inner, offset),
            DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(inner) => path_at(inner, offset),
                _ => None,
            }),
            _ => None,
        };
        if let Some(path) = inner {
            return Some([here, path].concat());
        }
        if value.span().contains(&offset) {
            return Some(here);
        }
    }
    None
}

/// A key that no section has, as the TOML library reports it.
struct UnknownKey<'a> {
    name: &'a str,
    known: Vec<&'a str>,
}

impl<'a> UnknownKey<'a> {
    /// Takes apart serde's sentence: "unknown field `x`, expected one of `a`, `b`". The unknown
    /// name may hold anything; the known ones are ours and hold no backtick.
    fn from_message(message: &'a str) -> Option<Self> {
        let rest = message.strip_prefix("unknown field `")?;
        let (name, known) = rest.rsplit_once("`, expected ")?;
        let known = known.split('`').skip(1).step_by(2).collect();
        Some(Self { name, known })
    }

    fn problem(&self) -> String {
        let elsewhere = sections_with(self.name);
        let advice = match nearest(self.name, &self.known) {
            _ if !elsewhere.is_empty() => format!("; there is one in {}", elsewhere.join(" and ")),
            Some(key) => suggestion(Some(key)),
            None => format!("; the known ones are {}", self.known.join(", ")),
        };
        format!("unknown key{advice}")
    }
}

/// Returns the sections, in brackets, that have a key of this name.
fn sections_with(key: &str) -> Vec<String> {
    let mut sections = known_keys("");
    sections.retain(|section| known_keys(section).iter().any(|known| known == key));
    let header = |section: &String| {
        if is_list(section) { format!("[[{section}]]") } else { format!("[{section}]") }
    };
    sections.iter().map(header).collect()
}

/// Returns the keys of a section, or the sections themselves for the empty name.
///
/// The structs are the only list of keys there is, and serde tells it to whoever gets one wrong.
pub(super) fn known_keys(section: &str) -> Vec<String> {
    const NO_KEY: &str = "'' = 0";
    let text = match section {
        "" => NO_KEY.to_owned(),
        list if is_list(list) => format!("[[{list}]]\n{NO_KEY}"),
        section => format!("[{section}]\n{NO_KEY}"),
    };
    let Err(error) = toml::from_str::<Config>(&text) else {
        return Vec::new();
    };
    UnknownKey::from_message(error.message())
        .map(|unknown| unknown.known.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

/// Says what serde expected as an operator would say it.
fn in_plain_words(message: &str) -> String {
    message
        .replace("expected a sequence", "expected a list in brackets, as in [\"…\", \"…\"]")
        .replace("invalid type: sequence", "invalid type: list")
        .replace("invalid type: map", "invalid type: table")
        .replace("expected path string", "expected a string")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The message without the file's name.
    fn refusal(text: &str) -> String {
        let error = parse(text, Path::new("m.toml")).expect_err("the text has a mistake");
        let message = error.to_string();
        message.strip_prefix("m.toml:").expect("the message begins with the place").to_owned()
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest() {
        assert_eq!(
            refusal("# ours\n[server]\nthreads = 2\n  lisen = []\n"),
            "4:3: server.lisen: unknown key; did you mean `listen`?"
        );
        assert_eq!(
            refusal("[uploads]\nmax_upload_size = '1 GiB'"),
            "2:1: uploads.max_upload_size: unknown key; did you mean `max_size`?"
        );
    }

    #[test]
    fn an_unknown_section_names_the_nearest() {
        assert_eq!(
            refusal("[log]\n[home_server]\nurl = 'http://a'"),
            "2:2: home_server: unknown key; did you mean `homeserver`?"
        );
        assert_eq!(refusal("servr.threads = 1"), "1:1: servr: unknown key; did you mean `server`?");
    }

    #[test]
    fn a_key_of_another_section_names_that() {
        assert_eq!(
            refusal("admin_listen = ''"),
            "1:1: admin_listen: unknown key; there is one in [server]"
        );
        assert_eq!(
            refusal("[storage]\nmax_size = 1"),
            "2:1: storage.max_size: unknown key; there is one in [uploads] and [[rules]] and [remote]"
        );
        assert_eq!(
            refusal("[uploads]\nserver_name = 'a'"),
            "2:1: uploads.server_name: unknown key; there is one in [homeserver]"
        );
    }

    #[test]
    fn an_unknown_key_like_no_other_gets_the_list() {
        assert_eq!(
            refusal("[log]\nzzz = 1"),
            "2:1: log.zzz: unknown key; the known ones are format, level, requests"
        );
        assert_eq!(
            refusal("[remote]\n\"a`, expected `b\" = 1"),
            "2:1: remote.a`, expected `b: unknown key; the known ones are max_size, max_fetches, max_unfinished, \
             max_duration, min_rate, slow_timeout"
        );
    }

    #[test]
    fn inline_and_dotted_tables_are_located_too() {
        assert_eq!(
            refusal("log = { format = 'text', levle = 'info' }"),
            "1:26: log.levle: unknown key; did you mean `level`?"
        );
        assert_eq!(
            refusal("server.listen.port = 8090"),
            "1:8: server.listen: invalid type: table, expected a list in brackets, as in \
             [\"…\", \"…\"]"
        );
        assert_eq!(
            refusal("[server.listen]\nport = 8090"),
            "1:1: server.listen: invalid type: table, expected a list in brackets, as in \
             [\"…\", \"…\"]"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_key_and_what_was_expected() {
        for (text, message) in [
            ("server = 5", "1:10: server: invalid type: integer `5`, expected a table"),
            ("[server]\nthreads = -1", "2:11: server.threads: -1 is not a whole number from 0 up"),
            (
                "[server]\nlisten = '127.0.0.1:1'",
                "2:10: server.listen: invalid type: string \"127.0.0.1:1\", expected a list in \
                 brackets, as in [\"…\", \"…\"]",
            ),
            (
                "[server]\nlisten = ['127.0.0.1:1', 5]",
                "2:26: server.listen: invalid type: integer `5`, expected a string",
            ),
            (
                "[server]\ntrusted_proxies = [\n  '::1',\n  'proxy',\n]",
                "4:3: server.trusted_proxies: not an address or network; write it as in \
                 \"192.0.2.7\", \"10.0.0.0/8\" or \"fd00::/8\"",
            ),
            (
                "[server]\nshutdown_timeout = 30",
                "2:20: server.shutdown_timeout: 30 is not a duration; write a number and a unit, \
                 as in \"30s\" or \"5m\"",
            ),
            (
                "[homeserver]\nserver_name = 'a b'",
                "2:15: homeserver.server_name: the server name is not valid",
            ),
            (
                "[storage]\npath = 5",
                "2:8: storage.path: invalid type: integer `5`, expected a string",
            ),
            (
                "[uploads]\nmax_size = '50 potatoes'",
                "2:12: uploads.max_size: \"50 potatoes\" is not a size; write a number and a unit, \
                 as in \"50 MiB\"",
            ),
            (
                "[uploads]\nmax_size = -1",
                "2:12: uploads.max_size: -1 is not a size; write a number and a unit, as in \
                 \"50 MiB\"",
            ),
            (
                "[legacy]\nmode = 'frosen'",
                "2:8: legacy.mode: \"frosen\" is not one of \"frozen\", \"open\", \"off\"; did you \
                 mean `frozen`?",
            ),
            (
                "[legacy]\nfrozen_since = 2026-01-01",
                "2:16: legacy.frozen_since: 2026-01-01 is not a moment after 1970 with its time \
                 zone, as in 2026-01-01T00:00:00Z",
            ),
            (
                "[legacy]\nreadable = ['mxc://a.example/b', 'mxc://a.example']",
                "2:34: legacy.readable: not an mxc URI, as in mxc://example.org/abc",
            ),
            (
                "[log]\nrequests = 'yes'",
                "2:12: log.requests: invalid type: string \"yes\", expected a boolean",
            ),
        ] {
            assert_eq!(refusal(text), message, "{text}");
        }
    }

    #[test]
    fn a_section_or_key_that_is_there_twice_is_refused() {
        assert_eq!(refusal("[log]\n[server]\n[log]\n"), "3:2: log: `log` is there twice");
        assert_eq!(
            refusal("[log]\nlevel = 'info'\nlevel = 'warn'\n"),
            "3:1: `level` is there twice"
        );
        assert_eq!(refusal("log = {}\n[log]"), "2:2: log: `log` is there twice");
    }

    #[test]
    fn a_list_of_sections_is_refused() {
        let message = "1:1: server: there is one section of this name, written [server]";
        assert_eq!(refusal("[[server]]\nthreads = 1"), message);
        assert!(refusal("auth = ['60s', 5]").starts_with("1:8: auth: "));
    }

    #[test]
    fn a_rule_is_one_of_a_list() {
        let message = "1:1: rules: there may be many of this name, each written [[rules]]";
        assert_eq!(refusal("[rules]\nusers = ['*']"), message);
        assert_eq!(
            refusal("[[rules]]\nusers = ['*']\n[[rules]]\nuser = ['*']"),
            "4:1: rules.user: unknown key; did you mean `users`?"
        );
        assert_eq!(
            refusal("[[rules]]\nusers = ['@a:b', 'bot-*']"),
            "2:18: rules.users: matches no user id; write one, or a pattern with * for any text \
             and ? for one character, as in \"@bot-*:example.org\""
        );
        assert_eq!(
            refusal("[[rules]]\nmax_size = 'big'"),
            "2:12: rules.max_size: \"big\" is not a size; write a number and a unit, as in \
             \"50 MiB\""
        );
    }

    #[test]
    fn what_is_no_toml_names_its_place() {
        for (text, place) in [
            ("[server\n", "1:8: "),
            ("[server]\nthreads =\n", "2:10: "),
            ("[server]\nthreads = 1 2\n", "2:11: server.threads: "),
            ("[server]\nlisten = [\"a\n", "2:13: "),
            ("[homeserver]\nurl = http://127.0.0.1", "2:7: homeserver.url: "),
            ("[server]\nthreads: 5", "2:10: "),
            ("[log]\nrequests = True", "2:12: log.requests: "),
            ("=", "1:1: "),
        ] {
            let message = refusal(text);
            assert!(message.starts_with(place), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_column_counts_characters() {
        assert_eq!(position("é = 'ü' # x", 10), (1, 9));
        assert_eq!(position("a\nb", 2), (2, 1));
        assert_eq!(position("a\n", 2), (2, 1));
        assert_eq!(position("", 5), (1, 1));
    }

    #[test]
    fn a_password_in_a_url_is_not_repeated() {
        let message = refusal("[homeserver]\nurl = 'http://user:hunter2@127.0.0.1'");
        assert!(message.starts_with("2:7: homeserver.url: "), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn every_section_tells_its_keys() {
        let sections = known_keys("");
        assert_eq!(sections.first().map(String::as_str), Some("server"));
        for section in &sections {
            assert!(!known_keys(section).is_empty(), "{section}");
        }
        assert!(known_keys("no such section").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_at_a_place_inside_it(text in "(\\PC|[\n=\\[\\]\"'.,#{}]|server|listen|log){0,30}") {
            if let Err(error) = parse(&text, Path::new("m.toml")) {
                let ConfigError::File { line, .. } = error else {
                    return Err(TestCaseError::fail(error.to_string()));
                };
                prop_assert!((1..=text.matches('\n').count() + 1).contains(&line));
            }
        }
    }
}
