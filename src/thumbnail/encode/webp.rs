//! Still WebP, lossy, by libwebp.

use image::DynamicImage;
use webp::{Encoder, PixelLayout, WebPConfig};

use crate::thumbnail::error::ThumbnailError;

/// The longest side that the format can express.
pub(super) const LONGEST_SIDE: u32 = 16_383;

/// What libwebp and libvips take if they are not told.
const QUALITY: f32 = 75.0;

/// How hard the encoder tries, of 0 to 6: above this the bytes hardly shrink for twice the time.
const METHOD: i32 = 2;

/// Encodes a picture of eight bits a channel, with transparency or without.
pub(super) fn encode(image: &DynamicImage) -> Result<Vec<u8>, ThumbnailError> {
    let converted;
    let image = match image {
        DynamicImage::ImageRgb8(_) | DynamicImage::ImageRgba8(_) => image,
        other if other.color().has_alpha() => {
            converted = other.to_rgba8().into();
            &converted
        }
        other => {
            converted = other.to_rgb8().into();
            &converted
        }
    };
    let layout = if image.color().has_alpha() { PixelLayout::Rgba } else { PixelLayout::Rgb };
    let mut config = WebPConfig::new().map_err(|()| failed("no configuration"))?;
    config.quality = QUALITY;
    config.method = METHOD;
    let encoder = Encoder::new(image.as_bytes(), layout, image.width(), image.height());
    let encoded = encoder.encode_advanced(&config).map_err(failed)?;
    Ok(encoded.to_vec())
}

fn failed(error: impl std::fmt::Debug) -> ThumbnailError {
    ThumbnailError::Damaged(format!("WebP could not be written: {error:?}"))
}
