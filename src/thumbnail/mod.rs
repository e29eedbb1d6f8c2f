//! Thumbnails: from the file of a picture and an asked size to a smaller picture.
//!
//! | rooms | what for |
//! |---|---|
//! | `ladder`, `layout` | which sizes exist, so that strangers cannot fill the disk with variants; which part of a source is shown at which size. Pure |
//! | `format`, `decode`, `render`, `motion`, `encode` | what a file is, by its first bytes; its pixels, at a reduced size where the format allows; from pixels to a thumbnail, still or moving. [`render()`] is the whole of it, and blocks |
//! | `worker`, `sandbox` | the process in which that happens: what it is told and answers, and the walls around it |
//! | `program` | ffmpeg and heif-convert, where they are installed, behind walls of their own |
//! | `engine` | [`ThumbnailEngine`] keeps the workers, and gives them what is asked for: bounded, clients first, one job for all who ask for the same content |
//!
//! Nothing here knows who asks, where a file comes from, or what becomes of the result.

mod child;
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
mod motion;
mod program;
mod render;
mod sandbox;
mod worker;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod samples;

pub use decode::prepare;
pub use engine::{
    Capacity, EngineSettings, Launch, ProcessSettings, ThumbnailEngine, Urgency, try_worker,
};
pub use error::ThumbnailError;
pub use format::is_supported;
pub use inspect::{Inspected, InspectedHeader, inspect};
pub use job::{Job, Rendered};
pub use ladder::{InvalidRung, Ladder, Rung};
pub use layout::{Area, Layout, layout};
pub use limits::Limits;
pub use program::{ProgramCommand, Programs, run_program};
pub use render::render;
pub use sandbox::{
    Confinement, ProbeCommand, ProgramConfinement, Report, confine, confine_program, probe,
};
pub use worker::protocol::MAX_SPECS;
pub use worker::{WorkerSettings, run as work};
