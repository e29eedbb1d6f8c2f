//! The rules of `[federation]`, and of what `[remote]` says of other servers.

use std::path::Path;

use super::{MAX_FETCHES, broken, check_not_too_large};
use crate::config::{Config, ConfigError, FederationConfig, Warning};

/// More servers, networks or name servers than anybody writes by hand. Every request goes through the
/// lists of servers.
const MAX_LISTED: usize = 10_000;

impl Config {
    pub(super) fn check_federation(&self) -> Result<(), ConfigError> {
        let federation = &self.federation;
        check_not_too_large("remote.min_rate", self.remote.min_rate.as_u64())?;
        for (key, path) in [
            ("federation.signing_key", &federation.signing_key),
            ("federation.ca_file", &federation.ca_file),
        ] {
            if path.as_deref() == Some(Path::new("")) {
                return Err(broken(key, "must not be empty"));
            }
        }
        for (key, count) in [
            ("federation.max_fetches_per_server", federation.max_fetches_per_server),
            ("federation.max_requests_per_server", federation.max_requests_per_server),
        ] {
            if count == 0 {
                return Err(broken(key, "must be more than zero"));
            }
            if count > MAX_FETCHES {
                return Err(broken(key, format!("must be at most {MAX_FETCHES}")));
            }
        }
        if federation.server_requests_per_second > 0 && federation.server_requests_burst == 0 {
            let key = "federation.server_requests_burst";
            return Err(broken(key, "must be more than zero where the limit is on"));
        }
        for (key, length) in [
            ("federation.allow_servers", federation.allow_servers.len()),
            ("federation.deny_servers", federation.deny_servers.len()),
            ("federation.notaries", federation.notaries.len()),
            ("federation.allow_networks", federation.allow_networks.len()),
            ("federation.dns_servers", federation.dns_servers.len()),
        ] {
            if length > MAX_LISTED {
                return Err(broken(key, format!("must name at most {MAX_LISTED}")));
            }
        }
        Ok(())
    }

    /// Warns of settings that mean nothing without a signing key.
    pub(super) fn federation_warning(&self) -> Option<Warning> {
        let federation = &self.federation;
        let default = FederationConfig::default();
        if federation.signing_key.is_some() {
            return None;
        }
        let idle = [
            ("federation.notaries", federation.notaries != default.notaries),
            ("federation.allow_networks", federation.allow_networks != default.allow_networks),
            ("federation.ca_file", federation.ca_file != default.ca_file),
            (
                "federation.server_requests_per_second",
                federation.server_requests_per_second != default.server_requests_per_second,
            ),
            (
                "federation.server_requests_burst",
                federation.server_requests_burst != default.server_requests_burst,
            ),
            (
                "federation.max_requests_per_server",
                federation.max_requests_per_server != default.max_requests_per_server,
            ),
        ];
        let (key, _) = idle.into_iter().find(|(_, is_set)| *is_set)?;
        Some(Warning {
            key,
            problem: "has no effect without federation.signing_key: the homeserver does what it \
                      is about"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(line: &str) -> Config {
        toml::from_str(line).unwrap()
    }

    #[test]
    fn what_would_stop_all_federation_is_refused_by_its_key() {
        for (line, key) in [
            ("federation.max_fetches_per_server = 0", "federation.max_fetches_per_server"),
            (
                "federation.max_fetches_per_server = 9000000000000000000",
                "federation.max_fetches_per_server",
            ),
            ("federation.max_requests_per_server = 0", "federation.max_requests_per_server"),
            ("federation.server_requests_burst = 0", "federation.server_requests_burst"),
            ("federation.signing_key = ''", "federation.signing_key"),
            ("federation.ca_file = ''", "federation.ca_file"),
            ("federation.timeout = '0s'", "federation.timeout"),
            ("federation.connect_timeout = '2 days'", "federation.connect_timeout"),
            ("remote.min_rate = '15 EiB'", "remote.min_rate"),
            ("remote.max_duration = '0s'", "remote.max_duration"),
        ] {
            let error = parse(line).validate().unwrap_err().to_string();
            assert!(error.contains(key), "{line}: {error}");
        }
        let many = vec!["'a.example'"; 10_001].join(",");
        let error = parse(&format!("federation.deny_servers = [{many}]")).validate();
        assert!(error.unwrap_err().to_string().contains("federation.deny_servers"));
        let off = "federation.server_requests_per_second = 0\nfederation.server_requests_burst = 0";
        assert!(parse(off).validate().is_ok());
    }

    #[test]
    fn what_has_no_effect_without_a_key_is_said() {
        let warned = |lines: &str| parse(lines).validate().unwrap().len();
        let line = "federation.max_requests_per_server = 3";
        assert_eq!(warned(line), 1);
        assert_eq!(warned(&format!("{line}\nfederation.signing_key = '/a'")), 0);
        assert_eq!(warned("federation.deny_servers = ['a.example']"), 0);
    }
}
