//! What the environment and the command line say over the file.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use super::address::{AdminListen, ListenAddress};
use super::homeserver_url::HomeserverUrl;
use super::words::{LogFormat, LogLevel};
use super::{Config, ConfigError};
use crate::types::ServerName;

/// Every environment variable that is read, and what it means.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("MEDIARY_CONFIG", "the configuration file, where --config does not name one"),
    ("MEDIARY_HOMESERVER_URL", "homeserver.url"),
    ("MEDIARY_SERVER_NAME", "homeserver.server_name"),
    ("MEDIARY_LISTEN", "server.listen, separated by commas"),
    ("MEDIARY_ADMIN_LISTEN", "server.admin_listen; set but empty turns it off"),
    ("MEDIARY_STORAGE_PATH", "storage.path"),
    ("MEDIARY_LOG_LEVEL", "log.level"),
    ("MEDIARY_LOG_FORMAT", "log.format"),
];

/// Settings that are given apart from the file; what is `None` or empty changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// Replaces `homeserver.url`.
    pub homeserver_url: Option<HomeserverUrl>,
    /// Replaces `homeserver.server_name`.
    pub server_name: Option<ServerName>,
    /// Replaces `server.listen` as a whole.
    pub listen: Vec<ListenAddress>,
    /// Replaces `server.admin_listen`.
    pub admin_listen: Option<AdminListen>,
    /// Replaces `storage.path`.
    pub storage_path: Option<PathBuf>,
    /// Replaces `log.level`.
    pub log_level: Option<LogLevel>,
    /// Replaces `log.format`.
    pub log_format: Option<LogFormat>,
}

impl Overrides {
    /// Reads the variables of [`ENVIRONMENT`] that are settings.
    ///
    /// A variable that is set but empty counts as not set, because container files often pass such
    /// on, except where empty means something.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Environment`] for a value that its setting does not take.
    pub fn from_environment(
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let lookup = |name| environment(name).map(|value| Variable { name, value });
        let filled = |name| lookup(name).filter(|variable| !variable.value.is_empty());
        Ok(Self {
            homeserver_url: filled("MEDIARY_HOMESERVER_URL").map(Variable::parse).transpose()?,
            server_name: filled("MEDIARY_SERVER_NAME").map(Variable::parse).transpose()?,
            listen: filled("MEDIARY_LISTEN").map_or(Ok(Vec::new()), Variable::parse_list)?,
            admin_listen: lookup("MEDIARY_ADMIN_LISTEN").map(Variable::parse).transpose()?,
            storage_path: filled("MEDIARY_STORAGE_PATH").map(|path| path.value.into()),
            log_level: filled("MEDIARY_LOG_LEVEL").map(Variable::parse).transpose()?,
            log_format: filled("MEDIARY_LOG_FORMAT").map(Variable::parse).transpose()?,
        })
    }

    /// Puts what is given in the place of what the configuration holds.
    pub(super) fn apply_to(self, config: &mut Config) {
        let Config { server, homeserver, storage, log, .. } = config;
        replace(&mut homeserver.url, self.homeserver_url);
        replace(&mut server.admin_listen, self.admin_listen);
        replace(&mut storage.path, self.storage_path);
        replace(&mut log.level, self.log_level);
        replace(&mut log.format, self.log_format);
        if self.server_name.is_some() {
            homeserver.server_name = self.server_name;
        }
        if !self.listen.is_empty() {
            server.listen = self.listen;
        }
    }
}

fn replace<T>(setting: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *setting = value;
    }
}

struct Variable {
    name: &'static str,
    value: OsString,
}

impl Variable {
    fn parse<T>(self) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.text()?.parse().map_err(|error| self.refuse(error))
    }

    fn parse_list<T>(self) -> Result<Vec<T>, ConfigError>
    where
        T: FromStr,
        T::Err: Display,
    {
        let items = self.text()?.split(',').map(str::trim);
        items.map(|item| item.parse().map_err(|error| self.refuse(error))).collect()
    }

    fn text(&self) -> Result<&str, ConfigError> {
        self.value.to_str().ok_or_else(|| self.refuse("the value is not UTF-8"))
    }

    fn refuse(&self, problem: impl Display) -> ConfigError {
        ConfigError::Environment { name: self.name, problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Overrides, String> {
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        Overrides::from_environment(lookup).map_err(|error| error.to_string())
    }

    #[test]
    fn the_table_holds_exactly_what_is_read() {
        let asked = RefCell::new(BTreeSet::from(["MEDIARY_CONFIG".to_owned()]));
        let nothing = Overrides::from_environment(|name| {
            asked.borrow_mut().insert(name.to_owned());
            None
        });
        assert_eq!(nothing.unwrap(), Overrides::default());
        let listed: BTreeSet<_> = ENVIRONMENT.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(asked.into_inner(), listed);
    }

    #[test]
    fn every_variable_has_its_effect() {
        let mut config = Config::default();
        read(&[
            ("MEDIARY_HOMESERVER_URL", "https://a.example"),
            ("MEDIARY_SERVER_NAME", "b.example"),
            ("MEDIARY_LISTEN", "[::1]:1, unix:/run/m.sock"),
            ("MEDIARY_ADMIN_LISTEN", ""),
            ("MEDIARY_STORAGE_PATH", "/srv/media"),
            ("MEDIARY_LOG_LEVEL", "debug"),
            ("MEDIARY_LOG_FORMAT", "json"),
        ])
        .unwrap()
        .apply_to(&mut config);
        assert_eq!(config.homeserver.url.to_string(), "https://a.example");
        assert_eq!(config.homeserver.server_name.unwrap().as_str(), "b.example");
        let listen: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["[::1]:1", "unix:/run/m.sock"]);
        assert_eq!(config.server.admin_listen, AdminListen::Off);
        assert_eq!(config.storage.path, PathBuf::from("/srv/media"));
        assert_eq!(config.log.level, LogLevel::Debug);
        assert_eq!(config.log.format, LogFormat::Json);
    }

    #[test]
    fn empty_counts_as_not_set_but_for_the_admin_address() {
        let empty: Vec<_> = ENVIRONMENT.iter().map(|(name, _)| (*name, "")).collect();
        let expected = Overrides { admin_listen: Some(AdminListen::Off), ..Overrides::default() };
        assert_eq!(read(&empty), Ok(expected));
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        for (name, value) in [
            ("MEDIARY_HOMESERVER_URL", "127.0.0.1:8008"),
            ("MEDIARY_SERVER_NAME", "a b"),
            ("MEDIARY_LISTEN", "127.0.0.1:1,"),
            ("MEDIARY_ADMIN_LISTEN", "9090"),
            ("MEDIARY_LOG_LEVEL", "loud"),
            ("MEDIARY_LOG_FORMAT", "xml"),
        ] {
            let message = read(&[(name, value)]).unwrap_err();
            assert!(
                message.starts_with(&format!("the environment variable {name}: ")),
                "{message}"
            );
        }
    }

    #[test]
    fn only_a_path_may_be_other_than_utf8() {
        let bytes = OsString::from_vec(b"/srv/\xff".to_vec());
        let all = |name: &str| (name == "MEDIARY_STORAGE_PATH").then(|| bytes.clone());
        assert_eq!(
            Overrides::from_environment(all).unwrap().storage_path,
            Some(PathBuf::from(bytes.clone()))
        );
        let level = |name: &str| (name == "MEDIARY_LOG_LEVEL").then(|| bytes.clone());
        assert!(Overrides::from_environment(level).is_err());
    }
}
