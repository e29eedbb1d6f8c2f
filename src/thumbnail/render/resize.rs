//! From many pixels to few, by Lanczos3.
//!
//! In the values as they are stored, not in linear light: that is what other servers and libvips show, and what
//! a Lanczos of the full picture is compared with. Linear light would brighten fine contrasts and needs sixteen
//! bits a channel.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{PixelType, ResizeOptions, Resizer};
use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};

use crate::thumbnail::decode::WebPPixels;
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::layout::Area;
use crate::types::ThumbnailSize;

/// A part of a picture, which may begin and end within pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Part {
    /// Returns where an area lies in a picture that is smaller by the given factors.
    pub(super) fn scaled(area: Area, (across, down): (f64, f64)) -> Self {
        let Area { left, top, width, height } = area;
        Self {
            left: f64::from(left) * across,
            top: f64::from(top) * down,
            width: f64::from(width) * across,
            height: f64::from(height) * down,
        }
    }

    /// For a picture of the given size, which the part must not leave by a rounding error.
    fn options(self, size: ThumbnailSize) -> ResizeOptions {
        let width = self.width.min(f64::from(size.width) - self.left);
        let height = self.height.min(f64::from(size.height) - self.top);
        // Transparency has been counted in before, once for all sizes.
        ResizeOptions::new().crop(self.left, self.top, width, height).use_alpha(false)
    }
}

/// Brings a part of a picture to a size, each channel by itself.
pub(super) fn resize(
    image: &DynamicImage,
    part: Part,
    to: ThumbnailSize,
) -> Result<DynamicImage, ThumbnailError> {
    let mut resized = DynamicImage::new(to.width, to.height, image.color());
    let size = ThumbnailSize { width: image.width(), height: image.height() };
    Resizer::new().resize(image, &mut resized, &part.options(size)).map_err(impossible)?;
    Ok(resized)
}

/// Brings a part of one plane of samples to a size.
pub(super) fn resize_plane(
    samples: &[u8],
    size: ThumbnailSize,
    part: Part,
    to: ThumbnailSize,
) -> Result<GrayImage, ThumbnailError> {
    let resized = resize_bytes(samples, PixelType::U8, size, part, to)?;
    GrayImage::from_raw(to.width, to.height, resized).ok_or_else(|| impossible("another size"))
}

/// Brings a part of a picture of three or four bytes a pixel to a size.
pub(super) fn resize_packed(
    pixels: &WebPPixels,
    part: Part,
    to: ThumbnailSize,
) -> Result<DynamicImage, ThumbnailError> {
    let (bytes, size) = (pixels.bytes(), pixels.size());
    let resized = if pixels.has_alpha() {
        let resized = resize_bytes(bytes, PixelType::U8x4, size, part, to)?;
        RgbaImage::from_raw(to.width, to.height, resized).map(DynamicImage::from)
    } else {
        let resized = resize_bytes(bytes, PixelType::U8x3, size, part, to)?;
        RgbImage::from_raw(to.width, to.height, resized).map(DynamicImage::from)
    };
    resized.ok_or_else(|| impossible("another size"))
}

fn resize_bytes(
    bytes: &[u8],
    pixel: PixelType,
    size: ThumbnailSize,
    part: Part,
    to: ThumbnailSize,
) -> Result<Vec<u8>, ThumbnailError> {
    let source = ImageRef::new(size.width, size.height, bytes, pixel).map_err(impossible)?;
    let mut resized = Image::new(to.width, to.height, pixel);
    Resizer::new().resize(&source, &mut resized, &part.options(size)).map_err(impossible)?;
    Ok(resized.into_vec())
}

fn impossible(error: impl ToString) -> ThumbnailError {
    ThumbnailError::Damaged(error.to_string())
}
