//! Why media of another server could not be had.

use std::time::Duration;

use crate::egress::EgressError;
use crate::federation::ServerError;

/// Why media of another server could not be had. The texts are for an operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The server has no such media.
    #[error("the server has no such media")]
    NotFound,
    /// It was not uploaded in the time that the reader would wait (CS-DL-10).
    #[error("the media is not uploaded yet")]
    NotYetUploaded,
    /// It is larger than allowed, or than the server gives out.
    #[error(
        "the media is larger than the server gives out, or than {limit} bytes (remote.max_size)"
    )]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The server refused, or failed.
    #[error("{}", refusal(*status, errcode))]
    Refused {
        /// Its status.
        status: u16,
        /// Its error code, if it said one that is of the grammar; empty otherwise.
        errcode: String,
    },
    /// The server asks for patience, or has failed so often that it is left alone for a while.
    #[error(
        "the server has failed or asked for patience, and is left alone for {} s more",
        retry_after.as_secs().max(1)
    )]
    BackedOff {
        /// When it will be asked again.
        retry_after: Duration,
    },
    /// As many fetches of this server's media as allowed are under way.
    #[error("too many files of this server are being fetched (federation.max_fetches_per_server)")]
    TooMany,
    /// It could not be reached.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server says that the media is elsewhere, and there it could not be had.
    #[error("the place that the server names for the media cannot be used: {0}")]
    Location(EgressError),
    /// Its answer is not what the specification says.
    #[error("the answer is not understood: {0}")]
    Misbehaved(String),
}

/// Says a refusal in words.
fn refusal(status: u16, errcode: &str) -> String {
    let what = match status {
        401 | 403 => "the server does not believe our signature or does not serve us",
        500.. => "the server failed",
        _ => "the server refused",
    };
    format!("{what}: {status} {errcode}").trim_end().to_owned()
}

/// What came of a fetch: a closed class, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FetchResult {
    /// The body began to come.
    Ok,
    /// There is no such media.
    NotFound,
    /// It is not uploaded yet.
    NotYetUploaded,
    /// It is too large.
    TooLarge,
    /// The server refused; 401 and 403 mean that our signature was not believed.
    Refused,
    /// The server answered with a failure of its own.
    ServerError,
    /// The server is left alone.
    BackedOff,
    /// Too much is being fetched from it.
    Busy,
    /// It was not found out where the server is.
    Discovery,
    /// The server, or where it leads, is at an address that may not be contacted.
    Forbidden,
    /// No connection.
    Unreachable,
    /// The certificate is not good, or TLS failed otherwise.
    Tls,
    /// No answer in time.
    TimedOut,
    /// An answer that is not understood.
    Misbehaved,
}

impl FetchResult {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::NotFound,
        Self::NotYetUploaded,
        Self::TooLarge,
        Self::Refused,
        Self::ServerError,
        Self::BackedOff,
        Self::Busy,
        Self::Discovery,
        Self::Forbidden,
        Self::Unreachable,
        Self::Tls,
        Self::TimedOut,
        Self::Misbehaved,
    ];

    /// Returns the value of a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::NotYetUploaded => "not_yet_uploaded",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::ServerError => "server_error",
            Self::BackedOff => "backed_off",
            Self::Busy => "busy",
            Self::Discovery => "discovery",
            Self::Forbidden => "forbidden",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::TimedOut => "timed_out",
            Self::Misbehaved => "misbehaved",
        }
    }
}

impl FetchError {
    /// Returns its class.
    pub fn result(&self) -> FetchResult {
        match self {
            Self::NotFound => FetchResult::NotFound,
            Self::NotYetUploaded => FetchResult::NotYetUploaded,
            Self::TooLarge { .. } => FetchResult::TooLarge,
            Self::Refused { status: 500.., .. } => FetchResult::ServerError,
            Self::Refused { .. } => FetchResult::Refused,
            Self::BackedOff { .. } => FetchResult::BackedOff,
            Self::TooMany => FetchResult::Busy,
            Self::Server(ServerError::Discovery { error, .. }) => match class(error) {
                FetchResult::Forbidden => FetchResult::Forbidden,
                _ => FetchResult::Discovery,
            },
            Self::Server(ServerError::Exchange { error, .. }) | Self::Location(error) => {
                class(error)
            }
            Self::Misbehaved(_) => FetchResult::Misbehaved,
        }
    }
}

fn class(error: &EgressError) -> FetchResult {
    match error {
        EgressError::Resolution { .. } | EgressError::Connect { .. } => FetchResult::Unreachable,
        EgressError::Forbidden { .. } => FetchResult::Forbidden,
        EgressError::Tls { .. } => FetchResult::Tls,
        EgressError::Unreached(_) | EgressError::TimedOut(_) => FetchResult::TimedOut,
        EgressError::TooLarge { .. } => FetchResult::TooLarge,
        EgressError::Misbehaved(_)
        | EgressError::Unsendable(_)
        | EgressError::Url(..)
        | EgressError::TooManyRedirects => FetchResult::Misbehaved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn refused(status: u16, errcode: &str) -> FetchError {
        FetchError::Refused { status, errcode: errcode.to_owned() }
    }

    #[test]
    fn refusals_say_who_has_something_to_do() {
        assert_eq!(
            refused(401, "M_UNAUTHORIZED").to_string(),
            "the server does not believe our signature or does not serve us: 401 M_UNAUTHORIZED"
        );
        assert_eq!(refused(502, "").to_string(), "the server failed: 502");
        assert_eq!(
            refused(400, "M_USER_LOCKED").to_string(),
            "the server refused: 400 M_USER_LOCKED"
        );
    }

    #[test]
    fn classes_have_names_of_their_own() {
        let names: HashSet<_> = FetchResult::ALL.iter().map(|class| class.as_str()).collect();
        assert_eq!(names.len(), FetchResult::ALL.len());
    }

    #[test]
    fn failures_are_told_apart() {
        let server = "a.example".parse().unwrap();
        let forbidden = EgressError::Forbidden { name: "a".into(), address: [10, 0, 0, 1].into() };
        let discovery = ServerError::Discovery { server, error: forbidden };
        assert_eq!(FetchError::Server(discovery).result(), FetchResult::Forbidden);
        assert_eq!(refused(403, "").result(), FetchResult::Refused);
        assert_eq!(refused(500, "").result(), FetchResult::ServerError);
        let late = FetchError::Location(EgressError::TimedOut("the answer"));
        assert_eq!(late.result(), FetchResult::TimedOut);
    }
}
