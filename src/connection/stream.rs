//! A Pingora stream that knows what it waits for.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::farewell::Farewell;
use super::{ConnectionLimits, Guard, Peer};
use crate::error::ApiError;
use crate::limit::Place;
use crate::metrics::ConnectionEnd;
use crate::response::closing_message;
use crate::types::{ClientNetwork, Pace};

/// The longest head of a request in bytes. Pingora would take a megabyte, which a few thousand
/// connections could fill; a query of 64 KB fits.
const MAX_HEAD: usize = 128 * 1024;

/// How a request begins whose answer has no body (RFC 9110, section 9.3.2).
const HEAD_METHOD: &[u8; 5] = b"HEAD ";

/// What a connection is busy with.
mod phase {
    /// New: nothing has come yet, and it will not be waited for long.
    pub const NEW: u8 = 0;
    /// Between two requests; Pingora ends what is idle for too long.
    pub const IDLE: u8 = 1;
    /// The head of a request is arriving.
    pub const HEAD: u8 = 2;
    /// A request was taken, and its body is still to come.
    pub const BODY: u8 = 3;
    /// The request is there; the client may be silent for as long as it likes.
    pub const ANSWER: u8 = 4;
}

/// A client's connection, its slowness bounded, and what Pingora refuses said in Matrix's words.
pub struct Guarded {
    stream: Stream,
    guard: Arc<Guard>,
    peer: Peer,
    phase: AtomicU8,
    /// When the present head, or the wait for the first, began.
    head_since: Instant,
    head_bytes: usize,
    /// How the present head begins, which tells whether its answer may have a body.
    opening: [u8; HEAD_METHOD.len()],
    sender: Pace,
    reader: Pace,
    /// How much the client had confirmed when the present wait for it to read began.
    confirmed: u64,
    sender_timer: Timer,
    reader_timer: Timer,
    sent_too_slowly: bool,
    farewell: Option<Farewell>,
    _place: Option<Place<ClientNetwork>>,
}

impl Guarded {
    pub(super) fn new(
        stream: Stream,
        guard: Arc<Guard>,
        peer: Peer,
        place: Option<Place<ClientNetwork>>,
    ) -> Self {
        guard.metrics.connections.open.inc();
        let ConnectionLimits { slow_timeout, min_rate, .. } = guard.limits;
        // A Unix socket does not tell what was taken of it before most of it was.
        let reader_timeout = if peer == Peer::Local { 4 * slow_timeout } else { slow_timeout };
        Self {
            sender: Pace::new(slow_timeout, min_rate),
            reader: Pace::new(reader_timeout, min_rate),
            stream,
            guard,
            peer,
            phase: AtomicU8::new(phase::NEW),
            head_since: Instant::now(),
            head_bytes: 0,
            opening: Default::default(),
            confirmed: 0,
            sender_timer: Timer::default(),
            reader_timer: Timer::default(),
            sent_too_slowly: false,
            farewell: None,
            _place: place,
        }
    }

    /// Notes that a request's head has arrived and is being answered; `has_body` if a body follows.
    pub fn begin_answer(&self, has_body: bool) {
        self.enter(if has_body { phase::BODY } else { phase::ANSWER });
    }

    /// Notes that the request's body is whole, or that what follows is none (a WebSocket's frames).
    pub fn end_body(&self) {
        self.enter(phase::ANSWER);
    }

    /// Notes that a request may come: the first, or another after the last was answered.
    pub(super) fn await_request(&self) {
        if self.phase() != phase::NEW {
            self.enter(phase::IDLE);
        }
    }

    /// Whether the client has sent its body so slowly that the rest of it is not waited for.
    pub fn sent_too_slowly(&self) -> bool {
        self.sent_too_slowly
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    fn is_before_answer(&self) -> bool {
        matches!(self.phase(), phase::NEW | phase::IDLE | phase::HEAD)
    }

    /// Says why the connection is closed, and closes it.
    pub(super) async fn refuse(&mut self, end: ConnectionEnd, error: &ApiError) {
        self.prepare_farewell(end, error);
        // Nobody is left to tell if this fails.
        let _ = poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await;
    }

    /// Settles what is said before the connection is closed; the first reason counts.
    fn prepare_farewell(&mut self, end: ConnectionEnd, error: &ApiError) {
        if self.farewell.is_none() {
            self.guard.ended(end, self.peer, Some(error));
            let has_body = self.opening != *HEAD_METHOD;
            self.farewell = Some(Farewell::new(closing_message(error, has_body)));
        }
    }

    /// Looks at what was read of a head.
    fn head_grew(&mut self, bytes: &[u8]) {
        if self.phase() != phase::HEAD {
            self.head_since = Instant::now();
            self.head_bytes = 0;
            self.opening = Default::default();
            self.sender = Pace::new(self.guard.limits.slow_timeout, self.guard.limits.min_rate);
        }
        self.enter(phase::HEAD);
        let missing = self.opening.iter_mut().skip(self.head_bytes);
        missing.zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.head_bytes += bytes.len();
    }

    /// Waits no longer for a client than it may take.
    fn poll_sender(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.phase() {
            phase::NEW => {
                ready!(self.sender_timer.poll(self.head_deadline(), cx));
                self.guard.ended(ConnectionEnd::HeadTooSlow, self.peer, None);
            }
            phase::HEAD => {
                ready!(self.sender_timer.poll(self.head_deadline(), cx));
                self.prepare_farewell(ConnectionEnd::HeadTooSlow, &ApiError::ClientTimedOut);
            }
            phase::BODY => {
                let deadline = self.sender.waits(Instant::now());
                ready!(self.sender_timer.poll(deadline, cx));
                if !std::mem::replace(&mut self.sent_too_slowly, true) {
                    self.guard.ended(ConnectionEnd::BodyTooSlow, self.peer, None);
                }
            }
            _ => return Poll::Pending,
        }
        Poll::Ready(Err(too_slow()))
    }

    fn head_deadline(&self) -> Instant {
        self.head_since + self.guard.limits.header_timeout
    }

    /// Waits no longer for a client to read than it may take. What counts is what the client has
    /// confirmed: the kernel takes a good deal at once and then nothing until most of that is gone.
    fn poll_reader(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.reader.is_waiting() {
            self.confirmed = self.confirmed_bytes();
        }
        loop {
            let deadline = self.reader.waits(Instant::now());
            ready!(self.reader_timer.poll(deadline, cx));
            let confirmed = self.confirmed_bytes();
            let progress = confirmed.saturating_sub(self.confirmed);
            self.confirmed = confirmed;
            self.reader.moved(progress, Instant::now);
            let now = Instant::now();
            if self.reader.waits(now) <= now {
                self.guard.ended(ConnectionEnd::ReaderTooSlow, self.peer, None);
                return Poll::Ready(too_slow());
            }
        }
    }

    fn confirmed_bytes(&self) -> u64 {
        let digest = self.stream.get_socket_digest();
        digest.and_then(|digest| digest.tcp_info()).map_or(0, |info| info.tcpi_bytes_acked)
    }

    /// Looks at what became of a write of ours.
    fn written(
        &mut self,
        outcome: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(bytes)) => {
                self.reader.moved(bytes as u64, Instant::now);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_reader(cx).map(Err),
        }
    }

    /// Swallows what Pingora answers to a request that it does not take, and settles on our own
    /// words in its place, which are said when it closes the connection.
    fn replace_refusal(&mut self, message: &[u8]) {
        let status = message.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let error = match status {
            // CONNECT, the only method that it refuses; what others there are depends on the route.
            Some(b"405") => {
                ApiError::MethodNotAllowed { allow: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" }
            }
            _ => ApiError::BadRequest("The request is malformed or has too many header fields"),
        };
        self.prepare_farewell(ConnectionEnd::Malformed, &error);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.guard.metrics.connections.open.dec();
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client is too slow")
}

/// A timer that is made at the first wait and moved only when it has gone off: most waits end long
/// before.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.head_bytes >= MAX_HEAD && this.phase() == phase::HEAD {
            this.prepare_farewell(ConnectionEnd::HeadTooLarge, &ApiError::HeadTooLarge);
            return Poll::Ready(Err(io::Error::other("the head of the request is too large")));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                let bytes = &buffer.filled()[before..];
                if this.is_before_answer() {
                    if !bytes.is_empty() {
                        this.head_grew(bytes);
                    }
                } else if this.phase() == phase::BODY {
                    this.sender.moved(bytes.len() as u64, Instant::now);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_sender(cx),
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.is_before_answer() {
            this.replace_refusal(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.is_before_answer() {
            this.replace_refusal(slices.first().map_or(&[], |slice| slice));
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.written(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.farewell.is_some() {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut this.stream).poll_flush(cx) {
            Poll::Ready(outcome) => {
                if this.reader.is_waiting() {
                    this.reader.moved(0, Instant::now);
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => this.poll_reader(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.farewell {
            Some(farewell) => farewell.poll(&mut this.stream, cx),
            None => Pin::new(&mut this.stream).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("stream", &self.stream).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        let _ = poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await;
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl GetTimingDigest for Guarded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

// Listeners speak neither TLS nor HTTP/2, so there is nothing to tell and nothing to look ahead for.
impl Ssl for Guarded {}
impl Peek for Guarded {}
