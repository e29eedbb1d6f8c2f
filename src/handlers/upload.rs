//! `POST /_matrix/media/v3/upload` and `PUT …/upload/{serverName}/{mediaId}` (checklist section 5).

use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use super::Admitted;
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
    Admitted { requester, terms }: &Admitted<'_>,
    upload: NewUpload,
    body: &mut dyn BodyReader,
) -> Result<Reply, ApiError> {
    let mxc = media.upload(requester, &terms.allowance, upload, body).await?;
    Ok(Reply::json(StatusCode::OK, &Uploaded { content_uri: mxc.to_string() }))
}

/// The answer to an upload whose URI is known (CS-PUT-01).
#[derive(Serialize)]
struct Nothing {}

pub(super) async fn upload_to(
    media: &MediaService,
    Admitted { requester, terms }: &Admitted<'_>,
    mxc: &Mxc,
    upload: NewUpload,
    body: &mut dyn BodyReader,
) -> Result<Reply, ApiError> {
    media.upload_to(requester, &terms.allowance, mxc, upload, body).await?;
    Ok(Reply::json(StatusCode::OK, &Nothing {}))
}

/// Reads what the uploader says of the file, the same for both (CS-PUT-07).
pub(super) fn new_upload(headers: &HeaderMap, query: Query<'_>) -> NewUpload {
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
