//! The rules that a configuration keeps, whichever way its values came.

mod federation;
mod thumbnails;

use std::time::Duration;

use bytesize::ByteSize;

use super::pattern::UserPattern;
use super::sections::RuleConfig;
use super::words::LegacyMode;
use super::{Config, ConfigError, Warning};

/// The longest of our timeouts. Nobody waits longer, and clocks cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that a media id without content is kept. Nobody takes longer to upload a file, and
/// each is a row in the database.
const MAX_UNUSED_EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The largest size: records keep sizes as signed 64-bit numbers.
const MAX_SIZE: u64 = i64::MAX as u64;

/// More threads than any machine has cores; beyond is a slip of the keyboard.
const MAX_THREADS: usize = 1024;

/// More rules, or users in one, than anybody writes by hand. Every request goes through them.
const MAX_RULES: usize = 256;

/// More media by name than any login page shows; a longer list is meant to be `mode = "open"`.
const MAX_READABLE: usize = 1_000;

/// Less than this does not hold the program and one photograph.
const MIN_WORKER_MEMORY: u64 = 64 * 1024 * 1024;

/// More places than anybody can wait for.
const MAX_QUEUE: usize = 100_000;

/// More fetches at once than any machine has memory for.
const MAX_FETCHES: usize = 10_000;

impl Config {
    /// Holds the values against each other and against their bounds. Nothing outside the
    /// configuration is asked.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Rule`] for the first rule that is broken.
    pub fn validate(&self) -> Result<Vec<Warning>, ConfigError> {
        self.check_listeners()?;
        self.check_loop()?;
        self.check_durations()?;
        self.check_sizes()?;
        self.check_counts()?;
        self.check_thumbnails()?;
        self.check_limits()?;
        self.check_federation()?;
        self.check_rules()?;
        if self.storage.path.as_os_str().is_empty() {
            return Err(broken("storage.path", "must not be empty"));
        }
        if self.auth.admin_token_file.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(broken("auth.admin_token_file", "must not be empty"));
        }
        if self.legacy.readable.len() > MAX_READABLE {
            return Err(broken("legacy.readable", format!("must name at most {MAX_READABLE}")));
        }
        Ok(self.warnings())
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        let listen = &self.server.listen;
        if listen.is_empty() {
            return Err(broken("server.listen", "must name at least one address"));
        }
        for (index, address) in listen.iter().enumerate() {
            if let Some(earlier) = listen[..index].iter().find(|earlier| earlier.overlaps(address))
            {
                return Err(broken(
                    "server.listen",
                    format!("{earlier} and {address} cannot both be bound"),
                ));
            }
        }
        let admin = self.server.admin_listen.address();
        let taken = admin.and_then(|admin| listen.iter().find(|address| address.overlaps(admin)));
        match taken {
            Some(address) => Err(broken(
                "server.admin_listen",
                format!("must not be where server.listen is already ({address})"),
            )),
            None => Ok(()),
        }
    }

    fn check_loop(&self) -> Result<(), ConfigError> {
        let url = &self.homeserver.url;
        let mut ours = self.server.listen.iter().chain(self.server.admin_listen.address());
        match ours.find(|address| url.leads_to(address)) {
            Some(address) => Err(broken(
                "homeserver.url",
                format!(
                    "{url} leads back to Mediary, which listens on {address}; it must be the \
                     homeserver's own address"
                ),
            )),
            None => Ok(()),
        }
    }

    fn check_durations(&self) -> Result<(), ConfigError> {
        for (key, timeout) in [
            ("server.shutdown_timeout", self.server.shutdown_timeout),
            ("connections.header_timeout", self.connections.header_timeout),
            ("connections.slow_timeout", self.connections.slow_timeout),
            ("homeserver.connect_timeout", self.homeserver.connect_timeout),
            ("homeserver.timeout", self.homeserver.timeout),
            ("remote.max_duration", self.remote.max_duration),
            ("remote.slow_timeout", self.remote.slow_timeout),
            ("federation.connect_timeout", self.federation.connect_timeout),
            ("federation.timeout", self.federation.timeout),
            ("thumbnails.timeout", self.thumbnails.timeout),
        ] {
            check_not_zero(key, timeout)?;
            check_at_most(key, timeout, MAX_DURATION)?;
        }
        check_not_zero("uploads.unused_expiry", self.uploads.unused_expiry)?;
        check_at_most("uploads.unused_expiry", self.uploads.unused_expiry, MAX_UNUSED_EXPIRY)?;
        check_at_most("auth.token_cache", self.auth.token_cache, MAX_DURATION)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        for (key, ByteSize(bytes)) in [
            ("storage.memory", self.storage.memory),
            ("storage.cache_size", self.storage.cache_size),
            ("uploads.max_size", self.uploads.max_size),
            ("remote.max_size", self.remote.max_size),
            ("remote.max_unfinished", self.remote.max_unfinished),
        ] {
            check_size(key, ByteSize(bytes))?;
        }
        let ByteSize(worker_memory) = self.thumbnails.worker_memory;
        if worker_memory < MIN_WORKER_MEMORY {
            let least = ByteSize(MIN_WORKER_MEMORY);
            return Err(broken("thumbnails.worker_memory", format!("must be at least {least}")));
        }
        check_not_too_large("thumbnails.worker_memory", worker_memory)?;
        check_not_too_large("connections.min_rate", self.connections.min_rate.as_u64())?;
        if let Some(front) = self.uploads.front_max_size {
            check_size("uploads.front_max_size", front)?;
        }
        check_not_too_large("uploads.quota_bytes", self.uploads.quota_bytes.as_u64())?;
        check_not_too_large("storage.min_free", self.storage.min_free.as_u64())
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        for (key, bytes) in [
            ("limits.user_bytes_per_second", limits.user_bytes_per_second),
            ("limits.user_bytes_burst", limits.user_bytes_burst),
            ("limits.address_bytes_per_second", limits.address_bytes_per_second),
            ("limits.address_bytes_burst", limits.address_bytes_burst),
        ] {
            check_not_too_large(key, bytes.as_u64())?;
        }
        for (key, rate, burst) in [
            (
                "limits.user_requests_burst",
                limits.user_requests_per_second.into(),
                limits.user_requests_burst.into(),
            ),
            (
                "limits.user_bytes_burst",
                limits.user_bytes_per_second.as_u64(),
                limits.user_bytes_burst.as_u64(),
            ),
            (
                "limits.address_requests_burst",
                limits.address_requests_per_second.into(),
                limits.address_requests_burst.into(),
            ),
            (
                "limits.address_bytes_burst",
                limits.address_bytes_per_second.as_u64(),
                limits.address_bytes_burst.as_u64(),
            ),
        ] {
            if rate > 0 && burst == 0 {
                return Err(broken(key, "must be more than zero where the limit is on"));
            }
        }
        Ok(())
    }

    fn check_rules(&self) -> Result<(), ConfigError> {
        if self.rules.len() > MAX_RULES {
            return Err(broken("rules", format!("must be at most {MAX_RULES}")));
        }
        for rule in &self.rules {
            if rule.users.is_empty() {
                return Err(broken("rules.users", "must name at least one user or pattern"));
            }
            if rule.users.len() > MAX_RULES {
                return Err(broken("rules.users", format!("must be at most {MAX_RULES}")));
            }
            if let Some(size) = rule.max_size {
                check_size("rules.max_size", size)?;
            }
            if let Some(quota) = rule.quota_bytes {
                check_not_too_large("rules.quota_bytes", quota.as_u64())?;
            }
            if rule.max_pending == Some(0) {
                return Err(broken(
                    "rules.max_pending",
                    "must be more than zero; to keep users from uploading, set may_upload = false",
                ));
            }
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        for (key, threads) in [
            ("server.threads", self.server.threads),
            ("thumbnails.concurrency", self.thumbnails.concurrency),
        ] {
            if threads > MAX_THREADS {
                return Err(broken(key, format!("must be at most {MAX_THREADS}")));
            }
        }
        if self.thumbnails.queue > MAX_QUEUE {
            return Err(broken("thumbnails.queue", format!("must be at most {MAX_QUEUE}")));
        }
        if self.remote.max_fetches > MAX_FETCHES {
            return Err(broken("remote.max_fetches", format!("must be at most {MAX_FETCHES}")));
        }
        for (key, count) in [
            ("connections.max_per_address", self.connections.max_per_address as u64),
            ("remote.max_fetches", self.remote.max_fetches as u64),
            ("auth.token_cache_entries", self.auth.token_cache_entries),
            ("uploads.max_pending", self.uploads.max_pending),
            ("uploads.create_per_second", self.uploads.create_per_second.into()),
            ("uploads.create_burst", self.uploads.create_burst.into()),
            ("thumbnails.max_pixels", self.thumbnails.max_pixels),
            ("thumbnails.worker_jobs", self.thumbnails.worker_jobs),
        ] {
            if count == 0 {
                return Err(broken(key, "must be more than zero"));
            }
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::from_iter(self.federation_warning());
        if let Some(admin) = self.server.admin_listen.address().filter(|admin| !admin.is_local()) {
            warnings.push(Warning {
                key: "server.admin_listen",
                problem: format!(
                    "metrics and health are served to everybody who can reach {admin}, without a \
                     password; keep strangers out with a firewall"
                ),
            });
        }
        let mut trusted = self.server.trusted_proxies.networks().iter();
        if let Some(network) = trusted.find(|network| network.is_everything()) {
            warnings.push(Warning {
                key: "server.trusted_proxies",
                problem: format!("with {network} in it every client can pretend to be another"),
            });
        }
        if self.storage.cache_size < self.remote.max_size {
            warnings.push(Warning {
                key: "storage.cache_size",
                problem: format!(
                    "is smaller than remote.max_size ({}), and a file that is larger than the whole \
                     cache does not stay",
                    self.remote.max_size
                ),
            });
        }
        let everybody = |rule: &RuleConfig| rule.users.iter().any(UserPattern::is_everybody);
        let last = self.rules.iter().position(everybody).map(|index| index + 1);
        if let Some(last) = last.filter(|last| *last < self.rules.len()) {
            warnings.push(Warning {
                key: "rules",
                problem: format!(
                    "those behind number {last} mean nothing: it names everybody, and the first rule \
                     that names a user counts"
                ),
            });
        }
        if self.uploads.quota_can_upgrade && self.uploads.quota_info_url.is_none() {
            warnings.push(Warning {
                key: "uploads.quota_can_upgrade",
                problem: "is told to nobody without uploads.quota_info_url".to_owned(),
            });
        }
        if self.legacy.frozen_since.is_some() && self.legacy.mode != LegacyMode::Frozen {
            warnings.push(Warning {
                key: "legacy.frozen_since",
                problem: format!("means nothing while legacy.mode is \"{}\"", self.legacy.mode),
            });
        }
        if !self.legacy.readable.is_empty() && self.legacy.mode == LegacyMode::Open {
            warnings.push(Warning {
                key: "legacy.readable",
                problem: "means nothing while legacy.mode is \"open\"".to_owned(),
            });
        }
        warnings
    }
}

fn check_not_zero(key: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() {
        return Err(broken(key, "must be longer than zero"));
    }
    Ok(())
}

fn check_at_most(
    key: &'static str,
    duration: Duration,
    longest: Duration,
) -> Result<(), ConfigError> {
    if duration > longest {
        let longest = humantime::format_duration(longest);
        return Err(broken(key, format!("must be at most {longest}")));
    }
    Ok(())
}

fn check_size(key: &'static str, ByteSize(bytes): ByteSize) -> Result<(), ConfigError> {
    if bytes == 0 {
        return Err(broken(key, "must be more than zero"));
    }
    check_not_too_large(key, bytes)
}

fn check_not_too_large(key: &'static str, bytes: u64) -> Result<(), ConfigError> {
    if bytes > MAX_SIZE {
        return Err(broken(key, format!("must be at most {MAX_SIZE} bytes")));
    }
    Ok(())
}

fn broken(key: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Rule { key, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::super::AdminListen;
    use super::*;

    /// The defaults with the given text over them.
    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_defaults_keep_every_rule_without_a_warning() {
        assert_eq!(Config::default().validate().unwrap(), []);
    }

    #[test]
    fn a_broken_rule_names_its_key() {
        for (text, key) in [
            ("server.listen = []", "server.listen"),
            ("remote.max_fetches = 0", "remote.max_fetches"),
            ("remote.max_fetches = 9000000000000000000", "remote.max_fetches"),
            ("remote.max_unfinished = '0 B'", "remote.max_unfinished"),
            ("remote.max_size = '15 EiB'", "remote.max_size"),
            ("server.listen = ['127.0.0.1:1', '0.0.0.0:1']", "server.listen"),
            ("server.admin_listen = '127.0.0.1:8090'", "server.admin_listen"),
            ("server.admin_listen = '0.0.0.0:8090'", "server.admin_listen"),
            ("homeserver.url = 'http://127.0.0.1:8090'", "homeserver.url"),
            ("homeserver.url = 'http://localhost:9090'", "homeserver.url"),
            ("server.shutdown_timeout = '0s'", "server.shutdown_timeout"),
            ("homeserver.connect_timeout = '0s'", "homeserver.connect_timeout"),
            ("homeserver.timeout = '0s'", "homeserver.timeout"),
            ("homeserver.timeout = '2days'", "homeserver.timeout"),
            ("auth.token_cache = '10000years'", "auth.token_cache"),
            ("auth.token_cache_entries = 0", "auth.token_cache_entries"),
            ("auth.admin_token_file = ''", "auth.admin_token_file"),
            ("storage.path = ''", "storage.path"),
            ("storage.memory = 0", "storage.memory"),
            ("storage.cache_size = '0 B'", "storage.cache_size"),
            ("storage.cache_size = '99 EiB'", "storage.cache_size"),
            ("storage.min_free = '99 EiB'", "storage.min_free"),
            ("uploads.max_size = '0 B'", "uploads.max_size"),
            ("uploads.max_size = '99 EiB'", "uploads.max_size"),
            ("uploads.max_pending = 0", "uploads.max_pending"),
            ("uploads.unused_expiry = '0s'", "uploads.unused_expiry"),
            ("uploads.unused_expiry = '8days'", "uploads.unused_expiry"),
            ("uploads.create_per_second = 0", "uploads.create_per_second"),
            ("uploads.create_burst = 0", "uploads.create_burst"),
            ("uploads.front_max_size = 0", "uploads.front_max_size"),
            ("uploads.quota_bytes = '99 EiB'", "uploads.quota_bytes"),
            ("limits.user_requests_burst = 0", "limits.user_requests_burst"),
            ("limits.user_bytes_burst = 0", "limits.user_bytes_burst"),
            ("limits.address_requests_burst = 0", "limits.address_requests_burst"),
            ("limits.address_bytes_burst = '0 B'", "limits.address_bytes_burst"),
            ("limits.user_bytes_per_second = '15 EiB'", "limits.user_bytes_per_second"),
            ("rules = [{ may_upload = false }]", "rules.users"),
            ("rules = [{ users = ['*'], max_size = 0 }]", "rules.max_size"),
            ("rules = [{ users = ['*'], quota_bytes = '15 EiB' }]", "rules.quota_bytes"),
            ("rules = [{ users = ['*'], max_pending = 0 }]", "rules.max_pending"),
            ("remote.max_size = 0", "remote.max_size"),
            ("thumbnails.max_pixels = 0", "thumbnails.max_pixels"),
            ("thumbnails.concurrency = 100000", "thumbnails.concurrency"),
            ("thumbnails.queue = 1000000", "thumbnails.queue"),
            ("thumbnails.timeout = '0s'", "thumbnails.timeout"),
            ("thumbnails.timeout = '2days'", "thumbnails.timeout"),
            ("thumbnails.worker_memory = '63 MiB'", "thumbnails.worker_memory"),
            ("thumbnails.worker_memory = '15 EiB'", "thumbnails.worker_memory"),
            ("thumbnails.worker_jobs = 0", "thumbnails.worker_jobs"),
            ("server.threads = 100000", "server.threads"),
        ] {
            let error = config(text).validate().expect_err(text);
            assert!(
                matches!(error, ConfigError::Rule { key: named, .. } if named == key),
                "{error}"
            );
        }
    }

    #[test]
    fn what_only_looks_wrong_passes() {
        for text in [
            "server.listen = ['127.0.0.1:0', '127.0.0.1:0']",
            "server.listen = ['0.0.0.0:8090', '[::1]:8090', 'unix:/run/m.sock']",
            "server.admin_listen = ''",
            "homeserver.url = 'http://synapse:8090'",
            "auth.token_cache = '0s'",
            "uploads.unused_expiry = '7days'",
            "thumbnails.queue = 0",
            "storage.min_free = '0 B'",
            "limits = { user_requests_per_second = 0, user_requests_burst = 0 }",
            "limits = { address_bytes_per_second = '0 B', address_bytes_burst = '0 B' }",
            "uploads = { quota_bytes = 0, quota_files = 0 }",
            "rules = [{ users = ['@*:b'] }, { users = ['@a:b'] }, { users = ['*'] }]",
            "rules = [{ users = ['*'], quota_bytes = 0, quota_files = 0 }]",
            "storage = { cache_size = '200 MiB', min_free = '1 TB' }",
        ] {
            assert_eq!(config(text).validate().expect(text), [], "{text}");
        }
    }

    #[test]
    fn a_doubtful_setting_is_a_warning() {
        for (text, key) in [
            ("server.admin_listen = '0.0.0.0:9090'", "server.admin_listen"),
            ("server.admin_listen = '192.168.1.1:9090'", "server.admin_listen"),
            ("server.trusted_proxies = ['::1', '0.0.0.0/0']", "server.trusted_proxies"),
            ("storage.cache_size = '199 MiB'", "storage.cache_size"),
            ("uploads.quota_can_upgrade = true", "uploads.quota_can_upgrade"),
            ("rules = [{ users = ['@a:b'] }, { users = ['*'] }, { users = ['@c:d'] }]", "rules"),
            (
                "legacy = { mode = 'open', frozen_since = 2026-01-01T00:00:00Z }",
                "legacy.frozen_since",
            ),
            ("legacy = { mode = 'open', readable = ['mxc://a.example/b'] }", "legacy.readable"),
        ] {
            let warnings = config(text).validate().expect(text);
            assert_eq!(warnings.iter().map(|warning| warning.key).collect::<Vec<_>>(), [key]);
        }
    }

    /// CS-FRZ-04
    #[test]
    fn the_list_of_readable_media_is_bounded() {
        let listed = |count| {
            let uris: Vec<_> = (0..count).map(|n| format!("'mxc://a.example/{n}'")).collect();
            config(&format!("legacy.readable = [{}]", uris.join(","))).validate()
        };
        assert_eq!(listed(MAX_READABLE).unwrap(), []);
        assert!(matches!(
            listed(MAX_READABLE + 1),
            Err(ConfigError::Rule { key: "legacy.readable", .. })
        ));
    }

    #[test]
    fn a_loop_by_a_unix_socket_is_refused() {
        let mut config = config("server.listen = ['unix:/run/m.sock']");
        config.homeserver.url = "unix:/run/m.sock".parse().unwrap();
        config.server.admin_listen = AdminListen::Off;
        assert!(config.validate().is_err());
    }
}
