//! The parts that meet other servers, made only where there is a key to sign with: without one
//! everything goes through the homeserver, and nothing is contacted but that.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::egress::{Egress, EgressSettings};
use crate::federation::{FetchLimits, RemoteFetcher, ServerRules, Servers, SigningKey};
use crate::media::{Direct, OtherServers};

/// Makes the way out.
///
/// # Errors
///
/// In words for the operator: what cannot be read.
pub fn egress(config: &Config) -> Result<Egress> {
    let federation = &config.federation;
    Egress::new(EgressSettings {
        allow_networks: federation.allow_networks.clone(),
        ca_file: federation.ca_file.clone(),
        dns_servers: federation.dns_servers.clone(),
        connect_timeout: federation.connect_timeout,
    })
}

/// Reads the signing key, if one is configured.
///
/// # Errors
///
/// Says what is wrong with the file and what to do.
pub fn signing_key(config: &Config) -> Result<Option<Arc<SigningKey>>> {
    let Some(path) = &config.federation.signing_key else { return Ok(None) };
    let key = SigningKey::read(path).context("federation.signing_key")?;
    Ok(Some(Arc::new(key)))
}

/// Returns whom media is exchanged with.
pub(super) fn rules(config: &Config) -> ServerRules {
    let federation = &config.federation;
    ServerRules::new(federation.allow_servers.clone(), federation.deny_servers.clone())
}

/// Makes what fetches media from other servers.
pub fn fetcher(config: &Config, servers: &Servers, key: &Arc<SigningKey>) -> RemoteFetcher {
    let (federation, remote) = (&config.federation, &config.remote);
    let limits = FetchLimits {
        timeout: federation.timeout,
        max_per_server: federation.max_fetches_per_server,
        min_rate: remote.min_rate.as_u64(),
        slow_timeout: remote.slow_timeout,
    };
    RemoteFetcher::new(servers.clone(), key.clone(), limits)
}

/// Makes what asks other servers for media.
pub(super) fn direct(config: &Config, servers: &Servers, key: &Arc<SigningKey>) -> Direct {
    Direct {
        fetcher: fetcher(config, servers, key),
        key: key.clone(),
        timeout: config.federation.timeout,
        ask_homeserver: config.federation.ask_homeserver,
    }
}

/// Makes other servers as sources of media.
pub(super) fn other_servers(
    config: &Config,
    signing: Option<(&Servers, &Arc<SigningKey>)>,
) -> OtherServers {
    let direct = signing.map(|(servers, key)| direct(config, servers, key));
    OtherServers { rules: rules(config), direct }
}
