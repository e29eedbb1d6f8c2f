//! Media up to the boundary behind it, without copying.

use bytes::{Buf, Bytes};
use memchr::memmem::Finder;

/// Finds the end of the media in bytes that come in pieces.
#[derive(Debug)]
pub(super) struct Delimiter {
    /// CRLF, two dashes and the boundary.
    text: Bytes,
    finder: Finder<'static>,
    /// So many of its bytes match the end of what has come; they are kept back.
    matched: usize,
    /// The first so many of these were no bytes of the media.
    virtually: usize,
}

/// What has been found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A piece of the media, never empty.
    Piece(Bytes),
    /// The delimiter, which is taken off.
    End,
    /// That more bytes are needed.
    Nothing,
}

impl Delimiter {
    /// Waits for the first byte of the media. The line end in front of the boundary may be that of the
    /// empty line before the media, if there is no media.
    pub(super) fn new(boundary: &str) -> Self {
        let text = Bytes::from(format!("\r\n--{boundary}"));
        Self { finder: Finder::new(&text).into_owned(), text, matched: 2, virtually: 2 }
    }

    /// Returns the two dashes and the boundary.
    pub(super) fn line(&self) -> &[u8] {
        &self.text[2..]
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Takes bytes off what has come.
    pub(super) fn find(&mut self, rest: &mut Bytes) -> Found {
        if rest.is_empty() {
            return Found::Nothing;
        }
        if self.matched > 0 {
            let wanted = &self.text[self.matched..];
            let compared = wanted.len().min(rest.len());
            if wanted[..compared] == rest[..compared] {
                rest.advance(compared);
                self.matched += compared;
                let is_end = self.matched == self.text.len();
                return if is_end { Found::End } else { Found::Nothing };
            }
            // CR stands at the beginning alone, so no later byte of what matched begins another match.
            let kept = self.text.slice(self.virtually..self.matched);
            (self.matched, self.virtually) = (0, 0);
            if !kept.is_empty() {
                return Found::Piece(kept);
            }
        }
        let found = self.finder.find(rest);
        if found == Some(0) {
            rest.advance(self.text.len());
            return Found::End;
        }
        if found.is_none() {
            self.matched = self.begun(rest);
        }
        let piece = rest.split_to(found.unwrap_or(rest.len() - self.matched));
        if found.is_none() {
            rest.clear();
        }
        if piece.is_empty() { Found::Nothing } else { Found::Piece(piece) }
    }

    /// Returns how many bytes at the end of these begin the delimiter.
    fn begun(&self, bytes: &[u8]) -> usize {
        let tail = &bytes[bytes.len().saturating_sub(self.text.len() - 1)..];
        let Some(at) = memchr::memrchr(b'\r', tail) else { return 0 };
        if self.text.starts_with(&tail[at..]) { tail.len() - at } else { 0 }
    }
}
