//! One worker process as its keeper sees it: started, asked, and ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;
use rustix::time::Timespec;

use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::job::{Job, Rendered};
use crate::thumbnail::sandbox::Report;
use crate::thumbnail::worker::WorkerSettings;
use crate::thumbnail::worker::channel::{self, MAX_PACKET};
use crate::thumbnail::worker::protocol::{Answer, Used};

/// How long a worker may take until it is ready. It takes milliseconds; this is for a machine that is
/// all but standing still.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How many times the time that one job may take a worker may use the CPU, in all its life.
const CPU_TIMEOUTS: u32 = 10;

/// A worker that holds more than this after a job is replaced: it would hold it while it is idle.
const MAX_KEPT_MEMORY: u64 = 96 * 1024 * 1024;

/// How worker processes are started, and what each may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The program, which has the subcommand of workers: mostly this one.
    pub program: PathBuf,
    /// How long one job may take.
    pub timeout: Duration,
    /// How much memory a worker may take.
    pub memory_bytes: u64,
    /// After how many jobs it is replaced.
    pub jobs: u64,
}

impl ProcessSettings {
    /// Returns the path under which this program can be started, even after its file was replaced.
    pub fn own_program() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }

    fn cpu(&self) -> Duration {
        self.timeout.saturating_mul(CPU_TIMEOUTS)
    }
}

/// What came of a job.
pub(super) enum Asked {
    /// The worker answered.
    Answered(Result<Vec<Rendered>, ThumbnailError>),
    /// It was gone before it heard of the job.
    NotBegun,
    /// The job was its last.
    Lost(ThumbnailError),
}

/// A worker process; killed when it is dropped.
pub(super) struct Process {
    child: Child,
    socket: OwnedFd,
    jobs: u64,
    used: Used,
    buffer: Vec<u8>,
}

impl Process {
    /// Starts a process, and does not wait until it is ready.
    pub(super) fn start(settings: &ProcessSettings) -> io::Result<Self> {
        let (socket, theirs) = channel::pair()?;
        let told =
            WorkerSettings { memory: settings.memory_bytes, cpu: settings.cpu().as_secs().max(1) };
        let child = Command::new(&settings.program)
            .arg0("mediary")
            .args(told.arguments())
            // Nothing of ours is for the eyes of who takes it over.
            .env_clear()
            .current_dir("/")
            // What the terminal sends is for us, who end it in order.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let buffer = vec![0; MAX_PACKET];
        Ok(Self { child, socket, jobs: 0, used: Used::default(), buffer })
    }

    /// Waits until the process is ready, and returns how far it is locked in.
    pub(super) fn ready(&mut self) -> io::Result<Report> {
        if !is_readable_by(self.socket.as_fd(), Instant::now() + START_TIMEOUT)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not come up"));
        }
        match channel::receive(&self.socket, &mut self.buffer)? {
            Some(packet) => Ok(serde_json::from_slice(packet)?),
            None => Err(io::Error::other(format!("it ended at once, {}", self.end()?))),
        }
    }

    /// Has a job done, within the time that one may take.
    pub(super) fn ask(&mut self, job: &Job, source: &File, timeout: Duration) -> Asked {
        let deadline = Instant::now() + timeout;
        let body = match memfd_create("thumbnails", MemfdFlags::CLOEXEC) {
            Ok(body) => File::from(body),
            Err(error) => return Asked::Answered(Err(io::Error::from(error).into())),
        };
        let packet = match serde_json::to_vec(job) {
            Ok(packet) => packet,
            Err(error) => return Asked::Answered(Err(io::Error::from(error).into())),
        };
        if channel::send(&self.socket, &packet, &[source.as_fd(), body.as_fd()]).is_err() {
            return Asked::NotBegun;
        }
        self.jobs += 1;
        match is_readable_by(self.socket.as_fd(), deadline) {
            Ok(true) => self.hear(job, &body),
            Ok(false) => {
                // How it ends is known: by our hand.
                let _ = self.end();
                Asked::Lost(ThumbnailError::TimedOut)
            }
            Err(error) => Asked::Lost(error.into()),
        }
    }

    fn hear(&mut self, job: &Job, body: &File) -> Asked {
        let packet = match channel::receive(&self.socket, &mut self.buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Asked::Lost(self.end().map_or_else(Into::into, cause)),
            Err(error) => return Asked::Lost(ThumbnailError::Crashed(error.to_string())),
        };
        let believed = Answer::parse(packet).and_then(|answer| {
            self.used = answer.used;
            answer.believe(job, body)
        });
        match believed {
            Ok(outcome) => Asked::Answered(outcome),
            Err(disbelief) => Asked::Lost(ThumbnailError::Crashed(disbelief.to_string())),
        }
    }

    /// Whether it should be replaced before long: it has done its part, has got too large, or one more
    /// job could use up its CPU time.
    pub(super) fn is_worn(&self, settings: &ProcessSettings) -> bool {
        self.jobs >= settings.jobs
            || self.used.memory_bytes > MAX_KEPT_MEMORY
            || self.used.cpu.saturating_add(settings.timeout) >= settings.cpu()
    }

    /// Returns what becomes readable when the process speaks or ends.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Ends the process if it has not ended yet, and returns how it ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // Of one that has begun to end this does not change how.
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only what was reaped already cannot be.
        let _ = self.end();
    }
}

/// What a death in the middle of a job says of the picture.
fn cause(status: ExitStatus) -> ThumbnailError {
    let signal = status.signal();
    let is = |known: Signal| signal == Some(known.as_raw());
    if is(Signal::XCPU) {
        ThumbnailError::TimedOut
    } else if is(Signal::ABORT) || is(Signal::XFSZ) {
        // Rust aborts where an allocation fails.
        ThumbnailError::OutOfMemory
    } else {
        ThumbnailError::Crashed(status.to_string())
    }
}

/// Waits until something can be read, or it ended; returns whether that was in time.
fn is_readable_by(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut waited = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts one worker and ends it again.
///
/// # Errors
///
/// It cannot be started.
pub fn try_worker(settings: &ProcessSettings) -> io::Result<Report> {
    Process::start(settings)?.ready()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended_by(signal: Signal) -> ThumbnailError {
        cause(ExitStatus::from_raw(signal.as_raw()))
    }

    #[test]
    fn how_a_worker_dies_says_why() {
        assert!(matches!(ended_by(Signal::XCPU), ThumbnailError::TimedOut));
        assert!(matches!(ended_by(Signal::ABORT), ThumbnailError::OutOfMemory));
        assert!(matches!(ended_by(Signal::XFSZ), ThumbnailError::OutOfMemory));
        for signal in [Signal::SEGV, Signal::SYS, Signal::KILL, Signal::BUS] {
            assert!(matches!(ended_by(signal), ThumbnailError::Crashed(_)), "{signal:?}");
        }
        assert!(matches!(cause(ExitStatus::from_raw(0)), ThumbnailError::Crashed(_)));
    }

    fn settings(program: &str) -> ProcessSettings {
        ProcessSettings {
            program: PathBuf::from(program),
            timeout: Duration::from_secs(1),
            memory_bytes: 1 << 30,
            jobs: 1,
        }
    }

    #[test]
    fn what_is_no_worker_is_not_taken_for_one() {
        assert!(try_worker(&settings("/nonexistent")).is_err());
        let error = try_worker(&settings("/bin/true")).expect_err("it says nothing");
        assert!(error.to_string().contains("ended at once"), "{error}");
    }
}
