//! Other homeservers: who they are, where they are, what they sign, and the media they have.
//!
//! Asking: a server name becomes endpoints (`discovery` says how, `locate` asks and remembers), the
//! first that takes the connection is talked to (`servers`), a request is signed (`signing_key`,
//! `x_matrix`), the answer taken apart (`multipart`), and how a server has behaved is remembered for a
//! while (`server_backoff`). Being asked: the signature is held against the keys that the asker
//! publishes (`x_matrix`, `remote_keys`). All connections go through [`egress`](crate::egress).

pub mod canonical_json;
pub mod conduit;
pub mod key_document;
pub mod multipart;
pub mod signing_key;
pub mod well_known;
pub mod x_matrix;

mod backoff;
mod delegation;
mod discovery;
mod explain;
mod fetch;
mod folded_name;
mod key_error;
mod key_file;
mod locate;
mod remote_keys;
mod rules;
mod server_backoff;
mod servers;

pub use explain::{Event, Observer, WellKnownError};
pub use fetch::{
    FetchError, FetchOptions, FetchResult, RemoteFetcher, RemoteMedia, Transfer, TransferLimits,
    download_target,
};
pub use key_error::KeyError;
pub use remote_keys::{RemoteKeys, VerifyKey};
pub use rules::ServerRules;
pub use server_backoff::FetchPlace;
pub use servers::{ServerError, Servers};
pub use signing_key::{KeyId, KeySeed, SigningKey, SigningKeyError};
