//! A body that goes on where it broke off (RFC 9110, section 14.2).

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::time::Instant;
use url::Url;

use super::is_coded;
use crate::egress::{Egress, Response, ResponseBody, UrlRequest};
use crate::federation::Servers;
use crate::types::{BodyError, BodyReader, ContentRange, ServerName, announced_length};

/// How long is waited before each try: a connection that broke is made anew at once, a server that
/// starts again is given a moment.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// How the rest of a body can be asked for.
pub(super) enum Again {
    /// Of a server, by a target that asks for no signature.
    Server { servers: Servers, server: ServerName, target: String },
    /// By a URL, the one that the first answer came from.
    Url { egress: Egress, url: Url },
}

impl Again {
    /// Asks for a range; `None` if there is no answer.
    ///
    /// In a box: with all that finding a server takes, this is much larger than reading on.
    fn ask<'a>(
        &'a self,
        fields: &'a [(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Pin<Box<dyn Future<Output = Option<Response>> + Send + 'a>> {
        Box::pin(async move {
            match self {
                Self::Server { servers, server, target } => {
                    servers.get(server, target, fields, deadline).await.ok()
                }
                Self::Url { egress, url } => {
                    let request =
                        UrlRequest { url: url.clone(), fields: fields.to_vec(), max_redirects: 0 };
                    egress.get_url(request, deadline).await.ok().map(|(_, response)| response)
                }
            }
        })
    }
}

/// A body whose reader does not notice that it broke off, if the server can go on where it was. That is
/// tried a few times at most, and only while nothing says that it has become another body.
pub(super) struct Resumable {
    /// `None` after a break.
    body: Option<ResponseBody>,
    progress: Progress,
    again: Again,
    /// How long the head of an answer may take.
    timeout: Duration,
    tries: usize,
}

impl Resumable {
    /// Takes the answer that holds the whole body.
    pub(super) fn new(response: Response, again: Again, timeout: Duration) -> Self {
        let progress = Progress::new(&response.headers);
        Self { body: Some(response.body), progress, again, timeout, tries: 0 }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let Some(body) = &mut self.body else {
                self.resume().await?;
                continue;
            };
            match body.next().await {
                Ok(Some(chunk)) => {
                    self.progress.arrived(&chunk)?;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.progress.is_whole() => return Ok(None),
                Ok(None) | Err(BodyError::Gone) => self.body = None,
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for the rest, once; `body` is there afterwards if it is given, or else the next try may
    /// come.
    async fn resume(&mut self) -> Result<(), BodyError> {
        let pause = *PAUSES.get(self.tries).ok_or(BodyError::Gone)?;
        let fields = self.progress.fields().ok_or(BodyError::Gone)?;
        // Counted first: whoever gives up waiting and comes again has had this try.
        self.tries += 1;
        tokio::time::sleep(pause).await;
        let deadline = Instant::now() + self.timeout;
        let Some(response) = self.again.ask(&fields, deadline).await else { return Ok(()) };
        // Whatever else it says, it has no rest of this body.
        if !self.progress.goes_on_with(response.status, &response.headers) {
            return Err(BodyError::Gone);
        }
        self.body = Some(response.body);
        Ok(())
    }
}

/// How far a body has come, and what it is known by.
#[derive(Debug)]
struct Progress {
    offset: u64,
    total: Option<u64>,
    /// Where the part ends that comes at the moment, if it said so.
    part_end: Option<u64>,
    etag: Option<HeaderValue>,
    /// What the server has to find unchanged, if it can go on at all.
    validator: Option<HeaderValue>,
}

impl Progress {
    fn new(headers: &HeaderMap) -> Self {
        let total = announced_length(headers);
        Self {
            offset: 0,
            total,
            part_end: total,
            etag: headers.get(header::ETAG).cloned(),
            validator: validator(headers),
        }
    }

    /// Notes that bytes have come. More than there should be are not taken: they belong to another body,
    /// or to none.
    fn arrived(&mut self, chunk: &[u8]) -> Result<(), BodyError> {
        self.offset = self.offset.saturating_add(chunk.len() as u64);
        match self.part_end {
            Some(end) if self.offset > end => {
                Err(BodyError::Malformed("there is more of it than was announced".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn is_whole(&self) -> bool {
        self.total.is_none_or(|total| self.offset >= total)
    }

    /// Returns the fields that ask for the rest, if it can be asked for.
    fn fields(&self) -> Option<[(HeaderName, HeaderValue); 2]> {
        let range = HeaderValue::from_str(&format!("bytes={}-", self.offset)).ok()?;
        Some([(header::RANGE, range), (header::IF_RANGE, self.validator.clone()?)])
    }

    /// Whether an answer holds the rest of the body, or a part of it from here on.
    fn goes_on_with(&mut self, status: StatusCode, headers: &HeaderMap) -> bool {
        let range = headers.get(header::CONTENT_RANGE);
        let range = range.and_then(|value| ContentRange::parse(value.as_bytes()));
        let Some(ContentRange { first, last, total: Some(total) }) = range else { return false };
        let goes_on = status == StatusCode::PARTIAL_CONTENT
            && first == self.offset
            && self.total.is_none_or(|known| known == total)
            && headers.get(header::ETAG).is_none_or(|etag| Some(etag) == self.etag.as_ref())
            && !is_coded(headers);
        if goes_on {
            self.total = Some(total);
            self.part_end = Some(last.saturating_add(1));
        }
        goes_on
    }
}

/// Returns what says that a body is the same, byte for byte: a strong `ETag`, or else a time of change
/// that lies before the answer (RFC 9110, section 8.8.2.2). A time alone does not say that the server
/// can send a part.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let accepts = headers.get(header::ACCEPT_RANGES).map(HeaderValue::as_bytes);
    if accepts.is_some_and(|units| units.eq_ignore_ascii_case(b"none")) {
        return None;
    }
    if let Some(etag) = headers.get(header::ETAG) {
        return Some(etag.clone()).filter(|etag| etag.as_bytes().starts_with(b"\""));
    }
    let changed = headers.get(header::LAST_MODIFIED)?;
    // Both count whole seconds, so two that differ are a second apart.
    let is_before = headers.get(header::DATE).is_some_and(|date| date != changed);
    let takes_ranges = accepts.is_some_and(|units| units.eq_ignore_ascii_case(b"bytes"));
    (is_before && takes_ranges).then(|| changed.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "Sat, 21 Nov 2026 12:00:00 GMT";
    const LATER: &str = "Sat, 21 Nov 2026 12:00:01 GMT";

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_body_can_be_resumed_that_can_be_told_from_another() {
        for (fields, validator) in [
            (vec![(header::ETAG, "\"a\"")], Some("\"a\"")),
            (vec![(header::ETAG, "\"a\""), (header::LAST_MODIFIED, EARLIER)], Some("\"a\"")),
            (vec![(header::ETAG, "\"a\""), (header::ACCEPT_RANGES, "none")], None),
            (vec![(header::ETAG, "W/\"a\""), (header::ACCEPT_RANGES, "bytes")], None),
            (vec![(header::ACCEPT_RANGES, "bytes")], None),
            (
                vec![
                    (header::LAST_MODIFIED, EARLIER),
                    (header::DATE, LATER),
                    (header::ACCEPT_RANGES, "bytes"),
                ],
                Some(EARLIER),
            ),
            (vec![(header::LAST_MODIFIED, EARLIER), (header::DATE, LATER)], None),
            (vec![(header::LAST_MODIFIED, EARLIER), (header::ACCEPT_RANGES, "bytes")], None),
            (
                vec![
                    (header::LAST_MODIFIED, EARLIER),
                    (header::DATE, EARLIER),
                    (header::ACCEPT_RANGES, "bytes"),
                ],
                None,
            ),
        ] {
            let progress = Progress::new(&headers(&fields));
            let asked = progress.fields().map(|[_, (_, value)]| value);
            assert_eq!(asked, validator.map(HeaderValue::from_static), "{fields:?}");
        }
    }

    #[test]
    fn only_the_rest_of_the_same_body_is_taken() {
        let first = [(header::ETAG, "\"a\""), (header::CONTENT_LENGTH, "10")];
        let goes_on = |status: u16, fields: &[(HeaderName, &'static str)]| {
            let mut progress = Progress::new(&headers(&first));
            progress.offset = 4;
            progress.goes_on_with(StatusCode::from_u16(status).unwrap(), &headers(fields))
        };
        let range = header::CONTENT_RANGE;
        assert!(goes_on(206, &[(range.clone(), "bytes 4-9/10")]));
        assert!(goes_on(206, &[(range.clone(), "bytes 4-9/10"), (header::ETAG, "\"a\"")]));
        assert!(goes_on(206, &[(range.clone(), "bytes 4-6/10")]));
        for (status, fields) in [
            (200, vec![(range.clone(), "bytes 4-9/10")]),
            (206, vec![]),
            (206, vec![(range.clone(), "bytes 0-9/10")]),
            (206, vec![(range.clone(), "bytes 5-9/10")]),
            (206, vec![(range.clone(), "bytes 4-10/11")]),
            (206, vec![(range.clone(), "bytes 4-9/*")]),
            (206, vec![(range.clone(), "bytes 4-9/10"), (header::ETAG, "\"b\"")]),
            (206, vec![(range.clone(), "bytes 4-9/10"), (header::CONTENT_ENCODING, "gzip")]),
            (416, vec![(range, "bytes */10")]),
        ] {
            assert!(!goes_on(status, &fields), "{status} {fields:?}");
        }
    }

    #[test]
    fn the_size_that_a_rest_names_is_the_bodys() {
        let mut progress = Progress::new(&headers(&[(header::ETAG, "\"a\"")]));
        progress.offset = 4;
        assert!(progress.is_whole(), "its end is where the answer ends");
        let rest = headers(&[(header::CONTENT_RANGE, "bytes 4-6/10")]);
        assert!(progress.goes_on_with(StatusCode::PARTIAL_CONTENT, &rest));
        assert!(!progress.is_whole());
        progress.offset = 10;
        assert!(progress.is_whole());
    }
}
