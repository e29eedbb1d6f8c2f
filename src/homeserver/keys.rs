//! What the homeserver publishes for other servers: its name and its keys (KEY-01).

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::parse;
use super::{Homeserver, HomeserverError, unexpected};
use crate::types::ServerName;

const TARGET: &str = "/_matrix/key/v2/server";

#[derive(Deserialize)]
struct Named {
    server_name: String,
}

/// The keys that a homeserver publishes.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PublishedKeys {
    /// With what it signs now.
    verify_keys: BTreeMap<String, Key>,
    /// With what it has signed; requests are not believed with these (XM-10).
    #[serde(default)]
    old_verify_keys: BTreeMap<String, Key>,
}

#[derive(Debug, Clone, Deserialize)]
struct Key {
    key: String,
}

/// How a key is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// As one that is good for requests.
    Current,
    /// As one that is good for old events alone.
    Old,
    /// There is another key of the same id.
    OtherKey,
    /// Not at all.
    Absent,
}

impl PublishedKeys {
    /// Looks a key up by its id and its public half in base64, padded or not (CJ-06).
    pub fn publication(&self, id: &str, public_key: &str) -> Publication {
        let is_it = |key: &Key| key.key.trim_end_matches('=') == public_key.trim_end_matches('=');
        match (self.verify_keys.get(id), self.old_verify_keys.get(id)) {
            (Some(key), _) if is_it(key) => Publication::Current,
            (Some(_), _) => Publication::OtherKey,
            (None, Some(key)) if is_it(key) => Publication::Old,
            (None, Some(_)) => Publication::OtherKey,
            (None, None) => Publication::Absent,
        }
    }

    /// Returns the ids of the keys that are good for requests.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.verify_keys.keys().map(String::as_str)
    }
}

impl Homeserver {
    /// Asks what the homeserver is called (`GET /_matrix/key/v2/server`, KEY-01).
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if it does not say; homeservers without federation do not.
    pub async fn ask_name(&self) -> Result<ServerName, HomeserverError> {
        let named: Named = self.ask_keys().await?;
        named
            .server_name
            .parse()
            .map_err(|_| HomeserverError::Misbehaved("its server name is not valid".to_owned()))
    }

    /// Asks which keys the homeserver publishes (KEY-01). Signatures are not looked at: it is believed
    /// as it is in everything else.
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if there is no usable answer.
    pub async fn published_keys(&self) -> Result<PublishedKeys, HomeserverError> {
        self.ask_keys().await
    }

    async fn ask_keys<T: DeserializeOwned>(&self) -> Result<T, HomeserverError> {
        let response = self.small(TARGET, &[]).await?;
        if response.status != StatusCode::OK {
            return Err(unexpected(response.status, TARGET));
        }
        parse(&response.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEY-01, XM-10, CJ-06
    #[test]
    fn a_key_is_found_where_it_is_published() {
        let keys: PublishedKeys = parse(
            br#"{"server_name": "a.example", "valid_until_ts": 1, "signatures": {},
                 "verify_keys": {"ed25519:now": {"key": "AAAA"}, "ed25519:padded": {"key": "BB=="}},
                 "old_verify_keys": {"ed25519:then": {"key": "CCCC", "expired_ts": 1}}}"#,
        )
        .unwrap();
        for (id, public_key, publication) in [
            ("ed25519:now", "AAAA", Publication::Current),
            ("ed25519:now", "ABAA", Publication::OtherKey),
            ("ed25519:padded", "BB", Publication::Current),
            ("ed25519:then", "CCCC", Publication::Old),
            ("ed25519:then", "AAAA", Publication::OtherKey),
            ("ed25519:never", "AAAA", Publication::Absent),
        ] {
            assert_eq!(keys.publication(id, public_key), publication, "{id} {public_key}");
        }
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["ed25519:now", "ed25519:padded"]);
    }
}
