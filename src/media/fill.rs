//! The miss path: what Mediary does not hold is read through from the homeserver and kept.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::{Freeze, MediaBody, MediaError, MediaItem, MediaService, Reader, Search};
use crate::homeserver::{HomeserverError, Response, ResponseBody, read_refusal};
use crate::store::{MediaSource, NewMedia, Staging, Store, StoreError};
use crate::types::{BodyError, BodyReader, ContentType, FileName, Mxc, UnixMillis};

impl MediaService {
    /// Fetches media from the homeserver with the reader's own token; the body is kept as it
    /// passes.
    pub(super) async fn fill(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<MediaItem, MediaError> {
        let response = self.ask_homeserver(reader, mxc, search).await?;
        let is_local = mxc.server_name == *self.homeserver.name()?;
        // The homeserver's own media was let in by its own limit.
        let limit = if is_local { u64::MAX } else { self.limits.max_remote_bytes };
        let size = response.content_length();
        if size.is_some_and(|size| size > limit) {
            return Err(MediaError::RemoteTooLarge { limit });
        }
        let media = NewMedia {
            mxc: mxc.clone(),
            content_type: ContentType::from_header(field(&response.headers, &header::CONTENT_TYPE)),
            filename: field(&response.headers, &header::CONTENT_DISPOSITION)
                .and_then(FileName::from_content_disposition),
            uploader: None,
            source: if is_local { MediaSource::Upstream } else { MediaSource::Remote },
            created_at: UnixMillis::now(),
            // Only what the homeserver's own freeze has let through; an operator who opens the legacy
            // routes for a while does not open them for good.
            legacy_readable: matches!((reader, self.freeze), (Reader::Anybody, Freeze::Since(_))),
        };
        self.metrics.media_sources.homeserver.inc();
        let staging = match self.store.stage().await {
            Ok(staging) if response.is_delimited() => Some(staging),
            Ok(_) => None,
            Err(error) => {
                not_kept(mxc, &error);
                None
            }
        };
        let content_type = media.content_type.clone();
        let filename = media.filename.clone();
        let mut filling = Filling {
            body: response.body,
            received: 0,
            size,
            limit,
            keep: staging.map(|staging| Keep { staging, media, store: self.store.clone() }),
        };
        filling.keep_if_whole().await;
        let body = MediaBody::Arriving { body: Box::new(filling), size };
        Ok(MediaItem { content_type, filename, content_hash: None, body })
    }

    /// Whether the homeserver itself shows this media to anybody.
    pub(super) async fn is_open_upstream(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
    ) -> Result<bool, MediaError> {
        let search = Search { wait: Duration::ZERO, allow_remote: false };
        match self.ask_homeserver(reader, mxc, search).await {
            Ok(_) => Ok(true),
            Err(MediaError::NotFound | MediaError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn ask_homeserver(
        &self,
        reader: Reader<'_>,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Response, MediaError> {
        let path = format!("download/{}/{}", mxc.server_name, mxc.media_id);
        let timeout = format!("timeout_ms={}", search.wait.as_millis());
        let legacy = format!("/_matrix/media/v3/{path}");
        match reader {
            Reader::Requester(requester) => {
                let token = Some((requester.token(), requester.sender()));
                let current = format!("/_matrix/client/v1/media/{path}?{timeout}");
                let answer = self.homeserver.media(&current, token, search.wait).await?;
                match judge(answer).await {
                    Err(MediaError::Refused(refusal)) if refusal.is_unrecognized() => {
                        let target = format!("{legacy}?{timeout}");
                        judge(self.homeserver.media(&target, token, search.wait).await?).await
                    }
                    outcome => outcome,
                }
                .map_err(not_found_in_other_words)
            }
            Reader::Anybody if self.freeze.asks_for_anybody() => {
                // Never a fetch from another server for a caller without a token (CS-FRZ-06),
                // unless the operator has opened the legacy routes.
                let allow_remote = search.allow_remote && self.freeze == Freeze::Open;
                let target = format!("{legacy}?allow_remote={allow_remote}&{timeout}");
                let answer = self.homeserver.media(&target, None, search.wait).await?;
                judge(answer).await.map_err(not_found_in_other_words)
            }
            Reader::Anybody | Reader::Origin => Err(MediaError::NotFound),
        }
    }
}

/// Sorts an answer of the homeserver: media, its refusal, or nothing usable.
async fn judge(response: Response) -> Result<Response, MediaError> {
    match response.status {
        StatusCode::OK => Ok(response),
        status if status.is_client_error() || status.is_server_error() => {
            Err(MediaError::Refused(read_refusal(response).await?))
        }
        status => Err(HomeserverError::Misbehaved(format!("status {status} for media")).into()),
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

fn field<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}

fn not_kept(mxc: &Mxc, error: &StoreError) {
    tracing::warn!(%mxc, %error, "media passes through without being kept");
}

/// A body on its way from the homeserver to a client, written down as it passes.
///
/// What cannot be written is still passed on. The record is made before the end is shown, so that
/// whoever has read the whole body finds it kept.
struct Filling {
    body: ResponseBody,
    received: u64,
    size: Option<u64>,
    limit: u64,
    keep: Option<Keep>,
}

struct Keep {
    staging: Staging,
    media: NewMedia,
    store: Store,
}

impl Filling {
    async fn keep(&mut self) {
        if let Some(keep) = self.keep.take() {
            keep.commit().await;
        }
    }

    /// A client that was told the size does not wait for the end to be shown.
    async fn keep_if_whole(&mut self) {
        if self.size == Some(self.received) {
            self.keep().await;
        }
    }
}

#[async_trait]
impl BodyReader for Filling {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Some(chunk) = self.body.next().await? else {
            self.keep().await;
            return Ok(None);
        };
        self.received += chunk.len() as u64;
        if self.received > self.limit {
            self.keep = None;
            return Err(BodyError::TooLarge { limit: self.limit });
        }
        if let Some(keep) = &mut self.keep
            && let Err(error) = keep.staging.write(&chunk).await
        {
            not_kept(&keep.media.mxc, &error);
            self.keep = None;
        }
        self.keep_if_whole().await;
        Ok(Some(chunk))
    }
}

impl Keep {
    async fn commit(self) {
        let mxc = self.media.mxc.clone();
        match self.store.commit_media(self.staging, self.media).await {
            // Somebody else fetched the same media at the same time and was first.
            Ok(_) | Err(StoreError::AlreadyExists(_)) => {}
            Err(error) => not_kept(&mxc, &error),
        }
    }
}
