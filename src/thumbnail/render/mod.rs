//! The whole of one job: read, cut, resize, turn, write. Blocking and without shared state.
//!
//! [`Picture`] is the source, decoded once for all sizes that are asked. Whatever can wait is done on
//! the small pictures that are made of it: colours, turning, encoding.

mod color;
mod original;
mod picture;
mod plan;
mod resize;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe};

use image::RgbaImage;

use super::decode;
use super::encode::encode;
use super::error::ThumbnailError;
use super::job::{Job, Rendered};
use super::motion::{self, Film};
use crate::types::{ThumbnailEncoding, ThumbnailSpec};
use color::ToSrgb;
use original::Original;
use picture::Picture;
use plan::Plan;

/// Makes the thumbnails of a job, in the order of its `specs`.
///
/// The format is told by the first bytes, from a list. The pixels are counted before any is decoded.
/// The file is read from its start, wherever its position is.
///
/// A source that is not larger than asked is returned as it is (CS-TH-06), unless it moves and that
/// was not asked for, or is of a kind that thumbnails must not be: then it is made anew at its own size
/// (CS-TH-15, CS-TH-19, CS-HDR-07). So is a small source whose thumbnail would have more bytes than itself.
///
/// This takes time and memory in proportion to the source's pixels and blocks its thread.
///
/// # Errors
///
/// Any [`ThumbnailError`] but `Busy`; a panic of a decoder becomes `Panicked`.
pub fn render(source: File, job: &Job) -> Result<Vec<Rendered>, ThumbnailError> {
    guarded(|| render_unguarded(source, job))
}

/// Runs a job and turns its panic into an error.
pub(super) fn guarded<T>(
    job: impl FnOnce() -> Result<T, ThumbnailError>,
) -> Result<T, ThumbnailError> {
    // Everything that the job could leave half done is dropped with it.
    panic::catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|payload| Err(ThumbnailError::Panicked(message(payload.as_ref()))))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
        .to_owned()
}

fn render_unguarded(file: File, job: &Job) -> Result<Vec<Rendered>, ThumbnailError> {
    let length = (&file).seek(SeekFrom::End(0))?;
    let mut source = decode::open(file.try_clone()?, &job.limits)?;
    let original = Original::new(source.header(), length, job.is_extracted);
    let stored = original.size;
    let plans = job.specs.iter().map(|spec| (spec, plan::plan(spec, &original)));
    let plans: Vec<(&ThumbnailSpec, Plan)> = plans.collect();
    let to_srgb = source.color_profile().and_then(|profile| ToSrgb::parse(&profile));
    // Decoded even if the original is sent: what only starts like a picture is not passed off as one.
    let at_least = plan::decoded_size(plans.iter().map(|(_, plan)| plan), stored);
    // Those that move come first: their frames and the still picture are not in memory together, and
    // nobody may need the latter.
    let mut made = Vec::with_capacity(plans.len());
    for (spec, plan) in &plans {
        made.push(moving(&file, &original, *plan, job, spec, to_srgb.as_ref())?);
    }
    if made.iter().all(Option::is_some) {
        return Ok(made.into_iter().flatten().collect());
    }
    let picture = Picture::new(source.decode(at_least)?, stored)?;
    let still = |(spec, plan): (&ThumbnailSpec, Plan)| {
        let (crop, to) = match plan {
            Plan::Original => return Ok(original.rendered()),
            Plan::Resize { crop, to } => (crop, to),
        };
        let wants_planes = to_srgb.is_none() && spec.encoding == ThumbnailEncoding::Universal;
        let small = picture.thumbnail(crop, to, original.orientation, wants_planes)?;
        let small = small.into_srgb(to_srgb.as_ref()).turned(original.orientation);
        let made = encode(small, spec.encoding)?;
        Ok(original.or_better(made, crop, spec))
    };
    plans.into_iter().zip(made).map(|(plan, made)| made.map_or_else(|| still(plan), Ok)).collect()
}

/// Makes a moving thumbnail, where that is asked for and possible.
fn moving(
    file: &File,
    original: &Original,
    plan: Plan,
    job: &Job,
    spec: &ThumbnailSpec,
    to_srgb: Option<&ToSrgb>,
) -> Result<Option<Rendered>, ThumbnailError> {
    let (Plan::Resize { crop, to }, true) = (plan, spec.animated) else { return Ok(None) };
    let Some(format) = original.moving_format() else { return Ok(None) };
    let Original { size: canvas, orientation, bytes: length, .. } = *original;
    let film = Film { file, length, format, canvas, orientation };
    let in_srgb = |frame: RgbaImage| match to_srgb {
        Some(to_srgb) => to_srgb.convert(frame.into()).into_rgba8(),
        None => frame,
    };
    let made = motion::render(&film, (crop, to), in_srgb, job)?;
    Ok(made.map(|made| original.or_better(made, crop, spec)))
}
