//! What the homeserver is asked: by its client routes with a token, by its legacy routes without one,
//! and by its federation routes with a signature.

use http::{StatusCode, header};

use super::{Answer, Asker, Giver, SignedRequest, Signer, Source};
use crate::federation::download_target;
use crate::federation::multipart::{Boundary, SecondPart};
use crate::homeserver::{Caller, HomeserverError, Refusal, Response, Sender, read_refusal};
use crate::media::{MediaError, Search};
use crate::types::{ContentType, FileName, Mxc};

impl Source {
    /// Asks the homeserver in the asker's own way.
    ///
    /// # Errors
    ///
    /// [`MediaError::NotFound`] in whatever words it says so, otherwise its refusal.
    pub(super) async fn ask_homeserver(
        &self,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Answer, MediaError> {
        let response = match asker {
            Asker::Requester(requester) => {
                self.ask_for_caller(requester.caller(), mxc, search).await?
            }
            Asker::Origin(request) => return self.ask_for_origin(request, mxc, search).await,
            Asker::Anybody => match self.ask_for_anybody(mxc, search).await {
                Err(MediaError::NotFound) => self.ask_for_exempt(mxc, search).await?,
                outcome => {
                    let proven = self.freeze.is_proven_by_answer(mxc, self.is_local(mxc)?);
                    return Ok(Answer { proves_legacy_readable: proven, ..answer(outcome?) });
                }
            },
        };
        Ok(answer(response))
    }

    /// Asks by the federation route for media of the homeserver's own: with another server's signature,
    /// or for what a thumbnail is made of with ours, in the homeserver's own name.
    async fn ask_for_origin(
        &self,
        request: &SignedRequest,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Answer, MediaError> {
        let answer = match request.signer {
            Signer::Origin => {
                let (target, signatures) = (&request.target, &request.authorization);
                self.homeserver.federation(target, signatures, search.wait).await?
            }
            Signer::Ourselves => {
                let target = download_target(&mxc.media_id, search.wait);
                let us = self.homeserver.name()?;
                let signature = self.servers.sign(us, us, &target).ok_or(MediaError::NotFound)?;
                self.homeserver.federation(target.as_bytes(), &[signature], search.wait).await?
            }
        };
        let search = Search { allow_redirect: false, ..search };
        let outcome = judge(answer, search).await.map_err(not_found_in_other_words);
        match outcome {
            // That is no matter of whoever asks us.
            Err(MediaError::Refused(refusal))
                if request.signer == Signer::Ourselves && is_disbelief(&refusal) =>
            {
                Err(MediaError::Disbelieved)
            }
            outcome => second_part(outcome?).await,
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
}

/// Takes a good answer of the homeserver's client routes.
fn answer(response: Response) -> Answer {
    Answer {
        content_type: ContentType::from_header(response.field(&header::CONTENT_TYPE)),
        filename: response
            .field(&header::CONTENT_DISPOSITION)
            .and_then(FileName::from_content_disposition),
        size: response.content_length(),
        at_most: None,
        is_delimited: response.is_delimited(),
        body: Box::new(response.body),
        giver: Giver::Homeserver,
        proves_legacy_readable: false,
    }
}

fn is_disbelief(refusal: &Refusal) -> bool {
    matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Takes the media out of an answer of the homeserver's federation routes.
async fn second_part(response: Response) -> Result<Answer, MediaError> {
    let misbehaved = |what: String| MediaError::from(HomeserverError::Misbehaved(what));
    let content_type = response.field(&header::CONTENT_TYPE).unwrap_or_default();
    let boundary =
        Boundary::from_content_type(content_type).map_err(|error| misbehaved(error.to_string()))?;
    let size = response.content_length();
    let opened = SecondPart::open(&boundary, response.body).await;
    let (head, body) = opened.map_err(|error| misbehaved(error.to_string()))?;
    if head.location.is_some() {
        return Err(misbehaved("its own media is said to be elsewhere".to_owned()));
    }
    Ok(Answer {
        content_type: ContentType::from_header(head.content_type.as_deref()),
        filename: head.content_disposition.as_deref().and_then(FileName::from_content_disposition),
        size: None,
        at_most: size.map(|size| body.size_within(size).1),
        // The last boundary is its end.
        is_delimited: true,
        body: Box::new(body),
        giver: Giver::Homeserver,
        proves_legacy_readable: false,
    })
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
