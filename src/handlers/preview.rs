//! `GET …/preview_url` (CS-PV-01 to CS-PV-04): made by the homeserver, asked with the caller's
//! token.

use http::StatusCode;

use super::invalid;
use crate::auth::Requester;
use crate::error::ApiError;
use crate::homeserver::Homeserver;
use crate::media::MediaError;
use crate::response::Reply;
use crate::route::Query;

/// The longest URL, in bytes. Encoded for the question it is at most three times as long, which
/// homeservers still read.
const MAX_URL_LENGTH: usize = 4096;

/// The longest number that 64 bits hold.
const MAX_TS_LENGTH: usize = 20;

pub(super) async fn preview_url(
    homeserver: &Homeserver,
    requester: &Requester,
    query: Query<'_>,
) -> Result<Reply, ApiError> {
    let url = query.get("url").ok_or(ApiError::MissingParameter("url"))?;
    if url.len() > MAX_URL_LENGTH {
        return Err(invalid("url", "a URL of at most 4096 bytes"));
    }
    let ts = query.get("ts");
    if ts.as_ref().is_some_and(|ts| ts.len() > MAX_TS_LENGTH) {
        return Err(invalid("ts", "a time in milliseconds"));
    }
    let preview = homeserver.preview_url(&url, ts.as_deref(), requester.caller()).await?;
    let preview = preview.map_err(MediaError::Refused)?;
    Ok(Reply::json_bytes(StatusCode::OK, preview))
}
