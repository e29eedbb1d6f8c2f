//! `POST /_matrix/media/v3/upload` (checklist section 5).

use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use crate::auth::Requester;
use crate::error::ApiError;
use crate::media::{MediaService, NewUpload};
use crate::response::Reply;
use crate::route::Query;
use crate::types::{BodyReader, ContentType, FileName, announced_length};

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
    let upload = NewUpload {
        content_type: content_type(headers),
        filename: query.get("filename").and_then(|name| FileName::clean(&name)),
        announced_size: announced_length(headers),
    };
    let mxc = media.upload(requester, upload, body).await?;
    Ok(Reply::json(StatusCode::OK, &Uploaded { content_uri: mxc.to_string() }))
}

/// Of two types neither can be trusted (threats HI-03).
fn content_type(headers: &HeaderMap) -> ContentType {
    let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => ContentType::from_header(Some(field.as_bytes())),
        _ => ContentType::from_header(None),
    }
}
