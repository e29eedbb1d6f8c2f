//! Still WebP, decoded by libwebp; animations are left to the `image` crate.
//!
//! libwebp takes 106 ms of CPU for a lossy picture of 12 megapixels where `image-webp` takes 280, and about
//! as much for a lossless one. What the file claims is checked before, by [`super::webp`].

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::rc::Rc;

use webp::{Decoder, WebPImage};

use super::image_rs::ImageSource;
use super::{Header, Pixels, Source};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;

/// Pixels of three or four bytes, in memory of libwebp's, which is not worth a copy.
pub(in crate::thumbnail) struct WebPPixels(WebPImage);

impl WebPPixels {
    /// Returns the size of the whole picture.
    pub(in crate::thumbnail) fn size(&self) -> ThumbnailSize {
        ThumbnailSize { width: self.0.width(), height: self.0.height() }
    }

    /// Whether each pixel has an alpha channel behind red, green and blue.
    pub(in crate::thumbnail) fn has_alpha(&self) -> bool {
        self.0.is_alpha()
    }

    /// Returns the pixels, row by row.
    pub(in crate::thumbnail) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the pixels, row by row.
    pub(in crate::thumbnail) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for WebPPixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebPPixels({})", self.size())
    }
}

/// A file in memory with two readers.
struct Shared(Rc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A WebP whose header has been read.
pub(super) struct WebPSource {
    file: Rc<Vec<u8>>,
    /// Has read the header, and decodes what moves.
    inner: ImageSource,
}

impl WebPSource {
    /// Reads the whole file, and checks its claims before anything is decoded.
    ///
    /// # Errors
    ///
    /// As [`super::open`].
    pub(super) fn open(
        reader: BufReader<File>,
        length: u64,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let limit = limits.max_decoding_bytes();
        if length > limit {
            return Err(ThumbnailError::TooLarge(format!("{length} bytes, allowed are {limit}")));
        }
        let mut file = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        // A file that grows meanwhile is read as far as it was long.
        reader.take(length).read_to_end(&mut file)?;
        let file = Rc::new(file);
        let inner = ImageSource::open_webp(Cursor::new(Shared(Rc::clone(&file))), limits)?;
        Ok(Self { file, inner })
    }
}

impl Source for WebPSource {
    fn header(&self) -> &Header {
        self.inner.header()
    }

    fn color_profile(&mut self) -> Option<Vec<u8>> {
        self.inner.color_profile()
    }

    fn decode(self: Box<Self>, at_least: ThumbnailSize) -> Result<Pixels, ThumbnailError> {
        if self.inner.header().animated {
            return Box::new(self.inner).decode(at_least);
        }
        let decoded = Decoder::new(&self.file).decode().map(WebPPixels);
        match decoded.filter(|decoded| decoded.size() == self.inner.header().size) {
            Some(decoded) => Ok(Pixels::WebP(decoded)),
            // The other decoder is slower and reads more that is odd.
            None => Box::new(self.inner).decode(at_least),
        }
    }
}
