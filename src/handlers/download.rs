//! `GET …/download/{serverName}/{mediaId}[/{fileName}]` (checklist section 6).

use tokio::time::timeout;

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
    let search = search(access, query);
    let mut item = media.download(reader, mxc, search).await?;
    // What a range of a body of unknown size holds is not known before it is there. If that takes
    // too long, the body is sent from its start.
    if let MediaBody::Arriving(body) = &mut item.body
        && let (None, Some(last)) = (body.size(), conditions.last_position())
        && let Ok(reached) = timeout(search.wait, body.reach(last)).await
    {
        reached?;
    }
    Ok(Reply::media(item, filename.as_ref(), access, conditions))
}
