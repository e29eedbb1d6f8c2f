//! What an operator may decide: a TOML file, the environment and flags, made into one [`Config`].
//!
//! The defaults are the `Default` of each section, and `conf/mediary.toml` shows them all with a
//! word on each; tests keep the two equal. A [`Config`] that [`load`](Config::load) returns has
//! passed every rule that can be checked without touching a disk, a name server or a port.

mod address;
mod document;
mod error;
mod homeserver_url;
mod network;
mod overrides;
mod page_url;
mod pattern;
mod sections;
mod thumbnail_size;
mod thumbnails;
mod token_file;
mod validate;
mod value;
mod words;

pub use address::{AdminListen, InvalidListenAddress, ListenAddress};
pub use error::{ConfigError, Warning};
pub use homeserver_url::{HomeserverUrl, InvalidHomeserverUrl, Scheme};
pub use network::{InvalidNetwork, Network, TrustedProxies};
pub use overrides::{ENVIRONMENT, Overrides};
pub use page_url::{InvalidPageUrl, PageUrl};
pub use pattern::{
    InvalidServerPattern, InvalidTypePattern, InvalidUserPattern, ServerPattern, TypePattern,
    UserPattern,
};
pub use sections::{
    AuthConfig, ConnectionsConfig, FederationConfig, HomeserverConfig, LegacyConfig, LimitsConfig,
    LogConfig, RemoteConfig, RuleConfig, ServerConfig, StorageConfig, UploadsConfig,
};
pub use thumbnail_size::{InvalidThumbnailSize, parse_thumbnail_size};
pub use thumbnails::ThumbnailsConfig;
pub use token_file::TokenFileError;
pub use words::{LegacyMode, LogFormat, LogLevel, SandboxMode, SizesMode, UnknownWord};

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// Everything an operator may decide.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "tables such as [server]")]
pub struct Config {
    /// Where requests come in.
    pub server: ServerConfig,
    /// What one client's connection may take.
    pub connections: ConnectionsConfig,
    /// The homeserver behind us.
    pub homeserver: HomeserverConfig,
    /// Where media is kept.
    pub storage: StorageConfig,
    /// How access tokens are checked.
    pub auth: AuthConfig,
    /// What users may upload.
    pub uploads: UploadsConfig,
    /// How much each user and each address may ask.
    pub limits: LimitsConfig,
    /// What holds for some users in the place of the general settings.
    pub rules: Vec<RuleConfig>,
    /// Media of other servers.
    pub remote: RemoteConfig,
    /// Other servers: whom we ask, and who asks us.
    pub federation: FederationConfig,
    /// The download routes that ask for no token.
    pub legacy: LegacyConfig,
    /// Which thumbnails are made.
    pub thumbnails: ThumbnailsConfig,
    /// What is logged.
    pub log: LogConfig,
}

impl Config {
    /// Reads the file, if one is named, and lets the environment and then `overrides` have the
    /// last word. Without a file the defaults are the beginning.
    ///
    /// The result is [valid](Self::validate); call that once more for its warnings.
    ///
    /// # Errors
    ///
    /// Says which file, variable or rule is to blame, and where.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        Self::load_with(path, |name| std::env::var_os(name), overrides)
    }

    /// As [`load`](Self::load), with the environment as a function.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(
        path: Option<&Path>,
        environment: impl Fn(&str) -> Option<OsString>,
        overrides: Overrides,
    ) -> Result<Self, ConfigError> {
        let mut config = match path {
            Some(file) => Self::read(file)?,
            None => Self::default(),
        };
        Overrides::from_environment(environment)?.apply_to(&mut config);
        overrides.apply_to(&mut config);
        config.validate()?;
        Ok(config)
    }

    fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.into(), source })?;
        document::parse(&text, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/mediary.toml"));

    fn empty_environment(_: &str) -> Option<OsString> {
        None
    }

    fn file_with(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn the_example_file_holds_the_defaults() {
        let example = document::parse(EXAMPLE, Path::new("conf/mediary.toml")).unwrap();
        assert_eq!(example, Config::default());
    }

    #[test]
    fn the_example_file_names_every_key_once() {
        /// Keys without a default; they stand there as comments, ready to be used.
        const OPTIONAL: [&str; 7] = [
            "server_name",
            "admin_token_file",
            "frozen_since",
            "front_max_size",
            "quota_info_url",
            "signing_key",
            "ca_file",
        ];
        let sections = document::known_keys("");
        let example = EXAMPLE.replace("\n# [[rules]]", "\n[[rules]]");
        let parts: Vec<&str> = example.split("\n[").collect();
        assert_eq!(parts.len(), sections.len() + 1, "each section has its one header");
        for (section, part) in sections.iter().zip(&parts[1..]) {
            let is_list = section == "rules";
            let header = if is_list { format!("[{section}]]") } else { format!("{section}]") };
            assert!(part.starts_with(&header), "[{section}] stands in its order");
            for key in document::known_keys(section) {
                let is_comment = is_list || OPTIONAL.contains(&key.as_str());
                let mark = if is_comment { "# " } else { "" };
                let assignment = format!("{mark}{key} = ");
                let count = part.lines().filter(|line| line.starts_with(&assignment)).count();
                assert_eq!(count, 1, "{section}.{key}");
            }
        }
    }

    #[test]
    fn the_optional_keys_of_the_example_file_work_when_uncommented() {
        let text = EXAMPLE
            .replace("# server_name = ", "server_name = ")
            .replace("# admin_token_file = ", "admin_token_file = ")
            .replace("# frozen_since = ", "frozen_since = ")
            .replace("# front_max_size = ", "front_max_size = ")
            .replace("# quota_info_url = ", "quota_info_url = ")
            .replace("# signing_key = ", "signing_key = ")
            .replace("# ca_file = ", "ca_file = ");
        let (before, rule) = text.split_once("# [[rules]]\n").unwrap();
        let (rule, after) = rule.split_once("\n\n").unwrap();
        let rule = rule.replace("# ", "");
        let text = format!("{before}[[rules]]\n{rule}\n\n{after}");
        let config = document::parse(&text, Path::new("conf/mediary.toml")).unwrap();
        assert!(config.homeserver.server_name.is_some());
        assert!(config.auth.admin_token_file.is_some());
        assert!(config.legacy.frozen_since.is_some());
        assert!(config.uploads.front_max_size.is_some());
        assert!(config.uploads.quota_info_url.is_some());
        assert_eq!(config.rules.len(), 1);
        assert_eq!(config.validate().unwrap(), []);
    }

    #[test]
    fn the_systemd_units_agree_with_the_defaults() {
        let socket = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/mediary.socket"));
        let service = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/mediary.service"));
        let value = |unit: &'static str, key| {
            unit.lines().find_map(|line| line.strip_prefix(key)).expect("the unit has the key")
        };
        let ServerConfig { listen, shutdown_timeout, .. } = ServerConfig::default();
        assert_eq!(vec![value(socket, "ListenStream=").parse::<ListenAddress>().unwrap()], listen);
        let stop = humantime::parse_duration(value(service, "TimeoutStopSec=")).unwrap();
        assert!(stop > shutdown_timeout);
        let state = Path::new("/var/lib").join(value(service, "StateDirectory="));
        assert_eq!(state, StorageConfig::default().path);
    }

    #[test]
    fn without_a_file_the_defaults_are_loaded() {
        let config = Config::load_with(None, empty_environment, Overrides::default()).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_environment_beats_the_file_and_flags_beat_both() {
        let file = file_with(
            "[storage]\npath = '/file'\n[log]\nlevel = 'warn'\n[uploads]\nmax_size = '1 MiB'",
        );
        let environment = |name: &str| match name {
            "MEDIARY_STORAGE_PATH" => Some("/environment".into()),
            "MEDIARY_LOG_LEVEL" => Some("debug".into()),
            _ => None,
        };
        let flags = Overrides { storage_path: Some("/flag".into()), ..Overrides::default() };
        let config = Config::load_with(Some(file.path()), environment, flags).unwrap();
        assert_eq!(config.storage.path, Path::new("/flag"));
        assert_eq!(config.log.level, LogLevel::Debug);
        assert_eq!(config.uploads.max_size, bytesize::ByteSize::mib(1));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let missing = Path::new("/nonexistent/mediary.toml");
        let error = Config::load_with(Some(missing), empty_environment, Overrides::default());
        let error = error.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the configuration file /nonexistent/mediary.toml"
        );
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_mistake_names_the_file() {
        let file = file_with("[server]\nlisen = []");
        let error = Config::load_with(Some(file.path()), empty_environment, Overrides::default());
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}:2:1: server.lisen: ", file.path().display())));
    }

    #[test]
    fn a_flag_can_break_a_rule_and_is_refused_too() {
        let flags = Overrides {
            homeserver_url: Some("http://127.0.0.1:8090".parse().unwrap()),
            ..Overrides::default()
        };
        let error = Config::load_with(None, empty_environment, flags).unwrap_err();
        assert!(matches!(error, ConfigError::Rule { key: "homeserver.url", .. }), "{error}");
    }
}
