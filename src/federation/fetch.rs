//! Fetching media from the server that made it (section 11 of the checklist).
//!
//! The federation route is asked first, with our signature. Its answer has the media in its second
//! part, or says there where it is. Older servers do not know that route; they are asked without a
//! signature by the legacy routes. Whatever comes is held to its limits while it is read.

mod error;
mod plain;
mod refusal;
mod resume;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::{Instant, timeout_at};

pub use error::{FetchError, FetchResult};
pub use transfer::Transfer;

use super::multipart::{Boundary, MultipartError, OpenError, PartHead, SecondPart};
use super::server_backoff::{Failure, FetchPlace, ServerBackoff};
use super::servers::{ServerError, Servers};
use super::signing_key::SigningKey;
use crate::egress::{EgressError, Response, ResponseBody};
use crate::types::{BodyError, BodyReader, ContentType, FileName, MediaId, Mxc, Pace, ServerName};

use refusal::Refusal;
use transfer::MediaBytes;

/// How much of a second part is read that should be empty, since the media is elsewhere.
const MAX_IGNORED: usize = 64 * 1024;

/// Bounds on what comes from one server, and on how it comes.
#[derive(Debug, Clone, Copy)]
pub struct TransferLimits {
    /// How long the head of an answer may take, discovery and connection included, beside the wait
    /// that was asked for.
    pub timeout: Duration,
    /// How many fetches of one server's media there may be at once.
    pub max_per_server: usize,
    /// How many bytes a second come at least, on the average of [`slow_timeout`](Self::slow_timeout).
    pub min_rate: u64,
    /// How long a transfer may be slower than that.
    pub slow_timeout: Duration,
}

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions {
    /// How long the server may wait for an upload (CS-DL-08).
    pub wait: Duration,
    /// The largest body that is taken, in bytes.
    pub max_size: u64,
}

/// Media of another server, its body still to come.
pub struct RemoteMedia {
    /// What the server says it is.
    pub content_type: ContentType,
    /// What the server calls it.
    pub filename: Option<FileName>,
    /// The size of the body in bytes, if it is known.
    pub size: Option<u64>,
    /// A bound on it, if that alone is known.
    pub at_most: Option<u64>,
    /// The body.
    pub body: Transfer,
}

/// Fetches media of other servers, signed as the homeserver. Clones share what is known of how servers
/// behave.
#[derive(Clone)]
pub struct RemoteFetcher {
    servers: Servers,
    key: Arc<SigningKey>,
    limits: TransferLimits,
    backoff: Arc<ServerBackoff>,
}

/// What is asked for, and until when.
struct Question<'q> {
    /// Who we are.
    origin: &'q ServerName,
    mxc: &'q Mxc,
    options: FetchOptions,
    deadline: Instant,
}

/// Media that was found, with what bounds its body still to be put around it.
struct Found {
    content_type: ContentType,
    filename: Option<FileName>,
    size: Option<u64>,
    at_most: Option<u64>,
    bytes: MediaBytes,
}

impl RemoteFetcher {
    /// Signs with this key.
    pub fn new(servers: Servers, key: Arc<SigningKey>, limits: TransferLimits) -> Self {
        let backoff = Arc::new(ServerBackoff::new(limits.max_per_server));
        Self { servers, key, limits, backoff }
    }

    /// Waits for a place among the fetches of one server's media, at most for
    /// [`TransferLimits::timeout`].
    ///
    /// # Errors
    ///
    /// [`FetchError::TooMany`], or [`FetchError::BackedOff`] if the server is left alone.
    pub async fn enter(&self, server: &ServerName) -> Result<FetchPlace, FetchError> {
        self.backoff.enter(server, Instant::now() + self.limits.timeout).await
    }

    /// Asks the server that made the media for it, with a [place](Self::enter) among the fetches of
    /// that server's. `origin` is who we are. All of it, following to another place included, has the
    /// one deadline of [`TransferLimits::timeout`] and [`FetchOptions::wait`] together.
    ///
    /// # Errors
    ///
    /// [`FetchError`] if there is no body to read.
    pub async fn fetch(
        &self,
        place: FetchPlace,
        origin: &ServerName,
        mxc: &Mxc,
        options: FetchOptions,
    ) -> Result<RemoteMedia, FetchError> {
        let deadline = Instant::now() + self.limits.timeout + options.wait;
        let server = &mxc.server_name;
        // Others may have found out while we waited for something else.
        self.backoff.check(server, Instant::now())?;
        let outcome = self.ask(&Question { origin, mxc, options, deadline }).await;
        self.note(mxc, outcome.as_ref().err());
        let Found { content_type, filename, size, at_most, bytes } = outcome?;
        let pace = Pace::new(self.limits.slow_timeout, self.limits.min_rate);
        let body = Transfer::new(bytes, place, pace, options.max_size);
        Ok(RemoteMedia { content_type, filename, size, at_most, body })
    }

    /// Remembers how a server has behaved. What it says of one media id is nothing against it (threats
    /// FE-15).
    fn note(&self, mxc: &Mxc, error: Option<&FetchError>) {
        let server = &mxc.server_name;
        let now = Instant::now();
        match error {
            Some(FetchError::Server(_)) => self.backoff.failed(server, Failure::Silent, now),
            Some(FetchError::Refused { status: 500.., .. }) => {
                self.backoff.failed(server, Failure::Erring(&mxc.media_id), now);
            }
            Some(FetchError::BackedOff { retry_after }) => {
                self.backoff.has_asked(server, *retry_after, now);
            }
            None
            | Some(
                FetchError::NotFound
                | FetchError::NotYetUploaded
                | FetchError::TooLarge { .. }
                | FetchError::Refused { .. }
                | FetchError::TooMany
                | FetchError::Location(_)
                | FetchError::Misbehaved(_),
            ) => self.backoff.answered(server, now),
        }
    }

    /// Asks by the federation route, and if it is not known there by the legacy routes (FM-C-01 to FM-C-03).
    async fn ask(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let Question { origin, mxc, options, deadline } = question;
        let server = &mxc.server_name;
        let target = download_target(&mxc.media_id, options.wait);
        let signature = self.key.authorization(origin, server, &Method::GET, &target);
        let fields = [(header::AUTHORIZATION, signature)];
        let response = self.servers.get(server, &target, &fields, *deadline).await?;
        match response.status {
            StatusCode::OK => return self.two_parts(response, question).await,
            // Redirecting is done in the second part (FM-S-07, FLD-06).
            status if !is_error(status) => {
                return Err(misbehaved(format!("status {status} for media")));
            }
            _ => {}
        }
        let refusal = Refusal::read(response, question).await?;
        if refusal.is_unknown_route() {
            return self.ask_by_legacy_routes(question).await;
        }
        Err(refusal.meaning(options.max_size))
    }

    /// Takes the media out of a federation answer, or from where that says it is.
    async fn two_parts(
        &self,
        response: Response,
        question: &Question<'_>,
    ) -> Result<Found, FetchError> {
        if is_coded(&response.headers) {
            return Err(misbehaved("an answer in a coding that was not asked for"));
        }
        let content_type = response.field(&header::CONTENT_TYPE);
        let boundary = Boundary::from_content_type(content_type.unwrap_or_default());
        let boundary = boundary.map_err(|error| match error {
            // Never taken for the media itself (FLD-06).
            MultipartError::OtherType => misbehaved(format!(
                "it is {} and not multipart/mixed",
                ContentType::from_header(content_type)
            )),
            error => misbehaved(error),
        })?;
        let length = response.content_length();
        let opened = timeout_at(question.deadline, SecondPart::open(&boundary, response.body));
        let opened = opened.await.map_err(|_| late(question))?;
        let (head, part) = opened.map_err(|error| match error {
            OpenError::Body(BodyError::TimedOut) => late(question),
            error => misbehaved(error),
        })?;
        match &head.location {
            Some(location) => {
                ignore(part, question).await?;
                self.follow(location, question).await
            }
            None => in_part(&head, part, length, question.options.max_size),
        }
    }
}

/// Returns what a server is asked by for media of its own, signed: the federation route, with how long it
/// may wait for an upload (FM-C-01, CS-DL-08).
pub fn download_target(media_id: &MediaId, wait: Duration) -> String {
    let wait = wait.as_millis();
    format!("/_matrix/federation/v1/media/download/{media_id}?timeout_ms={wait}")
}

/// Takes media that is in the second part itself.
fn in_part(
    head: &PartHead,
    part: SecondPart<ResponseBody>,
    length: Option<u64>,
    limit: u64,
) -> Result<Found, FetchError> {
    let size = length.map(|length| part.size_within(length));
    if size.is_some_and(|(least, _)| least > limit) {
        return Err(FetchError::TooLarge { limit });
    }
    let (content_type, filename) =
        described(head.content_type.as_deref(), head.content_disposition.as_deref());
    let bytes = MediaBytes::Part(Box::new(part));
    let at_most = size.map(|(_, most)| most.min(limit));
    Ok(Found { content_type, filename, size: None, at_most, bytes })
}

/// Reads a part to its end that means nothing, since the media is elsewhere (FM-S-06). One that goes
/// on and on is left.
async fn ignore(
    mut part: SecondPart<ResponseBody>,
    question: &Question<'_>,
) -> Result<(), FetchError> {
    let mut left = MAX_IGNORED;
    loop {
        let chunk = timeout_at(question.deadline, part.next()).await.map_err(|_| late(question))?;
        let Some(chunk) = chunk.map_err(misbehaved)? else { return Ok(()) };
        match left.checked_sub(chunk.len()) {
            Some(less) => left = less,
            None => return Ok(()),
        }
    }
}

/// Returns the type and the name of media. What cannot be used is left out or cleaned: a label never
/// costs anybody the file (FM-C-09, threats HI-05, HI-06).
fn described(
    content_type: Option<&[u8]>,
    disposition: Option<&[u8]>,
) -> (ContentType, Option<FileName>) {
    let filename = disposition.and_then(FileName::from_content_disposition);
    (ContentType::from_header(content_type), filename)
}

/// Whether a body is in a coding; we ask for none, since what comes is kept as it is.
fn is_coded(headers: &HeaderMap) -> bool {
    let coding = headers.get(header::CONTENT_ENCODING);
    coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether a status says that there is no media, rather than something that nobody asked for.
fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn late(question: &Question<'_>) -> FetchError {
    let server = question.mxc.server_name.clone();
    ServerError::Exchange { server, error: EgressError::TimedOut("the answer") }.into()
}

fn misbehaved(what: impl ToString) -> FetchError {
    FetchError::Misbehaved(what.to_string())
}
