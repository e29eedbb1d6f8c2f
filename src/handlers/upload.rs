//! `POST /_matrix/media/v3/upload` and `PUT …/upload/{serverName}/{mediaId}` (checklist section 5).

use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use crate::auth::Requester;
use crate::error::ApiError;
use crate::media::{MediaService, NewUpload};
use crate::response::Reply;
use crate::route::Query;
use crate::types::{BodyReader, ContentType, FileName, Mxc, announced_length};

#[derive(Serialize)]
struct Uploaded {
    content_uri: String,
}

pub(super) async fn upload(
    media: &MediaService,
    requester: &Requester,
    headers: &HeaderMap,
    query: Query<'_>,
    body: &mut dyn BodyReader,
) -> Result<Reply, ApiError> {
    let mxc = media.upload(requester, new_upload(headers, query), body).await?;
    Ok(Reply::json(StatusCode::OK, &Uploaded { content_uri: mxc.to_string() }))
}

/// The answer to an upload whose URI is known (CS-PUT-01).
#[derive(Serialize)]
struct Nothing {}

pub(super) async fn upload_to(
    media: &MediaService,
    requester: &Requester,
    mxc: &Mxc,
    headers: &HeaderMap,
    query: Query<'_>,
    body: &mut dyn BodyReader,
) -> Result<Reply, ApiError> {
    media.upload_to(requester, mxc, new_upload(headers, query), body).await?;
    Ok(Reply::json(StatusCode::OK, &Nothing {}))
}

/// Reads what the uploader says of the file, the same for both (CS-PUT-07).
fn new_upload(headers: &HeaderMap, query: Query<'_>) -> NewUpload {
    NewUpload {
        content_type: content_type(headers),
        filename: query.get("filename").and_then(|name| FileName::clean(&name)),
        announced_size: announced_length(headers),
    }
}

/// Of two types neither can be trusted (threats HI-03).
fn content_type(headers: &HeaderMap) -> ContentType {
    let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => ContentType::from_header(Some(field.as_bytes())),
        _ => ContentType::from_header(None),
    }
}
