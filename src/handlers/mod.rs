//! One file for each family of endpoints: a typed request in, one call of the media service, a
//! reply out.

mod accept;
mod config;
mod create;
mod download;
mod federation;
mod preview;
mod thumbnail;
mod upload;

pub use federation::Judge;

use std::time::{Duration, Instant};

use http::{HeaderMap, Method};

use crate::auth::{AuthError, Authenticator, Credentials, Requester};
use crate::error::ApiError;
use crate::federation::ServerRules;
use crate::homeserver::{Homeserver, Sender};
use crate::limit::{RateLimit, Tab, Traffic};
use crate::media::{MediaService, NewUpload, Reader, Search};
use crate::policy::{Policy, Purpose, Terms};
use crate::response::{Conditions, Reply};
use crate::route::{Access, MediaRoute, Operation, Query};
use crate::types::{BodyReader, UserId};

/// How long a reader waits for media that is not uploaded yet, if it does not say (CS-DL-08).
const DEFAULT_WAIT: Duration = Duration::from_secs(20);

/// The longest such wait (CS-DL-09, FLD-18).
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What the handlers work with.
pub struct Services {
    /// Checks tokens.
    pub auth: Authenticator,
    /// Finds and stores media.
    pub media: MediaService,
    /// The homeserver itself, for what only it can answer.
    pub homeserver: Homeserver,
    /// How often a user may create a media id (CS-CRE-05).
    pub create_limit: RateLimit<UserId>,
    /// How often and how much anybody may ask (CS-RL-01).
    pub traffic: Traffic,
    /// What each requester may do.
    pub policy: Policy,
    /// With which servers media is exchanged.
    pub rules: ServerRules,
    /// Judges other servers' signatures; `None` to leave that to the homeserver.
    pub judge: Option<Judge>,
}

/// A media request, without the connection that it came on.
pub struct Request<'a> {
    /// The route.
    pub route: MediaRoute<'a>,
    /// The target as it came, for what is signed.
    pub raw_target: &'a [u8],
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// Where it came from.
    pub sender: Sender,
    /// What it is charged to.
    pub tab: &'a mut Tab,
}

/// What a request shows of who is asking.
struct Claim<'a> {
    headers: &'a HeaderMap,
    query: Query<'a>,
    sender: Sender,
    tab: &'a mut Tab,
}

/// Somebody who may do what they want.
struct Admitted<'s> {
    requester: Requester,
    terms: &'s Terms,
}

impl Services {
    /// Answers a media request.
    ///
    /// # Errors
    ///
    /// What the client is to be told.
    pub async fn answer(
        &self,
        request: Request<'_>,
        body: &mut dyn BodyReader,
    ) -> Result<Reply, ApiError> {
        let Request { route, raw_target, method, headers, sender, tab } = request;
        let MediaRoute { operation, query } = route;
        let claim = Claim { headers, query, sender, tab: &mut *tab };
        let client = claim.tab.client();
        let received = federation::Received { method, raw_target, headers, client };
        match operation {
            Operation::Upload => {
                let admitted = self.admit(claim, Purpose::Upload).await?;
                let upload = upload::new_upload(headers, query);
                self.begin_upload(&upload, admitted.terms, tab)?;
                upload::upload(&self.media, &admitted, upload, body).await
            }
            Operation::Create { .. } => {
                let admitted = self.admit(claim, Purpose::Upload).await?;
                create::create(&self.media, &self.create_limit, &admitted, body).await
            }
            Operation::UploadTo { mxc, .. } => {
                let admitted = self.admit(claim, Purpose::Upload).await?;
                let upload = upload::new_upload(headers, query);
                self.begin_upload(&upload, admitted.terms, tab)?;
                upload::upload_to(&self.media, &admitted, &mxc, upload, body).await
            }
            Operation::Download { mxc, filename, access } => {
                let requester = self.admit_reader(access, claim).await?;
                let reader = reader(requester.as_ref());
                let conditions = Conditions::of(method, headers);
                download::download(&self.media, reader, access, &mxc, filename, &conditions, query)
                    .await
            }
            Operation::Thumbnail { mxc, access } => {
                let requester = self.admit_reader(access, claim).await?;
                let reader = reader(requester.as_ref());
                let conditions = Conditions::of(method, headers);
                let received = thumbnail::Received { headers, conditions: &conditions, query };
                thumbnail::thumbnail(&self.media, reader, access, &mxc, received).await
            }
            Operation::Config => {
                let admitted = self.admit(claim, Purpose::Ask).await?;
                Ok(config::config(admitted.terms))
            }
            Operation::PreviewUrl => {
                let admitted = self.admit(claim, Purpose::Ask).await?;
                preview::preview_url(&self.homeserver, &admitted.requester, query).await
            }
            Operation::FederationDownload { media_id } => {
                let download = federation::Ask::Download { media_id };
                federation::answer(self, download, received).await
            }
            Operation::FederationThumbnail { media_id } => {
                let request = thumbnail::parse(query);
                let thumbnail = federation::Ask::Thumbnail { media_id, request };
                federation::answer(self, thumbnail, received).await
            }
        }
    }

    /// Finds out who is asking, and whether they may. Nothing is looked up before this has succeeded.
    async fn admit(&self, claim: Claim<'_>, purpose: Purpose) -> Result<Admitted<'_>, ApiError> {
        let Claim { headers, query, sender, tab } = claim;
        let credentials =
            Credentials::find(headers, |name| query.get(name)).map_err(AuthError::from)?;
        let requester = self.auth.check(credentials, sender).await?;
        let terms = self.policy.terms(requester.user_id());
        if terms.is_rate_limited {
            self.traffic.admit(tab, requester.user_id(), Instant::now())?;
        } else {
            self.traffic.exempt(tab, Instant::now());
        }
        self.policy.check(&requester, terms, purpose)?;
        if purpose == Purpose::Upload {
            self.auth.check_may_upload(&requester).await?;
        }
        Ok(Admitted { requester, terms })
    }

    /// As [`admit`](Self::admit) for whoever wants to read, except that the legacy routes ask nobody
    /// (CS-DL-01).
    async fn admit_reader(
        &self,
        access: Access,
        claim: Claim<'_>,
    ) -> Result<Option<Requester>, ApiError> {
        match access {
            Access::Authenticated => Ok(Some(self.admit(claim, Purpose::Read).await?.requester)),
            Access::Legacy => Ok(None),
        }
    }

    /// Looks whether an upload may begin, and charges what it announces, before a byte is read.
    fn begin_upload(
        &self,
        upload: &NewUpload,
        terms: &Terms,
        tab: &mut Tab,
    ) -> Result<(), ApiError> {
        self.policy.check_type(&upload.content_type)?;
        match upload.announced_size {
            Some(size) if size <= terms.allowance.max_bytes => {
                Ok(self.traffic.charge(tab, size, Instant::now())?)
            }
            // What is too large is refused, and what is not announced is charged at its end.
            Some(_) | None => Ok(()),
        }
    }
}

fn reader(requester: Option<&Requester>) -> Reader<'_> {
    requester.map_or(Reader::Anybody, Reader::Requester)
}

/// Reads how media may be looked for: `timeout_ms` (CS-DL-08, CS-DL-09) and, on the legacy routes,
/// `allow_remote` (CS-DL-04, CS-DL-05) and `allow_redirect` (CS-DL-06, CS-DL-07).
fn search(access: Access, query: Query<'_>) -> Search {
    let wait = query
        .get("timeout_ms")
        .or_else(|| query.get("fi.mau.msc2246.timeout_ms"))
        .and_then(|text| text.parse().ok())
        .map_or(DEFAULT_WAIT, Duration::from_millis)
        .min(MAX_WAIT);
    let allow_remote = access == Access::Authenticated
        || query.get("allow_remote").is_none_or(|value| value != "false");
    let allow_redirect = access == Access::Authenticated
        || query
            .get("allow_redirect")
            .or_else(|| query.get("com.beeper.msc3860.allow_redirect"))
            .is_some_and(|value| value == "true");
    Search { wait, allow_remote, allow_redirect }
}

fn invalid(name: &'static str, expected: &'static str) -> ApiError {
    ApiError::InvalidParameter { name, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CS-DL-04, CS-DL-05, CS-DL-06, CS-DL-07, CS-PATH-07
    #[test]
    fn what_is_allowed_is_said_in_one_word() {
        for (query, allow_remote, allow_redirect) in [
            ("", true, false),
            ("allow_remote=false", false, false),
            ("allow_remote=False", true, false),
            ("allow_remote=true&allow_remote=false", true, false),
            ("allow_redirect=true", true, true),
            ("allow_redirect=True", true, false),
            ("allow_redirect=1", true, false),
            ("allow_redirect", true, false),
            ("com.beeper.msc3860.allow_redirect=true", true, true),
            ("com.beeper.msc3860.allow_redirect=yes", true, false),
            ("allow_redirect=false&com.beeper.msc3860.allow_redirect=true", true, false),
        ] {
            let legacy = search(Access::Legacy, Query::new(query.as_bytes()));
            let read = (legacy.allow_remote, legacy.allow_redirect);
            assert_eq!(read, (allow_remote, allow_redirect), "{query}");
            let current = search(Access::Authenticated, Query::new(query.as_bytes()));
            assert!(current.allow_remote && current.allow_redirect, "{query}");
        }
    }

    fn wait(query: &str) -> Duration {
        search(Access::Authenticated, Query::new(query.as_bytes())).wait
    }

    /// CS-DL-08, CS-DL-09
    #[test]
    fn a_reader_waits_as_long_as_it_says_but_not_longer_than_allowed() {
        for (query, millis) in [
            ("timeout_ms=0", 0),
            ("timeout_ms=1", 1),
            ("timeout_ms=59999", 59_999),
            ("timeout_ms=60000", 60_000),
            ("timeout_ms=60001", 60_000),
            ("timeout_ms=18446744073709551615", 60_000),
            ("fi.mau.msc2246.timeout_ms=5", 5),
            ("fi.mau.msc2246.timeout_ms=99999999", 60_000),
            ("fi.mau.msc2246.timeout_ms=5&timeout_ms=7", 7),
        ] {
            assert_eq!(wait(query), Duration::from_millis(millis), "{query}");
        }
    }

    /// CS-DL-08
    #[test]
    fn a_wait_that_makes_no_sense_or_is_not_named_is_the_default() {
        for text in ["", "x", "-1", "0.5", "1e3", "%20", "18446744073709551616"] {
            assert_eq!(wait(&format!("timeout_ms={text}")), DEFAULT_WAIT, "{text}");
            assert_eq!(wait(&format!("fi.mau.msc2246.timeout_ms={text}")), DEFAULT_WAIT, "{text}");
        }
        for query in ["", "timeout=0", "Timeout_ms=0", "timeout_ms"] {
            assert_eq!(wait(query), DEFAULT_WAIT, "{query}");
        }
    }
}
