//! `GET /_matrix/federation/v1/media/{download,thumbnail}/{mediaId}` (checklist section 11).
//!
//! The homeserver judges the signature, as it judges tokens: the request is re-issued to it
//! unchanged, and "not found" from a homeserver that refuses unsigned requests means that the
//! signature was good and the media is not its own. Only then is ours looked for.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ring::rand::{self, Random, SystemRandom};

use super::search;
use crate::error::ApiError;
use crate::homeserver::{Homeserver, HomeserverError, Refusal, Response, read_refusal};
use crate::media::{MediaBody, MediaError, MediaItem, MediaService, Reader, ThumbnailRequest};
use crate::response::Reply;
use crate::route::{Access, Query};
use crate::types::{BodyError, BodyReader, MediaId, Mxc};

/// The longest target that goes on to the homeserver, in bytes. With its signature it has to fit what
/// homeservers read of a head (Synapse: 16 KiB for all of it).
const MAX_TARGET_LENGTH: usize = 8 * 1024;

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

pub(super) async fn answer(
    media: &MediaService,
    homeserver: &Homeserver,
    ask: Ask,
    raw_target: &[u8],
    headers: &HeaderMap,
) -> Result<Reply, ApiError> {
    let authorization: Vec<HeaderValue> =
        headers.get_all(header::AUTHORIZATION).iter().cloned().collect();
    if authorization.is_empty() {
        return Err(ApiError::Unsigned);
    }
    if raw_target.len() > MAX_TARGET_LENGTH {
        return Err(HomeserverError::TooLong.into());
    }
    let query =
        raw_target.iter().position(|&b| b == b'?').map_or(&[][..], |i| &raw_target[i + 1..]);
    let search = search(Access::Authenticated, Query::new(query));
    let verdict = homeserver.federation(raw_target, &authorization, search.wait).await?;
    if verdict.status == StatusCode::OK {
        return relay(verdict);
    }
    if !(verdict.status.is_client_error() || verdict.status.is_server_error()) {
        let status = verdict.status;
        return Err(HomeserverError::Misbehaved(format!("status {status} for media")).into());
    }
    let refusal = read_refusal(verdict).await?;
    let route = route_of(raw_target);
    if !is_not_found(&refusal) || !homeserver.refuses_unsigned_requests(&route).await? {
        return Err(MediaError::Refused(refusal).into());
    }
    let server_name = homeserver.name()?.clone();
    let item = match ask {
        Ask::Download { media_id } => {
            media.download(Reader::Origin(None), &Mxc { server_name, media_id }, search).await?
        }
        Ask::Thumbnail { media_id, request } => {
            let mxc = Mxc { server_name, media_id };
            media.thumbnail(Reader::Origin(None), &mxc, request?, search).await?
        }
    };
    multipart(item)
}

/// Returns the path up to the media id; the router has matched it against its table.
fn route_of(raw_target: &[u8]) -> String {
    let path = raw_target.split(|&b| b == b'?').next().unwrap_or_default();
    let end = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    String::from_utf8_lossy(&path[..end]).into_owned()
}

fn is_not_found(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::NOT_FOUND && refusal.errcode().as_deref() == Some("M_NOT_FOUND")
}

/// Passes the homeserver's own multipart answer on.
fn relay(response: Response) -> Result<Reply, ApiError> {
    let is_multipart = |value: &&HeaderValue| value.as_bytes().starts_with(b"multipart/mixed");
    let content_type =
        response.headers.get(header::CONTENT_TYPE).filter(is_multipart).cloned().ok_or_else(
            || HomeserverError::Misbehaved("media is not multipart/mixed".to_owned()),
        )?;
    let size = response.content_length();
    let body = MediaBody::Relayed { body: Box::new(response.body), size };
    Ok(Reply::multipart(content_type, size, body))
}

/// Frames media as two parts (FM-S-03 to FM-S-05), in the form that every known server reads
/// (FLD-01 to FLD-05).
fn multipart(item: MediaItem) -> Result<Reply, ApiError> {
    let boundary = boundary(&item)?;
    let disposition = item.content_type.disposition().header_value(item.filename.as_ref());
    let prefix = format!(
        "\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
         Content-Type: {}\r\nContent-Disposition: {disposition}\r\n\r\n",
        item.content_type
    );
    let suffix = format!("\r\n--{boundary}--\r\n");
    let size = item.body.size().map(|size| (prefix.len() + suffix.len()) as u64 + size);
    let framed = Framed {
        prefix: Some(Bytes::from(prefix)),
        body: item.body.into_reader(),
        suffix: Some(Bytes::from(suffix)),
    };
    let content_type =
        HeaderValue::from_str(&format!("multipart/mixed; boundary={boundary}")).expect("ASCII");
    Ok(Reply::multipart(content_type, size, MediaBody::Relayed { body: Box::new(framed), size }))
}

/// Makes a boundary that the body cannot hold: its own hash, which nobody knows before the body is
/// written, or as long as that is not known a number that nobody knows. Letters and digits only, so
/// that it needs no quotes (FLD-03).
fn boundary(item: &MediaItem) -> Result<String, ApiError> {
    if let Some(hash) = item.content_hash {
        return Ok(hash.to_string());
    }
    let random: Random<[u8; 16]> =
        rand::generate(&SystemRandom::new()).map_err(|_| ApiError::NoBoundary)?;
    Ok(format!("{:032x}", u128::from_be_bytes(random.expose())))
}

/// A body between two others.
struct Framed {
    prefix: Option<Bytes>,
    body: Box<dyn BodyReader>,
    suffix: Option<Bytes>,
}

#[async_trait]
impl BodyReader for Framed {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(prefix) = self.prefix.take() {
            return Ok(Some(prefix));
        }
        match self.body.next().await? {
            Some(chunk) => Ok(Some(chunk)),
            None => Ok(self.suffix.take()),
        }
    }
}
