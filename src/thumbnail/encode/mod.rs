//! From a small picture to a file: one file for each format that thumbnails are written in.

mod jpeg;
mod png;
mod webp;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage};

use super::error::ThumbnailError;
use super::job::Rendered;
use crate::types::{ThumbnailEncoding, ThumbnailSize};

/// A picture of eight bits a channel, in the colours of sRGB.
#[derive(Debug, Clone)]
pub(super) enum Encodable {
    /// Gray, or red, green and blue; with transparency or without.
    Image(DynamicImage),
    /// Luma, and blue and red chroma of half its sides, rounded up.
    Planes([GrayImage; 3]),
}

impl Encodable {
    /// Turns the picture the way that its source says.
    pub(super) fn turned(mut self, orientation: Orientation) -> Self {
        match &mut self {
            Self::Image(image) => image.apply_orientation(orientation),
            Self::Planes(planes) => {
                *planes = std::mem::take(planes).map(|plane| {
                    let mut plane = DynamicImage::from(plane);
                    plane.apply_orientation(orientation);
                    plane.into_luma8()
                });
            }
        }
        self
    }

    fn size(&self) -> ThumbnailSize {
        let (width, height) = match self {
            Self::Image(image) => (image.width(), image.height()),
            Self::Planes([luma, ..]) => luma.dimensions(),
        };
        ThumbnailSize { width, height }
    }
}

/// Writes JPEG; PNG where JPEG cannot hold the picture; WebP where that is allowed and it can.
///
/// # Errors
///
/// `Damaged`, if the encoder refuses a picture that it should take.
pub(super) fn encode(
    picture: Encodable,
    encoding: ThumbnailEncoding,
) -> Result<Rendered, ThumbnailError> {
    let size = picture.size();
    let longest = size.width.max(size.height);
    let (bytes, content_type) = match picture {
        Encodable::Planes(planes) => (jpeg::encode_planes(&planes)?, "image/jpeg"),
        Encodable::Image(image) => {
            let image = without_unused_alpha(image);
            if encoding == ThumbnailEncoding::WebP && longest <= webp::LONGEST_SIDE {
                (webp::encode(&image)?, "image/webp")
            } else if image.color().has_alpha() || longest > jpeg::LONGEST_SIDE {
                (png::encode(&image)?, "image/png")
            } else {
                (jpeg::encode(&image)?, "image/jpeg")
            }
        }
    };
    Ok(Rendered::Encoded { bytes, content_type, size })
}

/// Drops an alpha channel that says "opaque" everywhere.
fn without_unused_alpha(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageLumaA8(_) if is_opaque(&image) => image.into_luma8().into(),
        DynamicImage::ImageRgba8(_) if is_opaque(&image) => image.into_rgb8().into(),
        _ => image,
    }
}

/// Whether nothing behind a picture of eight bits a channel would be seen.
pub(super) fn is_opaque(image: &DynamicImage) -> bool {
    let channels = usize::from(image.color().channel_count());
    !image.color().has_alpha() || is_opaque_in(image.as_bytes(), channels)
}

/// Whether the last of so many channels is full everywhere.
pub(super) fn is_opaque_in(pixels: &[u8], channels: usize) -> bool {
    // In runs that the compiler turns into wide instructions, and no further than needed.
    let is_opaque = |run: &[u8]| {
        let alpha = run.iter().skip(channels - 1).step_by(channels);
        alpha.fold(u8::MAX, |all, alpha| all & alpha) == u8::MAX
    };
    pixels.chunks(channels * 1024).all(is_opaque)
}
