//! The homeserver's signing key, and signatures with it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderValue, Method};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::remote_keys::VerifyKey;
use super::{key_file, x_matrix};
use crate::types::ServerName;

pub use super::key_file::SigningKeyError;

/// The only algorithm that is known (CJ-05).
const ALGORITHM: &str = "ed25519";

/// The longest id of a key that is taken, in bytes; those in use have about twenty.
const MAX_ID_LENGTH: usize = 128;

/// How many letters a new key's version has behind its prefix. It is not only to be another than the
/// homeserver's own: Conduit remembers failures by key id alone, whoever's it is.
const VERSION_LENGTH: usize = 6;

/// Standard base64; written without padding, read with or without it (CJ-04, CJ-06), and whatever the
/// bits behind the last byte are: in the specification's own example they are not zero.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Writes bytes in unpadded standard base64.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads exactly so many bytes in standard base64, padded or not.
pub(super) fn from_base64<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    // Bounds what is decoded: four letters are three bytes, and up to two are padding.
    if text.len() > LENGTH.div_ceil(3) * 4 {
        return None;
    }
    BASE64.decode(text).ok()?.try_into().ok()
}

/// The id of a key: `ed25519:` and a version of `[a-zA-Z0-9_]` (KEY-02).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Box<str>);

/// Not the id of an Ed25519 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id is ed25519: and a version of letters, digits and underscores")]
pub struct InvalidKeyId;

impl KeyId {
    /// Makes the id of a version.
    ///
    /// # Errors
    ///
    /// [`InvalidKeyId`] if the version is empty, too long, or of other letters.
    pub fn of_version(version: &str) -> Result<Self, InvalidKeyId> {
        format!("{ALGORITHM}:{version}").parse()
    }

    /// Returns it as it is written, with the algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what is behind the algorithm.
    pub fn version(&self) -> &str {
        &self.0[ALGORITHM.len() + 1..]
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let version = text.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(':'));
        let fits = text.len() <= MAX_ID_LENGTH
            && version.is_some_and(|version| {
                !version.is_empty()
                    && version.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            });
        if fits { Ok(Self(text.into())) } else { Err(InvalidKeyId) }
    }
}

/// A key as it is kept: its id, and the secret that it is made of.
pub struct KeySeed {
    id: KeyId,
    seed: [u8; 32],
}

impl fmt::Debug for KeySeed {
    /// Shows the id alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeySeed").field(&self.id.0).finish_non_exhaustive()
    }
}

impl KeySeed {
    /// Takes a key.
    pub fn new(id: KeyId, seed: [u8; 32]) -> Self {
        Self { id, seed }
    }

    /// Makes a new key with an id that nobody else has.
    ///
    /// # Errors
    ///
    /// Fails if the system gives no random numbers.
    pub fn generate() -> Result<Self, ring::error::Unspecified> {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let random = SystemRandom::new();
        let mut seed = [0; 32];
        random.fill(&mut seed)?;
        let mut bytes = [0; VERSION_LENGTH];
        random.fill(&mut bytes)?;
        let letters =
            bytes.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
        let version: String = "m_".chars().chain(letters).collect();
        Ok(Self { id: KeyId(format!("{ALGORITHM}:{version}").into()), seed })
    }

    /// Returns its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Writes it as a line of Synapse's key file, without the end of the line. This is the secret.
    pub fn reveal_line(&self) -> String {
        format!("{ALGORITHM} {} {}", self.id.version(), to_base64(&self.seed))
    }

    /// Writes it into a new file that only its owner may read. A file that is there already is left
    /// as it is.
    ///
    /// # Errors
    ///
    /// The system's; [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if there is such a file.
    pub fn write_new(&self, path: &Path) -> std::io::Result<()> {
        key_file::write_new(path, self)
    }

    /// Returns the key, ready to sign.
    ///
    /// # Panics
    ///
    /// Never: any 32 bytes are an Ed25519 seed (RFC 8032, section 5.1.5).
    pub fn signing_key(&self) -> SigningKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.seed).expect("32 bytes are a seed");
        SigningKey { id: self.id.clone(), pair }
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

impl SigningKey {
    /// Reads Synapse's key file: lines of `ed25519 VERSION SEED`, of which the first signs.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`] if the file cannot be read, is open to others than its owner and group, or
    /// holds no key.
    pub fn read(path: &Path) -> Result<Self, SigningKeyError> {
        Self::read_all(path).map(|mut keys| keys.swap_remove(0))
    }

    /// Reads all keys of Synapse's key file, never none.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_all(path: &Path) -> Result<Vec<Self>, SigningKeyError> {
        let seeds = key_file::read(path)?;
        Ok(seeds.iter().map(KeySeed::signing_key).collect())
    }

    /// Returns its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Returns the key that its signatures are checked with.
    ///
    /// # Panics
    ///
    /// Never: a public key has 32 bytes.
    pub fn verify_key(&self) -> VerifyKey {
        let public = self.pair.public_key().as_ref().try_into().expect("32 bytes");
        UnparsedPublicKey::new(&ED25519, public)
    }

    /// Returns its public key in unpadded base64, as homeservers publish it.
    pub fn public_key(&self) -> String {
        to_base64(self.pair.public_key().as_ref())
    }

    /// Signs bytes; the signature in unpadded standard base64 (CJ-04).
    pub fn sign(&self, message: &[u8]) -> String {
        to_base64(self.pair.sign(message).as_ref())
    }

    /// Signs a request without a body and returns its `Authorization` (XM-01 to XM-06).
    ///
    /// `target` is sent exactly as it is here: path and query, neither decoded nor put in order.
    ///
    /// # Panics
    ///
    /// Never: names and ids hold neither quotes nor anything else that fits no header.
    pub fn authorization(
        &self,
        origin: &ServerName,
        destination: &ServerName,
        method: &Method,
        target: &str,
    ) -> HeaderValue {
        let message = x_matrix::signed_request(method, target, origin, destination);
        let Self { id, .. } = self;
        let signature = self.sign(&message);
        let text = format!(
            "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{id}\",\
             sig=\"{signature}\""
        );
        let mut value = HeaderValue::try_from(text).expect("names, ids and base64 fit a header");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::canonical_json::encode_signed_part;
    use super::*;

    /// The seed of the specification's examples (appendix "Cryptographic Test Vectors"). Signatures
    /// of Ed25519 are deterministic, so those that are asserted here check the seed as well.
    fn example_key() -> SigningKey {
        let seed = from_base64(b"YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
        KeySeed::new("ed25519:1".parse().unwrap(), seed).signing_key()
    }

    /// CJ-04, CJ-07
    #[test]
    fn the_examples_of_the_specification_get_their_signatures() {
        for (value, signature) in [
            (
                json!({}),
                "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
            ),
            (
                json!({"one": 1, "two": "Two"}),
                "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
            ),
        ] {
            let message = encode_signed_part(value.as_object().unwrap()).unwrap();
            assert_eq!(example_key().sign(&message), signature);
        }
    }

    #[test]
    fn what_is_signed_verifies_with_the_public_key_alone() {
        let key = KeySeed::generate().unwrap().signing_key();
        let signature: [u8; 64] = from_base64(key.sign(b"message").as_bytes()).unwrap();
        assert!(key.verify_key().verify(b"message", &signature).is_ok());
        assert!(key.verify_key().verify(b"messagf", &signature).is_err());
        assert!(example_key().verify_key().verify(b"message", &signature).is_err());
        let public: [u8; 32] = from_base64(key.public_key().as_bytes()).unwrap();
        assert_eq!(public, key.verify_key().as_ref());
    }

    /// KEY-02, threats FE-06
    #[test]
    fn key_ids_are_of_one_algorithm_and_one_alphabet() {
        for id in ["ed25519:1", "ed25519:a_AbCd", "ed25519:_"] {
            assert_eq!(id.parse::<KeyId>().unwrap().as_str(), id);
        }
        let long = format!("ed25519:{}", "a".repeat(MAX_ID_LENGTH));
        for id in
            ["", "ed25519", "ed25519:", "rsa:1", "ED25519:1", "ed25519:a-b", "ed25519:a:b", &long]
        {
            assert_eq!(id.parse::<KeyId>(), Err(InvalidKeyId), "{id}");
        }
        assert_eq!(KeyId::of_version("a_1").unwrap().version(), "a_1");
    }

    /// CJ-06
    #[test]
    fn base64_is_read_with_and_without_padding_but_only_in_the_standard_alphabet() {
        for text in ["+/8", "+/8="] {
            assert_eq!(from_base64(text.as_bytes()), Some([0xfb, 0xff]));
        }
        for text in ["-_8", "+/8==", "+/", "+/8A", "+/8 ", "+/8\n", ""] {
            assert_eq!(from_base64::<2>(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(from_base64::<32>(&[b'A'; 100_000]), None);
    }

    /// XM-04, XM-05, XM-06
    #[test]
    fn the_header_is_written_as_old_servers_read_it() {
        let name = |text: &str| text.parse::<ServerName>().unwrap();
        let (origin, destination) = (name("a.example:8448"), name("[::1]"));
        let target = "/_matrix/federation/v1/media/download/abc?timeout_ms=1";
        let value = example_key().authorization(&origin, &destination, &Method::GET, target);
        let signature = example_key().sign(
            format!(
                r#"{{"destination":"[::1]","method":"GET","origin":"a.example:8448","uri":"{target}"}}"#
            )
            .as_bytes(),
        );
        let expected = format!(
            r#"X-Matrix origin="a.example:8448",destination="[::1]",key="ed25519:1",sig="{signature}""#
        );
        assert_eq!(value.to_str().unwrap(), expected);
        assert!(value.is_sensitive());
    }

    #[test]
    fn new_keys_and_their_ids_differ() {
        let keys: Vec<_> = (0..20).map(|_| KeySeed::generate().unwrap()).collect();
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(key.id().as_str().parse::<KeyId>().as_ref(), Ok(key.id()));
            let others = &keys[index + 1..];
            assert!(others.iter().all(|other| other.id != key.id && other.seed != key.seed));
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let seed = KeySeed::new("ed25519:1".parse().unwrap(), [65; 32]);
        let shown = format!("{seed:?} {:?}", seed.signing_key());
        assert_eq!(shown, "KeySeed(\"ed25519:1\", ..) SigningKey(\"ed25519:1\", ..)");
    }
}
