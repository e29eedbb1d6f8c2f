//! What happens on the way to a server, for those who want to see it.

use std::time::Duration;

use http::StatusCode;

use super::well_known::Invalid;
use crate::egress::{EgressError, Endpoint, SrvTarget};
use crate::types::ServerName;

/// Why a host has no valid well-known file, which is no failure of discovery (DISC-05).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WellKnownError {
    /// It could not be had.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The answer has another status than 200.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// Its body names no server.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl WellKnownError {
    /// Whether a file may be there all the same.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Egress(error) => !matches!(
                error,
                EgressError::Forbidden { .. }
                    | EgressError::Url(..)
                    | EgressError::TooManyRedirects
                    | EgressError::TooLarge { .. }
                    | EgressError::Unsendable(_)
            ),
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Invalid(_) => false,
        }
    }
}

/// Something that was asked, and what came of it.
#[derive(Debug)]
pub enum Event<'a> {
    /// The well-known file: whom it names and for how long (DISC-03).
    WellKnown {
        /// Whose.
        host: &'a str,
        /// What came.
        outcome: Result<(&'a ServerName, Duration), &'a WellKnownError>,
    },
    /// An SRV record: its targets in the order to be tried, none if there is no record.
    Srv {
        /// The name of the record.
        service: &'a str,
        /// What came.
        outcome: Result<&'a [SrvTarget], &'a EgressError>,
    },
    /// An endpoint was tried.
    Tried {
        /// Which.
        endpoint: &'a Endpoint,
        /// The status of its answer.
        outcome: Result<StatusCode, &'a EgressError>,
    },
}

/// Somebody who wants to see what happens.
pub trait Observer: Sync {
    /// Is told right after it happened.
    fn notice(&self, event: Event<'_>);
}

/// Nobody.
impl Observer for () {
    fn notice(&self, _event: Event<'_>) {}
}
