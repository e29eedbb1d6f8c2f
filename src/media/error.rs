//! Why an operation on media failed, in terms that a caller can act on.

use std::sync::Arc;
use std::time::Duration;

use super::QuotaInfo;
use crate::federation::FetchError;
use crate::homeserver::{HomeserverError, Refusal};
use crate::store::StoreError;
use crate::thumbnail::ThumbnailError;
use crate::types::BodyError;

/// Why an operation on media failed.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// There is no such media, or none that this reader may see.
    #[error("no such media")]
    NotFound,
    /// The media has content, or somebody is uploading it at this moment (CS-PUT-04).
    #[error("the media has content already")]
    CannotOverwrite,
    /// The media id was given to another user (CS-PUT-02).
    #[error("the media id belongs to another user")]
    NotTheCreator,
    /// The media id was given out, and its content has not come in the time that the reader would
    /// wait (CS-DL-10).
    #[error("the media is not uploaded yet")]
    NotYetUploaded,
    /// The user has as many media ids without content as allowed (CS-CRE-05).
    #[error("the user has too many uploads pending")]
    TooManyPending {
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// As many readers as allowed wait for media that is not uploaded yet.
    #[error("too many readers wait for media that is not uploaded yet")]
    TooManyWaiting,
    /// As many files as allowed are being fetched at this moment.
    #[error("too many files are being fetched")]
    TooManyFetches,
    /// An upload is larger than allowed (CS-UP-06).
    #[error("the upload is larger than {limit} bytes")]
    UploadTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The user has reached their quota, or would with this (CS-LIM-04).
    #[error("the user's quota is reached")]
    OverQuota {
        /// Where they learn more.
        info: Option<Arc<QuotaInfo>>,
    },
    /// A file of another server is larger than allowed (CS-LIM-03).
    #[error("the remote file is larger than {limit} bytes")]
    RemoteTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The homeserver said no; its words go to the client.
    #[error("the homeserver refused")]
    Refused(Refusal),
    /// The homeserver gave no usable answer.
    #[error(transparent)]
    Homeserver(#[from] HomeserverError),
    /// The homeserver does not believe our signature, with which it was asked for media of its own.
    #[error("the homeserver does not believe the signing key")]
    Disbelieved,
    /// The server that made the media gave none.
    #[error(transparent)]
    Server(#[from] FetchError),
    /// The body of an upload ended early or broke.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thumbnail cannot be made.
    #[error(transparent)]
    Thumbnail(#[from] Arc<ThumbnailError>),
    /// An image of another server has more pixels than are decoded (CS-TH-13).
    #[error("the remote image has too many pixels")]
    RemoteImageTooLarge,
    /// The media could not be kept, and what was asked for cannot be had without that: a thumbnail,
    /// or media that is evicted as soon as it is there.
    #[error("the media could not be kept")]
    NotKept,
    /// A failure that several callers waited for.
    #[error(transparent)]
    Shared(Arc<MediaError>),
    /// The system gives no random numbers to draw a media id from.
    #[error("no media id could be made")]
    NoMediaId,
}

impl MediaError {
    /// Whether the homeserver does not believe our signature.
    pub fn is_disbelief(&self) -> bool {
        match self {
            Self::Disbelieved => true,
            Self::Shared(error) => error.is_disbelief(),
            _ => false,
        }
    }
}

impl From<ThumbnailError> for MediaError {
    fn from(error: ThumbnailError) -> Self {
        Self::Thumbnail(Arc::new(error))
    }
}
