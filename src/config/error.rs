//! Why a configuration is refused, and what is merely doubtful about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A configuration that Mediary will not start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML, or a key or value in it is not one of ours.
    #[error("{}:{line}:{column}: {}{problem}", file.display(), prefix(key.as_deref()))]
    File {
        /// The file.
        file: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// The character in the line, counted from one.
        column: usize,
        /// The key as `section.key`, where there is one.
        key: Option<String>,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// An environment variable holds something else than its setting takes.
    #[error("the environment variable {name}: {problem}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A value breaks a rule, by itself or beside another.
    #[error("{key}: {problem}")]
    Rule {
        /// The key as `section.key`.
        key: &'static str,
        /// Which rule, and what to do about it.
        problem: String,
    },
}

fn prefix(key: Option<&str>) -> String {
    key.map(|key| format!("{key}: ")).unwrap_or_default()
}

/// Something in a valid configuration that an operator should look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The key as `section.key`.
    pub key: &'static str,
    /// What is doubtful, and why.
    pub problem: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}
