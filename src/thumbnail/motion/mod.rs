//! Moving thumbnails: the frames of an animation, each made smaller, as an animated WebP or GIF.
//!
//! Frames pass through one by one: composed, cut, resized and turned, then written as the rectangle that
//! differs from the frame before. What is in memory at once is a few frames of the source's size, a few of
//! the thumbnail's, and what has been written.

mod change;
mod delay;
mod frames;
mod gif;
mod palette;
mod positioned;
mod shrink;
mod strip;
mod survey;
mod webp;

#[cfg(test)]
mod tests;

use std::fs::File;

use image::RgbaImage;
use image::metadata::Orientation;

use super::error::ThumbnailError;
use super::format::Format;
use super::job::{Job, Rendered};
use super::layout::Area;
use crate::types::{MovingEncoding, ThumbnailSize};
use shrink::Shrinker;
use strip::{Encoder, Strip};
use survey::Survey;

/// A source that says that it moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Film<'a> {
    /// Read by position: where its cursor is does not matter, and is not changed.
    pub(super) file: &'a File,
    /// How many bytes it has.
    pub(super) length: u64,
    pub(super) format: Format,
    /// Its size as it is stored, before turning.
    pub(super) canvas: ThumbnailSize,
    /// How it is to be turned.
    pub(super) orientation: Orientation,
}

/// Makes the moving thumbnail of a source (CS-TH-14, CS-TH-17, CS-TH-18).
///
/// The plan is what is shown, and how large, of the source as it is stored. `in_srgb` converts the colours of
/// a frame that has its final size. Every frame is shown for as long as browsers show it in the source.
///
/// `None` asks for a still thumbnail instead: the source has one frame only, or more frames or pixels than
/// are allowed (threats IM-03), or is damaged before the second.
///
/// # Errors
///
/// `Io` if the file cannot be read. Whatever is wrong with the picture itself gives `None`, or a
/// thumbnail of the frames before the damage.
pub(super) fn render(
    film: &Film<'_>,
    (crop, to): (Area, ThumbnailSize),
    in_srgb: impl Fn(RgbaImage) -> RgbaImage,
    job: &Job,
) -> Result<Option<Rendered>, ThumbnailError> {
    let survey = Survey::of(film, &job.limits)?;
    if !survey.moves_within(film.canvas, &job.limits) {
        return Ok(None);
    }
    let mut shrinker = Shrinker::new(crop, to, film.orientation);
    let size = shrinker.shown_size();
    let Some(encoder) = encoder(job.moving, size, &survey) else { return Ok(None) };
    let Some(frames) = frames::open(film, &job.limits)? else {
        return Ok(None);
    };
    let mut strip = Strip::new(encoder);
    for frame in frames.take(survey.frames as usize) {
        let Some(frame) = frames::intact(frame)? else { break };
        let millis = delay::shown_millis(frame.delay());
        strip.push(in_srgb(shrinker.shrink(frame.into_buffer())?), millis)?;
    }
    let content_type = match job.moving {
        MovingEncoding::WebP => "image/webp",
        MovingEncoding::Gif => "image/gif",
    };
    let encoded = |bytes| Rendered::Encoded { bytes, content_type, size };
    Ok(strip.finish()?.map(encoded))
}

/// Returns the encoder, unless the format cannot express the size.
fn encoder(
    moving: MovingEncoding,
    size: ThumbnailSize,
    survey: &Survey,
) -> Option<Box<dyn Encoder>> {
    Some(match moving {
        MovingEncoding::WebP => Box::new(webp::WebPEncoder::new(size, survey.plays)?),
        MovingEncoding::Gif => Box::new(gif::GifEncoder::new(size, survey.plays)?),
    })
}
