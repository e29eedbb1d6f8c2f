//! Saying why a connection is closed, so that the client hears it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long and how much is read and thrown away after the last word: closing a socket that holds
/// unread bytes would reset the connection, and with it what was said.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// The last words on a connection and what follows them.
pub(super) struct Farewell {
    words: Bytes,
    is_said: bool,
    left: usize,
    patience: Pin<Box<Sleep>>,
}

impl Farewell {
    /// `words` is a whole HTTP message.
    pub(super) fn new(words: Bytes) -> Self {
        let patience = Box::pin(sleep(LINGER));
        Self { words, is_said: false, left: LINGER_BYTES, patience }
    }

    /// Writes the words, closes our side, and waits until the client has closed its own, within
    /// bounds.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while self.words.has_remaining() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.words))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.words.advance(written);
        }
        if !self.is_said {
            ready!(Pin::new(&mut *stream).poll_flush(cx))?;
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            self.is_said = true;
        }
        let mut ignored = [0; 4096];
        loop {
            let mut ignored = ReadBuf::new(&mut ignored);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut ignored))?;
            let read = ignored.filled().len();
            if read == 0 || read > self.left {
                return Poll::Ready(Ok(()));
            }
            self.left -= read;
        }
    }
}
