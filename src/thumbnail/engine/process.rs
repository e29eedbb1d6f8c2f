//! One worker process as its keeper sees it: started, asked, and ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;

use crate::thumbnail::child::{self, Guarded, is_ready_by};
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

/// How long a worker may take to end that has closed its socket.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// What the allocator of workers is told: to give back addresses, not only memory, since the limit counts
/// those. Else a worker that has made pictures of 30 and of 40 megapixels has no room for one of 50.
const ALLOCATOR: (&str, &str) = ("_RJEM_MALLOC_CONF", "retain:false");

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
    /// Whether a worker that is not wholly locked in is given no job.
    pub wholly: bool,
}

impl ProcessSettings {
    /// Returns the path under which this program can be started, even after its file was replaced.
    pub fn own_program() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }

    /// In whole seconds, as the kernel counts.
    fn cpu(&self) -> Duration {
        let cpu = self.timeout.saturating_mul(CPU_TIMEOUTS);
        Duration::from_secs(cpu.as_secs().saturating_add(u64::from(cpu.subsec_nanos() > 0)).max(1))
    }
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Asked {
    /// The worker answered.
    Answered(Result<Vec<Rendered>, ThumbnailError>),
    /// It was gone before it heard of the job.
    NotBegun,
    /// Somebody else killed it over the job, which says nothing of the picture.
    Killed,
    /// The job had no share of the CPU that a picture could be judged by; it was its last.
    Overloaded,
    /// The job was its last.
    Lost(ThumbnailError),
}

/// A worker process; killed when it is dropped.
pub(super) struct Process {
    guarded: Guarded,
    socket: OwnedFd,
    started: Instant,
    cpu_limit: Duration,
    jobs: u64,
    used: Used,
    buffer: Vec<u8>,
}

impl Process {
    /// Starts a process, and does not wait until it is ready.
    pub(super) fn start(settings: &ProcessSettings) -> io::Result<Self> {
        let (socket, theirs) = channel::pair()?;
        let told = WorkerSettings { memory: settings.memory_bytes, cpu: settings.cpu().as_secs() };
        let mut command = child::command(&settings.program);
        command.args(told.arguments()).env(ALLOCATOR.0, ALLOCATOR.1);
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let guarded = Guarded::start(&mut command)?;
        let (started, buffer) = (Instant::now(), vec![0; MAX_PACKET]);
        let (cpu_limit, used) = (settings.cpu(), Used::default());
        Ok(Self { guarded, socket, started, cpu_limit, jobs: 0, used, buffer })
    }

    /// By when it has to be ready.
    pub(super) fn start_deadline(&self) -> Instant {
        self.started + START_TIMEOUT
    }

    /// Waits until the process is ready, and returns how far it is locked in.
    pub(super) fn ready(&mut self) -> io::Result<Report> {
        if !is_ready_by(&self.socket, self.start_deadline())? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not come up"));
        }
        match channel::receive(&self.socket, &mut self.buffer)? {
            Some(packet) => Ok(serde_json::from_slice(packet)?),
            None => Err(io::Error::other(format!("it ended at once, {}", self.guarded.end()?))),
        }
    }

    /// Has a job done, within the time that one may take.
    pub(super) fn ask(&mut self, job: &Job, source: &File, timeout: Duration) -> Asked {
        let body = match memfd_create("thumbnails", MemfdFlags::CLOEXEC) {
            Ok(body) => File::from(body),
            Err(error) => return Asked::Answered(Err(io::Error::from(error).into())),
        };
        let packet = match serde_json::to_vec(job) {
            Ok(packet) => packet,
            Err(error) => return Asked::Answered(Err(io::Error::from(error).into())),
        };
        let deadline = Instant::now() + timeout;
        if channel::send(&self.socket, &packet, &[source.as_fd(), body.as_fd()]).is_err() {
            return Asked::NotBegun;
        }
        self.jobs += 1;
        let asked = match is_ready_by(&self.socket, deadline) {
            Ok(true) => self.hear(job, &body),
            Ok(false) => self.late(timeout),
            Err(error) => Asked::Lost(error.into()),
        };
        // A worker that was taken over may keep its end of it, but nothing in it.
        let _ = body.set_len(0);
        asked
    }

    fn hear(&mut self, job: &Job, body: &File) -> Asked {
        let packet = match channel::receive(&self.socket, &mut self.buffer) {
            Ok(Some(packet)) => packet,
            Ok(None) => return self.ended(),
            // So ends the socket of one that has not read what it was sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return self.ended(),
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

    /// Ends the process at its deadline.
    fn late(&mut self, timeout: Duration) -> Asked {
        // Since its last answer it has waited, and then done this.
        let now = self.guarded.cpu_time();
        // How it ends is known: by our hand.
        let _ = self.guarded.end();
        let used = now.map(|now| now.saturating_sub(self.used.cpu));
        late(used, timeout)
    }

    /// Says what its end in the middle of a job is to be put down to.
    fn ended(&mut self) -> Asked {
        match self.guarded.ends_by(Instant::now() + END_TIMEOUT) {
            Ok(true) => {}
            Ok(false) => {
                let error = "it closed its socket and went on".to_owned();
                return Asked::Lost(ThumbnailError::Crashed(error));
            }
            Err(error) => return Asked::Lost(error.into()),
        }
        let is_used_up = self.guarded.cpu_time().is_some_and(|used| used >= self.cpu_limit);
        match self.guarded.end() {
            Ok(status) => cause(status, is_used_up),
            Err(error) => Asked::Lost(error.into()),
        }
    }

    /// Whether it should be replaced before long: it has done its part, or has got too large.
    pub(super) fn is_worn(&self, settings: &ProcessSettings) -> bool {
        self.jobs >= settings.jobs
            || self.used.memory_bytes > MAX_KEPT_MEMORY
            || self.used.grown_bytes > settings.memory_bytes / 4
    }

    /// Whether one more job could use up its CPU time.
    pub(super) fn is_exhausted(&self, settings: &ProcessSettings) -> bool {
        self.used.cpu.saturating_add(settings.timeout.saturating_mul(2)) >= settings.cpu()
    }

    /// Whether it had done other jobs before its last one.
    pub(super) fn has_a_past(&self) -> bool {
        self.jobs > 1
    }

    /// Returns what becomes readable when the process speaks or ends.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What a deadline says that passed. It is wall clock, and others go before a worker: only one that had
/// the CPU for half of the time has shown that the picture takes too long. So is one taken whose time the
/// kernel does not show.
fn late(used: Option<Duration>, timeout: Duration) -> Asked {
    match used {
        Some(used) if used < timeout / 2 => Asked::Overloaded,
        _ => Asked::Lost(ThumbnailError::TimedOut),
    }
}

/// What a death in the middle of a job says of the picture; `used_up` is whether the process had used all
/// of its CPU time.
fn cause(status: ExitStatus, used_up: bool) -> Asked {
    let signal = status.signal();
    let is = |known: Signal| signal == Some(known.as_raw());
    // What the system or its administrator sends: no code of a picture gets to send one.
    let is_from_outside =
        [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP].into_iter().any(is);
    if is(Signal::XCPU) || (is(Signal::KILL) && used_up) {
        Asked::Lost(ThumbnailError::TimedOut)
    } else if is_from_outside {
        Asked::Killed
    } else if is(Signal::ABORT) || is(Signal::XFSZ) {
        // Rust aborts where an allocation fails.
        Asked::Lost(ThumbnailError::OutOfMemory)
    } else {
        Asked::Lost(ThumbnailError::Crashed(status.to_string()))
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

    fn ended_by(signal: Signal) -> Asked {
        cause(ExitStatus::from_raw(signal.as_raw()), false)
    }

    #[test]
    fn how_a_worker_dies_says_why() {
        assert!(matches!(ended_by(Signal::XCPU), Asked::Lost(ThumbnailError::TimedOut)));
        assert!(matches!(ended_by(Signal::ABORT), Asked::Lost(ThumbnailError::OutOfMemory)));
        assert!(matches!(ended_by(Signal::XFSZ), Asked::Lost(ThumbnailError::OutOfMemory)));
        for signal in [Signal::SEGV, Signal::SYS, Signal::BUS] {
            let asked = ended_by(signal);
            assert!(matches!(asked, Asked::Lost(ThumbnailError::Crashed(_))), "{signal:?}");
        }
        let by_itself = cause(ExitStatus::from_raw(0), false);
        assert!(matches!(by_itself, Asked::Lost(ThumbnailError::Crashed(_))));
    }

    #[test]
    fn a_worker_that_others_kill_says_nothing_of_the_picture() {
        for signal in [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP] {
            assert!(matches!(ended_by(signal), Asked::Killed), "{signal:?}");
        }
        let used_up = cause(ExitStatus::from_raw(Signal::KILL.as_raw()), true);
        assert!(matches!(used_up, Asked::Lost(ThumbnailError::TimedOut)));
    }

    #[test]
    fn only_who_had_the_cpu_for_half_of_the_time_took_too_long() {
        let timeout = Duration::from_secs(2);
        for milliseconds in [0, 1, 999] {
            let asked = late(Some(Duration::from_millis(milliseconds)), timeout);
            assert!(matches!(asked, Asked::Overloaded), "{milliseconds} ms");
        }
        for used in [Some(Duration::from_secs(1)), Some(Duration::MAX), None] {
            let asked = late(used, timeout);
            assert!(matches!(asked, Asked::Lost(ThumbnailError::TimedOut)), "{used:?}");
        }
    }

    fn settings(program: &str) -> ProcessSettings {
        ProcessSettings {
            program: PathBuf::from(program),
            timeout: Duration::from_secs(1),
            memory_bytes: 1 << 30,
            jobs: 1,
            wholly: false,
        }
    }

    #[test]
    fn what_is_no_worker_is_not_taken_for_one() {
        assert!(try_worker(&settings("/nonexistent")).is_err());
        let error = try_worker(&settings("/bin/true")).expect_err("it says nothing");
        assert!(error.to_string().contains("ended at once"), "{error}");
    }
}
