//! Settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use crate::types::MovingEncoding;

/// What the legacy download routes serve, which ask for no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyMode {
    /// Only what arrived before the freeze (CS-FRZ-01).
    Frozen,
    /// Everything.
    Open,
    /// Nothing.
    Off,
}

/// Which sizes thumbnails are made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizesMode {
    /// Those of the ladder: whatever is asked becomes one of them.
    Ladder,
    /// Those that are asked for.
    Exact,
}

/// What happens where the kernel lacks something that locks thumbnail workers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxMode {
    /// Mediary does not start.
    Require,
    /// It says so and goes on with what there is.
    Prefer,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The least important kind of event that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Someone should look.
    Error,
    /// Something went wrong and was dealt with.
    Warn,
    /// Start, stop, and requests.
    Info,
    /// The steps of each request.
    Debug,
    /// Everything.
    Trace,
}

const LEGACY_MODES: &[(&str, LegacyMode)] =
    &[("frozen", LegacyMode::Frozen), ("open", LegacyMode::Open), ("off", LegacyMode::Off)];

const SIZES_MODES: &[(&str, SizesMode)] =
    &[("ladder", SizesMode::Ladder), ("exact", SizesMode::Exact)];

const SANDBOX_MODES: &[(&str, SandboxMode)] =
    &[("require", SandboxMode::Require), ("prefer", SandboxMode::Prefer)];

const MOVING_ENCODINGS: &[(&str, MovingEncoding)] =
    &[("webp", MovingEncoding::WebP), ("gif", MovingEncoding::Gif)];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

impl LogLevel {
    /// Returns the word, as log filters write it too.
    pub fn as_str(self) -> &'static str {
        word_for(LOG_LEVELS, self)
    }
}

/// A word that is not among the few.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of {}{}", quoted(known), suggestion(nearest(word, known)))]
pub struct UnknownWord {
    word: String,
    known: Vec<&'static str>,
}

impl FromStr for LegacyMode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        choose(text, LEGACY_MODES)
    }
}

impl FromStr for SizesMode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        choose(text, SIZES_MODES)
    }
}

impl FromStr for SandboxMode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        choose(text, SANDBOX_MODES)
    }
}

impl FromStr for MovingEncoding {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        choose(text, MOVING_ENCODINGS)
    }
}

impl FromStr for LogFormat {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        choose(text, LOG_FORMATS)
    }
}

impl FromStr for LogLevel {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        choose(text, LOG_LEVELS)
    }
}

impl fmt::Display for LegacyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word_for(LEGACY_MODES, *self))
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word_for(LOG_FORMATS, *self))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn choose<T: Copy>(text: &str, table: &[(&'static str, T)]) -> Result<T, UnknownWord> {
    table.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
        UnknownWord { word: text.to_owned(), known: table.iter().map(|(word, _)| *word).collect() }
    })
}

fn word_for<T: Copy + PartialEq>(table: &[(&'static str, T)], choice: T) -> &'static str {
    let (word, _) =
        table.iter().find(|(_, known)| *known == choice).expect("every choice has its word");
    word
}

/// Returns the known word that was probably meant, if any is close.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .iter()
        .filter_map(|candidate| Some((similarity(&word, candidate)?, *candidate)))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// Returns how alike two words are, if they are at all.
///
/// Letters in a row find what was lengthened or shortened (`max_upload_size` for `max_size`), edits
/// find a slip in a short word (`ulr` for `url`). The bounds were found by trying both.
fn similarity(word: &str, candidate: &str) -> Option<f64> {
    let in_a_row = strsim::sorensen_dice(word, candidate);
    let by_edits = strsim::normalized_damerau_levenshtein(word, candidate);
    (in_a_row >= 0.45 || by_edits >= 0.6).then_some(in_a_row + by_edits)
}

/// The end of a message about a word that is not known.
pub(super) fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default()
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives_printing() {
        for (word, mode) in LEGACY_MODES {
            assert_eq!(word.parse::<LegacyMode>().unwrap(), *mode);
            assert_eq!(mode.to_string(), *word);
        }
        for (word, format) in LOG_FORMATS {
            assert_eq!(word.parse::<LogFormat>().unwrap(), *format);
            assert_eq!(format.to_string(), *word);
        }
        for (word, level) in LOG_LEVELS {
            assert_eq!(word.parse::<LogLevel>().unwrap(), *level);
            assert_eq!(level.to_string(), *word);
        }
    }

    #[test]
    fn an_unknown_word_names_the_known_ones_and_the_nearest() {
        assert_eq!(
            "warning".parse::<LogLevel>().unwrap_err().to_string(),
            "\"warning\" is not one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"; \
             did you mean `warn`?"
        );
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "\"xml\" is not one of \"text\", \"json\""
        );
    }

    #[test]
    fn only_a_close_word_is_suggested() {
        let known = ["listen", "admin_listen", "trusted_proxies", "threads", "shutdown_timeout"];
        for (slip, meant) in [
            ("lisen", Some("listen")),
            ("Listen", Some("listen")),
            ("listen_addr", Some("listen")),
            ("adminlisten", Some("admin_listen")),
            ("trusted_proxy", Some("trusted_proxies")),
            ("thread", Some("threads")),
            ("shutdown", Some("shutdown_timeout")),
            ("port", None),
            ("workers", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, &known), meant, "{slip}");
        }
        assert_eq!(nearest("max_upload_size", &["max_size"]), Some("max_size"));
        assert_eq!(nearest("ulr", &["url", "timeout"]), Some("url"));
        assert_eq!(nearest("path", &["auth", "remote"]), None);
    }
}
