//! What `mediary check` says of other servers: the signing key and whether the homeserver publishes
//! it, the way out, and who does what.

use std::time::Duration;

use tokio::time::Instant;

use super::{Finding, Key};
use crate::config::Config;
use crate::federation::SigningKey;
use crate::homeserver::{Homeserver, Publication};
use crate::server;
use crate::types::ServerName;

/// How long name servers may take.
const NAME_SERVER_PATIENCE: Duration = Duration::from_secs(10);

/// Asks the homeserver about federation.
pub(super) async fn with_homeserver(key: &Key, homeserver: &Homeserver) -> Vec<Finding> {
    match key {
        Ok(None) => vec![signatures(homeserver).await],
        Ok(Some(key)) => vec![publication(key, homeserver).await],
        // It is said by `settings`.
        Err(_) => Vec::new(),
    }
}

/// Looks at the settings, the files that they name, and the name servers.
pub(super) async fn settings(
    config: &Config,
    key: &Key,
    own_name: Option<&ServerName>,
) -> Vec<Finding> {
    if let Ok(None) = key {
        return vec![Finding::Good(
            "there is no federation.signing_key, so federation goes through the homeserver: it \
             fetches media of other servers, with the reader's own token, and judges signatures; \
             `mediary key --help` says how Mediary can do both itself"
                .to_owned(),
        )];
    }
    let mut findings = Vec::new();
    if let Err(error) = key {
        findings.push(Finding::Bad(format!("{error:#}")));
    }
    match server::egress(config) {
        Ok(egress) => {
            if let Some(name) = own_name.filter(|name| is_public(name)) {
                let service = format!("_matrix-fed._tcp.{}", name.host());
                let deadline = Instant::now() + NAME_SERVER_PATIENCE;
                findings.push(match egress.srv(&service, deadline).await {
                    Ok(_) => Finding::Good("the name servers answer".to_owned()),
                    Err(error) => Finding::Doubtful(format!(
                        "no name server answers ({error}), so no other server can be found; see \
                         federation.dns_servers"
                    )),
                });
            }
        }
        Err(error) => findings.push(Finding::Bad(format!(
            "other servers cannot be contacted: {error:#}; see federation.ca_file and \
             federation.dns_servers"
        ))),
    }
    findings.push(Finding::Good(who_fetches(config)));
    findings
}

fn who_fetches(config: &Config) -> String {
    let direct = "media of other servers is fetched from those servers, signed as the homeserver";
    if config.federation.ask_homeserver {
        format!("{direct}; what they do not give, the homeserver is asked for")
    } else {
        direct.to_owned()
    }
}

/// Whether name servers of the internet may know a name: `localhost` and addresses they do not.
fn is_public(name: &ServerName) -> bool {
    name.host().contains('.') && name.address().is_none()
}

/// Without a key of ours the homeserver judges signatures; it has to serve the routes for that.
async fn signatures(homeserver: &Homeserver) -> Finding {
    match homeserver.refuses_unsigned_requests("/_matrix/federation/v1/media/download/").await {
        Ok(true) => Finding::Good(
            "it judges signatures, so other servers can fetch media uploaded here".to_owned(),
        ),
        Ok(false) => Finding::Doubtful(
            "it does not serve /_matrix/federation/v1/media at this address; other servers cannot \
             fetch media uploaded here until its listener serves federation"
                .to_owned(),
        ),
        Err(error) => Finding::Doubtful(format!("its federation does not answer: {error}")),
    }
}

/// Looks for the key among those that the homeserver publishes (FM-C-11).
async fn publication(key: &SigningKey, homeserver: &Homeserver) -> Finding {
    let published = match homeserver.published_keys().await {
        Ok(published) => published,
        Err(error) => {
            return Finding::Doubtful(format!(
                "it does not say which keys it publishes ({error}); other servers believe nothing \
                 that is signed with a key that it does not publish"
            ));
        }
    };
    let id = key.id().as_str();
    const ADVICE: &str = "name the file of the key that it signs with, which Synapse's \
        signing_key_path names; or add our key's line to that file and restart Synapse";
    let what = match published.publication(id, &key.public_key()) {
        Publication::Current => {
            return Finding::Good(format!(
                "it publishes {id}, the key in federation.signing_key, so other servers believe \
                 what Mediary asks"
            ));
        }
        Publication::Old => format!(
            "it publishes {id}, the key in federation.signing_key, only among its old keys, with \
             which requests are not believed"
        ),
        Publication::OtherKey => {
            format!(
                "it publishes another key by the name {id} than the one in federation.signing_key"
            )
        }
        Publication::Absent => {
            let ids: Vec<_> = published.ids().take(5).collect();
            let ids = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
            format!("it does not publish {id}, the key in federation.signing_key, but {ids}")
        }
    };
    Finding::Bad(format!("{what}; {ADVICE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_asked_for_names_alone() {
        let is_public = |name: &str| is_public(&name.parse().unwrap());
        assert!(is_public("matrix.example.org") && is_public("a.example.:8448"));
        for name in ["localhost", "192.0.2.1", "[2001:db8::1]:8448", "[::ffff:192.0.2.1]"] {
            assert!(!is_public(name), "{name}");
        }
    }
}
