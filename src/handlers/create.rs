//! `POST /_matrix/media/v1/create` (CS-CRE-01 to CS-CRE-06).

use std::time::Instant;

use http::StatusCode;
use serde::Serialize;

use super::Admitted;
use crate::error::ApiError;
use crate::limit::{Limit, RateLimit};
use crate::media::MediaService;
use crate::response::Reply;
use crate::types::{BodyReader, UserId, collect};

/// The largest body in bytes; the specification's own has two, and later ones may have more.
const MAX_BODY: u64 = 64 * 1024;

#[derive(Serialize)]
struct Created {
    content_uri: String,
    unused_expires_at: i64,
}

pub(super) async fn create(
    media: &MediaService,
    limit: &RateLimit<UserId>,
    Admitted { requester, terms }: &Admitted<'_>,
    body: &mut dyn BodyReader,
) -> Result<Reply, ApiError> {
    if terms.is_rate_limited {
        limit
            .take(requester.user_id(), Instant::now())
            .map_err(|retry_after| Limit::Creations.exceeded(retry_after))?;
    }
    // Nothing in it has a meaning yet (CS-CRE-01), so whatever it holds is taken; but who does not
    // get to its end does not hear of a media id either.
    collect(body, MAX_BODY).await?;
    let created = media.create(requester, &terms.allowance).await?;
    Ok(Reply::json(
        StatusCode::OK,
        &Created {
            content_uri: created.mxc.to_string(),
            unused_expires_at: created.unused_expires_at.0,
        },
    ))
}
