//! Without a key: the request is re-issued to the homeserver unchanged, and "not found" from a
//! homeserver that refuses unsigned requests means that the signature was good and the media is not its
//! own. Only then is ours looked for.

use http::{HeaderValue, StatusCode, header};

use super::{Ask, Received, find, frame, judge};
use crate::auth::OriginError;
use crate::error::ApiError;
use crate::federation::x_matrix::XMatrixError;
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
    let Received { raw_target, headers, .. } = received;
    let authorization: Vec<HeaderValue> =
        headers.get_all(header::AUTHORIZATION).iter().cloned().collect();
    if authorization.is_empty() {
        return Err(OriginError::Claim(XMatrixError::Missing).into());
    }
    if raw_target.len() > MAX_TARGET_LENGTH {
        return Err(HomeserverError::TooLong.into());
    }
    judge::check_claimed(&services.rules, headers)?;
    let search = received.search();
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
    let us = homeserver.name()?;
    let item = find(services, Reader::Origin(None), us, ask, search).await?;
    frame::multipart(item, None)
}

/// Passes on what the homeserver says to a request whose signature was found good here.
///
/// # Errors
///
/// Its refusal.
pub(super) async fn homeservers_own(
    services: &Services,
    received: Received<'_>,
) -> Result<Reply, ApiError> {
    let Received { raw_target, headers, .. } = received;
    let authorization: Vec<HeaderValue> =
        headers.get_all(header::AUTHORIZATION).iter().cloned().collect();
    let wait = received.search().wait;
    let answer = services.homeserver.federation(raw_target, &authorization, wait).await?;
    if answer.status == StatusCode::OK {
        return relay(answer);
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
