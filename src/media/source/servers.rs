//! What other servers are asked: only who may be, only with a key, and each with our signature.

use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Giver};
use http::{HeaderValue, Method};

use crate::federation::{
    FetchError, FetchOptions, FetchPlace, FetchResult, RemoteFetcher, RemoteMedia, ServerRules,
    SigningKey,
};
use crate::media::Search;
use crate::metrics::Metrics;
use crate::types::{Mxc, ServerName};

/// Other servers as sources of media. Clones share what is known of them.
#[derive(Clone, Default)]
pub struct OtherServers {
    /// Whose media may be had at all, in whatever way.
    pub rules: ServerRules,
    /// What asks them; `None` to leave that to the homeserver, which has the key (FM-C-11).
    pub direct: Option<Direct>,
}

/// Asking them ourselves.
#[derive(Clone)]
pub struct Direct {
    /// What asks them.
    pub fetcher: RemoteFetcher,
    /// What signs, for the homeserver too.
    pub key: Arc<SigningKey>,
    /// How long an answer may take to begin.
    pub timeout: Duration,
    /// Whether the homeserver is asked for what a server does not give.
    pub ask_homeserver: bool,
    /// Where answers are counted.
    pub metrics: Arc<Metrics>,
}

impl OtherServers {
    /// Waits for a place among the fetches of the server that made the media; `None` without a key.
    ///
    /// # Errors
    ///
    /// Why the server is not to be asked now.
    pub(super) async fn enter(&self, mxc: &Mxc) -> Result<Option<FetchPlace>, FetchError> {
        let Some(direct) = &self.direct else { return Ok(None) };
        let place = direct.fetcher.enter(&mxc.server_name).await;
        place.map(Some).inspect_err(|error| direct.note(mxc, error))
    }

    /// Asks the server that made the media. `origin` is who we are.
    ///
    /// # Errors
    ///
    /// Why it gave nothing, which the log says too.
    pub(super) async fn ask(
        &self,
        place: FetchPlace,
        origin: &ServerName,
        mxc: &Mxc,
        search: Search,
        limit: u64,
    ) -> Result<Answer, FetchError> {
        // Nobody has a place without a key.
        let direct = self.direct.as_ref().ok_or(FetchError::NotFound)?;
        let options = FetchOptions { wait: search.wait, max_size: limit };
        let outcome = direct.fetcher.fetch(place, origin, mxc, options).await;
        let media = outcome.inspect_err(|error| direct.note(mxc, error))?;
        direct.metrics.remote_fetch(FetchResult::Ok.as_str());
        Ok(answer(media))
    }

    /// Signs a GET of a target from one server to another; `None` without a key.
    pub(super) fn sign(
        &self,
        origin: &ServerName,
        destination: &ServerName,
        target: &str,
    ) -> Option<HeaderValue> {
        let direct = self.direct.as_ref()?;
        Some(direct.key.authorization(origin, destination, &Method::GET, target))
    }

    /// Returns how much longer than for the homeserver an answer may take.
    pub(super) fn patience(&self) -> Duration {
        self.direct.as_ref().map_or(Duration::ZERO, |direct| direct.timeout)
    }

    /// Whether the homeserver may have a copy of what a server did not give.
    pub(super) fn may_be_at_homeserver(&self, failure: &FetchError) -> bool {
        let asks = self.direct.as_ref().is_some_and(|direct| direct.ask_homeserver);
        asks && match failure {
            // It is there, but not for us, or not yet.
            FetchError::NotYetUploaded | FetchError::TooLarge { .. } | FetchError::TooMany => false,
            FetchError::NotFound
            | FetchError::Refused { .. }
            | FetchError::BackedOff { .. }
            | FetchError::Server(_)
            | FetchError::Location(_)
            | FetchError::Misbehaved(_) => true,
        }
    }
}

fn answer(media: RemoteMedia) -> Answer {
    let RemoteMedia { content_type, filename, size, at_most, body } = media;
    Answer {
        content_type,
        filename,
        size,
        at_most,
        // What does not say where it ends is no answer of another server.
        is_delimited: true,
        body: Box::new(body),
        giver: Giver::Server,
        proves_legacy_readable: false,
    }
}

impl Direct {
    /// Counts a failure, and says in the log why it was one.
    fn note(&self, mxc: &Mxc, error: &FetchError) {
        self.metrics.remote_fetch(error.result().as_str());
        match error {
            // Nothing is wrong, or it was said when it went wrong.
            FetchError::NotFound | FetchError::NotYetUploaded | FetchError::BackedOff { .. } => {
                tracing::debug!(%mxc, %error, "media was not had from its server");
            }
            _ => tracing::warn!(%mxc, %error, "media could not be had from its server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::FETCH_RESULTS;

    #[test]
    fn everything_that_comes_of_a_fetch_is_counted() {
        assert_eq!(FetchResult::ALL.map(FetchResult::as_str), *FETCH_RESULTS);
    }
}
