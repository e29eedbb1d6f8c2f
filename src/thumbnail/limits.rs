//! How much a picture may cost, derived from one number: its pixels.

use serde::{Deserialize, Serialize};

use super::error::ThumbnailError;
use crate::types::ThumbnailSize;

/// How much a picture may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most pixels that a source may have (threats IM-01, IM-02).
    pub max_pixels: u64,
    /// The most frames that a moving thumbnail is made of; past that it stands still (threats IM-03).
    pub max_frames: u32,
    /// The most pixels that all frames of a moving source may come to, each as large as the whole.
    pub max_animation_pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 50_000_000, max_frames: 500, max_animation_pixels: 100_000_000 }
    }
}

impl Limits {
    /// Eight bits for each of four channels; pictures with sixteen may have half as many pixels.
    const BYTES_PER_PIXEL: u64 = 4;

    /// What decoders may use beside pixels, so that a low limit does not refuse small pictures.
    const FIXED_BYTES: u64 = 1024 * 1024;

    /// Photographs take less than one byte a pixel, at the best quality about two.
    const JPEG_BYTES_PER_PIXEL: u64 = 2;

    /// For what a PNG file says before its pixels: colour profile and texts.
    const PNG_HEADER_BYTES: u64 = 16 * 1024 * 1024;

    /// Refuses a picture with too many pixels.
    pub(super) fn check(&self, size: ThumbnailSize) -> Result<(), ThumbnailError> {
        let pixels = u64::from(size.width) * u64::from(size.height);
        if pixels <= self.max_pixels {
            return Ok(());
        }
        let limit = self.max_pixels;
        Err(ThumbnailError::TooLarge(format!("{size} is {pixels} pixels, allowed are {limit}")))
    }

    /// The most bytes that a coded picture may have that has to be held in memory as a whole.
    pub(super) fn max_coded_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(Self::BYTES_PER_PIXEL).saturating_add(Self::FIXED_BYTES)
    }

    /// Refuses a coded picture with too many bytes.
    pub(super) fn check_coded_bytes(&self, length: u64) -> Result<(), ThumbnailError> {
        let limit = self.max_coded_bytes();
        if length <= limit {
            return Ok(());
        }
        Err(ThumbnailError::TooLarge(format!("{length} bytes, allowed are {limit}")))
    }

    pub(super) fn max_jpeg_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(Self::JPEG_BYTES_PER_PIXEL).saturating_add(Self::FIXED_BYTES)
    }

    /// The most memory that the pixels of one picture may take while it is decoded.
    pub(super) fn max_decoding_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(Self::BYTES_PER_PIXEL).saturating_add(Self::FIXED_BYTES)
    }

    /// For decoding: no side longer than all pixels in a row, and memory for the pixels.
    pub(super) fn for_decoding(&self) -> image::Limits {
        let mut limits = image::Limits::no_limits();
        let longest_side = u32::try_from(self.max_pixels).unwrap_or(u32::MAX);
        limits.max_image_width = Some(longest_side);
        limits.max_image_height = Some(longest_side);
        limits.max_alloc = Some(self.max_decoding_bytes());
        limits
    }

    /// For the part of a PNG file that is read before its pixels are counted.
    pub(super) fn for_png_header(&self) -> image::Limits {
        let mut limits = self.for_decoding();
        limits.max_alloc = Some(Self::PNG_HEADER_BYTES);
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CS-LIM-02
    #[test]
    fn the_limit_itself_is_allowed_and_one_pixel_more_is_not() {
        let limits = Limits { max_pixels: 12, ..Limits::default() };
        assert!(limits.check(ThumbnailSize { width: 4, height: 3 }).is_ok());
        let over = limits.check(ThumbnailSize { width: 13, height: 1 });
        assert!(matches!(over, Err(ThumbnailError::TooLarge(_))), "{over:?}");
    }

    #[test]
    fn the_largest_numbers_are_safe() {
        let limits = Limits { max_pixels: u64::MAX, ..Limits::default() };
        assert!(limits.check(ThumbnailSize { width: u32::MAX, height: u32::MAX }).is_ok());
        assert_eq!(limits.max_jpeg_bytes(), u64::MAX);
        assert_eq!(limits.for_decoding().max_alloc, Some(u64::MAX));
    }
}
