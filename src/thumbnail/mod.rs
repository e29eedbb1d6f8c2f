//! Thumbnails: from the file of a picture and an asked size to a smaller picture.
//!
//! [`Ladder::snap`] decides which sizes exist, so that strangers cannot fill the disk with variants;
//! [`layout()`] decides which part of a source is shown at which size; [`render()`] reads, resizes and
//! writes; [`ThumbnailEngine`] bounds how much of that happens at once. The first two are pure.
//!
//! Nothing here knows who asks, where a file comes from, or what becomes of the result.

mod decode;
mod encode;
mod engine;
mod error;
mod format;
mod inspect;
mod job;
mod ladder;
mod layout;
mod limits;
mod render;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod samples;

pub use decode::prepare;
pub use engine::{Capacity, ThumbnailEngine, Urgency};
pub use error::ThumbnailError;
pub use format::is_supported;
pub use inspect::{Inspected, InspectedHeader, inspect};
pub use job::{Job, Rendered};
pub use ladder::{InvalidRung, Ladder, Rung};
pub use layout::{Area, Layout, layout};
pub use limits::Limits;
pub use render::render;
