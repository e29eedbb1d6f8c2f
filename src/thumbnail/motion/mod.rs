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

use super::decode::Header;
use super::error::ThumbnailError;
use super::job::{Job, Rendered};
use super::layout::Area;
use crate::types::{MovingEncoding, ThumbnailSize};
use shrink::Shrinker;
use strip::{Encoder, Strip};
use survey::Survey;

/// Makes the moving thumbnail of a source that says that it moves (CS-TH-14, CS-TH-17, CS-TH-18).
///
/// `crop` and `to` are the plan for the source as it is stored, before turning. The file is read by
/// position: where its cursor is does not matter, and is not changed.
///
/// Every frame is shown for as long as browsers show it in the source. Where nothing is gained by making it
/// anew, because the result would not be smaller in bytes, the answer is the original.
///
/// `None` asks for a still thumbnail instead: the source has one frame only, or more frames or pixels than
/// are allowed (threats IM-03), or is damaged before the second.
///
/// # Errors
///
/// `Io` if the file cannot be read. Whatever is wrong with the picture itself gives `None`, or a
/// thumbnail of the frames before the damage.
pub(super) fn render(
    file: &File,
    header: &Header,
    (crop, to): (Area, ThumbnailSize),
    job: &Job,
) -> Result<Option<Rendered>, ThumbnailError> {
    let survey = Survey::of(file, header.format, &job.limits)?;
    if !survey.moves_within(header.size, &job.limits) {
        return Ok(None);
    }
    let mut shrinker = Shrinker::new(crop, to, header.orientation);
    let Some(encoder) = encoder(job.moving, shrinker.shown_size(), &survey) else {
        return Ok(None);
    };
    let source_length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let original = Rendered::Original { content_type: header.format.content_type(true) };
    let mut strip = Strip::new(encoder);
    let Some(frames) = frames::open(file, header.format, &job.limits)? else { return Ok(None) };
    for frame in frames.take(survey.frames as usize) {
        let Some(frame) = frames::intact(frame)? else { break };
        let millis = delay::shown_millis(frame.delay());
        strip.push(shrinker.shrink(frame.into_buffer())?, millis)?;
        if strip.written() >= source_length {
            return Ok(Some(original));
        }
    }
    let Some(bytes) = strip.finish()? else { return Ok(None) };
    if bytes.len() >= source_length {
        return Ok(Some(original));
    }
    let content_type = match job.moving {
        MovingEncoding::WebP => "image/webp",
        MovingEncoding::Gif => "image/gif",
    };
    Ok(Some(Rendered::Encoded { bytes, content_type, size: shrinker.shown_size() }))
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
