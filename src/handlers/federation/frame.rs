//! Media as the second part of an answer.

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use ring::rand::{self, Random, SystemRandom};

use super::judge::RequestPlace;
use crate::error::ApiError;
use crate::federation::multipart::{Boundary, Frame};
use crate::media::{MediaBody, MediaItem};
use crate::response::Reply;
use crate::types::{BodyError, BodyReader};

/// Frames media as two parts (FM-S-03 to FM-S-05), in the form that every known server reads
/// (FLD-01 to FLD-05).
pub(super) fn multipart(item: MediaItem, place: Option<RequestPlace>) -> Result<Reply, ApiError> {
    let boundary = boundary(&item)?;
    let disposition = item.content_type.disposition().header_value(item.filename.as_ref());
    let Frame { prefix, suffix } = Frame::new(&boundary, item.content_type.as_str(), &disposition);
    let size = item.body.size().map(|size| (prefix.len() + suffix.len()) as u64 + size);
    let framed = Framed {
        prefix: Some(prefix),
        body: item.body.into_reader(),
        suffix: Some(suffix),
        _place: place,
    };
    let content_type =
        HeaderValue::from_str(&format!("multipart/mixed; boundary={}", boundary.as_str()))
            .expect("ASCII");
    Ok(Reply::multipart(content_type, size, MediaBody::Relayed { body: Box::new(framed), size }))
}

/// Makes a boundary that the body cannot hold: its own hash, which nobody knows before the body is
/// written, or as long as that is not known a number that nobody knows. Letters and digits only, so
/// that it needs no quotes (FLD-03).
fn boundary(item: &MediaItem) -> Result<Boundary, ApiError> {
    let text = match item.content_hash {
        Some(hash) => hash.to_string(),
        None => {
            let random: Random<[u8; 16]> =
                rand::generate(&SystemRandom::new()).map_err(|_| ApiError::NoBoundary)?;
            format!("{:032x}", u128::from_be_bytes(random.expose()))
        }
    };
    text.parse().map_err(|_| ApiError::NoBoundary)
}

/// A body between two others.
pub(super) struct Framed {
    prefix: Option<Bytes>,
    body: Box<dyn BodyReader>,
    suffix: Option<Bytes>,
    /// Held until the body is sent.
    _place: Option<RequestPlace>,
}

impl Framed {
    /// Passes a body on as it is, with a place that is held until its end.
    pub(super) fn bare(body: Box<dyn BodyReader>, place: Option<RequestPlace>) -> Self {
        Self { prefix: None, body, suffix: None, _place: place }
    }
}

#[async_trait]
impl BodyReader for Framed {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(prefix) = self.prefix.take() {
            return Ok(Some(prefix));
        }
        match self.body.next().await? {
            Some(chunk) => Ok(Some(chunk)),
            None => Ok(self.suffix.take()),
        }
    }
}
