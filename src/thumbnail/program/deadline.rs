//! Running a program until it ends, and no longer than it may.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use super::inside::ProgramCommand;
use crate::thumbnail::child::{self, Guarded};
use crate::thumbnail::error::ThumbnailError;

/// What a program is given.
pub(super) struct Streams {
    /// Its standard input.
    pub(super) source: File,
    /// Its standard output.
    pub(super) result: File,
    /// Its standard error: nowhere, unless it is what is wanted.
    pub(super) complaints: Stdio,
}

/// Has `own` lock itself in and become a program, and returns how it ended.
///
/// # Errors
///
/// At the deadline, when the program is killed, `TimedOut`, or `Unavailable` if others had the CPU most of
/// the time; `Io` if it cannot be started.
pub(super) fn run(
    own: &Path,
    command: &ProgramCommand,
    streams: Streams,
    deadline: Instant,
) -> Result<ExitStatus, ThumbnailError> {
    let timeout = deadline.saturating_duration_since(Instant::now());
    let mut process = child::command(own);
    process.args(command.words());
    process.stdin(streams.source).stdout(streams.result).stderr(streams.complaints);
    let mut running = Guarded::start(&mut process)?;
    if running.ends_by(deadline)? {
        return Ok(running.end()?);
    }
    match running.cpu_time() {
        Some(used) if used < timeout / 2 => Err(ThumbnailError::Unavailable),
        _ => Err(ThumbnailError::TimedOut),
    }
}
