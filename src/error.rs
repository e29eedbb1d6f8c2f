//! Every failure and what the client is told of it: one table.
//!
//! A failure's inner text (paths, addresses, what a peer said) goes to the log; the client gets a
//! standard error object (CS-GEN-03) that says what happened and no more.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::auth::{AuthError, InvalidCredentials, OriginError};
use crate::federation::FetchError;
use crate::homeserver::{HomeserverError, Refusal};
use crate::limit::{Exceeded, Limit};
use crate::media::{MediaError, QuotaInfo};
use crate::policy::Denied;
use crate::store::StoreError;
use crate::thumbnail::ThumbnailError;
use crate::types::{BodyError, InvalidIdentifier};

/// When to try again if nobody can say: what is in the way is gone in a moment.
const SOON: Duration = Duration::from_secs(5);

/// A failure, as the client is told of it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A path under the media prefixes that is no route.
    #[error("unrecognized media route")]
    Unrecognized,
    /// A known route with another method.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// The value of the `Allow` field.
        allow: &'static str,
    },
    /// A request target, header or framing that is not taken.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// A server name or media id outside its grammar.
    #[error(transparent)]
    InvalidIdentifier(#[from] InvalidIdentifier),
    /// A required parameter is not there.
    #[error("missing parameter {0}")]
    MissingParameter(&'static str),
    /// A parameter that makes no sense (CS-TH-11).
    #[error("parameter {name} is not {expected}")]
    InvalidParameter {
        /// The parameter.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The sender is not known.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Another server has not shown who it is (FE-01).
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Somebody asks more often, or for more, than allowed (CS-RL-01).
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The requester may not do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The operation failed.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The system gives no random numbers to part a body from its frame with.
    #[error("no boundary could be made")]
    NoBoundary,
    /// A request did not arrive in the time that it may take.
    #[error("the client was too slow")]
    ClientTimedOut,
    /// The head of a request is longer than any that is meant well (RFC 6585, section 5).
    #[error("the head of the request is too large")]
    HeadTooLarge,
    /// The client has as many connections, or requests under way, as it may.
    #[error("too many connections from one address")]
    TooManyConnections,
}

/// What a failure looks like from outside.
pub struct ErrorAnswer {
    /// The status.
    pub status: StatusCode,
    /// The `errcode` and the human text, or the homeserver's own answer.
    pub content: ErrorContent,
    /// When it is worth another try, if it is; every 429 of our own says so (CS-RL-02).
    pub retry_after: Option<Duration>,
}

/// The body of an error answer.
pub enum ErrorContent {
    /// A standard error object of our own.
    Own {
        /// The Matrix error code.
        errcode: &'static str,
        /// The text for people.
        message: Cow<'static, str>,
    },
    /// That the user has reached a limit of their account (CS-GEN-09).
    UserLimit {
        /// The text for people.
        message: &'static str,
        /// Where they learn more.
        info: Arc<QuotaInfo>,
    },
    /// The homeserver's words, unchanged.
    Relayed(Refusal),
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::Media(error.into())
    }
}

impl From<HomeserverError> for ApiError {
    fn from(error: HomeserverError) -> Self {
        Self::Media(error.into())
    }
}

impl ApiError {
    /// Returns what the client is told.
    pub fn answer(&self) -> ErrorAnswer {
        match self {
            Self::Unrecognized => {
                own(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "Unrecognized request")
            }
            Self::MethodNotAllowed { .. } => {
                own(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "Unrecognized method")
            }
            Self::BadRequest(reason) => own(StatusCode::BAD_REQUEST, "M_UNKNOWN", *reason),
            Self::InvalidIdentifier(error) => {
                own(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", capitalised(&error.to_string()))
            }
            Self::MissingParameter(name) => own(
                StatusCode::BAD_REQUEST,
                "M_MISSING_PARAM",
                format!("Missing parameter: {name}"),
            ),
            Self::InvalidParameter { name, expected } => own(
                StatusCode::BAD_REQUEST,
                "M_UNKNOWN",
                format!("The parameter {name} has to be {expected}"),
            ),
            Self::ClientTimedOut => {
                own(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The request took too long to arrive")
            }
            Self::HeadTooLarge => own(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "M_TOO_LARGE",
                "The request line and header fields are too large",
            ),
            Self::TooManyConnections => {
                limited("Too many connections from this address, close some first", SOON)
            }
            Self::Origin(OriginError::Busy) => limited(
                "Too many servers' keys are being fetched for requests from your address",
                SOON,
            ),
            // One code for all others (XM-08, FLD-24).
            Self::Origin(error) => {
                own(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", capitalised(&error.to_string()))
            }
            Self::NoBoundary => {
                own(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error")
            }
            Self::Auth(error) => auth_answer(error),
            Self::Exceeded(exceeded) => exceeded_answer(exceeded),
            Self::Denied(denied) => denied_answer(*denied),
            Self::Media(error) => media_answer(error),
        }
    }

    /// Returns which limit or rule it was, if it was one of ours: one of
    /// [`REFUSALS`](crate::metrics::REFUSALS).
    pub fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Exceeded(exceeded) => Some(exceeded.limit.as_str()),
            Self::TooManyConnections => Some("address_connections"),
            Self::Denied(Denied::Guest) => Some("guest"),
            Self::Denied(Denied::Upload) => Some("upload"),
            Self::Denied(Denied::Type) => Some("type"),
            Self::Denied(Denied::Server) => Some("server"),
            Self::Media(error) => media_refusal(error),
            _ => None,
        }
    }

    /// Whether an operator should look: the failure is ours, not the client's.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::NoBoundary => true,
            Self::Auth(AuthError::Homeserver(error)) => is_homeserver_error_ours(error),
            Self::Media(error) => is_media_error_ours(error),
            Self::Auth(AuthError::Invalid(_) | AuthError::Refused(_) | AuthError::Suspended)
            | Self::Unrecognized
            | Self::MethodNotAllowed { .. }
            | Self::BadRequest(_)
            | Self::InvalidIdentifier(_)
            | Self::MissingParameter(_)
            | Self::InvalidParameter { .. }
            | Self::Origin(_)
            | Self::HeadTooLarge
            | Self::TooManyConnections
            | Self::Exceeded(_)
            | Self::Denied(_)
            | Self::ClientTimedOut => false,
        }
    }
}

fn media_refusal(error: &MediaError) -> Option<&'static str> {
    match error {
        MediaError::OverQuota { .. } => Some("quota"),
        MediaError::TooManyPending { .. } => Some("pending"),
        MediaError::UploadTooLarge { .. } => Some("size"),
        MediaError::Shared(error) => media_refusal(error),
        _ => None,
    }
}

fn is_media_error_ours(error: &MediaError) -> bool {
    match error {
        MediaError::Homeserver(error) => is_homeserver_error_ours(error),
        MediaError::Server(error) => is_server_error_ours(error),
        MediaError::Disbelieved
        | MediaError::Store(_)
        | MediaError::NotKept
        | MediaError::TooManyFetches
        | MediaError::NoMediaId => true,
        MediaError::Thumbnail(error) => match &**error {
            ThumbnailError::Busy
            | ThumbnailError::Unavailable
            | ThumbnailError::Crashed(_)
            | ThumbnailError::Io(_)
            | ThumbnailError::Panicked(_) => true,
            ThumbnailError::Unsupported
            | ThumbnailError::Damaged(_)
            | ThumbnailError::TimedOut
            | ThumbnailError::OutOfMemory
            | ThumbnailError::TooLarge(_) => false,
        },
        MediaError::Shared(error) => is_media_error_ours(error),
        MediaError::NotFound
        | MediaError::CannotOverwrite
        | MediaError::NotTheCreator
        | MediaError::NotYetUploaded
        | MediaError::TooManyWaiting
        | MediaError::TooManyPending { .. }
        | MediaError::UploadTooLarge { .. }
        | MediaError::OverQuota { .. }
        | MediaError::RemoteTooLarge { .. }
        | MediaError::RemoteImageTooLarge
        | MediaError::Refused(_)
        | MediaError::Body(_) => false,
    }
}

fn is_homeserver_error_ours(error: &HomeserverError) -> bool {
    match error {
        HomeserverError::Unreachable(_)
        | HomeserverError::TooSlow
        | HomeserverError::Misbehaved(_) => true,
        HomeserverError::TooLong => false,
    }
}

/// Another server's failure is nobody's here, but an operator may find out why in the log.
fn is_server_error_ours(error: &FetchError) -> bool {
    matches!(error, FetchError::TooMany)
}

fn auth_answer(error: &AuthError) -> ErrorAnswer {
    match error {
        AuthError::Invalid(error @ InvalidCredentials::TooLong(_)) => {
            own(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error.to_string())
        }
        AuthError::Invalid(
            error @ (InvalidCredentials::Missing
            | InvalidCredentials::Ambiguous
            | InvalidCredentials::Conflicting),
        ) => own(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", error.to_string()),
        AuthError::Refused(refusal) => relayed(refusal),
        AuthError::Suspended => {
            own(StatusCode::FORBIDDEN, "M_USER_SUSPENDED", "Your account is suspended")
        }
        AuthError::Homeserver(error) => homeserver_answer(error),
    }
}

fn exceeded_answer(exceeded: &Exceeded) -> ErrorAnswer {
    let message = match exceeded.limit {
        Limit::UserRequests
        | Limit::AddressRequests
        | Limit::Creations
        | Limit::ServerRequests
        | Limit::ServerConcurrency => "Too many requests",
        Limit::UserBytes | Limit::AddressBytes => "Too many bytes were sent or received lately",
    };
    limited(message, exceeded.retry_after)
}

fn denied_answer(denied: Denied) -> ErrorAnswer {
    match denied {
        Denied::Guest => own(
            StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "Guests may only download; register an account for this",
        ),
        Denied::Upload => {
            own(StatusCode::FORBIDDEN, "M_FORBIDDEN", "You may not upload files to this server")
        }
        Denied::Server => own(
            StatusCode::FORBIDDEN,
            "M_FORBIDDEN",
            "This server does not exchange media with yours",
        ),
        Denied::Type => own(
            StatusCode::FORBIDDEN,
            "M_FORBIDDEN",
            "Files of this type may not be uploaded to this server",
        ),
    }
}

/// The two codes that clients may know for it (CS-UP-05).
fn over_quota(info: Option<&Arc<QuotaInfo>>) -> ErrorAnswer {
    let message = "This does not fit into your storage quota on this server";
    match info {
        None => own(StatusCode::FORBIDDEN, "M_FORBIDDEN", message),
        Some(info) => ErrorAnswer {
            status: StatusCode::FORBIDDEN,
            content: ErrorContent::UserLimit { message, info: Arc::clone(info) },
            retry_after: None,
        },
    }
}

fn media_answer(error: &MediaError) -> ErrorAnswer {
    match error {
        MediaError::NotFound => own(StatusCode::NOT_FOUND, "M_NOT_FOUND", "Not found"),
        MediaError::CannotOverwrite => own(
            StatusCode::CONFLICT,
            "M_CANNOT_OVERWRITE_MEDIA",
            "The media has been uploaded already or is being uploaded",
        ),
        MediaError::NotTheCreator => {
            own(StatusCode::FORBIDDEN, "M_FORBIDDEN", "The media id belongs to another user")
        }
        MediaError::NotYetUploaded => own(
            StatusCode::GATEWAY_TIMEOUT,
            "M_NOT_YET_UPLOADED",
            "The media has not been uploaded yet",
        ),
        MediaError::TooManyPending { retry_after } => {
            limited("Too many uploads are pending; finish some or let them expire", *retry_after)
        }
        MediaError::TooManyWaiting => {
            limited("Too many readers wait for media that is not uploaded yet", SOON)
        }
        MediaError::TooManyFetches => {
            limited("Too many files are being fetched, try again later", SOON)
        }
        MediaError::UploadTooLarge { limit } => own(
            StatusCode::PAYLOAD_TOO_LARGE,
            "M_TOO_LARGE",
            format!("The upload is larger than the {limit} bytes that are allowed"),
        ),
        MediaError::OverQuota { info } => over_quota(info.as_ref()),
        MediaError::RemoteTooLarge { limit } => own(
            StatusCode::BAD_GATEWAY,
            "M_TOO_LARGE",
            format!("The remote file is larger than the {limit} bytes that are allowed"),
        ),
        MediaError::RemoteImageTooLarge => own(
            StatusCode::BAD_GATEWAY,
            "M_TOO_LARGE",
            "The remote image has too many pixels for a thumbnail",
        ),
        MediaError::Refused(refusal) => relayed(refusal),
        MediaError::Homeserver(error) => homeserver_answer(error),
        MediaError::Server(error) => server_answer(error),
        MediaError::Disbelieved => {
            own(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The homeserver refused the request")
        }
        MediaError::Body(error) => body_answer(error),
        MediaError::Store(error) => store_answer(error),
        MediaError::Thumbnail(error) => thumbnail_answer(error),
        MediaError::NotKept => own(
            StatusCode::INSUFFICIENT_STORAGE,
            "M_UNKNOWN",
            "The server could not keep the media, which this takes",
        ),
        MediaError::NoMediaId => {
            own(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error")
        }
        MediaError::Shared(error) => media_answer(error),
    }
}

fn homeserver_answer(error: &HomeserverError) -> ErrorAnswer {
    match error {
        HomeserverError::Unreachable(_) => {
            own(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The homeserver cannot be reached")
        }
        HomeserverError::TooSlow => {
            own(StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN", "The homeserver did not answer in time")
        }
        HomeserverError::Misbehaved(_) => {
            own(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The homeserver gave an unusable answer")
        }
        HomeserverError::TooLong => own(
            StatusCode::URI_TOO_LONG,
            "M_TOO_LARGE",
            "The request is longer than the homeserver would read",
        ),
    }
}

/// What another server said, and that it said nothing, stays in the log: readers learn what they can
/// act on.
fn server_answer(error: &FetchError) -> ErrorAnswer {
    match error {
        FetchError::NotFound => own(StatusCode::NOT_FOUND, "M_NOT_FOUND", "Not found"),
        FetchError::NotYetUploaded => own(
            StatusCode::GATEWAY_TIMEOUT,
            "M_NOT_YET_UPLOADED",
            "The media has not been uploaded yet",
        ),
        FetchError::TooLarge { limit } => own(
            StatusCode::BAD_GATEWAY,
            "M_TOO_LARGE",
            format!("The remote file is larger than the {limit} bytes that are allowed"),
        ),
        // As for too many fetches of all servers (CS-RL-01).
        FetchError::TooMany => {
            limited("Too many files of that server are being fetched, try again later", SOON)
        }
        FetchError::Refused { .. } => {
            own(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The remote server refused the request")
        }
        FetchError::BackedOff { .. } | FetchError::Server(_) | FetchError::Location(_) => {
            own(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The remote server cannot be reached")
        }
        FetchError::Misbehaved(_) => {
            own(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The remote server gave an unusable answer")
        }
    }
}

fn body_answer(error: &BodyError) -> ErrorAnswer {
    match error {
        BodyError::Gone => {
            own(StatusCode::BAD_REQUEST, "M_UNKNOWN", "The body ended before its announced end")
        }
        BodyError::Malformed(_) => {
            own(StatusCode::BAD_REQUEST, "M_UNKNOWN", "The body is not framed as HTTP asks")
        }
        BodyError::TimedOut => {
            own(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The body took too long to arrive")
        }
        BodyError::TooLarge { limit } => own(
            StatusCode::PAYLOAD_TOO_LARGE,
            "M_TOO_LARGE",
            format!("The body is larger than the {limit} bytes that are allowed"),
        ),
        BodyError::Storage(_) => {
            own(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The server's storage failed")
        }
    }
}

fn store_answer(error: &StoreError) -> ErrorAnswer {
    match error {
        StoreError::Full => {
            own(StatusCode::INSUFFICIENT_STORAGE, "M_UNKNOWN", "The server has no space left")
        }
        StoreError::Busy | StoreError::Stopped => {
            busy("The server's storage is busy, try again later")
        }
        StoreError::TooManyReserved { .. } => limited("Too many uploads are pending", SOON),
        StoreError::Corrupt { .. }
        | StoreError::Missing { .. }
        | StoreError::AlreadyExists(_)
        | StoreError::TooManyVariants
        | StoreError::Torn
        | StoreError::Io { .. }
        | StoreError::Database(_) => {
            own(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The server's storage failed")
        }
    }
}

fn thumbnail_answer(error: &ThumbnailError) -> ErrorAnswer {
    match error {
        ThumbnailError::Unsupported => own(
            StatusCode::BAD_REQUEST,
            "M_UNKNOWN",
            "Thumbnails of this kind of file cannot be made",
        ),
        ThumbnailError::Damaged(_) | ThumbnailError::Panicked(_) | ThumbnailError::Crashed(_) => {
            own(StatusCode::BAD_REQUEST, "M_UNKNOWN", "The image cannot be read")
        }
        ThumbnailError::TimedOut => own(
            StatusCode::PAYLOAD_TOO_LARGE,
            "M_TOO_LARGE",
            "A thumbnail of the image takes too long to make",
        ),
        ThumbnailError::OutOfMemory => own(
            StatusCode::PAYLOAD_TOO_LARGE,
            "M_TOO_LARGE",
            "A thumbnail of the image takes too much memory to make",
        ),
        ThumbnailError::Unavailable => busy("Thumbnails cannot be made now, try again later"),
        ThumbnailError::TooLarge(_) => own(
            StatusCode::PAYLOAD_TOO_LARGE,
            "M_TOO_LARGE",
            "The image has too many pixels for a thumbnail",
        ),
        ThumbnailError::Busy => busy("Too many thumbnails are being made, try again later"),
        ThumbnailError::Io(_) => {
            own(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "The server's storage failed")
        }
    }
}

fn own(
    status: StatusCode,
    errcode: &'static str,
    message: impl Into<Cow<'static, str>>,
) -> ErrorAnswer {
    let content = ErrorContent::Own { errcode, message: message.into() };
    ErrorAnswer { status, content, retry_after: None }
}

/// Something of ours is overloaded, whoever asks.
fn busy(message: &'static str) -> ErrorAnswer {
    let answer = own(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message);
    ErrorAnswer { retry_after: Some(SOON), ..answer }
}

/// A limit is reached; the media schemas know 429 for that and no other status (CS-RL-01).
fn limited(message: &'static str, retry_after: Duration) -> ErrorAnswer {
    let answer = own(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", message);
    ErrorAnswer { retry_after: Some(retry_after), ..answer }
}

fn relayed(refusal: &Refusal) -> ErrorAnswer {
    let content = ErrorContent::Relayed(refusal.clone());
    ErrorAnswer { status: refusal.status, content, retry_after: None }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
