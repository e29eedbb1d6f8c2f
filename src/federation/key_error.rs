//! Why another server's key is not to be had, for our log and for their administrator.

use super::servers::ServerError;
use crate::egress::EgressError;
use crate::types::ServerName;

/// Why there is no key to check a signature with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The server could not be asked.
    #[error("its keys cannot be fetched: {0}")]
    Server(#[from] ServerError),
    /// It does not give its keys out.
    #[error("its keys cannot be fetched: {server} answers {status}")]
    Refused {
        /// Which server.
        server: ServerName,
        /// With which status.
        status: u16,
    },
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
    /// Whoever asks has begun as many fetches as it may.
    #[error("too many other servers' keys are being fetched for one client")]
    Busy,
    /// There was no answer in time, or too many servers are being asked.
    #[error("the keys of {server} did not come in time")]
    TimedOut {
        /// Which server.
        server: ServerName,
    },
}

impl KeyError {
    /// Returns what strangers may know: anybody may name any server, so whatever went wrong while its
    /// keys were fetched is told in the same words. Else they would learn which names, ports and
    /// certificates there are where only we can look (threats SS-10).
    pub fn public_text(&self) -> String {
        match self {
            Self::Server(
                ServerError::Discovery { server, .. } | ServerError::Exchange { server, .. },
            )
            | Self::Refused { server, .. }
            | Self::Unbelievable { server, .. }
            | Self::TimedOut { server } => format!("the keys of {server} cannot be fetched"),
            Self::Unknown { .. } | Self::Busy => self.to_string(),
        }
    }

    /// Whether a notary may know what could not be had from the server: it could not be reached, or
    /// what stands before it says so. A server that answers nonsense is not better believed at second
    /// hand, and one that may not be contacted stays so.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Server(
                ServerError::Discovery { error, .. } | ServerError::Exchange { error, .. },
            ) => match error {
                EgressError::Resolution { .. }
                | EgressError::Connect { .. }
                | EgressError::Tls { .. }
                | EgressError::Unreached(_)
                | EgressError::TimedOut(_) => true,
                EgressError::Forbidden { .. }
                | EgressError::Misbehaved(_)
                | EgressError::Unsendable(_)
                | EgressError::TooLarge { .. }
                | EgressError::Url(..)
                | EgressError::TooManyRedirects => false,
            },
            Self::Refused { status, .. } => *status >= 500,
            Self::TimedOut { .. } => true,
            Self::Unbelievable { .. } | Self::Unknown { .. } | Self::Busy => false,
        }
    }
}
