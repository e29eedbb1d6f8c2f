//! `GET …/preview_url` (CS-PV-01 to CS-PV-04): made by the homeserver, asked with the caller's
//! token.

use http::StatusCode;

use crate::auth::Requester;
use crate::error::ApiError;
use crate::homeserver::Homeserver;
use crate::media::MediaError;
use crate::response::Reply;
use crate::route::Query;

pub(super) async fn preview_url(
    homeserver: &Homeserver,
    requester: &Requester,
    query: Query<'_>,
) -> Result<Reply, ApiError> {
    let url = query.get("url").ok_or(ApiError::MissingParameter("url"))?;
    let ts = query.get("ts");
    let preview = homeserver.preview_url(&url, ts.as_deref(), requester.caller()).await?;
    let preview = preview.map_err(MediaError::Refused)?;
    Ok(Reply::json_bytes(StatusCode::OK, preview))
}
