//! `GET …/download/{serverName}/{mediaId}[/{fileName}]` (checklist section 6).

use super::search;
use crate::error::ApiError;
use crate::media::{MediaBody, MediaService, Reader};
use crate::response::{Conditions, Reply};
use crate::route::{Access, Query};
use crate::types::{FileName, Mxc};

pub(super) async fn download(
    media: &MediaService,
    reader: Reader<'_>,
    access: Access,
    mxc: &Mxc,
    filename: Option<FileName>,
    conditions: &Conditions,
    query: Query<'_>,
) -> Result<Reply, ApiError> {
    let mut item = media.download(reader, mxc, search(access, query)).await?;
    // What a range of a body of unknown size holds is not known before it is there.
    if let MediaBody::Arriving(body) = &mut item.body
        && let (None, Some(last)) = (body.size(), conditions.last_position())
    {
        body.reach(last).await?;
    }
    Ok(Reply::media(item, filename.as_ref(), access, conditions))
}
