//! Without a key: the request is re-issued to the homeserver unchanged, and "not found" from a
//! homeserver that refuses unsigned requests means that the signature was good and the media is not its
//! own. Only then is ours looked for.

use http::{HeaderValue, StatusCode, header};

use super::judge::{self, RequestPlace};
use super::{Ask, Received, find, frame};
use crate::error::ApiError;
use crate::handlers::Services;
use crate::homeserver::{HomeserverError, Refusal, Response, read_refusal};
use crate::media::{MediaBody, MediaError, Reader};
use crate::response::Reply;

/// The longest target that goes on to the homeserver, in bytes. With its signature it has to fit what
/// homeservers read of a head (Synapse: 16 KiB for all of it).
const MAX_TARGET_LENGTH: usize = 8 * 1024;

/// Answers a request that the homeserver judges.
///
/// # Errors
///
/// The homeserver's own refusal, or that ours cannot be had.
pub(super) async fn judged_by_homeserver(
    services: &Services,
    ask: Ask,
    received: Received<'_>,
) -> Result<Reply, ApiError> {
    let homeserver = &services.homeserver;
    let raw_target = received.raw_target;
    let authorization = judge::shown_to_homeserver(&services.rules, received)?;
    if raw_target.len() > MAX_TARGET_LENGTH {
        return Err(HomeserverError::TooLong.into());
    }
    let search = received.search();
    let verdict = homeserver.federation(raw_target, &authorization, search.wait).await?;
    if verdict.status == StatusCode::OK {
        return relay(verdict, None);
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
    let us = homeserver.name()?;
    let item = find(services, Reader::Origin(None), us, ask, search).await?;
    frame::multipart(item, None)
}

/// Passes on what the homeserver says to a request whose signature was found good here. The server's
/// place is held until that is sent.
///
/// # Errors
///
/// Its refusal.
pub(super) async fn homeservers_own(
    services: &Services,
    received: Received<'_>,
    place: RequestPlace,
) -> Result<Reply, ApiError> {
    let (target, wait) = (received.raw_target, received.search().wait);
    let answer = services.homeserver.federation(target, &received.authorization(), wait).await?;
    if answer.status == StatusCode::OK {
        return relay(answer, Some(place));
    }
    Err(MediaError::Refused(read_refusal(answer).await?).into())
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
fn relay(response: Response, place: Option<RequestPlace>) -> Result<Reply, ApiError> {
    let is_multipart = |value: &&HeaderValue| value.as_bytes().starts_with(b"multipart/mixed");
    let content_type =
        response.headers.get(header::CONTENT_TYPE).filter(is_multipart).cloned().ok_or_else(
            || HomeserverError::Misbehaved("media is not multipart/mixed".to_owned()),
        )?;
    let size = response.content_length();
    let body = Box::new(frame::Framed::bare(Box::new(response.body), place));
    let body = MediaBody::Relayed { body, size };
    Ok(Reply::multipart(content_type, size, body))
}
