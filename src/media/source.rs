//! Asking the homeserver for media that Mediary does not hold.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header};

use super::share::Sharer;
use super::{Freeze, MediaBody, MediaError, MediaItem, Reader, Search};
use crate::auth::Requester;
use crate::homeserver::{
    Caller, Homeserver, HomeserverError, Refusal, Response, ResponseBody, Sender, read_refusal,
};
use crate::store::MediaRecord;
use crate::types::{AccessToken, BodyError, BodyReader, ContentType, FileName, Mxc};

/// In whose name the homeserver is asked.
#[derive(Clone)]
pub(super) enum Asker {
    /// With somebody's own token.
    Requester(Requester),
    /// Without one, by the legacy routes.
    Anybody,
}

impl Asker {
    /// Returns whom the answer is for.
    fn reader(&self) -> Reader<'_> {
        match self {
            Self::Requester(requester) => Reader::Requester(requester),
            Self::Anybody => Reader::Anybody,
        }
    }

    /// Returns whose share of the places is taken.
    pub(super) fn sharer(&self) -> Sharer {
        match self {
            Self::Requester(requester) => Some(requester.user_id().clone()),
            Self::Anybody => None,
        }
    }
}

/// A good answer about media.
pub(super) struct Answer {
    /// The head, with the body still to come.
    pub(super) response: Response,
    /// Whether it shows that anybody may read the media for good.
    pub(super) proves_legacy_readable: bool,
}

/// The homeserver as a source of media.
#[derive(Clone)]
pub(super) struct Source {
    homeserver: Homeserver,
    freeze: Freeze,
    admin_token: Option<AccessToken>,
}

impl Source {
    /// With an administrator's token icons are found that the homeserver shows to nobody else.
    pub(super) fn new(
        homeserver: Homeserver,
        freeze: Freeze,
        admin_token: Option<AccessToken>,
    ) -> Self {
        Self { homeserver, freeze, admin_token }
    }

    /// Whether the homeserver is asked for this media on behalf of this asker at all.
    ///
    /// # Errors
    ///
    /// [`MediaError::Homeserver`] as long as it is not known whose media is local.
    pub(super) fn answers(&self, asker: &Asker, mxc: &Mxc) -> Result<bool, MediaError> {
        match asker {
            Asker::Requester(_) => Ok(true),
            Asker::Anybody => Ok(self.freeze.asks_for_anybody(mxc, self.is_local(mxc)?)),
        }
    }

    /// Returns what of a search the homeserver is told. For a caller without a token other servers
    /// are never asked (CS-FRZ-06), unless it is for an icon or the operator has opened the legacy
    /// routes; nor does anybody wait for what would be frozen once it is uploaded.
    pub(super) fn asked_for(&self, asker: &Asker, mxc: &Mxc, search: Search) -> Search {
        let is_anybody = matches!(asker, Asker::Anybody);
        let may_ask_others = !is_anybody || self.freeze.fetches_for_anybody(mxc);
        let allow_remote = search.allow_remote && may_ask_others;
        let waits = !is_anybody || self.freeze.waits_for_anybody();
        let wait = if waits { search.wait } else { Duration::ZERO };
        Search { wait, allow_remote, ..search }
    }

    /// Whether an asker may see media that is kept.
    pub(super) fn shows(&self, asker: &Asker, record: &MediaRecord) -> bool {
        self.freeze.shows(record, asker.reader())
    }

    /// Returns how long the head of an answer may take, beside the wait that was asked for. Whoever
    /// leads is told by the request itself; an old homeserver is asked twice. Whoever joins may have
    /// less time than the one who leads.
    pub(super) fn patience(&self, leads: bool) -> Duration {
        let timeout = self.homeserver.timeout();
        if leads { 3 * timeout } else { timeout }
    }

    /// Whether media is the homeserver's own users'.
    pub(super) fn is_local(&self, mxc: &Mxc) -> Result<bool, MediaError> {
        Ok(mxc.server_name == *self.homeserver.name()?)
    }

    /// Returns how large media may be: the homeserver's own was let in by its own limit.
    pub(super) fn limit(&self, mxc: &Mxc, max_remote_bytes: u64) -> Result<u64, MediaError> {
        Ok(if self.is_local(mxc)? { u64::MAX } else { max_remote_bytes })
    }

    /// Asks for media and returns the answer with its body still to come.
    ///
    /// # Errors
    ///
    /// [`MediaError::NotFound`] also where this asker may not ask at all.
    pub(super) async fn ask(
        &self,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Answer, MediaError> {
        let search = self.asked_for(asker, mxc, search);
        if let Asker::Requester(requester) = asker {
            let response = self.ask_for_caller(requester.caller(), mxc, search).await?;
            return Ok(Answer { response, proves_legacy_readable: false });
        }
        if !self.answers(asker, mxc)? {
            return Err(MediaError::NotFound);
        }
        let proves_legacy_readable = self.freeze.is_proven_by_answer(mxc, self.is_local(mxc)?);
        match self.ask_for_anybody(mxc, search).await {
            Err(MediaError::NotFound) => {
                let response = self.ask_for_exempt(mxc, search).await?;
                Ok(Answer { response, proves_legacy_readable: false })
            }
            outcome => outcome.map(|response| Answer { response, proves_legacy_readable }),
        }
    }

    /// Asks in the name of an administrator for an icon that the homeserver does not show to anybody.
    /// What it says to the administrator is nobody else's business.
    async fn ask_for_exempt(&self, mxc: &Mxc, search: Search) -> Result<Response, MediaError> {
        let may_be_fetched = search.allow_remote || self.is_local(mxc)?;
        let token = self.admin_token.as_ref();
        let token = token.filter(|_| may_be_fetched && self.freeze.exempt().contains(mxc));
        let token = token.ok_or(MediaError::NotFound)?;
        let sender = Sender::default();
        let admin = Caller::of_token(token, &sender);
        self.ask_for_caller(admin, mxc, search).await.map_err(|error| match error {
            MediaError::Refused(_) => MediaError::NotFound,
            error => error,
        })
    }

    async fn ask_for_caller(
        &self,
        caller: Caller<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Response, MediaError> {
        let question = format!("{}?timeout_ms={}", path(mxc), search.wait.as_millis());
        let current = format!("/_matrix/client/v1/media/{question}");
        let answer = self.homeserver.media(&current, Some(caller), search.wait).await?;
        match judge(answer, search).await {
            Err(MediaError::Refused(refusal)) if refusal.is_unrecognized() => {
                let legacy = format!("/_matrix/media/v3/{question}");
                let answer = self.homeserver.media(&legacy, Some(caller), search.wait).await?;
                judge(answer, search).await
            }
            outcome => outcome,
        }
        .map_err(not_found_in_other_words)
    }

    async fn ask_for_anybody(&self, mxc: &Mxc, search: Search) -> Result<Response, MediaError> {
        let Search { wait, allow_remote, allow_redirect } = search;
        let redirect = if allow_redirect { "&allow_redirect=true" } else { "" };
        let target = format!(
            "/_matrix/media/v3/{}?allow_remote={allow_remote}&timeout_ms={}{redirect}",
            path(mxc),
            wait.as_millis()
        );
        let answer = self.homeserver.media(&target, None, wait).await?;
        let outcome = judge(answer, search).await.map_err(not_found_in_other_words);
        outcome.map_err(|error| self.in_words_for_anybody(error))
    }

    /// Tells nobody without a token that media is expected which will be frozen.
    fn in_words_for_anybody(&self, error: MediaError) -> MediaError {
        match &error {
            MediaError::Refused(refusal)
                if refusal.status == StatusCode::GATEWAY_TIMEOUT
                    && !self.freeze.waits_for_anybody() =>
            {
                MediaError::NotFound
            }
            _ => error,
        }
    }

    /// Reads media through for one reader alone, where it cannot be kept.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask), and [`MediaError::RemoteTooLarge`] if it says so.
    pub(super) async fn relay(
        &self,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
        max_remote_bytes: u64,
    ) -> Result<MediaItem, MediaError> {
        let Answer { response: answer, .. } = self.ask(asker, mxc, search).await?;
        let limit = self.limit(mxc, max_remote_bytes)?;
        let size = answer.content_length();
        if size.is_some_and(|size| size > limit) {
            return Err(MediaError::RemoteTooLarge { limit });
        }
        Ok(MediaItem {
            content_type: ContentType::from_header(answer.field(&header::CONTENT_TYPE)),
            filename: answer
                .field(&header::CONTENT_DISPOSITION)
                .and_then(FileName::from_content_disposition),
            content_hash: None,
            body: MediaBody::Relayed {
                body: Box::new(Capped { body: answer.body, left: limit, limit }),
                size,
            },
        })
    }
}

/// Returns the end of the path that media is asked for by.
fn path(mxc: &Mxc) -> String {
    format!("download/{}/{}", mxc.server_name, mxc.media_id)
}

/// Sorts an answer of the homeserver: media, its refusal, where else to look, or nothing usable.
async fn judge(response: Response, search: Search) -> Result<Response, MediaError> {
    let coding = response.field(&header::CONTENT_ENCODING).unwrap_or(b"identity");
    if response.status == StatusCode::OK && !coding.eq_ignore_ascii_case(b"identity") {
        let what = "media in a coding that was not asked for".to_owned();
        return Err(HomeserverError::Misbehaved(what).into());
    }
    let elsewhere = Refusal::elsewhere(&response).filter(|_| search.allow_redirect);
    match response.status {
        StatusCode::OK => Ok(response),
        status if status.is_client_error() || status.is_server_error() => {
            Err(MediaError::Refused(read_refusal(response).await?))
        }
        status => Err(elsewhere.map_or_else(
            || HomeserverError::Misbehaved(format!("status {status} for media")).into(),
            MediaError::Refused,
        )),
    }
}

/// Homeservers say "no such media" in several ways: 404 with any code, and 400 `M_UNKNOWN` from
/// some of the Conduit family.
fn not_found_in_other_words(error: MediaError) -> MediaError {
    let MediaError::Refused(refusal) = &error else { return error };
    let is_missing = refusal.status == StatusCode::NOT_FOUND
        || (refusal.status == StatusCode::BAD_REQUEST
            && refusal.errcode().as_deref() == Some("M_UNKNOWN"));
    if is_missing { MediaError::NotFound } else { error }
}

/// A body that breaks off at the first byte past a limit.
struct Capped {
    body: ResponseBody,
    left: u64,
    limit: u64,
}

#[async_trait]
impl BodyReader for Capped {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Some(chunk) = self.body.next().await? else { return Ok(None) };
        self.left = self
            .left
            .checked_sub(chunk.len() as u64)
            .ok_or(BodyError::TooLarge { limit: self.limit })?;
        Ok(Some(chunk))
    }
}
