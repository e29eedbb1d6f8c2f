//! Sends replies over Pingora's session.

use std::mem;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::{Reply, ReplyBody};
use crate::media::MediaBody;
use crate::types::{BodyError, BodyReader, announced_length, poll_once};

/// How much of an unread request body is read so that the connection can be kept.
const DRAINED_TO_KEEP: u64 = 64 * 1024;

/// How much more is read, and for how long, before the connection is closed, so that the client
/// reads the answer instead of a broken pipe.
const DRAINED_TO_CLOSE: u64 = 64 * 1024 * 1024;

/// The same for who has met a limit, so that being refused is no way around it.
const DRAINED_OF_LIMITED: u64 = 8 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Sends a reply. `is_head` leaves the body out (RFC 9110, section 9.3.2).
///
/// # Errors
///
/// An error means that the reply broke off and that the client can tell: the connection is cut
/// without a proper end. It must be returned to Pingora as it is.
pub async fn write(
    session: &mut Session,
    mut reply: Reply,
    is_head: bool,
) -> Result<(), Box<Error>> {
    if session.req_header().version != Version::HTTP_11 && !is_head {
        await_size(&mut reply).await?;
    }
    let status = reply.status;
    let unread = Unread::of(session);
    let mut head: ResponseHeader = into_head(reply.status, reply.headers);
    if unread.is_too_much_to_keep() {
        head.insert_header(header::CONNECTION, "close")?;
        session.set_keepalive(None);
    } else if unread.is_some() {
        session.set_close_on_response_before_downstream_finish(false);
        session.set_total_drain_timeout(Some(DRAIN_TIME));
    }
    let is_bodiless =
        is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_sized = is_bodiless || head.headers.contains_key(header::CONTENT_LENGTH);
    if !is_sized && session.req_header().version == Version::HTTP_11 {
        // Otherwise the connection's end is the body's, and one that broke off looks whole.
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    session.write_response_header(Box::new(head), is_bodiless).await?;
    if is_bodiless {
        session.write_response_body(None, true).await?;
    } else {
        match reply.body {
            ReplyBody::Whole(body) => session.write_response_body(Some(body), true).await?,
            ReplyBody::Media { body, range } => {
                let range = range.map(|range| (range.first, range.length()));
                if let Err(broken) = write_media(session, body, range).await? {
                    return Err(Error::explain(ErrorType::WriteError, broken.to_string()));
                }
            }
        }
    }
    let most = match status {
        StatusCode::TOO_MANY_REQUESTS => DRAINED_OF_LIMITED,
        _ => DRAINED_TO_CLOSE,
    };
    unread.drain(session, most).await;
    Ok(())
}

/// Waits until the size of a body is known. An old client knows no chunks: to it the connection's end
/// is the body's, and one that broke off looks whole.
async fn await_size(reply: &mut Reply) -> Result<(), Box<Error>> {
    if let ReplyBody::Media { body: MediaBody::Arriving(body), .. } = &mut reply.body
        && !reply.headers.contains_key(header::CONTENT_LENGTH)
    {
        body.reach(u64::MAX)
            .await
            .map_err(|error| Error::explain(ErrorType::WriteError, error.to_string()))?;
        if let Some(size) = body.size() {
            reply.headers.insert(header::CONTENT_LENGTH, size.into());
        }
    }
    Ok(())
}

fn into_head(status: StatusCode, headers: http::HeaderMap) -> ResponseHeader {
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_11;
    *response.headers_mut() = headers;
    response.into_parts().0.into()
}

/// Sends the bytes of media. The inner error is the source's, the outer one the connection's.
async fn write_media(
    session: &mut Session,
    body: MediaBody,
    range: Option<(u64, u64)>,
) -> Result<Result<(), BodyError>, Box<Error>> {
    match body {
        MediaBody::Memory(bytes) => {
            let part = match range {
                Some((first, length)) => slice(&bytes, first, length),
                None => bytes,
            };
            session.write_response_body(Some(part), true).await?;
            Ok(Ok(()))
        }
        MediaBody::Stored(body) => {
            let mut body = match range {
                Some((first, length)) => body.range(first, length),
                None => body,
            };
            copy(session, &mut body).await
        }
        MediaBody::Arriving(body) => {
            let mut body = match range {
                Some((first, length)) => body.range(first, length),
                None => body,
            };
            copy_live(session, &mut body).await
        }
        MediaBody::Relayed { mut body, .. } => copy_live(session, &mut *body).await,
    }
}

fn slice(bytes: &Bytes, first: u64, length: u64) -> Bytes {
    // A range was resolved against this very body, so both fit.
    let first = usize::try_from(first).unwrap_or(usize::MAX).min(bytes.len());
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - first);
    bytes.slice(first..first + length)
}

async fn copy(
    session: &mut Session,
    body: &mut dyn BodyReader,
) -> Result<Result<(), BodyError>, Box<Error>> {
    let mut turn = Turn::default();
    loop {
        match body.next().await {
            Ok(Some(chunk)) => {
                let length = chunk.len();
                session.write_response_body(Some(chunk), false).await?;
                turn.sent(length).await;
            }
            Ok(None) => {
                session.write_response_body(None, true).await?;
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// As [`copy`], for a body that may keep us waiting: what there is goes out before every wait.
async fn copy_live(
    session: &mut Session,
    body: &mut dyn BodyReader,
) -> Result<Result<(), BodyError>, Box<Error>> {
    let mut is_flushed = false;
    let mut turn = Turn::default();
    loop {
        let mut next = body.next();
        let chunk = match poll_once(&mut next).await {
            Poll::Ready(chunk) => chunk,
            Poll::Pending => {
                if !mem::replace(&mut is_flushed, true) {
                    flush(session).await?;
                }
                next.await
            }
        };
        match chunk {
            Ok(Some(chunk)) => {
                let length = chunk.len();
                session.write_response_body(Some(chunk), false).await?;
                turn.sent(length).await;
                is_flushed = false;
            }
            Ok(None) => {
                session.write_response_body(None, true).await?;
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Lets others have their turn now and then: the kernel takes megabytes of a large body at once, and
/// what is asked for meanwhile on this thread would wait for all of them.
#[derive(Default)]
struct Turn {
    sent: usize,
}

impl Turn {
    /// How many bytes are sent in one turn.
    const LENGTH: usize = 512 * 1024;

    async fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= Self::LENGTH {
            self.sent = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Sends what Pingora has gathered. It does so by itself only when its buffer is full or the body
/// whole, and has no word for it: but it flushes when a list of tasks ends in a failure, and hands
/// that failure back.
async fn flush(session: &mut Session) -> Result<(), Box<Error>> {
    const FLUSHED: ErrorType = ErrorType::Custom("flushed");
    let tasks = vec![HttpTask::Body(None, false), HttpTask::Failed(Error::new(FLUSHED))];
    match session.as_downstream_mut().response_duplex_vec(tasks).await {
        Err(error) if *error.etype() != FLUSHED => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the client is still sending although its request is answered.
enum Unread {
    Nothing,
    Little,
    Much,
}

impl Unread {
    fn of(session: &mut Session) -> Self {
        if session.is_body_done() {
            return Self::Nothing;
        }
        let awaits_continue = session.req_header().headers.contains_key(header::EXPECT)
            && session.body_bytes_read() == 0;
        let announced = announced_length(&session.req_header().headers);
        let left = announced.map(|length| length.saturating_sub(session.body_bytes_read() as u64));
        match left {
            // A client that waits for 100 sends nothing if it is told to close.
            _ if awaits_continue => Self::Much,
            Some(left) if left <= DRAINED_TO_KEEP => Self::Little,
            _ => Self::Much,
        }
    }

    fn is_some(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    fn is_too_much_to_keep(&self) -> bool {
        matches!(self, Self::Much)
    }

    /// Reads on for a while and throws away what comes, then lets Pingora close.
    async fn drain(self, session: &mut Session, most: u64) {
        if !self.is_too_much_to_keep() {
            return;
        }
        let drain = async {
            let mut drained = 0;
            while drained < most {
                match session.read_request_body().await {
                    Ok(Some(chunk)) => drained += chunk.len() as u64,
                    Ok(None) | Err(_) => break,
                }
            }
        };
        // Neither the end of the time nor of the bytes matters: the connection is closed anyway.
        let _ = tokio::time::timeout(DRAIN_TIME, drain).await;
    }
}
