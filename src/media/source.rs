//! Asking for media that Mediary does not hold: the homeserver, or the server that made it.

mod homeserver;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;

use super::failure::instead_of;
use super::share::Sharer;
use super::{Freeze, MediaBody, MediaError, MediaItem, Reader, Search};
use crate::auth::{Origin, Requester};
use crate::federation::{FetchError, FetchPlace};
use crate::homeserver::Homeserver;
use crate::store::MediaRecord;
use crate::types::{AccessToken, BodyError, BodyReader, ContentType, FileName, Mxc};

pub use servers::{Direct, OtherServers};

/// In whose name media is asked for.
#[derive(Clone)]
pub(super) enum Asker {
    /// With somebody's own token.
    Requester(Requester),
    /// Without one, by the legacy routes.
    Anybody,
    /// For another server, for our own media only.
    Origin(SignedRequest),
}

impl Asker {
    /// Returns whom the answer is for.
    fn reader(&self) -> Reader<'_> {
        match self {
            Self::Requester(requester) => Reader::Requester(requester),
            Self::Anybody => Reader::Anybody,
            Self::Origin(request) => Reader::Origin(Some(request)),
        }
    }

    /// Returns whose share of the places is taken.
    pub(super) fn sharer(&self) -> Sharer {
        match self {
            Self::Requester(requester) => Sharer::User(requester.user_id().clone()),
            Self::Anybody => Sharer::Anybody,
            Self::Origin(request) => Sharer::Server(request.origin.server_name().clone()),
        }
    }
}

/// Another server's request for media of ours, whose signature was found good here. The homeserver
/// is shown it unchanged, so that it finds it good too.
#[derive(Debug, Clone)]
pub struct SignedRequest {
    /// Who has signed.
    pub origin: Origin,
    /// With whose signature the homeserver is asked.
    pub signer: Signer,
    /// The target, byte for byte.
    pub target: Bytes,
    /// All values of `Authorization`.
    pub authorization: Arc<[HeaderValue]>,
}

/// With whose signature the homeserver is asked for media of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// The other server's: its request asks for the media itself, and goes on unchanged.
    Origin,
    /// Our own: the request asks for something that is made of the media.
    Ourselves,
}

/// Who is to be asked.
pub(super) enum Road {
    /// The homeserver, maybe in the place of a server that has failed.
    Homeserver(Option<FetchError>),
    /// The server that made the media, with a place among the fetches of its media.
    Server(FetchPlace),
}

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Giver {
    /// The homeserver.
    Homeserver,
    /// The server that made the media.
    Server,
}

/// A good answer about media.
pub(super) struct Answer {
    /// What the media is said to be.
    pub(super) content_type: ContentType,
    /// What it is called.
    pub(super) filename: Option<FileName>,
    /// The size of the body in bytes, if it is announced.
    pub(super) size: Option<u64>,
    /// A bound on the size, where that alone is known.
    pub(super) at_most: Option<u64>,
    /// Whether the end of the body can be told from a connection that broke.
    pub(super) is_delimited: bool,
    /// The body, still to come.
    pub(super) body: Box<dyn BodyReader>,
    /// Who gave it.
    pub(super) giver: Giver,
    /// Whether it shows that anybody may read the media for good.
    pub(super) proves_legacy_readable: bool,
}

/// Where media comes from that is not kept.
#[derive(Clone)]
pub(super) struct Source {
    homeserver: Homeserver,
    servers: OtherServers,
    freeze: Freeze,
    admin_token: Option<AccessToken>,
}

impl Source {
    /// With an administrator's token icons are found that the homeserver shows to nobody else.
    pub(super) fn new(
        homeserver: Homeserver,
        servers: OtherServers,
        freeze: Freeze,
        admin_token: Option<AccessToken>,
    ) -> Self {
        Self { homeserver, servers, freeze, admin_token }
    }

    /// Whether anybody is asked for this media on behalf of this asker at all.
    ///
    /// # Errors
    ///
    /// [`MediaError::Homeserver`] as long as it is not known whose media is local.
    pub(super) fn answers(&self, asker: &Asker, mxc: &Mxc) -> Result<bool, MediaError> {
        let is_local = self.is_local(mxc)?;
        Ok(match asker {
            Asker::Requester(_) => true,
            Asker::Anybody => self.freeze.asks_for_anybody(mxc, is_local),
            // Never for a third server (FM-S-02, threats FE-14).
            Asker::Origin(_) => is_local,
        })
    }

    /// Returns what of a search others are told. For a caller without a token other servers are never
    /// asked (CS-FRZ-06), unless it is for an icon or the operator has opened the legacy routes; nor
    /// does anybody wait for what would be frozen once it is uploaded.
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
        self.servers.patience() + if leads { 3 * timeout } else { timeout }
    }

    /// Whether other servers are asked here, and not by the homeserver.
    pub(super) fn asks_servers(&self) -> bool {
        self.servers.direct.is_some()
    }

    /// Whether media is the homeserver's own users'.
    pub(super) fn is_local(&self, mxc: &Mxc) -> Result<bool, MediaError> {
        Ok(mxc.server_name == *self.homeserver.name()?)
    }

    /// Returns how large media may be: the homeserver's own was let in by its own limit.
    pub(super) fn limit(&self, mxc: &Mxc, max_remote_bytes: u64) -> Result<u64, MediaError> {
        Ok(if self.is_local(mxc)? { u64::MAX } else { max_remote_bytes })
    }

    /// Finds out who is to be asked, and waits for a place among the fetches of another server's media.
    ///
    /// # Errors
    ///
    /// [`MediaError::NotFound`] where this asker may not ask at all, [`MediaError::Server`] if the
    /// server is not to be asked now and the homeserver is not either.
    pub(super) async fn road(
        &self,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Road, MediaError> {
        if !self.answers(asker, mxc)? {
            return Err(MediaError::NotFound);
        }
        let may_ask_others = self.asked_for(asker, mxc, search).allow_remote;
        if self.is_local(mxc)? || !may_ask_others {
            return Ok(Road::Homeserver(None));
        }
        match self.servers.enter(mxc).await {
            Ok(Some(place)) => Ok(Road::Server(place)),
            // Without a key the homeserver asks them.
            Ok(None) => Ok(Road::Homeserver(None)),
            Err(failure) => Ok(Road::Homeserver(Some(self.excuse(failure)?))),
        }
    }

    /// Lets the failure of a server pass as a reason to ask the homeserver, which may have a copy.
    ///
    /// # Errors
    ///
    /// The failure itself, if it is none.
    pub(super) fn excuse(&self, failure: FetchError) -> Result<FetchError, MediaError> {
        if self.servers.may_be_at_homeserver(&failure) { Ok(failure) } else { Err(failure.into()) }
    }

    /// Asks the server that made the media for at most `limit` bytes of it and returns the answer with
    /// its body still to come.
    ///
    /// # Errors
    ///
    /// Why the server gave nothing; [`MediaError::Homeserver`] as long as it is not known who we are.
    pub(super) async fn ask_server(
        &self,
        place: FetchPlace,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
        limit: u64,
    ) -> Result<Result<Answer, FetchError>, MediaError> {
        let search = self.asked_for(asker, mxc, search);
        Ok(self.servers.ask(place, self.homeserver.name()?, mxc, search, limit).await)
    }

    /// Asks the homeserver and returns the answer with its body still to come.
    ///
    /// # Errors
    ///
    /// Why there is none: of the server that has failed, if it was asked in that one's place.
    pub(super) async fn ask(
        &self,
        failure: Option<FetchError>,
        asker: &Asker,
        mxc: &Mxc,
        search: Search,
    ) -> Result<Answer, MediaError> {
        let answer = self.ask_homeserver(asker, mxc, self.asked_for(asker, mxc, search)).await;
        answer.map_err(|error| match failure {
            Some(failure) => instead_of(failure, error),
            None => error,
        })
    }
}

impl Answer {
    /// Makes the body that of one reader alone, where it cannot be kept.
    ///
    /// # Errors
    ///
    /// [`MediaError::RemoteTooLarge`] if it says that it is larger than `limit`.
    pub(super) fn into_item(self, limit: u64) -> Result<MediaItem, MediaError> {
        let Self { content_type, filename, size, body, .. } = self;
        if size.is_some_and(|size| size > limit) {
            return Err(MediaError::RemoteTooLarge { limit });
        }
        let body = Box::new(Capped { body, left: limit, limit });
        Ok(MediaItem {
            content_type,
            filename,
            content_hash: None,
            body: MediaBody::Relayed { body, size },
        })
    }
}

/// A body that breaks off at the first byte past a limit.
struct Capped {
    body: Box<dyn BodyReader>,
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
