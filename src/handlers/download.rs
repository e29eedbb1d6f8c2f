//! `GET …/download/{serverName}/{mediaId}[/{fileName}]` (checklist section 6).

use super::search;
use crate::error::ApiError;
use crate::media::{MediaService, Reader};
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
    let item = media.download(reader, mxc, search(access, query)).await?;
    Ok(Reply::media(item, filename.as_ref(), access, conditions))
}
