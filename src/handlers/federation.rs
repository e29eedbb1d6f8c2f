//! `GET /_matrix/federation/v1/media/{download,thumbnail}/{mediaId}` (checklist section 11).
//!
//! With a signing key the signature is judged here (`judge`), and the homeserver is only asked for what
//! Mediary does not hold. Without one the homeserver judges it, as it judges tokens (`relay`).

mod frame;
mod judge;
mod relay;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};

use super::{Services, search};
use crate::error::ApiError;
use crate::media::{MediaItem, Reader, Search, Signer, ThumbnailRequest};
use crate::response::Reply;
use crate::route::{Access, Query};
use crate::types::{ClientNetwork, MediaId, Mxc, ServerName};

pub use judge::Judge;

/// What another server asks for.
pub(super) enum Ask {
    /// The media itself.
    Download {
        /// Which of ours.
        media_id: MediaId,
    },
    /// A thumbnail of it.
    Thumbnail {
        /// Which of ours.
        media_id: MediaId,
        /// The parsed parameters; a mistake in them is only told to whoever has signed.
        request: Result<ThumbnailRequest, ApiError>,
    },
}

impl Ask {
    /// Returns with whose signature the homeserver can be asked for the media: the signature that came
    /// is over the method too, and the homeserver is asked by GET.
    fn signer(&self, method: &Method) -> Signer {
        match self {
            Self::Download { .. } if *method == Method::GET => Signer::Origin,
            Self::Download { .. } | Self::Thumbnail { .. } => Signer::Ourselves,
        }
    }
}

/// A request of another server, as it came.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    /// The method, which is signed too.
    pub(super) method: &'a Method,
    /// The target, byte for byte.
    pub(super) raw_target: &'a [u8],
    /// The header fields.
    pub(super) headers: &'a HeaderMap,
    /// The client that it came from, where that is known.
    pub(super) client: Option<ClientNetwork>,
}

impl Received<'_> {
    /// Returns all values of `Authorization`.
    fn authorization(self) -> Arc<[HeaderValue]> {
        self.headers.get_all(header::AUTHORIZATION).iter().cloned().collect()
    }

    fn search(self) -> Search {
        let begin = self.raw_target.iter().position(|&b| b == b'?');
        let query = begin.map_or(&[][..], |mark| &self.raw_target[mark + 1..]);
        search(Access::Authenticated, Query::new(query))
    }
}

/// Answers another server.
///
/// # Errors
///
/// What it is to be told, as a plain error object (FM-S-10).
pub(super) async fn answer(
    services: &Services,
    ask: Ask,
    received: Received<'_>,
) -> Result<Reply, ApiError> {
    match &services.judge {
        Some(judge) => judged_here(services, judge, ask, received).await,
        None => relay::judged_by_homeserver(services, ask, received).await,
    }
}

async fn judged_here(
    services: &Services,
    judge: &Judge,
    ask: Ask,
    received: Received<'_>,
) -> Result<Reply, ApiError> {
    let us = services.homeserver.name()?;
    let admitted = judge.admit(us, &services.rules, received).await?;
    let request = admitted.request(ask.signer(received.method), received);
    let is_thumbnail = matches!(ask, Ask::Thumbnail { .. });
    let reader = Reader::Origin(Some(&request));
    match find(services, reader, us, ask, received.search()).await {
        Ok(item) => frame::multipart(item, Some(admitted.place)),
        // A homeserver that does not take our own signature makes the thumbnail itself.
        Err(ApiError::Media(error)) if is_thumbnail && error.is_disbelief() => {
            relay::homeservers_own(services, received, admitted.place).await
        }
        Err(error) => Err(error),
    }
}

/// Finds what is asked for among our own media.
async fn find(
    services: &Services,
    reader: Reader<'_>,
    us: &ServerName,
    ask: Ask,
    search: Search,
) -> Result<MediaItem, ApiError> {
    let server_name = us.clone();
    Ok(match ask {
        Ask::Download { media_id } => {
            services.media.download(reader, &Mxc { server_name, media_id }, search).await?
        }
        Ask::Thumbnail { media_id, request } => {
            let mxc = Mxc { server_name, media_id };
            services.media.thumbnail(reader, &mxc, request?, search).await?
        }
    })
}
