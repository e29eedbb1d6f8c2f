//! Talking to another homeserver by its name: discovery, then the first endpoint that takes the
//! connection.

use std::pin::Pin;

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::explain::{Event, Observer};
use super::locate::{Location, Locator};
use crate::egress::{Egress, EgressError, Endpoint, Response};
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
    locator: Locator,
}

impl Servers {
    /// Takes the way out.
    pub fn new(egress: Egress) -> Self {
        Self { locator: Locator::new(egress.clone()), egress }
    }

    /// Returns the way out.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Sends a GET to a server, found by discovery, and returns the head of the answer, whatever its
    /// status. Of several endpoints the next is tried where no connection comes about.
    ///
    /// Where a server is is remembered; if none of its endpoints takes a connection the next call
    /// discovers it anew, though not more often than each few seconds.
    ///
    /// # Errors
    ///
    /// [`ServerError`] if no head came before the deadline.
    pub async fn get(
        &self,
        server: &ServerName,
        target: &str,
        fields: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Response, ServerError> {
        // A future of its own: with all steps inside, those of requests would be large, and too deep
        // for the compiler.
        let exchange: Pin<Box<dyn Future<Output = _> + Send + '_>> =
            Box::pin(self.get_observed(server, target, fields, deadline, &()));
        exchange.await
    }

    /// Finds a server and returns the endpoints that [`get`](Self::get) tries in turn; there is at least
    /// one. Each step is told to an observer, but for what is remembered.
    ///
    /// # Errors
    ///
    /// [`ServerError::Discovery`] if that took longer than to the deadline.
    pub async fn find(
        &self,
        server: &ServerName,
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Result<Vec<Endpoint>, ServerError> {
        let location = self.locate(server, deadline, observer).await?;
        Ok(location.endpoints().to_vec())
    }

    /// Does what [`get`](Self::get) does and tells each step to an observer. Of what is remembered
    /// nothing is asked, so nothing is told.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_observed(
        &self,
        server: &ServerName,
        target: &str,
        fields: &[(HeaderName, HeaderValue)],
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Result<Response, ServerError> {
        let location = self.locate(server, deadline, observer).await?;
        let mut last = EgressError::Unreached("the connection");
        let endpoints = location.endpoints();
        for (endpoint, left) in endpoints.iter().zip((1..=endpoints.len()).rev()) {
            let connect_by = share_of(deadline, left);
            let sent = self.egress.get_connected_by(endpoint, target, fields, connect_by, deadline);
            let outcome = sent.await;
            let status = outcome.as_ref().map(|response| response.status);
            observer.notice(Event::Tried { endpoint, outcome: status });
            match outcome {
                Ok(response) => return Ok(response),
                Err(error) => last = error,
            }
            if !is_no_connection(&last) {
                break;
            }
        }
        if is_no_connection(&last) {
            location.suspect();
        }
        Err(match last {
            error @ EgressError::Resolution { .. } => {
                ServerError::Discovery { server: server.clone(), error }
            }
            error => ServerError::Exchange { server: server.clone(), error },
        })
    }

    async fn locate(
        &self,
        server: &ServerName,
        deadline: Instant,
        observer: &dyn Observer,
    ) -> Result<Location, ServerError> {
        let location = self.locator.locate(server, deadline, observer).await;
        location.map_err(|error| ServerError::Discovery { server: server.clone(), error })
    }
}

/// Returns until when connecting to the next of so many endpoints may take: each has an equal share of
/// the time that is left, and so has the answer, whichever gives it. So there is always time to notice
/// that nobody is there.
fn share_of(deadline: Instant, endpoints: usize) -> Instant {
    let now = Instant::now();
    let shares = u32::try_from(endpoints).unwrap_or(u32::MAX).saturating_add(1);
    now + deadline.saturating_duration_since(now) / shares
}

/// Whether nothing was sent, so that another endpoint may be the right one.
fn is_no_connection(error: &EgressError) -> bool {
    match error {
        EgressError::Resolution { .. }
        | EgressError::Forbidden { .. }
        | EgressError::Connect { .. }
        | EgressError::Tls { .. }
        | EgressError::Unreached(_) => true,
        EgressError::TimedOut(_)
        | EgressError::Misbehaved(_)
        | EgressError::Unsendable(_)
        | EgressError::TooLarge { .. }
        | EgressError::Url(..)
        | EgressError::TooManyRedirects => false,
    }
}
