//! `GET …/thumbnail/{serverName}/{mediaId}` (checklist section 9).

use http::HeaderMap;

use super::accept::accepts_webp;
use super::{invalid, search};
use crate::error::ApiError;
use crate::media::{MediaService, Reader, ThumbnailRequest};
use crate::response::{Conditions, Reply};
use crate::route::{Access, Query};
use crate::types::{Mxc, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize};

/// What a request says beside whose thumbnail it wants.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) conditions: &'a Conditions,
    pub(super) query: Query<'a>,
}

pub(super) async fn thumbnail(
    media: &MediaService,
    reader: Reader<'_>,
    access: Access,
    mxc: &Mxc,
    received: Received<'_>,
) -> Result<Reply, ApiError> {
    let Received { headers, conditions, query } = received;
    let mut request = parse(query)?;
    let is_negotiated = media.negotiates_thumbnails();
    if is_negotiated && accepts_webp(headers) {
        request.encoding = ThumbnailEncoding::WebP;
    }
    let item = media.thumbnail(reader, mxc, request, search(access, query)).await?;
    let reply = Reply::media(item, None, access, conditions);
    // Also where it made no difference: another request for the same URI might get something else.
    Ok(if is_negotiated { reply.varying_by_accept() } else { reply })
}

/// Reads what is asked for. Sides are whole numbers from one on; the method is `scale` if it is not
/// named (FLD-13), and the encoding one that everybody reads.
///
/// # Errors
///
/// 400 for what is missing or makes no sense (CS-TH-01, CS-TH-11).
pub(super) fn parse(query: Query<'_>) -> Result<ThumbnailRequest, ApiError> {
    let width = side(query, "width")?;
    let height = side(query, "height")?;
    let method = match query.get("method").as_deref() {
        None | Some("scale") => ThumbnailMethod::Scale,
        Some("crop") => ThumbnailMethod::Crop,
        Some(_) => return Err(invalid("method", "crop or scale")),
    };
    let animated = query.get("animated").or_else(|| query.get("org.matrix.msc2705.animated"));
    let animated = match animated.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("animated", "true or false")),
    };
    let (size, encoding) = (ThumbnailSize { width, height }, ThumbnailEncoding::Universal);
    Ok(ThumbnailRequest { size, method, animated, encoding })
}

fn side(query: Query<'_>, name: &'static str) -> Result<u32, ApiError> {
    let text = query.get(name).ok_or(ApiError::MissingParameter(name))?;
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        return Err(invalid(name, NUMBER));
    }
    // A side beyond 32 bits is larger than any picture: the largest number says the same.
    match text.parse().unwrap_or(u32::MAX) {
        0 => Err(invalid(name, NUMBER)),
        side => Ok(side),
    }
}

/// What a side has to be.
const NUMBER: &str = "a whole number from 1 up";

#[cfg(test)]
mod tests {
    use super::*;

    /// CS-TH-01, CS-TH-02, CS-TH-14, CS-TH-16
    #[test]
    fn sizes_methods_and_animation_are_read() {
        let request = parse(Query::new(b"width=32&height=64&method=crop&animated=true")).unwrap();
        assert_eq!(request.size, ThumbnailSize { width: 32, height: 64 });
        assert_eq!(request.method, ThumbnailMethod::Crop);
        assert!(request.animated);
        let request = parse(Query::new(b"width=1&height=99999999999999")).unwrap();
        assert_eq!(request.size.height, u32::MAX);
        assert_eq!(request.method, ThumbnailMethod::Scale);
        assert!(!request.animated);
    }

    /// Of a repeated parameter the first counts, as with Synapse, whatever the others hold.
    #[test]
    fn the_first_of_a_repeated_parameter_counts() {
        let query =
            b"width=1&width=x&height=2&height=3&method=crop&method=?&animated=false&animated=true";
        let request = parse(Query::new(query)).unwrap();
        assert_eq!(request.size, ThumbnailSize { width: 1, height: 2 });
        assert_eq!((request.method, request.animated), (ThumbnailMethod::Crop, false));
        assert!(parse(Query::new(b"width=x&width=1&height=1")).is_err());
        let both = b"width=1&height=1&animated=false&org.matrix.msc2705.animated=true";
        assert!(!parse(Query::new(both)).unwrap().animated, "the released name counts");
    }

    /// CS-TH-01, CS-TH-11
    #[test]
    fn what_makes_no_sense_is_refused() {
        for query in [
            "",
            "width=1",
            "height=1",
            "width=0&height=1",
            "width=-1&height=1",
            "width=1.5&height=1",
            "width=NaN&height=1",
            "width=&height=1",
            "width=+1&height=1",
            "width=0x10&height=1",
            "width=1&height=1&method=xyz",
            "width=1&height=1&animated=maybe",
        ] {
            assert!(parse(Query::new(query.as_bytes())).is_err(), "{query}");
        }
    }
}
