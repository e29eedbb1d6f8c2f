//! The parts that meet other servers, made only where there is a key to sign with: without one
//! everything goes through the homeserver, and nothing is contacted but that.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::auth::OriginAuthenticator;
use crate::config::Config;
use crate::egress::{Egress, EgressSettings};
use crate::federation::{
    RemoteFetcher, RemoteKeys, ServerRules, Servers, SigningKey, TransferLimits,
};
use crate::handlers::Judge;
use crate::limit::{Places, RateLimit};
use crate::media::{Direct, OtherServers};
use crate::metrics::Metrics;

/// What other servers are met with.
pub(super) struct Outside {
    /// With whom media is exchanged.
    pub(super) rules: ServerRules,
    /// Whom to ask for their media.
    pub(super) servers: OtherServers,
    /// What judges their requests.
    pub(super) judge: Option<Judge>,
}

impl Outside {
    /// Reads the key, if one is configured, and makes the parts.
    pub(super) fn new(config: &Config, metrics: &Arc<Metrics>) -> Result<Self> {
        let rules = rules(config);
        let (mut direct, mut judge) = (None, None);
        if let Some(key) = signing_key(config)? {
            let servers = servers(config)?;
            judge = Some(make_judge(config, &servers, metrics.clone()));
            direct = Some(Direct {
                fetcher: fetcher(config, &servers, &key),
                key,
                timeout: config.federation.timeout,
                ask_homeserver: config.federation.ask_homeserver,
                metrics: metrics.clone(),
            });
        }
        let servers = OtherServers { rules: rules.clone(), direct };
        Ok(Self { rules, servers, judge })
    }
}

/// Takes the operator's lists of servers.
pub fn rules(config: &Config) -> ServerRules {
    let federation = &config.federation;
    ServerRules::new(federation.allow_servers.clone(), federation.deny_servers.clone())
}

/// Makes what finds other servers and talks to them.
///
/// # Errors
///
/// As [`egress`].
pub fn servers(config: &Config) -> Result<Servers> {
    Ok(Servers::new(egress(config)?))
}

/// Makes what fetches media from other servers.
pub fn fetcher(config: &Config, servers: &Servers, key: &Arc<SigningKey>) -> RemoteFetcher {
    let (federation, remote) = (&config.federation, &config.remote);
    let limits = TransferLimits {
        timeout: federation.timeout,
        max_per_server: federation.max_fetches_per_server,
        min_rate: remote.min_rate.as_u64(),
        slow_timeout: remote.slow_timeout,
    };
    RemoteFetcher::new(servers.clone(), key.clone(), limits)
}

fn make_judge(config: &Config, servers: &Servers, metrics: Arc<Metrics>) -> Judge {
    let federation = &config.federation;
    let keys = RemoteKeys::new(servers.clone(), federation.notaries.clone());
    let rate = federation.server_requests_per_second;
    let rate =
        (rate > 0).then(|| RateLimit::new(rate.into(), federation.server_requests_burst.into()));
    let places = Arc::new(Places::new(federation.max_requests_per_server));
    Judge::new(OriginAuthenticator::new(keys, metrics), rate, places)
}

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
