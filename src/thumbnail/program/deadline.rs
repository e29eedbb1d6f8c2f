//! Running a program until it ends, and no longer than it may.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::inside::ProgramCommand;
use crate::thumbnail::error::ThumbnailError;

/// A process that is killed and reaped when it is dropped.
struct Running(Child);

impl Running {
    fn end(&mut self) -> io::Result<ExitStatus> {
        // Of one that has ended already this does not change how.
        self.0.kill()?;
        self.0.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only what was reaped already cannot be.
        let _ = self.end();
    }
}

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
/// `TimedOut` at the deadline, when the program is killed; `Io` if it cannot be started.
pub(super) fn run(
    own: &Path,
    command: &ProgramCommand,
    streams: Streams,
    deadline: Instant,
) -> Result<ExitStatus, ThumbnailError> {
    let child = Command::new(own)
        .arg0("mediary")
        .args(command.words())
        // Nothing of ours is for the eyes of who takes it over.
        .env_clear()
        .current_dir("/")
        // What the terminal sends is for us, who end it in order.
        .process_group(0)
        .stdin(Stdio::from(streams.source))
        .stdout(Stdio::from(streams.result))
        .stderr(streams.complaints)
        .spawn()?;
    let mut running = Running(child);
    if !ends_by(&running.0, deadline)? {
        return Err(ThumbnailError::TimedOut);
    }
    Ok(running.end()?)
}

/// Waits until a process ends; returns whether that was in time.
fn ends_by(child: &Child, deadline: Instant) -> io::Result<bool> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut waited = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
