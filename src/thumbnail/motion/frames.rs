//! The composed frames of an animation, one after another.

use std::io::{self, BufReader};

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, Frame, Frames, ImageDecoder, ImageError, ImageResult};

use super::Film;
use super::positioned::Positioned;
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::format::Format;
use crate::thumbnail::limits::Limits;

/// How many pictures of the source's size its decoder holds, with the one that it gives away.
pub(super) const PICTURES_HELD: u64 = 4;

/// Opens the frames of an animation, or `None` where that cannot be done.
///
/// # Errors
///
/// `Io` if the file cannot be read.
pub(super) fn open<'a>(
    film: &Film<'a>,
    limits: &Limits,
) -> Result<Option<Frames<'a>>, ThumbnailError> {
    let reader = BufReader::with_capacity(32 * 1024, Positioned::new(film));
    let frames = match film.format {
        Format::Gif => gif(reader, limits),
        Format::Png => png(reader, limits),
        Format::WebP => WebPDecoder::new(reader).map(WebPDecoder::into_frames),
        _ => return Ok(None),
    };
    unless_damaged(frames)
}

fn gif<'a>(reader: BufReader<Positioned<'a>>, limits: &Limits) -> ImageResult<Frames<'a>> {
    let mut decoder = GifDecoder::new(reader)?;
    decoder.set_limits(for_all_frames(limits))?;
    Ok(decoder.into_frames())
}

fn png<'a>(reader: BufReader<Positioned<'a>>, limits: &Limits) -> ImageResult<Frames<'a>> {
    let mut decoder = PngDecoder::with_limits(reader, limits.for_png_header())?;
    decoder.set_limits(for_all_frames(limits))?;
    Ok(decoder.apng()?.into_frames())
}

fn for_all_frames(limits: &Limits) -> image::Limits {
    let mut all = limits.for_decoding();
    all.max_alloc = all.max_alloc.map(|bytes| bytes.saturating_mul(PICTURES_HELD));
    all
}

/// Returns a frame, or `None` where the picture is damaged, or uses more than it may.
///
/// # Errors
///
/// `Io` if the file cannot be read.
pub(super) fn intact(frame: ImageResult<Frame>) -> Result<Option<Frame>, ThumbnailError> {
    unless_damaged(frame)
}

fn unless_damaged<T>(outcome: ImageResult<T>) -> Result<Option<T>, ThumbnailError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(ImageError::IoError(error)) if is_of_the_disk(&error) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Decoders invent errors of input and output for bad bytes, but none with a number of the system.
fn is_of_the_disk(error: &io::Error) -> bool {
    error.raw_os_error().is_some()
}
